"""Follows a synced table, or a tail, and writes what comes to another stream: resumable, and in order per key."""

from __future__ import annotations

import atexit
import hashlib
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.process import check_polars
from kinesis_nb.core.running import Registry
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.exporting.entries import Preparer
from kinesis_nb.exporting.follow import GrowingTable
from kinesis_nb.exporting.journal import Journal, check_journal
from kinesis_nb.exporting.rows import TableFeeder, TailFeeder
from kinesis_nb.exporting.streaming import StreamingExport
from kinesis_nb.exporting.target import look_up
from kinesis_nb.reading.tail import Tail
from kinesis_nb.syncing.start import hurry
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.transport import Clock, Kinesis
    from kinesis_nb.exporting.entries import Options


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows of a table are exported; see :meth:`kinesis_nb.source.Source.export_stream`."""

    start: StartingPosition
    end: datetime | None = None
    rate: float | None = None
    journal: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.start.kind is Kind.AFTER_SEQUENCE_NUMBER:
            raise ConfigError(
                "a sequence number is a place in one shard", hint='use "trim_horizon", "latest" or a time'
            )
        if not isinstance(self.journal, str | PathLike | None) or self.journal == "":
            raise ConfigError(f"journal={self.journal!r} is no file", hint="give the path of a file, or leave it out")
        if self.rate is not None and not (isinstance(self.rate, int | float) and 0 < self.rate < float("inf")):
            raise ConfigError(f"rate={self.rate!r} is no rate", hint="give rows per second, more than 0")


_exports: Registry[StreamingExport] = Registry()
atexit.register(_exports.stop_all)


def start_export(
    kinesis: Kinesis,
    clock: Clock,
    rows: Any,
    stream: str,
    arn: str,
    options: Options,
    span: Range,
    *,
    setup: object = None,
) -> StreamingExport:
    """Start an export, or return the one that runs already in this process.

    Parameters
    ----------
    setup
        Equal for calls with the same source and the same options of the storage. An export that runs with other ones,
        or with other `options`, is stopped, and another one started.
    """
    check_polars()
    setup = (setup, options, span)
    if isinstance(rows, Tail):
        key = ("tail", id(rows), arn)
        return _exports.start(key, setup, lambda: _follow_tail(kinesis, clock, rows, stream, arn, options, span))
    storage = _storage(rows)
    table = apart(GrowingTable)(storage)
    path = _journal_path(storage, arn, span)
    setup = (setup, storage.uri, arn)  # the journal is the same, what it is for may not be
    return _exports.start(path, setup, lambda: _follow_table(kinesis, clock, table, path, stream, arn, options, span))


def _follow_table(
    kinesis: Kinesis,
    clock: Clock,
    table: GrowingTable,
    path: Path,
    stream: str,
    arn: str,
    options: Options,
    span: Range,
) -> Callable[[], StreamingExport]:
    """Check everything, and return what makes the export: a call that is refused must not leave a journal."""
    origin = table.origin
    if origin.stream_arn == arn:
        _warn_of_loop(stream)
    target = look_up(kinesis, clock, stream, arn)
    header = {
        "table": origin.stream_arn,
        "table_id": table.table_id,
        "created_at": origin.created_at,
        "output": arn,
        "output_created_at": target.created_at,
    }
    begin = span.start.timestamp.isoformat() if span.start.kind is Kind.AT_TIMESTAMP and span.start.timestamp else None
    schema = table.schema
    Preparer(kinesis, schema, options, lambda _rows, _reason: None)
    check_journal(path, header)

    def hurry_sync() -> None:
        hurry(origin.stream_arn, table.storage)

    def make() -> StreamingExport:
        is_latest = span.start.kind is Kind.LATEST
        journal = Journal.open(path, header, begin, clock, ends=apart(table.ends), is_latest=is_latest)
        start = None if journal.begin is None else datetime.fromisoformat(journal.begin)
        try:
            return StreamingExport(
                kinesis,
                clock,
                target,
                lambda number: TableFeeder(table, journal, start, span.end, number, clock, hurry_sync),
                options,
                schema=schema,
                journal=journal,
                rate=span.rate,
            )
        except BaseException:
            journal.close()
            raise

    return make


def _follow_tail(
    kinesis: Kinesis, clock: Clock, tail: Tail, stream: str, arn: str, options: Options, span: Range
) -> Callable[[], StreamingExport]:
    if span.end is not None or span.start.kind is not Kind.TRIM_HORIZON or span.journal is not None:
        raise ConfigError(
            "a tail is exported from where it stands",
            hint="leave out start=, end= and journal=, or export a synced table",
        )
    if tail.stream == stream:
        _warn_of_loop(stream)
    target = look_up(kinesis, clock, stream, arn)
    schema = pl.DataFrame(SCHEMA.empty_table()).schema
    Preparer(kinesis, schema, options, lambda _rows, _reason: None)
    return lambda: StreamingExport(
        kinesis,
        clock,
        target,
        lambda number: TailFeeder(tail, number),
        options,
        schema=schema,
        journal=None,
        rate=span.rate,
    )


def _warn_of_loop(stream: str) -> None:
    warn(f"{stream} is exported into itself: every record comes round again, without end")


def table_uri(rows: Any) -> str:
    """Return the place of a table that another process is to export."""
    if isinstance(rows, Tail):
        raise ConfigError("a tail is in this process, and agents are not", hint="export a synced table through agents")
    return str(rows.uri if hasattr(rows, "uri") else _storage(rows).uri)


def _storage(rows: Any) -> Storage:
    if isinstance(rows, Storage):
        return rows
    if isinstance(rows, Sync) or hasattr(rows, "storage_options"):  # of agents
        return Storage(rows.uri, lambda: rows.storage_options)
    raise ConfigError(
        f"a {type(rows).__name__} is neither a synced table nor a tail",
        hint="give a Sync, the path of its table, or a Tail",
    )


def _journal_path(storage: Storage, arn: str, span: Range) -> Path:
    if span.journal is not None:
        return Path(span.journal).expanduser().absolute()
    if storage.folder is None:
        raise ConfigError(
            f"{storage.uri} is no folder of this machine, so the position needs a place",
            hint="give journal= with a local path",
        )
    name = arn
    if span.end is not None:  # a time range is an export of its own
        name += f" {span.start!r} {span.end.isoformat()}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return storage.folder / "_exports" / f"{arn.rpartition('/')[2]}-{digest}.journal"
