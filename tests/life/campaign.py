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

    from tests.simulation import Failure

ENOUGH = 200  # seeds: whatever may happen has happened by then


def run(
    module: str,
    description: str,
    simulate: Callable[[int], tuple[Counter[str], Failure | None]],
    never: Callable[[Counter[str]], list[str]],
) -> None:
    """Simulate the seeds that the command line names, and end the process."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets have an order of their own otherwise, and a seed is no one run
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
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
