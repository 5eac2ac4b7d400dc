"""Whether the stream dropped records of a shard before they were read.

A shard that was silent and one whose records were trimmed look the same. The difference is up to which time
everything is known to have been read, and whether the record read last is still there. After a long time it is looked
for even where the stream keeps its records for longer: the stream may have kept them for a shorter time meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from kinesis_nb.core.frames import UNKNOWN_LAG
from kinesis_nb.core.limits import LEAST_RETENTION
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.reading.sink import Gap

if TYPE_CHECKING:
    from datetime import datetime

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Sink

GRACE = timedelta(minutes=10)  # that a reading from the horizon may take to reach a shard, while the horizon moves


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a shard was delivered; a child takes over that of its parents.

    Attributes
    ----------
    seen
        By the service's clock, up to when everything was.
    is_kept
        Whether the service is known to have kept what came then until this reading began. Records leave a stream in
        the order of their age, so one that is still there proves that for all later ones.
    """

    seen: datetime
    is_kept: bool


class GapWatch:
    """Follows one shard.

    Parameters
    ----------
    reach
        Of a child: how far its parents were delivered.
    """

    def __init__(self, plan: ReadPlan, shard_id: str, sink: Sink, reach: Reach | None = None) -> None:
        self.seen = reach.seen if reach else None
        self._is_kept = reach is not None and reach.is_kept
        self._plan, self._shard_id, self._sink = plan, shard_id, sink
        self._arrived: datetime | None = None  # when the last record arrived that was read
        self._checked: datetime | None = None  # when that record was looked for
        self._pending: Gap | None = None  # that there may be; the next record shows whether there is

    def begin(self, start: StartingPosition) -> None:
        """Start from what the sink knows of the time before."""
        known = start.timestamp if start.kind is Kind.LATEST else start.seen
        self.seen = known or self.seen
        self._arrived = start.arrived

    def may_be_trimmed(self, position: StartingPosition) -> bool:
        """Return whether the retention may have ended for what follows `position`: then its iterator is re-created."""
        if self._pending is not None:
            return False
        now = self._plan.kinesis.server_time().latest
        is_known = position.sequence_number is not None or position.seen is not None
        if not is_known and now - self._plan.began < GRACE:
            return False
        seen = self.seen or self._promised_from(position)
        if now - seen > LEAST_RETENTION:
            horizon = self._horizon(now)
            if seen < horizon or self._is_to_be_there(now, horizon):
                self._checked = now
                self._pending = self._gap_behind(position, "trimmed")
        return self._pending is not None

    def _is_to_be_there(self, now: datetime, horizon: datetime) -> bool:
        """Whether the last record must still be in the stream, and was not checked: it may have kept less meanwhile."""
        was_checked = self._checked is not None and now - self._checked <= LEAST_RETENTION
        return not was_checked and self._arrived is not None and self._arrived > horizon + GRACE

    def _horizon(self, now: datetime) -> datetime:
        """Return how old the oldest record may be that was not trimmed."""
        horizon = now - self._plan.lookup.retention()
        horizon = max(horizon, self._plan.lookup.trimmed[0])
        return horizon if self._is_kept else max(horizon, self._plan.trimmed_before)

    @property
    def is_pending(self) -> bool:
        """Whether there may be a gap, which the next record shows: the one read last is requested again."""
        return self._pending is not None

    @property
    def reach(self) -> Reach | None:
        """How far the shard was delivered; None when that is not known."""
        return Reach(self.seen, self._is_kept) if self.seen else None

    def _promised_from(self, start: StartingPosition) -> datetime:
        """Return from when on a reader that has not read anything yet must miss nothing."""
        horizon = self._plan.began - self._plan.lookup.retention()
        return horizon if start.timestamp is None else max(horizon, start.timestamp)

    def _gap_behind(self, position: StartingPosition | None, reason: str) -> Gap:
        return Gap(self._shard_id, reason, position.sequence_number if position else None, self.seen)

    def mark_trimmed(self, position: StartingPosition) -> None:
        """Record that the service does not know the record at `position` any more."""
        self._pending = self._pending or self._gap_behind(position, "trimmed")

    def lose_shard(self, position: StartingPosition | None) -> None:
        """Report that the shard is gone, with whatever it held behind `position`."""
        self._sink.lost(self._gap_behind(position, "shard expired"))

    def place(self, position: StartingPosition) -> StartingPosition:
        """Return where to continue: at the record that was read last, while it has to prove that nothing was lost."""
        if self._pending is None or position.sequence_number is None:
            return position
        return StartingPosition(Kind.AT_SEQUENCE_NUMBER, sequence_number=position.sequence_number)

    def confirm_gap(self, batch: Batch, asked_at: datetime) -> tuple[Batch, Gap | None]:
        """Find out whether the suspected gap exists, and report it to the sink.

        Parameters
        ----------
        asked_at
            By the service's clock, before the request: what arrived later may have missed its response.

        Returns
        -------
        tuple of Batch and Gap or None
            The batch without what was delivered before; and the gap when only the next response can show it. Both go to
            :meth:`delivered` once the sink has the batch.
        """
        batch, gap = self._check(batch)
        # until a gap is reported nothing behind it counts as seen, or a restart would forget it
        return replace(batch, seen=self.seen if gap else self._seen_with(batch, asked_at)), gap

    def _check(self, batch: Batch) -> tuple[Batch, Gap | None]:
        gap = self._pending
        if gap is None:
            return batch, None
        if batch.read_from is None and batch.millis_behind_latest > 0 and batch.next_iterator:
            return batch, gap
        self._is_kept = self._is_kept or batch.read_from is not None
        if gap.after is not None and batch.read_from is not None and int(batch.read_from) <= int(gap.after):
            return batch.behind(gap.after), None
        self._sink.lost(replace(gap, first=batch.read_from, until=batch.first_arrival))
        return batch, None

    def _seen_with(self, batch: Batch, asked_at: datetime) -> datetime | None:
        """Return up to when everything is delivered once this batch is."""
        is_silent_end = batch.next_iterator is None and batch.millis_behind_latest == 0
        if batch.millis_behind_latest == UNKNOWN_LAG or is_silent_end:  # a closed shard need not say since when
            return self.seen
        lag = timedelta(milliseconds=batch.millis_behind_latest + 1)  # it has no more digits, and may be rounded
        return asked_at - lag

    def delivered(self, batch: Batch, gap: Gap | None) -> None:
        """Record that the sink has a batch that :meth:`confirm_gap` returned."""
        self.seen, self._pending = batch.seen, gap
        self._arrived = batch.last_arrival or self._arrived
