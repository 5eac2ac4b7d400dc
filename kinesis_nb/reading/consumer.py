"""One shard's state machine.

It decides how long to wait and never sleeps, so a test can run hours of it in milliseconds.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import exp
from typing import TYPE_CHECKING

from kinesis_nb.core import foreign
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.retry import backoff
from kinesis_nb.errors import (
    IteratorExpired,
    KeyUnavailable,
    KinesisError,
    MalformedResponse,
    PositionTrimmed,
    ServiceError,
    StreamNotFound,
    Throttled,
)
from kinesis_nb.reading.gaps import GapWatch
from kinesis_nb.reading.pace import ALONE, ReadPace, SharedQuota
from kinesis_nb.reading.phase import ShardEvent, ShardPhase, after
from kinesis_nb.reading.plan import check_same_stream, stream_recreated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.gaps import Reach
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Sink

DEGRADED_SECONDS = 60.0  # of failures without a success
LATEST_LASTS = timedelta(seconds=5)  # between the call of a tail and the first call for a shard
MISSING_TRIES = 3  # for a shard that is listed but not found
RATE_SECONDS = 10.0  # over which the rate of records is averaged


class ShardState(StrEnum):
    """What a consumer is doing."""

    STARTING = "starting"
    READING = "reading"
    CAUGHT_UP = "caught up"
    BACKING_OFF = "backing off"
    DEGRADED = "degraded"  # backing off for a minute or more
    BLOCKED = "blocked"  # the key that the stream is encrypted with cannot be used
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A snapshot of one shard.

    Attributes
    ----------
    hash_range
        The first and last 128-bit hash key that the shard takes, both included.
    millis_behind_latest
        As the last response said; None before the first.
    records, calls, throttles, retries
        Counts since the start; `retries` includes `throttles`.
    rate
        Records per second, about the last ten seconds.
    dropped
        User records of aggregates that are not among the rows, because the shard does not take their hash keys.
    malformed
        Incomplete responses, which were requested again.
    caught_up_call
        Which call was the last one whose response said that nothing is left; 0 for none.
    error
        Why the consumer is backing off, else an empty string.
    is_throttled
        Whether it is backing off because the service said that too much was asked.
    waiting_seconds
        How long the call under way has been waiting for its response, in seconds; 0.0 when there is none.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     rows = tail.take(10, timeout=10)
    >>> sum(shard.records for shard in tail.stats().shards) >= 10
    True
    """

    shard_id: str
    hash_range: tuple[int, int]
    state: ShardState
    millis_behind_latest: int | None
    records: int
    rate: float
    dropped: int
    calls: int
    caught_up_call: int
    throttles: int
    retries: int
    malformed: int
    error: str
    is_throttled: bool
    waiting_seconds: float


@dataclass
class Counters:
    """What a consumer has counted so far, named as in :class:`ConsumerStats`."""

    millis_behind_latest: int | None = None
    records: int = 0
    rate: float = 0.0
    dropped: int = 0
    calls: int = 0
    caught_up_call: int = 0
    throttles: int = 0
    retries: int = 0
    malformed: int = 0
    error: str = ""
    is_throttled: bool = False


@dataclass
class Failures:
    """What went wrong, and how often, so that no failure is retried without end.

    Attributes
    ----------
    in_a_row
        Steps that failed since the last one that did not; the first of them at `since`, the last one at `last_at`, in
        seconds of the monotonic clock.
    not_found
        How often the service did not know the shard since the last response.
    older_listings
        Listings that lacked this shard and every newer one.
    is_renewed
        Whether the iterator was replaced because it was unusable, and no response came since then.
    """

    in_a_row: int = 0
    since: float = 0.0
    last_at: float = 0.0
    not_found: int = 0
    older_listings: int = 0
    is_renewed: bool = False

    @property
    def seconds(self) -> float:
        """How long the failures in a row have lasted."""
        return self.last_at - self.since

    def begin(self, now: float) -> None:
        """Record the time of a failure."""
        self.last_at = now
        if not self.in_a_row:
            self.since = now

    def note_response(self) -> None:
        """Record that a response came."""
        self.is_renewed, self.not_found = False, 0


class ShardConsumer:
    """Reads one shard, in order, into a sink.

    Call :meth:`step` repeatedly, waiting in between for the time that it returns. One thread at a time.

    Parameters
    ----------
    quota
        How much of what all shards share this one may use.
    reach
        For a child: how far its parents were read.
    """

    def __init__(
        self,
        plan: ReadPlan,
        shard: Shard,
        sink: Sink,
        quota: SharedQuota = ALONE,
        reach: Reach | None = None,
    ) -> None:
        self.shard = shard
        self.state = ShardState.STARTING
        self.phase = ShardPhase.READ
        self.children: tuple[Shard, ...] = ()
        self._plan, self._sink, self._quota = plan, sink, quota
        self._pace = ReadPace()
        self._position: StartingPosition | None = None
        self._iterator: str | None = None
        self._gaps = GapWatch(plan, shard.shard_id, sink, reach)
        self._is_closed = False  # a listing has said so, or lacks the shard: its end is read once more
        self._called_at = 0.0
        self._waits_since: float | None = None  # for a response
        self._failures = Failures()
        self._counters = Counters()

    def step(self) -> float | None:
        """Make the next call or two.

        Returns
        -------
        float or None
            Seconds to wait before the next step; None when this shard needs no more.

        Raises
        ------
        KinesisError
            One that no retry can help, or whatever the sink raised.
        """
        try:
            wait = self._next()()
        except KinesisError as error:
            self._waits_since = None
            self._failures.begin(self._plan.clock.monotonic())
            self._prepare_retry(error)
            return self._back_off(error)
        self._failures.in_a_row, self._counters.error, self._counters.is_throttled = 0, "", False
        return wait

    def _next(self) -> Callable[[], float | None]:
        match self.phase:
            case ShardPhase.FIND_SHARD | ShardPhase.FIND_ENDED_SHARD:
                return self._find_shard
            case ShardPhase.CONFIRM_END:
                return self._confirm_end
            case _:
                return self._read

    def _move(self, event: ShardEvent) -> None:
        self.phase = after(self.phase, event)
        if self.phase.is_over:
            self.state = ShardState.ENDED

    @property
    def has_iterator(self) -> bool:
        """Whether the place in the shard is held by the service, so that nothing that arrives from now on is missed."""
        return self._iterator is not None or self._counters.records > 0 or self.state is ShardState.ENDED

    @property
    def reach(self) -> Reach | None:
        """How far the shard was delivered; None when that is not known."""
        return self._gaps.reach

    # --- reading ---

    def _read(self) -> float | None:
        if self._position is None:
            self._position = self._sink.position(self.shard)
            if self._position is None:
                self._move(ShardEvent.NOT_WANTED)
                return None
            self._gaps.begin(self._position)
        clock, counters = self._plan.clock, self._counters
        self._waits_since = clock.monotonic()
        iterator = self._current_iterator(self._position)
        started = clock.monotonic()
        elapsed, self._called_at = started - self._called_at, started
        counters.calls += 1
        limit = self._pace.limit(self._quota.page_bytes)
        asked_at = self._plan.kinesis.server_time().earliest
        response = self._plan.kinesis.get_records(self._plan.stream, self.shard, iterator, limit)
        received, before, self._waits_since = clock.monotonic(), counters.records, None
        self._check_forward(response)
        self._failures.note_response()
        with closing(self._plan.parts(response, self._quota.part_bytes)) as parts:
            wants_more = all(self._deliver(part, asked_at) for part in parts)
        self._note_rate(counters.records - before, elapsed)
        if not wants_more:
            self._move(ShardEvent.ENOUGH)
            return None
        if self.phase is ShardPhase.CONFIRM_END:
            return self._confirm_end()
        return self._wait(response, received)

    def _check_forward(self, response: Batch) -> None:
        """Raise MalformedResponse for records that were delivered before, unless the last one was requested again."""
        position = self._position
        if position is None or position.sequence_number is None or response.read_from is None:
            return
        ahead = int(response.read_from) - int(position.sequence_number)
        if ahead < 0 or (ahead == 0 and position.kind is Kind.AFTER_SEQUENCE_NUMBER and not self._gaps.is_pending):
            self._iterator = None
            raise MalformedResponse(
                f"a response for {self.shard.shard_id} holds records that were read before",
                hint="it will be requested again",
                retryable=True,
            )

    def _deliver(self, batch: Batch, asked_at: datetime) -> bool:
        """Give the sink a part of a response; whatever fails after that continues behind this part."""
        batch, gap = self._gaps.confirm_gap(batch, asked_at)
        wants_more = self._sink.deliver(self.shard, batch)
        self._gaps.delivered(batch, gap)
        self._advance(batch)
        return wants_more

    def _current_iterator(self, position: StartingPosition) -> str:
        if self._gaps.may_be_trimmed(position):
            self._iterator = None
        if self._iterator is None:
            self._position = self._pinned(position)
            place = self._gaps.place(self._position)
            self._iterator = self._plan.kinesis.get_shard_iterator(self._plan.stream, self.shard.shard_id, place)
        return self._iterator

    def _pinned(self, position: StartingPosition) -> StartingPosition:
        """Replace LATEST by its time once LATEST would skip what arrived since then."""
        if position.kind is not Kind.LATEST or position.timestamp is None:
            return position
        is_late = self._plan.kinesis.server_time().latest - position.timestamp > LATEST_LASTS
        return StartingPosition.at(position.timestamp) if is_late or self._failures.in_a_row else position

    def _advance(self, batch: Batch) -> None:
        self._iterator = batch.next_iterator  # None behind a part: should the next one fail, the position counts
        self._counters.records += batch.rows.num_rows
        self._counters.dropped += foreign.count(batch.dropped)
        if batch.read_to is not None:
            self._position = StartingPosition.after(batch.read_to)
        if not batch.is_part:
            self._move(ShardEvent.NO_ITERATOR if batch.next_iterator is None else ShardEvent.MORE_FOLLOWS)
            self.children = batch.child_shards
            self._counters.millis_behind_latest = batch.millis_behind_latest

    def _note_rate(self, records: int, elapsed: float) -> None:
        counters = self._counters
        weight = 1 - exp(-elapsed / RATE_SECONDS) if counters.calls > 1 else 0.0
        counters.rate += weight * (records / max(elapsed, 1e-3) - counters.rate)

    def _wait(self, response: Batch, received: float) -> float:
        caught_up = self._counters.millis_behind_latest == 0
        self.state = ShardState.CAUGHT_UP if caught_up else ShardState.READING
        if caught_up:
            self._counters.caught_up_call = self._counters.calls
        idle = self._quota.idle_seconds if caught_up else None
        call_at = self._pace.note_response(self._called_at, received, response.count, response.size, idle=idle)
        return max(0.0, call_at - self._plan.clock.monotonic())

    # --- the end of a shard ---

    def _confirm_end(self) -> float | None:
        """Finish the shard if it has ended: children or a listing prove that, a missing iterator alone does not."""
        if not self.children:
            listing = self._plan.lookup.shards(since=max(self._called_at, self._failures.last_at))
            self._check_closed(listing.get(self.shard.shard_id))
            self.children = _children(self.shard, listing)
            if not self.children and self.shard.shard_id in listing:
                raise ServiceError(f"{self.shard.shard_id} is closed, its children are not listed yet", retryable=True)
        self._sink.finish(self.shard, self.children)
        self._move(ShardEvent.END_PROVEN)
        return None

    def _check_closed(self, listed: Shard | None) -> None:
        if listed is None or listed.is_open:
            self._move(ShardEvent.END_UNPROVEN)
            self._is_closed = listed is None
            raise MalformedResponse(f"{self.shard.shard_id} gave no next iterator, and is not closed", retryable=True)
        if not self._is_closed:  # it may have been open, and written to, when it gave none
            self._move(ShardEvent.END_UNPROVEN)
            self._is_closed = True
            raise ServiceError(f"{listed.shard_id} is closed: its end is read again", retryable=True)

    def _find_shard(self) -> float | None:
        """Find out why the service does not know the shard: it left the stream, or the stream is another one."""
        listing = self._plan.lookup.shards(since=self._failures.last_at)
        listed = listing.get(self.shard.shard_id)
        if listed is None:
            self._check_newer(listing)
            if not self._is_closed:  # else it had given everything
                self._gaps.lose_shard(self._position)
            self.children = _children(self.shard, listing)
            self._sink.finish(self.shard, self.children)
            self._move(ShardEvent.UNLISTED)
            return None
        check_same_stream(self.shard, listed)
        self._move(ShardEvent.LISTED)
        raise ServiceError(f"{self.shard.shard_id} is listed but not found", retryable=True)

    def _check_newer(self, listing: Mapping[str, Shard]) -> None:
        """Raise for a listing without this shard and without any newer one: it is stale, or of another stream.

        A shard leaves a stream after its children were born, and ids ascend.
        """
        if max(listing, default="") > self.shard.shard_id:
            return
        self._failures.older_listings += 1
        if self._failures.older_listings > MISSING_TRIES:
            raise stream_recreated()
        raise ServiceError(f"a listing lacks {self.shard.shard_id}, and all newer ones", retryable=True)

    # --- failures ---

    def _prepare_retry(self, error: KinesisError) -> None:
        """Get ready to try again, or raise what no retry can help."""
        match error:
            case IteratorExpired():
                self._renew_iterator(error)
            case PositionTrimmed():
                if self._position is not None:
                    self._gaps.mark_trimmed(self._position)
                self._position = StartingPosition.trim_horizon()
            case StreamNotFound():
                self._note_not_found(error)
            case _:
                if not error.retryable:
                    raise error

    def _renew_iterator(self, error: IteratorExpired) -> None:
        if not error.retryable and self._failures.is_renewed:
            raise error  # unusable, and so was the one before: a third will be no better
        self._iterator = None
        self._failures.is_renewed = self._failures.is_renewed or not error.retryable

    def _note_not_found(self, error: StreamNotFound) -> None:
        """Find out next whether the shard is still there."""
        if self.phase in (ShardPhase.FIND_SHARD, ShardPhase.FIND_ENDED_SHARD):  # not even a listing knows the stream
            raise error
        self._failures.not_found += 1
        if self._failures.not_found > MISSING_TRIES:
            raise error
        self._move(ShardEvent.NOT_FOUND)
        self._iterator = None

    def _back_off(self, error: KinesisError) -> float:
        failures, counters = self._failures, self._counters
        self.state = ShardState.DEGRADED if failures.seconds >= DEGRADED_SECONDS else ShardState.BACKING_OFF
        if isinstance(error, KeyUnavailable):
            self.state = ShardState.BLOCKED
        if isinstance(error, Throttled):
            counters.throttles += 1
            self._pace.throttled(failures.last_at, failures.in_a_row)
        counters.malformed += isinstance(error, MalformedResponse)
        counters.error, counters.is_throttled = error.message, isinstance(error, Throttled)
        counters.retries += 1
        if isinstance(error, MalformedResponse) and failures.seconds >= self._plan.patience:
            raise error
        wait = backoff(failures.in_a_row, error, self._plan.clock)
        failures.in_a_row += 1
        return wait

    def stats(self) -> ConsumerStats:
        """Return what this consumer has done so far."""
        since = self._waits_since
        waits = 0.0 if since is None else self._plan.clock.monotonic() - since
        shard = self.shard
        return ConsumerStats(
            shard.shard_id, shard.hash_range, self.state, **vars(self._counters), waiting_seconds=waits
        )

    def __repr__(self) -> str:
        return f"<ShardConsumer {self.shard.shard_id} {self.state}>"


def _children(shard: Shard, listing: Mapping[str, Shard]) -> tuple[Shard, ...]:
    return tuple(listed for listed in listing.values() if shard.shard_id in listed.parents)
