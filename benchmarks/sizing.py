"""What agents are to be sized by: `python benchmarks/sizing.py` (two minutes).

Three measurements, and a plan made with them:

1. A sync whose shards get what AWS lets into a shard (1,000 records and 1 MB a second), or lets out of it when it
   catches up (2 MB a second), or nothing. Canned answers come from a process of their own (`replay.py`), each sync runs
   in a fresh process; what counts is its CPU seconds, so that a busy machine does not matter, and its memory.
2. Several parts that commit to one table as fast as they can: each its own shards, all the same log.
3. The placement of many shards, played with the functions that the agents use: how long it takes, what moves when
   agents are lost and join.

Prints Markdown; fails when a sync did not keep up or lost rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import commits
import replay

import kinesis_nb as kn
from kinesis_nb.agents.placement import better_place, count_parts, first_places, plan
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable

RECORDS, SIZE = 1_000, 1_000  # of a page: what a shard takes in a second
RUN_SECONDS = 300  # at most, for one process
TABLE_SECONDS = 6


class Case(NamedTuple):
    """Shards, and seconds between two pages of each; 0 for shards that get nothing."""

    what: str
    shards: int
    every: float


CASES = [
    Case("idle", 8, 0),
    Case("idle", 200, 0),
    Case("live, 1 MB/s and 1,000 records/s", 4, 1.0),
    Case("live, 1 MB/s and 1,000 records/s", 12, 1.0),
    Case("catching up, 2 MB/s", 4, 0.5),
]


def main() -> int:
    """Measure, print, and return 0 when every sync kept up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each sync")
    parser.add_argument("--shards", type=int, default=10_000, help="of the plan")
    parser.add_argument("--agents", type=int, default=20, help="of the plan")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return 0
    is_right = _syncs(options.seconds)
    rates = _commits()
    _plan(options.shards, options.agents, rates)
    return 0 if is_right else 1


def _syncs(seconds: int) -> bool:
    print(
        "| a sync of | shards | cores | shards per core | peak memory, MiB | rows |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    peaks: dict[str, list[tuple[int, float]]] = {}
    is_right = True
    for case in CASES:
        pages = round(seconds / case.every) if case.every else 0
        with replay.running(case.shards, pages, RECORDS, SIZE, case.every) as endpoint:
            command = [
                sys.executable,
                __file__,
                "--one",
                json.dumps([endpoint, case.shards * pages * RECORDS, seconds]),
            ]
            found = json.loads(subprocess.check_output(command, timeout=RUN_SECONDS, text=True))
        per_core = case.shards / found["cores"]
        print(
            f"| {case.what} | {case.shards} | {found['cores']:.2f} | {per_core:,.0f} | {found['peak']:,.0f}"
            f" | {found['rows']:,} |",
            flush=True,
        )
        is_right &= found["rows"] == case.shards * pages * RECORDS
        peaks.setdefault(case.what, []).append((case.shards, found["peak"]))
    for what, points in peaks.items():
        if len(points) > 1:
            (few, small), (many, large) = points[0], points[-1]
            print(f"\nMemory of a shard, {what}: {(large - small) / (many - few):.2f} MiB", flush=True)
    print("" if is_right else "\nFAIL: a sync did not keep up")
    return is_right


def measure(endpoint: str, rows: int, seconds: int) -> dict[str, Any]:
    """Run one sync until it has all rows; return its cores, peak memory and rows."""
    source = kn.connect(endpoint_url=endpoint, auth=kn.StaticCredentials("replay", "replay"))
    with tempfile.TemporaryDirectory() as folder:
        warm = source.sync(replay.WARM, Path(folder) / "warm")
        warm.wait()
        warm.stop()
        cpu, wall = time.process_time(), time.monotonic()
        sync = source.sync(replay.STREAM, Path(folder) / "table")
        give_up = wall + 3 * seconds
        while time.monotonic() < give_up and (time.monotonic() - wall < seconds or sync.status().rows < rows):
            time.sleep(0.2)
        cpu = time.process_time() - cpu
        sync.stop()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"cores": cpu / seconds, "peak": peak, "rows": sync.status().rows}  # what `seconds` of the stream cost


def _commits() -> dict[int, float]:
    print("| parts that commit to one table | commits per second | CPU of one, ms |\n| --- | --- | --- |")
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        _commit_rate(Path(folder), 1, 1.0)  # imports
    for parts in (1, 4, 16):
        cpu = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            rates[parts] = _commit_rate(Path(folder), parts)
        cpu = (time.process_time() - cpu) / (rates[parts] * TABLE_SECONDS)
        print(f"| {parts} | {rates[parts]:,.1f} | {1e3 * cpu:,.0f} |", flush=True)
    print()
    return rates


def _commit_rate(folder: Path, parts: int, seconds: float = TABLE_SECONDS) -> float:
    """Return how often parts that do nothing else commit 100 rows each to one table, in a second."""
    storage, counts, until = Storage.at(folder / "table"), Counter[int](), time.monotonic() + seconds
    SyncTable.open(storage, commits.ORIGIN)

    def commit(part: int) -> None:
        table, shards = SyncTable.open(storage, commits.ORIGIN), [f"shard-{part}-{number}" for number in range(4)]
        table.acquire(shards)
        while time.monotonic() < until:
            number = counts[part]
            body = commits.rows(number * commits.ROWS)
            if table.commit(table.write_rows(body), {shard: Checkpoint(number, str(number)) for shard in shards}):
                counts[part] += 1

    threads = [threading.Thread(target=commit, args=(part,)) for part in range(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts.total() / seconds


class Played:
    """Agents and the parts that they run, by the rules of the job registry."""

    def __init__(self, shards: int, agents: int) -> None:
        edges = [MAX_HASH_KEY * number // shards for number in range(shards + 1)]
        self._shards = [Shard(f"s{number}", hash_range=(edges[number], edges[number + 1])) for number in range(shards)]
        self.agents = [f"agent-{number}" for number in range(agents)]
        started = time.perf_counter()
        placement = plan(self._shards, count_parts(shards, agents))
        self.sizes = Counter(map(placement.part_of, self._shards))
        self.took = time.perf_counter() - started
        self.places = {str(part): agent for part, agent in enumerate(first_places(len(placement), self.agents))}

    def settle(self) -> int:
        """Let parts move until none wants to; return how many shards did."""
        moved, is_settled = 0, False
        while not is_settled:
            is_settled = True
            for part, here in self.places.items():
                if better := better_place(here, self.places, self.agents):
                    self.places[part], is_settled = better, False
                    moved += self.sizes[int(part)]
        return moved

    def lose(self, agent: str) -> int:
        """Lose an agent; its parts go where there is least. Return how many shards moved."""
        self.agents.remove(agent)
        moved = 0
        for part in [part for part, here in self.places.items() if here == agent]:
            load = Counter(dict.fromkeys(self.agents, 0))
            load.update(here for here in self.places.values() if here in load)
            self.places[part] = min(self.agents, key=lambda one: load[one])
            moved += self.sizes[int(part)]
        return moved + self.settle()

    def join(self, agent: str) -> int:
        """Let an agent join; return how many shards moved to it."""
        self.agents.append(agent)
        return self.settle()

    def __str__(self) -> str:
        load = Counter(dict.fromkeys(self.agents, 0))
        for part, agent in self.places.items():
            load[agent] += self.sizes[int(part)]
        return f"| {len(self.agents)} | {min(load.values()):,} to {max(load.values()):,} |"


def _plan(shards: int, agents: int, rates: dict[int, float]) -> None:
    played = Played(shards, agents)
    parts = len(played.places)
    sizes = played.sizes.values()
    most = rates[max(rates)]
    print(
        f"{shards:,} shards on {agents} agents: {parts} parts of {min(sizes)} to {max(sizes)} shards, planned in"
        f" {played.took * 1e3:.0f} ms. With `commit_interval=1` the table is asked for {parts} commits a second;"
        f" it takes {most:,.0f} from many parts here, so the interval is {max(1.0, parts / most):.1f} s at least.\n"
    )
    print("| what happens | shards that move | agents | shards of an agent |\n| --- | --- | --- | --- |")
    print(f"| the beginning | {played.settle():,} {played}")
    print(f"| an agent is lost | {played.lose('agent-3'):,} {played}")
    print(f"| and another one | {played.lose('agent-7'):,} {played}")
    print(f"| one comes back | {played.join('agent-3'):,} {played}")
    print(f"| and the other one | {played.join('agent-7'):,} {played}")
    moved = sum(played.join(f"agent-{agents + number}") for number in range(agents))
    print(f"| twice as many agents | {moved:,} {played}")


if __name__ == "__main__":
    sys.exit(main())
