"""How fast something comes that comes in bursts."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.widgets.flow import Message

WINDOW_SECONDS = 10.0  # over which the rate is taken
LEAST_SECONDS = 1.0  # between the first count and the last one, for a rate
HISTORY = 60  # seconds


class Rate:
    """The rate of a total over the last ten seconds, and what it was in each second of the last minute.

    A shard that is read once a second gives all its rows of that second at once, so a difference of two counts would
    wander; this is the slope of the line that fits all counts best.

    Parameters
    ----------
    total
        What there is already.
    clock
        Seconds that only grow.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = 0.0
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque([(clock(), total)])
        self._history: deque[float] = deque([0.0] * HISTORY, HISTORY)
        self._noted = clock()

    def count(self, total: int) -> None:
        """Record the total so far."""
        now = self._clock()
        self._counts.append((now, total))
        while now - self._counts[0][0] > WINDOW_SECONDS:
            self._counts.popleft()
        times, totals = zip(*self._counts, strict=True)
        if now - times[0] >= LEAST_SECONDS:
            self.now = statistics.linear_regression(times, totals).slope
        seconds = int(now - self._noted)
        self._history.extend([self.now] * min(seconds, HISTORY))
        self._noted += seconds

    def counted(self, total: int) -> Message:
        """Record the total so far; return the rate as a view shows it: now, and of the last minute, oldest first."""
        self.count(total)
        return {"rate": f"{self.now:,.0f}", "rates": [round(rate) for rate in self._history]}
