"""GetRecords bytes -> columnar batch, without boto3's per-record objects, and strictly.

msgspec checks the types and decodes base64 in C, and the columns go straight to Arrow. Aggregates are unpacked on the
way.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from operator import le
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.foreign import Dropped, drops
from kinesis_nb.core.frames import SCHEMA, TIMESTAMP, UNKNOWN_LAG, Batch, decode_text
from kinesis_nb.core.limits import SEQUENCE_NUMBER_DIGITS
from kinesis_nb.core.shards import Shard
from kinesis_nb.errors import MalformedResponse
from kinesis_nb.wire.aggregation import ROW_BYTES, may_hold_aggregates, unpack
from kinesis_nb.wire.columnar import LARGE_BYTES, LATEST, RecordColumns, raw_bytes_and_offsets, read_columns
from kinesis_nb.wire.decoding import Decoding
from kinesis_nb.wire.finding import Page
from kinesis_nb.wire.listing import Id, Keys, hash_range, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kinesis_nb.core.types import Foreign

T = TypeVar("T")

_MOST_LAG = 10 * UNKNOWN_LAG  # ms; no server can know of more
# Arrow's own pool keeps 1.5 MiB for each thread that ever made an array: for a thousand shards, far more than they hold
_POOL = pa.system_memory_pool()
_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)

_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]  # AWS: an iterator has 512 characters at most


class _ChildShard(msgspec.Struct):
    ShardId: Id
    ParentShards: Annotated[list[Id], msgspec.Meta(max_length=2)]
    HashKeyRange: Keys


class _Record(msgspec.Struct, gc=False):
    SequenceNumber: str
    Data: bytes
    ApproximateArrivalTimestamp: Annotated[float, msgspec.Meta(ge=0, le=LATEST)]
    PartitionKey: str | None = None  # absent on streams that distribute records by themselves


class _GetRecordsResponse(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: _Token | None = None
    MillisBehindLatest: Annotated[float, msgspec.Meta(ge=0, le=_MOST_LAG)] | None = None
    ChildShards: list[_ChildShard] = []


class _GetShardIteratorResponse(msgspec.Struct):
    ShardIterator: _Token


_decoder = msgspec.json.Decoder(_GetRecordsResponse)
_iterator_decoder = msgspec.json.Decoder(_GetShardIteratorResponse)
decoding = Decoding()


def decode_iterator(body: bytes) -> str:
    """Return the iterator in the body of a ``GetShardIterator`` response; raises a retryable MalformedResponse."""
    return _decoded(_iterator_decoder, body, "with a shard iterator").ShardIterator


def decode_page(body: bytes) -> Page:
    """Return the records of a ``GetRecords`` response as they are; raises a retryable MalformedResponse."""
    response = _decoded(_decoder, body, "with records")
    return Page(
        [record.Data for record in response.Records], response.NextShardIterator, response.MillisBehindLatest == 0
    )


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes, which: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedResponse(
            f"a response {which} was incomplete or invalid: {error}", hint="it will be requested again", retryable=True
        ) from error


def decode_batch(body: bytes, shard: Shard, now: datetime) -> Batch:
    """Turn the body of a ``GetRecords`` response into a batch.

    Parameters
    ----------
    shard
        Where the records are from; of user records whose hash keys it does not take `foreign` decides.
    now
        Becomes ``foundry_ingestion_timestamp``.

    Raises
    ------
    ServiceError
        Retryable, when the body is not a complete and well-formed response: cut off, HTML, bad base64, wrong types.
    """
    if len(body) >= LARGE_BYTES:
        batch = decoding.beside_others(_decode_columns, body, shard, now)
        if batch is not None:
            return batch
    with decoding.alone():
        return _decode(body, shard, now)  # the records die in there as well, which takes as long as making them


def _decode_columns(body: bytes, shard: Shard, now: datetime) -> Batch | None:
    """Return the batch of a response whose records are plain and all written in the same form; None for any other."""
    split = read_columns(body)
    if split is None or may_hold_aggregates(split[0].data):
        return None
    columns, rest = split
    try:
        response = _decoded(_decoder, rest, f"for {shard.shard_id}")
        _check_numbers(columns.sequence_numbers)
    except MalformedResponse:
        return None
    first = RecordColumns(*(column[:1] for column in columns))
    first = first._replace(data=first.data.cast(pa.binary()))
    if _columns(response.Records) != first or rest.count(b'"Records"') != 1 or b"\\" in rest:
        return None  # those were the records of something else
    return _batch(response, columns, _rows(columns, None, shard, now))


def _decode(body: bytes, shard: Shard, now: datetime) -> Batch:
    response = _decoded(_decoder, body, f"for {shard.shard_id}")
    if not response.Records:  # of an idle shard, once a second
        return _batch(response, _NO_COLUMNS, _NO_ROWS)
    columns = _columns(response.Records)
    _check_numbers(columns.sequence_numbers)
    if not may_hold_aggregates(columns.data):
        return _batch(response, columns, _rows(columns, None, shard, now))
    batch = _batch(response, columns, _NO_ROWS)
    return replace(batch, packed=partial(_unpacked, batch, response.Records, shard, now))


def _batch(response: _GetRecordsResponse, columns: RecordColumns, rows: pa.RecordBatch) -> Batch:
    """Return the rows of a response's records, of which `columns` holds what the service counts."""
    numbers = columns.sequence_numbers
    children = tuple(
        Shard(child.ShardId, tuple(child.ParentShards), hash_range(child.HashKeyRange))
        for child in response.ChildShards
    )
    lag = response.MillisBehindLatest
    if lag is None:  # AWS may leave it out: then only an empty response says that nothing is left
        lag = UNKNOWN_LAG if len(numbers) else 0
    first, last = (numbers[0].as_py(), numbers[-1].as_py()) if len(numbers) else (None, None)
    size = _size(columns)
    return Batch(rows, response.NextShardIterator, int(lag), children, (), first, last, len(numbers), size)


def _check_numbers(numbers: pa.Array) -> None:
    """Raise MalformedResponse unless they are decimal and none is smaller than the one before."""
    digits, bounds = raw_bytes_and_offsets(numbers)
    lengths = np.diff(bounds)
    if not len(lengths):
        return
    is_decimal = ord("0") <= digits.min(initial=ord("9")) and digits.max(initial=ord("0")) <= ord("9")
    if not is_decimal or not 0 < lengths.min() <= lengths.max() <= SEQUENCE_NUMBER_DIGITS:
        raise malformed("records have sequence numbers that are not decimal")
    if lengths.min() == lengths.max():  # nearly always: then text is ordered as numbers are
        rises = pc.all(pc.less_equal(numbers[:-1], numbers[1:], memory_pool=_POOL), memory_pool=_POOL).as_py()
    else:
        values = [int(number) for number in numbers.to_pylist()]
        rises = all(map(le, values, values[1:]))
    if rises is False:
        raise malformed("the sequence numbers of records step back")


def _columns(records: list[_Record]) -> RecordColumns:
    return RecordColumns(
        _array([record.PartitionKey for record in records], pa.string()),
        _array([record.Data for record in records], pa.binary()),
        _array([record.ApproximateArrivalTimestamp for record in records], pa.float64()),
        _array([record.SequenceNumber for record in records], pa.string()),
    )


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind, memory_pool=_POOL)


_NO_COLUMNS, _NO_ROWS = _columns([]), pa.RecordBatch.from_pylist([], SCHEMA)


def _rows(columns: RecordColumns, places: pa.Array | None, shard: Shard, now: datetime) -> pa.RecordBatch:
    """Return the rows of records; `places` holds those of user records in their aggregates, None means zeros."""
    text, raw = decode_text(columns.data, _POOL)
    count = len(text)
    return pa.RecordBatch.from_arrays(
        [
            columns.keys,
            text,
            _times(columns.seconds),
            _fixed(TIMESTAMP, np.full(count, (now - _EPOCH) // _MICROSECOND, np.int64)),
            _repeated(shard.shard_id, count),
            columns.sequence_numbers,
            _zeros(count) if places is None else places,
            raw,
        ],
        schema=SCHEMA,
    )


def _times(seconds: pa.Array) -> pa.Array:
    """Return whole milliseconds, which is what the service knows."""
    return _fixed(TIMESTAMP, np.rint(seconds.to_numpy() * 1_000.0).astype(np.int64) * 1_000)


def _fixed(kind: pa.DataType, values: NDArray[np.int64]) -> pa.Array:
    """Return an array of 64-bit values where numpy has them: a scalar of Arrow's would take from its own pool."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _size(columns: RecordColumns) -> int:
    """Return the bytes of all data and keys."""
    return len(raw_bytes_and_offsets(columns.data)[0]) + len(raw_bytes_and_offsets(columns.keys)[0])


@lru_cache(maxsize=64)
def _repeated(text: str, count: int) -> pa.Array:
    """Return a constant column; full pages of one shard share it, so that it takes memory once."""
    value = text.encode()
    bounds = np.arange(count + 1, dtype=np.int32) * np.int32(len(value))
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(bounds), pa.py_buffer(value * count)])


@lru_cache(maxsize=64)
def _zeros(count: int) -> pa.Array:
    return _fixed(pa.int64(), np.zeros(count, np.int64))


class _Part(NamedTuple):
    """Records that were unpacked up to the one at `end`.

    `places` holds the place of each record in its aggregate, dropped ones counted too, so that a user record has the
    same place whatever the range; 0 for plain records.
    """

    records: list[_Record]
    places: list[int]
    dropped: tuple[Dropped, ...]
    end: int


def _unpacked(
    response: Batch, records: list[_Record], shard: Shard, now: datetime, most: int, foreign: Foreign
) -> Iterator[Batch]:
    """Give a response with aggregates in parts; no part is held here while the next one is made."""
    end = 0
    while end < len(records):
        with decoding.alone():
            part = _unpack(records, end, shard, most, foreign)
            rows = _rows(_columns(part.records), _array(part.places, pa.int64()), shard, now)
        first, last = records[end].SequenceNumber, records[part.end - 1].SequenceNumber
        end = part.end
        batch = (
            Batch.part(rows, first, last, part.dropped)
            if end < len(records)
            else replace(response, rows=rows, read_from=first, dropped=part.dropped, packed=None)
        )
        del part, rows
        yield batch
        del batch


def _unpack(records: list[_Record], begin: int, shard: Shard, most: int, foreign: Foreign) -> _Part:
    """Put the user records of each aggregate in its place, until they may take `most` bytes."""
    low, high = shard.hash_range
    unpacked: list[_Record] = []
    places: list[int] = []
    dropped: list[Dropped] = []
    size = 0
    end = begin
    while end < len(records) and size < most:
        record = records[end]
        end += 1
        users = unpack(record.Data)
        size += len(record.Data) + len(users or ()) * ROW_BYTES
        if users is None:
            unpacked.append(record)
            places.append(0)
            continue
        kept: Sequence[int] = range(len(users))
        ours = [place for place in kept if low <= users[place].hash_key <= high]
        if len(ours) < len(users) and drops(foreign, shard, record.SequenceNumber, _arrival(record)):
            dropped.append(Dropped(record.SequenceNumber, _arrival(record), len(users) - len(ours)))
            kept = ours
        number, arrival = record.SequenceNumber, record.ApproximateArrivalTimestamp
        unpacked += [_Record(number, users[place].data, arrival, users[place].partition_key) for place in kept]
        places += kept
    return _Part(unpacked, places, tuple(dropped), end)


def _arrival(record: _Record) -> datetime:
    """Return when a record arrived, as its row says it."""
    return _EPOCH + timedelta(milliseconds=round(record.ApproximateArrivalTimestamp * 1_000.0))
