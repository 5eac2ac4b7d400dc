"""``python -m tests.simulation.life``."""

from __future__ import annotations

from tests.simulation.life.campaign import run
from tests.simulation.life.run import never, simulate

run("tests.simulation.life", "Simulate machines, processes and a disk.", simulate, never)
