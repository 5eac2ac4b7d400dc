"""Which shards may be read when."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kinesis_nb.core.shards import MAX_HASH_KEY, Shard, ShardTracker, has_hole, hash_key


def ids(tracker: ShardTracker) -> list[str]:
    return [shard.shard_id for shard in tracker.start_runnable()]


def test_child_waits_for_both_parents() -> None:
    """The child of a merge starts when both parents have ended, not when the first has."""
    tracker = ShardTracker()
    tracker.observe([Shard("a"), Shard("b"), Shard("c", parents=("a", "b"))])
    assert ids(tracker) == ["a", "b"]
    tracker.finish("a")
    assert ids(tracker) == []
    tracker.finish("b")
    assert ids(tracker) == ["c"]


def test_parent_that_left_the_stream_counts_as_ended() -> None:
    """A shard whose parent is not listed any more can be read."""
    tracker = ShardTracker()
    tracker.observe([Shard("c", parents=("gone",))])
    assert ids(tracker) == ["c"]


def test_nothing_starts_twice() -> None:
    """Asking again gives only what became runnable since, and a listing repeated changes nothing."""
    tracker = ShardTracker()
    tracker.observe([Shard("a")])
    assert ids(tracker) == ["a"]
    tracker.observe([Shard("a", ending_sequence_number="5")])
    assert ids(tracker) == []
    tracker.finish("a")
    assert ids(tracker) == []
    assert not tracker.unfinished


def test_stale_listing_takes_nothing_away() -> None:
    """Children known from their parent's end survive a listing that does not have them yet."""
    tracker = ShardTracker()
    tracker.observe([Shard("a")])
    ids(tracker)
    tracker.observe_new([Shard("b", parents=("a",))])
    tracker.observe([Shard("a")])
    tracker.finish("a")
    assert ids(tracker) == ["b"]


def test_child_named_by_one_parent_waits_for_the_other_to_be_listed() -> None:
    """The end of one parent may name a child whose other parent no listing has shown: it is not gone, it is new."""
    tracker = ShardTracker()
    tracker.observe([Shard("a")])
    ids(tracker)
    tracker.finish("a")
    tracker.observe_new([Shard("c", parents=("a", "b"))])
    assert ids(tracker) == []
    assert tracker.awaits_listing
    tracker.observe([Shard("a"), Shard("b"), Shard("c", parents=("a", "b"))])
    assert ids(tracker) == ["b"]
    tracker.finish("b")
    assert ids(tracker) == ["c"]


def test_hash_key_is_md5() -> None:
    """The hash key of a partition key is its MD5 as a number."""
    assert hash_key("a") == 0x0CC175B9C0F1B6A831C399E269772661


@given(st.integers(min_value=0, max_value=10_000))
def test_every_shard_starts_once_and_after_its_parents(seed: int) -> None:
    """Whatever the lineage and the order of endings, each shard starts exactly once and after all its parents."""
    rng = random.Random(seed)
    shards = [Shard("0")]
    for number in range(1, 20):
        parents = rng.sample([shard.shard_id for shard in shards], k=min(len(shards), rng.randint(0, 2)))
        shards.append(Shard(str(number), parents=tuple(parents)))
    tracker, running = ShardTracker(), list[str]()
    ended: set[str] = set()
    tracker.observe(rng.sample(shards, k=len(shards)))
    while tracker.unfinished:
        for shard in tracker.start_runnable():
            assert set(shard.parents) <= ended
            running.append(shard.shard_id)
        done = running.pop(rng.randrange(len(running)))
        assert done not in ended
        ended.add(done)
        tracker.finish(done)
    assert ended == {shard.shard_id for shard in shards}


def test_child_that_left_before_it_was_listed_holds_nothing_up() -> None:
    """A child that a parent named, and that no listing had in time, is gone when its own children are listed."""
    tracker = ShardTracker()
    tracker.observe([Shard("a")])
    tracker.start_runnable()
    tracker.finish("a")
    tracker.observe_new([Shard("c", parents=("a", "b"))])  # nobody knows b
    assert ids(tracker) == []
    tracker.observe([Shard("d", parents=("c",))])
    assert ids(tracker) == ["c"]
    tracker.finish("c")
    assert ids(tracker) == ["d"]


def test_hole_in_a_listing() -> None:
    """Hash keys that belong to no open shard show that a listing is incomplete; a closed shard covers nothing."""
    half = MAX_HASH_KEY // 2
    low, high = Shard("a", hash_range=(0, half)), Shard("b", hash_range=(half + 1, MAX_HASH_KEY))
    assert not has_hole([high, low])
    assert has_hole([low])
    assert has_hole([high])
    assert has_hole([low, replace(high, ending_sequence_number="9")])
    assert has_hole([])
