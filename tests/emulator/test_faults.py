"""Each fault as a boto3 client meets it, and whether the request was carried out."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from kinesis_nb.emulator import (
    DEFAULT_FAULTS,
    ERRORS,
    ClockSkew,
    CutBody,
    EmptyReply,
    Emulator,
    ErrorReply,
    Fault,
    Gap,
    Html,
    PartialFailure,
    Reset,
    SlowDrip,
    Stall,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AWS: Any = boto3  # its stubs name every service there is
SHARD = "shardId-000000000000"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Serve an empty embedded Kinesis."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def kinesis(emulator: Emulator) -> Iterator[Any]:
    """Connect boto3, without retries, to a stream `orders` of one shard."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
    client = AWS.client("kinesis", **emulator.settings, config=config)
    client.create_stream(StreamName="orders", ShardCount=1)
    yield client
    client.close()


def put(kinesis: Any, data: bytes = b"one") -> Any:
    return kinesis.put_record(StreamName="orders", Data=data, PartitionKey="k")


def put_many(kinesis: Any, count: int) -> Any:
    entries = [{"Data": b"%d" % number, "PartitionKey": "k"} for number in range(count)]
    return kinesis.put_records(StreamName="orders", Records=entries)


def iterator(kinesis: Any) -> str:
    reply = kinesis.get_shard_iterator(StreamName="orders", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    return str(reply["ShardIterator"])


def stored(kinesis: Any) -> list[bytes]:
    return [record["Data"] for record in kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]]


def failure(call: Callable[[], Any]) -> tuple[str, int]:
    """Return the error code and the HTTP status a call fails with."""
    with pytest.raises(ClientError) as caught:
        call()
    response: Any = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_every_code_reaches_the_client_and_stores_nothing(kinesis: Any, emulator: Emulator, code: str) -> None:
    """A scripted error has its code, status and message; the record is not stored; the next request is served."""
    emulator.on("PutRecord", ERRORS[code])
    with pytest.raises(ClientError) as caught:
        put(kinesis)
    response: Any = caught.value.response
    assert response["Error"] == {"Code": code, "Message": ERRORS[code].message}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == ERRORS[code].status
    assert stored(kinesis) == []
    put(kinesis)
    assert stored(kinesis) == [b"one"]
    assert emulator.delivered == {code: 1}


def test_codes_of_the_reader_and_the_exporter_are_known() -> None:
    """The table holds every kind of error a client must tell apart, with AWS's status."""
    assert ERRORS["ServiceUnavailable"].status == 503
    assert ERRORS["InternalFailure"].status == 500
    assert ERRORS["TooManyRequestsException"].status == 429
    assert ERRORS["ExpiredIteratorException"].status == 400


def test_an_error_can_come_after_the_request_was_applied(kinesis: Any, emulator: Emulator) -> None:
    """`applied=True` makes a 5xx whose outcome the client cannot know: the record is there."""
    emulator.on("PutRecord", ErrorReply("InternalFailure", applied=True))
    assert failure(lambda: put(kinesis)) == ("InternalFailure", 500)
    assert stored(kinesis) == [b"one"]


def test_an_error_of_ones_own(kinesis: Any, emulator: Emulator) -> None:
    """A code that is not in the table works too."""
    emulator.on("PutRecord", ErrorReply("TeapotException", 418, "short and stout"))
    assert failure(lambda: put(kinesis)) == ("TeapotException", 418)


# -- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [CutBody(0.5), CutBody(10), CutBody(0.5, short=True), CutBody(0)])
def test_a_cut_body_looks_like_an_empty_answer(kinesis: Any, emulator: Emulator, fault: CutBody) -> None:
    """botocore turns a truncated body into an answer without members; the record was stored."""
    emulator.on("PutRecord", fault)
    assert "SequenceNumber" not in put(kinesis)
    assert stored(kinesis) == [b"one"]
    assert emulator.delivered == {"CutBody": 1}


@pytest.mark.parametrize("at", [0, 0.0, 7, 0.5, 10_000, 1.0])
def test_a_cut_body_is_shorter_than_announced(kinesis: Any, emulator: Emulator, at: float) -> None:
    """On the wire at least one byte is missing, and the connection is closed."""
    emulator.on("ListStreams", CutBody(at))
    head, body = raw(emulator, "ListStreams")
    whole = len(raw(emulator, "ListStreams", "Connection: close\r\n")[1])
    assert f"Content-Length: {whole}\r\n" in head
    assert len(body) == min(at if isinstance(at, int) else int(at * whole), whole - 1)


def test_a_short_body_matches_its_length(kinesis: Any, emulator: Emulator) -> None:
    """With `short` only the checksum and the JSON tell that something is missing; the connection lives on."""
    emulator.on("ListStreams", CutBody(12, short=True))
    head, body = raw(emulator, "ListStreams", "Connection: close\r\n")
    assert "Content-Length: 12\r\n" in head
    assert len(body) == 12


def test_a_chunked_body_without_its_end_breaks_the_connection(kinesis: Any, emulator: Emulator) -> None:
    """A body in chunks that stops early is a closed connection to botocore; the record was stored."""
    emulator.on("PutRecord", CutBody(0.5, chunked=True))
    with pytest.raises(ConnectionClosedError):
        put(kinesis)
    assert stored(kinesis) == [b"one"]


def test_an_empty_reply(kinesis: Any, emulator: Emulator) -> None:
    """`{}` with status 200: nothing in it, but the record was stored, unless told otherwise."""
    emulator.on("PutRecord", EmptyReply(), EmptyReply(applied=False))
    assert set(put(kinesis)) == {"ResponseMetadata"}
    assert set(put(kinesis, b"two")) == {"ResponseMetadata"}
    assert stored(kinesis) == [b"one"]


def test_html_with_200_looks_like_an_empty_answer(kinesis: Any, emulator: Emulator) -> None:
    """A proxy's page with status 200 passes botocore as an answer without members; nothing was stored."""
    emulator.on("PutRecord", Html(200))
    reply = put(kinesis)
    assert set(reply) == {"ResponseMetadata"}
    assert reply["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "text/html"
    assert stored(kinesis) == []


def test_html_with_502(kinesis: Any, emulator: Emulator) -> None:
    """A proxy's error page has its status for a code; `applied` stores the record first."""
    emulator.on("PutRecord", Html(502), Html(502, applied=True))
    assert failure(lambda: put(kinesis)) == ("502", 502)
    assert stored(kinesis) == []
    assert failure(lambda: put(kinesis)) == ("502", 502)
    assert stored(kinesis) == [b"one"]


# -- connections and time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "expected"), [(Reset(before=True), []), (Reset(before=False), [b"one"])])
def test_reset(kinesis: Any, emulator: Emulator, fault: Reset, expected: list[bytes]) -> None:
    """The client cannot tell a reset before the record was stored from one after it."""
    emulator.on("PutRecord", fault)
    with pytest.raises(ConnectionClosedError):
        put(kinesis)
    assert stored(kinesis) == expected


def test_reset_is_a_reset_and_no_orderly_end(kinesis: Any, emulator: Emulator) -> None:
    """TCP says RST, so a raw client sees ECONNRESET."""
    emulator.on("ListStreams", Reset())
    with pytest.raises(ConnectionResetError):
        raw(emulator, "ListStreams")


@pytest.mark.parametrize(("applied", "expected"), [(True, [b"one"]), (False, [])])
def test_stall(kinesis: Any, emulator: Emulator, *, applied: bool, expected: list[bytes]) -> None:
    """The client's read timeout ends a stalled call; whether the record is stored was decided before."""
    emulator.on("PutRecord", Stall(60, applied=applied))
    with pytest.raises(ReadTimeoutError):
        put(kinesis)
    assert stored(kinesis) == expected


def test_a_short_stall_is_only_late(kinesis: Any, emulator: Emulator) -> None:
    """A stall that ends before the client gives up delivers the answer."""
    emulator.on("PutRecord", Stall(0.05))
    started = monotonic()
    assert put(kinesis)["SequenceNumber"]
    assert monotonic() - started >= 0.05


def test_slow_drip_escapes_the_read_timeout(kinesis: Any, emulator: Emulator) -> None:
    """A body that keeps dripping takes longer than the read timeout and still arrives whole."""
    put(kinesis, b"x" * 3000)
    position = iterator(kinesis)
    emulator.on("GetRecords", SlowDrip(6000))
    started = monotonic()
    assert kinesis.get_records(ShardIterator=position)["Records"][0]["Data"] == b"x" * 3000
    assert monotonic() - started > 0.5
    assert emulator.delivered == {"SlowDrip": 1}


def test_stop_ends_a_slow_drip(kinesis: Any, emulator: Emulator) -> None:
    """A drip that would take hours does not keep stop() waiting."""
    emulator.on("ListStreams", SlowDrip(0.001))
    with socket.create_connection(address(emulator), timeout=10) as client:
        client.sendall(request("ListStreams"))
        assert client.recv(1)
        started = monotonic()
        emulator.stop()
        assert monotonic() - started < 1


def test_clock_skew_shows_in_the_date(kinesis: Any, emulator: Emulator) -> None:
    """The Date header is off by so much, and the request is served."""
    emulator.on("ListStreams", ClockSkew(3600))
    headers = kinesis.list_streams()["ResponseMetadata"]["HTTPHeaders"]
    ahead = parsedate_to_datetime(headers["date"]) - datetime.now(UTC)
    assert 3590 < ahead.total_seconds() <= 3600


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(600, "expired: {} is now earlier than"), (-600, "not yet current: {} is still later than")],
)
def test_clock_skew_can_refuse_the_signature(kinesis: Any, emulator: Emulator, seconds: float, words: str) -> None:
    """A refused signature names both clocks, in AWS's words, and stores nothing."""
    emulator.on("PutRecord", ClockSkew(seconds, "InvalidSignatureException"))
    signed: list[str] = []

    def note(request: Any, **_: Any) -> None:
        signed.append(signing_time(request))

    kinesis.meta.events.register("before-send.kinesis.*", note)
    with pytest.raises(ClientError) as caught:
        put(kinesis)
    assert f"Signature {words.format(signed[0])} " in str(caught.value)
    limit, now, sign = re.findall(r"than (\w+) \((\w+) ([+-]) 5 min\.\)", str(caught.value))[0]
    assert abs(epoch(now) - epoch(signed[0]) - seconds) < 10
    assert epoch(limit) - epoch(now) == int(f"{sign}300") == (-300 if seconds > 0 else 300)
    assert stored(kinesis) == []


def epoch(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def test_clock_skew_with_another_code(kinesis: Any, emulator: Emulator) -> None:
    """RequestExpired is refused with its own message."""
    emulator.on("PutRecord", ClockSkew(1000, "RequestExpired"))
    assert failure(lambda: put(kinesis)) == ("RequestExpired", 400)


# -- answers that are true and incomplete ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "failed"), [(PartialFailure(3), 3), (PartialFailure(0.5), 5), (PartialFailure(0.01), 1)]
)
def test_partial_failure_stores_exactly_the_rest(
    kinesis: Any, emulator: Emulator, fault: PartialFailure, failed: int
) -> None:
    """Entries with an ErrorCode are not stored, entries without one are, in order."""
    emulator.on("PutRecords", fault)
    reply = put_many(kinesis, 10)
    assert reply["FailedRecordCount"] == failed
    codes = [entry.get("ErrorCode") for entry in reply["Records"]]
    assert codes.count("ProvisionedThroughputExceededException") == failed
    assert stored(kinesis) == [b"%d" % number for number, code in enumerate(codes) if code is None]
    assert emulator.delivered == {"PartialFailure": 1}


def test_every_entry_can_fail(kinesis: Any, emulator: Emulator) -> None:
    """A request of which nothing is stored is still a 200."""
    emulator.on("PutRecords", PartialFailure(1.0, "InternalFailure"))
    reply = put_many(kinesis, 3)
    assert [entry["ErrorCode"] for entry in reply["Records"]] == ["InternalFailure"] * 3
    assert stored(kinesis) == []


def test_partial_failure_does_not_hide_a_refusal(kinesis: Any, emulator: Emulator) -> None:
    """A request that is wrong as a whole is refused as always, and the fault does not count as delivered."""
    emulator.on("PutRecords", PartialFailure(1.0), PartialFailure(0.5))
    entries = [{"Data": b"x", "PartitionKey": "k"}]
    assert failure(lambda: kinesis.put_records(StreamName="nope", Records=entries)) == (
        "ResourceNotFoundException",
        400,
    )
    assert failure(lambda: put_many(kinesis, 501))[1] == 400
    assert not emulator.delivered


def test_gap_is_silence_along_one_iterator_chain(kinesis: Any, emulator: Emulator) -> None:
    """Empty answers that are behind, each with a new iterator; following them reaches every record."""
    put(kinesis)
    emulator.on("GetRecords", Gap(3))
    iterators = [iterator(kinesis)]
    for _ in range(3):
        reply = kinesis.get_records(ShardIterator=iterators[-1])
        assert reply["Records"] == []
        assert reply["MillisBehindLatest"] > 0
        iterators.append(reply["NextShardIterator"])
    assert len(set(iterators)) == 4
    assert [record["Data"] for record in kinesis.get_records(ShardIterator=iterators[-1])["Records"]] == [b"one"]
    assert emulator.delivered == {"Gap": 1}


def test_a_new_iterator_does_not_meet_the_gap(kinesis: Any, emulator: Emulator) -> None:
    """The silence belongs to the chain, not to the shard."""
    put(kinesis)
    emulator.on("GetRecords", Gap(3))
    kinesis.get_records(ShardIterator=iterator(kinesis))
    assert stored(kinesis) == [b"one"]


# -- which request is hit -------------------------------------------------------------------------------------------


def test_scripts_are_one_shot_and_in_order(kinesis: Any, emulator: Emulator) -> None:
    """Each fault hits one request of its operation, first in, first out; then all is well."""
    emulator.on("PutRecord", ErrorReply("Throttling"), ErrorReply("SlowDown"))
    emulator.on("PutRecord", ErrorReply("InternalFailure"))
    kinesis.list_streams()
    assert [failure(lambda: put(kinesis))[0] for _ in range(3)] == ["Throttling", "SlowDown", "InternalFailure"]
    assert put(kinesis)["SequenceNumber"]
    assert emulator.pending == []


def test_star_hits_any_operation_after_its_own_faults(kinesis: Any, emulator: Emulator) -> None:
    """Faults of the operation come first, then those for any."""
    emulator.on("*", ErrorReply("SlowDown"))
    emulator.on("ListStreams", ErrorReply("Throttling"))
    assert failure(kinesis.list_streams) == ("Throttling", 400)
    assert failure(kinesis.list_streams) == ("SlowDown", 503)


def test_star_waits_for_an_operation_that_fits(kinesis: Any, emulator: Emulator) -> None:
    """A fault for any operation that cannot hit this one waits, and keeps its place in the queue."""
    emulator.on("*", PartialFailure(1), ErrorReply("SlowDown"))
    assert kinesis.list_streams()["StreamNames"] == ["orders"]
    assert put_many(kinesis, 2)["FailedRecordCount"] == 1
    assert failure(kinesis.list_streams) == ("SlowDown", 503)


def test_a_fault_that_cannot_hit_is_refused(emulator: Emulator) -> None:
    """Partial failures belong to PutRecords; an unknown operation is met with advice."""
    with pytest.raises(ValueError, match="hint: use it on PutRecords"):
        emulator.on("GetRecords", PartialFailure())
    with pytest.raises(ValueError, match="hint: did you mean 'GetRecords'"):
        emulator.on("GetRecord", Reset())
    with pytest.raises(ValueError, match="hint: did you mean 'ListShards'"):
        emulator.chaos(seed=1, rate=1, operations=["ListShard"])
    with pytest.raises(ValueError, match="between 0 and 1"):
        emulator.chaos(seed=1, rate=2)


def test_chaos_repeats_with_its_seed(kinesis: Any, emulator: Emulator) -> None:
    """The same seed and requests give the same faults; another seed gives others."""
    outcomes = [chaos_outcome(kinesis, emulator, seed) for seed in (1, 1, 2)]
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert 5 <= len(outcomes[0]) - outcomes[0].count("ok") <= 35


def chaos_outcome(kinesis: Any, emulator: Emulator, seed: int) -> list[str]:
    faults: list[Fault] = [ErrorReply("Throttling"), ErrorReply("SlowDown"), ErrorReply("InternalFailure")]
    emulator.chaos(seed=seed, rate=0.5, faults=faults, operations=["ListStreams"])
    return [outcome(kinesis.list_streams) for _ in range(40)]


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except ClientError as error:
        response: Any = error.response
        return str(response["Error"]["Code"])
    return "ok"


def test_chaos_keeps_to_its_operations_and_ends(kinesis: Any, emulator: Emulator) -> None:
    """Other operations are left alone, scripted faults come first, and calm() ends it."""
    emulator.chaos(seed=1, rate=1.0, faults=[ErrorReply("Throttling")], operations=["ListStreams"])
    emulator.on("ListStreams", ErrorReply("SlowDown"))
    put(kinesis)
    assert [outcome(kinesis.list_streams) for _ in range(2)] == ["SlowDown", "Throttling"]
    emulator.calm()
    assert outcome(kinesis.list_streams) == "ok"
    assert emulator.delivered == {"SlowDown": 1, "Throttling": 1}


def test_chaos_is_plausible(kinesis: Any, emulator: Emulator) -> None:
    """Random faults are ones the service could send: ListStreams never meets an expired iterator."""
    faults = [ErrorReply("ExpiredIteratorException"), PartialFailure(), Gap()]
    emulator.chaos(seed=1, rate=1.0, faults=faults)
    assert kinesis.list_streams()["StreamNames"] == ["orders"]
    assert outcome(lambda: kinesis.get_records(ShardIterator="x")) != "ok"


def test_default_chaos_delivers_every_kind(kinesis: Any, emulator: Emulator) -> None:
    """The default mixture reaches all its faults, and afterwards the service is as it was."""
    put(kinesis)
    position = iterator(kinesis)
    emulator.chaos(seed=3, rate=1.0)
    calls: list[Callable[[], Any]] = [
        lambda: kinesis.get_records(ShardIterator=position),
        lambda: put_many(kinesis, 4),
        lambda: kinesis.list_shards(StreamName="orders"),
    ]
    for number in range(180):
        swallow(calls[number % 3])
    emulator.calm()
    assert set(emulator.delivered) == {fault.name for fault in DEFAULT_FAULTS}
    assert stored(kinesis)[0] == b"one"


def swallow(call: Callable[[], Any]) -> None:
    with suppress(Exception):  # whatever the faults make of it
        call()


# -- without an SDK -------------------------------------------------------------------------------------------------


def address(emulator: Emulator) -> tuple[str, int]:
    return "127.0.0.1", int(emulator.endpoint_url.rsplit(":", 1)[1])


def request(operation: str, extra: str = "") -> bytes:
    body = json.dumps({})
    scope = "Credential=id/20260101/us-east-1/kinesis/aws4_request"
    return (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nAuthorization: {scope}\r\n"
        f"X-Amz-Target: Kinesis_20131202.{operation}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def raw(emulator: Emulator, operation: str, extra: str = "") -> tuple[str, bytes]:
    """Return headers and body until the server closes the connection."""
    with socket.create_connection(address(emulator), timeout=10) as client:
        client.sendall(request(operation, extra))
        reply = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    return head.decode() + "\r\n", body


def signing_time(request: Any) -> str:
    value = request.headers["X-Amz-Date"]
    return value.decode() if isinstance(value, bytes) else str(value)
