"""One shard's state machine, step by step in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.retry import THROTTLED_AT_LEAST
from kinesis_nb.core.shards import Shard
from kinesis_nb.errors import IteratorExpired, ServiceError, Throttled
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.reading.pace import BEHIND_SECONDS, IDLE_SECONDS
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.wire.batches import decode_batch
from tests.support.virtual import Bench, ListSink, world

if TYPE_CHECKING:
    from kinesis_nb.core.frames import Batch


def state_of(bench: Bench) -> ShardState:
    """Look anew: a checker of types takes an attribute that was compared for one that stays."""
    return bench.consumer.state


def test_reads_what_is_there_then_what_comes(bench: Bench) -> None:
    """Records are delivered once and in order, whenever they were written."""
    first = bench.put(3)
    bench.step()
    second = bench.put(2)
    bench.step()
    assert bench.sink.data == first + second


def test_is_polite(bench: Bench) -> None:
    """A caught-up shard is asked once a second, one that is behind at most five times a second."""
    bench.put(1)
    assert bench.step() == pytest.approx(IDLE_SECONDS)
    assert state_of(bench) is ShardState.CAUGHT_UP
    bench.put(2)
    bench.model.gap("orders", "shardId-000000000000")
    assert bench.step() == pytest.approx(BEHIND_SECONDS)
    assert state_of(bench) is ShardState.READING


def test_gap_is_not_the_end(bench: Bench) -> None:
    """An empty response that lags is followed to the records behind it."""
    data = bench.put(2)
    bench.clock.manual.advance(10)
    bench.model.gap("orders", "shardId-000000000000", calls=3)
    for _ in range(4):
        assert bench.step() is not None
    assert bench.sink.data == data


def test_expired_iterator_goes_on_after_the_last_record(bench: Bench) -> None:
    """After five idle minutes the next record is the one after the last, not a newer and not an older one."""
    first = bench.put(2)
    bench.step()
    bench.clock.manual.advance(301)
    second = bench.put(2)
    for _ in range(2):
        bench.step()
    assert bench.sink.data == first + second
    assert bench.consumer.stats().retries == 1


def test_latest_is_pinned() -> None:
    """A LATEST iterator that expires before the first record does not skip what arrived meanwhile."""
    bench = Bench()
    bench.put(2)
    bench.clock.manual.advance(1)
    bench.sink.start = StartingPosition.latest(pinned=bench.clock.now())
    bench.kinesis.faults = [Throttled("slow down", retryable=True)]
    bench.step()
    arrived = bench.put(2)
    for _ in range(2):
        bench.step()
    assert bench.sink.data == arrived
    assert [p["ShardIteratorType"] for op, p in bench.kinesis.calls if op == "GetShardIterator"] == [
        Kind.LATEST,
        Kind.AT_TIMESTAMP,
    ]


def test_advances_only_after_delivery(bench: Bench) -> None:
    """A sink that fails gets the same records again."""
    data = bench.put(3)
    bench.sink.errors = [ServiceError("disk full", retryable=True)]
    bench.step()
    assert bench.sink.data == []
    bench.step()
    assert bench.sink.data == data


def test_throttle_waits_a_second_and_keeps_the_iterator(bench: Bench) -> None:
    """A throttled shard is left alone for a second, and no new iterator is asked for."""
    bench.step()
    bench.kinesis.faults = [Throttled("slow down", retryable=True)]
    wait = bench.step()
    assert wait is not None
    assert wait >= THROTTLED_AT_LEAST
    bench.step()
    assert bench.operations().count("GetShardIterator") == 1
    assert bench.consumer.stats().throttles == 1


def test_backoff_grows_and_is_bounded(bench: Bench) -> None:
    """Waits grow with every failure and never pass the cap; a success starts over."""
    bench.kinesis.faults = [ServiceError("away", retryable=True) for _ in range(40)]
    waits = [bench.step() or 0 for _ in range(2)]
    assert max(waits) < 0.5
    assert state_of(bench) is ShardState.BACKING_OFF
    waits = [bench.step() or 0 for _ in range(38)]
    assert 2 < max(waits) <= 10
    assert state_of(bench) is ShardState.DEGRADED
    bench.step()
    assert state_of(bench) is ShardState.CAUGHT_UP
    bench.kinesis.faults = [ServiceError("away", retryable=True)]
    assert (bench.step() or 0) <= 0.2


def test_fatal_error_is_raised(bench: Bench) -> None:
    """What no retry can mend reaches the caller."""
    bench.kinesis.faults = [ServiceError("no")]
    with pytest.raises(ServiceError, match="no"):
        bench.step()


def test_unusable_iterator_is_renewed_once(bench: Bench) -> None:
    """An iterator that the service calls invalid is re-created once; a second time in a row is fatal."""
    bench.step()
    bench.kinesis.faults = [IteratorExpired("invalid")]
    bench.step()
    bench.step()
    bench.kinesis.faults = [IteratorExpired("invalid")]
    bench.step()
    bench.kinesis.faults = [IteratorExpired("invalid")]
    with pytest.raises(IteratorExpired):
        bench.step()


def test_shard_end_names_the_children(bench: Bench) -> None:
    """A closed shard ends after its last record, and its children are handed on."""
    data = bench.put(2)
    bench.model.call(
        "SplitShard",
        {"StreamName": "orders", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)},
    )
    while bench.step() is not None:
        pass
    assert bench.sink.data == data
    assert bench.sink.finished == ["shardId-000000000000", "shardId-000000000001", "shardId-000000000002"]
    assert state_of(bench) is ShardState.ENDED


def test_missing_iterator_of_an_open_shard_is_no_end(bench: Bench) -> None:
    """A null iterator without children is checked against a listing; an open shard is read on, nothing twice."""
    first = bench.put(2)
    get_records = bench.kinesis.get_records

    def without_iterator(stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        batch = get_records(stream, shard, iterator, limit)
        bench.kinesis.get_records = get_records  # type: ignore[method-assign]
        return replace(batch, next_iterator=None, millis_behind_latest=0)

    bench.kinesis.get_records = without_iterator  # type: ignore[method-assign]
    bench.step()
    second = bench.put(1)
    bench.step()
    assert bench.sink.data == first + second
    assert bench.sink.finished == []


def test_closed_shard_without_listed_children_is_asked_again(bench: Bench) -> None:
    """A listing that does not have the children yet neither ends the shard without them nor doubles its records."""
    data = bench.put(2)
    split = {"StreamName": "orders", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)}
    bench.model.call("SplitShard", split)
    get_records, list_shards = bench.kinesis.get_records, bench.kinesis.list_shards

    def without_children(stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        batch = get_records(stream, shard, iterator, limit)
        return replace(batch, child_shards=())

    bench.kinesis.get_records = without_children  # type: ignore[method-assign]
    bench.kinesis.list_shards = lambda stream: list_shards(stream)[:1]  # type: ignore[method-assign]
    for _ in range(5):
        assert bench.step() is not None
    assert bench.sink.finished == []
    bench.kinesis.list_shards = list_shards  # type: ignore[method-assign]
    while bench.step() is not None:
        pass
    assert bench.sink.data == data
    assert bench.sink.finished == ["shardId-000000000000", "shardId-000000000001", "shardId-000000000002"]


def test_absent_lag_is_the_tip_only_without_records(bench: Bench) -> None:
    """A response without MillisBehindLatest says "nothing left" only when it holds no record."""
    rows = (
        b'{"Records":[{"SequenceNumber":"1","Data":"YQ==","ApproximateArrivalTimestamp":1.5}],"NextShardIterator":"i"}'
    )
    assert decode_batch(rows, Shard("s"), bench.clock.now()).millis_behind_latest > 0
    assert (
        decode_batch(b'{"Records":[],"NextShardIterator":"i"}', Shard("s"), bench.clock.now()).millis_behind_latest == 0
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"<html>",
        b'{"Records":null}',
        b'{"Records":[{"SequenceNumber":"1","Data":"Y","ApproximateArrivalTimestamp":1}]}',
        b'{"Records":[{"SequenceNumber":"1","ApproximateArrivalTimestamp":1}]}',
        b'{"Records":[{"SequenceNumber":1,"Data":"","ApproximateArrivalTimestamp":1}]}',
        b'{"Records":[],"NextShardIterator":5}',
        b'{"Records":[]',
    ],
)
def test_half_an_answer_is_no_answer(bench: Bench, body: bytes) -> None:
    """Whatever is not a whole and well-formed response is an error to retry, never an empty batch."""
    with pytest.raises(ServiceError) as caught:
        decode_batch(body, Shard("s"), bench.clock.now())
    assert caught.value.retryable


def test_latest_is_the_moment_of_the_call_however_late_the_first_call() -> None:
    """A tail that is paused before its first call misses nothing of the pause."""
    bench = Bench()
    bench.put(2)
    bench.clock.manual.advance(1)
    bench.sink.start = StartingPosition.latest(pinned=bench.clock.now())
    arrived = bench.put(2)
    bench.clock.manual.advance(60)
    bench.step()
    assert bench.sink.data == arrived


def test_old_listing_ends_nothing() -> None:
    """A listing in which a shard that has ended is open is from before; one in which all are closed is the end."""
    _, clock, kinesis = world()
    (shard,) = kinesis.list_shards("orders")
    done: list[BaseException | None] = []
    sink = ListSink(StartingPosition.trim_horizon())
    feed = ReadPlan(kinesis, "orders", clock, (shard,))
    scheduler = Scheduler(feed, sink, skipped=[shard.shard_id], on_done=done.append)
    scheduler._observe([shard])
    assert done == []
    scheduler._observe([replace(shard, ending_sequence_number="9")])
    assert done == [None]
