"""The embedded Kinesis in a process of its own, and a client of it that is no SDK and costs next to nothing."""

from __future__ import annotations

import faulthandler
import http.client
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import kinesis_nb as kn

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=emulator/20260101/us-east-1/kinesis/aws4_request, Signature=0"
NO_QUOTAS = "False"
AWS_QUOTAS = "True"
AWS_READ_QUOTAS = "Quotas(write_records_per_second=None, write_bytes_per_second=None)"  # so that filling takes no time


LIMIT_SECONDS = 300  # a benchmark that takes longer is ended, and shows where it hangs

_SERVE = """
import os, sys, threading
from kinesis_nb.emulator import Quotas, serve
threading.Thread(target=lambda: sys.stdin.read() or os._exit(0), daemon=True).start()  # end with the benchmark
serve(0, streams={streams!r}, quotas={quotas})
"""


@contextmanager
def running(streams: Mapping[str, int], quotas: str = NO_QUOTAS) -> Generator[int]:
    """Serve streams (name -> number of shards) until the block ends; give the port."""
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    command = [sys.executable, "-c", _SERVE.format(streams=dict(streams), quotas=quotas)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        welcome = process.stdout.readline()
        try:
            yield int(welcome.split("127.0.0.1:")[1].split()[0])
        finally:
            process.terminate()
            faulthandler.cancel_dump_traceback_later()


def connect(port: int, *, exports_enabled: bool = False) -> kn.Source:
    """Return the source that the engine reads, or writes to."""
    auth = kn.StaticCredentials("emulator", "emulator")
    return kn.connect(auth=auth, endpoint_url=f"http://127.0.0.1:{port}", exports_enabled=exports_enabled)


class RawClient:
    """AWS JSON 1.1 without an SDK."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(self, operation: str, body: bytes) -> bytes:
        """Send a prebuilt body and return the reply's."""
        headers = {
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": AUTHORIZATION,
        }
        self._connection.request("POST", "/", body, headers)
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.status != 200:
            raise RuntimeError(data.decode())
        return data

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """Send and decode: for what is not measured."""
        result: dict[str, Any] = json.loads(self.post(operation, json.dumps(params).encode()) or b"{}")
        return result
