"""A durable sync.

Every record of a stream once, in order, into a Delta table; goes on where it stopped, whatever stopped it.
"""

from __future__ import annotations

import atexit
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from kinesis_nb.buffer import Buffer, OnFull
from kinesis_nb.consumer import State
from kinesis_nb.display import table_html
from kinesis_nb.errors import Closed, ConfigError
from kinesis_nb.frames import TIMESTAMP, Records, TableLike, concat, constant
from kinesis_nb.position import Kind, StartingPosition
from kinesis_nb.scheduler import Feed, Scheduler
from kinesis_nb.table import TABLE_SCHEMA, Checkpoint, Origin, SyncTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.consumer import ConsumerStats
    from kinesis_nb.frames import Batch
    from kinesis_nb.shards import Shard
    from kinesis_nb.transport import Clock, Kinesis

PENDING_ROWS, PENDING_BYTES = (
    500_000,
    128 * 2**20,
)  # what may wait for a commit; a full buffer holds the shard threads back
COMMIT_EARLY = 0.25  # of that budget
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """A moment of a sync.

    Attributes
    ----------
    state
        ``running``, ``ended`` (every shard was read to its end), ``stopped`` or ``failed``.
    rows, commits
        Committed by this writer since it started.
    pending
        Rows read and not committed yet.
    error
        Why it failed or is retrying, else an empty string.
    """

    state: str
    rows: int
    commits: int
    pending: int
    shards: tuple[ConsumerStats, ...]
    error: str


class Sync(TableLike):
    """A running sync.

    Made by :meth:`Source.sync`. ``to_polars()`` and the like give committed and pending rows, none twice.
    """

    def __init__(self, feed: Feed, table: SyncTable, commit_interval: float) -> None:
        self.stream = feed.stream
        self._table, self._clock, self._interval = table, feed.clock, commit_interval
        self._buffer = Buffer(PENDING_ROWS, PENDING_BYTES, OnFull.BLOCK)
        self._wake = threading.Event()  # commit now, not at the end of the interval
        self._stopping = threading.Event()
        self._view = (
            threading.Lock()
        )  # guards the six below: together they say which rows are where; never held during I/O
        self._version = table.version
        self._in_flight: list[pa.RecordBatch] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._ended: dict[
            str, tuple[Shard, ...]
        ] = {}  # shards read to their end, not committed as such yet -> children
        self._rows = self._commits = 0
        self._ended_in_table = threading.Condition(self._view)
        self._last_stamp = datetime.min.replace(tzinfo=UTC)
        self._error: BaseException | None = None
        self._trouble = ""
        self._is_complete = False
        self._scheduler = self._start(feed)
        self._committer = threading.Thread(target=self._run, name=f"kinesis_nb {feed.stream} commit", daemon=True)
        self._committer.start()
        self._scheduler.start()

    def _start(self, feed: Feed) -> Scheduler:
        """Take the shards over, read their checkpoints, and make the scheduler that goes on from there."""
        self._table.acquire(shard.shard_id for shard in feed.shards)
        for shard in feed.shards:
            if checkpoint := self._table.checkpoint(shard.shard_id):
                self._checkpoints[shard.shard_id] = checkpoint
        skipped = [shard_id for shard_id, checkpoint in self._checkpoints.items() if checkpoint.ended]
        return Scheduler(feed, self, skipped=skipped, on_done=self._reading_done)

    # --- the sink: called by the shard threads ---

    def position(self, shard: Shard) -> StartingPosition:
        """Go on after the last committed record.

        A child starts at its beginning, an unknown shard where the sync started.
        """
        with self._view:
            checkpoint = self._checkpoints.get(shard.shard_id)
        if checkpoint is None:
            return decode_start(self._table.origin.start)
        if checkpoint.sequence_number is None:
            return StartingPosition.trim_horizon()
        return StartingPosition.after(checkpoint.sequence_number)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Hand rows to the committer; blocks while too much waits."""
        self._buffer.put(shard.shard_id, batch.rows)
        stats = self._buffer.stats()
        if stats.rows > COMMIT_EARLY * PENDING_ROWS or stats.bytes > COMMIT_EARLY * PENDING_BYTES:
            self._wake.set()
        return True

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Return when the table says that the shard has ended: only then may its children be read."""
        with self._view:
            self._ended[shard.shard_id] = children
            self._wake.set()
            self._ended_in_table.wait_for(lambda: shard.shard_id not in self._ended or self._stopping.is_set())
            if shard.shard_id in self._ended:
                msg = "the sync was stopped"
                raise Closed(msg)

    def _reading_done(self, error: BaseException | None) -> None:
        self._error, self._is_complete = error, error is None
        self._stopping.set()
        self._wake.set()

    # --- the committer's thread ---

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.wait(self._interval)
                self._wake.clear()
                self._commit_pending()
            self._buffer.close()
            self._commit_pending()
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self._error = error
        finally:
            self._stopping.set()
            self._buffer.close()
            with self._view:
                self._ended_in_table.notify_all()
            self._scheduler.stop(0)

    def _commit_pending(self) -> None:
        with self._view:
            ended = dict(self._ended)  # before the rows: everything of these shards is in the buffer by now
            self._in_flight = self._buffer.take(0)
            batches = list(self._in_flight)
        if not batches and not ended:
            return
        rows, checkpoints = self._prepare(batches, ended)
        self._commit(rows, checkpoints)
        with self._view:
            self._version = self._table.version
            self._in_flight = []
            self._checkpoints |= checkpoints
            self._rows += rows.num_rows
            self._commits += 1
            for shard_id in ended:
                del self._ended[shard_id]
            self._ended_in_table.notify_all()

    def _prepare(
        self, batches: list[pa.RecordBatch], ended: dict[str, tuple[Shard, ...]]
    ) -> tuple[pa.Table, dict[str, Checkpoint]]:
        """Return the numbered rows, and how far each shard will be once they are in the table."""
        new: dict[str, Checkpoint] = {}
        stamp = self._last_stamp = max(self._clock.now(), self._last_stamp)
        numbered = []
        for batch in batches:
            shard_id = batch["shard_id"][0].as_py()
            first = self._reached(shard_id, new).offset
            numbered.append(_numbered(batch, first, stamp))
            new[shard_id] = Checkpoint(first + batch.num_rows, batch["sequence_number"][-1].as_py())
        for shard_id, children in ended.items():
            done = self._reached(shard_id, new)
            new[shard_id] = Checkpoint(done.offset, done.sequence_number, ended=True)
            for child in children:
                new[child.shard_id] = Checkpoint(max(done.offset, self._reached(child.shard_id, new).offset))
        return pa.Table.from_batches(numbered, TABLE_SCHEMA), new

    def _reached(self, shard_id: str, new: dict[str, Checkpoint]) -> Checkpoint:
        return new.get(shard_id) or self._checkpoints.get(shard_id) or Checkpoint()

    def _commit(self, rows: pa.Table, checkpoints: dict[str, Checkpoint]) -> None:
        """Commit, as often as it takes; storage that is away for a while only makes the shard threads wait."""
        while True:
            try:
                file = self._table.write_rows(rows)
                while not self._table.commit(file, checkpoints):
                    self._pause("the commit did not go through")
            except OSError as error:
                self._pause(f"the table cannot be written: {error}")
            else:
                self._trouble = ""
                return

    def _pause(self, trouble: str) -> None:
        self._trouble = trouble
        if self._stopping.wait(RETRY_SECONDS):
            raise Closed(trouble)

    # --- the user's side ---

    def stop(self) -> None:
        """Commit what was read, then stop. Stopping twice is fine."""
        self._stopping.set()
        self._wake.set()
        with self._view:
            self._ended_in_table.notify_all()
        if threading.current_thread() is not self._committer:
            self._committer.join(10.0)
        self._scheduler.stop()

    def wait(self, *, until_caught_up: bool = True, timeout: float | None = None) -> bool:
        """Wait until everything that is in the stream now is in the table.

        Parameters
        ----------
        until_caught_up
            False waits until the sync ends, which an open stream never does by itself.
        timeout
            Seconds.

        Returns
        -------
        bool
            False when the time ran out.

        Raises
        ------
        KinesisError
            What the sync failed with.
        """
        caught_up = self._all_caught_up() if until_caught_up else iter(lambda: False, None)
        give_up = self._clock.monotonic() + (float("inf") if timeout is None else timeout)
        while self._committer.is_alive():
            if next(caught_up):
                return True
            if self._clock.monotonic() >= give_up:
                return False
            self._committer.join(0.05)
        if self._error is not None:
            raise self._error
        return True

    def _all_caught_up(self) -> Iterator[bool]:
        """Yield whether everything that was in the stream at the first look is committed by now.

        First every shard that is not finished must have answered "nothing left" to a call made after that look; then
        what was received up to there must be in the table.
        """
        before = {shard.shard_id: shard.calls for shard in self._scheduler.stats()}
        caught_up: set[str] = set()
        while not self._scheduler.unfinished() <= caught_up:
            yield False
            caught_up |= {
                shard.shard_id
                for shard in self._scheduler.stats()
                if shard.state is State.CAUGHT_UP and shard.calls > before.get(shard.shard_id, 0)
            }
        received = self._buffer.stats().received
        while True:
            with self._view:
                is_committed = self._rows >= received
            yield is_committed

    def status(self) -> SyncStatus:
        """Return a moment of the sync."""
        with self._view:
            pending = sum(rows.num_rows for rows in self._in_flight) + self._buffer.stats().rows
            rows, commits = self._rows, self._commits
        return SyncStatus(
            self._state(), rows, commits, pending, tuple(self._scheduler.stats()), str(self._error or self._trouble)
        )

    def _state(self) -> str:
        if self._error is not None:
            return "failed"
        if self._committer.is_alive() and not self._stopping.is_set():
            return "running"
        return "ended" if self._is_complete else "stopped"

    @property
    def live(self) -> Records:
        """The rows that are read but not committed yet."""
        return Records(concat(self._snapshot()[1]))

    def _snapshot(self) -> tuple[int, list[pa.RecordBatch]]:
        with self._view:
            return self._version, [*self._in_flight, *self._buffer.peek()]

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the committed table as a polars LazyFrame; the newest version by default."""
        return pl.scan_delta(str(self._table.path), version=version)

    def to_arrow(self) -> pa.Table:
        """Return the committed rows, then the pending ones (without a ``shard_offset``), as an Arrow table."""
        version, pending = self._snapshot()
        committed = self.scan(version).collect().to_arrow().cast(TABLE_SCHEMA)
        return pa.concat_tables([committed, concat(pending)], promote_options="default")

    def __len__(self) -> int:
        version, pending = self._snapshot()
        committed = self.scan(version).select(pl.len()).collect().item()
        return int(committed) + sum(rows.num_rows for rows in pending)

    def __repr__(self) -> str:
        status = self.status()
        trouble = f", {status.error}" if status.error else ""
        return (
            f"<Sync {self.stream} -> {self._table.path.name}: {status.state}, {status.rows:,} rows"
            f" in {status.commits} commits, {status.pending:,} pending{trouble}>"
        )

    def _repr_html_(self) -> str:
        rows = (
            (s.shard_id, s.state.value, s.records, s.millis_behind_latest, s.throttles, s.retries, s.error)
            for s in self.status().shards
        )
        columns = ("shard", "state", "records", "ms behind", "throttles", "retries", "error")
        return table_html(columns, rows, repr(self).strip("<>"))


def _numbered(batch: pa.RecordBatch, first: int, stamp: datetime) -> pa.RecordBatch:
    """Return a batch with its place in the shard and the time of its commit."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["shard_offset"] = pa.array(range(first, first + batch.num_rows), pa.int64())
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


_running: dict[tuple[str, Path], Sync] = {}


def start_sync(
    kinesis: Kinesis, stream: str, path: str, start: StartingPosition, *, clock: Clock, commit_interval: float
) -> Sync:
    """Start a sync, or return the one that is running for this stream and table in this process."""
    if "://" in path:
        raise ConfigError(f"{path!r} is not a folder of this machine", hint="give a local path")
    if commit_interval <= 0:
        raise ConfigError(f"commit_interval={commit_interval} is no time to wait", hint="give seconds above 0")
    if start.kind is Kind.AFTER_SEQUENCE_NUMBER:
        raise ConfigError("a sequence number is a place in one shard", hint='use "trim_horizon", "latest" or a time')
    summary, shards = kinesis.describe_stream(stream), kinesis.list_shards(stream)
    key = (summary.arn, Path(path).resolve())
    running = _running.get(key)
    if running is not None and running.status().state == "running":
        return running
    begin = encode_start(start, kinesis.server_time().earliest)
    table = SyncTable.open(path, Origin(summary.arn, summary.created_at.isoformat(), begin))
    sync = _running[key] = Sync(Feed(kinesis, stream, clock, tuple(shards)), table, commit_interval)
    return sync


@atexit.register
def _stop_all() -> None:
    for sync in _running.values():
        sync.stop()
