"""What an agent remembers of the active jobs, for a scheduler that was restarted and knows none."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.agents.certificates import split_address
from kinesis_nb.agents.job_spec import read_spec
from kinesis_nb.agents.private_folder import PrivateFolder
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping


FIRST_SECONDS, CAP_SECONDS = 1.0, 60.0  # between attempts to resubmit a job

log = logging.getLogger("kinesis_nb.agent")


@dataclass
class _Attempt:
    at: float
    wait: float = FIRST_SECONDS


class SpecStore:
    """The specs of all jobs that nobody has stopped, as :func:`~kinesis_nb.agents.job_spec.dump_spec` returns them.

    One is forgotten when a scheduler says that its job is over, and for no other reason: a scheduler that does not know
    a job was restarted. Specs without secrets are also in a folder, and so outlive the agent.

    Parameters
    ----------
    folder
        Where they are kept; None keeps them in memory only.
    clock
        Seconds, monotonic.
    """

    def __init__(self, folder: PrivateFolder | None, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self._specs: dict[str, bytes] = {}
        self._attempts: dict[str, _Attempt] = {}
        with self._folder_in_use():
            for job in folder.names() if folder else ():
                if body := folder.read(job) if folder else None:
                    self._specs[job] = body

    def update(self, active: Mapping[str, bytes], over: Collection[str]) -> None:
        """Record what a scheduler knows: the specs of the active jobs, and the names of those that are over."""
        for job, body in active.items():
            self._attempts.pop(job, None)
            if self._specs.get(job) != body:
                self._specs[job] = body
                self._keep(job, body)
        for job in self._specs.keys() & set(over):
            self.forget(job)

    def due(self, known: Collection[str]) -> dict[str, bytes]:
        """Return the specs of jobs that a scheduler does not know and that are to be resubmitted now."""
        now = self._clock()
        lost = {job: body for job, body in self._specs.items() if job not in known}
        return {job: body for job, body in lost.items() if job not in self._attempts or self._attempts[job].at <= now}

    def postpone(self, job: str) -> None:
        """Resubmit a job later, and later each time: it could not be resubmitted now."""
        before = self._attempts.get(job)
        wait = FIRST_SECONDS if before is None else min(CAP_SECONDS, 2 * before.wait)
        self._attempts[job] = _Attempt(self._clock() + wait, wait)

    def forget(self, job: str) -> None:
        """Forget a spec: its job is over."""
        self._specs.pop(job, None)
        self._attempts.pop(job, None)
        if self._folder is not None:
            with self._folder_in_use():
                self._folder.remove(job)

    def _keep(self, job: str, body: bytes) -> None:
        spec = read_spec(body)
        if self._folder is None or spec is None or spec.work.settings.has_secrets:
            return
        with self._folder_in_use():
            self._folder.write(job, body)

    @contextmanager
    def _folder_in_use(self) -> Generator[None]:
        """Continue in memory only when the folder cannot be used."""
        try:
            yield
        except (AgentError, OSError) as error:
            log.warning("the specs of jobs are kept in memory only: %s", error)
            self._folder = None


def spec_folder(scheduler: str) -> PrivateFolder:
    """Return the folder for the specs of the jobs of the scheduler at an address."""
    place = split_address(scheduler).netloc
    return PrivateFolder("orders", "".join(one if one.isalnum() or one in ".-" else "_" for one in place))
