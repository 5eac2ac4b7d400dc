"""What runs inside Dask's scheduler: it knows the jobs, notices agents that hang, and instructs the parts of jobs.

Nothing here keeps a table correct; the fence does that (DESIGN.md). The registry only makes things quick: each part
reports several times a second, and is told to continue, to stop, or to hand over.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import Status
from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from kinesis_nb.agents.heartbeats import HeartbeatMonitor
from kinesis_nb.agents.job_records import JobRecord, PartRecord
from kinesis_nb.agents.placement import better_place
from kinesis_nb.agents.protocol import (
    DRAIN,
    HOLD,
    JOBS,
    JOIN,
    KNOWS,
    LEAVE,
    MARK,
    NAME,
    REGISTER,
    REPORT,
    STOP,
    WITHDRAW,
    Instruction,
    JobRef,
    PartInstructions,
    RegisteredJob,
    Roster,
    Withdrawal,
    part_number,
)
from kinesis_nb.agents.states import JobEvent, JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from distributed import Scheduler
    from distributed.scheduler import WorkerState

    from kinesis_nb.agents.protocol import AgentInfo, JobSnapshot, NewJob, PartReport

TTL_SECONDS = 5.0  # an agent that was silent for longer has lost its parts; it reports four times a second
IDLE_TTL_SECONDS = 300.0  # the same for an agent without parts
SWEEP_SECONDS = 0.25
STALL_SECONDS = 1.0  # the most that one sweep adds to a silence: in a longer gap the scheduler itself was held up
FORGET_SECONDS = 30.0  # a job whose tasks have not come by then is given up; an agent silent for longer has left
SETTLE_SECONDS = 5.0  # before a part that has moved may move again


@dataclass(frozen=True)
class _KnownAgent:
    info: AgentInfo
    seen: float


class JobRegistry(SchedulerPlugin):
    """The plugin.

    Parameters
    ----------
    ttl
        Seconds of silence after which an agent has lost its parts.
    clock
        Seconds, monotonic; the wall clock may step.
    """

    name, idempotent = NAME, True

    def __init__(self, ttl: float = TTL_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl, self._clock = ttl, clock

    async def start(self, scheduler: Scheduler) -> None:
        """Start; called by the scheduler."""
        self._scheduler = scheduler
        self._jobs: dict[str, JobRecord] = {}
        self._job_of: dict[str, str] = {}
        self._agents: dict[str, _KnownAgent] = {}
        self._worker_names: dict[str, str] = {str(one.address): str(one.name) for one in scheduler.workers.values()}
        self._heartbeats = HeartbeatMonitor(self._clock, STALL_SECONDS)
        self._lost: set[str] = set()  # workers that are being removed
        handlers: dict[str, Callable[..., Awaitable[bytes]]] = {
            REGISTER.handler: REGISTER.served_by(self.register),
            HOLD.handler: HOLD.served_by(self.hold),
            WITHDRAW.handler: WITHDRAW.served_by(self.withdraw),
            STOP.handler: STOP.served_by(self.stop),
            MARK.handler: MARK.served_by(self.mark),
            JOBS.handler: JOBS.served_by(self.jobs),
            REPORT.handler: REPORT.served_by(self.report),
            JOIN.handler: JOIN.served_by(self.join),
            LEAVE.handler: LEAVE.served_by(self.leave),
            KNOWS.handler: KNOWS.served_by(self.knows),
            DRAIN.handler: DRAIN.served_by(self.drain),
        }
        scheduler.handlers.update(handlers)
        scheduler.client_desires_keys([], NAME)
        self._sweeps = PeriodicCallback(self.sweep, SWEEP_SECONDS * 1000)
        self._sweeps.start()

    async def close(self) -> None:
        """Stop; called by the scheduler."""
        self._sweeps.stop()

    # --- for handles

    def register(self, job: NewJob) -> RegisteredJob:
        """Register a job, unless one of its name is not over yet.

        A resubmitted job is registered only if none of its name is known: one that is over stays over.
        """
        known = self._jobs.get(job.name)
        if known is not None and (job.is_resubmission or not known.is_over):
            return RegisteredJob(self._snapshot(known), is_new=False)
        if known is not None:
            self._forget(job.name)
        parts = {key: PartRecord() for key in job.keys}
        self._jobs[job.name] = record = JobRecord(job, parts, self._clock())
        self._job_of |= dict.fromkeys(job.keys, job.name)
        record.note(f"submitted, {len(parts)} parts")
        return RegisteredJob(self._snapshot(record), is_new=True)

    def _record(self, job: JobRef | Withdrawal) -> JobRecord | None:
        """Return the job that is meant, if it is known."""
        record = self._jobs.get(job.name)
        return record if record is not None and job.run in ("", record.job.run) else None

    async def hold(self, job: JobRef) -> bool:
        """Keep the tasks of a job when its client is gone; return whether all of them came."""
        tasks = self._scheduler.tasks
        while True:
            record = self._record(job)  # another one may have taken its name meanwhile
            if record is None or record.state.is_final:
                return False
            if all(key in tasks for key in record.parts):
                break
            await asyncio.sleep(0.01)
        self._scheduler.client_desires_keys([key for key, part in record.parts.items() if not part.over], NAME)
        record.apply(JobEvent.HELD)
        self._end_waiting(record)
        return True

    def withdraw(self, job: Withdrawal) -> None:
        """Give up a job whose tasks will not come."""
        record = self._record(job)
        if record is not None and record.state is JobState.SUBMITTED:
            record.note(f"never submitted: {job.reason}")
            for part in record.parts.values():
                record.end(part, JobState.FAILED, f"the job was never submitted: {job.reason}")

    def stop(self, job: JobRef) -> None:
        """Instruct the parts of a job to commit and end."""
        record = self._record(job)
        if record is None or not record.state.is_active:
            return
        record.note("asked to stop")
        record.apply(JobEvent.ASKED_TO_STOP)
        self._end_waiting(record)

    def _end_waiting(self, record: JobRecord) -> None:
        """End the parts of a stopping job that no agent runs: they have nothing to commit, and must not start."""
        if record.state.is_active:
            return
        for key, part in record.parts.items():
            task = self._scheduler.tasks.get(key)
            if not part.over and (task is None or task.processing_on is None):
                record.note(f"part {part_number(key)} ended without an agent")
                record.end(part, JobState.STOPPED)
                if task is not None:
                    self._scheduler.client_releases_keys([key], NAME)

    def mark(self, job: JobRef) -> int:
        """Ask the parts to report when everything that is in the stream now is in the table; 0 for an unknown job."""
        record = self._record(job)
        if record is None:
            return 0
        record.mark += 1
        return record.mark

    def jobs(self, name: str = "") -> dict[str, JobSnapshot]:
        """Return what is known of one job, or of all."""
        return {known: self._snapshot(record) for known, record in self._jobs.items() if name in ("", known)}

    def _snapshot(self, record: JobRecord) -> JobSnapshot:
        return record.snapshot({name: agent.info.maintenance for name, agent in self._agents.items()})

    def _forget(self, job: str) -> None:
        record = self._jobs.pop(job)
        for key in record.parts:  # first: the scheduler reports at once what becomes of its tasks
            self._job_of.pop(key, None)
        self._scheduler.client_releases_keys(list(record.parts), NAME)

    # --- for parts

    def report(self, report: PartReport) -> PartInstructions:
        """Record the report of a part, and return what it is to do."""
        job, task = self._job_of.get(report.key), self._scheduler.tasks.get(report.key)
        if job is None:
            return PartInstructions(self._instruct_unknown(report.key))
        if task is None or task.processing_on is None or task.processing_on.address != report.agent:
            return PartInstructions(Instruction.NOT_YOURS)
        record = self._jobs[job]
        part = record.parts[report.key]
        record.apply(JobEvent.REPORTED)
        self._update(record, part, report)
        task.suspicious = 0  # it ran, so it is not what kills agents; Dask gives up after three otherwise
        return PartInstructions(self._instruct(record, report.key, part), record.mark, record.children_for_others)

    def _update(self, record: JobRecord, part: PartRecord, report: PartReport) -> None:
        number = part_number(report.key)
        if part.agent != report.agent:
            part.agent, part.next_agent, part.began = report.agent, "", self._clock()
            part.agent_name = str(self._scheduler.workers[report.agent].name)
            record.note(f"part {number} runs on {part.agent_name}")
        if report.note:
            record.note(f"part {number} on {part.agent_name}: {report.note}")
        part.status, part.failure, part.error = report.status or part.status, report.failure, report.error
        part.reached = max(part.reached, report.reached)  # what is in the table stays there when the part moves
        record.children_for_others += max(0, report.children_for_others - part.children_for_others)
        part.children_for_others = report.children_for_others

    def _instruct_unknown(self, key: str) -> Instruction:
        """Instruct a part that was started under an earlier scheduler; its job may have been resubmitted since.

        A sync continues until the table belongs to another writer, so that no row waits. An export has no such fence:
        its successor needs the journal.
        """
        record = self._jobs.get(key.rsplit("-", 2)[0])
        if record is None:
            return Instruction.UNKNOWN_JOB
        if not record.state.is_active:
            return Instruction.STOP
        return Instruction.UNKNOWN_JOB if record.job.info.kind == "sync" else Instruction.NOT_YOURS

    def _instruct(self, record: JobRecord, key: str, part: PartRecord) -> Instruction:
        # 1. a job that is stopping, or over, comes before everything else
        if part.over or not record.state.is_active:
            return Instruction.STOP
        # 2. an agent that is leaving, or about to be removed, hands over, if there is anyone to hand over to
        running = {worker.address: worker for worker in self._scheduler.running if worker.address not in self._lost}
        if part.agent not in running:
            is_leaving = self._scheduler.workers[part.agent].status == Status.closing_gracefully
            return Instruction.HAND_OVER if is_leaving or running else Instruction.CONTINUE
        # 3. otherwise a part moves only to even out the load, and not again at once
        return self._even_out(record, key, part, running)

    def _even_out(self, record: JobRecord, key: str, part: PartRecord, running: dict[str, WorkerState]) -> Instruction:
        if self._clock() - part.began < SETTLE_SECONDS:
            return Instruction.CONTINUE
        places = {name: other.next_agent or other.agent for name, other in record.parts.items() if not other.over}
        if better := better_place(part.agent, places, running):
            self._prefer(key, better)
            part.next_agent = better  # so that the next part that reports does not move as well
            record.note(f"part {part_number(key)} moves to {running[better].name}")
            return Instruction.HAND_OVER
        return Instruction.CONTINUE

    def _prefer(self, key: str, agent: str) -> None:
        self._scheduler.set_restrictions({key: agent})
        self._scheduler.tasks[key].loose_restrictions = True

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, stimulus_id: str, **kwargs: Any) -> None:
        """Notice that a part ended or lost its agent, or that no agent can run it; called by the scheduler."""
        job = self._job_of.get(key)
        if job is None:
            return
        record = self._jobs[job]
        part = record.parts[key]
        if part.over:
            return
        later = self._scheduler.loop.add_callback  # Dask forbids changes within a transition
        if finish == "no-worker":  # Dask would wait for the very agent that it preferred, which will not come back
            self._scheduler.set_restrictions({key: None})
            later(self._end_waiting, record)
        elif finish == "memory":
            how = JobState.ENDED if record.state.is_active else JobState.STOPPED
            record.end(part, how)
            record.note(f"part {part_number(key)} {how}")
            # Dask would compute a wanted result again when its agent is lost: a stopped sync would take its table back
            later(self._scheduler.client_releases_keys, [key], NAME)
        elif finish == "erred":
            error = self._scheduler.tasks[key].exception_text or "failed"
            record.end(part, JobState.FAILED, error)
            record.note(f"part {part_number(key)} failed: {error}")
            later(self._end_waiting, record)
        elif start == "processing":  # it was handed over, or its agent is gone
            if part.agent and part.agent not in self._scheduler.workers:
                record.note(f"an agent has left: part {part_number(key)} moves to another one")
            part.leave_agent()

    # --- for agents

    def join(self, agent: AgentInfo) -> Roster:
        """Record that an agent lives, and its maintenance windows."""
        now = self._clock()
        self._agents[agent.name] = _KnownAgent(agent, now)
        self._agents = {name: known for name, known in self._agents.items() if now - known.seen < FORGET_SECONDS}
        windows = {name: known.info.windows for name, known in self._agents.items() if name != agent.name}
        specs = {name: record.job.spec for name, record in self._jobs.items() if record.state.is_active}
        return Roster(windows, specs, tuple(name for name in self._jobs if name not in specs))

    def leave(self, name: str) -> None:
        """Forget an agent."""
        self._agents.pop(name, None)

    def knows(self, worker: str) -> bool:
        """Return whether the worker at an address is connected to this scheduler."""
        return worker in self._scheduler.workers

    async def drain(self, worker: str) -> int:
        """Give a worker nothing new, and return how many parts it still has; they hand over when they report."""
        known = self._scheduler.workers.get(worker)
        if known is None:
            return 0
        if known.status == Status.running:
            await self._scheduler.retire_workers(workers=[worker], close_workers=False, remove=False)
        return sum(task.key in self._job_of for task in known.processing)

    # --- agents that are gone

    async def sweep(self) -> None:
        """Take the parts from agents that are silent, and give up jobs that never came; called periodically."""
        self._give_up_unsubmitted()
        signs = {worker.address: worker.last_seen for worker in self._scheduler.workers.values()}
        silent = self._heartbeats.silent_seconds(signs)
        for worker in list(self._scheduler.workers.values()):
            jobs = {self._job_of[task.key] for task in worker.processing if task.key in self._job_of}
            ttl = self._ttl if jobs else max(self._ttl, IDLE_TTL_SECONDS)
            if silent[worker.address] <= ttl or worker.address in self._lost:
                continue
            for job in jobs:
                self._jobs[job].note(f"{worker.name} was silent for {ttl:g} s")
            await self._remove(worker.address)

    def _give_up_unsubmitted(self) -> None:
        for job, record in self._jobs.items():
            if record.state is JobState.SUBMITTED and self._clock() - record.opened > FORGET_SECONDS:
                self.withdraw(Withdrawal(job, record.job.run, "its client ended too early; start it again"))

    async def _remove(self, worker: str) -> None:
        self._lost.add(worker)
        try:
            await self._scheduler.remove_worker(worker, stimulus_id=f"{NAME}-{worker}")
        finally:
            self._lost.discard(worker)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Learn the name of an agent's worker; called by the scheduler."""
        self._worker_names[worker] = str(scheduler.workers[worker].name)

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: object) -> None:
        """Free the maintenance windows of an agent that is gone; called by the scheduler."""
        self.leave(self._worker_names.pop(worker, ""))  # an agent that lives joins again within a second

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget an agent that ended before it had a worker; called by the scheduler."""
        self._agents = {name: agent for name, agent in self._agents.items() if agent.info.client != client}
