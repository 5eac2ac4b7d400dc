"""The line again: interrupted, with other options, in trouble, and after a failure of any kind."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import ErrorReply, Stall
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.syncing import ownership, retries
from kinesis_nb.syncing.committer import Committer, Phase
from kinesis_nb.syncing.ownership import Ancestry, Ownership, Turn
from kinesis_nb.syncing.readers import Readers
from kinesis_nb.syncing.retries import SILENT_SECONDS
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.syncing.upkeep import Upkeep
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.conftest import Streams, by_key, engine_threads, written_by_key
from tests.support.calls import SeamedTable, Stage
from tests.support.local import local
from tests.support.places import ORIGIN, away
from tests.support.virtual import VirtualKinesis, world
from tests.support.writers import Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

FEW_SECONDS = 20.0


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + FEW_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        threading.Event().wait(0.02)


def rows(folder: Path) -> pl.DataFrame:
    return pl.scan_delta(str(folder)).collect().sort("partition_key", "shard_offset")


def is_right(folder: Path, streams: Streams) -> bool:
    return by_key(rows(folder).to_arrow()) == written_by_key(streams)


def elsewhere(source: kn.Source, folder: Path, interval: float = 0.05) -> Sync:
    """Start a sync as another process would: this one's registry does not know it."""
    known = SyncTable.open(Storage.at(folder), local(source.sync("orders", folder))._table.origin)
    source.sync("orders", folder).stop()
    sync = Sync(ReadPlan(KinesisClient(source.config), "orders", SystemClock(), ()), known, interval, "fail")
    sync.start()
    return sync


# --- interrupts


def interrupt() -> None:
    """Press Ctrl-C: whatever the main thread waits in is left."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, what: Callable[[], object], *, after: bool) -> None:
    """Let something happen right before, or after, the first call of a method."""
    real = getattr(owner, name)
    left = [what]

    def method(*args: Any, **options: Any) -> Any:
        if left and not after:
            left.pop()()
        try:
            return real(*args, **options)
        finally:
            if left and after:
                left.pop()()

    monkeypatch.setattr(owner, name, method)


MOMENTS: dict[str, tuple[type, str]] = {
    "stream": (KinesisClient, "describe_stream"),
    "listing": (KinesisClient, "list_shards"),
    "opening": (SyncTable, "open"),
    "thread": (Committer, "start"),
    "claim": (SyncTable, "claim"),
    "turn": (Turn, "may_take"),
    "take": (SyncTable, "acquire"),
    "begin": (Readers, "start"),
    "waiting": (Committer, "wait_ready"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_at_any_moment(
    source: kn.Source,
    streams: Streams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    after: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Ctrl-C within source.sync() leaves nothing running, and the same line afterwards does its work."""
    streams.create()
    streams.put(10)

    def call() -> NoReturn:
        source.sync("orders", tmp_path / "t", commit_interval=0.05)
        while True:  # the signal of another thread may arrive a moment after the call has returned
            threading.Event().wait(0.01)

    with monkeypatch.context() as hooked:
        once(hooked, *MOMENTS[moment], interrupt, after=after)
        with pytest.raises(KeyboardInterrupt):
            call()
    if moment not in ("begin", "waiting"):
        until(lambda: engine_threads() == [])
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(FEW_SECONDS)
    sync.stop()
    assert is_right(tmp_path / "t", streams)


def test_an_interrupted_call_of_another_process_gives_the_table_back(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of another process resumes after a call that was interrupted while it waited for the table."""
    monkeypatch.setattr(ownership, "YIELD_SECONDS", 0.5)
    streams.create()
    old = elsewhere(source, tmp_path / "t")
    with monkeypatch.context() as hooked:
        once(hooked, SyncTable, "claim", interrupt, after=True)
        hooked.setattr(Turn, "may_take", lambda *_args: False)
        with pytest.raises(KeyboardInterrupt):
            source.sync("orders", tmp_path / "t").wait(FEW_SECONDS)
    until(lambda: old.status().state == "handing over" or old.status().state == "running")
    streams.put(20)
    assert old.wait(FEW_SECONDS)
    assert old.status().state == "running"
    old.stop()
    assert is_right(tmp_path / "t", streams)


def test_a_call_that_is_interrupted_with_the_table_in_hand_lets_go_of_it(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call does not wait for a writer that never wrote."""
    monkeypatch.setattr(ownership, "LEASE_SECONDS", 3600.0)
    streams.create()
    with monkeypatch.context() as hooked:
        once(hooked, Ownership, "take_over", interrupt, after=True)
        hooked.setattr(Ownership, "inherit", lambda self, *_shards: self.signals.pause(FEW_SECONDS))
        with pytest.raises(KeyboardInterrupt):
            source.sync("orders", tmp_path / "t")
    until(lambda: engine_threads() == [])
    streams.put(5)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(FEW_SECONDS)
    sync.stop()


# --- what is read through a handle


def test_every_handle_shows_the_table_as_it_is(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A writer that gave its table away shows what the new one commits, and nothing that it had read itself twice."""
    streams.create()
    old = elsewhere(source, tmp_path / "t", interval=3600.0)
    streams.put(20)
    until(lambda: old.status().pending == 20)
    assert len(old) == len(old.to_polars()) == len(old.live) == 20
    assert old.scan().collect().height == 0
    new = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    streams.put(20)
    until(lambda: new.status().state == "running")
    assert new.wait(FEW_SECONDS)
    for sync in (old, new):
        assert len(sync) == len(sync.to_polars()) == sync.scan().collect().height == 40
        assert sync.to_polars().select("shard_id", "sequence_number").is_unique().all()
        assert sync.verify().rows == 40
        assert len(sync.live) == 0
    new.stop()
    with pytest.raises(kn.Fenced):
        old.wait(FEW_SECONDS)


def test_rows_that_another_writer_committed_are_not_pending(
    source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """A frozen writer still holds rows that its successor wrote: its handle shows them once."""
    streams.create()
    old = elsewhere(source, tmp_path / "t", interval=3600.0)
    streams.put(20)
    until(lambda: old.status().pending == 20)
    rival = SyncTable.open(Storage.at(tmp_path / "t"), old._table.origin)
    rival.claim()
    [(shard_id, pending)] = [(shard_id, rows) for shard_id, rows in old._intake.snapshot().pending]
    parts = Parts(old._feed, rival)
    parts.ownership.take_over([shard_id])
    parts.intake._buffer.put(shard_id, pending)
    parts.commit()
    assert rows(tmp_path / "t").height == 20
    assert old.status().pending == 20
    assert len(old) == 20
    assert len(old.live) == 0
    assert old.to_polars().select("shard_id", "sequence_number").is_unique().all()
    with pytest.raises(kn.Fenced):
        old.wait(FEW_SECONDS)


# --- the line again


OTHERS: dict[str, dict[str, Any]] = {
    "commit_interval": {"commit_interval": 0.02},
    "on_data_loss": {"on_data_loss": "warn"},
    "storage_options": {"storage_options": {"region": "elsewhere"}},
}


@pytest.mark.parametrize("other", [*OTHERS, "source"])
def test_the_line_with_other_options(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path, other: str
) -> None:
    """It is another sync, the old one has committed what it had and is stopped, and every record is there once."""
    streams.create()
    given: dict[str, Any] = {"commit_interval": 0.05}
    old = source.sync("orders", tmp_path / "t", **given)
    assert source.sync("orders", tmp_path / "t", **given) is old
    streams.put(20)
    keys = kn.StaticCredentials("other", "keys")
    asked = kn.connect(endpoint_url=emulator.endpoint_url, auth=keys) if other == "source" else source
    new = asked.sync("orders", tmp_path / "t", **{**given, **OTHERS.get(other, {})})
    assert new is not old
    assert not old.is_active
    assert old.status().state == "stopped"
    assert old.status().pending == 0
    streams.put(20)
    assert new.wait(FEW_SECONDS)
    assert asked.sync("orders", tmp_path / "t", **{**given, **OTHERS.get(other, {})}) is new
    new.stop()
    assert is_right(tmp_path / "t", streams)


def test_the_line_again_cures_trouble(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that cannot reach its table is replaced by the same line, and what it had read is read again."""
    monkeypatch.setattr(retries, "RETRY_SECONDS", 3600.0)
    streams.create()
    old = source.sync("orders", tmp_path / "t", commit_interval=0.02)
    table = tmp_path / "t"
    with away(table):
        streams.put(20)
        until(lambda: old.status().state == "storage unavailable")
        assert source.sync("orders", table, commit_interval=0.02) is old, "nothing better can be made"
    new = source.sync("orders", table, commit_interval=0.02)
    assert new is not old
    assert new.wait(FEW_SECONDS)
    new.stop()
    assert is_right(table, streams)


def test_a_line_that_is_refused_leaves_the_old_one_running(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path
) -> None:
    """Other options, and a place or a stream that cannot be used just now: the one that runs goes on."""
    streams.create()
    old = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    emulator.on("ListShards", ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied):
        source.sync("orders", tmp_path / "t", commit_interval=0.02)
    assert old.is_active
    table = tmp_path / "t"
    with away(table), pytest.raises(kn.TableError):
        source.sync("orders", table, commit_interval=0.02)
    streams.put(20)
    assert old.wait(FEW_SECONDS)
    old.stop()
    assert is_right(table, streams)


def test_one_slow_start_blocks_no_other(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path
) -> None:
    """While one call waits for the service another one, for another table, starts."""
    streams.create()
    emulator.on("ListShards", Stall(2.0))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: source.sync("orders", tmp_path / "slow"))
        until(lambda: emulator.delivered.total() == 1)
        fast = source.sync("orders", tmp_path / "fast")
        assert not slow.done()
        fast.stop()
        slow.result().stop()


def test_a_refused_call_leaves_nothing(source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path) -> None:
    """A call without the permission to list shards makes no folder, so the next one is free to start elsewhere."""
    streams.create()
    streams.put(5)
    emulator.on("ListShards", ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied):
        source.sync("orders", tmp_path / "t", "latest")
    assert list(tmp_path.iterdir()) == []
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(FEW_SECONDS)
    sync.stop()
    assert is_right(tmp_path / "t", streams)


def test_a_refused_export_leaves_no_journal(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A streaming export with a partition_column that is none leaves no journal that would bind the next one."""
    streams.create()
    arn = streams.create("copy")
    streams.put(5)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(FEW_SECONDS)
    sync.stop()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kn.ConfigError):
        source.export_stream(str(tmp_path / "t"), arn, partition_column="no_such_column")
    assert sorted(tmp_path.rglob("*")) == before
    export = source.export_stream(str(tmp_path / "t"), arn)
    assert export.wait(timeout=FEW_SECONDS)
    export.stop()


# --- failures of any kind


class Panic(BaseException):
    """No Exception, as a panic of the Rust libraries is none."""


FAILURES = [RuntimeError("odd"), MemoryError(), SystemExit(3), KeyboardInterrupt(), Panic("at src/lib.rs")]


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["commit", "write_rows", "has_news"])
def test_a_failure_of_any_kind_ends_the_sync_for_all_to_see(
    source: kn.Source,
    streams: Streams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    where: str,
) -> None:
    """Whatever is raised in the committer's thread, wait() raises it, status() says "failed", and stop() returns."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.02)
    with monkeypatch.context() as broken:
        broken.setattr(SyncTable, where, failing(error))
        streams.put(5)
        with pytest.raises(type(error)):
            sync.wait(FEW_SECONDS, until_caught_up=False)
        assert sync.status().state == "failed"
        assert not sync.is_active
        sync.stop()
    again = source.sync("orders", tmp_path / "t", commit_interval=0.02)
    assert again is not sync
    assert again.wait(FEW_SECONDS)
    again.stop()
    assert is_right(tmp_path / "t", streams)


def test_a_failure_at_the_end_is_told(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last steps of the thread fail wait() raises, and stop() returns all the same."""
    streams.create()
    sync = local(source.sync("orders", tmp_path / "t", commit_interval=0.02))
    with monkeypatch.context() as broken:
        broken.setattr(Upkeep, "stop", failing(RuntimeError("odd")))
        sync.stop()
        with pytest.raises(RuntimeError, match="odd"):
            sync.wait(FEW_SECONDS)
    sync._upkeep.stop()


def test_a_failure_while_the_end_is_explained(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fenced writer that cannot find out who took the table over is Fenced all the same."""
    streams.create()
    old = elsewhere(source, tmp_path / "t")
    monkeypatch.setattr(Turn, "fenced_by", failing(OSError("EIO")))
    new = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    with pytest.raises(kn.Fenced):
        old.wait(FEW_SECONDS, until_caught_up=False)
    new.stop()


def test_a_failure_before_anything_is_read_reaches_the_caller(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong at the first claim is raised by source.sync(), and nothing is left."""
    streams.create()
    with monkeypatch.context() as broken:
        broken.setattr(SyncTable, "claim", failing(OSError("EIO")))
        with pytest.raises(kn.TableError, match="EIO"):
            source.sync("orders", tmp_path / "t")
    until(lambda: engine_threads() == [])
    source.sync("orders", tmp_path / "t").stop()


def flaky(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, failures: int = 2) -> list[int]:
    """Let the first calls of a method fail as credentials do that cannot be renewed now; return how many are left."""
    real, left = getattr(owner, name), [failures]

    def method(*args: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise kn.CredentialsError("the token service does not respond", retryable=True)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, method)
    return left


@pytest.mark.parametrize("where", ["write_rows", "commit", "has_news", "acquire"])
def test_credentials_that_cannot_be_renewed_now(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever the table is used such a failure is told by status(), and tried again until it goes through."""
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.05)
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.02)
    left = flaky(monkeypatch, SyncTable, where)
    streams.put(20)
    streams.split()
    streams.put(20)
    until(lambda: left == [0])
    assert sync.wait(FEW_SECONDS)
    until(lambda: sync.status().state == "running")  # after the next look
    sync.stop()
    assert is_right(tmp_path / "t", streams)


def test_credentials_that_cannot_be_renewed_while_a_call_waits(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waits for the table tries again too, at its looks and when it takes the table."""
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.05)
    streams.create()
    old = elsewhere(source, tmp_path / "t")
    looks = threading.Event()
    with monkeypatch.context() as held:
        held.setattr(Turn, "may_take", lambda *_args: looks.is_set())
        new = source.sync("orders", tmp_path / "t", commit_interval=0.05)
        assert new.status().state == "waiting"
        left = [flaky(monkeypatch, owner, name) for owner, name in ((SyncTable, "acquire"), (Ancestry, "parents"))]
        looks.set()
        until(lambda: left == [[0], [0]])
    streams.put(20)
    until(lambda: new.status().state == "running")
    assert new.wait(FEW_SECONDS)
    with pytest.raises(kn.Fenced):
        old.wait(FEW_SECONDS)
    new.stop()
    assert is_right(tmp_path / "t", streams)


# --- storage that is silent


@pytest.mark.slow
def test_a_table_that_does_not_respond_is_told(tmp_path: Path) -> None:
    """After 5 s without a response status() says "storage unavailable" and for how long, before anything has failed."""
    model, clock, _ = world()
    model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": b"{}"})
    table = SeamedTable.open(Storage.at(tmp_path / "t"), ORIGIN)
    sync = Sync(ReadPlan(VirtualKinesis(model, clock), "orders", clock, ()), table, 0.01, "fail")
    sync.start()
    assert sync.wait(FEW_SECONDS)
    silent, responds = threading.Event(), threading.Event()

    def meanwhile() -> None:
        silent.set()
        assert responds.wait(FEW_SECONDS)

    table.meanwhile = meanwhile
    model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": b"{}"})
    clock.sleep(60.0)
    assert silent.wait(FEW_SECONDS)
    assert sync.status().state == "running"
    clock.sleep(SILENT_SECONDS - 0.1)
    assert sync.status().state == "running"
    clock.sleep(0.1)
    status = sync.status()
    assert status.state == "storage unavailable"
    assert "has not responded for 5 s" in status.error
    assert sync.has_trouble
    responds.set()
    assert sync.wait(FEW_SECONDS)
    assert sync.status().state == "running"
    assert sync.status().error == ""
    sync.stop()


def test_a_table_that_does_not_respond_to_a_look_is_told(tmp_path: Path) -> None:
    """The same for a writer with nothing to commit, which only looks whether somebody wants the table."""
    stage = Stage(tmp_path)
    call = stage.writer()
    said: list[str] = []
    real = call.table.has_news

    def slow() -> bool:
        stage.clock.sleep(SILENT_SECONDS)
        said.append(call.retries.retry_reason)
        return real()

    call.table.has_news = slow  # type: ignore[method-assign]
    stage.until(lambda: said)  # type: ignore[arg-type, return-value]
    assert "has not responded for 5 s" in said[0]
    assert call.retries.retry_reason == ""
    assert call.phase is Phase.OWNING
