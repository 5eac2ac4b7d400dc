"""Rows of many shards, put in order of arrival while they are still being read.

What can be ordered early is: its memory is free again for what comes next, and little is left to do at the end.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from kinesis_nb.frames import concat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kinesis_nb.shards import Shard

Keys = np.ndarray[tuple[int], np.dtype[np.int64]]
PIECE_BYTES = 2**24
_FOREVER = int(np.iinfo(np.int64).max)


class Run(NamedTuple):
    """Rows of one shard, and the keys they are ordered by, which never step back."""

    table: pa.Table
    keys: Keys

    def part(self, start: int, end: int) -> Run:
        """Return the rows from `start` up to `end`, which is left out."""
        return Run(self.table.slice(start, end - start), self.keys[start:end])

    def cut(self, key: int) -> tuple[Run, Run]:
        """Return the rows before a key, and the others."""
        place = int(np.searchsorted(self.keys, key))
        return self.part(0, place), self.part(place, len(self.keys))

    def followed_by(self, other: Run) -> Run:
        """Return the rows of both."""
        return Run(pa.concat_tables([self.table, other.table]), np.concatenate([self.keys, other.keys]))


class ArrivalOrder:
    """Takes the rows of each shard in its order and gives those of all in order of arrival.

    No row comes before an earlier one of its own shard or of that shard's parents, even where arrival times step back.

    Parameters
    ----------
    shards
        Those that are known from the beginning.
    newest
        Keep only about so many of the newest rows of each shard.
    piece_bytes
        How much is put in order at a time.
    """

    def __init__(self, shards: Iterable[Shard], newest: int | None = None, piece_bytes: int = PIECE_BYTES) -> None:
        self._newest, self._piece_bytes = newest, piece_bytes
        self._lock = threading.Lock()  # guards the five below
        self._parents = {shard.shard_id: shard.parents for shard in shards}
        self._unfinished = dict.fromkeys(self._parents)
        self._incoming: dict[str, list[pa.RecordBatch]] = {}
        self._incoming_bytes = 0
        self._enough_bytes = piece_bytes  # coming in, for the next try to put in order what is there
        self._ordering = threading.Lock()  # guards the three below; held while rows are moved
        self._latest: dict[str, int] = {}  # by shard: the key of the last row that was collected
        self._held: dict[str, Run] = {}
        self._pieces: list[pa.Table] = []

    def add(self, shard: Shard, rows: pa.RecordBatch) -> None:
        """Take the next rows of a shard; now and then this puts in order what all shards gave so far."""
        with self._lock:
            self._parents[shard.shard_id] = shard.parents
            batches = self._incoming.setdefault(shard.shard_id, [])
            batches.append(rows)
            self._incoming_bytes += rows.nbytes
            if self._newest is not None:
                while sum(batch.num_rows for batch in batches[1:]) >= self._newest:
                    del batches[0]
                return
            is_much = self._incoming_bytes >= self._enough_bytes
        if is_much and self._ordering.acquire(blocking=False):  # else another shard's thread is at it
            try:
                self._advance()
            finally:
                self._ordering.release()

    def finish(self, shard: Shard, children: Iterable[Shard] = ()) -> None:
        """Take note that no more rows of a shard will come, and which shards go on from there."""
        with self._lock:
            self._unfinished.pop(shard.shard_id, None)
            for child in children:
                self._parents[child.shard_id] = child.parents
                self._unfinished[child.shard_id] = None

    def take(self) -> pa.Table:
        """Give all rows away, in order: whoever still holds this object afterwards holds no rows."""
        with self._ordering:
            runs, _ = self._collect()
            pieces, self._pieces, self._held = self._pieces, [], {}
            pieces += merge(list(runs.values()), self._piece_bytes)
            return pa.concat_tables([concat([]), *pieces])

    def _advance(self) -> None:
        """Put in order what no row to come can precede."""
        runs, frontier = self._collect()
        cuts = {shard_id: run.cut(frontier) for shard_id, run in runs.items()}
        self._pieces += merge([before for before, _ in cuts.values()], self._piece_bytes)
        self._held = {shard_id: rest for shard_id, (_, rest) in cuts.items()}
        with self._lock:  # the more must wait, for a shard that is far behind, the rarer it is looked at
            self._enough_bytes = max(self._piece_bytes, sum(run.table.nbytes for run in self._held.values()) // 2)

    def _collect(self) -> tuple[dict[str, Run], int]:
        """Return what is not in order yet, and the least key that a row to come can have."""
        with self._lock:
            incoming, self._incoming, self._incoming_bytes = self._incoming, {}, 0
            unfinished, parents = list(self._unfinished), dict(self._parents)
        runs: dict[str, Run] = {}
        floors: dict[str, int] = {}  # by shard: the key that its next row has at least
        for shard_id in TopologicalSorter(parents).static_order():  # parents first
            above = max((floors[parent] for parent in parents.get(shard_id, ())), default=0)
            floor = self._latest.get(shard_id, above)
            run = self._held.get(shard_id)
            if shard_id in incoming:
                new = _run(incoming[shard_id], floor)
                floor = self._latest[shard_id] = int(new.keys[-1]) if len(new.keys) else floor
                run = new if run is None else run.followed_by(new)
            if run is not None:
                runs[shard_id] = run
            floors[shard_id] = floor
        return runs, min((floors[shard_id] for shard_id in unfinished), default=_FOREVER)


def _run(batches: list[pa.RecordBatch], floor: int) -> Run:
    table = concat(batches)
    arrival = table["kinesis_ingestion_timestamp"].cast(pa.int64()).to_numpy()
    return Run(table, np.maximum.accumulate(np.maximum(arrival, floor)))


def merge(runs: Sequence[Run], piece_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of all runs in the order of their keys, equal ones in the order of the runs.

    Piece by piece, because Arrow puts the whole of a table into one array to take rows out of it, and that holds 2 GiB
    of text at most.
    """
    if not any(len(run.keys) for run in runs):
        return
    everything = np.sort(np.concatenate([run.keys for run in runs]))
    pieces = min(1 + sum(run.table.nbytes for run in runs) // piece_bytes, len(everything))
    bounds = [everything[n * len(everything) // pieces] for n in range(1, pieces)]
    cuts = [[0, *np.searchsorted(run.keys, bounds).tolist(), len(run.keys)] for run in runs]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Arrow moves rows without the GIL
        parts = ([run.part(*cut[n : n + 2]) for run, cut in zip(runs, cuts, strict=True)] for n in range(pieces))
        yield from threads.map(_piece, parts)


def _piece(runs: list[Run]) -> pa.Table:
    table, keys = pa.concat_tables(run.table for run in runs), np.concatenate([run.keys for run in runs])
    is_sorted = bool((keys[:-1] <= keys[1:]).all())
    return table if is_sorted else table.take(pa.array(np.argsort(keys, kind="stable")))
