"""ListStreams, DescribeStream, DescribeStreamSummary, ListShards, DescribeLimits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import invalid, stream_not_found
from .regions import Region, Reply, require_alone
from .resharding import SHARD_LIMIT, open_shard_count
from .shards import Shard, describe_shard
from .streams import HOUR_MS, Stream
from .tokens import Page, open_page, seal_page

if TYPE_CHECKING:
    from .protocol import Params

_STREAMS_PER_PAGE = 100  # AWS: default and most of ListStreams, and of shards in DescribeStream
_SHARDS_PER_PAGE = 1000  # AWS: default and most of ListShards
_ON_DEMAND_LIMIT = 50  # AWS: on-demand streams per account

_TAKES_TIMESTAMP = ("AT_TIMESTAMP", "FROM_TIMESTAMP")


def list_streams(region: Region, params: Params) -> Reply:
    """Answer ListStreams."""
    streams = _streams_after(region, _last_listed(region, params))
    shown = streams[: min(params.get("Limit") or _STREAMS_PER_PAGE, _STREAMS_PER_PAGE)]
    more = len(shown) < len(streams)
    reply: Reply = {
        "StreamNames": [stream.name for stream in shown],
        "HasMoreStreams": more,
        "StreamSummaries": [_summary(stream) for stream in shown],
    }
    if more:
        reply["NextToken"] = seal_page(region.account.sealer, Page(region.now_ms, "streams", 0, shown[-1].name))
    return reply


def _last_listed(region: Region, params: Params) -> str:
    if params.get("NextToken"):
        return open_page(region.account.sealer, params["NextToken"], "streams", region.now_ms).after
    return params.get("ExclusiveStartStreamName") or ""


def _streams_after(region: Region, name: str) -> list[Stream]:
    return [stream for stream in region.all_streams() if stream.name > name]


def describe_stream(region: Region, params: Params) -> Reply:
    """Answer DescribeStream, shards paged by Limit and ExclusiveStartShardId."""
    stream = region.find(params)
    after = params.get("ExclusiveStartShardId")
    shards = _after(stream.listed(region.now_ms), region.shard_id(stream, after) if after else "")
    shown = shards[: min(params.get("Limit") or _STREAMS_PER_PAGE, _STREAMS_PER_PAGE)]
    description = {
        **_common(stream),
        "Shards": [describe_shard(shard) for shard in shown],
        "HasMoreShards": len(shown) < len(shards),
    }
    return {"StreamDescription": description}


def describe_stream_summary(region: Region, params: Params) -> Reply:
    """Answer DescribeStreamSummary."""
    stream = region.find(params)
    description = {
        **_common(stream),
        "OpenShardCount": len(stream.open_shards),
        "ConsumerCount": len(stream.consumers),
        "MaxRecordSizeInKiB": stream.max_record_kib,
        **_on_demand(stream),
    }
    return {"StreamDescriptionSummary": description}


def _on_demand(stream: Stream) -> Reply:
    found: Reply = {}
    if stream.mode == "ON_DEMAND":
        found["RecordDistributionStrategy"] = stream.strategy
    if stream.warm_mibps is not None:
        found["WarmThroughput"] = {"TargetMiBps": stream.warm_mibps, "CurrentMiBps": stream.warm_mibps}
    return found


def describe_limits(region: Region, _params: Params) -> Reply:
    """Answer DescribeLimits."""
    on_demand = sum(stream.mode == "ON_DEMAND" for stream in region.all_streams())
    return {
        "ShardLimit": SHARD_LIMIT,
        "OpenShardCount": open_shard_count(region),
        "OnDemandStreamCount": on_demand,
        "OnDemandStreamCountLimit": _ON_DEMAND_LIMIT,
    }


def list_shards(region: Region, params: Params) -> Reply:
    """Answer ListShards; a token carries the filter, and so must come alone."""
    token = params.get("NextToken")
    stream, after, chosen = _continued(region, params, token) if token else _begun(region, params)
    region.require_status(stream, "ACTIVE", "UPDATING", "DELETING")
    now_ms = region.now_ms
    shards = _after(_filtered(region, stream, chosen), after)
    shown = shards[: min(params.get("MaxResults") or _SHARDS_PER_PAGE, _SHARDS_PER_PAGE)]
    reply: Reply = {"Shards": [describe_shard(shard) for shard in shown]}
    if len(shown) < len(shards):
        page = Page(now_ms, "shards", stream.number, shown[-1].id, chosen)
        reply["NextToken"] = seal_page(region.account.sealer, page)
    return reply


def _begun(region: Region, params: Params) -> tuple[Stream, str, Params]:
    if params.get("StreamName") is None and params.get("StreamARN") is None:
        raise invalid("Either NextToken or StreamName should be provided.")
    stream = region.find(params)
    region.check_created(stream, params.get("StreamCreationTimestamp"))
    chosen = params.get("ShardFilter") or {}
    after = params.get("ExclusiveStartShardId")
    if after and chosen.get("Type") == "AFTER_SHARD_ID":
        raise invalid("ExclusiveStartShardId and ShardFilter of type AFTER_SHARD_ID cannot be provided together.")
    return stream, region.shard_id(stream, after) if after else "", chosen


def _continued(region: Region, params: Params, token: str) -> tuple[Stream, str, Params]:
    alone = ("StreamName", "StreamARN", "ExclusiveStartShardId", "StreamCreationTimestamp", "ShardFilter")
    require_alone(params, *alone)
    page = open_page(region.account.sealer, token, "shards", region.now_ms)
    stream = region.by_number(page.stream)
    if stream is None:
        raise stream_not_found("of this NextToken", region.account.id)
    return stream, page.after, page.filter


def _after(shards: list[Shard], shard_id: str) -> list[Shard]:
    return [shard for shard in shards if shard.id > shard_id]


def _filtered(region: Region, stream: Stream, chosen: Params) -> list[Shard]:
    kind, now_ms = chosen.get("Type", "FROM_TRIM_HORIZON"), region.now_ms
    if ("ShardId" in chosen) != (kind == "AFTER_SHARD_ID") or ("Timestamp" in chosen) != (kind in _TAKES_TIMESTAMP):
        raise invalid(f"ShardFilter of type {kind} was given a wrong combination of ShardId and Timestamp.")
    shards, horizon_ms = stream.listed(now_ms), stream.horizon_ms(now_ms)
    if kind == "AFTER_SHARD_ID":
        return _after(shards, region.shard_id(stream, chosen["ShardId"]))
    if kind == "AT_LATEST":
        return [shard for shard in shards if shard.is_open]
    if kind == "AT_TRIM_HORIZON":
        return _open_at(shards, horizon_ms)
    if kind == "AT_TIMESTAMP":
        return _open_at(shards, max(_point(stream, chosen["Timestamp"], now_ms), horizon_ms))
    if kind == "FROM_TIMESTAMP":
        start_ms = max(round(chosen["Timestamp"] * 1000), horizon_ms)
        return [shard for shard in shards if shard.closed_ms is None or shard.closed_ms >= start_ms]
    return shards


def _open_at(shards: list[Shard], time_ms: int) -> list[Shard]:
    still = [shard for shard in shards if shard.closed_ms is None or shard.closed_ms >= time_ms]
    return [shard for shard in still if shard.epoch_ms <= time_ms]


def _point(stream: Stream, timestamp: float, now_ms: int) -> int:
    """Return the time of an AT_TIMESTAMP filter, which must not be beyond the retention period."""
    oldest_ms = now_ms - stream.retention_hours * HOUR_MS
    if timestamp * 1000 < oldest_ms:
        raise invalid(
            f"Timestamp {round(timestamp * 1000)} in ShardFilter AT_TIMESTAMP is older than the "
            f"trim horizon {oldest_ms} of stream {stream.name}."
        )
    return round(timestamp * 1000)


def _common(stream: Stream) -> Reply:
    description = {
        **_summary(stream),
        "RetentionPeriodHours": stream.retention_hours,
        "EnhancedMonitoring": [{"ShardLevelMetrics": sorted(stream.metrics)}],
        "EncryptionType": "NONE" if stream.key_id is None else "KMS",
    }
    if stream.key_id is not None:
        description["KeyId"] = stream.key_id
    return description


def _summary(stream: Stream) -> Reply:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status,
        "StreamModeDetails": {"StreamMode": stream.mode},
        "StreamCreationTimestamp": stream.created_ms / 1000,
    }
