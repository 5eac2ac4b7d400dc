"""Writes a frame to a stream: in order per partition key, and nothing is lost without a message."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.core.limits import LARGEST_RECORD_BYTES
from kinesis_nb.core.process import check_polars
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.exporting.encode import refuse_rows
from kinesis_nb.exporting.entries import Preparer, refuse_large, waves
from kinesis_nb.exporting.exporter import IN_MEMORY, STREAMED, Exporter
from kinesis_nb.exporting.report import Tally, sum_of
from kinesis_nb.exporting.tables import CHUNK_ROWS, read_rows
from kinesis_nb.exporting.target import describe_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kinesis_nb.exporting.options import Delivery, RecordOptions
    from kinesis_nb.exporting.report import DoneRows, ExportReport, Marks, QueueLimit
    from kinesis_nb.exporting.tables import FrameRows
    from kinesis_nb.exporting.target import Outlet, Target

INTERRUPTED_SECONDS = 0.5  # to wait for responses after Ctrl-C; rows without one are possible duplicates
_THE_SAME = "give the same rows in the same order, a query with ORDER BY; or send what is missing without resume="


def export_frame(
    outlet: Outlet, frame: object, options: RecordOptions, delivery: Delivery, progress: Callable[[int], None]
) -> ExportReport:
    """Write every row of a frame; see :meth:`kinesis_nb.source.Source.export_df`."""
    check_polars()
    done, clock = delivery.done_rows(outlet.stream), outlet.clock
    export = _Export(outlet, delivery, done, Tally(outlet.stream, done.copy()), progress)
    started = clock.monotonic()

    def report(note: str) -> ExportReport:
        return export.tally.report(clock.monotonic() - started, note)

    try:
        export.run(read_rows(frame), options)
    except KeyboardInterrupt:
        warn("the export was interrupted: not all rows were written")
        return report("interrupted")
    except BaseException as error:
        # whatever ended it, the rest can be sent: what was written is known. MemoryError and others keep their type
        error.report = found = report("failed")  # type: ignore[attr-defined]
        if found.settled.end:
            error.add_note(f"{found.rows:,} rows were written before; resume=error.report sends the rest")
        raise
    return report("")


@dataclass(frozen=True, slots=True)
class _Export:
    """One run, in the thread of the caller; however it ends, the tally says what was written."""

    outlet: Outlet
    delivery: Delivery
    done: DoneRows
    tally: Tally
    progress: Callable[[int], None]

    def run(self, rows: FrameRows, options: RecordOptions) -> None:
        preparer = Preparer(rows.schema, options, self.tally.gave_up)
        self.tally.keyed_by(preparer.column)
        if preparer.beside:
            _warn_of_columns_beside(preparer.beside)
        if rows.whole is not None:
            preparer.check_keys(rows.whole)
        parts = self._numbered(preparer, rows.batches)
        if rows.in_memory:  # so all of it is checked before anything is sent
            parts = _as_one(parts)
        first = next(parts, None)
        if first is None:
            return
        refuse_large(first, LARGEST_RECORD_BYTES)  # no stream takes these, whatever its limit
        target = describe_target(self.outlet)
        refuse_large(first, target.record_bytes)
        in_waves = self.delivery.is_ordered and not options.aggregate
        limit = IN_MEMORY if rows.in_memory else STREAMED
        self._send(preparer, target, _slices(chain([first], parts), in_waves=in_waves), limit)

    def _numbered(self, preparer: Preparer, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the records of each batch that has some; none before all rows that are done were compared."""
        row, beginning = 0, 0
        held: list[pl.DataFrame] = []
        for batch in batches:
            marks = preparer.marks(batch, row)
            if row < self.done.end:
                beginning += sum_of(marks[: max(0, self.done.first - row)])
                is_all = row < self.done.first <= row + batch.height
                self._compare(row, marks, beginning if is_all else None)
            self.tally.mark(row, marks)
            held.append(preparer.records(batch, row, self.done))
            row += batch.height
            if row >= self.done.end:
                yield from (records for records in held if records.height)
                held.clear()
        if row < self.done.end:
            raise ConfigError(f"the frame has {row:,} rows, and the report is of a frame with more", hint=_THE_SAME)

    def _compare(self, first_row: int, marks: Marks, beginning: int | None) -> None:
        """Refuse to resume with other rows, or in another order: some rows would be lost, others doubled."""
        what = "these are not the rows of the report"
        if beginning is not None and not self.done.is_beginning(beginning):
            raise ConfigError(f"{what}: the first {self.done.first:,} rows differ", hint=_THE_SAME)
        refuse_rows(self.done.differ(first_row, marks), what, _THE_SAME)

    def _send(self, preparer: Preparer, target: Target, slices: Iterator[pl.DataFrame], limit: QueueLimit) -> None:
        exporter = Exporter(self.outlet, target, self.tally, self.delivery)
        try:
            exporter.start()
            for part in slices:
                refuse_large(part, target.record_bytes)
                exporter.wait_for_room(limit, self.progress)
                exporter.queue(preparer.entries(part))
                self.progress(self.tally.rows)
            exporter.finish(self.progress)
        except KeyboardInterrupt:
            exporter.stop(INTERRUPTED_SECONDS)
            raise
        except BaseException:
            exporter.stop()  # a request under way would overtake those of the export that resumes
            raise
        finally:
            exporter.halt()
        self.progress(self.tally.rows)


def _warn_of_columns_beside(names: list[str]) -> None:
    warn(
        f"each row is sent as one JSON object, because of the columns beside partition_key, data ({', '.join(names)}):"
        f' data_column="data" sends data as it is, and drop("data") leaves it out of the object'
    )


def _as_one(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    everything = list(parts)
    return iter([pl.concat(everything)] if everything else [])


def _slices(parts: Iterable[pl.DataFrame], *, in_waves: bool) -> Iterator[pl.DataFrame]:
    for part in parts:
        yield from (waves(part) if in_waves else part).iter_slices(CHUNK_ROWS)
