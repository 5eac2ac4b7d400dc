"""Amazon Kinesis Data Streams in the notebook: explore, tail, read, sync, export.

Start with ``source = kn.connect(region=...)``, or ``kn.demo()`` for sample streams without an account; then
``source.explore()``, ``source.read(stream)``, ``source.tail(stream)``, ``source.sync(stream, table)`` and
``source.export_df(frame, output_stream_arn)``.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kinesis_nb.notebook import HasView as _HasView

if TYPE_CHECKING:
    from kinesis_nb.access.credentials import AwsInstance as AwsInstance
    from kinesis_nb.access.credentials import Profile as Profile
    from kinesis_nb.access.credentials import Secret as Secret
    from kinesis_nb.access.credentials import StaticCredentials as StaticCredentials
    from kinesis_nb.access.credentials import StsRole as StsRole
    from kinesis_nb.access.permissions import IamPolicy as IamPolicy
    from kinesis_nb.access.permissions import Permission as Permission
    from kinesis_nb.access.permissions import PermissionReport as PermissionReport
    from kinesis_nb.access.permissions import Verdict as Verdict
    from kinesis_nb.access.saved import sources as sources
    from kinesis_nb.agents.job import AgentExport as AgentExport
    from kinesis_nb.agents.job import AgentSync as AgentSync
    from kinesis_nb.agents.job import Job as Job
    from kinesis_nb.agents.job import PartStatus as PartStatus
    from kinesis_nb.connection import connect as connect
    from kinesis_nb.core.frames import Record as Record
    from kinesis_nb.core.frames import Records as Records
    from kinesis_nb.core.position import StartingPosition as StartingPosition
    from kinesis_nb.core.shards import Shard as Shard
    from kinesis_nb.core.transport import StreamSummary as StreamSummary
    from kinesis_nb.errors import AccessDenied as AccessDenied
    from kinesis_nb.errors import AgentError as AgentError
    from kinesis_nb.errors import Closed as Closed
    from kinesis_nb.errors import ConfigError as ConfigError
    from kinesis_nb.errors import CredentialsError as CredentialsError
    from kinesis_nb.errors import DataLoss as DataLoss
    from kinesis_nb.errors import ExportsDisabled as ExportsDisabled
    from kinesis_nb.errors import Fenced as Fenced
    from kinesis_nb.errors import ForkedProcess as ForkedProcess
    from kinesis_nb.errors import KinesisError as KinesisError
    from kinesis_nb.errors import ServiceError as ServiceError
    from kinesis_nb.errors import StreamNotFound as StreamNotFound
    from kinesis_nb.errors import TableError as TableError
    from kinesis_nb.errors import Throttled as Throttled
    from kinesis_nb.errors import UnknownOption as UnknownOption
    from kinesis_nb.exploring.explore import Catalog as Catalog
    from kinesis_nb.exploring.explore import Heat as Heat
    from kinesis_nb.exploring.explore import StreamView as StreamView
    from kinesis_nb.exploring.lineage import Lineage as Lineage
    from kinesis_nb.exporting.report import ExportReport as ExportReport
    from kinesis_nb.exporting.streaming import StreamingExport as StreamingExport
    from kinesis_nb.exporting.streaming import StreamingExportStatus as StreamingExportStatus
    from kinesis_nb.jsontext.infer import Schema as Schema
    from kinesis_nb.jsontext.parse import parse_json as parse_json
    from kinesis_nb.reading.buffer import BufferStats as BufferStats
    from kinesis_nb.reading.consumer import ConsumerStats as ConsumerStats
    from kinesis_nb.reading.sink import Gap as Gap
    from kinesis_nb.reading.tail import Tail as Tail
    from kinesis_nb.reading.tail import TailStats as TailStats
    from kinesis_nb.samples import demo as demo
    from kinesis_nb.source import Source as Source
    from kinesis_nb.syncing.status import SyncStatus as SyncStatus
    from kinesis_nb.syncing.sync import Sync as Sync
    from kinesis_nb.table.verify import ShardCheck as ShardCheck
    from kinesis_nb.table.verify import TableCheck as TableCheck

__version__ = "0.1.0"

_HOME_OF = {
    "AccessDenied": "errors",
    "AgentError": "errors",
    "AgentExport": "agents.job",
    "AgentSync": "agents.job",
    "AwsInstance": "access.credentials",
    "BufferStats": "reading.buffer",
    "Catalog": "exploring.explore",
    "Closed": "errors",
    "ConfigError": "errors",
    "ConsumerStats": "reading.consumer",
    "CredentialsError": "errors",
    "DataLoss": "errors",
    "ExportReport": "exporting.report",
    "ExportsDisabled": "errors",
    "Fenced": "errors",
    "ForkedProcess": "errors",
    "Gap": "reading.sink",
    "Heat": "exploring.explore",
    "IamPolicy": "access.permissions",
    "Job": "agents.job",
    "KinesisError": "errors",
    "Lineage": "exploring.lineage",
    "PartStatus": "agents.job",
    "Permission": "access.permissions",
    "PermissionReport": "access.permissions",
    "Profile": "access.credentials",
    "Record": "core.frames",
    "Records": "core.frames",
    "Schema": "jsontext.infer",
    "Secret": "access.credentials",
    "ServiceError": "errors",
    "Shard": "core.shards",
    "ShardCheck": "table.verify",
    "Source": "source",
    "StartingPosition": "core.position",
    "StaticCredentials": "access.credentials",
    "StreamNotFound": "errors",
    "StreamSummary": "core.transport",
    "StreamView": "exploring.explore",
    "StreamingExport": "exporting.streaming",
    "StreamingExportStatus": "exporting.streaming",
    "StsRole": "access.credentials",
    "Sync": "syncing.sync",
    "SyncStatus": "syncing.status",
    "TableCheck": "table.verify",
    "TableError": "errors",
    "Tail": "reading.tail",
    "TailStats": "reading.tail",
    "Throttled": "errors",
    "UnknownOption": "errors",
    "Verdict": "access.permissions",
    "connect": "connection",
    "demo": "samples",
    "parse_json": "jsontext.parse",
    "sources": "access.saved",
}

__all__ = [
    "AccessDenied",
    "AgentError",
    "AgentExport",
    "AgentSync",
    "AwsInstance",
    "BufferStats",
    "Catalog",
    "Closed",
    "ConfigError",
    "ConsumerStats",
    "CredentialsError",
    "DataLoss",
    "ExportReport",
    "ExportsDisabled",
    "Fenced",
    "ForkedProcess",
    "Gap",
    "Heat",
    "IamPolicy",
    "Job",
    "KinesisError",
    "Lineage",
    "PartStatus",
    "Permission",
    "PermissionReport",
    "Profile",
    "Record",
    "Records",
    "Schema",
    "Secret",
    "ServiceError",
    "Shard",
    "ShardCheck",
    "Source",
    "StartingPosition",
    "StaticCredentials",
    "StreamNotFound",
    "StreamSummary",
    "StreamView",
    "StreamingExport",
    "StreamingExportStatus",
    "StsRole",
    "Sync",
    "SyncStatus",
    "TableCheck",
    "TableError",
    "Tail",
    "TailStats",
    "Throttled",
    "UnknownOption",
    "Verdict",
    "connect",
    "demo",
    "parse_json",
    "sources",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module 'kinesis_nb' has no attribute {name!r}"
        raise AttributeError(msg)
    from kinesis_nb.core.interrupt import load

    load(home := f"kinesis_nb.{_HOME_OF[name]}")
    value = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def _view_of(thing: object) -> object:
    from kinesis_nb.widgets import view_of

    return view_of(thing)


_HasView._view_of = _view_of  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - above both


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
