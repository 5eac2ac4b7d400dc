"""Cut the power many times; print what was found, and fail on any doubt."""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

from kinesis_nb.emulator import Emulator
from tests.powercut.campaign import CUTS_PER_TABLE, Campaign, Report
from tests.powercut.disk import disk, why_not


def one_table(seed: int, cuts: int) -> Report:
    """Cut the power of one table: first while it is made, then at random moments of its life."""
    chance, started = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name, Emulator() as emulator, disk(Path(name)) as made:
        campaign = Campaign(emulator, Path(name), made, seed)
        for number in range(cuts):
            campaign.cut(chance.uniform(0.0, 0.1) if number == 0 else chance.uniform(0.0, 2.0))
        campaign.report.seconds = time.monotonic() - started
        return campaign.report


def main() -> int:
    """Run everything; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if reason := why_not():
        print(f"not here: {reason}")
        return 0
    total = Report()
    try:
        for first in range(0, options.cuts, CUTS_PER_TABLE):
            total += one_table(options.seed + first, min(CUTS_PER_TABLE, options.cuts - first))
            print(total, flush=True)
    finally:
        for child in multiprocessing.active_children():
            child.kill()
    return 0 if total.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
