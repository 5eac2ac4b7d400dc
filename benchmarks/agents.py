"""One agent and two on a stream of 64 busy shards: ``python benchmarks/agents.py``; under three minutes.

By turns, first with machines of the same size for all agents: each agent may use so much of a core (a cgroup of its
own, which needs root), and server and scheduler have the rest. Then with no limits at all, where one agent may use what
two would have to share. Rows, commits and CPU time are those of the same seconds, after all shards are being read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from replay import STREAM, running

import kinesis_nb as kn

if TYPE_CHECKING:
    from collections.abc import Generator

PORT = 18_786
CORE_SHARE = 0.4
SETTLE_SECONDS = 5.0
CGROUPS = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")  # of version 1, and 2
PERIOD = 100_000  # microseconds
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Found:
    """What was measured in one window."""

    rows: float  # per second
    commits: float
    groups: int
    cpu: dict[str, float]  # cores used, by who used them

    @property
    def cost(self) -> float:
        """Return the CPU-seconds that the agents spend on a million rows."""
        return sum(share for who, share in self.cpu.items() if who.startswith("agent")) / max(self.rows, 1) * 1e6

    def __str__(self) -> str:
        cores = ", ".join(f"{who} {share:.2f}" for who, share in self.cpu.items())
        return (
            f"{self.rows:>9,.0f} rows/s, {self.groups} groups, {self.commits:.1f} commits/s,"
            f" {self.cost:.2f} CPU-seconds per million rows (cores: {cores})"
        )


class Box:
    """What a process and its children may use together; no limit before :meth:`close`."""

    def __init__(self, name: str) -> None:
        root = next((path for path in CGROUPS if (path / "cgroup.procs").exists()), CGROUPS[-1])
        self._group = root / f"kinesis_nb_{os.getpid()}_{name}"
        self._group.mkdir()
        self.command = ("sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh")

    def close(self, share: float) -> None:
        """Leave them so much of a core."""
        quota, new = int(share * PERIOD), self._group / "cpu.max"
        if new.exists():
            new.write_text(f"{quota} {PERIOD}")
        else:
            (self._group / "cpu.cfs_quota_us").write_text(str(quota))

    def remove(self) -> None:
        """Remove it, when they have ended."""
        for _ in range(50):
            with suppress(OSError):  # the last one is not buried yet
                self._group.rmdir()
                return
            time.sleep(0.1)


@contextmanager
def program(log: Path, *command: str) -> Generator[psutil.Process]:
    """Run a command of ours, and end all it started."""
    with log.open("ab") as file:
        process = psutil.Popen(command, stdout=file, stderr=file)
        try:
            yield process
        finally:
            everything = [process, *process.children(recursive=True)]
            for one in everything:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()


def until(condition: Any) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def cores(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Return the CPU-seconds so far of processes and their children."""
    return {
        name: sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
        for name, process in processes.items()
    }


def measure(agents: int, share: float | None, shards: int, seconds: float) -> Found:
    """Sync a stream that does not end meanwhile with so many agents, and look at it for some seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None)))
        before = set(psutil.Process().children())
        url = stack.enter_context(running(shards=shards, pages=1_000))
        [server] = set(psutil.Process().children()) - before
        ours = (sys.executable, "-m", "kinesis_nb")
        scheduler = program(folder / "scheduler", *ours, "scheduler", "--port", str(PORT))
        processes = {"server": server, "scheduler": stack.enter_context(scheduler)}
        place = f"tcp://127.0.0.1:{PORT}"
        boxes: list[Box] = []
        time.sleep(3)
        for number in range(agents):
            name = f"agent-{number + 1}"
            command: tuple[str, ...] = ()
            if share:
                boxes.append(box := Box(name))
                stack.callback(box.remove)
                command = box.command
            process = program(folder / name, *command, *ours, "agent", "--scheduler", place, "--name", name)
            processes[name] = stack.enter_context(process)
            until(lambda name=name: "serves" in (folder / name).read_text())
        source = kn.connect(endpoint_url=url, auth=kn.StaticCredentials("replay", "replay"), agents=place)
        sync: Any = source.sync(STREAM, folder / "table")
        until(lambda: len(sync.status().shards) == shards and set(sync.agents()["agent"]) == processes.keys() - OTHERS)
        until(lambda: all(shard.records for shard in sync.status().shards))
        for box in boxes:
            box.close(share or 0)
        time.sleep(SETTLE_SECONDS)
        first, cpu, began = sync.status(), cores(processes), time.monotonic()
        time.sleep(seconds)
        last, after, took = sync.status(), cores(processes), time.monotonic() - began
        groups = len(sync.parts())
        used = {name: (after[name] - cpu[name]) / took for name in processes}
        return Found((last.rows - first.rows) / took, (last.commits - first.commits) / took, groups, used)


OTHERS = {"server", "scheduler"}


def main() -> None:
    """Measure one and two agents by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--share", type=float, default=CORE_SHARE, help="of a core for each agent, where it is limited")
    options = parser.parse_args()
    for share in (options.share, None):
        print(f"each agent has {share:.0%} of a core:" if share else "each agent takes what it gets:")
        found: dict[int, list[Found]] = {1: [], 2: []}
        try:
            for agents in [1, 2] * options.repeat:
                found[agents].append(measure(agents, share, options.shards, options.seconds))
                print(f"{agents} agents: {found[agents][-1]}", flush=True)
        except PermissionError as error:
            print(f"skipped: {error}")
            continue
        one, two = (statistics.median(result.rows for result in results) for results in found.values())
        print(f"two agents read {two / one:.2f} times as fast as one")


if __name__ == "__main__":
    main()
