"""What a job is to do: a sync or an export with all its options, and how it is divided into parts.

A spec is what an agent needs to run a part, and what a restarted scheduler needs to get a job back.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, ClassVar

from kinesis_nb.agents.settings import PortableSettings, digest
from kinesis_nb.core.foreign import Foreign
from kinesis_nb.core.selection import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.access.config import SourceConfig
    from kinesis_nb.agents.placement import Placement
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.transport import Kinesis
    from kinesis_nb.exporting.options import Range, RecordOptions

# Precedes a dumped spec. Raise the number with every change that makes older specs unreadable, such as a renamed class
# or field: they are pickles, and agents keep them on disk.
_FORMAT = b"kinesis_nb job spec 2\n"


@dataclass(frozen=True)
class SyncSpec:
    """A sync to be run by agents.

    Attributes
    ----------
    connect
        Makes the transport from the settings; given by the caller, because only `service` knows AWS.
    """

    settings: PortableSettings
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    start: StartingPosition
    commit_interval: float
    on_data_loss: str
    foreign: Foreign = Foreign.AUTO
    selection: Selection = EVERYTHING

    kind: ClassVar = "sync"

    def job(self) -> str:
        """Return the name that all syncs into this table share: only one of them may write it."""
        return _name(self.kind, self.uri, self.settings.storage_endpoint)

    def setup(self) -> str:
        """Return what differs for a call with other options; where to start counts only for a new table."""
        options = float(self.commit_interval), self.on_data_loss, self.foreign.value, self.selection.record()
        return digest(self.settings.fingerprint(), self.stream, *options)


@dataclass(frozen=True)
class ExportSpec:
    """A streaming export of a table, to be run by an agent."""

    settings: PortableSettings
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    arn: str
    options: RecordOptions
    span: Range

    kind: ClassVar = "export"

    def job(self) -> str:
        """Return the name that all exports of this table into this stream share; each time range has its own."""
        start, end = self.span.start, self.span.end
        span = (start.kind, start.timestamp and start.timestamp.timestamp(), end.timestamp()) if end else ()
        settings = self.settings
        return _name(self.kind, self.uri, settings.storage_endpoint, self.arn, settings.config.endpoint_url, *span)

    def setup(self) -> str:
        """Return what differs for a call with other options; where to start counts only for a new export."""
        rate = None if self.span.rate is None else float(self.span.rate)
        return digest(self.settings.fingerprint(), self.stream, astuple(self.options), rate, str(self.span.journal))


Work = SyncSpec | ExportSpec


@dataclass(frozen=True)
class PartTask:
    """One part of a job, as a task of Dask runs it. Its name is the task's key."""

    key: str
    work: Work
    placement: Placement
    number: int

    def __repr__(self) -> str:
        return f"<part {self.number} of the {self.work.kind} of {self.work.stream}>"


@dataclass(frozen=True)
class JobSpec:
    """Everything that is needed to submit a job: what it is to do, and how it is divided into parts."""

    work: Work
    placement: Placement


def dump_spec(spec: JobSpec) -> bytes:
    """Return a spec as bytes that the registry and the agents keep."""
    return _FORMAT + pickle.dumps(spec)


def read_spec(body: bytes) -> JobSpec | None:
    """Return a spec that was dumped; None when another version of this package dumped it in another format."""
    if not body.startswith(_FORMAT):
        return None
    with suppress(Exception):  # a damaged pickle may raise anything
        spec: JobSpec = pickle.loads(body[len(_FORMAT) :])  # noqa: S301 - from our scheduler, or a folder of this user
        spec.work.setup()
        return spec
    return None


def _name(kind: str, *parts: object) -> str:
    return f"kinesis_nb-{kind}-{digest(*parts)[:12]}"
