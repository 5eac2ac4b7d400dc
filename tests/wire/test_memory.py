"""What many shards take of the memory: a small multiple of what they read, however many threads they have."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.reading.buffer import Buffer
from kinesis_nb.wire import batches
from kinesis_nb.wire.aggregation import pack
from kinesis_nb.wire.decoding import Decoding

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SHARD = Shard("shardId-000000000000", hash_range=(0, MAX_HASH_KEY))
DATA = {"text": b"x" * 200, "binary": b"\xff" * 200, "aggregate": pack("k", [b"1", b"2"])}


def body(data: bytes, count: int = 100) -> bytes:
    """Return a response with this number of records."""
    records = [
        {
            "SequenceNumber": str(number),
            "ApproximateArrivalTimestamp": 1.7e9,
            "Data": base64.b64encode(data).decode(),
            "PartitionKey": "k",
        }
        for number in range(count)
    ]
    return json.dumps({"Records": records, "NextShardIterator": "A", "MillisBehindLatest": 0}).encode()


@pytest.mark.parametrize("kind", DATA)
def test_a_small_answer_takes_nothing_of_arrows_own_pool(kind: str) -> None:
    """That pool keeps memory for each thread that ever asked, and every shard has a thread of its own."""
    answer, buffer = body(DATA[kind]), Buffer(150, 2**30, "drop_oldest")
    before = pa.default_memory_pool().num_allocations()
    for _ in range(3):  # the second and the third cut the one before
        buffer.put(SHARD.shard_id, next(batches.decode_batch(answer, SHARD, NOW).parts(2**20)).rows)
    assert buffer.stats().rows == 150
    assert pa.default_memory_pool().num_allocations() == before


def test_one_thread_alone_splits_large_answers_itself() -> None:
    """Others give them to the few threads that are there for it, as long as that one lives."""
    decoding, ran_in = Decoding(), list[str]()

    def decode() -> None:
        ran_in.append(threading.current_thread().name)

    def split() -> None:
        for _ in range(2):
            decoding.beside_others(decode)

    split()
    threads = [threading.Thread(target=split, name="shard") for _ in range(5)]
    for thread in threads:
        thread.start()
        thread.join()
    assert ran_in[:2] == [threading.current_thread().name] * 2
    assert len(ran_in) == 12
    assert all(name.startswith("kinesis_nb decoding") for name in ran_in[2:])


def test_the_place_of_a_thread_that_ended_is_free() -> None:
    """A read of one shard after the other changes no core."""
    decoding, ran_in = Decoding(), list[str]()
    for name in ("first", "second"):
        thread = threading.Thread(
            target=lambda: decoding.beside_others(lambda: ran_in.append(threading.current_thread().name)), name=name
        )
        thread.start()
        thread.join()
    assert ran_in == ["first", "second"]


def test_a_slice_counts_as_what_it_keeps() -> None:
    """A few rows of a large batch keep all of it in memory, and so they take all of its room in a buffer."""
    large = pa.RecordBatch.from_pydict({"n": list(range(100_000))})
    buffer = Buffer(10, 2**30, "block")
    buffer.put("s", large.slice(99_995))
    assert buffer.stats().bytes == large.get_total_buffer_size() >= 100_000 * 8


def test_rows_that_are_left_keep_what_they_show() -> None:
    """What is taken out of a batch, or used of one and put back, is not kept by the rest of it for long."""
    buffer = Buffer(10**6, 2**30, "block")
    buffer.put("s", pa.RecordBatch.from_pydict({"n": list(range(100_000))}))
    for left in (60_000, 30_000, 100):
        taken = buffer.take(0, most=buffer.stats().rows - left)
        assert sum(rows.num_rows for _, rows in taken) > 0
        assert left * 8 <= buffer.stats().bytes <= 2 * left * 8 + 100
    ((shard_id, rows),) = buffer.take(0)
    buffer.untake([(shard_id, rows.slice(98))])
    assert buffer.stats().bytes <= 2 * 2 * 8 + 100
    assert [rows["n"].to_pylist() for rows in buffer.peek()] == [[99_998, 99_999]]


def test_parts_of_a_batch_count_as_that_batch() -> None:
    """What is taken out and put back is no more than it was, and in the order it was."""
    buffer = Buffer(10**6, 2**30, "block")
    buffer.put("s", pa.RecordBatch.from_pydict({"n": list(range(1_000))}))
    before = buffer.stats()
    for most in (10, 400, 600):
        buffer.untake(buffer.take(0, most=most))
        assert buffer.stats() == before
        assert [n for rows in buffer.peek() for n in rows["n"].to_pylist()] == list(range(1_000))
