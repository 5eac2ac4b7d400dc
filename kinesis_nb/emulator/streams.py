"""One stream: its shards, its settings and its state, moved on by the clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import rate_message
from .protocol import Params
from .quotas import Meter, Quotas
from .shards import HASH_KEYS, Shard

if TYPE_CHECKING:
    from .consumer import Consumer

HOUR_MS = 3_600_000
_SWEEP_MS = 60_000  # how often shards that nobody reads are trimmed; those being read are trimmed at every call
AUTO = "AUTO"
USER_PARTITION_KEY = "USER_PARTITION_KEY"

Predicate = Callable[[Params], bool]


class FailureRule:
    """Records of PutRecords that are to fail: the next `count`, or those of one request that a predicate picks."""

    def __init__(self, pick: int | Predicate, code: str) -> None:
        self.code = code
        self._left = pick if isinstance(pick, int) else 0
        self._pick = None if isinstance(pick, int) else pick
        self._hit = False

    def fails(self, entry: Params) -> bool:
        """Return whether this entry fails, and remember that it did."""
        if self._pick is not None:
            hit = self._pick(entry)
            self._hit = self._hit or hit
            return hit
        self._left -= 1
        return self._left >= 0

    @property
    def spent(self) -> bool:
        """Whether the rule has done its work, seen after a request."""
        return self._hit if self._pick is not None else self._left <= 0


class Stream:
    """A stream.

    Parameters
    ----------
    number
        Unique among all streams the emulator ever had, so that a stream created anew is a different one.
    mode
        PROVISIONED or ON_DEMAND.
    """

    def __init__(self, name: str, arn: str, *, number: int, now_ms: int, mode: str, quotas: Quotas | None) -> None:
        self.name = name
        self.arn = arn
        self.number = number
        self.created_ms = now_ms
        self.born_ms = now_ms  # when its first shards opened, which is later than created_ms by the time in CREATING
        self.mode = mode
        self.status = "ACTIVE"
        self.shards: dict[str, Shard] = {}
        self.consumers: dict[str, Consumer] = {}
        self.retention_hours = 24
        self.tags: dict[str, str] = {}
        self.key_id: str | None = None
        self.metrics: set[str] = set()
        self.max_record_kib = 1024
        self.warm_mibps: int | None = None
        self.strategy = USER_PARTITION_KEY
        self.turn = 0  # the open shard that takes the next record of an AUTO stream
        self.failures: deque[FailureRule] = deque()
        self._quotas = quotas
        self._open: list[Shard] = []  # by hash key
        self._firsts: list[int] = []  # their first hash keys
        self._action: Callable[[int], None] | None = None
        self._due_ms = 0
        self._swept_ms = now_ms

    def __repr__(self) -> str:
        return f"<Stream {self.name} {self.status}, {len(self._open)} open shards>"

    # State

    def begin(self, status: str, due_ms: int, now_ms: int, action: Callable[[int], None]) -> None:
        """Enter a passing state; `action` is done when it ends, at once if that is now."""
        self.status, self._due_ms, self._action = status, due_ms, action
        self.settle(now_ms)

    def settle(self, now_ms: int) -> None:
        """End the passing state if its time is over, and let consumers and records go whose time has come."""
        if self._action is not None and now_ms >= self._due_ms:
            action, self._action = self._action, None
            gone = self.status == "DELETING"
            action(self._due_ms)
            self.status = "DELETED" if gone else "ACTIVE"
        if self.consumers:
            self._settle_consumers(now_ms)
        if now_ms - self._swept_ms >= _SWEEP_MS:
            self.trim(now_ms)

    def _settle_consumers(self, now_ms: int) -> None:
        for consumer in [c for c in self.consumers.values() if c.gone(now_ms)]:
            del self.consumers[consumer.name]
            consumer.close()

    # Shards

    @property
    def open_shards(self) -> list[Shard]:
        """The shards that take records, by hash key."""
        return self._open

    def horizon_ms(self, now_ms: int) -> int:
        """Return the trim horizon: how far back data and closed shards reach."""
        return max(now_ms - self.retention_hours * HOUR_MS, self.born_ms)

    def trim(self, now_ms: int) -> None:
        """Forget what is older than the retention period: a longer one brings neither data nor shards back."""
        self._swept_ms = now_ms
        for shard in self.shards.values():
            self.trim_shard(shard, now_ms)
            shard.dropped = shard.dropped or not self.is_listed(shard, now_ms)

    def trim_shard(self, shard: Shard, now_ms: int) -> None:
        """Forget the shard's records that are older than the retention period."""
        shard.trim(now_ms - self.retention_hours * HOUR_MS)

    def is_listed(self, shard: Shard, now_ms: int) -> bool:
        """Return whether the shard still exists: closed ones expire with the last data they can have."""
        if shard.closed_ms is None:
            return True
        return not shard.dropped and shard.closed_ms >= now_ms - self.retention_hours * HOUR_MS

    def listed(self, now_ms: int) -> list[Shard]:
        """Return the shards that exist, by id."""
        return [shard for shard in self.shards.values() if self.is_listed(shard, now_ms)]

    def children(self, shard: Shard) -> list[Shard]:
        """Return the shards that came from this one."""
        return [other for other in self.shards.values() if shard.id in other.parents]

    def route(self, hash_key: int) -> Shard:
        """Return the open shard that a hash key belongs to."""
        return self._open[bisect_right(self._firsts, hash_key) - 1]

    def next_shard(self) -> Shard:
        """Return the open shard whose turn it is: how an AUTO stream places its records."""
        self.turn += 1
        return self._open[self.turn % len(self._open)]

    def open_initial(self, count: int, now_ms: int) -> None:
        """Create the first shards, evenly over the hash key space."""
        self.born_ms = now_ms
        edges = [*boundaries(count), HASH_KEYS]
        self._replace([], [(edges[i], edges[i + 1] - 1) for i in range(count)], now_ms)

    def split(self, shard: Shard, new_first_hash: int, now_ms: int) -> None:
        """Close a shard and open two in its place."""
        ranges = [(shard.first_hash, new_first_hash - 1), (new_first_hash, shard.last_hash)]
        self._replace([shard], ranges, now_ms)

    def merge(self, shard: Shard, adjacent: Shard, now_ms: int) -> Shard:
        """Close two neighbours and open one in their place."""
        first, last = min(shard.first_hash, adjacent.first_hash), max(shard.last_hash, adjacent.last_hash)
        return self._replace([shard, adjacent], [(first, last)], now_ms)[0]

    def _replace(self, parents: list[Shard], ranges: list[tuple[int, int]], now_ms: int) -> list[Shard]:
        # A child's epoch is later than its parents' even when the clock stands still: its numbers must be greater.
        epoch_ms = max([now_ms, *(parent.epoch_ms + 1 for parent in parents)])
        for parent in parents:
            parent.close(now_ms)
        ids = tuple(parent.id for parent in parents)
        children = [self._create(keys, epoch_ms, ids, now_ms) for keys in ranges]
        place = bisect_left(self._firsts, ranges[0][0])
        self._open[place : place + len(parents)] = children
        self._firsts[place : place + len(parents)] = [keys[0] for keys in ranges]
        return children

    def _create(self, hash_keys: tuple[int, int], epoch_ms: int, parents: tuple[str, ...], now_ms: int) -> Shard:
        shard = Shard(len(self.shards), stream=self.number, epoch_ms=epoch_ms, hash_keys=hash_keys, parents=parents)
        if self._quotas is not None:
            shard.meter = Meter(self._quotas, now_ms)
        self.shards[shard.id] = shard
        return shard

    # Faults

    def failure(self, entry: Params) -> str | None:
        """Return the code with which this entry of PutRecords must fail, by the oldest rule that wants it."""
        return next((rule.code for rule in self.failures if rule.fails(entry)), None)

    def failure_message(self, code: str, shard: Shard, account: str) -> str:
        """Return the text that goes with a record's error code."""
        if code == "ProvisionedThroughputExceededException":
            return rate_message(shard.id, self.name, account)
        return "Internal Service Failure" if code == "InternalFailure" else code

    def drop_spent_failures(self) -> None:
        """Forget the rules that have done their work."""
        self.failures = deque(rule for rule in self.failures if not rule.spent)


def boundaries(count: int) -> list[int]:
    """Return the first hash keys of `count` shards that share the hash key space evenly."""
    width = HASH_KEYS // count
    return [i * width for i in range(count)]
