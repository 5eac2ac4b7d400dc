"""The command of an agent: a Dask worker with its nanny, kept running, taken away only after it handed over its parts.

What may end a worker - a maintenance window, its lifetime, a signal - first makes it hand over. A crash is followed by
a new worker. When the scheduler is gone, the worker goes on without it; when it is back without its memory, the agent
gives it the jobs again, and a new worker takes their parts over.
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
from typing import TYPE_CHECKING, Any

from kinesis_nb.access.config import is_loopback
from kinesis_nb.agents import certificates
from kinesis_nb.agents.maintenance import MaintenanceWindow, check_no_overlap, next_window
from kinesis_nb.agents.preload import METRICS
from kinesis_nb.agents.spec_store import SpecStore, read_spec
from kinesis_nb.errors import AgentError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Collection

    from distributed import Client, Nanny
    from distributed.security import Security

    from kinesis_nb.agents.spec_store import JobSpec

RENEW_SECONDS = 1.0
RETRY_SECONDS = 1.0
CONNECT_SECONDS = 30.0
RECONNECT_SECONDS = 5.0  # Dask waits longer and longer between its own tries
DRAIN_SECONDS = 20.0  # then it ends all the same: what is not committed is read again by another agent
NEVER_SECONDS = 3650 * 86_400.0  # Dask's ttl of workers goes by the clock on the wall; the desk has one that does not
WINDOW_SECONDS = 30.0  # between looks at the clock on the wall, which may step, while there is maintenance
THREADS = 2  # for short questions; parts of jobs take none of them

log = logging.getLogger("kinesis_nb.agent")


class Why(StrEnum):
    """Why a worker ends."""

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
        A worker is replaced after the one, more or less up to the other.
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
    """Return what SIGTERM and SIGINT set."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


async def serve(options: AgentOptions, asked: asyncio.Event | None = None) -> None:
    """Run an agent until it is asked to end, by SIGTERM or SIGINT if nothing else is given.

    Raises
    ------
    ConfigError
        When its maintenance overlaps that of another agent.
    AgentError
        When no scheduler answers at the start; later it is waited for.
    """
    asked = asked or asked_to_end()
    agent = _Agent(options, asked)
    try:
        while not asked.is_set():
            await agent.wait_for_end_of_window()
            if asked.is_set():
                return
            try:
                why = await agent.serve_once()
                log.warning("agent %s: %s", options.name, why)
            except KinesisError:
                raise
            except Exception as error:  # whatever Dask has to say of a scheduler that comes and goes
                if not agent.has_served:
                    msg = f"no scheduler answers at {options.scheduler}"
                    raise AgentError(
                        msg, hint="start one with `kinesis-nb scheduler`, or check --scheduler and the certificates"
                    ) from error
                log.warning("agent %s looks for its scheduler: %s %s", options.name, type(error).__name__, error)
                why = Why.LOST
            if why is Why.LOST:
                await _wait(asked, RETRY_SECONDS)
    finally:
        await agent.close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def desk(client: Client) -> Any:
    """Return the way to the desk in the scheduler."""
    return client.scheduler


class _Agent:
    """One agent, over the lives of its workers."""

    def __init__(self, options: AgentOptions, asked: asyncio.Event) -> None:
        self._options, self._asked = options, asked
        self._orders = SpecStore(certificates.orders(options.scheduler), time.monotonic)
        self._giving: dict[str, asyncio.Task[None]] = {}  # jobs that are on their way to the scheduler
        self._nanny: Nanny | None = None
        self._left: list[Nanny] = []  # of workers that go on without their scheduler, until their parts are over
        self.has_served = False  # so there is a scheduler, which is waited for when it is away

    async def serve_once(self) -> Why:
        """Serve with one worker, until there is a reason to end it."""
        from distributed import Client

        options = self._options
        address, security = (
            (options.scheduler, options.security) if options.security else certificates.way(options.scheduler)
        )
        timeout = CONNECT_SECONDS if self._nanny is None else RECONNECT_SECONDS
        async with Client(
            address, asynchronous=True, security=security, timeout=timeout, set_as_default=False
        ) as client:
            await self._prepare(client)
            nanny = await self._serving(client, address, security)
            log.warning("agent %s serves %s", options.name, address)
            self.has_served = True
            why = await self._watch(client, nanny, address, security)
            if why is not Why.LOST:
                with suppress(OSError, TimeoutError):
                    await asyncio.wait_for(self._drain(client, nanny), DRAIN_SECONDS)
                await self.close()
            return why

    async def _serving(self, client: Client, address: str, security: Security | None) -> Nanny:
        """Return what runs a worker of this scheduler: the one that there is, if the scheduler still knows it."""
        from distributed import Status

        nanny = self._nanny
        if nanny is not None and nanny.status == Status.running and nanny.worker_address:
            if await desk(client).kinesis_nb_serves(agent=nanny.worker_address):
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
        # Dask gives a worker four fifths of the time
        await asyncio.gather(*(nanny.close(timeout=LEAVE_SECONDS / 0.75, reason=LEAVING) for nanny in alive))

    async def _prepare(self, client: Client) -> None:
        from kinesis_nb.agents.job_registry import JobRegistry

        await client.register_plugin(JobRegistry(self._options.ttl))
        others = (await self._join(client))["others"]
        theirs = [(name, MaintenanceWindow.parse(text)) for name, texts in others.items() for text in texts]
        try:
            check_no_overlap(self._options.name, self._options.windows, theirs, datetime.now(UTC))
        except KinesisError:
            await desk(client).kinesis_nb_leave(name=self._options.name)
            raise

    async def _join(self, client: Client) -> Any:
        away = next_window(self._options.windows, datetime.now(UTC))
        return await desk(client).kinesis_nb_join(
            client=client.id,
            name=self._options.name,
            windows=[str(window) for window in self._options.windows],
            away=f"{away[0]:%Y-%m-%d %H:%M} UTC" if away else "",
        )

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
            # a worker runs whatever it is sent: it listens where its scheduler is, not on every network of the machine
            host=get_ip(get_address_host(address)),
            name=options.name,
            security=security,
            memory_limit="0",  # none: a paused worker would hold up its parts; their memory is bounded (DESIGN.md)
            preload=preload,
            env=metrics,
            worker_class=AutonomousWorker,
            dashboard_address="127.0.0.1:0",  # plain HTTP
        )

    def _give_back(self, known: Collection[str], address: str, security: Security | None) -> None:
        """Submit again what ran before and the scheduler does not know, each job for itself."""
        for job, body in self._orders.due(known).items():
            if job not in self._giving:
                self._giving[job] = asyncio.create_task(self._give(job, body, address, security))

    async def _give(self, job: str, body: bytes, address: str, security: Security | None) -> None:
        """Give a job back, or try again later; one that cannot be read is told in the log, and forgotten."""
        from kinesis_nb.agents.cluster import Cluster
        from kinesis_nb.agents.job import give_back

        def give(ordered: JobSpec) -> None:
            from distributed import Client

            with Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False) as blocking:
                give_back(Cluster(blocking), ordered, body)

        try:
            if (ordered := read_spec(body)) is None:
                log.warning("%s was ordered with another version of kinesis_nb: start it again", job)
                self._orders.forget(job)
                return
            await asyncio.to_thread(give, ordered)
            log.warning("agent %s gave %s back", self._options.name, job)
        except Exception as error:  # noqa: BLE001 - whatever ails this job, the others come back
            log.warning("agent %s cannot give %s back: %s", self._options.name, job, error)
            self._orders.postpone(job)
        finally:
            del self._giving[job]

    async def _watch(self, client: Client, nanny: Nanny, address: str, security: Security | None) -> Why:
        """Wait for a reason to end the worker, or to look for the scheduler."""
        from distributed import Status

        ends = self._ends()
        while not self._asked.is_set():
            if nanny.status != Status.running or client.status != "running":
                return Why.LOST
            now = datetime.now(UTC)
            window = next_window(self._options.windows, now)
            if window and window[0] <= now:
                return Why.MAINTENANCE
            if ends is not None and time.monotonic() >= ends:
                return Why.LIFETIME
            try:
                told = await asyncio.wait_for(self._join(client), CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError):  # tornado's word for a TLS connection that breaks off
                return Why.LOST
            self._orders.heard(told["orders"], told["over"])
            self._give_back({*told["orders"], *told["over"]}, address, security)
            await _wait(self._asked, RENEW_SECONDS)
        return Why.ASKED

    def _ends(self) -> float | None:
        if self._options.lifetime is None:
            return None
        chance = random.SystemRandom().uniform(-1, 1)  # so that agents do not end together
        return time.monotonic() + (self._options.lifetime + chance * self._options.stagger).total_seconds()

    async def _drain(self, client: Client, nanny: Nanny) -> None:
        while nanny.worker_address and await desk(client).kinesis_nb_drain(agent=nanny.worker_address):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await desk(client).kinesis_nb_leave(name=self._options.name)

    async def wait_for_end_of_window(self) -> None:
        """Run nothing while there is maintenance."""
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
    """Run a scheduler, and some agents next to it, until SIGTERM or SIGINT.

    On loopback it has certificates of its own, unless others are given: other users of the machine are there too.
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
        desk = JobRegistry(options.ttl)
        await desk.start(scheduler)
        scheduler.add_plugin(desk, name=desk.name)
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
