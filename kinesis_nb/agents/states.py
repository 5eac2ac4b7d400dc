"""What a job of agents goes through. Pure: the table below is all there is; desk and job act by it.

=========  ==============================================  =====================================================
state      what there is                                   what its parts are told
=========  ==============================================  =====================================================
submitted  a name; the tasks are not known to Dask yet     nothing: no part runs
starting   tasks; no part has begun                        continue
running    parts, some of which maybe wait for an agent    continue
stopping   was asked to stop; some part still runs         stop
ended      every part has read all there will ever be      stop
stopped    every part has committed what it had, and ended stop
failed     a part cannot continue, or none ever began      stop
=========  ==============================================  =====================================================
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; the last three are final."""

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
    """What moves it on."""

    HELD = "Dask knows all tasks"
    REPORTED = "a part runs"
    ASKED_TO_STOP = "somebody asked it to stop"
    ALL_ENDED = "every part is over, and each has read all there will ever be"
    ALL_OVER = "every part is over, and one was stopped before it had read all"
    FAILED = "a part has failed, or the tasks never came"


# what is not listed leaves a job where it is
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


def after(state: JobState, event: JobEvent) -> JobState:
    """Return the state of a job after an event."""
    return TRANSITIONS.get((state, event), state)
