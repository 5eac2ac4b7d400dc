"""The sink of a sync: takes rows from the shard threads and commits them, with their checkpoints, from one thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from kinesis_nb.buffer import Buffer, Held, OnFull
from kinesis_nb.errors import Closed, DataLoss, Fenced, KinesisError, ServiceError
from kinesis_nb.frames import TIMESTAMP, constant
from kinesis_nb.position import Kind, StartingPosition
from kinesis_nb.table import TABLE_SCHEMA, Checkpoint, RecordedGap, SyncTable, in_millis

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from kinesis_nb.feed import Feed
    from kinesis_nb.frames import Batch
    from kinesis_nb.shards import Shard
    from kinesis_nb.sink import Gap

T = TypeVar("T")

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

PENDING_ROWS, PENDING_BYTES = (
    500_000,
    128 * 2**20,
)  # what may wait for a commit; a full buffer holds the shard threads back
COMMIT_EARLY = 0.25  # of that budget
RETRY_SECONDS = 1.0
LISTING_SECONDS = 5.0  # so old a listing may be that says whether another writer's shard is still in the stream
SEEN_EVERY, SEEN_AT_END = timedelta(minutes=10), timedelta(minutes=1)  # how far what was seen may lie behind, unsaid


class OnDataLoss(StrEnum):
    """What happens when the stream did not keep records until they were read."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class _Pending:
    """What the next commit is made of.

    Attributes
    ----------
    seen
        Per shard, up to when everything is in `held` or committed.
    ended
        Shards that were read to their end -> their children.
    gaps
        Not later in the table than the rows behind them.
    """

    seen: dict[str, datetime]
    ended: dict[str, tuple[Shard, ...]]
    held: list[Held]
    gaps: dict[str, Gap]


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
    lost
        Gaps written since then.
    """

    version: int
    pending: tuple[pa.RecordBatch, ...]
    received: int
    committed: int
    commits: int
    lost: tuple[RecordedGap, ...]


class Committer:
    """Commits what the shard threads deliver, one group commit for all shards per interval.

    Other writers may commit other shards of the same table meanwhile: those that the feed does not want.

    Parameters
    ----------
    table
        From :meth:`start` on only the committer's own thread touches it.
    on_data_loss
        ``"fail"`` ends the sync, ``"warn"`` records the gap in the table and goes on.
    on_end
        Called at the end of that thread, whatever ended it.
    eager
        Where somebody waits for this writer to go on for another one: the first rows of a shard are committed at once,
        with what else comes within so many seconds. None for the usual interval.
    """

    def __init__(
        self,
        table: SyncTable,
        feed: Feed,
        interval: float,
        on_data_loss: OnDataLoss,
        on_end: Callable[[], None],
        eager: float | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self.trouble = ""  # why a commit is being tried again
        self._feed, self._clock, self._on_data_loss = feed, feed.clock, on_data_loss
        self._table, self._interval, self._on_end = table, interval, on_end
        self._eager = eager
        self._buffer = Buffer(PENDING_ROWS, PENDING_BYTES, OnFull.BLOCK)
        self._wake = threading.Event()  # commit now, not at the end of the interval
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards everything below; never held during I/O
        self._version = table.version
        self._in_flight: list[Held] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._owned: set[str] = set()
        self._settled: set[str] = set()  # ended in the table before they were owned
        self._requested: dict[str, Shard] = {}  # a thread wants to read them, and they may not be ready for it yet
        self._ended: dict[str, tuple[Shard, ...]] = {}  # read to their end, not committed as such yet -> children
        self._begun: set[str] = set()  # they have given rows
        self._born_elsewhere = 0
        self._seen: dict[str, datetime] = {}
        self._gaps: dict[str, Gap] = {}  # known, not committed yet
        self._lost: list[RecordedGap] = []
        self._committed = self._commits = 0
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

    @property
    def born_elsewhere(self) -> int:
        """How many children of its shards may be read from now on, by another writer."""
        with self._changed:
            return self._born_elsewhere

    def half_read(self, shard_ids: Collection[str]) -> set[str]:
        """Return those shards that were begun and are not in the table to their end."""
        begun = self._table.checkpoints(set(shard_ids) - self._table.ended(shard_ids))
        return {shard_id for shard_id, checkpoint in begun.items() if checkpoint.sequence_number or checkpoint.seen}

    def wants(self, shard: Shard) -> bool:
        """Whether a shard is for this writer, and not for another one of the same table."""
        return self._feed.wanted(shard)

    def inherit(self, shards: Iterable[Shard]) -> None:
        """Let shards that were never read go on counting where their parents stopped.

        The commit that ends a parent gives its children their first offset. That is not enough where another writer
        ended the parent, now or in an earlier run: it may not have been the owner of the child.
        """
        for shard in shards:
            reached = self._checkpoints.get(shard.shard_id)
            if reached is None or reached.sequence_number:
                continue
            unknown = [parent for parent in shard.parents if parent not in self._checkpoints]
            known = self._checkpoints | (self._table.checkpoints(unknown) if unknown else {})
            for parent in shard.parents:
                reached = _continued(reached, known[parent])
            with self._changed:
                self._checkpoints[shard.shard_id] = reached

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
            has_begun = bool(self._reached(shard.shard_id).sequence_number)
            if shard.shard_id not in self._owned or not (has_begun or self._owned.issuperset(shard.parents)):
                self._requested[shard.shard_id] = shard
                self._wait_for(lambda: shard.shard_id not in self._requested)
            checkpoint = self._checkpoints[shard.shard_id]
        if checkpoint.sequence_number is not None:
            return StartingPosition.after(checkpoint.sequence_number, checkpoint.seen)
        # for a child born later that is its beginning; one that was there may hold older records
        return replace(decode_start(self._table.origin.start), seen=checkpoint.seen)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Queue rows for the next commit; blocks while too much waits."""
        self._buffer.put(shard.shard_id, batch.rows)
        with self._changed:
            if batch.seen is not None:
                self._seen[shard.shard_id] = batch.seen
            is_first = batch.rows.num_rows > 0 and shard.shard_id not in self._begun
            if is_first:
                self._begun.add(shard.shard_id)
        if is_first and self._eager is not None:
            self._wake.set()
        stats = self._buffer.stats()
        if stats.rows > COMMIT_EARLY * PENDING_ROWS or stats.bytes > COMMIT_EARLY * PENDING_BYTES:
            self._wake.set()
        return True

    def lost(self, gap: Gap) -> None:
        """Stop, or have the gap recorded in the table with what follows it."""
        if self._on_data_loss is OnDataLoss.FAIL:
            raise DataLoss(str(gap), hint='on_data_loss="warn" records the gap in the table and goes on')
        with self._changed:
            self._gaps[gap.shard_id] = gap

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Return when the table says that the shard has ended: only then may its children be read."""
        mine = tuple(filter(self.wants, children))
        with self._changed:
            self._ended[shard.shard_id] = mine
            self._wait_for(lambda: shard.shard_id not in self._ended)
            self._born_elsewhere += len(children) - len(mine)

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
            f"{successor} took this sync over",
            hint="only one sync may write a table; this one stopped and lost nothing",
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
                if self._wake.wait(self._interval) and self._eager is not None:
                    self._stopping.wait(self._eager)
                self._wake.clear()
                self._commit_pending()
            self._buffer.close()
            self._commit_pending(SEEN_AT_END)
        except Closed:
            pass  # stopped while storage was away; the next run reads those rows again
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self.error = error
        finally:
            self._buffer.close()
            self.request_stop()
            self._on_end()
            self._over.set()

    def _commit_pending(self, patience: timedelta = SEEN_EVERY) -> None:
        with self._changed:
            requested = dict(self._requested)
            # in this order: everything that was seen, and everything of shards that ended, is in the buffer by now,
            # and the gaps before what is in the buffer are known
            seen, ended = dict(self._seen), dict(self._ended)
            self._in_flight = self._buffer.take(0)
            pending = _Pending(seen, ended, list(self._in_flight), dict(self._gaps))
        ready = self._make_ready(requested.values()) if requested else set[str]()
        if pending.held or pending.ended or pending.gaps or self._is_overdue(seen, patience):
            self._commit(pending)
        with self._changed:
            for shard_id in ready:
                del self._requested[shard_id]
            self._changed.notify_all()

    def _make_ready(self, requested: Iterable[Shard]) -> set[str]:
        """Own those shards whose parents are through, and return their ids; the others ask again at the next commit."""
        shards = list(requested)
        unfinished = self._unfinished_elsewhere(shards)
        ready = [shard for shard in shards if unfinished.isdisjoint(shard.parents)]
        unowned = {shard.shard_id for shard in ready} - self._owned
        if unowned:
            self.insist(lambda: self.take_over(unowned))
        self.insist(lambda: self.inherit(ready))
        return {shard.shard_id for shard in ready}

    def _unfinished_elsewhere(self, shards: Iterable[Shard]) -> set[str]:
        """Return those parents of shards that another writer has not brought into the table to their end.

        One that the stream dropped, and of which nothing is in the table, was never read: nobody waits for it.
        """
        if not (elsewhere := {parent for shard in shards for parent in shard.parents} - self._owned):
            return set()
        self.insist(self._table.refresh)
        open_ones = elsewhere - self.insist(lambda: self._table.ended(elsewhere))
        try:
            listed = self._listing(max(shard.shard_id for shard in shards)) if open_ones else ()
        except KinesisError as error:
            if not error.retryable:
                raise
            return open_ones
        return open_ones.intersection(listed) | self.insist(lambda: self.half_read(open_ones))

    def _listing(self, newest: str) -> Collection[str]:
        """Return the ids of the shards in the stream, as lately as it takes to know one that is there or was.

        One that is older than that shard may lack its parents because they had not begun. Ids ascend.
        """
        now = self._clock.monotonic()
        for since in (now - LISTING_SECONDS, now):
            listed = self._feed.lookup.shards(since)
            if max(listed, default="") >= newest:
                return listed
        raise ServiceError("a listing lacks the shard that is to be read", retryable=True)

    def _is_overdue(self, seen: dict[str, datetime], patience: timedelta) -> bool:
        """Whether the table knows too little of how far idle shards were read."""
        known = {shard_id: self._reached(shard_id).seen for shard_id in seen}
        return any(not (last := known[shard_id]) or moment - last > patience for shard_id, moment in seen.items())

    def _commit(self, pending: _Pending) -> None:
        unowned = {child.shard_id for children in pending.ended.values() for child in children} - self._owned
        if unowned:
            self.insist(lambda: self.take_over(unowned))
        rows, checkpoints, gaps = self._prepare(pending)
        self.insist(lambda: self._write(rows, checkpoints, gaps))
        with self._changed:
            self._version = self._table.version
            self._in_flight = []
            self._checkpoints |= checkpoints
            self._committed += rows.num_rows
            self._commits += 1
            for shard_id in pending.ended:
                del self._ended[shard_id]
            for shard_id, gap in pending.gaps.items():
                if self._gaps.get(shard_id) is gap:
                    del self._gaps[shard_id]
            self._lost += gaps

    def _prepare(self, pending: _Pending) -> tuple[pa.Table, dict[str, Checkpoint], list[RecordedGap]]:
        """Return the numbered rows, how far each shard will be once they are in the table, and what is lost."""
        new: dict[str, Checkpoint] = {}
        numbered: list[pa.RecordBatch] = []
        gaps = []
        for shard_id, gap in pending.gaps.items():
            reached = self._reached(shard_id)
            gaps.append(RecordedGap(shard_id, reached.offset, gap.seen, gap.until))
            new[shard_id] = replace(reached, gaps=reached.gaps + 1)
        for shard_id, rows in pending.held:
            reached = new.get(shard_id) or self._reached(shard_id)
            stamp = max(self._clock.now(), reached.stamp or _LONG_AGO)
            numbered.append(_numbered(rows, reached.offset, stamp))
            new[shard_id] = replace(
                reached,
                offset=reached.offset + rows.num_rows,
                sequence_number=rows["sequence_number"][-1].as_py(),
                stamp=stamp,
            )
        for shard_id, moment in pending.seen.items():
            reached = new.get(shard_id) or self._reached(shard_id)
            new[shard_id] = replace(reached, seen=max(in_millis(moment), reached.seen or _LONG_AGO))
        self._end(pending.ended, new)
        return pa.Table.from_batches(numbered, TABLE_SCHEMA), new, gaps

    def _end(self, ended: dict[str, tuple[Shard, ...]], new: dict[str, Checkpoint]) -> None:
        """Mark shards as ended, and let their children go on counting where they stopped."""
        for shard_id, children in ended.items():
            new[shard_id] = done = replace(new.get(shard_id) or self._reached(shard_id), ended=True)
            for child in children:
                reached = new.get(child.shard_id) or self._reached(child.shard_id)
                new[child.shard_id] = _continued(reached, done)

    def _reached(self, shard_id: str) -> Checkpoint:
        return self._checkpoints.get(shard_id, Checkpoint())

    def _write(self, rows: pa.Table, checkpoints: dict[str, Checkpoint], gaps: list[RecordedGap]) -> None:
        file = self._table.write_rows(rows)
        while not self._table.commit(file, checkpoints, gaps):
            self._rest("the commit did not go through")

    def insist(self, action: Callable[[], T]) -> T:
        """Do something with the table, as often as it takes.

        Storage that is away for a while only makes the shard threads wait.
        """
        while True:
            try:
                result = action()
            except KinesisError:  # some of them are an OSError as well
                raise
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
            received = self._buffer.stats().received
            return Snapshot(self._version, pending, received, self._committed, self._commits, tuple(self._lost))


def _continued(reached: Checkpoint, done: Checkpoint) -> Checkpoint:
    """Return the checkpoint of a child that does not begin before one of its parents stopped."""
    stamps = [stamp for stamp in (done.stamp, reached.stamp) if stamp]
    return replace(reached, offset=max(done.offset, reached.offset), stamp=max(stamps, default=None))


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
