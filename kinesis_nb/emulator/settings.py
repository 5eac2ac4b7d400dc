"""Creating, deleting and changing streams: everything but their shards, tags and consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import in_use, invalid, refused
from .resharding import require_room
from .streams import AUTO, USER_PARTITION_KEY, Stream
from .tags import set_tags

if TYPE_CHECKING:
    from .protocol import Params
    from .regions import Region, Reply

_ON_DEMAND_SHARDS = 4  # AWS: what a new on-demand stream begins with
_MIN_HOURS, _MAX_HOURS = 24, 8760  # AWS: retention
_METRICS = {
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
}


def create_stream(region: Region, params: Params) -> Reply:
    """Answer CreateStream."""
    name = params["StreamName"]
    if region.get(name) is not None:
        raise in_use(f"Stream {name} under account {region.account.id} already exists.")
    mode = (params.get("StreamModeDetails") or {}).get("StreamMode", "PROVISIONED")
    strategy = params.get("RecordDistributionStrategy") or USER_PARTITION_KEY
    count = _shard_count(mode, params.get("ShardCount"))
    _check_strategy(mode, strategy)
    require_room(region, count)
    stream = region.add(name, mode)
    stream.strategy = strategy
    stream.turn = region.account.random.randrange(count)
    stream.max_record_kib = params.get("MaxRecordSizeInKiB") or stream.max_record_kib
    stream.warm_mibps = params.get("WarmThroughputMiBps")
    set_tags(stream.tags, params.get("Tags") or {}, stream.name, region.account.id)
    stream.begin("CREATING", region.due_ms, region.now_ms, lambda now_ms: stream.open_initial(count, now_ms))
    return {}


def delete_stream(region: Region, params: Params) -> Reply:
    """Answer DeleteStream."""
    stream = region.active(params)
    if stream.consumers and not params.get("EnforceConsumerDeletion"):
        raise in_use(
            f"Stream {stream.name} under account {region.account.id} has consumers registered. "
            "Deregister them or set EnforceConsumerDeletion."
        )
    for consumer in stream.consumers.values():
        consumer.close()
    stream.begin("DELETING", region.due_ms, region.now_ms, lambda _: None)
    region.get(stream.name)  # lets go of it at once where deleting takes no time
    return {}


def increase_retention(region: Region, params: Params) -> Reply:
    """Answer IncreaseStreamRetentionPeriod; what has already expired stays gone."""
    stream, hours = _retention(region, params)
    if hours < stream.retention_hours:
        raise _wrong_way(stream, hours, "shorter", "Decrease")
    stream.trim(region.now_ms)
    stream.retention_hours = hours
    return {}


def decrease_retention(region: Region, params: Params) -> Reply:
    """Answer DecreaseStreamRetentionPeriod; what is now too old is lost."""
    stream, hours = _retention(region, params)
    if hours > stream.retention_hours:
        raise _wrong_way(stream, hours, "longer", "Increase")
    stream.retention_hours = hours
    stream.trim(region.now_ms)
    return {}


def start_encryption(region: Region, params: Params) -> Reply:
    """Answer StartStreamEncryption: a flag, nothing is encrypted."""
    stream = region.active(params)
    if params["EncryptionType"] != "KMS":
        raise invalid("EncryptionType must be KMS to start encryption.")
    stream.key_id = params["KeyId"]
    region.update(stream)
    return {}


def stop_encryption(region: Region, params: Params) -> Reply:
    """Answer StopStreamEncryption."""
    stream = region.active(params)
    stream.key_id = None
    region.update(stream)
    return {}


def enable_monitoring(region: Region, params: Params) -> Reply:
    """Answer EnableEnhancedMonitoring."""
    stream = region.active(params)
    return _set_metrics(stream, stream.metrics | _metrics(params))


def disable_monitoring(region: Region, params: Params) -> Reply:
    """Answer DisableEnhancedMonitoring."""
    stream = region.active(params)
    return _set_metrics(stream, stream.metrics - _metrics(params))


def update_stream_mode(region: Region, params: Params) -> Reply:
    """Answer UpdateStreamMode."""
    stream = region.active(params)
    stream.mode = params["StreamModeDetails"]["StreamMode"]
    if stream.mode == "PROVISIONED":
        stream.strategy = USER_PARTITION_KEY  # the only one such streams have
    region.update(stream)
    return {}


def update_max_record_size(region: Region, params: Params) -> Reply:
    """Answer UpdateMaxRecordSize."""
    stream = region.active(params)
    stream.max_record_kib = params["MaxRecordSizeInKiB"]
    region.update(stream)
    return {}


def update_strategy(region: Region, params: Params) -> Reply:
    """Answer UpdateStreamRecordDistributionStrategy, which takes effect at once."""
    stream = region.active(params)
    _check_strategy(stream.mode, params["RecordDistributionStrategy"])
    stream.strategy = params["RecordDistributionStrategy"]
    return {}


def _shard_count(mode: str, count: int | None) -> int:
    if mode == "PROVISIONED":
        if count is None:
            raise refused("ShardCount is required for a stream in PROVISIONED mode.")
        return count
    if count is not None:
        raise refused("ShardCount cannot be set for a stream in ON_DEMAND mode.")
    return _ON_DEMAND_SHARDS


def _check_strategy(mode: str, strategy: str) -> None:
    if strategy == AUTO and mode != "ON_DEMAND":
        raise invalid("RecordDistributionStrategy AUTO is only supported for streams in ON_DEMAND mode.")


def _retention(region: Region, params: Params) -> tuple[Stream, int]:
    stream, hours = region.active(params), params["RetentionPeriodHours"]
    requested = f"Requested retention period ({hours} hours) is too"
    if hours < _MIN_HOURS:
        raise invalid(f"Minimum allowed retention period is {_MIN_HOURS} hours. {requested} short.")
    if hours > _MAX_HOURS:
        raise invalid(f"Maximum allowed retention period is {_MAX_HOURS} hours. {requested} long.")
    return stream, hours


def _wrong_way(stream: Stream, hours: int, relation: str, other: str) -> Exception:
    return invalid(
        f"Requested retention period ({hours} hours) for stream {stream.name} can not be {relation} than existing "
        f"retention period ({stream.retention_hours} hours). Use {other}RetentionPeriod API."
    )


def _metrics(params: Params) -> set[str]:
    asked = set(params["ShardLevelMetrics"])
    return _METRICS if "ALL" in asked else asked


def _set_metrics(stream: Stream, metrics: set[str]) -> Reply:
    before, stream.metrics = stream.metrics, metrics
    return {
        "StreamName": stream.name,
        "CurrentShardLevelMetrics": sorted(before),
        "DesiredShardLevelMetrics": sorted(metrics),
        "StreamARN": stream.arn,
    }
