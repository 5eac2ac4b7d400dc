"""One seed from its beginning to the verdict, and many of them."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinesis_nb.errors import DataLoss, Fenced, KinesisError, StreamNotFound, TableError
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.origin import read_origin
from kinesis_nb.table.storage import LOG, Storage
from kinesis_nb.table.table import SyncTable
from tests.simulation.life.moves import MINE, NAMES, Moves
from tests.simulation.life.world import KEYS, STREAM, Life, Process
from tests.simulation.reader import Failure, Violation

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.table.checkpoints import RecordedGap
    from kinesis_nb.table.verify import TableCheck
    from tests.simulation.life.world import Cell

MOVES = 8, 17  # of one seed
SETTLED_SECONDS = 30.0  # from the end of all faults until exactly one writer goes on: longer than any lease
CAUGHT_UP_SECONDS = 120.0
TAKEN_OVER_SECONDS = 4.0  # until a new call has the table where nothing fails: the lease, and a look


@dataclass(frozen=True)
class Truth:
    """What the table says at the end."""

    rows: list[tuple[str, int, int, str]]
    gaps: list[RecordedGap]
    since_ms: int  # before that nothing is to be there
    filtered: int  # records that were read and not kept


class Run:
    """One seed."""

    def __init__(self, seed: int, root: Path) -> None:
        self.life = Life(seed, root)
        self.moves = Moves(self.life)
        self._ended: list[Sync] = []  # they had an end, and reached it

    def go(self) -> None:
        """Play."""
        life = self.life
        with life.installed(), _remembered():
            if life.random.random() < 0.3:
                life.set_retention(48)
            for _ in range(life.random.randint(0, 3)):
                life.put()
            self.moves.line()
            self.moves.run(3.0)
            for _ in range(life.random.randint(*MOVES)):
                self.moves.play()
                self._check_ends()
                if life.random.random() < 0.5:
                    self.moves.decorate()
            self.moves.calm_down()
            life.put()
            self._settle()
            self._catch_up()
            self._check_handles()
            if life.random.random() < 0.5 and not life.is_read_out:
                self._hand_over()
            if life.random.random() < 0.2:
                self._make_stream_again()

    # --- threads and calls

    def _check_ends(self) -> None:
        """Check that nothing ended as it must not."""
        self.moves.check_refused()
        if self.life.fibers.escaped:
            fiber, error = self.life.fibers.escaped[0]
            raise Violation(f"{fiber} died: {_told(error)}")
        for process in self.life.processes:
            for sync in process.syncs:
                ended_with = sync._signals.error
                if ended_with is None:
                    self._check_end(sync)
                if ended_with is None or isinstance(ended_with, Fenced | DataLoss) or not sync._readers.has_begun:
                    continue
                raise Violation(f"a sync of {process} died: {_told(ended_with)}")

    def _check_end(self, sync: Sync) -> None:
        """Check that a sync which has come to its end has everything in the table that arrived by then."""
        end, log = sync._feed.end, self.life.place / LOG
        if end is None or sync in self._ended or not log.exists() or sync._committer.is_running:
            return
        if sync.status().state == "ended":
            self._ended.append(sync)
            truth = self._truth()
            if missing := self._missing(truth, until=end.timestamp() * 1000):
                raise Violation(f"a sync ended before it had all up to {end}: {missing[:6]}; told: {truth.gaps}")
            self.life.count("came to its end")

    def _living(self) -> list[Sync]:
        return [sync for process in self.life.processes for sync in process.syncs if sync.is_active]

    def _settle(self) -> None:
        """Let everybody go on, until one writer does."""
        life = self.life
        for _ in range(4):
            life.fibers.run(SETTLED_SECONDS)
            self._check_ends()
            if self._living() or self.life.is_read_out:
                break
            process = life.begin_process()
            cell = self.moves.begin(process, {"commit_interval": 1.0, "on_data_loss": "warn"}, "the last line")
            life.fibers.run(TAKEN_OVER_SECONDS)
            if cell.error is not None:
                raise Violation(f"a line fails although nothing else does: {_told(cell.error)}")
        self._check_one_writer()

    def _check_one_writer(self) -> None:
        living = self._living()
        if self.life.is_read_out:
            return
        turns = {sync._table.turn for sync in living}
        states = [f"{sync.status().state} {sync._table.turn}" for sync in living]
        if len(turns) != 1 or {sync.status().state for sync in living} != {"running"}:
            raise Violation(f"not exactly one writer goes on: {states}")
        if len(living) > 1 and not all(sync._table._run for sync in living):
            raise Violation(f"two writers have the same turn: {states}")
        stuck = [process.cell for process in self.life.processes if process.is_busy]
        if stuck:
            raise Violation(f"cells that do not end: {stuck}")

    # --- rows

    def _truth(self) -> Truth:
        def look() -> tuple[list[RecordedGap], datetime | None, int]:
            storage = Storage.at(self.life.place)
            opened = storage.open()
            origin = read_origin(opened)
            assert origin is not None
            table = SyncTable(storage, opened, origin)
            filtered = sum(reached.filtered for reached in table.checkpoints(table.known()).values())
            return table.gaps(table.known()), origin.position.timestamp, filtered

        gaps, moment, filtered = self.life.ask(look)
        return Truth(self.life.rows(), gaps, round(moment.timestamp() * 1000) if moment else 0, filtered)

    def _catch_up(self) -> None:
        waited = 0.0
        while True:
            self._check_ends()
            truth = self._truth()
            self._check_rows(truth)
            missing = self._missing(truth) or self._uncounted(truth)
            if not missing:
                return
            if waited > CAUGHT_UP_SECONDS:
                raise Violation(f"lost: {missing[:6]} and {len(missing) - 1} more; told: {list(map(str, truth.gaps))}")
            self._restart_with_warning()
            self.life.fibers.run(10.0)
            waited += 10.0

    def _restart_with_warning(self) -> None:
        """As a user does whose sync ended with DataLoss, or whose job lacks a part."""
        running = self._living()
        is_part = any(sync._table._run for sync in running)
        if running and not is_part:
            return
        self.moves.begin(
            self.life.begin_process(), {"commit_interval": 1.0, "on_data_loss": "warn"}, "the line, warned"
        )

    def _check_rows(self, truth: Truth) -> None:
        last: dict[str, int] = {}
        for key, offset, number, shard in truth.rows:
            if number == last.get(key):
                raise Violation(f"doubled: {key} {number}, of {shard} at {offset}")
            if number < last.get(key, 0):
                raise Violation(f"out of order: {key} {number} of {shard} at {offset} behind {last[key]}")
            last[key] = number
            if not self.life.is_kept(key, number):
                raise Violation(f"not to be kept: {key} {number} of {shard}")
            if (key, number) in self.life.erased:
                raise Violation(f"back from the dead: {key} {number} of {shard}")
            if self.life.arrivals[key][number - 1] < truth.since_ms:
                raise Violation(f"from before the start: {key} {number} of {shard}")

    def _missing(self, truth: Truth, until: float = float("inf")) -> list[str]:
        there = {(key, number) for key, _, number, _ in truth.rows} | self.life.erased
        self.life.trim()
        missing = []
        for key in KEYS:
            for number, arrival in enumerate(self.life.arrivals[key], 1):
                if (key, number) in there or not truth.since_ms <= arrival <= until:
                    continue
                if not self.life.is_kept(key, number):
                    continue
                if not self._is_told(arrival, self.life.shard_of[key, number], truth):
                    missing.append(f"{key} {number}")
                else:
                    self.life.happened["records lost, and told"] += 1
        return missing

    def _uncounted(self, truth: Truth) -> list[str]:
        """Check that the table counts each record that was read and not kept once, whatever crashed meanwhile."""
        life = self.life
        arrivals = [
            arrival
            for key in KEYS
            for number, arrival in enumerate(life.arrivals[key], 1)
            if arrival >= truth.since_ms and life.is_read(key, number) and not life.is_kept(key, number)
        ]
        least = 0 if truth.gaps else sum(arrival / 1000 > life.trimmed_at_start for arrival in arrivals)
        if truth.filtered > len(arrivals):
            raise Violation(f"{truth.filtered} records are counted as not kept, of {len(arrivals)} that there were")
        if truth.filtered < least:
            return [f"{truth.filtered} of {least} records that are not kept"]
        if least:
            life.count("every record that is not kept is counted")
        return []

    def _is_told(self, arrival: int, shard_id: str, truth: Truth) -> bool:
        moment = self.life.time_at(arrival)
        is_gone = arrival / 1000 <= self.life.trimmed_before
        if is_gone and arrival / 1000 <= self.life.trimmed_at_start:
            return True  # it had left the stream before the sync began
        return is_gone and any(
            (gap.seen is None or gap.seen <= moment)
            and (gap.until is None or moment <= gap.until)
            and self.life.is_kin(gap.shard_id, shard_id)
            for gap in truth.gaps
        )

    # --- what users see

    def _check_handles(self) -> None:
        rows = self.life.rows()
        handles = [(process, sync) for process in self.life.processes for sync in process.syncs]
        verified = self.life.random.choice(handles)[1] if handles else None  # all shards that are selected may be over
        for process, sync in handles:
            cell = process.run("look", partial(_seen, sync, full=sync is verified))
            self.life.fibers.run(20.0, partial(_is_done, cell))
            if cell.error is not None or not cell.is_done:
                raise Violation(f"{process} cannot look at the table: {_told(cell.error)}")
            length, live, height, verdict = cell.value
            if {length - live, height} != {len(rows)} or (live and sync.is_active):
                seen = f"{length} with {live}, and {height} rows of {len(rows)}"
                raise Violation(f"{process} sees {seen}: {sync.status()}")
            if verdict is not None and ((not verdict and not self.life.erased) or verdict.rows != len(rows)):
                raise Violation(f"{process}: {verdict!r}")
            self.life.happened[f"handle of a sync that {'runs' if sync.is_active else 'has ended'}"] += 1
        if (left := self.moves.mine()) and left != MINE | {"archive": b"[1, 2, 3]"}:
            raise Violation(f"files of others are gone or changed; left are {sorted(left)}")

    def _hand_over(self) -> None:
        """Let a new call take the table where nothing fails: it has it at once, and the one before is told."""
        life = self.life
        before = self._living()
        process = life.begin_process()
        cell = self.moves.begin(process, {"commit_interval": 1.0, "on_data_loss": "warn"}, "one more line")
        life.fibers.run(TAKEN_OVER_SECONDS)
        if cell.error is not None:
            raise Violation(f"a line fails although nothing else does: {_told(cell.error)}")
        if not cell.is_done or cell.value.status().state != "running":
            raise Violation(f"the newest call does not get the table: {cell.value and cell.value.status()}")
        life.fibers.run(SETTLED_SECONDS)
        if still := [sync.status() for sync in before if sync.is_active]:
            raise Violation(f"a writer that lost the table goes on: {still}")
        life.put()
        self._catch_up()
        life.count("handed over")

    def _make_stream_again(self) -> None:
        """Delete the stream and make another one of its name: nothing of that may get into the table."""
        life = self.life
        rows, running = life.rows(), self._living()
        life.call("DeleteStream", StreamName=STREAM)
        life.manual.advance(60.0)
        life.call("CreateStream", StreamName=STREAM, ShardCount=2)
        life.call("PutRecord", StreamName=STREAM, PartitionKey="key-0", Data=b"1000000")
        life.manual.advance(5.0)
        process = life.begin_process()
        cell = self.moves.begin(process, {"commit_interval": 1.0, "on_data_loss": "warn"}, "the line on another stream")
        life.fibers.run(60.0)
        if not isinstance(cell.error, TableError):
            raise Violation(f"a sync of another stream is not refused: {cell.error!r}")
        if life.rows() != rows:
            raise Violation("rows of another stream got into the table")
        for error in (sync._signals.error for sync in running):
            if not isinstance(error, StreamNotFound):
                raise Violation(f"a sync whose stream is gone does not say so: {_told(error)}")
        life.count("move: stream made again")


def _seen(sync: Sync, *, full: bool) -> tuple[int, int, int, TableCheck | None]:
    """Look at the table through a handle; one that ended before its last commit keeps what it had read in view."""
    return len(sync), len(sync.live), sync.scan().collect().height, sync.verify() if full else None


def _told(error: BaseException | None) -> str:
    if error is None:
        return "it does not end"
    if isinstance(error, KinesisError):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.format_exception(error)[-6:])


def _is_done(cell: Cell) -> bool:
    return cell.is_done


def _remembered() -> AbstractContextManager[object]:
    """Let each process know the syncs that were made in it, also those that no cell got."""
    from unittest.mock import patch

    make = Sync.__init__

    def made(self: Sync, feed: ReadPlan, table: SyncTable, *what: Any, **more: Any) -> None:
        make(self, feed, table, *what, **more)
        process = getattr(table.storage, "process", None)
        if isinstance(process, Process):
            process.syncs.append(self)

    return patch.object(Sync, "__init__", made)


def simulate(seed: int) -> tuple[Counter[str], Failure | None]:
    """Run one seed; return how often each thing happened, and what went wrong if something did."""
    shm = Path("/dev/shm")
    run: Run | None = None
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as root:
        try:
            run = Run(seed, Path(root))
            run.go()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be named
            reason = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-8:])
            return run.life.happened if run else Counter(), Failure(
                seed, reason, list(run.life.trace)[-60:] if run else []
            )
    counts = {"records": sum(map(len, run.life.arrivals.values())), "turns": run.life.fibers.turns}
    return run.life.happened + Counter(counts), None


HAPPENS = [
    *(f"move: {name}" for name in NAMES),
    "power is cut",
    "interrupted",
    "handed over",
    "came to its end",
    *(f"selection: {name}" for name in ("all", "where", "key", "key and where", "shards")),
    "every record that is not kept is counted",
    "storage: commit stalls",
    "stalled commit lands",
    "stalled commit refused",
]


def never(happened: Counter[str]) -> list[str]:
    """Name what never happened although it should."""
    return [name for name in HAPPENS if not happened[name]]
