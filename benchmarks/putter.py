"""Puts probes, and any load beside them, into a stream of the embedded Kinesis: started by other benchmarks.

A probe's data is the wall clock in nanoseconds just before it is sent; its key begins with "probe". Ends by itself.
"""

from __future__ import annotations

import argparse
import base64
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import emulated

if TYPE_CHECKING:
    from collections.abc import Generator

PROBE = "probe"
LOAD_DATA = base64.b64encode(b"x" * 200).decode()


@contextmanager
def running(port: int, stream: str, probes: int, every: float, load: int = 0) -> Generator[None]:
    """Put in a process of its own; it ends with the block at the latest.

    Parameters
    ----------
    every
        Seconds between probes on average; the gaps are random, so that they fall in with nobody's rhythm.
    load
        Records of 200 bytes put along with each probe.
    """
    numbers = {"--port": port, "--stream": stream, "--probes": probes, "--every": every, "--load": load}
    command = [sys.executable, str(Path(__file__)), *(str(part) for pair in numbers.items() for part in pair)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    """Put all probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--probes", type=int, required=True)
    parser.add_argument("--every", type=float, required=True)
    parser.add_argument("--load", type=int, required=True)
    options = parser.parse_args()
    client = emulated.RawClient(options.port)
    rng = random.Random(1)
    for _ in range(options.probes):
        time.sleep(rng.expovariate(1 / options.every))
        entries = [_entry("load", LOAD_DATA, rng) for _ in range(options.load)]
        data = base64.b64encode(str(time.time_ns()).encode()).decode()
        client.call("PutRecords", StreamName=options.stream, Records=[*entries, _entry(PROBE, data, rng)])


def _entry(key: str, data: str, rng: random.Random) -> dict[str, Any]:
    return {"PartitionKey": f"{key}-{rng.getrandbits(32)}", "Data": data}


if __name__ == "__main__":
    main()
