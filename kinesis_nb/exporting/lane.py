"""One lane of an export: the records of some shards, sent one request at a time, in order per partition key.

The service promises no order within a request, and a request can fail in part. So a request never holds two records of
one key; a lane waits for the answer before its next request; and what was refused is in that one, before all that
follows. Every key belongs to one lane.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from kinesis_nb.core.retry import backoff
from kinesis_nb.errors import InvalidRequest, KeyUnavailable, KinesisError, MalformedResponse, ServiceError, Throttled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinesis_nb.core.transport import Clock, PutResult
    from kinesis_nb.exporting.throughput import Pacer

MALFORMED_TRIES = 10  # for a request of which no readable response tells what became of it
TRIES = 5  # for a record that is refused with a code we do not know
_THROTTLE = "ProvisionedThroughputExceededException"
_TRY_AGAIN = {_THROTTLE, "InternalFailure", "KMSThrottlingException"}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record to write.

    Attributes
    ----------
    key
        Its partition key.
    wire
        The record as the transport takes it.
    size
        Bytes that count against the limits of the service: data and key.
    rows
        The numbers of the rows that are in it: one, or those of an aggregate.
    """

    key: str
    wire: bytes
    size: int
    rows: tuple[int, ...]


class Outcome(NamedTuple):
    """What became of the entries of one request; every entry is in exactly one of four.

    Attributes
    ----------
    written, shard_ids
        Acknowledged, and the shard that each of them went to.
    refused
        Not written, and sent again.
    unknown
        Written or not: the answer was lost. Sent again, so they may be in the stream twice.
    failed
        Given up, each with the reason.
    throttled
        How many were refused for lack of throughput.
    """

    written: Sequence[Entry] = ()
    shard_ids: Sequence[str] = ()
    refused: Sequence[Entry] = ()
    unknown: Sequence[Entry] = ()
    failed: Sequence[tuple[Entry, str]] = ()
    throttled: int = 0


class Observer(Protocol):
    """Who wants to know about every request: before it goes out, and what became of it."""

    def sending(self, entries: Sequence[Entry]) -> None:
        """Take note that these are about to be sent."""
        ...

    def settled(self, outcome: Outcome) -> None:
        """Take note of what became of them; nothing more of these keys is sent before this returns."""
        ...


Find = Callable[[Sequence[bytes], float], list[str | None]]


@dataclass(slots=True)
class _Doubtful:
    """Aggregates that were written or not."""

    find: Find
    entries: list[Entry]
    sent_at: float
    error: KinesisError
    looks: int = 0

    def look(self, now: float) -> list[str | None]:
        return self.find([entry.wire for entry in self.entries], now - self.sent_at)


class Lane:
    """Sends the entries it is given, one request per :meth:`step`.

    Parameters
    ----------
    put
        Writes records; raises KinesisError.
    ordered
        Whether entries of one key keep their order.
    resend_unknown
        Whether entries whose outcome is not known are sent again; else that is an error.
    find
        Takes records and how many seconds ago they were sent; returns the shard of each, None for one that is not in
        the stream. An aggregate whose response was lost is looked for before it is sent again, because all rows
        of its key would come twice, the first behind the last.
    """

    def __init__(
        self,
        put: Callable[[Sequence[bytes]], list[PutResult]],
        clock: Clock,
        pacer: Pacer,
        observer: Observer,
        *,
        ordered: bool,
        resend_unknown: bool = True,
        find: Find | None = None,
    ) -> None:
        self.has_work = threading.Event()
        self._put, self._clock, self._pacer, self._observer = put, clock, pacer, observer
        self._ordered, self._resend_unknown, self._find = ordered, resend_unknown, find
        self._doubtful: _Doubtful | None = None  # under way until it was looked for
        self._lock = threading.Lock()  # guards the two below; never held during I/O
        self._queue: deque[Entry] = deque()  # in the order of every key; what was refused is at its front again
        self._suspects: deque[list[Entry]] = deque()  # parts of a request that the service will not take
        self._tries: dict[Entry, int] = {}
        self._failures = 0  # requests in a row that brought nothing

    def add(self, entries: Iterable[Entry]) -> None:
        """Queue entries behind those that were added before."""
        with self._lock:
            self._queue.extend(entries)
            self.has_work.set()

    def step(self) -> float | None:
        """Send at most one request.

        Returns
        -------
        float or None
            Seconds to wait before the next step; None when nothing is left to send.

        Raises
        ------
        KinesisError
            When the service refuses for good.
        """
        if wait := self._pacer.wait():
            return wait
        if self._doubtful is not None:
            return self._look_for(self._doubtful)
        entries = self._next_request()
        if not entries:
            return None
        self._observer.sending(entries)
        sent_at = self._clock.monotonic()
        try:
            results = self._put([entry.wire for entry in entries])
        except KinesisError as error:
            return self._request_failed(entries, error, sent_at)
        return self._answered(entries, results)

    def _next_request(self) -> list[Entry]:
        with self._lock:
            if self._suspects:
                return self._suspects.popleft()
            records, size = self._pacer.most()
            entries = [self._queue.popleft() for _ in range(min(records, len(self._queue)))]
            if self._ordered:
                entries, later = _first_of_each_key(entries)
                self._queue.extendleft(reversed(later))
            excess = sum([entry.size for entry in entries]) - size
            while excess > 0 and len(entries) > 1:
                excess -= entries[-1].size
                self._queue.appendleft(entries.pop())
            if not entries:
                self.has_work.clear()
            return entries

    def _request_failed(self, entries: list[Entry], error: KinesisError, sent_at: float) -> float:
        if isinstance(error, InvalidRequest):
            self._narrow_down(entries, error)
            return 0.0
        is_refusal = isinstance(error, Throttled | KeyUnavailable)
        is_unknown = error.retryable and not is_refusal
        if is_unknown and self._find is not None and (packed := [entry for entry in entries if len(entry.rows) > 1]):
            self._doubtful = _Doubtful(self._find, packed, sent_at, error)
            entries = [entry for entry in entries if len(entry.rows) == 1]
        self._again(entries)
        throttled = len(entries) if isinstance(error, Throttled) else 0
        self._observer.settled(
            Outcome(unknown=entries, throttled=0) if is_unknown else Outcome(refused=entries, throttled=throttled)
        )
        is_final = not error.retryable or isinstance(error, KeyUnavailable)  # nobody waits in a cell for a key
        is_final = is_final or (isinstance(error, MalformedResponse) and self._failures + 1 >= MALFORMED_TRIES)
        if is_final or (is_unknown and entries and not self._resend_unknown):
            raise error
        if throttled:
            self._pacer.sent(0, 0, throttled=True, refused=True)
        self._failures += 1
        return backoff(self._failures - 1, error, self._clock)

    def _look_for(self, doubtful: _Doubtful) -> float:
        """Find out which entries of a request were written although its response was lost."""
        try:
            shard_ids = doubtful.look(self._clock.monotonic())
        except KinesisError as error:
            doubtful.looks += 1
            if error.retryable and doubtful.looks < TRIES:
                return backoff(doubtful.looks, error, self._clock)
            shard_ids = [None] * len(doubtful.entries)
        self._doubtful = None
        places = list(zip(doubtful.entries, shard_ids, strict=True))
        missing = [entry for entry, shard_id in places if shard_id is None]
        written = [entry for entry, shard_id in places if shard_id is not None]
        self._again(missing)
        self._observer.settled(Outcome(written, [shard_id for shard_id in shard_ids if shard_id], unknown=missing))
        if missing and not self._resend_unknown:
            raise doubtful.error
        return 0.0

    def _narrow_down(self, entries: list[Entry], error: InvalidRequest) -> None:
        """Find the record that spoils its request by halving; alone, it is given up."""
        if len(entries) == 1:
            self._observer.settled(Outcome(failed=[(entries[0], error.message)]))
            return
        middle = len(entries) // 2
        with self._lock:
            self._suspects.extendleft([entries[middle:], entries[:middle]])
        self._observer.settled(Outcome(refused=entries))

    def _answered(self, entries: list[Entry], results: list[PutResult]) -> float:
        written = [entry for entry, result in zip(entries, results, strict=True) if result.error_code is None]
        shard_ids = [result.shard_id or "" for result in results if result.error_code is None]
        for entry in written if self._tries else ():
            self._tries.pop(entry, None)
        refused: list[Entry] = []
        failed: list[tuple[Entry, str]] = []
        throttled = 0
        for entry, result in zip(entries, results, strict=True) if len(written) < len(entries) else ():
            code = result.error_code
            if code is None:
                continue
            throttled += code == _THROTTLE
            if self._is_worth_another(entry, code):
                refused.append(entry)
            else:
                failed.append((entry, f"{code}: {result.error_message}"))
        self._again(refused)
        self._observer.settled(Outcome(written, shard_ids, refused, (), failed, throttled))
        size = sum([entry.size for entry in entries])
        self._pacer.sent(len(entries), size, throttled=throttled > 0, refused=throttled == len(entries))
        if len(refused) == throttled:  # the pacer knows when to send those again
            self._failures = 0
            return 0.0
        self._failures = 0 if written else self._failures + 1
        return backoff(self._failures, ServiceError("records were refused", retryable=True), self._clock)

    def _is_worth_another(self, entry: Entry, code: str) -> bool:
        if code in _TRY_AGAIN:
            return True
        self._tries[entry] = tries = self._tries.get(entry, 0) + 1
        if tries >= TRIES:
            del self._tries[entry]
        return tries < TRIES

    def _again(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(list(entries)))

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here to be sent; in the lane's own thread also: nothing is under way."""
        with self._lock:
            return not (self._queue or self._suspects or self._doubtful)


def _first_of_each_key(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Split into the first entry of each key, and the others."""
    if len({entry.key for entry in entries}) == len(entries):
        return entries, []
    seen: set[str] = set()
    first: list[Entry] = []
    others: list[Entry] = []
    for entry in entries:
        (others if entry.key in seen else first).append(entry)
        seen.add(entry.key)
    return first, others
