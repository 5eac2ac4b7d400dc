"""What a streaming export reads: a synced table or a tail, and how its new rows come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Protocol, TypeGuard

import polars as pl

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.errors import ConfigError
from kinesis_nb.reading.tail import Tail
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kinesis_nb.core.transport import Clock
    from kinesis_nb.exporting.follow import TableFollower
    from kinesis_nb.exporting.journal import Journal

    Number = Callable[[int], int]
    """Numbers the given count of rows, and returns the number of the first."""

    Place = Callable[[str | PathLike[str], Mapping[str, str] | None], Storage]
    """Turns the path of a table, and the options of its storage, into that storage."""

TAIL_ROWS, TAIL_SECONDS = 5_000, 0.5  # taken out of a tail at once, and how long to wait for them
_TIME = "kinesis_ingestion_timestamp"


@dataclass(frozen=True, slots=True)
class Rows:
    """What a streaming export reads, whatever the user named it by; made once, and handed on as it is.

    Attributes
    ----------
    where
        The storage of a synced table, or a tail of this process.
    path
        The path as the user wrote it; None where a sync or a tail was given.
    """

    where: Storage | Tail
    path: str | PathLike[str] | None = None

    @classmethod
    def of(cls, given: object, options: Mapping[str, str] | None, place: Place) -> Rows:
        """Return what a sync, the path of its table, or a tail stands for.

        Raises
        ------
        ConfigError
            For anything else, and for `options` of a storage beside a handle that has its own.
        """
        if isinstance(given, str | PathLike):
            return cls(place(given, options), given)
        if options is not None:
            raise ConfigError("storage_options= goes with the path of a table", hint="a Sync reaches its own table")
        if isinstance(given, Tail):
            return cls(given)
        if _has_table(given):
            return cls(Storage(given.uri, lambda: given.storage_options))
        what = f"a {type(given).__name__} is neither a synced table nor a tail"
        raise ConfigError(what, hint="give a Sync, the path of its table, or a Tail")

    @property
    def uri(self) -> str:
        """The place of the table, for another process to find it."""
        if isinstance(self.where, Tail):
            raise ConfigError("agents cannot read a tail of this process", hint="export a synced table through agents")
        return self.where.uri


class _HasTable(Protocol):
    @property
    def uri(self) -> str: ...

    @property
    def storage_options(self) -> Mapping[str, str]: ...


def _has_table(given: object) -> TypeGuard[_HasTable]:
    """Whether it is a sync: one of this process, or one that agents run."""
    return isinstance(given, Sync) or hasattr(type(given), "storage_options")


class RowSource(Protocol):
    """Where the new rows come from, while an export runs."""

    @property
    def journal(self) -> Journal | None:
        """Where the progress is kept; None where the rows are nowhere else, so that nothing could be resumed."""
        ...

    @property
    def schema(self) -> pl.Schema:
        """The columns of the rows."""
        ...

    def parts(self, number: Number) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield the new rows there are now, each part with the number of its first row."""
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
        """What has to happen before it is over, where that is known."""
        ...


class TableRowSource:
    """Rows of a synced table that were not taken yet, within a time range.

    Attributes
    ----------
    waits_for
        What has to happen before it is over; empty while nothing is known, and without an end.
    """

    dropped = 0

    def __init__(
        self,
        table: TableFollower,
        journal: Journal,
        end: datetime | None,
        clock: Clock,
        hurry: Callable[[], None],
    ) -> None:
        self.journal, self._table, self._clock, self._hurry = journal, table, clock, hurry
        self._start, self._end = None if journal.begin is None else datetime.fromisoformat(journal.begin), end
        self.is_over = False
        self.waits_for = ""

    @property
    def schema(self) -> pl.Schema:
        """The columns of the table."""
        return self._table.schema

    def parts(self, number: Number) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield what is new in the table now."""
        began = self._clock.now()
        for band in self._table.bands(self.journal.high()):
            rows, first_row = self.journal.take(band, self._is_within(), number)
            if rows.height:
                yield rows, first_row
        if self._end is not None:
            self._check_end(self._end, began)

    def _check_end(self, end: datetime, began: datetime) -> None:
        """Find out whether rows before the end may still arrive: the table records up to when its sync has read."""
        if not self._table.origin.stream_arn:  # no sync writes it, so none can say what it has read
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


class TailRowSource:
    """Rows taken out of a running tail."""

    journal = None
    waits_for = ""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._dropped_before = self._count_dropped()

    @property
    def schema(self) -> pl.Schema:
        """The columns of a record."""
        return record_schema()

    def parts(self, number: Number) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield what the tail holds now."""
        while len(rows := self._tail.take(TAIL_ROWS, timeout=TAIL_SECONDS)):
            yield rows.to_polars(), number(len(rows))

    @property
    def is_over(self) -> bool:
        """Whether the tail was stopped, and everything is taken out of it."""
        return self._tail.state in {"stopped", "ended"} and not len(self._tail)

    @property
    def dropped(self) -> int:
        """Rows that the tail dropped before they were taken, because it was full."""
        return self._count_dropped() - self._dropped_before

    def _count_dropped(self) -> int:
        return sum(self._tail.stats().buffer.dropped.values())


def record_schema() -> pl.Schema:
    """Return the columns that rows of a tail have."""
    return pl.DataFrame(SCHEMA.empty_table()).schema
