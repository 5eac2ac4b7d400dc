"""Where a streaming export gets its rows from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from kinesis_nb.growing import GrowingTable
    from kinesis_nb.journal import Journal
    from kinesis_nb.tail import Tail
    from kinesis_nb.transport import Clock

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


class TableFeeder:
    """Rows of a synced table that the journal does not know as done, within a time range."""

    dropped = 0

    def __init__(
        self,
        table: GrowingTable,
        journal: Journal,
        start: datetime | None,
        end: datetime | None,
        number: Number,
        clock: Clock,
    ) -> None:
        self._table, self._journal, self._start, self._end = table, journal, start, end
        self._number, self._clock = number, clock
        self.is_over = False

    def parts(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield what is new in the table now."""
        began = self._clock.now()
        for band in self._table.bands(self._journal.low()):
            rows = self._within(band.filter(pl.Series(self._journal.pending(band), dtype=pl.Boolean)))
            if rows.height:
                first_row = self._number(rows.height)
                self._journal.queue(first_row, rows["shard_id"].to_list(), rows["shard_offset"].to_list())
                yield rows, first_row
        self.is_over = self._end is not None and began >= self._end

    def _within(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the time range; those outside are done with."""
        outside = pl.lit(value=False)
        if self._start is not None:
            outside |= pl.col(_TIME) < self._start
        if self._end is not None:
            outside |= pl.col(_TIME) > self._end
        out = rows.filter(outside)
        for (shard_id,), part in out.group_by("shard_id"):
            self._journal.skip(str(shard_id), part["shard_offset"].to_list())
        return rows.filter(~outside)


class TailFeeder:
    """Rows taken out of a running tail."""

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
