"""A proxy in front of an S3 server: notes the requests, and takes away, stalls or refuses what a test wants."""

from __future__ import annotations

import http.client
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.support.aws import Quiet, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CONDITION = "If-None-Match"
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class S3Proxy:
    """Passes requests on.

    `strips` takes the condition of a PUT away, as stores do that do not know it. `before` is called with the method,
    the path and whether there is a condition; what it returns is the status of a refusal, 0 to pass the request on.
    """

    behind: str
    strips: bool = False
    before: Callable[[str, str, bool], int] = lambda *_: 0
    seen: list[str] = field(default_factory=list)

    @contextmanager
    def open(self) -> Generator[str]:
        proxy = self

        class Handler(Quiet):
            def do_ANY(self) -> None:
                proxy.pass_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_ANY  # noqa: N815 - the library's names

        with serving(Handler) as url:
            yield url

    def pass_on(self, request: Quiet) -> None:
        body = _body(request)
        path = unquote(request.path)
        is_conditional = CONDITION in request.headers
        self.seen.append(f"{request.command} {path}{' if none' if is_conditional else ''}")
        if status := self.before(request.command, path, is_conditional):
            code = {412: "PreconditionFailed", 501: "NotImplemented"}.get(status, "InternalError")
            request.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())
            return
        there = http.client.HTTPConnection(urlsplit(self.behind).netloc, timeout=30)
        dropped = {*_HOP, "expect", *([CONDITION.lower()] if self.strips else [])}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        there.request(request.command, request.path, body, headers)
        answer = there.getresponse()
        content = answer.read()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        request.wfile.write(content)
        there.close()


def _body(request: Quiet) -> bytes:
    """Return the body, which the AWS SDK sends in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.body()
    chunks = []
    while size := int(request.rfile.readline(), 16):
        chunks.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(chunks)
