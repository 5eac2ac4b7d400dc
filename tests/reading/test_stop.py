"""Stopping a reader ends its threads, whatever they wait in, and nobody else's."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.credentials import StaticCredentials
from kinesis_nb.core.halt import Halt
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import SlowDrip, Stall
from kinesis_nb.errors import Closed
from kinesis_nb.reading.buffer import Buffer
from kinesis_nb.reading.plan import Lookup, ReadPlan
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.service.credentials import Loaded, Renewable
from tests.conftest import engine_threads
from tests.reading.test_reader_rules import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    import kinesis_nb as kn
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

LONG = 60.0
BOUND = 2.0  # seconds that a thread may take to end


def _has_delivered(emulator: Emulator, more_than: int) -> bool:
    return emulator.delivered.total() > more_than


def outcome(wait: Callable[[], object]) -> list[BaseException]:
    """Return what a thread that obeys ends with, when its reader is stopped while it waits."""
    halt, began, raised = Halt(), threading.Event(), list[BaseException]()

    def run() -> None:
        with halt.obeyed():
            began.set()
            try:
                wait()
            except BaseException as error:  # noqa: BLE001 - whatever it is
                raised.append(error)

    thread = threading.Thread(target=run, daemon=True)  # one that cannot be ended fails the test, and no more
    thread.start()
    began.wait(LONG)
    thread.join(0.5)
    assert thread.is_alive()
    halt.set()
    thread.join(BOUND)
    assert not thread.is_alive()
    return raised


def client_of(listener: socket.socket, scheme: str = "http") -> KinesisClient:
    """Return a client of a server on loopback."""
    endpoint = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    return KinesisClient(SourceConfig(auth=StaticCredentials("a", "b"), endpoint_url=endpoint))


@contextmanager
def full() -> Generator[socket.socket]:
    """Give a listener that lets nobody in any more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(8):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect(listener.getsockname())
        yield listener


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_call_that_is_not_answered_is_given_up(scheme: str) -> None:
    """A server that takes a connection and says nothing, not even hello, holds no thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener, scheme)
        (error,) = outcome(lambda: client.list_shards("s"))
        client._client.close()
    assert isinstance(error, Closed)


def test_a_connection_that_does_not_come_is_given_up() -> None:
    """Nor does one that never says whether it takes it."""
    with full() as listener:
        client = client_of(listener)
        (error,) = outcome(lambda: client.list_shards("s"))
        client._client.close()
    assert isinstance(error, Closed)


def test_a_listing_of_somebody_else_is_not_waited_for() -> None:
    """All who want a listing wait for one call; who is stopped waits no more, though the call continues."""
    lookup = Lookup(KinesisClient(SourceConfig(auth=StaticCredentials("a", "b"))), "s", SystemClock())
    with lookup._lock:
        for ask in (lambda: lookup.shards(since=0.0), lookup.retention):
            (error,) = outcome(ask)
            assert isinstance(error, Closed)


def test_credentials_of_somebody_else_are_not_waited_for() -> None:
    """One thread loads credentials, the others wait, until they are stopped."""

    def load() -> Loaded | None:
        raise AssertionError("another thread does that")

    credentials = Renewable(load, SystemClock())
    with credentials._loading:
        for ask in (credentials.get_frozen_credentials, lambda: credentials.renew("old")):
            (error,) = outcome(ask)
            assert isinstance(error, Closed)


def test_room_is_not_waited_for() -> None:
    """A full buffer that nobody empties holds no thread, and takes nothing of one that was stopped."""
    rows = pa.RecordBatch.from_pydict({"n": [1]})
    buffer = Buffer(1, 2**20, "block")
    buffer.put("s", rows)
    (error,) = outcome(lambda: buffer.put("s", rows))
    assert isinstance(error, Closed)
    assert buffer.stats().received == 1


@pytest.mark.parametrize("fault", [Stall(seconds=20), SlowDrip(bytes_per_second=10)])
def test_stop_ends_all_threads_inside_calls(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path, fault: Stall | SlowDrip
) -> None:
    """After `stop()` of a sync of many shards none of its threads is alive, whatever the service does."""
    streams.create(shards=60)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(LONG)
    calls = emulator.delivered.total()
    emulator.on("GetRecords", *[fault] * 60)
    until(lambda: emulator.delivered.total() > calls + 3)
    started = time.monotonic()
    sync.stop()
    assert time.monotonic() - started < BOUND + 1
    assert engine_threads() == []
    assert not any(shard.error for shard in sync.status().shards)
    assert sync.status().error == ""


def test_stop_disturbs_no_other_reader(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Readers of one source share its connections; the calls of one that continues are not given up."""
    streams.create(shards=4)
    streams.create("others", shards=4)
    streams.put(20)
    with source.tail("others") as other:
        for _ in range(5):
            tail = source.tail("orders", start="trim_horizon")
            calls = emulator.delivered.total()
            emulator.on("GetRecords", *[Stall(seconds=1)] * 8)
            until(partial(_has_delivered, emulator, calls + 3))
            tail.stop()
            assert engine_threads() == []
        streams.put(20, "others")
        assert len(other.take(20, timeout=LONG)) == 20
        assert not any(shard.retries for shard in other.stats().shards)


class Gate:
    """A sink that lets nobody out until it is opened, as a call of the machine's resolver would."""

    def __init__(self) -> None:
        self.opened, self.inside = threading.Event(), threading.Event()

    def position(self, shard: Shard) -> StartingPosition:
        """Start anywhere."""
        return StartingPosition.trim_horizon()

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Let the thread wait."""
        self.inside.set()
        self.opened.wait(LONG / 6)
        return True

    def lost(self, gap: object) -> None:
        """Nothing is."""

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Nothing does."""


@pytest.fixture
def gated(source: kn.Source, streams: Streams) -> Generator[tuple[Scheduler, Gate]]:
    """Give a scheduler whose threads cannot be ended until the gate is opened."""
    streams.create(shards=3)
    kinesis, gate = source._kinesis, Gate()
    feed = ReadPlan(kinesis, "orders", SystemClock(), tuple(kinesis.list_shards("orders")))
    scheduler = Scheduler(feed, gate, on_done=lambda _: None)
    scheduler.start()
    assert gate.inside.wait(LONG)
    yield scheduler, gate
    gate.opened.set()
    scheduler.stop()


def test_a_thread_that_cannot_be_ended_is_told(gated: tuple[Scheduler, Gate]) -> None:
    """All are waited for together, no longer than was said; who is left is named, until he has gone."""
    scheduler, gate = gated
    started = time.monotonic()
    scheduler.stop(0.5)
    assert 0.5 <= time.monotonic() - started < 1.5
    assert "threads have not ended yet" in scheduler.warning
    gate.opened.set()
    scheduler.stop()
    assert scheduler.warning == ""
    assert engine_threads() == []


def test_an_interrupted_stop_can_be_called_again(gated: tuple[Scheduler, Gate]) -> None:
    """Ctrl-C ends the waiting; the threads end as they were told, and the next call waits for them."""
    scheduler, gate = gated
    interrupt = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        scheduler.stop(LONG)
    interrupt.join()
    assert len(engine_threads()) > 0  # a thread that lives is not taken for a dead one
    gate.opened.set()
    scheduler.stop()
    assert engine_threads() == []


def test_a_machine_without_threads_leaves_none(
    source: kn.Source, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no more threads can be started, those that were are ended again."""
    streams.create(shards=4)
    start = threading.Thread.start

    def fail_at_last(thread: threading.Thread) -> None:
        if "shardId-000000000003" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_at_last)
    with pytest.raises(RuntimeError, match="can't start"):
        source.tail("orders").take(1, 10)  # a thread that is started already may be the one that starts the last
    until(lambda: engine_threads() == [])


def test_nothing_starts_after_stop(source: kn.Source, streams: Streams) -> None:
    """A look at the shards that comes too late starts no thread."""
    streams.create()
    kinesis = source._kinesis
    feed = ReadPlan(kinesis, "orders", SystemClock(), tuple(kinesis.list_shards("orders")))
    scheduler = Scheduler(feed, Gate(), on_done=lambda _: None)
    scheduler.stop()
    scheduler.list_now()
    scheduler.start()
    assert engine_threads() == []
