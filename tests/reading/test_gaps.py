"""Records that the stream dropped before they were read: told every time, and never where nothing was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.errors import PositionTrimmed, ServiceError, StreamNotFound
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.reading.scheduler import Scheduler
from tests.support.virtual import Bench

if TYPE_CHECKING:
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard

DAY = 24 * 3600
SHARD = "shardId-000000000000"


def settled(bench: Bench, steps: int = 4) -> list[str]:
    """Return what comes in a few steps."""
    before = len(bench.sink.data)
    for _ in range(steps):
        bench.step()
    return bench.sink.data[before:]


def keep_longer_than_said(bench: Bench) -> None:
    """Let the stream still hold what it says it has dropped: the service trims when it finds the time."""
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 48})
    described = bench.kinesis.describe_stream
    bench.kinesis.describe_stream = lambda stream: replace(described(stream), retention=24)  # type: ignore[method-assign]


def test_records_that_were_trimmed_are_told(bench: Bench) -> None:
    """A reader that comes back after the retention gets what is left, and hears where the hole is."""
    bench.put(2)
    bench.step()
    bench.put(3)  # nobody reads these
    bench.clock.manual.advance(DAY + 3_600)
    left = bench.put(2)
    assert settled(bench) == left
    (gap,) = bench.sink.gaps
    assert (gap.shard_id, gap.reason) == (SHARD, "trimmed")
    assert int(gap.after or 0) < int(gap.first or 0)
    assert gap.seen is not None
    assert gap.until is not None
    assert gap.seen < gap.until


def test_hole_without_an_end_is_told(bench: Bench) -> None:
    """When everything unread is gone the gap is reported at once, not only when another record comes."""
    bench.put(1)
    bench.step()
    bench.put(3)
    bench.clock.manual.advance(DAY + 3_600)
    assert settled(bench) == []
    (gap,) = bench.sink.gaps
    assert (gap.first, gap.until) == (None, None)


def test_record_that_is_still_there_proves_that_nothing_was_lost(bench: Bench) -> None:
    """Where the service still holds the last record, retention or not, nothing is reported and nothing comes twice."""
    bench.put(2)
    bench.step()
    more = bench.put(3)
    keep_longer_than_said(bench)
    bench.clock.manual.advance(DAY + 3_600)
    assert settled(bench) == more
    assert bench.sink.gaps == []
    assert [p["ShardIteratorType"] for op, p in bench.kinesis.calls if op == "GetShardIterator"][-1] == (
        "AT_SEQUENCE_NUMBER"
    )


def test_silent_shard_is_no_gap(bench: Bench) -> None:
    """A shard that is asked all the time and has nothing for days lost nothing."""
    bench.put(1)
    for _ in range(60):
        bench.step()
        bench.clock.manual.advance(3_600)
    after = bench.put(1)
    assert settled(bench) == after
    assert bench.sink.gaps == []


def test_what_arrives_during_a_request_may_have_missed_its_answer(bench: Bench) -> None:
    """Up to when a shard was read counts from before the request, however long the response was on its way."""
    bench.put(1)
    answer = bench.kinesis.get_records

    def slowly(*request: object) -> Batch:
        batch = answer(*request)  # type: ignore[arg-type]
        bench.clock.manual.advance(5)
        return batch

    bench.kinesis.get_records = slowly  # type: ignore[method-assign,assignment]
    before = bench.clock.now()
    bench.step()
    assert bench.consumer.reach is not None
    assert bench.consumer.reach.seen <= before


def test_longer_retention_is_asked_for(bench: Bench) -> None:
    """After a day of silence in a stream that keeps a week nothing is reported."""
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 168})
    bench.put(1)
    bench.step()
    more = bench.put(2)
    bench.clock.manual.advance(3 * DAY)
    assert settled(bench) == more
    assert bench.sink.gaps == []


def test_retention_lowered_and_raised_while_the_machine_slept(bench: Bench) -> None:
    """A record that the stream would have to hold, and does not, tells that it held its records for less meanwhile."""
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 168})
    bench.put(1)
    bench.step()
    bench.put(2)
    bench.clock.manual.advance(DAY + 3_600)
    bench.model.call("DecreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 24})
    left = bench.put(1)
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 168})
    assert settled(bench) == left
    (gap,) = bench.sink.gaps
    assert gap.reason == "trimmed"


def test_the_proof_is_asked_for_once(bench: Bench) -> None:
    """A closed shard of a long retention, whose last record was read a day ago, is read to its end."""
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 168})
    bench.put(1)
    bench.step()
    split = {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)}
    bench.model.call("SplitShard", split)
    bench.clock.manual.advance(DAY + 3_600)
    for _ in range(10):
        if bench.step() is None:
            break
    assert bench.consumer.state is ShardState.ENDED
    assert bench.sink.gaps == []


def test_failed_delivery_tells_again_and_doubles_nothing(bench: Bench) -> None:
    """A sink that fails behind a gap, or behind a record that proves there is none, gets the same rows once."""
    bench.put(1)
    bench.step()
    bench.put(1)
    bench.clock.manual.advance(DAY + 3_600)
    left = bench.put(2)
    bench.sink.errors = [ServiceError("disk full", retryable=True), ServiceError("disk full", retryable=True)]
    assert settled(bench, 6) == left
    assert len(bench.sink.gaps) == 3
    assert len(set(bench.sink.gaps)) == 1


def test_failed_delivery_behind_the_proof_doubles_nothing(bench: Bench) -> None:
    """The record that was only asked for as a proof stays out after a failed delivery as well."""
    bench.put(1)
    bench.step()
    more = bench.put(2)
    keep_longer_than_said(bench)
    bench.clock.manual.advance(DAY + 3_600)
    bench.sink.errors = [ServiceError("disk full", retryable=True)]
    assert settled(bench) == more


def test_gap_that_the_sink_refuses_ends_the_reading(bench: Bench) -> None:
    """A sink that must not have holes stops the reader before anything behind the hole."""
    bench.put(1)
    bench.step()
    bench.clock.manual.advance(DAY + 3_600)
    bench.put(1)
    bench.sink.refuses_gaps = True
    with pytest.raises(ServiceError, match="may be lost"):
        settled(bench)
    assert bench.sink.data == ["0"]


def test_resumed_reader_knows_until_when_it_had_seen_everything() -> None:
    """A position with its moment is enough to find a gap after a restart, and to find none after silence."""
    bench = Bench()
    bench.put(1)
    bench.step()
    assert bench.consumer._position is not None
    number = bench.consumer._position.sequence_number
    assert number is not None
    seen = bench.clock.now()
    bench.clock.manual.advance(3 * DAY)
    bench.put(1)
    bench.resume(StartingPosition.after(number, seen))
    settled(bench, 2)
    assert len(bench.sink.gaps) == 1
    bench.resume(StartingPosition.after(number, bench.clock.now()))
    settled(bench, 2)
    assert bench.sink.gaps == []


def test_refused_sequence_number_goes_on_at_the_oldest_record(bench: Bench) -> None:
    """Where the service refuses a number because its record is gone, what is left is read and the gap told."""
    bench.put(1)
    bench.step()
    bench.clock.manual.advance(2 * DAY)
    left = bench.put(2)
    open_iterator = bench.kinesis.get_shard_iterator

    def refusing(stream: str, shard_id: str, position: StartingPosition) -> str:
        if position.sequence_number:
            raise PositionTrimmed("StartingSequenceNumber is invalid")
        return open_iterator(stream, shard_id, position)

    bench.kinesis.get_shard_iterator = refusing  # type: ignore[method-assign]
    assert settled(bench, 5) == left
    assert [gap.reason for gap in bench.sink.gaps] == ["trimmed"]


def test_refused_number_of_a_record_that_is_there_doubles_nothing(bench: Bench) -> None:
    """A service that refuses a number without need is read from the horizon, without what was read before."""
    bench.put(2)
    bench.step()
    more = bench.put(2)
    open_iterator = bench.kinesis.get_shard_iterator

    def refusing(stream: str, shard_id: str, position: StartingPosition) -> str:
        if position.sequence_number:
            raise PositionTrimmed("StartingSequenceNumber is invalid")
        return open_iterator(stream, shard_id, position)

    bench.kinesis.get_shard_iterator = refusing  # type: ignore[method-assign]
    bench.clock.manual.advance(301)
    assert settled(bench, 5) == more


def test_nothing_behind_a_gap_that_is_not_told_yet_counts_as_seen(bench: Bench) -> None:
    """Empty responses on the way to the next record do not hide the gap from a reader that starts again in between."""
    bench.put(1)
    bench.step()
    reach = bench.consumer.reach
    bench.put(2)
    bench.clock.manual.advance(DAY + 3_600)
    left = bench.put(1)
    bench.model.gap("orders", SHARD, calls=2)
    bench.clock.manual.advance(10)
    bench.step()
    assert bench.consumer.reach == reach
    assert settled(bench) == left
    assert len(bench.sink.gaps) == 1


def test_children_know_up_to_when_their_parent_was_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trimmed from a child before its turn is a gap too: it counts from the end of its parent."""
    monkeypatch.setattr(Scheduler, "_spawn", lambda *_args: None)
    scheduler = Scheduler(bench.consumer._plan, bench.sink, on_done=lambda _error: None)
    scheduler._start_runnable()
    (parent,) = scheduler._consumers.values()
    bench.put(1)
    parent.step()
    split = {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)}
    bench.model.call("SplitShard", split)
    bench.clock.manual.advance(60)
    while parent.step() is not None:
        bench.clock.manual.advance(1)
    scheduler._finished(parent)
    children = [consumer for consumer in scheduler._consumers.values() if consumer is not parent]
    assert parent.reach is not None
    assert [child.reach for child in children] == [parent.reach] * 2


def test_shard_that_left_the_stream_is_told_and_its_children_run(bench: Bench) -> None:
    """A closed shard that is gone with what was not read yet is a gap, and the end of that shard."""
    bench.put(1)
    bench.step()
    bench.put(2)
    split = {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)}
    bench.model.call("SplitShard", split)
    bench.clock.manual.advance(3 * DAY)
    for _ in range(10):
        if bench.step() is None:
            break
    assert bench.consumer.state is ShardState.ENDED
    assert [gap.reason for gap in bench.sink.gaps] == ["shard expired"]
    assert bench.sink.finished == [SHARD, "shardId-000000000001", "shardId-000000000002"]


def test_shard_that_left_the_stream_unread_is_lost_from_its_start(bench: Bench) -> None:
    """What a shard held that had to wait for days, and of whose past nothing is known, may be older than the wait."""
    bench.put(1)
    split = {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)}
    bench.model.call("SplitShard", split)
    bench.clock.manual.advance(3 * DAY)
    for _ in range(10):
        if bench.step() is None:
            break
    assert [(gap.reason, gap.seen) for gap in bench.sink.gaps] == [("shard expired", None)]


def test_deleted_stream_ends_the_reading(bench: Bench) -> None:
    """A stream that is deleted while it is read is an error that says so, after a moment and not for ever."""
    bench.put(1)
    bench.step()
    bench.model.call("DeleteStream", {"StreamName": "orders"})
    with pytest.raises(StreamNotFound):
        settled(bench, 10)


def test_stream_made_again_is_not_mixed_with_the_old_one(bench: Bench) -> None:
    """A stream of the same name and the same shard ids is another one: reading ends before its first record."""
    bench.put(1)
    bench.step()
    bench.model.call("DeleteStream", {"StreamName": "orders"})
    bench.clock.manual.advance(60)
    bench.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    bench.put(5)
    with pytest.raises((StreamNotFound, ServiceError), match=r"made again|did not come from"):
        settled(bench, 10)
    assert bench.sink.data == ["0"]


def test_stream_made_again_is_told_though_nothing_was_read(bench: Bench) -> None:
    """Without a sequence number that the service could refuse, the shard's own first number tells the new stream."""
    bench.step()
    bench.model.call("DeleteStream", {"StreamName": "orders"})
    bench.clock.manual.advance(60)
    bench.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    bench.put(5)
    with pytest.raises(StreamNotFound, match="made again"):
        settled(bench, 10)
    assert bench.sink.data == []


def test_listed_shard_that_is_not_found_is_tried_three_times(bench: Bench) -> None:
    """A lookup that contradicts the listing is a hiccup at first, and an error when it stays."""
    bench.step()
    calls = []

    def not_found(stream: str, shard: Shard, iterator: str, limit: int) -> None:
        calls.append(shard.shard_id)
        raise StreamNotFound("no such shard")

    bench.kinesis.get_records = not_found  # type: ignore[method-assign,assignment]
    with pytest.raises(StreamNotFound, match="no such shard"):
        settled(bench, 20)
    assert len(calls) == 4
