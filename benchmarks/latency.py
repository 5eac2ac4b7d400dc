"""From a put until its row is visible in a tail: `python benchmarks/latency.py`.

The embedded Kinesis, with AWS's quotas, and whoever puts run in processes of their own. Idle: a few probes a second
over 4 shards and nothing else; busy: 100 records along with each probe. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import emulated
import putter

STREAM = "latency"
SHARDS = 4
EVERY_SECONDS = 0.15  # between probes, on average
LOADS = {"idle": 0, "busy": 100}  # records along with each probe
SPARE_SECONDS = 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=400)
    options = parser.parse_args()
    print("| stream | probes | p50, ms | p99, ms | most, ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, load in LOADS.items():
        seen = _measure(options.probes, load)
        cuts = statistics.quantiles(seen, n=100)
        print(f"| {name} | {len(seen)} | {cuts[49]:,.0f} | {cuts[98]:,.0f} | {max(seen):,.0f} |", flush=True)


def _measure(probes: int, load: int) -> list[float]:
    """Return the milliseconds of every probe."""
    seen: list[float] = []
    with (
        emulated.running({STREAM: SHARDS}, emulated.AWS_QUOTAS) as port,
        emulated.connect(port).tail(STREAM) as tail,
        putter.running(port, STREAM, probes, EVERY_SECONDS, load),
    ):
        guard = threading.Timer(probes * EVERY_SECONDS * 2 + SPARE_SECONDS, tail.stop)
        guard.start()
        for rows in tail.batches():
            now = time.time_ns()
            keys, data = rows.column("partition_key").to_pylist(), rows.column("data").to_pylist()
            seen += [
                (now - int(sent)) / 1e6 for key, sent in zip(keys, data, strict=True) if key.startswith(putter.PROBE)
            ]
            if len(seen) == probes:
                break
        guard.cancel()
    assert len(seen) == probes, f"{len(seen)} of {probes} probes arrived"
    return seen


if __name__ == "__main__":
    main()
