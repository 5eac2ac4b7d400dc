"""Responses of the calls that list and describe, strictly: botocore's parser checks no types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from kinesis_nb.core.limits import MOST_RETENTION, SEQUENCE_NUMBER_DIGITS
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.core.transport import StreamExtras, StreamSummary
from kinesis_nb.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

MOST = 200_000  # shards or streams; AWS: an account has some ten thousand, and of closed ones as many for each reshard
MOST_PAGES = 1_000  # AWS: a page has 1,000 shards or 100 streams
_MOST_HOURS = 100 * MOST_RETENTION // timedelta(hours=1)  # of no server can be believed to keep records for longer
_OLDEST, _NEWEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

Id = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}\Z")]
_Parent = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{0,128}\Z")]  # some servers say "" for none
_HashKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,39}\Z")]  # up to 2**128 - 1
_SequenceNumber = Annotated[str, msgspec.Meta(pattern=rf"^[0-9]{{1,{SEQUENCE_NUMBER_DIGITS}}}\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=2_048)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Keys(msgspec.Struct):
    """The first and the last hash key of a shard."""

    StartingHashKey: _HashKey
    EndingHashKey: _HashKey


class _Numbers(msgspec.Struct):
    StartingSequenceNumber: _SequenceNumber
    EndingSequenceNumber: _SequenceNumber | None = None


class _Shard(msgspec.Struct):
    ShardId: Id
    HashKeyRange: Keys
    SequenceNumberRange: _Numbers
    ParentShardId: _Parent | None = None
    AdjacentParentShardId: _Parent | None = None


class _ListShardsResponse(msgspec.Struct):
    Shards: list[_Shard]
    NextToken: str | None = None


class _ListStreamsResponse(msgspec.Struct):
    StreamNames: list[Annotated[str, msgspec.Meta(min_length=1, max_length=128)]]
    HasMoreStreams: bool = False


class _Mode(msgspec.Struct):
    StreamMode: _Text = "PROVISIONED"


class _Description(msgspec.Struct):
    StreamName: _Text
    StreamARN: _Text
    StreamStatus: _Text
    StreamCreationTimestamp: datetime
    RetentionPeriodHours: Annotated[int, msgspec.Meta(ge=0, le=_MOST_HOURS)]
    StreamModeDetails: _Mode | None = None
    EncryptionType: _Text | None = None


class _DescribeStreamResponse(msgspec.Struct):
    StreamDescription: _Description


class _Extras(msgspec.Struct):
    ConsumerCount: _Count | None = None
    RecordDistributionStrategy: _Text | None = None
    ChannelCount: _Count | None = None
    QueueCount: _Count | None = None
    StreamARN: _Text | None = None
    MaxRecordSizeInKiB: Annotated[int, msgspec.Meta(ge=0, le=2**20)] | None = None
    StreamCreationTimestamp: datetime | None = None


class _DescribeStreamSummaryResponse(msgspec.Struct):
    StreamDescriptionSummary: _Extras


def malformed(why: str) -> MalformedResponse:
    """Return the error of a response that is not what the service sends."""
    return MalformedResponse(
        why, hint="it can be requested again; a proxy on the way may have changed it", retryable=True
    )


def _strictly(response: Mapping[str, object], kind: type[T]) -> T:
    try:
        return msgspec.convert(response, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise malformed(f"a response is not what the service sends: {error}") from error


def read_shard(shard: Mapping[str, object]) -> Shard:
    """Return one shard of a listing."""
    return _made(_strictly(shard, _Shard))


def _made(shard: _Shard) -> Shard:
    numbers = shard.SequenceNumberRange
    parents = (shard.ParentShardId, shard.AdjacentParentShardId)
    return Shard(
        shard.ShardId,
        tuple(parent for parent in parents if parent),
        hash_range(shard.HashKeyRange),
        numbers.StartingSequenceNumber,
        numbers.EndingSequenceNumber,
    )


def hash_range(keys: Keys) -> tuple[int, int]:
    """Return the first and the last hash key as numbers."""
    first, last = int(keys.StartingHashKey), int(keys.EndingHashKey)
    if not first <= last <= MAX_HASH_KEY:
        raise malformed(f"no shard takes the hash keys from {first} to {last}")
    return first, last


def all_shards(next_page: Callable[[str | None], Mapping[str, object]]) -> list[Shard]:
    """Return the shards on all pages, each once.

    Parameters
    ----------
    next_page
        Requests the page of a token, or the first one.

    Raises
    ------
    MalformedResponse
        When the pages do not end.
    """
    shards: dict[str, Shard] = {}
    tokens: set[str] = set()
    token: str | None = None
    while True:
        page = _strictly(next_page(token), _ListShardsResponse)
        shards.update((shard.ShardId, _made(shard)) for shard in page.Shards)
        if not (token := page.NextToken):
            return list(shards.values())
        if token in tokens or len(shards) > MOST or len(tokens) > MOST_PAGES:
            raise malformed(f"a listing of shards does not end: {len(shards):,} on {len(tokens) + 1:,} pages")
        tokens.add(token)


def all_streams(next_page: Callable[[str | None], Mapping[str, object]]) -> list[str]:
    """Return the names of the streams on all pages, given what asks for the page behind a name, or for the first one.

    Raises
    ------
    MalformedResponse
        When the pages do not end.
    """
    names: dict[str, None] = {}
    last: str | None = None
    for _ in range(MOST_PAGES):
        page = _strictly(next_page(last), _ListStreamsResponse)
        before = len(names)
        names.update(dict.fromkeys(page.StreamNames))
        if not page.HasMoreStreams:
            return list(names)
        if len(names) == before or len(names) > MOST:
            break
        last = page.StreamNames[-1]
    raise malformed(f"a listing of streams does not end: {len(names):,} so far")


def stream_summary(response: Mapping[str, object]) -> StreamSummary:
    """Return what ``DescribeStream`` says."""
    found = _strictly(response, _DescribeStreamResponse).StreamDescription
    return StreamSummary(
        name=found.StreamName,
        arn=found.StreamARN,
        status=found.StreamStatus,
        mode=found.StreamModeDetails.StreamMode if found.StreamModeDetails else "PROVISIONED",
        created_at=_created_at(found.StreamCreationTimestamp),
        retention=found.RetentionPeriodHours,
        encryption=found.EncryptionType or "NONE",
    )


def _created_at(given: datetime) -> datetime:
    if given.tzinfo is None or not _OLDEST < given < _NEWEST:
        raise malformed(f"no stream was created at {given}")
    return given.astimezone(UTC)


def stream_extras(response: Mapping[str, object]) -> StreamExtras:
    """Return what ``DescribeStreamSummary`` says and ``DescribeStream`` does not."""
    found = _strictly(response, _DescribeStreamSummaryResponse).StreamDescriptionSummary
    kib = found.MaxRecordSizeInKiB
    return StreamExtras(
        consumers=found.ConsumerCount,
        distribution=found.RecordDistributionStrategy,
        channels=found.ChannelCount,
        queues=found.QueueCount,
        arn=found.StreamARN,
        max_record_bytes=kib * 1024 if kib else None,
        created_at=found.StreamCreationTimestamp,
    )
