"""A tail of 1,000 open shards, mostly idle: `python benchmarks/many_shards.py`.

The embedded Kinesis, with AWS's quotas, and whoever puts a few records a second run in processes of their own. Prints
what the tail needs, as Markdown; fails when it needs too much, calls a shard too often, or misses a record.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from typing import TYPE_CHECKING

import emulated
import putter

if TYPE_CHECKING:
    from kinesis_nb.reading.tail import Tail

STREAM = "wide"
EVERY_SECONDS = 0.1  # between records, on average
LAST_SECONDS = 10  # for the last records to arrive
MOST_MIB, MOST_CORES, MOST_CALLS = 600, 1.0, 5  # memory, CPU, and AWS's GetRecords calls per second and shard


def main() -> int:
    """Measure, print, and return 0 when all limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    probes = int(options.seconds / EVERY_SECONDS / 2)
    with emulated.running({STREAM: options.shards}, emulated.AWS_QUOTAS) as port:
        started = time.perf_counter()
        with emulated.connect(port).tail(STREAM) as tail:
            opening = time.perf_counter() - started
            with putter.running(port, STREAM, probes, EVERY_SECONDS):
                most_calls, calls, cores = _watch(tail, options.seconds)
                received = _await(tail, probes)
            shards = tail.stats().shards
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| | measured | limit |\n| --- | --- | --- |")
    print(f"| peak memory, MiB | {mebibytes:,.0f} | {MOST_MIB} |")
    print(f"| CPU, cores | {cores:.2f} | {MOST_CORES:g} |")
    print(f"| most calls in one second to one shard | {most_calls} | {MOST_CALLS} |")
    print(f"| calls per second, all shards | {calls:,.0f} | |")
    print(f"| shards read | {sum(shard.calls > 0 for shard in shards):,} | {options.shards:,} |")
    print(f"| throttles | {sum(shard.throttles for shard in shards):,} | 0 |")
    print(f"| other retries | {sum(shard.retries - shard.throttles for shard in shards):,} | 0 |")
    print(f"| records received | {received:,} | {probes:,} |")
    print(f"| seconds until `tail()` returned | {opening:.1f} | |")
    passed = (
        mebibytes < MOST_MIB
        and cores < MOST_CORES
        and most_calls <= MOST_CALLS
        and not any(shard.retries for shard in shards)
        and all(shard.calls for shard in shards)
        and received == probes
    )
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


def _watch(tail: Tail, seconds: int) -> tuple[int, float, float]:
    """Return the most calls one shard had in one second, and averages: all calls per second, CPU cores in use."""
    most, first = 0, {shard.shard_id: shard.calls for shard in tail.stats().shards}
    before = first
    wall, cpu = time.perf_counter(), time.process_time()
    for second in range(1, seconds + 1):
        time.sleep(max(0.0, wall + second - time.perf_counter()))
        now = {shard.shard_id: shard.calls for shard in tail.stats().shards}
        most = max(most, *(calls - before.get(shard_id, 0) for shard_id, calls in now.items()))
        before = now
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return most, (sum(before.values()) - sum(first.values())) / wall, cpu / wall


def _await(tail: Tail, rows: int) -> int:
    """Return how many rows came, waiting a little for the last ones."""
    give_up = time.perf_counter() + LAST_SECONDS
    while (received := tail.stats().buffer.received) < rows and time.perf_counter() < give_up:
        time.sleep(0.1)
    return received


if __name__ == "__main__":
    sys.exit(main())
