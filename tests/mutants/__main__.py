"""Try all mutants; fail when one survives, hangs or has no place."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutants import Mutant, Suite, has_its_place, is_killed, noticed
from tests.mutants.suites import SUITES


def main() -> int:
    """Return 0 when all are killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Seed defects; each must be noticed.")
    parser.add_argument("suites", nargs="*", default=list(SUITES), metavar="SUITE", help=f"among {', '.join(SUITES)}")
    parser.add_argument("--seeds", type=int, help="of the simulation, per mutant; the suite's own by default")
    parser.add_argument("--only", default="", help="mutants with this text in their name")
    options = parser.parse_args()
    killed = [_try(name, SUITES[name], options.seeds or SUITES[name].seeds, options.only) for name in options.suites]
    return 0 if all(killed) else 1


def _try(name: str, suite: Suite, seeds: int, only: str) -> bool:
    if lost := [mutant.name for mutant in suite.mutants if not has_its_place(mutant)]:
        print(f"{name}: the text is not there exactly once:", *lost, sep="\n  ")
        return False
    if found := noticed(None, suite, seeds):
        print(f"{name}: without any mutant: {found}")
        return False
    chosen = [mutant for mutant in suite.mutants if only in mutant.name]

    def tried(mutant: Mutant) -> bool:
        found = noticed(mutant, suite, seeds)
        print(f"{name}: {mutant.name:<55} {found or 'SURVIVED'}"[:200], flush=True)
        return is_killed(found)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        killed = sum(pool.map(tried, chosen))
    print(f"{name}: {killed} of {len(chosen)} killed", flush=True)
    return killed == len(chosen)


if __name__ == "__main__":
    sys.exit(main())
