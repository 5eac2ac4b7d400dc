"""What an agent remembers of the jobs, for a scheduler that has forgotten them."""

from __future__ import annotations

import logging
import pickle
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from kinesis_nb.agents.certificates import PrivateFolder
    from kinesis_nb.agents.job_spec import Work
    from kinesis_nb.agents.placement import Placement

FIRST_SECONDS, CAP_SECONDS = 1.0, 60.0  # between tries to give a job back

log = logging.getLogger("kinesis_nb.agent")


@dataclass(frozen=True)
class JobSpec:
    """All that it takes to submit a job: what is to be done, and how it is cut into parts."""

    order: Work
    placement: Placement


@dataclass
class _Try:
    at: float
    wait: float = FIRST_SECONDS


class SpecStore:
    """The orders of all jobs that nobody has stopped.

    One is forgotten when a scheduler says that its job is over, and for no other reason: a scheduler that does not know
    a job was started again. Those without secrets are in a folder too, and so outlive the agents.

    Parameters
    ----------
    folder
        Where they are kept; None keeps them in memory alone.
    clock
        Seconds, monotonic.
    """

    def __init__(self, folder: PrivateFolder | None, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self._orders: dict[str, bytes] = {}
        self._tries: dict[str, _Try] = {}
        with self._kept():
            for job in folder.names() if folder else ():
                if body := folder.read(job) if folder else None:
                    self._orders[job] = body

    def heard(self, running: Mapping[str, bytes], over: Collection[str]) -> None:
        """Take in what a scheduler knows."""
        for job, body in running.items():
            self._tries.pop(job, None)
            if self._orders.get(job) != body:
                self._orders[job] = body
                self._keep(job, body)
        for job in self._orders.keys() & set(over):
            self.forget(job)

    def due(self, known: Collection[str]) -> dict[str, bytes]:
        """Return the orders that a scheduler does not know and that are to be given to it now."""
        now = self._clock()
        lost = {job: body for job, body in self._orders.items() if job not in known}
        return {job: body for job, body in lost.items() if job not in self._tries or self._tries[job].at <= now}

    def postpone(self, job: str) -> None:
        """Give an order back later, and later each time: it could not be given now."""
        tried = self._tries.get(job)
        wait = FIRST_SECONDS if tried is None else min(CAP_SECONDS, 2 * tried.wait)
        self._tries[job] = _Try(self._clock() + wait, wait)

    def forget(self, job: str) -> None:
        """Forget an order: its job is over."""
        self._orders.pop(job, None)
        self._tries.pop(job, None)
        if self._folder is not None:
            with self._kept():
                self._folder.remove(job)

    def _keep(self, job: str, body: bytes) -> None:
        ordered = read_spec(body)
        if self._folder is None or ordered is None or ordered.order.settings.has_secrets:
            return
        with self._kept():
            self._folder.write(job, body)

    @contextmanager
    def _kept(self) -> Generator[None]:
        """Go on with what is in memory where no folder can be used."""
        try:
            yield
        except (AgentError, OSError) as error:
            log.warning("orders are kept in memory alone: %s", error)
            self._folder = None


def read_spec(body: bytes) -> JobSpec | None:
    """Return what was remembered; None when another version of this package wrote it in a way of its own."""
    with suppress(Exception):  # whatever it takes to read what is not known
        found: JobSpec = pickle.loads(body)  # noqa: S301 - from our own scheduler, or a folder of this user alone
        found.order.setup()
        return found
    return None
