"""Rows of many shards in order of arrival."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from kinesis_nb.arrival import ArrivalOrder, Run, merge
from kinesis_nb.frames import SCHEMA
from kinesis_nb.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = (0, 2**128 - 1)
SEEDS = range(60)


def _rows(shard: Shard, arrivals: list[int], first: int, text: str = "") -> pa.RecordBatch:
    """Return rows that arrived at those milliseconds, numbered in the order of their shard."""
    now = datetime.now(UTC)
    return pa.RecordBatch.from_pylist(
        [
            {
                "partition_key": "k",
                "data": text,
                "kinesis_ingestion_timestamp": datetime.fromtimestamp(arrival / 1_000, UTC),
                "foundry_ingestion_timestamp": now,
                "shard_id": shard.shard_id,
                "sequence_number": str(first + place),
                "sub_sequence_number": 0,
            }
            for place, arrival in enumerate(arrivals)
        ],
        SCHEMA,
    )


@pytest.mark.parametrize("piece_bytes", [1, 500, 10**9])
def test_merging_piece_by_piece_changes_nothing(piece_bytes: int) -> None:
    """Rows come in the order of their keys, equal ones in the order of the runs, however small the pieces."""
    rng = random.Random(5)
    keys = [np.sort(np.array([rng.randrange(50) for _ in range(rng.randrange(60))], np.int64)) for _ in range(7)]
    tables = [pa.table({"key": key, "run": [n] * len(key), "row": range(len(key))}) for n, key in enumerate(keys)]
    runs = [Run(table, key) for table, key in zip(tables, keys, strict=True)]
    merged = pa.concat_tables(merge(runs, piece_bytes)).to_pylist()
    expected = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["key"])
    assert merged == expected


class _Lineage:
    """A random history of shards that are read side by side and split now and then."""

    def __init__(self, seed: int, order: ArrivalOrder, roots: list[Shard]) -> None:
        self._rng, self._order = random.Random(seed), order
        self._running, self._count = dict.fromkeys(roots, 0), len(roots)
        self._now = 1_000
        self.parents = {shard.shard_id: shard.parents for shard in roots}
        self.rows: list[tuple[str, int, int]] = []  # shard, number, arrival

    def step(self) -> None:
        """Deliver a batch of some shard, or end it."""
        shard = self._rng.choice(list(self._running))
        if self._rng.random() < 0.15:
            self._end(shard)
            return
        self._now += self._rng.randrange(40)
        arrivals = [self._now - self._rng.randrange(25) for _ in range(self._rng.randrange(6))]
        first = self._running[shard]
        self._order.add(shard, _rows(shard, arrivals, first))
        self.rows += [(shard.shard_id, first + place, arrival) for place, arrival in enumerate(arrivals)]
        self._running[shard] += len(arrivals)

    def _end(self, shard: Shard) -> None:
        children = [Shard(f"shardId-{self._count + n:012d}", (shard.shard_id,), ALL) for n in range(2)]
        self._count += 2
        self.parents.update((child.shard_id, child.parents) for child in children)
        self._order.finish(shard, children)
        del self._running[shard]
        self._running.update(dict.fromkeys(children, 0))

    def key(self) -> dict[tuple[str, int], int]:
        """Return the least key of each row that lets none come before an earlier one of its shard or its parents."""
        latest: dict[str, int] = {}
        keys: dict[tuple[str, int], int] = {}
        for shard_id in sorted(self.parents):  # children have the higher numbers
            floor = max((latest[parent] for parent in self.parents[shard_id]), default=0)
            for _, number, arrival in sorted(row for row in self.rows if row[0] == shard_id):
                floor = keys[shard_id, number] = max(floor, arrival)
            latest[shard_id] = floor
        return keys


@pytest.mark.parametrize("seed", SEEDS)
def test_all_rows_in_order_of_arrival_and_of_their_shards(seed: int) -> None:
    """Every row is there once, by arrival, behind those of its shard and its parents, whatever was ordered early."""
    roots = [Shard(f"shardId-{n:012d}", (), ALL) for n in range(3)]
    order = ArrivalOrder(roots, piece_bytes=random.Random(seed).choice([1, 2_000, 2**24]))
    lineage = _Lineage(seed, order, roots)
    for _ in range(80):
        lineage.step()
    table = order.take()
    found = list(zip(table["shard_id"].to_pylist(), map(int, table["sequence_number"].to_pylist()), strict=True))
    keys = lineage.key()
    assert sorted(found) == sorted(keys)
    assert [keys[row] for row in found] == sorted(keys.values())
    for shard_id in lineage.parents:
        numbers = [number for shard, number in found if shard == shard_id]
        assert numbers == sorted(numbers)
        ends = [place for place, (shard, _) in enumerate(found) if shard in lineage.parents[shard_id]]
        begins = [place for place, (shard, _) in enumerate(found) if shard == shard_id]
        assert not ends or not begins or ends[-1] < begins[0]


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """Arrow's memory, counted from here on."""
    before = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(before)


def test_a_read_does_not_need_the_memory_of_its_rows_twice(pool: pa.MemoryPool) -> None:
    """Rows are put in order while they come, and what they were before is free again."""
    shards = [Shard(f"shardId-{n:012d}", (), ALL) for n in range(4)]
    order = ArrivalOrder(shards, piece_bytes=2**20)
    for turn in range(40):
        for shard in shards:
            order.add(shard, _rows(shard, [1_000 * turn + n for n in range(50)], 50 * turn, "x" * 1_000))
    table = order.take()
    assert table.num_rows == 40 * 4 * 50
    assert table.nbytes > 8_000_000
    assert pool.max_memory() < 1.6 * table.nbytes


def test_a_shard_that_gave_nothing_yet_holds_the_others_back() -> None:
    """Its first row may be the oldest of all."""
    early, late = (Shard(f"shardId-{n:012d}", (), ALL) for n in range(2))
    order = ArrivalOrder([early, late], piece_bytes=1)
    for turn in range(5):
        order.add(late, _rows(late, [5_000 + turn], turn))
    order.add(early, _rows(early, [1_000], 0))
    assert order.take()["shard_id"].to_pylist() == [early.shard_id, *[late.shard_id] * 5]


def test_only_the_newest_rows_are_kept() -> None:
    """With a number of rows, no shard holds a batch more than it takes to have so many."""
    shard = Shard("shardId-000000000000", (), ALL)
    order = ArrivalOrder([shard], newest=10)
    for turn in range(20):
        order.add(shard, _rows(shard, [turn] * 4, 4 * turn))
    assert [int(number) for number in order.take()["sequence_number"].to_pylist()] == list(range(68, 80))
