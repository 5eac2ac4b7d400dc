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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[str, int], int]  # stream and how many records it holds -> how many were read

REGION = "us-east-1"
KEY = "benchmark"  # both of the access key's halves; nobody checks them


def main(connect: Callable[[str], Read]) -> None:
    """Run one contender.

    Parameters
    ----------
    connect
        Takes the endpoint and returns what reads a stream.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint")
    parser.add_argument("warm", help="a small stream, and its number of records")
    parser.add_argument("warm_records", type=int)
    parser.add_argument("stream", help="the stream that counts, and its number of records")
    parser.add_argument("records", type=int)
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=KEY, AWS_DEFAULT_REGION=REGION)
    read = connect(options.endpoint)
    read(options.warm, options.warm_records)  # imports, service models, connections
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu()
    seen = read(options.stream, options.records)
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
