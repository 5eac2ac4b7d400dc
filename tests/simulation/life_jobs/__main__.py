"""``python -m tests.simulation.life_jobs``."""

from __future__ import annotations

from tests.simulation.life.campaign import run
from tests.simulation.life_jobs.run import never, simulate

run("tests.simulation.life_jobs", "Simulate jobs of agents: a scheduler, agents and a disk.", simulate, never)
