"""Submit a job to the agents: register it, and give its parts to Dask."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from kinesis_nb.agents.job_spec import JobSpec, PartTask, SyncSpec, dump_spec
from kinesis_nb.agents.placement import Placement, first_places
from kinesis_nb.agents.protocol import (
    HOLD,
    JOBS,
    REGISTER,
    STOP,
    WITHDRAW,
    JobInfo,
    JobRef,
    JobSnapshot,
    NewJob,
    Withdrawal,
)
from kinesis_nb.agents.states import JobState
from kinesis_nb.core.interrupt import apart
from kinesis_nb.errors import AgentError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinesis_nb.agents.cluster import Cluster
    from kinesis_nb.agents.job_spec import Work

POLL_SECONDS = 0.1
PREPARE_SECONDS = 60.0
REPLACE_SECONDS = 60.0  # for the end of a job that another one of its name replaces


def submit(cluster: Cluster, work: Work, *paths: object) -> str:
    """Submit a job, unless the same one is running; return its name.

    A job that writes the same with other options is stopped first; one that is stopping is waited for.

    Parameters
    ----------
    paths
        The places that the user named; a relative one is in a folder of this machine.

    Raises
    ------
    AgentError
        When the agents cannot be reached, run other versions, or must not receive the secrets; when the job that is to
        be replaced does not end.
    ConfigError
        For a relative path when agents are on other machines.
    KinesisError
        What an agent found: no such stream, no permission, a table of something else.
    """
    agents = cluster.check()  # now: all of them may be away for a moment when the tasks are submitted
    cluster.check_encrypted(work.settings)
    cluster.check_paths(*paths)
    name, setup = work.job(), work.setup()
    known = cluster.ask(JOBS, name).get(name)
    if known and known.setup == setup and known.state in (JobState.STARTING, JobState.RUNNING):
        return name
    spec = JobSpec(work, _prepare(cluster, work) if isinstance(work, SyncSpec) else Placement(()))
    give_up = time.monotonic() + REPLACE_SECONDS
    while (known := _start(cluster, agents, spec)) is not None:
        if known.setup == setup and known.state in (JobState.STARTING, JobState.RUNNING):
            return name
        if known.setup != setup and known.state.is_active:
            cluster.ask(STOP, JobRef(name, known.run))
        if time.monotonic() >= give_up:
            raise AgentError(
                f"the {work.kind} that {work.uri} had before does not end: it is {known.state}",
                hint="an agent still works on it; try again",
                retryable=True,
            )
        time.sleep(POLL_SECONDS)
    return name


def resubmit(cluster: Cluster, spec: JobSpec) -> None:
    """Give a job back to a scheduler that was restarted; one that it knows, in whatever state, stays as it is."""
    agents = cluster.check()
    cluster.check_encrypted(spec.work.settings)
    _start(cluster, agents, spec, is_resubmission=True)


def _start(
    cluster: Cluster, agents: Sequence[str], spec: JobSpec, *, is_resubmission: bool = False
) -> JobSnapshot | None:
    """Register a job and submit its parts; return the job that has its name already, if there is one."""
    work, placement = spec.work, spec.placement
    name, run = work.job(), uuid.uuid4().hex[:8]
    tasks = [PartTask(f"{name}-{run}-{number}", work, placement, number) for number in range(len(placement))]
    info, keys = JobInfo(work.kind, work.stream, work.uri), tuple(task.key for task in tasks)
    # 1. the registry decides which of several calls starts the job: the tasks come only after its word
    registered = cluster.ask(
        REGISTER, NewJob(name, info, dump_spec(spec), work.setup(), run, keys, is_resubmission=is_resubmission)
    )
    if not registered.is_new:
        return registered.job
    try:
        # 2. Dask keeps a task only as long as somebody wants it: until the registry does, these futures do
        places = first_places(len(tasks), agents)
        futures = [cluster.submit(task, place) for task, place in zip(tasks, places, strict=True)]
        cluster.ask(HOLD, JobRef(name, run))
        del futures
    except BaseException as error:
        # 3. a job whose tasks did not all come must not look as if it were starting
        with suppress(KinesisError):
            cluster.ask(WITHDRAW, Withdrawal(name, run, f"{type(error).__name__} {error}".strip()))
        raise
    return None


def _prepare(cluster: Cluster, spec: SyncSpec) -> Placement:
    """Let an agent open the table and list the stream: its permissions are the ones that count."""
    from kinesis_nb.agents.parts import prepare

    future = cluster.client.submit(prepare, spec, len(cluster.workers), pure=False)
    try:
        return apart(future.result)(timeout=PREPARE_SECONDS)
    except KinesisError as error:
        error.__traceback__ = None
        raise error from None
    except TimeoutError as error:
        hint = "are all of them busy? see the dashboard of Dask"
        raise AgentError("no agent accepted the job", hint=hint, retryable=True) from error
