"""GetShardIterator and GetRecords, and where a reader starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import sequence
from .errors import dry_run, invalid, shard_not_found, throttled
from .shards import Record, Shard, describe_child, shard_name
from .tokens import Iterator, open_iterator, seal_iterator

if TYPE_CHECKING:
    from .protocol import Params
    from .regions import Region, Reply
    from .streams import Stream

MAX_RECORDS = 10_000  # AWS: per GetRecords call
MAX_BYTES = 10 * 2**20  # AWS: per GetRecords call

_BY_NUMBER = ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")


def get_shard_iterator(region: Region, params: Params) -> Reply:
    """Answer GetShardIterator."""
    stream = region.find(params)
    shard = region.readable_shard(stream, params["ShardId"])
    position = starting_position(region, stream, shard, _start(params))
    if params.get("DryRun"):
        raise dry_run()
    if shard.meter is not None and not shard.meter.may_iterate(region.now_ms):
        raise throttled(shard.id, stream.name, region.account.id)
    return {"ShardIterator": _seal(region, stream, shard, position)}


def get_records(region: Region, params: Params) -> Reply:
    """Answer GetRecords.

    The records in the answer are the stored ones: they must not be changed.
    """
    iterator = open_iterator(region.account.sealer, params["ShardIterator"], region.now_ms)
    stream = _stream_of(region, iterator, params)
    shard = region.readable_shard(stream, shard_name(iterator.shard))
    if params.get("DryRun"):
        raise dry_run()
    now_ms = region.now_ms
    if shard.meter is not None and not shard.meter.may_read(now_ms):
        raise throttled(shard.id, stream.name, region.account.id)
    if shard.empty_replies:
        return _empty_reply(region, stream, shard, iterator.position)
    records, position = shard.read(iterator.position, params.get("Limit") or MAX_RECORDS, MAX_BYTES)
    if shard.meter is not None:
        _count(shard, shard.clamp(iterator.position), position, now_ms)
    reply: Reply = {"Records": records, "MillisBehindLatest": millis_behind(shard, records, position, now_ms)}
    if records or shard.is_open:
        reply["NextShardIterator"] = _seal(region, stream, shard, position)
    else:
        reply["ChildShards"] = [describe_child(child) for child in stream.children(shard)]
    return reply


def starting_position(region: Region, stream: Stream, shard: Shard, start: Params) -> int:
    """Return the position a StartingPosition stands for.

    Raises
    ------
    AwsError
        InvalidArgumentException when type, sequence number and timestamp do not go together or are not of this shard.
    """
    kind, number = start["Type"], start.get("SequenceNumber")
    if kind != "AT_TIMESTAMP" and (number is not None) != (kind in _BY_NUMBER):
        raise _number_mismatch(kind, number)
    if kind == "AT_TIMESTAMP":
        return shard.position_at(_timestamp_ms(region, start.get("Timestamp")))
    if number is not None:
        place = _place(region, stream, shard, number)
        return min(max(place - 1, 0) if kind == "AT_SEQUENCE_NUMBER" else place, shard.total)
    return shard.oldest if kind == "TRIM_HORIZON" else shard.total


def _start(params: Params) -> Params:
    """Return the StartingPosition that the parameters of GetShardIterator stand for."""
    return {
        "Type": params["ShardIteratorType"],
        "SequenceNumber": params.get("StartingSequenceNumber"),
        "Timestamp": params.get("Timestamp"),
    }


def millis_behind(shard: Shard, records: list[Record], position: int, now_ms: int) -> int:
    """Return how far behind now a reader at `position` is: 0 only at the tip of an open shard."""
    if position == shard.total:
        return 0 if shard.closed_ms is None else max(0, now_ms - shard.closed_ms)
    last = position - 1 if records else position
    return max(1, now_ms - shard.arrival_ms(last))


def _number_mismatch(kind: str, number: str | None) -> Exception:
    return invalid(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
        "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {kind} and {'no' if number is None else 'also a'} StartingSequenceNumber."
    )


def _timestamp_ms(region: Region, timestamp: float | None) -> int:
    if timestamp is None:
        raise invalid(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
            "Current request has no timestamp parameter."
        )
    wanted, now_ms = round(timestamp * 1000), region.now_ms
    if wanted > now_ms:
        raise invalid(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
            f"timestampInMillis: {wanted}, currentTimestampInMillis: {now_ms}"
        )
    return wanted


def _place(region: Region, stream: Stream, shard: Shard, number: str) -> int:
    parts = sequence.decode(number)
    used = (
        f"StartingSequenceNumber {number} used in GetShardIterator on shard {shard.id} in stream {stream.name} "
        f"under account {region.account.id} is invalid"
    )
    if parts is None:
        raise invalid(f"{used}.")
    if parts.shard != shard.number:
        raise invalid(
            f"Invalid StartingSequenceNumber. It encodes {shard_name(parts.shard)}, "
            f"while it was used in a call to a shard with {shard.id}"
        )
    if (parts.stream, parts.epoch_ms) != (stream.number, shard.epoch_ms):
        raise invalid(f"{used} because it did not come from this stream.")
    return parts.place


def _stream_of(region: Region, iterator: Iterator, params: Params) -> Stream:
    stream = region.by_number(iterator.stream)
    if stream is None or stream.created_ms != iterator.stream_created_ms:
        name = stream.name if stream is not None else "of this iterator"
        raise shard_not_found(shard_name(iterator.shard), name, region.account.id)
    if params.get("StreamARN") not in (None, stream.arn):
        raise invalid(f"StreamARN {params['StreamARN']} does not match the stream of the ShardIterator.")
    return stream


def _seal(region: Region, stream: Stream, shard: Shard, position: int) -> str:
    iterator = Iterator(region.now_ms, stream.number, stream.created_ms, shard.number, position)
    return seal_iterator(region.account.sealer, iterator)


def _empty_reply(region: Region, stream: Stream, shard: Shard, position: int) -> Reply:
    shard.empty_replies -= 1
    behind = millis_behind(shard, [], shard.clamp(position), region.now_ms)
    next_iterator = _seal(region, stream, shard, position)
    return {"Records": [], "NextShardIterator": next_iterator, "MillisBehindLatest": behind or 1000}


def _count(shard: Shard, start: int, stop: int, now_ms: int) -> None:
    if shard.meter is None or start == stop:
        return
    size = shard.size(start, stop)
    full = size >= MAX_BYTES or (stop < shard.total and size + shard.size(stop, stop + 1) > MAX_BYTES)
    shard.meter.has_read(size, full=full, now_ms=now_ms)
