"""An export that runs in the background: takes rows from a RowSource, and gives them to an Exporter."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.core import interrupt
from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.running import Running
from kinesis_nb.display import table_html
from kinesis_nb.errors import KinesisError, TableError
from kinesis_nb.exporting.entries import Preparer
from kinesis_nb.exporting.exporter import STREAMED, Exporter
from kinesis_nb.exporting.options import Delivery
from kinesis_nb.exporting.report import DoneRows, ExportReport, Tally
from kinesis_nb.notebook import LiveDisplay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.exporting.options import RecordOptions
    from kinesis_nb.exporting.rows import RowSource
    from kinesis_nb.exporting.target import Outlet, Target

POLL_SECONDS = 0.5  # between two polls for new rows
STOP_SECONDS = 10.0
SLICE_SECONDS = 0.2  # rate= holds over each interval of this length
NAMED = 1_000  # rows that were given up and are in the report, the newest: an export may run for ever
_FAILED = {"shard_id": pl.String, "shard_offset": pl.Int64, "reason": pl.String}


@dataclass(frozen=True, slots=True)
class StreamingExportStatus:
    """A snapshot of a streaming export.

    Attributes
    ----------
    state
        ``running``, ``ended`` (everything up to ``end=``, or from an ended tail, is sent), ``stopped`` or ``failed``.
    rows
        Rows that the service acknowledged, by all runs of this export together.
    pending
        Rows that were read and are not acknowledged yet.
    possible_duplicates
        By all runs: how many rows may be in the output stream twice.
    failed
        Rows that were given up, by all runs; :attr:`StreamingExport.failed` says why.
    report
        Of this run: requests, retries, throttles, per-shard counts, and the newest 1,000 rows that were given up.
    dropped
        Rows that a tail dropped before they were taken, because it was full; ``on_full="block"`` avoids that.
    error
        Why it failed, or why it is retrying (the table cannot be read, the disk of the journal is full); else empty.
    waits_for
        With ``end=``: what has to happen before it ends; else empty.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> source = kn.demo()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = source.sync("orders", f"{folder}/orders")
    ...     export = source.export_stream(sync, source.explore("results").summary.arn)
    ...     export.wait(timeout=60), export.status().state, export.status().possible_duplicates
    ...     export.stop()
    ...     sync.stop()
    (True, 'running', 0)
    """

    state: str
    rows: int
    pending: int
    possible_duplicates: int
    failed: int
    report: ExportReport
    dropped: int
    error: str
    waits_for: str = ""


@of_one_process
class StreamingExport(Running, LiveDisplay):
    """A running export; made by :meth:`kinesis_nb.source.Source.export_stream`.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> source = kn.demo()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = source.sync("orders", f"{folder}/orders")
    ...     export = source.export_stream(sync, source.explore("results").summary.arn)
    ...     sync.wait(timeout=60), export.wait(timeout=60), export.status().rows
    ...     export.stop()
    ...     sync.stop()
    (True, True, 1000)
    """

    def __init__(
        self, outlet: Outlet, target: Target, rows: RowSource, options: RecordOptions, rate: float | None
    ) -> None:
        self.stream = outlet.stream
        self.journal, self.tally = rows.journal, Tally(outlet.stream, named=NAMED)
        self._clock, self._target, self._rows, self._rate = outlet.clock, target, rows, rate
        self._preparer = Preparer(rows.schema, options, self._gave_up)
        self.tally.keyed_by(self._preparer.column)
        self._exporter = Exporter(outlet, target, self.tally, Delivery(), rows.journal)
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._passes = threading.Condition()  # guards the two below
        self._begun = 0  # polls that have begun
        self._queued_by_pass = (0, 0)  # the last poll that ended, and how many rows were queued by then
        self._next_row = 0
        self._started = self._due = outlet.clock.monotonic()
        self._error: BaseException | None = None
        self._retry_reason = ""

    def start(self) -> None:
        """Start the threads; returns at once."""
        try:
            self._exporter.start()
            threading.Thread(target=self._run, name=f"kinesis_nb {self.stream} export", daemon=True).start()
        except BaseException:
            self.request_stop()
            raise

    # --- the background thread ---

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._poll()
                if self._rows.is_over:
                    break
                self._stopping.wait(POLL_SECONDS)
            if not self._stopping.is_set() or self.journal is None:  # rows taken from a tail are nowhere else
                self._exporter.finish(lambda _rows: None)
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self._error = None if self._was_stopped(error) else error
        finally:
            self._stop_sending()
            self._exporter.stop()
            self._close_journal()
            self._over.set()

    def _was_stopped(self, error: BaseException) -> bool:
        """Whether it was stopped while it waited for a full disk; closing the journal finds out if there is room."""
        return isinstance(error, TableError) and error.retryable and self._stopping.is_set()

    def _stop_sending(self) -> None:
        self._exporter.halt()
        if self.journal is not None:
            self.journal.stop_waiting()

    def _close_journal(self) -> None:
        try:
            if self.journal is not None:
                self.journal.close()
        except KinesisError as error:
            self._error = self._error or error

    def _poll(self) -> None:
        with self._passes:
            self._begun += 1
            number = self._begun
        try:
            for rows, first_row in self._rows.parts(self._number):
                self._feed(rows, first_row)
                if self._stopping.is_set():
                    return
            self._retry_reason = ""
        except TableError as error:
            if not error.retryable:  # the journal could not be written: what was taken is not queued
                raise
            if not self._stopping.is_set():
                self._retry_reason = str(error)
            return
        if self._exporter.error is not None:
            raise self._exporter.error
        if self.journal is not None:
            self.journal.sync()
        with self._passes:
            self._queued_by_pass = (number, self._next_row)

    def _number(self, rows: int) -> int:
        """Return the number of the first of the next rows, and count all of them."""
        first = self._next_row
        self._next_row += rows
        return first

    def _feed(self, rows: pl.DataFrame, first_row: int) -> None:
        for part in rows.iter_slices(self._slice_rows(rows.height)):
            records = self._preparer.records(part, first_row, DoneRows())
            first_row += part.height
            records = self._without_large(records)
            self._exporter.wait_for_room(STREAMED, lambda _rows: None)
            self._pace(part.height)
            if self._stopping.is_set() and self.journal is not None:  # rows taken from a tail are nowhere else
                return
            self._exporter.queue(self._preparer.entries(records))

    def _without_large(self, records: pl.DataFrame) -> pl.DataFrame:
        """Give up what the output stream does not take: nobody is there to ask, and the rest must not wait."""
        is_large = pl.col("size") > self._target.record_bytes
        large = records.filter(is_large)
        if large.height:
            self._gave_up(large["row"].to_list(), f"larger than {self._target.record_bytes:,} bytes with the key")
        return records.filter(~is_large)

    def _gave_up(self, rows: Sequence[int], reason: str) -> None:
        if self.journal is not None:
            self.journal.gave_up(rows, reason)
        self.tally.gave_up(rows, reason)

    def _slice_rows(self, most: int) -> int:
        return max(1, most if self._rate is None else min(most, int(self._rate * SLICE_SECONDS)))

    def _pace(self, rows: int) -> None:
        if self._rate is not None:
            now = self._clock.monotonic()
            self._due = max(self._due, now) + rows / self._rate
            self._stopping.wait(max(0.0, self._due - rows / self._rate - now))

    # --- what the user has ---

    def stop(self) -> None:
        """Stop after the responses to the requests under way. Stopping twice is fine; the same call resumes."""
        self.request_stop()
        self.join(STOP_SECONDS)

    def request_stop(self) -> None:
        """Start to stop, and return at once."""
        self._stopping.set()
        if self.journal is not None:
            self._stop_sending()

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until the export is over; return whether it is."""
        return interrupt.wait(self._over, in_seconds(timeout))

    def _outcomes(self, *, until_caught_up: bool) -> Iterator[bool | None]:
        with self._passes:
            begun = self._begun
        while not self._over.wait(0.05):
            yield (until_caught_up and self._has_sent_what_was_there(begun)) or None
        if self._error is not None:
            raise self._error
        yield self._state() == "ended"

    def _monotonic(self) -> float:
        return self._clock.monotonic()

    def _has_sent_what_was_there(self, begun: int) -> bool:
        with self._passes:
            number, queued = self._queued_by_pass
        return number > begun and self.tally.first_open >= queued

    def status(self) -> StreamingExportStatus:
        """Return a snapshot of the export."""
        report = self.tally.report(self._clock.monotonic() - self._started)
        journal = self.journal
        return StreamingExportStatus(
            state=self._state(),
            rows=report.rows if journal is None else journal.rows,
            pending=self.tally.open,
            possible_duplicates=report.possible_duplicates if journal is None else journal.possible_duplicates,
            failed=self.tally.failed if journal is None else journal.failed,
            report=report,
            dropped=self._rows.dropped,
            error=str(self._error or self._retry_reason or ("" if journal is None else journal.retry_reason)),
            waits_for=self._rows.waits_for if self.is_running else "",
        )

    def _state(self) -> str:
        if self._error is not None:
            return "failed"
        if not self._over.is_set():
            return "running"
        return "stopped" if self._stopping.is_set() else "ended"

    @property
    def is_running(self) -> bool:
        """Whether it still sends."""
        return not self._over.is_set()

    @property
    def is_active(self) -> bool:
        """Whether it still sends, and was not asked to stop."""
        return self.is_running and not self._stopping.is_set()

    @property
    def has_trouble(self) -> bool:
        """Whether it cannot read its rows now, and retries; a call with new credentials may help."""
        return bool(self._retry_reason)

    @property
    def failed(self) -> pl.DataFrame:
        """The rows that were given up, and why; of a tail the newest 1,000."""
        if self.journal is None:
            return self.tally.report(0.0).failed
        return pl.DataFrame(self.journal.failed_rows(), _FAILED, orient="row")

    def __repr__(self) -> str:
        status = self.status()
        error = f", {status.error.splitlines()[0]}" if status.error else ""
        waits = f", waits for {status.waits_for}" if status.waits_for else ""
        return (
            f"<StreamingExport to {self.stream}: {status.state}, {status.rows:,} rows,"
            f" {status.pending:,} pending, {status.possible_duplicates:,} possible duplicates{waits}{error}>"
        )

    def _repr_html_(self) -> str:
        shards = self.status().report.shards
        return table_html(shards.columns, shards.rows(), repr(self).strip("<>"))
