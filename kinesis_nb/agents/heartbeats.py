"""How long agents have been silent. Pure: the clock is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class HeartbeatMonitor:
    """Counts for how long each of several agents has been silent.

    Their heartbeats carry times of the wall clock, which may step. So a heartbeat is only compared with the one before,
    and the seconds are counted by a clock that does not step. Time in which nobody listened does not count.

    Parameters
    ----------
    clock
        Seconds, monotonic.
    stall
        The most seconds that count between two calls: in a longer gap the listener itself was held up.
    """

    def __init__(self, clock: Callable[[], float], stall: float) -> None:
        self._clock, self._stall = clock, stall
        self._silent: dict[str, tuple[float, float]] = {}  # the last heartbeat, and for how long there was no other
        self._called = clock()

    def silent_seconds(self, heartbeats: Mapping[str, float]) -> dict[str, float]:
        """Return the seconds of silence of each agent; agents that are not given are forgotten.

        Parameters
        ----------
        heartbeats
            The newest heartbeat of each agent, by name.
        """
        now = self._clock()
        passed, self._called = min(now - self._called, self._stall), now
        before = self._silent
        self._silent = {
            name: (beat, before[name][1] + passed if name in before and before[name][0] == beat else 0.0)
            for name, beat in heartbeats.items()
        }
        return {name: seconds for name, (_, seconds) in self._silent.items()}
