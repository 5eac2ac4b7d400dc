"""Docstrings for the site: the roles of Sphinx, which help and editors show well enough, become links of Markdown.

An extension of griffe, see mkdocs.yml.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

import kinesis_nb as kn

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?([\w.]+)`")
_METHODS_OF = "kinesis_nb.source.Source"


class Roles(griffe.Extension):
    """Rewrite docstrings as they are loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object of the package."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value)


def _link(role: re.Match[str]) -> str:
    """Return a link to what has a page, else code."""
    parts = role[1].removeprefix("kinesis_nb.").split(".")
    for place, name in enumerate(parts):
        if name in kn.__all__:
            home = f"{getattr(kn, name).__module__}.{'.'.join(parts[place:])}"
            return f"[`{'.'.join(parts[place:])}`][{home}]"
    if len(parts) == 1 and hasattr(kn.Source, parts[0]):
        return f"[`{parts[0]}`][{_METHODS_OF}.{parts[0]}]"
    return f"`{parts[-1]}`"
