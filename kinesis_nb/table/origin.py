"""Which stream a synced table belongs to: kept in the table's properties, where it is not edited by accident.

Tables of earlier versions keep it in the description, which ``COMMENT ON TABLE`` and catalogs overwrite; it is copied
into the properties when such a table is next opened for writing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.errors import TableError

if TYPE_CHECKING:
    from deltalake import DeltaTable

_PREFIX = "kinesis_nb."
_SELECTION = f"{_PREFIX}selection"
_TRIM_HORIZON = "trim_horizon"


@dataclass(frozen=True, slots=True)
class Origin:
    """The stream whose records a table holds.

    Attributes
    ----------
    stream_arn, created_at
        Together they distinguish a stream from all others, and from a later one of the same name. The ARN holds the
        region and the account.
    start
        ``trim_horizon``, or the ISO time where the sync started reading.
    newest_shard
        The largest id of a shard that the stream had when the table was created: of shards with larger ids every
        record is promised. Empty where that is not known.
    selection
        Which records the table keeps (:meth:`Selection.record`); empty for all, and then it is no property.
    """

    stream_arn: str
    created_at: str
    start: str
    newest_shard: str = ""
    selection: str = ""

    @property
    def position(self) -> StartingPosition:
        """Where the sync started reading."""
        if self.start == _TRIM_HORIZON:
            return StartingPosition.trim_horizon()
        return StartingPosition.at(datetime.fromisoformat(self.start))

    def properties(self) -> dict[str, str]:
        """Return it as properties of a Delta table."""
        found = {f"{_PREFIX}{name}": value for name, value in asdict(self).items()}
        return found if self.selection else {name: found[name] for name in found if name != _SELECTION}

    def check_same_stream(self, wanted: Origin, uri: str) -> None:
        """Raise TableError when the table at `uri`, which this is the origin of, belongs to another stream."""
        if self.stream_arn != wanted.stream_arn:
            msg = f"{uri} belongs to {self.stream_arn}, not to {wanted.stream_arn}"
            raise TableError(msg, hint="every stream needs a table of its own")
        if self.created_at != wanted.created_at:
            msg = f"{uri} belongs to an earlier stream of the same name, created {self.created_at}"
            raise TableError(msg, hint="the stream was deleted and re-created; sync it into a new table")


def encode_start(start: StartingPosition, server_now: datetime) -> str:
    """Return how a table remembers where its sync started; :attr:`Origin.position` reads it.

    "Latest" is the moment of the call: later it would mean another place.
    """
    if start.kind is Kind.TRIM_HORIZON:
        return _TRIM_HORIZON
    if start.kind is Kind.LATEST:
        return server_now.isoformat()
    return start.timestamp.isoformat() if start.timestamp else ""


def read_origin(table: DeltaTable) -> Origin | None:
    """Return the origin of a synced table; None for any other Delta table."""
    metadata = table.metadata()
    found: dict[str, object] = {name: metadata.configuration.get(f"{_PREFIX}{name}") for name in _NAMES}
    if not found["stream_arn"]:
        found = _described(metadata.description)
    texts = {name: value for name, value in found.items() if isinstance(value, str)}
    return Origin(**texts) if texts.keys() >= _NEEDED else None


def has_properties(table: DeltaTable) -> bool:
    """Return whether the origin is in the properties already."""
    configuration = table.metadata().configuration
    return all(name in configuration for name in Origin("", "", "").properties())


_NAMES = {part.name for part in fields(Origin)}
_NEEDED = {"stream_arn", "created_at", "start"}


def _described(description: str | None) -> dict[str, object]:
    """Return what an earlier version wrote into the description of the table."""
    try:
        found = json.loads(description or "")["kinesis_nb"]
        return {name: found[name] for name in _NEEDED}
    except (ValueError, KeyError, TypeError):
        return {}
