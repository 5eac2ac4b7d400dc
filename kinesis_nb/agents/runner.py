"""The runner of a source with agents: it submits syncs and exports as jobs, and returns their handles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.agents.cluster import Cluster
from kinesis_nb.agents.job import AgentExport, AgentSync, jobs
from kinesis_nb.agents.job_spec import ExportSpec, SyncSpec
from kinesis_nb.agents.settings import PortableSettings
from kinesis_nb.agents.submit import submit
from kinesis_nb.errors import ConfigError
from kinesis_nb.syncing.start import check_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.access.config import SourceConfig
    from kinesis_nb.agents.job import Job
    from kinesis_nb.core.transport import Kinesis
    from kinesis_nb.runner import ExportCall, SyncCall


class AgentRunner:
    """Runs syncs and exports on agents.

    Parameters
    ----------
    connect
        Makes the transport from the settings of a source, in the process of an agent.

    Raises
    ------
    AgentError
        When Dask is not installed.
    """

    def __init__(self, config: SourceConfig, connect: Callable[[SourceConfig], Kinesis]) -> None:
        self.cluster = Cluster(config.agents)
        self._config, self._connect = config, connect

    def sync(self, call: SyncCall) -> AgentSync:
        """Submit a sync, unless the same one is running."""
        check_options(call.start, call.commit_interval)
        if call.end is not None:
            raise ConfigError(
                "a sync on agents does not accept end=: it runs until it is stopped",
                hint="leave end= out, or sync without agents=",
            )
        spec = self._sync_spec(call)
        submit(self.cluster, spec, call.table)
        return AgentSync(self.cluster, spec, call.storage)

    def _sync_spec(self, call: SyncCall) -> SyncSpec:
        return SyncSpec(
            PortableSettings(self._config, call.storage_options),
            self._connect,
            call.stream,
            call.storage.uri,
            call.start,
            call.commit_interval,
            call.on_data_loss,
            call.foreign,
            call.selection,
        )

    def export_stream(self, call: ExportCall) -> AgentExport:
        """Submit a streaming export, unless the same one is running."""
        span = call.span
        if span.journal is not None:  # relative to the folder of this process, not to that of an agent's
            span = replace(span, journal=str(Path(span.journal).expanduser().absolute()))
        settings = PortableSettings(self._config, call.storage_options)
        outlet, rows = call.outlet, call.rows
        spec = ExportSpec(settings, self._connect, outlet.stream, rows.uri, outlet.arn, call.options, span)
        submit(self.cluster, spec, rows.path, call.span.journal)
        return AgentExport(self.cluster, spec)

    def jobs(self) -> list[Job]:
        """Return the handles of all jobs that the scheduler knows."""
        return jobs(self.cluster)
