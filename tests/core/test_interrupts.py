"""Ctrl-C ends every call that waits, within a second: in a script, a shell and a kernel, as their first call too."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.emulator import Stall
from tests.reading.test_reader_rules import until
from tests.support.interrupted import CALLS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sized

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

ROOT = Path(__file__).parent.parent.parent
BOUND = 3.0  # seconds from the interrupt to the end of the call: one, and what a machine adds that others keep busy
PATIENCE = 60.0  # until a process has started and waits
ONCE = [Stall(120.0)] * 8
STALLED = {  # what must stand still for the call to wait
    "read": "GetRecords",
    "list the shards": "ListShards",
    "explore": "ListStreams",
    "lag": "GetRecords",
    "check": "*",
    "export a frame": "PutRecords",
}
RETURNS = {"read", "export a frame"}  # what came until then, and say so


class Waiting:
    """A process that makes a call which does not end by itself, and what it tells."""

    def __init__(self, folder: Path, emulator: Emulator, silent: str, taken: Sized) -> None:
        self._emulator, self._taken = emulator, taken
        self.go, self.blocked, self.outcome = (folder / name for name in ("go", "blocked", "outcome"))
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ENDPOINT": emulator.endpoint_url,
            "TABLE": str(folder / "table"),
            "SILENT": silent,
            "IPYTHONDIR": str(folder / "ipython"),
            "HOME": str(folder),
            "TERM": "dumb",
            **{path.name.upper(): str(path) for path in (self.go, self.blocked, self.outcome)},
        }

    def interrupted(self, name: str, interrupt: Callable[[], object]) -> tuple[str, float]:
        """Interrupt the call when it waits; return how it ended, and after how many seconds."""
        until(lambda: self._has_come(name), PATIENCE)
        self.go.touch()
        until(self.blocked.exists, PATIENCE)
        assert not self.outcome.exists()
        sent = time.monotonic()
        interrupt()
        until(lambda: self.outcome.exists() and bool(self.outcome.read_text()), 10)
        return self.outcome.read_text(), time.monotonic() - sent

    def _has_come(self, name: str) -> bool:
        """Whether the call has asked what it waits for: before that it waits for its libraries."""
        if "silent" in name:
            return len(self._taken) > 0
        awaited = STALLED.get(name, "GetRecords")
        return self._emulator.requests.total() > 0 if awaited == "*" else self._emulator.requests[awaited] > 0


@pytest.fixture
def silent() -> Iterator[tuple[str, Sized]]:
    """The address of a server that takes connections and says nothing, and the connections."""
    taken: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                taken.append(listening.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", taken
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in taken:
        one.close()


@pytest.fixture
def waiting(tmp_path: Path, emulator: Emulator, streams: Streams, silent: tuple[str, Sized]) -> Waiting:
    streams.create()
    streams.create("out")
    return Waiting(tmp_path, emulator, *silent)


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Generator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("name", CALLS)
def test_in_a_script(waiting: Waiting, emulator: Emulator, name: str) -> None:
    """The call is over within a second; what it had done until then is returned, or the interrupt is raised."""
    if name in STALLED:
        emulator.on(STALLED[name], *ONCE)
    command = [sys.executable, "-m", "tests.support.interrupted", name]
    process = subprocess.Popen(command, env=waiting.environment, cwd=ROOT, stdout=subprocess.PIPE)
    with ending(process):
        outcome, seconds = waiting.interrupted(name, lambda: os.kill(process.pid, signal.SIGINT))
        assert outcome == ("returned" if name in RETURNS else "KeyboardInterrupt")
        assert seconds < BOUND
        if name in RETURNS:
            process.wait(10)
            assert process.stdout is not None
            assert b"interrupted" in process.stdout.read()


@pytest.mark.parametrize(
    "shell", [["-i"], ["-m", "IPython", "--simple-prompt", "--no-banner"]], ids=["python", "ipython"]
)
def test_in_a_shell(waiting: Waiting, shell: list[str]) -> None:
    """Ctrl-C at the terminal, while the first line that was typed waits for rows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *shell],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=waiting.environment,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),  # noqa: PLW1509 - there is no other way to a terminal of its own
    )
    os.close(theirs)
    with ending(process), ExitStack() as stack:
        stack.callback(os.close, ours)
        reading = threading.Thread(target=_drain, args=(ours,), daemon=True)
        reading.start()
        os.write(ours, b"from tests.support.interrupted import run\nrun('iterate a tail')\n")
        outcome, seconds = waiting.interrupted("iterate a tail", lambda: os.write(ours, b"\x03"))
        process.kill()
        reading.join()
    assert outcome == "KeyboardInterrupt"
    assert seconds < BOUND


def _take_terminal(terminal: int) -> None:
    """Make it the terminal of this process, whose Ctrl-C is its SIGINT."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _drain(terminal: int) -> None:
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


@pytest.mark.parametrize("name", ["iterate a tail", "wait for a sync"])
def test_in_a_kernel(waiting: Waiting, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Jupyter's "Interrupt kernel", while its first cell waits."""
    from jupyter_client.manager import KernelManager

    for key, value in waiting.environment.items():
        monkeypatch.setenv(key, value)
    manager = KernelManager(transport="ipc", ip=str(waiting.go.with_name("kernel")))
    manager.start_kernel(cwd=str(ROOT))
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(PATIENCE)
        client.execute(f"from tests.support.interrupted import run\nrun({name!r})")
        outcome, seconds = waiting.interrupted(name, manager.interrupt_kernel)
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    assert outcome == "KeyboardInterrupt"
    assert seconds < BOUND


def test_amid_the_first_import(waiting: Waiting, streams: Streams) -> None:
    """Libraries that a first call was loading when it was interrupted are usable in the next one."""
    streams.put(3)
    command = [sys.executable, "-m", "tests.support.interrupted", "import"]
    subprocess.run(command, env=waiting.environment, cwd=ROOT, check=True, timeout=PATIENCE)
    assert waiting.outcome.read_text() == "KeyboardInterrupt, 3 rows"
