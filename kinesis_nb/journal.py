"""What a streaming export has sent, on disk, so that it goes on where it was even after kill -9.

A file of JSON lines: what a request tries before it goes out, and what became of it before the next record of any of
its keys may go. So after a crash only the records of the requests that were under way are in doubt, at most one per
key: they are sent again, in order, and counted as possible duplicates.

A line is written with one call and survives the death of the process; it is fsynced every second or so, and what a
power cut takes is sent again.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from kinesis_nb.errors import ConfigError, Fenced
from kinesis_nb.process import of_one_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from kinesis_nb.lane import Entry, Outcome

REWRITE_BYTES = 4 * 2**20  # then the file is replaced by its meaning
Place = tuple[str, int]
"""A row of a synced table: shard id and ``shard_offset``."""


class Progress:
    """Which rows of a table are done, per source shard. Pure."""

    def __init__(self) -> None:
        self.low: dict[str, int] = {}  # every row of the shard before this offset is done
        self._above: dict[str, set[int]] = {}  # and so are these

    def begin(self, shard_id: str, offset: int) -> None:
        """Take `offset` for the first one of a shard, unless the shard is known."""
        self.low.setdefault(shard_id, offset)

    def done(self, shard_id: str, offsets: Iterable[int]) -> None:
        """Take note of rows that need not be sent any more."""
        low, above = self.low[shard_id], self._above.setdefault(shard_id, set())
        above.update(offset for offset in offsets if offset >= low)
        while low in above:
            above.remove(low)
            low += 1
        self.low[shard_id] = low

    def is_done(self, shard_id: str, offset: int) -> bool:
        """Whether a row needs not be sent any more."""
        low = self.low.get(shard_id)
        return low is not None and (offset < low or offset in self._above.get(shard_id, ()))

    def above(self) -> dict[str, list[int]]:
        """Return what is done out of turn."""
        return {shard_id: sorted(offsets) for shard_id, offsets in self._above.items() if offsets}


@of_one_process
class Journal:
    """The progress of one export, in memory and in its file; an Observer of the lanes.

    Use :meth:`open`. One process at a time has a journal.

    Attributes
    ----------
    header
        What the file was made for.
    begin
        The time (ISO) from which rows are sent; None for all.
    rows, possible_duplicates
        Of all runs together.
    failed
        Rows that were given up: shard id, offset, reason.
    """

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self._path, self._lock_file = path, lock
        self._lock = threading.Lock()  # guards everything below
        self._file: IO[bytes] | None = None
        self._places: dict[int, Place] = {}  # rows that are queued and not done
        self._tried: set[Place] = set()
        self.progress = Progress()
        self.header: dict[str, Any] = {}
        self.begin: str | None = None
        self.rows = self.possible_duplicates = 0
        self.failed: list[tuple[str, int, str]] = []

    @classmethod
    def open(
        cls, path: Path, header: Mapping[str, Any], begin: str | None, start: Callable[[], Mapping[str, int]]
    ) -> Self:
        """Open a journal, or make it.

        Parameters
        ----------
        header
            What it is for.
        begin, start
            Where a new one begins: at a time (ISO), or at an offset of each shard that is known.

        Raises
        ------
        Fenced
            When another process has it open.
        ConfigError
            When it was made for something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = cls(path, _locked(path.with_suffix(".lock")))
        try:
            if path.exists():
                journal._load()
                journal._check(header)
            else:
                journal.header = dict(header)
                journal.begin = begin
                for shard_id, offset in start().items():
                    journal.progress.begin(shard_id, offset)
            journal._rewrite()
        except BaseException:
            journal.close()
            raise
        return journal

    def _check(self, header: Mapping[str, Any]) -> None:
        if wrong := [name for name, value in header.items() if self.header.get(name) != value]:
            raise ConfigError(
                f"{self._path} is of another export: its {wrong[0]} is {self.header.get(wrong[0])!r}",
                hint="delete that file to start over, or name another one with journal=",
            )

    # --- what the lanes tell ---

    def queue(self, first_row: int, shard_ids: Sequence[str], offsets: Sequence[int]) -> None:
        """Take note of which rows of the table the next rows of this run are."""
        with self._lock:
            self._places.update(enumerate(zip(shard_ids, offsets, strict=True), first_row))

    def skip(self, shard_id: str, offsets: Sequence[int]) -> None:
        """Take note of rows that are not to be sent at all."""
        with self._lock:
            self.progress.done(shard_id, offsets)
            self._write({"done": {shard_id: list(offsets)}})

    def sending(self, entries: Sequence[Entry]) -> None:
        """Write down what a request tries."""
        with self._lock:
            places = [self._places[row] for entry in entries for row in entry.rows]
            self._tried.update(places)
            self._write({"try": _by_shard(places)})

    def settled(self, outcome: Outcome) -> None:
        """Write down what became of it."""
        with self._lock:
            written = [self._places.pop(row) for entry in outcome.written for row in entry.rows]
            failed = [(*self._places.pop(row), reason) for entry, reason in outcome.failed for row in entry.rows]
            refused = [self._places[row] for entry in outcome.refused for row in entry.rows]
            unknown = [self._places[row] for entry in outcome.unknown for row in entry.rows]
            line = {
                "done": _by_shard(written),
                "rows": len(written),
                "refused": _by_shard(refused),
                "unknown": _by_shard(unknown),
                "failed": failed,
            }
            self._apply(line)
            self._write({name: value for name, value in line.items() if value})

    def gave_up(self, rows: Iterable[int], reason: str) -> None:
        """Write down rows that are not sent, for a reason."""
        with self._lock:
            line = {"failed": [(*self._places.pop(row), reason) for row in rows]}
            self._apply(line)
            self._write(line)

    def _apply(self, line: Mapping[str, Any]) -> None:
        for shard_id, offsets in line.get("done", {}).items():
            self.progress.begin(shard_id, min(offsets, default=0))
            self.progress.done(shard_id, offsets)
            self._tried.difference_update((shard_id, offset) for offset in offsets)
        for shard_id, offset, reason in line.get("failed", ()):
            self.progress.begin(shard_id, offset)
            self.progress.done(shard_id, [offset])
            self.failed.append((shard_id, offset, reason))
            self._tried.discard((shard_id, offset))
        for shard_id, offsets in line.get("refused", {}).items():
            self._tried.difference_update((shard_id, offset) for offset in offsets)
        for shard_id, offsets in line.get("unknown", {}).items():
            self.possible_duplicates += len(offsets)
            self._tried.difference_update((shard_id, offset) for offset in offsets)
        for shard_id, offsets in line.get("try", {}).items():
            self._tried.update((shard_id, offset) for offset in offsets)
        self.rows += line.get("rows", 0)

    def pending(self, rows: pl.DataFrame) -> list[bool]:
        """Return which rows are still to be sent, and take note of shards that are new."""
        with self._lock:
            wanted: list[bool] = []
            for shard_id, offset in zip(rows["shard_id"], rows["shard_offset"], strict=True):
                if shard_id not in self.progress.low:
                    self.progress.begin(shard_id, offset)
                    self._write({"begin": {shard_id: offset}})
                wanted.append(not self.progress.is_done(shard_id, offset))
            return wanted

    def low(self) -> dict[str, int]:
        """Return, per shard, the first offset that is not done."""
        with self._lock:
            return dict(self.progress.low)

    # --- the file ---

    def _load(self) -> None:
        for number, line in enumerate(self._path.read_bytes().split(b"\n")[:-1]):  # a line without its end was torn
            entry = msgspec.json.decode(line)
            if number == 0:
                self._load_state(entry)
            for shard_id, offset in entry.get("begin", {}).items():
                self.progress.begin(shard_id, offset)
            self._apply(entry)
        self.possible_duplicates += len(self._tried)  # of requests that were under way when the process died
        self._tried.clear()

    def _load_state(self, state: dict[str, Any]) -> None:
        self.header, self.begin = state["header"], state["from"]
        self.progress.low.update(state["low"])
        self.possible_duplicates = state["possible_duplicates"]

    def _rewrite(self) -> None:
        """Replace the file by its meaning; a crash leaves the old one or the new one."""
        state = {
            "header": self.header,
            "from": self.begin,
            "low": self.progress.low,
            "possible_duplicates": self.possible_duplicates,
            "rows": self.rows,
            "done": self.progress.above(),
            "failed": self.failed,
            "try": _by_shard(self._tried),
        }
        new = self._path.with_suffix(".new")
        file = new.open("wb", buffering=0)
        file.write(msgspec.json.encode(state) + b"\n")
        os.fsync(file.fileno())
        new.replace(self._path)
        if self._file is not None:
            self._file.close()
        self._file, self._size = file, file.tell()

    def _write(self, line: Mapping[str, Any]) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if self._file is None:
            raise ConfigError("the journal is closed", hint="start the export again")
        self._file.write(data)
        self._size += len(data)
        if self._size > REWRITE_BYTES:
            self._rewrite()

    def sync(self) -> None:
        """Make everything so far survive a power cut."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and let others have it."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._lock_file.close()


def _by_shard(places: Iterable[Place]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for shard_id, offset in places:
        found.setdefault(shard_id, []).append(offset)
    return found


def _locked(path: Path) -> IO[bytes]:
    """Return an open file that only one process has locked; the system lets go of it when the process dies."""
    file = path.open("ab")
    with suppress(ImportError):  # no such locks on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise Fenced(f"another process runs this export ({path})", hint="stop it there first") from None
    return file
