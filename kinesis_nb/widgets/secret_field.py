"""A box for a secret that is kept by the kernel and by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anywidget
import traitlets

from kinesis_nb.access.credentials import Secret
from kinesis_nb.widgets.assets import source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST = 65_536  # bytes; anything longer is not a key


class SecretField(anywidget.AnyWidget):
    """A box for a secret.

    The value of an ordinary password box is widget state: it ends in the saved notebook. What is typed here comes as a
    custom message, which nothing keeps; the box empties itself once the kernel has the text.

    Attributes
    ----------
    secret
        The text, as :class:`~kinesis_nb.Secret`; None before there is one. Not part of the widget's state,
        but it can be observed.
    note
        What is shown beside the box; it must not hold the secret.
    masked
        Whether the box shows dots instead of what is typed.
    """

    _esm = source("secret_field.js")
    _css = source("secret_field.css")

    description = traitlets.Unicode("Secret").tag(sync=True)
    placeholder = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    masked = traitlets.Bool(default_value=True).tag(sync=True)
    disabled = traitlets.Bool(default_value=False).tag(sync=True)
    is_set = traitlets.Bool(default_value=False).tag(sync=True)
    secret = traitlets.Instance(Secret, allow_none=True)

    def __init__(self, **state: object) -> None:
        super().__init__(**state)
        self.on_msg(self._heard)

    def _heard(self, _field: object, content: Mapping[str, object], buffers: Sequence[memoryview]) -> None:
        match content:
            case {"kind": "secret", "view": view, "number": number} if buffers and len(buffers[0]) <= _MOST:
                self.secret = Secret(bytes(buffers[0]).decode("utf-8", "replace"))
                self.send({"kind": "kept", "view": view, "number": number})
            case {"kind": "forget"}:
                self.secret = None
            case _:
                pass

    @traitlets.observe("secret")
    def _show(self, _change: object) -> None:
        self.is_set = self.secret is not None
        self.note = "set" if self.is_set else ""

    def __repr__(self) -> str:
        return f"<SecretField {self.description}: {'set' if self.is_set else 'not set'}>"
