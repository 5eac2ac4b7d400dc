"""A front end without a browser: it opens widgets, changes them as a browser does, and keeps all that it was told."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comm
import ipywidgets as W  # noqa: N812

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class FrontEnd:
    """Every message that the kernel sends, and the way to answer."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def comm(self, **options: Any) -> comm.base_comm.BaseComm:
        messages = self.messages

        class Comm(comm.base_comm.BaseComm):
            def publish_msg(
                self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
            ) -> None:
                told = {"data": data, "metadata": metadata, "buffers": buffers, **keys}
                messages.append({"msg_type": msg_type, "comm_id": self.comm_id, **told})

        return Comm(**options)

    def set(self, widget: W.Widget, **state: Any) -> None:
        """Change a widget as a browser does."""
        self._tell(widget, {"method": "update", "state": state, "buffer_paths": []})

    def send(self, widget: W.Widget, content: dict[str, Any], *buffers: bytes) -> None:
        """Send a custom message."""
        self._tell(widget, {"method": "custom", "content": content}, *buffers)

    def click(self, button: W.Button) -> None:
        self.send(button, {"event": "click"})

    def type_secret(self, field: W.Widget, text: str) -> None:
        self.send(field, {"kind": "secret", "view": "a", "number": 1}, text.encode())

    def _tell(self, widget: W.Widget, data: dict[str, Any], *buffers: bytes) -> None:
        assert isinstance(widget.comm, comm.base_comm.BaseComm)
        widget.comm.handle_msg({"content": {"data": data}, "buffers": [memoryview(one) for one in buffers]})


@contextmanager
def front_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    """Take the place of the kernel's connection; what was opened is closed at the end."""
    end = FrontEnd()
    monkeypatch.setattr(comm, "create_comm", end.comm)
    try:
        yield end
    finally:
        W.Widget.close_all()


def shown(widget: W.Widget) -> str:
    """Return all the HTML in a widget and below it that is not hidden."""
    if isinstance(widget, W.DOMWidget) and widget.layout.display == "none":
        return ""
    if isinstance(widget, W.HTML):
        return widget.value
    return "\n".join(shown(child) for child in getattr(widget, "children", ()))
