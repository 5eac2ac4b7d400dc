"""Rows of many shards, put in order of arrival."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.frames import SCHEMA, concat, take_rows
from kinesis_nb.core.process import polars_works
from kinesis_nb.core.shards import parents_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kinesis_nb.core.shards import Shard

Keys = np.ndarray[tuple[int], np.dtype[np.int64]]


class ArrivalOrder:
    """Takes the rows of each shard in its order and gives those of all in order of arrival.

    No row comes before an earlier one of its own shard or of that shard's parents, even where arrival times step back.

    Parameters
    ----------
    shards
        Those that are known from the beginning.
    newest
        Keep only about this many of the newest rows of each shard.
    """

    def __init__(self, shards: Iterable[Shard], newest: int | None = None) -> None:
        self._newest = newest
        self._lock = threading.Lock()  # guards the two below
        self._parents: dict[str, tuple[str, ...]] = {}
        self._batches: dict[str, list[pa.RecordBatch]] = {}
        self.expect(shards)

    def expect(self, shards: Iterable[Shard]) -> None:
        """Record shards: one without rows still orders its children behind its parents."""
        with self._lock:
            self._parents.update((shard.shard_id, shard.parents) for shard in shards)

    def add(self, shard: Shard, rows: pa.RecordBatch) -> None:
        """Take the next rows of a shard."""
        with self._lock:
            self._parents[shard.shard_id] = shard.parents
            batches = self._batches.setdefault(shard.shard_id, [])
            batches.append(rows)
            if self._newest is not None:
                while sum(batch.num_rows for batch in batches[1:]) >= self._newest:
                    del batches[0]

    def take(self) -> pl.DataFrame | pa.Table:
        """Return all rows, in order, and keep none of them.

        polars moves 16 bytes of each text, which say where it lies; the text itself stays where it was decoded. Arrow
        copies all of it, and is used only where polars cannot be.
        """
        with self._lock:
            batches, self._batches = self._batches, {}
            parents = dict(self._parents)
        tables: dict[str, pa.Table] = {}
        keys: list[Keys] = []
        latest: dict[str, int] = {}  # by shard: the key of its last row, which a row of its children has at least
        for shard_id in parents_first(parents):
            floor = max((latest[parent] for parent in parents.get(shard_id, ())), default=0)
            table = tables[shard_id] = concat(batches.pop(shard_id, ()))
            keys.append(_keys(table, floor))
            latest[shard_id] = int(keys[-1][-1]) if table.num_rows else floor
        return _sorted(tables, keys) if polars_works() else _sorted_by_arrow(tables, keys)


def _keys(table: pa.Table, floor: int) -> Keys:
    """Return what the rows of one shard are ordered by, which never steps back."""
    arrival = table["kinesis_ingestion_timestamp"].cast(pa.int64()).to_numpy()
    return np.maximum.accumulate(np.maximum(arrival, floor))


def _sorted(tables: Mapping[str, pa.Table], keys: Sequence[Keys]) -> pl.DataFrame:
    """Return the rows of all shards in the order of their keys, equal ones in the order of the shards."""
    table, order = _joined(tables, keys)
    # creating a constant column is faster than moving its rows; mostly nothing was aggregated, and all is text
    made: dict[str, pl.Series | pl.Expr] = {}
    if table["data_raw"].null_count == table.num_rows:
        made["data_raw"] = pl.lit(None, pl.Binary)
    if not pc.any(table["sub_sequence_number"].cast(pa.bool_())).as_py():
        made["sub_sequence_number"] = pl.lit(0, pl.Int64)
    filled = [shard_id for shard_id, rows in tables.items() if rows.num_rows]
    if len(filled) == 1:
        made["shard_id"] = pl.lit(filled[0], pl.String)
    if order is None:
        frame = cast("pl.DataFrame", pl.from_arrow(table.drop_columns(list(made)), rechunk=False))
    else:
        shard = np.repeat(np.arange(len(tables)), [rows.num_rows for rows in tables.values()])
        made["shard_id"] = pl.Series(list(tables)).gather(pl.Series(shard[order]))
        frame = pl.DataFrame(table.drop_columns(list(made)))  # in one chunk, out of which rows are taken fastest
        frame = frame.select(pl.all().gather(pl.Series(order)))
    return frame.with_columns(**made).select(SCHEMA.names)


def _sorted_by_arrow(tables: Mapping[str, pa.Table], keys: Sequence[Keys]) -> pa.Table:
    """Return the same rows in the same order without polars."""
    table, order = _joined(tables, keys)
    return table if order is None else take_rows(table, order)


def _joined(tables: Mapping[str, pa.Table], keys: Sequence[Keys]) -> tuple[pa.Table, Keys | None]:
    """Return the rows of all shards, and in which order to take them; None as they are."""
    table = pa.concat_tables([concat([]), *tables.values()])
    key = np.concatenate([np.empty(0, np.int64), *keys])
    is_sorted = bool((key[:-1] <= key[1:]).all())
    return table, None if is_sorted else np.argsort(key, kind="stable")
