"""Records that open to much more than they are: delivered part by part, in bounded memory, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import closing
from functools import partial
from itertools import chain, pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.core import compression
from kinesis_nb.core.compression import decompressed
from kinesis_nb.core.frames import SCHEMA, UNKNOWN_LAG, Batch
from kinesis_nb.core.halt import Halt
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.errors import Closed, ServiceError
from kinesis_nb.reading import pace
from kinesis_nb.reading.consumer import ShardConsumer
from kinesis_nb.reading.pace import SharedQuota
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.wire.aggregation import MOST_RECORDS, pack, unpack
from tests.support.calls import Stage
from tests.support.kpl import content, number, sealed
from tests.support.virtual import ListSink, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.emulator import Model

MIB = 2**20
MANY = SharedQuota(lambda: 1_000)  # of so many shards each opens a MiB at a time
TEXTS = [[f"{i}-{j}-{Random(1_000 * i + j).randbytes(20).hex()}" + "x" * 1_000 for j in range(700)] for i in range(5)]
TWO_MIB = b"".join(Random(i).randbytes(20).hex().encode() + b"x" * 984 for i in range(2_048))
PACKED = {
    "aggregates": [pack("k", [text.encode() for text in texts]) for texts in TEXTS],
    "gzip": [gzip.compress("".join(texts).encode()) for texts in TEXTS],
    "aggregates of gzip": [pack("k", [gzip.compress(text.encode()) for text in texts]) for texts in TEXTS],
    "some of them plain": [
        b"first",
        gzip.compress(TWO_MIB),
        gzip.compress(TWO_MIB[1:]),
        pack("k", [b"a", b"b"]),
        b"last",
    ],
}


class PartSink(ListSink):
    """Keeps the parts as well; fails before each of `fails_at`."""

    def __init__(self) -> None:
        super().__init__(StartingPosition.trim_horizon())
        self.parts: list[Batch] = []
        self.fails_at: set[int] = set()

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        if len(self.parts) in self.fails_at:
            self.fails_at.discard(len(self.parts))
            raise ServiceError("the sink is away", retryable=True)
        self.parts.append(batch)
        return super().deliver(shard, batch)


def reader(records: list[bytes]) -> tuple[ShardConsumer, PartSink]:
    """Return a consumer of a stream with these records, one of many."""
    model, clock, kinesis = world()
    for data in records:
        model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": data})
    (shard,) = kinesis.list_shards("orders")
    sink = PartSink()
    feed = ReadPlan(kinesis, "orders", clock, (shard,), unpack=decompressed)
    return ShardConsumer(feed, shard, sink, MANY), sink


@pytest.mark.parametrize("kind", PACKED)
def test_a_response_is_opened_part_by_part(kind: str) -> None:
    """All rows come, in order; a part holds whole records, and only the last one says how the response ends."""
    consumer, sink = reader(PACKED[kind])
    consumer.step()
    whole = sink.data
    assert len(sink.parts) > 1
    *parts, last = sink.parts
    assert all(part.is_part and part.millis_behind_latest == UNKNOWN_LAG for part in parts)
    assert (last.is_part, last.millis_behind_latest) == (False, 0)
    assert last.next_iterator
    numbers = [part.rows.column("sequence_number").to_pylist() for part in sink.parts]
    assert all(set(before).isdisjoint(after) for before, after in pairwise(numbers))
    for part, own in zip(sink.parts, numbers, strict=True):
        assert (part.read_from, part.read_to) == (own[0], own[-1])
        assert part.rows.get_total_buffer_size() < 5 * MIB
    assert consumer.stats().records == len(whole) == len(set(whole))
    everything = "".join(chain.from_iterable(TEXTS))
    assert "".join(whole) == everything if kind != "some of them plain" else whole[-3:] == ["a", "b", "last"]


@pytest.mark.parametrize("kind", PACKED)
def test_a_part_that_was_refused_is_read_again_alone(kind: str) -> None:
    """Whatever fails between two parts: none of the rows before it comes twice, and none after it is missing."""
    consumer, sink = reader(PACKED[kind])
    consumer.step()
    assert sink.parts
    for place in range(len(sink.parts)):
        again, refused = reader(PACKED[kind])
        refused.fails_at = {place}
        again.step()
        assert len(refused.parts) == place
        assert again.stats().error == "the sink is away"
        while not (refused.parts and not refused.parts[-1].is_part):
            again.step()
        assert refused.data == sink.data


def test_a_shard_that_gave_enough_opens_no_more() -> None:
    """A sink that wants no more ends it in the middle of a response."""
    consumer, sink = reader(PACKED["gzip"])
    deliver = sink.deliver
    sink.deliver = lambda shard, batch: deliver(shard, batch) and False  # type: ignore[method-assign]
    assert consumer.step() is None
    assert len(sink.parts) == 1


def test_an_aggregate_of_more_than_any_producer_writes_stays_packed() -> None:
    """What fits in the largest aggregate of KPL is opened; with one more user record the record is kept as it is."""
    key, record = content(1, b"k"), content(3, number(1, 0) + content(3, b""))
    most = unpack(sealed(key + record * MOST_RECORDS))
    assert most is not None
    assert len(most) == MOST_RECORDS
    bomb = sealed(key + record * (MOST_RECORDS + 1))
    assert unpack(bomb) is None
    assert len(sealed(key + record * (MOST_RECORDS - 20))) <= MIB
    consumer, sink = reader([b"before", pack("k", [b"1"])])
    model = consumer._plan.kinesis.model  # type: ignore[attr-defined]
    model.call("UpdateMaxRecordSize", {"StreamARN": _arn(model), "MaxRecordSizeInKiB": 2_048})
    model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": bomb})
    consumer.step()
    rows = [row for part in sink.parts for row in part.rows.to_pylist()]
    assert [row["data_raw"] for row in rows] == [None, None, bomb]


def _arn(model: Model) -> str:
    return model.call("DescribeStreamSummary", {"StreamName": "orders"})["StreamDescriptionSummary"]["StreamARN"]


def test_the_user_records_of_one_aggregate_share_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that would be too much together stay as they came: one record of a stream opens to so much at most."""
    monkeypatch.setattr(compression, "MOST_BYTES", 25_000)
    texts = [gzip.compress(TWO_MIB[i * 10_000 : (i + 1) * 10_000]) for i in range(4)]
    consumer, sink = reader([pack("k", texts), gzip.compress(TWO_MIB[:20_000])])
    consumer.step()
    rows = [row for part in sink.parts for row in part.rows.to_pylist()]
    assert [row["data_raw"] for row in rows] == [None, None, texts[2], texts[3], None]


def test_one_shard_at_a_time_opens_what_may_be_large() -> None:
    """Another one waits until its parts are delivered, and can be stopped meanwhile; text waits for nobody."""
    consumer, _ = reader(PACKED["gzip"])
    feed, kinesis = consumer._plan, consumer._plan.kinesis
    iterator = kinesis.get_shard_iterator("orders", consumer.shard.shard_id, StartingPosition.trim_horizon())
    answer = kinesis.get_records("orders", consumer.shard, iterator, 10)
    halt, ended, begun = Halt(), [], threading.Event()

    def other() -> None:
        parts_of_other = feed.parts(answer, MIB // 4)
        with halt.obeyed():
            begun.set()
            with pytest.raises(Closed) as raised:
                next(parts_of_other)
        ended.append(raised.value)

    thread = threading.Thread(target=other)
    with closing(feed.parts(answer, MIB // 4)) as parts:
        next(parts)
        thread.start()
        assert begun.wait(5)
        plain = Batch(answer.rows.slice(0, 0), "i", 0)
        assert list(feed.parts(plain, MIB)) == [plain]
        halt.set()
        thread.join(5)
    assert ended
    assert next(feed.parts(answer, MIB // 4)).rows.num_rows  # it is free again


def test_a_sync_that_dies_between_two_parts_has_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table holds whole records only, and the next call continues behind the last of them."""
    monkeypatch.setattr(pace, "PART_BYTES", 1)
    stage = Stage(tmp_path)
    numbers = iter(range(1_000))
    for _ in range(6):
        users = [json.dumps({"n": next(numbers)}).encode() for _ in range(3)]
        stage.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": pack("k", users)})
    for deliveries in (1, 2):
        call = stage.call()
        call.intake.deliver = partial(  # type: ignore[method-assign]
            _deliver_some, call.intake.deliver, iter(range(deliveries))
        )
        with pytest.raises(Closed):
            stage.until(lambda: False)
        call.commit()
        call.die()
        stage.clock.sleep(10.0)
        assert len(stage.numbers()) % 3 == 0
    assert stage.numbers() == list(range(9))
    call = stage.writer()
    stage.sleep(5.0)
    assert stage.numbers() == list(range(18))


def _deliver_some(deliver: Callable[[Shard, Batch], bool], left: Iterator[object], shard: Shard, batch: Batch) -> bool:
    if batch.rows.num_rows and next(left, None) is None:
        raise Closed("killed")
    return deliver(shard, batch)


def test_schema_of_parts() -> None:
    """Parts have the columns of every other batch."""
    for records in PACKED.values():
        consumer, sink = reader(records)
        consumer.step()
        assert {part.rows.schema for part in sink.parts} == {SCHEMA}
