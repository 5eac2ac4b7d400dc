"""Dask's worker as an agent runs it: it outlives its scheduler, because writing rows does not need one.

Dask ends a worker whose scheduler is gone, and everything in it. Here the parts of a job continue: they own their
shards in the tables, and only a table says when another writer has them. The agent meanwhile waits for the scheduler,
and starts another worker when it is back; this one ends with its last part.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from distributed import Worker

from kinesis_nb.agents import metrics
from kinesis_nb.agents.parts import has_parts
from kinesis_nb.agents.registry_client import leave

LOST = "worker-handle-scheduler-connection-broken"  # the reason that Dask gives
LEAVING = "agent-ends"  # the reason that an agent gives
POLL_SECONDS = 0.1
LEAVE_SECONDS = 15.0  # for the last commits

log = logging.getLogger("kinesis_nb.agent")


class AutonomousWorker(Worker):
    """A worker that ends after its parts when its scheduler is gone, or its agent ends."""

    async def close(self, *args: Any, reason: str = "worker-close", **kwargs: Any) -> str | None:  # type: ignore[override]
        """End; called by Dask, possibly again while it waits here."""
        if reason == LEAVING:
            leave()
            await self._wait_for_parts(LEAVE_SECONDS)
        elif reason == LOST and has_parts() and self.nanny:
            await self._continue_alone(cast("str", self.nanny))
        kwargs["reason"] = reason
        return await super().close(*args, **kwargs)

    async def _continue_alone(self, address: str) -> None:
        log.warning("the scheduler is gone; %s continues without it", self.name)
        self.periodic_callbacks["heartbeat"].stop()  # a new scheduler would say that it does not know this worker
        metrics.stop()  # the port is for the next worker
        async with self.rpc(address) as nanny:
            await nanny.close_gracefully(reason=LOST)  # not to be replaced: the agent starts the next worker
        await self._wait_for_parts()

    async def _wait_for_parts(self, seconds: float = float("inf")) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + seconds
        while has_parts() and loop.time() < give_up:  # noqa: ASYNC110 - what ends are threads
            await asyncio.sleep(POLL_SECONDS)
