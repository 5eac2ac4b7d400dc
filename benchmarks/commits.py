"""How long a commit takes as a table grows, with maintenance beside it as in a running sync.

``python benchmarks/commits.py --commits 10000`` prints a line per thousand commits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa

from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.origin import Origin
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable

ORIGIN = Origin("arn:aws:kinesis:us-east-1:000000000000:stream/orders", "2026-11-24", "trim_horizon")
ROWS = 100
SHARDS = [f"shardId-{number:012d}" for number in range(4)]


def rows(first: int) -> pa.Table:
    """Return rows of 200 bytes."""
    columns = {name: pa.nulls(ROWS, TABLE_SCHEMA.field(name).type) for name in TABLE_SCHEMA.names}
    columns["data"] = pa.array(["x" * 200] * ROWS)
    columns["shard_offset"] = pa.arange(first, first + ROWS)
    return pa.Table.from_pydict(columns, schema=TABLE_SCHEMA)


def maintain(storage: Storage, table: SyncTable, stop: threading.Event, rounds: list[float]) -> None:
    """Do what the upkeep thread of a sync does."""
    maintenance = Maintenance(storage)
    while not stop.wait(0.05):
        if maintenance.is_due(table.version):
            started = time.perf_counter()
            maintenance.run()
            rounds.append(time.perf_counter() - started)


def main() -> None:
    """Commit, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=10_000)
    commits = parser.parse_args().commits
    took: list[float] = []
    rounds: list[float] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        table = SyncTable.open(Storage.at(Path(folder) / "table"), ORIGIN)
        table.acquire(SHARDS)
        beside = threading.Thread(target=maintain, args=(table.storage, table, stop, rounds))
        beside.start()
        for number in range(1, commits + 1):
            body = rows(number * ROWS)
            started = time.perf_counter()
            file, reached = table.write_rows(body), {shard: Checkpoint(number, str(number)) for shard in SHARDS}
            while not table.commit(file, reached):  # a round of maintenance refuses the handle from before it, once
                pass
            took.append(time.perf_counter() - started)
            if number in (100, 200, 500) or number % 1_000 == 0:
                last = took[-100:]
                print(
                    f"{number:6,} commits: median of the last 100 {1e3 * statistics.median(last):5.1f} ms,"
                    f" most {1e3 * max(took[-1000:]):6.1f} ms, {len(rounds)} rounds of maintenance",
                    flush=True,
                )
        stop.set()
        beside.join()
        ratio = statistics.median(took[-100:]) / statistics.median(took[:100])
        print(f"median at {commits:,} over median at 100: {ratio:.2f}; longest round {max(rounds, default=0):.2f} s")
        entries = len(list(Path(table.storage.uri, "_delta_log").iterdir()))
        print(f"{len(table.storage.open().file_uris())} data files, {entries} entries in the log")


if __name__ == "__main__":
    main()
