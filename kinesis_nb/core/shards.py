"""Shards, their lineage, and which of them may be read now. Pure: no I/O, no clock, no thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from kinesis_nb.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_HASH_KEY = 2**128 - 1
_MOST_SHOWN = 4  # shards of a cycle, in an error


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as ``ListShards`` describes it.

    Attributes
    ----------
    shard_id
        For example ``shardId-000000000003``.
    parents
        The ids of the parent, and after a merge of the adjacent parent. Some may have left the stream.
    hash_range
        The first and last 128-bit hash key that the shard takes, both included.
    starting_sequence_number, ending_sequence_number
        Decimal text. An open shard has no ending one.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> shard = kn.demo().explore("orders").shard_for("Ada")
    >>> shard.shard_id, shard.is_open, shard.parents
    ('shardId-000000000000', True, ())
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    hash_range: tuple[int, int] = (0, MAX_HASH_KEY)
    starting_sequence_number: str = "0"
    ending_sequence_number: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the shard still takes records."""
        return self.ending_sequence_number is None


def hash_key(partition_key: str) -> int:
    """Return the 128-bit hash key by which the service chooses the shard of a record: the MD5 of its partition key."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def has_hole(listing: Iterable[Shard]) -> bool:
    """Return whether a listing lacks a shard: no open shard takes some of the hash keys."""
    reached = 0
    for low, high in sorted(shard.hash_range for shard in listing if shard.is_open):
        if low > reached:
            return True
        reached = max(reached, high + 1)
    return reached <= MAX_HASH_KEY


def parents_first(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of shards and their parents, each parent before its children.

    Raises
    ------
    MalformedResponse
        When a shard is its own ancestor, which no shard of Kinesis can be.
    """
    try:
        return list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        around: list[str] = error.args[1]
        shown = " <- ".join(around[:_MOST_SHOWN]) + (" <- …" if len(around) > _MOST_SHOWN else "")
        raise MalformedResponse(
            f"a shard is listed as its own ancestor: {shown}",
            hint="Kinesis sends no such listing: check endpoint_url",
            retryable=True,
        ) from None


class ShardTracker:
    """Which shards may be read now: a shard becomes runnable when all of its parents have ended.

    That rule keeps the order per partition key across splits and merges: the records of a key move from a parent to a
    child at a reshard, so the child may only be read after everything in the parent was delivered. A parent that is
    not listed any more has left the stream with its records and counts as ended.

    Parameters
    ----------
    is_ordered
        False lets every shard run at once, for readers that do not need the order.

    Notes
    -----
    Not thread-safe; the scheduler calls it under its own lock.

    Examples
    --------
    >>> tracker = ShardTracker()
    >>> tracker.observe([Shard("a"), Shard("b", parents=("a",))])
    >>> [shard.shard_id for shard in tracker.start_runnable()]
    ['a']
    >>> tracker.finish("a")
    >>> [shard.shard_id for shard in tracker.start_runnable()]
    ['b']
    """

    def __init__(self, *, is_ordered: bool = True) -> None:
        self._is_ordered = is_ordered
        self._shards: dict[str, Shard] = {}
        self._waiting: dict[str, Shard] = {}  # those that were never started
        self._started: set[str] = set()
        self._finished: set[str] = set()
        self._unlisted: set[str] = set()  # known from the end of a parent only
        self._gone: list[Shard] = []  # known from an earlier listing only

    def observe(self, shards: Iterable[Shard]) -> None:
        """Add a listing; what is known already is kept, so a stale listing removes nothing.

        A shard that is not listed, while its children are, has left the stream.

        Raises
        ------
        MalformedResponse
            When a shard would be its own ancestor: it could never be read. Nothing is added then.
        """
        listed = {shard.shard_id: shard for shard in shards}
        self._take_in(listed)
        for shard in listed.values():
            self._unlisted.discard(shard.shard_id)
            self._unlisted.difference_update(shard.parents)
        newest = max(listed, default="")  # ids ascend: a listing lacks an older one because it has left
        self._unlisted = {shard_id for shard_id in self._unlisted if shard_id > newest}
        self._gone = [shard for shard in self._shards.values() if shard.shard_id not in listed]

    @property
    def newest(self) -> str:
        """The largest id of a known shard; empty without one."""
        return max(self._shards, default="")

    def known(self, shard_id: str) -> Shard | None:
        """Return a shard as it was last observed."""
        return self._shards.get(shard_id)

    def observe_new(self, shards: Iterable[Shard]) -> None:
        """Add children as the last response of their parent names them; a listing knows more, so it wins.

        Raises
        ------
        MalformedResponse
            As :meth:`observe` does.
        """
        new = {shard.shard_id: shard for shard in shards if shard.shard_id not in self._shards}
        self._take_in(new)
        self._unlisted.update(new)

    def _take_in(self, shards: dict[str, Shard]) -> None:
        if any(self._shards.get(shard_id) != shard for shard_id, shard in shards.items()):
            together = self._shards | shards
            parents_first({shard_id: shard.parents for shard_id, shard in together.items()})
            self._shards = together
            self._waiting |= {shard_id: shard for shard_id, shard in shards.items() if shard_id not in self._started}

    def skip(self, shard_id: str) -> None:
        """Count a shard as ended without reading it."""
        self._waiting.pop(shard_id, None)
        self._started.add(shard_id)
        self._finished.add(shard_id)

    def start_runnable(self) -> list[Shard]:
        """Return the shards that may be read now and are not yet, oldest first, and mark them started."""
        ready = [shard for shard in self._waiting.values() if self._is_runnable(shard)]
        ready.sort(key=lambda shard: (int(shard.starting_sequence_number), shard.shard_id))
        for shard in ready:
            del self._waiting[shard.shard_id]
            self._started.add(shard.shard_id)
        return ready

    def _is_runnable(self, shard: Shard) -> bool:
        if not self._is_ordered:
            return True
        if self._has_unknown_parent(shard):
            return False
        if not all(parent in self._finished for parent in shard.parents if parent in self._shards):
            return False
        return not self._has_unread_ancestor(shard)

    def _has_unread_ancestor(self, shard: Shard) -> bool:
        """Whether records of the same keys are unread in an older shard, and those in between left the stream unseen.

        An older shard with some of the hash keys of a younger one is its ancestor. Shard ids ascend.
        """
        if all(parent in self._shards for parent in shard.parents):
            return False
        low, high = shard.hash_range
        return any(
            older.shard_id < shard.shard_id and older.hash_range[0] <= high and low <= older.hash_range[1]
            for older in self._gone
            if older.shard_id not in self._finished
        )

    def _has_unknown_parent(self, shard: Shard) -> bool:
        """Whether a parent may not have been listed yet; a parent that a listing lacks has left the stream."""
        return shard.shard_id in self._unlisted and any(parent not in self._shards for parent in shard.parents)

    @property
    def awaits_listing(self) -> bool:
        """Whether a listing may let more shards run."""
        return any(self._has_unknown_parent(self._shards[shard_id]) for shard_id in self._unlisted)

    def finish(self, shard_id: str) -> None:
        """Count a shard as read to its end."""
        self._finished.add(shard_id)

    @property
    def unfinished(self) -> set[str]:
        """The ids of the known shards that are not read to their end."""
        return self._shards.keys() - self._finished
