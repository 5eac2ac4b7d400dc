"""The outcome of an export: counted while it runs, reported at its end."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from kinesis_nb.display import plain, table_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from kinesis_nb.exporting.lane import Entry, Outcome

Marks: TypeAlias = "npt.NDArray[np.uint64]"
_MARK_BYTES, _MARK_RANGE = 8, 2**64
_FAILED = {"row": pl.Int64, "reason": pl.String}
_SHARDS = {"shard_id": pl.String, "rows": pl.Int64, "bytes": pl.Int64}


@dataclass(slots=True, repr=False)
class ExportReport:
    """The outcome of an export.

    Attributes
    ----------
    rows, bytes
        Acknowledged by the service; bytes of data and keys.
    requests, retries, throttles
        Requests sent; rows sent again; records refused because a shard was busy.
    possible_duplicates
        Rows of requests whose outcome is not known: each may be in the stream once more than it should.
    duration
        Seconds.
    shards
        Per shard of the output stream: acknowledged rows and bytes.
    failed
        One row per row that was given up: its number in the frame, and why.
    note
        Says so when the export was interrupted.
    partition_column
        The column whose values are the partition keys.
    stream, settled
        The output stream, and the rows that need not be sent any more: what ``resume=`` uses.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> source = kn.demo()
    >>> orders = source.read("orders", limit=100, progress=False)
    >>> report = source.export_df(orders, source.explore("results").summary.arn, progress=False)
    >>> report.rows, report.possible_duplicates, len(report.failed)
    (100, 0, 0)
    """

    rows: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    throttles: int = 0
    possible_duplicates: int = 0
    duration: float = 0.0
    shards: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_SHARDS))
    failed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_FAILED))
    note: str = ""
    partition_column: str = ""
    stream: str = ""
    settled: DoneRows = field(default_factory=lambda: DoneRows())

    def __repr__(self) -> str:
        note = f", {self.note}" if self.note else ""
        key = f", partition key: column {plain(repr(self.partition_column))}" if self.partition_column else ""
        return (
            f"<ExportReport: {self.rows:,} rows in {self.requests:,} requests and {self.duration:.1f} s,"
            f" {self.retries:,} retries, {self.possible_duplicates:,} possible duplicates,"
            f" {len(self.failed):,} failed{key}{note}>"
        )

    def _repr_html_(self) -> str:
        names = ("rows", "bytes", "requests", "retries", "throttles", "possible_duplicates")
        rows: list[tuple[str, object]] = [(name.replace("_", " "), getattr(self, name)) for name in names]
        rows += [("failed", len(self.failed)), ("seconds", round(self.duration, 2))]
        rows += [("partition key", f"column {self.partition_column!r}")] if self.partition_column else []
        about = table_html(("export", self.note or "finished"), rows)
        parts = [table_html(frame.columns, frame.head(10).rows(), caption) for caption, frame in self._details()]
        return about + "".join(parts)

    def _details(self) -> list[tuple[str, pl.DataFrame]]:
        shown = (("per shard", self.shards), (f"failed: {len(self.failed):,} rows", self.failed))
        return [(caption, frame) for caption, frame in shown if len(frame)]


class DoneRows:
    """Which rows need not be sent any more, because they were written or given up, and a mark of what they were.

    Every row has a mark, a number made of its values and its place. Of the rows before `first` only the sum of their
    marks is kept; behind it, where some are done, the mark of each: memory grows with the rows under way, and not with
    the frame.

    Examples
    --------
    >>> done = DoneRows()
    >>> done.add([0, 1, 5])
    >>> done.first, 1 in done, 5 in done, 3 in done
    (2, True, True, False)
    """

    def __init__(self) -> None:
        self.first = 0  # every row before it is done, and it is not
        self._later = bytearray()  # 1 for each done row from `first` on
        self._mark = 0  # of all rows before `first`
        self._marks = bytearray()  # of the rows from `first` on, 8 bytes each; none for rows that nobody resumes

    def mark(self, first_row: int, marks: Marks) -> None:
        """Take the marks of rows, before they are done; those of rows before `first` are known."""
        known = max(0, self.first - first_row)
        place = (max(first_row, self.first) - self.first) * _MARK_BYTES
        content = marks[known:].tobytes()
        self._marks[place : place + len(content)] = content

    def differ(self, first_row: int, marks: Marks) -> Sequence[int]:
        """Return which of these rows are done and had other values; of those before `first` only the sum is known."""
        known = max(0, self.first - first_row)
        if known >= len(marks):
            return []
        start = first_row + known - self.first
        places = np.flatnonzero(np.frombuffer(self._later, np.uint8)[start : start + len(marks) - known])
        then = np.frombuffer(self._marks, np.uint64)[start:]
        others = [int(place) for place in places if place >= len(then) or then[place] != marks[known + place]]
        return [first_row + known + place for place in others]

    def is_beginning(self, mark: int) -> bool:
        """Return whether the marks of the rows before `first` have this sum."""
        return mark % _MARK_RANGE == self._mark

    def add(self, rows: Sequence[int]) -> None:
        """Record rows as done."""
        first, later = self.first, self._later
        missing = max(rows, default=first) + 1 - first - len(later)
        if missing > 0:
            later.extend(bytes(missing + 1024))
        for row in rows:
            if row >= first:
                later[row - first] = 1
        if self._later and self._later[0]:
            gap = self._later.find(0)
            self._advance(len(self._later) if gap < 0 else gap)

    def _advance(self, rows: int) -> None:
        """Move `first` over rows that are done; of their marks only the sum is kept."""
        size = rows * _MARK_BYTES
        del self._later[:rows]
        self._mark = (self._mark + sum_of(np.frombuffer(self._marks[:size], np.uint64))) % _MARK_RANGE
        del self._marks[:size]
        self.first += rows

    def __contains__(self, row: int) -> bool:
        place = row - self.first
        return place < 0 or (place < len(self._later) and bool(self._later[place]))

    @property
    def end(self) -> int:
        """The number behind the last done row."""
        return self.first + self._later.rfind(1) + 1

    def copy(self) -> DoneRows:
        """Return an independent copy."""
        other = DoneRows()
        other.first, other._later = self.first, bytearray(self._later)
        other._mark, other._marks = self._mark, self._marks[: (self.end - self.first) * _MARK_BYTES]
        return other


def sum_of(marks: Marks) -> int:
    """Return the sum that several rows have together."""
    return int(marks.sum(dtype=np.uint64))


class QueueLimit(NamedTuple):
    """How much may wait in the queues."""

    rows: int
    bytes: int


class Tally:
    """Counts the requests and outcomes of all lanes; an Observer of them.

    Parameters
    ----------
    named
        How many of the rows that were given up the report lists, the newest; None for all.
    """

    def __init__(self, stream: str, done: DoneRows | None = None, *, named: int | None = None) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._report = ExportReport(stream=stream, settled=done or DoneRows())
        self._shards: dict[str, list[int]] = {}
        self._failed: deque[tuple[int, str]] = deque(maxlen=named)
        self._failures = 0  # rows that were given up
        self._under_way = 0  # rows of requests without a response yet
        self._open = 0  # rows that were queued and are not done
        self._open_bytes = 0

    def keyed_by(self, column: str) -> None:
        """Record which column gives the partition keys."""
        with self._changed:
            self._report.partition_column = column

    def queued(self, rows: int, size: int) -> None:
        """Record rows that now wait to be sent."""
        with self._changed:
            self._open += rows
            self._open_bytes += size

    def mark(self, first_row: int, marks: Marks) -> None:
        """Take the marks of rows that are to be sent, before they are."""
        with self._changed:
            self._report.settled.mark(first_row, marks)

    def on_request(self, entries: Sequence[Entry]) -> None:
        """Record a request that goes out now."""
        with self._changed:
            self._report.requests += 1
            self._under_way += _rows(entries)

    def on_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of a request."""
        report = self._report
        with self._changed:
            self._count(outcome.written, outcome.shard_ids)
            self._fail([(row, reason) for entry, reason in outcome.failed for row in entry.rows])
            self._close([entry for entry, _ in outcome.failed])
            report.throttles += outcome.throttled
            unknown, refused = _rows(outcome.unknown), _rows(outcome.refused)
            report.possible_duplicates += unknown
            report.retries += unknown + refused
            self._under_way -= unknown + refused
            self._changed.notify_all()

    def _count(self, written: Sequence[Entry], shard_ids: Sequence[str]) -> None:
        for shard_id in set(shard_ids):  # nearly always one, for a lane is a shard
            entries = written
            if shard_ids.count(shard_id) < len(written):
                entries = [entry for entry, other in zip(written, shard_ids, strict=True) if other == shard_id]
            rows, size = self._close(entries)
            counts = self._shards.setdefault(shard_id, [0, 0])
            counts[0] += rows
            counts[1] += size

    def _close(self, entries: Sequence[Entry]) -> tuple[int, int]:
        rows = [row for entry in entries for row in entry.rows]
        size = sum([entry.size for entry in entries])
        self._under_way -= len(rows)
        self._open -= len(rows)
        self._open_bytes -= size
        self._report.settled.add(rows)
        return len(rows), size

    def gave_up(self, rows: Sequence[int], reason: str) -> None:
        """Record rows that are not sent at all."""
        with self._changed:
            self._fail([(row, reason) for row in rows])
            self._report.settled.add(rows)

    def _fail(self, rows: Sequence[tuple[int, str]]) -> None:
        self._failed += rows
        self._failures += len(rows)

    @property
    def failed(self) -> int:
        """Rows that were given up."""
        return self._failures

    def wait_for_room(self, most: QueueLimit, timeout: float) -> bool:
        """Wait until less than `most` is queued; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open < most.rows and self._open_bytes < most.bytes, timeout)

    @property
    def rows(self) -> int:
        """Rows that are written."""
        with self._changed:
            return sum(rows for rows, _ in self._shards.values())

    @property
    def open(self) -> int:
        """Rows that are queued or under way."""
        return self._open

    @property
    def first_open(self) -> int:
        """Every row before this number is done."""
        with self._changed:
            return self._report.settled.first

    def report(self, duration: float, note: str = "") -> ExportReport:
        """Return a report as of now; rows under way count as possible duplicates."""
        with self._changed:
            report = self._report
            shards = sorted((shard_id, rows, size) for shard_id, (rows, size) in self._shards.items())
            return ExportReport(
                rows=sum(rows for _, rows, _ in shards),
                bytes=sum(size for _, _, size in shards),
                requests=report.requests,
                retries=report.retries,
                throttles=report.throttles,
                possible_duplicates=report.possible_duplicates + self._under_way,
                duration=duration,
                shards=pl.DataFrame(shards, _SHARDS, orient="row"),
                failed=pl.DataFrame(sorted(self._failed), _FAILED, orient="row"),
                note=note,
                partition_column=report.partition_column,
                stream=report.stream,
                settled=report.settled.copy(),
            )


def _rows(entries: Sequence[Entry]) -> int:
    return sum([len(entry.rows) for entry in entries])
