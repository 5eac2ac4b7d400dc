"""The output stream of an export: the way to it, and what the service says about it where the policy allows to ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.core.limits import RECORD_BYTES
from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.shards import MAX_HASH_KEY
from kinesis_nb.errors import AccessDenied, ConfigError, CredentialsError, ServiceError, StreamNotFound, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import Clock, PutResult, StreamExtras, Writer

T = TypeVar("T")

MOST_LANES = 64  # the connections of a client
LANES_UNSEEN = 8  # lanes where the shards are not known
_AUTO = "AUTO"
_CLOCK_MARGIN = timedelta(minutes=1)  # arrival times are the service's, and may be a bit off


@dataclass(frozen=True, slots=True)
class Outlet:
    """The way to an output stream; made once for an export, and the only thing in it that knows the service.

    Attributes
    ----------
    stream
        What calls name the stream by.
    arn
        What the user named it by.
    """

    kinesis: Writer
    clock: Clock
    stream: str
    arn: str

    def put(self, records: Sequence[bytes]) -> list[PutResult]:
        """Write records; raise KinesisError when the request fails as a whole."""
        return self.kinesis.put_records(self.stream, records)

    def find(self, records: Sequence[bytes], seconds: float) -> list[str | None]:
        """Return the shard of each record that was sent `seconds` ago; None for one that is not there."""
        since = self.kinesis.server_time().earliest - timedelta(seconds=seconds) - _CLOCK_MARGIN
        return self.kinesis.find(self.stream, records, since)


@dataclass(frozen=True, slots=True)
class Target:
    """What is known of an output stream.

    Attributes
    ----------
    hash_ranges
        The last hash key of each lane, rising; a lane has the keys up to it. With the shards known, that of each shard.
    shards_per_lane
        None where the shards are not known.
    record_bytes
        The largest record that the stream takes, data and key.
    created_at
        When the stream was created (ISO, UTC): a stream that was deleted and re-created is another one. None where the
        policy does not allow to ask.
    """

    hash_ranges: tuple[int, ...]
    shards_per_lane: int | None = None
    record_bytes: int = RECORD_BYTES
    created_at: str | None = None


def describe_target(outlet: Outlet) -> Target:
    """Ask what the policy allows to ask; a writer that may only put records uses hash keys and defaults.

    Raises
    ------
    StreamNotFound
        When there is no such stream.
    ConfigError
        When the credentials see a stream of that name with another ARN: of another account, for example.
    """
    patient, stream = RetryingLookups(outlet.kinesis, outlet.clock), outlet.stream
    extras = _if_allowed(lambda: patient.describe_extras(stream))
    if extras is not None:
        _check_extras(extras, outlet)
    limit = (extras and extras.max_record_bytes) or RECORD_BYTES
    created_at = extras.created_at.astimezone(UTC).isoformat() if extras and extras.created_at else None
    lanes, per_lane = _lanes(_if_allowed(lambda: patient.list_shards(stream)) or ())
    return Target(lanes, per_lane, limit, created_at)


def _check_extras(extras: StreamExtras, outlet: Outlet) -> None:
    if extras.arn not in (None, outlet.arn):
        raise ConfigError(
            f"these credentials see {extras.arn}, not {outlet.arn}",
            hint="connect with credentials of the stream's own account",
        )
    if extras.distribution == _AUTO:
        what = "distributes records by itself (AUTO), so the order of a partition key cannot be kept in it"
        warn(f"{outlet.stream} {what}")


def _lanes(shards: Iterable[Shard]) -> tuple[tuple[int, ...], int | None]:
    """Return the last hash key of each lane, and how many shards a lane has; None where no shards are known."""
    ends = sorted(shard.hash_range[1] for shard in shards if shard.is_open)
    if not ends:
        return tuple(MAX_HASH_KEY * (lane + 1) // LANES_UNSEEN for lane in range(LANES_UNSEEN)), None
    per_lane = -(-len(ends) // MOST_LANES)
    lanes = ends[per_lane - 1 :: per_lane]
    return tuple(lanes if lanes[-1] == ends[-1] else [*lanes, ends[-1]]), per_lane


def _if_allowed(ask: Callable[[], T]) -> T | None:
    """Return what helps but is not needed; None where the policy does not allow it."""
    try:
        return ask()
    except (StreamNotFound, CredentialsError):
        raise
    except (AccessDenied, ServiceError):
        return None
