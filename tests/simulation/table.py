"""A sync in virtual time: the real committer and a real Delta table, from one seed.

As in :mod:`tests.simulation.reader`, which plays the stream, the network, the threads and the crashes. Here the sink is
the committer with its table in a folder; what is played is its thread (a turn now and then, or whoever waits for it)
and what storage says. A crash forgets everything but the folder.

Run many seeds with ``python -m tests.simulation.table --seeds 200``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.core.position import Kind
from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.selection import EVERYTHING, Selection, Where
from kinesis_nb.errors import Fenced
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.syncing.committer import SEEN_EVERY, Committer
from kinesis_nb.syncing.signals import Signals
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table.origin import Origin, encode_start
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from kinesis_nb.table.verify import TableCheck, verify_table
from tests.simulation.reader import (
    MIXED,
    STREAM,
    Bounds,
    Check,
    Crash,
    Failure,
    Reader,
    Run,
    Turns,
    Violation,
    World,
    _counts,
    _history,
    _start,
    connect,
)
from tests.support.writers import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta


SEEDS = 8  # in `make test`
TURN = 0.3  # share of the turns that are the committer's
MANY = Selection(where=Where.of(pl.col("data").cast(pl.Int64) % 4 != 0))  # three of four
FEW = Selection(where=Where.of(pl.col("data").cast(pl.Int64) % 4 == 0))


class PlayedTable(SyncTable):
    """A table whose storage fails, and whose process dies, by chance."""

    world: World

    @classmethod
    def open(cls, storage: Storage, origin: Origin) -> PlayedTable:
        table = super().open(storage, origin)
        assert isinstance(table, PlayedTable)
        return table

    def _write(self, files: Any, transactions: Any, notes: Iterable[str] = ()) -> None:
        kind = "rows" if files else "no rows"
        self._chance("before", kind)
        super()._write(files, transactions, notes)
        self._chance("after", kind)

    def _update(self) -> None:
        self._fail("update")
        super()._update()

    def write_rows(self, rows: Any) -> Any:
        self._fail("write_rows")
        return super().write_rows(rows)

    def _chance(self, when: str, kind: str) -> None:
        if self.world.chance(0.04):
            self.world.count(f"crash: {when} a commit of {kind}")
            raise Crash
        self._fail(f"commit, {when}")

    def _fail(self, step: str) -> None:
        if self.world.chance(0.04):
            self.world.count(f"storage: {step} fails")
            raise OSError("storage is away")


class PlayedSignals(Signals):
    """Whoever waits for a commit makes it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.commit: Callable[[], None] = lambda: None

    def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.commit()

    def pause(self, seconds: float) -> bool:
        self._world.manual.advance(seconds)
        return False


class PlayedCommitter(Committer):
    """A committer without its thread."""

    is_dead = False  # died inside a commit, and so does nothing more

    def _commit_pending(self, patience: timedelta = SEEN_EVERY) -> None:
        try:
            super()._commit_pending(patience)
        except BaseException:
            self.is_dead = True
            raise


class PlayedWriter(Parts):
    """A writer without a thread: whoever waits for its committer does that one's work."""

    made_of = PlayedCommitter
    committer: PlayedCommitter

    def __init__(self, world: World, table: SyncTable, feed: ReadPlan) -> None:
        signals = PlayedSignals(world)
        super().__init__(feed, table, signals=signals)
        signals.commit = self.commit


class TableTurns(Turns):
    """Turns of the shards, and now and then one of the committer."""

    writer: PlayedWriter

    def turn(self) -> None:
        if self.world.random.random() < TURN:
            self.writer.commit()
        else:
            super().turn()


class Table:
    """The folder, and the writer of the moment."""

    def __init__(self, world: World, folder: Path, seed: int) -> None:
        kinds = [Kind.TRIM_HORIZON, Kind.AT_TIMESTAMP, Kind.LATEST]
        start, bounds = _start(world, kinds)
        self.selection = [EVERYTHING, MANY, FEW][seed % 3]
        world.count(f"selection: {self.selection}")
        self.world, self.storage = world, Storage.at(folder / "table")
        self.origin = Origin(
            f"arn:aws:kinesis:us-east-1:0:stream/{STREAM}", "now", encode_start(start, world.clock.now())
        )
        self.origin = replace(self.origin, selection=self.selection.record())
        self.bounds = Bounds(bounds.least, bounds.least)  # the table keeps even LATEST as a moment
        self.zombie: PlayedWriter | None = None
        self.writer: PlayedWriter | None = None

    def begin(self) -> Turns:
        while True:
            try:
                return self._begin()
            except OSError:
                self.world.manual.advance(1.0)
            except Crash:
                continue

    def _begin(self) -> Turns:
        if self.writer is not None:
            self.check_rows()
            if self.world.chance(0.3):
                Maintenance(self.storage).run()
                self.world.count("maintenance")
        kinesis, _wire = connect(self.world)
        table = PlayedTable.open(self.storage, self.origin)
        table.world = self.world
        feed = ReadPlan(kinesis, STREAM, self.world.clock, (), selection=self.selection)
        self.zombie, self.writer = self.writer, PlayedWriter(self.world, table, feed)
        early = self.world.chance(0.5)
        if early:
            self._poke_zombie()
        writer, retry = self.writer, self.writer.retries.retry_until_done
        retry(writer.ownership.turn.claim)
        feed = retry(lambda: writer.ownership.take_all(RetryingLookups(kinesis, self.world.clock)))
        if not early:
            self._poke_zombie()
        turns = TableTurns(self.world, feed, writer.intake, sorted(writer.ledger.settled))
        turns.writer = writer
        return turns

    def _poke_zombie(self) -> None:
        """Let a writer that was left for dead try to commit what it still holds."""
        if self.zombie is None or self.zombie.committer.is_dead:
            return
        before = self.zombie.intake.snapshot().committed
        try:
            self.zombie.commit()
        except Fenced:
            self.world.count("zombie: fenced")
        except Crash:
            self.world.count("zombie: dead")
        else:
            committed = self.zombie.intake.snapshot().committed > before
            self.world.count("zombie: committed in time" if committed else "zombie: had nothing to commit")

    def check_rows(self) -> Check:
        rows = self.storage.scan().sort("partition_key", "shard_offset").collect().to_arrow()
        check = Check(self.world, self.bounds, is_kept=self.is_kept)
        check.take("the table", rows)
        return check

    def is_kept(self, number: int) -> bool:
        """Whether the sync keeps the record of a key with that number."""
        return self.selection == EVERYTHING or (number % 4 == 0) == (self.selection is FEW)

    def missing(self) -> list[str]:
        assert self.writer is not None
        now = self.writer.intake.snapshot()
        if now.pending or now.committed + now.filtered != now.received:
            return ["rows are not committed yet"]
        # what is not kept has to be counted, and no row says when it is
        return self.check_rows().missing(_counts(self.world)) or self.miscounted(self.verdict())

    def verdict(self) -> TableCheck:
        opened = SyncTable.open(self.storage, self.origin)
        kinesis, _wire = connect(self.world)
        return verify_table(opened, kinesis.list_shards(STREAM), self.selection)

    def miscounted(self, found: TableCheck) -> list[str]:
        """Name what the table counts as left out, where that is not all of it, or too much."""
        wrong = Check(self.world, self.bounds).miscounted(found.dropped, _counts(self.world))
        filtered = sum(
            not self.is_kept(number) and (key != MIXED or (key, number) not in self.world.dropped)
            for key, first in self.bounds.least.items()
            for number in range(first, len(self.world.arrivals[key]) + 1)
        )
        if found.filtered > filtered or (not found.lost and found.filtered < filtered):
            wrong.append(f"{found.filtered} records are counted as not kept, of {filtered}")
        return wrong


class TableRun(Run):
    """One seed of a sync."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed)
        _history(self.world, self.world.random.randint(0, 8))
        self.table = Table(self.world, folder, seed)
        self.steps = 0
        self.reader = Reader("table", self.table.begin, self.table.missing, can_crash=True)
        self.turns = self.reader.begin()
        self.fresh: set[Any] = set()

    def verdict(self) -> None:
        """Let the table's own verify look at it."""
        if not (found := self.table.verdict()):
            raise Violation(repr(found))
        if wrong := self.table.miscounted(found):
            raise Violation(wrong[0])
        self.world.count("user records dropped" if found.dropped else "nothing dropped")


def simulate(seed: int) -> tuple[Counter[str], Failure | None]:
    """Run one seed; return how often each thing happened, and what went wrong if something did."""
    run: TableRun | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = TableRun(seed, Path(folder))
            run.go()
            run.verdict()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be named
            reason = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-8:])
            return Counter(), Failure(seed, reason, list(run.world.trace)[-40:] if run else [])
    return run.world.happened + Counter({"records": sum(_counts(run.world).values())}), None


HAPPENS = [
    *(f"selection: {selection}" for selection in (EVERYTHING, MANY, FEW)),
    "crash: before a commit of rows",
    "crash: after a commit of rows",
    "crash: after a commit of no rows",
    "storage: commit, before fails",
    "storage: commit, after fails",
    "storage: update fails",
    "storage: write_rows fails",
    "zombie: fenced",
    "zombie: committed in time",
    "maintenance",
    "reshard: split",
    "reshard: merge",
    "user records dropped",
]


def never(happened: Counter[str]) -> list[str]:
    """Name what never happened although it should."""
    return [name for name in HAPPENS if not happened[name]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds; return 1 if one failed, or if they left something out."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.table", description="Simulate a sync.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--stop-after", type=int, default=5, help="failures")
    options = parser.parse_args(arguments)
    happened: Counter[str] = Counter()
    failures = 0
    for seed in range(options.first, options.first + options.seeds):
        counts, failure = simulate(seed)
        happened += counts
        if failure is not None:
            failures += 1
            print(failure, end="\n\n", flush=True)
            if failures >= options.stop_after:
                break
    print(*(f"{count:8,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    left_out = never(happened) if options.seeds >= SEEDS and not failures else []
    print(
        f"{options.seeds} seeds from {options.first}: {failures} failed",
        *(f"never: {name}" for name in left_out),
        sep="; ",
    )
    return 1 if failures or left_out else 0


if __name__ == "__main__":
    sys.exit(main())
