"""Machines and processes with one table and one stream, and what is true about both."""

from __future__ import annotations

import errno
import os
import random
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, cast
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from kinesis_nb.core import halt, interrupt, running
from kinesis_nb.core import process as process_module
from kinesis_nb.core.running import Registry
from kinesis_nb.core.selection import EVERYTHING, Selection, Where
from kinesis_nb.core.shards import Shard
from kinesis_nb.core.transport import ServerTime
from kinesis_nb.errors import ServiceError, TableError
from kinesis_nb.reading import buffer, plan, scheduler
from kinesis_nb.syncing import committer, lease, signals, sync, upkeep
from kinesis_nb.syncing import start as sync_start
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table import deltalog, storage, table
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.simulation.life.disk import Disk
from tests.simulation.life.fibers import Fiber, Fibers, Group, OfFiber, Threading, Time
from tests.simulation.reader import KEYS, STREAM, World
from tests.support.virtual import VirtualClock, VirtualKinesis

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from deltalake import Schema

    from kinesis_nb.core.transport import Kinesis
    from kinesis_nb.syncing.sync import Sync
    from tests.support.kpl import Row

_WITHIN = 0.3  # seconds that a response of the storage takes at most
THIRD = 3  # each of these numbers is not kept where the sync of a world has an expression
_CHOICES = ("shards", "key", "where")
Record = tuple[str, int]  # its key, and its number among those of that key


@dataclass
class Cell:
    """A call that somebody made in a process, and what came of it."""

    name: str
    fiber: Fiber | None = None
    is_done: bool = False
    value: Any = None
    error: BaseException | None = None
    is_calm: bool = False  # whether nothing failed any more when it was made


class LifeClock(VirtualClock):
    """The clocks of one machine: what somebody set it to, and one that nobody can set."""

    def __init__(self, world: Life, machine: Machine) -> None:
        super().__init__(world.manual)
        self._world, self._machine = world, machine
        self._random = world.random

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.manual.now() + self._machine.offset, UTC)

    def sleep(self, seconds: float) -> None:
        self._world.fibers.wait(None, seconds)


class LifeKinesis(VirtualKinesis):
    """The stream as one process reaches it."""

    def __init__(self, world: Life, clock: LifeClock) -> None:
        super().__init__(world.model, clock)
        self._world = world

    def _call(self, operation: str, **params: Any) -> dict[str, Any]:
        self.calls.clear()
        if self._world.chance(0.01):
            self._world.happened[f"stream: {operation} fails"] += 1
            raise ServiceError("the service is away", retryable=True)
        return super()._call(operation, **params)

    def server_time(self) -> ServerTime:
        now = datetime.fromtimestamp(self.clock.manual.now(), UTC)
        return ServerTime(now, now)


def whole(kinesis: LifeKinesis) -> Kinesis:
    """Return it as what a process has: a sync asks for nothing but what is read."""
    return cast("Kinesis", kinesis)


class LifeStorage(Storage):
    """The folder as one process reaches it: slow, failing, and where its life may end."""

    process: Process
    can_fence = True

    @classmethod
    def at(cls, table: str | os.PathLike[str], options: Callable[[], Mapping[str, str]] = dict) -> LifeStorage:
        storage = super().at(table, options)
        assert isinstance(storage, LifeStorage)
        return storage

    def check_fencing(self) -> None:
        """Refuse a store that writes over what is there, as the probe of a real one does."""
        if not self.can_fence:
            raise TableError(f"{self.uri}: this object store has no conditional writes")
        super().check_fencing()

    def _around(self, name: str, call: Callable[[], Any], *, writes: bool = False) -> Any:
        world = self.process.world
        world.at(self.process, f"before {name}", writes=writes)
        found = call()
        world.at(self.process, f"after {name}", writes=writes)
        return found

    def open(self, version: int | None = None) -> Any:
        return self._around("open", lambda: super(LifeStorage, self).open(version))

    def has(self, name: str) -> bool:
        return bool(self._around("look", lambda: super(LifeStorage, self).has(name)))

    def write(self, name: str, body: bytes) -> None:
        if name.startswith(storage.LEASE_FOLDER) and self.process.world.is_note_unwritable:
            self.process.world.count("note unwritable")
            raise OSError(errno.EACCES, "Permission denied")
        self._around("write", lambda: super(LifeStorage, self).write(name, body), writes=True)

    def write_parquet(self, rows: pa.Table, table_id: str = "") -> tuple[str, int]:
        return self._around(
            "rows", lambda: self._stamped(super(LifeStorage, self).write_parquet(rows, table_id)), writes=True
        )

    def merge_parquet(self, names: Iterable[str], schema: Schema, table_id: str = "") -> tuple[str, int, int]:
        def merge() -> tuple[str, int, int]:
            return self._stamped(super(LifeStorage, self).merge_parquet(names, schema, table_id))

        return self._around("merge", merge, writes=True)

    def _stamped(self, made: Any) -> Any:
        self.process.world.stamp(self.process.world.place / made[0])
        return made

    def make_durable(self, versions: range) -> None:
        self._around("fsync", lambda: super(LifeStorage, self).make_durable(versions))

    def make_all_durable(self, version: int) -> None:
        self._around("fsync of all", lambda: super(LifeStorage, self).make_all_durable(version))

    def checkpoint_log(self, table: DeltaTable) -> None:
        self._around("checkpoint", lambda: super(LifeStorage, self).checkpoint_log(table), writes=True)

    def data_files(self) -> Any:
        return self._around("files", super().data_files)


@dataclass
class Machine:
    """A host."""

    name: str
    offset: float = 0.0  # of its wall clock, in seconds
    boots: int = 1
    processes: dict[int, Process] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Its name and boot, as the lease names them."""
        return f"{self.name}/boot-{self.boots}"


class Process(Group):
    """One process of one machine: a notebook, in which somebody runs cells."""

    def __init__(self, world: Life, machine: Machine, pid: int) -> None:
        super().__init__(f"process {pid} on {machine.name}")
        self.world, self.machine, self.pid = world, machine, pid
        self.clock = LifeClock(world, machine)
        self.kinesis = LifeKinesis(world, self.clock)
        self.registry: Registry[Sync] = Registry()
        self.doom: tuple[int, Callable[[], None]] | None = None  # after so many steps of the storage
        self.cell: Cell | None = None
        self.options: dict[str, Any] = {}  # of its newest line
        self.syncs: list[Sync] = []  # in the order of the calls that made them

    def storage(self) -> LifeStorage:
        made = LifeStorage.at(self.world.place)
        made.process = self
        return made

    def run(self, name: str, work: Callable[[], Any]) -> Cell:
        """Begin a cell; it goes on while the world runs."""
        cell = Cell(name, is_calm=self.world.is_calm)

        def body() -> None:
            try:
                cell.value = work()
            except Exception as error:  # noqa: BLE001 - what a cell shows
                cell.error = error
            except KeyboardInterrupt as error:
                cell.error = error
            finally:
                cell.is_done = True

        cell.fiber = self.world.fibers.spawn(self, name, body)
        self.cell = cell
        self.world.note(f"{self}: {name}")
        return cell

    @property
    def is_busy(self) -> bool:
        """Whether a cell runs."""
        return self.cell is not None and not self.cell.is_done

    def kill(self) -> None:
        """End it by force."""
        self.machine.processes.pop(self.pid, None)
        self.world.note(f"{self}: dies")
        self.world.fibers.end_group(self)


class Syncs:
    """Stands where the package keeps what runs in its process."""

    def __init__(self, world: Life) -> None:
        self._world = world

    def start(self, *what: Any) -> Any:
        """Start one in the process that runs."""
        return self._world.running.registry.start(*what)

    def get(self, key: Any) -> Any:
        """Return the one of the process that runs."""
        return self._world.running.registry.get(key)


class Life(World):
    """One seed."""

    threaded: ClassVar[tuple[Any, ...]] = (
        buffer,
        committer,
        plan,
        halt,
        running,
        scheduler,
        signals,
        sync,
        upkeep,
    )

    def __init__(self, seed: int, root: Path) -> None:
        super().__init__(seed)
        self.seed = seed
        # by the real clock, which deltalake looks at, the log is some hours old or from the future
        self.began = (time.time() // 86_400 + seed % 2) * 86_400.0
        self.manual.advance(self.began - self.manual.now())
        self.fibers = Fibers(self.manual, self.random)
        self.root = root / "disk"
        self.root.mkdir()
        self.place = self.root / "a table"
        self.disk = Disk(self.root, root / "shadow", self.random)
        self.machines = [Machine(f"host-{number}") for number in range(self.random.randint(1, 3))]
        self._pids = 0
        self.storm = 0.0  # share of the storage's responses that fail
        self.is_disk_full = self.is_note_unwritable = False
        self.stalled: list[tuple[Path, bytes]] = []  # entries of the log that are still on their way
        self.erased: set[Record] = set()  # by somebody's DELETE
        self.trimmed_before = 0.0  # what arrived before that may have left the stream
        self.retention = 24
        self.shard_of: dict[Record, str] = {}
        self.parents: dict[str, set[str]] = {}  # of every shard that there ever was
        self.is_cut_due = False  # the power fails now
        self.trimmed_at_start = 0.0
        self.selection = EVERYTHING  # of the sync
        self._read: tuple[int, set[str]] = (0, set())

    # --- what its sync keeps

    def select(self, chooser: random.Random) -> None:
        """Choose what the sync of this world keeps; often everything."""
        ids = [shard["ShardId"] for shard in self.listings[-1]]
        where = Where.of(pl.col("data").cast(pl.Int64) % THIRD != 0)
        self.selection = chooser.choice(
            [
                *[EVERYTHING] * 3,
                Selection(where=where),
                Selection(key=chooser.choice(KEYS)),
                Selection(key=chooser.choice(KEYS), where=where),
                Selection(shards=frozenset(chooser.sample(ids, chooser.randint(1, len(ids))))),
            ]
        )
        self.count(f"selection: {' and '.join(name for name in _CHOICES if getattr(self.selection, name)) or 'all'}")

    def is_read(self, key: str, number: int) -> bool:
        """Whether a record is in a shard that the sync reads."""
        return self.shard_of[key, number] in self.read_shards

    def is_kept(self, key: str, number: int) -> bool:
        """Whether a record belongs into the table."""
        chosen = self.selection
        is_let_through = chosen.where is None or number % THIRD != 0
        return self.is_read(key, number) and chosen.key in {None, key} and is_let_through

    @property
    def read_shards(self) -> set[str]:
        """The shards that the sync reads, of all that there ever were."""
        count, found = self._read
        if count == len(self.listings):
            return found
        ranges = {shard["ShardId"]: shard["HashKeyRange"] for listing in self.listings for shard in listing}
        sides = "StartingHashKey", "EndingHashKey"
        shards = (Shard(name, (), (int(span[sides[0]]), int(span[sides[1]]))) for name, span in ranges.items())
        self._read = len(self.listings), {shard.shard_id for shard in shards if self.selection.wants(shard)}
        return self._read[1]

    @property
    def is_read_out(self) -> bool:
        """Whether the sync reads a few shards, and all of them are closed: then it ends by itself."""
        open_ones = {s["ShardId"] for s in self.listings[-1] if "EndingSequenceNumber" not in s["SequenceNumberRange"]}
        return self.selection.shards is not None and self.selection.shards.isdisjoint(open_ones)

    # --- who is there

    @property
    def running(self) -> Process:
        """The process whose turn it is."""
        assert self.fibers.current is not None
        group = self.fibers.current.group
        assert isinstance(group, Process)
        return group

    @property
    def processes(self) -> list[Process]:
        """Those that live, in the order in which they began."""
        living = [process for machine in self.machines for process in machine.processes.values()]
        return sorted(living, key=lambda process: process.pid)

    def begin_process(self, machine: Machine | None = None) -> Process:
        """Start a process."""
        self._pids += 1
        machine = machine or self.random.choice(self.machines)
        process = Process(self, machine, self._pids)
        machine.processes[process.pid] = process
        return process

    def ask(self, work: Callable[[], Any]) -> Any:
        """Do something with the package that is no move of the game, and return what it gives."""
        was_calm, self.is_calm = self.is_calm, True
        auditor = Process(self, Machine("auditor"), 0)
        cell = auditor.run("look", work)
        self.fibers.run(60.0, lambda: cell.is_done)
        self.is_calm = was_calm
        if cell.error is not None:
            raise cell.error
        return cell.value

    # --- what happens at a step of the storage

    def at(self, process: Process, step: str, *, writes: bool) -> None:
        """Let time pass, and let happen what chance wants."""
        if process.machine.name == "auditor":
            return
        self.pause(process, step)
        if writes and self.is_disk_full:
            self.count("disk full")
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.storm and self.chance(self.storm):
            self.count(f"storage: {step}, fails")
            raise OSError(errno.EIO, "Input/output error")

    def pause(self, process: Process, step: str) -> None:
        """Let time pass; a process may end here."""
        if process.doom is not None:
            left, strike = process.doom
            process.doom = (left - 1, strike) if left else None
            if not left:
                self.note(f"{process}: {step}")
                strike()
        if self.chance(0.15):
            self.fibers.wait(None, self.random.uniform(0, _WITHIN))

    def commit(self, process: Process | None, folder: Path, write: Callable[[], None]) -> None:
        """Let a process write an entry of the log: it may get there later than its writer waits, or never."""
        if process is None or process.machine.name == "auditor":
            write()
            return
        self.at(process, "before commit", writes=True)
        before = set(folder.glob("*.json"))
        write()
        new = list(set(folder.glob("*.json")) - before)
        for path in new:
            self.stamp(path)
        if len(new) == 1 and self.storm and self.chance(self.storm):
            self.stalled.append((new[0], new[0].read_bytes()))
            new[0].unlink()
            self.count("storage: commit stalls")
            raise OSError(errno.ETIMEDOUT, "Connection timed out")
        self.at(process, "after commit", writes=False)

    def stamp(self, path: Path) -> None:
        """Let a file be of this moment, by the clock of the file server: it is right."""
        os.utime(path, (self.manual.now(), self.manual.now()))

    def land(self) -> None:
        """Let an entry that was on its way arrive, unless its name is taken: the storage refuses it then."""
        path, body = self.stalled.pop(self.random.randrange(len(self.stalled)))
        if path.exists() or not path.parent.exists():
            self.count("stalled commit refused")
        else:
            path.write_bytes(body)
            self.count("stalled commit lands")

    # --- the stream

    def put(self) -> None:
        """Write a few records, or an aggregate as a KPL does, whose map of the shards may be stale."""
        if self.random.random() < 0.2:
            self._put_by_kpl()
            return
        records: list[dict[str, Any]] = []
        for _ in range(self.random.randint(1, 8)):
            key = self.random.choice(KEYS)
            self.arrivals[key].append(self.now_ms())
            records.append({"PartitionKey": key, "Data": str(len(self.arrivals[key])).encode()})
        answer = self.call("PutRecords", StreamName=STREAM, Records=records)
        for record, told in zip(records, answer["Records"], strict=True):
            self.shard_of[record["PartitionKey"], int(record["Data"])] = told["ShardId"]
        self.note("put " + " ".join(f"{r['PartitionKey'][4:]}:{r['Data'].decode()}" for r in records))

    def wrote(self, shard_id: str, rows: list[Row]) -> None:
        """Take note of where user records of a KPL are for good."""
        self.shard_of |= {(key, int(data)): shard_id for key, _, data in rows}

    def reshard(self) -> None:
        """Split, merge or rescale."""
        super().reshard()
        for shard in self.listings[-1]:
            names = ("ParentShardId", "AdjacentParentShardId")
            self.parents[shard["ShardId"]] = {shard[name] for name in names if name in shard}

    def is_kin(self, one: str, other: str) -> bool:
        """Whether one shard is the other, or came out of it over any number of generations."""
        return one == other or one in self.ancestors(other) or other in self.ancestors(one)

    def ancestors(self, shard_id: str) -> set[str]:
        """Return the shards that a shard came out of."""
        found: set[str] = set()
        left = [shard_id]
        while left:
            new = self.parents.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    # --- time

    def leap(self, seconds: float) -> None:
        """Let time pass for everybody at once, as when a machine sleeps."""
        self.manual.advance(seconds)
        self.trim()

    def trim(self) -> None:
        """Take in what may have left the stream by now."""
        self.trimmed_before = max(self.trimmed_before, self.manual.now() - self.retention * 3600)

    def set_retention(self, hours: int) -> None:
        """Change how long the stream keeps its records."""
        self.trim()
        word = "Increase" if hours > self.retention else "Decrease"
        self.call(f"{word}StreamRetentionPeriod", StreamName=STREAM, RetentionPeriodHours=hours)
        self.retention = hours
        self.trim()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.manual.now() - getattr(self, 'began', 1_700_000_000):10.3f}  {text}")

    # --- what is true

    def rows(self, version: int | None = None) -> list[tuple[str, int, int, str]]:
        """Return the rows of the table: key, shard_offset, number, shard; in the order that readers are promised."""
        found = DeltaTable(self.place, version)
        names = pa.table(found.get_add_actions())["path"].to_pylist()
        columns = ["partition_key", "shard_offset", "data", "shard_id"]
        unpartitioned: Any = None  # what read_table() takes is guessed from its defaults
        tables = [pq.read_table(self.place / name, columns=columns, partitioning=unpartitioned) for name in names]
        if not tables:
            return []
        lists = ([value for one in tables for value in one.column(name).to_pylist()] for name in columns)
        found_rows = zip(*lists, strict=True)
        return sorted((key, offset, int(text), shard) for key, offset, text, shard in found_rows)

    # --- the package on this world

    @contextmanager
    def installed(self) -> Generator[None]:
        """Let the package run on the fibers, the clocks and the disk of this world."""
        threads, spent = Threading(self.fibers), Time(self.fibers, self._wall_clock)
        random.seed(self.seed)
        drawn = random.Random(self.seed)
        with ExitStack() as stack:

            def replace(*what: Any) -> None:
                stack.enter_context(patch.object(*what))

            for module in self.threaded:
                replace(module, "threading", threads)
            replace(interrupt, "threading", threads)
            replace(interrupt, "POLL_SECONDS", inf)  # the interrupts of this world break off any wait
            for module in (table, storage, deltalog, interrupt):
                replace(module, "time", spent)
            replace(scheduler, "Halt", threads.Halt)
            replace(halt, "_of_thread", OfFiber(self.fibers))
            replace(upkeep, "SystemClock", lambda: self.running.clock)
            replace(upkeep, "EVERY", 12)
            replace(upkeep, "VACUUM_EVERY", 2)
            replace(upkeep, "LARGE_EVERY", 3)
            replace(lease, "_host", lambda: self.running.machine.host)
            replace(lease, "_started", self._started)
            replace(os, "getpid", lambda: self.running.pid if self.fibers.current else 0)
            replace(os, "fsync", self.fsync)
            replace(uuid, "uuid4", lambda: uuid.UUID(int=drawn.getrandbits(128), version=4))
            replace(sync_start, "_syncs", Syncs(self))
            replace(process_module, "check_process", lambda _made_in: None)  # the simulation looks from outside
            replace(process_module, "_threads_of", {})  # what ran in a simulated process says nothing of this one
            _around_commits(replace, self)
            try:
                yield
            finally:
                self.fibers.close()

    def fsync(self, descriptor: int) -> None:
        """Stand where `os.fsync` does."""
        self.disk.fsync(descriptor)

    def _wall_clock(self) -> float:
        offset = self.running.machine.offset if self.fibers.current else 0.0
        return self.manual.now() + offset

    def _started(self, pid: int) -> str:
        return str(pid) if pid in self.running.machine.processes else ""


def _around_commits(replace: Callable[..., Any], world: Life) -> None:
    write, commit = SyncTable._write, Maintenance._commit

    def played_write(self: SyncTable, *what: Any) -> None:
        world.commit(_of(self.storage), world.place / storage.LOG, lambda: write(self, *what))

    def played_commit(self: Maintenance, *what: Any) -> None:
        world.commit(_of(self._storage), world.place / storage.LOG, lambda: commit(self, *what))

    replace(SyncTable, "_write", played_write)
    replace(Maintenance, "_commit", played_commit)


def _of(place: Storage) -> Process | None:
    return place.process if isinstance(place, LifeStorage) else None


__all__ = ["KEYS", "STREAM", "Cell", "Life", "Machine", "Process", "Record"]
