"""Small servers on loopback: STS in virtual time, instance metadata, a Kinesis behind a policy, proxies."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs

from kinesis_nb.core.transport import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kinesis_nb.core.transport import Clock

ACCOUNT = "123456789012"
_TARGET = re.compile(r"Kinesis_20131202\.(\w+)")


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # 64 threads may knock at once
    daemon_threads = True


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    """Run a handler on a free port of 127.0.0.1 and yield its address."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="tests server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(BaseHTTPRequestHandler):
    """Keeps connections open and logs nothing."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


def refusal(code: str, message: str) -> bytes:
    return json.dumps({"__type": code, "message": message}).encode()


@dataclass
class Gate:
    """A Kinesis behind a policy: what is not allowed is refused as AWS refuses it, the rest is passed on.

    `takes_token` decides by the session token of a request whether its credentials still hold.
    """

    behind: str
    allowed: set[str]
    takes_token: Callable[[str | None], bool] = lambda _: True
    asked: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    expired: int = 0

    @contextmanager
    def open(self) -> Generator[str]:
        gate = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                body = self.body()
                target = _TARGET.fullmatch(self.headers["X-Amz-Target"])
                assert target
                status, answer = gate.pass_on(target[1], self.headers.get("X-Amz-Security-Token"), body, self.headers)
                self.answer(status, answer, Content_Type="application/x-amz-json-1.1")

        with serving(Handler) as url:
            yield url

    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        self.asked[action] += 1
        if not self.takes_token(token):
            self.expired += 1
            return 400, refusal("ExpiredTokenException", "The security token included in the request is expired")
        if action not in self.allowed:
            self.refused[action] += 1
            stream = json.loads(body).get("StreamName", "orders")
            where = "" if action == "ListStreams" else f":stream/{stream}"
            resource = f"arn:aws:kinesis:us-east-1:{ACCOUNT}{where}" if where else "*"
            return 400, refusal(
                "AccessDeniedException",
                f"User: arn:aws:iam::{ACCOUNT}:user/ada is not authorized to perform: kinesis:{action} on resource: "
                f"{resource} because no identity-based policy allows the kinesis:{action} action",
            )
        return forward(self.behind, body, headers)


def forward(url: str, body: bytes, headers: object) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {k: v for k, v in headers.items() if k.lower() != "host"})  # type: ignore[attr-defined]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@dataclass
class Sts:
    """STS in the time of a clock: counts its calls, and knows until when each token holds."""

    clock: Clock = field(default_factory=SystemClock)
    account: str = ACCOUNT  # of whoever asks
    requests: list[dict[str, str]] = field(default_factory=list)
    expires: dict[str, datetime] = field(default_factory=dict)
    refuse: str = ""
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def holds(self, token: str | None) -> bool:
        return token in self.expires and self.clock.now() < self.expires[token]

    @contextmanager
    def open(self) -> Generator[str]:
        sts = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                self.answer(*sts.give(self.body().decode()), Content_Type="text/xml")

        with serving(Handler) as url:
            yield url

    def give(self, body: str) -> tuple[int, bytes]:
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        if asked["Action"] == "GetCallerIdentity":
            caller = f"<Arn>arn:aws:iam::{self.account}:user/ada</Arn>"
            return 200, f"<R><GetCallerIdentityResult>{caller}</GetCallerIdentityResult></R>".encode()
        with self._lock:
            self.requests.append(asked)
            number = len(self.requests)
            if self.refuse:
                error = f"<Error><Type>Sender</Type><Code>{self.refuse}</Code><Message>no</Message></Error>"
                return 400, f"<ErrorResponse>{error}</ErrorResponse>".encode()
            token = f"token-{number}"
            self.expires[token] = expires = self.clock.now() + timedelta(seconds=int(asked["DurationSeconds"]))
        return 200, (
            "<AssumeRoleResponse><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId>"
            f"<Arn>arn:aws:sts::{ACCOUNT}:assumed-role/reader/me</Arn></AssumedRoleUser><Credentials>"
            f"<AccessKeyId>ASIA{number:016}</AccessKeyId><SecretAccessKey>secret-{number}</SecretAccessKey>"
            f"<SessionToken>{token}</SessionToken><Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        ).encode()


@dataclass
class Metadata:
    """The metadata services of an instance (IMDSv2, or v1 alone) and of a container."""

    expires: datetime
    has_v2: bool = True
    asked: list[str] = field(default_factory=list)
    role: str = "instance-role"

    @contextmanager
    def open(self) -> Generator[str]:
        stub = self

        class Handler(Quiet):
            def do_PUT(self) -> None:
                stub.asked.append(f"PUT {self.path}")
                self.answer(*((200, b"v2-token") if stub.has_v2 else (403, b"")))

            def do_GET(self) -> None:
                stub.asked.append(f"GET {self.path}")
                self.answer(*stub.get(self.path, self.headers.get("x-aws-ec2-metadata-token")))

        with serving(Handler) as url:
            yield url

    def get(self, path: str, token: str | None) -> tuple[int, bytes]:
        if path == "/container":
            return 200, self._keys("container")
        if self.has_v2 and token != "v2-token":
            return 401, b""
        if path.endswith("security-credentials/"):
            return 200, self.role.encode()
        return 200, self._keys("instance")

    def _keys(self, kind: str) -> bytes:
        keys = {"AccessKeyId": f"ASIA-{kind}", "SecretAccessKey": "s", "Token": f"token-{kind}"}
        return json.dumps({**keys, "Expiration": f"{self.expires:%Y-%m-%dT%H:%M:%SZ}", "Code": "Success"}).encode()
