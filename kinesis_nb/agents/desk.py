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

from kinesis_nb.agents.order import Answer
from kinesis_nb.agents.place import better_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Scheduler

NAME = "kinesis_nb"
TTL_SECONDS = 5.0  # an agent that was not heard of for so long has lost its parts; it reports twice a second
LOOK_SECONDS = 0.25
LOG_LINES = 200
FORGET_SECONDS = 30.0  # a job whose parts were not submitted by then never will be; an agent that is silent has left
SETTLE_SECONDS = 5.0  # a part stays so long before it may move again


@dataclass
class PartRecord:
    """What the desk knows of one part of a job: of one task."""

    agent: str = ""  # the address of the worker that reported last
    name: str = ""
    next_agent: str = ""  # the address it is moving to
    status: bytes = b""
    reached: int = 0  # the newest mark up to which everything is in the table
    births: int = 0  # shards that this run of it gave to other parts
    began: float = 0.0
    over: str = ""  # "ended" or "failed"
    error: str = ""
    failure: bytes = b""  # the error itself, pickled

    def describe(self, key: str) -> dict[str, Any]:
        """Return it as what can be sent."""
        return {name: value for name, value in vars(self).items() if name != "began"} | {"key": key}


@dataclass
class JobRecord:
    """One sync or export.

    Attributes
    ----------
    order
        The pickled :class:`~kinesis_nb.agents.order.Order`, for whoever has to submit it again.
    what
        Its kind, stream and place, to be shown.
    mark
        Raised when somebody waits until all parts have caught up.
    births
        Raised when a part has come to the end of a shard whose child is for another part, which should look for it.
    """

    order: bytes
    what: dict[str, str]
    parts: dict[str, PartRecord]
    opened: float
    is_submitted: bool = False
    is_stopping: bool = False
    mark: int = 0
    births: int = 0
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    def parts_of(self, agent: str) -> dict[str, PartRecord]:
        """Return the parts that reported last from an agent and are not over."""
        return {key: part for key, part in self.parts.items() if part.agent == agent and not part.over}

    def note(self, text: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}")

    @property
    def is_over(self) -> bool:
        """Whether no part runs or will run."""
        if not self.is_submitted:
            return time.monotonic() - self.opened > FORGET_SECONDS
        return all(part.over for part in self.parts.values())


class Desk(SchedulerPlugin):
    """The plugin.

    Parameters
    ----------
    ttl
        Seconds after which an agent that is not heard of has lost its parts.
    """

    name, idempotent = NAME, True

    def __init__(self, ttl: float = TTL_SECONDS) -> None:
        self._ttl = ttl

    async def start(self, scheduler: Scheduler) -> None:
        """Begin; called by the scheduler."""
        self._scheduler = scheduler
        self._jobs: dict[str, JobRecord] = {}
        self._job_of: dict[str, str] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        self._lost: set[str] = set()  # workers that are being removed
        handlers: dict[str, Callable[..., Any]] = {
            f"{NAME}_{handler.__name__}": handler
            for handler in (
                *(self.open, self.hold, self.stop, self.mark, self.jobs),
                *(self.report, self.join, self.leave, self.drain),
            )
        }
        scheduler.handlers.update(handlers)
        scheduler.client_desires_keys([], NAME)
        self._look = PeriodicCallback(self._look_for_lost, LOOK_SECONDS * 1000)
        self._look.start()

    async def close(self) -> None:
        """End; called by the scheduler."""
        self._look.stop()

    # --- for clients

    def open(self, job: str, order: bytes, what: dict[str, str], keys: list[str]) -> dict[str, Any]:
        """Register a job, or return the one of that name that runs; ``is_new`` says which."""
        known = self._jobs.get(job)
        if known is not None and not known.is_over:
            return self._describe(job) | {"is_new": False}
        if known is not None:
            self._forget(job)
        self._jobs[job] = record = JobRecord(order, what, {key: PartRecord() for key in keys}, time.monotonic())
        self._job_of |= dict.fromkeys(keys, job)
        record.note(f"submitted, {len(keys)} parts")
        return self._describe(job) | {"is_new": True}

    async def hold(self, job: str) -> bool:
        """Keep the tasks of a job when its client is gone; returns when they are known to the scheduler."""
        record, tasks = self._jobs[job], self._scheduler.tasks
        give_up = time.monotonic() + FORGET_SECONDS
        while any(key not in tasks for key in record.parts):
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.01)
        self._scheduler.client_desires_keys([key for key, part in record.parts.items() if not part.over], NAME)
        record.is_submitted = True
        return True

    def stop(self, job: str) -> None:
        """Tell the parts of a job to commit and end."""
        if (record := self._jobs.get(job)) is not None and not record.is_stopping:
            record.is_stopping = True
            record.note("asked to stop")

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
            "parts": [part.describe(key) | {"away": away.get(part.name, "")} for key, part in record.parts.items()],
            "is_over": record.is_over,
            "is_stopping": record.is_stopping,
            "log": list(record.log),
        }

    def _forget(self, job: str) -> None:
        record = self._jobs.pop(job)
        self._scheduler.client_releases_keys(list(record.parts), NAME)
        for key in record.parts:
            self._job_of.pop(key, None)

    # --- for the parts

    def report(
        self, key: str, agent: str, status: bytes, reached: int, births: int, note: str = "", failure: bytes = b""
    ) -> tuple[str, int, int]:
        """Take the report of a part; answer what it is to do, the mark to reach, and how many shards were born."""
        job, task = self._job_of.get(key), self._scheduler.tasks.get(key)
        if job is None or task is None or task.processing_on is None or task.processing_on.address != agent:
            return Answer.NOT_YOURS, 0, 0
        record, worker = self._jobs[job], self._scheduler.workers[agent]
        part = record.parts[key]
        if part.agent != agent:
            part.agent, part.name, part.next_agent, part.began = agent, str(worker.name), "", time.monotonic()
            part.births = 0
            record.note(f"part {_number(key)} runs on {part.name}")
        if note:
            record.note(f"part {_number(key)} on {part.name}: {note}")
        part.status, part.failure = status or part.status, failure
        part.reached = max(part.reached, reached)  # what is in the table stays there when the part moves
        record.births, part.births = record.births + max(0, births - part.births), births
        task.suspicious = 0  # it ran, so it is not what kills agents; Dask gives up after three otherwise
        return self._decide(record, key, part), record.mark, record.births

    def _decide(self, record: JobRecord, key: str, part: PartRecord) -> Answer:
        if record.is_stopping or any(other.over == "failed" for other in record.parts.values()):
            return Answer.STOP
        running = {worker.address: worker for worker in self._scheduler.running if worker.address not in self._lost}
        if part.agent not in running:
            is_leaving = self._scheduler.workers[part.agent].status == Status.closing_gracefully
            return Answer.HAND_OVER if is_leaving or running else Answer.GO_ON
        if time.monotonic() - part.began < SETTLE_SECONDS:
            return Answer.GO_ON
        places = {name: other.next_agent or other.agent for name, other in record.parts.items() if not other.over}
        if better := better_place(part.agent, places, running):
            self._prefer(key, better)
            part.next_agent = better  # so that the next one that reports does not move as well
            record.note(f"part {_number(key)} moves to {running[better].name}")
            return Answer.HAND_OVER
        return Answer.GO_ON

    def _prefer(self, key: str, agent: str) -> None:
        self._scheduler.set_restrictions({key: agent})
        self._scheduler.tasks[key].loose_restrictions = True

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, stimulus_id: str, **kwargs: Any) -> None:
        """Notice that a part has ended, and how, or that no agent is left to run it; called by the scheduler."""
        job = self._job_of.get(key)
        if job is None:
            return
        record = self._jobs[job]
        part = record.parts[key]
        if finish == "no-worker":  # Dask would wait for the very agent that it preferred, which will not come back
            self._scheduler.set_restrictions({key: None})
        elif finish == "memory":
            part.over = "ended"
            record.note(f"part {_number(key)} ended")
            # Dask would compute a wanted result again when its agent is lost: a stopped sync would take its table back
            self._scheduler.loop.add_callback(self._scheduler.client_releases_keys, [key], NAME)
        elif finish == "erred":
            task = self._scheduler.tasks[key]
            part.over, part.error = "failed", task.exception_text or "failed"
            record.note(f"part {_number(key)} failed: {part.error}")

    # --- for the agents

    def join(self, name: str, windows: list[str], away: str) -> dict[str, Any]:
        """Take note of an agent and its maintenance; return the others, and the orders of all jobs that run."""
        now = time.monotonic()
        self._agents[name] = {"windows": windows, "away": away, "seen": now}
        self._agents = {one: agent for one, agent in self._agents.items() if now - agent["seen"] < FORGET_SECONDS}
        others = {one: agent["windows"] for one, agent in self._agents.items() if one != name}
        jobs = {job: record for job, record in self._jobs.items() if not (record.is_over or record.is_stopping)}
        return {"others": others, "orders": {job: record.order for job, record in jobs.items()}}

    def leave(self, name: str) -> None:
        """Forget an agent."""
        self._agents.pop(name, None)

    async def drain(self, agent: str) -> int:
        """Let an agent run nothing new, and return how many parts it still has; they hand over when they report."""
        worker = self._scheduler.workers.get(agent)
        if worker is None:
            return 0
        if worker.status == Status.running:
            await self._scheduler.retire_workers(workers=[agent], close_workers=False, remove=False)
        held = sum(task.key in self._job_of for task in worker.processing)
        if not held:  # whoever goes on has maybe not reported yet
            for part in (part for record in self._jobs.values() for part in record.parts_of(agent).values()):
                part.agent = ""
        return held

    # --- who is gone

    async def _look_for_lost(self) -> None:
        now = time.time()  # the scheduler's own clock for heartbeats
        for worker in list(self._scheduler.workers.values()):
            parts = [task.key for task in worker.processing if task.key in self._job_of]
            if not parts or now - worker.last_seen <= self._ttl or worker.address in self._lost:
                continue
            for job in {self._job_of[key] for key in parts}:
                self._jobs[job].note(f"{worker.name} was not heard of for {self._ttl:g} s")
            self._lost.add(worker.address)
            try:
                await self._scheduler.remove_worker(worker.address, stimulus_id=f"{NAME}-{now}")
            finally:
                self._lost.discard(worker.address)

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any) -> None:
        """Note which jobs an agent was lost to; called by the scheduler."""
        for record in self._jobs.values():
            numbers = [str(_number(key)) for key in record.parts_of(worker)]
            if numbers:
                record.note(f"an agent has left: parts {', '.join(numbers)} go elsewhere")


def _number(key: str) -> int:
    """Return the number of a part, which ends its key."""
    return int(key.rpartition("-")[2])
