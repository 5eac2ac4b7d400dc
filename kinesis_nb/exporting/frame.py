"""Writes a DataFrame to a stream: in order per partition key, and nothing silently lost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.core.arguments import check_choice
from kinesis_nb.core.process import check_polars
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.exporting.encode import refuse_rows
from kinesis_nb.exporting.entries import Options, Preparer, refuse_large, waves
from kinesis_nb.exporting.exporter import IN_MEMORY, STREAMED, Exporter
from kinesis_nb.exporting.report import ExportReport, Settled, Tally, sum_of
from kinesis_nb.exporting.tables import CHUNK_ROWS, read_rows
from kinesis_nb.exporting.target import LARGEST_RECORD_BYTES, look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kinesis_nb.core.transport import Clock, Kinesis
    from kinesis_nb.exporting.report import Marks, Window
    from kinesis_nb.exporting.tables import Rows
    from kinesis_nb.exporting.target import Target

INTERRUPTED_SECONDS = 0.5  # for the responses under way after Ctrl-C; those that do not come are possible duplicates
_THE_SAME = "give the same rows in the same order, a query with ORDER BY; or send what is missing without resume="


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an export sends; see :meth:`kinesis_nb.source.Source.export_df`."""

    order: str = "per_key"
    on_ambiguous: str = "resend"
    resume: ExportReport | None = None

    def __post_init__(self) -> None:
        check_choice("order", self.order, "per_key", "none")
        check_choice("on_ambiguous", self.on_ambiguous, "resend", "stop")
        if not isinstance(self.resume, ExportReport | None):
            raise ConfigError(f"resume= takes no {type(self.resume).__name__}", hint="give the report of that export")

    def settled(self, stream: str) -> Settled:
        """Return the rows that need not be sent any more."""
        if self.resume is None:
            return Settled()
        if self.resume.stream != stream:
            raise ConfigError(
                f"the report is of an export to {self.resume.stream!r}, not to {stream!r}",
                hint="resume it with the ARN it was started with",
            )
        return self.resume.settled.copy()


def export_frame(
    kinesis: Kinesis,
    stream: str,
    arn: str,
    frame: Any,
    options: Options,
    delivery: Delivery,
    clock: Clock,
    progress: Callable[[int], None],
) -> ExportReport:
    """Write every row of a frame; see :meth:`kinesis_nb.source.Source.export_df`."""
    check_polars()
    done = delivery.settled(stream)
    export = _Export(kinesis, stream, arn, delivery, done, Tally(stream, done.copy()), clock, progress)
    started = clock.monotonic()

    def report(note: str) -> ExportReport:
        return export.tally.report(clock.monotonic() - started, note)

    try:
        export.run(read_rows(frame), options)
    except KeyboardInterrupt:
        warn("the export was interrupted: not all was written")
        return report("interrupted")
    except BaseException as error:
        # whatever ended it, what was written is known, and the rest can be sent; MemoryError and others keep their type
        error.report = found = report("failed")  # type: ignore[attr-defined]
        if found.settled.end:
            error.add_note(f"{found.rows:,} rows were written before; resume=error.report sends the rest")
        raise
    return report("")


@dataclass(frozen=True, slots=True)
class _Export:
    """One run: feeds the exporter in the caller's own thread; what it did is in the tally, however it ends."""

    kinesis: Kinesis
    stream: str
    arn: str
    delivery: Delivery
    done: Settled
    tally: Tally
    clock: Clock
    progress: Callable[[int], None]

    def run(self, rows: Rows, options: Options) -> None:
        preparer = Preparer(self.kinesis, rows.schema, options, self.tally.gave_up)
        if preparer.beside:
            _warn_of_columns_beside(preparer.beside)
        if rows.whole is not None:
            preparer.check_keys(rows.whole)
        parts = self._numbered(preparer, rows.batches)
        if rows.in_memory:  # then all of it is checked before anything is sent
            parts = _as_one(parts)
        first = next(parts, None)
        if first is None:
            return
        refuse_large(first, LARGEST_RECORD_BYTES)  # no stream takes these, so nobody needs to be asked
        target = look_up(self.kinesis, self.clock, self.stream, self.arn)
        refuse_large(first, target.record_bytes)
        in_waves = self.delivery.order == "per_key" and not options.aggregate
        window = IN_MEMORY if rows.in_memory else STREAMED
        self._send(preparer, target, _slices(chain([first], parts), in_waves=in_waves), window)

    def _numbered(self, preparer: Preparer, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the records of every batch that has some; none before all that was settled is compared."""
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
            raise ConfigError(f"the frame has {row:,} rows, the report is of one with more", hint=_THE_SAME)

    def _compare(self, first_row: int, marks: Marks, beginning: int | None) -> None:
        """Refuse to resume with other rows, or with the same in another order: some would be lost, some doubled."""
        what = "not the rows that the report is about"
        if beginning is not None and not self.done.is_beginning(beginning):
            raise ConfigError(f"{what}: the first {self.done.first:,} rows were others", hint=_THE_SAME)
        refuse_rows(self.done.differ(first_row, marks), what, _THE_SAME)

    def _send(self, preparer: Preparer, target: Target, slices: Iterator[pl.DataFrame], window: Window) -> None:
        exporter = Exporter(
            self.kinesis,
            target,
            self.clock,
            self.tally,
            ordered=self.delivery.order == "per_key",
            resend_unknown=self.delivery.on_ambiguous == "resend",
        )
        try:
            exporter.start()
            for part in slices:
                refuse_large(part, target.record_bytes)
                exporter.wait_for_room(window, self.progress)
                exporter.queue(preparer.entries(part))
                self.progress(self.tally.rows)
            exporter.finish(self.progress)
        except KeyboardInterrupt:
            exporter.stop(INTERRUPTED_SECONDS)
            raise
        except BaseException:
            exporter.stop()  # a request under way would overtake what the rest sends
            raise
        finally:
            exporter.halt()
        self.progress(self.tally.rows)


def _warn_of_columns_beside(names: list[str]) -> None:
    warn(
        f"each row is sent as one JSON object, for it has more than partition_key and data ({', '.join(names)}):"
        f' data_column="data" sends data as it is, and drop("data") leaves it out of the object'
    )


def _as_one(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    everything = list(parts)
    return iter([pl.concat(everything)] if everything else [])


def _slices(parts: Iterable[pl.DataFrame], *, in_waves: bool) -> Iterator[pl.DataFrame]:
    for part in parts:
        yield from (waves(part) if in_waves else part).iter_slices(CHUNK_ROWS)
