"""Putting one record into a stream, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as W  # noqa: N812 - as in base
import polars as pl

from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.display import table_html
from kinesis_nb.errors import ConfigError
from kinesis_nb.widgets.base import Action, Field, Form
from kinesis_nb.widgets.code import Name, call_code

if TYPE_CHECKING:
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.exploring.explore import StreamView
    from kinesis_nb.exporting.report import ExportReport
    from kinesis_nb.source import Source

_LINES = 8


class PutForm(Form):
    """A partition key and data, and which shard took them; the data of the newest record are there to begin with.

    Parameters
    ----------
    stream
        Where the record goes.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets.put_form import PutForm
    >>> source = kn.demo()
    >>> form = PutForm(source, source.explore("orders"))
    >>> form.settle()
    True
    >>> form.fields["data"].control.value[:9]
    '{"order":'
    """

    def __init__(self, source: Source, stream: StreamView) -> None:
        self._source, self._stream = source, stream
        fields = {
            "key": Field("Partition key", W.Text(placeholder="customer-42"), _check_key, is_required=True),
            "data": Field("Data", W.Textarea(rows=_LINES, placeholder='{"order": 1}'), is_required=True),
        }
        actions = [
            Action("Put", self.put, self._why_not, primary=True),
            Action("Which shard?", self.find, lambda: self.problem_of(["key"])),
            Action("Code", lambda: self.show_code(self.to_code), lambda: self.problem),
        ]
        super().__init__(fields, fields.values(), actions, "put")
        self.do("Reading the newest record …", self._newest, self._fill)

    def _why_not(self) -> str:
        enabled = self._source.config.exports_enabled
        return self.problem or ("" if enabled else "exports are not enabled on this source: exports_enabled=True")

    def _newest(self) -> tuple[str, str]:
        records = self._stream.sample(1)
        return (records[0].partition_key or "", records[0].data) if len(records) else ("", "")

    def _fill(self, newest: tuple[str, str]) -> None:
        for name, text in zip(("key", "data"), newest, strict=True):
            self.fields[name].control.value = self.fields[name].control.value or text

    def find(self) -> None:
        """Show which shard takes the key; returns at once."""
        key = self._typed("key")
        self.do("Searching …", lambda: self._stream.shard_for(key), lambda shard: self.show(_before(key, shard)))

    def put(self) -> None:
        """Put the record; returns at once."""
        frame = pl.DataFrame({"partition_key": [self._typed("key")], "data": [self._typed("data")]})
        arn = self._stream.summary.arn

        def work() -> ExportReport:
            return self._source.export_df(frame, arn, progress=False)

        self.do("Putting …", work, lambda report: self.show(_after(report)))

    def _typed(self, name: str) -> str:
        """Return what was typed, to the letter: `value` leaves out spaces around it."""
        text: str = self.fields[name].control.value
        return text

    def to_code(self) -> str:
        """Return the cell that puts the same record, for a source in the variable ``source``."""
        if self.problem:
            raise ConfigError(self.problem, hint="fix it in the form")
        columns = {"partition_key": [self._typed("key")], "data": [self._typed("data")]}
        call = call_code("source.export_df", [Name("record"), self._stream.summary.arn], {})
        return f"import polars as pl\n\nrecord = pl.DataFrame({columns!r})\n{call}\n"


def _check_key(key: str) -> None:
    if len(key) > KEY_CHARACTERS:
        raise ConfigError(
            f"a partition key of {len(key):,} characters", hint=f"it has at most {KEY_CHARACTERS} of them"
        )


def _before(key: str, shard: Shard) -> str:
    return table_html(("partition key", "goes to shard"), [(key, shard.shard_id)])


def _after(report: ExportReport) -> str:
    rows = [(name, f"put, {size:,} bytes with its key") for name, _, size in report.shards.rows()]
    return table_html(("shard", "record"), rows)
