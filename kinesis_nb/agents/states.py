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


class State(StrEnum):
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
        return self in (State.SUBMITTED, State.STARTING, State.RUNNING)

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (State.ENDED, State.STOPPED, State.FAILED)


class Event(StrEnum):
    """What moves it on."""

    HELD = "Dask knows all tasks"
    REPORTED = "a part runs"
    ASKED_TO_STOP = "somebody asked it to stop"
    ALL_ENDED = "every part is over, and each has read all there will ever be"
    ALL_OVER = "every part is over, and one was stopped before it had read all"
    FAILED = "a part has failed, or the tasks never came"


# what is not listed leaves a job where it is
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.SUBMITTED, Event.HELD): State.STARTING,
    (State.SUBMITTED, Event.REPORTED): State.RUNNING,
    (State.SUBMITTED, Event.ASKED_TO_STOP): State.STOPPING,
    (State.SUBMITTED, Event.FAILED): State.FAILED,
    (State.STARTING, Event.REPORTED): State.RUNNING,
    (State.STARTING, Event.ASKED_TO_STOP): State.STOPPING,
    (State.STARTING, Event.ALL_ENDED): State.ENDED,
    (State.STARTING, Event.FAILED): State.FAILED,
    (State.RUNNING, Event.ASKED_TO_STOP): State.STOPPING,
    (State.RUNNING, Event.ALL_ENDED): State.ENDED,
    (State.RUNNING, Event.FAILED): State.FAILED,
    (State.STOPPING, Event.ALL_ENDED): State.ENDED,
    (State.STOPPING, Event.ALL_OVER): State.STOPPED,
    (State.STOPPING, Event.FAILED): State.FAILED,
}


def after(state: State, event: Event) -> State:
    """Return the state of a job after an event."""
    return TRANSITIONS.get((state, event), state)
