"""``python -m tests.simulation.life_exports``."""

from __future__ import annotations

from tests.simulation.life.campaign import run
from tests.simulation.life_exports.run import never, simulate

run("tests.simulation.life_exports", "Simulate streaming exports: machines, processes and a disk.", simulate, never)
