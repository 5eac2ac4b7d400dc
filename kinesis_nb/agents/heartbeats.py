"""How long nobody was heard of. Pure: it has the clock that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class HeartbeatMonitor:
    """For how long each of many was silent.

    Their signs of life carry times of the wall clock, which may step; so here a sign only differs from the one before,
    and the seconds are counted by a clock that does not step. A time in which nobody listened does not count either.

    Parameters
    ----------
    clock
        Seconds, monotonic.
    pause
        So many seconds at most count between two looks.
    """

    def __init__(self, clock: Callable[[], float], pause: float) -> None:
        self._clock, self._pause = clock, pause
        self._silent: dict[str, tuple[float, float]] = {}  # the last sign, and for how long there was no other
        self._looked = clock()

    def look(self, signs: Mapping[str, float]) -> dict[str, float]:
        """Return the seconds of silence of each; who is not among them is forgotten.

        Parameters
        ----------
        signs
            The newest sign of each.
        """
        now = self._clock()
        passed, self._looked = min(now - self._looked, self._pause), now
        before = self._silent
        self._silent = {
            name: (sign, before[name][1] + passed if name in before and before[name][0] == sign else 0.0)
            for name, sign in signs.items()
        }
        return {name: seconds for name, (_, seconds) in self._silent.items()}
