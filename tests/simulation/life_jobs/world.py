"""The world of a sync with one thing more: a scheduler, agents, and notebooks that give them jobs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import distributed
import distributed.utils
from distributed import Status

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.agents import job, job_registry, parts, registry_client
from kinesis_nb.agents import submit as submitting
from kinesis_nb.agents.job import AgentSync
from kinesis_nb.agents.job_registry import JobRegistry
from kinesis_nb.agents.job_spec import SyncSpec, read_spec
from kinesis_nb.agents.protocol import DRAIN, JOIN, KNOWS, LEAVE, AgentInfo, RegistryCall
from kinesis_nb.agents.settings import PortableSettings
from kinesis_nb.agents.spec_store import SpecStore
from kinesis_nb.agents.submit import resubmit, submit
from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.errors import AgentError
from tests.simulation.life.fibers import Time
from tests.simulation.life.world import STREAM, Life, Machine, Process, whole
from tests.simulation.life_jobs.dask import DaskScheduler, DaskWorker, driven

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Generator
    from pathlib import Path

    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.transport import Kinesis

TTL_SECONDS = 5.0
HEARTBEAT_SECONDS, JOIN_SECONDS, ANSWER_SECONDS = 0.5, 1.0, 5.0
REPORT_SECONDS = 0.5  # rather than 0.25: the simulation has other things to do


class Agent(Process):
    """A machine's process that runs parts. What its nanny does is played: one worker after another, as needed."""

    world: JobLife

    def __init__(self, world: JobLife, machine: Machine, pid: int) -> None:
        super().__init__(world, machine, pid)
        self.name = f"agent-{pid}"
        self.specs = SpecStore(None, world.manual.now)
        self.resubmitting: set[str] = set()  # jobs that are on their way to the scheduler
        self.worker: DaskWorker | None = None
        self.cut_until = 0.0  # no way to the scheduler
        self.is_leaving = False

    @property
    def is_cut(self) -> bool:
        """Whether the network keeps it from its scheduler."""
        return self.cut_until > self.world.manual.now()

    def begin(self) -> None:
        """Start what it does all the time."""
        self.world.fibers.spawn(self, "agent", self._serve)
        self.world.fibers.spawn(self, "heartbeat", self._beat)

    def _serve(self) -> None:
        life = self.world
        while not self.is_leaving:
            with suppress(OSError):
                if self.worker is None or not life.ask_registry(self, KNOWS, self.worker.address):
                    self._join_dask()
                roster = life.ask_registry(self, JOIN, AgentInfo(self.name, self.name))
                self.specs.update(roster.specs, roster.over)
                for name, body in self.specs.due({*roster.specs, *roster.over}).items():
                    if name not in self.resubmitting:
                        self.resubmitting.add(name)
                        life.fibers.spawn(self, f"resubmit {name}", partial(self._resubmit, name, body))
            life.fibers.wait(None, JOIN_SECONDS)

    def _join_dask(self) -> None:
        life = self.world
        dask = life.reach(self)
        if any(one.name == self.name for one in dask.workers.values()):
            raise OSError("the scheduler has a worker of this name")
        self.worker = DaskWorker(self, f"tls://{self.name}:{next(life.ports)}", life.scheduler_time())
        dask.add_worker(self.worker)

    def _beat(self) -> None:
        while True:
            self.world.fibers.wait(None, HEARTBEAT_SECONDS)
            if self.worker is not None and not self.is_cut:
                self.worker.last_seen = self.world.scheduler_time()

    def _resubmit(self, name: str, body: bytes) -> None:
        try:
            spec = read_spec(body)
            assert spec is not None
            resubmit(self.world.cluster(self), spec)
            self.world.count("job resubmitted")
        except Exception:  # noqa: BLE001 - as an agent does
            self.specs.postpone(name)
        finally:
            self.resubmitting.discard(name)

    def leave(self) -> None:
        """End as on SIGTERM: hand over, then go; whoever calls it has set `is_leaving`."""
        end = self.world.manual.now() + 20.0
        with suppress(OSError):
            while self.worker and self.world.manual.now() < end:
                if not self.world.ask_registry(self, DRAIN, self.worker.address):
                    break
                self.world.fibers.wait(None, 0.1)
            self.world.ask_registry(self, LEAVE, self.name)
        self.world.fibers.wait(None, 0.5)
        self.kill()

    def kill(self) -> None:
        """End it by force; the scheduler notices that the connection is gone, unless the network is."""
        if self.worker is not None and not self.is_cut:
            self.world.lose(self.worker)
        super().kill()


class SchedulerProcess(Process):
    """What a scheduler runs in."""

    world: JobLife

    def kill(self) -> None:
        """End it by force: all that it knew is gone."""
        self.world.dask = None
        super().kill()


class PlayedCluster:
    """The way to the agents from one process."""

    def __init__(self, life: JobLife, process: Process) -> None:
        self._life, self._process = life, process
        self.client = self

    def check(self) -> list[str]:
        """Return the addresses of the agents."""
        found = sorted(self.workers)
        if not found:
            raise AgentError("no agent is connected", retryable=True)
        return found

    @property
    def workers(self) -> list[str]:
        """The same, of whatever number."""
        with self._told():
            self._life.reach(self._process)
        return sorted(self._life.dask.workers) if self._life.dask else []

    def check_encrypted(self, _parcel: PortableSettings) -> None:
        """Nobody listens here."""

    def check_paths(self, *_paths: object) -> None:
        """All paths are those of one disk."""

    def ask(self, call: RegistryCall[Any, Any], request: Any) -> Any:
        """RegistryCall the job registry."""
        with self._told():
            return self._life.ask_registry(self._process, call, request)

    def submit(self, work: Any, *what: Any, **_: Any) -> Any:
        """Give out a part; or let an agent look at the stream, which the caller does here by itself."""
        if callable(work):
            return _Done(lambda: work(*what))
        with self._told():
            self._life.reach(self._process)
            assert self._life.dask is not None
            (place,) = what
            self._life.dask.submit(work, place, client=str(self._process))
        return _Future(self._life, work.key, str(self._process))

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise AgentError(f"the scheduler did not respond: {error}", retryable=True) from error


class _Done:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work

    def result(self, **_: Any) -> Any:
        return self._work()


class _Future:
    """What keeps a task as long as its client has it."""

    def __init__(self, life: JobLife, key: str, client: str) -> None:
        self._life, self._key, self._client = life, key, client

    def __del__(self) -> None:
        if not self._life.fibers.is_over and self._life.dask is not None:
            self._life.dask.client_releases_keys([self._key], self._client)


class JobLife(Life):
    """One seed."""

    def __init__(self, seed: int, root: Path) -> None:
        super().__init__(seed, root)
        self.scheduler_machine = Machine("host-of-scheduler")
        self.machines.append(self.scheduler_machine)
        self.scheduler_group = SchedulerProcess(self, self.scheduler_machine, 0)
        self.dask: DaskScheduler | None = None
        self.ports = iter(range(1, 10_000))
        self._worker_of: dict[int, DaskWorker] = {}  # by the fiber of a part

    # --- who is there

    def select(self, chooser: random.Random) -> None:
        """Keep everything: the oracle of jobs counts all records."""
        self.selection = EVERYTHING

    def begin_agent(self) -> Agent:
        """Start an agent."""
        self._pids += 1
        machine = self.random.choice(self.machines[:-1])
        agent = Agent(self, machine, self._pids)
        machine.processes[agent.pid] = agent
        agent.begin()
        self.note(f"{agent.name} begins")
        return agent

    @property
    def agents(self) -> list[Agent]:
        """Those that live."""
        return [one for one in self.processes if isinstance(one, Agent)]

    def begin_scheduler(self) -> None:
        """Start a scheduler that knows nothing."""
        self._pids += 1
        self.scheduler_group = group = SchedulerProcess(self, self.scheduler_machine, self._pids)
        self.scheduler_machine.processes[group.pid] = group
        self.dask = DaskScheduler(self, JobRegistry(TTL_SECONDS, self.manual.now))
        self.note("a scheduler begins")

    def scheduler_time(self) -> float:
        """Return what the clock on the wall of the scheduler's machine says."""
        return self.manual.now() + self.scheduler_machine.offset

    def cluster(self, process: Process) -> Any:
        """Return the way to the agents of a process."""
        return PlayedCluster(self, process)

    def submit(self, process: Process, spec: SyncSpec) -> AgentSync:
        """Do what `AgentRunner.sync` does."""
        cluster = self.cluster(process)
        submit(cluster, spec)
        return AgentSync(cluster, spec, process.storage())

    def spec(self, start: StartingPosition, interval: float) -> SyncSpec:
        """Return the spec of a sync into the table of this world."""
        return SyncSpec(
            PortableSettings(SourceConfig(), {}),
            connect,
            STREAM,
            str(self.place),
            start,
            interval,
            "warn",
            selection=self.selection,
        )

    # --- the way to the scheduler

    def reach(self, process: Process) -> DaskScheduler:
        """Let a request get to the scheduler, or raise OSError."""
        self.fibers.wait(None, self.random.uniform(0.0, 0.02))
        if isinstance(process, Agent) and process.is_cut:
            self.fibers.wait(None, ANSWER_SECONDS)
            raise OSError("no response")
        if self.scheduler_group.frozen_until > self.manual.now():
            self.fibers.wait(lambda: self.scheduler_group.frozen_until <= self.manual.now(), ANSWER_SECONDS)
        if self.dask is None or self.scheduler_group.frozen_until > self.manual.now():
            raise OSError("no scheduler responds")
        return self.dask

    def call_registry(self, process: Process, handler: str, message: bytes) -> bytes:
        """RegistryCall a handler of the job registry; the response may get lost."""
        response: bytes = driven(self.reach(process).handlers[handler](message=message))
        if isinstance(process, Agent) and (process.is_cut or self.dask is None):
            raise OSError("the response is lost")
        return response

    def ask_registry(self, process: Process, call: RegistryCall[Any, Any], request: Any) -> Any:
        """RegistryCall the job registry."""
        return driven(call.send(_Connection(self, process), request))

    def lose(self, lost: DaskWorker) -> None:
        """Let the scheduler notice that the connection to a worker is gone."""

        def notice() -> None:
            self.fibers.wait(None, self.random.uniform(0.0, 0.5))
            if self.dask is not None:
                driven(self.dask.remove_worker(lost.address, stimulus_id="connection lost"))

        if self.dask is not None:
            self.fibers.spawn(self.scheduler_group, "connection lost", notice)

    def close_worker(self, lost: DaskWorker) -> None:
        """Notify a worker that its scheduler has removed it, if the network lets it."""
        if not lost.agent.is_cut:
            lost.status = Status.closing

    def is_heard(self, worker: DaskWorker, scheduler: DaskScheduler) -> bool:
        """Whether a scheduler hears what became of the tasks of a worker."""
        return self.dask is scheduler and scheduler.workers.get(worker.address) is worker and not worker.agent.is_cut

    def run_on(self, where: DaskWorker, work: Callable[[], None]) -> None:
        """Run a task in the process of an agent."""

        def run() -> None:
            self.fibers.wait(None, self.random.uniform(0.0, 0.1))
            work()

        fiber = self.fibers.spawn(where.agent, "part", run)
        self._worker_of[id(fiber)] = where

    # --- the package on this world

    @contextmanager
    def installed(self) -> Generator[None]:
        """Let the package run on the fibers, the clocks, the disk and the scheduler of this world."""
        spent = Time(self.fibers, self._wall_clock)
        with super().installed(), ExitStack() as stack:

            def replace(*what: Any) -> None:
                stack.enter_context(patch.object(*what))

            for module in (job, submitting, parts, registry_client):
                replace(module, "time", spent)
            replace(parts, "SystemClock", lambda: self.running.clock)
            replace(registry_client, "REPORT_SECONDS", REPORT_SECONDS)
            replace(parts, "_storage", lambda _spec, _kinesis: self.running.storage())
            replace(job_registry, "PeriodicCallback", lambda call, millis: _Periodic(self, call, millis / 1000))
            replace(job_registry, "asyncio", _Sleeping(self))
            replace(distributed, "secede", lambda: None)
            replace(distributed, "get_worker", lambda: self._worker_of[id(self.fibers.current)])
            replace(distributed.utils, "sync", lambda _loop, call, *what, callback_timeout: driven(call(*what)))
            _Here.life = self
            yield


class _Here:
    life: JobLife


def connect(_config: SourceConfig) -> Kinesis:
    """Return the stream as the process that runs reaches it; it is named in specs, and so pickled."""
    return whole(_Here.life.running.kinesis)


class _Connection:
    """A process's connection to the scheduler, as far as calls of the job registry use it."""

    def __init__(self, life: JobLife, process: Process) -> None:
        self._life, self._process = life, process

    def __getattr__(self, handler: str) -> Callable[..., Any]:
        async def call(message: bytes) -> bytes:
            return self._life.call_registry(self._process, handler, message)

        return call


class _Sleeping:
    """What the job registry needs of `asyncio`."""

    def __init__(self, life: JobLife) -> None:
        self._life = life

    async def sleep(self, seconds: float) -> None:
        self._life.fibers.wait(None, seconds)


class _Periodic:
    """What the job registry needs of tornado."""

    def __init__(self, life: JobLife, call: Callable[[], Any], seconds: float) -> None:
        self._life, self._call, self._seconds = life, call, seconds

    def start(self) -> None:
        self._life.fibers.spawn(self._life.scheduler_group, "look", self._run)

    def _run(self) -> None:
        while True:
            self._life.fibers.wait(None, self._seconds)
            driven(self._call())
