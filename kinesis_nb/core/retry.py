"""When to try again, and how long to wait; decided only here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.errors import KeyUnavailable, KinesisError, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import Clock, Listings, Reader, ServerTime, StreamExtras, StreamSummary

T = TypeVar("T")

BASE_SECONDS, CAP_SECONDS = 0.2, 10.0
THROTTLED_AT_LEAST = 1.0  # seconds; the service counts per second
PROBE_SECONDS = 60.0  # between tries while the encryption key cannot be used, which only its owner can change
PATIENCE_SECONDS = 30.0  # for a call that a cell waits for


def backoff(failures: int, error: KinesisError, clock: Clock) -> float:
    """Return how many seconds to wait after the n-th failure in a row (from 0).

    Full jitter between nothing and an exponential bound; after a throttle the next second in any case.
    """
    if isinstance(error, KeyUnavailable):
        return PROBE_SECONDS
    wait = min(CAP_SECONDS, BASE_SECONDS * 2 ** min(failures, 10)) * clock.random()
    return max(wait, THROTTLED_AT_LEAST) if isinstance(error, Throttled) else wait


class RetryingLookups:
    """Lists and describes streams in the caller's own thread, retried for about half a minute while that may help."""

    def __init__(self, kinesis: Listings, clock: Clock) -> None:
        self._kinesis, self._clock = kinesis, clock

    def list_streams(self) -> list[str]:
        """Return the names of all streams."""
        return self.retry_until_done(self._kinesis.list_streams)

    def describe_stream(self, stream: str) -> StreamSummary:
        """Return what the service says of a stream."""
        return self.retry_until_done(lambda: self._kinesis.describe_stream(stream))

    def describe_extras(self, stream: str) -> StreamExtras:
        """Return what a call that a reader's policy need not allow says of a stream."""
        return self.retry_until_done(lambda: self._kinesis.describe_extras(stream))

    def list_shards(self, stream: str) -> list[Shard]:
        """Return all shards that hold records or may still take some."""
        return self.retry_until_done(lambda: self._kinesis.list_shards(stream))

    def server_time(self) -> ServerTime:
        """Return what is known of the service's clock."""
        return self._kinesis.server_time()

    def retry_until_done(self, call: Callable[[], T]) -> T:
        """Return what a call returns, retrying it for about half a minute while that may help."""
        give_up = self._clock.monotonic() + PATIENCE_SECONDS
        failures = 0
        while True:
            try:
                return call()
            except KinesisError as error:
                wait = backoff(failures, error, self._clock)
                if not error.retryable or self._clock.monotonic() + wait > give_up:
                    raise
                self._clock.sleep(wait)
                failures += 1


class RetryingReader(RetryingLookups):
    """Also reads the first record of a shard, retried likewise."""

    def __init__(self, kinesis: Reader, clock: Clock) -> None:
        super().__init__(kinesis, clock)
        self._reader = kinesis

    def first_batch(self, stream: str, shard: Shard) -> Batch:
        """Return the service's first response to a reader of one record from the trim horizon of a shard."""

        def ask() -> Batch:
            iterator = self._reader.get_shard_iterator(stream, shard.shard_id, StartingPosition.trim_horizon())
            return self._reader.get_records(stream, shard, iterator, 1)

        return self.retry_until_done(ask)
