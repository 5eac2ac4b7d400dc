"""What runs inside Dask's scheduler: it knows the jobs, notices an agent that stands still, and answers its parts.

Nothing here keeps a table right; that is the fence's business (DESIGN.md). The desk only makes it quick: a part
reports twice a second and is told to go on, to stop, or to hand over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from distributed import Status
from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from kinesis_nb.agents.heartbeats import HeartbeatMonitor
from kinesis_nb.agents.job_spec import Instruction
from kinesis_nb.agents.placement import better_place
from kinesis_nb.agents.states import JobEvent, JobState, after

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Scheduler

NAME = "kinesis_nb"
TTL_SECONDS = 5.0  # an agent that was not heard of for so long has lost its parts; it reports twice a second
IDLE_TTL_SECONDS = 300.0  # the same for an agent without parts
LOOK_SECONDS = 0.25
STALL_SECONDS = 1.0  # between two looks no more counts as silence: the scheduler was held up itself
LOG_LINES = 200
FORGET_SECONDS = 30.0  # a job whose parts were not submitted by then never will be; an agent that is silent has left
SETTLE_SECONDS = 5.0  # a part stays so long before it may move again


@dataclass
class PartRecord:
    """What the desk knows of one part of a job: of one task."""

    agent: str = ""  # the address of the worker that runs it; empty until that has reported
    name: str = ""
    next_agent: str = ""  # the address it is moving to
    status: bytes = b""
    reached: int = 0  # the newest mark up to which everything is in the table
    births: int = 0  # shards that this run of it gave to other parts
    began: float = 0.0
    over: str = ""  # a final JobState, or empty
    error: str = ""  # what it failed with, or what keeps it from beginning
    failure: bytes = b""  # the error itself, pickled

    def leave_agent(self) -> None:
        """Forget the agent and what it reported of itself: nobody runs the part until the next one reports."""
        self.agent = self.name = self.error = ""
        self.status = self.failure = b""
        self.births = 0

    def describe(self, key: str) -> dict[str, Any]:
        """Return it as what can be sent."""
        return {name: value for name, value in vars(self).items() if name != "began"} | {"key": key}


@dataclass
class JobRecord:
    """One sync or export, in one of the states of :mod:`~kinesis_nb.agents.states`.

    Attributes
    ----------
    order
        What :func:`~kinesis_nb.agents.job.give_back` needs, pickled, for whoever has to submit it again.
    what
        Its kind, stream and place, to be shown.
    setup
        Equal for jobs with the same options.
    run
        Its own, even among jobs of the same name.
    mark
        Raised when somebody waits until all parts have caught up.
    births
        Raised when a part has come to the end of a shard whose child is for another part, which should look for it.
    """

    order: bytes
    what: dict[str, str]
    setup: str
    run: str
    parts: dict[str, PartRecord]
    opened: float
    state: JobState = JobState.SUBMITTED
    mark: int = 0
    births: int = 0
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    def note(self, text: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}")

    def tell(self, event: JobEvent) -> None:
        """Change the state by what happened."""
        self.state = after(self.state, event)

    def end(self, part: PartRecord, how: JobState, error: str = "") -> None:
        """Note that a part is over, and how."""
        part.over, part.error = how, error
        if how is JobState.FAILED:
            self.tell(JobEvent.FAILED)
        elif all(other.over for other in self.parts.values()):
            is_through = all(other.over == JobState.ENDED for other in self.parts.values())
            self.tell(JobEvent.ALL_ENDED if is_through else JobEvent.ALL_OVER)

    @property
    def is_over(self) -> bool:
        """Whether no part runs or will run."""
        return self.state.is_final and all(part.over for part in self.parts.values())


class JobRegistry(SchedulerPlugin):
    """The plugin.

    Parameters
    ----------
    ttl
        Seconds after which an agent that is not heard of has lost its parts.
    clock
        Seconds, monotonic; the wall clock may step.
    """

    name, idempotent = NAME, True

    def __init__(self, ttl: float = TTL_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl, self._clock = ttl, clock

    async def start(self, scheduler: Scheduler) -> None:
        """Begin; called by the scheduler."""
        self._scheduler = scheduler
        self._jobs: dict[str, JobRecord] = {}
        self._job_of: dict[str, str] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        self._worker_names: dict[str, str] = {str(one.address): str(one.name) for one in scheduler.workers.values()}
        self._silence = HeartbeatMonitor(self._clock, STALL_SECONDS)
        self._lost: set[str] = set()  # workers that are being removed
        handlers: dict[str, Callable[..., Any]] = {
            f"{NAME}_{handler.__name__}": handler
            for handler in (
                *(self.open, self.hold, self.withdraw, self.stop, self.mark, self.jobs),
                *(self.report, self.join, self.leave, self.serves, self.drain),
            )
        }
        scheduler.handlers.update(handlers)
        scheduler.client_desires_keys([], NAME)
        self._look = PeriodicCallback(self.look, LOOK_SECONDS * 1000)
        self._look.start()

    async def close(self) -> None:
        """End; called by the scheduler."""
        self._look.stop()

    # --- for clients

    def open(
        self, job: str, order: bytes, what: dict[str, str], setup: str, run: str, keys: list[str], *, again: bool
    ) -> dict[str, Any]:
        """Register a job; one of that name that is not over, or `again` one that is known at all, stays as it is.

        Returns
        -------
        dict
            The job of that name; ``is_new`` says whether it is this one.
        """
        known = self._jobs.get(job)
        if known is not None and (again or not known.is_over):
            return self._describe(job) | {"is_new": False}
        if known is not None:
            self._forget(job)
        parts = {key: PartRecord() for key in keys}
        self._jobs[job] = record = JobRecord(order, what, setup, run, parts, self._clock())
        self._job_of |= dict.fromkeys(keys, job)
        record.note(f"submitted, {len(keys)} parts")
        return self._describe(job) | {"is_new": True}

    async def hold(self, job: str, run: str) -> bool:
        """Keep the tasks of a job when its client is gone; return whether all of them came."""
        record, tasks = self._jobs[job], self._scheduler.tasks
        while any(key not in tasks for key in record.parts):
            if record.run != run or record.state.is_final:
                return False
            await asyncio.sleep(0.01)
        self._scheduler.client_desires_keys([key for key, part in record.parts.items() if not part.over], NAME)
        record.tell(JobEvent.HELD)
        self._end_waiting(record)
        return True

    def withdraw(self, job: str, run: str, reason: str) -> None:
        """Give up a job whose tasks will not come."""
        record = self._jobs.get(job)
        if record is not None and record.run == run and record.state is JobState.SUBMITTED:
            record.note(f"never submitted: {reason}")
            for part in record.parts.values():
                record.end(part, JobState.FAILED, f"the job was never submitted: {reason}")

    def stop(self, job: str, run: str = "") -> None:
        """Tell the parts of a job to commit and end; with `run` only if it is that one."""
        record = self._jobs.get(job)
        if record is None or run not in ("", record.run) or not record.state.is_active:
            return
        record.note("asked to stop")
        record.tell(JobEvent.ASKED_TO_STOP)
        self._end_waiting(record)

    def _end_waiting(self, record: JobRecord) -> None:
        """End the parts of a job that is to end which no agent runs: they have nothing to commit, and none may come."""
        if record.state.is_active:
            return
        for key, part in record.parts.items():
            task = self._scheduler.tasks.get(key)
            if not part.over and (task is None or task.processing_on is None):
                record.note(f"part {_number(key)} ended without an agent")
                record.end(part, JobState.STOPPED)
                if task is not None:
                    self._scheduler.client_releases_keys([key], NAME)

    def mark(self, job: str) -> int:
        """Ask the parts to say when everything that is in the stream now is in the table."""
        record = self._jobs[job]
        record.mark += 1
        return record.mark

    def jobs(self, job: str | None = None) -> dict[str, dict[str, Any]]:
        """Return what is known of one job, or all."""
        return {name: self._describe(name) for name in self._jobs if job in (None, name)}

    def _describe(self, job: str) -> dict[str, Any]:
        record = self._jobs[job]
        away = {name: agent["away"] for name, agent in self._agents.items()}
        return {
            "what": record.what,
            "setup": record.setup,
            "run": record.run,
            "state": str(record.state),
            "is_over": record.is_over,
            "parts": [part.describe(key) | {"away": away.get(part.name, "")} for key, part in record.parts.items()],
            "log": list(record.log),
        }

    def _forget(self, job: str) -> None:
        record = self._jobs.pop(job)
        for key in record.parts:  # first: the scheduler tells at once what becomes of its tasks
            self._job_of.pop(key, None)
        self._scheduler.client_releases_keys(list(record.parts), NAME)

    # --- for the parts

    def report(
        self,
        key: str,
        agent: str,
        status: bytes,
        reached: int,
        births: int,
        note: str = "",
        trouble: str = "",
        failure: bytes = b"",
    ) -> tuple[str, int, int]:
        """Take the report of a part; answer what it is to do, the mark to reach, and how many shards were born."""
        job, task = self._job_of.get(key), self._scheduler.tasks.get(key)
        if job is None:
            return self._left_alone(key), 0, 0
        if task is None or task.processing_on is None or task.processing_on.address != agent:
            return Instruction.NOT_YOURS, 0, 0
        record, worker = self._jobs[job], self._scheduler.workers[agent]
        part = record.parts[key]
        record.tell(JobEvent.REPORTED)
        if part.agent != agent:
            part.agent, part.name, part.next_agent, part.began = agent, str(worker.name), "", self._clock()
            record.note(f"part {_number(key)} runs on {part.name}")
        if note:
            record.note(f"part {_number(key)} on {part.name}: {note}")
        part.status, part.failure, part.error = status or part.status, failure, trouble
        part.reached = max(part.reached, reached)  # what is in the table stays there when the part moves
        record.births, part.births = record.births + max(0, births - part.births), births
        task.suspicious = 0  # it ran, so it is not what kills agents; Dask gives up after three otherwise
        return self._decide(record, key, part), record.mark, record.births

    def _left_alone(self, key: str) -> Instruction:
        """Return what a part of another scheduler's life is to do, whose job was maybe given to this one since.

        A sync goes on until the table is another writer's, so that no row waits. An export has no such fence: whoever
        is to go on with it needs its journal.
        """
        record = self._jobs.get(key.rsplit("-", 2)[0])
        if record is None:
            return Instruction.LEFT_ALONE
        if not record.state.is_active:
            return Instruction.STOP
        return Instruction.LEFT_ALONE if record.what["kind"] == "sync" else Instruction.NOT_YOURS

    def _decide(self, record: JobRecord, key: str, part: PartRecord) -> Instruction:
        if part.over or not record.state.is_active:
            return Instruction.STOP
        running = {worker.address: worker for worker in self._scheduler.running if worker.address not in self._lost}
        if part.agent not in running:
            is_leaving = self._scheduler.workers[part.agent].status == Status.closing_gracefully
            return Instruction.HAND_OVER if is_leaving or running else Instruction.GO_ON
        if self._clock() - part.began < SETTLE_SECONDS:
            return Instruction.GO_ON
        places = {name: other.next_agent or other.agent for name, other in record.parts.items() if not other.over}
        if better := better_place(part.agent, places, running):
            self._prefer(key, better)
            part.next_agent = better  # so that the next one that reports does not move as well
            record.note(f"part {_number(key)} moves to {running[better].name}")
            return Instruction.HAND_OVER
        return Instruction.GO_ON

    def _prefer(self, key: str, agent: str) -> None:
        self._scheduler.set_restrictions({key: agent})
        self._scheduler.tasks[key].loose_restrictions = True

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, stimulus_id: str, **kwargs: Any) -> None:
        """Notice that a part has ended or lost its agent, or that none is left to run it; called by the scheduler."""
        job = self._job_of.get(key)
        if job is None:
            return
        record = self._jobs[job]
        part = record.parts[key]
        if part.over:
            return
        later = self._scheduler.loop.add_callback  # not within a transition
        if finish == "no-worker":  # Dask would wait for the very agent that it preferred, which will not come back
            self._scheduler.set_restrictions({key: None})
            later(self._end_waiting, record)
        elif finish == "memory":
            how = JobState.ENDED if record.state.is_active else JobState.STOPPED
            record.end(part, how)
            record.note(f"part {_number(key)} {how}")
            # Dask would compute a wanted result again when its agent is lost: a stopped sync would take its table back
            later(self._scheduler.client_releases_keys, [key], NAME)
        elif finish == "erred":
            error = self._scheduler.tasks[key].exception_text or "failed"
            record.end(part, JobState.FAILED, error)
            record.note(f"part {_number(key)} failed: {error}")
            later(self._end_waiting, record)
        elif start == "processing":  # it was handed over, or its agent is gone
            if part.agent and part.agent not in self._scheduler.workers:
                record.note(f"an agent has left: part {_number(key)} goes elsewhere")
            part.leave_agent()

    # --- for the agents

    def join(self, name: str, windows: list[str], away: str, client: str) -> dict[str, Any]:
        """Record an agent and its maintenance windows.

        Returns
        -------
        dict
            The windows of the others; the orders of all jobs that run; the names of those that do not any more.
        """
        now = self._clock()
        self._agents[name] = {"windows": windows, "away": away, "seen": now, "client": client}
        self._agents = {one: agent for one, agent in self._agents.items() if now - agent["seen"] < FORGET_SECONDS}
        others = {one: agent["windows"] for one, agent in self._agents.items() if one != name}
        orders = {job: record.order for job, record in self._jobs.items() if record.state.is_active}
        return {"others": others, "orders": orders, "over": [job for job in self._jobs if job not in orders]}

    def leave(self, name: str) -> None:
        """Forget an agent."""
        self._agents.pop(name, None)

    def serves(self, agent: str) -> bool:
        """Return whether a worker is one of this scheduler's."""
        return agent in self._scheduler.workers

    async def drain(self, agent: str) -> int:
        """Let an agent run nothing new, and return how many parts it still has; they hand over when they report."""
        worker = self._scheduler.workers.get(agent)
        if worker is None:
            return 0
        if worker.status == Status.running:
            await self._scheduler.retire_workers(workers=[agent], close_workers=False, remove=False)
        return sum(task.key in self._job_of for task in worker.processing)

    # --- who is gone

    async def look(self) -> None:
        """Take the parts from agents that are silent, and give up jobs that never came; called all the time."""
        for job, record in self._jobs.items():
            if record.state is JobState.SUBMITTED and self._clock() - record.opened > FORGET_SECONDS:
                self.withdraw(job, record.run, "its client ended too early; start it again")
        silent = self._silence.look({worker.address: worker.last_seen for worker in self._scheduler.workers.values()})
        for worker in list(self._scheduler.workers.values()):
            jobs = {self._job_of[task.key] for task in worker.processing if task.key in self._job_of}
            ttl = self._ttl if jobs else max(self._ttl, IDLE_TTL_SECONDS)
            if silent[worker.address] <= ttl or worker.address in self._lost:
                continue
            for job in jobs:
                self._jobs[job].note(f"{worker.name} was not heard of for {ttl:g} s")
            self._lost.add(worker.address)
            try:
                await self._scheduler.remove_worker(worker.address, stimulus_id=f"{NAME}-{worker.address}")
            finally:
                self._lost.discard(worker.address)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Learn the name of an agent's worker; called by the scheduler."""
        self._worker_names[worker] = str(scheduler.workers[worker].name)

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any) -> None:
        """Let another agent have the windows of one that is gone; called by the scheduler."""
        self.leave(self._worker_names.pop(worker, ""))  # one that lives joins again within a second

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget an agent that ended before it had a worker; called by the scheduler."""
        self._agents = {name: agent for name, agent in self._agents.items() if agent["client"] != client}


def _number(key: str) -> int:
    """Return the number of a part, which ends its key."""
    return int(key.rpartition("-")[2])
