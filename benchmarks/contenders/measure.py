"""What all contenders share: read once to warm up, read what counts, print one line of JSON.

Only the standard library is used here, because every peer runs in a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = "replay"
REGION = "us-east-1"
KEY = "benchmark"  # both of the access key's halves; nobody checks them


@dataclass(frozen=True)
class Job:
    """What is to be read: `records` records in all, spread evenly over `shards` shards."""

    endpoint: str
    shards: int
    records: int


def main(read: Callable[[Job], int]) -> None:
    """Run one contender.

    Parameters
    ----------
    read
        Reads everything and returns how many records it saw; called twice, first with a small job.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--warm-endpoint", required=True)
    parser.add_argument("--warm-records", type=int, required=True)
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=KEY, AWS_DEFAULT_REGION=REGION)
    read(Job(options.warm_endpoint, 1, options.warm_records))  # imports, service models, first connections
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu()
    seen = read(Job(options.endpoint, options.shards, options.records))
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    if seen != options.records:
        sys.exit(f"{seen:,} records instead of {options.records:,}")
    print(json.dumps({"records": seen, "wall": wall, "cpu": cpu, "peak": _peak()}))


def _cpu() -> float:
    """Return the CPU seconds of this process, all its threads, and the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak() -> int:
    """Return the most memory held so far, in bytes: of this process, and of the largest child where there are any."""
    status = Path("/proc/self/status")
    children = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if status.exists():  # ru_maxrss would count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1]) + children
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + children
