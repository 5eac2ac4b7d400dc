"""What happens to the machines, the processes, the storage and the stream of one world."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.selection import Selection
from kinesis_nb.errors import KinesisError, TableError
from kinesis_nb.syncing.start import open_table, start_part, start_sync, sync_feed
from kinesis_nb.syncing.sync import RunPart
from kinesis_nb.table.storage import LEASE_FOLDER, LOG, Storage
from tests.simulation.life.world import KEYS, STREAM, Cell, Life, LifeStorage, Process, whole
from tests.simulation.reader import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.syncing.sync import Sync

MOST_PROCESSES = 4
MOST_SHARDS = 4
HAS_END = 0.15  # share of the lines
DAY = 86_400.0
YEAR = 365 * DAY
MINE = {  # what somebody keeps in the folder of the table
    "notes.csv": b"a,b\n1,2\n",
    "prices.parquet": b"not even Parquet",
    "part-00000000-0000-4000-8000-000000000000.parquet": b"PAR1 by its name ours, by its content not PAR1",
    "Untitled.ipynb": b"{}",
}


class Moves:
    """Everything that may happen in a world."""

    def __init__(self, life: Life) -> None:
        self.life, self.random = life, life.random
        self.start = self.random.choice(
            [
                StartingPosition.trim_horizon(),
                StartingPosition.latest(),
                StartingPosition.at(life.time_at(life.now_ms())),
            ]
        )
        self.is_decorated = False
        life.select(self.random)
        self.ends = True  # whether a line may have an end
        self.refused: Cell | None = None
        self._runs = 0
        self._note: bytes | None = None
        self._then: list[tuple[float, Callable[[], object]]] = []  # what ends by itself

    def all(self) -> dict[Callable[[], object], int]:
        """Return the moves with their weights."""
        return {
            self.line: 8,
            self.line_again: 3,
            self.line_with_other_options: 3,
            self.line_elsewhere: 6,
            self.line_with_another_selection: 2,
            self.parts: 2,
            self.stop: 2,
            self.interrupt: 3,
            self.kill: 4,
            self.freeze: 4,
            self.cut: 5,
            self.clock_step: 3,
            self.optimize: 3,
            self.delete: 3,
            self.vacuum: 2,
            self.add_column: 1,
            self.comment: 1,
            self.set_property: 1,
            self.folder_gone: 1,
            self.log_gone: 1,
            self.disk_full: 2,
            self.reshard: 3,
            self.reshards_while_stopped: 2,
            self.retention_passes: 2,
            self.retention_lowered: 2,
            self.retention_raised: 1,
            self.note_unwritable: 1,
            self.note_damaged: 2,
            self.storm: 5,
            self.store_without_fence: 1,
        }

    def play(self) -> None:
        """Make one move, and let everybody go on for a while."""
        moves = self.all()
        move = self.random.choices(list(moves), list(moves.values()))[0]
        if move() is not False:
            self.life.count(f"move: {_words(move)}")
        self.run(self.random.choice([0.2, 1.0, 3.0, 8.0]))

    def run(self, seconds: float) -> None:
        """Let time pass; somebody may write to the stream meanwhile."""
        end = self.life.manual.now() + seconds
        while (left := end - self.life.manual.now()) > 0:
            if self.random.random() < 0.5:
                self.life.put()
            self.life.fibers.run(min(left, 1.5), lambda: self.life.is_cut_due)
            if self.life.is_cut_due:
                self._cut()
            self._end_what_is_due()

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        self._then.append((self.life.manual.now() + seconds, action))

    def _end_what_is_due(self, *, everything: bool = False) -> None:
        now = self.life.manual.now()
        due = [(at, action) for at, action in self._then if everything or at <= now]
        self._then = [one for one in self._then if one not in due]
        for _, action in due:
            action()
        if self.life.stalled and (everything or self.random.random() < 0.3):
            self.life.land()

    def calm_down(self) -> None:
        """End whatever fails."""
        self._end_what_is_due(everything=True)
        while self.life.stalled:
            self.life.land()
        self.life.is_calm, self.life.storm = True, 0.0
        for process in self.life.processes:
            process.frozen_until = min(process.frozen_until, self.life.manual.now())
            process.doom = None
        self.life.note("calm")

    # --- lines

    def options(self) -> dict[str, Any]:
        now = self.life.now_ms() + self.random.choice([0, 0, 2_000])
        has_end = self.ends and not self.life.is_calm and self.random.random() < HAS_END
        return {
            "commit_interval": self.random.choice([0.5, 1.0, 2.0]),
            "on_data_loss": self.random.choice(["fail", "warn", "warn"]),
            **({"end": self.life.time_at(now)} if has_end else {}),
        }

    def begin(self, process: Process, options: dict[str, Any], name: str = "line") -> Cell:
        """Run the line in a process."""
        storage = process.storage()
        process.options = options
        chosen = dict(options)
        selection, end = chosen.pop("selection", self.life.selection), chosen.pop("end", None)

        def line() -> Sync:
            start = StartingPosition.parse(self.start, process.kinesis.server_time().earliest)
            feed = sync_feed(whole(process.kinesis), STREAM, process.clock, selection, end=end)
            return start_sync(feed, storage, start, **chosen)

        return process.run(f"{name} {options}", line)

    def _idle(self) -> list[Process]:
        now = self.life.manual.now()
        return [one for one in self.life.processes if not one.is_busy and one.frozen_until <= now]

    def _syncing(self) -> list[Process]:
        return [one for one in self._idle() if one.syncs and one.syncs[-1].is_active and one.options]

    @property
    def _is_away(self) -> bool:
        return bool(self._then) and not (self.life.place / LOG).exists()

    def line(self) -> object:
        if self._is_away:
            return False
        idle = self._idle()
        if len(self.life.processes) < MOST_PROCESSES and (not idle or self.random.random() < 0.5):
            idle = [self.life.begin_process()]
        return self.begin(self.random.choice(idle), self.options()) if idle else False

    def line_again(self) -> object:
        if self._is_away or not (found := self._syncing()):
            return False
        process = self.random.choice(found)
        return self.begin(process, dict(process.options), "the same line")

    def line_with_other_options(self) -> object:
        if self._is_away or not (found := self._syncing()):
            return False
        process = self.random.choice(found)
        options = self.options()
        options["commit_interval"] += 0.25
        return self.begin(process, options, "the line with other options")

    def line_elsewhere(self) -> object:
        if self._is_away or not self._syncing() or len(self.life.processes) >= MOST_PROCESSES:
            return False
        process = self.life.begin_process()
        others = {one.machine.name for one in self.life.processes if one is not process}
        if process.machine.name not in others:
            self.life.count("move: line on another machine")
        return self.begin(process, self.options())

    def line_with_another_selection(self) -> object:
        """Run the line with another selection: it is refused, and nothing ends that runs."""
        if self._is_away or not (found := self._syncing()) or len(self.life.processes) >= MOST_PROCESSES:
            return False
        process = self.random.choice([*found, self.life.begin_process()])
        kept, options = process.options, self.options()
        before = [sync for sync in process.syncs if sync.is_active]
        cell = self.begin(process, options | {"selection": Selection(key="of nobody")}, "the line, selecting otherwise")
        process.options = kept
        self.life.fibers.run(30.0, lambda: cell.is_done or self.life.is_cut_due)
        if cell.is_done and not isinstance(cell.error, KinesisError):
            raise Violation(f"a line with another selection is not refused: {cell.error!r}")
        if isinstance(cell.error, TableError) and any(
            sync._signals.is_stopping for sync in before if not sync._feed.end
        ):
            raise Violation("a line that is refused ends the sync that runs")
        return isinstance(cell.error, TableError)

    def store_without_fence(self) -> object:
        """Run the line on a store that cannot compare and swap: it is refused, and nothing is written there."""
        process = self.life.begin_process()
        storage = LifeStorage.at(self.life.root / "elsewhere")
        storage.process, storage.can_fence = process, False

        def line() -> Sync:
            start = StartingPosition.parse(self.start, process.kinesis.server_time().earliest)
            options = self.options()
            feed = sync_feed(whole(process.kinesis), STREAM, process.clock, end=options.pop("end", None))
            return start_sync(feed, storage, start, **options)

        self.refused = process.run("line on a store without a fence", line)
        return True

    def check_refused(self) -> None:
        """Check that a store without a fence was refused."""
        cell = self.refused
        if cell is None or not cell.is_done:
            return
        if not isinstance(cell.error, KinesisError) or (self.life.root / "elsewhere" / LOG).exists():
            raise Violation(f"a store without a fence is not refused: {cell.error!r}")

    def parts(self) -> object:
        """Start a run of two or three writers, each with some of the shards."""
        if self._is_away or len(self.life.processes) >= MOST_PROCESSES:
            return False
        self._runs += 1
        run, count = f"run-{self._runs}", self.random.randint(2, 3)
        for number in range(count):
            self._part(self.life.begin_process(), run, number, count)
        return True

    def _part(self, process: Process, run: str, number: int, count: int) -> None:
        def is_wanted(shard: Shard) -> bool:
            return int(shard.shard_id[-12:]) % count == number

        def line() -> Sync:
            start = StartingPosition.parse(self.start, process.kinesis.server_time().earliest)
            feed = sync_feed(whole(process.kinesis), STREAM, process.clock, self.life.selection)
            table, part = open_table(feed, process.storage(), start), RunPart(run, number, is_wanted)
            return start_part(feed, table, part, commit_interval=1.0, on_data_loss="warn")

        process.run(f"part {number} of {count} of {run}", line)

    def stop(self) -> object:
        if not (found := self._syncing()):
            return False
        process = self.random.choice(found)
        return process.run("stop", process.syncs[-1].stop)

    def interrupt(self) -> object:
        """Interrupt a line in the middle."""
        if self.line() is False:
            return False
        process = max((one for one in self.life.processes if one.is_busy), key=lambda one: one.pid, default=None)
        if process is None:
            return False
        cell = process.cell

        def strike() -> None:
            if cell is None or cell.is_done or cell.fiber is None:
                return
            self.life.count("interrupted")
            if self.life.fibers.current is cell.fiber:
                raise KeyboardInterrupt
            cell.fiber.error = KeyboardInterrupt()

        process.doom = self.random.randint(0, 12), strike
        return True

    # --- processes and machines

    def kill(self) -> object:
        if not (found := self.life.processes):
            return False
        process = self.random.choice(found)
        if self.random.random() < 0.4:
            process.kill()
        else:
            process.doom = self.random.randint(0, 30), process.kill
        return True

    def freeze(self) -> object:
        if not (found := self.life.processes):
            return False
        process, seconds = self.random.choice(found), self.random.choice([2.0, 6.0, 15.0, 40.0])

        def strike() -> None:
            process.frozen_until = self.life.manual.now() + seconds
            self.life.note(f"{process}: freezes for {seconds:.0f} s")
            self.life.fibers.wait(None, 0.0)

        if self.random.random() < 0.4:
            process.frozen_until = self.life.manual.now() + seconds
        else:
            process.doom = self.random.randint(0, 30), strike
        return True

    def cut(self) -> object:
        """Cut the power of all machines, now or in the middle of what a process does with the disk."""
        if self._is_away or not (found := self.life.processes):
            return False

        def strike() -> None:
            self.life.is_cut_due = True
            self.life.fibers.wait(None, 0.0)

        self.random.choice(found).doom = self.random.randint(0, 40), strike
        return True

    def _cut(self) -> None:
        """Cut the power of all machines, those of the disk included."""
        self.life.is_cut_due = False
        if self._is_away:
            return
        self.life.count("power is cut")
        reported = self._reported()
        for process in self.life.processes:
            process.kill()
        for machine in self.life.machines:
            machine.boots += 1
        self.life.stalled.clear()
        for what in self.life.disk.cut():
            self.life.happened[f"cut: {what.rpartition(' ')[2]}"] += 1
            self.life.note(f"cut: {what}")
        self._check(reported)

    def _reported(self) -> set[tuple[str, int]]:
        """Return the rows of the newest version that some process has told of."""
        versions = [one._intake.snapshot().version for process in self.life.processes for one in process.syncs]
        if not versions:
            return set()
        try:
            return {(key, number) for key, _, number, _ in self.life.rows(max(versions))}
        except (DeltaError, OSError):  # cleaned up, or torn
            return set()

    def _check(self, reported: set[tuple[str, int]]) -> None:
        """Check that what was reported is there, as the next process that opens the table would see it."""
        if not reported:
            return

        def look() -> None:
            storage = Storage.at(self.life.place)
            storage.settle()
            storage.open()

        try:
            self.life.ask(look)
            there = {(key, number) for key, _, number, _ in self.life.rows()}
        except (DeltaError, OSError, ValueError) as error:
            raise Violation(f"after a power cut the table does not open: {error!r}") from error
        if gone := reported - there - self.life.erased:
            raise Violation(f"reported, and gone after a power cut: {sorted(gone)[:5]} and {len(gone) - 1} more")

    def clock_step(self) -> object:
        machine = self.random.choice(self.life.machines)
        step = self.random.choice([-2 * DAY, -300.0, -2.0, 2.0, 300.0, 2 * DAY, 14 * YEAR, -machine.offset])
        machine.offset += step
        if abs(machine.offset) > YEAR:
            self.life.count("move: clock years ahead")
        self.life.note(f"{machine.name}: its clock goes by {step:+,.0f} s")
        return True

    # --- others who write the table

    def _foreign(self, action: Callable[[DeltaTable], object]) -> object:
        if not (self.life.place / LOG).exists() or self._has_a_torn_end():
            return False  # what delta-rs commits behind a torn entry makes it part of the table, which is refused then
        before = set(self.life.place.iterdir())
        try:
            action(DeltaTable(self.life.place))
        except (DeltaError, OSError, ValueError) as error:
            self.life.note(f"somebody else fails: {str(error)[:200]}")
            return False
        for path in set(self.life.place.iterdir()) - before:
            self.life.stamp(path)
        self.life.disk.sync_all()
        return True

    def _has_a_torn_end(self) -> bool:
        """Whether a power cut tore the newest entry, and no process of ours has cancelled it yet."""
        try:
            lines = max((self.life.place / LOG).glob("*.json")).read_bytes().splitlines()
            return not [json.loads(line) for line in lines]
        except ValueError:
            return True

    def optimize(self) -> object:
        return self._foreign(lambda table: table.optimize.compact())

    def delete(self) -> object:
        """Erase some keys, as somebody does whom the law obliges."""
        keys = self.random.sample(KEYS, 2)

        def erase(table: DeltaTable) -> None:
            there = {(key, number) for key, _, number, _ in self.life.rows(table.version()) if key in keys}
            table.delete(f"partition_key IN ('{keys[0]}', '{keys[1]}')")
            self.life.erased |= there
            self.life.note(f"{len(there)} rows of {keys} are erased")

        return self._foreign(erase)

    def vacuum(self) -> object:
        return self._foreign(lambda table: table.vacuum(dry_run=False, full=False))

    def add_column(self) -> object:
        name = f"extra_{self.random.randint(0, 3)}"
        field = pa.schema([pa.field(name, pa.string())])

        def add(table: DeltaTable) -> None:
            from deltalake import Schema

            if name in {one.name for one in table.schema().fields}:
                raise ValueError(name)
            table.alter.add_columns(Schema.from_arrow(field).fields)

        return self._foreign(add)

    def comment(self) -> object:
        return self._foreign(lambda table: table.alter.set_table_description("the orders, by the billing team"))

    def set_property(self) -> object:
        return self._foreign(lambda table: table.alter.set_table_properties({"delta.checkpointInterval": "7"}))

    def decorate(self) -> None:
        """Leave other people's files in the folder, and a table in a folder below."""
        if self.is_decorated or not (self.life.place / LOG).exists():
            return
        self.is_decorated = True
        for name, body in MINE.items():
            (self.life.place / name).write_bytes(body)
        write_deltalake(self.life.place / "archive", pa.table({"x": [1, 2, 3]}))
        self.life.disk.sync_all()

    def mine(self) -> dict[str, bytes]:
        """Return what is left of them."""
        if not self.is_decorated:
            return {}
        below = self.life.place / "archive"
        found = {name: (self.life.place / name).read_bytes() for name in MINE if (self.life.place / name).exists()}
        rows = DeltaTable(below).to_pyarrow_table().column("x").to_pylist() if below.exists() else []
        return found | {"archive": json.dumps(sorted(rows)).encode()}

    # --- the storage

    def folder_gone(self) -> object:
        return self._gone("")

    def log_gone(self) -> object:
        return self._gone(LOG)

    def _gone(self, name: str) -> object:
        path = self.life.place / name if name else self.life.place
        if self._is_away or not (path / ("" if name else LOG)).exists():
            return False
        aside = self.life.root / "aside"
        path.rename(aside)

        def put_back() -> None:
            if path.exists():
                left = [entry for _, _, names in os.walk(path) for entry in names]
                self.life.count("written where the table was")
                self.life.note(f"written where the table was: {left}")
                shutil.rmtree(path)
            aside.rename(path)
            self.life.note("the folder is back")
            self.life.disk.sync_all()

        self._later(self.random.choice([1.0, 4.0, 20.0]), put_back)
        return True

    def disk_full(self) -> object:
        self.life.is_disk_full = True

        def free() -> None:
            self.life.is_disk_full = False

        self._later(self.random.choice([2.0, 10.0]), free)
        return True

    def storm(self) -> object:
        self.life.storm = self.random.choice([0.02, 0.06, 0.15])

        def clear() -> None:
            self.life.storm = 0.0

        self._later(self.random.choice([5.0, 15.0]), clear)
        return True

    def note_unwritable(self) -> object:
        self.life.is_note_unwritable = True

        def allow() -> None:
            self.life.is_note_unwritable = False

        self._later(self.random.choice([5.0, 20.0]), allow)
        return True

    def note_damaged(self) -> object:
        """Bring an old note back, or damage the one that is there."""
        path = self.life.place / LEASE_FOLDER / "owner.json"
        if not path.is_file():
            return False
        body = path.read_bytes()
        kind = self.random.choice(["stale", "torn", "zeros", "nonsense"])
        nonsense = b'{"turn": "x", "pid": -1}'
        torn = body[: len(body) // 2]
        path.write_bytes({"stale": self._note or torn, "torn": torn, "zeros": bytes(9), "nonsense": nonsense}[kind])
        self._note = self._note or body
        self.life.count(f"note: {kind}")
        return True

    # --- the stream

    def reshard(self) -> object:
        self.life.reshard()
        return True

    def _stop_all(self) -> None:
        for process in self._syncing():
            process.run("stop", process.syncs[-1].stop)
        self.run(4.0)

    def reshards_while_stopped(self) -> object:
        self._stop_all()
        for _ in range(self.random.randint(2, 4)):
            self.life.put()
            self.life.reshard()
            self.life.put()
            self.life.leap(self.random.choice([1.0, 30.0, 5 * 3600.0]))
        return True

    def retention_passes(self) -> object:
        """Let more time pass than the stream keeps its records, with reshards on the way."""
        if self.random.random() < 0.7:
            self._stop_all()
        self.life.put()
        for _ in range(self.random.randint(0, 3)):
            self.life.reshard()
            self.life.put()
            self.life.leap(self.life.retention * 1800.0)
        self.life.leap(self.life.retention * 3600.0 + self.random.choice([60.0, 2 * DAY]))
        self.life.put()
        return True

    def retention_lowered(self) -> object:
        if self.life.retention == 24:
            return False
        self.life.set_retention(24)
        return True

    def retention_raised(self) -> object:
        if self.random.random() < 0.5:
            self._stop_all()
            self.life.put()
            self.life.leap(self.random.choice([20, 30]) * 3600.0)
        self.life.set_retention(self.life.retention + 24)
        return True


def _words(move: Callable[[], object]) -> str:
    return move.__name__.replace("_", " ")


NAMES = [
    "line",
    "line again",
    "line with other options",
    "line elsewhere",
    "line with another selection",
    "line on another machine",
    "parts",
    "stop",
    "interrupt",
    "kill",
    "freeze",
    "cut",
    "clock step",
    "clock years ahead",
    "optimize",
    "delete",
    "vacuum",
    "add column",
    "comment",
    "set property",
    "folder gone",
    "log gone",
    "disk full",
    "reshard",
    "reshards while stopped",
    "retention passes",
    "retention lowered",
    "retention raised",
    "note unwritable",
    "note damaged",
    "storm",
    "store without fence",
    "stream made again",
]
