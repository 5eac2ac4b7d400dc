"""The calls we make to AWS."""

from __future__ import annotations

import email.utils
import threading
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec
from botocore import exceptions as boto_errors
from botocore.parsers import ResponseParserError

from kinesis_nb.core import halt
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.transport import Clock, PutResult, ServerTime, SystemClock
from kinesis_nb.errors import (
    AccessDenied,
    KinesisError,
    MalformedResponse,
    StreamNotFound,
    closest,
    forget_frames,
)
from kinesis_nb.service.credentials import signed
from kinesis_nb.service.deadline import set_deadlines, why_too_large
from kinesis_nb.service.probe import Probe
from kinesis_nb.service.raw import RawCalls
from kinesis_nb.service.session import caller_arn, is_aws, make_client, make_credentials
from kinesis_nb.service.translate import FailedCall, translate
from kinesis_nb.wire.batches import decode_batch, decode_iterator, decode_page, decoding
from kinesis_nb.wire.finding import Page, find
from kinesis_nb.wire.listing import all_shards, all_streams, stream_extras, stream_summary
from kinesis_nb.wire.naming import is_arn, named, named_beside_iterator
from kinesis_nb.wire.putting import decode_results, request_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kinesis_nb.access.config import SourceConfig
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.names import StreamArn
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import StreamExtras, StreamSummary

T = TypeVar("T")

_MOST_SKEW = timedelta(days=36_525)  # of a clock; further away, and times cannot be computed with any more
_UNREADABLE = (  # what botocore's parser ends with, given other types than it expects
    ResponseParserError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@of_one_process
class KinesisClient:
    """Kinesis over botocore; implements :class:`~kinesis_nb.core.transport.Kinesis`."""

    def __init__(self, config: SourceConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._time = _ServerClock()
        self._credentials = make_credentials(config, self._clock)
        self._client = make_client(config, self._credentials)
        set_deadlines(self._client)
        self._raw = RawCalls(self._client)
        self._caller: str | None = None
        self._probe = Probe(self._call, trusts_dry_run=is_aws(config))
        # the pool's sockets would otherwise live until some garbage collection
        weakref.finalize(self, self._client.close)

    def list_streams(self) -> list[str]:
        """Return the names of all streams, in the order of the service."""

        def next_page(last: str | None) -> Mapping[str, object]:
            return self._call("list_streams", **{"ExclusiveStartStreamName": last} if last else {})

        return all_streams(next_page)

    def describe_stream(self, stream: str) -> StreamSummary:
        """Return what the service says of a stream."""
        return stream_summary(self._call("describe_stream", stream, **named(stream), Limit=1))

    def describe_extras(self, stream: str) -> StreamExtras:
        """Return what DescribeStreamSummary says and DescribeStream does not."""
        return stream_extras(self._call("describe_stream_summary", stream, **named(stream)))

    def list_shards(self, stream: str) -> list[Shard]:
        """Return all shards of a stream, all pages of them."""

        def next_page(token: str | None) -> Mapping[str, object]:
            # a call with a token must not name the stream
            return self._call("list_shards", stream, **{"NextToken": token} if token else named(stream))

        return all_shards(next_page)

    def get_shard_iterator(self, stream: str, shard_id: str, position: StartingPosition) -> str:
        """Return a shard iterator."""
        where: dict[str, object] = {"ShardId": shard_id, "ShardIteratorType": position.kind.value}
        if position.kind is Kind.AT_TIMESTAMP and position.timestamp is not None:
            where["Timestamp"] = position.timestamp.timestamp()
        if position.sequence_number is not None:
            where["StartingSequenceNumber"] = position.sequence_number
        request = msgspec.json.encode({**named(stream), **where})
        return decode_iterator(self._post("get_shard_iterator", request, stream))

    def get_records(self, stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        """Return the next records of a shard as columns."""
        request = msgspec.json.encode({"ShardIterator": iterator, "Limit": limit, **named_beside_iterator(stream)})
        with decoding.call():
            return decode_batch(self._post("get_records", request, stream), shard, self._clock.now())

    def find(self, stream: str, records: Sequence[bytes], since: datetime) -> list[str | None]:
        """Return the shard that each record is in; None for one that is not in the stream."""
        return find(self, stream, records, since)

    def get_page(self, stream: str, iterator: str) -> Page:
        """Return the next records of a shard as they are in the stream."""
        request = msgspec.json.encode({"ShardIterator": iterator, **named_beside_iterator(stream)})
        return decode_page(self._post("get_records", request, stream))

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        """Write records; raises a retryable ServiceError when the outcome is not known."""
        response = self._post("put_records", request_body(stream, records), stream)
        return decode_results(response, len(records))

    def storage_options(self) -> dict[str, str]:
        """Return the region and the current credentials."""
        key = self._credentials.get_frozen_credentials()
        options = {"region": self._config.region, "access_key_id": key.access_key, "secret_access_key": key.secret_key}
        if key.token:
            options["session_token"] = key.token
        return options

    def server_time(self) -> ServerTime:
        """Return between which two times the service's clock is, from the Date headers seen so far."""
        return self._time.at(self._clock.now())

    def may(self, action: str, stream: str) -> bool | None:
        """Return whether an action on a stream is allowed, without doing it; None when that cannot be asked."""
        return self._probe.may(action, stream)

    def customer_key(self, stream: str) -> str | None:
        """Return the key of the customer's own that encrypts a stream; None without one, or when it may not be seen."""
        return self._probe.customer_key(stream)

    def stream_arn(self, stream: str) -> str | None:
        """Return the ARN of a stream, of the caller's account when it may not be described; None when unknown."""
        try:
            return self.describe_stream(stream).arn
        except (AccessDenied, StreamNotFound):
            caller = self._caller_arn()
        if caller is None:
            return None
        _, partition, _, _, account, *_ = caller.split(":")
        return f"arn:{partition}:kinesis:{self._config.region}:{account}:stream/{stream}"

    def address(self, arn: StreamArn) -> str:
        """Return the name of a stream, or its ARN when it is not known to be of the caller's account.

        A server other than AWS, without an STS to ask, is taken for one account.
        """
        if not is_aws(self._config) and self._config.sts_endpoint_url is None:
            return arn.stream
        caller = self._caller_arn()
        return arn.stream if caller is not None and caller.split(":")[4] == arn.account else str(arn)

    def _caller_arn(self) -> str | None:
        if self._caller is None:
            self._caller = caller_arn(self._config, self._credentials)
        return self._caller

    def _call(self, operation: str, stream: str = "", **params: object) -> Mapping[str, object]:
        sent = self._clock.now()
        method = getattr(self._client, operation)
        response = self._made(lambda: method(**params), operation, stream)
        headers: Mapping[str, str] = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self._time.observe(headers.get("date"), sent, self._clock.now())
        return response

    def _post(self, operation: str, body: bytes, stream: str) -> bytes:
        """Make a call that is too large or too frequent for botocore's serializer and parser."""
        sent = self._clock.now()
        # when GetRecords finds no shard, the stream may still exist
        missed = "" if operation == "get_records" else stream
        response, date = self._made(lambda: self._raw.post(operation, body, stream), operation, missed)
        self._time.observe(date, sent, self._clock.now())
        return response

    def _made(self, call: Callable[[], T], operation: str, stream: str) -> T:
        halt.check()
        try:
            return signed(self._credentials, call)
        except KinesisError:  # some of them are among those below as well
            raise
        except (boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            failed = self._translate(error, operation, stream)
        except _UNREADABLE:
            failed = _malformed(operation, "a response that is not what the service sends")
        raise failed  # without what led to it: it quotes the address of the proxy, or the response, or what was signed

    def _translate(self, error: Exception, operation: str, stream: str = "") -> KinesisError:
        halt.check()  # a call that was given up did not fail
        if too_large := why_too_large(error):
            forget_frames(error)
            return _malformed(operation, str(too_large))
        call = FailedCall(operation, stream, self._config.region, proxy=self._config.proxy)
        translated = translate(error, call, self._clock.now())
        if isinstance(translated, StreamNotFound) and not translated.hint:
            translated.hint = self._hint_for(stream)
        return translated

    def _hint_for(self, stream: str) -> str:
        """Suggest a name like it; listing streams is optional, so a refusal only costs the hint."""
        if is_arn(stream):
            return "check the ARN, and that the stream's own account shares it"
        try:
            names = self.list_streams() if stream else []
        except KinesisError:
            return "check the name, and the region: connect(region=...) chooses another one"
        other = f"connect(region=...) chooses another region than {self._config.region}"
        return closest(stream, names) or f"source.explore() lists the streams; {other}"


def _malformed(operation: str, why: str) -> MalformedResponse:
    return MalformedResponse(f"{operation}: {why}", hint="it can be requested again", retryable=True)


class _ServerClock:
    """How far the service's clock is from ours, narrowed with every Date header (which has whole seconds only)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._least: timedelta | None = None
        self._most: timedelta | None = None

    def observe(self, date: str | None, sent: datetime, received: datetime) -> None:
        if (second := _second(date, received)) is None:
            return
        least, most = second - received, second + timedelta(seconds=1) - sent
        with self._lock:
            old_least, old_most = self._least, self._most
            if old_least is None or old_most is None:
                self._least, self._most = least, most
            elif least > old_most or most < old_least:  # a clock was set, or one response was wrong: allow for both
                self._least, self._most = min(least, old_least), max(most, old_most)
            else:
                self._least, self._most = max(least, old_least), min(most, old_most)

    def at(self, now: datetime) -> ServerTime:
        with self._lock:
            least, most = self._least or timedelta(0), self._most or timedelta(0)
        return ServerTime(now + least, now + most)


def _second(date: str | None, received: datetime) -> datetime | None:
    """Return the second that a Date header names; None for one that nothing can be computed with."""
    try:
        second = email.utils.parsedate_to_datetime(date).astimezone(UTC) if date else None
    except (ValueError, OverflowError):
        return None  # a proxy's own idea of a date
    return None if second is None or abs(second - received) > _MOST_SKEW else second
