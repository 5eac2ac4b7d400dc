"""Places for a table: a folder, and S3 as two servers speak it."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.table.origin import Origin
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.support.local import local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import kinesis_nb as kn
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.table.checkpoints import Checkpoint

ORIGIN = Origin("arn:aws:kinesis:us-east-1:000000000000:stream/orders", "2026-11-01", "trim_horizon")


@dataclass(frozen=True)
class Place:
    """Where a table is, and how to get there."""

    uri: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        return Storage.at(self.uri, lambda: self.options)

    def sync(self, source: kn.Source, stream: str = "orders", *args: Any, **options: Any) -> Sync:
        return local(source.sync(stream, self.uri, *args, storage_options=self.options or None, **options))

    def open(self, origin: Origin = ORIGIN) -> SyncTable:
        return SyncTable.open(self.storage, origin)

    def rows(self) -> pl.DataFrame:
        rows = pl.scan_delta(self.uri, storage_options=self.options or None).collect()
        return rows.sort("partition_key", "shard_offset")


@contextmanager
def away(table: Path) -> Iterator[None]:
    """Put a file where the folder is, so that nothing can be written, and bring the folder back afterwards.

    A commit under way creates the folders it misses, so each time the two trade places in one step.
    """
    elsewhere = table.with_name(f"{table.name} away")
    elsewhere.write_text("a file where the folder was: nothing can be written below it")
    exchange(table, elsewhere)
    try:
        yield
    finally:
        exchange(table, elsewhere)
        elsewhere.unlink()


def exchange(one: Path, other: Path) -> None:
    """Let two paths trade names in one step, as renameat2() of Linux does and `os` cannot."""
    at_working_directory, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    ended = libc.renameat2(
        at_working_directory, os.fsencode(one), at_working_directory, os.fsencode(other), rename_exchange
    )
    if ended:
        raise OSError(ctypes.get_errno(), "cannot exchange", str(one), None, str(other))


def checkpoint(table: SyncTable, shard_id: str) -> Checkpoint:
    return table.checkpoints([shard_id])[shard_id]
