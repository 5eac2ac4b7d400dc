"""How fast a shard may be written to: only its refusals say so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kinesis_nb.core.limits import PUT_RECORDS, SHARD_WRITE_BYTES, SHARD_WRITE_RECORDS

if TYPE_CHECKING:
    from kinesis_nb.core.transport import Clock

MOST_BYTES = 5 * 2**20  # AWS takes 10 MiB per request, some servers half of it
_STEP = 0.1  # added to the rate, in shards, per second without a refusal
_CUT = 0.85  # the share of the rate that a refusal leaves
_CUT_SECONDS = 0.5  # refusals that come sooner than this after a cut belong to the same overload
_SLOWEST = 0.02  # of a shard
_REQUEST_SECONDS = 0.5  # a paced request holds what the shards take in this time


class WriteRate:
    """Additive increase, multiplicative decrease, for the shards of one lane.

    Rates are in shards: a shard takes 1,000 records and 1 MiB per second, whichever is used up first. Without a limit
    until the first refusal, because a server may have none.
    """

    def __init__(self, clock: Clock, shards: int = 1) -> None:
        self._clock, self._shards = clock, shards
        self._rate = math.inf
        self._due = self._changed = clock.monotonic()
        self._refusals = 0  # requests in a row that were refused as a whole

    def wait(self) -> float:
        """Return in how many seconds the next request may go out."""
        return max(0.0, self._due - self._clock.monotonic())

    def most(self) -> tuple[int, int]:
        """Return how many records, and how many bytes, the next request may hold."""
        if math.isinf(self._rate):
            return PUT_RECORDS, MOST_BYTES
        share = self._rate * _REQUEST_SECONDS
        return (
            min(PUT_RECORDS, max(1, math.ceil(share * SHARD_WRITE_RECORDS))),
            min(MOST_BYTES, math.ceil(share * SHARD_WRITE_BYTES)),
        )

    def sent(self, records: int, size: int, *, throttled: bool, refused: bool = False) -> None:
        """Record what a request held, whether some of it was refused for lack of throughput, and whether all of it was.

        What was refused counts as well: an overloaded shard has nothing left for an early second try.
        """
        now = self._clock.monotonic()
        if throttled:
            self._slow_down(now)
        elif not math.isinf(self._rate):
            self._rate += _STEP * self._shards * (now - self._changed)
            self._changed = now
        self._refusals = self._refusals + 1 if refused else 0
        self._due = now + self._pause(records, size, is_paced=throttled)

    def _pause(self, records: int, size: int, *, is_paced: bool) -> float:
        """Return how many seconds what was sent takes at the present rate."""
        wait = max(records / SHARD_WRITE_RECORDS, size / SHARD_WRITE_BYTES) / self._rate
        if is_paced:  # a paced request fits by then, however large this one was
            wait = min(wait, _REQUEST_SECONDS)
        if self._refusals:
            wait = max(wait, _REQUEST_SECONDS * min(2**self._refusals, 8) * self._clock.random())
        return wait

    def _slow_down(self, now: float) -> None:
        if math.isinf(self._rate):
            self._rate = float(self._shards)
        elif now - self._changed >= _CUT_SECONDS:
            self._rate = max(_SLOWEST, self._rate * _CUT)
        self._changed = now
