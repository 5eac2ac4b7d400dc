"""What every agent's worker loads before its first job, so that taking over a part needs no time for imports."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker

METRICS = "KINESIS_NB_METRICS"  # the environment variable that says where to serve metrics: "<port> <host>"


async def dask_setup(worker: Worker) -> None:
    """Import what a part needs; called by Dask."""
    importlib.import_module("kinesis_nb.agents.parts")
    from kinesis_nb.core.frames import warm_up

    warm_up()
    if place := os.environ.get(METRICS):
        from kinesis_nb.agents.metrics import serve

        port, host = place.split()
        serve(int(port), host)
