"""What ``kinesis-nb demo`` does: the whole job on an embedded Kinesis, checked against what was really written."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Generator

    import polars as pl

    from kinesis_nb.samples import SampleStreams
    from kinesis_nb.source import Source

_CHILD = """
import os, sys, threading, kinesis_nb as kn
threading.Thread(target=lambda: os._exit(sys.stdin.read() == ""), daemon=True).start()  # it must not outlive the demo
source = kn.connect(endpoint_url=sys.argv[1], auth=kn.StaticCredentials("emulator", "emulator"))
source.sync("clicks", sys.argv[2], commit_interval=0.2).wait(until_caught_up=False)
"""
_PATIENCE_SECONDS = 60  # what has not arrived or been committed by then counts as missing


def tell(seconds: float = 4.0) -> bool:
    """Run the story and print it, and what to do next; return whether everything it claims was found to be so.

    The table is kept in a temporary folder, unless the story ends before the table is complete.

    Parameters
    ----------
    seconds
        How long to tail, and how long to let the sync run before it is killed.
    """
    from kinesis_nb.emulator import Emulator
    from kinesis_nb.samples import SampleStreams

    with _kept_folder() as folder, Emulator() as emulator:
        streams = SampleStreams(emulator, reshard_seconds=1.5)
        streams.start()
        try:
            return _Story(streams, folder / "clicks").run(seconds, emulator.endpoint_url)
        finally:
            streams.stop()


@contextmanager
def _kept_folder() -> Generator[Path]:
    """Give a folder of this user alone, which stays when all went well."""
    folder = Path(tempfile.mkdtemp(prefix="kinesis_nb-demo-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Story:
    def __init__(self, streams: SampleStreams, table: Path) -> None:
        self._streams, self._table = streams, table
        self._source: Source = streams.source()
        self._is_true = True

    def run(self, seconds: float, url: str) -> bool:
        _title(f"An embedded Kinesis serves {url}")
        self._explore()
        self._tail(seconds)
        self._kill_a_sync(seconds, url)
        self._export(self._resume())
        print("\nEverything held." if self._is_true else "\nSOMETHING DID NOT HOLD, see above.", flush=True)
        self._show_next()
        return self._is_true

    def _show_next(self) -> None:
        """Print where the table is, a command that reads it, and the code to go on with in Python."""
        python = _shown(sys.executable)
        look = f"import polars as pl; print(pl.scan_delta('{self._table}').tail(5).collect())"
        _title(f"Next: the table is kept in {self._table}")
        self._say(f'look into it:    {python} -c "{look}"')
        self._say(f"try it yourself: {python}   then   >>> import kinesis_nb as kn; kn.demo().read('orders', limit=5)")
        self._say(f"in a notebook:   {_notebook_command()}")

    def _explore(self) -> None:
        _title("explore")
        for row in self._source.explore().to_polars().iter_rows(named=True):
            print(f"  {row['stream']:8}  {row['status']}  {row['open_shards']} open shards")
        for record in self._source.explore("orders").sample(2):
            print(f"  orders sample: {record.data}")

    def _tail(self, seconds: float) -> None:
        _title(f"tail clicks for {seconds:g} s while it is resharded")
        before = self._streams.reshards
        with self._source.tail("clicks") as tail:
            time.sleep(seconds)
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not len(tail) and time.monotonic() < deadline:  # a busy machine is slow to make its first connection
                time.sleep(0.1)
            tail.pause()
            frame = tail.to_polars()
            shards = len(tail.stats().shards)
        self._say(f"{len(frame):,} records from {shards} shards; reshards meanwhile: {self._streams.reshards - before}")
        self._check("order per key kept", _is_ordered(frame))
        self._check("something arrived", len(frame) > 0)

    def _kill_a_sync(self, seconds: float, url: str) -> None:
        _title("sync clicks to a Delta table in another process, and kill it with SIGKILL (takes a few seconds)")
        child = subprocess.Popen([sys.executable, "-c", _CHILD, url, str(self._table)], stdin=subprocess.PIPE)
        try:
            rows = self._wait_for_rows(child)
            time.sleep(seconds / 2)
        finally:
            child.kill()
            child.wait()
        self._say(f"killed after its first {rows:,} rows were in the table; {_count(self._table):,} rows there now")

    def _wait_for_rows(self, child: subprocess.Popen[bytes]) -> int:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (rows := _count(self._table)):
            if child.poll() is not None or time.monotonic() > deadline:
                msg = "the sync in the other process did not commit"
                raise ServiceError(msg, hint="its own message stands above")
            time.sleep(0.1)
        return rows

    def _resume(self) -> pl.DataFrame:
        _title("resume the sync here; the stream goes quiet after a moment")
        time.sleep(1.0)
        self._streams.stop()
        sync = self._source.sync("clicks", self._table, commit_interval=0.2)
        self._check("caught up", sync.wait(timeout=60))
        sync.stop()
        frame = sync.scan().collect().sort("shard_offset")
        self._compare(frame, sync.status().rows)
        return frame

    def _compare(self, frame: pl.DataFrame, resumed: int) -> None:
        """Compare the table with what was written; so many of its rows are from after the kill."""
        written = self._streams.written.total()
        unique = frame.n_unique(["shard_id", "sequence_number"])
        self._say(
            f"{written:,} records written, {self._streams.reshards} reshards, {frame['shard_id'].n_unique()} shards"
        )
        self._say(f"{len(frame):,} rows in the table, {resumed:,} of them after the kill")
        self._check(f"duplicates {len(frame) - unique:,}", len(frame) == unique)
        self._check(f"lost {written - unique:,}", unique == written)
        self._check("order per key kept", _is_ordered(frame))

    def _export(self, frame: pl.DataFrame) -> None:
        _title("export the table to the stream results")
        report = self._source.export_df(frame, self._streams.arn("results"), progress=False)
        back = self._source.read("results", progress=False).to_polars()
        self._say(
            f"{report.rows:,} rows in {report.requests:,} requests, {report.duration:.1f} s, {report.retries} retries"
        )
        self._check(f"read back {len(back):,}", len(back) == len(frame))
        self._check("order per key kept", _is_ordered(back))

    def _check(self, claim: str, holds: bool) -> None:  # noqa: FBT001 - a claim and whether it holds
        self._is_true &= holds
        print(f"  {'ok  ' if holds else 'FAIL'} {claim}", flush=True)

    def _say(self, text: str) -> None:
        print(f"  {text}", flush=True)


def _shown(program: str) -> str:
    """Return the path of a program as a user would type it: relative where it is below this folder."""
    path = Path(program)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _notebook_command() -> str:
    """Return what opens the tutorials: of the checkout where this is one, else JupyterLab here."""
    if Path("Makefile").is_file() and Path("notebooks").is_dir():
        return "make lab"
    return f"{_shown(sys.executable)} -m kinesis_nb lab ."


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _count(table: Path) -> int:
    from deltalake import DeltaTable

    return DeltaTable(str(table)).count() if DeltaTable.is_deltatable(str(table)) else 0


def _is_ordered(frame: pl.DataFrame) -> bool:
    """Whether the counter that each key's records carry goes up by one from row to row."""
    import polars as pl

    numbers = frame.select("partition_key", n=pl.col("data").str.json_path_match("$.n").cast(pl.Int64))
    steps = numbers.select(pl.col("n").diff().over("partition_key").drop_nulls())
    return bool((steps["n"] == 1).all())
