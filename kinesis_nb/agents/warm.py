"""Loaded by every agent's worker before its first job, so that to take over costs no time for imports."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker

METRICS_PORT = "KINESIS_NB_METRICS_PORT"


async def dask_setup(worker: Worker) -> None:
    """Import what a part needs; called by Dask."""
    importlib.import_module("kinesis_nb.agents.worker")
    from kinesis_nb.frames import warm_up

    warm_up()
    if port := os.environ.get(METRICS_PORT):
        from kinesis_nb.agents.metrics import serve

        serve(int(port))
