"""AWS JSON 1.1: requests as they come in, replies as they go out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol, TypedDict
from urllib.parse import urlsplit

import msgspec

from .errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from email.message import Message

JSON = "application/x-amz-json-1.1"
HTML = "text/html"
TARGET = "Kinesis_20131202."

Params = dict[str, Any]  # those of `Members` that a request has; what they must be, its rules say

_SCOPE = re.compile(r"Credential=[^/\s,]+/\d{8}/([a-z0-9-]+)/[^/\s,]+/aws4_request")


class EventSource(Protocol):
    """What a subscription looks like from here."""

    @property
    def closed(self) -> bool:
        """Whether nothing follows."""
        ...

    def poll(self) -> Sequence[Mapping[str, object]]:
        """Return the events since the last call."""
        ...

    def close(self) -> None:
        """End it: nobody listens any more."""
        ...


class _Entry(TypedDict, total=False):
    Data: bytes | None
    PartitionKey: str | None
    ExplicitHashKey: str | None


class _Position(TypedDict, total=False):  # StartingPosition and ShardFilter
    Type: str | None
    ShardId: str | None
    SequenceNumber: str | None
    Timestamp: float | None


class Members(TypedDict, total=False):
    """Every member of every request: one name has one type throughout the API, so one decoder serves them all."""

    AdjacentShardToMerge: str | None
    ConsumerARN: str | None
    ConsumerName: str | None
    Data: bytes | None
    DryRun: bool | None
    EncryptionType: str | None
    EnforceConsumerDeletion: bool | None
    ExclusiveStartShardId: str | None
    ExclusiveStartStreamName: str | None
    ExclusiveStartTagKey: str | None
    ExplicitHashKey: str | None
    KeyId: str | None
    Limit: int | None
    MaxRecordSizeInKiB: int | None
    MaxResults: int | None
    MinimumThroughputBillingCommitment: dict[str, str] | None
    NewStartingHashKey: str | None
    NextToken: str | None
    PartitionKey: str | None
    Policy: str | None
    RecordDistributionStrategy: str | None
    Records: list[_Entry] | None
    ResourceARN: str | None
    RetentionPeriodHours: int | None
    ScalingType: str | None
    SequenceNumberForOrdering: str | None
    ShardCount: int | None
    ShardFilter: _Position | None
    ShardId: str | None
    ShardIterator: str | None
    ShardIteratorType: str | None
    ShardLevelMetrics: list[str] | None
    ShardToMerge: str | None
    ShardToSplit: str | None
    StartingPosition: _Position | None
    StartingSequenceNumber: str | None
    StreamARN: str | None
    StreamCreationTimestamp: float | None
    StreamId: str | None
    StreamModeDetails: dict[str, str] | None
    StreamName: str | None
    TagKeys: list[str] | None
    Tags: dict[str, str] | None
    TargetShardCount: int | None
    Timestamp: float | None
    WarmThroughputMiBps: int | None


_DECODER = msgspec.json.Decoder(Members)


@dataclass(frozen=True, slots=True)
class Request:
    """One authenticated request, its body not yet decoded."""

    operation: str
    region: str
    signed_at: str
    body: bytes

    def params(self) -> Params:
        """Decode the body: base64 strictly, types as the service model has them, null as absent."""
        try:
            members = _DECODER.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AwsError("SerializationException", str(error)) from error
        return {name: value for name, value in members.items() if value is not None}


def parse_request(headers: Message, body: bytes) -> Request:
    """Read operation, region and date from the headers; raise what the service raises when they are wrong."""
    _check_content_type(headers)
    target = headers.get("X-Amz-Target", "")
    if not target.startswith(TARGET):
        raise AwsError("UnknownOperationException", f"no operation {target!r}")
    authorization = headers.get("Authorization")
    if authorization is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    scope = _SCOPE.search(authorization)
    if scope is None:
        raise AwsError("IncompleteSignatureException", "Authorization header requires 'Credential' parameter.")
    return Request(target.removeprefix(TARGET), scope[1], headers.get("X-Amz-Date", ""), body)


def check_caller(headers: Message, allowed: frozenset[str]) -> None:
    """Refuse what a page of the web sends: it may reach a loopback port under a name of its own (DNS rebinding).

    Parameters
    ----------
    allowed
        Names that this machine is called by, beside those of loopback.

    Raises
    ------
    AwsError
        For a request with an Origin, which clients of AWS do not send, and for one to another host.
    """
    if "Origin" in headers:
        raise AwsError("AccessDeniedException", "the emulator does not serve web pages: a request had an Origin", 403)
    for host in headers.get_all("Host", ()):
        if not _is_loopback(name := _name_of(host)) and name not in allowed:
            text = (
                f"the emulator is not called {name[:100]!r}: use 127.0.0.1 or localhost, or start it with allowed_hosts"
            )
            raise AwsError("HostNotServed", text, 403)  # AWS has no code for it; one of its own would blame a policy


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host.strip()}").hostname or ""
    except ValueError:  # brackets without an address
        return host


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _check_content_type(headers: Message) -> None:
    content_type = headers.get_content_type()
    if "cbor" in content_type or "cbor" in headers.get("smithy-protocol", ""):
        hint = "set AWS_CBOR_DISABLE=true, or -Daws.cborEnabled=false for Java"
        raise AwsError("SerializationException", f"the request is CBOR and this endpoint speaks JSON 1.1; {hint}")
    if content_type not in {JSON, "application/json"}:
        raise AwsError("UnknownOperationException", f"Content-Type must be {JSON}, not {content_type}", 404)


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; with a `subscription` its body is an event stream."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    code: str = ""
    subscription: EventSource | None = None
    skew: float = 0.0


def ok(result: Mapping[str, object]) -> Reply:
    """Encode an answer; bytes become base64, operations without output have an empty body."""
    return Reply(body=msgspec.json.encode(result) if result else b"")


def refused(error: AwsError) -> Reply:
    """Encode an API error."""
    body = msgspec.json.encode({"__type": error.code, "message": error.message})
    return Reply(status=error.status, body=body, code=error.code)
