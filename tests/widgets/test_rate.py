"""The rate that a view shows of what comes in bursts."""

from __future__ import annotations

import random

import pytest

from kinesis_nb.widgets.rate import HISTORY, Rate


class _Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _received(time: float, shards: int, per_second: int, phases: list[float]) -> int:
    """Return what readers have that get all rows of their shard once a second."""
    return sum(int(max(0.0, time - phase)) * per_second // shards for phase in phases)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_a_steady_stream_has_a_steady_rate(shards: int, seed: int) -> None:
    """5,000 rows a second read 5,000, within 3 %, whenever the shards are read and the view asks."""
    chance, clock = random.Random(seed), _Time()
    phases, rate = [chance.random() for _ in range(shards)], Rate(0, clock)
    while clock.now < 60:
        clock.now += chance.uniform(0.19, 0.24)
        rate.count(_received(clock.now, shards, 5_000, phases))
        if clock.now > 14:
            assert rate.now == pytest.approx(5_000, rel=0.03)


def test_a_stream_that_ends_has_none() -> None:
    """It falls when the next burst does not come, and is 0 after the window."""
    clock = _Time()
    rate, rates = Rate(0, clock), []
    for tick in range(1, 81):
        clock.now = tick / 2
        rate.count(1_000 * min(int(clock.now), 29))
        rates.append(rate.now)
    assert rates[57] == pytest.approx(1_000, rel=0.03)
    assert rates[-1] == 0
    assert rates[60:] == sorted(rates[60:], reverse=True)


def test_what_was_there_before_does_not_count() -> None:
    """A rate is of what came since."""
    clock = _Time()
    rate = Rate(70_000, clock)
    rate.count(70_500)
    assert rate.now == 0
    clock.now = 2
    rate.count(72_000)
    assert 800 <= rate.now <= 1_000
    assert len(rate.counted(72_000)["rates"]) == HISTORY
