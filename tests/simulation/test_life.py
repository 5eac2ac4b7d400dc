"""The simulated world: that a sync survives it, and that each of its moves is made."""

from __future__ import annotations

import pytest

from tests.simulation.life.campaign import check
from tests.simulation.life.run import never, simulate

pytestmark = [
    pytest.mark.slow,
    # what a user is warned of, and nothing else
    pytest.mark.filterwarnings("ignore:sync of orders"),
    pytest.mark.filterwarnings("ignore:.*; trying again until"),
]

SEEDS = 200


@pytest.mark.timeout(600)
def test_a_sync_survives_everything_around_it() -> None:
    """Nothing is lost untold, doubled, out of order, back from the dead or not ours, and one writer goes on."""
    check(SEEDS, simulate, never)
