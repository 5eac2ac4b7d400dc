"""A Kinesis of canned answers, faster than any client: `python benchmarks/replay.py --shards 4 --pages 20`.

Every shard holds the same few pages again and again, prebuilt as bytes, so that a benchmark measures the client. It
knows what a reader calls (ListShards, GetShardIterator, GetRecords, DescribeStream, DescribeStreamSummary) and takes
any PutRecords. The first line it prints is its endpoint; it ends when its standard input does.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

STREAM, WARM = "replay", "warm"
WARM_RECORDS = 1_000
DISTINCT_PAGES = 32  # per server, then they come again; more would only cost memory
FIRST_NUMBER = 49590338271490256608559692538361571095921575989136588898  # a sequence number has 56 digits
ALL_KEYS = 2**128


class Replay:
    """Two streams of prebuilt answers: the one to measure, and a small one to warm up with.

    Parameters
    ----------
    shards, pages
        How many shards, and how many full pages each holds before it answers that nothing is left.
    records, size
        Records of a page, and bytes of each.
    every
        Seconds from the first call until the second page is there, and so on; 0 for all at once.
    """

    def __init__(self, shards: int, pages: int, records: int, size: int, every: float = 0.0) -> None:
        self._streams = {
            STREAM: _Stream(
                STREAM, shards, [_records(n, records, size) for n in range(min(pages, DISTINCT_PAGES))], pages, every
            ),
            WARM: _Stream(WARM, 1, [_records(0, WARM_RECORDS, size)], 1, 0.0),
        }
        self._names = _body(StreamNames=[*self._streams], HasMoreStreams=False)

    def answer(self, operation: str, body: bytes) -> list[bytes]:
        """Return the pieces of an answer."""
        match operation:
            case "PutRecords":
                return [_put(body)]
            case "ListStreams":
                return [self._names]
            case "GetRecords":
                params = json.loads(body)
                return self._streams[params["ShardIterator"].partition("/")[0]].get_records(params["ShardIterator"])
            case _:
                params = json.loads(body)
                return self._streams[params["StreamName"]].answer(operation, params)


class _Stream:
    def __init__(self, name: str, shards: int, bodies: list[bytes], pages: int, every: float) -> None:
        self._name, self._bodies, self._pages, self._every = name, bodies, pages, every
        self._began: float | None = None
        listing = [_shard(number, shards) for number in range(shards)]
        summary = _summary(name)
        self._answers = {
            "ListShards": _body(Shards=listing),
            "DescribeStream": _body(StreamDescription={**summary, "Shards": listing, "HasMoreShards": False}),
            "DescribeStreamSummary": _body(
                StreamDescriptionSummary={**summary, "OpenShardCount": shards, "ConsumerCount": 0}
            ),
        }

    def answer(self, operation: str, params: dict[str, Any]) -> list[bytes]:
        if operation == "GetShardIterator":
            return [_body(ShardIterator=self._iterator(params["ShardId"], 0))]
        return [self._answers[operation]]

    def get_records(self, iterator: str) -> list[bytes]:
        shard_id, page, _ = iterator.rpartition("/")[2].split(":")
        number = int(page)
        self._began = self._began or time.monotonic()
        if number >= self._pages or time.monotonic() < self._began + number * self._every:
            return [b'{"Records":[],"NextShardIterator":"', iterator.encode(), b'","MillisBehindLatest":0}']
        left = 1_000 * (self._pages - number - 1)
        next_iterator = self._iterator(shard_id, number + 1)
        return [
            self._bodies[number % len(self._bodies)],
            f',"NextShardIterator":"{next_iterator}","MillisBehindLatest":{left}}}'.encode(),
        ]

    def _iterator(self, shard_id: str, page: int) -> str:
        return f"{self._name}/{shard_id}:{page}:".ljust(224, "A")  # as long as a real one


def _records(page: int, count: int, size: int) -> bytes:
    """Return the beginning of an answer, without what changes from call to call."""
    rng = random.Random(page)
    now = time.time() - 3_600
    records = []
    for number in range(page * count, (page + 1) * count):
        text = json.dumps({"id": number, "name": "John Doe", "value": rng.random(), "pad": ""})
        data = text[:-2] + "x" * max(0, size - len(text)) + text[-2:]
        records.append(
            {
                "SequenceNumber": str(FIRST_NUMBER + 16 * number),
                "ApproximateArrivalTimestamp": round(now + number / 10_000, 3),
                "Data": base64.b64encode(data.encode()).decode(),
                "PartitionKey": f"key-{number % 100}",
            }
        )
    return json.dumps({"Records": records}, separators=(",", ":")).encode()[:-1]


def _body(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def _shard(number: int, of: int) -> dict[str, Any]:
    low, high = list(pairwise(ALL_KEYS * n // of for n in range(of + 1)))[number]
    return {
        "ShardId": f"shardId-{number:012d}",
        "HashKeyRange": {"StartingHashKey": str(low), "EndingHashKey": str(high - 1)},
        "SequenceNumberRange": {"StartingSequenceNumber": str(FIRST_NUMBER)},
    }


def _summary(name: str) -> dict[str, Any]:
    return {
        "StreamName": name,
        "StreamARN": f"arn:aws:kinesis:us-east-1:123456789012:stream/{name}",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": time.time() - 86_400,
        "EnhancedMonitoring": [],
        "EncryptionType": "NONE",
    }


def _put(body: bytes) -> bytes:
    count = body.count(b'"PartitionKey"')
    record = f'{{"SequenceNumber":"{FIRST_NUMBER}","ShardId":"shardId-000000000000"}}'
    return f'{{"FailedRecordCount":0,"Records":[{",".join([record] * count)}]}}'.encode()


def serve(replay: Replay) -> None:
    """Answer on a free port of loopback until standard input ends; one thread per connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    threading.Thread(target=_accept, args=(listener, replay), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, replay: Replay) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=(connection, replay), daemon=True).start()


def _serve(connection: socket.socket, replay: Replay) -> None:
    with suppress(ConnectionError):  # a client that was ended says no goodbye
        _talk(connection, replay)


def _talk(connection: socket.socket, replay: Replay) -> None:
    buffer = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in buffer:
                if not (more := connection.recv(1 << 18)):
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
            length = int(headers[b"content-length"])
            pieces = [buffer]
            got = len(buffer)
            while got < length:
                pieces.append(connection.recv(1 << 20))
                got += len(pieces[-1])
            buffer = b"".join(pieces)
            body, buffer = buffer[:length], buffer[length:]
            operation = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-amz-target"))
            answer = replay.answer(operation.rpartition(b".")[2].strip().decode(), body)
            size = sum(map(len, answer))
            start = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {size}\r\n\r\n"
            connection.sendmsg([start.encode()])
            for piece in answer:
                connection.sendall(piece)


@contextmanager
def running(shards: int, pages: int, records: int = 10_000, size: int = 200, every: float = 0.0) -> Generator[str]:
    """Run a server in a process of its own and give its endpoint."""
    numbers = {"--shards": shards, "--pages": pages, "--records": records, "--size": size, "--every": every}
    command = [sys.executable, str(Path(__file__)), *(str(part) for pair in numbers.items() for part in pair)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        assert server.stdin is not None
        server.stdin.close()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--pages", type=int, default=20, help="full pages per shard")
    parser.add_argument("--records", type=int, default=10_000, help="per page")
    parser.add_argument("--size", type=int, default=200, help="bytes of data per record")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between pages; 0 has all there at once")
    options = parser.parse_args()
    serve(Replay(options.shards, options.pages, options.records, options.size, options.every))


if __name__ == "__main__":
    main()
