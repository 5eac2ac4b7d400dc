"""A thousand children at once: their threads start as those before have opened their shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.reading import scheduler
from kinesis_nb.reading.consumer import ShardConsumer, ShardState
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.scheduler import Scheduler
from tests.conftest import Streams, by_key, written_by_key
from tests.support.virtual import ListSink, world

if TYPE_CHECKING:
    from collections.abc import Callable

    import kinesis_nb as kn

WAVE, SHARDS = 16, 80


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ShardConsumer]:
    """The consumers that got a thread, which does nothing."""
    started: list[ShardConsumer] = []

    def spawn(_self: Scheduler, _target: Callable[..., None], _name: str, consumer: ShardConsumer) -> None:
        started.append(consumer)

    monkeypatch.setattr(Scheduler, "_spawn", spawn)
    monkeypatch.setattr(scheduler, "WAVE", WAVE)
    return started


def crowd() -> Scheduler:
    _, clock, kinesis = world(SHARDS)
    feed = ReadPlan(kinesis, "orders", clock, tuple(kinesis.list_shards("orders")))
    return Scheduler(feed, ListSink(StartingPosition.trim_horizon()), on_done=lambda _: None)


def test_no_more_threads_than_can_open_their_shards(started: list[ShardConsumer]) -> None:
    """Each that has opened its shard, or has to wait for it, makes room for another one."""
    crowded = crowd()
    crowded._start_runnable()
    assert len(started) == WAVE
    for consumer in started[:10]:
        consumer.state = ShardState.READING
    crowded._start_next()
    assert len(started) == WAVE + 10
    for consumer in started:
        consumer.state = ShardState.BACKING_OFF
    crowded._start_next()
    assert len(started) == 2 * WAVE + 10
    assert len(crowded.stats()) == SHARDS


def test_a_wave_that_waits_holds_nobody_back(started: list[ShardConsumer]) -> None:
    """Shards that wait for others, which other writers read, may be waited for by those."""
    crowded = crowd()
    crowded._start_runnable()
    for number in range(2, 6):
        crowded._start_wave()
        assert len(started) == number * WAVE
    crowded._start_wave()
    assert {consumer.shard.shard_id for consumer in started} == {stats.shard_id for stats in crowded.stats()}


def test_all_of_them_are_read(source: kn.Source, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many more shards than threads may start at a time, and their children."""
    monkeypatch.setattr(scheduler, "WAVE", 2)
    streams.create(shards=12)
    streams.put(60, keys=40)
    streams.split(index=3)
    streams.put(60, keys=40)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
