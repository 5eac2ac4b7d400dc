"""How the reader meets what goes wrong, over HTTP: each rule by the fault that it is for."""

from __future__ import annotations

import contextlib
import gzip
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

import kinesis_nb as kn
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.retry import PROBE_SECONDS, backoff
from kinesis_nb.emulator import ErrorReply, Html, SlowDrip
from kinesis_nb.errors import KeyUnavailable, ServiceError, Throttled
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.service import deadline
from tests.conftest import Streams, by_key, engine_threads, written_by_key
from tests.support.virtual import Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

SHARD = "shardId-000000000000"


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that a thread will do."""
    deadline = time.monotonic() + seconds
    pause = multiprocessing.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_dripping_answer_is_given_up_as_a_whole(
    source: kn.Source, streams: Streams, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response whose every byte comes in time is cut off when the whole takes too long, and requested again."""
    monkeypatch.setattr(deadline, "RESPONSE_SECONDS", 0.5)
    streams.create()
    streams.put(50)
    emulator.on("GetRecords", SlowDrip(bytes_per_second=20))
    started = time.monotonic()
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    assert time.monotonic() - started < 5
    assert emulator.delivered.total() == 1


def test_dripping_listing_is_given_up_too(
    source: kn.Source, streams: Streams, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for every call, not only for records."""
    monkeypatch.setattr(deadline, "RESPONSE_SECONDS", 0.5)
    streams.create()
    streams.put(5)
    emulator.on("ListShards", SlowDrip(bytes_per_second=20))
    started = time.monotonic()
    assert len(source.read("orders", progress=False)) == 5
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "code", ["KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException", "KMSAccessDeniedException"]
)
def test_key_that_cannot_be_used_blocks_and_is_probed(
    source: kn.Source, streams: Streams, emulator: Emulator, code: str
) -> None:
    """A disabled key loses nothing: the shard says that it is blocked, and for what, and stays where it is."""
    streams.create()
    emulator.on("GetRecords", ErrorReply(code))
    with source.tail("orders", start="trim_horizon") as tail:
        until(lambda: any(shard.state is ShardState.BLOCKED for shard in tail.stats().shards))
        (shard,) = tail.stats().shards
        assert "encrypted" in shard.error
        assert tail.state == "running"


def test_blocked_key_is_probed_once_a_minute(bench: Bench) -> None:
    """Until the KMS key works again the shard is read every 60 s; then it continues where it was."""
    data = bench.put(2)
    bench.kinesis.faults = [ServiceError("x", retryable=True)]
    bench.step()
    bench.kinesis.faults = [KeyUnavailable("disabled", retryable=True)] * 3
    assert [bench.step() for _ in range(3)] == [PROBE_SECONDS] * 3
    assert bench.consumer.state is ShardState.BLOCKED
    bench.step()
    assert bench.sink.data == data


def test_place_of_a_record_is_a_place_for_the_service(source: kn.Source, streams: Streams) -> None:
    """The record that proves that nothing was lost can be asked for by its number."""
    streams.create()
    streams.put(3, keys=1)
    numbers = source.read("orders", progress=False).to_polars()["sequence_number"]
    (shard,) = source._kinesis.list_shards("orders")
    place = StartingPosition(Kind.AT_SEQUENCE_NUMBER, sequence_number=numbers[1])
    iterator = source._kinesis.get_shard_iterator("orders", shard.shard_id, place)
    assert source._kinesis.get_records("orders", shard, iterator, 10).read_from == numbers[1]


def test_malformed_answers_are_counted(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A proxy's page with status 200 is no response: it is counted and requested again."""
    streams.create()
    streams.put(5, keys=1)
    emulator.on("GetRecords", Html(status=200))
    with source.tail("orders", start="trim_horizon") as tail:
        assert len(tail.take(5, timeout=10)) == 5
        assert [shard.malformed for shard in tail.stats().shards] == [1]


def test_gap_reaches_the_user_of_a_tail(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """What a tail may have missed is warned of where its rows are taken, and stays in its figures."""
    streams.create()
    streams.put(3, keys=1)
    with source.tail("orders", start="trim_horizon") as tail:
        assert len(tail.take(3, timeout=10)) == 3
        consumer = next(iter(tail._scheduler._consumers.values()))
        consumer._gaps.lose_shard(consumer._position)
        streams.put(1, keys=1)
        with pytest.warns(UserWarning, match="may be lost"):
            tail.take(1, timeout=10)
        assert [gap.shard_id for gap in tail.stats().gaps] == [SHARD]
        assert "1 gap" in repr(tail)


def test_relaxed_reads_children_at_once(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """With reshard="relaxed" a child does not wait for a parent that is stuck; ordered, it does."""
    streams.create()
    streams.put(10, keys=20)
    streams.split()
    streams.put(10, keys=20)
    faults = [ErrorReply("KMSDisabledException")] * 3  # every shard of "relaxed" is blocked, of "ordered" the parent
    emulator.on("GetRecords", *faults)
    with source.tail("orders", start="trim_horizon", reshard="relaxed") as tail:
        until(lambda: [shard.state for shard in tail.stats().shards] == [ShardState.BLOCKED] * 3)
    emulator.on("GetRecords", faults[0])
    with source.tail("orders", start="trim_horizon") as tail:
        until(lambda: [shard.state for shard in tail.stats().shards] == [ShardState.BLOCKED])


def test_relaxed_loses_and_doubles_nothing(source: kn.Source, streams: Streams) -> None:
    """Every record comes once, whatever the order of the shards."""
    streams.create(shards=2)
    changes: list[Callable[[], None]] = [streams.split, streams.merge, lambda: streams.rescale(4)]
    for change in changes:
        streams.put(60, keys=20)
        change()
    streams.put(60, keys=20)
    frame = source.read("orders", reshard="relaxed", progress=False).to_polars()
    assert frame.height == 240
    assert frame.select("shard_id", "sequence_number").is_unique().all()


def test_compressed_records_become_text_when_asked_for(source: kn.Source, streams: Streams) -> None:
    """CloudWatch's gzip data is text with decompress=True, and bytes as they came without."""
    streams.create()
    packed = gzip.compress(b'{"messageType": "DATA_MESSAGE"}')
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=packed)
    (plain,) = source.read("orders", progress=False)
    assert plain.data_raw == packed
    (text,) = source.read("orders", decompress=True, progress=False)
    assert (text.data, text.data_raw) == ('{"messageType": "DATA_MESSAGE"}', None)


def test_child_of_a_fork_is_told(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """What was made before a fork raises in the child instead of waiting for threads that it does not have."""
    streams.create()
    sync = source.sync("orders", tmp_path / "table")
    with source.tail("orders") as tail:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            uses = [
                tail.stats,
                lambda: tail.take(1, 0),
                lambda: len(tail),
                lambda: source.explore("orders"),
                sync.status,
            ]
            _use_in_child(writer, uses)
        os.close(writer)
        told = os.read(reader, 1)
        os.close(reader)
        os.waitpid(child, 0)
        assert told == bytes([5])
    sync.stop()


def _use_in_child(writer: int, uses: list[Callable[[], object]]) -> NoReturn:
    """Tell the parent how many of these raise ForkedProcess, and end whatever happens."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)  # what waits for a lock that nobody will release is killed, and has told nothing
    told = 0
    try:
        for use in uses:
            with contextlib.suppress(kn.ForkedProcess):
                use()
                continue
            told += 1
    finally:
        os.write(writer, bytes([told]))
        os._exit(0)


def test_hundred_reruns_leave_one_set_of_threads(source: kn.Source, streams: Streams) -> None:
    """A cell that is run a hundred times leaves the threads of one tail, and none once that is stopped."""
    streams.create(shards=2)
    tail = source.tail("orders")
    for _ in range(99):
        tail = source.tail("orders")
    assert len(engine_threads()) == 3
    tail.stop()
    assert engine_threads() == []


def test_stop_within_a_second(source: kn.Source, streams: Streams) -> None:
    """Stopping takes a second at most, idle or busy, 99 times of 100 (here: every time but one)."""
    streams.create(shards=4)
    streams.put(500, keys=50)
    took = []
    for start in ("latest", "trim_horizon") * 25:
        tail = source.tail("orders", start=start)
        started = time.monotonic()
        tail.stop()
        took.append(time.monotonic() - started)
    assert sorted(took)[-2] <= 1.0


def test_throttle_waits_for_the_next_second() -> None:
    """The service counts per second, so a throttled call is never repeated within one."""
    clock = Bench().clock
    assert all(backoff(n, Throttled("slow down", retryable=True), clock) >= 1.0 for n in range(8))
