"""What the consumers of a stream's shards share: how to call it, what to read, and what is known of the stream."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from math import inf
from typing import TYPE_CHECKING

from kinesis_nb.core.compression import may_burst, unchanged
from kinesis_nb.core.halt import holding
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.selection import EVERYTHING, Selection
from kinesis_nb.errors import StreamNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import Clock, Listings, Reader
    from kinesis_nb.core.types import Foreign

NOW = datetime.min.replace(tzinfo=UTC)  # as the beginning of a plan: the time at which it is made
_NOTHING = NOW  # as the time before which records may have been trimmed
RETENTION_SECONDS = 60.0  # how long the retention that the service said is believed


class Lookup:
    """Looks a stream up for all of its readers; those who ask at the same time share one response."""

    def __init__(self, kinesis: Listings, stream: str, clock: Clock) -> None:
        self._kinesis, self._stream, self._clock = kinesis, stream, clock
        self._lock = threading.Lock()  # guards all below; held during the calls, because all want the same response
        self._listed_at = self._described_at = float("-inf")
        self._shards: Mapping[str, Shard] = {}
        self._retention = timedelta(0)
        self._trimmed = _NOTHING, 0

    def shards(self, since: float) -> Mapping[str, Shard]:
        """Return a listing by shard id that was requested after `since`, a time of the monotonic clock."""
        with holding(self._lock):
            if self._listed_at <= since:
                asked_at = self._clock.monotonic()
                self._shards = {shard.shard_id: shard for shard in self._kinesis.list_shards(self._stream)}
                self._listed_at = asked_at
            return self._shards

    def retention(self) -> timedelta:
        """Return how long the stream keeps a record, as it was during the last minute."""
        with holding(self._lock):
            asked_at = self._clock.monotonic()
            if asked_at - self._described_at > RETENTION_SECONDS:
                before, is_known = self._retention, self._described_at > float("-inf")
                self._retention = timedelta(hours=self._kinesis.describe_stream(self._stream).retention)
                self._described_at = asked_at
                if is_known:  # it may have been raised only now, even if the last response is old
                    kept = min(before, self._retention)
                    self._trimmed = max(self._trimmed, (self._kinesis.server_time().latest - kept, _hours(kept)))
            return self._retention

    @property
    def trimmed(self) -> tuple[datetime, int]:
        """Before which time what arrived may have left the stream since this was made, kept for how many hours.

        Makes no call.
        """
        return self._trimmed

    @property
    def known_hours(self) -> int:
        """How long the stream keeps a record, in hours, when last asked; 0 before that. Makes no call."""
        return _hours(self._retention)


def _hours(time: timedelta) -> int:
    return time // timedelta(hours=1)


@dataclass(frozen=True)
class ReadPlan:
    """One stream to read.

    Attributes
    ----------
    shards
        The wanted shards of the first listing.
    wanted
        Which shards to read, children that appear later included.
    is_ordered
        Whether a child waits for the end of its parents, so that the records of a key keep their order.
    unpack
        Takes a response and a size in bytes; decompresses its records and gives them in parts of about that size.
    foreign
        What becomes of user records in aggregates whose hash keys are another shard's.
    began
        By the service's clock, when reading began, maybe in an earlier process: what was trimmed before that was never
        promised to the user. By default it begins now.
    trimmed_before
        What arrived before this time may have left the stream before this reading began, however long the stream keeps
        its records now.
    patience
        Seconds after which a reader gives up a shard for which every response was malformed.
    selection
        What a sync keeps; `wanted` and `unpack` go with it.
    end
        A sync ends when everything that arrived up to this time is in the table; None for never.
    """

    kinesis: Reader
    stream: str
    clock: Clock
    shards: tuple[Shard, ...]
    wanted: Callable[[Shard], bool] = lambda _shard: True
    is_ordered: bool = True
    unpack: Callable[[Batch, int], Iterable[Batch]] = unchanged
    foreign: Foreign = "auto"
    began: datetime = NOW
    trimmed_before: datetime = _NOTHING
    patience: float = inf
    selection: Selection = EVERYTHING
    end: datetime | None = None
    lookup: Lookup = field(init=False, repr=False, compare=False)
    _opening: threading.Lock = field(init=False, repr=False, compare=False)  # see parts()

    def __post_init__(self) -> None:
        if self.began is NOW:
            object.__setattr__(self, "began", self.kinesis.server_time().earliest)
        object.__setattr__(self, "lookup", Lookup(self.kinesis, self.stream, self.clock))
        object.__setattr__(self, "_opening", threading.Lock())

    def of(self, shards: tuple[Shard, ...], trimmed_before: datetime) -> ReadPlan:
        """Return the plan of these shards; it shares what is looked up."""
        plan = replace(self, shards=shards, trimmed_before=trimmed_before)
        object.__setattr__(plan, "lookup", self.lookup)
        return plan

    @property
    def lookups(self) -> RetryingLookups:
        """Looks the stream up in the caller's own thread, with retries; consumers use :attr:`lookup`."""
        return RetryingLookups(self.kinesis, self.clock)

    def parts(self, response: Batch, most: int) -> Generator[Batch]:
        """Yield an opened response in parts of whole records: of about `most` bytes each, or of one larger record.

        Where one record may be much larger than `most`, one shard at a time opens and delivers its parts: all of them
        at once could fill the memory.
        """
        may_be_large = response.packed is not None or (self.unpack is not unchanged and may_burst(response.rows, most))
        with holding(self._opening) if may_be_large else nullcontext():
            # no name here holds a part while the next one is made
            yield from chain.from_iterable(map(self.unpack, response.parts(most, self.foreign), repeat(most)))

    def position(self, shard: Shard, start: StartingPosition) -> StartingPosition:
        """Return where to start a shard: one that was born after the first listing is read from its beginning."""
        is_listed = any(shard.shard_id == listed.shard_id for listed in self.shards)
        return start if is_listed else StartingPosition.trim_horizon()


def check_same_stream(known: Shard, listed: Shard) -> None:
    """Raise StreamNotFound when the id belongs to another shard than before: the stream was re-created."""
    if known.starting_sequence_number not in ("0", listed.starting_sequence_number):
        raise stream_recreated()


def stream_recreated() -> StreamNotFound:
    """Return the error of a reader whose stream was replaced by another one."""
    return StreamNotFound(
        "the stream was deleted and made again under the same name",
        hint="what was read came from the old one; start again to read the new one",
    )
