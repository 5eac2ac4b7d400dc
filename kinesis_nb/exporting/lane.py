"""One lane of an export: the records of some shards, sent one request at a time, in order per partition key.

The service promises no order within a request, and a request can fail in part. So a request never holds two records of
one key; a lane waits for the response before its next request; and what was refused goes into that one, before all that
follows. Every key belongs to one lane.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from kinesis_nb.core.retry import backoff
from kinesis_nb.errors import InvalidRequest, KeyUnavailable, KinesisError, MalformedResponse, ServiceError, Throttled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kinesis_nb.core.transport import PutResult
    from kinesis_nb.exporting.target import Outlet
    from kinesis_nb.exporting.throughput import WriteRate

MALFORMED_TRIES = 10  # in a row, for requests without a readable response
TRIES = 5  # of a record that is refused with a code we do not know
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
        Written or not: the response was lost. Sent again, so they may be in the stream twice.
    failed
        Given up, each with the reason.
    throttled
        How many entries were refused for lack of throughput.
    """

    written: Sequence[Entry] = ()
    shard_ids: Sequence[str] = ()
    refused: Sequence[Entry] = ()
    unknown: Sequence[Entry] = ()
    failed: Sequence[tuple[Entry, str]] = ()
    throttled: int = 0


class Observer(Protocol):
    """Gets every request before it goes out, and its outcome."""

    def on_request(self, entries: Sequence[Entry]) -> None:
        """Record that these are about to be sent."""
        ...

    def on_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of a request; no other record of its keys is sent before this returns."""
        ...


@dataclass(slots=True)
class _Doubtful:
    """Aggregates of a request whose response was lost: they were written or not."""

    entries: list[Entry]
    sent_at: float
    error: KinesisError
    tries: int = 0


class Lane:
    """Sends the entries it is given, one request per :meth:`step`.

    An aggregate whose response was lost is searched for in the stream before it is sent again: else all rows of its key
    would come twice, the first behind the last.

    Parameters
    ----------
    ordered
        Whether entries of one key keep their order.
    resend_unknown
        Whether entries whose outcome is not known are sent again; else that is an error.
    """

    def __init__(
        self, outlet: Outlet, rate: WriteRate, observer: Observer, *, ordered: bool, resend_unknown: bool = True
    ) -> None:
        self.has_work = threading.Event()
        self._outlet, self._clock, self._rate, self._observer = outlet, outlet.clock, rate, observer
        self._ordered, self._resend_unknown = ordered, resend_unknown
        self._doubtful: _Doubtful | None = None  # under way until it was searched for
        self._lock = threading.Lock()  # guards the two below; never held during I/O
        self._queue: deque[Entry] = deque()  # in the order of every key; what was refused is at its front again
        self._suspects: deque[list[Entry]] = deque()  # parts of a request that the service will not take
        self._tries: dict[Entry, int] = {}
        self._failures = 0  # requests in a row of which nothing was written

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
        if wait := self._rate.wait():
            return wait
        if self._doubtful is not None:
            return self._search(self._doubtful)
        entries = self._next_request()
        if not entries:
            return None
        self._observer.on_request(entries)
        sent_at = self._clock.monotonic()
        try:
            results = self._outlet.put([entry.wire for entry in entries])
        except KinesisError as error:
            return self._on_failure(entries, error, sent_at)
        return self._on_response(entries, results)

    def _next_request(self) -> list[Entry]:
        with self._lock:
            if self._suspects:
                return self._suspects.popleft()
            records, size = self._rate.most()
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

    def _on_failure(self, entries: list[Entry], error: KinesisError, sent_at: float) -> float:
        if isinstance(error, InvalidRequest):
            self._narrow_down(entries, error)
            return 0.0
        is_refusal = isinstance(error, Throttled | KeyUnavailable)
        is_unknown = error.retryable and not is_refusal
        if is_unknown and (packed := [entry for entry in entries if len(entry.rows) > 1]):
            self._doubtful = _Doubtful(packed, sent_at, error)
            entries = [entry for entry in entries if len(entry.rows) == 1]
        self._again(entries)
        throttled = len(entries) if isinstance(error, Throttled) else 0
        self._observer.on_outcome(
            Outcome(unknown=entries, throttled=0) if is_unknown else Outcome(refused=entries, throttled=throttled)
        )
        is_final = not error.retryable or isinstance(error, KeyUnavailable)  # a disabled key may stay so for days
        is_final = is_final or (isinstance(error, MalformedResponse) and self._failures + 1 >= MALFORMED_TRIES)
        if is_final or (is_unknown and entries and not self._resend_unknown):
            raise error
        if throttled:
            self._rate.sent(0, 0, throttled=True, refused=True)
        self._failures += 1
        return backoff(self._failures - 1, error, self._clock)

    def _search(self, doubtful: _Doubtful) -> float:
        """Find out which entries of a request were written although its response was lost."""
        try:
            records = [entry.wire for entry in doubtful.entries]
            shard_ids = self._outlet.find(records, self._clock.monotonic() - doubtful.sent_at)
        except KinesisError as error:
            doubtful.tries += 1
            if error.retryable and doubtful.tries < TRIES:
                return backoff(doubtful.tries, error, self._clock)
            shard_ids = [None] * len(doubtful.entries)
        self._doubtful = None
        places = list(zip(doubtful.entries, shard_ids, strict=True))
        missing = [entry for entry, shard_id in places if shard_id is None]
        written = [entry for entry, shard_id in places if shard_id is not None]
        self._again(missing)
        self._observer.on_outcome(Outcome(written, [shard_id for shard_id in shard_ids if shard_id], unknown=missing))
        if missing and not self._resend_unknown:
            raise doubtful.error
        return 0.0

    def _narrow_down(self, entries: list[Entry], error: InvalidRequest) -> None:
        """Find the record that makes its request invalid, by halving; a request of that record alone gives it up."""
        if len(entries) == 1:
            self._observer.on_outcome(Outcome(failed=[(entries[0], error.message)]))
            return
        middle = len(entries) // 2
        with self._lock:
            self._suspects.extendleft([entries[middle:], entries[:middle]])
        self._observer.on_outcome(Outcome(refused=entries))

    def _on_response(self, entries: list[Entry], results: list[PutResult]) -> float:
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
        self._observer.on_outcome(Outcome(written, shard_ids, refused, (), failed, throttled))
        size = sum([entry.size for entry in entries])
        self._rate.sent(len(entries), size, throttled=throttled > 0, refused=throttled == len(entries))
        if len(refused) == throttled:  # the rate says when to send those again
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
        """Whether nothing waits here to be sent; in the lane's own thread: and nothing is under way."""
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
