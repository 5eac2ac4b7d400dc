"""The rows of a table as a LazyFrame for users: it holds no key, and fails with an error of ours.

A scan of polars keeps the options of the object store in its plan, so they would travel with a pickle of it, and stand
in the frames of the error when it fails. Ours keeps the open table and asks for the options when it is collected; a
scan of a folder has no options, and stays polars' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import polars as pl
from polars.io.plugins import register_io_source

from kinesis_nb.errors import ConfigError, forget_frames
from kinesis_nb.table.failures import storage_explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.table.address import Handle
    from kinesis_nb.table.storage import Storage


def scan(storage: Storage, version: int | None = None) -> pl.LazyFrame:
    """Return the rows of a version, the newest by default.

    Raises
    ------
    TableError
        When the table cannot be opened now.
    """
    if version is not None and version < 0:
        raise ConfigError(f"version={version}: a table has no such version", hint="versions count from 0")
    with storage_explained(storage.uri):
        if storage.folder is not None:
            return storage.scan(version)
        rows = _LazyRows(storage, storage.open(version))
    return register_io_source(rows, schema=rows.schema, is_pure=True, explain_name=f"DELTA {storage.uri}")


class _LazyRows:
    """Gives the rows of one version of a table in an object store, as often as they are asked for."""

    def __init__(self, storage: Storage, table: Handle) -> None:
        self._storage, self._table = storage, table
        self.schema = pl.Schema(table.schema())

    def __call__(
        self, columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Read what polars pushed down."""
        try:
            yield from self._read(columns, predicate, limit, batch_rows)
        except BaseException as error:  # noqa: BLE001 - whatever it is, its frames hold the options
            failed = error
        else:
            return
        del self  # it refers to the options as well
        forget_frames(failed)
        raise failed

    def _read(
        self, columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        with storage_explained(self._storage.uri):
            rows = self._storage.rows_of(self._table)
            if columns is not None:
                rows = rows.select(columns)
            if predicate is not None:
                rows = rows.filter(predicate)
            if limit is not None:
                rows = rows.head(limit)
            yield from rows.collect_batches(chunk_size=batch_rows, maintain_order=True)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "the scan of a table in S3 is not pickled: collect it first, or scan the table where it is needed,"
            " with pl.scan_delta(sync.uri, storage_options=sync.storage_options)"
        )
