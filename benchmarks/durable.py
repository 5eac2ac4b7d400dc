"""Durable rows per CPU-second, beside `read()` of the same stream in the same run: ``python benchmarks/durable.py``.

Each measurement is a process of its own, so that its CPU time is all its threads did. Reading is warmed up first, and
the Parquet files, their fsync and the Delta commits count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from replay import STREAM, running

import kinesis_nb as kn


def measure(kind: str, url: str) -> None:
    """Read the stream once; print rows per CPU-second."""
    source = kn.connect(endpoint_url=url, auth=kn.StaticCredentials("replay", "replay"))
    source.read(STREAM, limit=1, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        if kind == "read":
            rows = len(source.read(STREAM, progress=False))
        else:
            sync = source.sync(STREAM, Path(folder) / "table")
            assert sync.wait(timeout=600)
            sync.stop()
            rows = sync.status().rows
        print(rows, time.process_time() - started)


def main() -> None:
    """Measure both by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["read", "sync"])
    parser.add_argument("--url")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--pages", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if options.kind:
        measure(options.kind, options.url)
        return
    rates: dict[str, list[float]] = {"read": [], "sync": []}
    with running(shards=options.shards, pages=options.pages) as url:
        for _ in range(options.repeat):
            for kind, found in rates.items():
                command = [sys.executable, __file__, "--kind", kind, "--url", url]
                rows, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                found.append(int(rows) / float(seconds))
                print(f"{kind}: {int(rows):,} rows, {found[-1]:,.0f} per CPU-second", flush=True)
    read, sync = (statistics.median(found) for found in rates.values())
    print(f"medians: read {read:,.0f}, sync {sync:,.0f} rows per CPU-second: {sync / read:.0%}")


if __name__ == "__main__":
    main()
