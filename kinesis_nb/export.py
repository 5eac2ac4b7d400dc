"""Writes a DataFrame to a stream: in order per partition key, and nothing silently lost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.encode import CHUNK_ROWS, read_rows
from kinesis_nb.entries import Options, Preparer, refuse_large, waves
from kinesis_nb.errors import ConfigError, KinesisError, warn
from kinesis_nb.exporter import IN_MEMORY, STREAMED, Exporter
from kinesis_nb.report import ExportReport, Settled, Tally, Window
from kinesis_nb.target import LARGEST_RECORD_BYTES, look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kinesis_nb.transport import Clock, Kinesis

INTERRUPTED_SECONDS = 0.5  # for the responses under way after Ctrl-C; those that do not come are possible duplicates


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an export sends; see :meth:`kinesis_nb.source.Source.export_df`."""

    order: str = "per_key"
    on_ambiguous: str = "resend"
    resume: ExportReport | None = None

    def __post_init__(self) -> None:
        if self.order not in {"per_key", "none"}:
            raise ConfigError(f"order={self.order!r} is not known", hint='use "per_key" or "none"')
        if self.on_ambiguous not in {"resend", "stop"}:
            raise ConfigError(f"on_ambiguous={self.on_ambiguous!r} is not known", hint='use "resend" or "stop"')
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
    rows = read_rows(frame)
    tally = Tally(stream, delivery.settled(stream))
    preparer = Preparer(kinesis, rows.schema, options, tally.gave_up)
    if rows.whole is not None:
        preparer.check_keys(rows.whole)
    parts = _numbered(preparer, rows.batches, delivery.settled(stream))
    if rows.in_memory:  # then all of it is checked before anything is sent
        parts = _as_one(parts)
    first = next(parts, None)
    if first is None:
        return tally.report(0.0)
    refuse_large(first, LARGEST_RECORD_BYTES)  # no stream takes these, so nobody needs to be asked
    target = look_up(kinesis, clock, stream, arn)
    refuse_large(first, target.record_bytes)
    in_waves = delivery.order == "per_key" and not options.aggregate
    window = IN_MEMORY if rows.in_memory else STREAMED
    exporter = Exporter(
        kinesis,
        target,
        clock,
        tally,
        ordered=delivery.order == "per_key",
        resend_unknown=delivery.on_ambiguous == "resend",
    )
    export = _Export(exporter, preparer, tally, clock, target.record_bytes)
    return export.run(_slices(chain([first], parts), in_waves=in_waves), window, progress)


def _as_one(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    everything = list(parts)
    return iter([pl.concat(everything)] if everything else [])


def _slices(parts: Iterable[pl.DataFrame], *, in_waves: bool) -> Iterator[pl.DataFrame]:
    for part in parts:
        yield from (waves(part) if in_waves else part).iter_slices(CHUNK_ROWS)


def _numbered(preparer: Preparer, batches: Iterator[pl.DataFrame], done: Settled) -> Iterator[pl.DataFrame]:
    """Yield the records of every batch that has some."""
    row = 0
    for batch in batches:
        records = preparer.records(batch, row, done)
        row += batch.height
        if records.height:
            yield records
    if row < done.end:
        raise ConfigError(f"the frame has {row:,} rows, the report is of one with more", hint="give the same frame")


@dataclass(frozen=True, slots=True)
class _Export:
    """One run: feeds the exporter in the caller's own thread, and reports however it ends."""

    exporter: Exporter
    preparer: Preparer
    tally: Tally
    clock: Clock
    record_bytes: int

    def run(self, slices: Iterator[pl.DataFrame], window: Window, progress: Callable[[int], None]) -> ExportReport:
        started = self.clock.monotonic()
        note = ""
        self.exporter.start()
        try:
            self._feed(slices, window, progress)
            self.exporter.finish(progress)
        except KeyboardInterrupt:
            note = "interrupted"
            warn("the export was interrupted: not all was written")
            self.exporter.stop(INTERRUPTED_SECONDS)
        except KinesisError as error:
            self.exporter.stop()
            error.report = self.tally.report(self.clock.monotonic() - started, "failed")
            error.add_note(f"{error.report.rows:,} rows were written before; resume=error.report sends the rest")
            raise
        finally:
            self.exporter.halt()
        progress(self.tally.rows)
        return self.tally.report(self.clock.monotonic() - started, note)

    def _feed(self, slices: Iterator[pl.DataFrame], window: Window, progress: Callable[[int], None]) -> None:
        for part in slices:
            refuse_large(part, self.record_bytes)
            self.exporter.wait_for_room(window, progress)
            self.exporter.queue(self.preparer.entries(part))
            progress(self.tally.rows)
