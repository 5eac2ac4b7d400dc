"""Two agents in network namespaces of their own, and a network between them and the rest that is cut again and again.

``python -m tests.agents_netns`` (``make agents-netns``). Needs root and ``ip``; without them it says so and ends.

Each agent has two cables, as a machine with two networks has: one to the scheduler, one to Kinesis, each to a switch
(a bridge). A port of a switch that is down drops what passes, and neither side notices. The table is in a folder, so it
can be written all the time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.emulator import Emulator
from tests.agents_kill import TTL, Agents, Campaign, Line, agents, load

if TYPE_CHECKING:
    from collections.abc import Generator

AGENTS = (1, 2)
CONTROL, DATA = 231, 232  # networks 10.231.0.0/24 and 10.232.0.0/24; this machine is .1, agent n is .10n


def ip(*arguments: object) -> None:
    """Change a network of this machine."""
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True, text=True)


def why_not() -> str:
    """Return why there can be no namespaces here; an empty string when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no `ip`: install iproute2"
    try:
        with _namespace(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}` says: {error.stderr.strip()}"


def _name(what: str, *number: int) -> str:
    """Name a thing of this process: its names are the machine's."""
    return f"kn{os.getpid() % 100_000}{what}{''.join(map(str, number))}"


@contextmanager
def _namespace(agent: int) -> Generator[str]:
    """Make a namespace with two cables, whose other ends hang loose."""
    name = _name("a", agent)
    with ExitStack() as undo:
        ip("netns", "add", name)
        undo.callback(ip, "netns", "delete", name)
        ip("-n", name, "link", "set", "lo", "up")
        for network in (CONTROL, DATA):
            cable = _name("c", network, agent)
            ip("link", "add", cable, "type", "veth", "peer", "name", f"eth{network}", "netns", name)
            undo.callback(ip, "link", "delete", cable)  # a namespace takes its time to go, and its cables with it
            ip("-n", name, "addr", "add", f"10.{network}.0.10{agent}/24", "dev", f"eth{network}")
            ip("-n", name, "link", "set", f"eth{network}", "up")
        yield name


@contextmanager
def _switch(network: int) -> Generator[None]:
    """Make the switch of a network, and plug in all agents."""
    name = _name("s", network)
    ip("link", "add", name, "type", "bridge")
    try:
        ip("addr", "add", f"10.{network}.0.1/24", "dev", name)
        ip("link", "set", name, "up")
        for agent in AGENTS:
            ip("link", "set", _name("c", network, agent), "master", name, "up")
        yield
    finally:
        ip("link", "delete", name)


class Cables(Line):
    """The cables of one agent."""

    def __init__(self, agent: int, port: int) -> None:
        self._agent = agent
        self.place = f"10.{CONTROL}.0.1:{port}"
        self.command = ("ip", "netns", "exec", _name("a", agent))
        self.networks: tuple[int, ...] = (CONTROL,)  # that are cut the next time

    def _set(self, state: str, *networks: int) -> None:
        for network in networks:
            ip("link", "set", _name("c", network, self._agent), state)

    def cut(self) -> None:
        self._set("down", *self.networks)

    def repair(self) -> None:
        self._set("up", CONTROL, DATA)

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.repair()


@contextmanager
def campaign(folder: Path, seed: int) -> Generator[Campaign]:
    """Run a sync on two agents behind cables."""
    # that they are allowed to use: the way to a namespace is not loopback, so no secrets travel
    keys = {"AWS_ACCESS_KEY_ID": "emulator", "AWS_SECRET_ACCESS_KEY": "emulator"}
    os.environ.update(keys)
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(allowed_hosts=[f"10.{DATA}.0.1"]))
        for agent in AGENTS:
            stack.enter_context(_namespace(agent))
        for network in (CONTROL, DATA):
            stack.enter_context(_switch(network))
        kinesis = Line(int(emulator.endpoint_url.rpartition(":")[2]), f"10.{DATA}.0.1")
        stack.callback(kinesis.close)
        running: Agents = stack.enter_context(
            agents(folder, lines=lambda port: [Cables(agent, port) for agent in AGENTS])
        )
        yield Campaign(running, emulator, folder, seed, endpoint_url=f"http://{kinesis.place}")


def main() -> int:
    """Cut and repair; return 1 when a promise was broken, or too little happened to tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.agents_netns", description=__doc__)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where the logs go; a temporary one by default")
    options = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as temporary, campaign(options.folder or Path(temporary), 1) as going:
        with load(going.streams):
            for number in range(options.cuts):
                _cut(going, number)
        report = going.finish()
    print(report)
    wrong = report.broken
    for what, took in report.takeovers.items():
        if sorted(took)[len(took) // 2] > TTL + 2.0:
            wrong.append(f"a takeover after a {what} takes too long")
    print("; ".join(wrong) or "everything held")
    return 1 if wrong else 0


def _cut(going: Campaign, number: int) -> None:
    """Cut one agent off: from its scheduler alone, so that it continues to read and write, or from everything."""
    victim = f"agent-{1 + number % 2}"
    line = going.agents.lines[victim]
    assert isinstance(line, Cables)
    is_whole = number % 4 > 1
    line.networks = (CONTROL, DATA) if is_whole else (CONTROL,)
    going.cut(victim, "cut from everything" if is_whole else "cut")
    if number % 5 == 4:
        going.reshard()
    took = going.report.takeovers["cut from everything" if is_whole else "cut"][-1]
    print(f"{victim} {'from everything' if is_whole else 'from the scheduler'}: {took:.2f} s", flush=True)
    time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
