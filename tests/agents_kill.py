"""Two agents under load that are killed, frozen and drained repeatedly, and a check of the table at the end.

``python -m tests.agents_kill`` is the full run (``make agents``); ``tests/agents/test_jobs.py`` runs a small one.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import psutil

import kinesis_nb as kn
from kinesis_nb.agents.certificates import OwnCertificates
from kinesis_nb.agents.cluster import _clients
from kinesis_nb.emulator import Emulator
from tests.conftest import Streams, by_key, written_by_key
from tests.support.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

ROOT = Path(__file__).parent.parent
KEYS = 64
TTL = 2.0
WAIT_SECONDS = 180.0  # for anything to happen; then the run has failed
PUT_EVERY, PUT_ROWS = 0.1, 40
START, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
LONGEST_GAP = 2.0  # seconds in which a shard may get no rows because an agent hands over


class Line:
    """A network between an agent and its scheduler that can be cut: nothing passes, and neither end notices.

    Attributes
    ----------
    place
        Where the other end is, seen from here.
    command
        What a program is started with so that it is at this end.
    """

    command: tuple[str, ...] = ()

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server((host, 0))
        self.place = f"{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._whole.wait()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                self._whole.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self) -> None:
        self._whole.clear()

    def repair(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.repair()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def own_certificates(port: int, folder: Path) -> tuple[str, ...]:
    """Return the options of agents that find a scheduler of this user at another port than its own."""
    own = OwnCertificates(port)
    own.keep(port)
    pem = folder / "own.pem"
    keys: Any = own.security
    pem.write_text(str(keys.tls_worker_cert) + str(keys.tls_worker_key))
    return ("--tls-ca-file", str(pem), "--tls-cert", str(pem), "--tls-key", str(pem))


class Agents:
    """A scheduler and agents, each a process that is started again when it ends, as systemd would."""

    def __init__(
        self,
        folder: Path,
        count: int = 2,
        ttl: float = TTL,
        options: tuple[tuple[str, ...], ...] = (),
        lines: Callable[[int], Iterable[Line]] | None = None,
    ) -> None:
        port = free_port()
        self._folder, self._ttl, self._options = folder, ttl, options
        self._host = "0.0.0.0" if lines else "127.0.0.1"
        self._scheme, self._certificates = ("tcp", ()) if lines else ("tls", own_certificates(port, folder))
        self.address = f"{self._scheme}://127.0.0.1:{port}"
        self._scheduler = self.start_scheduler()
        names = [f"agent-{number}" for number in range(1, count + 1)]
        self.lines = dict(zip(names, lines(port) if lines else [Line(port) for _ in names], strict=True))
        self.agents = {f"agent-{number}": self._start_agent(number) for number in range(1, count + 1)}

    def _start(self, name: str, *arguments: str, at: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        command = [*at, sys.executable, "-m", "kinesis_nb", *arguments]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        port = self.address.rpartition(":")[2]
        self._scheduler = self._start(
            "scheduler", "scheduler", "--host", self._host, "--port", port, "--ttl", str(self._ttl)
        )
        return self._scheduler

    def kill_scheduler(self) -> None:
        self._scheduler.kill()
        self._scheduler.wait()

    def _start_agent(self, number: int) -> subprocess.Popen[bytes]:
        name = f"agent-{number}"
        more = self._options[number - 1] if self._options else ()
        ttl, line = str(self._ttl), self.lines[name]
        place = f"{self._scheme}://{line.place}"
        more = (*self._certificates, *more)
        return self._start(name, "agent", "--scheduler", place, "--name", name, "--ttl", ttl, *more, at=line.command)

    def worker(self, name: str) -> psutil.Process:
        """Return the process that runs the parts; its parent is the nanny."""
        children = psutil.Process(self.agents[name].pid).children()
        return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))

    def kill_worker(self, name: str) -> None:
        self.worker(name).kill()

    def kill_agent(self, name: str) -> None:
        worker = self.worker(name)
        self.agents[name].kill()
        worker.kill()
        self.agents[name].wait()

    def revive(self, name: str) -> None:
        if self.agents[name].poll() is not None:
            self.agents[name] = self._start_agent(int(name.rpartition("-")[2]))

    def are_there(self) -> bool:
        for name in self.agents:
            self.revive(name)  # the scheduler may not have been there in time
        return all("serves" in self.log(name) for name in self.agents)

    def freeze(self, name: str) -> list[psutil.Process]:
        frozen = [psutil.Process(self.agents[name].pid), self.worker(name)]
        for process in frozen:
            process.suspend()
        return frozen

    def terminate(self, name: str) -> None:
        self.agents[name].terminate()

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for line in self.lines.values():
            line.close()
        everything = [*self.agents.values(), self._scheduler]
        workers = [
            child
            for process in everything
            if process.poll() is None
            for child in psutil.Process(process.pid).children()
        ]
        for process in (*workers, *everything):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in everything:
            process.wait()


@contextmanager
def agents(folder: Path, **options: Any) -> Generator[Agents]:
    """Run agents, and wait until both serve."""
    running = Agents(folder, **options)
    try:
        until("the agents are there", running.are_there)
        yield running
    finally:
        hang_up(running.address)
        running.stop()


def loops() -> int:
    """Return how many threads Dask's clients have here."""
    return sum(thread.name == "IO loop" for thread in threading.enumerate())


def running_keys() -> list[str]:
    """Return the parts that run in a worker; called there."""
    from kinesis_nb.agents.parts import syncs_here

    return list(syncs_here())


def hang_up(address: str) -> None:
    """Close our client of a scheduler that will end: for seconds it would look for it, beside the tests that follow."""
    client = _clients.pop(address, None)
    if client is not None:
        client.close()


def until(what: str, condition: Any, seconds: float = WAIT_SECONDS) -> float:
    """Wait until something is so; return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def load(streams: Streams) -> Generator[None]:
    """Write to the stream all the time."""
    stop = threading.Event()

    def put() -> None:
        while not stop.wait(PUT_EVERY):
            streams.put(PUT_ROWS, keys=KEYS)

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def longest_gap(rows: pl.DataFrame, begin: datetime = START, end: datetime = END) -> float:
    """Return the longest time between two commits with rows of the same shard, of all that overlap with a time."""
    stamps = rows.select("shard_id", stamp="foundry_ingestion_timestamp").unique().sort("shard_id", "stamp")
    gaps = stamps.with_columns(before=pl.col("stamp").shift().over("shard_id")).filter(
        (pl.col("stamp") > begin) & (pl.col("before") < end)
    )
    return float(gaps.select((pl.col("stamp") - pl.col("before")).dt.total_microseconds().max()).item()) / 1e6


@dataclass
class Report:
    """What was done and found."""

    done: Counter[str] = field(default_factory=Counter)
    takeovers: dict[str, list[float]] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)  # per drain, the longest time in which a shard got no rows
    rows: int = 0
    written: int = 0
    is_right: bool = False
    verdict: str = ""
    fenced: int = 0
    refused: int = 0  # by the table itself

    @property
    def broken(self) -> list[str]:
        """What must not be: a broken promise, or something that never happened and so proved nothing."""
        wrong = [] if self.is_right and self.rows else ["rows are lost, doubled or out of order"]
        wrong += ["no part ended as lost"] if self.done["freeze"] and not self.fenced else []
        return wrong + (["the table refused no commit"] if self.done["cut"] and not self.refused else [])

    def __str__(self) -> str:
        lines = [f"{count:5}  {what}" for what, count in sorted(self.done.items())]
        for what, took in self.takeovers.items():
            late = sorted(took)
            lines.append(
                f"takeover after a {what}: median {statistics.median(took):.2f} s,"
                f" 95 % {late[int(len(late) * 0.95)]:.2f} s, most {late[-1]:.2f} s of {len(took)}"
            )
        if gaps := sorted(self.gaps):
            lines.append(
                f"longest time without committed rows of a shard, per drain: median {statistics.median(gaps):.2f} s,"
                f" most {gaps[-1]:.2f} s of {len(gaps)}"
            )
        lines.append(
            f"{self.written:,} records written, {self.rows:,} rows in the table; {self.fenced} parts ended as lost,"
            f" {self.refused} commits refused by the table"
        )
        return "\n".join([*lines, self.verdict, "every record once and in order" if self.is_right else "BROKEN"])


class Campaign:
    """One sync on two agents, and what happens to them."""

    def __init__(
        self,
        running: Agents,
        emulator: Emulator,
        folder: Path,
        seed: int,
        commit_interval: float = 1.0,
        endpoint_url: str | None = None,
    ) -> None:
        self.report, self.agents, self._random = Report(), running, random.Random(seed)
        self._drains: list[datetime] = []  # when they began
        self.streams = Streams(emulator)
        self.streams.create(shards=8)
        self.streams.put(500, keys=KEYS)
        # where an agent has another way to the stream it has credentials of its own too
        keys = None if endpoint_url else kn.StaticCredentials("emulator", "emulator")
        url = endpoint_url or emulator.endpoint_url
        self.source = kn.connect(endpoint_url=url, auth=keys, agents=running.address, allow_http=True)
        self.sync: Any = self.source.sync("orders", folder / "table", commit_interval=commit_interval)

    def parts_of(self, name: str) -> dict[str, str]:
        """Return the parts of an agent that have shards to read, and the address of the worker that runs them."""
        return {
            part.key: part.agent
            for part in self.sync._snapshot().parts
            if part.agent_name == name and part.status and pickle.loads(part.status).state != "ended"
        }

    def wait_for_balance(self) -> None:
        until("each agent has parts, and reads", self._is_balanced)

    def _is_balanced(self) -> bool:
        """Whether each agent reads all of its parts: what the registry knows of one may be of the agent before."""
        parts = [self.parts_of(name) for name in self.agents.agents]
        if not all(parts):
            return False
        try:
            reading = self._client().run(running_keys)
        except OSError:  # an agent is on its way
            return False
        return all(key in reading.get(agent, ()) for own in parts for key, agent in own.items())

    def _client(self) -> Any:
        return _clients[self.agents.address]

    def have_moved(self, before: dict[str, str]) -> bool:
        """Whether all these parts have committed in another worker than before, those that have shards to read."""
        for part in self.sync._snapshot().parts:
            assert part.over != "failed", part.error
            if part.key not in before:
                continue
            if not part.status:  # the agent that has it has not reported yet
                return False
            status = pickle.loads(part.status)
            if part.agent == before[part.key] or (status.commits == 0 and status.state != "ended"):
                return False
        return True

    def _measure(self, what: str, before: dict[str, str]) -> None:
        took = until("another agent has committed", lambda: self.have_moved(before))
        self.report.takeovers.setdefault(what, []).append(took)
        self.report.done[what] += 1

    def kill(self, victim: str, *, with_nanny: bool) -> None:
        """Kill an agent, and measure when the other one commits for it."""
        self.wait_for_balance()
        keys = self.parts_of(victim)
        if with_nanny:
            self.agents.kill_agent(victim)
        else:
            self.agents.kill_worker(victim)
        self._measure("kill", keys)
        self.agents.revive(victim)

    def kill_all(self) -> None:
        """Kill all agents at once; those that come back continue."""
        self.wait_for_balance()
        keys = {key: agent for name in self.agents.agents for key, agent in self.parts_of(name).items()}
        for name in self.agents.agents:
            self.agents.kill_agent(name)
        for name in self.agents.agents:
            self.agents.revive(name)
        until("all parts run again", lambda: self.have_moved(keys))
        self.report.done["kill of all"] += 1

    def freeze(self, victim: str) -> None:
        """Stop an agent for longer than the ttl, let another one take over, and wake it."""
        self.wait_for_balance()
        keys = self.parts_of(victim)
        frozen = self.agents.freeze(victim)
        try:
            self._measure("freeze", keys)
            time.sleep(self._random.uniform(0, 1))
        finally:
            for process in frozen:
                process.resume()

    def cut(self, victim: str, what: str = "cut") -> None:
        """Cut an agent off from the scheduler; by default not from the stream and the table: it continues to write."""
        self.wait_for_balance()
        keys = self.parts_of(victim)
        self.agents.lines[victim].cut()
        try:
            self._measure(what, keys)
            before = self._refused(victim)
            if what == "cut":
                until("the table has refused a commit", lambda: self._refused(victim) > before or before > 0)
        finally:
            self.agents.lines[victim].repair()

    def _refused(self, victim: str) -> int:
        return self.agents.log(victim).count("another writer took")

    def drain(self, victim: str) -> None:
        """Ask an agent to end, as before maintenance; start it again, and let it have its share back."""
        self.wait_for_balance()
        self._drains.append(datetime.now(UTC))
        self.agents.terminate(victim)
        until("the agent has ended", lambda: self.agents.agents[victim].poll() == 0)
        assert not self.parts_of(victim)
        self.agents.revive(victim)
        self.wait_for_balance()
        time.sleep(2)  # so that the gap of the last move is over
        self._drains.append(datetime.now(UTC))
        self.report.done["drain"] += 1

    def restart_scheduler(self) -> None:
        """Kill the scheduler and start it again, without its memory: the agents resubmit the job."""
        self.agents.kill_scheduler()
        self.agents.start_scheduler()
        until("the job is known again", self._is_known)
        self.wait_for_balance()
        self.report.done["scheduler restart"] += 1

    def _is_known(self) -> bool:
        try:
            return any(part.status for part in self.sync._snapshot().parts)
        except kn.AgentError:
            return False

    def reshard(self) -> None:
        """Split a shard, or merge two, now and then two of different parts; sometimes a few times at once."""
        for _ in range(self._random.randint(1, 3)):
            self._reshard()

    def _reshard(self) -> None:
        shards = self.streams.open_shards()
        if len(shards) <= 6 or (len(shards) < 10 and self._random.random() < 0.5):
            self.streams.split(index=self._random.randrange(len(shards)))
        else:
            self.streams.merge(
                index=self._random.choice([1, 3, 5]) if len(shards) == 8 else self._random.randrange(len(shards) - 1)
            )
        self.report.done["reshard"] += 1

    def finish(self) -> Report:
        """Let the sync catch up, stop it, and look at the table."""
        assert self.sync.wait(WAIT_SECONDS)
        verdict = self.sync.verify()
        self.sync.stop()
        rows = self.sync.scan().sort("partition_key", "shard_offset").collect()
        report = self.report
        report.rows, report.written = rows.height, len(self.streams.written)
        report.gaps = [longest_gap(rows, *drain) for drain in zip(self._drains[::2], self._drains[1::2], strict=True)]
        report.verdict = repr(verdict)
        report.is_right = bool(verdict) and by_key(rows) == written_by_key(self.streams)
        report.fenced = sum(self.agents.log(name).count("Fenced") for name in self.agents.agents)
        report.refused = sum(map(self._refused, self.agents.agents))
        return report


@contextmanager
def campaign(folder: Path, seed: int, **options: Any) -> Generator[Campaign]:
    with Emulator() as emulator, agents(folder) as running:
        yield Campaign(running, emulator, folder, seed, **options)


def everything(going: Campaign, kills: int, freezes: int, cuts: int, drains: int) -> Generator[str]:
    """Do it all, one thing after another, under load; yield what was done."""
    for number in range(drains):
        going.drain(f"agent-{1 + number % 2}")
        yield "drain"
    for number in range(kills):
        going.kill(f"agent-{1 + number % 2}", with_nanny=number % 8 > 5)
        if number % 10 == 5:
            going.reshard()
        yield "kill"
    if kills:
        going.kill_all()
    for number in range(freezes):
        going.freeze(f"agent-{1 + number % 2}")
        if number % 10 == 5:
            going.reshard()
        yield "freeze"
    for number in range(cuts):
        going.cut(f"agent-{1 + number % 2}")
        yield "cut"


def main() -> int:
    """Run everything; return 1 when a promise was broken, or too little happened to tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.agents_kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--freezes", type=int, default=50)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--drains", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the logs go; a temporary one by default")
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as temporary, campaign(options.folder or Path(temporary), 1) as going:
        report = going.report
        with load(going.streams):
            try:
                for what in everything(going, options.kills, options.freezes, options.cuts, options.drains):
                    newest = [f"{seconds:.2f} s" for seconds in report.takeovers.get(what, [])[-1:]]
                    print(what, report.done[what], *newest, flush=True)
            except (AssertionError, KeyboardInterrupt) as error:  # the rows are looked at all the same
                wrong.append(f"ended early: {error!r}")
        going.finish()
    print(report)
    wrong += report.broken
    limits = {"kill": 2.0, "freeze": TTL + 2.0, "cut": TTL + 2.0}
    for what, took in report.takeovers.items():
        if statistics.median(took) > limits[what]:
            wrong.append(f"a takeover after a {what} takes too long")
    if max(report.gaps, default=0) > LONGEST_GAP:
        wrong.append("a drain leaves too long a gap")
    for what in ("kill", "freeze", "cut", "drain"):
        if report.done[what] < getattr(options, f"{what}s"):
            wrong.append(f"too few {what}s")
    print("; ".join(wrong) or "everything held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
