"""Dask as far as the job registry and the parts use it: tasks that move between workers, and the hooks of a plugin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed import Reschedule, Status

from kinesis_nb.agents import parts
from kinesis_nb.agents.protocol import REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from kinesis_nb.agents.job_registry import JobRegistry
    from kinesis_nb.agents.job_spec import PartTask
    from tests.simulation.life_jobs.world import Agent, JobLife

ALLOWED_FAILURES = 3  # workers that may die under a task; more, and Dask gives it up


def driven(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing but fibers, and return what it returns."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for an event loop")


@dataclass(eq=False)
class DaskTask:
    """One task."""

    key: str
    work: PartTask
    wanted_by: set[str]
    restriction: str | None = None
    loose_restrictions: bool = True
    state: str = "released"
    processing_on: DaskWorker | None = None
    has_result: DaskWorker | None = None
    suspicious: int = 0
    exception_text: str = ""


@dataclass(eq=False)
class DaskWorker:
    """One life of a worker, as both sides see it."""

    agent: Agent
    address: str
    last_seen: float
    status: Status = Status.running
    processing: list[DaskTask] = field(default_factory=list)
    loop: object = None

    @property
    def name(self) -> str:
        """That of its agent."""
        return self.agent.name

    @property
    def scheduler(self) -> DaskWorker:
        """The way to the scheduler that is there now."""
        return self

    async def kinesis_nb_report(self, message: bytes) -> bytes:
        """Report to the job registry."""
        return self.agent.world.call_registry(self.agent, REPORT.handler, message)


class DaskScheduler:
    """One life of a scheduler."""

    def __init__(self, life: JobLife, registry: JobRegistry) -> None:
        self.life, self.registry = life, registry
        self.tasks: dict[str, DaskTask] = {}
        self.workers: dict[str, DaskWorker] = {}
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.loop = self
        driven(registry.start(self))  # type: ignore[arg-type]

    @property
    def running(self) -> list[DaskWorker]:
        """The workers that get new tasks."""
        return [worker for worker in self.workers.values() if worker.status == Status.running]

    def add_callback(self, call: Callable[..., object], *what: Any) -> None:
        """RegistryCall something later."""
        self.life.fibers.spawn(self.life.scheduler_group, "callback", lambda: call(*what))

    # --- clients

    def submit(self, work: PartTask, place: str, client: str) -> None:
        """Take a task, for one worker if that is there."""
        self.tasks[work.key] = task = DaskTask(work.key, work, {client}, place)
        self._begin(task)

    def client_desires_keys(self, keys: Collection[str], client: str) -> None:
        """Keep tasks for a client."""
        for key in keys:
            self.tasks[key].wanted_by.add(client)

    def client_releases_keys(self, keys: Collection[str], client: str) -> None:
        """Forget those that no client wants: what runs of them is not stopped."""
        for key in keys:
            if (task := self.tasks.get(key)) is None:
                continue
            task.wanted_by.discard(client)
            if not task.wanted_by:
                self._release(task, "released")
                del self.tasks[key]

    def set_restrictions(self, places: Mapping[str, str | None]) -> None:
        """Choose the worker of tasks; strictly, unless they are loosened afterwards."""
        for key, place in places.items():
            if key in self.tasks:
                self.tasks[key].restriction, self.tasks[key].loose_restrictions = place, False

    # --- workers

    def add_worker(self, worker: DaskWorker) -> None:
        """Let a worker join."""
        self.workers[worker.address] = worker
        self.registry.add_worker(self, worker.address)  # type: ignore[arg-type]
        for task in list(self.tasks.values()):
            if task.state == "no-worker" and task.restriction in (None, worker.address):
                self._begin(task)

    async def remove_worker(self, address: str, *, stimulus_id: str) -> None:
        """Let one go: what it did goes elsewhere."""
        if (worker := self.workers.pop(address, None)) is None:
            return
        self.life.close_worker(worker)
        lost = [*worker.processing, *(task for task in self.tasks.values() if task.has_result is worker)]
        for task in lost:
            task.suspicious += task.processing_on is worker
            task.has_result = None
            self._release(task, "released")
        for task in lost:
            if task.suspicious > ALLOWED_FAILURES:
                task.exception_text = "KilledWorker"
                self._go(task, "erred")
            elif task.wanted_by:
                self._begin(task)
        self.registry.remove_worker(self, address, stimulus_id=stimulus_id)  # type: ignore[arg-type]

    async def retire_workers(self, *, workers: list[str], **_: Any) -> None:
        """Give workers nothing more."""
        for address in workers:
            self.workers[address].status = Status.closing_gracefully

    # --- tasks

    def _begin(self, task: DaskTask) -> None:
        able = self.running
        preferred = [worker for worker in able if worker.address == task.restriction]
        if not able or (task.restriction and not task.loose_restrictions and not preferred):
            self._go(task, "no-worker")
            return
        worker = (preferred or sorted(able, key=lambda one: len(one.processing)))[0]
        task.processing_on = worker
        worker.processing.append(task)
        self._go(task, "processing")
        self.life.run_on(worker, lambda: self._run(task, worker))

    def _run(self, task: DaskTask, worker: DaskWorker) -> None:
        try:
            parts.run(task.work)
        except Reschedule:
            self._came(task, worker, "released")
        except Exception as error:  # noqa: BLE001 - as Dask does
            task.exception_text = f"{type(error).__name__}({error})"
            self._came(task, worker, "erred")
        else:
            self._came(task, worker, "memory")

    def _came(self, task: DaskTask, worker: DaskWorker, state: str) -> None:
        """Take in what became of a task, if that still counts."""
        if not self.life.is_heard(worker, self) or task.processing_on is not worker or task.key not in self.tasks:
            return
        if state == "released":
            self._release(task, state)
            self._begin(task)
            return
        task.has_result = worker if state == "memory" else None
        self._release(task, state)

    def _release(self, task: DaskTask, state: str) -> None:
        if task.processing_on is not None:
            task.processing_on.processing.remove(task)
            task.processing_on = None
        self._go(task, state)

    def _go(self, task: DaskTask, state: str) -> None:
        start, task.state = task.state, state
        if start != state:
            self.registry.transition(task.key, start, state, stimulus_id="played")
