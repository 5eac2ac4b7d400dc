"""Which view shows what: of records, and of everything that runs in the background, by its type."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from kinesis_nb.agents.job import Job
from kinesis_nb.core.frames import Records
from kinesis_nb.exporting.streaming import StreamingExport
from kinesis_nb.reading.tail import Tail
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.widgets.job_view import JobView
from kinesis_nb.widgets.rows_view import RecordsView
from kinesis_nb.widgets.status_view import ExportView, SyncView
from kinesis_nb.widgets.tail_view import TailView

if TYPE_CHECKING:
    from kinesis_nb.widgets.live import LiveView


@singledispatch
def view_of(thing: object) -> LiveView:
    """Return the view of records, or of what runs."""
    raise TypeError(f"no view shows a {type(thing).__name__}")


view_of.register(Records, RecordsView)
view_of.register(Tail, TailView)
view_of.register(Sync, SyncView)
view_of.register(StreamingExport, ExportView)
view_of.register(Job, JobView)
