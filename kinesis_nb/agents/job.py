"""What a user holds of a job that agents run: the same as of one that runs here, and it may be let go."""

from __future__ import annotations

import pickle
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from kinesis_nb.agents.order import ExportOrder, SyncOrder, Task
from kinesis_nb.agents.orders import JobOrder
from kinesis_nb.agents.place import Placement, first_places
from kinesis_nb.agents.states import State
from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.foreign import told
from kinesis_nb.core.frames import Records, TableLike, concat
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.process import of_one_process
from kinesis_nb.display import show_live, table_html
from kinesis_nb.errors import AgentError, KinesisError, TableError, forgetful, warn
from kinesis_nb.syncing.status import SyncStatus
from kinesis_nb.table.failures import storage_explained
from kinesis_nb.table.lazy import scan
from kinesis_nb.table.schema import as_written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from kinesis_nb.agents.cluster import Cluster
    from kinesis_nb.agents.order import Order
    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.table.storage import Storage
    from kinesis_nb.table.verify import TableCheck

POLL_SECONDS = 0.1
STOP_SECONDS = 20.0
PREPARE_SECONDS = 60.0
REPLACE_SECONDS = 60.0  # for a job that is to end before another one of its name begins


def submit(cluster: Cluster, order: Order, *paths: object) -> str:
    """Give a job to the agents, unless the same runs already; return its name.

    One that writes the same with other options is stopped first, and one that is stopping is waited for.

    Parameters
    ----------
    paths
        What the user gave for places; one that is relative means a folder of this machine.

    Raises
    ------
    AgentError
        When the agents cannot be reached, do not fit, or may not be told what they need; when the job that is to be
        replaced does not end.
    ConfigError
        For a relative path when agents are on other machines.
    KinesisError
        What an agent found when it looked: no such stream, no permission, a table of something else.
    """
    agents = cluster.check()  # now: all of them may be away for a moment when the parts are given out
    cluster.check_way(order.parcel)
    cluster.check_paths(*paths)
    job, setup = order.job(), order.setup()
    known = cluster.desk("jobs", job=job).get(job)
    if known and known["setup"] == setup and State(known["state"]) in (State.STARTING, State.RUNNING):
        return job
    placement = _prepare(cluster, order) if isinstance(order, SyncOrder) else Placement(())
    give_up = time.monotonic() + REPLACE_SECONDS
    while (known := _open(cluster, agents, JobOrder(order, placement))) is not None:
        state = State(known["state"])
        if known["setup"] == setup and state in (State.STARTING, State.RUNNING):
            return job
        if known["setup"] != setup and state.is_active:
            cluster.desk("stop", job=job, run=known["run"])
        if time.monotonic() >= give_up:
            raise AgentError(
                f"the {order.kind} that {order.uri} had before does not end: it is {state}",
                hint="an agent is still at work for it; try again",
                retryable=True,
            )
        time.sleep(POLL_SECONDS)
    return job


def give_back(cluster: Cluster, ordered: JobOrder, body: bytes) -> None:
    """Give a job to a scheduler that does not know it any more; one that it knows, whatever became of it, stays so."""
    agents = cluster.check()
    cluster.check_way(ordered.order.parcel)
    _open(cluster, agents, ordered, body)


def _open(
    cluster: Cluster, agents: Sequence[str], ordered: JobOrder, body: bytes | None = None
) -> dict[str, Any] | None:
    """Register a job and give out its parts; return the one in its place if there is one.

    Parameters
    ----------
    body
        The same order, as it was remembered; then a job that is over is in its place too.
    """
    order, placement = ordered.order, ordered.placement
    job, run = order.job(), uuid.uuid4().hex[:8]
    tasks = [Task(f"{job}-{run}-{number}", order, placement, number) for number in range(len(placement))]
    opened: dict[str, Any] = cluster.desk(
        "open",
        job=job,
        order=body or pickle.dumps(ordered),
        what={"kind": order.kind, "stream": order.stream, "place": order.uri},
        setup=order.setup(),
        run=run,
        keys=[task.key for task in tasks],
        again=body is not None,
    )
    if not opened["is_new"]:
        return opened
    try:
        places = first_places(len(tasks), agents)
        futures = [cluster.submit(task, place) for task, place in zip(tasks, places, strict=True)]
        cluster.desk("hold", job=job, run=run)
        del futures  # from here on the desk keeps them
    except BaseException as error:
        with suppress(KinesisError):
            cluster.desk("withdraw", job=job, run=run, reason=f"{type(error).__name__} {error}".strip())
        raise
    return None


def _prepare(cluster: Cluster, order: SyncOrder) -> Placement:
    """Let an agent open the table and look at the stream: it has the permissions that count."""
    from kinesis_nb.agents.worker import prepare

    future = cluster.client.submit(prepare, order, len(cluster.workers), pure=False)
    try:
        return apart(future.result)(timeout=PREPARE_SECONDS)
    except KinesisError as error:
        error.__traceback__ = None
        raise error from None
    except TimeoutError as error:
        hint = "are all of them busy? see the dashboard of Dask"
        raise AgentError("no agent took the job", hint=hint, retryable=True) from error


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Who runs one part of a job, and how it is.

    Attributes
    ----------
    agent
        Its name; empty while nobody runs the part.
    status
        A :class:`~kinesis_nb.SyncStatus` or a status of an export; None before the agent's first report.
    maintenance
        When the agent is away next, as text; empty for never.
    """

    number: int
    agent: str
    status: Any
    over: str
    error: str
    maintenance: str


@of_one_process
class Job:
    """A job that agents run. It goes on when this object, or its process, is gone."""

    def __init__(self, cluster: Cluster, name: str, what: dict[str, str]) -> None:
        self.name = name
        self.kind, self.stream = what["kind"], what["stream"]
        self._cluster, self._what = cluster, what

    def _record(self) -> dict[str, Any]:
        found: dict[str, Any] | None = self._cluster.desk("jobs", job=self.name).get(self.name)
        if found is None:
            raise AgentError(
                f"the scheduler does not know the {self.kind} of {self.stream} any more",
                hint="it was started again: start the job again, it goes on where it was",
            )
        return found

    def parts(self) -> list[PartStatus]:
        """Return who runs what."""
        return [
            PartStatus(
                int(part["key"].rpartition("-")[2]),
                part["name"],
                pickle.loads(part["status"]) if part["status"] else None,  # noqa: S301 - from our own agents
                part["over"],
                part["error"],
                part["away"],
            )
            for part in self._record()["parts"]
        ]

    def logs(self) -> list[str]:
        """Return the last lines of what happened to the job: agents lost, parts moved, errors."""
        return list(self._record()["log"])

    def status(self) -> Any:
        """Return a moment of the job: of all parts together. None for an export while no agent runs it.

        The state of a sync is ``waiting`` while no agent runs one of its parts, and ``stopping`` while a part is still
        at work after the job was asked to stop.
        """
        record, parts = self._record(), self.parts()
        return _sync_status(record, parts) if self.kind == SyncOrder.kind else parts[0].status

    def stop(self) -> None:
        """Finish what is under way, and stop. Stopping twice is fine; the same call as before goes on from there.

        Raises
        ------
        TableError
            When rows that a sync has read could not be committed. Nothing is lost: the next one reads them again.
        """
        self.request_stop()
        self.join(STOP_SECONDS)
        for part in self._record()["parts"]:
            if part["over"] == State.FAILED and isinstance(error := _error(part), TableError):
                raise error

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits for an agent."""
        return State(self._record()["state"]).is_active

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        self._cluster.desk("stop", job=self.name)

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until it is over; return whether it is."""
        give_up = time.monotonic() + in_seconds(timeout)
        while not self._record()["is_over"]:
            if time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)
        return True

    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait until everything that is there now is through.

        Parameters
        ----------
        timeout
            Seconds, or a timedelta; None waits as long as it takes.
        until_caught_up
            False waits until the job ends.

        Returns
        -------
        bool
            False when the time ran out, or the job was stopped before.

        Raises
        ------
        KinesisError
            What it failed with.
        """
        give_up = time.monotonic() + in_seconds(timeout)
        run = mark = None
        while True:
            record = self._record()
            if failed := [part for part in record["parts"] if part["over"] == State.FAILED]:
                raise _error(failed[0])
            if State(record["state"]).is_final:
                return record["state"] == State.ENDED
            if record["run"] != run:  # at first, and when a scheduler that was started again counts anew
                run, mark = record["run"], self._cluster.desk("mark", job=self.name)
            elif until_caught_up and all(
                part["reached"] >= mark or part["over"] == State.ENDED for part in record["parts"]
            ):
                return True
            if time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)

    def agents(self) -> pl.DataFrame:
        """Return one line per shard or part: its agent, lag, rates, commits, errors, and when the agent is away."""
        return pl.DataFrame([line for part in self.parts() for line in _lines(part)], schema=_LINE, orient="row")

    def _ipython_display_(self) -> None:
        show_live("job_view", "JobView", self)

    def _repr_html_(self) -> str:
        frame = self.agents()
        return table_html(frame.columns, frame.rows(), repr(self).strip("<>"))


def _error(part: dict[str, Any]) -> KinesisError:
    """Return what a part failed with."""
    if part["failure"]:
        return pickle.loads(part["failure"])  # noqa: S301 - from our own agents
    return AgentError(f"a part of the job failed: {part['error']}", hint="see logs(), and the log of the agent")


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


def _lines(part: PartStatus) -> list[tuple[Any, ...]]:
    status = part.status
    shards = status.shards if isinstance(status, SyncStatus) else ()
    error = part.error or (status.error if status else "")
    state = part.over or (status.state if status else "waiting")
    commits = getattr(status, "commits", None)
    if not shards:
        rows = getattr(status, "rows", None)
        return [(part.number, part.agent, "", state, None, rows, None, commits, error, part.maintenance)]
    return [
        (
            part.number,
            part.agent,
            shard.shard_id,
            shard.state.value,
            shard.millis_behind_latest,
            shard.records,
            round(shard.rate, 1),
            commits,
            shard.error or error,
            part.maintenance,
        )
        for shard in shards
    ]


@of_one_process
class AgentSync(Job, TableLike):
    """A sync that agents run, part by part; made by :meth:`Source.sync` of a source with ``agents=``.

    It has what a :class:`~kinesis_nb.Sync` has, and :meth:`agents`, :meth:`parts` and :meth:`logs`.
    """

    def __init__(self, cluster: Cluster, name: str, order: SyncOrder, storage: Storage) -> None:
        super().__init__(cluster, name, {"kind": order.kind, "stream": order.stream, "place": order.uri})
        self._order, self._storage = order, storage
        self._told = 0  # of how many dropped user records the user was warned

    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait as for any job, and warn of user records that were dropped meanwhile."""
        is_through = super().wait(timeout, until_caught_up=until_caught_up)
        dropped = self.status().dropped
        before, self._told = self._told, dropped
        if number := dropped - before if dropped >= before else dropped:  # parts that begin again count from 0
            warn(f"sync of {self.stream}: {told(number)}")
        return is_through

    @property
    def live(self) -> Records:
        """The rows that agents have read but not committed yet; fetched from them."""
        from kinesis_nb.agents.worker import pending

        record = self._record()
        keys = {part["key"]: part["agent"] for part in record["parts"] if part["agent"] and not part["over"]}
        found = self._cluster.run(pending, list(keys), agents=sorted(set(keys.values())))
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
        """Let an agent read the whole committed table and check that each shard is there whole, once and in order."""
        from kinesis_nb.agents.worker import look_at

        return apart(self._cluster.client.submit(look_at, self._order, pure=False).result)()

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


def _sync_status(record: dict[str, Any], parts: list[PartStatus]) -> SyncStatus:
    known = [part.status for part in parts if part.status is not None]
    errors = [part.error or part.status.error for part in parts if part.error or (part.status and part.status.error)]
    return SyncStatus(
        _state(record, parts),
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


def _state(record: dict[str, Any], parts: list[PartStatus]) -> str:
    state = State(record["state"])
    if not state.is_active:
        return str(state)
    states = {part.status.state if part.status else "waiting" for part in parts if not part.over}
    for found in ("storage unavailable", "handing over", "waiting"):
        if found in states:
            return found
    return "running"


def _lag(parts: list[PartStatus]) -> timedelta | None:
    lags = [part.status.lag if part.status else None for part in parts]
    busy = [lag for lag, part in zip(lags, parts, strict=True) if part.status is None or part.status.shards]
    known = [lag for lag in busy if lag is not None]
    return max(known, default=None) if len(known) == len(busy) else None


@of_one_process
class AgentExport(Job):
    """A streaming export that an agent runs; made by :meth:`Source.export_stream` of a source with ``agents=``."""

    def __init__(self, cluster: Cluster, name: str, order: ExportOrder) -> None:
        super().__init__(cluster, name, {"kind": order.kind, "stream": order.stream, "place": order.uri})

    @property
    def is_running(self) -> bool:
        """Whether it still sends."""
        return not self._record()["is_over"]

    @property
    def failed(self) -> pl.DataFrame:
        """The rows that were given up in this run, and why."""
        status = self.status()
        return pl.DataFrame() if status is None else status.report.failed

    def __repr__(self) -> str:
        return f"<AgentExport to {self.stream}: {self.status()!r}>"


def jobs(cluster: Cluster) -> list[Job]:
    """Return all jobs that the desk knows."""
    cluster.check()
    return [Job(cluster, name, record["what"]) for name, record in cluster.desk("jobs").items()]
