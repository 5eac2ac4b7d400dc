"""The HTTP half of the embedded Kinesis: the protocol, the life of the server, what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints
from zlib import crc32

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from kinesis_nb.emulator import Emulator, ManualClock, PortInUse, Stall, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

AWS: Any = boto3  # its stubs name every service there is
SHARD = "shardId-000000000000"
AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=h, Signature=0"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Serve an empty embedded Kinesis."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def kinesis(emulator: Emulator) -> Iterator[Any]:
    """Connect boto3, without retries, to a stream `orders` of one shard."""
    client = connect(emulator)
    client.create_stream(StreamName="orders", ShardCount=1)
    yield client
    client.close()


def connect(emulator: Emulator, **settings: Any) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=10)
    return AWS.client("kinesis", **{**emulator.settings, **settings}, config=config)


def post(
    emulator: Emulator, target: str, body: bytes = b"{}", **changed: str | None
) -> tuple[int, Any, dict[str, Any]]:
    """Send one request without an SDK; return status, headers and decoded body."""
    headers: dict[str, str | None] = {
        "X-Amz-Target": f"Kinesis_20131202.{target}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": AUTHORIZATION,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    connection = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/", body, {name: value for name, value in headers.items() if value is not None})
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, reply.headers, json.loads(data or b"{}")


def read(kinesis: Any, **limit: int) -> Any:
    iterator = kinesis.get_shard_iterator(StreamName="orders", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    return kinesis.get_records(ShardIterator=iterator["ShardIterator"], **limit)


others: set[threading.Thread] = set()  # of emulators that were there before the test


@pytest.fixture(autouse=True)
def _remember_others() -> None:
    """Other tests of the run keep an emulator of their own for longer than one test."""
    others.clear()
    others.update(threading.enumerate())


def emulator_threads() -> list[str]:
    own = [thread for thread in threading.enumerate() if thread not in others]
    return [thread.name for thread in own if thread.name.startswith("kinesis_nb emulator")]


# -- who may call ---------------------------------------------------------------------------------------------------

FOREIGN = [
    "rebound.example",
    "rebound.example:4567",
    "127.0.0.1.rebound.example",
    "10.0.0.7",
    "[fe80::1]",
    "a@b",
    "[::1",
]
OWN = ["127.0.0.1", "127.0.0.1:1", "localhost:4567", "LocalHost", "[::1]:4567", "kinesis.localhost:4567"]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_is_refused(emulator: Emulator, kinesis: Any, host: str) -> None:
    """A page that rebound its name to this machine can neither read nor write; the answer says what to do."""
    status, _, answer = post(emulator, "DeleteStream", b'{"StreamName": "orders"}', Host=host)
    assert (status, answer["__type"]) == (403, "HostNotServed")
    assert "use 127.0.0.1 or localhost" in answer["message"]
    assert kinesis.list_streams()["StreamNames"] == ["orders"]
    assert emulator.requests["DeleteStream"] == 0


@pytest.mark.parametrize("host", OWN)
def test_every_name_of_loopback_is_its_own(emulator: Emulator, host: str) -> None:
    """With any port: a tunnel or a published port has another one."""
    assert post(emulator, "ListStreams", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://rebound.example", "http://localhost:8888", "null"])
def test_a_web_page_is_refused(emulator: Emulator, kinesis: Any, origin: str) -> None:
    """Whatever it is called by: no client of AWS sends an Origin."""
    status, headers, _ = post(emulator, "DeleteStream", b'{"StreamName": "orders"}', Origin=origin)
    assert (status, headers["Access-Control-Allow-Origin"]) == (403, None)
    assert kinesis.list_streams()["StreamNames"] == ["orders"]


def test_what_a_browser_asks_first_is_refused(emulator: Emulator) -> None:
    """The question before a request with headers of its own gets no permission."""
    connection = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    connection.request("OPTIONS", "/", headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"})
    reply = connection.getresponse()
    assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (403, None)
    connection.close()


def test_a_name_that_was_allowed() -> None:
    """That of a container or a tunnel; other names stay refused."""
    with Emulator(allowed_hosts=["Kinesis.Test"]) as emulator:
        assert post(emulator, "ListStreams", Host="kinesis.test:4567")[0] == 200
        assert post(emulator, "ListStreams", Host="other.test:4567")[0] == 403


# -- the protocol ---------------------------------------------------------------------------------------------------


def test_boto3_reads_back_the_bytes_it_put(kinesis: Any) -> None:
    """Every byte value survives the way in and out, with its key."""
    payload = bytes(range(256))
    kinesis.put_record(StreamName="orders", Data=payload, PartitionKey="Schlüssel")
    kinesis.put_records(StreamName="orders", Records=[{"Data": b"", "PartitionKey": "empty"}])
    records = read(kinesis)["Records"]
    assert [(record["PartitionKey"], record["Data"]) for record in records] == [("Schlüssel", payload), ("empty", b"")]


def test_timestamps_keep_milliseconds() -> None:
    """An arrival time reaches the client to the millisecond."""
    with Emulator(clock=ManualClock(1_763_900_000.123)) as emulator:
        client = connect(emulator)
        client.create_stream(StreamName="orders", ShardCount=1)
        client.put_record(StreamName="orders", Data=b"x", PartitionKey="k")
        arrival = read(client)["Records"][0]["ApproximateArrivalTimestamp"]
        client.close()
    assert arrival == datetime.fromtimestamp(1_763_900_000.123, UTC)


def test_reply_headers(emulator: Emulator) -> None:
    """A reply carries AWS's ids, its type, and a checksum of its body."""
    _, headers, body = post(emulator, "ListStreams")
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-RequestId"]) == 36
    assert headers["x-amz-id-2"]
    assert body["StreamNames"] == []


def test_checksum_is_that_of_the_body(kinesis: Any, emulator: Emulator) -> None:
    """The CRC32 header lets a client detect a damaged body."""
    connection = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    headers = {"X-Amz-Target": "Kinesis_20131202.ListStreams", "Content-Type": protocol.JSON}
    connection.request("POST", "/", b"{}", {**headers, "Authorization": AUTHORIZATION})
    reply = connection.getresponse()
    assert int(reply.headers["x-amz-crc32"]) == crc32(reply.read())
    connection.close()


def test_error_reply_names_its_type_in_header_and_body(emulator: Emulator) -> None:
    """An error is found in `x-amzn-ErrorType` and in `__type`."""
    status, headers, body = post(emulator, "DescribeStreamSummary", b'{"StreamName":"nope"}')
    assert (status, headers["x-amzn-ErrorType"], body["__type"]) == (400, *["ResourceNotFoundException"] * 2)
    assert "nope" in body["message"]


def test_operations_without_output_have_an_empty_body(emulator: Emulator) -> None:
    """CreateStream answers with nothing at all, as the service does."""
    status, headers, _ = post(emulator, "CreateStream", b'{"StreamName":"s","ShardCount":1}')
    assert (status, headers["Content-Length"]) == (200, "0")


@pytest.mark.parametrize("target", ["Nonsense", ""])
def test_unknown_operation(emulator: Emulator, target: str) -> None:
    """An operation that does not exist is an UnknownOperationException."""
    assert post(emulator, target)[2]["__type"] == "UnknownOperationException"


def test_unknown_service(emulator: Emulator) -> None:
    """A request for another service is not mistaken for one of ours."""
    reply = post(emulator, "x", X_Amz_Target="DynamoDB_20120810.ListTables")
    assert reply[2]["__type"] == "UnknownOperationException"


def test_missing_authorization(emulator: Emulator) -> None:
    """A request without credentials is refused."""
    status, _, body = post(emulator, "ListStreams", Authorization=None)
    assert (status, body["__type"]) == (400, "MissingAuthenticationTokenException")


def test_malformed_authorization(emulator: Emulator) -> None:
    """An Authorization header without a credential scope is refused."""
    assert post(emulator, "ListStreams", Authorization="Basic abc")[2]["__type"] == "IncompleteSignatureException"


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("PutRecord", b'{"StreamName":"orders","PartitionKey":"k","Data":"a!k="}'),
        ("PutRecord", b'{"StreamName":"orders","PartitionKey":"k","Data":"aGk"}'),
        ("PutRecord", b'{"StreamName":"orders","PartitionKey":7,"Data":"aGk="}'),
        ("PutRecords", b'{"StreamName":"orders","Records":[{"PartitionKey":"k","Data":"-_8="}]}'),
        ("PutRecords", b'{"StreamName":"orders","Records":{}}'),
        ("CreateStream", b'{"StreamName":"s","ShardCount":"1"}'),
        ("CreateStream", b'{"StreamName":"s","ShardCount":1.5}'),
        ("CreateStream", b'{"StreamName":"s","ShardCount":true}'),
        ("GetShardIterator", b'{"StreamName":"orders","Timestamp":"yesterday"}'),
        ("AddTagsToStream", b'{"StreamName":"orders","Tags":["a"]}'),
        ("ListShards", b'{"StreamName":"orders","ShardFilter":"AT_LATEST"}'),
        ("ListStreams", b"[]"),
        ("ListStreams", b'{"Limit":'),
        ("ListStreams", b""),
        ("ListStreams", b'{"NextToken":"\xff"}'),
    ],
)
def test_what_does_not_decode_is_a_serialization_error(
    kinesis: Any, emulator: Emulator, operation: str, body: bytes
) -> None:
    """Bad JSON, bad base64 and wrong types are refused before anything happens."""
    status, _, reply = post(emulator, operation, body)
    assert (status, reply["__type"]) == (400, "SerializationException")
    assert read(kinesis)["Records"] == []


def test_null_and_unknown_members_are_ignored(kinesis: Any, emulator: Emulator) -> None:
    """`null` means absent and an unknown member means nothing."""
    body = (
        b'{"StreamName":"orders","StreamARN":null,"Unheard":1,"Data":"aGk=","PartitionKey":"k","ExplicitHashKey":null}'
    )
    assert post(emulator, "PutRecord", body)[0] == 200
    assert read(kinesis)["Records"][0]["Data"] == b"hi"
    assert post(emulator, "GetRecords", b'{"ShardIterator":null}')[2]["__type"] == "ValidationException"


def test_cbor_is_refused_with_advice(emulator: Emulator) -> None:
    """A client that speaks CBOR is told how to switch it off."""
    status, _, body = post(emulator, "ListStreams", b"\xbf\xff", Content_Type="application/x-amz-cbor-1.1")
    assert (status, body["__type"]) == (400, "SerializationException")
    assert "AWS_CBOR_DISABLE" in body["message"]


def test_other_content_types_are_refused(emulator: Emulator) -> None:
    """A form is not a request; application/json is."""
    assert post(emulator, "ListStreams", Content_Type="application/x-www-form-urlencoded")[0] == 404
    assert post(emulator, "ListStreams", Content_Type="application/json; charset=utf-8")[0] == 200


def test_region_comes_from_the_signature(kinesis: Any, emulator: Emulator) -> None:
    """Two regions do not see each other's streams."""
    elsewhere = connect(emulator, region_name="eu-central-1")
    assert elsewhere.list_streams()["StreamNames"] == []
    assert kinesis.list_streams()["StreamNames"] == ["orders"]
    elsewhere.close()


def test_get_is_refused(emulator: Emulator) -> None:
    """A browser gets an answer, not a hang."""
    connection = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.parametrize(("length", "status"), [("99999999999", b" 413 "), ("-1", b" 411 "), ("x", b" 411 ")])
def test_impossible_lengths_are_refused_unread(emulator: Emulator, length: str, status: bytes) -> None:
    """A request that announces too much, or nothing sensible, is answered at once and its connection closed."""
    with socket.create_connection(("127.0.0.1", int(emulator.endpoint_url.rsplit(":", 1)[1])), timeout=10) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        reply = b"".join(iter(lambda: raw.recv(4096), b""))
    assert status in reply


def test_one_connection_serves_many_requests(emulator: Emulator) -> None:
    """Connections are kept alive, after errors too."""
    connection = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    headers = {"X-Amz-Target": "Kinesis_20131202.ListStreams", "Content-Type": protocol.JSON}
    connection.connect()
    first = connection.sock
    for authorization in (AUTHORIZATION, "", AUTHORIZATION):
        connection.request("POST", "/", b"{}", {**headers, "Authorization": authorization})
        connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_a_defect_is_an_internal_failure(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception inside the emulator is a 500 that names it, not a broken connection."""

    def broken(*_: object, **__: object) -> dict[str, Any]:
        raise KeyError("lost")

    monkeypatch.setattr(emulator.model, "call", broken)
    status, _, body = post(emulator, "ListStreams")
    assert (status, body["__type"]) == (500, "InternalFailure")
    assert "KeyError('lost')" in body["message"]


def test_every_member_of_the_service_model_is_decoded() -> None:
    """Each request member botocore can send is known here, with the same type."""
    kinds = {"string": str, "integer": int, "boolean": bool, "timestamp": float, "blob": bytes}
    known = get_type_hints(protocol.Members)
    service: Any = botocore.session.get_session().get_service_model("kinesis")
    names = [name for name in service.operation_names if "Queue" not in name and "Channel" not in name]
    members = [item for name in names for item in (service.operation_model(name).input_shape or Empty).members.items()]
    assert len(members) > 100
    for name, shape in members:
        assert name in known, name
        if shape.type_name in kinds:
            assert known[name] == kinds[shape.type_name] | None, name


class Empty:
    """The shape of an operation without input."""

    members: ClassVar[dict[str, Any]] = {}


def test_concurrent_clients_lose_nothing(kinesis: Any, emulator: Emulator) -> None:
    """Eight threads on one client: every acknowledged record is there once."""

    def put(number: int) -> None:
        kinesis.put_record(StreamName="orders", Data=b"%d" % number, PartitionKey="k")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(80)))
    assert sorted(int(record["Data"]) for record in read(kinesis)["Records"]) == list(range(80))
    assert emulator.requests["PutRecord"] == 80


def test_quotas_throttle_the_sixth_read() -> None:
    """With quotas on, a shard gives five reads per second."""
    with Emulator(quotas=True, clock=ManualClock()) as emulator:
        client = connect(emulator)
        client.create_stream(StreamName="orders", ShardCount=1)
        iterator = client.get_shard_iterator(StreamName="orders", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
        for _ in range(5):
            client.get_records(ShardIterator=iterator["ShardIterator"])
        with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
            client.get_records(ShardIterator=iterator["ShardIterator"])
        client.close()


# -- the life of the server -----------------------------------------------------------------------------------------


def test_only_loopback() -> None:
    """Any other address is refused in two lines, one of them a hint."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 only, not '0\.0\.0\.0'\nhint: "):
        Emulator(host="0.0.0.0")


def test_port_in_use(emulator: Emulator) -> None:
    """A port that is taken is a PortInUse in two lines, and nothing is started."""
    port = int(emulator.endpoint_url.rsplit(":", 1)[1])
    before = emulator_threads()
    with pytest.raises(PortInUse) as caught:
        Emulator(port=port).start()
    assert isinstance(caught.value, OSError)
    what, hint = str(caught.value).splitlines()
    assert str(port) in what
    assert hint.startswith("hint: ")
    assert emulator_threads() == before


def test_stop_leaves_no_thread_and_no_connection(kinesis: Any, emulator: Emulator) -> None:
    """After stop() threads are gone and idle connections are closed; stopping twice is fine."""
    idle = http.client.HTTPConnection(emulator.endpoint_url.removeprefix("http://"), timeout=10)
    idle.request("GET", "/")
    idle.getresponse().read()
    kinesis.list_streams()
    assert len(emulator_threads()) == 3
    emulator.stop()
    emulator.stop()
    assert emulator_threads() == []
    assert idle.sock.recv(1) == b""
    idle.close()
    with pytest.raises(EndpointConnectionError):
        kinesis.list_streams()


def test_stop_does_not_wait_for_a_stalled_or_half_sent_request(kinesis: Any, emulator: Emulator) -> None:
    """stop() takes less than a second whatever its clients are doing."""
    emulator.on("ListStreams", Stall(60))
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(kinesis.list_streams)
        with socket.create_connection(("127.0.0.1", int(emulator.endpoint_url.rsplit(":", 1)[1])), timeout=10) as half:
            half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
            while not emulator.delivered["Stall"]:
                pass
            started = monotonic()
            emulator.stop()
            assert monotonic() - started < 1
        assert isinstance(stalled.exception(10), HTTPClientError)
    assert emulator_threads() == []


def test_stop_waits_for_a_request_that_is_being_carried_out(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stop() returns when the last thread is gone, not before."""
    entered, release = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> dict[str, Any]:
        entered.set()
        release.wait(4)
        return {}

    monkeypatch.setattr(emulator.model, "call", slow)
    with ThreadPoolExecutor(2) as pool:
        cut_off = pool.submit(post, emulator, "ListStreams")
        assert entered.wait(5)
        stopping = pool.submit(emulator.stop)
        with pytest.raises(TimeoutError):
            stopping.result(0.1)
        release.set()
        stopping.result(5)
        assert isinstance(cut_off.exception(5), (http.client.HTTPException, OSError))
    assert emulator_threads() == []


def test_start_again_on_the_same_port(kinesis: Any, emulator: Emulator) -> None:
    """A stopped emulator comes back where it was, with its streams and counters."""
    url = emulator.endpoint_url
    emulator.stop()
    assert repr(emulator) == "<Emulator stopped>"
    emulator.start().start()
    assert emulator.endpoint_url == url
    assert repr(emulator) == f"<Emulator serving {url}>"
    assert kinesis.list_streams()["StreamNames"] == ["orders"]
    assert emulator.requests == {"CreateStream": 1, "ListStreams": 1}


def test_no_endpoint_before_the_start() -> None:
    """Asking an emulator without a port for its address says what to do."""
    with pytest.raises(RuntimeError, match="hint: "):
        _ = Emulator().endpoint_url


def test_the_emulator_needs_no_sdk() -> None:
    """Importing the emulator loads neither boto3 nor botocore nor any data library."""
    code = (
        "import sys, kinesis_nb.emulator; "
        "print(*{name.split('.')[0] for name in sys.modules} & {'boto3', 'botocore', 'pandas', 'polars', 'pyarrow'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


# -- serve() --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_announces_itself_and_ends_on_a_signal(number: signal.Signals) -> None:
    """serve() prints the endpoint and a command that works, and ends with status 0."""
    code = "from kinesis_nb.emulator import serve; serve(0, streams={'orders': 2})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        assert f'endpoint_url="{url}"' in process.stdout.readline()
        assert f"--endpoint-url {url} kinesis list-streams" in process.stdout.readline()
        client = AWS.client("kinesis", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")
        assert client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["OpenShardCount"] == 2
        client.close()
        process.send_signal(number)
        assert process.wait(10) == 0


def test_the_aws_cli_works(kinesis: Any, emulator: Emulator) -> None:
    """The command line of AWS reads what boto3 wrote."""
    command = [sys.executable, "-m", "awscli", "--endpoint-url", emulator.endpoint_url, "kinesis", "list-streams"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["StreamNames"] == ["orders"]
