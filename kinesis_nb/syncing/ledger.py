"""What a sync knows of its shards: what is in the table, and what the next commit adds.

Pure: no thread, no table, no clock. The committer calls it under its lock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from kinesis_nb.core import foreign
from kinesis_nb.core.frames import TIMESTAMP, constant
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.table.checkpoints import Checkpoint, RecordedGap, in_millis
from kinesis_nb.table.schema import TABLE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from kinesis_nb.core.foreign import Dropped
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.buffer import Held
    from kinesis_nb.reading.sink import Gap

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

WRONG_CLOCK = timedelta(minutes=1)  # a row that is stamped with a time so far in the future had a wrong clock


@dataclass(frozen=True, slots=True)
class Pending:
    """What the next commit is made from.

    Attributes
    ----------
    seen
        Per shard, up to when everything is in `held` or committed.
    ended
        Shards that were read to their end -> their children.
    held
        Rows by shard.
    gaps
        Not later in the table than the rows behind them.
    dropped
        By shard, records that give no row; all rows before them are in `held` or committed.
    """

    seen: dict[str, datetime]
    ended: dict[str, tuple[Shard, ...]]
    held: list[Held]
    gaps: dict[str, Gap]
    dropped: dict[str, tuple[Dropped, ...]]

    def __bool__(self) -> bool:
        return bool(self.seen or self.ended or self.held or self.gaps or self.dropped)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A commit: the numbered rows, how far each shard is once they are in the table, and what is lost or left out.

    Attributes
    ----------
    dropped
        By shard, how many user records of aggregates are left out as another shard's.
    filtered
        How many rows were read and are not kept.
    """

    rows: pa.Table
    checkpoints: dict[str, Checkpoint]
    gaps: list[RecordedGap]
    dropped: dict[str, int]
    filtered: int = 0

    @property
    def notes(self) -> list[str]:
        """What the history of the table records about rows that are left out."""
        notes = [f"{shard_id}: {foreign.describe_dropped(number)}" for shard_id, number in self.dropped.items()]
        return [*notes, f"{self.filtered:,} rows not kept"] if self.filtered else notes


class Ledger:
    """The state of the shards of one writer.

    Attributes
    ----------
    owned
        The ids of the shards that only this writer may commit.
    settled
        Those that had ended in the table before they were owned.
    requested
        Shards that a thread wants to read and that may not be ready for it yet.
    orphans
        Those with unknown parents; older shards that the stream dropped are treated as their parents.
    lost
        Gaps that are in the table since this writer started.
    start
        Where the sync started: a shard that is not in the table yet is read from there.
    left
        Those that were read up to the end of the sync and are not read further; and their children.

    Parameters
    ----------
    keep
        Selects the rows that belong in the table. It is applied when a commit is made, so that how far a shard was
        read, which of its rows were kept and how many were not always agree.
    """

    def __init__(self, keep: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda rows: rows) -> None:
        self._keep = keep
        self.start = StartingPosition.trim_horizon()
        self.left: set[str] = set()
        self.owned: set[str] = set()
        self.settled: set[str] = set()
        self.orphans: set[str] = set()
        self.requested: dict[str, Shard] = {}
        self.lost: list[RecordedGap] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._ended: dict[str, tuple[Shard, ...]] = {}  # read to their end, not committed as such yet -> children
        self._begun: set[str] = set()  # they have given rows
        self._seen: dict[str, datetime] = {}
        self._gaps: dict[str, Gap] = {}  # known, not committed yet
        self._dropped: dict[str, tuple[Dropped, ...]] = {}  # the same
        self._delivered: dict[str, int] = {}  # up to which record the rows of those shards are known
        self._kept_before, self._trimmed_before = 0, _LONG_AGO  # see trimmed_before()

    # --- what is in the table

    def reached(self, shard_id: str) -> Checkpoint:
        """Return how far a shard is in the table."""
        return self._checkpoints.get(shard_id, Checkpoint())

    def own(self, shard_ids: Iterable[str], settled: Collection[str], found: Mapping[str, Checkpoint]) -> None:
        """Record that shards are owned, of which some had ended, and how far the table says that they are.

        What a shard that was never read inherited from its parents is not in the table yet, and is kept when the shard
        is acquired again.
        """
        self.owned.update(shard_ids)
        self.settled |= {*settled, *(shard_id for shard_id, checkpoint in found.items() if checkpoint.ended)}
        for shard_id, checkpoint in found.items():
            known = self.reached(shard_id)
            self._checkpoints[shard_id] = checkpoint if known.sequence_number else _inherited(checkpoint, [known])

    def inherit(self, shard: Shard, parents: Mapping[str, Checkpoint]) -> None:
        """Let a shard that was never read continue the numbers of its parents, and what was seen of them.

        The commit that ends a parent gives its children both. That is not enough where another writer ended the parent,
        now or in an earlier run: it may not have been the owner of the child.

        Parameters
        ----------
        parents
            How far they are in the table; of those that this writer owns it knows that itself.
        """
        reached = self._checkpoints.get(shard.shard_id)
        if reached is None or reached.sequence_number:
            return
        own = {parent: self._checkpoints[parent] for parent in shard.parents if parent in self._checkpoints}
        found: Iterable[Checkpoint] = {**parents, **own}.values()
        if shard.shard_id in self.orphans:  # what was seen of those treated as parents may be later than its creation
            found = [replace(done, seen=None) for done in found]
        self._checkpoints[shard.shard_id] = _inherited(reached, found)

    def promise(self, shard_id: str, since: datetime) -> None:
        """Record that a shard of which nothing was read yet must miss nothing that arrived after `since`."""
        if self._checkpoints.get(shard_id) == Checkpoint():
            self._seen.setdefault(shard_id, since)

    def trimmed_before(self, now: datetime, hours: int) -> datetime:
        """Return the time before which records may have left the stream while nobody read it.

        The stream may have kept its records for a shorter time than it does now: what it dropped by then did not come
        back when that was raised.

        Parameters
        ----------
        hours
            How long it keeps them now.
        """
        found = (checkpoint for checkpoint in self._checkpoints.values() if checkpoint.kept and not checkpoint.ended)
        self._kept_before = min((checkpoint.kept for checkpoint in found), default=hours)
        self._trimmed_before = now - timedelta(hours=min(self._kept_before, hours))
        return self._trimmed_before

    def trimmed(self, before: datetime, hours: int) -> None:
        """Record that what arrived before a time may have left the stream, which kept it for `hours`."""
        if before > self._trimmed_before:
            self._trimmed_before, self._kept_before = before, hours

    def is_waited_for(self, shard: Shard) -> bool:
        """Whether a shard to be read is not owned yet, or has parents that another writer may not have ended."""
        has_begun = bool(self.reached(shard.shard_id).sequence_number)
        return shard.shard_id not in self.owned or not (has_begun or self.owned.issuperset(shard.parents))

    def is_left(self, shard: Shard) -> bool:
        """Whether a shard came out of one that is not read on before the next sync, and so must wait for that."""
        if is_left := not self.left.isdisjoint(shard.parents):
            self.left.add(shard.shard_id)
        return is_left

    def position(self, shard_id: str) -> StartingPosition:
        """Return where to read on: after the last committed record, or where the sync started."""
        checkpoint = self.reached(shard_id)
        if checkpoint.sequence_number is not None:
            return StartingPosition.after(checkpoint.sequence_number, checkpoint.seen, checkpoint.arrived)
        # of a child created later this is its beginning; a shard that existed then may hold older records
        return replace(self.start, seen=checkpoint.seen)

    # --- what the shard threads report

    def saw(self, shard_id: str, moment: datetime) -> None:
        """Record up to when everything in a shard was delivered."""
        self._seen[shard_id] = moment

    def begins(self, shard_id: str) -> bool:
        """Return whether these are the first rows of a shard."""
        is_first = shard_id not in self._begun
        self._begun.add(shard_id)
        return is_first

    def lose(self, gap: Gap) -> None:
        """Record a gap, to go into the table with the rows behind it."""
        self._gaps[gap.shard_id] = gap

    def drop(self, shard_id: str, dropped: tuple[Dropped, ...]) -> None:
        """Record that user records give no rows, before the rows around them are known.

        Records that could not be delivered after they were recorded here may be recorded a second time.
        """
        known = self._dropped.get(shard_id, ())
        last = int(known[-1].sequence_number) if known else -1
        self._dropped[shard_id] = known + tuple(record for record in dropped if int(record.sequence_number) > last)

    def delivered(self, shard_id: str, sequence_number: str) -> None:
        """Record that all rows up to a record are known now, in a shard of which something was dropped."""
        self._delivered[shard_id] = int(sequence_number)

    def end(self, shard_id: str, children: tuple[Shard, ...]) -> None:
        """Record that everything in a closed shard was delivered."""
        self._ended[shard_id] = children

    def is_ending(self, shard_id: str) -> bool:
        """Whether the end of a shard is not in the table yet."""
        return shard_id in self._ended

    # --- commits

    def pending(self, take: Callable[[], list[Held]], patience: timedelta = timedelta(0)) -> Pending:
        """Return what there is to commit.

        In this order: everything that was seen, and everything of shards that ended, is among the rows by now; and the
        gaps in front of the rows, and what was dropped between them, are known.

        Parameters
        ----------
        take
            Takes the rows out of where they wait.
        patience
            How far the table may lie behind what was seen of an idle shard; such a shard is not part of a commit.
        """
        seen, ended, delivered = dict(self._seen), dict(self._ended), dict(self._delivered)
        held = take()
        gaps = dict(self._gaps)
        for shard_id, rows in held:
            if shard_id in self._dropped:
                delivered[shard_id] = max(_last(rows), delivered.get(shard_id, 0))
        dropped = {shard_id: _up_to(delivered.get(shard_id, -1), found) for shard_id, found in self._dropped.items()}
        dropped = {shard_id: found for shard_id, found in dropped.items() if found}
        busy = {shard_id for shard_id, _ in held} | ended.keys() | gaps.keys() | dropped.keys()
        due = {
            shard_id: moment
            for shard_id, moment in seen.items()
            if shard_id in busy or not (last := self.reached(shard_id).seen) or moment - last > patience
        }
        return Pending(due, ended, held, gaps, dropped)

    def prepare(self, pending: Pending, now: datetime, kept: int) -> Prepared:
        """Return the next commit: numbered rows, and how far each shard is once they are in the table.

        Parameters
        ----------
        now
            The time of the commit.
        kept
            How long the stream keeps its records, in hours; 0 when that is not known.
        """
        new: dict[str, Checkpoint] = {}
        numbered: list[pa.RecordBatch] = []
        gaps = []
        for shard_id, gap in pending.gaps.items():
            reached = self.reached(shard_id)
            gaps.append(RecordedGap(shard_id, reached.offset, gap.seen, gap.until))
            new[shard_id] = replace(reached, gaps=reached.gaps + 1)
        filtered = 0
        for shard_id, rows in pending.held:
            reached = new.get(shard_id) or self.reached(shard_id)
            kept_rows = self._keep(rows)
            stamp = reached.stamp
            if count := kept_rows.num_rows:
                stamp = _stamp(now, stamp)
                numbered.append(_numbered(kept_rows, reached.offset, stamp))
            filtered += rows.num_rows - count
            new[shard_id] = replace(
                reached,
                offset=reached.offset + count,
                sequence_number=rows["sequence_number"][-1].as_py(),
                stamp=stamp,
                arrived=_arrival(rows),
                filtered=reached.filtered + rows.num_rows - count,
            )
        counts = {shard_id: foreign.count(dropped) for shard_id, dropped in pending.dropped.items()}
        for shard_id, dropped in pending.dropped.items():
            reached = new.get(shard_id) or self.reached(shard_id)
            number = max(int(reached.sequence_number or 0), int(dropped[-1].sequence_number))
            new[shard_id] = replace(reached, sequence_number=str(number), dropped=reached.dropped + counts[shard_id])
        for shard_id, moment in pending.seen.items():
            reached = new.get(shard_id) or self.reached(shard_id)
            seen = max(in_millis(moment), reached.seen or _LONG_AGO)
            hours = kept if seen >= self._trimmed_before else self._kept_before
            new[shard_id] = replace(reached, seen=seen, kept=hours)
        self._end(pending.ended, new)
        return Prepared(pa.Table.from_batches(numbered, TABLE_SCHEMA), new, gaps, counts, filtered)

    def _end(self, ended: dict[str, tuple[Shard, ...]], new: dict[str, Checkpoint]) -> None:
        """Mark shards as ended, and let their children continue where they stopped."""
        for shard_id, children in ended.items():
            new[shard_id] = done = replace(new.get(shard_id) or self.reached(shard_id), ended=True)
            for child in children:
                if child.shard_id in self.settled:  # nothing follows its rows any more, and it is not owned
                    continue
                reached = new.get(child.shard_id) or self.reached(child.shard_id)
                new[child.shard_id] = _continued(reached, done)

    def committed(self, pending: Pending, prepared: Prepared) -> None:
        """Record that a commit is in the table."""
        self._checkpoints |= prepared.checkpoints
        for shard_id in pending.ended:
            del self._ended[shard_id]
            self._seen.pop(shard_id, None)
        for shard_id, gap in pending.gaps.items():
            if self._gaps.get(shard_id) is gap:
                del self._gaps[shard_id]
        for shard_id, dropped in pending.dropped.items():
            if rest := self._dropped[shard_id][len(dropped) :]:
                self._dropped[shard_id] = rest
            else:
                del self._dropped[shard_id]
                self._delivered.pop(shard_id, None)
        self.lost += prepared.gaps


def _stamp(now: datetime, last: datetime | None) -> datetime:
    """Return the time of a commit: not before the last one, unless that one was stamped by a wrong clock."""
    return now if last is None or last - now > WRONG_CLOCK else max(now, last)


def _last(rows: pa.RecordBatch) -> int:
    """Return the sequence number of the last row."""
    return int(rows["sequence_number"][-1].as_py())


def _up_to(sequence_number: int, dropped: Iterable[Dropped]) -> tuple[Dropped, ...]:
    return tuple(records for records in dropped if int(records.sequence_number) <= sequence_number)


def _arrival(rows: pa.RecordBatch) -> datetime | None:
    """Return when the last row arrived, as a checkpoint keeps it."""
    arrival = rows["kinesis_ingestion_timestamp"][-1].as_py()
    return arrival and in_millis(arrival)


def _inherited(reached: Checkpoint, parents: Iterable[Checkpoint]) -> Checkpoint:
    """Return the checkpoint of a shard behind all its parents; what was seen of the shard itself takes precedence."""
    child = reached
    for done in parents:
        child = _continued(child, done)
    # its own: it was read since its parents ended, and had no record
    return replace(child, seen=reached.seen, kept=reached.kept) if reached.seen else child


def _continued(reached: Checkpoint, done: Checkpoint) -> Checkpoint:
    """Return the checkpoint of a child that does not begin before one of its parents stopped."""
    if reached.sequence_number is not None:
        return reached  # it was read before the parent was reported as lost: there must be no hole between its rows
    stamps = [stamp for stamp in (done.stamp, reached.stamp) if stamp]
    offset = max(done.offset, reached.offset)
    reached = replace(reached, offset=offset, stamp=max(stamps, default=None))
    if done.seen is None or (reached.seen and reached.seen <= done.seen):
        return reached
    return replace(reached, seen=done.seen, kept=done.kept)


def _numbered(batch: pa.RecordBatch, first: int, stamp: datetime) -> pa.RecordBatch:
    """Return a batch with its place in the shard and the time of its commit."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["shard_offset"] = pa.arange(first, first + batch.num_rows)
    columns["foundry_ingestion_timestamp"] = constant(stamp, batch.num_rows, TIMESTAMP)
    return pa.RecordBatch.from_arrays([columns[name] for name in TABLE_SCHEMA.names], schema=TABLE_SCHEMA)
