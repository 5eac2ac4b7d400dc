"""``python -m tests.life_jobs``."""

from __future__ import annotations

from tests.life.campaign import run
from tests.life_jobs.run import never, simulate

run("tests.life_jobs", "Simulate jobs of agents: a scheduler, agents and a disk.", simulate, never)
