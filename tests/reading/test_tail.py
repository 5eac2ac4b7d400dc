"""Live tails over HTTP."""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply
from tests.conftest import Streams, by_key, engine_threads, written_by_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.emulator import Emulator


def test_latest_sees_everything_after_the_call_and_nothing_before(source: kn.Source, streams: Streams) -> None:
    """What is written the moment tail() has returned is seen, what was written before is not."""
    streams.create(shards=4)
    streams.put(50)
    streams.written.clear()
    with source.tail("orders") as tail:
        streams.put(40)
        assert by_key(tail.take(40, timeout=10)) == written_by_key(streams)
        assert len(tail) == 0


def test_follows_reshards(source: kn.Source, streams: Streams) -> None:
    """Children are found and read from their beginning, after both parents, while the tail runs."""
    streams.create(shards=2)
    with source.tail("orders", start="trim_horizon") as tail:
        changes: list[Callable[[], None]] = [streams.split, streams.merge, lambda: streams.rescale(4)]
        for change in changes:
            streams.put(60, keys=20)
            change()
        streams.put(60, keys=20)
        assert by_key(tail.take(240, timeout=10)) == written_by_key(streams)


def test_wait_returns_when_everything_that_was_there_has_come(source: kn.Source, streams: Streams) -> None:
    """As for a sync: what was in the stream at the call is in the tail; until then the time may run out."""
    streams.create(shards=4)
    streams.put(200)
    with source.tail("orders", start="trim_horizon") as tail:
        assert tail.wait(10)
        assert (len(tail), tail.status().buffer.received, tail.is_active) == (200, 200, True)
        tail.pause()
        streams.put(1)
        assert not tail.wait(0.2)
        assert (tail.is_active, tail.state) == (True, "paused")
        tail.resume()
        assert tail.wait(10)
        assert len(tail) == 201
        assert not tail.wait(0.1, until_caught_up=False)
    assert (tail.wait(), tail.is_active, tail.state) == (False, False, "stopped")


def test_wait_returns_when_there_is_nothing_left_to_read(source: kn.Source, streams: Streams) -> None:
    """All shards that were chosen are closed and read: the tail has ended by itself."""
    streams.create()
    streams.put(30)
    (first,) = source.explore("orders").shards["shard_id"]
    streams.split()
    with source.tail("orders", start="trim_horizon", shards=[first]) as tail:
        assert tail.wait(10, until_caught_up=False)
        assert (tail.state, tail.is_active, len(tail)) == ("ended", False, 30)


def test_wait_raises_what_the_tail_failed_with(source: kn.Source, streams: Streams) -> None:
    """An error that ends the tail reaches who waits."""
    streams.create()
    with source.tail("orders", start="trim_horizon") as tail:
        streams.call("DeleteStream", StreamName="orders")
        with pytest.raises(kn.StreamNotFound):
            tail.wait(20, until_caught_up=False)
        assert (tail.state, tail.is_active) == ("failed", False)


def test_threads_are_named_one_per_active_shard(source: kn.Source, streams: Streams) -> None:
    """There is one consumer thread per active shard, named after stream and shard, and none after stop()."""
    streams.create(shards=3)
    with source.tail("orders"):
        names = [name for name in engine_threads() if "shardId" in name]
        assert sorted(names) == [f"kinesis_nb orders shardId-{i:012d}" for i in range(3)]
    assert engine_threads() == []


def test_keeps_the_newest_rows_and_counts_the_dropped(source: kn.Source, streams: Streams) -> None:
    """An undrained tail stays within max_rows, holds the newest, and knows exactly what it dropped, per shard."""
    streams.create()
    streams.put(500, keys=1)
    with source.tail("orders", start="trim_horizon", max_rows=100) as tail:
        streams.put(1, keys=1)
        while tail.stats().buffer.received < 501:
            tail._buffer.take(0.01, most=0)
        assert by_key(tail) == {"key-0": list(range(402, 502))}
        assert tail.stats().buffer.dropped == {"shardId-000000000000": 401}


def test_block_loses_nothing(source: kn.Source, streams: Streams) -> None:
    """With on_full="block" a slow reader gets every row."""
    streams.create(shards=2)
    streams.put(700)
    with source.tail("orders", start="trim_horizon", max_rows=50, on_full="block") as tail:
        assert by_key(tail.take(700, timeout=10)) == written_by_key(streams)
        assert tail.stats().buffer.dropped == {}


def test_iterates_records_until_stopped(source: kn.Source, streams: Streams) -> None:
    """A for loop gets records one by one and ends when the tail is stopped."""
    streams.create()
    streams.put(3, keys=1)
    seen = []
    with source.tail("orders", start="trim_horizon") as tail:
        for record in tail:
            seen.append(record.data)
            if len(seen) == 3:
                tail.stop()
    assert seen == ['{"n": 1}', '{"n": 2}', '{"n": 3}']
    assert tail.state == "stopped"


def test_pause_and_resume(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """While paused no call is made; afterwards what was written meanwhile comes, once."""
    streams.create()
    with source.tail("orders") as tail:
        tail.pause()
        assert tail.state == "paused"
        streams.put(10)
        tail.resume()
        assert by_key(tail.take(10, timeout=10)) == written_by_key(streams)
    assert emulator.requests["GetShardIterator"] == 1


def test_rerun_replaces_the_old_tail(source: kn.Source, streams: Streams) -> None:
    """Running the same cell again stops the tail from before; one set of threads is left."""
    streams.create(shards=2)
    first = source.tail("orders")
    last = source.tail("orders")
    for _ in range(9):
        last = source.tail("orders")
    assert first.state == "stopped"
    assert len(engine_threads()) == 3  # two shards and the discovery
    last.stop()
    assert engine_threads() == []


def test_deleting_it_stops_it(source: kn.Source, streams: Streams) -> None:
    """A tail that nobody holds any more leaves no thread."""
    streams.create(shards=2)
    tail = source.tail("orders")
    assert engine_threads()
    del tail
    gc.collect()
    deadline = time.monotonic() + 3
    while engine_threads():
        assert time.monotonic() < deadline, engine_threads()


def test_collecting_it_takes_no_lock(source: kn.Source, streams: Streams) -> None:
    """The collector may run inside any of our own locks; the finalizer must not wait for one of them."""
    streams.create()
    tail = source.tail("orders")
    scheduler, buffer = tail._scheduler, tail._buffer
    finalizer = tail._stopper
    flag: Any = scheduler._stop
    with scheduler._lock, flag._cond:
        del tail
        gc.collect()
        assert not finalizer.alive
    while not buffer.is_closed:
        buffer.take(0.01)


def test_failure_reaches_the_reader(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A fatal error is raised where rows are taken, after the rows, and shows in the repr."""
    streams.create()
    emulator.on("GetRecords", ErrorReply("AccessDeniedException"))
    with source.tail("orders") as tail:
        with pytest.raises(kn.AccessDenied):
            tail.take(1, timeout=10)
        assert tail.state == "failed"
        assert "kinesis:GetRecords" in repr(tail)


def test_ends_when_the_stream_is_closed_for_good(source: kn.Source, streams: Streams) -> None:
    """shards= names closed shards: when they are read to their end, so is the tail."""
    streams.create()
    streams.put(5, keys=1)
    streams.split()
    with source.tail("orders", start="trim_horizon", shards=["shardId-000000000000"]) as tail:
        assert by_key(tail.take(100)) == {"key-0": [1, 2, 3, 4, 5]}
        assert tail.state == "ended"


def test_leaving_the_loop_keeps_the_rest(source: kn.Source, streams: Streams) -> None:
    """break takes out what was seen and no more; the next loop continues with the row after it."""
    streams.create()
    streams.put(10, keys=1)
    with source.tail("orders", start="trim_horizon") as tail:
        seen = []
        for _ in range(5):
            for record in tail:
                seen.append(record.data)
                if len(seen) % 2 == 0:
                    break
        assert seen == [f'{{"n": {n}}}' for n in range(1, 11)]
        assert tail.stats().buffer.taken == 10


def test_failure_while_taking_keeps_the_rows(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """When take() cannot get enough because the tail failed, what had come stays in the tail."""
    streams.create()
    streams.put(10, keys=1)
    with source.tail("orders", start="trim_horizon") as tail:
        while tail.stats().buffer.received < 10:
            tail._buffer.take(0.01, most=0)
        emulator.on("GetRecords", ErrorReply("AccessDeniedException"))
        with pytest.raises(kn.AccessDenied):
            tail.take(20)
        assert by_key(tail) == {"key-0": list(range(1, 11))}


def test_latest_object_is_pinned_too(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """StartingPosition.latest() is the moment of the call, like "latest", however long the first iterator takes."""
    streams.create()
    emulator.on("GetShardIterator", *[ErrorReply("ProvisionedThroughputExceededException")] * 3)
    with source.tail("orders", start=kn.StartingPosition.latest()) as tail:
        streams.put(5)
        assert by_key(tail.take(5, timeout=10)) == written_by_key(streams)


def test_tails_of_other_shards_run_side_by_side(source: kn.Source, streams: Streams) -> None:
    """A tail is replaced by the next one of the same shards, or of the same name, and by no other."""
    streams.create(shards=2)
    first, second = (shard["ShardId"] for shard in streams.open_shards())
    one, other = source.tail("orders", shards=[first]), source.tail("orders", shards=[second])
    both = source.tail("orders")
    mine, yours = source.tail("orders", name="mine"), source.tail("orders", name="yours")
    assert {tail.state for tail in (one, other, both, mine, yours)} == {"running"}
    again = source.tail("orders", "trim_horizon", shards=[first], max_rows=10)
    named = source.tail("orders", shards=[second], name="mine")
    assert (one.state, mine.state) == ("stopped", "stopped")
    for tail in (other, both, yours, again, named):
        assert tail.state == "running"
        tail.stop()


@pytest.mark.parametrize("wait", ["take", "iterate"])
def test_a_tail_smaller_than_a_record_says_so(source: kn.Source, streams: Streams, wait: str) -> None:
    """It holds nothing for ever; whoever waits for rows is warned once, and the view says so too."""
    streams.create()
    with source.tail("orders", max_bytes=10_000) as tail:
        for size in (100, 20_000, 30_000):
            streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b"z" * size)
        with pytest.warns(
            UserWarning, match=r"records of about [123]\d,\d+ bytes are dropped: max_bytes=10,000"
        ) as told:
            if wait == "take":
                assert len(tail.take(5, timeout=3)) <= 1
                tail.take(5, timeout=0.1)
            else:
                threading.Timer(3, tail.stop).start()
                assert len(list(tail)) <= 1
        assert [warning.filename for warning in told] == [__file__]
        assert "are dropped" in repr(tail)
        assert "are dropped" in tail.stats().warning
