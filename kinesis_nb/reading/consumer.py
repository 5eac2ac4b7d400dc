"""One shard's state machine.

It decides how long to wait and never sleeps, so a test can run hours of it in a moment.
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
    MalformedAnswer,
    PositionTrimmed,
    ServiceError,
    StreamNotFound,
    Throttled,
)
from kinesis_nb.reading.feed import check_same_stream, made_again
from kinesis_nb.reading.gaps import GapWatch
from kinesis_nb.reading.pace import ALONE, Pace, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.feed import Feed
    from kinesis_nb.reading.gaps import Reach
    from kinesis_nb.reading.sink import Sink

DEGRADED_SECONDS = 60.0  # of failures without a success
LATEST_LASTS = timedelta(seconds=5)  # between the call of a tail and the first call for a shard
MISSING_TRIES = 3  # for a shard that is listed, and yet not found
RATE_SECONDS = 10.0  # over which the rate of records is averaged


class State(StrEnum):
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
    """A moment of one shard.

    Attributes
    ----------
    millis_behind_latest
        As the last answer said; None before the first.
    records, calls, throttles, retries
        Counts since the start; `retries` includes `throttles`.
    rate
        Records per second, about the last ten seconds.
    dropped
        User records of aggregates that are not among the rows, because the shard does not take their hash keys.
    malformed
        Answers that were not whole and were asked for again.
    caught_up_call
        Which call was the last one to be answered with "nothing left"; 0 for none.
    error
        Why the consumer is backing off, else an empty string.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     rows = tail.take(10, timeout=10)
    >>> sum(shard.records for shard in tail.stats().shards) >= 10
    True
    """

    shard_id: str
    state: State
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


class ShardConsumer:
    """Reads one shard, in order, into a sink.

    Call :meth:`step` again and again, waiting in between as long as it says. One thread at a time.

    Parameters
    ----------
    share
        What this shard may take of what all of them have in common.
    reach
        For a child: how far its parents were read.
    """

    def __init__(
        self,
        feed: Feed,
        shard: Shard,
        sink: Sink,
        share: Share = ALONE,
        reach: Reach | None = None,
    ) -> None:
        self.shard = shard
        self.state = State.STARTING
        self.children: tuple[Shard, ...] = ()
        self._feed, self._sink, self._share = feed, sink, share
        self._kinesis, self._clock = feed.kinesis, feed.clock
        self._pace = Pace()
        self._position: StartingPosition | None = None
        self._iterator: str | None = None
        self._gaps = GapWatch(feed, shard.shard_id, sink, reach)
        self.is_expired = False  # the stream has dropped the shard
        self.gave_enough = False  # the sink wants no more of it, whatever it still holds
        self._at_end = self._is_renewed = self._is_closed = self._is_missing = False
        self._failures = self._missed = self._older_listings = 0
        self._failing_since = self._failed_at = self._called_at = 0.0
        self._millis_behind: int | None = None
        self._records = self._dropped = self._calls = self._caught_up_call = self._throttles = self._retries = 0
        self._malformed = 0
        self._rate = 0.0
        self._error = ""

    def step(self) -> float | None:
        """Make the next call or two.

        Returns
        -------
        float or None
            Seconds to wait before the next step; None when this shard needs no more.

        Raises
        ------
        KinesisError
            One that no retry can mend, or whatever the sink raised.
        """
        try:
            wait = self._next()()
        except KinesisError as error:
            self._failed_at = self._clock.monotonic()
            self._prepare_retry(error)
            return self._back_off(error)
        self._failures, self._error = 0, ""
        return wait

    def _next(self) -> Callable[[], float | None]:
        if self._is_missing:
            return self._look_for_shard
        return self._confirm_end if self._at_end else self._read

    @property
    def has_iterator(self) -> bool:
        """Whether the place in the shard is held by the service, so that nothing that arrives from now on is missed."""
        return self._iterator is not None or self._records > 0 or self.state is State.ENDED

    @property
    def reach(self) -> Reach | None:
        """How far the shard was delivered; None when that is not known."""
        return self._gaps.reach

    # --- reading ---

    def _read(self) -> float | None:
        if self._position is None:
            self._position = self._sink.position(self.shard)
            if self._position is None:
                self.state = State.ENDED
                return None
            self._gaps.begin(self._position)
        iterator = self._current_iterator(self._position)
        started = self._clock.monotonic()
        elapsed, self._called_at = started - self._called_at, started
        self._calls += 1
        limit = self._pace.limit(self._share.page_bytes)
        asked_at = self._kinesis.server_time().earliest
        answer = self._kinesis.get_records(self._feed.stream, self.shard, iterator, limit)
        received, before = self._clock.monotonic(), self._records
        self._check_forward(answer)
        self._is_renewed, self._missed = False, 0
        with closing(self._feed.parts(answer, self._share.part_bytes)) as parts:
            wants_more = all(self._deliver(part, asked_at) for part in parts)
        self._note_rate(self._records - before, elapsed)
        if not wants_more:
            self.state, self.gave_enough = State.ENDED, True
            return None
        if self._at_end:
            return self._confirm_end()
        return self._wait(answer, received)

    def _check_forward(self, answer: Batch) -> None:
        """Raise MalformedAnswer for records that were delivered before, unless the last one was asked for again."""
        position = self._position
        if position is None or position.sequence_number is None or answer.read_from is None:
            return
        ahead = int(answer.read_from) - int(position.sequence_number)
        if ahead < 0 or (ahead == 0 and position.kind is Kind.AFTER_SEQUENCE_NUMBER and not self._gaps.is_pending):
            self._iterator = None
            msg = f"a response for {self.shard.shard_id} holds records that were read before"
            raise MalformedAnswer(msg, hint="it will be asked for again", retryable=True)

    def _deliver(self, batch: Batch, asked_at: datetime) -> bool:
        """Give the sink a part of a response; whatever fails after that continues behind this part."""
        batch, gap = self._gaps.settle(batch, asked_at)
        wants_more = self._sink.deliver(self.shard, batch)
        self._gaps.delivered(batch, gap)
        self._advance(batch)
        return wants_more

    def _current_iterator(self, position: StartingPosition) -> str:
        if self._gaps.suspects(position):
            self._iterator = None
        if self._iterator is None:
            self._position = self._pinned(position)
            place = self._gaps.place(self._position)
            self._iterator = self._kinesis.get_shard_iterator(self._feed.stream, self.shard.shard_id, place)
        return self._iterator

    def _pinned(self, position: StartingPosition) -> StartingPosition:
        """Return the moment of LATEST in its place once LATEST would skip what arrived since then."""
        if position.kind is not Kind.LATEST or position.timestamp is None:
            return position
        is_late = self._kinesis.server_time().latest - position.timestamp > LATEST_LASTS
        return StartingPosition.at(position.timestamp) if is_late or self._failures else position

    def _advance(self, batch: Batch) -> None:
        self._iterator = batch.next_iterator  # None behind a part: should the next one fail, the position counts
        self._records += batch.rows.num_rows
        self._dropped += foreign.count(batch.dropped)
        if batch.read_to is not None:
            self._position = StartingPosition.after(batch.read_to)
        if not batch.is_part:
            self._at_end = batch.next_iterator is None
            self.children = batch.child_shards
            self._millis_behind = batch.millis_behind_latest

    def _note_rate(self, records: int, elapsed: float) -> None:
        weight = 1 - exp(-elapsed / RATE_SECONDS) if self._calls > 1 else 0.0
        self._rate += weight * (records / max(elapsed, 1e-3) - self._rate)

    def _wait(self, answer: Batch, received: float) -> float:
        caught_up = self._millis_behind == 0
        self.state = State.CAUGHT_UP if caught_up else State.READING
        if caught_up:
            self._caught_up_call = self._calls
        idle = self._share.idle_seconds if caught_up else None
        call_at = self._pace.answered(self._called_at, received, answer.count, answer.size, idle=idle)
        return max(0.0, call_at - self._clock.monotonic())

    # --- the end of a shard ---

    def _confirm_end(self) -> float | None:
        """Finish the shard if it has ended: children or a listing prove that, a missing iterator alone does not."""
        if not self.children:
            listing = self._feed.lookup.shards(since=max(self._called_at, self._failed_at))
            self._check_closed(listing.get(self.shard.shard_id))
            self.children = _children(self.shard, listing)
            if not self.children and self.shard.shard_id in listing:
                raise ServiceError(f"{self.shard.shard_id} is closed, its children are not listed yet", retryable=True)
        self._finish()
        return None

    def _finish(self) -> None:
        self._sink.finish(self.shard, self.children)
        self.state = State.ENDED

    def _check_closed(self, listed: Shard | None) -> None:
        if listed is None or listed.is_open:
            self._at_end, self._is_closed = False, listed is None
            raise MalformedAnswer(f"{self.shard.shard_id} gave no next iterator, and is not closed", retryable=True)
        if not self._is_closed:  # it may have been open, and written to, when it gave none
            self._is_closed, self._at_end = True, False
            raise ServiceError(f"{listed.shard_id} is closed: its end is read again", retryable=True)

    def _look_for_shard(self) -> float | None:
        """Find out why the service does not know the shard: it left the stream, or the stream is another one."""
        listing = self._feed.lookup.shards(since=self._failed_at)
        listed = listing.get(self.shard.shard_id)
        if listed is None:
            self._check_newer(listing)
            if not self._is_closed:  # else it had given everything
                self._gaps.lose_shard(self._position)
            self.children = _children(self.shard, listing)
            self.is_expired = True
            self._finish()
            return None
        check_same_stream(self.shard, listed)
        self._is_missing = False
        raise ServiceError(f"{self.shard.shard_id} is listed, and yet not found", retryable=True)

    def _check_newer(self, listing: Mapping[str, Shard]) -> None:
        """Raise for a listing without this shard and without any newer one: it is stale, or of another stream.

        A shard leaves a stream after its children were born, and ids ascend.
        """
        if max(listing, default="") > self.shard.shard_id:
            return
        self._older_listings += 1
        if self._older_listings > MISSING_TRIES:
            raise made_again()
        raise ServiceError(f"a listing lacks {self.shard.shard_id}, and all newer ones", retryable=True)

    # --- failures ---

    def _prepare_retry(self, error: KinesisError) -> None:
        """Get ready to try again, or raise what no retry can mend."""
        match error:
            case IteratorExpired():
                self._renew_iterator(error)
            case PositionTrimmed():
                if self._position is not None:
                    self._gaps.refuse(self._position)
                self._position = StartingPosition.trim_horizon()
            case StreamNotFound():
                self._miss(error)
            case _:
                if not error.retryable:
                    raise error

    def _renew_iterator(self, error: IteratorExpired) -> None:
        if not error.retryable and self._is_renewed:
            raise error  # unusable, and so was the one before: a third will be no better
        self._iterator = None
        self._is_renewed = self._is_renewed or not error.retryable

    def _miss(self, error: StreamNotFound) -> None:
        """Look next whether the shard is still there."""
        if self._is_missing:  # not even a listing knows the stream
            raise error
        self._missed += 1
        if self._missed > MISSING_TRIES:
            raise error
        self._is_missing, self._iterator = True, None

    def _back_off(self, error: KinesisError) -> float:
        self._failing_since = self._failing_since if self._failures else self._failed_at
        is_long = self._failed_at - self._failing_since >= DEGRADED_SECONDS
        self.state = State.DEGRADED if is_long else State.BACKING_OFF
        if isinstance(error, KeyUnavailable):
            self.state = State.BLOCKED
        if isinstance(error, Throttled):
            self._throttles += 1
            self._pace.throttled(self._failed_at, self._failures)
        self._malformed += isinstance(error, MalformedAnswer)
        self._error = error.message
        self._retries += 1
        if isinstance(error, MalformedAnswer) and self._failed_at - self._failing_since >= self._feed.patience:
            raise error
        wait = backoff(self._failures, error, self._clock)
        self._failures += 1
        return wait

    def stats(self) -> ConsumerStats:
        """Return what this consumer has done so far."""
        return ConsumerStats(
            self.shard.shard_id,
            self.state,
            self._millis_behind,
            self._records,
            self._rate,
            self._dropped,
            self._calls,
            self._caught_up_call,
            self._throttles,
            self._retries,
            self._malformed,
            self._error,
        )

    def __repr__(self) -> str:
        return f"<ShardConsumer {self.shard.shard_id} {self.state}>"


def _children(shard: Shard, listing: Mapping[str, Shard]) -> tuple[Shard, ...]:
    return tuple(listed for listed in listing.values() if shard.shard_id in listed.parents)
