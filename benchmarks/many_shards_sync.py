"""A sync of 1,000 shards with 20 MB in them: `python benchmarks/many_shards_sync.py`.

The shards are canned answers (`replay.py`) of a process of its own; the table is a folder. Prints what the sync needs,
as Markdown; fails when it needs too much memory or time, misses a row, or leaves threads behind.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time

import replay

import kinesis_nb as kn

SIZE = 200  # bytes of data per record
MOST_MIB = 600
MOST_STOP_SECONDS = 2.0  # on a machine that has nothing else to do
MOST_SECONDS = 120  # for all of it


def main() -> int:
    """Measure, print, and return 0 when all limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--records", type=int, default=100, help="per shard")
    options = parser.parse_args()
    expected = options.shards * options.records
    before = set(threading.enumerate())
    with replay.running(options.shards, 1, options.records, SIZE) as endpoint, tempfile.TemporaryDirectory() as folder:
        source = kn.connect(auth=kn.StaticCredentials("replay", "replay"), endpoint_url=endpoint)
        started = time.perf_counter()
        sync = source.sync(replay.STREAM, f"{folder}/table")
        threads = len(threading.enumerate()) - len(before)
        sync.wait(MOST_SECONDS)
        seconds = time.perf_counter() - started
        rows = sync.status().rows
        stopping = time.perf_counter()
        sync.stop()
        stopping = time.perf_counter() - stopping
        left = len(set(threading.enumerate()) - before)
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| | measured | limit |\n| --- | --- | --- |")
    print(f"| peak memory, MiB | {mebibytes:,.0f} | {MOST_MIB} |")
    print(f"| data in all shards, MB | {expected * SIZE / 1e6:,.0f} | |")
    print(f"| rows in the table | {rows:,} | {expected:,} |")
    print(f"| seconds until they were there | {seconds:.1f} | {MOST_SECONDS} |")
    print(f"| threads of the sync while it ran | {threads:,} | |")
    print(f"| seconds that `stop()` took | {stopping:.1f} | {MOST_STOP_SECONDS:g} |")
    print(f"| threads left after it | {left} | 0 |")
    passed = mebibytes < MOST_MIB and rows == expected and stopping < MOST_STOP_SECONDS and left == 0
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
