"""A streaming export that is killed again and again: ``python -m tests.kill_export --kills 100``.

A stream is written to and resharded, and synced to a table, in this process. Another process exports that table, and is
killed with SIGKILL while requests are under way; answers are slow, so that many are. At the end everything must be in
the output stream, in order, and no more rows twice than the export reports.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import kinesis_nb as kn
from kinesis_nb.emulator import Emulator, ErrorReply, PartialFailure, Reset, Stall
from tests.conftest import Streams, by_key, written_by_key
from tests.support.local import local

if TYPE_CHECKING:
    from collections.abc import Generator

CHILD = """
import os, sys, threading, kinesis_nb as kn
threading.Thread(target=lambda: os._exit(sys.stdin.read() == ""), daemon=True).start()  # it must not outlive its parent
source = kn.connect(endpoint_url=sys.argv[1], auth=kn.StaticCredentials("a", "b"), exports_enabled=True)
source.export_stream(sys.argv[2], sys.argv[3]).wait(until_caught_up=False)
"""
FAULTS = (Stall(0.02), Stall(0.02), Stall(0.1), PartialFailure(0.2), Reset(before=False), ErrorReply("InternalFailure"))
PATIENCE_SECONDS = 60.0  # for one run of the child to send something


class Killed(NamedTuple):
    """What a series of kills came to; `useful` is how many runs had sent something before they died."""

    kills: int
    useful: int
    rows: int
    doubled: int
    possible_duplicates: int
    reshards: int


def kill_again_and_again(kills: int, seed: int = 0) -> Killed:
    """Kill an export so often, then let it finish, and check what is in the output stream."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kill-export-") as folder, Emulator(seed=seed) as emulator:
        streams = Streams(emulator)
        streams.create("orders", shards=2)
        arn = streams.create("copy", shards=3)
        keys = kn.StaticCredentials("a", "b")
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=keys, exports_enabled=True)
        table = Path(folder) / "orders"
        sync = source.sync("orders", table, commit_interval=0.05)
        useful = reshards = 0
        with _writing(streams):
            emulator.chaos(seed=seed, rate=0.5, faults=FAULTS, operations=["PutRecords"])
            for number in range(kills):
                useful += _run_and_kill(emulator, rng, [emulator.endpoint_url, str(table), arn])
                if number % 10 == 5:
                    reshards += _reshard(streams, rng)
            emulator.calm()
        assert sync.wait(timeout=60)
        export = local(source.export_stream(table, arn))
        assert export.wait(timeout=300)
        export.stop()
        sync.stop()
        found = by_key(source.read("copy", progress=False))
        doubled = _check(found, written_by_key(streams))
        status = export.status()
        assert doubled <= status.possible_duplicates, (doubled, status.possible_duplicates)
        return Killed(kills, useful, len(streams.written), doubled, status.possible_duplicates, reshards)


@contextmanager
def _writing(streams: Streams) -> Generator[None]:
    """Write to the source stream all the while."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.1):
            streams.put(20, keys=13)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _run_and_kill(emulator: Emulator, rng: random.Random, arguments: list[str]) -> bool:
    """Return whether the run sent something before it was killed."""
    before = emulator.requests["PutRecords"]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while emulator.requests["PutRecords"] <= before:
            assert child.poll() is None, f"the export ended by itself with {child.returncode}"
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
    finally:
        child.kill()
        child.wait()
        if child.stdin:
            child.stdin.close()
    return True


def _reshard(streams: Streams, rng: random.Random) -> int:
    for name in ("orders", "copy"):
        if len(streams.open_shards(name)) > 2:
            streams.merge(name)
        else:
            streams.split(name, rng.randrange(2))
    return 2


def _check(found: dict[str, list[int]], written: dict[str, list[int]]) -> int:
    """Return how many rows are there twice; whatever is lost or out of order is an error."""
    for key, numbers in written.items():
        assert sorted(set(found[key])) == numbers, f"{key}: lost {sorted(set(numbers) - set(found[key]))[:10]}"
        assert found[key] == sorted(found[key]), f"{key} is out of order"
    assert found.keys() == written.keys()
    return sum((Counter(numbers) - Counter(set(numbers))).total() for numbers in found.values())


def main() -> int:
    """Kill, and print what it came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_export")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    print(kill_again_and_again(options.kills, options.seed), f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
