"""When to try again, and how long to wait; decided only here."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.errors import KeyUnavailable, KinesisError, NotListening, Throttled, warn

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
SILENT_SECONDS = 3.0  # until the caller is informed that it is tried again


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
        """Return what a call returns, retrying it for about half a minute while that may help.

        After a few seconds a warning says what fails, and until when it is tried. What nobody serves on this machine is
        not tried again: somebody has to start it.
        """
        began = self._clock.monotonic()
        give_up = began + PATIENCE_SECONDS
        is_silent = True
        for failures in itertools.count():
            try:
                return call()
            except KinesisError as error:
                failed = error
            # no longer within the except, so that an interrupt of the wait is not chained to what failed
            now, wait = self._clock.monotonic(), backoff(failures, failed, self._clock)
            if not failed.retryable or isinstance(failed, NotListening) or now + wait > give_up:
                raise failed
            if is_silent and now + wait - began > SILENT_SECONDS:
                is_silent = False
                until = self._clock.now() + timedelta(seconds=give_up - now)
                warn(f"{failed.message}; trying again until {until:%H:%M:%S} UTC")
            self._clock.sleep(wait)
        raise AssertionError  # the loop has no other end


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
