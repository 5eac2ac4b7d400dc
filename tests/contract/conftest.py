"""The ``server`` fixture: every contract test runs once against each of the four servers.

``KINESIS_NB_CONTRACT=emulator,moto`` restricts a run to some of them.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import servers

from .kit import SERVERS, Server, xfail_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def emulator() -> Iterator[str]:
    """Run our own emulator and yield its endpoint URL."""
    from kinesis_nb.emulator import Emulator

    with Emulator(transition_seconds=servers.STATE_CHANGE_MS / 1000) as running:
        yield running.endpoint_url


START: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "emulator": emulator,
    "kinesis-mock": servers.kinesis_mock,
    "kinesalite": servers.kinesalite,
    "moto": servers.moto,
}


class ServerPool:
    """The servers of one test run, each started when the first test asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Server] = {}
        self._broken: dict[str, Exception] = {}

    def get(self, name: str) -> Server:
        """Return a running server; one that could not be started is not tried again for every test."""
        if name in self._broken:
            raise self._broken[name]
        if name not in self._running:
            try:
                url = self._stack.enter_context(START[name]())
            except Exception as exc:
                self._broken[name] = exc
                raise
            self._running[name] = Server.at(name, url)
        return self._running[name]


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    """Hold the servers until the run ends: starting one takes longer than most tests."""
    with ExitStack() as stack:
        yield ServerPool(stack)


@pytest.fixture
def server(request: pytest.FixtureRequest, server_pool: ServerPool) -> Server:
    """One of the four servers."""
    return server_pool.get(request.param)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known to --strict-markers."""
    config.addinivalue_line("markers", "deviates(server, reason, run): this server is known to break the promise")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that wants a server once for each."""
    if "server" in metafunc.fixturenames:
        metafunc.parametrize("server", chosen_servers(), indirect=True)


def chosen_servers() -> list[str]:
    """Return the servers to test, all four unless the environment says otherwise."""
    wanted = os.environ.get("KINESIS_NB_CONTRACT", ",".join(SERVERS)).split(",")
    if unknown := set(wanted) - set(SERVERS):
        msg = f"KINESIS_NB_CONTRACT names no server of ours: {', '.join(sorted(unknown))}; known: {', '.join(SERVERS)}"
        raise pytest.UsageError(msg)
    return wanted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn the deviations of a server into strict expectations for its tests alone."""
    here = Path(__file__).parent
    for item in items:
        if not isinstance(item, pytest.Function) or here not in item.path.parents or not hasattr(item, "callspec"):
            continue
        name = item.callspec.params.get("server")
        for marker in item.iter_markers("deviates"):
            check_deviation(item, marker)
            if marker.args[0] == name:
                item.add_marker(xfail_for(marker))


def check_deviation(item: pytest.Item, marker: pytest.Mark) -> None:
    """Refuse a deviation of our own emulator, and one of a server that does not exist."""
    if marker.args[0] not in SERVERS[1:]:
        msg = f"{item.nodeid}: {marker.args[0]!r} may not deviate; only {', '.join(SERVERS[1:])} may"
        raise pytest.UsageError(msg)
