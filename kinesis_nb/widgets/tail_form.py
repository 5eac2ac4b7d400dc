"""Following a stream, from a form; what comes is shown by a TailView."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.core.position import Kind
from kinesis_nb.core.types import OnFull
from kinesis_nb.errors import ConfigError
from kinesis_nb.reading.buffer import Buffer
from kinesis_nb.source import Source
from kinesis_nb.widgets.base import Action, Field, Form, heading
from kinesis_nb.widgets.code import Arguments, call_code
from kinesis_nb.widgets.own_tail import OwnTailPlace, start_own, stop_soon
from kinesis_nb.widgets.run_form import changed, choice, defaults, position, proposals, stream_field

if TYPE_CHECKING:
    from kinesis_nb.reading.tail import Tail

_USUAL = defaults(Source.tail)
_STARTS = ("latest", "trim_horizon", "-5m", "-1h")


class TailForm(Form):
    """Start a tail; the view below it pauses and stops it, and starting another one stops it too.

    Attributes
    ----------
    tail
        The tail that was started last, or None.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tail: Tail | None = None
        self._view = OwnTailPlace()
        fields = _fields(source)
        actions = [
            Action("Start", self._start, lambda: self.problem, primary=True),
            Action("Code", lambda: self.show_code(self.to_code), lambda: self.problem),
        ]
        super().__init__(fields, [heading("New tail", 3), *fields.values()], actions, "tail form", [self._view])
        self.offer_streams(source, "stream")

    def _options(self) -> Arguments:
        return changed({name: field.value for name, field in self.fields.items() if name in _USUAL}, _USUAL)

    def _start(self) -> None:
        stream, options = self.fields["stream"].value, self._options()
        self.do("Starting …", lambda: start_own(self.source, stream, options), self._started, stop_soon)

    def _started(self, tail: Tail) -> None:
        self.tail = tail
        self.show("")
        self._view.put_tail(tail)

    def leave(self) -> None:
        """Stop the tail: the form goes, and with it what stops it."""
        self._view.clear()

    def to_code(self) -> str:
        """Return the cell that replaces the form, for a source in the variable ``source``."""
        if self.problem:
            raise ConfigError(self.problem, hint="fix it in the form")
        return call_code("tail = source.tail", [self.fields["stream"].value], self._options()) + "\ntail.view()\n"


def _fields(source: Source) -> dict[str, Field]:
    rows = W.IntText(_USUAL["max_rows"], step=10_000)
    return {
        "stream": stream_field(source),
        "start": Field("Start", proposals(_STARTS, _USUAL["start"]), _check_start, is_required=True),
        "max_rows": Field("Rows to hold", rows, lambda rows: Buffer(rows, _USUAL["max_bytes"], _USUAL["on_full"])),
        "on_full": Field("When full", choice(get_args(OnFull), _USUAL["on_full"])),
    }


def _check_start(text: str) -> None:
    if position(text).kind is Kind.AFTER_SEQUENCE_NUMBER:
        raise ConfigError("a sequence number is a place in one shard", hint='use "latest" or a time')
