"""Rows of many shards in order of arrival."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest

from kinesis_nb.core import frames
from kinesis_nb.core.frames import SCHEMA, Records
from kinesis_nb.core.shards import Shard
from kinesis_nb.reading.arrival import ArrivalOrder

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
        self._order.expect(children)
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
    """Every row is there once, by arrival, behind those of its shard and its parents."""
    roots = [Shard(f"shardId-{n:012d}", (), ALL) for n in range(3)]
    order = ArrivalOrder(roots)
    lineage = _Lineage(seed, order, roots)
    for _ in range(80):
        lineage.step()
    rows = order.take()
    found = list(zip(rows["shard_id"], map(int, rows["sequence_number"]), strict=True))
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
    """The text of the rows stays where it is while they are put in order, and goes with the last who holds them."""
    shards = [Shard(f"shardId-{n:012d}", (), ALL) for n in range(4)]
    order = ArrivalOrder(shards)
    for turn in range(40):
        for shard in shards:
            order.add(shard, _rows(shard, [1_000 * turn + n for n in range(50)], 50 * turn, "x" * 1_000))
    held = pool.bytes_allocated()
    assert held > 8_000_000
    before = pool.max_memory()
    rows = order.take()
    assert len(rows) == 40 * 4 * 50
    assert rows.estimated_size() < 1.2 * held
    assert pool.max_memory() < 1.1 * before
    del rows
    assert pool.bytes_allocated() < 0.1 * held


@pytest.mark.parametrize("has_more", [True, False])
@pytest.mark.parametrize("between", [0, 1, 100], ids=["one shard has rows", "side by side", "one after the other"])
def test_rows_keep_all_that_they_hold(between: int, *, has_more: bool) -> None:
    """Each row keeps its shard, its place in an aggregate and its bytes, whether it moves or not."""
    shards = [Shard(f"shardId-{n:012d}", (), ALL) for n in range(3)]
    order = ArrivalOrder(shards)
    given = []
    for number, shard in enumerate(shards if between else shards[1:2]):
        rows = _rows(shard, [3 * place + between * number for place in range(5)], 10 * number).to_pylist()
        for place, row in enumerate(rows):
            row |= {"partition_key": None if place == 1 else f"k{place}", "data": f"{number} {place}"}
            if has_more:
                row |= {"sub_sequence_number": place % 2, "data_raw": bytes([255, place]) if number % 2 else None}
        order.add(shard, pa.RecordBatch.from_pylist(rows, SCHEMA))
        given += rows
    assert order.take().to_dicts() == sorted(given, key=lambda row: row["kinesis_ingestion_timestamp"])


def test_only_the_newest_rows_are_kept() -> None:
    """With a number of rows, no shard holds a batch more than it takes to have so many."""
    shard = Shard("shardId-000000000000", (), ALL)
    order = ArrivalOrder([shard], newest=10)
    for turn in range(20):
        order.add(shard, _rows(shard, [turn] * 4, 4 * turn))
    assert [int(number) for number in order.take()["sequence_number"]] == list(range(68, 80))


@pytest.mark.parametrize("chunk_bytes", [1, 25, 2**30])
def test_records_become_arrow_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    """Rows that polars holds become Arrow's without loss, in chunks that are small enough for Arrow's text."""
    monkeypatch.setattr(frames, "CHUNK_BYTES", chunk_bytes)
    shard = Shard("shardId-000000000000", (), ALL)
    table = pa.Table.from_batches([_rows(shard, [place] * 2, 2 * place, "0123456789"[place:]) for place in range(9)])
    raw = pa.array([None, b"\xff" * 40] * 9, pa.binary())
    table = table.set_column(SCHEMA.get_field_index("data_raw"), "data_raw", raw)
    records = Records(pl.DataFrame(table))
    found = records.to_arrow()
    assert found.equals(table)
    assert found.schema.equals(SCHEMA)
    for chunk in found.to_batches():
        assert chunk.num_rows == 1 or chunk["data"].nbytes + chunk["data_raw"].nbytes < chunk_bytes + 200
    assert list(records) == list(Records(table))
    assert Records(pl.DataFrame(table).clear()).to_arrow().equals(table.slice(0, 0))
