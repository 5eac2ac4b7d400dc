"""Where a streaming export gets its rows from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from kinesis_nb.core.transport import Clock
    from kinesis_nb.exporting.follow import GrowingTable
    from kinesis_nb.exporting.journal import Journal
    from kinesis_nb.reading.tail import Tail

    Number = Callable[[int], int]
    """Gives the number of the first of so many rows."""

TAIL_ROWS, TAIL_SECONDS = 5_000, 0.5  # taken out of a tail at once, and how long to wait for them
_TIME = "kinesis_ingestion_timestamp"


class Feeder(Protocol):
    """Where the rows come from."""

    def parts(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield rows with the number of the first one; ends when nothing new is there now."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more will ever come."""
        ...

    @property
    def dropped(self) -> int:
        """Rows that were lost before they could be sent."""
        ...

    @property
    def waits_for(self) -> str:
        """What has to come before it is over, where that is known."""
        ...


class TableFeeder:
    """Rows of a synced table that were not taken yet, within a time range.

    Attributes
    ----------
    waits_for
        What has to come before it is over; empty while nothing is known, and without an end.
    """

    dropped = 0

    def __init__(
        self,
        table: GrowingTable,
        journal: Journal,
        start: datetime | None,
        end: datetime | None,
        number: Number,
        clock: Clock,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        self._table, self._journal, self._start, self._end = table, journal, start, end
        self._number, self._clock, self._hurry = number, clock, hurry
        self.is_over = False
        self.waits_for = ""

    def parts(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield what is new in the table now."""
        began = self._clock.now()
        for band in self._table.bands(self._journal.high()):
            rows, first_row = self._journal.take(band, self._is_within(), self._number)
            if rows.height:
                yield rows, first_row
        if self._end is not None:
            self._check_end(self._end, began)

    def _check_end(self, end: datetime, began: datetime) -> None:
        """Find out whether rows of the time range may still come: the table says what its sync has read."""
        if not self._table.origin.stream_arn:  # nobody syncs it
            self.is_over = began >= end
            return
        seen = self._table.seen()
        self.is_over = seen is not None and seen > end
        if self.is_over:
            self.waits_for = ""
            return
        until = "nothing" if seen is None else f"the stream up to {seen:%Y-%m-%d %H:%M:%S} UTC"
        self.waits_for = f"the sync of the table, which has read {until}"
        self._hurry()

    def _is_within(self) -> pl.Expr:
        inside = pl.lit(value=True)
        if self._start is not None:
            inside &= pl.col(_TIME) >= self._start
        if self._end is not None:
            inside &= pl.col(_TIME) <= self._end
        return inside


class TailFeeder:
    """Rows taken out of a running tail."""

    waits_for = ""

    def __init__(self, tail: Tail, number: Number) -> None:
        self._tail, self._number = tail, number
        self._dropped_before = self._count_dropped()

    def parts(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield what the tail holds now."""
        while len(rows := self._tail.take(TAIL_ROWS, timeout=TAIL_SECONDS)):
            yield rows.to_polars(), self._number(len(rows))

    @property
    def is_over(self) -> bool:
        """Whether the tail was stopped, and everything is taken out of it."""
        return self._tail.state in {"stopped", "ended"} and not len(self._tail)

    @property
    def dropped(self) -> int:
        """Rows that the tail had no room for before they were taken."""
        return self._count_dropped() - self._dropped_before

    def _count_dropped(self) -> int:
        return sum(self._tail.stats().buffer.dropped.values())
