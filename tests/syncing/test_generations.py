"""Shards of which whole generations left the stream before anybody read them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.shards import Shard, ShardTracker
from kinesis_nb.errors import StreamNotFound
from kinesis_nb.reading.plan import Lookup, ReadPlan
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.syncing.ledger import Ledger
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.table import SyncTable
from tests.support.places import ORIGIN
from tests.support.virtual import Bench, VirtualKinesis, world
from tests.support.writers import Parts
from tests.syncing.test_loss import HOUR, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ZERO, ONE, TWO, THREE, FOUR = (f"shardId-{number:012d}" for number in range(5))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    stream = Stream(tmp_path / "t")
    stream.origin = replace(ORIGIN, newest_shard=ZERO)
    return stream


def split(stream: Stream) -> None:
    what = {"StreamName": "orders", "ShardToSplit": ZERO, "NewStartingHashKey": str(2**127)}
    stream.model.call("SplitShard", what)
    stream.sleep(1)


def split_and_merge(stream: Stream) -> None:
    """Make two generations, and let the first of them leave the stream."""
    split(stream)
    merge(stream)


def merge(stream: Stream) -> None:
    """Merge what was split, and let it leave the stream."""
    stream.model.call("MergeShards", {"StreamName": "orders", "ShardToMerge": ONE, "AdjacentShardToMerge": TWO})
    stream.sleep(30)


def test_rows_behind_lost_generations_come_after_those_before(stream: Stream) -> None:
    """A key's rows stay in order though nobody ever saw the shards between its first and its last one."""
    stream.put(1, 2)
    stream.sync()
    split_and_merge(stream)
    stream.put(3, 4)
    sync = stream.sync("warn")
    assert stream.numbers() == [1, 2, 3, 4]
    verdict = sync.verify()
    assert verdict
    assert len(verdict.lost) >= 3


def test_a_known_shard_that_was_never_read_is_an_orphan_too(stream: Stream) -> None:
    """A shard that an earlier call took, and did not come to read, still lacks the generations before it."""
    stream.put(1, 2)
    stream.sync()
    split_and_merge(stream)
    SyncTable.open(stream.table, stream.origin).acquire([THREE])
    stream.put(3, 4)
    assert stream.sync("warn").verify()
    assert stream.numbers() == [1, 2, 3, 4]


def test_an_unread_shard_is_lost_from_its_first_record_on(stream: Stream) -> None:
    """What was seen of its sibling, which was read for longer, says nothing of a shard that came and went unseen."""
    stream.put(1)
    stream.sync()
    split(stream)
    stream.put(2)
    born = stream.clock.now()
    stream.sleep(1)
    sync_all_but(stream, TWO)
    assert (SyncTable.open(stream.table, stream.origin).checkpoints([ONE])[ONE].seen or born) > born
    merge(stream)
    stream.put(3)
    stream.sync("warn")
    (gap,) = SyncTable.open(stream.table, stream.origin).gaps([TWO])
    assert gap.seen is None or gap.seen < born
    assert stream.numbers() == [1, 3]


def sync_all_but(stream: Stream, shard_id: str) -> None:
    """Sync as a part of a job does that is left alone by the one that has a shard."""
    kinesis = VirtualKinesis(stream.model, stream.clock)
    feed = ReadPlan(kinesis, "orders", stream.clock, (), lambda shard: shard.shard_id != shard_id)
    sync = Sync(feed, SyncTable.open(stream.table, stream.origin), 0.05, "fail")
    sync.start()
    assert sync.wait()
    sync.stop()


class Relisting(VirtualKinesis):
    """A transport whose listings are of different ages."""

    gone: Sequence[Shard] = ()

    def list_shards(self, stream: str) -> list[Shard]:
        return [*self.gone, *super().list_shards(stream)]


def test_an_ended_shard_that_is_listed_again_is_not_read_again(stream: Stream) -> None:
    """A running sync that began when a shard had left the stream goes on when an older listing shows that one again."""
    stream.put(1)
    split(stream)
    stream.put(2)
    for hours in (20, 10):  # never away for longer than the retention
        stream.sync()
        stream.sleep(hours)
    kinesis = Relisting(stream.model, stream.clock)
    feed = ReadPlan(kinesis, "orders", stream.clock, ())
    sync = Sync(feed, SyncTable.open(stream.table, stream.origin), 0.05, "fail")
    sync.start()
    assert sync.wait()
    assert {shard.shard_id for shard in sync.status().shards} == {ONE, TWO}
    kinesis.gone = [Shard(ZERO)]
    sync.list_now()
    while sync.is_active and ZERO not in {shard.shard_id for shard in sync.status().shards}:
        threading.Event().wait(0.01)
    stream.put(3)
    assert sync.wait()
    sync.stop()
    assert stream.numbers() == [1, 2, 3]
    assert sync.verify()


def test_an_orphan_waits_for_the_ancestor_that_is_being_read() -> None:
    """A running reader does not begin a shard before older ones of its keys, though its parents are not listed."""
    left, right = Shard("a", hash_range=(0, 49)), Shard("b", hash_range=(50, 99))
    tracker = ShardTracker()
    tracker.observe([left, right])
    tracker.start_runnable()
    tracker.observe([Shard("x", ("u",), (0, 49)), Shard("y", ("v",), (50, 99))])
    assert tracker.start_runnable() == []
    tracker.finish("a")
    assert [shard.shard_id for shard in tracker.start_runnable()] == ["x"]


def test_a_child_that_had_ended_is_not_committed_again() -> None:
    """A parent whose loss is told late leaves a child alone that is in the table to its end."""
    ledger = Ledger()
    ledger.own(["a", "b"], ["b"], {"a": Checkpoint(offset=3)})
    ledger.end("a", (Shard("b", ("a",)), Shard("c", ("a",))))
    prepared = ledger.prepare(ledger.pending(list), datetime(2026, 11, 1, tzinfo=UTC), 24)
    assert prepared.checkpoints.keys() == {"a", "c"}


def test_a_child_counts_on_from_a_parent_that_did_not_know_it() -> None:
    """Rows that a parent gave after its child was owned count, also when the parent left the stream."""
    ledger = Ledger()
    ledger.own(["a", "b"], [], {"a": Checkpoint(offset=3, sequence_number="7", ended=True), "b": Checkpoint()})
    ledger.inherit(Shard("b", ("a",)), {})
    assert ledger.reached("b").offset == 3


def test_a_part_waits_for_whoever_tells_what_was_lost_of_a_parent(tmp_path: Path) -> None:
    """A child is not read before the writer that owns its parent, which left the stream unread, has ended it."""
    stream = Stream(tmp_path / "t")
    split_and_merge(stream)
    table = SyncTable.open(stream.table, ORIGIN)
    table.acquire([ONE, TWO])
    kinesis = Bench().kinesis
    kinesis.model, kinesis.clock = stream.model, stream.clock
    feed = ReadPlan(kinesis, "orders", stream.clock, (), lambda shard: shard.shard_id == THREE)
    own = SyncTable.open(stream.table, ORIGIN)
    parts = Parts(feed, own, "run")
    (child,) = [shard for shard in kinesis.list_shards("orders") if shard.shard_id == THREE]
    assert parts.ownership.make_ready([child]) == set()
    table.commit(None, {ONE: Checkpoint(offset=2, ended=True), TWO: Checkpoint(ended=True)})
    assert parts.ownership.make_ready([child]) == {THREE}
    assert parts.ledger.reached(THREE).offset == 2


def test_a_part_waits_until_it_has_ended_what_an_orphan_may_have_come_out_of(stream: Stream) -> None:
    """The parents of a shard are another part's to tell, and older ones this part's: its rows come after theirs."""
    table = SyncTable.open(stream.table, stream.origin)
    table.acquire([ZERO])
    table.commit(None, {ZERO: Checkpoint(offset=3, sequence_number="7")})
    split(stream)
    what = {"StreamName": "orders", "ShardToSplit": ONE, "NewStartingHashKey": str(2**126)}
    stream.model.call("SplitShard", what)
    stream.sleep(30)
    kinesis = VirtualKinesis(stream.model, stream.clock)
    feed = ReadPlan(kinesis, "orders", stream.clock, (), lambda shard: shard.shard_id in {TWO, FOUR})
    own = SyncTable.open(stream.table, stream.origin)
    parts = Parts(feed, own, "run")
    parts.ownership.take_all(RetryingLookups(kinesis, stream.clock))
    assert parts.ledger.owned == {ZERO, TWO, FOUR}
    (child,) = [shard for shard in kinesis.list_shards("orders") if shard.shard_id == FOUR]
    assert parts.ownership.make_ready([child]) == set()
    own.commit(None, {ZERO: Checkpoint(offset=3, ended=True)})
    assert parts.ownership.make_ready([child]) == {FOUR}
    assert parts.ledger.reached(FOUR).offset == 3


def test_a_child_whose_parent_another_part_is_about_to_own_is_no_orphan(stream: Stream) -> None:
    """Its rows count on from those of its parent, and not from those of an older shard that it did not come out of."""
    split(stream)
    for shard_id, middle in ((TWO, 3 * 2**126), (ONE, 2**126)):
        what = {"StreamName": "orders", "ShardToSplit": shard_id, "NewStartingHashKey": str(middle)}
        stream.model.call("SplitShard", what)
        stream.sleep(0.01)
    table = SyncTable.open(stream.table, stream.origin)
    table.acquire([ZERO, TWO])
    table.commit(None, {ZERO: Checkpoint(offset=3, ended=True), TWO: Checkpoint(offset=8, ended=True)})
    kinesis = VirtualKinesis(stream.model, stream.clock)
    (child,) = [shard for shard in kinesis.list_shards("orders") if shard.parents == (ONE,) and not shard.hash_range[0]]
    feed = ReadPlan(kinesis, "orders", stream.clock, (), child.__eq__)
    own = SyncTable.open(stream.table, stream.origin)
    parts = Parts(feed, own, "run")
    parts.ownership.take_all(RetryingLookups(kinesis, stream.clock))
    table.acquire([ONE])
    table.commit(None, {ONE: Checkpoint(offset=3, ended=True)})
    assert parts.ownership.make_ready([child]) == {child.shard_id}
    assert parts.ledger.reached(child.shard_id).offset == 3


def test_a_retention_that_was_raised_while_the_machine_slept_hides_nothing(bench: Bench) -> None:
    """Records that left the stream during a sleep are told, though the stream keeps them longer by the time it ends."""
    bench.put(1)
    bench.step()
    bench.consumer._plan.lookup.retention()  # as whoever reads for long asks every minute
    bench.put(2)
    bench.clock.manual.advance(30 * HOUR)
    bench.model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 72})
    bench.put(1)
    for _ in range(5):
        bench.step()
    assert len(bench.sink.gaps) == 1


def test_the_table_remembers_the_retention_of_the_sleep() -> None:
    """What was not read since before a sleep is recorded with the retention of that time, not with the raised one."""
    model, clock, kinesis = world()
    lookup = Lookup(kinesis, "orders", clock)
    lookup.retention()
    seen = clock.now()
    clock.manual.advance(30 * HOUR)
    model.call("IncreaseStreamRetentionPeriod", {"StreamName": "orders", "RetentionPeriodHours": 72})
    lookup.retention()
    assert lookup.trimmed == (clock.now() - timedelta(hours=24), 24)
    ledger = Ledger()
    ledger.own(["a"], [], {"a": Checkpoint()})
    ledger.saw("a", seen)
    ledger.trimmed(*lookup.trimmed)
    prepared = ledger.prepare(ledger.pending(list), clock.now(), lookup.known_hours)
    assert prepared.checkpoints["a"].kept == 24


def test_a_reader_whose_stream_was_made_again_says_so(bench: Bench) -> None:
    """A shard that a smaller stream of the same name never had is no loss: the reader ends with StreamNotFound."""
    bench.consumer.shard = replace(bench.consumer.shard, shard_id=THREE)
    bench.kinesis.get_shard_iterator = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(StreamNotFound, match="made again"):
        for _ in range(20):
            bench.step()
    assert bench.sink.gaps == []


def refuse(*_what: object) -> str:
    raise StreamNotFound("no such shard")


def test_shards_of_a_smaller_stream_are_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing without the newest known shard, and none newer, adds nothing: it is stale, or of another stream."""
    monkeypatch.setattr(Scheduler, "_spawn", lambda *_args: None)
    feed = replace(bench.consumer._plan, shards=(Shard(THREE),))
    scheduler = Scheduler(feed, bench.sink, on_done=lambda _error: None)
    scheduler._observe([Shard(ZERO), Shard(ONE)])
    assert scheduler.unfinished() == {THREE}
    scheduler._observe([Shard("shardId-000000000004", (THREE,))])
    assert len(scheduler.unfinished()) == 2
