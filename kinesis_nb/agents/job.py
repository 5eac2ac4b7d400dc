"""The handle of a job that agents run. It has what the handle of a local one has; the job does not depend on it."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import polars as pl
import pyarrow as pa

from kinesis_nb.agents.job_spec import ExportSpec, SyncSpec
from kinesis_nb.agents.protocol import JOBS, MARK, STOP, JobInfo, JobRef
from kinesis_nb.agents.states import JobState
from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.foreign import describe_dropped
from kinesis_nb.core.frames import Records, TableLike, concat
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.running import Running
from kinesis_nb.display import plain, table_html
from kinesis_nb.errors import AgentError, KinesisError, TableError, forgetful, warn
from kinesis_nb.notebook import LiveDisplay
from kinesis_nb.syncing.status import SyncStatus
from kinesis_nb.table.failures import storage_explained
from kinesis_nb.table.lazy import scan
from kinesis_nb.table.schema import as_written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from kinesis_nb.agents.cluster import Cluster
    from kinesis_nb.agents.protocol import JobSnapshot, PartSnapshot
    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.exporting.streaming import StreamingExportStatus
    from kinesis_nb.reading.consumer import ConsumerStats
    from kinesis_nb.table.storage import Storage
    from kinesis_nb.table.verify import TableCheck

POLL_SECONDS = 0.1
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Which agent runs one part of a job, and how far it is.

    Attributes
    ----------
    agent
        The name of the agent; empty while none runs the part.
    status
        The status of the sync or export; None before the agent's first report.
    over
        ``ended``, ``stopped`` or ``failed``; empty while the part is not over.
    error
        What it failed with, or what keeps it from starting; else empty.
    maintenance
        When the agent is away next, as text; empty for never.
    """

    number: int
    agent: str
    status: SyncStatus | StreamingExportStatus | None
    over: str
    error: str
    maintenance: str


@of_one_process
class Job(Running, LiveDisplay):
    """A job that agents run. It continues when this object, or the process that has it, is gone."""

    def __init__(self, cluster: Cluster, name: str, info: JobInfo, state: str = "") -> None:
        self.name = name
        self.kind, self.stream = info.kind, info.stream
        self._cluster, self._place = cluster, info.place
        self._state = state  # as of the last response

    def _snapshot(self) -> JobSnapshot:
        found = self._cluster.ask(JOBS, self.name).get(self.name)
        if found is None:
            raise AgentError(
                f"the scheduler does not know the {self.kind} of {self.stream}",
                hint="it was restarted: start the job again, it continues after the last commit",
            )
        self._state = str(found.state)
        return found

    def parts(self) -> list[PartStatus]:
        """Return which agent runs which part, and how far each is."""
        return [_part_status(part) for part in self._snapshot().parts]

    def logs(self) -> list[str]:
        """Return the last lines of what happened to the job: agents lost, parts moved, errors."""
        return list(self._snapshot().log)

    def status(self) -> SyncStatus | StreamingExportStatus | None:
        """Return a snapshot of the job, of all parts together. None for an export while no agent runs it.

        The state of a sync is ``waiting`` while no agent runs one of its parts, and ``stopping`` while a part still
        works after the job was asked to stop.
        """
        job = self._snapshot()
        parts = [_part_status(part) for part in job.parts]
        return _sync_status(job.state, parts) if self.kind == SyncSpec.kind else parts[0].status

    def stop(self) -> None:
        """Finish what is under way, and stop. Stopping twice is fine; the same call as before resumes from there.

        Raises
        ------
        TableError
            When rows that a sync has read could not be committed. Nothing is lost: the next one reads them again.
        """
        self.request_stop()
        self.join(STOP_SECONDS)
        for part in self._snapshot().parts:
            if part.over == JobState.FAILED and isinstance(error := _error(part), TableError):
                raise error

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits for an agent."""
        return self._snapshot().state.is_active

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        self._cluster.ask(STOP, JobRef(self.name))

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until it is over; return whether it is."""
        give_up = time.monotonic() + in_seconds(timeout)
        while not self._snapshot().is_over:
            if time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _outcomes(self, *, until_caught_up: bool) -> Iterator[bool | None]:
        run, mark = "", 0
        while True:
            job = self._snapshot()
            if failed := [part for part in job.parts if part.over == JobState.FAILED]:
                raise _error(failed[0])
            if job.state.is_final:
                yield job.state is JobState.ENDED
            if job.run != run:  # at first, and when the job was resubmitted to a restarted scheduler, which counts anew
                mark = self._cluster.ask(MARK, JobRef(self.name, job.run))
                run = job.run if mark else ""  # 0: yet another run has taken its place meanwhile
            elif until_caught_up and all(part.reached >= mark or part.over == JobState.ENDED for part in job.parts):
                yield True
            yield None
            time.sleep(POLL_SECONDS)

    def agents(self) -> pl.DataFrame:
        """Return one line per shard or part: its agent, lag, rates, commits, errors, and when the agent is away."""
        return pl.DataFrame([line for part in self.parts() for line in _lines(part)], schema=_LINE, orient="row")

    def _repr_html_(self) -> str:
        frame = self.agents()
        return table_html(frame.columns, frame.rows(), repr(self).strip("<>"))

    def __repr__(self) -> str:
        """Say what is known without a request."""
        ends = (self.stream, self._place) if self.kind == SyncSpec.kind else (self._place, self.stream)
        return f"<Job: {self.kind} {' -> '.join(map(plain, ends))}, {self._state or 'state not known'}>"


def _part_status(part: PartSnapshot) -> PartStatus:
    status = pickle.loads(part.status) if part.status else None  # noqa: S301 - from our own agents
    return PartStatus(part.number, part.agent_name, status, part.over, part.error, part.maintenance)


def _error(part: PartSnapshot) -> KinesisError:
    """Return what a part failed with."""
    if part.failure:
        error: KinesisError = pickle.loads(part.failure)  # noqa: S301 - from our own agents
        return error
    return AgentError(f"a part of the job failed: {part.error}", hint="see logs(), and the log of the agent")


_LINE = {
    "part": pl.Int64,
    "agent": pl.String,
    "shard": pl.String,
    "state": pl.String,
    "ms behind": pl.Int64,
    "records": pl.Int64,
    "rows/s": pl.Float64,
    "commits": pl.Int64,
    "last error": pl.String,
    "next maintenance": pl.String,
}


def _lines(part: PartStatus) -> list[tuple[object, ...]]:
    status = part.status
    shards = status.shards if isinstance(status, SyncStatus) else ()
    error = part.error or (status.error if status else "")
    state = part.over or (status.state if status else "waiting")
    commits = getattr(status, "commits", None)
    if not shards:
        rows = getattr(status, "rows", None)
        return [(part.number, part.agent, "", state, None, rows, None, commits, error, part.maintenance)]
    return [_shard_line(part, shard, commits, error) for shard in shards]


def _shard_line(part: PartStatus, shard: ConsumerStats, commits: int | None, error: str) -> tuple[object, ...]:
    progress = (shard.state.value, shard.millis_behind_latest, shard.records, round(shard.rate, 1))
    return part.number, part.agent, shard.shard_id, *progress, commits, shard.error or error, part.maintenance


@of_one_process
class AgentSync(Job, TableLike):
    """A sync that agents run, part by part; made by :meth:`Source.sync` of a source with ``agents=``.

    It has what a :class:`~kinesis_nb.Sync` has, and :meth:`agents`, :meth:`parts` and :meth:`logs`.
    """

    def __init__(self, cluster: Cluster, spec: SyncSpec, storage: Storage) -> None:
        super().__init__(cluster, spec.job(), JobInfo(spec.kind, spec.stream, spec.uri))
        self._spec, self._storage = spec, storage
        self._warned = 0  # the number of dropped user records that the user was warned of

    def status(self) -> SyncStatus:
        """Return a snapshot of the sync, of all parts together.

        The state is ``waiting`` while no agent runs one of its parts, and ``stopping`` while a part still works after
        the job was asked to stop.
        """
        return cast("SyncStatus", super().status())

    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait as :meth:`Job.wait` does, and warn of user records that were dropped meanwhile."""
        has_caught_up = super().wait(timeout, until_caught_up=until_caught_up)
        dropped = self.status().dropped
        before, self._warned = self._warned, dropped
        if number := dropped - before if dropped >= before else dropped:  # parts that are restarted count from 0
            warn(f"sync of {self.stream}: {describe_dropped(number)}")
        return has_caught_up

    @property
    def live(self) -> Records:
        """The rows that agents have read but not committed yet; fetched from them."""
        from kinesis_nb.agents.parts import pending

        agents = {part.key: part.agent for part in self._snapshot().parts if part.agent and not part.over}
        found = self._cluster.run(pending, list(agents), agents=sorted(set(agents.values())))
        return Records(concat([batch for batches in found.values() if isinstance(batches, list) for batch in batches]))

    @property
    def uri(self) -> str:
        """Where the table is."""
        return self._storage.uri

    @property
    @forgetful
    def storage_options(self) -> dict[str, str]:
        """What a reader of the table needs to reach it now; empty for a folder."""
        return self._storage.options()

    @forgetful
    @hinted
    @apart
    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the committed table as a polars LazyFrame; the newest version by default."""
        return scan(self._storage, version)

    @forgetful
    def verify(self) -> TableCheck:
        """Let an agent read the whole committed table and check that each shard is complete, in order, and there once.

        Returns
        -------
        TableCheck
            As of :meth:`Sync.verify`.
        """
        from kinesis_nb.agents.parts import verify_sync

        return apart(self._cluster.client.submit(verify_sync, self._spec, pure=False).result)()

    @forgetful
    @apart
    def to_arrow(self) -> pa.Table:
        """Return the committed rows, then the pending ones (without a ``shard_offset``), as an Arrow table.

        What is committed while the agents are asked is among the committed rows only.
        """
        pending = self.live.to_arrow()
        with storage_explained(self.uri):
            committed = as_written(self._storage.scan().collect().to_arrow())
        return pa.concat_tables([committed, _without(pending, committed)], promote_options="default")

    def __len__(self) -> int:
        return self.to_arrow().num_rows

    def __repr__(self) -> str:
        try:
            status = repr(self.status()).strip("<>").partition(" ")[2]
        except AgentError as error:
            status = error.message
        return f"<AgentSync {self.stream} -> {self._storage.name}: {status}>"


def _without(pending: pa.Table, committed: pa.Table) -> pa.Table:
    """Return the rows that are not among the committed ones."""
    place = ["shard_id", "sequence_number", "sub_sequence_number"]
    known = pl.DataFrame(committed.select(place))
    return (
        pl.DataFrame(pending).join(known, on=place, how="anti", maintain_order="left").to_arrow().cast(pending.schema)
    )


def _sync_status(state: JobState, parts: list[PartStatus]) -> SyncStatus:
    """Return one status for all parts of a sync."""
    known = [part.status for part in parts if isinstance(part.status, SyncStatus)]
    errors = filter(None, (part.error or (part.status.error if part.status else "") for part in parts))
    return SyncStatus(
        _sync_state(state, parts),
        sum(status.rows for status in known),
        sum(status.commits for status in known),
        sum(status.pending for status in known),
        _lag(parts),
        tuple(sorted((shard for status in known for shard in status.shards), key=lambda shard: shard.shard_id)),
        tuple(note for status in known for note in status.lost),
        "; ".join(dict.fromkeys(errors)),
        next((status.kept_apart_by for status in known), ""),
        sum(status.filtered for status in known),
    )


def _sync_state(state: JobState, parts: list[PartStatus]) -> str:
    if not state.is_active:
        return str(state)
    states = {part.status.state if part.status else "waiting" for part in parts if not part.over}
    for found in ("storage unavailable", "handing over", "waiting"):
        if found in states:
            return found
    return "running"


def _lag(parts: list[PartStatus]) -> timedelta | None:
    """Return the lag of the slowest part that has shards; None when one of them is not known."""
    known = [part.status if isinstance(part.status, SyncStatus) else None for part in parts]
    lags = [status.lag if status else None for status in known if status is None or status.shards]
    return None if not lags or None in lags else max(lag for lag in lags if lag is not None)


@of_one_process
class AgentExport(Job):
    """A streaming export that an agent runs; made by :meth:`Source.export_stream` of a source with ``agents=``."""

    def __init__(self, cluster: Cluster, spec: ExportSpec) -> None:
        super().__init__(cluster, spec.job(), JobInfo(spec.kind, spec.stream, spec.uri))

    def status(self) -> StreamingExportStatus | None:
        """Return a snapshot of the export; None while no agent runs it."""
        return cast("StreamingExportStatus | None", super().status())

    @property
    def is_running(self) -> bool:
        """Whether it still sends."""
        return not self._snapshot().is_over

    @property
    def failed(self) -> pl.DataFrame:
        """The rows that were given up in this run, and why."""
        status = self.status()
        return pl.DataFrame() if status is None else status.report.failed

    def __repr__(self) -> str:
        return f"<AgentExport to {self.stream}: {self.status()!r}>"


def jobs(cluster: Cluster) -> list[Job]:
    """Return all jobs that the registry knows."""
    cluster.check()
    return [Job(cluster, name, job.info, str(job.state)) for name, job in cluster.ask(JOBS, "").items()]
