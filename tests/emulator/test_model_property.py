"""Whatever is put, split, merged, rescaled and read in whatever order: every record once, in order per key."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.test_model_kit import Kit, entry, shard_name

KEYS = [f"key {n}" for n in range(8)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, 7), min_size=1, max_size=12)),
        st.tuples(st.just("fail"), st.integers(1, 3)),
        st.tuples(st.just("split"), st.integers(0, 9)),
        st.tuples(st.just("merge"), st.integers(0, 9)),
        st.tuples(st.just("rescale"), st.integers(1, 6)),
        st.tuples(st.just("read"), st.integers(1, 7)),
        st.tuples(st.just("gap"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.floats(0.0, 20.0)),
    ),
    min_size=15,
    max_size=60,
)


class Reader:
    """Reads a shard's parents before the shard, a few records at a time, and refreshes iterators as they expire."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.read: dict[str, list[int]] = defaultdict(list)
        self.last: dict[str, str] = {}
        self.done: set[str] = set()

    def step(self, limit: int) -> bool:
        """Read once from every shard whose parents are done; return whether anything happened."""
        busy = False
        for shard in self.kit.shards():
            parents = {shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard}
            if shard["ShardId"] not in self.done and parents <= self.done:
                busy = self._read(shard["ShardId"], limit) or busy
        return busy

    def finish(self) -> None:
        """Read until nothing happens any more; a reader that goes round in circles is a failure."""
        assert not all(self.step(1000) for _ in range(500))

    def _read(self, shard_id: str, limit: int) -> bool:
        number = self.last.get(shard_id)
        shard = int(shard_id[-12:])
        if number is None:
            iterator = self.kit.iterator(shard)
        else:
            iterator = self.kit.iterator(shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number)
        answer = self.kit.get(iterator, Limit=limit)
        for record in answer["Records"]:
            self.read[record["PartitionKey"]].append(int(record["Data"]))
            self.last[shard_id] = record["SequenceNumber"]
        if "NextShardIterator" not in answer:
            assert not answer["Records"]
            assert len(answer["ChildShards"]) in (1, 2)
            self.done.add(shard_id)
            return True
        return bool(answer["Records"]) or answer["MillisBehindLatest"] > 0


class Writer:
    """Writes numbered records and remembers those that did not fail, in the order of each key."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.written: dict[str, list[int]] = defaultdict(list)
        self._number = 0

    def put(self, keys: list[int]) -> None:
        """Put one record for each key in one request."""
        entries = []
        for key in keys:
            self._number += 1
            entries.append(entry(str(self._number).encode(), KEYS[key]))
        for sent, result in zip(entries, self.kit.put_many(*entries), strict=True):
            if "ErrorCode" not in result:
                self.written[sent["PartitionKey"]].append(int(sent["Data"]))


def neighbours(kit: Kit) -> list[str]:
    """Return the ids of the open shards by hash key."""
    shards = kit.shards(ShardFilter={"Type": "AT_LATEST"})
    return [s["ShardId"] for s in sorted(shards, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))]


def act(kit: Kit, writer: Writer, reader: Reader, step: tuple[str, Any]) -> None:
    """Do one step, if the stream is in a state for it."""
    what, how = step
    order = neighbours(kit)
    ready = kit.summary()["StreamStatus"] == "ACTIVE"
    if what == "put":
        writer.put(how)
    elif what == "fail":
        kit.model.fail_records("s", how, "InternalFailure")
    elif what == "read":
        reader.step(how)
    elif what == "gap":
        kit.model.gap("s", order[how % len(order)])
    elif what == "wait":
        kit.clock.advance(how)
    elif what == "split" and ready:
        kit.split(int(order[how % len(order)][-12:]))
    elif what == "merge" and ready and len(order) > 1:
        place = how % (len(order) - 1)
        kit.merge(int(order[place][-12:]), int(order[place + 1][-12:]))
    elif what == "rescale" and ready and len(order) <= 2 * how <= 4 * len(order):
        kit.rescale(how)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(steps=steps, transition=st.sampled_from([0.0, 5.0]))
def test_nothing_is_lost_doubled_or_reordered(steps: list[tuple[str, Any]], transition: float) -> None:
    """A reader who follows the lineage gets what was written, in the order of each key."""
    kit = Kit(shards=2, transition_seconds=transition)
    kit.clock.advance(transition)
    writer, reader = Writer(kit), Reader(kit)
    for step in steps:
        act(kit, writer, reader, step)
    reader.finish()
    assert reader.read == writer.written


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_the_shards_always_form_a_whole(steps: list[tuple[str, Any]]) -> None:
    """Open shards cover the hash keys once, and every sequence number is above those of its shard's parents."""
    kit = Kit(shards=2)
    writer, reader = Writer(kit), Reader(kit)
    for step in steps:
        act(kit, writer, reader, step)
    shards = {shard["ShardId"]: shard for shard in kit.shards()}
    still_open = [shards[shard_id]["HashKeyRange"] for shard_id in neighbours(kit)]
    edges = [(int(keys["StartingHashKey"]), int(keys["EndingHashKey"]) + 1) for keys in still_open]
    assert [edge[0] for edge in edges] + [2**128] == [0] + [edge[1] for edge in edges]
    for shard in shards.values():
        start = int(shard["SequenceNumberRange"]["StartingSequenceNumber"])
        for name in ("ParentShardId", "AdjacentParentShardId"):
            if name in shard:
                assert int(shards[shard[name]]["SequenceNumberRange"]["EndingSequenceNumber"]) < start


def test_threads_share_a_model() -> None:
    """Eight threads write while a ninth reshards: every record is there once, in order per key."""
    kit = Kit(shards=2)
    usual = sys.getswitchinterval()

    def write(key: str) -> None:
        for n in range(300):
            kit.put(str(n).encode(), key)

    threads = [threading.Thread(target=write, args=(key,)) for key in KEYS]
    sys.setswitchinterval(1e-6)  # threads take turns within calls, not between them
    try:
        for thread in threads:
            thread.start()
        for count in (4, 3, 2, 4):
            kit.rescale(count)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    reader = Reader(kit)
    reader.finish()
    assert reader.read == {key: list(range(300)) for key in KEYS}
    assert shard_name(0) in reader.done
