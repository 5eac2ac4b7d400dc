"""KPL aggregates: what is unpacked, what stays a plain record, and that no row of one is lost or doubled."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinesis_nb.core.foreign import Dropped, count
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard, hash_key
from kinesis_nb.reading import pace
from kinesis_nb.reading.consumer import ShardConsumer
from kinesis_nb.reading.pace import PART_BYTES
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.wire.aggregation import unpack
from kinesis_nb.wire.batches import decode_batch
from tests.support.kpl import MAGIC, Row, aggregate, content, number, sealed
from tests.support.virtual import ListSink, world

if TYPE_CHECKING:
    from pathlib import Path

    import kinesis_nb as kn
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.types import Foreign
    from tests.conftest import Streams

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HALF = 2**127
LOWER, UPPER = Shard("lower", hash_range=(0, HALF - 1)), Shard("upper", hash_range=(HALF, MAX_HASH_KEY))

KEY, RECORD = content(1, b"k"), content(3, number(1, 0) + content(3, b"x"))

rows_of_any_kind = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256),
        st.none() | st.integers(0, MAX_HASH_KEY),
        st.binary(max_size=300),
    ),
    min_size=1,
    max_size=20,
)


def page(*payloads: bytes, shard: Shard | None = None, foreign: Foreign = "auto") -> Batch:
    """Decode an answer whose records have the numbers 100, 101, …, the keys p0, p1, … and arrived a second apart."""
    records = [
        {
            "SequenceNumber": str(100 + i),
            "Data": base64.b64encode(payload).decode(),
            "ApproximateArrivalTimestamp": NOW.timestamp() + i,
            "PartitionKey": f"p{i}",
        }
        for i, payload in enumerate(payloads)
    ]
    body = json.dumps({"Records": records, "NextShardIterator": "i", "MillisBehindLatest": 0}).encode()
    (batch,) = decode_batch(body, shard or Shard("s"), NOW).parts(PART_BYTES, foreign)
    return batch


def keys_of(shard: Shard, count: int) -> list[str]:
    """Return partition keys that belong to a shard."""
    first, last = shard.hash_range
    keys = [key for key in map(str, range(200)) if first <= hash_key(key) <= last]
    return keys[:count]


def payload_of(batch: Batch) -> bytes:
    """Return the bytes of the only row, wherever they are."""
    (row,) = batch.rows.to_pylist()
    return row["data"].encode() if row["data_raw"] is None else row["data_raw"]


def expected(rows: list[Row]) -> list[tuple[str, int, bytes]]:
    return [(key, hash_key(key) if explicit is None else explicit, data) for key, explicit, data in rows]


@given(rows_of_any_kind)
def test_round_trip(rows: list[Row]) -> None:
    """Whatever keys, explicit hash keys and bytes went into an aggregate come out of it, in order."""
    assert unpack(aggregate(rows)) == expected(rows)


def test_reads_what_others_wrote() -> None:
    """An aggregate made by AWS's own Python aggregator is understood, records without an explicit hash key too."""
    theirs = (
        b"\xf3\x89\x9a\xc2\n\x03ada\n\x04Zo\xc3\xab\x12\x015\x1a\x07\x08\x00\x1a\x03one\x1a\x0b\x08\x01\x10\x00\x1a\x05"
        b"two \xff\x1a\x04\x08\x00\x1a\x00\xc2\xb4Ld\xf4\xcaJ\xf4[\x174\xa9\xdb\xde\xce4"
    )
    rows: list[Row] = [("ada", None, b"one"), ("Zoë", 5, b"two \xff"), ("ada", None, b"")]
    assert unpack(theirs) == expected(rows)
    assert aggregate(rows) == theirs


def test_every_flipped_byte_leaves_a_plain_record() -> None:
    """Any byte of an aggregate changed to any other makes it a plain record with its bytes unchanged."""
    whole = aggregate([("ada", None, b"one"), ("Zoë", 5, b"\xff")])
    for position in range(len(whole)):
        for value in set(range(256)) - {whole[position]}:
            assert unpack(whole[:position] + bytes([value]) + whole[position + 1 :]) is None
        damaged = whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]
        assert payload_of(page(damaged)) == damaged


@given(rows_of_any_kind, st.data())
def test_damage_that_the_checksum_does_not_show_raises_nothing(rows: list[Row], data: st.DataObject) -> None:
    """A message cut or changed before it was sealed is unpacked or a plain record with its bytes, never an error."""
    message = bytearray(aggregate(rows)[len(MAGIC) : -16])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        message = message or bytearray(1)
    check_either(sealed(bytes(message)))


@given(st.binary(max_size=60))
def test_any_message_raises_nothing(message: bytes) -> None:
    """A sealed message of any bytes is unpacked or a plain record with its bytes, never an error."""
    check_either(sealed(message))


def check_either(payload: bytes) -> None:
    batch, users = page(payload), unpack(payload)
    assert not batch.dropped
    if users is None:
        assert payload_of(batch) == payload
    else:
        assert batch.rows["partition_key"].to_pylist() == [user.partition_key for user in users]
        assert batch.rows["sub_sequence_number"].to_pylist() == list(range(len(users)))


@pytest.mark.parametrize(
    "payload",
    [
        MAGIC,
        MAGIC + bytes(15),
        MAGIC + bytes(16),
        b"\xf3\x89\x9a\xc3" + aggregate([("k", None, b"x")])[4:],
        aggregate([("k", None, b"x")])[:-1],
        aggregate([("k", None, b"x")]) + b"\0",
        sealed(RECORD),
        sealed(KEY + content(3, number(1, 1) + content(3, b"x"))),
        sealed(KEY + content(3, number(1, 2**63) + content(3, b"x"))),
        sealed(KEY + content(3, number(1, 0) + number(2, 0) + content(3, b"x"))),
        sealed(KEY + RECORD + content(3, number(1, 1) + content(3, b"x"))),
        sealed(KEY + content(3, content(3, b"x"))),
        sealed(KEY + content(3, number(1, 0))),
        sealed((KEY + RECORD)[:-1]),
        sealed(KEY + RECORD + b"\x1a\x05"),
        sealed(KEY + RECORD + b"\x1a"),
        sealed(KEY + RECORD + b"\x29\0"),
        sealed(KEY + RECORD + b"\x48" + b"\xff" * 10 + b"\1"),
        sealed(KEY + RECORD + b"\x4b\x4c"),
        sealed(KEY + RECORD + b"\0\0"),
        sealed(content(1, b"\xff") + RECORD),
        sealed(content(1, b"k" * 257) + RECORD),
        *(
            sealed(KEY + content(2, text) + content(3, number(1, 0) + number(2, 0) + content(3, b"x")))
            for text in (b"", b"-1", b"1_0", b" 1", b"1e3", "٣".encode(), str(2**128).encode(), b"9" * 5_000)
        ),
    ],
)
def test_malformed_is_plain(payload: bytes) -> None:
    """What is not a whole and well-formed aggregate is a plain record: its own key, number 0, unchanged bytes."""
    batch = page(payload)
    assert payload_of(batch) == payload
    assert batch.rows["partition_key"].to_pylist() == ["p0"]
    assert batch.rows["sub_sequence_number"].to_pylist() == [0]


@pytest.mark.parametrize("payload", [sealed(b""), sealed(KEY), aggregate([])])
def test_aggregate_of_nothing_is_plain(payload: bytes) -> None:
    """An aggregate without user records is a row with its bytes: no record of the stream goes without a trace."""
    assert payload_of(page(payload)) == payload


@pytest.mark.parametrize(
    "message",
    [
        RECORD + KEY,
        KEY + number(9, 2**64 - 1) + content(10, b"?") + b"\x59" + bytes(8) + b"\x65" + bytes(4) + RECORD,
        KEY + content(3, number(1, 0) + content(3, b"x") + content(4, content(1, b"tag") + content(2, b"value"))),
        KEY + content(3, content(3, b"old") + number(1, 9) + number(1, 0) + content(3, b"x")),
        KEY + number(1, 7) + content(3, number(1, 0) + content(1, b"?") + content(3, b"x")),
        KEY + content(2, b"never used") + RECORD,
    ],
)
def test_protobuf_may_be_written_in_other_ways(message: bytes) -> None:
    """Any order of fields, unknown fields, tags and repeated values are read as protobuf says."""
    assert unpack(sealed(message)) == [("k", hash_key("k"), b"x")]


def test_mixed_page_keeps_its_order() -> None:
    """Aggregates and plain records of one page become rows in order, with the number and time of their record."""
    batch = page(
        b"plain", aggregate([("a", None, b"1"), ("b", None, b"2"), ("a", None, b"3")]), b"", aggregate([("c", 7, b"4")])
    )
    rows = batch.rows.to_pylist()
    assert [(row["partition_key"], row["data"]) for row in rows] == [
        ("p0", "plain"), ("a", "1"), ("b", "2"), ("a", "3"), ("p2", ""), ("c", "4"),
    ]  # fmt: skip
    assert [(row["sequence_number"], row["sub_sequence_number"]) for row in rows] == [
        ("100", 0), ("101", 0), ("101", 1), ("101", 2), ("102", 0), ("103", 0),
    ]  # fmt: skip
    assert [row["kinesis_ingestion_timestamp"] - NOW for row in rows] == [
        timedelta(seconds=s) for s in (0, 1, 1, 1, 2, 3)
    ]
    assert (batch.dropped, batch.read_to) == ((), "103")


def test_user_records_may_hold_any_bytes_and_keys() -> None:
    """Text stays text, other bytes are kept in data_raw, row by row; keys in any script and of 256 characters pass."""
    keys = ["Zoë", "注文-7", "🍎" * 256]
    batch = page(b"\xfe", aggregate([(keys[0], None, b"\xff\0"), (keys[1], None, "é".encode()), (keys[2], None, b"")]))
    assert batch.rows["partition_key"].to_pylist() == ["p0", *keys]
    assert batch.rows["data"].to_pylist() == ["\ufffd", "\ufffd\0", "é", ""]
    assert batch.rows["data_raw"].to_pylist() == [b"\xfe", b"\xff\0", None, None]


def test_hash_range_decides_what_is_kept() -> None:
    """With foreign="drop" those of other shards are dropped and counted; the others keep their place."""
    (low,), (high,) = keys_of(LOWER, 1), keys_of(UPPER, 1)
    hash_keys = [(low, None), (high, None), (high, 0), (low, HALF), (low, HALF - 1), (low, MAX_HASH_KEY)]
    mixed = aggregate([(key, explicit, b"%d" % place) for place, (key, explicit) in enumerate(hash_keys)])
    lower, upper = (page(b"p", mixed, shard=shard, foreign="drop") for shard in (LOWER, UPPER))
    assert lower.dropped == upper.dropped == (Dropped("101", NOW + timedelta(seconds=1), 3),)
    assert list(zip(lower.rows["data"].to_pylist(), lower.rows["sub_sequence_number"].to_pylist(), strict=True)) == [
        ("p", 0), ("0", 0), ("2", 2), ("4", 4),
    ]  # fmt: skip
    assert upper.rows["data"].to_pylist() == ["p", "1", "3", "5"]
    nothing = page(b"p", aggregate([(high, None, b"x")]), shard=LOWER, foreign="drop")
    assert (count(nothing.dropped), nothing.rows.num_rows, nothing.read_to) == (1, 1, "101")


def test_dropped_records_are_counted_once() -> None:
    """An iterator that expires behind an aggregate of another shard does not lead back to it."""
    model, clock, kinesis = world(shards=2)
    foreign = aggregate([(key, None, b"x") for key in keys_of(UPPER, 3)])
    model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": foreign})
    sink = ListSink(StartingPosition.trim_horizon())
    shards = tuple(kinesis.list_shards("orders"))
    consumer = ShardConsumer(ReadPlan(kinesis, "orders", clock, shards, foreign="drop"), shards[0], sink)
    for _ in range(3):
        consumer.step()
        clock.manual.advance(301)
    stats = consumer.stats()
    assert (stats.dropped, stats.records, stats.retries, sink.data) == (3, 0, 1, [])


def put(streams: Streams, data: bytes, shard: Shard = LOWER) -> None:
    """Write one record to whatever open shard takes the first hash key of `shard`."""
    where = str(shard.hash_range[0])
    streams.call("PutRecord", StreamName="orders", PartitionKey="outer", ExplicitHashKey=where, Data=data)


def test_after_a_reshard_each_record_is_there_once(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """An aggregate that a split overtook gives what its shard takes; its producer writes the rest to the other one."""
    lower, upper = keys_of(LOWER, 20), keys_of(UPPER, 20)
    streams.create()
    before = aggregate([(key, None, b"before") for key in lower + upper])
    put(streams, before)
    streams.split()
    put(streams, aggregate([(key, None, b"after") for key in lower + upper]))
    put(streams, aggregate([(key, None, b"after") for key in upper]), UPPER)
    with pytest.warns(UserWarning, match="20 user records of aggregates were dropped"):
        rows = source.read("orders", progress=False).to_polars()
    wanted = sorted((key, data) for key in lower + upper for data in ("before", "after"))
    assert sorted(rows.select("partition_key", "data").iter_rows()) == wanted
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    with pytest.warns(UserWarning, match="20 user records of aggregates were dropped"):
        assert sync.wait(timeout=30)
    assert sync.status().dropped == len(upper)
    sync.stop()
    assert sorted(sync.scan().select("partition_key", "data").collect().iter_rows()) == wanted


def test_stop_and_resume_neither_lose_nor_double(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a sync stops and continues, the table has each row of each aggregate once and in order."""
    monkeypatch.setattr(pace, "GET_RECORDS", 2)  # so that a run ends between two aggregates
    streams.create()
    written: list[tuple[str, str]] = []
    for i in range(16):
        rows = [(f"key-{n % 3}", f"{i}.{n}") for n in range(1 + i % 5)]
        written += rows
        put(streams, aggregate([(key, None, data.encode()) for key, data in rows]))
        if i % 3 == 0:
            put(streams, b"plain")
            written.append(("outer", "plain"))
    runs: list[int] = []
    while sum(runs) < len(written):
        sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
        while not sync.status().rows:
            assert sync.status().state == "running", sync.status().error
        sync.stop()
        runs.append(sync.status().rows)
    assert len(runs) > 3
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    assert sync.wait(timeout=30)
    sync.stop()
    assert sync.status().rows == 0
    table = pl.scan_delta(str(tmp_path / "t")).collect().sort("shard_offset")
    assert list(table.select("partition_key", "data").iter_rows()) == written
    assert table.select("shard_id", "sequence_number", "sub_sequence_number").is_unique().all()
    assert not table.select("shard_id", "sequence_number").is_unique().all()
