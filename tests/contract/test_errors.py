"""What goes over the wire when a request is wrong, below what boto3 can send."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from .kit import Server, deviates, new_name, refused

TARGET = "Kinesis_20131202"
CONTENT_TYPE = "application/x-amz-json-1.1"
# Well formed, as servers look at its parts, and signed by nobody.
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)


def test_an_answer_is_json_with_a_request_id(server: Server) -> None:
    """A good answer is 200, application/x-amz-json-1.1, and has an x-amzn-RequestId."""
    status, headers, body = post(server, "ListStreams", "{}")

    assert status == 200
    assert headers["content-type"].startswith(CONTENT_TYPE)
    assert headers.get("x-amzn-requestid")
    assert "StreamNames" in json.loads(body)


@deviates("moto", "answers another content type to an error than to an answer")
def test_an_error_is_400_with_a_type_and_a_message(server: Server) -> None:
    """An error of the caller is 400 with __type and message in the body."""
    name = new_name()

    status, headers, body = post(server, "DescribeStreamSummary", json.dumps({"StreamName": name}))

    assert status == 400
    assert headers["content-type"].startswith(CONTENT_TYPE)
    assert error_code(body) == "ResourceNotFoundException"
    assert name in json.loads(body)["message"]


def test_an_answer_without_content_is_empty(server: Server) -> None:
    """CreateStream answers 200 with nothing, or an empty object, in the body."""
    status, _, body = post(server, "CreateStream", json.dumps({"StreamName": new_name(), "ShardCount": 1}))

    assert status == 200
    assert body in {b"", b"{}"}


@deviates("kinesis-mock", "answers 404 without an error code")
@deviates("moto", "answers 404 without an error code")
def test_an_unknown_operation_is_refused(server: Server) -> None:
    """An operation that does not exist is an UnknownOperationException."""
    status, _, body = post(server, "FryShard", "{}")

    assert (status, error_code(body)) == (400, "UnknownOperationException")


@deviates("moto", "answers 500")
@pytest.mark.parametrize("body", ["", "{", "[1", "nonsense"])
def test_a_body_that_is_no_json_is_refused(server: Server, body: str) -> None:
    """A body that cannot be parsed is a SerializationException."""
    status, _, answer = post(server, "ListStreams", body)

    assert (status, error_code(answer)) == (400, "SerializationException")


@deviates("moto", "answers 500 or takes it for a name")
@pytest.mark.parametrize("name", [["a list"], {"a": "map"}, True], ids=["list", "map", "bool"])
def test_a_value_of_the_wrong_type_is_refused(server: Server, name: Any) -> None:
    """A list, a map or a boolean where a string is due is a SerializationException."""
    status, _, answer = post(server, "DescribeStreamSummary", json.dumps({"StreamName": name}))

    assert (status, error_code(answer)) == (400, "SerializationException")


@deviates("kinesis-mock", "answers 500, or drops what it cannot decode")
@deviates("moto", "answers 500, or drops what it cannot decode")
@pytest.mark.parametrize("data", ["!!!!", "abc"], ids=["no base64", "bad length"])
def test_data_that_is_no_base64_is_refused(server: Server, data: str) -> None:
    """Data that is not base64 is a SerializationException, and nothing is stored."""
    stream = server.create()

    status, _, answer = post(
        server, "PutRecord", json.dumps({"StreamName": stream.name, "PartitionKey": "key", "Data": data})
    )

    assert (status, error_code(answer)) == (400, "SerializationException")
    assert stream.read("shardId-000000000000", expect=0) == []


@deviates("moto", "answers ResourceNotFoundException")
def test_a_call_about_a_stream_names_one(server: Server) -> None:
    """A call about a stream without StreamName and StreamARN is refused."""
    with refused("InvalidArgumentException|ValidationException"):
        server.unchecked.describe_stream_summary()


def test_members_that_nobody_knows_are_ignored(server: Server) -> None:
    """A newer client may send members that the server has not heard of."""
    status, _, _ = post(server, "ListStreams", json.dumps({"Limit": 1, "FromTheFuture": {"a": [1]}}))

    assert status == 200


def post(server: Server, operation: str, body: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is; return the status, the headers in lower case, and the body."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        connection.request(
            "POST",
            "/",
            body.encode(),
            {
                "Content-Type": CONTENT_TYPE,
                "X-Amz-Target": f"{TARGET}.{operation}",
                "X-Amz-Date": "20260101T000000Z",
                "Authorization": AUTHORIZATION,
            },
        )
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def error_code(body: bytes) -> str:
    """Return the error code in a body, without a namespace in front of it."""
    try:
        return str(json.loads(body)["__type"]).rsplit("#", 1)[-1]
    except (ValueError, KeyError, TypeError):
        return f"no error code in {body[:200]!r}"
