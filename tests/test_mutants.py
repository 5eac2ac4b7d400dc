"""Seeded defects are what they say."""

from __future__ import annotations

import pytest

from tests.mutants import Mutant, has_its_place
from tests.mutants.suites import SUITES

MUTANTS = {f"{name}: {mutant.name}": mutant for name, suite in SUITES.items() for mutant in suite.mutants}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_has_its_place(mutant: Mutant) -> None:
    """The text that a seeded defect replaces is in the package exactly once."""
    assert has_its_place(mutant)
