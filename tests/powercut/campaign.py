"""Power cuts of a disk that a sync writes to; after each the table is judged, and the sync goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import kinesis_nb as kn
from tests.powercut.writer import Orders, live

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from kinesis_nb.emulator import Emulator
    from tests.powercut.disk import Disk

ROOT = Path(__file__).parent.parent.parent
KEYS = 16
PATIENCE = 60.0  # seconds for a sync to begin, or to catch up
STILL_SECONDS = 0.03  # for what a stopped process has begun to end
CUTS_PER_TABLE = 10


@dataclass
class Report:
    """What was done and found."""

    cuts: int = 0
    tables: int = 0
    commits: int = 0  # by the lives that were cut
    reported: int = 0  # rows in the table, as the syncs said before each cut, all cuts together
    missing: int = 0  # of these, after the cut
    doubled: int = 0
    unreadable: list[str] = field(default_factory=list)  # what another reader said that could not open the table
    wrong: list[str] = field(default_factory=list)  # what the sync said that did not go on, or left a wrong table
    before_table: int = 0  # cuts that came before there was a table
    torn: int = 0  # cuts that left the newest entry of the log empty, cut off or zeroed
    torn_checkpoints: int = 0
    resumed: list[float] = field(default_factory=list)  # seconds from the start of a sync to everything in the table
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether every promise held, and enough happened to tell."""
        return not (self.missing or self.doubled or self.unreadable or self.wrong) and self.reported > 0

    def __add__(self, other: Report) -> Report:
        return Report(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def __str__(self) -> str:
        lines = [*(f"cannot be opened: {text}" for text in self.unreadable), *self.wrong]
        most = max(self.resumed, default=0.0)
        lines.append(
            f"{self.cuts} cuts of {self.tables} tables, {self.commits:,} commits, {self.reported:,} rows reported:"
            f" {self.missing} missing, {self.doubled} doubled, {len(self.unreadable)} tables that do not open,"
            f" {len(self.wrong)} syncs that did not go on; {self.before_table} cuts before there was a table,"
            f" {self.torn} left the newest entry torn, {self.torn_checkpoints} a checkpoint torn;"
            f" longest resume {most:.1f} s; {self.seconds:.0f} s"
        )
        return "\n".join(lines)


class Campaign:
    """One stream and one table on one disk."""

    def __init__(self, emulator: Emulator, folder: Path, disk: Disk, seed: int) -> None:
        self.report = Report(tables=1)
        self._emulator, self._disk, self._log = emulator, disk, folder / "reported"
        self._random = random.Random(seed)
        self._stream, self._table = f"orders-{seed}", str(disk.root / f"made-{seed}" / "with" / "t")
        self._counts = [0] * KEYS
        os.environ["PYTHONPATH"] = str(ROOT)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.powercut.writer"])
        emulator.model.call("CreateStream", {"StreamName": self._stream, "ShardCount": 2})
        self._source = kn.connect(endpoint_url=emulator.endpoint_url, auth=kn.StaticCredentials("emulator", "emulator"))

    def put(self, count: int) -> None:
        """Write records; each carries the number of its key."""
        records = []
        for _ in range(count):
            key = self._random.randrange(KEYS)
            self._counts[key] += 1
            records.append({"PartitionKey": f"key-{key}", "Data": str(self._counts[key]).encode()})
        self._emulator.model.call("PutRecords", {"StreamName": self._stream, "Records": records})

    def cut(self, seconds: float) -> None:
        """Let a sync write for a while, cut the power, and look at what is left."""
        before = self._rows() if Path(self._table).exists() else 0
        self._log.write_text("")
        with self._disk.neighbour():
            process = self._start()
            self._write_for(seconds, process)
            assert process.pid is not None
            with suppress(ProcessLookupError):  # it has failed, and said so
                os.kill(process.pid, signal.SIGSTOP)
            time.sleep(STILL_SECONDS)
        with self._disk.cut():
            reported = self._reported()
            process.kill()
            process.join()
        self.report.cuts += 1
        self._judge(before + reported)
        self._go_on()

    def _start(self) -> ForkServerProcess:
        process = self._context.Process(
            target=live,
            args=(Orders(self._emulator.endpoint_url, self._stream, self._table, str(self._log)),),
            daemon=True,
        )
        process.start()
        return process

    def _write_for(self, seconds: float, process: ForkServerProcess) -> None:
        """Write from the moment on when the table's folder is there, or the sync has gone on."""
        give_up = time.monotonic() + PATIENCE
        self.put(10)
        while not (Path(self._table).exists() and (self.report.cuts == 0 or self._log.read_text())):
            if not process.is_alive() or time.monotonic() > give_up:
                return
            time.sleep(0.001)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.put(self._random.randint(1, 20))
            time.sleep(self._random.uniform(0, 0.02))

    def _reported(self) -> int:
        """Return how many rows this life has said to be committed."""
        lines = self._log.read_text().splitlines()
        self.report.wrong += [line for line in lines if line.startswith("failed")]
        said = [line.split() for line in lines if line[:1].isdigit()]
        self.report.commits += int(said[-1][1]) if said else 0
        return int(said[-1][0]) if said else 0

    def _rows(self) -> int:
        return int(pl.scan_delta(self._table).select(pl.len()).collect().item())

    # --- the verdict

    def _judge(self, reported: int) -> None:
        """Read the table as anybody would, before the sync has touched it again."""
        report, log = self.report, Path(self._table, "_delta_log")
        report.reported += reported
        entries = sorted(log.glob("*.json")) if log.exists() else []
        if not entries and not list(log.glob("*.parquet") if log.exists() else []):
            report.before_table += 1
            report.missing += reported
            return
        report.torn += bool(entries) and not _is_whole(entries[-1])
        report.torn_checkpoints += sum(not path.stat().st_size for path in log.glob("*.parquet"))
        try:
            frame = pl.scan_delta(self._table).select("partition_key", "data").collect()
        except BaseException as error:  # noqa: BLE001 - a panic is one, too
            report.unreadable.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return
        report.missing += max(reported - frame.n_unique(), 0)
        report.doubled += len(frame) - frame.n_unique()

    def _go_on(self) -> None:
        """Let the sync go on on what is left, and hold its table against the stream."""
        report, began = self.report, time.monotonic()
        try:
            sync = self._source.sync(self._stream, self._table, commit_interval=0.05)
            try:
                if not sync.wait(PATIENCE):
                    report.wrong.append(f"did not catch up: {sync.status()!r}")
                report.resumed.append(time.monotonic() - began)
                verdict = sync.verify()
                if not verdict or verdict.rows != sum(self._counts):
                    report.wrong.append(f"{verdict!r} of {sum(self._counts):,} records")
                rows = sync.scan().select("partition_key", "data").collect()
                if rows.n_unique() != sum(self._counts):
                    report.wrong.append(f"{rows.n_unique():,} rows of {sum(self._counts):,} records")
            finally:
                sync.stop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the sync did not go on
            report.wrong.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _is_whole(entry: Path) -> bool:
    body = entry.read_bytes()
    return body.startswith(b"{") and body.rstrip().endswith(b"}")
