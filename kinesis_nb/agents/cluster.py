"""The connection to the agents: a client of Dask's, the checks before it is used, and calls of the job registry."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import socket
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from kinesis_nb.agents import certificates
from kinesis_nb.core.halt import holding
from kinesis_nb.core.interrupt import apart, load
from kinesis_nb.core.process import of_one_process
from kinesis_nb.errors import AgentError, ConfigError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from distributed import Client, Future

    from kinesis_nb.agents.job_spec import PartTask
    from kinesis_nb.agents.protocol import RegistryCall
    from kinesis_nb.agents.settings import PortableSettings

CONNECT_SECONDS = 5.0
CALL_SECONDS = 20.0

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

_lock = threading.Lock()  # guards _clients; held while one connects
_clients: dict[str, Client] = {}  # by address


class _Identity(TypedDict):
    """What a scheduler says about itself, and about its workers by their addresses."""

    address: str
    workers: dict[str, object]


@of_one_process
class Cluster:
    """A Dask cluster whose workers are agents.

    Parameters
    ----------
    agents
        The address of its scheduler, or a client of it.

    Raises
    ------
    AgentError
        When it cannot be reached, has no worker, or runs another version of Python or of this package.
    """

    def __init__(self, agents: str | Client) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise AgentError("Dask is not installed", hint="pip install 'kinesis-nb[dask]'")
        load("distributed")
        self._agents = agents

    @property
    def client(self) -> Client:
        """The client; a new one when the last one has lost its scheduler."""
        return _connect(self._agents) if isinstance(self._agents, str) else self._agents

    def check(self) -> list[str]:
        """Return the addresses of the agents, sorted, and install the job registry if there is none.

        Raises
        ------
        AgentError
            For a cluster that cannot run our jobs.
        """
        from kinesis_nb.agents.job_registry import JobRegistry

        workers, theirs = self._versions()
        if not workers:
            hint = "start one: kinesis-nb agent --scheduler …"
            raise AgentError(f"no agent is connected to {self.address}", hint=hint)
        _compare_all("Python", platform.python_version(), workers)
        _compare_all("kinesis-nb", importlib.metadata.version("kinesis-nb"), theirs)
        with self._translated("did not accept the job registry"):
            self.client.register_plugin(JobRegistry())
        return sorted(workers)

    def _versions(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Return the versions of Python and of this package, by the addresses of the agents."""
        with self._translated("did not return the versions of the agents"):
            # functions of the standard library: they are pickled by name, so any worker can run them
            workers = _responses(self.run(platform.python_version))
            return workers, _responses(self.run(importlib.metadata.version, "kinesis-nb"))

    @apart
    def run(
        self, function: Callable[..., T], *args: object, agents: Sequence[str] | None = None
    ) -> dict[str, T | BaseException]:
        """RegistryCall a function in every agent, or in some; return the results, or the exceptions, by address."""
        client: Any = self.client
        call = client._run  # noqa: SLF001 - run() itself waits forever for an agent that hangs
        return client.sync(call, function, *args, workers=agents, on_error="return", callback_timeout=CALL_SECONDS)

    def check_paths(self, *paths: object) -> None:
        """Raise ConfigError for a path that is relative to a folder of this machine when an agent is on another one."""
        relative = [path for path in paths if _is_relative(path)]
        if relative and {platform.node()} != set(self.run(platform.node).values()):
            raise ConfigError(
                f"{relative[0]} is relative to a folder of this machine, and agents run on others",
                hint="give an absolute path that is the same place for all agents, or s3://bucket/prefix",
            )

    def check_encrypted(self, settings: PortableSettings) -> None:
        """Raise AgentError when secrets would travel where others can read them."""
        from kinesis_nb.agents.settings import check_encrypted

        check_encrypted(settings, [self.address, *self.workers])

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        return str(self._identity(0)["address"])

    @property
    def workers(self) -> Sequence[str]:
        """The addresses of the agents, sorted."""
        return sorted(self._identity(-1)["workers"])

    @apart
    def _identity(self, agents: int) -> _Identity:
        """Return what the scheduler says about itself and some agents.

        Not by the client's scheduler_info(): that is a cache, which the client itself refreshes without the agents.

        Parameters
        ----------
        agents
            The most agents to describe; -1 for all.
        """
        with self._translated("was not found"):
            client: Any = self.client
            found: _Identity = client.sync(client.scheduler.identity, n_workers=agents, callback_timeout=CALL_SECONDS)
        return found

    def submit(self, task: PartTask, place: str) -> Future[bytes]:
        """Let an agent run a part of a job; another one if that one is gone."""
        from kinesis_nb.agents.parts import run

        return self.client.submit(run, task, key=task.key, pure=False, workers=[place], allow_other_workers=True)

    @apart
    def ask(self, call: RegistryCall[Q, R], request: Q) -> R:
        """RegistryCall the job registry."""
        with self._translated("did not respond"):
            client: Any = self.client
            response: R = client.sync(call.send, client.scheduler, request, callback_timeout=CALL_SECONDS)
            return response

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        try:
            yield
        except KinesisError:
            raise
        except (OSError, TimeoutError, ValueError, AttributeError) as error:
            raise AgentError(
                f"the scheduler {what}: {type(error).__name__} {error}",
                hint="is it running? jobs continue without it; try again",
                retryable=True,
            ) from error


@cache
def _closing_client() -> type[Client]:
    from distributed import Client

    class ClosingClient(Client):
        """A client that is closed at once when it cannot connect.

        Otherwise the garbage collector closes it, in whichever thread it runs: there it may wait for a lock of Dask's
        that this very thread holds.
        """

        def start(self, **kwargs: object) -> None:
            try:
                super().start(**kwargs)
            except BaseException:
                _end(self)
                raise

    return ClosingClient


def _end(client: Client) -> None:
    """Close a client, and end its thread, which Dask leaves running when it has closed it by itself."""
    client.close()
    client._loop_runner.stop()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@apart
def _connect(address: str) -> Client:
    with holding(_lock):
        known = _clients.get(address)
        if known is not None and known.status in ("running", "connecting"):
            return known
        if known is not None:
            _end(known)
        place, security = certificates.resolve(address)
        try:
            client = _closing_client()(
                place, security=security, timeout=CONNECT_SECONDS, set_as_default=False, name="kinesis_nb"
            )
        except TypeError as error:  # what Dask raises when it has no certificates for tls://
            if not _listens(place):  # nor does it need any yet
                raise _no_scheduler(address) from error
            raise AgentError(
                f"the connection to {address} needs certificates",
                hint="set distributed.comm.tls in Dask's configuration, or give agents= a Client with security=; a"
                " scheduler that this user started on this machine needs neither",
            ) from error
        except (OSError, TimeoutError, ValueError) as error:
            raise _no_scheduler(address) from error
        _clients[address] = client
        return client


def _no_scheduler(address: str) -> AgentError:
    return AgentError(
        f"no scheduler responds at {address}",
        hint="start one with `kinesis-nb agents --count 2`, or check the address and its certificates",
        retryable=True,
    )


def _listens(address: str) -> bool:
    """Return whether something accepts connections at the address of a scheduler."""
    try:
        parts = certificates.split_address(address)
        socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _is_relative(path: object) -> bool:
    text = (
        os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    )  # a handle has the absolute place of its table
    return bool(text) and "://" not in text and not Path(text).expanduser().is_absolute()


def _responses(found: dict[str, T | BaseException]) -> dict[str, T | BaseException]:
    """Return what agents returned, without the agents that are gone or hang: they are no reason to refuse a job."""
    return {address: result for address, result in found.items() if not isinstance(result, OSError)}


def _compare_all(name: str, ours: str, theirs: Mapping[str, object]) -> None:
    for address, version in theirs.items():
        _compare(name, ours, version if isinstance(version, str) else "none", address)


def _compare(name: str, ours: str, theirs: str, address: str) -> None:
    if ours.split(".")[:2] != theirs.split(".")[:2] or (name != "Python" and ours != theirs):
        raise AgentError(
            f"the agent at {address} runs {name} {theirs}, this process {ours}",
            hint="install the same versions in both places: pip install 'kinesis-nb[dask]==…'",
        )
