"""Where the kernel handles what a front end says to a widget."""

from __future__ import annotations

from typing import Any


def serve_while_busy(widget: Any) -> None:
    """Let the front end choose who handles what it says to a widget and to all that is in it.

    JupyterLab has messages of widgets handled by a subshell of the kernel, a thread of its own, so a click counts while
    a cell runs. ipykernel 7.4 overrules it: the reply goes to the shell that last spoke to the widget, which is the
    busy one. That serves callbacks which await an event loop; ours do not. Earlier versions do not ask, and a kernel
    without subshells gives None as the default.
    """
    widget.comm._reply_subshell_for = _as_asked  # noqa: SLF001 - ipykernel looks it up by this name
    for child in getattr(widget, "children", ()):
        serve_while_busy(child)


def _as_asked(_data: object, chosen_by_front_end: str | None) -> str | None:
    return chosen_by_front_end
