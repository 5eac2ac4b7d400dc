"""Which part of a sync a shard belongs to, and which agent runs which part. Pure: no I/O, no Dask."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kinesis_nb.core.shards import Shard

PARTS_PER_AGENT = 2  # so that a part can move to an agent that joins
MAX_SHARDS = 250  # in one part: each shard is a thread


@dataclass(frozen=True, slots=True)
class Placement:
    """The hash keys divided into ranges, one per part. A shard belongs where its first hash key lies.

    So the children of a split stay in the part of their parent, and the child of a merge goes to the part of its lower
    parent: the shard alone determines its part.

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
    """The test whether a shard belongs to one part of a placement."""

    placement: Placement
    number: int

    def __call__(self, shard: Shard) -> bool:
        """Whether a shard belongs to this part."""
        return self.placement.part_of(shard) == self.number


def plan(shards: Collection[Shard], parts: int) -> Placement:
    """Divide the hash keys so that the numbers of open shards of all parts differ by at most one."""
    starts = sorted({shard.hash_range[0] for shard in shards if shard.is_open})
    count = max(1, min(parts, len(starts)))
    return Placement(tuple(starts[len(starts) * part // count] for part in range(1, count)))


def count_parts(shards: int, agents: int) -> int:
    """Return how many parts a sync has, from the numbers of open shards and of agents."""
    return max(1, min(shards, max(PARTS_PER_AGENT * agents, -(-shards // MAX_SHARDS))))


def first_places(parts: int, agents: Sequence[str]) -> list[str]:
    """Return the agent of each part, as evenly as possible."""
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
        All that may run parts.
    """
    load = Counter(dict.fromkeys(agents, 0))
    load.update(agent for agent in running.values() if agent in load)
    if here not in load:
        return None
    idlest = min(sorted(load), key=lambda agent: load[agent])
    return idlest if load[here] - load[idlest] > 1 else None
