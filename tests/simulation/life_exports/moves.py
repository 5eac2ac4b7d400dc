"""What happens to the exports of one world, and to all that they rely on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.exporting.options import Range, RecordOptions
from kinesis_nb.exporting.rows import Rows
from kinesis_nb.exporting.start import start_export
from kinesis_nb.exporting.target import Outlet
from kinesis_nb.syncing.start import open_table, sync_feed
from kinesis_nb.table.storage import LOG
from tests.simulation.life.moves import MOST_PROCESSES, Moves
from tests.simulation.life.world import Cell, LifeStorage, Record, whole
from tests.simulation.life_exports.world import OUTPUT, ExportLife, ExportProcess
from tests.simulation.reader import STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltalake import DeltaTable

    from kinesis_nb.exporting.streaming import StreamingExport

Line = tuple[RecordOptions, Range]
_UNSURE = timedelta(milliseconds=2)  # the emulator and the oracle may round a time to other milliseconds


class ExportMoves(Moves):
    """Everything that may happen in a world with an export."""

    life: ExportLife

    def __init__(self, life: ExportLife) -> None:
        super().__init__(life)
        life.selection, self.ends = EVERYTHING, False
        self.start = StartingPosition.trim_horizon()  # of the sync: what the stream holds is what the table will
        began = life.time_at(life.now_ms())
        self.begin_of_range, self.end_of_range = StartingPosition.trim_horizon(), None
        kind = self.random.choice(["all", "all", "all", "latest", "since", "range", "range"])
        if kind == "latest":
            self.begin_of_range = StartingPosition.latest()
        elif kind in {"since", "range"}:
            self.begin_of_range = StartingPosition.at(began + timedelta(seconds=self.random.randint(0, 15)))
        if kind == "range":
            self.end_of_range = began + timedelta(seconds=self.random.randint(20, 60))
        self.life.happened[f"export of {kind}"] += 1
        self.aggregates = self.random.random() < 0.4
        self.journal = life.root / "journals" / "j" if self.random.random() < 0.4 else None
        self.latest: frozenset[Record] | None = None  # what was in the table before the first line
        self.sure_since: frozenset[Record] | None = None  # and what, at most, when it had begun
        self.broken: list[str] = []  # promises, seen in a cell
        self.cells: list[Cell] = []  # lines of the export
        self.refused_lines: list[Cell] = []
        self.is_cut_short = self.is_lost = False  # the journal, in a way that cannot be noticed, or cannot be fixed
        self.is_deleted = False

    def all(self) -> dict[Callable[[], object], int]:
        return {
            self.line: 4,
            self.export_line: 10,
            self.export_line_again: 3,
            self.export_with_other_options: 3,
            self.export_elsewhere: 4,
            self.export_stop: 3,
            self.export_wait: 6,
            self.kill: 2,
            self.kill_export: 7,
            self.freeze: 3,
            self.cut: 5,
            self.clock_step: 1,
            self.faulty_output: 8,
            self.slow_output: 7,
            self.reshard_output: 2,
            self.storm: 3,
            self.disk_full: 3,
            self.optimize: 3,
            self.delete: 2,
            self.vacuum: 3,
            self.reshard: 2,
            self.journal_damaged: 5,
            self.another_table: 2,
        }

    def play(self) -> None:
        """Make one move; mostly a sync runs."""
        if not self._syncing() and self.random.random() < 0.6:
            self.line()
        super().play()

    def _end_what_is_due(self, *, everything: bool = False) -> None:
        super()._end_what_is_due(everything=everything)
        while self.life.late and (everything or self.random.random() < 0.3):
            self.life.land_request()

    # --- lines

    @property
    def span(self) -> Range:
        """What is exported."""
        start = self.begin_of_range
        if (
            self.journal_path is not None
            and self.end_of_range is None
            and not self.is_lost
            and self.random.random() < 0.5
        ):
            start = StartingPosition.latest()  # of an export that has begun it means nothing
        return Range(start, self.end_of_range, self.random.choice([None, None, 25.0, 60.0]), self.journal)

    @property
    def journal_path(self) -> Any:
        """The file of the journal; None before there is one."""
        folder = self.journal.parent if self.journal else self.life.place / "_exports"
        found = [path for path in folder.glob("*") if path.suffix in {".journal", ""}] if folder.is_dir() else []
        return found[0] if found else None

    def outlet(self, process: ExportProcess) -> Outlet:
        """Return the way of a process to the output stream."""
        return Outlet(process.kinesis, process.clock, OUTPUT, self.life.arn)

    def begin_export(self, process: ExportProcess, name: str = "export", line: Line | None = None) -> Cell:
        """Run the line of an export in a process."""
        storage = process.storage()
        options = RecordOptions(aggregate=self.aggregates and self.random.random() < 0.8)
        options, span = process.line = line or (options, self.span)
        if self.latest is None:
            self.latest = frozenset(self.rows())

        def run() -> StreamingExport:
            made = start_export(self.outlet(process), Rows(storage), options, span)
            if self.sure_since is None:
                self.sure_since = frozenset(self.rows())
            return made

        cell = process.run(f"{name} {span.start} {span.end} {span.rate} {options.aggregate}", run)
        self.cells.append(cell)
        return cell

    def rows(self) -> list[Record]:
        """Return what the table holds."""
        if not (self.life.place / LOG).exists():
            return []
        return [(key, number) for key, _, number, _ in self.life.rows()]

    def _idle_for_export(self) -> list[ExportProcess]:
        return [one for one in self.life.exporting if one in self._idle()]

    def _exporting(self) -> list[ExportProcess]:
        return [one for one in self._idle_for_export() if one.exports and one.exports[-1].is_active]

    def _has_table(self) -> bool:
        return (self.life.place / LOG / f"{0:020}.json").exists()

    def export_line(self) -> object:
        if not self._has_table() or self._exporting():
            return False
        idle = self._idle_for_export()
        if len(self.life.processes) < MOST_PROCESSES and (not idle or self.random.random() < 0.5):
            idle = [self.life.begin_process()]
        return self.begin_export(self.random.choice(idle)) if idle else False

    def export_line_again(self) -> object:
        """Run the same line in the same process: it gives the same export, as long as that can read its rows."""
        if not (found := self._exporting()):
            return False
        process = self.random.choice(found)
        return self.begin_export(process, "the same export", process.line)

    def export_with_other_options(self) -> object:
        """Run a line with other options, or with the same ones by chance."""
        found = self._exporting()
        return self.begin_export(self.random.choice(found), "the export with other options") if found else False

    def export_elsewhere(self) -> object:
        """Run the line in a second process while the first one lives."""
        if not self._exporting() or len(self.life.processes) >= MOST_PROCESSES:
            return False
        return self.begin_export(self.life.begin_process(), "export elsewhere")

    def kill_export(self) -> object:
        """Kill a process that exports, now or in the middle of what it does with its journal."""
        if not (found := [one for one in self.life.exporting if one.exports and one.exports[-1].is_running]):
            return False
        process = self.random.choice(found)
        if self.random.random() < 0.5:
            process.kill()
        else:
            process.doom = self.random.randint(0, 30), process.kill
        return True

    def export_stop(self) -> object:
        if not (found := self._exporting()):
            return False
        process = self.random.choice(found)
        return process.run("stop the export", process.exports[-1].stop)

    def export_wait(self) -> object:
        """Wait for what is in the table now, and see whether it is sent."""
        if not (found := self._exporting()):
            return False
        process = self.random.choice(found)
        self.begin_wait(process, self.random.choice([0.2, 2.0, 10.0, 30.0]))
        return True

    def begin_wait(self, process: ExportProcess, seconds: float) -> Cell:
        """Wait in a process, and check what it says."""
        export = process.exports[-1]

        def wait() -> bool:
            there = self.wanted(self.rows())
            is_sent = export.wait(seconds)
            if is_sent and (missing := there - set(self.life.copied) - self.life.erased):
                self.broken.append(f"wait() says that all is sent, and {sorted(missing)[:5]} of {len(missing)} are not")
            self.life.happened[f"wait: {is_sent}"] += 1
            return is_sent

        return process.run(f"wait {seconds}", wait)

    def wanted(self, records: Any) -> set[Record]:
        """Return which of these must be exported."""
        found = {record for record in records if self._is_within(record)}
        if self.begin_of_range.kind is Kind.LATEST:
            found -= self.sure_since or found
        return found

    def _is_within(self, record: Record) -> bool:
        key, number = record
        arrival = self.life.time_at(self.life.arrivals[key][number - 1])
        start, end = self.begin_of_range.timestamp, self.end_of_range
        return (start is None or arrival >= start + _UNSURE) and (end is None or arrival <= end - _UNSURE)

    def unwanted(self, records: Any) -> set[Record]:
        """Return which of these must not be exported."""
        start, end = self.begin_of_range.timestamp, self.end_of_range
        found = set()
        for key, number in records:
            arrival = self.life.time_at(self.life.arrivals[key][number - 1])
            is_before = start is not None and arrival < start - _UNSURE
            if is_before or (end is not None and arrival > end + _UNSURE):
                found.add((key, number))
        if self.begin_of_range.kind is Kind.LATEST and self.latest:
            found |= self.latest & set(records)
        return found

    def delete_lost_journal(self) -> None:
        """Do what the error says where nothing is left of a journal."""
        if self.is_lost and any("so is its copy" in str(cell.error) for cell in self.cells):
            self.is_lost, self.is_deleted = False, True
            if path := self.journal_path:
                path.unlink()
                self.life.disk.sync(path.parent)
            self.life.count("journal deleted")

    def another_table(self) -> object:
        """Export another table of the same stream with the same journal: it is refused."""
        path = self.journal_path
        if path is None or len(self.life.processes) >= MOST_PROCESSES:
            return False
        process = self.life.begin_process()
        storage = LifeStorage.at(self.life.root / "another table")
        storage.process = process
        span = Range(StartingPosition.trim_horizon(), None, None, path)

        def line() -> StreamingExport:
            open_table(sync_feed(whole(process.kinesis), STREAM, process.clock), storage, self.start)
            return start_export(self.outlet(process), Rows(storage), RecordOptions(), span)

        self.refused_lines.append(process.run("export another table with this journal", line))
        return True

    # --- the output stream

    def faulty_output(self) -> object:
        self.life.faults = self.random.choice([0.1, 0.3, 0.6, 0.8])

        def recover() -> None:
            self.life.faults = 0.0

        self._later(self.random.choice([3.0, 10.0, 30.0]), recover)
        return True

    def slow_output(self) -> object:
        self.life.is_slow = True

        def quicken() -> None:
            self.life.is_slow = False

        self._later(self.random.choice([3.0, 10.0, 30.0]), quicken)
        return True

    def reshard_output(self) -> object:
        self.life.reshard_output()
        return True

    # --- the disk

    def vacuum(self) -> object:
        """Remove all files that the newest version does not need."""

        def clean(table: DeltaTable) -> object:
            return table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=False)

        return self._foreign(clean)

    def journal_damaged(self) -> object:
        """Damage the file of the journal while nobody has it."""
        for process in self._exporting():
            process.run("stop the export", process.exports[-1].stop)
            self.run(3.0)
        path = self.journal_path
        if path is None or any(export.is_running for export in self.life.exports) or not path.stat().st_size:
            return False
        body = path.read_bytes()
        kind = self.random.choice(
            ["zeros", "torn out", "other bytes", "short", "empty", "all zeros", "copy too", "copy too", "copy too"]
        )
        first = self.random.randrange(len(body))
        last = min(len(body), first + self.random.choice([1, 30, 500]))
        damaged = {
            "zeros": body[:first] + bytes(last - first) + body[last:],
            "torn out": body[:first] + body[last:],
            "other bytes": body[:first] + bytes(byte ^ 1 for byte in body[first:last]) + body[last:],
            "short": body[:first],
            "empty": b"",
            "all zeros": bytes(len(body)),
            "copy too": b"",
        }[kind]
        if damaged == body or (kind == "copy too" and self.begin_of_range.kind is Kind.LATEST):
            return False
        copy = path.with_name(f"{path.name}.copy")
        path.write_bytes(damaged)
        if kind == "copy too":
            copy.write_bytes(b"")
            self.is_lost = True
        whole, end, torn = damaged.rpartition(b"\n")
        was_closed = b'"closed"' in body and copy.exists() and b'"closed"' in copy.read_bytes()
        is_shorter = bool(end) and body.startswith(whole + end) and b"\0" not in torn
        self.is_cut_short |= is_shorter and not was_closed  # as if the process had been killed earlier
        self.life.disk.sync(path)
        self.life.has_doubt = True
        self.life.count(f"journal: {kind}")
        return True


NAMES = [
    "line",
    "export line",
    "export line again",
    "export with other options",
    "export elsewhere",
    "export stop",
    "export wait",
    "kill",
    "kill export",
    "freeze",
    "cut",
    "clock step",
    "faulty output",
    "slow output",
    "reshard output",
    "storm",
    "disk full",
    "optimize",
    "delete",
    "vacuum",
    "reshard",
    "journal damaged",
    "another table",
]
