"""Dask's worker as an agent runs it: it outlives its scheduler, for the rows do not need one.

Dask ends a worker whose scheduler is gone, and everything in it. The parts of a job go on here: they own their shards
in the tables, and only a table says that another writer has them now. The agent meanwhile looks for the scheduler, and
starts another worker when it is back; this one ends with its last part.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from distributed import Worker

from kinesis_nb.agents import metrics, parts

LOST = "worker-handle-scheduler-connection-broken"  # Dask's word for it
LEAVING = "agent-ends"  # ours
LOOK_SECONDS = 0.1
LEAVE_SECONDS = 15.0  # for the last commits

log = logging.getLogger("kinesis_nb.agent")


class AutonomousWorker(Worker):
    """A worker that ends after its parts, when it is its scheduler that has gone, or the agent that ends."""

    async def close(self, *args: Any, reason: str = "worker-close", **kwargs: Any) -> str | None:  # type: ignore[override]
        """End; called by Dask, and maybe again while it waits here."""
        if reason == LEAVING:
            parts.leave()
            await self._wait_for_parts(LEAVE_SECONDS)
        elif reason == LOST and parts.has_parts() and self.nanny:
            log.warning("the scheduler is gone; %s goes on without it", self.name)
            self.periodic_callbacks["heartbeat"].stop()  # a new scheduler would answer that it does not know it
            metrics.stop()  # the port is for the next worker
            nanny: Any = self.nanny  # its address here
            async with self.rpc(nanny) as agent:
                await agent.close_gracefully(reason=reason)  # no other worker in its place: the agent makes one
            await self._wait_for_parts()
        kwargs["reason"] = reason
        return await super().close(*args, **kwargs)

    async def _wait_for_parts(self, seconds: float = float("inf")) -> None:
        loop: Any = asyncio.get_running_loop()
        give_up = loop.time() + seconds
        while parts.has_parts() and loop.time() < give_up:  # noqa: ASYNC110 - what ends are threads
            await asyncio.sleep(LOOK_SECONDS)
