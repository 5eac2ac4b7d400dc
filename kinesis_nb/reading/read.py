"""A bounded read: all shards, from a start to an end that is fixed at the call."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core import foreign, retry
from kinesis_nb.core.compression import count_packed, unchanged
from kinesis_nb.core.frames import SCHEMA, Records, in_range
from kinesis_nb.core.names import check_partition_key
from kinesis_nb.core.process import check_polars
from kinesis_nb.core.selection import depends_on_other_rows
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.reading.arrival import ArrivalOrder
from kinesis_nb.reading.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.foreign import Dropped
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Gap


@dataclass(frozen=True, slots=True)
class TimeRange:
    """What a bounded read covers.

    Attributes
    ----------
    start
        Where every shard that was there at the call starts.
    end
        Rows that arrived later are left out.
    keep
        Filters every batch as it comes, so that memory holds only what is wanted.
    limit
        Stop after this many rows; which ones they are depends on which shard responds first.
    newest
        Keep only about this many of the newest rows of each shard, however long the range is.
    """

    start: StartingPosition
    end: datetime
    keep: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda rows: rows
    limit: int | None = None
    newest: int | None = None


def read_range(
    plan: ReadPlan, window: TimeRange, progress: Callable[[int, float], None] = lambda _rows, _share: None
) -> Records:
    """Read a window of a stream into memory.

    Parameters
    ----------
    progress
        Called several times a second with the rows kept so far, and which share of the window's time is read (0 to 1).

    Returns
    -------
    Records
        In the order of arrival across shards; the rows of one partition key in the order they were written. After an
        interrupt what was read so far, and a note that says so; it also says how many user records were dropped.
    """
    plan = replace(plan, patience=retry.PATIENCE_SECONDS)
    sink = _RowCollector(plan, window)
    scheduler = Scheduler(plan, sink, on_done=sink.close)
    note = ""
    try:
        if plan.shards:
            scheduler.start()
        else:
            sink.close(None)
        while not sink.done.wait(0.1):
            progress(sink.kept, sink.share())
    except KeyboardInterrupt:
        note = "interrupted: not everything was read"
        warn(f"the read was {note}")
    finally:
        scheduler.stop()
    if sink.error is not None:
        raise sink.error
    progress(sink.kept, 1.0)
    for gap in sink.gaps:
        note = f"{note}, {gap}" if note else str(gap)
        warn(f"the read has a gap: {gap}")
    if said := foreign.describe_dropped(sink.dropped):
        note = f"{note}, {said}" if note else said
        warn(f"the read is without some: {said}")
    rows = sink.take()
    if plan.unpack is not unchanged and (packed := count_packed(_present(rows["data_raw"]))):
        told = f"{packed:,} with compressed data that is damaged, too large or incomplete: the bytes are in data_raw"
        note = f"{note}, {told}" if note else told
        warn(f"of the rows of the read {told}, parse_json says why")
    return Records(rows, note)


def _present(column: pl.Series | pa.ChunkedArray) -> pa.Array:
    """Return the values that are not null."""
    if isinstance(column, pa.ChunkedArray):
        return column.drop_null().combine_chunks()
    return column.drop_nulls().to_arrow()


class _RowCollector:
    """The sink of a bounded read."""

    def __init__(self, plan: ReadPlan, window: TimeRange) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.kept = 0
        self.dropped = 0
        self.gaps: set[Gap] = set()
        self._plan, self._window = plan, window
        self._order = ArrivalOrder(plan.shards, window.newest)
        self._lock = threading.Lock()  # guards the one below, `kept` and `dropped`
        self._spans: dict[str, tuple[datetime, datetime]] = {}  # by shard: from when, and up to when it is read

    def position(self, shard: Shard) -> StartingPosition:
        """Start where the user said; a shard born later is read from its beginning."""
        return self._plan.position(shard, self._window.start)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Keep what is wanted; a shard has given enough when its response reaches past the end."""
        received = self._plan.kinesis.server_time().earliest
        rows = self._window.keep(in_range(batch.rows, self._window.start.timestamp, self._window.end))
        self._order.add(shard, rows)
        with self._lock:
            if not batch.is_part:
                self._note_reached(shard.shard_id, received - timedelta(milliseconds=batch.millis_behind_latest))
            self.kept += rows.num_rows
            self.dropped += foreign.count(filter(self._is_within, batch.dropped))
            if self._window.limit is not None and self.kept >= self._window.limit:
                self.done.set()
        return not self._is_past_end(batch, received)

    def _is_within(self, dropped: Dropped) -> bool:
        start = self._window.start.timestamp
        return (start is None or start <= dropped.arrived) and dropped.arrived <= self._window.end

    def _note_reached(self, shard_id: str, reached: datetime) -> None:
        begin, _ = self._spans.get(shard_id, (self._window.start.timestamp or reached, reached))
        self._spans[shard_id] = (begin, reached)

    def share(self) -> float:
        """Return which share of the window's time is read, over the shards that were there at the call."""
        with self._lock:
            spans = dict(self._spans)
        shares = [
            _share(*spans[shard.shard_id], self._window.end) for shard in self._plan.shards if shard.shard_id in spans
        ]
        return sum(shares) / max(1, len(self._plan.shards))

    def _is_past_end(self, batch: Batch, received: datetime) -> bool:
        """Whether everything that had arrived by the end has been seen.

        Arrival times within a shard may step back a little, so a row from after the end proves nothing. The lag does:
        it says for which time the response is complete. An empty response that lags is a gap, and reading continues.
        """
        if batch.millis_behind_latest == 0:
            return True
        return received - timedelta(milliseconds=batch.millis_behind_latest) > self._window.end + timedelta(minutes=1)

    def lost(self, gap: Gap) -> None:
        """Record it for the note."""
        self.gaps.add(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:  # noqa: ARG002 - as for all sinks
        """Let the rows of the children follow."""
        self._order.expect(children)

    def close(self, error: BaseException | None) -> None:
        """End the wait of the caller."""
        self.error = error
        self.done.set()

    def take(self) -> pl.DataFrame | pa.Table:
        """Return all rows, in order of arrival, and keep none of them."""
        return self._order.take().slice(0, self._window.limit)


def _share(begin: datetime, reached: datetime, end: datetime) -> float:
    if reached >= end:
        return 1.0
    return max(0.0, (reached - begin) / (end - begin))


def row_filter(key: str | None, where: pl.Expr | None) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return the function that keeps the rows of one partition key, and those a polars expression lets through.

    Raises
    ------
    ConfigError
        For a key that no record can have, or an expression that does not give true or false for each row from the
        columns of that row. The function raises it too, for rows that an expression fails on.
    """
    if key is not None:
        check_partition_key(key)
    if where is not None and not isinstance(where, pl.Expr):
        raise ConfigError(
            f"where= does not accept {type(where).__name__}", hint='give where=pl.col("data").str.contains("x")'
        )
    if where is not None:
        check_polars()

    def keep(rows: pa.RecordBatch) -> pa.RecordBatch:
        if key is not None:
            rows = rows.filter(pc.equal(rows.column("partition_key"), key))
        return rows if where is None else rows.filter(_mask(rows, where))

    keep(pa.RecordBatch.from_pylist([], SCHEMA))
    if where is not None and depends_on_other_rows(where, pl.DataFrame(SCHEMA.empty_table())):
        raise ConfigError(
            "where= looks at other rows, and is applied to one batch of rows at a time",
            hint="read without it, then filter: read(...).to_polars().filter(...)",
        )
    return keep


def _mask(rows: pa.RecordBatch, where: pl.Expr) -> pa.Array:
    try:
        mask = pl.DataFrame(rows).with_columns(where.alias("mask"))["mask"]
    except (Exception, pl.exceptions.PanicException) as error:  # functions of the user run in it too
        raise ConfigError(
            f"where= cannot be applied: {(str(error).splitlines() or [type(error).__name__])[0]}",
            hint=f"it gives true or false from the columns {', '.join(SCHEMA.names)};"
            " the fields of JSON are columns after parse_json()",
        ) from error
    if mask.dtype != pl.Boolean:
        raise ConfigError(f"where= gives {mask.dtype}, not true or false", hint="compare it with something")
    return mask.to_arrow()
