"""What the engine needs of Kinesis and of time.

The engine owns these protocols; ``service/`` and the simulator implement them.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.names import StreamArn
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.shards import Shard


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What ``DescribeStream`` says of a stream, without its shards.

    Attributes
    ----------
    created_at
        Tells a stream from an earlier one of the same name.
    retention
        How long a record stays, in hours.
    encryption
        ``"KMS"`` or ``"NONE"``.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> summary = kn.demo().explore("orders").summary
    >>> summary.status, summary.retention
    ('ACTIVE', 24)
    """

    name: str
    arn: str
    status: str
    mode: str
    created_at: datetime
    retention: int
    encryption: str


@dataclass(frozen=True, slots=True)
class StreamExtras:
    """What only ``DescribeStreamSummary`` says of a stream; no reader needs it. None where the server does not say.

    Attributes
    ----------
    distribution
        How records find their shard: ``"USER_PARTITION_KEY"`` or ``"AUTO"``.
    max_record_bytes
        The largest record, data and key, that the stream takes.
    """

    consumers: int | None = None
    distribution: str | None = None
    channels: int | None = None
    queues: int | None = None
    arn: str | None = None
    max_record_bytes: int | None = None
    created_at: datetime | None = None


class ServerTime(NamedTuple):
    """The service's clock is between these two."""

    earliest: datetime
    latest: datetime

    def likely(self, now: datetime) -> datetime:
        """Return our own clock where it can be right, else the nearest time that can."""
        return min(max(now, self.earliest), self.latest)


class PutResult(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """What became of one record of a ``PutRecords`` request: written (no error code) or refused."""

    shard_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class ServerClock(Protocol):
    """What is known of the service's clock; no call is made."""

    def server_time(self) -> ServerTime:
        """Return between which two times the service's clock is."""
        ...


class Listings(ServerClock, Protocol):
    """The calls that list and describe streams. Whatever goes wrong is a :class:`~kinesis_nb.errors.KinesisError`."""

    def list_streams(self) -> list[str]:
        """Return the names of all streams."""
        ...

    def describe_stream(self, stream: str) -> StreamSummary:
        """Return what the service says of a stream."""
        ...

    def describe_extras(self, stream: str) -> StreamExtras:
        """Return what a call that a reader's policy need not allow says of a stream."""
        ...

    def list_shards(self, stream: str) -> list[Shard]:
        """Return all shards that hold records or may still take some."""
        ...


class Reader(Listings, Protocol):
    """The calls that read a stream."""

    def get_shard_iterator(self, stream: str, shard_id: str, position: StartingPosition) -> str:
        """Return a shard iterator; it lives 5 minutes."""
        ...

    def get_records(self, stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        """Return the next records of a shard, at most `limit` (at most 10,000) and 10 MiB; its parts are unpacked."""
        ...


class Writer(Listings, Protocol):
    """The calls that write to a stream."""

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        """Write up to 500 records, encoded by :mod:`kinesis_nb.wire.putting`; the results are in their order.

        Raises a retryable ServiceError when the outcome is not known, and InvalidRequest for records that the service
        will never take.
        """
        ...

    def find(self, stream: str, records: Sequence[bytes], since: datetime) -> list[str | None]:
        """Return the shard that each encoded record is in; None for one that has not arrived since a time.

        Only for aggregates: each of them differs from all other records. Reads the stream, which a writer's policy need
        not allow.
        """
        ...


class Prober(Protocol):
    """Finds out what is allowed, and what a stream is called in a policy."""

    def may(self, action: str, stream: str) -> bool | None:
        """Return whether an action on a stream is allowed, without doing it; None when that cannot be asked."""
        ...

    def customer_key(self, stream: str) -> str | None:
        """Return the key of the customer's own that encrypts a stream; None without one, or when it may not be seen."""
        ...

    def stream_arn(self, stream: str) -> str | None:
        """Return the ARN of a stream, of the caller's account when it may not be described; None when unknown."""
        ...

    def address(self, arn: StreamArn) -> str:
        """Return what a call names a stream by: its name, or its ARN when it is not known to be of our own account."""
        ...


class Lender(Protocol):
    """Lends the credentials of a source to the store of its table."""

    def storage_options(self) -> dict[str, str]:
        """Return the region and the current credentials, by the names that object stores take them by."""
        ...


class Kinesis(Reader, Writer, Prober, Lender, Protocol):
    """Everything that the engine asks of the service. Only its makers need all; users take the part that they need."""


class Clock(Protocol):
    """Time and chance, so that tests can make their own."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC; for display only."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for every duration."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; only for code that runs in the caller's own thread."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1), for jitter."""
        ...


_chance = random.SystemRandom()  # what `random.seed()` gives belongs to the user


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return _chance.random()
