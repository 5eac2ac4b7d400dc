"""Writing a frame, a synced table or a tail to another stream, from a form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.core.arguments import hinted
from kinesis_nb.core.names import StreamArn
from kinesis_nb.core.position import StartingPosition, check_end
from kinesis_nb.core.types import OnAmbiguous, OnBadKey, RowOrder
from kinesis_nb.errors import ConfigError, ExportsDisabled
from kinesis_nb.exporting.encode import Payload, partition_column
from kinesis_nb.exporting.options import Range
from kinesis_nb.exporting.tables import read_rows
from kinesis_nb.reading.tail import Tail
from kinesis_nb.source import Source
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.widgets.base import Action, Field, heading
from kinesis_nb.widgets.code import Arguments, Name, call_code
from kinesis_nb.widgets.frame_export import FrameExport
from kinesis_nb.widgets.run_form import (
    RunForm,
    changed,
    choice,
    defaults,
    in_code,
    position,
    proposals,
    storage_field,
    storage_options,
)
from kinesis_nb.widgets.status_view import ExportView

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from kinesis_nb.exporting.report import ExportReport
    from kinesis_nb.exporting.streaming import StreamingExport

_FRAME, _STREAM = defaults(Source.export_df), defaults(Source.export_stream)
_FIRST = "the first column of strings"


class ExportForm(RunForm):
    """Start, watch and stop an export.

    Parameters
    ----------
    source
        Where the output stream is; connected with ``exports_enabled=True``.
    data
        What is exported: a DataFrame or any other table, or what grows: a :class:`~kinesis_nb.Sync`, the path of its
        table, a :class:`~kinesis_nb.Tail`. None asks for the path of a table.

    Attributes
    ----------
    export
        The export that was started last: a StreamingExport, or the ExportReport of a frame; None before.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets import ExportForm
    >>> source = kn.demo()
    >>> form = ExportForm(source, source.read("orders", limit=10, progress=False))
    >>> form.fields["output_stream_arn"].control.value = "arn:aws:kinesis:us-east-1:000000000000:stream/results"
    >>> form.to_code().splitlines()[0]
    'report = source.export_df(df, "arn:aws:kinesis:us-east-1:000000000000:stream/results")'
    """

    @hinted
    def __init__(self, source: Source, data: object = None) -> None:
        self._data = data
        self._is_stream = data is None or isinstance(data, Sync | Tail | str | os.PathLike)
        self._columns = None if self._is_stream else read_rows(data).schema
        self.fields = self._fields(source)
        super().__init__(source, self.fields, [heading("New export", 3), *self.fields.values()], "export form")
        self.offer_streams(source, "output_stream_arn", lambda name: source.explore(name).summary.arn)

    @property
    def export(self) -> StreamingExport | ExportReport | None:
        """The export that was started last."""
        return self._run.report if isinstance(self._run, FrameExport) else self._run

    # --- fields ---

    def _fields(self, source: Source) -> dict[str, Field]:
        usual = _STREAM if self._is_stream else _FRAME
        target = proposals([], placeholder=f"arn:aws:kinesis:{source.config.region}:123456789012:stream/results")

        def check_target(arn: str) -> None:
            if not source.config.exports_enabled:
                raise ExportsDisabled("exports are not enabled on this source", hint="connect it with exports_enabled")
            StreamArn.parse(arn, source.config.region)

        table = W.Text(placeholder="tables/orders", value="" if self._data is None else str(self._data))
        keys = [] if self._columns is None else list(self._columns)
        fields = {
            "table": Field("Synced table", table, is_required=True),
            "output_stream_arn": Field("Output stream ARN", target, check_target, is_required=True),
            "partition_column": Field(
                "Partition column",
                proposals(keys, placeholder=_FIRST),
                self._check_column,
                is_required=not _has_key(self._columns),
            ),
            **(_stream_fields() if self._columns is None else _frame_fields(self._columns)),
            "aggregate": Field("KPL aggregates", W.Checkbox(usual["aggregate"])),
            "on_bad_key": Field("On a bad key", choice(get_args(OnBadKey), usual["on_bad_key"])),
        }
        if self._is_stream and isinstance(self._data, str | os.PathLike | None):
            fields["storage_options"] = storage_field()
        else:
            del fields["table"]
        if isinstance(self._data, Tail):  # is exported from where it stands
            for name in ("start", "end", "journal"):
                del fields[name]
        return fields

    def _check_column(self, column: str) -> None:
        if self._columns is not None:
            partition_column(self._columns, column)

    # --- what it does ---

    def _options(self) -> Arguments:
        usual = _STREAM if self._is_stream else _FRAME
        values = {name: field.value for name, field in self.fields.items() if name in usual}
        if values.get("rate") is not None:
            values["rate"] = _number(values["rate"])
        if "storage_options" in values:
            values["storage_options"] = storage_options(values["storage_options"])
        return changed(values, usual)

    def _what(self) -> Any:
        return self.fields["table"].value if "table" in self.fields else self._data

    def _begin(self) -> Callable[[], object]:
        what, arn, options = self._what(), self.fields["output_stream_arn"].value, self._options()
        if self._is_stream:
            return lambda: self.source.export_stream(what, arn, **options)
        return lambda: FrameExport(self.source, what, arn, options)

    def _buttons(self) -> list[Action]:
        resume = [] if self._is_stream else [Action("Resume", self._resume, self._why_no_resume)]
        *others, code = super()._buttons()
        return [*others, *resume, code]

    def _has_live_view(self) -> bool:
        return self._is_stream and super()._has_live_view()

    def _why_no_resume(self) -> str:
        if self._is_running:
            return "it is running"
        if reason := self._why_not_again():
            return reason
        is_half = isinstance(self._run, FrameExport) and self._run.report is not None and bool(self._run.report.note)
        return "" if is_half else "no export was stopped or failed half way"

    def _resume(self) -> None:
        half: FrameExport = self._run
        self._do_start(half.rest)

    def _code(self) -> str:
        arn, options = self.fields["output_stream_arn"].value, self._options()
        if not self._is_stream:
            return call_code("report = source.export_df", [Name("df"), arn], options) + "\nreport\n"
        what = self._what() if "table" in self.fields else Name("tail" if isinstance(self._data, Tail) else "sync")
        return call_code("export = source.export_stream", [what, arn], in_code(options)) + "\nexport\n"

    def _live_view(self, run: StreamingExport) -> ExportView:
        return ExportView(run)

    def __repr__(self) -> str:
        return f"<ExportForm: {self.export!r}>" if self._run else f"<ExportForm: {self.problem or 'ready'}>"


def _stream_fields() -> dict[str, Field]:
    rate = W.Text(placeholder="no limit")
    return {
        "start": Field("Start", proposals(("trim_horizon", "latest", "-1h"), _STREAM["start"]), _check_start),
        "end": Field("End", proposals(("now",), placeholder="none: until stopped"), _check_end),
        "rate": Field("Rows per second", rate, lambda text: Range(position("now"), rate=_number(text))),
        "journal": Field("Journal", W.Text(placeholder="a file; by default in the folder of the table")),
    }


def _frame_fields(schema: pl.Schema) -> dict[str, Field]:
    column = proposals(schema, placeholder="one JSON object per row")
    return {
        "data_column": Field("Data column", column, lambda name: Payload(schema, None, name)),
        "order": Field("Order", choice(get_args(RowOrder), _FRAME["order"])),
        "on_ambiguous": Field("On a lost response", choice(get_args(OnAmbiguous), _FRAME["on_ambiguous"])),
    }


def _has_key(schema: pl.Schema | None) -> bool:
    """Whether an export finds a partition key by itself."""
    try:
        return schema is None or bool(partition_column(schema, None))
    except ConfigError:
        return False


def _check_start(text: str) -> None:
    Range(position(text))


def _check_end(text: str) -> None:
    check_end(StartingPosition.trim_horizon(), position(text))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number", hint="give rows per second, more than 0") from None
