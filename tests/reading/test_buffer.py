"""The bounded queue between shard threads and readers."""

from __future__ import annotations

import random
import threading

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinesis_nb.errors import Closed, ConfigError
from kinesis_nb.reading.buffer import Buffer, Held


def rows(first: int, count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": list(range(first, first + count))})


def numbers(batches: list[pa.RecordBatch] | list[Held]) -> list[int]:
    plain = [batch[1] if isinstance(batch, tuple) else batch for batch in batches]
    return [n for batch in plain for n in batch.column("n").to_pylist()]


@given(st.integers(min_value=0, max_value=100_000))
def test_keeps_the_newest_within_the_budget_and_counts_the_rest(seed: int) -> None:
    """Whatever comes and goes, the newest rows are held, the budget is kept, and every row is accounted for."""
    rng = random.Random(seed)
    max_rows, max_bytes = rng.randint(1, 30), rng.randint(8, 400)
    buffer, put, taken = Buffer(max_rows, max_bytes, "drop_oldest"), 0, 0
    for _ in range(30):
        count = rng.randint(0, 20)
        buffer.put("s", rows(put, count))
        put += count
        if rng.random() < 0.2:
            taken += len(numbers(buffer.take(0, most=rng.randint(1, 10))))
        held, stats = numbers(buffer.peek()), buffer.stats()
        assert held == list(range(put - len(held), put))
        assert len(held) == stats.rows <= max_rows
        assert stats.bytes <= max_bytes
        assert stats.received == put == stats.rows + stats.taken + sum(stats.dropped.values())
        assert stats.taken == taken


def test_dropped_rows_leave_memory() -> None:
    """Cutting a large batch does not keep the whole of it alive behind a small slice."""
    buffer = Buffer(10, 2**20, "drop_oldest")
    buffer.put("s", rows(0, 100_000))
    (kept,) = buffer.peek()
    assert kept.get_total_buffer_size() < 1_000


def test_block_holds_the_writer_back_until_rows_are_taken() -> None:
    """With "block" nothing is dropped; a writer waits for room."""
    buffer = Buffer(10, 2**20, "block")
    buffer.put("s", rows(0, 10))
    writer = threading.Thread(target=buffer.put, args=("s", rows(10, 5)))
    writer.start()
    assert numbers(buffer.take(5)) == list(range(10))
    assert numbers(buffer.take(5)) == list(range(10, 15))
    writer.join()
    assert buffer.stats().dropped == {}


def test_closing_wakes_a_blocked_writer() -> None:
    """A writer that waits for room hears that the buffer was closed, and its batch is not taken."""
    buffer, heard = Buffer(1, 2**20, "block"), []

    def write() -> None:
        try:
            buffer.put("s", rows(1, 1))
        except Closed as error:
            heard.append(error)

    buffer.put("s", rows(0, 1))
    writer = threading.Thread(target=write)
    writer.start()
    buffer.close()
    writer.join()
    assert len(heard) == 1
    assert numbers(buffer.take(0)) == [0]


def test_error_comes_after_the_rows() -> None:
    """What was read before a failure can still be taken; then the failure is raised, every time."""
    buffer = Buffer(10, 2**20, "block")
    buffer.put("s", rows(0, 2))
    buffer.close(ValueError("broken"))
    assert numbers(buffer.take()) == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            buffer.take()


def test_batch_larger_than_the_budget_passes_alone() -> None:
    """With "block" a batch larger than the whole budget does not wait for ever."""
    buffer = Buffer(2, 8, "block")
    buffer.put("s", rows(0, 5))
    assert numbers(buffer.take(0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("max_rows", "max_bytes"), [(0, 1), (1, 0)])
def test_refuses_budgets_that_hold_nothing(max_rows: int, max_bytes: int) -> None:
    """A budget of nothing is refused."""
    with pytest.raises(ConfigError, match="hint"):
        Buffer(max_rows, max_bytes, "block")


def test_untaken_rows_come_again() -> None:
    """What is put back is the next thing to be taken, and the counts are as if it had never been out."""
    buffer = Buffer(10, 2**20, "block")
    buffer.put("s", rows(0, 6))
    taken = buffer.take(0, most=4)
    buffer.untake(taken)
    assert buffer.stats().taken == 0
    assert numbers(buffer.take(0)) == list(range(6))
