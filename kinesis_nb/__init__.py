"""Amazon Kinesis Data Streams in the notebook: explore, tail, read, sync, export.

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
    from kinesis_nb.errors import ExportsDisabled as ExportsDisabled
    from kinesis_nb.errors import Fenced as Fenced
    from kinesis_nb.errors import KinesisError as KinesisError
    from kinesis_nb.errors import ServiceError as ServiceError
    from kinesis_nb.errors import StreamNotFound as StreamNotFound
    from kinesis_nb.errors import TableError as TableError
    from kinesis_nb.errors import Throttled as Throttled
    from kinesis_nb.errors import UnknownOption as UnknownOption
    from kinesis_nb.position import StartingPosition as StartingPosition
    from kinesis_nb.samples import demo as demo
    from kinesis_nb.source import Source as Source
    from kinesis_nb.source import connect as connect

__version__ = "0.1.0"

_HOME_OF = {
    "AccessDenied": "errors",
    "Closed": "errors",
    "ConfigError": "errors",
    "CredentialsError": "errors",
    "ExportsDisabled": "errors",
    "Fenced": "errors",
    "KinesisError": "errors",
    "Profile": "config",
    "ServiceError": "errors",
    "Source": "source",
    "StartingPosition": "position",
    "StaticCredentials": "config",
    "StreamNotFound": "errors",
    "TableError": "errors",
    "Throttled": "errors",
    "UnknownOption": "errors",
    "connect": "source",
    "demo": "samples",
}

__all__ = [
    "AccessDenied",
    "Closed",
    "ConfigError",
    "CredentialsError",
    "ExportsDisabled",
    "Fenced",
    "KinesisError",
    "Profile",
    "ServiceError",
    "Source",
    "StartingPosition",
    "StaticCredentials",
    "StreamNotFound",
    "TableError",
    "Throttled",
    "UnknownOption",
    "connect",
    "demo",
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
