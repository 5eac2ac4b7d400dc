"""Amazon Kinesis Data Streams in the notebook: explore, tail, read, sync, export.

Start with ``source = kn.connect(region=...)``, or ``kn.demo()`` for sample streams without an account; then
``source.explore()``, ``source.read(stream)``, ``source.tail(stream)``, ``source.sync(stream, table)`` and
``source.export_df(frame, output_stream_arn)``.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinesis_nb.config import Profile as Profile
    from kinesis_nb.config import StaticCredentials as StaticCredentials
    from kinesis_nb.errors import AccessDenied as AccessDenied
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
    from kinesis_nb.explore import Catalog as Catalog
    from kinesis_nb.explore import StreamView as StreamView
    from kinesis_nb.frames import Record as Record
    from kinesis_nb.frames import Records as Records
    from kinesis_nb.parse import parse_json as parse_json
    from kinesis_nb.position import StartingPosition as StartingPosition
    from kinesis_nb.report import ExportReport as ExportReport
    from kinesis_nb.samples import demo as demo
    from kinesis_nb.source import Source as Source
    from kinesis_nb.source import connect as connect
    from kinesis_nb.streaming_export import StreamingExport as StreamingExport
    from kinesis_nb.sync import Sync as Sync
    from kinesis_nb.tail import Tail as Tail

__version__ = "0.1.0"

_HOME_OF = {
    "AccessDenied": "errors",
    "Catalog": "explore",
    "Closed": "errors",
    "ConfigError": "errors",
    "CredentialsError": "errors",
    "DataLoss": "errors",
    "ExportReport": "report",
    "ExportsDisabled": "errors",
    "Fenced": "errors",
    "ForkedProcess": "errors",
    "KinesisError": "errors",
    "Profile": "config",
    "Record": "frames",
    "Records": "frames",
    "ServiceError": "errors",
    "Source": "source",
    "StartingPosition": "position",
    "StaticCredentials": "config",
    "StreamNotFound": "errors",
    "StreamView": "explore",
    "StreamingExport": "streaming_export",
    "Sync": "sync",
    "TableError": "errors",
    "Tail": "tail",
    "Throttled": "errors",
    "UnknownOption": "errors",
    "connect": "source",
    "demo": "samples",
    "parse_json": "parse",
}

__all__ = [
    "AccessDenied",
    "Catalog",
    "Closed",
    "ConfigError",
    "CredentialsError",
    "DataLoss",
    "ExportReport",
    "ExportsDisabled",
    "Fenced",
    "ForkedProcess",
    "KinesisError",
    "Profile",
    "Record",
    "Records",
    "ServiceError",
    "Source",
    "StartingPosition",
    "StaticCredentials",
    "StreamNotFound",
    "StreamView",
    "StreamingExport",
    "Sync",
    "TableError",
    "Tail",
    "Throttled",
    "UnknownOption",
    "connect",
    "demo",
    "parse_json",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module 'kinesis_nb' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"kinesis_nb.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
