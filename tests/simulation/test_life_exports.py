"""The simulated world of streaming exports: that they survive it, and that each of its moves is made."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.life_exports.run import never, simulate

# a sync tells of what it dropped as a KPL wrote it again; that it does is tested elsewhere
pytestmark = [  # what a user is warned of, and nothing else
    pytest.mark.filterwarnings("ignore:sync of orders"),
    pytest.mark.filterwarnings("ignore:.*; trying again until"),
]

SEEDS = 90


@pytest.mark.timeout(600)
def test_an_export_survives_everything_around_it() -> None:
    """Nothing is lost, out of order, or twice without being counted; what wait() and the state say is so."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts, failure = simulate(seed)
        assert failure is None, failure
        happened += counts
    print(*(f"{count:8,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    assert never(happened) == []
