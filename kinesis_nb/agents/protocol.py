"""What handles, agents and the job registry in Dask's scheduler say to each other: frozen messages, and typed calls.

A message travels as MessagePack and is checked when it is decoded. Errors and statuses are pickled inside a message:
they come from our own agents, over the connection that also carries the code to run.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from kinesis_nb.agents.states import JobState  # noqa: TC001 - msgspec reads the annotations
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NAME = "kinesis_nb"  # what the registry's handlers in the scheduler begin with

Q = TypeVar("Q")
R = TypeVar("R")


class Instruction(StrEnum):
    """What a part is to do after its report."""

    CONTINUE = "continue"
    STOP = "stop"
    HAND_OVER = "hand over"  # commit, end, and let another agent continue
    NOT_YOURS = "not yours"  # another agent already runs the part
    UNKNOWN_JOB = "unknown job"  # the scheduler was restarted: keep the shards owned now, and own no others
    NO_RESPONSE = ""  # the scheduler did not respond: the same


class JobInfo(msgspec.Struct, frozen=True):
    """What a job is, to be shown."""

    kind: str  # "sync" or "export"
    stream: str
    place: str


class NewJob(msgspec.Struct, frozen=True):
    """A job to be registered, before its tasks are submitted to Dask.

    Attributes
    ----------
    spec
        What resubmits it, see :func:`~kinesis_nb.agents.job_spec.dump_spec`.
    setup
        Equal for jobs with the same options.
    run
        Unique, even among jobs of the same name.
    keys
        The keys of its tasks, one per part.
    is_resubmission
        Whether an agent gives the job back to a scheduler that was restarted.
    """

    name: str
    info: JobInfo
    spec: bytes
    setup: str
    run: str
    keys: tuple[str, ...]
    is_resubmission: bool = False


class JobRef(msgspec.Struct, frozen=True):
    """A job by its name; with `run`, only if it is that run."""

    name: str
    run: str = ""


class Withdrawal(msgspec.Struct, frozen=True):
    """A registered job whose tasks could not be submitted, and why."""

    name: str
    run: str
    reason: str


class PartSnapshot(msgspec.Struct, frozen=True):
    """One part of a job, as the registry knows it.

    Attributes
    ----------
    agent, agent_name
        The address and the name of the agent that runs it; empty while none does.
    status
        The pickled status of the sync or export; empty before the agent's first report.
    reached
        The newest mark up to which everything is in the table.
    over
        A final state, or empty.
    error, failure
        What it failed with, or what keeps it from starting; the pickled error itself.
    maintenance
        When its agent is away next, as text; empty for never.
    """

    key: str
    agent: str = ""
    agent_name: str = ""
    status: bytes = b""
    reached: int = 0
    over: str = ""
    error: str = ""
    failure: bytes = b""
    maintenance: str = ""

    @property
    def number(self) -> int:
        """Its number among the parts of the job."""
        return part_number(self.key)


class JobSnapshot(msgspec.Struct, frozen=True):
    """One job, as the registry knows it."""

    name: str
    info: JobInfo
    setup: str
    run: str
    state: JobState
    is_over: bool
    parts: tuple[PartSnapshot, ...]
    log: tuple[str, ...]


class RegisteredJob(msgspec.Struct, frozen=True):
    """The job that has the name of a new one, and whether it is the new one."""

    job: JobSnapshot
    is_new: bool


class PartReport(msgspec.Struct, frozen=True):
    """What a part reports about itself; see :class:`PartSnapshot`.

    Attributes
    ----------
    children_for_others
        How many shards that belong to other parts have become readable by the work of this run of the part.
    note
        A line for the log of the job.
    """

    key: str
    agent: str
    status: bytes = b""
    reached: int = 0
    children_for_others: int = 0
    note: str = ""
    error: str = ""
    failure: bytes = b""


class PartInstructions(msgspec.Struct, frozen=True):
    """The response to a report.

    Attributes
    ----------
    mark
        Raised when somebody waits until all parts have caught up; the part reports when it has.
    children_for_others
        Raised when a part has made a shard readable that belongs to another part: list the shards now.
    """

    instruction: Instruction
    mark: int = 0
    children_for_others: int = 0


class AgentInfo(msgspec.Struct, frozen=True):
    """An agent that joins, and keeps joining while it lives.

    Attributes
    ----------
    client
        The id of its client of Dask; when that is gone, so is the agent.
    windows
        Its maintenance windows, as text.
    maintenance
        When it is away next, as text; empty for never.
    """

    name: str
    client: str
    windows: tuple[str, ...] = ()
    maintenance: str = ""


class Roster(msgspec.Struct, frozen=True):
    """What an agent that joins needs to know.

    Attributes
    ----------
    windows
        The maintenance windows of the other agents, by their names.
    specs
        The specs of all active jobs, by name.
    over
        The names of the jobs that are stopping or over.
    """

    windows: dict[str, tuple[str, ...]]
    specs: dict[str, bytes]
    over: tuple[str, ...]


@dataclass(frozen=True)
class RegistryCall(Generic[Q, R]):
    """A call of the job registry: its name, and the types of its request and its response."""

    name: str
    request: type[Q]
    response: type[R]

    @property
    def handler(self) -> str:
        """The name of its handler in Dask's scheduler."""
        return f"{NAME}_{self.name}"

    def served_by(self, handle: Callable[[Q], R | Awaitable[R]]) -> Callable[..., Awaitable[bytes]]:
        """Return the handler for Dask's scheduler."""

        async def handler(message: bytes) -> bytes:
            result = handle(msgspec.msgpack.decode(message, type=self.request))
            if inspect.isawaitable(result):
                result = await result
            return msgspec.msgpack.encode(result)

        return handler

    async def send(self, scheduler: object, request: Q) -> R:
        """Make the call.

        Parameters
        ----------
        scheduler
            A connection of Dask's to the scheduler.

        Raises
        ------
        AgentError
            When the scheduler has a registry of another version.
        """
        try:
            response = await getattr(scheduler, self.handler)(message=msgspec.msgpack.encode(request))
            return msgspec.msgpack.decode(response, type=self.response)
        except msgspec.MsgspecError as error:
            raise AgentError(
                f"the scheduler and this process do not understand each other: {error}",
                hint="install the same version of kinesis-nb in both places, and restart the scheduler",
            ) from error


# for handles
REGISTER = RegistryCall("register", NewJob, RegisteredJob)
HOLD = RegistryCall("hold", JobRef, bool)
WITHDRAW = RegistryCall("withdraw", Withdrawal, type(None))
STOP = RegistryCall("stop", JobRef, type(None))
MARK = RegistryCall("mark", JobRef, int)
JOBS = RegistryCall("jobs", str, dict[str, JobSnapshot])
# for parts
REPORT = RegistryCall("report", PartReport, PartInstructions)
# for agents
JOIN = RegistryCall("join", AgentInfo, Roster)
LEAVE = RegistryCall("leave", str, type(None))
KNOWS = RegistryCall("knows", str, bool)
DRAIN = RegistryCall("drain", str, int)


def part_number(key: str) -> int:
    """Return the number of a part, which ends the key of its task."""
    return int(key.rpartition("-")[2])
