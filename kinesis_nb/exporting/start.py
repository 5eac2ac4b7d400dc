"""Starts the export of a synced table, or of a tail: everything is checked before anything is sent or written."""

from __future__ import annotations

import atexit
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.position import Kind
from kinesis_nb.core.process import check_polars
from kinesis_nb.core.running import Registry
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.exporting.entries import Preparer
from kinesis_nb.exporting.follow import TableFollower
from kinesis_nb.exporting.journal import Journal, check_journal
from kinesis_nb.exporting.rows import TableRowSource, TailRowSource, record_schema
from kinesis_nb.exporting.streaming import StreamingExport
from kinesis_nb.exporting.target import describe_target
from kinesis_nb.reading.tail import Tail
from kinesis_nb.syncing.start import hurry

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from kinesis_nb.exporting.options import Range, RecordOptions
    from kinesis_nb.exporting.rows import Rows
    from kinesis_nb.exporting.target import Outlet, Target
    from kinesis_nb.table.storage import Storage

_exports: Registry[StreamingExport] = Registry()
atexit.register(_exports.stop_all)


def start_export(
    outlet: Outlet, rows: Rows, options: RecordOptions, span: Range, *, setup: object = None
) -> StreamingExport:
    """Start an export, or return the one that runs already in this process.

    Parameters
    ----------
    setup
        Equal for calls with the same source and the same options of the storage. An export that runs with other ones,
        or with other `options`, is stopped, and another one started.
    """
    check_polars()
    if isinstance(rows.where, Tail):
        plan: _TailPlan | _TablePlan = _TailPlan(outlet, rows.where, options, span)
    else:
        table = apart(TableFollower)(rows.where)
        plan = _TablePlan(outlet, table, options, span, _journal_path(table.storage, outlet.arn, span))
    return _exports.start(plan.key, (setup, options, span, plan.what), plan.prepare)


@dataclass(frozen=True, slots=True)
class _TablePlan:
    """The export of a synced table; its key is the file of the journal, which one export has to itself."""

    outlet: Outlet
    table: TableFollower
    options: RecordOptions
    span: Range
    key: Path

    @property
    def what(self) -> tuple[str, ...]:
        """The table and the output stream: a journal may be named for others before the export that has it ends."""
        return self.table.storage.uri, self.outlet.arn

    def prepare(self) -> Callable[[], StreamingExport]:
        """Check everything, and return what makes the export: a call that is refused must not leave a journal."""
        if self.table.origin.stream_arn == self.outlet.arn:
            _warn_of_loop(self.outlet)
        target = describe_target(self.outlet)
        header = self._header(target)
        _check_columns(self.table.schema, self.options)
        check_journal(self.key, header)
        return lambda: self._make(target, header)

    def _header(self, target: Target) -> dict[str, str | None]:
        """Return what the journal is for."""
        origin = self.table.origin
        return {
            "table": origin.stream_arn,
            "table_id": self.table.table_id,
            "created_at": origin.created_at,
            "output": self.outlet.arn,
            "output_created_at": target.created_at,
        }

    def _make(self, target: Target, header: dict[str, str | None]) -> StreamingExport:
        clock = self.outlet.clock
        journal = Journal.open(self.key, header, self.span.start, clock, apart(self.table.ends))
        try:
            rows = TableRowSource(self.table, journal, self.span.end, clock, self._hurry_sync)
            return StreamingExport(self.outlet, target, rows, self.options, self.span.rate)
        except BaseException:
            journal.close()
            raise

    def _hurry_sync(self) -> None:
        hurry(self.table.origin.stream_arn, self.table.storage)


@dataclass(frozen=True, slots=True)
class _TailPlan:
    """The export of a tail: without a journal, because its rows are nowhere else."""

    outlet: Outlet
    tail: Tail
    options: RecordOptions
    span: Range

    @property
    def key(self) -> tuple[str, int, str]:
        """The tail and the output stream: one export of this process has both to itself."""
        return "tail", id(self.tail), self.outlet.arn

    @property
    def what(self) -> tuple[str, ...]:
        """Nothing that the key does not say."""
        return ()

    def prepare(self) -> Callable[[], StreamingExport]:
        """Check everything, and return what makes the export."""
        span = self.span
        if span.end is not None or span.start.kind is not Kind.TRIM_HORIZON or span.journal is not None:
            raise ConfigError(
                "a tail is exported from its current position",
                hint="leave out start=, end= and journal=, or export a synced table",
            )
        if self.tail.stream == self.outlet.stream:
            _warn_of_loop(self.outlet)
        target = describe_target(self.outlet)
        _check_columns(record_schema(), self.options)
        return lambda: StreamingExport(self.outlet, target, TailRowSource(self.tail), self.options, span.rate)


def _check_columns(schema: pl.Schema, options: RecordOptions) -> None:
    Preparer(schema, options, lambda _rows, _reason: None)


def _warn_of_loop(outlet: Outlet) -> None:
    warn(f"{outlet.stream} is exported into itself: this creates an endless loop")


def _journal_path(storage: Storage, arn: str, span: Range) -> Path:
    if span.journal is not None:
        return Path(span.journal).expanduser().absolute()
    if storage.folder is None:
        raise ConfigError(
            f"{storage.uri} is not a folder of this machine, so the position needs a place",
            hint="give journal= with a local path",
        )
    # a time range is an export of its own
    name = arn if span.end is None else f"{arn} {span.start!r} {span.end.isoformat()}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return storage.folder / "_exports" / f"{arn.rpartition('/')[2]}-{digest}.journal"
