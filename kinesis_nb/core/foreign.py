"""Foreign user records, those of aggregates in another shard than the one of their hash keys: kept, or dropped.

A producer packs user records of several keys into one record, which goes to one shard. AWS's aggregators for Python,
Java and Node do that with any keys, and those records are not sent again. The KPL packs only keys of one shard, as its
map of the shards says; after a reshard the map is stale for a while, and the KPL sends what is in the wrong shard once
more. Pure: no I/O, no clock; docs/aggregates.md has the rule and its proof.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.types import Foreign

STALE_MAP = timedelta(minutes=2)
"""For how long after a reshard the KPL may pack by its old map of the shards.

It learns of the reshard from the first of its records that lands in a new shard. Records packed by then are tried for
RecordTtl (30 s by default) and the last request may take RequestTimeout (6 s); the rest is for a producer that writes
to the shard once a minute.
"""

_SKEW = timedelta(minutes=1)  # between the two times of a record; AWS's own examples have up to 2 s
_TOP = 0b10 << 184  # how the numbers of the service begin
_MADE, _WRITTEN = 148, 36  # where the two times are, in bits from the end: whole seconds since 1970
_SECONDS = 2**36 - 1


class Dropped(NamedTuple):
    """User records of one record of the stream that are not among the rows."""

    sequence_number: str
    arrived: datetime
    user_records: int


def drops(foreign: Foreign, shard: Shard, sequence_number: str, arrived: datetime) -> bool:
    """Return whether the foreign user records of a record are dropped.

    It depends on nothing but the record and the parents of its shard, so every reader always makes the same decision.
    """
    if foreign != "auto":
        return foreign == "drop"
    made = made_at(sequence_number, arrived) if shard.parents else None
    return made is not None and arrived - made <= STALE_MAP


def made_at(sequence_number: str, arrived: datetime) -> datetime | None:
    """Return when the shard of a record was made; None when its sequence number does not say so.

    A sequence number of the service holds the second in which the shard was made and the one in which the record was
    written. AWS does not document that, so the second time has to agree with the arrival, which is documented.
    """
    number = int(sequence_number)
    made, written = number >> _MADE & _SECONDS, number >> _WRITTEN & _SECONDS
    skew = _SKEW.total_seconds()
    if not _TOP <= number < _TOP + _TOP // 2 or abs(written - arrived.timestamp()) > skew or made > written + skew:
        return None
    return datetime.fromtimestamp(made, UTC)


def count(dropped: Iterable[Dropped]) -> int:
    """Return the number of user records."""
    return sum(record.user_records for record in dropped)


def describe_dropped(number: int) -> str:
    """Return a message that user records were dropped; empty for none."""
    if not number:
        return ""
    return f'{number:,} user records of aggregates were dropped as another shard\'s (foreign="keep" keeps them)'
