"""The simulation of a sync with its real table, and that it would notice."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.table import SEEDS, never, simulate

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_the_table_has_every_record_once_in_order() -> None:
    """Over some seeds of faults, crashes and zombies the table is whole, and each of them did occur."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        assert failure is None, failure
        happened += counts
    assert never(happened) == []
