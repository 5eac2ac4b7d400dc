"""A bounded, thread-safe queue of columnar batches that counts exactly what it dropped."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from kinesis_nb.core import interrupt
from kinesis_nb.core.halt import check, current
from kinesis_nb.errors import Closed, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kinesis_nb.core.types import OnFull


Held = tuple[str, pa.RecordBatch]
"""Rows and the id of the shard they came from."""


@dataclass(frozen=True, slots=True)
class BufferStats:
    """A snapshot of a buffer.

    Attributes
    ----------
    rows, bytes
        What it holds now; a batch that is a part of another one keeps the memory of all of that.
    received, taken
        Rows put in and taken out since the start.
    dropped
        Rows dropped for lack of room, by shard id. ``received == rows + taken + sum(dropped.values())`` always holds.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     rows = tail.take(10, timeout=10)
    >>> tail.stats().buffer.received >= 10
    True
    """

    rows: int
    bytes: int
    received: int
    taken: int
    dropped: Mapping[str, int]


class Buffer:
    """Batches of many shards in the order they came, within a budget of rows and bytes.

    Parameters
    ----------
    max_rows, max_bytes
        The budget; a batch that is larger than all of it is cut (``"drop_oldest"``) or passes alone (``"block"``).
    on_full
        Drop the oldest rows, or make :meth:`put` wait, which holds back the shard thread.
    """

    def __init__(self, max_rows: int, max_bytes: int, on_full: OnFull) -> None:
        if not all(isinstance(limit, int) and limit > 0 for limit in (max_rows, max_bytes)):
            raise ConfigError(
                f"a buffer of {max_rows!r} rows and {max_bytes!r} bytes cannot hold anything",
                hint="max_rows and max_bytes are whole numbers, 1 or more",
            )
        self._max_rows, self._max_bytes, self._on_full = max_rows, max_bytes, on_full
        self._changed = threading.Condition()  # guards everything below; never held during I/O
        self._batches: deque[Held] = deque()
        self._rest: pa.RecordBatch | None = None  # the first of them, if it is what was left of a larger one
        self._rows = self._bytes = self._received = self._taken = 0
        self._dropped: Counter[str] = Counter()
        self._too_large = 0  # bytes of a row that had no room though there was no other one
        self._watchers: list[Callable[[Held], object]] = []
        self._error: BaseException | None = None
        self._closed = False

    def put(self, shard_id: str, rows: pa.RecordBatch) -> None:
        """Append a batch.

        Raises
        ------
        Closed
            When the buffer is closed or this thread is to stop, also while waiting for room; the batch was not taken.
        """
        if rows.num_rows == 0:
            return
        with self._changed:
            if self._on_full == "block" and not self._may_take(rows):
                self._wait_for_room(rows)
            if self._closed:
                raise Closed("the buffer is closed")
            self._append(shard_id, rows)
            self._received += rows.num_rows
            for see in self._watchers:
                see((shard_id, rows))
            if self._on_full == "drop_oldest":
                self._shrink()
            self._changed.notify_all()

    def _wait_for_room(self, rows: pa.RecordBatch) -> None:
        halt = current()
        with halt.waking(self._notify):
            self._changed.wait_for(lambda: halt.is_set() or self._may_take(rows))
        check()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _may_take(self, rows: pa.RecordBatch) -> bool:
        return self._closed or not self._rows or self._has_room_for(rows)

    def _has_room_for(self, rows: pa.RecordBatch) -> bool:
        return self._rows + rows.num_rows <= self._max_rows and self._bytes + _held(rows) <= self._max_bytes

    def _append(self, shard_id: str, rows: pa.RecordBatch) -> None:
        self._batches.append((shard_id, rows))
        self._rows += rows.num_rows
        self._bytes += _held(rows)

    def _prepend(self, shard_id: str, rows: pa.RecordBatch) -> None:
        self._batches.appendleft((shard_id, rows))
        self._rows += rows.num_rows
        self._bytes += _held(rows)

    def _pop(self) -> Held:
        shard_id, rows = self._batches.popleft()
        if rows is self._rest:
            self._rest = None
        self._rows -= rows.num_rows
        self._bytes -= _held(rows)
        return shard_id, rows

    def _shrink(self) -> None:
        """Drop the oldest rows until the budget holds: whole batches, then the head of the next one."""
        while self._rows > self._max_rows or self._bytes > self._max_bytes:
            shard_id, rows = self._pop()
            drop = max(self._overhang(rows), 1)
            if drop >= rows.num_rows and not self._rows:
                self._too_large = max(self._too_large, _held(rows) // rows.num_rows)
            self._dropped[shard_id] += min(drop, rows.num_rows)
            if drop < rows.num_rows:
                self._prepend(shard_id, _copied(rows.slice(drop)))

    def _overhang(self, rows: pa.RecordBatch) -> int:
        """Return how many of the rows just popped have no room, by count and by their average size."""
        by_count = self._rows + rows.num_rows - self._max_rows
        held = _held(rows)
        too_many_bytes = self._bytes + held - self._max_bytes
        return max(by_count, -(-too_many_bytes * rows.num_rows // held))

    def take(self, timeout: float | None = None, most: int | None = None, batches: int | None = None) -> list[Held]:
        """Take rows out, waiting until there is something: all, at most `most` rows, or at most `batches` batches.

        Returns
        -------
        list of Held
            Empty when nothing came within `timeout` seconds, or when the buffer is closed and drained.

        Raises
        ------
        BaseException
            What the buffer was closed with, once everything is taken.
        """
        with self._changed:
            interrupt.wait_for(self._changed, lambda: self._rows or self._closed, timeout)
            if not self._rows and self._error is not None:
                raise self._error
            taken = self._pop_rows(
                self._rows if most is None else most, len(self._batches) if batches is None else batches
            )
            self._taken += sum(rows.num_rows for _, rows in taken)
            self._changed.notify_all()
            return taken

    def _pop_rows(self, most: int, batches: int) -> list[Held]:
        taken: list[Held] = []
        while most > 0 and self._batches and len(taken) < batches:
            shard_id, rows = self._pop()
            if rows.num_rows > most:
                self._rest = _unburdened(rows.slice(most))
                self._prepend(shard_id, self._rest)
                rows = rows.slice(0, most)
            taken.append((shard_id, rows))
            most -= rows.num_rows
        return taken

    def untake(self, taken: list[Held]) -> None:
        """Put back what was taken last and not used; it may exceed the budget for a short time."""
        with self._changed:
            for shard_id, rows in reversed(taken):
                self._prepend(shard_id, self._whole(rows))
                self._taken -= rows.num_rows
            self._changed.notify_all()

    def _whole(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Join a slice with the rest of its batch: each of them alone would count with the memory of all of it."""
        if _held(rows) == rows.nbytes:
            return rows
        rest = [self._pop()[1]] if self._rest is not None and self._batches[0][1] is self._rest else []
        return _copied(rows, *rest)

    def held(self) -> list[Held]:
        """Return what is held now and leave it there."""
        with self._changed:
            return list(self._batches)

    def peek(self) -> list[pa.RecordBatch]:
        """Return the rows that are held now and leave them there."""
        return [rows for _, rows in self.held()]

    def watch(self, see: Callable[[Held], object]) -> list[Held]:
        """Call `see` with every batch that is put in from now on, and return what is held now: none twice, none missed.

        It is called under the lock, by the thread that puts: it may append to something, and nothing else.
        """
        with self._changed:
            self._watchers.append(see)
            return list(self._batches)

    def unwatch(self, see: Callable[[Held], object]) -> None:
        """Stop calling `see`."""
        with self._changed:
            self._watchers = [other for other in self._watchers if other is not see]

    def close(self, error: BaseException | None = None) -> None:
        """Accept no more batches and wake all waiting threads; what is held can still be taken."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def warning(self) -> str:
        """A warning about its size, else an empty string."""
        size = self._too_large
        return (
            f"records of about {size:,} bytes are dropped: max_bytes={self._max_bytes:,} holds none of them"
            if size
            else ""
        )

    def wait_closed(self, timeout: float) -> bool:
        """Wait until it is closed, at most `timeout` seconds; return whether it is."""
        with self._changed:
            return interrupt.wait_for(self._changed, lambda: self._closed, timeout)

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def error(self) -> BaseException | None:
        """What the buffer was closed with."""
        return self._error

    def stats(self) -> BufferStats:
        """Return exact counts, all taken at the same time."""
        with self._changed:
            return BufferStats(self._rows, self._bytes, self._received, self._taken, dict(self._dropped))


def _held(rows: pa.RecordBatch) -> int:
    """Return how many bytes stay in memory as long as a batch does; `nbytes` says how many of them it shows."""
    return int(rows.get_total_buffer_size())


def _unburdened(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch that holds at most twice the memory of its rows: a slice holds all that it was cut from."""
    return _copied(rows) if _held(rows) > 2 * rows.nbytes else rows


def _copied(*parts: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_joined(list(column)) for column in zip(*parts, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=parts[0].schema)


def _joined(arrays: list[pa.Array]) -> pa.Array:
    # the system's memory: Arrow's own pool keeps some for each thread that ever asked, and this may be any shard's
    pool = pa.system_memory_pool()
    if all(array.null_count == len(array) for array in arrays):  # in fewer bytes than each of them by itself
        return pa.nulls(sum(map(len, arrays)), arrays[0].type, memory_pool=pool)
    return pa.concat_arrays(arrays, memory_pool=pool)
