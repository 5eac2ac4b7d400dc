"""The simulated world of agents' jobs: that they survive it, and that each of its moves is made."""

from __future__ import annotations

import pytest

from tests.simulation.life.campaign import check
from tests.simulation.life_jobs.run import never, simulate

SEEDS = 60

pytestmark = [
    pytest.mark.slow,
    # what a user is warned of, and nothing else
    pytest.mark.filterwarnings("ignore:sync of orders"),
    pytest.mark.filterwarnings("ignore:.*; trying again until"),
]


@pytest.mark.timeout(600)
def test_a_job_survives_everything_around_it() -> None:
    """Nothing is lost, twice or out of order; what wait(), status() and stop() say is so; what ended stays so."""
    check(SEEDS, simulate, never)
