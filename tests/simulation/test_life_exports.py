"""The simulated world of streaming exports: that they survive it, and that each of its moves is made."""

from __future__ import annotations

import pytest

from tests.simulation.life.campaign import check
from tests.simulation.life_exports.run import never, simulate

pytestmark = [
    pytest.mark.slow,
    # what a user is warned of, and nothing else
    pytest.mark.filterwarnings("ignore:sync of orders"),
    pytest.mark.filterwarnings("ignore:.*; trying again until"),
]

SEEDS = 90


@pytest.mark.timeout(600)
def test_an_export_survives_everything_around_it() -> None:
    """Nothing is lost, out of order, or twice without being counted; what wait() and the state say is so."""
    check(SEEDS, simulate, never)
