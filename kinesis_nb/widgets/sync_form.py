"""Keeping a table in step with a stream, from a form."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.core.arguments import hinted
from kinesis_nb.core.position import StartingPosition, check_end
from kinesis_nb.core.types import Foreign, OnDataLoss
from kinesis_nb.reading.read import row_filter
from kinesis_nb.source import Source
from kinesis_nb.syncing.start import check_options
from kinesis_nb.table.storage import Storage
from kinesis_nb.widgets.base import Field, heading
from kinesis_nb.widgets.code import Arguments, call_code
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
    stream_field,
)
from kinesis_nb.widgets.status_view import SyncView

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.syncing.sync import Sync

_USUAL = defaults(Source.sync)
_STARTS = ("trim_horizon", "latest", "-15m", "-1h", "-1d")


class SyncForm(RunForm):
    """Start, watch and stop a sync; ``shards=`` and ``where=`` are for code.

    Parameters
    ----------
    source
        Where the streams are.
    stream
        What the form proposes.

    Attributes
    ----------
    sync
        The sync that was started last, or None.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets import SyncForm
    >>> form = SyncForm(kn.demo(), "orders")
    >>> form.fields["table"].control.value = "tables/orders"
    >>> form.to_code().splitlines()[0]
    'sync = source.sync("orders", "tables/orders")'
    """

    @hinted
    def __init__(self, source: Source, stream: str = "") -> None:
        place = W.Text(placeholder="tables/orders, or s3://bucket/prefix")
        seconds = W.FloatText(_USUAL["commit_interval"], step=0.5)
        loss = choice(get_args(OnDataLoss), _USUAL["on_data_loss"])
        fields = {
            "stream": stream_field(source, stream),
            "table": Field("Table", place, Storage.at, is_required=True),
            "start": Field("Start", proposals(_STARTS, _USUAL["start"]), _check_start, is_required=True),
            "end": Field("End", proposals(("now",), placeholder="none: until stopped"), _check_end),
            "key": Field("Partition key", W.Text(placeholder="all"), lambda key: row_filter(key, None)),
            "decompress": Field("Decompress", W.Checkbox(_USUAL["decompress"])),
            "commit_interval": Field("Commit interval (s)", seconds, _check_interval),
            "on_data_loss": Field("On data loss", loss),
            "foreign": Field("Foreign user records", choice(get_args(Foreign), _USUAL["foreign"])),
            "storage_options": storage_field(),
        }
        super().__init__(source, fields, [heading("New sync", 3), *fields.values()], "sync form")
        self.offer_streams(source, "stream")

    @property
    def sync(self) -> Sync | None:
        """The sync that was started last."""
        return self._run

    def _options(self) -> Arguments:
        values: Arguments = {name: field.value for name, field in self.fields.items() if name in _USUAL}
        values["storage_options"] = storage_options(values["storage_options"])
        return changed(values, _USUAL)

    def _begin(self) -> Callable[[], Sync]:
        stream, table, options = self.fields["stream"].value, self.fields["table"].value, self._options()
        # what agents run has all that a Sync has
        return lambda: cast("Sync", self.source.sync(stream, table, **options))

    def _code(self) -> str:
        arguments = [self.fields["stream"].value, self.fields["table"].value]
        return call_code("sync = source.sync", arguments, in_code(self._options())) + "\nsync\n"

    def _live_view(self, run: Sync) -> SyncView:
        return SyncView(run)

    def __repr__(self) -> str:
        return f"<SyncForm: {self._run!r}>" if self._run else f"<SyncForm: {self.problem or 'ready'}>"


def _check_start(text: str) -> None:
    check_options(position(text), _USUAL["commit_interval"])


def _check_end(text: str) -> None:
    check_end(StartingPosition.trim_horizon(), position(text))


def _check_interval(seconds: float) -> None:
    check_options(position(_USUAL["start"]), seconds)
