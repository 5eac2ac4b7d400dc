"""One shard's state machine.

It decides how long to wait and never sleeps, so a test can run hours of it in a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from kinesis_nb.errors import IteratorExpired, KinesisError, ServiceError, Throttled
from kinesis_nb.position import Kind, StartingPosition
from kinesis_nb.retry import backoff

if TYPE_CHECKING:
    from kinesis_nb.frames import Batch
    from kinesis_nb.shards import Shard
    from kinesis_nb.transport import Clock, Kinesis

PAGE = 10_000  # AWS: the most that one GetRecords call may ask for
BEHIND_SECONDS = 0.2  # AWS: 5 GetRecords calls/s per shard, shared by all consumers
IDLE_SECONDS = 1.0  # caught up: leave most of that quota to others


class State(StrEnum):
    """What a consumer is doing."""

    STARTING = "starting"
    READING = "reading"
    CAUGHT_UP = "caught up"
    BACKING_OFF = "backing off"
    ENDED = "ended"


class Sink(Protocol):
    """Where the records of all shards go: a tail, a bounded read, or a sync."""

    def position(self, shard: Shard) -> StartingPosition:
        """Return where reading of `shard` starts."""
        ...

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Take a batch, empty ones too; block while there is no room. Return False when the shard has given enough.

        The consumer moves on only after this returned; if it raises, the batch counts as not delivered.
        """
        ...

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Take note that everything in a closed shard was delivered; its children start after this returned."""
        ...


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A moment of one shard.

    Attributes
    ----------
    millis_behind_latest
        As the last answer said; None before the first.
    records, calls, throttles, retries
        Counts since the start; `retries` includes `throttles`.
    dropped
        User records of KPL aggregates that were left out, because the shard does not take their hash keys.
    caught_up_call
        Which call was the last one to be answered with "nothing left"; 0 for none.
    error
        Why the consumer is backing off, else an empty string.
    """

    shard_id: str
    state: State
    millis_behind_latest: int | None
    records: int
    dropped: int
    calls: int
    caught_up_call: int
    throttles: int
    retries: int
    error: str


class ShardConsumer:
    """Reads one shard, in order, into a sink.

    Call :meth:`step` again and again, waiting in between as long as it says. One thread at a time.
    """

    def __init__(self, kinesis: Kinesis, stream: str, shard: Shard, sink: Sink, clock: Clock) -> None:
        self.shard = shard
        self.state = State.STARTING
        self.children: tuple[Shard, ...] = ()
        self._kinesis, self._stream, self._sink, self._clock = kinesis, stream, sink, clock
        self._position: StartingPosition | None = None
        self._iterator: str | None = None
        self._at_end = self._is_renewed = self._is_closed = False
        self._failures = 0
        self._called_at = 0.0
        self._millis_behind: int | None = None
        self._records = self._dropped = self._calls = self._caught_up_call = self._throttles = self._retries = 0
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
            wait = self._confirm_end() if self._at_end else self._read()
        except KinesisError as error:
            if isinstance(error, IteratorExpired):
                self._renew_iterator(error)
            elif not error.retryable:
                raise
            return self._back_off(error)
        self._failures, self._error = 0, ""
        return wait

    @property
    def has_iterator(self) -> bool:
        """Whether the place in the shard is held by the service, so that nothing that arrives from now on is missed."""
        return self._iterator is not None or self._records > 0 or self.state is State.ENDED

    def _open_iterator(self) -> str:
        if self._position is None:
            self._position = self._sink.position(self.shard)
        if self._position.kind is Kind.LATEST and self._failures and self._position.timestamp:
            # by now LATEST would skip what arrived since the first attempt
            self._position = StartingPosition.at(self._position.timestamp)
        self._iterator = self._kinesis.get_shard_iterator(self._stream, self.shard.shard_id, self._position)
        return self._iterator

    def _read(self) -> float | None:
        iterator = self._iterator or self._open_iterator()
        self._called_at = self._clock.monotonic()
        self._calls += 1
        batch = self._kinesis.get_records(self.shard, iterator, PAGE)
        self._is_renewed = False
        wants_more = self._sink.deliver(self.shard, batch)
        self._advance(batch)
        if not wants_more:
            self.state = State.ENDED
            return None
        if self._at_end:
            return self._confirm_end()
        return self._pace()

    def _advance(self, batch: Batch) -> None:
        self._iterator = batch.next_iterator
        self._at_end = batch.next_iterator is None
        self.children = batch.child_shards
        self._millis_behind = batch.millis_behind_latest
        self._records += batch.rows.num_rows
        self._dropped += batch.dropped
        if last := batch.last_sequence_number:
            self._position = StartingPosition.after(last)

    def _confirm_end(self) -> float | None:
        """Finish the shard if it has ended: children or a listing prove that, a missing iterator alone does not."""
        if not self.children:
            listing = {shard.shard_id: shard for shard in self._kinesis.list_shards(self._stream)}
            self._check_closed(listing.get(self.shard.shard_id))
            self.children = tuple(shard for shard in listing.values() if self.shard.shard_id in shard.parents)
            if not self.children and self.shard.shard_id in listing:
                raise ServiceError(f"{self.shard.shard_id} is closed, its children are not listed yet", retryable=True)
        self._sink.finish(self.shard, self.children)
        self.state = State.ENDED
        return None

    def _check_closed(self, listed: Shard | None) -> None:
        if listed is None or listed.is_open:
            self._at_end = False
            raise ServiceError(f"{self.shard.shard_id} gave no next iterator, and is not closed", retryable=True)
        if not self._is_closed:  # it may have been open, and written to, when it gave none
            self._is_closed, self._at_end = True, False
            raise ServiceError(f"{listed.shard_id} is closed: its end is read again", retryable=True)

    def _pace(self) -> float:
        caught_up = self._millis_behind == 0
        self.state = State.CAUGHT_UP if caught_up else State.READING
        if caught_up:
            self._caught_up_call = self._calls
        interval = IDLE_SECONDS if caught_up else BEHIND_SECONDS
        return max(0.0, self._called_at + interval - self._clock.monotonic())

    def _renew_iterator(self, error: IteratorExpired) -> None:
        if not error.retryable and self._is_renewed:
            raise error  # unusable, and so was the one before: a third will be no better
        self._iterator = None
        self._is_renewed = self._is_renewed or not error.retryable

    def _back_off(self, error: KinesisError) -> float:
        self.state = State.BACKING_OFF
        self._error = error.message
        self._retries += 1
        self._throttles += isinstance(error, Throttled)
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
            self._dropped,
            self._calls,
            self._caught_up_call,
            self._throttles,
            self._retries,
            self._error,
        )

    def __repr__(self) -> str:
        return f"<ShardConsumer {self.shard.shard_id} {self.state}>"
