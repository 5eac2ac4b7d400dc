"""The live views of what writes in the background: a sync, a streaming export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinesis_nb.display import plain
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.widgets.grid.cells import cut
from kinesis_nb.widgets.live import LiveView
from kinesis_nb.widgets.rate import Rate

if TYPE_CHECKING:
    from kinesis_nb.core.running import Running
    from kinesis_nb.exporting.streaming import StreamingExport, StreamingExportStatus
    from kinesis_nb.reading.consumer import ConsumerStats
    from kinesis_nb.syncing.status import SyncStatus
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.widgets.flow import Message

Table = list[Sequence[object]]  # what is in the first row gives the columns
MOST_SHARDS = 50  # shown
LONGEST_NOTE, MOST_NOTES = 2_000, 20


class StatusView(LiveView, scripts=("status_view.js",)):
    """State, counts and shards of something that writes, its last error, and a button that stops it."""

    def __init__(self, writer: Running, title: str, written: int) -> None:
        self._writer, self._title = writer, plain(title)
        self._rate = Rate(written)
        super().__init__()

    def _moment(
        self, state: str, written: int, facts: Sequence[tuple[str, object]], error: str, *tables: Table
    ) -> Message:
        return {
            "title": self._title,
            "state": state,
            **self._rate.counted(written),
            "facts": [[name, plain(value)] for name, value in facts if value is not None],
            "tables": [_shown(table) for table in tables if len(table) > 1],
            "trouble": "\n".join(cut(line, LONGEST_NOTE) for line in error.splitlines()[:MOST_NOTES]),
        }

    def _stop(self) -> None:
        self._writer.stop()

    def _do(self, message: Message) -> None:
        """Nothing: there is no other button."""

    def _picture(self) -> str:
        return self._writer._repr_html_()  # pyright: ignore[reportPrivateUsage]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {repr(self._writer).strip('<>')}>"


class SyncView(StatusView):
    """A sync: what it has committed, how far behind it is, and what each shard does."""

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        super().__init__(sync, f"{sync.stream} → {sync.uri}", sync.status().rows)

    def _is_live(self) -> bool:
        return self._sync.is_active

    def _look(self, *, everything: bool) -> Message:  # noqa: ARG002 - a moment is always whole
        now = self._sync.status()
        going = [shard for shard in now.shards if shard.state is not ShardState.ENDED]
        rows = [_shard_line(shard) for shard in sorted(going, key=lambda shard: shard.shard_id)]
        head = ("shard", "state", "records", "behind", "throttles", "retries", "error")
        error = "\n".join(filter(None, (*now.lost, now.error)))
        return self._moment(now.state, now.rows, _sync_facts(now, len(going)), error, [head, *rows])


def _sync_facts(now: SyncStatus, going: int) -> list[tuple[str, object]]:
    lag = "not known yet" if now.lag is None else f"{now.lag.total_seconds():,.1f} s"
    return [
        ("rows", now.rows),
        ("commits", now.commits),
        ("pending", now.pending),
        ("behind", lag),
        ("foreign user records dropped", now.dropped or None),
        ("ended shards", len(now.shards) - going or None),
    ]


def _shard_line(shard: ConsumerStats) -> Sequence[object]:
    return (
        shard.shard_id,
        shard.state.value,
        shard.records,
        seconds(shard.millis_behind_latest),
        shard.throttles,
        shard.retries,
        shard.error,
    )


class ExportView(StatusView):
    """A streaming export: what was acknowledged, what waits, and what each shard of the output stream took."""

    def __init__(self, export: StreamingExport) -> None:
        self._export = export
        super().__init__(export, f"export to {export.stream}", export.status().rows)

    def _is_live(self) -> bool:
        return self._export.is_running

    def _look(self, *, everything: bool) -> Message:  # noqa: ARG002 - a moment is always whole
        now = self._export.status()
        shards: Table = [("shard", "rows", "bytes"), *now.report.shards.rows()]
        return self._moment(now.state, now.rows, _export_facts(now), now.error, shards)


def _export_facts(now: StreamingExportStatus) -> list[tuple[str, object]]:
    return [
        ("rows", now.rows),
        ("pending", now.pending),
        ("requests", now.report.requests),
        ("retries", now.report.retries),
        ("throttles", now.report.throttles),
        ("possible duplicates", now.possible_duplicates),
        ("failed", now.failed),
        ("dropped by the tail", now.dropped or None),
        ("waits for", now.waits_for or None),
    ]


def _shown(table: Table) -> Message:
    """Return a table as text, without the columns that say nothing."""
    head, *rows = table
    filled = [i for i in range(len(head)) if any(row[i] not in (None, "") for row in rows)]
    return {
        "columns": [head[i] for i in filled],
        "rows": [[plain(row[i]) for i in filled] for row in rows[:MOST_SHARDS]],
        "more": max(0, len(rows) - MOST_SHARDS),
    }


def seconds(millis: int | None) -> str | None:
    """Return milliseconds as text, in seconds; None for None."""
    return None if millis is None else f"{millis / 1000:,.1f} s"
