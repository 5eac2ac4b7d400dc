"""PutRecord and PutRecords: checking records, finding their shard, failing some of them."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING

from . import sequence
from .errors import dry_run, invalid, rate_message, refused, stream_not_found, throttled
from .rules import RECORD
from .shards import HASH_KEYS, Shard
from .streams import AUTO, Stream
from .validation import Rule, check, complaint, summary, too_long

if TYPE_CHECKING:
    from .protocol import Params
    from .regions import Region, Reply

MAX_REQUEST_BYTES = 10 * 2**20  # AWS: per PutRecords call, keys included
_THROTTLE = "ProvisionedThroughputExceededException"
_RECORDS = Rule(kind="Structure", members=RECORD)


def put_record(region: Region, params: Params) -> Reply:
    """Answer PutRecord."""
    stream = _writable(region, params)
    size = _size(stream, params, "")
    _check_ordering(region, stream, params.get("SequenceNumberForOrdering"))
    if params.get("DryRun"):
        raise dry_run()
    shard, now_ms = _shard_for(stream, params), region.now_ms
    if shard.meter is not None and not shard.meter.may_write(size, now_ms):
        raise throttled(shard.id, stream.name, region.account.id)
    number = shard.append(bytes(params["Data"]), params.get("PartitionKey"), size, now_ms, _encryption(stream))
    return {"ShardId": shard.id, "SequenceNumber": number, **_encrypted(stream)}


def put_records(region: Region, params: Params) -> Reply:
    """Answer PutRecords: each record is written or fails on its own."""
    stream = _writable(region, params)
    entries = params["Records"]
    sizes = _sizes(stream, entries)
    if params.get("DryRun"):
        raise dry_run()
    results = _write(region, stream, entries, sizes)
    failed = sum("ErrorCode" in result for result in results)
    return {"FailedRecordCount": failed, "Records": results, **_encrypted(stream)}


def _write(region: Region, stream: Stream, entries: list[Params], sizes: list[int]) -> list[Reply]:
    now_ms, encryption = region.now_ms, _encryption(stream)
    results: list[Reply] = []
    for entry, size in zip(entries, sizes, strict=True):
        shard = _shard_for(stream, entry)
        failure = stream.failure(entry) if stream.failures else None
        if failure is not None:
            message = stream.failure_message(failure, shard, region.account.id)
            results.append({"ErrorCode": failure, "ErrorMessage": message})
        elif shard.meter is not None and not shard.meter.may_write(size, now_ms):
            message = rate_message(shard.id, stream.name, region.account.id)
            results.append({"ErrorCode": _THROTTLE, "ErrorMessage": message})
        else:
            number = shard.append(bytes(entry["Data"]), entry.get("PartitionKey"), size, now_ms, encryption)
            results.append({"SequenceNumber": number, "ShardId": shard.id})
    if stream.failures:
        stream.drop_spent_failures()
    return results


def _writable(region: Region, params: Params) -> Stream:
    stream = region.find(params)
    if stream.status not in ("ACTIVE", "UPDATING"):
        raise stream_not_found(stream.name, region.account.id)
    return stream


def _shard_for(stream: Stream, entry: Params) -> Shard:
    if stream.strategy == AUTO:  # keys that producers supply have no say
        return stream.next_shard()
    explicit = entry.get("ExplicitHashKey")
    if explicit is not None:
        return stream.route(int(explicit))
    digest = md5(entry["PartitionKey"].encode(), usedforsecurity=False).digest()
    return stream.route(int.from_bytes(digest, "big"))


def _sizes(stream: Stream, entries: list[Params]) -> list[int]:
    """Return the size of each record, data and key; raise if one of them, or all together, cannot be accepted."""
    if not all(_is_plain(entry) for entry in entries):
        check({"Records": entries}, {"Records": Rule(kind="List", member=_RECORDS)})
    sizes = [_size(stream, entry, f"records.{n}.member.") for n, entry in enumerate(entries, 1)]
    if sum(sizes) > MAX_REQUEST_BYTES:
        raise invalid("Records size exceeds 10 MB limit")
    return sizes


def _is_plain(entry: object) -> bool:
    """Return whether the entry is valid beyond doubt: the cheap test that nearly all of them pass."""
    if type(entry) is not dict or entry.get("ExplicitHashKey") is not None:
        return False
    key = entry.get("PartitionKey")
    return type(entry.get("Data")) is bytes and (key is None or (type(key) is str and 0 < len(key) <= 256))


def _size(stream: Stream, entry: Params, path: str) -> int:
    key, explicit, data = entry.get("PartitionKey"), entry.get("ExplicitHashKey"), entry["Data"]
    if key is None and stream.strategy != AUTO:
        raise refused(summary([complaint(f"{path}partitionKey", None, "Member must not be null")]))
    if explicit is not None:
        _check_hash_key(explicit)
    size = len(data) + (0 if key is None else len(key) if key.isascii() else len(key.encode()))
    limit = stream.max_record_kib * 1024
    if size > limit:
        raise _too_large(data, size, limit, path)
    return size


def _check_hash_key(explicit: str) -> None:
    if int(explicit) >= HASH_KEYS:
        raise invalid(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
            f"Specified value was {explicit}"
        )


def _too_large(data: bytes, size: int, limit: int, path: str) -> Exception:
    if len(data) > limit:
        return refused(summary([complaint(f"{path}data", data, too_long(limit))]))
    return invalid(f"Record size of {size} bytes, partition key included, exceeds the limit of {limit} bytes")


def _check_ordering(region: Region, stream: Stream, number: str | None) -> None:
    if number is None:
        return
    parts = sequence.decode(number)
    if parts is None or parts.time_ms > region.now_ms:
        raise invalid(
            f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {stream.name} "
            f"under account {region.account.id} is invalid."
        )


def _encryption(stream: Stream) -> str | None:
    return None if stream.key_id is None else "KMS"


def _encrypted(stream: Stream) -> Reply:
    return {} if stream.key_id is None else {"EncryptionType": "KMS"}
