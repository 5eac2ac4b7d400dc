"""A deadline for every call: for slow responses, for endless ones, and for those whose reader was stopped.

A socket's timeout counts from one piece of a response to the next, so a server that sends a byte now and then is never
cut off; and nothing in HTTP says that a response ends. Connections made here limit the seconds and bytes of a whole
response. While they wait they check now and then whether their thread is to stop
(:mod:`kinesis_nb.core.halt`): then they are closed, and those of other threads go on.
"""

from __future__ import annotations

import errno
import functools
import http.client
import io
import os
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import botocore.awsrequest
import urllib3.exceptions
from urllib3.util.connection import allowed_gai_family
from urllib3.util.wait import wait_for_write

from kinesis_nb.core import halt, interrupt

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from _typeshed import WriteableBuffer

RESPONSE_SECONDS = 30.0  # from the end of the request to the last byte of its response
RECORDS_BYTES = 32 * 2**20  # AWS: 10 MiB of data, which JSON makes 14 MiB; the fields of 10,000 records take 3 more
OTHER_BYTES = 8 * 2**20  # a listing of 10,000 shards has 4 MiB
ERROR_BYTES = 2**20
HEAD_BYTES = 2**18  # http.client alone would take a hundred lines of 64 KiB


class TooLarge(http.client.HTTPException):
    """A response larger than the service ever sends."""


class _Bounded(io.RawIOBase):
    """The receiving side of a socket: until a deadline, up to a limit of bytes, and until its thread is to stop."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._file = sock, sock.makefile("rb", buffering=0)  # which keeps the socket open for us
        self._give_up = time.monotonic() + seconds
        self._before, self._timeout = sock.gettimeout(), float("inf")
        self.left = HEAD_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while True:
            if (timeout := _patience(self._give_up)) < self._timeout:
                self._sock.settimeout(timeout)
                self._timeout = timeout
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                continue
            self.left -= count
            if self.left < 0:
                raise TooLarge("the service never sends a response of that many bytes")
            return count

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):
                self._sock.settimeout(self._before)  # of a proxy's tunnel, in which the call is yet to come
            self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response of at most `most` bytes, without its head."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        most: int = OTHER_BYTES,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self._bounded, self._most = _Bounded(sock, RESPONSE_SECONDS), most
        self.fp = io.BufferedReader(self._bounded)

    def begin(self) -> None:
        super().begin()
        if self.status != http.HTTPStatus.OK:
            self._most = ERROR_BYTES
        self._check(self.length or 0)
        self._bounded.left = self._most

    def _safe_read(self, amt: int) -> bytes:
        self._check(amt)  # of a chunk: memory for all of it is taken before it comes
        return super()._safe_read(amt)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    def _check(self, count: int) -> None:
        if not 0 <= count <= self._most:
            raise TooLarge(f"the service never sends a response of {count:,} bytes")


class _SSLSocket(ssl.SSLSocket):
    """Gives up a handshake when the thread is to stop."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Retry as long as the socket's timeout allows: a handshake continues where it stopped."""
        seconds = self.gettimeout() or RESPONSE_SECONDS
        give_up = time.monotonic() + seconds
        try:
            while True:
                self.settimeout(_patience(give_up))
                with suppress(TimeoutError):
                    super().do_handshake(block)
                    return
        finally:
            self.settimeout(seconds)


class _Connection:
    """What both kinds of connections do in another way than urllib3's."""

    response_class: Any = _Response

    def request(
        self, method: str, url: str, body: object, headers: Mapping[str, object], *args: object, **kwargs: object
    ) -> None:
        """Send a request, and bound its response by the kind of call."""
        super().request(method, url, body, headers, *args, **kwargs)  # type: ignore[misc]
        if str(headers.get("X-Amz-Target")).endswith(".GetRecords"):
            self.response_class = functools.partial(_Response, most=RECORDS_BYTES)

    def _new_conn(self) -> socket.socket:
        """Connect as urllib3 does, but give up when the thread is to stop."""
        connection: Any = self
        try:
            return _connected(connection)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(connection.host, connection, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(connection, f"no connection: {error}") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(connection, f"no connection: {error}") from error


def _connected(connection: Any) -> socket.socket:
    """Return a socket to the first of a host's addresses that takes one."""
    host = connection._dns_host.strip("[]")  # noqa: SLF001 - as urllib3's own connections do
    failed: OSError = OSError(f"{host} has no address")
    sys.audit("http.client.connect", connection, host, connection.port)
    for *kind, _, address in _resolve(host, connection.port, allowed_gai_family(), socket.SOCK_STREAM):
        sock = socket.socket(*kind)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            if connection.source_address:
                sock.bind(connection.source_address)
            _connect(sock, address, connection.timeout or RESPONSE_SECONDS)
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    try:
        raise failed
    finally:
        del failed  # its traceback holds this frame


_resolve = interrupt.apart(socket.getaddrinfo)


def _connect(sock: socket.socket, address: tuple[object, ...], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code in {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)}:
        while not wait_for_write(sock, _patience(give_up)):
            pass
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.settimeout(seconds)


def _patience(give_up: float) -> float:
    """Return for how long to wait before the next check; raise at the time `give_up`, or when the thread is to stop."""
    left = give_up - time.monotonic()
    if left <= 0:
        raise TimeoutError("the request took too long")
    if halt.current().is_set():
        raise TimeoutError("the reader was stopped")
    return min(left, halt.POLL_SECONDS)


class _HTTPConnection(_Connection, botocore.awsrequest.AWSHTTPConnection):
    pass


class _HTTPSConnection(_Connection, botocore.awsrequest.AWSHTTPSConnection):
    def connect(self) -> None:
        """Connect, with a handshake that can be given up."""
        if isinstance(self.ssl_context, ssl.SSLContext):
            self.ssl_context.sslsocket_class = _SSLSocket
        super().connect()


class _HTTPPool(botocore.awsrequest.AWSHTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(botocore.awsrequest.AWSHTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def set_deadlines(client: Any) -> None:
    """Make a botocore client's connections end every response in time, in size, and when its reader is stopped."""
    pools: MutableMapping[str, type] = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001 - botocore has no setting for it
    pools.update(http=_HTTPPool, https=_HTTPSPool)


def why_too_large(error: BaseException) -> TooLarge | None:
    """Return what an error of botocore or urllib3 comes from, if a response was too large."""
    led: BaseException | None = error
    while led is not None and not isinstance(led, TooLarge):
        led = led.__cause__ or led.__context__
    return led
