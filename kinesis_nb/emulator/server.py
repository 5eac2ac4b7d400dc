"""AWS JSON 1.1 over loopback HTTP: requests in, the model's answers out, faults in between."""

from __future__ import annotations

import base64
import logging
import os
import re
import socket
import socketserver
import struct
import threading
import uuid
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from time import gmtime, strftime, time
from typing import TYPE_CHECKING, Any, NoReturn, cast
from zlib import crc32

from . import faults
from .errors import AwsError
from .eventstream import EVENT_STREAM, subscription_frames
from .protocol import HTML, JSON, Reply, Request, check_caller, ok, parse_request, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import Model
    from .protocol import EventSource, Params

MAX_BODY = 32 * 2**20  # twice what a full PutRecords request (10 MiB, base64) takes
CLOSE_SECONDS = 5.0  # how long stop() waits for a request that is being carried out
MAX_ENTRIES = 500  # AWS: records in one PutRecords request

_JOIN_BELOW = 64 * 2**10  # smaller bodies travel in one segment with their headers
_DRIPS_PER_SECOND = 20
_CHUNKED = "Transfer-Encoding: chunked"
_LAST_CHUNK = b"0\r\n\r\n"
_GAP = re.compile(r"gap(\d+)\.(.+)")  # an iterator that still owes so many empty answers
_SKEW_MINUTES = 5  # AWS: how far a request's date stamp may be off
_ABORT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # SO_LINGER on, for 0 s: close() sends a RST
_PAGE = b"<html><body><h1>Proxy error</h1></body></html>\n"
_log = logging.getLogger(__name__)
_DataFault = faults.PartialFailure | faults.Gap  # the answer arrives as it should, and has less in it


class KinesisServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread per connection, all of them known, so that none outlives `close()`."""

    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        model: Model,
        plan: faults.FaultPlan,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(address, Handler)
        self.model, self.allowed_hosts = model, allowed_hosts
        self.plan = plan
        self.stopping = threading.Event()
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards requests and _connections; never held during I/O
        self._connections: dict[socket.socket, threading.Thread] = {}

    def count(self, operation: str) -> None:
        """Note one request."""
        with self._lock:
            self.requests[operation] += 1

    def snapshot(self) -> Counter[str]:
        """How many requests each operation has had."""
        with self._lock:
            return self.requests.copy()

    def process_request(self, request: Any, client_address: tuple[str, int]) -> None:
        """Serve a connection in a thread of its own."""
        name = f"kinesis_nb emulator {client_address[1]}"
        thread = threading.Thread(target=self._serve, args=(request, client_address), name=name, daemon=True)
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def _serve(self, connection: socket.socket, client_address: tuple[str, int]) -> None:
        try:
            self.process_request_thread(connection, client_address)
        finally:
            with self._lock:
                del self._connections[connection]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's signature
        """Say nothing: a client that hangs up is no error of ours, and `Handler` answers for the rest."""
        _log.debug("connection from %s ended", client_address, exc_info=True)

    def close(self) -> None:
        """Stop accepting, wake everything that waits, end every connection."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = dict(self._connections)
        for connection, thread in connections.items():
            _hang_up(connection)
            thread.join(CLOSE_SECONDS)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads from it or writes to it


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _service(self) -> KinesisServer:
        return cast("KinesisServer", self.server)

    def do_POST(self) -> None:
        """Read one request, decide its fate, answer."""
        body = self._read_body()
        if body is None:
            return
        try:
            check_caller(self.headers, self._service.allowed_hosts)
            request = parse_request(self.headers, body)
        except AwsError as error:
            self._send(refused(error))
            return
        self._service.count(request.operation)
        self._deliver(request, self._service.plan.take(request.operation))

    def do_GET(self) -> None:
        """Refuse what is not a POST, as the service does."""
        text = "Unable to determine service/operation name to be authorized"
        self._send(refused(AwsError("AccessDeniedException", text, 403)))

    do_OPTIONS = do_GET  # what a page of the web asks before it sends; no CORS header answers it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Log quietly: the emulator runs inside other people's notebooks and tests."""
        _log.debug(format, *args)

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= MAX_BODY:
            body = self.rfile.read(int(length))
            return body if len(body) == int(length) else None
        self.close_connection = True  # what follows on this connection cannot be told apart from the body
        status = 413 if length.isdecimal() else 411
        self._send(refused(AwsError("SerializationException", f"Content-Length 0..{MAX_BODY} required", status)))
        return None

    # -- what happens to a request ------------------------------------------------------------------------------

    def _deliver(self, request: Request, fault: faults.Fault | None) -> None:
        if fault is None:
            self._send(self._perform(request))
        elif isinstance(fault, _DataFault):
            self._send(self._perform(request, fault))
        else:
            self._service.plan.count(fault)  # before the client can see it, so that a test may ask at once
            self._harm(request, fault)

    def _harm(self, request: Request, fault: faults.Fault) -> None:
        match fault:
            case faults.ErrorReply():
                self._send(self._error(request, fault))
            case faults.EmptyReply(applied):
                self._send(self._instead(request, Reply(body=b"{}"), applied=applied))
            case faults.Html(status, applied):
                self._send(self._instead(request, Reply(status, _PAGE, HTML), applied=applied))
            case faults.ClockSkew():
                self._send(self._skewed(request, fault))
            case faults.Reset(before):
                self._instead(request, Reply(), applied=not before)
                self._reset()
            case faults.Stall(seconds, applied):
                self._stall(request, seconds, applied=applied)
            case faults.SlowDrip(rate):
                self._send(self._perform(request), lambda data: self._drip(data, rate))
            case faults.CutBody():
                self._cut(self._perform(request), fault)
            case _:
                raise TypeError(f"unknown fault {fault!r}")

    def _perform(self, request: Request, fault: _DataFault | None = None) -> Reply:
        try:
            reply = self._carry_out(request, request.params(), fault)
        except AwsError as error:
            return refused(error)
        except Exception as error:  # noqa: BLE001 - a defect of the emulator must not look like a broken network
            _log.exception("the emulator failed")
            return refused(AwsError("InternalFailure", f"defect in the emulator: {error!r}", 500))
        if fault is not None:
            self._service.plan.count(fault)  # only now: a request that is refused has not met it
        return reply

    def _carry_out(self, request: Request, params: Params, fault: _DataFault | None) -> Reply:
        if request.operation == "SubscribeToShard":
            subscription = self._service.model.subscribe(params, region=request.region)
            return Reply(content_type=EVENT_STREAM, subscription=subscription)
        match fault:
            case faults.PartialFailure():
                return ok(self._fail_some(request, params, fault))
            case faults.Gap(calls):
                return ok(self._silence(request, params, calls))
            case None:
                return ok(self._call(request, params))

    def _call(self, request: Request, params: Params) -> dict[str, Any]:
        gap = _GAP.fullmatch(params.get("ShardIterator", ""))
        if gap is not None:
            params = {**params, "ShardIterator": gap[2]}
            if gap[1] != "0":
                return self._silence(request, params, int(gap[1]))
        return self._service.model.call(request.operation, params, region=request.region)

    def _silence(self, request: Request, params: Params, calls: int) -> dict[str, object]:
        """Answer GetRecords with nothing; the new iterator carries how often that still happens."""
        result = self._call(request, params)  # checks the iterator, and does not consume it
        behind = max(1000, result.get("MillisBehindLatest", 0))
        iterator = f"gap{calls - 1}.{params['ShardIterator']}"
        return {"Records": [], "NextShardIterator": iterator, "MillisBehindLatest": behind}

    def _fail_some(self, request: Request, params: Params, fault: faults.PartialFailure) -> dict[str, object]:
        entries: list[Params] = params.get("Records", [])
        if not 0 < len(entries) <= MAX_ENTRIES:
            return self._call(request, params)  # the model says what is wrong with it
        failing = self._service.plan.sample(len(entries), fault.count(len(entries)))
        kept = [entry for position, entry in enumerate(entries) if position not in failing]
        result = self._store(request, params, kept)
        stored = iter(result["Records"])
        outcome = [_failed(fault) if position in failing else next(stored) for position in range(len(entries))]
        return {**result, "FailedRecordCount": sum("ErrorCode" in one for one in outcome), "Records": outcome}

    def _store(self, request: Request, params: Params, kept: list[Params]) -> dict[str, Any]:
        if kept:
            return self._call(request, {**params, "Records": kept})
        stream = {name: value for name, value in params.items() if name in {"StreamName", "StreamARN"}}
        summary = self._service.model.call("DescribeStreamSummary", stream, region=request.region)  # may be unknown
        return {"Records": [], "EncryptionType": summary["StreamDescriptionSummary"].get("EncryptionType", "NONE")}

    def _instead(self, request: Request, reply: Reply, *, applied: bool) -> Reply:
        if applied:
            _discard(self._perform(request))
        return reply

    def _error(self, request: Request, fault: faults.ErrorReply) -> Reply:
        error = AwsError(fault.code, fault.message, fault.status)
        if not fault.applied:
            return refused(error)
        done = self._perform(request)
        _discard(done)
        return replace(done, subscription=_Broken(error)) if done.subscription is not None else refused(error)

    def _skewed(self, request: Request, fault: faults.ClockSkew) -> Reply:
        if fault.code is None:
            reply = self._perform(request)
        else:
            usual = faults.ErrorReply(fault.code)
            message = _skew_message(request.signed_at, fault.seconds)
            text = message if fault.code == "InvalidSignatureException" else usual.message
            reply = refused(AwsError(fault.code, text, usual.status))
        return replace(reply, skew=fault.seconds)

    # -- what goes over the wire --------------------------------------------------------------------------------

    def _send(self, reply: Reply, write: Callable[[bytes], object] | None = None) -> None:
        if reply.subscription is not None:
            self._stream(reply, reply.subscription, write or self.wfile.write)
            return
        head = self._head(reply, f"Content-Length: {len(reply.body)}")
        if write is None and len(reply.body) < _JOIN_BELOW:
            self.wfile.write(head + reply.body)
        else:
            self.wfile.write(head)
            (write or self.wfile.write)(reply.body)

    def _stream(self, reply: Reply, source: EventSource, write: Callable[[bytes], object]) -> None:
        self.wfile.write(self._head(reply, _CHUNKED))
        with closing(subscription_frames(source, self._pause)) as frames:
            for frame in frames:
                write(_chunk(frame))
        self.wfile.write(_LAST_CHUNK)

    def _cut(self, reply: Reply, fault: faults.CutBody) -> None:
        if reply.subscription is not None:
            self._cut_stream(reply, reply.subscription, fault)
            return
        body = reply.body or b"{}"  # an empty body has nothing to lose
        kept = body[: fault.keep(len(body))]
        framing = _CHUNKED if fault.chunked else f"Content-Length: {len(kept if fault.short else body)}"
        self.wfile.write(self._head(reply, framing) + (_chunk(kept) if fault.chunked else kept))
        self.close_connection = self.close_connection or fault.chunked or not fault.short

    def _cut_stream(self, reply: Reply, source: EventSource, fault: faults.CutBody) -> None:
        """Break off inside the first event; with `short` the chunks end as they should."""
        with closing(subscription_frames(source, self._pause)) as frames:
            self.wfile.write(self._head(reply, _CHUNKED) + _chunk(next(frames)))
            first = next(frames, b"")
        kept = first[: fault.keep(len(first))]
        self.wfile.write((_chunk(kept) if kept else b"") + (_LAST_CHUNK if fault.short else b""))
        self.close_connection = True

    def _head(self, reply: Reply, framing: str) -> bytes:
        lines = [
            f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}",
            framing,
            f"Content-Type: {reply.content_type}",
            f"Date: {formatdate(time() + reply.skew, usegmt=True)}",
        ]
        closing_line = ["Connection: close"] if self.close_connection else []
        return "\r\n".join([*lines, *_aws_headers(reply), *closing_line, "", ""]).encode("latin-1", "replace")

    def _stall(self, request: Request, seconds: float, *, applied: bool) -> None:
        early = self._perform(request) if applied else None
        if self._pause(seconds):
            self._send(early or self._perform(request))
        else:
            self.close_connection = True

    def _drip(self, data: bytes, rate: float) -> None:
        step = max(1, int(rate / _DRIPS_PER_SECOND))
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            if not self._pause(step / rate):
                raise ConnectionAbortedError("nobody reads any more")

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        socket.socket(fileno=self.connection.detach()).close()  # at once: the usual way sends a FIN first
        self.close_connection = True

    def _pause(self, seconds: float) -> bool:
        """Wait that long; return False as soon as the client hangs up or the emulator stops."""
        self.connection.settimeout(max(seconds, 0.001))  # 0 would mean: do not block
        try:
            if not self.connection.recv(1, socket.MSG_PEEK):
                return False
        except TimeoutError:
            return True
        finally:
            self.connection.settimeout(None)
        return not self._service.stopping.wait(seconds)  # the client has sent its next request already


class _Broken:
    """A subscription that ends with an error."""

    closed = False

    def __init__(self, error: AwsError) -> None:
        self._error = error

    def poll(self) -> NoReturn:
        raise self._error

    def close(self) -> None:
        pass


def _discard(reply: Reply) -> None:
    if reply.subscription is not None:
        reply.subscription.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _aws_headers(reply: Reply) -> list[str]:
    if reply.content_type == HTML:  # a proxy's page knows nothing of AWS
        return []
    lines = [f"x-amzn-RequestId: {uuid.uuid4()}", f"x-amz-id-2: {base64.b64encode(os.urandom(72)).decode()}"]
    lines += [f"x-amz-crc32: {crc32(reply.body)}"] if reply.content_type == JSON else []
    return lines + ([f"x-amzn-ErrorType: {reply.code}"] if reply.code else [])


def _failed(fault: faults.PartialFailure) -> dict[str, str]:
    return {"ErrorCode": fault.code, "ErrorMessage": faults.ErrorReply(fault.code).message}


def _skew_message(signed_at: str, seconds: float) -> str:
    """Return AWS's words; clients find the two times in them."""
    now = time() + seconds
    limit = _stamp(now - 60 * _SKEW_MINUTES if seconds > 0 else now + 60 * _SKEW_MINUTES)
    if seconds > 0:
        return f"Signature expired: {signed_at} is now earlier than {limit} ({_stamp(now)} - {_SKEW_MINUTES} min.)"
    return f"Signature not yet current: {signed_at} is still later than {limit} ({_stamp(now)} + {_SKEW_MINUTES} min.)"


def _stamp(seconds: float) -> str:
    return strftime("%Y%m%dT%H%M%SZ", gmtime(seconds))
