"""A synced Delta table as it grows: its new rows, in an order that keeps the order of every key."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.errors import TableError
from kinesis_nb.exporting.journal import OFFSET, SHARD, not_before
from kinesis_nb.table.checkpoints import known, reached
from kinesis_nb.table.failures import one_line, storage_errors
from kinesis_nb.table.origin import Origin, read_origin
from kinesis_nb.table.txns import Txns

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from datetime import datetime

    from deltalake import DeltaTable

    from kinesis_nb.table.storage import Storage

BAND_ROWS, BAND_BYTES = 50_000, 32 * 2**20  # what is read at once
NEEDED = ("partition_key", "data", "kinesis_ingestion_timestamp", "shard_id", "shard_offset")


class TableFollower:
    """Yields the rows of new files in the order of their offsets; the caller says which rows it has taken."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self._options = storage, storage.options()
        self._numbers = Txns(storage)
        try:
            self._table = storage.open()
        except OSError as error:
            raise TableError(
                f"{storage.uri} is not a Delta table: {error}", hint="give the path of a synced table"
            ) from error
        _check_columns(self._table, storage.uri)
        self._seen: set[str] = set()

    @property
    def origin(self) -> Origin:
        """The stream that the rows came from; empty where the table does not say."""
        return read_origin(self._table) or Origin("", "", "")

    @property
    def schema(self) -> pl.Schema:
        """The columns."""
        return pl.Schema(self._table.schema())

    def ends(self) -> dict[str, int]:
        """Return, per shard, the offset behind its last row."""
        with self._reading("run the same line again"):
            rows = self._scan(self._table.file_uris())
            if rows is None:
                return {}
            last = rows.group_by(SHARD).agg(pl.col(OFFSET).max() + 1).collect()
            return dict(last.iter_rows())

    @property
    def table_id(self) -> str:
        """What distinguishes this table from any other, wherever they are."""
        return str(self._table.metadata().id)

    def seen(self) -> datetime | None:
        """Return up to when everything that arrived in the stream is in the table; None when that is not known.

        By the service's clock, at the version that :meth:`bands` gave last.
        """
        arn = self.origin.stream_arn
        with self._reading():
            numbers = self._numbers.at(self._table.version())
        open_shards = [found for name in known(numbers, arn) if not (found := reached(numbers, arn, name)).ended]
        seen = [checkpoint.seen for checkpoint in open_shards if checkpoint.seen]
        return min(seen) if seen and len(seen) == len(open_shards) else None

    def bands(self, taken: Mapping[str, int]) -> Iterator[pl.DataFrame]:
        """Yield the rows of new files that are not before `taken`, in bounded pieces.

        The rows of a key are in the order of their offsets: the children of a shard continue its numbers, so the order
        holds across reshards too.
        """
        with self._reading():
            files = self._newest().file_uris()
            new = [file for file in files if file not in self._seen]
            rows = self._scan(new)
            if rows is not None:
                yield from _in_bands(rows.filter(not_before(taken)))
        self._seen = set(files)

    @contextmanager
    def _reading(self, hint: str = "nothing to do: it is read again") -> Generator[None]:
        """Raise whatever goes wrong as a retryable TableError."""
        try:
            with storage_errors():
                yield
        except TableError as error:  # an entry of the log that is incomplete
            raise TableError(error.message, hint=error.hint, retryable=True) from error
        except (OSError, pl.exceptions.PolarsError) as error:
            msg = f"{self.storage.uri} cannot be read: {one_line(error)}"
            raise TableError(msg, hint=hint, retryable=True) from error

    def _newest(self) -> DeltaTable:
        options = self.storage.options()
        if options != self._options:  # renewed credentials: the open table would keep the old ones
            self._table, self._options = self.storage.open(), options
        self._table.update_incremental()
        return self._table

    def _scan(self, files: list[str]) -> pl.LazyFrame | None:
        if not files:
            return None
        return pl.scan_parquet(  # glob and hive off: a [1] in a path is part of its name, and so is k=v
            files,
            schema=pl.Schema(self._table.schema()),
            storage_options=self._options or None,
            missing_columns="insert",
            extra_columns="ignore",
            glob=False,
            hive_partitioning=False,
        )


def _check_columns(table: DeltaTable, uri: str) -> None:
    names = {field.name for field in table.schema().fields}
    if missing := [name for name in NEEDED if name not in names]:
        raise TableError(
            f"{uri} has no column {missing[0]!r}, so it is not a synced table",
            hint="export_df() takes any frame; sync() makes such tables",
        )


def _in_bands(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    offset, size = pl.col(OFFSET), pl.col("data").str.len_bytes().sum()
    measures = rows.select(pl.len(), offset.min().alias("a"), offset.max().alias("b"), size)
    count, least, most, total = measures.collect(engine="streaming").row(0)
    if not count:
        return
    pieces = max(1, -(-count // BAND_ROWS), -(-(total or 0) // BAND_BYTES))
    width = max(1, -(-(most - least + 1) // pieces))
    for start in range(least, most + 1, width):
        yield rows.filter(offset.is_between(start, start + width - 1)).sort(OFFSET).collect()
