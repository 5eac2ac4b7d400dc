"""Many seeds of a simulated world from the command line; ends with 1 if one failed, or if they left something out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.reader import Failure

ENOUGH = 200  # seeds: whatever may happen has happened by then


def run(
    module: str,
    description: str,
    simulate: Callable[[int], tuple[Counter[str], Failure | None]],
    never: Callable[[Counter[str]], list[str]],
) -> None:
    """Simulate the seeds that the command line names, and end the process."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # otherwise the order of sets differs and a seed does not repeat
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, **_environment()})
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--seeds", type=int, default=5_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--stop-after", type=int, default=10, help="failures")
    options = parser.parse_args()
    started = time.perf_counter()
    happened: Counter[str] = Counter()
    failures = done = 0
    for seed in range(options.first, options.first + options.seeds):
        counts, failure = simulate(seed)
        happened += counts
        done += 1
        if failure is not None:
            failures += 1
            print(failure, end="\n\n", flush=True)
            if failures >= options.stop_after:
                break
    print(*(f"{count:10,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    left_out = never(happened) if done >= ENOUGH and not failures else []
    seconds = time.perf_counter() - started
    print(
        f"{done:,} seeds from {options.first:,}: {failures} failed, {seconds:.0f} s, {seconds / done:.2f} s per seed",
        *(f"never: {name}" for name in left_out),
        sep="; ",
    )
    sys.stdout.flush()
    os._exit(1 if failures or left_out else 0)  # the threads of the Rust libraries may not end in order


def check(
    seeds: int,
    simulate: Callable[[int], tuple[Counter[str], Failure | None]],
    never: Callable[[Counter[str]], list[str]],
) -> None:
    """Simulate seeds within a test: none may fail, and each move must have been made."""
    happened: Counter[str] = Counter()
    for seed in range(seeds):
        counts, failure = simulate(seed)
        assert failure is None, failure
        happened += counts
    print(*(f"{count:8,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    assert never(happened) == []


def _environment() -> dict[str, str]:
    """Return the settings of a run: a quarter faster with one thread per library and a disk in memory."""
    one_thread = dict.fromkeys(
        ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "OMP_NUM_THREADS"), "1"
    )
    memory = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    return {"PYTHONHASHSEED": "0", **one_thread, **memory}
