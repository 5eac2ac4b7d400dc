"""The simulation of the whole reader, and that it would notice."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.reader import Failure, never, simulate

pytestmark = pytest.mark.slow

SEEDS = 300


def test_every_record_once_in_order_whatever_happens() -> None:
    """Over many seeds nothing is lost, doubled or out of order, all of it arrives, and every fault did occur."""
    happened: Counter[str] = Counter()
    failures: list[Failure] = []
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        happened += counts
        if failure is not None:
            failures.append(failure)
    print(*(f"{count:8,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    assert not failures, f"{len(failures)} of {SEEDS} seeds failed; {failures[0]}"
    assert never(happened) == []


def test_same_seed_same_run() -> None:
    """A seed that failed can be looked at again: it does the same, count for count."""
    assert simulate(7) == simulate(7)
