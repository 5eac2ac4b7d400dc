"""``python -m tests.life``."""

from __future__ import annotations

from tests.life.campaign import run
from tests.life.run import never, simulate

run("tests.life", "Simulate machines, processes and a disk.", simulate, never)
