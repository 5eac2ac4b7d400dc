"""Which shards belong to which part of a sync, and which agent runs which part. Pure: no I/O, no Dask."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kinesis_nb.core.shards import Shard

PARTS_PER_AGENT = 2  # so that a part can move to an agent that joins
MOST_SHARDS = 250  # in one part: every shard is a thread


@dataclass(frozen=True, slots=True)
class Placement:
    """The hash keys cut into ranges, one per part. A shard belongs where its first hash key lies.

    So the children of a split stay in the part of their parent, and the child of a merge goes to the part of its lower
    parent: whoever looks at a shard knows its part, without having seen anything else.

    Attributes
    ----------
    bounds
        The first hash keys of all parts but the first, ascending.

    Examples
    --------
    >>> from kinesis_nb.core.shards import Shard
    >>> placement = plan([Shard("a", hash_range=(0, 4)), Shard("b", hash_range=(5, 9))], 2)
    >>> placement.part_of(Shard("child of b", ("b",), hash_range=(7, 9)))
    1
    """

    bounds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.bounds) + 1

    def part_of(self, shard: Shard) -> int:
        """Return the number of the part that a shard belongs to."""
        return bisect_right(self.bounds, shard.hash_range[0])


@dataclass(frozen=True, slots=True)
class PartFilter:
    """One part of a placement, as the test that a feed makes."""

    placement: Placement
    number: int

    def __call__(self, shard: Shard) -> bool:
        """Whether a shard belongs to this part."""
        return self.placement.part_of(shard) == self.number


def plan(shards: Collection[Shard], parts: int) -> Placement:
    """Cut the hash keys so that all parts have the same number of open shards, one more or less."""
    starts = sorted({shard.hash_range[0] for shard in shards if shard.is_open})
    count = max(1, min(parts, len(starts)))
    return Placement(tuple(starts[len(starts) * part // count] for part in range(1, count)))


def count_parts(shards: int, agents: int) -> int:
    """Return how many parts a sync of so many open shards has on so many agents."""
    return max(1, min(shards, max(PARTS_PER_AGENT * agents, -(-shards // MOST_SHARDS))))


def first_places(parts: int, agents: Sequence[str]) -> list[str]:
    """Return the agent of each part, as evenly as it goes."""
    return [agents[part % len(agents)] for part in range(parts)]


def better_place(here: str, running: Mapping[str, str], agents: Collection[str]) -> str | None:
    """Return the agent that a part of this one should move to; None when it should stay.

    Parameters
    ----------
    here
        The agent that runs the part now.
    running
        The agent of every part that runs.
    agents
        Those that may run parts.
    """
    load = Counter(dict.fromkeys(agents, 0))
    load.update(agent for agent in running.values() if agent in load)
    if here not in load:
        return None
    idlest = min(sorted(load), key=lambda agent: load[agent])
    return idlest if load[here] - load[idlest] > 1 else None
