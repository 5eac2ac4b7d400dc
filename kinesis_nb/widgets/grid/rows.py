"""The rows of a view: what waits for the next poll, and what is held, in the order of its arrival in the stream."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from kinesis_nb.core.frames import SCHEMA, Record, concat, iter_records, take_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kinesis_nb.reading.buffer import Held

WAITING_ROWS, WAITING_BYTES = 50_000, 16 * 2**20  # what may wait for the next poll; it is the tail's own memory, mostly
HELD_ROWS, HELD_BYTES = 50_000, 32 * 2**20  # what was shown, and can be shown again; the tail's own memory as well
ARRIVAL = "kinesis_ingestion_timestamp"


class Waiting:
    """What came since the last poll: threads append to it, one takes out of it.

    It holds the newest 50,000 rows or 16 MiB, and counts what had no room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below; taken under the lock of a buffer, never around it
        self._batches: deque[pa.RecordBatch] = deque()
        self._rows = self._bytes = 0
        self._skipped = 0

    def __call__(self, held: Held) -> None:
        """Take a batch."""
        rows = held[1]
        with self._lock:
            self._batches.append(rows)
            self._rows += rows.num_rows
            self._bytes += rows.nbytes
            while len(self._batches) > 1 and (self._rows > WAITING_ROWS or self._bytes > WAITING_BYTES):
                self._skipped += self._pop().num_rows

    def _pop(self) -> pa.RecordBatch:
        rows = self._batches.popleft()
        self._rows -= rows.num_rows
        self._bytes -= rows.nbytes
        return rows

    def take(self) -> tuple[list[pa.RecordBatch], int]:
        """Return what waits, and how many rows before it had no room."""
        with self._lock:
            skipped, self._skipped = self._skipped, 0
            return [self._pop() for _ in range(len(self._batches))], skipped


class HeldRows:
    """The newest rows that match, numbered from 0 in the order they came; what had no room leaves its numbers out.

    They come shard by shard, batch by batch; whoever asks for them gets them by their arrival in the stream.

    Parameters
    ----------
    rows, size
        How many rows, and bytes, may be held; None for all.
    """

    def __init__(self, rows: int | None = HELD_ROWS, size: int | None = HELD_BYTES) -> None:
        self.came = 0  # how many matched so far; the number of the next one
        self._most_rows, self._most_bytes = rows or 2**62, size or 2**62
        self._parts: deque[tuple[int, pa.RecordBatch]] = deque()
        self._rows = self._bytes = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, batches: Iterable[pa.RecordBatch], skipped: int = 0) -> None:
        """Take the rows that came; `skipped` came before them and are gone."""
        self.came += skipped
        for rows in batches:
            if not rows.num_rows:
                continue
            self._parts.append((self.came, rows))
            self.came += rows.num_rows
            self._rows += rows.num_rows
            self._bytes += rows.nbytes
        while len(self._parts) > 1 and (self._rows > self._most_rows or self._bytes > self._most_bytes):
            _, old = self._parts.popleft()
            self._rows -= old.num_rows
            self._bytes -= old.nbytes

    def newest(self, most: int, beyond: int = -1) -> list[tuple[int, Record]]:
        """Return the rows that arrived last with their numbers, last first: at most `most` of those after a number."""
        numbers, rows = self._after(beyond)
        order = by_arrival(numbers, rows)[:most]
        return numbered(numbers, rows, order)

    def everything(self) -> tuple[pl.Series, pa.Table]:
        """Return the numbers of all rows that are held, and the rows, in the order they came."""
        return self._after(-1)

    def _after(self, beyond: int) -> tuple[pl.Series, pa.Table]:
        parts = [
            (max(first, beyond + 1), rows.slice(max(0, beyond + 1 - first)))
            for first, rows in self._parts
            if first + rows.num_rows - 1 > beyond
        ]
        numbers = [pl.int_range(first, first + rows.num_rows, eager=True) for first, rows in parts]
        empty = pl.Series([], dtype=pl.Int64)
        return (pl.concat([empty, *numbers]), concat(rows for _, rows in parts))

    def find(self, number: int) -> Record | None:
        """Return the row of a number, while it is held."""
        for first, rows in self._parts:
            if first <= number < first + rows.num_rows:
                return next(iter_records(rows.slice(number - first, 1)))
        return None

    def to_arrow(self) -> pa.Table:
        """Return the rows that are held, those that arrived first at the beginning."""
        numbers, rows = self._after(-1)
        return take_rows(rows, by_arrival(numbers, rows).reverse().to_numpy())


def by_arrival(numbers: pl.Series, rows: pa.Table) -> pl.Series:
    """Return the places of the rows, that which arrived last in front; of a shard, and of one moment, as they came."""
    arrived = pl.Series(rows.column(ARRIVAL).cast(pa.int64()))
    frame = pl.DataFrame({"arrived": arrived, "number": numbers}).with_row_index("place")
    return frame.sort("arrived", "number", descending=True)["place"].cast(pl.Int64)


def numbered(numbers: pl.Series, rows: pa.Table, order: pl.Series) -> list[tuple[int, Record]]:
    """Return the rows at some places, with their numbers."""
    taken = take_rows(rows, order.to_numpy())
    return list(zip(numbers[order].to_list(), _records(taken), strict=True))


def _records(rows: pa.Table) -> Iterator[Record]:
    for batch in rows.to_batches():
        yield from iter_records(batch)


def concat_numbered(rows: Iterable[tuple[int, Record]]) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([record._asdict() for _, record in rows], SCHEMA)
