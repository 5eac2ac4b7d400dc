"""Which rows of a table an export has queued and sent, per source shard. Pure.

A row is queued, sent or done: queued when it was taken out of the table, sent when a request holds it, done when it was
acknowledged or given up. The rows of a shard are taken in the order of their offsets, so one number per shard says
which of them must never be taken again, whatever happens to their files.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Progress:
    """The state of the rows.

    Attributes
    ----------
    low
        Per shard, the first offset that is not done; those before it are done, or are not in the table.
    high
        Per shard, the first offset that was not taken yet.
    """

    def __init__(self) -> None:
        self.low: dict[str, int] = {}
        self.high: dict[str, int] = {}
        self._open: dict[str, deque[int]] = {}  # taken, in order; those at the front are not done
        self._done: dict[str, set[int]] = {}  # done out of turn
        self._resumed: dict[str, set[int]] = {}  # the same from earlier runs, for rows that this run has not taken yet

    def resume(self, low: Mapping[str, int], done: Mapping[str, set[int]]) -> None:
        """Start where earlier runs stopped.

        Parameters
        ----------
        low
            Per shard, the first offset that may not be done.
        done
            Offsets that are; those before `low` are left out.
        """
        self.low, self.high = dict(low), dict(low)
        found = {shard_id: {o for o in offsets if o >= low.get(shard_id, 0)} for shard_id, offsets in done.items()}
        self._resumed = {shard_id: offsets for shard_id, offsets in found.items() if offsets}

    def resumed(self, shard_id: str) -> set[int]:
        """Return what earlier runs have done of the rows that were not taken yet."""
        return self._resumed.get(shard_id, set())

    def take(self, shard_id: str, offsets: Iterable[int], end: int) -> None:
        """Record that rows are queued, and that no other row before `end` is to be taken."""
        left = self._resumed.pop(shard_id, set())
        passed = {offset for offset in left if offset < end}  # done out of turn, until the rows before them are done
        if left := left - passed:
            self._resumed[shard_id] = left
        self._open.setdefault(shard_id, deque()).extend((*offsets, *passed))
        self._done.setdefault(shard_id, set()).update(passed)
        self.high[shard_id] = max(end, self.high.get(shard_id, 0))
        self._advance(shard_id)

    def done(self, shard_id: str, offsets: Iterable[int]) -> None:
        """Record rows that need not be sent any more; they were taken."""
        self._done.setdefault(shard_id, set()).update(offsets)
        self._advance(shard_id)

    def _advance(self, shard_id: str) -> None:
        """Move `low` over the rows at the front that are done."""
        taken, done = self._open.get(shard_id) or deque(), self._done.get(shard_id, set())
        while taken and taken[0] in done:
            done.remove(taken.popleft())
        self.low[shard_id] = taken[0] if taken else self.high[shard_id]

    def above(self) -> dict[str, list[int]]:
        """Return, per shard, the offsets behind `low` that are done."""
        found: dict[str, list[int]] = {}
        for shard_id in self._resumed.keys() | self._done.keys():
            low = self.low.get(shard_id, 0)
            offsets = self._resumed.get(shard_id, set()) | self._done.get(shard_id, set())
            found[shard_id] = sorted(offset for offset in offsets if offset >= low)
        return {shard_id: offsets for shard_id, offsets in found.items() if offsets}
