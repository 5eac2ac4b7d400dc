"""The simulated world: that a sync survives it, and that each of its moves is made."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.life.run import never, simulate

# a sync tells of what it dropped as a KPL wrote it again; that it does is tested elsewhere
pytestmark = [  # what a user is warned of, and nothing else
    pytest.mark.filterwarnings("ignore:sync of orders"),
    pytest.mark.filterwarnings("ignore:.*; trying again until"),
]

SEEDS = 200


@pytest.mark.timeout(600)
def test_a_sync_survives_everything_around_it() -> None:
    """Nothing is lost untold, doubled, out of order, back from the dead or not ours, and one writer goes on."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        assert failure is None, failure
        happened += counts
    print(*(f"{count:8,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    assert never(happened) == []
