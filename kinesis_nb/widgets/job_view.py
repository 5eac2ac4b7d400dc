"""The live view of a job that agents run: which agent has which shards, and their progress."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from kinesis_nb.display import plain, table_html
from kinesis_nb.errors import KinesisError
from kinesis_nb.reading.consumer import ConsumerStats, ShardState
from kinesis_nb.syncing.status import SyncStatus
from kinesis_nb.widgets.rate import Rate
from kinesis_nb.widgets.status_view import StatusView, Table, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinesis_nb.agents.job import Job, PartStatus
    from kinesis_nb.exporting.streaming import StreamingExportStatus
    from kinesis_nb.widgets.flow import Message

ASK_SECONDS = 0.5  # between two questions to the scheduler
LOG_LINES = 3  # of what happened to the job
_OVER = ("stopped", "ended", "failed")
_NOBODY = "nobody yet"


@dataclass(frozen=True, slots=True)
class _Heard:
    status: SyncStatus | StreamingExportStatus | None  # None for an export that no agent has begun
    parts: Sequence[PartStatus]
    log: Sequence[str]

    @property
    def state(self) -> str:
        return self.status.state if self.status else "waiting"

    @property
    def is_over(self) -> bool:
        return self.state in _OVER or all(part.over for part in self.parts)


class JobView(StatusView):
    """A sync or an export on agents: per agent and per shard who has it, lag, rates, commits, errors, maintenance.

    A thread of its own asks the scheduler, which may respond slowly: the other views must not wait for it.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._heard = _Heard(None, (), ())
        self._unreachable: KinesisError | None = None
        self._is_through = threading.Event()
        place = getattr(job, "uri", "")
        title = f"{job.stream} → {place}" if place else f"export to {job.stream}"
        super().__init__(job, f"{title} on agents", 0)
        threading.Thread(target=self._ask_on, name="kinesis_nb job view", daemon=True).start()

    def _ask_on(self) -> None:
        while True:
            try:
                self._ask_scheduler()
                self._unreachable = None
            except KinesisError as error:  # it may be back in a moment
                self._unreachable = error
            if self._heard.is_over or self._is_through.wait(ASK_SECONDS):
                return

    def _ask_scheduler(self) -> None:
        is_first = self._heard.status is None
        self._heard = _Heard(self._job.status(), self._job.parts(), self._job.logs()[-LOG_LINES:])
        if is_first and self._heard.status is not None:  # rows written before the view opened are not part of the rate
            self._rate = Rate(self._heard.status.rows)

    def _is_live(self) -> bool:
        return not (self._heard.parts and self._heard.is_over)

    def _release(self) -> None:
        self._is_through.set()

    def _look(self, *, everything: bool) -> Message:  # noqa: ARG002 - a moment is always whole
        now, error = self._heard, self._unreachable
        status = now.status
        trouble = [*getattr(status, "lost", ()), getattr(status, "error", ""), f"{error}" if error else ""]
        state = "no response" if error else now.state
        rows = getattr(status, "rows", 0)
        moment = self._moment(state, rows, _facts(now), "\n".join(filter(None, trouble)), *self._tables())
        return moment | {"log": "\n".join(map(plain, now.log))}

    def _tables(self) -> tuple[Table, Table]:
        parts = self._heard.parts
        return _per_agent(parts), _per_shard(parts)

    def _picture(self) -> str:
        (heads, *agents), (columns, *shards) = self._tables()
        about = f"{self._title}: {self._heard.state}"
        return table_html([*map(str, heads)], agents, about) + table_html([*map(str, columns)], shards, "shards")


def _facts(now: _Heard) -> list[tuple[str, object]]:
    status = now.status
    lag = getattr(status, "lag", None)
    ended = len(_shards(now.parts)) - len(_going(now.parts))
    return [
        ("rows", getattr(status, "rows", None)),
        ("commits", getattr(status, "commits", None)),
        ("pending", getattr(status, "pending", None)),
        ("behind", f"{lag.total_seconds():,.1f} s" if lag is not None else "not known yet"),
        ("ended shards", ended or None),
    ]


def _shards(parts: Sequence[PartStatus]) -> list[tuple[PartStatus, ConsumerStats]]:
    return [(part, shard) for part in parts for shard in getattr(part.status, "shards", ())]


def _going(parts: Sequence[PartStatus]) -> list[tuple[PartStatus, ConsumerStats]]:
    return [(part, shard) for part, shard in _shards(parts) if shard.state is not ShardState.ENDED]


def _per_agent(parts: Sequence[PartStatus]) -> Table:
    table: Table = [
        ("agent", "parts", "shards", "rows/s", "behind", "rows", "commits", "last error", "next maintenance")
    ]
    by_name = sorted(parts, key=lambda part: (not part.agent, part.agent, part.number))
    for name, group in groupby(by_name, key=lambda part: part.agent):
        own = list(group)
        known = [part.status for part in own if part.status is not None]
        commits = [status.commits for status in known if isinstance(status, SyncStatus)]
        shards = [shard for _, shard in _going(own)]
        lags = [shard.millis_behind_latest for shard in shards if shard.millis_behind_latest is not None]
        errors = [part.error or getattr(part.status, "error", "") for part in own]
        table.append(
            (
                name or _NOBODY,
                len(own),
                len(shards) or None,
                round(sum(shard.rate for shard in shards), 1) if shards else None,
                seconds(max(lags, default=None)),
                sum(status.rows for status in known) if known else None,
                sum(commits) if commits else None,
                next(filter(None, errors), ""),
                own[0].maintenance,
            )
        )
    return table


def _per_shard(parts: Sequence[PartStatus]) -> Table:
    table: Table = [("shard", "agent", "part", "state", "behind", "rows/s", "records", "throttles", "last error")]
    shown = _going(parts) or _shards(parts)  # all have ended when the job has
    return [*table, *sorted(_shard_line(part, shard) for part, shard in shown)]


def _shard_line(part: PartStatus, shard: ConsumerStats) -> tuple[str, str, int, str, str | None, float, int, int, str]:
    return (
        shard.shard_id,
        part.agent or _NOBODY,
        part.number,
        part.over or shard.state.value,
        seconds(shard.millis_behind_latest),
        round(shard.rate, 1),
        shard.records,
        shard.throttles,
        shard.error,
    )
