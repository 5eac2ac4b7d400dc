"""How often one shard may be asked, and for how much. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.core.limits import FULL_RESPONSE_SECONDS, GET_BYTES, GET_RECORDS, SHARD_READ_BYTES, SHARD_READ_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_PAGE = 100
BEHIND_SECONDS = 1 / SHARD_READ_CALLS  # between two calls for a shard that has more to read
IDLE_SECONDS = 1.0  # caught up: leave most of that quota to others
CREDIT_SECONDS = 1.0  # of the byte quota that are saved up while a shard is not read
IDLE_CALLS_PER_SECOND = 500.0  # of all caught-up shards together; with more shards each is asked less often
IN_FLIGHT_BYTES = 256 * 2**20  # of the responses of all shards together; one alone can be 10 MiB
PART_BYTES = 16 * 2**20  # of what is opened of a response before it is delivered
LEAST_PAGE_BYTES = 2**20  # per shard in any case: five such pages a second are more than the service gives
GUESSED_RECORD_BYTES = 2**10  # until the first response shows it
TRANSFER_SECONDS = 1.0  # what a response may take on its way before the service is taken to have counted it


@dataclass(frozen=True, slots=True)
class SharedQuota:
    """How much of what all shards share one of them may use.

    Parameters
    ----------
    shards
        Gives how many there are.
    """

    shards: Callable[[], int] = lambda: 1

    @property
    def idle_seconds(self) -> float:
        """How long to wait before a shard with nothing left is asked again."""
        return max(IDLE_SECONDS, self.shards() / IDLE_CALLS_PER_SECOND)

    @property
    def page_bytes(self) -> float:
        """How large a response should be at most."""
        return max(LEAST_PAGE_BYTES, IN_FLIGHT_BYTES / max(1, self.shards()))

    @property
    def part_bytes(self) -> int:
        """Bytes of one part of a response with aggregated or compressed records; parts are delivered one by one."""
        return int(min(PART_BYTES, self.page_bytes))


ALONE = SharedQuota()


class ReadPace:
    """The time at which a shard may be asked next, and the ``Limit`` of that call.

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._most = GET_RECORDS
        self._asked = GET_RECORDS
        self._record_bytes: float = GUESSED_RECORD_BYTES
        self._paid_at = float("-inf")  # when the bytes read so far are within the quota

    def limit(self, page_bytes: float) -> int:
        """Return how many records to ask for, so that they are about `page_bytes` bytes at most."""
        self._asked = max(1, min(self._most, int(page_bytes / self._record_bytes)))
        return self._asked

    def note_response(
        self, called_at: float, received_at: float, records: int, size: int, *, idle: float | None
    ) -> float:
        """Record a response; return when to call next.

        Parameters
        ----------
        called_at, received_at
            The service counts the bytes at some time in between.
        records, size
            How many it held, and their bytes (data and partition keys).
        idle
            Seconds to wait when nothing is left to read; None when there is more.
        """
        is_full = records < self._asked and size > 0.9 * GET_BYTES
        if records:
            self._record_bytes = max(1.0, size / records)
        counted_at = min(received_at, called_at + TRANSFER_SECONDS)
        self._paid_at = max(self._paid_at, counted_at - CREDIT_SECONDS) + size / SHARD_READ_BYTES
        self._most = min(GET_RECORDS, 2 * self._most)
        interval = BEHIND_SECONDS if idle is None else idle
        return max(counted_at + FULL_RESPONSE_SECONDS if is_full else called_at + interval, self._paid_at)

    def throttled(self, now: float, failures: int) -> None:
        """Record that others use the quota too: nothing is saved up, and after repeated throttles ask for less."""
        self._paid_at = max(self._paid_at, now)
        if failures:
            self._most = max(LEAST_PAGE, self._most // 2)
