"""A sync that is killed: a small run of `make crash`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinesis_nb.emulator import Emulator
from tests.crash.campaign import Report, campaign
from tests.crash.points import POINTS, STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.campaign import Campaign

pytestmark = pytest.mark.slow

SOME_POINTS = [
    "after fetch",
    "before Parquet body",
    "after Parquet write",
    "before commit",
    "after commit",
    "before fsync of the log",
    "after takeover commit",
    "after checkpoint read",
    "after compaction",
    "before log cleanup",
    "before reshard: commit of the end",
    "after reshard: commit of the end",
    "after reshard: ownership of the children",
    "before reshard: start of the children",
]


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Campaign]:
    with Emulator() as emulator, campaign(emulator, str(tmp_path / "table"), {}, tmp_path, seed=7) as going:
        yield going


def judged(going: Campaign) -> Report:
    report = going.finish()
    print(report)
    assert report.broken == []
    assert report.rows == report.records > 0
    return report


def test_killed_at_named_points(going: Campaign) -> None:
    """Killed before and after its steps, a sync loses nothing, doubles nothing and keeps the order of each key."""
    missed = [point for point in SOME_POINTS if not any(going.kill_at(point, 300) for _ in range(2))]
    assert missed == []
    report = judged(going)
    assert all(report.kills[point] for point in SOME_POINTS)
    assert report.reshards > 0


def test_zombies_are_fenced(going: Campaign) -> None:
    """A writer that was stopped while another took over, and wakes again, writes nothing more."""
    assert all(going.kill_at("after commit", 300) for _ in range(2))  # a table to go on from, and a life that did
    going.zombies(3, writers=2, records=300)
    report = judged(going)
    assert report.zombies >= 3
    assert report.events["fenced by the table"] + report.events["handed over"] > 0


def test_a_disk_that_fails(going: Campaign) -> None:
    """Full, read-only or broken at any step of a commit, half a file or an unknown outcome: nothing is lost."""
    assert all(going.kill_at("after commit", 300) for _ in range(2))  # a table to go on from, and a life that did
    for _ in range(2):
        going.fail_and_kill(0.1, records=300, seconds=2.0)
    report = judged(going)
    assert sum(count for event, count in report.events.items() if event.startswith("fault: ")) > 0


def test_points_are_where_they_should_be() -> None:
    """Every step that a kill is aimed at exists, and the small run aims at some of them."""
    assert all(callable(getattr(step.owner, step.name)) for step in STEPS.values())
    assert set(SOME_POINTS) < set(POINTS)
