"""A tail that a form has started: the form's own, whatever else the user follows, and stopped when its view goes."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.widgets.routing import serve_while_busy
from kinesis_nb.widgets.tail_view import TailView

if TYPE_CHECKING:
    from kinesis_nb.reading.tail import Tail
    from kinesis_nb.source import Source
    from kinesis_nb.widgets.code import Arguments


def start_own(source: Source, stream: str, options: Arguments) -> Tail:
    """Start a tail that replaces no other one: neither one of a cell's nor one of another form's."""
    return source.tail(stream, **options, name=f"a form's {uuid.uuid4().hex}")


def stop_soon(tail: Tail | None) -> None:
    """Have a tail stopped by a thread, because it may take a second; returns at once."""
    if tail is None:  # it did not even start
        return
    threading.Thread(target=tail.stop, name="kinesis_nb stop", daemon=True).start()


class OwnTailPlace(W.VBox):
    """Where a form shows the tail that it has started, or something else in its place.

    A tail is stopped when its view goes: nobody could stop it afterwards.
    """

    def put_tail(self, tail: Tail) -> None:
        """Show a tail of :func:`start_own`."""
        self.put(TailView(tail))

    def put(self, view: W.Widget) -> None:
        """Show this, and nothing else."""
        self.clear()
        self.children = [view]
        serve_while_busy(self)

    def clear(self) -> None:
        """Show nothing."""
        gone, self.children = self.children, []
        for view in gone:
            if isinstance(view, TailView):
                view.close()
                stop_soon(view.tail)
