"""Rows over time, by shard: what the bar above a grid shows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from kinesis_nb.widgets.grid.cells import short
from kinesis_nb.widgets.grid.rows import ARRIVAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from kinesis_nb.widgets.flow import Message

BINS = 60
LIVE_SECONDS = 300  # of a tail
MOST_SHARDS = 8  # with a colour of their own; the others share one
MICROS = 1_000_000


class Timeline:
    """How many rows arrived in each second, by shard.

    Parameters
    ----------
    seconds
        How many of the last ones are kept; None keeps all.
    """

    def __init__(self, seconds: int | None = LIVE_SECONDS) -> None:
        self._keep = seconds
        self._counts: dict[str, Counter[int]] = {}

    def add(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Count rows; those of a batch may be of several shards."""
        for rows in batches:
            seconds = rows.column(ARRIVAL).cast("int64").to_numpy() // MICROS
            shards = rows.column("shard_id").dictionary_encode()
            for place, shard in enumerate(shards.dictionary.to_pylist()):
                some = seconds[shards.indices.to_numpy() == place]
                found, times = np.unique(some, return_counts=True)
                counted = self._counts.setdefault(shard, Counter())
                counted.update(dict(zip(found.tolist(), times.tolist(), strict=True)))

    def bars(self, now: float | None = None) -> Message:
        """Return the rows in each of 60 bars, for each shard that has any.

        Parameters
        ----------
        now
            The end of the last bar, in seconds since 1970; None begins with the first row and ends with the last.
        """
        first, last = self._span(now)
        step = max(1, -(-(last - first) // BINS))
        first -= first % step
        count = max(1, -(-(last - first) // step))
        busiest = sorted(self._counts, key=lambda shard: -self._counts[shard].total())
        named = sorted(busiest[:MOST_SHARDS])
        bars = [self._binned([shard], first, step, count) for shard in named]
        if len(busiest) > MOST_SHARDS:
            bars.append(self._binned(busiest[MOST_SHARDS:], first, step, count))
        shards = [*map(short, named), *(["others"] if len(busiest) > MOST_SHARDS else [])]
        return {"start": first, "step": step, "shards": shards, "bars": bars}

    def _span(self, now: float | None) -> tuple[int, int]:
        if now is not None and self._keep is not None:
            end = int(now) + 1
            self._forget(end - self._keep)
            return end - self._keep, end
        seconds = [second for counted in self._counts.values() for second in (min(counted), max(counted))]
        return (min(seconds), max(seconds) + 1) if seconds else (0, 1)

    def _forget(self, before: int) -> None:
        for shard, counted in list(self._counts.items()):
            for second in [second for second in counted if second < before]:
                del counted[second]
            if not counted:
                del self._counts[shard]

    def _binned(self, shards: Iterable[str], first: int, step: int, count: int) -> list[int]:
        bins = [0] * count
        for shard in shards:
            for second, times in self._counts[shard].items():
                if 0 <= (place := (second - first) // step) < count:
                    bins[place] += times
        return bins
