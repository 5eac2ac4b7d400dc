"""Every pair of a phase and an event: where a consumer goes from there, or that it cannot happen."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.errors import ServiceError, StreamNotFound
from kinesis_nb.reading import consumer
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.reading.phase import TRANSITIONS, ShardEvent, ShardPhase, after
from tests.support.virtual import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard

SHARD = "shardId-000000000000"
AWAY = ServiceError("away", retryable=True)
Pair = tuple[ShardPhase, ShardEvent]


def hide_the_iterator(bench: Bench) -> None:
    """Let responses have no next iterator, though the shard is open."""
    get_records = bench.kinesis.get_records

    def without_iterator(stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        batch = get_records(stream, shard, iterator, limit)
        return replace(batch, next_iterator=None, millis_behind_latest=0)

    bench.kinesis.get_records = without_iterator  # type: ignore[method-assign]


def answer_listings(bench: Bench, *answers: Exception | Callable[[list[Shard]], list[Shard]]) -> None:
    """Let each listing fail, or be changed, in turn; the last response holds for all that follow."""
    list_shards, left = bench.kinesis.list_shards, list(answers)

    def listed(stream: str) -> list[Shard]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(list_shards(stream))

    bench.kinesis.list_shards = listed  # type: ignore[method-assign]


def as_it_is(listing: list[Shard]) -> list[Shard]:
    return listing


def without_the_shard(listing: list[Shard]) -> list[Shard]:
    return [replace(listing[0], shard_id="shardId-000000000009", starting_sequence_number="1")]


def split(bench: Bench) -> None:
    bench.model.call("SplitShard", {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)})


def not_wanted(bench: Bench) -> None:
    bench.sink.position = lambda shard: None  # type: ignore[method-assign,assignment,return-value]


def enough(bench: Bench) -> None:
    bench.sink.deliver = lambda shard, batch: False  # type: ignore[method-assign]


def enough_at_the_end(bench: Bench) -> None:
    enough(bench)
    hide_the_iterator(bench)


def not_found(bench: Bench) -> None:
    bench.kinesis.faults = [StreamNotFound("no such shard")]


def end_unconfirmed(bench: Bench) -> None:
    hide_the_iterator(bench)
    answer_listings(bench, AWAY)


def end_unproven(bench: Bench) -> None:
    hide_the_iterator(bench)


def lost_at_the_end(bench: Bench) -> None:
    hide_the_iterator(bench)
    answer_listings(bench, StreamNotFound("no such stream"), AWAY)


def listed_after_all(bench: Bench) -> None:
    not_found(bench)
    answer_listings(bench, as_it_is)


def unlisted(bench: Bench) -> None:
    not_found(bench)
    answer_listings(bench, without_the_shard)


def listed_after_all_at_the_end(bench: Bench) -> None:
    hide_the_iterator(bench)
    answer_listings(bench, StreamNotFound("no such stream"), as_it_is, AWAY)


def unlisted_at_the_end(bench: Bench) -> None:
    hide_the_iterator(bench)
    answer_listings(bench, StreamNotFound("no such stream"), without_the_shard)


HOW: dict[Pair, tuple[Callable[[Bench], None], int, ShardPhase]] = {
    (ShardPhase.READ, ShardEvent.NOT_WANTED): (not_wanted, 1, ShardPhase.ENDED),
    (ShardPhase.READ, ShardEvent.MORE_FOLLOWS): (lambda _bench: None, 1, ShardPhase.READ),
    (ShardPhase.READ, ShardEvent.NO_ITERATOR): (end_unconfirmed, 1, ShardPhase.CONFIRM_END),
    (ShardPhase.READ, ShardEvent.ENOUGH): (enough, 1, ShardPhase.GAVE_ENOUGH),
    (ShardPhase.READ, ShardEvent.NOT_FOUND): (not_found, 1, ShardPhase.FIND_SHARD),
    (ShardPhase.CONFIRM_END, ShardEvent.ENOUGH): (enough_at_the_end, 1, ShardPhase.GAVE_ENOUGH),
    (ShardPhase.CONFIRM_END, ShardEvent.END_UNPROVEN): (end_unproven, 1, ShardPhase.READ),
    (ShardPhase.CONFIRM_END, ShardEvent.END_PROVEN): (split, 2, ShardPhase.ENDED),
    (ShardPhase.CONFIRM_END, ShardEvent.NOT_FOUND): (lost_at_the_end, 1, ShardPhase.FIND_ENDED_SHARD),
    (ShardPhase.FIND_SHARD, ShardEvent.LISTED): (listed_after_all, 2, ShardPhase.READ),
    (ShardPhase.FIND_SHARD, ShardEvent.UNLISTED): (unlisted, 2, ShardPhase.EXPIRED),
    (ShardPhase.FIND_ENDED_SHARD, ShardEvent.LISTED): (listed_after_all_at_the_end, 2, ShardPhase.CONFIRM_END),
    (ShardPhase.FIND_ENDED_SHARD, ShardEvent.UNLISTED): (unlisted_at_the_end, 2, ShardPhase.EXPIRED),
}
"""What makes a consumer meet a pair, in which of its steps, and the phase that follows."""


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """What a consumer met, in order."""
    pairs: list[Pair] = []

    def noted(phase: ShardPhase, event: ShardEvent) -> ShardPhase:
        pairs.append((phase, event))
        return after(phase, event)

    monkeypatch.setattr(consumer, "after", noted)
    return pairs


@pytest.mark.parametrize(("phase", "event"), [*product(ShardPhase, ShardEvent)], ids=lambda value: value.name)
def test_pair(phase: ShardPhase, event: ShardEvent, met: list[Pair]) -> None:
    """A pair that can happen leads where it should, in a real consumer; any other one is an error, not a guess."""
    if (phase, event) not in HOW:
        with pytest.raises(KeyError):
            after(phase, event)
        return
    arrange, steps, to = HOW[phase, event]
    bench = Bench()
    bench.put(1)
    arrange(bench)
    for _ in range(steps):
        bench.step()
    assert met[-1] == (phase, event)
    assert bench.consumer.phase is to
    assert (bench.consumer.state is ShardState.ENDED) == bench.consumer.phase.is_over


def test_every_phase_can_be_left() -> None:
    """From every phase but the last ones an end can be reached, and from those nothing follows."""
    leads = {phase: {to for (start, _), to in TRANSITIONS.items() if start is phase} for phase in ShardPhase}
    for phase in ShardPhase:
        reached, new = {phase}, {phase}
        while new:
            new = set().union(*(leads[found] for found in new)) - reached
            reached |= new
        assert any(found.is_over for found in reached)
        assert phase.is_over == (not leads[phase])
