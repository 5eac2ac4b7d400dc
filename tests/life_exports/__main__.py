"""``python -m tests.life_exports``."""

from __future__ import annotations

from tests.life.campaign import run
from tests.life_exports.run import never, simulate

run("tests.life_exports", "Simulate streaming exports: machines, processes and a disk.", simulate, never)
