"""What runs in the background: calls of Source, checked, and the runner that starts them in this process.

:class:`~kinesis_nb.agents.runner.AgentRunner` has the same methods and submits to agents; Source uses one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kinesis_nb.core.position import StartingPosition, check_end
from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta
    from os import PathLike

    from kinesis_nb.access.config import SourceConfig
    from kinesis_nb.core.foreign import Foreign
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.transport import Clock, Kinesis
    from kinesis_nb.exporting.options import Range, RecordOptions
    from kinesis_nb.exporting.rows import Rows
    from kinesis_nb.exporting.streaming import StreamingExport
    from kinesis_nb.exporting.target import Outlet
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.table.storage import Storage


@dataclass(frozen=True, slots=True)
class SyncCall:
    """A call of :meth:`kinesis_nb.source.Source.sync`.

    Attributes
    ----------
    table, storage, storage_options
        The table as the user named it, where that is, and the options for the object store by their short names.
    end
        Not fixed yet: that takes a request.
    """

    stream: str
    table: str | PathLike[str]
    storage: Storage
    storage_options: Mapping[str, str]
    start: StartingPosition
    end: StartingPosition | str | datetime | timedelta | None
    commit_interval: float
    on_data_loss: str
    foreign: Foreign
    selection: Selection


@dataclass(frozen=True, slots=True)
class ExportCall:
    """A call of :meth:`kinesis_nb.source.Source.export_stream`."""

    outlet: Outlet
    rows: Rows
    options: RecordOptions
    span: Range
    storage_options: Mapping[str, str]


class LocalRunner:
    """Runs syncs and exports in this process.

    Parameters
    ----------
    open_kinesis
        Returns the transport of the source.
    """

    def __init__(self, config: SourceConfig, open_kinesis: Callable[[], Kinesis], clock: Clock) -> None:
        self._config, self._open_kinesis, self._clock = config, open_kinesis, clock

    def sync(self, call: SyncCall) -> Sync:
        """Start a sync, or return the same one if it is running."""
        from kinesis_nb.syncing.start import start_sync, sync_feed

        kinesis, end = self._open_kinesis(), self._fixed_end(call)
        return start_sync(
            sync_feed(kinesis, call.stream, self._clock, call.selection, call.foreign, end),
            call.storage,
            call.start,
            commit_interval=call.commit_interval,
            on_data_loss=call.on_data_loss,
            setup=(self._config, call.storage_options),
        )

    def _fixed_end(self, call: SyncCall) -> datetime | None:
        """Fix the end by the service's clock."""
        if call.end is None:
            return None
        now = self._open_kinesis().server_time().likely(self._clock.now())
        return check_end(call.start, StartingPosition.parse(call.end, now))

    def export_stream(self, call: ExportCall) -> StreamingExport:
        """Start a streaming export, or return the same one if it is running."""
        from kinesis_nb.exporting.start import start_export

        setup = (self._config, call.storage_options)
        return start_export(call.outlet, call.rows, call.options, call.span, setup=setup)

    def jobs(self) -> NoReturn:
        """Refuse: what runs in this process ends with it."""
        raise ConfigError("this source has no agents", hint="connect it with agents=, the address of a scheduler")
