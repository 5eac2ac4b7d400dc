"""The sink of a sync: takes rows from the shard threads and commits them, with their checkpoints, from one thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.core import interrupt
from kinesis_nb.errors import Closed, DataLoss, Fenced, KinesisError, ServiceError, TableError
from kinesis_nb.reading.buffer import Buffer, Held, OnFull
from kinesis_nb.reading.ending import Ending
from kinesis_nb.reading.gaps import GRACE
from kinesis_nb.syncing.ledger import Ledger, decode_start
from kinesis_nb.table.storage import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    import pyarrow as pa

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.retry import RetryingLookups
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Gap
    from kinesis_nb.syncing.ledger import Pending, Prepared
    from kinesis_nb.syncing.ownership import Ownership
    from kinesis_nb.table.table import RecordedGap, SyncTable

T = TypeVar("T")

PENDING_ROWS, PENDING_BYTES = 500_000, 128 * 2**20  # what may wait for a commit; when full the shard threads wait
COMMIT_EARLY = 0.25  # of that budget
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.5  # between looks whether a newer call wants the table
POLL_SECONDS = 0.25  # between looks whether the table is ours, or taken
SILENT_SECONDS = 5.0  # after which a table that does not respond is reported
LISTING_SECONDS = 5.0  # a listing that says whether another writer's shard is still in the stream may be that old
SEEN_EVERY, SEEN_AT_END = timedelta(minutes=1), timedelta(seconds=1)  # how far what was seen may lie behind, unsaid


class OnDataLoss(StrEnum):
    """What happens when the stream did not keep records until they were read."""

    FAIL = "fail"
    WARN = "warn"


class Phase(StrEnum):
    """What a writer is doing; the transitions stand in :mod:`kinesis_nb.syncing.ownership`."""

    STARTING = "starting"  # has not claimed the table yet
    WAITING = "waiting"
    OWNING = "running"
    YIELDING = "handing over"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which rows are where, all of the same moment.

    Attributes
    ----------
    version
        Of the table, with every row that this writer has committed.
    pending
        Rows that are read and, as far as this writer knows, not committed yet; by shard.
    received, committed, commits
        Rows taken from the shards, rows and commits written, since this committer started.
    lost
        Gaps written since then.
    filtered
        Rows of those received that were not kept, of which the table says so.
    """

    version: int
    pending: tuple[Held, ...]
    received: int
    committed: int
    commits: int
    lost: tuple[RecordedGap, ...]
    filtered: int = 0

    @property
    def pending_rows(self) -> int:
        """How many rows are pending."""
        return sum(rows.num_rows for _, rows in self.pending)


class Committer:
    """Commits what the shard threads deliver, one group commit for all shards per interval.

    Other writers may commit other shards of the same table meanwhile: those that the feed does not want.

    Parameters
    ----------
    table
        From :meth:`start` on only the committer's own thread touches it.
    interval
        Seconds between commits.
    on_data_loss
        ``"fail"`` ends the sync, ``"warn"`` records the gap in the table and goes on.
    begin
        Called when the table is ours, with what is to be read: starts that.
    on_end
        Called at the end of the thread, whatever ended it.
    eager
        Where somebody waits for this writer to continue for another one: the first rows of a shard are committed at
        once, with what else comes within that many seconds. None for the usual interval.
    """

    def __init__(
        self,
        table: SyncTable,
        ownership: Ownership,
        feed: ReadPlan,
        interval: float,
        on_data_loss: OnDataLoss,
        begin: Callable[[ReadPlan], None] = lambda _feed: None,
        on_end: Callable[[], None] = lambda: None,
        eager: float | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self.phase = Phase.STARTING
        self._interval, self._on_data_loss = interval, on_data_loss
        self._feed, self._clock = feed, feed.clock
        self._table, self._ownership = table, ownership
        self._begin, self._on_end, self._eager = begin, on_end, eager
        self._buffer = Buffer(PENDING_ROWS, PENDING_BYTES, OnFull.BLOCK)
        self._wake = threading.Event()  # commit now, not at the end of the interval
        self._is_seen_wanted = threading.Event()  # somebody waits for the table to say up to when it was read
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards everything below; never held during I/O
        self._ledger = Ledger(feed.selection.keep)
        self._version = table.version
        self._in_flight: list[Held] = []
        self._children_for_others = 0
        self._committed = self._commits = self._filtered = 0
        self._ending = None if feed.end is None else Ending(feed.end)
        self._past_end_at: float | None = None  # since when the end is known to have passed, by the service's clock
        # the committer's thread alone uses these
        self._now = self._commit_at = self._look_at = float("-inf")
        self._trouble = ""  # why something is being tried again
        self._busy_since: float | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()  # the first steps are done: reading, waiting, or over
        self._over = threading.Event()  # not Thread.join(): interrupted, it takes a living thread for a dead one

    @property
    def ended(self) -> Collection[str]:
        """The ids of the shards that are in the table to their end."""
        return self._ledger.settled

    @property
    def children_for_others(self) -> int:
        """How many children of its shards may be read from now on, by another writer."""
        with self._changed:
            return self._children_for_others

    def wants(self, shard: Shard) -> bool:
        """Whether a shard is for this writer, and not for another one of the same table."""
        return self._feed.wanted(shard)

    @property
    def trouble(self) -> str:
        """Why the table cannot be used at the moment; empty when it can."""
        since = self._busy_since
        silent = 0.0 if since is None else self._clock.monotonic() - since
        if silent < SILENT_SECONDS:
            return self._trouble
        return self._trouble or f"the table has not responded for {silent:,.0f} s"

    # --- the sink: called by the shard threads ---

    def position(self, shard: Shard) -> StartingPosition | None:
        """Continue after the last committed record; a shard without one starts where the sync did.

        One that has ended in the table, and left the stream, can be listed again: by a listing that is older than the
        last one.
        """
        with self._changed:
            if self._ledger.is_left(shard):
                return None
            if self._ledger.is_waited_for(shard):
                self._ledger.requested[shard.shard_id] = shard
                self._wait_for(lambda: shard.shard_id not in self._ledger.requested)
            if shard.shard_id in self._ledger.settled:
                return None
            self._ledger.inherit(shard, {})  # a parent that left the stream did not know all of its children
            return self._ledger.position(shard.shard_id, decode_start(self._table.origin.start))

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Queue rows for the next commit; blocks while too much waits."""
        if batch.dropped:
            with self._changed:
                self._ledger.drop(shard.shard_id, batch.dropped)
        if self._ending is not None:
            return self._deliver_until_end(shard, batch, self._ending)
        self._queue(shard.shard_id, batch.rows, batch.seen, _read_to(batch))
        return True

    def _deliver_until_end(self, shard: Shard, batch: Batch, ending: Ending) -> bool:
        """Queue what arrived in time; False once nothing more can come that did."""
        in_time, late = ending.split(shard.shard_id, batch.rows)
        is_enough = batch.seen is not None and batch.seen > ending.end and (bool(late) or self._was_open(shard))
        for rows in in_time:
            self._queue(shard.shard_id, rows, None)
        ending.hold(shard.shard_id, late)
        # behind rows that are held back, the next sync counts what is dropped
        read_to = None if late else _read_to(batch)
        self._queue(shard.shard_id, batch.rows.slice(0, 0), ending.seen(batch.seen, late), read_to)
        if is_enough:
            with self._changed:
                self._leave(shard.shard_id)
        return not is_enough

    def _leave(self, shard_id: str) -> None:
        """Leave the rest of a shard to the next sync; return when what was delivered of it is in the table.

        Before that the sync has not come to its end: a stop gives up where the storage is away, and an end does not.
        """
        self._ledger.left.add(shard_id)
        self._wait_for(lambda: all(shard_id != one for one, _ in (*self._in_flight, *self._buffer.held())))

    def _was_open(self, shard: Shard) -> bool:
        """Whether a shard was open when the end had passed: of one that was not, children may hold more."""
        if self._past_end_at is None:
            self._past_end_at = self._clock.monotonic()
        listed = self._feed.lookup.shards(self._past_end_at).get(shard.shard_id)
        return listed is not None and listed.is_open

    def _queue(self, shard_id: str, rows: pa.RecordBatch, seen: datetime | None, read_to: str | None = None) -> None:
        self._buffer.put(shard_id, rows)
        with self._changed:
            if read_to is not None:
                self._ledger.delivered(shard_id, read_to)
            if seen is not None:
                self._ledger.saw(shard_id, seen)
            is_first = rows.num_rows > 0 and self._ledger.begins(shard_id)
        if is_first and self._eager is not None:
            self._wake.set()
        stats = self._buffer.stats()
        if stats.rows > COMMIT_EARLY * PENDING_ROWS or stats.bytes > COMMIT_EARLY * PENDING_BYTES:
            self._wake.set()

    def lost(self, gap: Gap) -> None:
        """Stop, or have the gap recorded in the table with what follows it."""
        if self._on_data_loss is OnDataLoss.FAIL:
            raise DataLoss(str(gap), hint='on_data_loss="warn" records the gap in the table and continues')
        with self._changed:
            self._ledger.lose(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Return when the table says that the shard has ended: only then may its children be read.

        With rows held back it has not, and its children are left for the next sync, too.
        """
        mine = tuple(filter(self.wants, children))
        with self._changed:
            if self._ending is not None and self._ending.holds(shard.shard_id):
                self._leave(shard.shard_id)  # what is held back is read by the next sync
                return
            self._ledger.end(shard.shard_id, mine)
            self._wait_for(lambda: not self._ledger.is_ending(shard.shard_id))
            self._children_for_others += sum(map(self._feed.selection.wants, children)) - len(mine)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Make the committer look now, and wait until it did what `condition` says."""
        self._wake.set()
        self._changed.wait_for(lambda: condition() or self._stopping.is_set())
        if not condition():
            raise Closed("the sync was stopped")

    # --- the thread, from outside ---

    def start(self, name: str) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until shards are being read, or another writer is waited for; raise what went wrong before."""
        interrupt.wait(self._ready)
        if self.error is not None and self.phase is Phase.STARTING:
            raise self.error

    def record_seen(self) -> None:
        """Have the table say up to when its shards were read, also of those that are idle."""
        self._is_seen_wanted.set()
        self._wake.set()

    def request_stop(self) -> None:
        """Let the thread commit what was read, and end."""
        self._stopping.set()
        self._wake.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it came."""
        if self._thread is not threading.current_thread():
            interrupt.wait(self._over, timeout)
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
        """Record that no shard thread delivers any more."""
        self.error = error
        self.request_stop()

    # --- the thread ---

    def _run(self) -> None:
        waited = 0.0
        try:
            while (wait := self.step(waited)) is not None:
                waited = 0.0 if self._wake.wait(wait) else wait
        except Closed:
            pass  # stopped while storage was away; the next run reads those rows again
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self.error = error
            with suppress(OSError, KinesisError):  # the table may be needed to say more
                self.error = self._said(error)
        finally:
            self._end()

    def _said(self, error: BaseException) -> BaseException:
        """Return what a user is to see of an error that ended the thread."""
        if isinstance(error, Fenced) and self.phase is Phase.YIELDING:
            return self._ownership.fenced_by()
        if isinstance(error, OSError) and not isinstance(error, KinesisError):
            return explain(self._table.storage.uri, error)
        if type(error).__name__ == "PanicException":  # of the Rust libraries; not an Exception
            return TableError(f"{self._table.storage.uri} cannot be used: {error}", hint="this may be a damaged table")
        return error

    def _end(self) -> None:
        try:
            self._buffer.close()
            self.request_stop()
            self._on_end()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            self.error = self.error or error
        finally:
            self._ready.set()
            self._over.set()

    def step(self, waited: float = 0.0) -> float | None:
        """Do what is due.

        Parameters
        ----------
        waited
            Seconds that the caller waited since the last step, though the clock may not have moved.

        Returns
        -------
        float or None
            Seconds until something is due again; None when this writer has ended.
        """
        self._now = max(self._clock.monotonic(), self._now + waited)
        is_woken = self._wake.is_set()
        self._wake.clear()
        match self.phase:
            case Phase.OWNING:
                return self._own(is_woken=is_woken)
            case Phase.YIELDING:
                return self._yield()
            case _:
                return self._wait_for_turn()

    def _wait_for_turn(self) -> float | None:
        if self._stopping.is_set():
            return None
        if self.phase is Phase.STARTING:
            self._ownership.claim()
        if not self._retried(lambda: self._ownership.may_take(self._now)):
            self.phase = Phase.WAITING
            self._ready.set()
            return POLL_SECONDS
        feed = self._retried(lambda: self.take_all(self._feed.lookups))
        if self._stopping.is_set():
            self.insist(self._ownership.release)
            return None
        self._begin(feed)
        self.phase = Phase.OWNING
        self._ready.set()
        self._commit_at, self._look_at = self._now + self._interval, self._now + LOOK_SECONDS
        return 0.0

    def _retried(self, action: Callable[[], T]) -> T:
        """Call something that is tried again once the caller of the sync has gone on; before that he sees the error."""
        return action() if self.phase is Phase.STARTING else self.insist(action)

    def _own(self, *, is_woken: bool) -> float | None:
        if self._stopping.is_set():
            self._buffer.close()
            self._commit_pending(SEEN_AT_END)
            self.insist(self._ownership.release)
            return None
        if is_woken:
            self._commit_at = min(self._commit_at, self._now + (self._eager or 0.0))
        if self._now >= self._commit_at:
            patience = SEEN_AT_END if self._is_seen_wanted.is_set() else SEEN_EVERY
            self._is_seen_wanted.clear()
            self._commit_pending(patience)
            self._commit_at = self._now + self._interval
        if self._now >= self._look_at:
            self._look_at = self._now + LOOK_SECONDS
            if self._sees(lambda: self._ownership.is_wanted(self._now)):
                self._commit_pending(SEEN_AT_END)
                self.insist(self._ownership.release)
                self.phase = Phase.YIELDING
                return POLL_SECONDS
        return max(0.0, min(self._commit_at, self._look_at) - self._now)

    def _yield(self) -> float | None:
        if self._stopping.is_set():
            return None
        if not self._sees(lambda: self._ownership.may_resume(self._now)):
            return POLL_SECONDS
        self.insist(lambda: self.take_over(self._ledger.owned - self._ledger.settled))
        self.phase = Phase.OWNING
        return 0.0

    def _sees(self, look: Callable[[], bool]) -> bool:
        """Look at the table; what fails is reported, and is seen at the next look."""
        try:
            seen = self._timed(look)
        except (OSError, KinesisError) as error:
            if isinstance(error, KinesisError) and not error.retryable:
                raise
            self._trouble = f"the table cannot be read: {error}"
            return False
        self._trouble = ""
        return seen

    # --- shards ---

    def take_all(self, lookups: RetryingLookups) -> ReadPlan:
        """Own every shard that is listed after the last take-over, and those that left the stream unread.

        A writer that is being fenced may end a shard meanwhile; its children are in the next listing then.

        Returns
        -------
        ReadPlan
            What is to be read.
        """
        kept = lookups.retry_until_done(self._feed.lookup.retention)
        is_taken = False
        while True:
            shards, listed = lookups.retry_until_done(self._to_read)
            unowned = {shard.shard_id for shard in shards} - self._ledger.owned
            if is_taken and not unowned:
                self.inherit(shards, listed)
                return self._feed_of(shards, kept)
            self.take_over(unowned)
            is_taken = True

    def _to_read(self) -> tuple[list[Shard], set[str]]:
        """Return the shards that are to be read, and the ids of all that are in the stream."""
        listing = self._feed.kinesis.list_shards(self._feed.stream)
        shards = [*filter(self.wants, listing), *self._ownership.gone(listing)]
        return shards, {shard.shard_id for shard in listing}

    def _feed_of(self, shards: Iterable[Shard], kept: timedelta) -> ReadPlan:
        """Return what is to be read, and have the table remember what must not be lost of the first shards."""
        start, now = decode_start(self._table.origin.start), self._feed.kinesis.server_time().earliest
        horizon = now - kept + GRACE
        with self._changed:
            trimmed_before = self._ledger.trimmed_before(now, kept // timedelta(hours=1))
            for shard in shards:
                if shard.shard_id <= self._table.origin.newest_shard:
                    self._ledger.promise(shard.shard_id, max(start.timestamp or horizon, horizon))
        return self._feed.of(tuple(shards), trimmed_before)

    def take_over(self, shard_ids: Collection[str]) -> None:
        """Own shards, and take in how far they got."""
        settled, found = self._ownership.take_over(shard_ids)
        with self._changed:
            self._ledger.own(shard_ids, settled, found)
            self._changed.notify_all()

    def inherit(self, shards: Iterable[Shard], listed: Collection[str] = ()) -> None:
        """Let shards that were never read continue where their parents stopped."""
        for shard in shards:
            parents = self._ownership.parents(shard, listed)
            with self._changed:
                self._ledger.orphans |= self._ownership.orphans
                self._ledger.inherit(shard, parents)

    def _make_ready(self, requested: Iterable[Shard]) -> set[str]:
        """Own those shards whose parents are through, and return their ids; the others ask again at the next commit."""
        shards = list(requested)
        lineages = self.insist(lambda: [self._ownership.ancestors(shard) for shard in shards])
        unfinished = self._unfinished_elsewhere(shards, set().union(*lineages))
        ready = [shard for shard, ancestors in zip(shards, lineages, strict=True) if unfinished.isdisjoint(ancestors)]
        unowned = {shard.shard_id for shard in ready} - self._ledger.owned
        if unowned:
            self.insist(lambda: self.take_over(unowned))
        self.insist(lambda: self.inherit(ready))
        return {shard.shard_id for shard in ready}

    def _unfinished_elsewhere(self, shards: Collection[Shard], ancestors: set[str]) -> set[str]:
        """Return those ancestors of shards that another writer has not brought into the table to their end.

        Nobody waits for one that the stream dropped and that nobody owns; but whoever owns one has to tell first what
        was lost of it. Of those that the stream still has only the parents matter.
        """
        if not (elsewhere := ancestors - self._ledger.owned):
            return set()
        self.insist(self._table.refresh)
        parents = {parent for shard in shards for parent in shard.parents}
        open_ones = elsewhere - self.insist(lambda: self._table.ended(elsewhere))
        try:
            listed = self._listing(max(shard.shard_id for shard in shards)) if open_ones else ()
        except KinesisError as error:
            if not error.retryable:
                raise
            return open_ones
        gone = open_ones.difference(listed)
        return open_ones.intersection(parents, listed) | self.insist(lambda: self._table.acquired(gone))

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

    # --- commits ---

    def _commit_pending(self, patience: timedelta = SEEN_EVERY) -> None:
        with self._changed:
            requested = dict(self._ledger.requested)
            pending = self._ledger.pending(lambda: self._buffer.take(0), patience)
            self._in_flight = list(pending.held)
        ready = self._make_ready(requested.values()) if requested else set[str]()
        if pending:
            self._commit(pending)
        with self._changed:
            for shard_id in ready:
                del self._ledger.requested[shard_id]
            self._changed.notify_all()

    def _commit(self, pending: Pending) -> None:
        unowned = {child.shard_id for children in pending.ended.values() for child in children} - self._ledger.owned
        if unowned:
            self.insist(lambda: self.take_over(unowned))
        # by the service's clock where ours cannot be right: one wrong time would stamp all later rows too
        now = self._feed.kinesis.server_time().likely(self._clock.now())
        self._ledger.trimmed(*self._feed.lookup.trimmed)
        prepared = self._ledger.prepare(pending, now, self._feed.lookup.known_hours)
        self._publish(prepared)
        with self._changed:
            self._version = self._table.version
            self._in_flight = []
            self._committed += prepared.rows.num_rows
            self._commits += 1
            self._filtered += prepared.filtered
            self._ledger.committed(pending, prepared)

    def _publish(self, prepared: Prepared) -> None:
        """Write the rows to a file, once, and commit it.

        A handle that is older than a round of maintenance is refused once, and that is no reason to wait.
        """
        file = self.insist(lambda: self._table.write_rows(prepared.rows))
        for number in count():
            if number > 1:
                self._wait_to_retry(f"the commit did not go through: {self._table.refusal}")
            may_be_gone = number > 0 or self._table.storage.folder is not None  # an object stays where it was put
            if file is not None and may_be_gone and not self.insist(partial(self._table.has_file, file)):
                file = self.insist(lambda: self._table.write_rows(prepared.rows))  # its folder was away meanwhile
            if self.insist(partial(self._table.commit, file, prepared.checkpoints, prepared.gaps, prepared.notes)):
                return

    def insist(self, action: Callable[[], T]) -> T:
        """Do something with the table, retrying until it succeeds.

        Storage that is away for a while, or whose credentials cannot be renewed, only makes the shard threads wait.
        """
        while True:
            try:
                result = self._timed(action)
            except KinesisError as error:  # some of them are an OSError as well
                if not error.retryable:
                    raise
                self._wait_to_retry(f"the table cannot be reached: {error.message}")
            except OSError as error:
                self._wait_to_retry(f"the table cannot be written: {error}")
            else:
                self._trouble = ""
                return result

    def _timed(self, action: Callable[[], T]) -> T:
        """Call something that may be silent for long; see :attr:`trouble`."""
        self._busy_since = self._clock.monotonic()
        try:
            return action()
        finally:
            self._busy_since = None

    def _wait_to_retry(self, reason: str) -> None:
        self._trouble = reason
        if self.pause(RETRY_SECONDS):
            raise Closed(reason)

    def pause(self, seconds: float) -> bool:
        """Wait; return at once, and True, when the end was asked for."""
        return self._stopping.wait(seconds)

    # --- the view ---

    def snapshot(self) -> Snapshot:
        """Return which rows are where; no row is in two places, and none is missing."""
        with self._changed:
            pending = (*self._in_flight, *self._buffer.held())
            received = self._buffer.stats().received
            counts = received, self._committed, self._commits
            return Snapshot(self._version, pending, *counts, tuple(self._ledger.lost), self._filtered)


def _read_to(batch: Batch) -> str | None:
    """Return up to which record a batch says all there is, where something of it was dropped."""
    return batch.read_to if batch.dropped else None
