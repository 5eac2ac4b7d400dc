"""What the job registry remembers of each job and its parts. Pure: no I/O, no Dask."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kinesis_nb.agents.protocol import JobSnapshot, PartSnapshot
from kinesis_nb.agents.states import JobEvent, JobState, next_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinesis_nb.agents.protocol import NewJob

LOG_LINES = 200


@dataclass
class PartRecord:
    """One part of a job, which is one task of Dask's. :class:`PartSnapshot` describes what both have."""

    agent: str = ""
    agent_name: str = ""
    next_agent: str = ""  # the address it is moving to
    status: bytes = b""
    reached: int = 0
    children_for_others: int = 0
    began: float = 0.0
    over: str = ""
    error: str = ""
    failure: bytes = b""

    def leave_agent(self) -> None:
        """Forget the agent and what it reported: nobody runs the part until the next one reports."""
        self.agent = self.agent_name = self.error = ""
        self.status = self.failure = b""
        self.children_for_others = 0

    def snapshot(self, key: str, maintenance: str) -> PartSnapshot:
        """Return it as what can be sent."""
        return PartSnapshot(
            key,
            self.agent,
            self.agent_name,
            self.status,
            self.reached,
            self.over,
            self.error,
            self.failure,
            maintenance,
        )


@dataclass
class JobRecord:
    """One sync or export, in one of the states of :mod:`~kinesis_nb.agents.states`.

    Attributes
    ----------
    job
        What was registered.
    opened
        When it was registered, by the monotonic clock of the registry, in seconds.
    mark, children_for_others
        As in :class:`~kinesis_nb.agents.protocol.PartInstructions`.
    """

    job: NewJob
    parts: dict[str, PartRecord]
    opened: float
    state: JobState = JobState.SUBMITTED
    mark: int = 0
    children_for_others: int = 0
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    def note(self, text: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}")

    def apply(self, event: JobEvent) -> None:
        """Change the state by what happened."""
        self.state = next_state(self.state, event)

    def end(self, part: PartRecord, how: JobState, error: str = "") -> None:
        """Record that a part is over, and how."""
        part.over, part.error = how, error
        if how is JobState.FAILED:
            self.apply(JobEvent.FAILED)
        elif all(other.over for other in self.parts.values()):
            has_read_all = all(other.over == JobState.ENDED for other in self.parts.values())
            self.apply(JobEvent.ALL_ENDED if has_read_all else JobEvent.ALL_OVER)

    @property
    def is_over(self) -> bool:
        """Whether no part runs or will run."""
        return self.state.is_final and all(part.over for part in self.parts.values())

    def snapshot(self, maintenance: Mapping[str, str]) -> JobSnapshot:
        """Return it as what can be sent.

        Parameters
        ----------
        maintenance
            When each agent is away next, by its name.
        """
        parts = [part.snapshot(key, maintenance.get(part.agent_name, "")) for key, part in self.parts.items()]
        job = self.job
        return JobSnapshot(
            job.name, job.info, job.setup, job.run, self.state, self.is_over, tuple(parts), tuple(self.log)
        )
