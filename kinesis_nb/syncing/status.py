"""The status of a sync: what :meth:`Sync.status` returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from kinesis_nb.core.foreign import describe_dropped
from kinesis_nb.display import table_html
from kinesis_nb.reading.consumer import ShardState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from kinesis_nb.reading.consumer import ConsumerStats


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """A snapshot of a sync.

    Attributes
    ----------
    state
        ``running``; ``waiting`` for the process that writes the table to hand it over; ``handing over`` the table to
        a newer call; ``storage unavailable``, which is retried; ``ended`` (every shard was read to its end, or to that
        of the sync), ``stopped`` or ``failed``.
    rows, commits
        Committed by this writer since it started.
    pending
        Rows read and not committed yet.
    lag
        How far the slowest shard is behind the tip of the stream; None before all have responded.
    lost
        What this run recorded as lost, because the stream did not keep it.
    error
        Why it failed or is retrying, else an empty string.
    filtered
        Rows that were read and not kept, because of ``where=`` or ``key=``, by this writer since it started.
    kept_apart_by
        What makes sure that no second writer gets rows into the table: the file system, or the conditional writes of
        the object store, which were tried before the first commit. Stores without them are refused.
    as_of
        When it stopped, so how old `lag` is; None while it runs.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = kn.demo().sync("orders", f"{folder}/orders", end="now")
    ...     sync.wait(timeout=60, until_caught_up=False), sync.status().state, sync.status().rows
    ...     sync.stop()
    (True, 'ended', 1000)
    """

    state: str
    rows: int
    commits: int
    pending: int
    lag: timedelta | None
    shards: tuple[ConsumerStats, ...]
    lost: tuple[str, ...]
    error: str
    kept_apart_by: str = ""
    filtered: int = 0
    as_of: datetime | None = None

    @property
    def dropped(self) -> int:
        """How many user records of aggregates this run dropped, because their hash keys are another shard's."""
        return sum(shard.dropped for shard in self.shards)

    def __repr__(self) -> str:
        lag = "unknown lag" if self.lag is None else f"{self.lag.total_seconds():,.1f} s behind"
        lag += f" as of {self.as_of:%Y-%m-%d %H:%M:%S} UTC" if self.as_of else ""
        filtered = f"{self.filtered:,} rows not kept" if self.filtered else ""
        error = self.error.partition("\n")[0]  # without its hint
        notes = "".join(f", {note}" for note in (filtered, describe_dropped(self.dropped), *self.lost, error) if note)
        return (
            f"<SyncStatus {self.state}: {self.rows:,} rows in {self.commits:,} commits by this run,"
            f" {self.pending:,} pending, {lag}{notes}>"
        )

    def _repr_html_(self) -> str:
        rows = (
            (
                shard.shard_id,
                shard.state.value,
                shard.records,
                None if shard.state is ShardState.ENDED else shard.millis_behind_latest,
                shard.throttles,
                shard.retries,
                shard.error,
            )
            for shard in self.shards
        )
        columns = ("shard", "state", "records", "ms behind", "throttles", "retries", "error")
        return table_html(columns, rows, repr(self).strip("<>"))


def lag_of(shards: Iterable[ConsumerStats]) -> timedelta | None:
    """Return how far the slowest shard is behind the tip of the stream; None before all have responded."""
    shards = tuple(shards)
    behind = [shard.millis_behind_latest for shard in shards if shard.state is not ShardState.ENDED]
    known = [millis for millis in behind if millis is not None]
    return timedelta(milliseconds=max(known, default=0)) if shards and len(known) == len(behind) else None
