"""What a streaming export has sent, on disk, so that it continues where it was even after kill -9.

A request's rows are recorded before it goes out, and its outcome before the next record of any of its keys may go. So
after a crash of the process only the records of the requests that were under way are in doubt, at most one per key:
they are sent again, in order, and counted as possible duplicates.

After a power cut the last second may be missing, so all rows that had been taken out of the table by then are in doubt;
how far that was is made durable before the first of them is sent.
"""

from __future__ import annotations

import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

import polars as pl

from kinesis_nb.core.position import Kind
from kinesis_nb.core.process import of_one_process
from kinesis_nb.errors import ConfigError, TableError, warn
from kinesis_nb.exporting.journal_file import GivenUp, JournalFile, read_journal
from kinesis_nb.exporting.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.transport import Clock
    from kinesis_nb.exporting.journal_file import ByShard, Found, Line, State
    from kinesis_nb.exporting.lane import Entry, Outcome

Place = tuple[str, int]
"""A row of a synced table: shard id and ``shard_offset``."""

SHARD, OFFSET = "shard_id", "shard_offset"
RETRY_SECONDS = 1.0  # between two tries to write to a disk that is full
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OTHER = {
    "table": "it is of a table of the stream {was}",
    "table_id": "it is of another table of the same stream",
    "created_at": "its table is of a stream that was created at {was}, and the present one at {now}",
    "output": "its output stream is {was}",
    "output_created_at": "its output stream was created at {was}, and the present one at {now}",
}


@of_one_process
class Journal:
    """The progress of one export, in memory and in its file; an Observer of the lanes.

    Use :meth:`open`. One process at a time has a journal.

    Attributes
    ----------
    header
        What the file was made for; None for what was not known.
    begin
        The time (ISO) from which rows are sent; None for all.
    rows, possible_duplicates, failed
        Of all runs together, how many.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = JournalFile(path, clock)
        self._given_up = GivenUp(path.with_name(f"{path.name}.failed"))
        self._changed = threading.Condition()  # guards everything below; released while a full disk is waited for
        self._is_behind = False  # whether the file lacks something that is known here
        self._is_stopping = False
        self._places: dict[int, Place] = {}  # rows that are queued and not done
        self._tried: set[Place] = set()
        self._taken: dict[str, int] = {}  # per shard, up to where rows were taken by any run
        self._failed: list[tuple[str, int, str]] = []  # since the file was rewritten
        self.progress = Progress()
        self.header: dict[str, str | None] = {}
        self.begin: str | None = None
        self.rows = self.possible_duplicates = self.failed = 0
        self.retry_reason = ""  # why nothing can be written now, while that is tried again

    @classmethod
    def open(
        cls,
        path: Path,
        header: Mapping[str, str | None],
        start: StartingPosition,
        clock: Clock,
        ends: Callable[[], Mapping[str, int]],
    ) -> Self:
        """Open a journal, or create it.

        Parameters
        ----------
        header
            What it is for; None for what is not known now.
        start
            Where a new one begins: before the first row, at a time, or behind what the table holds now.
        ends
            Gives the offset behind the last row of each shard of the table.

        Raises
        ------
        Fenced
            When another process has it open.
        ConfigError
            When it was made for something else, or cannot be read.
        """
        journal = cls(path, clock)
        try:
            found = read_journal(path)
            if found.state is None:
                journal.header = dict(header)
                if start.kind is Kind.AT_TIMESTAMP and start.timestamp is not None:
                    journal.begin = start.timestamp.isoformat()
                journal._given_up.clear()
                journal.progress.resume(ends() if start.kind is Kind.LATEST else {}, {})
            else:
                journal._load(found.state, found, ends)
                check_header(path, journal.header, header)
                journal.header |= {name: now for name, now in header.items() if now is not None}
            journal._rewrite()
        except BaseException:
            journal._file.close()
            raise
        return journal

    # --- the rows of the table

    def high(self) -> dict[str, int]:
        """Return, per shard, the first offset that was not taken yet."""
        with self._changed:
            return dict(self.progress.high)

    def take(self, rows: pl.DataFrame, wanted: pl.Expr, number: Callable[[int], int]) -> tuple[pl.DataFrame, int]:
        """Take rows out of the table: none of them, and none before them, is given again.

        Parameters
        ----------
        rows
            Of all shards, from :meth:`high` on, in the order of their offsets.
        wanted
            Which of them are to be sent.
        number
            Numbers the given count of rows, and returns the number of the first.

        Returns
        -------
        tuple of DataFrame and int
            Those to be sent that were not sent by an earlier run, and the number of the first.
        """
        with self._changed:
            rows = rows.filter(not_before(self.progress.high))
            new = self._without_resumed(rows.filter(wanted))
            first_row = number(new.height)
            self._places.update(enumerate(zip(new[SHARD].to_list(), new[OFFSET].to_list(), strict=True), first_row))
            queued = dict(new.group_by(SHARD, maintain_order=True).agg(OFFSET).iter_rows())
            spans = rows.group_by(SHARD).agg(pl.col(OFFSET).min(), pl.col(OFFSET).max().alias("last") + 1)
            taken = {shard_id: (first, end) for shard_id, first, end in spans.iter_rows()}
            for shard_id, (_, end) in taken.items():
                self.progress.take(shard_id, queued.get(shard_id, ()), end)
                self._taken[shard_id] = max(end, self._taken.get(shard_id, 0))
            self._add({"taken": taken}, durable=True)
        return new, first_row

    def _without_resumed(self, rows: pl.DataFrame) -> pl.DataFrame:
        for shard_id in rows[SHARD].unique().to_list():
            if done := self.progress.resumed(shard_id):
                rows = rows.filter((pl.col(SHARD) != shard_id) | ~pl.col(OFFSET).is_in(list(done)))
        return rows

    # --- requests and their outcomes

    def on_request(self, entries: Sequence[Entry]) -> None:
        """Record the rows of a request before it goes out."""
        with self._changed:
            places = [self._places[row] for entry in entries for row in entry.rows]
            self._tried.update(places)
            try:
                self._add({"try": _by_shard(places)})
            except TableError:
                self._tried.difference_update(places)  # the request does not go out
                raise

    def on_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of a request."""
        with self._changed:
            written = [self._places.pop(row) for entry in outcome.written for row in entry.rows]
            refused = [self._places[row] for entry in outcome.refused for row in entry.rows]
            unknown = [self._places[row] for entry in outcome.unknown for row in entry.rows]
            line: Line = {
                "done": _by_shard(written),
                "rows": len(written),
                "refused": _by_shard(refused),
                "unknown": _by_shard(unknown),
                "failed": self._fail((row, reason) for entry, reason in outcome.failed for row in entry.rows),
            }
            for shard_id, offsets in line["done"].items():
                self.progress.done(shard_id, offsets)
            self._count(line)
            self._add({name: value for name, value in line.items() if value})

    def gave_up(self, rows: Iterable[int], reason: str) -> None:
        """Record rows that are not sent, and the reason."""
        with self._changed:
            line: Line = {"failed": self._fail((row, reason) for row in rows)}
            self._count(line)
            self._add(line)

    def _fail(self, rows: Iterable[tuple[int, str]]) -> list[tuple[str, int, str]]:
        failed = [(*self._places.pop(row), reason) for row, reason in rows]
        for shard_id, offset, _ in failed:
            self.progress.done(shard_id, [offset])
        return failed

    def _count(self, line: Line) -> None:
        failed = [(shard_id, offset, reason) for shard_id, offset, reason in line.get("failed", ())]
        self._failed += failed
        self.failed += len(failed)
        self.rows += line.get("rows", 0)
        self._tried.update(_places(line.get("try", {})))
        self._tried.difference_update((shard_id, offset) for shard_id, offset, _ in failed)
        for known in (line.get("done", {}), line.get("refused", {}), line.get("unknown", {})):
            self._tried.difference_update(_places(known))
        self.possible_duplicates += sum(map(len, line.get("unknown", {}).values()))

    def failed_rows(self) -> list[tuple[str, int, str]]:
        """Return the rows that were given up: shard id, offset, reason."""
        with self._changed:
            found = self._given_up.rows() | {(shard_id, offset): reason for shard_id, offset, reason in self._failed}
        return [(shard_id, offset, found[shard_id, offset]) for shard_id, offset in sorted(found)]

    # --- the file

    def _load(self, state: State, found: Found, ends: Callable[[], Mapping[str, int]]) -> None:
        self.header, self.begin = state["header"], state["from"]
        self.possible_duplicates, self.failed = state["possible_duplicates"], state.get("given_up", 0)
        lines = (state, *found.lines)
        for line in lines:
            self._count(line)
            for shard_id, (_, end) in line.get("taken", {}).items():
                self._taken[shard_id] = max(end, self._taken.get(shard_id, 0))
        self.progress.resume(_lowest(state["low"], lines), _done(lines))
        self._count_doubtful(state, found, ends)

    def _count_doubtful(self, state: State, found: Found, ends: Callable[[], Mapping[str, int]]) -> None:
        """Count the rows that are sent again although they may be in the output stream already."""
        was_closed = bool(found.lines) and "closed" in found.lines[-1]
        doubtful = len(self._tried)  # of requests that were under way when the process died
        if found.is_damaged:
            doubtful = max(doubtful, self._count_open(self._taken), self._count_open(ends()))
            warn(f"{self._file.path} was damaged: up to {doubtful:,} rows that were sent already are sent again")
        elif not was_closed and state.get("boot", _boot()) != _boot():
            doubtful = max(doubtful, self._count_open(self._taken))
        self.possible_duplicates += doubtful
        self._tried.clear()
        if was_closed and not found.is_damaged:
            self._taken.clear()  # what is not done of it was never sent

    def _count_open(self, ends: Mapping[str, int]) -> int:
        """Return how many rows before these offsets are not known as done."""
        spans = [(self.progress.low.get(shard_id, 0), end, shard_id) for shard_id, end in ends.items()]
        known = sum(low <= offset < end for low, end, shard_id in spans for offset in self.progress.resumed(shard_id))
        return sum(max(0, end - low) for low, end, _ in spans) - known

    def _rewrite(self) -> None:
        self._given_up.add(self._failed)
        self._failed.clear()
        self._file.rewrite(
            {
                "header": self.header,
                "from": self.begin,
                "boot": _boot(),
                "low": self.progress.low,
                "taken": {shard_id: (self.progress.low.get(shard_id, 0), end) for shard_id, end in self._taken.items()},
                "possible_duplicates": self.possible_duplicates,
                "rows": self.rows,
                "done": self.progress.above(),
                "given_up": self.failed,
                "try": _by_shard(self._tried),
            }
        )
        self._is_behind, self.retry_reason = False, ""

    def _add(self, line: Mapping[str, object], *, durable: bool = False) -> None:
        """Add a line; what it says is known here already, so that :meth:`_rewrite` can write it instead."""

        def add() -> None:
            self._file.add(line, durable=durable)
            if self._file.is_large:
                self._rewrite()

        self._write(add)

    def _write(self, action: Callable[[], None]) -> None:
        """Change the file; while the disk is full, wait: nothing may be sent that is not recorded.

        Raises
        ------
        TableError
            When the file cannot be written for another reason, or not before the export is to stop.
        """
        try:
            if self._is_behind:
                self._rewrite()
            else:
                action()
        except TableError as error:
            self._write_later(error)

    def _write_later(self, error: TableError) -> None:
        """Write all that is known here as soon as there is room.

        A line that failed is not tried again: its first half may be in the file, and what is behind that is not read.
        """
        self._is_behind = True
        while self._is_behind:
            if not error.retryable or self._is_stopping:
                raise error
            self.retry_reason = str(error)
            self._changed.wait(RETRY_SECONDS)
            try:
                if self._is_behind:  # else another thread found room
                    self._rewrite()
            except TableError as again:
                error = again

    def stop_waiting(self) -> None:
        """Raise from now on where a full disk would be waited for: the export is to stop."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def sync(self) -> None:
        """Make everything so far survive a power cut."""
        with self._changed:
            self._write(self._file.sync)

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        with self._changed:
            try:
                if self._is_behind:
                    self._rewrite()
                if self._file.is_open:
                    self._file.add({"closed": True}, durable=True)
                    self._file.sync_copy()
            finally:
                self._file.close()


def not_before(taken: Mapping[str, int]) -> pl.Expr:
    """Return which rows are not before the offset of their shard: all rows of a shard that has none."""
    if not taken:
        return pl.lit(value=True)
    first = pl.col(SHARD).replace_strict(list(taken), list(taken.values()), default=0, return_dtype=pl.Int64)
    return pl.col(OFFSET) >= first


def check_journal(path: Path, header: Mapping[str, str | None]) -> None:
    """Raise ConfigError for a journal that was made for something else, or cannot be read; it may be in use."""
    state = read_journal(path).state
    if state is not None:
        check_header(path, state["header"], header)


def check_header(path: Path, then: Mapping[str, str | None], header: Mapping[str, str | None]) -> None:
    """Raise ConfigError where a journal was made for another table or output stream than it is to be used for."""
    for name, now in header.items():
        was = then.get(name)
        if None not in (was, now) and was != now:
            raise ConfigError(
                f"{path} is of another export: {_OTHER[name].format(was=was, now=now)}",
                hint="delete that file to send all rows from the start, or name another one with journal=",
            )


def _lowest(low: Mapping[str, int], lines: Iterable[Line]) -> dict[str, int]:
    """Return, per shard, the first offset that may not be done: of a shard that has none, where its rows begin."""
    found = dict(low)
    for line in lines:
        taken = {shard_id: first for shard_id, (first, _) in line.get("taken", {}).items()}
        found = taken | line.get("begin", {}) | found
    return found


def _done(lines: Iterable[Line]) -> dict[str, set[int]]:
    """Return the offsets of the rows that were acknowledged or given up."""
    found: dict[str, set[int]] = {}
    for line in lines:
        failed = ((shard_id, offset) for shard_id, offset, _ in line.get("failed", ()))
        for shard_id, offset in chain(_places(line.get("done", {})), failed):
            found.setdefault(shard_id, set()).add(offset)
    return found


def _places(offsets: Mapping[str, Iterable[int]]) -> Iterable[Place]:
    return ((shard_id, offset) for shard_id, found in offsets.items() for offset in found)


def _by_shard(places: Iterable[Place]) -> ByShard:
    found: ByShard = {}
    for shard_id, offset in places:
        found.setdefault(shard_id, []).append(offset)
    return found


def _boot() -> str:
    """Return what changes whenever this machine starts; empty where the system does not say."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
