"""The command ``kinesis-nb agent``: a Dask worker with its nanny, kept running, and replaced only after it handed over.

What can end a worker - a maintenance window, its lifetime, a signal - first makes it hand over its parts. After a crash
a new worker starts. When the scheduler is gone, the worker continues without it; when a scheduler is back that has lost
its memory, the agent resubmits the jobs, and a new worker takes over their parts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.access.config import is_loopback
from kinesis_nb.agents import certificates
from kinesis_nb.agents.job_spec import read_spec
from kinesis_nb.agents.maintenance import MaintenanceWindow, check_no_overlap, next_window
from kinesis_nb.agents.preload import METRICS
from kinesis_nb.agents.protocol import DRAIN, JOIN, KNOWS, LEAVE, AgentInfo, RegistryCall, Roster
from kinesis_nb.agents.spec_store import SpecStore, spec_folder
from kinesis_nb.errors import AgentError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Collection

    from distributed import Client, Nanny
    from distributed.security import Security

    from kinesis_nb.agents.job_spec import JobSpec

Q = TypeVar("Q")
R = TypeVar("R")

JOIN_SECONDS = 1.0  # between two calls that say that the agent lives
RETRY_SECONDS = 1.0
CONNECT_SECONDS = 30.0
RECONNECT_SECONDS = 5.0  # Dask waits longer and longer between its own attempts
DRAIN_SECONDS = 20.0  # then the worker ends anyway: another agent reads again what is not committed
NEVER_SECONDS = 3650 * 86_400.0  # for Dask's own ttl of workers, which goes by the wall clock; the registry's does not
WINDOW_SECONDS = 30.0  # between readings of the wall clock, which may step, during maintenance
THREADS = 2  # for short tasks; parts of jobs leave Dask's thread pool

log = logging.getLogger("kinesis_nb.agent")


class EndReason(StrEnum):
    """EndReason a worker ends."""

    ASKED = "asked to end"
    MAINTENANCE = "maintenance"
    LIFETIME = "its lifetime is over"
    LOST = "the worker or the scheduler is gone"


@dataclass(frozen=True)
class AgentOptions:
    """What an agent is started with.

    Attributes
    ----------
    lifetime, stagger
        A worker is replaced after its lifetime, plus or minus a random part of the stagger.
    ttl
        Seconds of silence after which an agent has lost its parts, where this agent installs the job registry.
    """

    scheduler: str
    name: str
    windows: tuple[MaintenanceWindow, ...] = ()
    lifetime: timedelta | None = None
    stagger: timedelta = timedelta(0)
    security: Security | None = None
    ttl: float = 5.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


def asked_to_end() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


async def serve(options: AgentOptions, asked: asyncio.Event | None = None) -> None:
    """Run an agent until it is asked to end: by an event, or by SIGTERM or SIGINT if none is given.

    Raises
    ------
    ConfigError
        When its maintenance overlaps that of another agent.
    AgentError
        When no scheduler responds at the start; a scheduler that is lost later is waited for.
    """
    asked = asked or asked_to_end()
    agent = _Agent(options, asked)
    try:
        while not asked.is_set():
            await agent.wait_for_end_of_window()
            if asked.is_set():
                return
            try:
                reason = await agent.serve_once()
                log.warning("agent %s: %s", options.name, reason)
            except KinesisError:
                raise
            except Exception as error:  # Dask raises many kinds when a scheduler comes and goes
                if not agent.has_served:
                    msg = f"no scheduler responds at {options.scheduler}"
                    raise AgentError(
                        msg, hint="start one with `kinesis-nb scheduler`, or check --scheduler and the certificates"
                    ) from error
                log.warning("agent %s waits for its scheduler: %s %s", options.name, type(error).__name__, error)
                reason = EndReason.LOST
            if reason is EndReason.LOST:
                await _wait(asked, RETRY_SECONDS)
    finally:
        await agent.close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _ask(client: Client, call: RegistryCall[Q, R], request: Q) -> R:
    """RegistryCall the job registry."""
    return await call.send(client.scheduler, request)


class _Agent:
    """One agent, over the lives of its workers."""

    def __init__(self, options: AgentOptions, asked: asyncio.Event) -> None:
        self._options, self._asked = options, asked
        self._specs = SpecStore(spec_folder(options.scheduler), time.monotonic)
        self._resubmitting: dict[str, asyncio.Task[None]] = {}  # by the name of the job
        self._nanny: Nanny | None = None
        self._left: list[Nanny] = []  # of workers that continue without their scheduler, until their parts are over
        self.has_served = False  # then a scheduler existed, and is waited for when it is away

    async def serve_once(self) -> EndReason:
        """Serve with one worker, until there is a reason to end it."""
        from distributed import Client

        options = self._options
        address, security = (
            (options.scheduler, options.security) if options.security else certificates.resolve(options.scheduler)
        )
        timeout = CONNECT_SECONDS if self._nanny is None else RECONNECT_SECONDS
        async with Client(
            address, asynchronous=True, security=security, timeout=timeout, set_as_default=False
        ) as client:
            await self._prepare(client)
            nanny = await self._serving(client, address, security)
            log.warning("agent %s serves %s", options.name, address)
            self.has_served = True
            reason = await self._watch(client, nanny, address, security)
            if reason is not EndReason.LOST:
                with suppress(OSError, TimeoutError):
                    await asyncio.wait_for(self._drain(client, nanny), DRAIN_SECONDS)
                await self.close()
            return reason

    async def _serving(self, client: Client, address: str, security: Security | None) -> Nanny:
        """Return the nanny of a worker of this scheduler: the present one, if the scheduler knows its worker."""
        from distributed import Status

        nanny = self._nanny
        if nanny is not None and nanny.status == Status.running and nanny.worker_address:
            if await _ask(client, KNOWS, nanny.worker_address):
                return nanny
            nanny.close_gracefully("its scheduler is gone")
        left = [*self._left, *([nanny] if nanny is not None else [])]
        self._left = [one for one in left if one.status not in (Status.closed, Status.failed)]
        self._nanny = new = self._new_nanny(address, security)
        await new
        return new

    async def close(self) -> None:
        """Let all workers commit and end."""
        from distributed import Status

        from kinesis_nb.agents.dask_worker import LEAVE_SECONDS, LEAVING

        nannies = [nanny for nanny in (self._nanny, *self._left) if nanny is not None]
        self._nanny, self._left = None, []
        alive = [nanny for nanny in nannies if nanny.status not in (Status.closed, Status.failed)]
        # Dask allows the worker four fifths of this time
        await asyncio.gather(*(nanny.close(timeout=LEAVE_SECONDS / 0.75, reason=LEAVING) for nanny in alive))

    async def _prepare(self, client: Client) -> None:
        from kinesis_nb.agents.job_registry import JobRegistry

        await client.register_plugin(JobRegistry(self._options.ttl))
        others = (await self._join(client)).windows
        theirs = [(name, MaintenanceWindow.parse(text)) for name, texts in others.items() for text in texts]
        try:
            check_no_overlap(self._options.name, self._options.windows, theirs, datetime.now(UTC))
        except KinesisError:
            await _ask(client, LEAVE, self._options.name)
            raise

    async def _join(self, client: Client) -> Roster:
        windows = self._options.windows
        following = next_window(windows, datetime.now(UTC))
        maintenance = f"{following[0]:%Y-%m-%d %H:%M} UTC" if following else ""
        return await _ask(client, JOIN, AgentInfo(self._options.name, client.id, tuple(map(str, windows)), maintenance))

    def _new_nanny(self, address: str, security: Security | None) -> Nanny:
        from distributed import Nanny
        from distributed.comm.addressing import get_address_host
        from distributed.utils import get_ip

        from kinesis_nb.agents.dask_worker import AutonomousWorker

        options = self._options
        preload = ["kinesis_nb.agents.preload", "kinesis_nb.service.client"]
        is_measured = options.metrics_port is not None
        metrics = {METRICS: f"{options.metrics_port} {options.metrics_host}"} if is_measured else {}
        return Nanny(
            address,
            nthreads=THREADS,
            # a worker runs whatever it is sent: it listens only on the network to its scheduler
            host=get_ip(get_address_host(address)),
            name=options.name,
            security=security,
            memory_limit="0",  # none: Dask would pause the worker; the memory of parts is bounded anyway (DESIGN.md)
            preload=preload,
            env=metrics,
            worker_class=AutonomousWorker,
            dashboard_address="127.0.0.1:0",  # plain HTTP
        )

    def _resubmit_lost(self, known: Collection[str], address: str, security: Security | None) -> None:
        """Resubmit the jobs that the scheduler does not know, each independently of the others."""
        for job, body in self._specs.due(known).items():
            if job not in self._resubmitting:
                self._resubmitting[job] = asyncio.create_task(self._resubmit(job, body, address, security))

    async def _resubmit(self, job: str, body: bytes, address: str, security: Security | None) -> None:
        """Resubmit a job, or try again later; one whose spec cannot be read is logged and forgotten."""
        from kinesis_nb.agents.cluster import Cluster
        from kinesis_nb.agents.submit import resubmit

        def submit(spec: JobSpec) -> None:
            from distributed import Client

            with Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False) as blocking:
                resubmit(Cluster(blocking), spec)

        try:
            if (spec := read_spec(body)) is None:
                log.warning("%s was submitted with another version of kinesis_nb: start it again", job)
                self._specs.forget(job)
                return
            await asyncio.to_thread(submit, spec)
            log.warning("agent %s resubmitted %s", self._options.name, job)
        except Exception as error:  # noqa: BLE001 - whatever ails this job, the others must come back
            log.warning("agent %s cannot resubmit %s: %s", self._options.name, job, error)
            self._specs.postpone(job)
        finally:
            del self._resubmitting[job]

    async def _watch(self, client: Client, nanny: Nanny, address: str, security: Security | None) -> EndReason:
        """Wait for a reason to end the worker, or for the loss of the scheduler."""
        from distributed import Status

        ends = self._ends()
        while not self._asked.is_set():
            if nanny.status != Status.running or client.status != "running":
                return EndReason.LOST
            now = datetime.now(UTC)
            window = next_window(self._options.windows, now)
            if window and window[0] <= now:
                return EndReason.MAINTENANCE
            if ends is not None and time.monotonic() >= ends:
                return EndReason.LIFETIME
            try:
                roster = await asyncio.wait_for(self._join(client), CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError):  # the last is what tornado raises for a broken TLS connection
                return EndReason.LOST
            self._specs.update(roster.specs, roster.over)
            self._resubmit_lost({*roster.specs, *roster.over}, address, security)
            await _wait(self._asked, JOIN_SECONDS)
        return EndReason.ASKED

    def _ends(self) -> float | None:
        if self._options.lifetime is None:
            return None
        chance = random.SystemRandom().uniform(-1, 1)  # so that agents started together do not end together
        return time.monotonic() + (self._options.lifetime + chance * self._options.stagger).total_seconds()

    async def _drain(self, client: Client, nanny: Nanny) -> None:
        while nanny.worker_address and await _ask(client, DRAIN, nanny.worker_address):  # noqa: ASYNC110 - parts are threads
            await asyncio.sleep(0.1)
        await _ask(client, LEAVE, self._options.name)

    async def wait_for_end_of_window(self) -> None:
        """Run nothing during maintenance."""
        while not self._asked.is_set():
            now = datetime.now(UTC)
            window = next_window(self._options.windows, now)
            if not window or window[0] > now:
                return
            await self.close()
            await _wait(self._asked, min(WINDOW_SECONDS, (window[1] - now).total_seconds()))


@dataclass(frozen=True)
class SchedulerOptions:
    """What a scheduler is started with."""

    host: str
    port: int
    ttl: float
    security: Security | None = None


async def serve_scheduler(options: SchedulerOptions, agents: int = 0) -> None:
    """Run a scheduler, and a number of agents next to it, until SIGTERM or SIGINT.

    On loopback it makes its own certificates unless others are given: other users of the machine can listen there.
    """
    from distributed import Scheduler

    from kinesis_nb.agents.job_registry import JobRegistry

    asked = asked_to_end()
    own = certificates.OwnCertificates(options.port) if options.security is None and is_loopback(options.host) else None
    security = own.security if own else options.security
    async with Scheduler(
        host=options.host,
        port=options.port,
        security=security,
        protocol="tls://" if security else "tcp://",
        worker_ttl=NEVER_SECONDS,
        dashboard_address="127.0.0.1:0",
    ) as scheduler:
        registry = JobRegistry(options.ttl)
        await registry.start(scheduler)
        scheduler.add_plugin(registry, name=registry.name)
        if own:
            own.keep(scheduler.port)
        else:
            certificates.forget_certificates(scheduler.port)
        place = scheduler.address
        log.warning("scheduler at %s: kn.connect(agents=%r)", place, place)
        log.warning("dashboard at http://127.0.0.1:%s/status", scheduler.http_server.port)
        names = [f"agent-{number}" for number in range(1, agents + 1)]
        running = [serve(AgentOptions(place, name, security=security, ttl=options.ttl), asked) for name in names]
        await asyncio.gather(asked.wait(), *running)
