"""How far each shard got, and how the log of a table records it: as numbers under ``txn`` names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE = 62  # bits; a txn version is an int64 and a sequence number has up to 186 bits
_PIECES = 3
_SEQUENCE = tuple(f"seq{piece}" for piece in range(_PIECES))
_KEYS = ("offset", "state", "seen", "kept", "gaps", "stamp", "arrived", "dropped", "filtered", *_SEQUENCE)
RARE = ("kept", "dropped", "filtered")  # written when they change: in most syncs they never do
GAP_KEYS = ("offset", "seen", "until")
TURNS = "run"  # takes the place that the id of a shard has in the other names


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one shard got.

    Attributes
    ----------
    offset
        The ``shard_offset`` of the next row.
    sequence_number
        Of the last record that was read, and committed if it was to be kept; None when there was none yet.
    ended
        Whether everything in the (closed) shard is committed.
    seen
        Everything that arrived up to this moment was read, in whole milliseconds; None before the first response.
    kept
        How long the stream kept its records when `seen` was recorded, in hours; 0 when that was not known.
    gaps
        How many times records were lost to the stream's retention.
    stamp
        The ``foundry_ingestion_timestamp`` of the last row, or of its parents' last; it never goes back.
    arrived
        The ``kinesis_ingestion_timestamp`` of the last row, in whole milliseconds; None when there was none yet.
    dropped
        How many user records of aggregates up to that record are not in the table, because their hash keys are another
        shard's.
    filtered
        How many rows were read and not kept. The last row that the others speak of may be one of these.
    """

    offset: int = 0
    sequence_number: str | None = None
    ended: bool = False
    seen: datetime | None = None
    kept: int = 0
    gaps: int = 0
    stamp: datetime | None = None
    arrived: datetime | None = None
    dropped: int = 0
    filtered: int = 0


@dataclass(frozen=True, slots=True)
class RecordedGap:
    """Records that are not in the table, because the stream did not keep them until they were read.

    Attributes
    ----------
    offset
        The ``shard_offset`` of the first row behind the gap.
    seen, until
        It begins after `seen`, and ends before `until`, the arrival of that row; None where that is not known.
    """

    shard_id: str
    offset: int
    seen: datetime | None
    until: datetime | None

    def __str__(self) -> str:
        seen = f"{self.seen:%Y-%m-%d %H:%M:%S} UTC" if self.seen else "the start"
        until = f"{self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "the end of the shard"
        return f"lost: {self.shard_id}, from {seen} to {until}"


def known(numbers: Iterable[str], stream_arn: str) -> set[str]:
    """Return the ids of all shards among the ``txn`` names of a table."""
    prefix = f"{stream_arn}/"
    names = (name.removeprefix(prefix) for name in numbers if name.startswith(prefix))
    return {name.partition("/")[0] for name in names} - {TURNS}


def reached(numbers: Mapping[str, int], stream_arn: str, shard_id: str) -> Checkpoint:
    """Return how far a shard got, from the ``txn`` numbers of a table."""
    return decode([numbers.get(f"{stream_arn}/{shard_id}/{key}", 0) for key in _KEYS])


def encode(checkpoint: Checkpoint, epoch: int) -> list[tuple[str, int]]:
    """Return a checkpoint and the epoch of its owner as numbers by key."""
    number = int(checkpoint.sequence_number or 0)
    pieces = ((number >> (_PIECE * piece)) & (2**_PIECE - 1) for piece in range(_PIECES))
    stamp = _micros(checkpoint.stamp)
    seen, gaps, arrived = millis(checkpoint.seen), checkpoint.gaps, millis(checkpoint.arrived)
    rare = checkpoint.dropped, checkpoint.filtered
    values = (checkpoint.offset, int(checkpoint.ended), seen, checkpoint.kept, gaps, stamp, arrived, *rare, *pieces)
    return [("epoch", epoch), *zip(_KEYS, values, strict=True)]


def decode(values: list[int]) -> Checkpoint:
    """Return the checkpoint of these numbers, in the order of the keys."""
    offset, ended, seen, kept, gaps, stamp, arrived, dropped, filtered, *pieces = values
    number = sum(value << (_PIECE * piece) for piece, value in enumerate(pieces))
    sequence_number = str(number) if number else None
    moments = time_of(1000 * seen), time_of(stamp), time_of(1000 * arrived)
    return Checkpoint(offset, sequence_number, bool(ended), moments[0], kept, gaps, *moments[1:], dropped, filtered)


def _micros(moment: datetime | None) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) if moment else 0


def millis(moment: datetime | None) -> int:
    """Return a time as a number of milliseconds; 0 for none."""
    return _micros(moment) // 1000


def time_of(micros: int) -> datetime | None:
    """Return the time of a number of microseconds; None for 0."""
    return _EPOCH + timedelta(microseconds=micros) if micros else None


def in_millis(moment: datetime) -> datetime:
    """Return a moment as a checkpoint keeps it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
