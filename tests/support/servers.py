"""Real servers for tests, each on a free port of 127.0.0.1 for as long as a ``with`` block lasts.

>>> with kinesalite() as url:                                   # doctest: +SKIP
...     client = boto3.client("kinesis", endpoint_url=url)

Every server is a process of its own, in a process group of its own that is killed at the end. Should the test run die
before that, the server sees its stdin close and ends by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
NODE_FOLDER = ROOT / ".node"
KINESIS_MOCK = NODE_FOLDER / "node_modules" / "kinesis-local"
LOOPBACK_PATCH = Path(__file__).with_name("loopback.cjs")
START_TIMEOUT = 60.0  # seconds; kinesis-mock takes about one on an idle machine
STATE_CHANGE_MS = 50  # CREATING, UPDATING, DELETING: long enough to be seen, short enough to wait for
SHARD_LIMIT = 1000

_MOCK_TRANSITIONS = [
    "CREATE_STREAM",
    "DELETE_STREAM",
    "SPLIT_SHARD",
    "MERGE_SHARDS",
    "UPDATE_SHARD_COUNT",
    "UPDATE_STREAM_MODE",
    "REGISTER_STREAM_CONSUMER",
    "DEREGISTER_STREAM_CONSUMER",
    "START_STREAM_ENCRYPTION",
    "STOP_STREAM_ENCRYPTION",
]

_RUN_MOTO = """\
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
sys.stdin.read()
server.stop()
"""


class ServerNotStarted(RuntimeError):
    """A server could not be started; the text says what is missing or ends with what the server logged."""


@contextmanager
def kinesis_mock(*, ssl: bool = False) -> Generator[str]:
    """Run kinesis-mock (npm ``kinesis-local``) and yield its endpoint URL; with `ssl` behind its own certificate."""
    port, tls_port = free_port(), free_port()
    settings = {f"{transition}_DURATION": f"{STATE_CHANGE_MS}ms" for transition in _MOCK_TRANSITIONS}
    settings |= {
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(tls_port),
        "KINESIS_MOCK_CERT_PATH": str(KINESIS_MOCK / "server.json"),
        "SHARD_LIMIT": str(SHARD_LIMIT),
        "ON_DEMAND_STREAM_COUNT_LIMIT": str(SHARD_LIMIT),
    }
    command = [*_node(), str(_npm_package("kinesis-local") / "main.js")]
    with _process("kinesis-mock", command, tls_port if ssl else port, settings) as url:
        yield url.replace("http:", "https:") if ssl else url


@contextmanager
def kinesalite(*, ssl: bool = False) -> Generator[str]:
    """Run kinesalite (npm) in memory and yield its endpoint URL; with `ssl` behind a certificate it signed itself."""
    package = _npm_package("kinesalite")
    port = free_port()
    command = [*_node(), str(package / "cli.js"), "--port", str(port), "--shardLimit", str(SHARD_LIMIT)]
    for transition in ("create", "delete", "update"):
        command += [f"--{transition}StreamMs", str(STATE_CHANGE_MS)]
    with _process("kinesalite", [*command, *(["--ssl"] if ssl else [])], port) as url:
        yield url.replace("http:", "https:") if ssl else url


@contextmanager
def moto() -> Generator[str]:
    """Run moto's threaded server and yield its endpoint URL; it serves S3, STS and the rest at the same address."""
    port = free_port()
    # A process of its own keeps its threads, its global backends and its warnings out of the test run.
    with _process("moto", [sys.executable, "-c", _RUN_MOTO, str(port)], port) as url:
        yield url


@contextmanager
def ministack(*, auth: bool = True) -> Generator[str]:
    """Run ministack and yield its endpoint URL; the root user's keys are ``root`` and ``root``.

    With `auth` it checks signatures, tokens and policies, and its IAM, STS, Kinesis, S3 refuse what AWS would refuse.
    """
    program = ROOT / ".ministack" / "bin" / "ministack"
    if not program.exists():
        msg = f"there is no {program}; hint: run scripts/setup_ministack.sh"
        raise ServerNotStarted(msg)
    port = free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "AUTH": str(auth).lower(),
        "AWS_ACCESS_KEY_ID": "root",
        "AWS_SECRET_ACCESS_KEY": "root",
    }
    with _process("ministack", [str(program)], port, settings) as url:
        yield url


def bucket(url: str) -> tuple[str, dict[str, str]]:
    """Make a bucket on an S3 server; return its address, and what `storage_options=` needs to reach it."""
    name, keys = f"bucket-{uuid.uuid4().hex}", ("tester", "not-a-secret")
    session = boto3.Session(*keys, region_name="us-east-1")
    client = session.client("s3", endpoint_url=url)
    client.create_bucket(Bucket=name)
    client.close()
    options = {"endpoint_url": url, "region": "us-east-1", "allow_http": "true"}
    options |= {"access_key_id": keys[0], "secret_access_key": keys[1]}
    return f"s3://{name}", options


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _node() -> list[str]:
    node = NODE_FOLDER / "node"
    if not node.exists():
        msg = f"there is no {node}; hint: run {sys.executable} scripts/setup_node.py"
        raise ServerNotStarted(msg)
    return [str(node), "--require", str(LOOPBACK_PATCH)]


def _npm_package(name: str) -> Path:
    package = NODE_FOLDER / "node_modules" / name
    if not (package / "package.json").exists():
        msg = f"the npm package {name} is not in {NODE_FOLDER}; hint: run {sys.executable} scripts/setup_node.py"
        raise ServerNotStarted(msg)
    return package


@contextmanager
def _process(name: str, command: Sequence[str], port: int, settings: Mapping[str, str] | None = None) -> Generator[str]:
    """Run ``command`` until the block ends; it must listen on ``port``."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        log = Path(folder, "server.log")
        process = _spawn(command, folder, log, settings or {})
        try:
            _wait_until_listening(name, process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _kill_group(process)


def _spawn(command: Sequence[str], folder: str, log: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # The developer's AWS settings must not reach a server: some of them change account and region.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "HOME": folder, **settings},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_listening(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            msg = f"{name} did not listen within {START_TIMEOUT:.0f} s; its log ends:\n{_tail(log)}"
            raise ServerNotStarted(msg)
        time.sleep(0.02)
    msg = f"{name} ended with exit code {process.returncode}; its log ends:\n{_tail(log)}"
    raise ServerNotStarted(msg)


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:] or "(nothing)"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    # Nothing in these servers is worth saving, and kinesis-mock lingers on SIGTERM while clients are connected.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
