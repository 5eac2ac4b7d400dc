"""An export that runs in the background: takes rows from a feeder, and gives them to an exporter."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.core import interrupt
from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.process import of_one_process
from kinesis_nb.display import show_live, table_html
from kinesis_nb.errors import KinesisError, TableError
from kinesis_nb.exporting.entries import Options, Preparer
from kinesis_nb.exporting.exporter import STREAMED, Exporter
from kinesis_nb.exporting.report import ExportReport, Settled, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.core.transport import Clock, Kinesis
    from kinesis_nb.exporting.journal import Journal
    from kinesis_nb.exporting.rows import Feeder
    from kinesis_nb.exporting.target import Target

POLL_SECONDS = 0.5  # between two looks at the source
STOP_SECONDS = 10.0
SLICE_SECONDS = 0.2  # a chosen rate is kept over this time
NAMED = 1_000  # of the rows that were given up, those in the report: an export may run for ever
_FAILED = {"shard_id": pl.String, "shard_offset": pl.Int64, "reason": pl.String}


@dataclass(frozen=True, slots=True)
class StreamingExportStatus:
    """A moment of a streaming export.

    Attributes
    ----------
    state
        ``running``, ``ended`` (a time range is through), ``stopped`` or ``failed``.
    rows
        Acknowledged, by all runs of this export together.
    pending
        Rows that were read and are not acknowledged yet.
    possible_duplicates
        Of all runs together: each of so many rows may be in the output stream twice.
    failed
        Rows that were given up, by all runs; :attr:`StreamingExport.failed` says why.
    report
        Of this run: requests, retries, throttles, per-shard counts, and the newest 1,000 rows that were given up.
    dropped
        Rows that a tail had no room for before they were taken; ``on_full="block"`` keeps it from doing so.
    error
        Why it failed or is trying again, else an empty string.
    waits_for
        With ``end=``: what has to come before it ends, else an empty string.

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
class StreamingExport:
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
        self,
        kinesis: Kinesis,
        clock: Clock,
        target: Target,
        feeder: Callable[[Callable[[int], int]], Feeder],
        options: Options,
        *,
        schema: pl.Schema,
        journal: Journal | None,
        rate: float | None,
    ) -> None:
        self.stream = target.stream
        self.journal, self.tally = journal, Tally(target.stream, named=NAMED)
        self._clock, self._target, self._rate = clock, target, rate
        self._preparer = Preparer(kinesis, schema, options, self._gave_up)
        self._exporter = Exporter(kinesis, target, clock, self.tally, ordered=True, journal=journal)
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._passes = threading.Condition()  # guards the two below
        self._begun = 0  # looks at the source that were begun
        self._queued_by_pass = (0, 0)  # the last look that ended, and how many rows were queued by then
        self._next_row = 0
        self._started = self._due = clock.monotonic()
        self._error: BaseException | None = None
        self._trouble = ""
        self._feeder = feeder(self._number)

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
                self._look()
                if self._feeder.is_over:
                    break
                self._stopping.wait(POLL_SECONDS)
            if not self._stopping.is_set() or self.journal is None:  # what a tail gave is nowhere else
                self._exporter.finish(lambda _rows: None)
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self._error = error
        finally:
            self._exporter.stop()
            self._close_journal()
            self._over.set()

    def _close_journal(self) -> None:
        try:
            if self.journal is not None:
                self.journal.close()
        except KinesisError as error:
            self._error = self._error or error

    def _look(self) -> None:
        with self._passes:
            self._begun += 1
            number = self._begun
        try:
            for rows, first_row in self._feeder.parts():
                self._feed(rows, first_row)
                if self._stopping.is_set():
                    return
            self._trouble = ""
        except TableError as error:
            if not error.retryable:  # the journal could not be written: what was taken is not queued
                raise
            self._trouble = str(error)
            return
        if self._exporter.error is not None:
            raise self._exporter.error
        if self.journal is not None:
            self.journal.sync()
        with self._passes:
            self._queued_by_pass = (number, self._next_row)

    def _number(self, rows: int) -> int:
        """Return the number of the first of so many rows that come next."""
        first = self._next_row
        self._next_row += rows
        return first

    def _feed(self, rows: pl.DataFrame, first_row: int) -> None:
        for part in rows.iter_slices(self._slice_rows(rows.height)):
            records = self._preparer.records(part, first_row, Settled())
            first_row += part.height
            records = self._without_large(records)
            self._exporter.wait_for_room(STREAMED, lambda _rows: None)
            self._pace(part.height)
            if self._stopping.is_set():
                return
            self._exporter.queue(self._preparer.entries(records))

    def _without_large(self, records: pl.DataFrame) -> pl.DataFrame:
        """Give up what the output stream does not take: nobody is there to ask, and the rest must go on."""
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
        """Stop, after the answers to the requests under way. Stopping twice is fine; calling again resumes."""
        self.request_stop()
        self.join(STOP_SECONDS)

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        self._stopping.set()
        if self.journal is not None:
            self._exporter.halt()

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until it is over; return whether it is."""
        return interrupt.wait(self._over, in_seconds(timeout))

    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait until everything that is in the table now is sent.

        Parameters
        ----------
        timeout
            Seconds, or a timedelta; None waits as long as it takes.
        until_caught_up
            False waits until the export ends, which one without an end never does by itself.

        Returns
        -------
        bool
            False when the time ran out, or the export was stopped before.

        Raises
        ------
        KinesisError
            What the export failed with.
        """
        give_up = self._clock.monotonic() + in_seconds(timeout)
        with self._passes:
            begun = self._begun
        while not self._over.wait(0.05):
            if until_caught_up and self._has_sent_what_was_there(begun):
                return True
            if self._clock.monotonic() >= give_up:
                return False
        if self._error is not None:
            raise self._error
        return self._state() == "ended"

    def _has_sent_what_was_there(self, begun: int) -> bool:
        with self._passes:
            number, queued = self._queued_by_pass
        return number > begun and self.tally.first_open >= queued

    def status(self) -> StreamingExportStatus:
        """Return a moment of the export."""
        report = self.tally.report(self._clock.monotonic() - self._started)
        journal = self.journal
        return StreamingExportStatus(
            self._state(),
            report.rows if journal is None else journal.rows,
            self.tally.open,
            report.possible_duplicates if journal is None else journal.possible_duplicates,
            self.tally.failed if journal is None else journal.failed,
            report,
            self._feeder.dropped,
            str(self._error or self._trouble),
            self._feeder.waits_for if self.is_running else "",
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
        """Whether it cannot read its rows at the moment."""
        return bool(self._trouble)

    @property
    def failed(self) -> pl.DataFrame:
        """The rows that were given up, and why; of a tail the newest 1,000."""
        if self.journal is None:
            return self.tally.report(0.0).failed
        return pl.DataFrame(self.journal.failed_rows(), _FAILED, orient="row")

    def __repr__(self) -> str:
        status = self.status()
        trouble = f", {status.error}" if status.error else ""
        waits = f", waits for {status.waits_for}" if status.waits_for else ""
        return (
            f"<StreamingExport to {self.stream}: {status.state}, {status.rows:,} rows,"
            f" {status.pending:,} pending, {status.possible_duplicates:,} possible duplicates{waits}{trouble}>"
        )

    def _ipython_display_(self) -> None:
        show_live("status_view", "ExportView", self)

    def _repr_html_(self) -> str:
        shards = self.status().report.shards
        return table_html(shards.columns, shards.rows(), repr(self).strip("<>"))
