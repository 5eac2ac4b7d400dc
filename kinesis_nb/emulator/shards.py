"""One shard: its place in the hash key space, its lineage and its records."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NotRequired, TypedDict

from . import sequence

if TYPE_CHECKING:
    from .quotas import Meter

HASH_KEYS = 2**128  # partition keys are hashed to 0..2^128-1
_COMPACT = 1024  # trimmed places are cut from the lists in lots, so that a steady trickle does not move them each time
# Stands in a trimmed place until it is cut, so that the record itself is freed at once.
_FREED: Record = {"SequenceNumber": "", "ApproximateArrivalTimestamp": 0.0, "Data": b""}


class Record(TypedDict):
    """A record as GetRecords answers it; an AUTO stream has some without a key."""

    SequenceNumber: str
    ApproximateArrivalTimestamp: float
    Data: bytes
    PartitionKey: NotRequired[str]
    EncryptionType: NotRequired[str]


def shard_name(number: int) -> str:
    """Return the id of a shard: shardId-000000000007."""
    return f"shardId-{number:012d}"


class Shard:
    """A shard and its records.

    A position is the number of records ever written before it, so it stays valid while the head is trimmed.

    Parameters
    ----------
    number
        Its place in the stream, from 0.
    stream
        The stream's number, part of every sequence number.
    opened_ms, epoch_ms
        When it was created; the epoch is the same, but later than any parent's even when the clock stands still.
    hash_keys
        First and last hash key, both included.
    parents
        Ids of the shard(s) it came from.
    """

    def __init__(
        self, number: int, *, stream: int, epoch_ms: int, hash_keys: tuple[int, int], parents: tuple[str, ...] = ()
    ) -> None:
        self.id = shard_name(number)
        self.number = number
        self.epoch_ms = epoch_ms
        self.first_hash, self.last_hash = hash_keys
        self.parents = parents
        self.closed_ms: int | None = None
        self.meter: Meter | None = None
        self.empty_replies = 0  # answers that pretend to have found nothing yet, as the service does in sparse shards
        self.dropped = False
        self._prefix = sequence.prefix(epoch_ms, stream, number)
        self._records: list[Record] = []
        self._ends: list[int] = []  # bytes written up to and including each record
        self._newest: list[int] = []  # latest arrival up to each record: monotone although arrivals need not be
        self._cut = 0  # records cut from the front of the lists
        self._cut_bytes = 0
        self._head = 0  # trimmed, but not yet cut

    def __repr__(self) -> str:
        state = "open" if self.closed_ms is None else "closed"
        return f"<Shard {self.id} {state}, {self.total - self.oldest:,} records>"

    @property
    def is_open(self) -> bool:
        """Whether records can be written to it."""
        return self.closed_ms is None

    @property
    def oldest(self) -> int:
        """Position of the oldest record that is still there."""
        return self._cut + self._head

    @property
    def total(self) -> int:
        """Position after the newest record: how many were ever written."""
        return self._cut + len(self._records)

    def append(self, data: bytes, key: str | None, size: int, now_ms: int, encryption: str | None) -> str:
        """Write one record and return its sequence number; `size` counts the key as well."""
        ends, newest = self._ends, self._newest
        number = sequence.encode(self._prefix, self.total + 1, now_ms)
        record: Record = {"SequenceNumber": number, "ApproximateArrivalTimestamp": now_ms / 1000, "Data": data}
        if key is not None:
            record["PartitionKey"] = key
        if encryption is not None:
            record["EncryptionType"] = encryption
        ends.append((ends[-1] if ends else self._cut_bytes) + size)
        newest.append(max(now_ms, newest[-1]) if newest else now_ms)
        self._records.append(record)
        return number

    def read(self, position: int, limit: int, max_bytes: int) -> tuple[list[Record], int]:
        """Return the records from `position` and the position after them.

        At least one record is returned where there is one, else at most `max_bytes`, keys included.
        """
        start = self._index(position)
        stop = min(start + limit, len(self._records))
        fits = bisect_right(self._ends, self._bytes_before(start) + max_bytes, start, stop)
        stop = min(stop, max(fits, start + 1))
        return self._records[start:stop], self._cut + stop

    def size(self, start: int, stop: int) -> int:
        """Return the bytes between two positions, keys included."""
        return self._bytes_before(stop - self._cut) - self._bytes_before(start - self._cut)

    def arrival_ms(self, position: int) -> int:
        """Return when the record at `position` arrived."""
        return round(self._records[self._index(position)]["ApproximateArrivalTimestamp"] * 1000)

    def position_at(self, time_ms: int) -> int:
        """Return the position of the first record that arrived at or after a time."""
        return self._cut + bisect_left(self._newest, time_ms, self._head)

    def clamp(self, position: int) -> int:
        """Return the nearest position that has not been trimmed and is not beyond the tip."""
        return min(max(position, self.oldest), self.total)

    def trim(self, horizon_ms: int) -> None:
        """Forget the records that arrived before the horizon."""
        head = self._head
        if head == len(self._newest) or self._newest[head] >= horizon_ms:
            return
        self._head = bisect_left(self._newest, horizon_ms, head)
        self._records[head : self._head] = [_FREED] * (self._head - head)
        if self._head >= _COMPACT or self._head == len(self._records):
            self._compact()

    def close(self, now_ms: int) -> None:
        """End the shard: nothing is written to it any more."""
        self.closed_ms = max(now_ms, self.epoch_ms)

    def starting_sequence_number(self) -> str:
        """Return a number below that of every record."""
        return sequence.encode(self._prefix, 0, self.epoch_ms)

    def ending_sequence_number(self) -> str | None:
        """Return a number above that of every record, or None while the shard is open."""
        return None if self.closed_ms is None else sequence.encode(self._prefix, sequence.MAX_INDEX, self.closed_ms)

    def sequence_number(self, position: int, time_ms: int) -> str:
        """Return a number that marks the progress up to `position`, whether or not a record stands there."""
        return sequence.encode(self._prefix, position, time_ms)

    def _index(self, position: int) -> int:
        return self.clamp(position) - self._cut

    def _bytes_before(self, index: int) -> int:
        return self._ends[index - 1] if index > 0 else self._cut_bytes

    def _compact(self) -> None:
        head = self._head
        self._cut_bytes = self._ends[head - 1]
        self._cut += head
        self._head = 0
        del self._records[:head], self._ends[:head], self._newest[:head]


def describe_shard(shard: Shard) -> dict[str, object]:
    """Return the shard as ListShards and DescribeStream show it."""
    numbers = {"StartingSequenceNumber": shard.starting_sequence_number()}
    ending = shard.ending_sequence_number()
    if ending is not None:
        numbers["EndingSequenceNumber"] = ending
    lineage = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    return {"ShardId": shard.id, **lineage, "HashKeyRange": hash_key_range(shard), "SequenceNumberRange": numbers}


def describe_child(shard: Shard) -> dict[str, object]:
    """Return the shard as the end of its parent shows it."""
    return {"ShardId": shard.id, "ParentShards": list(shard.parents), "HashKeyRange": hash_key_range(shard)}


def hash_key_range(shard: Shard) -> dict[str, str]:
    """Return the shard's part of the hash key space, both ends included."""
    return {"StartingHashKey": str(shard.first_hash), "EndingHashKey": str(shard.last_hash)}
