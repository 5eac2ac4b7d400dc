"""A tail, a sync and an export of it for an hour, with reshards: `python benchmarks/soak.py --minutes 60`.

The stream is an emulator in a process of its own, which also puts the records; both streams are resharded again and
again. Prints what this process needs as it goes, as Markdown, and fails when memory, threads or open files grow after
the first ten minutes, or when rows are missing, doubled or out of order at the end.

`--output-share 0.1` makes the output stream ten times slower than the input until the input ends: rows are
queued for the export while the sync rewrites the files they came from.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
import psutil  # comes with distributed, in the extra `test`

import kinesis_nb as kn

KEYS = 400
WARM_SHARE = 1 / 6  # of the time, which does not count
LEAST_MINUTES = 20  # below that it is still warming up, and growth says nothing
MOST_GROWTH = 1.15  # memory at the end over that after the warm-up; threads and files may not grow beyond reshards
PUTTER = """
import sys, time
from kinesis_nb.emulator import Emulator, Stall
rate, reshard, seconds, keys, stall = (float(x) for x in sys.argv[1:])
with Emulator() as emulator:
    call = emulator.model.call
    for name in ("orders", "copy"):
        call("CreateStream", {"StreamName": name, "ShardCount": 4})
    if stall:
        emulator.chaos(seed=0, rate=1.0, faults=[Stall(stall)], operations=["PutRecords"])
    print(emulator.endpoint_url, flush=True)
    began, count, next_reshard, shards = time.monotonic(), 0, reshard, 4
    numbers = [0] * int(keys)
    while (now := time.monotonic() - began) < seconds:
        while count < now * rate:
            records = []
            for _ in range(100):
                key = count % len(numbers)
                numbers[key] += 1
                data = b'{"n": %d, "text": "%s"}' % (numbers[key], b"x" * 60)
                records.append({"PartitionKey": f"key-{key}", "Data": data})
                count += 1
            left = records
            while left:
                said = call("PutRecords", {"StreamName": "orders", "Records": left})["Records"]
                left = [record for record, one in zip(left, said) if "ErrorCode" in one]
                if left:
                    time.sleep(0.2)
        if now > next_reshard:
            next_reshard += reshard
            shards = 6 if shards == 4 else 4
            for name in ("orders", "copy"):
                change = {"StreamName": name, "TargetShardCount": shards, "ScalingType": "UNIFORM_SCALING"}
                try:
                    call("UpdateShardCount", change)
                except Exception as error:
                    print("no reshard", error, file=sys.stderr)
        time.sleep(0.02)
    emulator.calm()
    print(count, flush=True)
    sys.stdin.read()
"""


def main() -> int:
    """Run, print, and return 0 when nothing grows and nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=3_000, help="records per second")
    parser.add_argument("--reshard", type=float, default=20, help="seconds between reshards")
    parser.add_argument("--output-share", type=float, default=1, help="of the rate, what the output stream takes")
    options = parser.parse_args()
    seconds = options.minutes * 60
    # a lane has one request under way, with one record of each of its keys
    stall = KEYS / (options.rate * options.output_share) if options.output_share < 1 else 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", PUTTER, *map(str, (options.rate, options.reshard, seconds, KEYS, stall))]
        putter = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert putter.stdout is not None
        url = putter.stdout.readline().strip()
        keys = kn.StaticCredentials("emulator", "emulator")
        source = kn.connect(endpoint_url=url, auth=keys, exports_enabled=True)
        sync = source.sync("orders", Path(folder) / "orders")
        tail = source.tail("orders", max_rows=10_000)
        export = source.export_stream(sync, source.explore("copy").summary.arn)
        figures = watch(seconds, lambda: f"{sync.status().rows:,} | {export.status().rows:,}")
        put = int(putter.stdout.readline())
        caught_up = sync.wait(120) and export.wait(max(300, seconds))
        verdict, rows, sent = sync.verify(), len(sync), export.status()
        print(
            f"\nput {put:,}, in the table {rows:,}, sent {sent.rows:,}, possible duplicates {sent.possible_duplicates}"
        )
        sent_rows = check_order(source)
        print(verdict, f"{tail.stats().buffer.received:,} records tailed")
        for running in (export, tail, sync):
            running.stop()
        assert putter.stdin is not None
        putter.stdin.close()
    names = (thread.name for thread in threading.enumerate() if thread.name.startswith("kinesis_nb"))
    left = [name for name in names if "decoding" not in name]  # these stay, idle
    flat = is_flat(figures) or options.minutes < LEAST_MINUTES
    passed = caught_up and bool(verdict) and rows == put == sent.rows == sent_rows and flat and not left
    print("threads left:", left)
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


def check_order(source: kn.Source) -> int:
    """Return how many records are in the output stream; -1 when they are not each key's numbers from 1 on, in order."""
    last: dict[str, int] = {}
    count = 0
    with source.tail("copy", "trim_horizon", on_full="block") as tail:
        while len(rows := tail.take(100_000, timeout=5)):
            frame = rows.to_polars()
            numbers = frame.select("partition_key", pl.col("data").str.extract(r'"n": (\d+)').cast(pl.Int64))
            for (key,), part in numbers.group_by("partition_key", maintain_order=True):
                if part["data"].to_list() != list(
                    range(last.get(str(key), 0) + 1, last.get(str(key), 0) + 1 + part.height)
                ):
                    print("out of order:", key, part["data"].head().to_list(), "behind", last.get(str(key), 0))
                    return -1
                last[str(key)] = part["data"][-1]
            count += frame.height
    return count


def watch(seconds: float, progress: object) -> list[tuple[float, float, int, int]]:
    """Print and return memory (MiB), threads and open files of this process, thirty times."""
    process, began = psutil.Process(os.getpid()), time.monotonic()
    figures = []
    print("| minute | RSS, MiB | threads | open files | rows in the table | rows sent |")
    print("| --- | --- | --- | --- | --- | --- |")
    for step in range(1, 31):
        time.sleep(max(0.0, began + seconds * step / 30 - time.monotonic()))
        gc.collect()
        found = (
            (time.monotonic() - began) / 60,
            process.memory_info().rss / 2**20,
            process.num_threads(),
            process.num_fds(),
        )
        figures.append(found)
        print(f"| {found[0]:.1f} | {found[1]:,.0f} | {found[2]} | {found[3]} | {progress()} |", flush=True)  # type: ignore[operator]
    return figures


def is_flat(figures: list[tuple[float, float, int, int]]) -> bool:
    """Whether the last third needs about as much as the time right after the warm-up."""
    warm = int(len(figures) * WARM_SHARE)
    early, late = figures[warm : warm + len(figures) // 3], figures[-len(figures) // 3 :]
    print("\n| | after the warm-up | at the end |\n| --- | --- | --- |")
    flat = True
    for place, name in ((1, "RSS, MiB"), (2, "threads"), (3, "open files")):
        before, after = (max(figure[place] for figure in some) for some in (early, late))
        print(f"| most {name} | {before:,.0f} | {after:,.0f} |")
        flat &= after <= before * MOST_GROWTH
    return flat


if __name__ == "__main__":
    sys.exit(main())
