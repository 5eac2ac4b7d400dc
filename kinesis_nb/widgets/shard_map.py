"""The shards of a stream in a line: which share of the hash keys each takes, how busy it is, and how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.core.shards import MAX_HASH_KEY, hash_key
from kinesis_nb.widgets.grid.cells import cut, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinesis_nb.reading.consumer import ConsumerStats

SILENT_SECONDS = 2.5  # without a response after which a shard is not healthy; one that is has it within a second
SLOW_MILLIS = 10_000  # behind the tip
QUOTA = 1_000  # records a second that a shard takes, as the service documents it
MOST_SHARDS = 1_000


def is_stuck(shard: ConsumerStats) -> bool:
    """Whether a shard is not read at the moment."""
    return bool(shard.error) or shard.waiting_seconds >= SILENT_SECONDS


def shard_map(going: Sequence[ConsumerStats], key: str) -> list[list[object]]:
    """Return a line for each shard, by its hash keys.

    Returns
    -------
    list
        Number, id, state, how far behind, throttles, error, how it is to be marked ("good", "slow" or "bad"), its share
        of the hash keys, its rate as a share of the quota, and whether it takes `key`.
    """
    place = hash_key(key) if key else -1
    lines = sorted(going, key=lambda shard: (shard.hash_range, shard.shard_id))[:MOST_SHARDS]
    return [_line(shard, place) for shard in lines]


def _line(shard: ConsumerStats, place: int) -> list[object]:
    behind = shard.millis_behind_latest
    lag = "…" if behind is None else f"{behind / 1000:,.1f} s"
    if is_stuck(shard):  # how far it is behind is not known any more
        lag = "retrying" if shard.error else f"no response for {shard.waiting_seconds:,.0f} s"
    kind = "bad" if is_stuck(shard) else "slow" if (behind or 0) > SLOW_MILLIS else "good"
    low, high = shard.hash_range
    return [
        short(shard.shard_id),
        cut(shard.shard_id),
        shard.state.value,
        lag,
        shard.throttles,
        cut(shard.error),
        kind,
        round((high - low + 1) / (MAX_HASH_KEY + 1), 4),
        round(min(shard.rate / QUOTA, 1.0), 2),
        low <= place <= high,
    ]
