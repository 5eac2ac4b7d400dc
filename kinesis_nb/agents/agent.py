"""The command of an agent: a Dask worker with its nanny, kept running, taken away only after it handed over its parts.

What may end a worker - a maintenance window, its lifetime, a signal - first makes it hand over. What ends it without
asking - a scheduler that is gone, a crash - is followed by a new worker; and when the scheduler comes back without its
memory, the agent gives it the jobs again.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kinesis_nb.agents.warm import METRICS
from kinesis_nb.agents.windows import Window, check_apart, next_window
from kinesis_nb.errors import AgentError, KinesisError

if TYPE_CHECKING:
    from distributed import Client, Nanny
    from distributed.security import Security

RENEW_SECONDS = 1.0
RETRY_SECONDS = 1.0
CONNECT_SECONDS = 30.0
DRAIN_SECONDS = 20.0  # then it ends all the same: what is not committed is read again by another agent
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
    windows: tuple[Window, ...] = ()
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
    is_first = True
    while not asked.is_set():
        await agent.wait_for_end_of_window()
        if asked.is_set():
            return
        try:
            why = await agent.serve_once()
            log.warning("agent %s: %s", options.name, why)
        except (OSError, TimeoutError) as error:
            if is_first:
                msg = f"no scheduler answers at {options.scheduler}"
                raise AgentError(
                    msg, hint="start one with `kinesis-nb scheduler`, or check --scheduler and the certificates"
                ) from error
            why = Why.LOST
        is_first = False
        if why is Why.LOST:
            await _wait(asked, RETRY_SECONDS)


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
        self._orders: dict[str, bytes] = {}  # of the jobs that run, in case the scheduler forgets them

    async def serve_once(self) -> Why:
        """Serve with one worker, until there is a reason to end it."""
        from distributed import Client

        options = self._options
        async with Client(
            options.scheduler,
            asynchronous=True,
            security=options.security,
            timeout=CONNECT_SECONDS,
            set_as_default=False,
        ) as client:
            await self._prepare(client)
            nanny = self._nanny()
            await nanny
            log.warning("agent %s serves %s", options.name, options.scheduler)
            try:
                await self._give_back(client)
                why = await self._watch(client, nanny)
                if why is not Why.LOST:
                    with suppress(OSError, TimeoutError):
                        await asyncio.wait_for(self._drain(client, nanny), DRAIN_SECONDS)
            finally:
                await nanny.close(reason="agent-ends")
            return why

    async def _prepare(self, client: Client) -> None:
        from kinesis_nb.agents.desk import Desk

        await client.register_plugin(Desk(self._options.ttl))
        others = (await self._join(client))["others"]
        theirs = [(name, Window.parse(text)) for name, texts in others.items() for text in texts]
        try:
            check_apart(self._options.name, self._options.windows, theirs, datetime.now(UTC))
        except KinesisError:
            await desk(client).kinesis_nb_leave(name=self._options.name)
            raise

    async def _join(self, client: Client) -> Any:
        away = next_window(self._options.windows, datetime.now(UTC))
        return await desk(client).kinesis_nb_join(
            name=self._options.name,
            windows=[str(window) for window in self._options.windows],
            away=f"{away[0]:%Y-%m-%d %H:%M} UTC" if away else "",
        )

    def _nanny(self) -> Nanny:
        from distributed import Nanny
        from distributed.comm.addressing import get_address_host
        from distributed.utils import get_ip

        options = self._options
        preload = ["kinesis_nb.agents.warm", "kinesis_nb.service.client"]
        is_measured = options.metrics_port is not None
        metrics = {METRICS: f"{options.metrics_port} {options.metrics_host}"} if is_measured else {}
        return Nanny(
            options.scheduler,
            nthreads=THREADS,
            # a worker runs whatever it is sent: it listens where its scheduler is, not on every network of the machine
            host=get_ip(get_address_host(options.scheduler)),
            name=options.name,
            security=options.security,
            memory_limit="0",  # none: a paused worker would hold up its parts; their memory is bounded (DESIGN.md)
            preload=preload,
            env=metrics,
            dashboard_address="127.0.0.1:0",  # plain HTTP
        )

    async def _give_back(self, client: Client) -> None:
        """Submit again what ran before, when the scheduler does not know it any more."""
        known = await desk(client).kinesis_nb_jobs()
        lost = [order for job, order in self._orders.items() if job not in known]
        if not lost:
            return
        from kinesis_nb.agents.cluster import Cluster
        from kinesis_nb.agents.job import submit

        def give() -> None:
            from distributed import Client

            with Client(self._options.scheduler, security=self._options.security, set_as_default=False) as blocking:
                for order in lost:
                    submit(Cluster(blocking), pickle.loads(order))  # noqa: S301 - our own

        await asyncio.to_thread(give)

    async def _watch(self, client: Client, nanny: Nanny) -> Why:
        """Wait for a reason to end the worker."""
        from distributed import Status

        ends = self._ends()
        while not self._asked.is_set():
            await _wait(self._asked, RENEW_SECONDS)
            if nanny.status != Status.running or client.status != "running":
                return Why.LOST
            now = datetime.now(UTC)
            window = next_window(self._options.windows, now)
            if window and window[0] <= now:
                return Why.MAINTENANCE
            if ends is not None and now >= ends:
                return Why.LIFETIME
            try:
                self._orders = (await asyncio.wait_for(self._join(client), CONNECT_SECONDS))["orders"]
            except (OSError, TimeoutError):
                return Why.LOST
        return Why.ASKED

    def _ends(self) -> datetime | None:
        if self._options.lifetime is None:
            return None
        chance = random.SystemRandom().uniform(-1, 1)  # so that agents do not end together
        return datetime.now(UTC) + self._options.lifetime + chance * self._options.stagger

    async def _drain(self, client: Client, nanny: Nanny) -> None:
        while nanny.worker_address and await desk(client).kinesis_nb_drain(agent=nanny.worker_address):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await desk(client).kinesis_nb_leave(name=self._options.name)

    async def wait_for_end_of_window(self) -> None:
        """Do nothing while there is maintenance."""
        now = datetime.now(UTC)
        window = next_window(self._options.windows, now)
        if window and window[0] <= now:
            await _wait(self._asked, (window[1] - now).total_seconds())


@dataclass(frozen=True)
class SchedulerOptions:
    """What a scheduler is started with."""

    host: str
    port: int
    ttl: float
    security: Security | None = None


async def serve_scheduler(options: SchedulerOptions, agents: int = 0) -> None:
    """Run a scheduler, and some agents next to it, until SIGTERM or SIGINT."""
    from distributed import Scheduler

    from kinesis_nb.agents.desk import Desk

    asked = asked_to_end()
    async with Scheduler(
        host=options.host,
        port=options.port,
        security=options.security,
        protocol="tls://" if options.security else "tcp://",
        dashboard_address="127.0.0.1:0",
    ) as scheduler:
        desk = Desk(options.ttl)
        await desk.start(scheduler)
        scheduler.add_plugin(desk, name=desk.name)
        place = scheduler.address
        log.warning("scheduler at %s: kn.connect(agents=%r)", place, place)
        log.warning("dashboard at http://127.0.0.1:%s/status", scheduler.http_server.port)
        names = [f"agent-{number}" for number in range(1, agents + 1)]
        running = [
            serve(AgentOptions(place, name, security=options.security, ttl=options.ttl), asked) for name in names
        ]
        await asyncio.gather(asked.wait(), *running)
