"""Rows of a frame -> entries that a lane can send: checked, encoded, and on request aggregated."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.errors import warn
from kinesis_nb.exporting.encode import (
    DATA,
    KEY,
    Payload,
    hashed_keys,
    partition_column,
    refuse_rows,
    unusable_keys,
)
from kinesis_nb.exporting.lane import Entry
from kinesis_nb.exporting.refusals import reading
from kinesis_nb.wire.aggregation import pack
from kinesis_nb.wire.putting import encode_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kinesis_nb.exporting.options import RecordOptions
    from kinesis_nb.exporting.report import DoneRows, Marks

    GaveUp = Callable[[Sequence[int], str], None]
    """Takes the numbers of rows that are left out, and the reason."""

AGGREGATE_BYTES = 256 * 2**10  # of one aggregate: a shard takes four of them in a second
_FRAMING = 16  # bytes that an aggregate adds to each of its records, at most
_ROW = "row"
_PLACE = "\0place"  # a name that no column of a user has


class Preparer:
    """Turns the rows of one frame into entries, batch by batch.

    Attributes
    ----------
    column
        The one that gives the partition keys.
    """

    def __init__(self, schema: pl.Schema, options: RecordOptions, gave_up: GaveUp) -> None:
        self._options, self._gave_up = options, gave_up
        self._payload = Payload(schema, options.encode, options.data_column)
        self.beside = self._payload.beside
        wanted = options.partition_column
        if wanted is None and (self._payload.is_synced or self.beside):
            wanted = KEY
        self.column = partition_column(schema, wanted)
        self._marked = self._payload.source_columns(self.column)

    def check_keys(self, frame: pl.LazyFrame) -> None:
        """Refuse a frame with unusable keys before anything is sent, where that is what the user wants."""
        if self._options.on_bad_key == "fail":
            keys = frame.select(pl.col(self.column).cast(pl.String)).with_row_index(_ROW)
            length = pl.col(self.column).str.len_chars().fill_null(0)
            with reading("the frame cannot be read", "run frame.collect() to see why"):
                bad = keys.filter((length < 1) | (length > KEY_CHARACTERS)).select(_ROW).collect(engine="streaming")
            self._refuse_keys(bad[_ROW])

    def _refuse_keys(self, rows: pl.Series) -> None:
        refuse_rows(
            rows,
            f"no usable partition key in {self.column!r}",
            'keys have 1 to 256 characters; on_bad_key="skip" leaves such rows out, "hash" makes them a key',
        )

    def marks(self, rows: pl.DataFrame, first_row: int) -> Marks:
        """Return a number per row that differs for other values, and for the same values in another place."""
        made_of = rows if self._marked is None else rows.select(self._marked)
        made_of = made_of.with_columns(cs.categorical().cast(pl.String))  # the numbers of categories differ per process
        return made_of.with_row_index(_PLACE, first_row).hash_rows().to_numpy()

    def records(self, rows: pl.DataFrame, first_row: int, done: DoneRows) -> pl.DataFrame:
        """Return the rows that are to be sent, as columns row, key, data, size.

        Parameters
        ----------
        first_row
            The number of the first of them; the others follow.
        done
            Rows that are done already and left out.
        """
        numbers = pl.int_range(first_row, first_row + rows.height, dtype=pl.Int64, eager=True).alias(_ROW)
        if first_row < done.end:
            wanted = pl.Series([number not in done for number in numbers], dtype=pl.Boolean)
            rows, numbers = rows.filter(wanted), numbers.filter(wanted)
        keys = rows[self.column].cast(pl.String).alias("key")
        unusable = unusable_keys(keys)
        if unusable.any():
            if self._options.on_bad_key == "fail":
                self._refuse_keys(numbers.filter(unusable))
            if self._options.on_bad_key == "skip":
                self._gave_up(numbers.filter(unusable).to_list(), f"no usable partition key in {self.column!r}")
                rows, numbers, keys = rows.filter(~unusable), numbers.filter(~unusable), keys.filter(~unusable)
        data = self._payload.encoded(rows, numbers)
        if unusable.any() and self._options.on_bad_key == "hash":
            keys = hashed_keys(keys, data, unusable)
        key_bytes = keys.str.len_bytes().cast(pl.Int64)
        if (key_bytes > KEY_CHARACTERS).any():
            self._warn_of_long_keys(keys)
        size = data.bin.size().cast(pl.Int64) + key_bytes
        return pl.DataFrame({_ROW: numbers, "key": keys, "data": data, "size": size})

    def _warn_of_long_keys(self, keys: pl.Series) -> None:
        """Keys are counted in characters; a server that counts UTF-16 units refuses some of them as too long."""
        if any(len(key.encode("utf-16-le")) // 2 > KEY_CHARACTERS for key in keys):
            warn("a partition key has up to 256 characters, but more than 256 UTF-16 units: some servers refuse it")

    def entries(self, records: pl.DataFrame) -> list[Entry]:
        """Return the entries for records of :meth:`records`."""
        if self._options.aggregate:
            records = self._aggregated(records)
            rows: Iterable[tuple[int, ...]] = map(tuple, records[_ROW].to_list())
        else:
            rows = zip(records[_ROW].to_list())
        wires = encode_records(records["key"], records["data"])
        return list(map(Entry, records["key"].to_list(), wires, records["size"].to_list(), rows))

    def _aggregated(self, records: pl.DataFrame) -> pl.DataFrame:
        """Join the records of each key, in their order, into aggregates; a single record stays plain."""
        runs = _runs(records)
        data = [run.data[0] if len(run.data) == 1 else pack(run.key, run.data, uuid.uuid4().hex) for run in runs]
        sizes = [len(content) + len(run.key.encode()) for content, run in zip(data, runs, strict=True)]
        rows = pl.Series(_ROW, [run.rows for run in runs], pl.List(pl.Int64))
        keys = pl.Series("key", [run.key for run in runs], pl.String)
        return pl.DataFrame([rows, keys, pl.Series(DATA, data, pl.Binary), pl.Series("size", sizes, pl.Int64)])


def waves(records: pl.DataFrame) -> pl.DataFrame:
    """Put the first record of every key before all second ones, and so on, each wave in the order of the rows.

    A request holds one record of a key, so this fills requests even where the rows are sorted by key.
    """
    wave = pl.int_range(pl.len()).over("key").alias("wave")
    return records.with_columns(wave).sort("wave", maintain_order=True).drop("wave")


class _Run:
    """Records of one key that go into one aggregate."""

    def __init__(self, key: str) -> None:
        self.key, self.rows, self.size = key, list[int](), 0
        self.data: list[bytes] = []

    def add(self, row: int, data: bytes, size: int) -> None:
        self.rows.append(row)
        self.data.append(data)
        self.size += size + _FRAMING


def _runs(records: pl.DataFrame) -> list[_Run]:
    runs: list[_Run] = []
    latest: dict[str, _Run] = {}
    for row, key, data, size in records.iter_rows():
        run = latest.get(key)
        if run is None or run.size + size > AGGREGATE_BYTES:
            run = latest[key] = _Run(key)
            runs.append(run)
        run.add(row, data, size)
    return runs


def refuse_large(records: pl.DataFrame, most: int) -> None:
    """Raise a ConfigError for records that are larger than the stream takes."""
    refuse_rows(
        records.filter(pl.col("size") > most)[_ROW],
        f"larger than {most:,} bytes with the key",
        f"this stream takes records of up to {most / 2**20:g} MiB; nothing is cut",
    )
