"""Exports from many seeds, and that a broken one would be noticed."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.exports import MUST_HAPPEN, simulate

pytestmark = pytest.mark.slow

SEEDS = 150


def test_every_row_in_order_whatever_happens() -> None:
    """Over many seeds no row is lost or out of order, duplicates are at most those reported, and every fault occurs."""
    happened: Counter[str] = Counter()
    failures: list[str] = []
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        happened += counts
        failures += [failure] if failure else []
    assert failures == []
    assert [name for name in MUST_HAPPEN if not happened[name]] == []


def test_same_seed_same_run() -> None:
    """A seed that failed can be looked at again: it does the same, count for count."""
    assert simulate(7) == simulate(7)
