"""An end for every call, however slowly the answer drips.

A socket's timeout counts from one piece of an answer to the next, so a server that sends a byte now and then is never
cut off. Connections made here give an answer so many seconds as a whole.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

import botocore.awsrequest

if TYPE_CHECKING:
    import socket
    from collections.abc import MutableMapping

ANSWER_SECONDS = 30.0  # from the end of the request to the last byte of its answer


class _UntilDeadline(io.RawIOBase):
    """The receiving side of a socket, up to a moment."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + seconds
        self._timeout = float("inf")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long as a whole")
        if left < self._timeout - 1:  # a second too long does no harm, and a page comes in a hundred pieces
            self._sock.settimeout(left)
            self._timeout = left
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_UntilDeadline(sock, ANSWER_SECONDS))


class _HTTPConnection(botocore.awsrequest.AWSHTTPConnection):
    response_class = _Response


class _HTTPSConnection(botocore.awsrequest.AWSHTTPSConnection):
    response_class = _Response


class _HTTPPool(botocore.awsrequest.AWSHTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(botocore.awsrequest.AWSHTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def set_deadlines(client: Any) -> None:
    """Make a botocore client's connections end every answer in time."""
    pools: MutableMapping[str, type] = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001 - botocore has no setting for it
    pools.update(http=_HTTPPool, https=_HTTPSPool)
