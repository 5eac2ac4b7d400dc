"""How often one shard may be asked, and for how much. Pure: no clock, no I/O."""

from __future__ import annotations

PAGE = 10_000  # AWS: the most records that one GetRecords call may ask for
LEAST_PAGE = 100
BEHIND_SECONDS = 0.2  # AWS: 5 GetRecords calls/s per shard, shared by all consumers
IDLE_SECONDS = 1.0  # caught up: leave most of that quota to others
BYTES_PER_SECOND = 2 * 2**20  # AWS: per shard, shared by all consumers
FULL_REPLY_BYTES, FULL_REPLY_SECONDS = 10 * 2**20, 5.0  # AWS: after a full answer, calls within 5 s are throttled
CREDIT_SECONDS = 1.0  # so much of the byte quota is saved up while a shard is not read
TRANSFER_SECONDS = 1.0  # what an answer may take on its way before it counts as counted


class Pace:
    """The next moment at which a shard may be asked, and the ``Limit`` of that call.

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self.limit = PAGE
        self._paid_at = float("-inf")  # when the bytes read so far are within the quota

    def answered(self, called_at: float, received_at: float, rows: int, size: int, *, idle: float | None) -> float:
        """Take note of an answer; return when to call next.

        Parameters
        ----------
        called_at, received_at
            The service counts the bytes at some moment in between.
        rows, size
            How many records it held, and their bytes (data and partition keys).
        idle
            Seconds to wait when nothing is left to read; None when there is more.
        """
        is_full = rows < self.limit and size > 0.9 * FULL_REPLY_BYTES
        counted_at = min(received_at, called_at + TRANSFER_SECONDS)
        self._paid_at = max(self._paid_at, counted_at - CREDIT_SECONDS) + size / BYTES_PER_SECOND
        self.limit = min(PAGE, 2 * self.limit)
        interval = BEHIND_SECONDS if idle is None else idle
        return max(counted_at + FULL_REPLY_SECONDS if is_full else called_at + interval, self._paid_at)

    def throttled(self, now: float, failures: int) -> None:
        """Take note that others use the quota as well: nothing is saved up, then ask for less."""
        self._paid_at = max(self._paid_at, now)
        if failures:
            self.limit = max(LEAST_PAGE, self.limit // 2)
