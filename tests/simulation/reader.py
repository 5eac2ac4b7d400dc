"""The whole reader against the emulator's model, in virtual time and in one thread, from one seed.

A run writes to a stream, reshards it and lets time jump while a reader follows it, through failing calls, damaged
answers, a failing sink and crashes. Which turn is next is chance, but chance from the seed: the same seed is the same
run, call for call.

What is real: the shard consumers, the tracker, the scheduler's decisions, the client above botocore (translation of
errors, paging, the check that an answer is whole), the decoder, and the sinks of `tail` and `read` with their buffer.
What is played: botocore and the network (`Wire`), threads (`Turns`), time, and a durable sink (`Ledger`).

`Turns` is the scheduler without its threads. `Scheduler._spawn` would start a thread that runs `_consume`; here it
puts the consumer on a list, and `Turns.turn` is one round of the loop in `_consume`: a step, then the wait it asked for
or, after the last one, `_finished`. `_list` is called when `_discover` would call it. Everything else is inherited.

The promise that is checked: each record comes once and in the order of its key, none from before the start, and once
nothing fails any more all of it comes within a bounded number of steps.

Run many seeds with ``python -m tests.simulation.reader --seeds 10000``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import patch

import msgspec
from botocore import exceptions as boto_errors

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.credentials import StaticCredentials
from kinesis_nb.core import foreign
from kinesis_nb.core.frames import Records
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.shards import hash_key
from kinesis_nb.core.types import OnFull
from kinesis_nb.emulator import AwsError, ManualClock, Model
from kinesis_nb.errors import ServiceError
from kinesis_nb.reading.buffer import Buffer
from kinesis_nb.reading.consumer import ShardState
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.read import TimeRange, _RowCollector, row_filter
from kinesis_nb.reading.scheduler import DISCOVERY_SECONDS, Scheduler
from kinesis_nb.reading.tail import _BufferSink
from kinesis_nb.service import client
from tests.support.kpl import aggregate
from tests.support.virtual import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.consumer import ShardConsumer
    from kinesis_nb.reading.sink import Gap
    from tests.support.kpl import Row

STREAM = "orders"
KEYS = [f"key-{number}" for number in range(12)]
MIXED = "mixed"  # stands for the keys of aggregates that nobody packs by shard: `mixed-0` and so on, without an order
STALE_MS, TOO_CLOSE_MS = 120_000, 2_000  # for how long a KPL's map may be stale; so near to that nothing is packed
MAX_OPEN = 8  # shards; more would only make a run longer
TURBULENT = 260  # rounds in which anything may happen
FAULT_RATE = 0.15  # of all calls
RETENTION = 24 * 3_600.0  # seconds; of a stream of the model
LONG_JUMP = 400.0  # seconds; an iterator lives 300
CALM_STEPS = 150  # once nothing fails: so many steps for the reader, and
CALM_STEPS_PER_SHARD = 60  # so many more for each shard that was ever there


class Violation(Exception):
    """The reader broke a promise."""


class Crash(BaseException):
    """The process ends here; what is not durable is gone."""


# --- the world: a stream, its clock, and who writes to it


class World:
    """A stream that is written to and resharded by chance, and the truth about what is in it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.manual = ManualClock()
        self.clock = VirtualClock(self.manual, seed)
        self.model = Model(clock=self.manual, seed=seed)
        # per key, in ms; its n-th record carries n
        self.arrivals: dict[str, list[int]] = {key: [] for key in (*KEYS, MIXED)}
        self.dropped: list[tuple[str, int]] = []  # user records that must not come from where they are: key, number
        self.made_ms: dict[str, int] = {}  # when the shards were made that have parents, in ms
        self.kpl_map: list[dict[str, Any]] = []  # the open shards, as a KPL knows them
        self.happened: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=60)
        self.is_calm = False
        shards = self.random.randint(1, 4)
        self.call("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.listings = [self.listing()]
        self.note(f"stream of {shards} shards")

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.model.call(operation, params)

    def listing(self) -> list[dict[str, Any]]:
        return self.call("ListShards", StreamName=STREAM)["Shards"]

    def note(self, text: str) -> None:
        self.trace.append(f"{self.manual.now() - 1_700_000_000:10.3f}  {text}")

    def count(self, name: str) -> None:
        self.happened[name] += 1
        self.note(name)

    def now_ms(self) -> int:
        return round(self.manual.now() * 1000)

    def time_at(self, ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC)

    def next_millisecond(self) -> None:
        """Go to a moment that is a whole millisecond and later than everything so far: arrivals are that coarse."""
        self.manual.advance((self.now_ms() + 2) / 1000 - self.manual.now())

    def chance(self, share: float) -> bool:
        return not self.is_calm and self.random.random() < share

    def put(self) -> None:
        self.random.choice([self._put_records, self._put_records, self._put_by_kpl, self._put_mixed])()

    def _open_shards(self) -> list[dict[str, Any]]:
        return [shard for shard in self.listing() if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    def _put_mixed(self) -> None:
        """Pack user records of any keys into one record, as AWS's aggregators do; nobody writes them again."""
        first, numbers = len(self.arrivals[MIXED]) + 1, range(self.random.randint(1, 5))
        keys = [f"mixed-{self.random.randrange(12)}" for _ in numbers]
        data = aggregate((key, None, b"%d" % (first + place)) for place, key in enumerate(keys))
        shard = self.random.choice(self._open_shards())
        age = self.now_ms() - self.made_ms.get(shard["ShardId"], 0)
        if abs(age - STALE_MS) <= TOO_CLOSE_MS:
            return
        self._put_into(shard, data)
        self.arrivals[MIXED] += [self.now_ms()] * len(keys)
        if age < STALE_MS and shard["ShardId"] in self.made_ms:
            self.dropped += [(MIXED, first + place) for place, key in enumerate(keys) if not _takes(shard, key)]
            self.count("mixed aggregate into a new shard")
        elif not all(_takes(shard, key) for key in keys):
            self.count("mixed aggregate")

    def _put_by_kpl(self) -> None:
        """Pack user records of one shard, as the map says that may be stale; write those again that went astray."""
        known, long_ago = {shard["ShardId"] for shard in self.kpl_map}, self.now_ms() - STALE_MS // 2
        new = {shard["ShardId"] for shard in self._open_shards()} - known
        if not known or any(self.made_ms.get(shard_id, 0) < long_ago for shard_id in new):
            self.kpl_map = self._open_shards()  # it writes often enough to have learned of those
        predicted = self.random.choice(self.kpl_map)
        keys = [key for key in KEYS if _takes(predicted, key)]
        rows: list[Row] = []
        for key in self.random.choices(keys, k=self.random.randint(1, 6)) if keys else []:
            self.arrivals[key].append(self.now_ms())
            rows.append((key, None, b"%d" % len(self.arrivals[key])))
        while rows:
            actual = next(shard for shard in self._open_shards() if _takes(shard, rows[0][0]))
            self._put_into(actual, aggregate(rows))
            self.wrote(actual["ShardId"], [row for row in rows if _takes(actual, row[0])])
            rows = [row for row in rows if not _takes(actual, row[0])]
            self.dropped += [(key, int(data)) for key, _, data in rows]
            self.kpl_map = self._open_shards() if rows else self.kpl_map
            self.count("aggregate by a stale map" if rows else "aggregate")

    def wrote(self, shard_id: str, rows: list[Row]) -> None:
        """Take note of where user records of a KPL are for good."""

    def _put_into(self, shard: dict[str, Any], data: bytes) -> None:
        place = shard["HashKeyRange"]["StartingHashKey"]
        self.call("PutRecord", StreamName=STREAM, PartitionKey="packed", ExplicitHashKey=place, Data=data)

    def _put_records(self) -> None:
        records: list[dict[str, Any]] = []
        for _ in range(self.random.randint(1, 8)):
            key = self.random.choice(KEYS)
            self.arrivals[key].append(self.now_ms())
            records.append({"PartitionKey": key, "Data": str(len(self.arrivals[key])).encode()})
        answer = self.call("PutRecords", StreamName=STREAM, Records=records)
        self.note("put " + " ".join(f"{r['PartitionKey'][4:]}:{r['Data'].decode()}" for r in records))
        assert answer["FailedRecordCount"] == 0

    def reshard(self) -> None:
        shards = [shard for shard in self.listings[-1] if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        change = self.random.choice([self._split, self._merge, self._merge, self._rescale])
        change(shards)
        made = {shard["ShardId"] for shard in self.listing()} - {shard["ShardId"] for shard in self.listings[-1]}
        self.made_ms |= dict.fromkeys(made, self.now_ms())
        self.manual.advance(0.001)
        self.listings.append(self.listing())

    def _split(self, shards: list[dict[str, Any]]) -> None:
        shard = self.random.choice(shards)
        low, high = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
        if len(shards) < MAX_OPEN and high - low > 2**100:
            key = low + (high - low) // self.random.randint(2, 4)
            self.call("SplitShard", StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(key))
            self.count("reshard: split")

    def _merge(self, shards: list[dict[str, Any]]) -> None:
        if len(shards) > 1:
            place = self.random.randrange(len(shards) - 1)
            first, second = (shard["ShardId"] for shard in shards[place : place + 2])
            self.call("MergeShards", StreamName=STREAM, ShardToMerge=first, AdjacentShardToMerge=second)
            self.count("reshard: merge")

    def _rescale(self, shards: list[dict[str, Any]]) -> None:
        least, most = -(-len(shards) // 2), min(2 * len(shards), MAX_OPEN)
        target = self.random.randint(least, most)
        if target != len(shards):
            self.call("UpdateShardCount", StreamName=STREAM, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
            self.count("reshard: rescale")

    def gap(self) -> None:
        shard = self.random.choice(self.listing())
        self.model.gap(STREAM, shard["ShardId"], calls=self.random.randint(1, 3))
        self.count("gap")

    def sleep_past_retention(self) -> None:
        self.manual.advance(RETENTION + self.random.uniform(60, 7_200))
        self.count("clock: over a day")

    def jump(self) -> None:
        seconds = self.random.choice([5.0, 60.0, self.random.uniform(301, LONG_JUMP)])
        self.manual.advance(seconds)
        self.count("clock: over five minutes" if seconds > 300 else "clock: some seconds")


def _takes(shard: dict[str, Any], key: str) -> bool:
    low, high = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
    return low <= hash_key(key) <= high


# --- the network: what botocore would give, damaged by chance

_THROTTLES = {"LimitExceededException": 400, "ThrottlingException": 400, "RequestLimitExceeded": 503, "SlowDown": 503}
_FAILURES = {"InternalFailure": 500, "ServiceUnavailable": 503, "502": 502}
_CODES: dict[str, dict[str, int]] = {
    "GetRecords": {
        "ProvisionedThroughputExceededException": 400,
        "KMSThrottlingException": 400,
        "ExpiredIteratorException": 400,
        "InvalidArgumentException": 400,
        **_THROTTLES,
        **_FAILURES,
    },
    "GetShardIterator": {"ProvisionedThroughputExceededException": 400, **_THROTTLES, **_FAILURES},
    "ListShards": {"ResourceInUseException": 400, "ExpiredNextTokenException": 400, **_THROTTLES, **_FAILURES},
}
_DAMAGES: dict[str, tuple[str, ...]] = {
    "GetRecords": (
        "reset before",
        "reset after",
        "no connection",
        "cut body",
        "empty object",
        "html",
        "records null",
        "records missing",
        "bad base64",
        "no iterator",
        "no iterator",
    ),
    "GetShardIterator": ("reset before", "reset after", "no connection", "empty object"),
    "ListShards": (
        "reset before",
        "reset after",
        "no connection",
        "connect timeout",
        "empty object",
        "stale",
        "stale",
        "stale",
    ),
}
_LOCAL: dict[str, Callable[..., Exception]] = {
    "reset before": boto_errors.ConnectionClosedError,
    "reset after": boto_errors.ReadTimeoutError,
    "no connection": boto_errors.EndpointConnectionError,
    "connect timeout": boto_errors.ConnectTimeoutError,
}


class Wire:
    """Stands where the client has its boto3 client, and answers from the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.may_be_stale = True
        self.is_stale = False  # for certain
        self._shard_of: dict[str, str] = {}  # by iterator
        self._invalid: set[str] = set()  # shards whose last failure was InvalidArgumentException: twice would be fatal

    def close(self) -> None:
        """Nothing is open."""

    def list_shards(self, **params: Any) -> dict[str, Any]:
        damage = self._damage("ListShards")
        if self.is_stale or (damage == "stale" and self.may_be_stale):
            self.world.count("fault: ListShards stale")
            return {"Shards": self.world.random.choice(self.world.listings)}
        page = {"MaxResults": self.world.random.randint(2, 5)} if self.world.chance(0.3) else {}
        answer = self._ask("ListShards", damage, **params, **page)
        if "NextToken" in answer:
            self.world.count("listing in pages")
        return answer

    def list_streams(self) -> dict[str, Any]:
        return {"StreamNames": [STREAM], "HasMoreStreams": False}

    def describe_stream(self, **params: Any) -> dict[str, Any]:
        answer = self._ask("DescribeStream", "", **params)["StreamDescription"]
        created_at = self.world.time_at(round(answer["StreamCreationTimestamp"] * 1000))
        return {"StreamDescription": {**answer, "StreamCreationTimestamp": created_at}}

    def post(self, operation: str, body: bytes, _stream: str) -> tuple[bytes, str | None]:
        calls = {"get_records": self.get_records, "get_shard_iterator": self.get_shard_iterator}
        return calls[operation](**msgspec.json.decode(body)), None

    def get_shard_iterator(self, **params: Any) -> bytes:
        self.world.count(f"iterator: {params['ShardIteratorType']}")
        answer = self._ask("GetShardIterator", self._damage("GetShardIterator"), **params)
        if "ShardIterator" in answer:
            self._shard_of[answer["ShardIterator"]] = params["ShardId"]
        return msgspec.json.encode(answer)

    def get_records(self, **params: Any) -> bytes:
        shard_id = self._shard_of[params["ShardIterator"]]
        damage = self._damage("GetRecords")
        if damage == "InvalidArgumentException":
            if shard_id in self._invalid:
                damage = "InternalFailure"
            self._invalid.add(shard_id)
        if not self.world.is_calm:
            params["Limit"] = self.world.random.randint(1, 30)
        answer = dict(self._ask("GetRecords", damage, **params))
        if iterator := answer.get("NextShardIterator"):
            self._shard_of[iterator] = shard_id
        elif not damage:
            self.world.count("end of a shard")
        self._end_early(answer, shard_id)
        body = self._damaged_body(answer, damage, shard_id)
        if body is None:
            self._invalid.discard(shard_id)
            body = msgspec.json.encode(answer)
        return body

    def _damage(self, operation: str) -> str:
        if not self.world.chance(FAULT_RATE):
            return ""
        return self.world.random.choice([*_CODES[operation], *_DAMAGES[operation]])

    def _ask(self, operation: str, damage: str, **params: Any) -> dict[str, Any]:
        if damage in _CODES.get(operation, {}):
            self.world.count(f"fault: {operation} {damage}")
            raise _refusal(operation, damage, _CODES[operation][damage])
        if damage in ("reset before", "no connection", "connect timeout"):
            self.world.count(f"fault: {operation} {damage}")
            raise _local(damage)
        try:
            answer = self.world.model.call(operation, params)
        except AwsError as error:
            self.world.count(f"model: {error.code}")
            raise _refusal(operation, error.code, error.status, error.message) from error
        if damage == "reset after":
            self.world.count(f"fault: {operation} {damage}")
            raise _local(damage)
        if damage == "empty object" and operation != "GetRecords":
            self.world.count(f"fault: {operation} {damage}")
            return {}
        return answer

    def _end_early(self, answer: dict[str, Any], shard_id: str) -> None:
        """Give the last records of a closed shard and its end in one answer, or leave out the optional lag."""
        closed = next((s for s in self.world.listings[-1] if s["ShardId"] == shard_id), None)
        is_closed = closed is not None and "EndingSequenceNumber" in closed["SequenceNumberRange"]
        if is_closed and answer["Records"] and self.world.chance(0.4):
            rest = self.world.model.call("GetRecords", {"ShardIterator": answer["NextShardIterator"], "Limit": 1})
            if "ChildShards" in rest:
                answer["ChildShards"] = rest["ChildShards"]
                del answer["NextShardIterator"]
                self.world.count("end of a shard with records")
        says_nothing = not answer["Records"] and answer["MillisBehindLatest"] > 0  # a gap: only the lag can tell
        if not says_nothing and self.world.chance(0.05):
            del answer["MillisBehindLatest"]
            self.world.count("answer without lag")

    def _damaged_body(self, answer: dict[str, Any], damage: str, shard_id: str) -> bytes | None:
        if not damage:
            return None
        whole = msgspec.json.encode(answer)
        match damage:
            case "cut body":
                body = whole[: self.world.random.randrange(len(whole))]
            case "empty object":
                body = b"{}"
            case "html":
                body = b"<html><body>It works!</body></html>"
            case "records null":
                body = msgspec.json.encode({**answer, "Records": None})
            case "records missing":
                body = msgspec.json.encode({name: value for name, value in answer.items() if name != "Records"})
            case "bad base64":
                if not answer["Records"]:
                    return None
                body = whole.replace(b'"Data":"', b'"Data":"*', 1)
            case _:
                return self._without_iterator(answer, shard_id)
        self.world.count(f"fault: GetRecords {damage}")
        return body

    def _without_iterator(self, answer: dict[str, Any], shard_id: str) -> bytes | None:
        """Leave out the next iterator of an open shard, or the children of one that has ended."""
        listed = next(shard for shard in self.world.listings[-1] if shard["ShardId"] == shard_id)
        is_open = "EndingSequenceNumber" not in listed["SequenceNumberRange"]
        if not is_open and "NextShardIterator" in answer:
            return None
        self.world.count(f"fault: GetRecords no iterator, {'open' if is_open else 'closed without children'}")
        left_out = ("NextShardIterator", "ChildShards")
        return msgspec.json.encode({name: value for name, value in answer.items() if name not in left_out})


def _local(damage: str) -> Exception:
    return _LOCAL[damage](endpoint_url="https://kinesis")


def _refusal(operation: str, code: str, status: int, message: str = "made up") -> Exception:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto_errors.ClientError(answer, operation)


def connect(world: World) -> tuple[client.KinesisClient, Wire]:
    """Return the real client on a wire to the model."""
    wire = Wire(world)
    with (
        patch.object(client, "make_client", lambda *_: wire),
        patch.object(client, "set_deadlines", lambda _client: None),
        patch.object(client, "RawCalls", lambda _client: wire),
    ):
        return client.KinesisClient(SourceConfig(auth=StaticCredentials("simulated", "simulated")), world.clock), wire


# --- what a reader must deliver


@dataclass
class Bounds:
    """Between which numbers the first record of each key must lie; from there on nothing may be missing."""

    least: dict[str, int]
    most: dict[str, int]


class Check:
    """Takes note of every record that comes, and raises at the first one that should not."""

    def __init__(
        self,
        world: World,
        bounds: Bounds,
        keys: Sequence[str] = KEYS,
        is_kept: Callable[[int], bool] = lambda _number: True,
    ) -> None:
        self.world, self.bounds, self.keys, self.is_kept = world, bounds, keys, is_kept
        self.first: dict[str, int] = {}
        self.next: dict[str, int] = {}
        self.gaps: set[Gap] = set()
        self.skipped: set[tuple[str, int]] = set()
        self.mixed: set[int] = set()

    def lose(self, gap: Gap) -> None:
        """Take note of a gap that a reader tells of."""
        if gap not in self.gaps:
            self.world.count(f"gap told: {gap.reason}")
            self.world.note(str(gap))
        self.gaps.add(gap)

    def _is_gone(self, key: str, number: int) -> bool:
        return self.world.arrivals[key][number - 1] <= self.world.now_ms() - RETENTION * 1000

    def _is_told(self, key: str, number: int) -> bool:
        """Return whether a record is gone from the stream, and a gap that was told covers it."""
        moment = self.world.time_at(self.world.arrivals[key][number - 1])
        return self._is_gone(key, number) and any(
            (gap.seen is None or gap.seen <= moment) and (gap.until is None or moment <= gap.until) for gap in self.gaps
        )

    def take(self, shard_id: str, rows: pa.RecordBatch | pa.Table) -> None:
        keys, data = (rows.column(name).to_pylist() for name in ("partition_key", "data"))
        for key, number in zip(keys, map(int, data), strict=True):
            if key.startswith(MIXED):
                self._take_mixed(shard_id, number)
                continue
            due = self.next.get(key)
            if due is None:
                self.first[key] = due = number
                if number < self.bounds.least[key]:
                    raise Violation(f"{key} {number} of {shard_id} lies before the start")
            while due < number and (not self.is_kept(due) or self._is_gone(key, due)):
                if self.is_kept(due):
                    self.world.count("record lost, and told")
                    self.skipped.add((key, due))  # the gap of a shard that is gone may be told a moment later
                due += 1
            if not self.is_kept(number):
                raise Violation(f"not to be kept: {key} {number} of {shard_id}")
            if number != due:
                word = "doubled or out of order" if number < due else "lost or out of order"
                raise Violation(f"{word}: {key} {number} came from {shard_id}, {due} was due")
            self.next[key] = number + 1

    def _take_mixed(self, shard_id: str, number: int) -> None:
        if number < self.bounds.least[MIXED]:
            raise Violation(f"mixed {number} of {shard_id} lies before the start")
        if number in self.mixed:
            raise Violation(f"doubled: mixed {number} came from {shard_id} again")
        if (MIXED, number) in self.world.dropped:
            raise Violation(f"mixed {number} of {shard_id} is one that a KPL may have written again")
        self.mixed.add(number)

    def _missing_mixed(self, until: int) -> list[str]:
        dropped = {number for key, number in self.world.dropped if key == MIXED}
        wanted = set(range(self.bounds.most[MIXED], until + 1)) - self.mixed - dropped
        wanted = {number for number in wanted if self.is_kept(number)}
        late = [f"mixed: {number} is from after the end" for number in self.mixed if number > until]
        return late + [f"mixed: {number}" for number in sorted(wanted) if not self._is_told(MIXED, number)]

    def miscounted(self, told: int, until: dict[str, int]) -> list[str]:
        """Compare how many user records a reader told as dropped with how many there were."""
        drops = [(key, number) for key, number in self.world.dropped if number <= until[key]]
        most = sum(number >= self.bounds.least[key] for key, number in drops)
        least = sum(number >= self.bounds.most[key] and not self._is_gone(key, number) for key, number in drops)
        return [] if least <= told <= most else [f"{told} user records dropped, of {least} to {most}"]

    def missing(self, until: dict[str, int]) -> list[str]:
        """Name the keys of which something is missing, given how many records each should have."""
        mixed = self._missing_mixed(until[MIXED]) if self.keys == KEYS else []
        return (
            mixed
            + [
                f"{key}: {self.next.get(key, self.bounds.most[key])} to {until[key]}"
                for key in self.keys
                if not all(
                    self._is_told(key, number) for number in self._unread(key, until[key]) if self.is_kept(number)
                )
            ]
            + [f"{key}: {number}, and nobody is told" for key, number in self.skipped if not self._is_told(key, number)]
        )

    def _unread(self, key: str, until: int) -> Iterator[int]:
        """Yield the numbers that did not come although they should: before the first, and behind the last."""
        most = self.bounds.most[key]
        yield from range(most, self.first.get(key, most))
        yield from range(self.next.get(key, most), until + 1)


# --- the sinks


class Ledger:
    """A durable sink: rows and checkpoint of a batch are kept together or not at all, and outlive a crash."""

    def __init__(self, world: World, feed: ReadPlan, start: StartingPosition, check: Check) -> None:
        self.world, self.start, self.check = world, start, check
        self.feed = feed  # of the first listing, for good
        self.checkpoints: dict[str, str] = {}
        self.seen: dict[str, datetime] = {}
        self.known = {shard.shard_id: shard for shard in feed.shards}
        self.ended: set[str] = set()
        self.rows = self.dropped = 0

    def with_vanished(self, feed: ReadPlan) -> ReadPlan:
        """Add the shards that were known, not read to their end, and are not listed any more, as `Sync` does."""
        listed = {shard.shard_id: shard for shard in feed.shards}
        vanished = [shard for shard in self.known.values() if shard.shard_id not in self.ended | listed.keys()]
        if not self.world.happened["clock: over a day"]:
            vanished = []
        self.known |= listed
        if vanished:
            self.world.count("shard vanished before a restart")
        return replace(feed, shards=(*feed.shards, *vanished), began=self.feed.began)

    def position(self, shard: Shard) -> StartingPosition:
        self.known.setdefault(shard.shard_id, shard)
        _fail(self.world, "position")
        seen = self.seen.get(shard.shard_id)
        if sequence_number := self.checkpoints.get(shard.shard_id):
            return StartingPosition.after(sequence_number, seen)
        return replace(self.feed.position(shard, self.start), seen=seen)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        _fail(self.world, "deliver")
        if shard.shard_id in self.ended:
            raise Violation(f"{shard.shard_id} had ended already")
        self.check.take(shard.shard_id, batch.rows)
        self.rows += batch.rows.num_rows
        self.dropped += foreign.count(batch.dropped)
        if sequence_number := batch.read_to:
            self.checkpoints[shard.shard_id] = sequence_number
        if batch.seen is not None:
            self.seen[shard.shard_id] = batch.seen
        self._crash("after deliver")
        return True

    def lost(self, gap: Gap) -> None:
        _fail(self.world, "lost")
        self.check.lose(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        _fail(self.world, "finish")
        true = {s["ShardId"] for s in self.world.listing() if shard.shard_id in _parents(s)}
        is_expired = any(gap.shard_id == shard.shard_id and gap.first is None for gap in self.check.gaps)
        if not is_expired and not true <= {child.shard_id for child in children}:
            raise Violation(f"the children of {shard.shard_id} are {true}, not {children}")
        self.ended.add(shard.shard_id)
        for child in children:
            self.known.setdefault(child.shard_id, child)
            if (seen := self.seen.get(shard.shard_id)) and child.shard_id not in self.checkpoints:
                self.seen[child.shard_id] = min(seen, self.seen.get(child.shard_id, seen))
        if self.world.chance(0.1):
            self.world.count("sink: finish fails after it was done")
            raise ServiceError("the disk came back too late", retryable=True)
        self._crash("after finish")

    def _crash(self, where: str) -> None:
        if self.world.chance(0.02):
            self.world.count(f"crash: {where}")
            raise Crash


def _parents(listed: dict[str, Any]) -> tuple[str | None, str | None]:
    return listed.get("ParentShardId"), listed.get("AdjacentParentShardId")


def _fail(world: World, where: str) -> None:
    if world.chance(0.05):
        world.count(f"sink: {where} fails")
        raise ServiceError("disk full", retryable=True)
    if world.chance(0.01):
        world.count(f"crash: before {where}")
        raise Crash


class WatchedBuffer(Buffer):
    """A buffer that is compared with a plain list after every change."""

    def __init__(self, world: World, check: Check, max_rows: int, max_bytes: int, on_full: OnFull) -> None:
        super().__init__(max_rows, max_bytes, on_full)
        self.world, self.check, self.limits = world, check, (max_rows, max_bytes)
        self.came: list[tuple[str, str]] = []  # shard and sequence number of every row that was put in
        self.went = 0  # how many of them are not held any more
        self.drawn = 0  # how many of those were taken out
        self.lost: Counter[str] = Counter()

    def put(self, shard_id: str, rows: pa.RecordBatch) -> None:
        if self.world.chance(0.05):
            self.world.count("sink: deliver fails")
            raise ServiceError("no memory", retryable=True)
        if self._on_full == "block":  # one thread: make the room that put() would wait for
            while self._rows and not self._has_room_for(rows):
                self.draw(self._rows)
        self.check.take(shard_id, rows)
        super().put(shard_id, rows)
        self.came += [(shard_id, number) for number in rows.column("sequence_number").to_pylist()]
        self.compare()

    def draw(self, most: int) -> None:
        """Take rows out as a reader would, and sometimes put some of them back."""
        taken = self.take(0, most=most)
        if taken and self.world.chance(0.3):
            self.untake([taken.pop()])
        numbers = [(shard_id, n) for shard_id, rows in taken for n in rows.column("sequence_number").to_pylist()]
        if numbers != self.came[self.went : self.went + len(numbers)]:
            raise Violation("rows were not taken in the order they came")
        self.went += len(numbers)
        self.drawn += len(numbers)
        self.compare()

    def compare(self) -> None:
        held = [n for rows in self.peek() for n in rows.column("sequence_number").to_pylist()]
        stats = self.stats()
        gone = len(self.came) - len(held)
        self.lost.update(shard_id for shard_id, _ in self.came[self.went : gone])
        if self.lost and gone > self.went:
            self.world.count("buffer: rows dropped")
        self.went = gone
        if held != [number for _, number in self.came[gone:]]:
            raise Violation("the buffer does not hold the newest rows")
        true = (dict(self.lost), len(self.came), self.drawn, len(held))
        if (stats.dropped, stats.received, stats.taken, stats.rows) != true:
            raise Violation(f"the buffer counts {stats}, true is {true}")
        if self._on_full == "block" and self.lost:
            raise Violation("a blocking buffer dropped rows")
        if self._on_full == "drop_oldest" and (stats.rows > self.limits[0] or stats.bytes > self.limits[1]):
            raise Violation(f"the buffer is over its budget: {stats}")


class WatchedSink(_BufferSink):
    """The sink of a tail, whose gaps are compared with the truth."""

    check: Check

    def lost(self, gap: Gap) -> None:
        super().lost(gap)
        self.check.lose(gap)


class FailingCollector(_RowCollector):
    """The sink of a bounded read, which now and then fails before it takes anything."""

    def __init__(self, world: World, feed: ReadPlan, window: TimeRange) -> None:
        super().__init__(feed, window)
        self.world = world

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        if self.world.chance(0.05):
            self.world.count("sink: deliver fails")
            raise ServiceError("no memory", retryable=True)
        return super().deliver(shard, batch)


# --- the reader


class Turns(Scheduler):
    """The scheduler with a list in place of its threads."""

    def __init__(self, world: World, feed: ReadPlan, sink: Any, skipped: Iterable[str] = ()) -> None:
        self.world = world
        self.due: dict[ShardConsumer, float] = {}
        self.next_listing = world.manual.now() + DISCOVERY_SECONDS
        self.ended: list[BaseException | None] = []
        super().__init__(feed, sink, skipped=skipped, on_done=self.ended.append)
        self._start_runnable()

    def _spawn(self, target: Callable[..., None], name: str, *args: Any) -> None:
        self.due[args[0]] = self.world.manual.now()

    def turn(self) -> None:
        """Let time pass until somebody wants a turn, and give it to one of those who do."""
        world = self.world
        first = min([self.next_listing, *self.due.values()])
        world.manual.advance(max(0.0, first - world.manual.now()))
        if self.next_listing <= world.manual.now():
            self._list()
            self.next_listing = world.manual.now() + DISCOVERY_SECONDS
            return
        consumer = world.random.choice([known for known, due in self.due.items() if due <= world.manual.now()])
        wait = consumer.step()
        world.note(f"step {consumer!r} -> {wait if wait is None else round(wait, 3)}")
        if wait is None:
            del self.due[consumer]
            self._finished(consumer)
            return
        late = world.random.choice([0.0, 0.0, 0.0, 0.3, 30.0]) if world.chance(0.4) else 0.0  # a busy machine
        self.due[consumer] = world.manual.now() + wait + late


@dataclass
class Reader:
    """One way to read the stream: how to (re)start it, whether it has everything, and what it does by itself."""

    name: str
    begin: Callable[[], Turns]
    missing: Callable[[], list[str]]
    can_crash: bool = False
    may_sleep: bool = False  # for longer than the stream keeps its records
    is_over: Callable[[], bool] = lambda: False
    idle: Callable[[], None] = lambda: None
    opened: Callable[[], None] = lambda: None
    delivered: Callable[[], int | None] = field(default=lambda: None)


def _counts(world: World) -> dict[str, int]:
    return {key: len(arrivals) for key, arrivals in world.arrivals.items()}


def _start(world: World, kinds: Sequence[Kind]) -> tuple[StartingPosition, Bounds]:
    """Choose where to start, and what the first record of each key may then be."""
    world.next_millisecond()
    now_ms = world.now_ms()
    kind = world.random.choice(kinds)
    world.count(f"start: {kind}")
    if kind is Kind.TRIM_HORIZON:
        ones = dict.fromkeys([*KEYS, MIXED], 1)
        return StartingPosition.trim_horizon(), Bounds(ones, ones)
    start_ms = now_ms if kind is Kind.LATEST else now_ms - world.random.choice([1, 1_000, 60_000, 600_000])
    first = {key: bisect_left(arrivals, start_ms) + 1 for key, arrivals in world.arrivals.items()}
    if kind is Kind.LATEST:
        return StartingPosition.latest(pinned=world.clock.now()), Bounds(
            first, dict.fromkeys([*KEYS, MIXED], sys.maxsize)
        )
    return StartingPosition.at(world.time_at(start_ms)), Bounds(first, first)


def _skipped(feed: ReadPlan, start: StartingPosition) -> set[str]:
    """As `Tail` does: nothing new arrives in a closed shard."""
    return {shard.shard_id for shard in feed.shards if start.kind is Kind.LATEST and not shard.is_open}


def _list(world: World, *, may_be_stale: bool, is_stale: bool = False) -> ReadPlan:
    """Make a first listing; from a stale one a reader cannot know which records lie before its start."""
    kinesis, wire = connect(world)
    wire.may_be_stale, wire.is_stale = may_be_stale, is_stale
    shards = RetryingLookups(kinesis, world.clock).list_shards(STREAM)
    wire.may_be_stale, wire.is_stale = True, False
    return ReadPlan(kinesis, STREAM, world.clock, tuple(shards))


def durable(world: World) -> Reader:
    """Return a reader that keeps its checkpoints with the rows and goes on from there after a crash."""
    start, bounds = _start(world, list(Kind)[:3])
    check = Check(world, bounds)
    feed = _list(world, may_be_stale=start.kind is Kind.TRIM_HORIZON)
    ledger = Ledger(world, feed, start, check)
    ledger.ended |= _skipped(feed, start)
    begun: list[int] = []

    def begin() -> Turns:
        if begun and ledger.start.kind is Kind.LATEST:
            assert ledger.start.timestamp is not None
            ledger.start = StartingPosition.at(ledger.start.timestamp)
        begun.append(ledger.rows)
        # once shards may vanish, one that a stale listing lacks could not be told from one that is gone
        may_be_stale = not world.happened["clock: over a day"]
        known = feed if len(begun) == 1 else ledger.with_vanished(_list(world, may_be_stale=may_be_stale))
        return Turns(world, known, ledger, sorted(ledger.ended))

    def opened() -> None:
        bounds.most = {key: min(bounds.most[key], count + 1) for key, count in _counts(world).items()}

    return Reader(
        "durable",
        begin,
        lambda: check.missing(_counts(world)) + check.miscounted(ledger.dropped, _counts(world)),
        can_crash=True,
        may_sleep=True,
        opened=opened,
        delivered=lambda: ledger.rows - begun[-1],
    )


def tail(world: World) -> Reader:
    """Return a tail: its sink and its buffer, which is small enough to overflow."""
    start, bounds = _start(world, list(Kind)[:3])
    check = Check(world, bounds)
    # a tail leaves out rows from before its start, so its listing may be from before the last reshards
    is_stale = start.kind is Kind.AT_TIMESTAMP and world.chance(0.7)
    feed = _list(world, may_be_stale=start.kind is not Kind.LATEST, is_stale=is_stale)
    on_full = world.random.choice(get_args(OnFull))
    max_rows, max_bytes = world.random.choice([(5, 10**9), (40, 10**9), (10**9, 2_000), (30, 6_000)])
    buffer = WatchedBuffer(world, check, max_rows, max_bytes, on_full)
    world.count(f"buffer: {on_full}")

    def idle() -> None:
        if world.random.random() < 0.1:
            buffer.draw(world.random.randint(1, 20))

    def opened() -> None:
        bounds.most = {key: min(bounds.most[key], count + 1) for key, count in _counts(world).items()}

    sink = WatchedSink(feed, start, buffer)
    sink.check = check

    def begin() -> Turns:
        return Turns(world, feed, sink, _skipped(feed, start))

    def missing() -> list[str]:
        return check.missing(_counts(world)) + check.miscounted(sink.dropped, _counts(world))

    return Reader("tail", begin, missing, may_sleep=True, idle=idle, opened=opened)


def bounded(world: World) -> Reader:
    """Return a bounded read, of all keys or of one."""
    for _ in range(world.random.randint(0, 60)):  # several pages of recent records
        world.random.choice([world.put, world.put, world.gap])()
        world.manual.advance(world.random.choice([0.0, 0.1, 1.0]))
    start, bounds = _start(world, [Kind.TRIM_HORIZON, Kind.AT_TIMESTAMP])
    feed = _list(world, may_be_stale=start.kind is not Kind.LATEST)
    if world.chance(0.3):  # the listing is older than the end by what happens now
        _history(world, 5)
    world.next_millisecond()
    end_ms = world.now_ms() - world.random.choice([0, 0, 0, 500, 30_000, 120_000])
    if start.timestamp is not None:
        end_ms = max(end_ms, round(start.timestamp.timestamp() * 1000))
    key = world.random.choice(KEYS) if world.random.random() < 0.3 else None
    if key is not None:
        world.count("read: one key")
        number = hash_key(key)
        feed = ReadPlan(
            feed.kinesis,
            STREAM,
            world.clock,
            tuple(shard for shard in feed.shards if shard.hash_range[0] <= number <= shard.hash_range[1]),
            lambda shard: shard.hash_range[0] <= number <= shard.hash_range[1],
        )
    window = TimeRange(start, world.time_at(end_ms), row_filter(key, None))
    collector = FailingCollector(world, feed, window)
    until = {key: bisect_right(arrivals, end_ms) for key, arrivals in world.arrivals.items()}
    world.next_millisecond()

    def begin() -> Turns:
        turns = Turns(world, feed, collector)
        turns._on_done = collector.close
        return turns

    def missing() -> list[str]:
        if not collector.done.is_set():
            return ["the read does not end"]
        if collector.error is not None:
            raise collector.error
        check = Check(world, bounds, KEYS if key is None else [key])
        check.take("merged", Records(collector.take()).to_arrow())
        if late := [f"{key} {n - 1}" for key, n in check.next.items() if n - 1 > until[key]]:
            raise Violation(f"rows from after the end: {late}")
        told = check.miscounted(collector.dropped, until) if key is None else []
        return check.missing(until) + told

    return Reader("read", begin, missing, is_over=collector.done.is_set)


# --- a run


def _history(world: World, rounds: int) -> None:
    for _ in range(rounds):
        world.random.choice([world.put, world.put, world.put, world.reshard])()
        world.manual.advance(world.random.choice([0.0, 0.01, 1.0, 100.0]))


class Run:
    """One seed: some history, a turbulent time, a calm one, and the verdict."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        _history(self.world, self.world.random.randint(0, 12))
        make = self.world.random.choice([durable, durable, tail, bounded])
        self.steps = 0
        self.reader: Reader = make(self.world)
        self.world.count(f"reader: {self.reader.name}")
        self.turns = self.reader.begin()
        self.fresh = set(self.turns.due)  # consumers of the first start that had no turn yet
        self._check_opened()

    def go(self) -> None:
        for _ in range(TURBULENT):
            self._round()
            if self.reader.is_over():
                break
        self._calm_down()
        self._settle()

    def _round(self) -> None:
        world = self.world
        match world.random.random():
            case x if x < 0.24:
                world.put()
            case x if x < 0.28:
                world.reshard()
            case x if x < 0.31:
                world.gap()
            case x if x < 0.3175:
                world.jump()
            case x if x < 0.32:
                self._sleep()
            case x if x < 0.33:
                self._pause()
            case x if x < 0.34 and self.reader.can_crash:
                world.count("crash: between steps")
                self._restart()
            case _:
                self._step()
        self.reader.idle()
        world.manual.advance(world.random.choice([0.0, 0.0, 0.001, 0.1, 0.5]))

    def _step(self) -> None:
        if self.turns.is_paused:
            return
        self.steps += 1
        before = {consumer: consumer.stats() for consumer in self.fresh}
        try:
            self.turns.turn()
        except Crash:
            self._restart()
        if self.fresh:
            self.fresh -= {known for known, stats in before.items() if known.stats() != stats}
            self._check_opened()
        if self.turns.ended and not self.reader.is_over():
            raise Violation(f"reading ended by itself: {self.turns.ended}")

    def _check_opened(self) -> None:
        if not self.fresh:
            self.reader.opened()

    def _restart(self) -> None:
        if not self.reader.can_crash:
            self.turns.due.clear()
            raise Violation("a crash where there must be none")
        self.turns = self.reader.begin()
        self.fresh.clear()
        self._check_opened()

    def _sleep(self) -> None:
        if self.reader.may_sleep:
            self.world.sleep_past_retention()

    def _pause(self) -> None:
        if self.turns.is_paused:
            self.turns.resume()
        else:
            self.turns.pause()
            self.world.count("pause")

    def _calm_down(self) -> None:
        self.world.is_calm = True
        self.world.note("calm")
        self.turns.resume()
        limit = self.steps + CALM_STEPS + CALM_STEPS_PER_SHARD * len(self.world.listings[-1])
        while self._is_busy() or (not self.reader.is_over() and self.reader.missing()):
            if self.steps > limit:
                raise Violation(f"not delivered in time: {self.reader.missing() or self.turns.unfinished()}")
            self._step()

    def _is_busy(self) -> bool:
        return bool(self.fresh) or (not self.reader.is_over() and not self._all_caught_up())

    def _all_caught_up(self) -> bool:
        reading = {consumer.shard.shard_id for consumer in self.turns.due if consumer.state is ShardState.CAUGHT_UP}
        return self.turns.unfinished() == reading

    def _settle(self) -> None:
        """Nothing may be missing, and nothing more may come."""
        for _ in range(0 if self.reader.is_over() else 3 * len(self.turns.due)):
            self._step()
        if missing := self.reader.missing():
            raise Violation(f"lost: {missing}")
        counted, delivered = sum(stats.records for stats in self.turns.stats()), self.reader.delivered()
        if delivered is not None and counted != delivered:
            raise Violation(f"consumers count {counted} records, {delivered} were delivered")


@dataclass
class Failure:
    """A seed that broke a promise."""

    seed: int
    reason: str
    trace: list[str]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.reason}", *self.trace])


def simulate(seed: int) -> tuple[Counter[str], Failure | None]:
    """Run one seed; return how often each thing happened, and what went wrong if something did."""
    run: Run | None = None
    try:
        run = Run(seed)
        run.go()
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be named
        reason = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-6:])
        return Counter(), Failure(seed, reason, list(run.world.trace)[-40:] if run else [])
    return run.world.happened + Counter({"steps": run.steps, "records": sum(_counts(run.world).values())}), None


_HAPPENS = [
    *(f"fault: {operation} {code}" for operation, codes in _CODES.items() for code in codes),
    *(f"fault: {operation} {name}" for operation, names in _DAMAGES.items() for name in names if name != "no iterator"),
    "fault: GetRecords no iterator, open",
    "fault: GetRecords no iterator, closed without children",
    "model: ExpiredIteratorException",
    "reshard: split",
    "reshard: merge",
    "reshard: rescale",
    "aggregate",
    "aggregate by a stale map",
    "mixed aggregate",
    "mixed aggregate into a new shard",
    "gap",
    "pause",
    "clock: some seconds",
    "clock: over five minutes",
    "clock: over a day",
    "gap told: trimmed",
    "gap told: shard expired",
    "record lost, and told",
    "shard vanished before a restart",
    "listing in pages",
    "answer without lag",
    "end of a shard",
    "end of a shard with records",
    "sink: position fails",
    "sink: lost fails",
    "sink: deliver fails",
    "sink: finish fails",
    "sink: finish fails after it was done",
    "crash: before position",
    "crash: before deliver",
    "crash: after deliver",
    "crash: before finish",
    "crash: after finish",
    "crash: between steps",
    "reader: durable",
    "reader: tail",
    "reader: read",
    "read: one key",
    "buffer: rows dropped",
    *(f"buffer: {policy}" for policy in get_args(OnFull)),
    *(f"start: {kind}" for kind in list(Kind)[:3]),
    *(f"iterator: {kind}" for kind in Kind),
]


def never(happened: Counter[str]) -> list[str]:
    """Name what never happened although it should: a fault that is not delivered proves nothing."""
    return [name for name in _HAPPENS if not happened[name]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds; return 1 if one failed, or if over 200 of them left something out."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.reader", description="Simulate the reader.")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--stop-after", type=int, default=5, help="failures")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    happened: Counter[str] = Counter()
    failures: list[Failure] = []
    seed = options.first - 1
    for seed in range(options.first, options.first + options.seeds):
        counts, failure = simulate(seed)
        happened += counts
        if failure is not None:
            failures.append(failure)
            print(failure, end="\n\n", flush=True)
            if len(failures) >= options.stop_after:
                break
    seconds = time.perf_counter() - started
    left_out = never(happened) if options.seeds >= 200 and not failures else []
    for name, count in sorted(happened.items()):
        print(f"{count:10,}  {name}")
    print(
        f"{seed + 1 - options.first} seeds from {options.first}: {len(failures)} failed, "
        f"{happened['records']:,} records, {happened['steps']:,} steps, "
        f"{seconds:.1f} s, {(seed + 1 - options.first) / seconds:.1f} seeds/s"
        + "".join(f"; never: {name}" for name in left_out)
    )
    return 1 if failures or left_out else 0


if __name__ == "__main__":
    sys.exit(main())
