"""Lives of a sync, one after another and side by side, each ended by force; and the verdict on the table they leave."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import kinesis_nb as kn
from tests.crash import points
from tests.crash.writer import Orders, live

if TYPE_CHECKING:
    from collections.abc import Generator
    from multiprocessing.context import ForkServerProcess

    from kinesis_nb.emulator import Emulator

ROOT = Path(__file__).parent.parent.parent
KEYS = 64
MAX_OPEN = 6  # shards
LIFE_SECONDS = 6.0  # for a life to reach its point; then it is killed where it is
QUIET_SECONDS = 120.0  # for the last life to catch up


@dataclass
class Report:
    """What a campaign did and found."""

    kills: Counter[str] = field(default_factory=Counter)  # by point
    events: Counter[str] = field(default_factory=Counter)
    records: int = 0
    reshards: int = 0
    zombies: int = 0  # stopped while another took over, and woken again
    rows: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    restarts: list[float] = field(default_factory=list)  # seconds from a cold start to its first commit
    takeovers: list[float] = field(default_factory=list)  # seconds from a start beside a silent owner to the same
    seconds: float = 0.0

    @property
    def broken(self) -> list[str]:
        """What must not be: a broken promise, or something that never happened and so proved nothing."""
        wrong = [name for name in ("lost", "doubled", "disordered") if getattr(self, name)]
        wrong += [f"no {name}" for name in ("committed", "resumed", "acquired") if not self.events[name]]
        return wrong + [event for event in self.events if event.startswith("failed")]

    def __add__(self, other: Report) -> Report:
        return Report(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def __str__(self) -> str:
        lines = [f"{count:7,}  {point}" for point, count in sorted(self.kills.items())]
        lines += [f"{count:7,}  {event}" for event, count in sorted(self.events.items()) if event != "killed"]
        lines.append(
            f"{self.kills.total():,} SIGKILLs, {self.zombies:,} zombies woken, {self.reshards:,} reshards,"
            f" {self.records:,} records written, {self.rows:,} rows in the table:"
            f" {self.lost} lost, {self.doubled} doubled, {self.disordered} out of order per key;"
            f" {self.seconds:.0f} s"
        )
        for name, took in (("restart", self.restarts), ("takeover", self.takeovers)):
            if took:
                median, most = statistics.median(took), max(took)
                lines.append(f"{name} to first commit: median {median:.2f} s, most {most:.2f} s of {len(took)}")
        return "\n".join(lines)


class Campaign:
    """One stream, one table, and processes that write it until they are killed.

    Parameters
    ----------
    place, options
        Of the table, as `Source.sync` takes them.
    folder
        Where the lives leave their events.
    """

    def __init__(
        self, emulator: Emulator, place: str, options: dict[str, str], folder: Path, seed: int, **settings: Any
    ) -> None:
        self.report = Report()
        self._emulator, self._place, self._options, self._settings = emulator, place, options, settings
        self._stream = f"orders-{seed}"
        self._log = folder / f"events-{seed}.log"
        self._random = random.Random(seed)
        self._counts = [0] * KEYS
        self._lives = 0
        self._began: dict[str, float] = {}
        self._started = time.monotonic()
        # a server that has imported everything and runs no thread: what it forks is ready at once
        os.environ["PYTHONPATH"] = str(ROOT)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.crash.writer"])
        self._call("CreateStream", StreamName=self._stream, ShardCount=3)

    # --- the stream

    def _call(self, operation: str, **params: Any) -> dict[str, Any]:
        return self._emulator.model.call(operation, params)

    def put(self, count: int) -> None:
        """Write records; each carries the number of its key."""
        records = []
        for _ in range(count):
            key = self._random.randrange(KEYS)
            self._counts[key] += 1
            records.append({"PartitionKey": f"key-{key}", "Data": str(self._counts[key]).encode()})
        for first in range(0, count, 500):
            answer = self._call("PutRecords", StreamName=self._stream, Records=records[first : first + 500])
            assert answer["FailedRecordCount"] == 0
        self.report.records += count

    def reshard(self) -> None:
        """Split a shard, or merge two."""
        shards = self._call("ListShards", StreamName=self._stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        if len(shards) < 2 or (len(shards) < MAX_OPEN and self._random.random() < 0.5):
            shard = self._random.choice(shards)
            low, high = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
            self._call(
                "SplitShard",
                StreamName=self._stream,
                ShardToSplit=shard["ShardId"],
                NewStartingHashKey=str((low + high) // 2),
            )
        else:
            place = self._random.randrange(len(shards) - 1)
            first, second = (shard["ShardId"] for shard in shards[place : place + 2])
            self._call("MergeShards", StreamName=self._stream, ShardToMerge=first, AdjacentShardToMerge=second)
        self.report.reshards += 1

    # --- lives

    def _orders(self, **what: Any) -> Orders:
        self._lives += 1
        name = f"life-{self._lives}"
        self._began[name] = time.monotonic()
        return Orders(
            name,
            self._emulator.endpoint_url,
            self._stream,
            self._place,
            str(self._log),
            self._options,
            **{**self._settings, **what},
        )

    def _start(self, orders: Orders) -> ForkServerProcess:
        process = self._context.Process(target=live, args=(orders,), name=orders.name, daemon=True)
        process.start()
        return process

    def _kill(self, process: ForkServerProcess, how: str) -> None:
        """Kill a process that has not killed itself."""
        if process.is_alive():
            _signal(process, signal.SIGKILL)
            self.report.kills[how] += 1
        process.join()

    def kill_at(self, point: str, records: int) -> bool:
        """Let one life write until it reaches `point`; return whether it did."""
        countdown = 1 if point.split(" ", 1)[1].startswith(points.RARE) else self._random.randint(1, 4)
        orders = self._orders(point=point, countdown=countdown)
        process = self._start(orders)
        give_up = time.monotonic() + LIFE_SECONDS
        self.put(records)
        reshards = "reshard" in point or self._random.random() < 0.03
        while process.is_alive() and time.monotonic() < give_up:
            if reshards and self._happened("resumed", orders.name):  # the shards it began with
                self.reshard()
                reshards = False
            process.join(0.05)
            self.put(max(records // 20, 1))
        if not (reached := not process.is_alive()):
            self._kill(process, "somewhere, its point not reached")
        process.join()
        return reached

    def fail_and_kill(self, rate: float, records: int, seconds: float) -> None:
        """Let one life write for a while on a disk that fails, then kill it."""
        process = self._start(self._orders(fault_rate=rate, may_fail=True))
        give_up = time.monotonic() + seconds
        while process.is_alive() and time.monotonic() < give_up:
            self.put(max(records // 20, 1))
            process.join(seconds / 20)
        self._kill(process, "on a failing disk")

    def kill_at_random(self, records: int) -> None:
        """Let one life write for a moment."""
        process = self._start(self._orders())
        self.put(records)
        process.join(self._random.uniform(0.05, 0.8))
        self._kill(process, "anywhere")

    def zombies(self, count: int, writers: int, records: int) -> None:
        """Stop writers while others take over, and wake them again, until so many woke to a table that was taken."""
        processes = [self._start(self._contender()) for _ in range(writers)]
        while self.report.zombies < count:
            self.put(records)
            if self._random.random() < 0.1:
                self.reshard()
            processes = [process for process in processes if process.is_alive()]
            while len(processes) < writers:
                processes.append(self._start(self._contender()))
            time.sleep(self._random.uniform(0.0, 0.6))
            self._stop_and_wake(processes, records)
        for process in processes:
            self._kill(process, "anywhere")

    def _contender(self) -> Orders:
        return self._orders(look_seconds=self._random.choice([0.1, 1e6]))

    def _stop_and_wake(self, processes: list[ForkServerProcess], records: int) -> None:
        victim = self._random.choice(processes)
        if not victim.is_alive():
            return
        _signal(victim, signal.SIGSTOP)
        before = self._events()["acquired"]
        rival = self._start(self._contender())
        processes.append(rival)
        give_up = time.monotonic() + LIFE_SECONDS
        while self._events()["acquired"] == before and time.monotonic() < give_up and rival.is_alive():
            self.put(max(records // 20, 1))
            rival.join(0.05)
        rival.join(self._random.uniform(0.0, 0.3))
        if self._events()["acquired"] > before and victim.is_alive():
            self.report.zombies += 1
        _signal(victim, signal.SIGCONT)

    def cold_restart(self, records: int) -> None:
        """Start a life as a user would, imports and all; kill it after its first commit."""
        orders = self._orders()
        self.put(records)
        process = subprocess.Popen([sys.executable, "-m", "tests.crash.writer", *orders[:5]], cwd=ROOT)
        self.report.restarts.append(self._first_commit(orders.name, records))
        process.kill()
        process.wait()
        self.report.kills["anywhere"] += 1

    def pass_over(self, records: int) -> None:
        """Stop the owner where it is, and let another one take its table."""
        owner, rival = self._orders(), self._orders()
        silent = self._start(owner)
        self._first_commit(owner.name, records)
        _signal(silent, signal.SIGSTOP)
        self._began[rival.name] = time.monotonic()
        other = self._start(rival)
        self.report.takeovers.append(self._first_commit(rival.name, records))
        _signal(silent, signal.SIGCONT)
        self._kill(silent, "anywhere")
        self._kill(other, "anywhere")

    def _first_commit(self, name: str, records: int) -> float:
        """Write until a life has committed; return the seconds from its start to that."""
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            self.put(max(records // 20, 1))
            for moment, life, event in self._lines():
                if (life, event) == (name, "committed"):
                    return float(moment) - self._began[name]
            time.sleep(0.02)
        raise AssertionError(f"{name} did not commit")

    # --- the verdict

    def _lines(self) -> list[list[str]]:
        text = self._log.read_text() if self._log.exists() else ""
        return [line.split(" ", 2) for line in text.splitlines()]

    def _happened(self, event: str, name: str) -> bool:
        return any(line[1:] == [name, event] for line in self._lines())

    def _events(self) -> Counter[str]:
        return Counter(event for _, _, event in self._lines())

    def finish(self) -> Report:
        """Let one last life catch up, then compare the table with what was written."""
        source = kn.connect(endpoint_url=self._emulator.endpoint_url, auth=kn.StaticCredentials("emulator", "emulator"))
        sync = source.sync(self._stream, self._place, commit_interval=0.1, storage_options=self._options)
        assert sync.wait(QUIET_SECONDS), sync.status()
        sync.stop()
        report = self.report
        for _, _, event in self._lines():
            report.events["killed" if event.startswith("killed") else event] += 1
            if event.startswith("killed "):
                report.kills[event.removeprefix("killed ")] += 1
        self._judge(sync.scan())
        report.seconds = time.monotonic() - self._started
        return report

    def _judge(self, table: pl.LazyFrame) -> None:
        rows = table.select(
            "partition_key", "shard_offset", "shard_id", "sequence_number", n=pl.col("data").cast(pl.Int64)
        )
        frame = rows.sort("partition_key", "shard_offset").collect()
        report = self.report
        report.rows = len(frame)
        unique = frame.select("partition_key", "n").n_unique()
        report.doubled = len(frame) - unique
        report.lost = report.records - unique
        steps = frame.select(step=pl.col("n").diff().over("partition_key"))["step"].drop_nulls()
        report.disordered = int((steps != 1).sum()) - min(report.lost, 0)


def _signal(process: ForkServerProcess, number: int) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):  # it may end at any moment
        os.kill(process.pid, number)


@contextmanager
def campaign(
    emulator: Emulator, place: str, options: dict[str, str], folder: Path, **settings: Any
) -> Generator[Campaign]:
    """Give a campaign; whatever it started is ended with the block."""
    seed = settings.pop("seed", 0)
    made = Campaign(emulator, place, options, folder, seed, **settings)
    try:
        yield made
    finally:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
