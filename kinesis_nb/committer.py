"""The sink of a sync: takes rows from the shard threads and commits them, with their checkpoints, from one thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from kinesis_nb.buffer import Buffer, Held, OnFull
from kinesis_nb.errors import Closed, DataLoss, Fenced
from kinesis_nb.frames import TIMESTAMP, constant
from kinesis_nb.position import Kind, StartingPosition
from kinesis_nb.table import TABLE_SCHEMA, Checkpoint, SyncTable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from kinesis_nb.frames import Batch
    from kinesis_nb.shards import Shard
    from kinesis_nb.sink import Gap
    from kinesis_nb.transport import Clock

T = TypeVar("T")

PENDING_ROWS, PENDING_BYTES = (
    500_000,
    128 * 2**20,
)  # what may wait for a commit; a full buffer holds the shard threads back
COMMIT_EARLY = 0.25  # of that budget
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which rows are where, all of the same moment.

    Attributes
    ----------
    version
        Of the table, with every row that is committed.
    pending
        Rows that are read and not committed yet.
    received, committed, commits
        Rows taken from the shards, rows and commits written, since this committer started.
    """

    version: int
    pending: tuple[pa.RecordBatch, ...]
    received: int
    committed: int
    commits: int


class Committer:
    """Commits what the shard threads deliver, one group commit for all shards per interval.

    Parameters
    ----------
    table
        From :meth:`start` on only the committer's own thread touches it.
    on_end
        Called at the end of that thread, whatever ended it.
    """

    def __init__(self, table: SyncTable, clock: Clock, interval: float, on_end: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self.trouble = ""  # why a commit is being tried again
        self._table, self._clock, self._interval, self._on_end = table, clock, interval, on_end
        self._buffer = Buffer(PENDING_ROWS, PENDING_BYTES, OnFull.BLOCK)
        self._wake = threading.Event()  # commit now, not at the end of the interval
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards everything below; never held during I/O
        self._version = table.version
        self._in_flight: list[Held] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._owned: set[str] = set()
        self._settled: set[str] = set()  # ended in the table before they were owned
        self._requested: set[str] = set()  # shards that a thread wants to read and that are not owned yet
        self._ended: dict[str, tuple[Shard, ...]] = {}  # read to their end, not committed as such yet -> children
        self._committed = self._commits = 0
        self._last_stamp = datetime.min.replace(tzinfo=UTC)
        self._thread: threading.Thread | None = None
        self._over = threading.Event()  # not Thread.join(): interrupted, it takes a living thread for a dead one

    # --- ownership ---

    @property
    def owned(self) -> Collection[str]:
        """The ids of the shards that only this writer may commit."""
        return self._owned

    @property
    def ended(self) -> Collection[str]:
        """The ids of the shards that are in the table to their end."""
        return self._settled

    def take_over(self, shard_ids: Collection[str]) -> None:
        """Fence whoever wrote these shards before, then read how far they got; in that order, so that it is final.

        A shard that has ended in the table is final already, and nobody has to own it.
        """
        settled = self._table.ended(shard_ids)
        wanted = set(shard_ids) - settled
        if wanted:
            self._table.acquire(wanted)
        found = self._table.checkpoints(wanted)
        with self._changed:
            self._owned.update(shard_ids)
            self._settled |= settled | {shard_id for shard_id, checkpoint in found.items() if checkpoint.ended}
            self._checkpoints |= found
            self._changed.notify_all()

    # --- the sink: called by the shard threads ---

    def position(self, shard: Shard) -> StartingPosition:
        """Go on after the last committed record; a shard without one starts where the sync did."""
        with self._changed:
            if shard.shard_id not in self._owned:
                self._requested.add(shard.shard_id)
                self._wait_for(lambda: shard.shard_id in self._owned)
            checkpoint = self._checkpoints[shard.shard_id]
        if checkpoint.sequence_number is None:
            # for a child born later that is its beginning; one that was there may hold older records
            return decode_start(self._table.origin.start)
        return StartingPosition.after(checkpoint.sequence_number)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Queue rows for the next commit; blocks while too much waits."""
        self._buffer.put(shard.shard_id, batch.rows)
        stats = self._buffer.stats()
        if stats.rows > COMMIT_EARLY * PENDING_ROWS or stats.bytes > COMMIT_EARLY * PENDING_BYTES:
            self._wake.set()
        return True

    def lost(self, gap: Gap) -> None:
        """Stop: a table must not have holes that nobody decided on."""
        raise DataLoss(str(gap), hint="sync into a new table, which starts with what is left")

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Return when the table says that the shard has ended: only then may its children be read."""
        with self._changed:
            self._ended[shard.shard_id] = children
            self._wait_for(lambda: shard.shard_id not in self._ended)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Make the committer look now, and wait until it did what `condition` says."""
        self._wake.set()
        self._changed.wait_for(lambda: condition() or self._stopping.is_set())
        if not condition():
            raise Closed("the sync was stopped")

    # --- the committer's thread ---

    def start(self, name: str, first: Callable[[], None] = lambda: None) -> None:
        """Start the thread; it calls `first` before anything else."""
        self._thread = threading.Thread(target=self._run, args=(first,), name=name, daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> bool:
        """Wait; return at once, and True, when the end was asked for."""
        return self._stopping.wait(seconds)

    def hand_over(self, successor: str) -> None:
        """Commit what was read, and end: another writer goes on from there."""
        self.error = Fenced(
            f"{successor} took this sync over", hint="only one sync may write a table; this one stopped and lost nothing"
        )
        self.request_stop()

    def request_stop(self) -> None:
        """Let the thread commit what was read, and end."""
        self._stopping.set()
        self._wake.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it came."""
        if self._thread is not threading.current_thread():
            self._over.wait(max(0.0, timeout))
        return not self.is_running

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and not self._over.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether the end was asked for or came by itself."""
        return self._stopping.is_set()

    def reading_done(self, error: BaseException | None) -> None:
        """Take note that no shard thread delivers any more."""
        self.error = error
        self.request_stop()

    def _run(self, first: Callable[[], None]) -> None:
        try:
            first()
            while not self._stopping.is_set():
                self._wake.wait(self._interval)
                self._wake.clear()
                self._commit_pending()
            self._buffer.close()
            self._commit_pending()
        except Closed:
            pass  # stopped while storage was away; the next run reads those rows again
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self.error = error
        finally:
            self._buffer.close()
            self.request_stop()
            self._on_end()
            self._over.set()

    def _commit_pending(self) -> None:
        with self._changed:
            requested = set(self._requested)
            ended = dict(self._ended)  # before the rows: everything of these shards is in the buffer by now
            self._in_flight = self._buffer.take(0)
            held = list(self._in_flight)
        if requested:
            self.insist(lambda: self.take_over(requested))
        if held or ended:
            self._commit(held, ended)
        with self._changed:
            self._requested -= requested
            self._changed.notify_all()

    def _commit(self, held: list[Held], ended: dict[str, tuple[Shard, ...]]) -> None:
        unowned = {child.shard_id for children in ended.values() for child in children} - self._owned
        if unowned:
            self.insist(lambda: self.take_over(unowned))
        rows, checkpoints = self._prepare(held, ended)
        self.insist(lambda: self._write(rows, checkpoints))
        with self._changed:
            self._version = self._table.version
            self._in_flight = []
            self._checkpoints |= checkpoints
            self._committed += rows.num_rows
            self._commits += 1
            for shard_id in ended:
                del self._ended[shard_id]

    def _prepare(self, held: list[Held], ended: dict[str, tuple[Shard, ...]]) -> tuple[pa.Table, dict[str, Checkpoint]]:
        """Return the numbered rows, and how far each shard will be once they are in the table."""
        new: dict[str, Checkpoint] = {}
        stamp = self._last_stamp = max(self._clock.now(), self._last_stamp)
        numbered = []
        for shard_id, rows in held:
            first = self._reached(shard_id, new).offset
            numbered.append(_numbered(rows, first, stamp))
            new[shard_id] = Checkpoint(first + rows.num_rows, rows["sequence_number"][-1].as_py())
        for shard_id, children in ended.items():
            new[shard_id] = done = replace(self._reached(shard_id, new), ended=True)
            for child in children:
                reached = self._reached(child.shard_id, new)
                new[child.shard_id] = replace(reached, offset=max(done.offset, reached.offset))
        return pa.Table.from_batches(numbered, TABLE_SCHEMA), new

    def _reached(self, shard_id: str, new: dict[str, Checkpoint]) -> Checkpoint:
        return new.get(shard_id) or self._checkpoints.get(shard_id, Checkpoint())

    def _write(self, rows: pa.Table, checkpoints: dict[str, Checkpoint]) -> None:
        file = self._table.write_rows(rows)
        while not self._table.commit(file, checkpoints):
            self._rest("the commit did not go through")

    def insist(self, action: Callable[[], T]) -> T:
        """Do something with the table, as often as it takes.

        Storage that is away for a while only makes the shard threads wait.
        """
        while True:
            try:
                result = action()
            except OSError as error:
                self._rest(f"the table cannot be written: {error}")
            else:
                self.trouble = ""
                return result

    def _rest(self, trouble: str) -> None:
        self.trouble = trouble
        if self.pause(RETRY_SECONDS):
            raise Closed(trouble)

    # --- the view ---

    def snapshot(self) -> Snapshot:
        """Return which rows are where; no row is in two places, and none is missing."""
        with self._changed:
            pending = (*(rows for _, rows in self._in_flight), *self._buffer.peek())
            return Snapshot(self._version, pending, self._buffer.stats().received, self._committed, self._commits)


def _numbered(batch: pa.RecordBatch, first: int, stamp: datetime) -> pa.RecordBatch:
    """Return a batch with its place in the shard and the time of its commit."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["shard_offset"] = pa.arange(first, first + batch.num_rows)
    columns["foundry_ingestion_timestamp"] = constant(stamp, batch.num_rows, TIMESTAMP)
    return pa.RecordBatch.from_arrays([columns[name] for name in TABLE_SCHEMA.names], schema=TABLE_SCHEMA)


def encode_start(start: StartingPosition, server_now: datetime) -> str:
    """Return how a table remembers where its sync started.

    "Latest" is the moment of the call: later it would mean another place.
    """
    if start.kind is Kind.TRIM_HORIZON:
        return "trim_horizon"
    if start.kind is Kind.LATEST:
        return server_now.isoformat()
    return start.timestamp.isoformat() if start.timestamp else ""


def decode_start(start: str) -> StartingPosition:
    """Return the position that :func:`encode_start` wrote."""
    if start == "trim_horizon":
        return StartingPosition.trim_horizon()
    return StartingPosition.at(datetime.fromisoformat(start))
