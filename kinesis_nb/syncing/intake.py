"""The sink of a sync: takes rows from the shard threads, and keeps them until they are in the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kinesis_nb.errors import DataLoss
from kinesis_nb.reading.buffer import Buffer, Held
from kinesis_nb.reading.ending import Ending

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    import pyarrow as pa

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.types import OnDataLoss
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Gap
    from kinesis_nb.syncing.ledger import Ledger, Pending, Prepared
    from kinesis_nb.syncing.signals import Signals
    from kinesis_nb.table.checkpoints import RecordedGap

PENDING_ROWS, PENDING_BYTES = 500_000, 128 * 2**20  # what may wait for a commit; when full the shard threads wait
COMMIT_EARLY = 0.25  # of that budget


@dataclass(frozen=True, slots=True)
class Totals:
    """What this writer has committed since it started.

    Attributes
    ----------
    version
        Of the table, with every row of it.
    committed, commits
        Rows and commits written.
    filtered
        Rows that were read and not kept, and are counted as such in the table.
    """

    version: int = 0
    committed: int = 0
    commits: int = 0
    filtered: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which rows are where, all at the same moment.

    Attributes
    ----------
    version
        Of the table, with every row that this writer has committed.
    pending
        Rows that are read and, as far as this writer knows, not committed yet; by shard.
    received, committed, commits
        Rows taken from the shards, rows and commits written, since this writer started.
    lost
        Gaps written since then.
    filtered
        Rows of those received that were not kept, and are counted as such in the table.
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


class Intake:
    """Rows on their way into the table, and what the shard threads say of their shards.

    Parameters
    ----------
    on_data_loss
        ``"fail"`` ends the sync, ``"warn"`` records the gap in the table and continues.
    is_eager
        Whether the first rows of a shard are committed at once.
    """

    def __init__(
        self, feed: ReadPlan, ledger: Ledger, signals: Signals, on_data_loss: OnDataLoss, *, is_eager: bool = False
    ) -> None:
        self._feed, self._ledger, self._signals = feed, ledger, signals
        self._changed = signals.changed  # guards everything of this object that changes
        self._on_data_loss, self._is_eager = on_data_loss, is_eager
        self._buffer = Buffer(PENDING_ROWS, PENDING_BYTES, "block")
        self._in_flight: list[Held] = []  # taken out of the buffer, not in the table yet
        self._totals = Totals()
        self._children_for_others = 0
        self._ending = None if feed.end is None else Ending(feed.end)
        self._past_end_at: float | None = None  # since when the end is known to have passed, by the service's clock

    # --- the sink: called by the shard threads

    def position(self, shard: Shard) -> StartingPosition | None:
        """Continue after the last committed record; a shard without one starts where the sync did.

        A shard that has ended in the table and left the stream can reappear, in a listing that is older than the last
        one.
        """
        with self._changed:
            if self._ledger.is_left(shard):
                return None
            if self._ledger.is_waited_for(shard):
                self._ledger.requested[shard.shard_id] = shard
                self._signals.wait_for(lambda: shard.shard_id not in self._ledger.requested)
            if shard.shard_id in self._ledger.settled:
                return None
            self._ledger.inherit(shard, {})  # a parent that left the stream did not know all of its children
            return self._ledger.position(shard.shard_id)

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
        """Queue what arrived in time; return False once nothing more can arrive in time."""
        in_time, late = ending.split(shard.shard_id, batch.rows)
        is_enough = batch.seen is not None and batch.seen > ending.end and (bool(late) or self._was_open(shard))
        for rows in in_time:
            self._queue(shard.shard_id, rows, None)
        ending.hold(shard.shard_id, late)
        # what is dropped behind rows that are held back is counted by the next sync
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
        self._signals.wait_for(lambda: all(shard_id != one for one, _ in self._pending()))

    def _was_open(self, shard: Shard) -> bool:
        """Whether a shard was open when the end had passed: if it was closed, its children may hold more."""
        if self._past_end_at is None:
            self._past_end_at = self._feed.clock.monotonic()
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
        if is_first and self._is_eager:
            self._signals.commit_now()
        stats = self._buffer.stats()
        if stats.rows > COMMIT_EARLY * PENDING_ROWS or stats.bytes > COMMIT_EARLY * PENDING_BYTES:
            self._signals.commit_now()

    def lost(self, gap: Gap) -> None:
        """Stop, or have the gap recorded in the table with what follows it."""
        if self._on_data_loss == "fail":
            raise DataLoss(str(gap), hint='on_data_loss="warn" records the gap in the table and continues')
        with self._changed:
            self._ledger.lose(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Return when the table says that the shard has ended: only then may its children be read.

        A shard with rows held back has not ended: its children are left to the next sync, too.
        """
        mine = tuple(filter(self._feed.wanted, children))
        with self._changed:
            if self._ending is not None and self._ending.holds(shard.shard_id):
                self._leave(shard.shard_id)  # what is held back is read by the next sync
                return
            self._ledger.end(shard.shard_id, mine)
            self._signals.wait_for(lambda: not self._ledger.is_ending(shard.shard_id))
            self._children_for_others += sum(map(self._feed.selection.wants, children)) - len(mine)

    # --- commits: called by the thread that commits

    def at_version(self, version: int) -> None:
        """Record the version of the table that this writer begins at."""
        with self._changed:
            self._totals = replace(self._totals, version=version)

    def take(self, patience: timedelta) -> tuple[dict[str, Shard], Pending]:
        """Take out what there is to commit, and return the shards that wait to be read, too.

        Parameters
        ----------
        patience
            As for :meth:`Ledger.pending`.
        """
        with self._changed:
            requested = dict(self._ledger.requested)
            pending = self._ledger.pending(lambda: self._buffer.take(0), patience)
            self._in_flight = list(pending.held)
        return requested, pending

    def prepare(self, pending: Pending, now: datetime) -> Prepared:
        """Return the commit that puts `pending` into the table at the time `now`."""
        self._ledger.trimmed(*self._feed.lookup.trimmed)
        return self._ledger.prepare(pending, now, self._feed.lookup.known_hours)

    def committed(self, pending: Pending, prepared: Prepared, version: int) -> None:
        """Record that a commit is in the table."""
        with self._changed:
            self._in_flight = []
            self._totals = replace(
                self._totals,
                version=version,
                committed=self._totals.committed + prepared.rows.num_rows,
                commits=self._totals.commits + 1,
                filtered=self._totals.filtered + prepared.filtered,
            )
            self._ledger.committed(pending, prepared)

    def admit(self, shard_ids: Collection[str]) -> None:
        """Let the threads of these shards continue, and all others check what they wait for."""
        with self._changed:
            for shard_id in shard_ids:
                del self._ledger.requested[shard_id]
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse all further rows."""
        self._buffer.close()

    # --- called by any thread

    def _pending(self) -> tuple[Held, ...]:
        return (*self._in_flight, *self._buffer.held())

    def snapshot(self) -> Snapshot:
        """Return which rows are where; no row is in two places, and none is missing."""
        with self._changed:
            pending, totals = self._pending(), self._totals
            return Snapshot(
                totals.version,
                pending,
                self._buffer.stats().received,
                totals.committed,
                totals.commits,
                tuple(self._ledger.lost),
                totals.filtered,
            )

    @property
    def children_for_others(self) -> int:
        """How many children of its shards another writer may read from now on."""
        with self._changed:
            return self._children_for_others


def _read_to(batch: Batch) -> str | None:
    """Return up to which record a batch is complete, where something of it was dropped."""
    return batch.read_to if batch.dropped else None
