"""The JavaScript and CSS of the widgets."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files

_NOT_NEEDED = re.compile(r"^[ \t]+|^[ \t]*(?://.*|/\*\*.*\*/)\n", re.MULTILINE)


def loader(script: str) -> str:
    """Return what loads a script from the kernel, once for each page."""
    return source("loader.js").replace("SCRIPT", json.dumps(hashlib.sha256(script.encode()).hexdigest()[:16]))


def source(*names: str) -> str:
    """Return files of this folder without comments and indents, because notebooks are saved with them."""
    text = "\n".join(files(__package__ or "").joinpath(name).read_text(encoding="utf-8") for name in names)
    return _NOT_NEEDED.sub("", text)
