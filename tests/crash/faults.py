"""Storage that fails: on this machine's disk with what the kernel says, in S3 with what a server answers."""

from __future__ import annotations

import errno
import http.client
import os
import random
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

DISK_FULL, READ_ONLY, BROKEN = errno.ENOSPC, errno.EROFS, errno.EIO
WORDS = {DISK_FULL: "No space left on device", READ_ONLY: "Read-only file system", BROKEN: "Input/output error"}

_OF_ONE_HOP = {"transfer-encoding", "connection", "expect"}


class FailingDisk:
    """Makes the steps of a commit fail by chance: before they did anything, half way, or after they did it all."""

    def __init__(self, rate: float, seed: int, say: Callable[[str], None]) -> None:
        self._random, self._rate, self._say = random.Random(seed), rate, say
        self._after(os, "fsync", "fsync")
        self._before(Storage, "open", "open")
        self._before(SyncTable, "_write", "commit")
        self._after(SyncTable, "_write", "commit that landed")
        self._before(SyncTable, "_update", "update")
        write = pq.write_table

        def write_half(rows: Any, where: Any, **options: Any) -> None:
            write(rows.slice(0, rows.num_rows // 2), where, **options)
            self._fail("half a file", DISK_FULL)
            if hasattr(where, "seek"):
                where.seek(0)
                where.truncate()
            write(rows, where, **options)

        pq.write_table = write_half

    def _fail(self, name: str, number: int = 0) -> None:
        if self._random.random() < self._rate:
            number = number or self._random.choice(list(WORDS))
            self._say(f"fault: {name}, {WORDS[number]}")
            raise OSError(number, WORDS[number])

    def _before(self, owner: Any, name: str, words: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fail(words)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    def _after(self, owner: Any, name: str, words: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._fail(words)
            return result

        setattr(owner, name, call)


class _Front(BaseHTTPRequestHandler):
    """Passes a request on, or answers 5xx in its place."""

    protocol_version = "HTTP/1.1"
    owner: FailingServer  # set by a subclass

    def answer(self) -> None:
        body = self._body()
        kind = self.owner.choose()
        if kind == "before":
            self._reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
        status, headers, answer = self.owner.forward(self.command, self.path, body, sent)
        if kind == "after":
            status, headers, answer = 500, {}, b"<Error><Code>InternalError</Code></Error>"
        self._reply(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - names of http.server

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {*_OF_ONE_HOP, "date", "server"}:
                self.send_header(name, value)
        if self.command != "HEAD" and not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # killed meanwhile
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # a table is opened with many requests at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed leave broken connections."""


class FailingServer:
    """A server in front of another one that answers 5xx by chance, before the request got there or after.

    Attributes
    ----------
    rate
        Share of the requests that fail; may be changed at any time.
    delivered
        How often it failed so far, by kind.
    """

    def __init__(self, behind: str, seed: int = 0) -> None:
        self.rate = 0.0
        self.delivered: Counter[str] = Counter()
        self._behind, self._random = urlsplit(behind).netloc, random.Random(seed)
        self._server = _QuietServer(("127.0.0.1", 0), type("Front", (_Front,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def choose(self) -> str:
        """Decide what becomes of the next request; an empty text lets it pass."""
        if self._random.random() >= self.rate:
            return ""
        kind = self._random.choice(["before", "after"])
        self.delivered[kind] += 1
        return kind

    def forward(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the answer of the server behind."""
        connection = http.client.HTTPConnection(self._behind, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    @contextmanager
    def running(self) -> Generator[FailingServer]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, name="failing server", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
