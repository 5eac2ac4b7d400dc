"""A server, or whatever responds in its place, cannot fill the memory of who calls it."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import tracemalloc
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.credentials import StaticCredentials
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import Shard
from kinesis_nb.errors import KinesisError, MalformedResponse
from kinesis_nb.service import deadline
from kinesis_nb.service.client import KinesisClient

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

pytestmark = pytest.mark.slow

MIB = 2**20
PIECE = b"x" * 2**16
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Hostile:
    """Responds to every request with pieces until they end, or nobody wants more; counts what it got rid of."""

    def __init__(self, pieces: Callable[[], Iterable[bytes]]) -> None:
        self.sent = 0
        self._pieces = pieces

    def talk(self, connection: socket.socket) -> None:
        """Take a request and respond to it, again and again."""
        with connection, suppress(OSError):
            while _take_request(connection):
                for piece in self._pieces():
                    connection.sendall(piece)
                    self.sent += len(piece)


def _take_request(connection: socket.socket) -> bool:
    taken = b""
    while b"\r\n\r\n" not in taken:
        if not (more := connection.recv(2**16)):
            return False
        taken += more
    head, _, body = taken.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(2**16)
    return True


@contextmanager
def serving(hostile: Hostile) -> Generator[KinesisClient]:
    """Give a client of it."""
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=hostile.talk, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        client = KinesisClient(
            SourceConfig(auth=StaticCredentials("a", "b"), endpoint_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        )
        try:
            yield client
        finally:
            client._client.close()
            listener.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *threads):
        thread.join()


CALLS: dict[str, tuple[Callable[[KinesisClient], Any], int]] = {
    "GetRecords": (lambda client: client.get_records("s", Shard("shard"), "A", 10_000), deadline.RECORDS_BYTES),
    "ListShards": (lambda client: client.list_shards("s"), deadline.OTHER_BYTES),
    "GetShardIterator": (
        lambda client: client.get_shard_iterator("s", "shard", StartingPosition.trim_horizon()),
        deadline.OTHER_BYTES,
    ),
}
BODIES: dict[str, Callable[[], Iterable[bytes]]] = {
    "announced": lambda: itertools.chain([OK + b"Content-Length: 629145600\r\n\r\n"], itertools.repeat(PIECE)),
    "in chunks": lambda: itertools.chain([OK + CHUNKED], itertools.repeat(b"10000\r\n" + PIECE + b"\r\n")),
    "one chunk": lambda: itertools.chain([OK + CHUNKED + b"40000000\r\n"], itertools.repeat(PIECE)),
    "until it closes": lambda: itertools.chain([OK + b"Connection: close\r\n\r\n"], itertools.repeat(PIECE)),
    "a chunk's size": lambda: itertools.chain([OK + CHUNKED], itertools.repeat(b"0" * 2**16)),
    "trailers": lambda: itertools.chain([OK + CHUNKED + b"0\r\n"], itertools.repeat(b"A: " + b"x" * 8_000 + b"\r\n")),
}


def _as_error(pieces: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
    return (piece.replace(b"200 OK", b"500 Internal Server Error") for piece in pieces())


ERRORS: dict[str, Callable[[], Iterable[bytes]]] = {
    f"error {name}": partial(_as_error, pieces) for name, pieces in BODIES.items()
}
HEADS: dict[str, Callable[[], Iterable[bytes]]] = {
    "headers": lambda: itertools.chain([OK], itertools.repeat(b"A: " + b"x" * 60_000 + b"\r\n")),
    "one header": lambda: itertools.chain([OK, b"A: "], itertools.repeat(PIECE)),
    "the status": lambda: itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(PIECE)),
    "promises": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 2**12),
}


def refused(call: Callable[[KinesisClient], Any], pieces: Callable[[], Iterable[bytes]]) -> tuple[KinesisError, int]:
    """Return what a call ends with that gets these pieces, and the most memory it took meanwhile."""
    hostile = Hostile(pieces)
    with serving(hostile) as client:
        tracemalloc.start()
        try:
            with pytest.raises(KinesisError) as raised:
                call(client)
            return raised.value, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("operation", CALLS)
def test_an_answer_without_end_is_cut_off(operation: str, body: str) -> None:
    """No more is taken than a call of its kind can give; it may be requested again, and says why it was refused."""
    call, most = CALLS[operation]
    error, memory = refused(call, BODIES[body])
    assert error.retryable
    if body != "a chunk's size":  # which http.client and urllib3 bound themselves
        assert isinstance(error, MalformedResponse)
        assert "the service never sends a response of" in error.message
    assert memory < (MIB if body == "announced" else 3 * most)


@pytest.mark.parametrize("body", ERRORS)
@pytest.mark.parametrize("operation", CALLS)
def test_an_error_without_end_is_cut_off_sooner(operation: str, body: str) -> None:
    """A refusal is a few lines; a mebibyte of one is enough."""
    error, memory = refused(CALLS[operation][0], ERRORS[body])
    assert error.retryable
    assert memory < 4 * deadline.ERROR_BYTES


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("operation", CALLS)
def test_a_head_without_end_is_cut_off(operation: str, head: str) -> None:
    """However it continues: a line, lines, or one head after the other."""
    error, memory = refused(CALLS[operation][0], HEADS[head])
    assert error.retryable
    assert memory < 2 * MIB


@pytest.mark.parametrize("operation", CALLS)
def test_a_compressed_answer_is_none(operation: str) -> None:
    """Nobody asked for one, and what it opens to may be of any size."""
    bomb = gzip.compress(b"x" * 64 * MIB)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    error, memory = refused(CALLS[operation][0], lambda: [head, bomb])
    assert error.retryable
    assert operation == "ListShards" or "in the form gzip" in error.message
    assert memory < 8 * MIB


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("length", [b"-1", b"-5", b"-0x5", b"g", b""])
def test_a_chunk_of_no_size_ends_no_reader(operation: str, length: bytes) -> None:
    """What cannot be the size of anything may be requested again."""
    error, _ = refused(CALLS[operation][0], lambda: [OK + CHUNKED + length + b"\r\n{}\r\n0\r\n\r\n"] * 2)
    assert error.retryable


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"503 Service Unavailable"])
@pytest.mark.parametrize("operation", CALLS)
def test_an_answer_that_is_no_text_is_asked_for_again(operation: str, status: bytes) -> None:
    """Bytes that no JSON has, or brackets without end, are half a response and no end of a reader."""
    for body in (b"\xff\xfe", b"[" * 100_000):
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        error, _ = refused(CALLS[operation][0], partial(list, (head, body)))
        assert error.retryable or status.startswith(b"400")


def test_the_largest_answer_of_the_service_is_taken() -> None:
    """Ten mebibytes of data, in the most records that there can be."""
    data, count = "QUJD" * 350, 10_000
    record = (
        f'{{"SequenceNumber":"{"4" * 56}","ApproximateArrivalTimestamp":1.7E9,"Data":"{data}",'
        f'"PartitionKey":"{"k" * 256}","EncryptionType":"KMS"}}'
    )
    body = f'{{"Records":[{",".join([record] * count)}],"MillisBehindLatest":0}}'.encode()
    hostile = Hostile(lambda: [OK + b"Content-Length: %d\r\n\r\n" % len(body), body])
    with serving(hostile) as client:
        batch = client.get_records("s", Shard("shard"), "A", count)
    assert batch.rows.num_rows == count
    assert batch.size > 10 * MIB
