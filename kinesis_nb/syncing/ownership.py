"""Whose turn it is to write a table, and which of its shards this writer owns.

Everything here is decided by the log of the table (:meth:`SyncTable.claim`, :meth:`~SyncTable.acquire`). A call goes
through these states; the ones in the last column are what another call must have written to get it there:

=========  =====================================================  ==================================
state      what it does                                           leaves when
=========  =====================================================  ==================================
waiting    has claimed the table; waits for its writer            released, gone, or LEASE_SECONDS
owning     commits                                                a newer claim -> yielding
yielding   has committed all it had, and released; commits no     the newer call took the table ->
           more                                                   Fenced; it never did -> waiting
=========  =====================================================  ==================================

So of any number of calls the newest one that lives gets the table, and a call that died before it took the table stops
the one before it for YIELD_SECONDS.

To own a shard is to have raised its epoch. The order matters (:meth:`Ownership.take_all`): acquire, then read the
checkpoint, then list the stream again; a writer that is being fenced may commit until it is.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.core.shards import Shard
from kinesis_nb.errors import Fenced, KinesisError, ServiceError
from kinesis_nb.reading.gaps import GRACE
from kinesis_nb.syncing import lease
from kinesis_nb.table.checkpoints import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from kinesis_nb.core.retry import RetryingLookups
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.syncing.ledger import Ledger
    from kinesis_nb.syncing.retries import TableRetries
    from kinesis_nb.syncing.signals import Signals
    from kinesis_nb.table.table import SyncTable

LEASE_SECONDS = 3.0  # how long a writer that does not release the table is waited for
YIELD_SECONDS = 10.0  # how long a newer call has to take the table before an older one claims it again
RANK_SECONDS = 2.0  # added for each call in between, which may have seen the newer one earlier
REFRESH_SECONDS = 5.0  # at most between two readings of the log's end; in between only the next entry is checked for
LISTING_SECONDS = 5.0  # a listing that says whether another writer's shard is still in the stream may be that old


class Turn:
    """One call's turn. Used by the thread that commits, and by no other.

    Parameters
    ----------
    run
        The name of a run of several writers, each of which owns some shards; empty for a single writer.
    """

    def __init__(self, table: SyncTable, run: str = "") -> None:
        self._table, self._run = table, run
        self._refreshed_at = float("-inf")
        self._waits_for = 0  # the call whose lease runs
        self._lease_ends = 0.0
        self._newer = 0  # the call that is to take the table
        self._newer_until = 0.0

    def claim(self) -> None:
        """Ask for the table. May be called again when it failed."""
        self._table.claim(self._run)

    def may_take(self, now: float) -> bool:
        """Return whether the table can be taken without waiting for another call any longer.

        Raises
        ------
        Fenced
            When a newer call took the table.
        OSError
            When the table cannot be read.
        """
        if self._yields_to_a_newer_call(now):
            return False
        turns = self._table.turns()
        if turns.taken == self._table.turn or turns.released >= turns.taken:
            return True
        if self._waits_for != turns.taken:
            self._waits_for, self._lease_ends = turns.taken, now + LEASE_SECONDS
        holder = lease.holder(self._table.storage, turns.taken)
        return now >= self._lease_ends or (holder is not None and holder.is_gone())

    def sign(self) -> None:
        """Leave the name of this process for those that will wait for it; a run of several writers leaves none."""
        if not self._run:
            lease.take(self._table.storage, self._table.turn)

    def is_wanted(self, now: float) -> bool:
        """Return whether a newer call has claimed the table. Raises as :meth:`may_take` does."""
        self._refresh(now)
        return self._table.turns().claimed > self._table.turn

    def release(self) -> None:
        """Tell the newer call that everything is committed; a run of several writers is not waited for."""
        if not self._run:
            self._table.release()

    def may_resume(self, now: float) -> bool:
        """Return whether a writer that has released the table has it back, because the newer call never took it.

        Raises as :meth:`may_take` does.
        """
        return not self._yields_to_a_newer_call(now)

    def _yields_to_a_newer_call(self, now: float) -> bool:
        """Whether there is a newer call that may still take the table; one whose time is up is passed over."""
        if not self.is_wanted(now):
            return False
        claimed = self._table.turns().claimed
        if self._newer != claimed:
            older_calls_wait = RANK_SECONDS * (claimed - self._table.turn - 1)
            self._newer, self._newer_until = claimed, now + YIELD_SECONDS + older_calls_wait
        if now < self._newer_until:
            return True
        self._table.claim(self._run)
        return False

    def _refresh(self, now: float) -> None:
        if now - self._refreshed_at >= REFRESH_SECONDS or self._table.has_news():
            self._table.refresh()
            self._refreshed_at = now

    def fenced_by(self) -> Fenced:
        """Return the error of a writer that was asked for the table and gave it away."""
        holder = lease.holder(self._table.storage, self._table.turns().taken)
        return Fenced(
            f"{holder or 'another writer'} took this sync over",
            hint="only one sync may write a table; this one stopped and lost nothing",
        )


class Ownership:
    """Takes shards over for one writer, and records in its ledger how far they are in the table.

    Used by the thread that commits, and by no other.

    Parameters
    ----------
    table
        Once that thread runs, nobody else touches it.
    run
        As for :class:`Turn`.
    """

    def __init__(
        self, feed: ReadPlan, table: SyncTable, ledger: Ledger, signals: Signals, retries: TableRetries, run: str = ""
    ) -> None:
        self.feed, self.table, self.signals, self.retries = feed, table, signals, retries
        self.turn = Turn(table, run)
        self._ledger, self._retry = ledger, retries.retry_until_done
        self._ancestry = Ancestry(table, feed.wanted, feed.selection)

    # --- at the start

    def take_all(self, lookups: RetryingLookups) -> ReadPlan:
        """Own every shard that is listed after the last take-over, and those that left the stream unread.

        A writer that is being fenced may end a shard meanwhile; its children are in the next listing then.

        Returns
        -------
        ReadPlan
            What is to be read.
        """
        kept = lookups.retry_until_done(self.feed.lookup.retention)
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
        listing = self.feed.kinesis.list_shards(self.feed.stream)
        shards = [*filter(self.feed.wanted, listing), *self._ancestry.gone(listing)]
        return shards, {shard.shard_id for shard in listing}

    def _feed_of(self, shards: Iterable[Shard], kept: timedelta) -> ReadPlan:
        """Return what is to be read, and have the table remember what must not be lost of the first shards."""
        start, now = self.table.origin.position, self.feed.kinesis.server_time().earliest
        horizon = now - kept + GRACE
        with self.signals.changed:
            self._ledger.start = start
            trimmed_before = self._ledger.trimmed_before(now, kept // timedelta(hours=1))
            for shard in shards:
                if shard.shard_id <= self.table.origin.newest_shard:
                    self._ledger.promise(shard.shard_id, max(start.timestamp or horizon, horizon))
        return self.feed.of(tuple(shards), trimmed_before)

    # --- one step each

    def take_over(self, shard_ids: Collection[str]) -> None:
        """Fence whoever wrote these shards before, then read how far they got; in that order, so that it is final.

        Shards that have ended in the table are final, and need no owner.
        """
        settled = self.table.ended(shard_ids)
        wanted = set(shard_ids) - settled
        self.turn.sign()  # first, so that whoever is fenced by the next line can say by whom
        self.table.acquire(wanted)
        found = self.table.checkpoints(wanted)
        with self.signals.changed:
            self._ledger.own(shard_ids, settled, found)
            self.signals.changed.notify_all()

    def own(self, shard_ids: Iterable[str]) -> None:
        """Take over those of some shards that are not owned yet, retrying until that is done."""
        if unowned := set(shard_ids) - self._ledger.owned:
            self._retry(lambda: self.take_over(unowned))

    def resume(self) -> None:
        """Take over again what this writer owned before it released the table."""
        self._retry(lambda: self.take_over(self._ledger.owned - self._ledger.settled))

    def inherit(self, shards: Iterable[Shard], listed: Collection[str] = ()) -> None:
        """Let shards that were never read continue where their parents stopped."""
        for shard in shards:
            parents = self._ancestry.parents(shard, listed)
            with self.signals.changed:
                self._ledger.orphans |= self._ancestry.orphans
                self._ledger.inherit(shard, parents)

    # --- shards that came up while the sync ran

    def make_ready(self, requested: Iterable[Shard]) -> set[str]:
        """Own those shards whose parents have ended, and return their ids; try the others again at the next commit."""
        shards = list(requested)
        lineages = self._retry(lambda: [self._ancestry.ancestors(shard) for shard in shards])
        unfinished = self._unfinished(shards, set().union(*lineages))
        ready = [shard for shard, ancestors in zip(shards, lineages, strict=True) if unfinished.isdisjoint(ancestors)]
        self.own(shard.shard_id for shard in ready)
        self._retry(lambda: self.inherit(ready))
        return {shard.shard_id for shard in ready}

    def _unfinished(self, shards: Collection[Shard], ancestors: set[str]) -> set[str]:
        """Return those ancestors of shards that are not in the table to their end, where some are another writer's.

        A shard that the stream dropped and that has no owner is not waited for; but its owner, if there is one, must
        first record what was lost of it. That may be this writer: the parents of an orphan are unknown, so its reader
        does not wait for them by itself. Of those that the stream still has only the parents matter.
        """
        if ancestors <= self._ledger.owned:
            return set()
        self._retry(self.table.refresh)
        parents = {parent for shard in shards for parent in shard.parents}
        open_ones = ancestors - self._retry(lambda: self.table.ended(ancestors))
        try:
            listed = self._listing(max(shard.shard_id for shard in shards)) if open_ones else ()
        except KinesisError as error:
            if not error.retryable:
                raise
            return open_ones
        gone = open_ones.difference(listed)
        return open_ones.intersection(parents, listed) | self._retry(lambda: self.table.acquired(gone))

    def _listing(self, newest: str) -> Collection[str]:
        """Return the ids of the shards in the stream, recent enough to include a shard that is there or was.

        A listing that is older than that shard may lack its parents because they had not begun. Ids ascend.
        """
        now = self.feed.clock.monotonic()
        for since in (now - LISTING_SECONDS, now):
            listed = self.feed.lookup.shards(since)
            if max(listed, default="") >= newest:
                return listed
        raise ServiceError("a listing lacks the shard that is to be read", retryable=True)


class Ancestry:
    """What one writer finds out about parents. Used by the thread that commits, and by no other.

    Attributes
    ----------
    orphans
        Ids of shards whose parents left the stream before anybody knew of them.

    Parameters
    ----------
    wants
        Whether a shard is for this writer.
    selection
        What all writers of the table together read.
    """

    def __init__(self, table: SyncTable, wants: Callable[[Shard], bool], selection: Selection = EVERYTHING) -> None:
        self._table, self._wants, self._selection = table, wants, selection
        self.orphans: set[str] = set()

    def parents(self, shard: Shard, listed: Collection[str] = ()) -> Mapping[str, Checkpoint]:
        """Return how far the shards got, by any writer, that a shard came out of.

        For an orphan these are all older shards that have ended: its rows get larger numbers than theirs. When they
        were last read tells nothing about the orphan.

        Parameters
        ----------
        listed
            The ids of shards that are in the stream: another writer may be about to own them.
        """
        found = self._table.checkpoints(shard.parents)
        if not self._is_orphan(shard, listed):
            return found
        ended = self._table.checkpoints(self._table.ended(self._older(shard)))
        return found | {shard_id: replace(checkpoint, seen=None) for shard_id, checkpoint in ended.items()}

    def ancestors(self, shard: Shard) -> set[str]:
        """Return the ids of the shards that a shard may have come out of: of an orphan all older ones."""
        return {*self._parents(shard), *(self._older(shard) if self._is_orphan(shard) else ())}

    def _is_orphan(self, shard: Shard, listed: Collection[str] = ()) -> bool:
        """Whether the stream dropped parents of a shard before anybody knew of them: whose children they were is lost.

        The parents of a shard that was there when the table was created do not matter: nothing of them is in it.
        """
        is_new = bool(oldest := self._table.origin.newest_shard) and shard.shard_id > oldest
        unlisted = {*self._parents(shard)}.difference(listed)
        return shard.shard_id in self.orphans or (is_new and not self._table.acquired(unlisted) >= unlisted)

    def _parents(self, shard: Shard) -> tuple[str, ...]:
        """Return the ids of the parents that some writer of this sync reads."""
        return self._selection.parents(shard, self._table.known() if self._selection.key is not None else ())

    def _older(self, shard: Shard) -> set[str]:
        return {shard_id for shard_id in self._table.known() if shard_id < shard.shard_id}  # ids ascend

    def gone(self, listing: Iterable[Shard]) -> list[Shard]:
        """Return the shards that this writer must report as lost: the stream dropped them before they were read.

        They are the shards in the table that have not ended there, and the parents of newer shards than the table that
        are not in it: those were created and dropped while nothing read the stream. Which shards were their parents is
        lost, so each older shard that is returned counts as one. Shard ids ascend.

        Raises
        ------
        ServiceError
            For a listing that is older than the table: what it lacks may not have been there yet. Shard ids ascend.
        """
        shards = {shard.shard_id: shard for shard in listing}
        known, oldest = self._table.known(), self._table.origin.newest_shard
        if max(known, default="") > max(shards, default=""):
            raise ServiceError("a listing lacks shards that were read before", retryable=True)
        begun = self._table.checkpoints(known)
        read = {shard_id: shard for shard_id, shard in shards.items() if self._selection.wants(shard)}
        new = (
            shard
            for shard_id, shard in read.items()
            if shard_id > oldest and begun.get(shard_id, Checkpoint()).sequence_number is None
        )
        ours = known | read.keys()
        parents = {parent for shard in new for parent in self._selection.parents(shard, ours)}
        candidates = (known | (parents if oldest else set())) - shards.keys()
        unread = sorted(candidates - self._table.ended(candidates))
        self.orphans |= set(unread) - {shard_id for shard_id in known if begun[shard_id].sequence_number}
        heirs = _heirs(read.values())
        return [
            Shard(shard_id, tuple(unread[:number]) if shard_id in self.orphans else ())
            for number, shard_id in enumerate(unread)
            if self._wants(heirs.get(shard_id, Shard(shard_id)))
        ]


def _heirs(shards: Iterable[Shard]) -> dict[str, Shard]:
    """Return, by parent, the child with the lowest hash keys: its reader also reads what is left of the parent."""
    heirs: dict[str, Shard] = {}
    for shard in sorted(shards, key=lambda shard: shard.hash_range, reverse=True):
        heirs |= dict.fromkeys(shard.parents, shard)
    return heirs
