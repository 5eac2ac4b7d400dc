"""Throughput limits of one shard, by the clock."""

from __future__ import annotations

from dataclasses import dataclass

FULL_REPLY_PAUSE_MS = 5_000  # AWS: after a reply of 10 MiB, calls within the next 5 seconds are throttled


@dataclass(frozen=True)
class Quotas:
    """Throughput per shard as the service allows it; None switches that limit off.

    Parameters
    ----------
    reads_per_second
        GetRecords calls, and separately GetShardIterator calls. AWS: 5 of each.
    read_bytes_per_second
        Bytes given out by GetRecords. AWS: 2 MiB.
    write_records_per_second
        Records accepted. AWS: 1,000.
    write_bytes_per_second
        Bytes accepted, partition keys included. AWS: 1 MiB.
    """

    reads_per_second: float | None = 5
    read_bytes_per_second: float | None = 2 * 2**20
    write_records_per_second: float | None = 1000
    write_bytes_per_second: float | None = 2**20


class Bucket:
    """Tokens that fill at a steady rate, up to one second's worth, and may be overdrawn once."""

    __slots__ = ("_at_ms", "_rate", "_tokens")

    def __init__(self, rate: float | None, now_ms: int) -> None:
        self._rate = rate
        self._tokens = rate or 0.0
        self._at_ms = now_ms

    def allows(self, amount: float, now_ms: int) -> bool:
        """Return whether `amount` may pass now; more than a second's worth passes when the bucket is full."""
        if self._rate is None:
            return True
        elapsed = max(0, now_ms - self._at_ms)  # a clock that steps back must not drain the bucket
        self._tokens = min(self._rate, self._tokens + elapsed * self._rate / 1000)
        self._at_ms = now_ms
        return self._tokens >= min(amount, self._rate)

    def take(self, amount: float) -> None:
        """Spend `amount`, into debt if need be: later calls wait until it is paid off."""
        if self._rate is not None:
            self._tokens -= amount


class Meter:
    """The limits of one shard."""

    def __init__(self, quotas: Quotas, now_ms: int) -> None:
        self._reads = Bucket(quotas.reads_per_second, now_ms)
        self._iterators = Bucket(quotas.reads_per_second, now_ms)
        self._read_bytes = Bucket(quotas.read_bytes_per_second, now_ms)
        self._records = Bucket(quotas.write_records_per_second, now_ms)
        self._write_bytes = Bucket(quotas.write_bytes_per_second, now_ms)
        self._pauses = quotas.read_bytes_per_second is not None
        self._full_at_ms: int | None = None  # when the last full reply was given

    def may_iterate(self, now_ms: int) -> bool:
        """Return whether a GetShardIterator call may pass, and count it."""
        allowed = self._iterators.allows(1, now_ms)
        self._iterators.take(1 if allowed else 0)
        return allowed

    def may_read(self, now_ms: int) -> bool:
        """Return whether a GetRecords call may pass, and count it."""
        if self._is_paused(now_ms) or not self._read_bytes.allows(1, now_ms):
            return False
        allowed = self._reads.allows(1, now_ms)
        self._reads.take(1 if allowed else 0)
        return allowed

    def has_read(self, size: int, *, full: bool, now_ms: int) -> None:
        """Count the bytes of a reply; a full one (10 MiB) closes the shard to readers for 5 seconds."""
        self._read_bytes.take(size)
        if full and self._pauses:
            self._full_at_ms = now_ms

    def may_write(self, size: int, now_ms: int) -> bool:
        """Return whether a record of `size` bytes may be written, and count it."""
        if not (self._records.allows(1, now_ms) and self._write_bytes.allows(size, now_ms)):
            return False
        self._records.take(1)
        self._write_bytes.take(size)
        return True

    def _is_paused(self, now_ms: int) -> bool:
        return self._full_at_ms is not None and 0 <= now_ms - self._full_at_ms < FULL_REPLY_PAUSE_MS
