"""The simulation of a sync with its real table, and that it would notice."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import mutants_sync
from tests.simulation_table import SEEDS, never, simulate


@pytest.mark.timeout(300)
def test_the_table_has_every_record_once_in_order() -> None:
    """Over some seeds of faults, crashes and zombies the table is whole, and each of them did occur."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        assert failure is None, failure
        happened += counts
    assert never(happened) == []


@pytest.mark.parametrize("mutant", mutants_sync.MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_of_the_sync_have_their_place(mutant: mutants_sync.Mutant) -> None:
    """The text that a seeded defect replaces is in the package exactly once."""
    assert mutant.name not in mutants_sync.misplaced()
