"""Storage that is away for a minute while a stream that was never drained is read and the service throttles.

``python -m tests.crash.outage`` says how much memory the sync took, and whether everything was in the table in the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from kinesis_nb.emulator import Emulator, ErrorReply
from tests.crash.writer import Orders, live
from tests.support.places import away

SHARDS, RECORD_BYTES = 8, 1024
BUDGET_MIB = 1024  # 128 MiB that may wait, as much in a commit, answers of 10 MiB in 8 threads, 250 for libraries


def fill(emulator: Emulator, records: int) -> None:
    """Write numbered records, without repeating their bytes."""
    emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": SHARDS})
    for first in range(0, records, 500):
        batch = [
            {"PartitionKey": f"key-{number % 97}", "Data": f"{number:08d}".encode() * (RECORD_BYTES // 8)}
            for number in range(first, first + 500)
        ]
        emulator.model.call("PutRecords", {"StreamName": "orders", "Records": batch})


def memory(pid: int) -> int:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) // 1024 if found else 0


def main() -> int:
    """Take the folder away, wait, bring it back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--records", type=int, default=400_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        fill(emulator, options.records)
        emulator.chaos(seed=1, rate=0.1, faults=[ErrorReply("ProvisionedThroughputExceededException")])
        table = Path(folder, "table")
        orders = Orders("only", emulator.endpoint_url, "orders", str(table), f"{folder}/log", {}, retry_seconds=1.0)
        process = multiprocessing.get_context("forkserver").Process(target=live, args=(orders,), daemon=True)
        process.start()
        while not table.exists() or not list(table.glob("part-*")):
            time.sleep(0.05)
        seen = [0]
        with away(table):
            back_at = time.monotonic() + options.seconds
            while time.monotonic() < back_at:
                seen.append(memory(process.pid or 0))
                time.sleep(0.2)
        halfway = max(seen[: len(seen) // 2])
        print(
            f"storage away for {options.seconds:.0f} s: memory at most {max(seen)} MiB, {halfway} after half",
            flush=True,
        )
        returned = time.monotonic()
        while (rows := DeltaTable(table).count()) < options.records and time.monotonic() < returned + 300:
            seen.append(memory(process.pid or 0))
            time.sleep(0.5)
        number = pl.col("data").str.slice(0, 8)
        distinct = int(pl.scan_delta(str(table)).select(number.n_unique()).collect().item())
        process.kill()
        process.join()
        emulator.calm()
        print(
            f"{rows:,} of {options.records:,} rows in the table, {distinct:,} different,"
            f" {time.monotonic() - returned:.0f} s after it came back; memory at most {max(seen)} MiB;"
            f" {emulator.delivered.total()} calls throttled"
        )
        held = rows == distinct == options.records and max(seen) < BUDGET_MIB and emulator.delivered.total() > 0
        return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
