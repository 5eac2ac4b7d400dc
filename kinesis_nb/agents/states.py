"""The states of a job that agents run. Pure: the registry and the handles act by the table below.

=========  ==============================================  =====================================================
state      what there is                                   what its parts are instructed
=========  ==============================================  =====================================================
submitted  a name; the tasks are not known to Dask yet     nothing: no part runs
starting   tasks; no part has begun                        continue
running    parts, some of which may wait for an agent      continue
stopping   was asked to stop; some part still runs         stop
ended      every part has read its shards to their ends    stop
stopped    every part has committed what it had, and ended stop
failed     a part cannot continue, or none ever began      stop
=========  ==============================================  =====================================================
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job; the last three are final."""

    SUBMITTED = "submitted"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        """Whether it runs, or will, and nobody asked it to stop."""
        return self in (JobState.SUBMITTED, JobState.STARTING, JobState.RUNNING)

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (JobState.ENDED, JobState.STOPPED, JobState.FAILED)


class JobEvent(StrEnum):
    """What changes the state of a job."""

    HELD = "Dask knows all tasks"
    REPORTED = "a part runs"
    ASKED_TO_STOP = "the job was asked to stop"
    ALL_ENDED = "every part is over, and each has read its shards to their ends"
    ALL_OVER = "every part is over, and one was stopped before the ends of its shards"
    FAILED = "a part has failed, or the tasks never came"


# an event that is not listed leaves the state as it is
TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.SUBMITTED, JobEvent.HELD): JobState.STARTING,
    (JobState.SUBMITTED, JobEvent.REPORTED): JobState.RUNNING,
    (JobState.SUBMITTED, JobEvent.ASKED_TO_STOP): JobState.STOPPING,
    (JobState.SUBMITTED, JobEvent.FAILED): JobState.FAILED,
    (JobState.STARTING, JobEvent.REPORTED): JobState.RUNNING,
    (JobState.STARTING, JobEvent.ASKED_TO_STOP): JobState.STOPPING,
    (JobState.STARTING, JobEvent.ALL_ENDED): JobState.ENDED,
    (JobState.STARTING, JobEvent.FAILED): JobState.FAILED,
    (JobState.RUNNING, JobEvent.ASKED_TO_STOP): JobState.STOPPING,
    (JobState.RUNNING, JobEvent.ALL_ENDED): JobState.ENDED,
    (JobState.RUNNING, JobEvent.FAILED): JobState.FAILED,
    (JobState.STOPPING, JobEvent.ALL_ENDED): JobState.ENDED,
    (JobState.STOPPING, JobEvent.ALL_OVER): JobState.STOPPED,
    (JobState.STOPPING, JobEvent.FAILED): JobState.FAILED,
}


def next_state(state: JobState, event: JobEvent) -> JobState:
    """Return the state of a job after an event."""
    return TRANSITIONS.get((state, event), state)
