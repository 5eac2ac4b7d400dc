"""Where a sync that has an end stops in each shard. Pure: no thread, no table, no clock."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datetime import datetime


class Ending:
    """Holds back the rows that arrived later than the end.

    Arrival times step back within a shard, so a row that arrived too late goes into the table when one that arrived in
    time follows it: else the next sync of the table would have to read the two in the wrong order. What is held
    back when the shard has given enough is left in the stream.
    """

    def __init__(self, end: datetime) -> None:
        self.end = end
        self._late: dict[str, list[pa.RecordBatch]] = {}  # by shard, whose thread alone uses its entry

    def split(self, shard_id: str, rows: pa.RecordBatch) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
        """Return what belongs into the table by now, and what does not yet, for :meth:`hold`."""
        held = self._late.get(shard_id, [])
        in_time = pc.less_equal(rows.column("kinesis_ingestion_timestamp"), pa.scalar(self.end))
        places = pc.indices_nonzero(in_time)
        if not len(places):
            return [], [*held, rows] if rows.num_rows else held
        count = places[-1].as_py() + 1
        rest = rows.slice(count)
        return [*held, rows.slice(0, count)], [rest] if rest.num_rows else []

    def hold(self, shard_id: str, late: list[pa.RecordBatch]) -> None:
        """Keep what :meth:`split` said, once the rest was delivered."""
        self._late[shard_id] = late

    def holds(self, shard_id: str) -> bool:
        """Whether rows of a shard are held back."""
        return bool(self._late.get(shard_id))

    def seen(self, moment: datetime | None, late: list[pa.RecordBatch]) -> datetime | None:
        """Return up to when everything is delivered, though some rows are held back."""
        return min(moment, self.end) if moment and late else moment
