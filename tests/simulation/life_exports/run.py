"""One seed from its beginning to the verdict, and many of them."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.errors import ConfigError, KinesisError, TableError
from tests.simulation.life.run import SETTLED_SECONDS, Run, _is_done, _remembered, _told
from tests.simulation.life_exports.moves import NAMES, ExportMoves
from tests.simulation.life_exports.world import OUTPUT, ExportLife
from tests.simulation.reader import Failure, Violation

if TYPE_CHECKING:
    from kinesis_nb.exporting.streaming import StreamingExport
    from tests.simulation.life.world import Cell

MOVES = 8, 17  # of one seed
SENT_SECONDS = 240.0  # until all is sent where nothing fails: a sync says once a minute what it has read
SYNCED_LOOKS = 60  # every two seconds
STOPPED_SECONDS = 15.0


class ExportRun(Run):
    """One seed."""

    life: ExportLife
    moves: ExportMoves

    def __init__(self, seed: int, root: Path) -> None:
        self.life = ExportLife(seed, root)
        self.moves = ExportMoves(self.life)

    def go(self) -> None:
        """Play."""
        life, moves = self.life, self.moves
        with life.installed(), _remembered():
            for _ in range(life.random.randint(0, 3)):
                life.put()
            moves.line()
            moves.run(3.0)
            moves.export_line()
            for _ in range(life.random.randint(*MOVES)):
                moves.play()
                self._check_ends()
            moves.calm_down()
            life.put()
            self._settle()
            self._catch_up()
            export = self._settle_export()
            if moves.end_of_range is None:
                self._wait(export)
            else:
                self._wait_for_end(export)
            self._check_output(export)
            self._check_identity()
            self._stop_all()

    # --- what must not happen

    def _check_ends(self) -> None:
        super()._check_ends()
        self.moves.delete_lost_journal()
        if self.moves.broken:
            raise Violation(self.moves.broken[0])
        for cell in self.moves.cells + self.moves.refused_lines:
            self._check_cell(cell)
        for export in self.life.exports:
            error = export._error
            may_fail = self.life.happened["journal: disk full"] and export._stopping.is_set()  # else it waits for room
            if error is not None and not (isinstance(error, TableError) and may_fail):
                raise Violation(f"an export died: {_told(error)}")
            if export.status().state == "ended":
                self._check_range()
        running = [export for export in self.life.exports if export.is_running]
        if len(running) > 1:
            raise Violation(f"{len(running)} exports run at once: {running}")

    def _check_cell(self, cell: Cell) -> None:
        if cell.error is None and cell.is_done and cell in self.moves.refused_lines:
            raise Violation("a journal is used for another table")
        if isinstance(cell.error, ConfigError) and "so is its copy" in str(cell.error) and not self._may_be_lost:
            raise Violation(f"a journal is lost: {_told(cell.error)}")
        if cell.error is not None and not isinstance(cell.error, KinesisError):
            raise Violation(f"a line shows an error that is not ours: {_told(cell.error)}")

    @property
    def _may_be_lost(self) -> bool:
        return bool(self.life.happened["journal: copy too"])

    def _check_range(self) -> None:
        """Check that a time range whose export has ended is sent: all that was ever written, for nothing is lost."""
        records = [(key, n) for key, times in self.life.arrivals.items() for n in range(1, len(times) + 1)]
        if missing := self.moves.wanted(records) - set(self.life.copied) - self.life.erased:
            raise Violation(f"ended, and {sorted(missing)[:5]} of {len(missing)} are not sent")
        self.life.happened["ended"] += 1

    # --- the end

    def _settle(self) -> None:
        """Let a sync go on, or begin one."""
        for _ in range(4):
            self.life.fibers.run(STOPPED_SECONDS, lambda: bool(self._living()))
            if self._living():
                return
            process = self.life.begin_process()
            cell = self.moves.begin(process, {"commit_interval": 1.0, "on_data_loss": "warn"}, "the last line")
            self.life.fibers.run(SETTLED_SECONDS, partial(_is_done, cell))
        raise Violation("no sync goes on although nothing fails")

    def _settle_export(self) -> StreamingExport:
        """Let the export that lives go on, or begin one."""
        life, moves = self.life, self.moves
        for _ in range(4):
            life.fibers.run(3.0)  # until what failed before is told
            life.fibers.run(STOPPED_SECONDS, self._is_decided)
            self._check_ends()
            if found := self._alive():
                return found[-1]
            cell = moves.begin_export(life.begin_process(), "the last export")
            life.fibers.run(SETTLED_SECONDS, partial(_is_done, cell))
            if cell.error is not None and not (moves.is_lost and isinstance(cell.error, ConfigError)):
                raise Violation(f"a line fails although nothing else does: {_told(cell.error)}")
        raise Violation("no export goes on although nothing fails")

    def _alive(self) -> list[StreamingExport]:
        return [one for one in self.life.exports if one.is_active or one.status().state == "ended"]

    def _is_decided(self) -> bool:
        """Whether no cell runs that may stop or start an export."""
        return not any(process.is_busy for process in self.life.exporting) and (
            bool(self._alive()) or not any(export.is_running for export in self.life.exports)
        )

    def _catch_up(self) -> None:
        """Let the sync bring all records into the table."""
        for _ in range(SYNCED_LOOKS):
            there = set(self.moves.rows()) | self.life.erased
            if all(
                (key, number + 1) in there for key, times in self.life.arrivals.items() for number in range(len(times))
            ):
                self._check_rows(self._truth())  # an export can be no better than its table
                return
            self.life.fibers.run(2.0)
            self._check_ends()
            self._settle()  # the one that lived may have handed the table to one that died
        raise Violation("the sync does not catch up")

    def _wait(self, export: StreamingExport) -> None:
        life, moves = self.life, self.moves
        process = next(one for one in life.exporting if export in one.exports)
        life.fibers.run(30.0, lambda: not process.is_busy)
        cell = moves.begin_wait(process, SENT_SECONDS)
        life.fibers.run(SENT_SECONDS + 1.0, lambda: cell.is_done)
        self._check_ends()
        if cell.error is not None or not cell.value:
            raise Violation(f"it does not catch up: {_told(cell.error)}; {export!r}")

    def _wait_for_end(self, export: StreamingExport) -> None:
        end = self.moves.end_of_range
        assert end is not None
        left = max(0.0, end.timestamp() - self.life.manual.now())
        self.life.fibers.run(left + SENT_SECONDS, lambda: not export.is_running)
        self._check_ends()
        if export.status().state != "ended":
            raise Violation(f"it does not end: {export!r}")

    def _check_output(self, export: StreamingExport) -> None:
        life, moves, status = self.life, self.moves, export.status()
        if missing := moves.wanted(moves.rows()) - set(life.copied):
            raise Violation(f"lost: {sorted(missing)[:5]} of {len(missing)}; {status}")
        if wrong := moves.unwanted(set(life.copied)):
            raise Violation(f"exported although not wanted: {sorted(wrong)[:5]} of {len(wrong)}")
        last: Counter[str] = Counter()
        for key, number in dict.fromkeys(life.copied):
            if number < last[key]:
                raise Violation(f"out of order: {key} {number} behind {last[key]}")
            last[key] = number
        doubled = len(life.copied) - len(set(life.copied))
        life.happened["doubled"] += doubled
        life.happened["possible duplicates"] += status.possible_duplicates
        life.happened["exported"] += len(set(life.copied))
        if not life.has_doubt and (doubled or status.possible_duplicates):
            raise Violation(f"{doubled} doubled, {status.possible_duplicates} possible, and nothing went wrong")
        if doubled > status.possible_duplicates and not (moves.is_cut_short or moves.is_deleted):
            raise Violation(f"{doubled} doubled, and only {status.possible_duplicates} are called possible")
        if status.failed or status.pending:
            raise Violation(f"rows are left: {status}")

    def _check_identity(self) -> None:
        """Delete the output stream and make another one of its name: an export does not go on into it."""
        life, moves = self.life, self.moves
        if not life.may_describe or life.random.random() < 0.7:
            return
        self._stop_exports()
        if moves.is_deleted and moves.journal_path is None:
            return  # deleted under an export that ran on to its end: nothing is left to say which stream it was
        life.call("DeleteStream", StreamName=OUTPUT)
        life.manual.advance(60.0)
        life.call("CreateStream", StreamName=OUTPUT, ShardCount=1)
        life.manual.advance(5.0)
        before = len(life.copied)
        cell = moves.begin_export(life.begin_process(), "export into another stream")
        life.fibers.run(SETTLED_SECONDS)
        if not isinstance(cell.error, ConfigError) or len(life.copied) > before:
            raise Violation(f"another output stream is not refused: {cell.error!r}, {len(life.copied) - before} rows")
        life.count("output made again")

    def _stop_exports(self) -> None:
        for process in self.life.exporting:
            if process.exports and process.exports[-1].is_running:
                process.run("stop the export", process.exports[-1].stop)
        self.life.fibers.run(STOPPED_SECONDS, lambda: not any(export.is_running for export in self.life.exports))
        self.life.fibers.run(1.0)

    def _stop_all(self) -> None:
        self._stop_exports()
        self._check_ends()
        left = [
            fiber
            for fiber in self.life.fibers._fibers
            if fiber.group.is_alive and not fiber.greenlet.dead and f"kinesis_nb {OUTPUT}" in fiber.name
        ]
        if left:
            raise Violation(f"threads are left: {left}")
        for export in self.life.exports:
            if export.status().state not in {"stopped", "ended", "failed"}:
                raise Violation(f"it does not stop: {export!r}")


def simulate(seed: int) -> tuple[Counter[str], Failure | None]:
    """Run one seed; return how often each thing happened, and what went wrong if something did."""
    shm = Path("/dev/shm")
    run: ExportRun | None = None
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as root:
        try:
            run = ExportRun(seed, Path(root))
            run.go()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be named
            reason = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-8:])
            return run.life.happened if run else Counter(), Failure(seed, reason, list(run.life.trace) if run else [])
    return run.life.happened + Counter({"turns": run.life.fibers.turns}), None


HAPPENS = [
    *(f"move: {name}" for name in NAMES),
    "power is cut",
    "ended",
    "wait: True",
    "wait: False",
    "aggregates",
    "search: found",
    "search: missing",
    "killed with a request under way",
    "request lands late",
    "journal: disk full",
    "journal deleted",
    "output made again",
    "doubled",
]


def never(happened: Counter[str]) -> list[str]:
    """Name what never happened although it should."""
    return [name for name in HAPPENS if not happened[name]]
