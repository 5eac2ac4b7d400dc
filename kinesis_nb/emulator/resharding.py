"""SplitShard, MergeShards and UpdateShardCount."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from .errors import invalid, limit_exceeded, refused
from .streams import Stream, boundaries

if TYPE_CHECKING:
    from .errors import AwsError
    from .protocol import Params
    from .regions import Region, Reply
    from .shards import Shard

SHARD_LIMIT = 20_000  # AWS: open shards per account in the large regions
STREAM_SHARD_LIMIT = 10_000  # AWS: what UpdateShardCount can reach
_NEAR = 2**64  # hash keys; an edge this near to where it should be is left alone: no shard for a rounding error


def split_shard(region: Region, params: Params) -> Reply:
    """Answer SplitShard."""
    stream = _reshardable(region, params)
    shard = region.shard_to_change(stream, params["ShardToSplit"])
    require_room(region, 1)
    key = int(params["NewStartingHashKey"])
    if not shard.first_hash + 1 < key < shard.last_hash:
        raise _beside_the_shard(key, shard, stream, region.account.id)
    stream.begin("UPDATING", region.due_ms, region.now_ms, lambda now_ms: stream.split(shard, key, now_ms))
    return {}


def merge_shards(region: Region, params: Params) -> Reply:
    """Answer MergeShards; the shard with the lower hash keys is named first, as the service demands."""
    stream = _reshardable(region, params)
    shard = region.shard_to_change(stream, params["ShardToMerge"])
    adjacent = region.shard_to_change(stream, params["AdjacentShardToMerge"])
    if shard.last_hash + 1 != adjacent.first_hash:
        raise _not_adjacent(shard, adjacent, stream, region.account.id)

    def merge(now_ms: int) -> None:
        stream.merge(shard, adjacent, now_ms)

    stream.begin("UPDATING", region.due_ms, region.now_ms, merge)
    return {}


def update_shard_count(region: Region, params: Params) -> Reply:
    """Answer UpdateShardCount: splits and merges until the shards share the hash keys evenly."""
    stream = _reshardable(region, params)
    current, target = len(stream.open_shards), params["TargetShardCount"]
    _check_target(current, target)
    require_room(region, max(0, target - current))
    stream.begin("UPDATING", region.due_ms, region.now_ms, lambda now_ms: rescale(stream, target, now_ms))
    return {
        "StreamName": stream.name,
        "CurrentShardCount": current,
        "TargetShardCount": target,
        "StreamARN": stream.arn,
    }


def _beside_the_shard(key: int, shard: Shard, stream: Stream, account: str) -> AwsError:
    return invalid(
        f"NewStartingHashKey {key} used in SplitShard() on shard {shard.id} in stream {stream.name} under account "
        f"{account} is not both greater than one plus the shard's StartingHashKey {shard.first_hash} "
        f"and less than the shard's EndingHashKey {shard.last_hash}."
    )


def _not_adjacent(shard: Shard, adjacent: Shard, stream: Stream, account: str) -> AwsError:
    return invalid(
        f"Shards {shard.id} and {adjacent.id} in stream {stream.name} under account {account} "
        "are not an adjacent pair of shards eligible for merging"
    )


def require_room(region: Region, more: int) -> None:
    """Raise LimitExceededException if the account cannot have that many more open shards."""
    have = open_shard_count(region)
    if have + more > SHARD_LIMIT:
        raise limit_exceeded(
            f"This request would exceed the shard limit for the account {region.account.id} in {region.name}. "
            f"Current shard count for the account: {have}. Limit: {SHARD_LIMIT}. "
            f"Number of additional shards that would have resulted from this request: {more}."
        )


def open_shard_count(region: Region) -> int:
    """Return how many open shards the region's streams have together, without those being deleted."""
    return sum(len(stream.open_shards) for stream in region.all_streams() if stream.status != "DELETING")


def rescale(stream: Stream, target: int, now_ms: int) -> None:
    """Split at every even edge that is missing, then merge over every edge that is not wanted.

    Like the service this makes shards that live only for a moment, so the lineage can be several generations deep.
    """
    edges = boundaries(target)
    for edge in edges:
        shard = stream.route(edge)
        if edge - shard.first_hash > _NEAR and shard.last_hash - edge > _NEAR:
            stream.split(shard, edge, now_ms)
    left: Shard | None = None
    for shard in list(stream.open_shards):
        keep = left is None or _is_near(edges, shard.first_hash)
        left = shard if left is None or keep else stream.merge(left, shard, now_ms)


def _is_near(edges: list[int], key: int) -> bool:
    """Return whether a shard may begin at `key` when all should begin at the edges (which ascend)."""
    place = bisect_left(edges, key - _NEAR)
    return place < len(edges) and edges[place] <= key + _NEAR


def _reshardable(region: Region, params: Params) -> Stream:
    stream = region.active(params)
    if stream.mode == "ON_DEMAND":
        raise refused(
            f"Request is invalid. Stream {stream.name} under account {region.account.id} is in On-Demand mode."
        )
    return stream


def _check_target(current: int, target: int) -> None:
    counts = f"Current open shard count: {current} Target shard count: {target}"
    if target > STREAM_SHARD_LIMIT:
        raise limit_exceeded(f"UpdateShardCount cannot scale over {STREAM_SHARD_LIMIT} shards. {counts}")
    if target > 2 * current:
        raise limit_exceeded(f"UpdateShardCount cannot scale up over double your current open shard count. {counts}")
    if 2 * target < current:
        raise limit_exceeded(f"UpdateShardCount cannot scale down below half your current open shard count. {counts}")
