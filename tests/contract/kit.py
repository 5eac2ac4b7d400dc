"""What the contract tests talk to a server with: streams with random names, and reading them the way a client must."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


# boto3 comes without types: these names say which answer, or which part of one, a dictionary is.
Answer: TypeAlias = "dict[str, Any]"
Record: TypeAlias = "dict[str, Any]"
Shard: TypeAlias = "dict[str, Any]"

HASH_KEYS = 2**128
SECONDS_TO_CHANGE = 20.0  # how long a change of state may take; it takes some 0.1 s
MOST_EMPTY_ANSWERS = 100

# What a server does where the service answers a ValidationException.
MOCK_VALIDATION = "answers InvalidArgumentException, SerializationException or 500 instead of ValidationException"
MOTO_VALIDATION = "accepts it, answers InvalidArgumentException, or 500"

SERVERS = ("emulator", "kinesis-mock", "kinesalite", "moto")


def deviates(server: str, reason: str, *, run: bool = True) -> pytest.MarkDecorator:
    """Mark a promise that ``server`` is known to break, and why.

    The test still runs there and must fail, so that a repaired server is noticed. ``run=False`` is for a server that
    would hang, crash, be unusable for the tests after this one, or break it now and then only.
    """
    return pytest.mark.deviates(server, reason, run=run)


def xfail_for(marker: pytest.Mark) -> pytest.MarkDecorator:
    """Return the strict expectation that stands behind a ``deviates`` mark."""
    # Only answers of the server count as a deviation; a mistake in the test itself stays a failure.
    answers = (AssertionError, pytest.fail.Exception, KeyError, ClientError, EventStreamError, ResponseParserError)
    return pytest.mark.xfail(reason=marker.args[1], run=marker.kwargs["run"], strict=True, raises=answers)


@dataclass(frozen=True)
class Server:
    """A running server and two clients of it."""

    name: str
    url: str
    client: Any
    unchecked: Any  # the same client, but it sends what boto3 itself would refuse

    @classmethod
    def at(cls, name: str, url: str) -> Server:
        """Connect to the server that listens at ``url``."""
        return cls(name, url, _connect(url, check=True), _connect(url, check=False))

    def create(self, shards: int = 1) -> Stream:
        """Create a stream of its own for a test and wait until it can be used."""
        stream = Stream(self, new_name())
        self.client.create_stream(StreamName=stream.name, ShardCount=shards)
        stream.wait_until_active()
        return stream


def _connect(url: str, *, check: bool) -> Any:
    config = Config(
        # One attempt: a retry would hide the first answer, which is what the tests are about.
        retries={"total_max_attempts": 1},
        parameter_validation=check,
        # Otherwise boto3 puts the account in front of the host name for a StreamARN.
        inject_host_prefix=False,
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=4,
    )
    session = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1")
    return session.client("kinesis", endpoint_url=url, config=config)


def new_name() -> str:
    """Return a stream name that no other test uses: moto keeps its streams for as long as it lives."""
    return f"contract-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Stream:
    """One stream on one server."""

    server: Server
    name: str

    @property
    def client(self) -> Any:
        """The client of the server that holds the stream."""
        return self.server.client

    @property
    def arn(self) -> str:
        """The ARN as the server states it."""
        return str(self.summary()["StreamARN"])

    def summary(self) -> Any:
        """Return the answer of DescribeStreamSummary without its envelope."""
        return self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]

    def wait_until_active(self) -> None:
        """Wait for the end of CREATING or UPDATING."""
        wait_until(lambda: self.summary()["StreamStatus"] == "ACTIVE", f"{self.name} is not ACTIVE")

    # -- writing

    def put(self, data: bytes, key: str = "key", **more: Any) -> tuple[str, str]:
        """Put one record; return the shard it went to and its sequence number."""
        answer = self.client.put_record(StreamName=self.name, Data=data, PartitionKey=key, **more)
        return answer["ShardId"], answer["SequenceNumber"]

    def put_numbered(self, count: int, key: str = "key", first: int = 0) -> list[bytes]:
        """Put the numbers from ``first`` on, one after the other, under one key; return them as written."""
        written = [str(number).encode() for number in range(first, first + count)]
        for data in written:
            self.put(data, key)
        return written

    # -- resharding

    def split(self, shard_id: str, at: int | None = None) -> list[Shard]:
        """Split a shard in the middle (or at a hash key), wait, and return its children."""
        key = middle(self.shard(shard_id)) if at is None else at
        self.start_split(shard_id, key)
        self.wait_until_active()
        return self.children_of(shard_id)

    def merge(self, shard_id: str, adjacent: str) -> Shard:
        """Merge two neighbours, wait, and return their child."""
        self.start_merge(shard_id, adjacent)
        self.wait_until_active()
        (child,) = self.children_of(shard_id)
        return child

    def rescale(self, shards: int) -> None:
        """Call UpdateShardCount and wait until it is done."""
        self.start_rescale(shards)
        self.wait_until_active()

    def start_split(self, shard_id: str, at: int) -> None:
        """Ask for a split and return at once."""
        self.client.split_shard(StreamName=self.name, ShardToSplit=shard_id, NewStartingHashKey=str(at))

    def start_merge(self, shard_id: str, adjacent: str) -> None:
        """Ask for a merge and return at once."""
        self.client.merge_shards(StreamName=self.name, ShardToMerge=shard_id, AdjacentShardToMerge=adjacent)

    def start_rescale(self, shards: int) -> None:
        """Ask for a number of shards and return at once."""
        self.client.update_shard_count(StreamName=self.name, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")

    # -- shards

    def shards(self) -> list[Shard]:
        """Return all shards, closed ones included, as ListShards gives them."""
        return self.client.list_shards(StreamName=self.name)["Shards"]

    def shard(self, shard_id: str) -> Shard:
        """Return one shard."""
        (shard,) = (shard for shard in self.shards() if shard["ShardId"] == shard_id)
        return shard

    def open_shards(self) -> list[Shard]:
        """Return the shards that take records, by hash key."""
        return sorted((shard for shard in self.shards() if is_open(shard)), key=lambda shard: hash_range(shard)[0])

    def children_of(self, shard_id: str) -> list[Shard]:
        """Return the shards that name ``shard_id`` as a parent, by hash key."""
        children = [shard for shard in self.shards() if shard_id in parents(shard)]
        return sorted(children, key=lambda shard: hash_range(shard)[0])

    # -- reading

    def iterator(self, shard_id: str, kind: str = "TRIM_HORIZON", **where: Any) -> str:
        """Return a shard iterator."""
        call: Any = self.client.get_shard_iterator
        return str(call(StreamName=self.name, ShardId=shard_id, ShardIteratorType=kind, **where)["ShardIterator"])

    def read(self, shard_id: str, kind: str = "TRIM_HORIZON", *, expect: int, **where: Any) -> list[Record]:
        """Follow an iterator until ``expect`` records came, and then one call more, so that too many are noticed."""
        records: list[Record] = []
        for answer in self.answers(self.iterator(shard_id, kind, **where)):
            enough = len(records) >= expect
            records += answer["Records"]
            if enough:
                break
        return records

    def read_to_end(self, shard_id: str) -> tuple[list[Record], Answer]:
        """Read a closed shard until the server says that it has ended; return the records and the last answer."""
        records: list[Record] = []
        last: Answer | None = None
        for last in self.answers(self.iterator(shard_id)):
            records += last["Records"]
        assert last is not None
        return records, last

    def answers(self, iterator: str) -> Iterator[Answer]:
        """Yield the answers of GetRecords along the chain of iterators until the shard ends.

        Gives up on a shard that answers nothing so often in a row that it cannot be coming to its end.
        """
        following: str | None = iterator
        empty = 0
        while following:
            answer = self.client.get_records(ShardIterator=following)
            empty = 0 if answer["Records"] else empty + 1
            assert empty <= MOST_EMPTY_ANSWERS, f"{empty} empty answers in a row, and the shard does not end"
            yield answer
            following = answer.get("NextShardIterator")

    def read_everything(self) -> list[Record]:
        """Read the whole stream as a client must: parents before children, closed shards to their end.

        The stream must not be resharded meanwhile. Open shards are read until a call finds nothing more.
        """
        shards = {shard["ShardId"]: shard for shard in self.shards()}
        done: set[str] = set()
        records: list[Record] = []
        while len(done) < len(shards):
            ready = [name for name in shards.keys() - done if not (parents(shards[name]) & shards.keys()) - done]
            for shard_id in sorted(ready):
                is_live = is_open(shards[shard_id])
                records += self.read_to_tip(shard_id) if is_live else self.read_to_end(shard_id)[0]
                done.add(shard_id)
        return records

    def read_to_tip(self, shard_id: str) -> list[Record]:
        """Read an open shard until it is said to have nothing more."""
        records: list[Record] = []
        for answer in self.answers(self.iterator(shard_id)):
            records += answer["Records"]
            if not answer["Records"] and not answer["MillisBehindLatest"]:
                break
        return records


# -- small facts about shards, keys and sequence numbers


def parents(shard: Shard) -> set[str]:
    """Return the ids of the one or two parents."""
    return {str(shard[key]) for key in ("ParentShardId", "AdjacentParentShardId") if shard.get(key)}


def is_open(shard: Shard) -> bool:
    """Tell whether the shard still takes records."""
    return not shard["SequenceNumberRange"].get("EndingSequenceNumber")


def hash_range(shard: Shard) -> tuple[int, int]:
    """Return the first and the last hash key."""
    keys = shard["HashKeyRange"]
    return int(keys["StartingHashKey"]), int(keys["EndingHashKey"])


def cover_all_hash_keys(shards: Sequence[Shard]) -> bool:
    """Tell whether shards that are sorted by hash key leave none out and share none."""
    ranges = [(-1, -1), *map(hash_range, shards), (HASH_KEYS, HASH_KEYS)]
    return all(left[1] + 1 == right[0] for left, right in itertools.pairwise(ranges))


def middle(shard: Shard) -> int:
    """Return the hash key that halves the shard."""
    first, last = hash_range(shard)
    return (first + last + 1) // 2


def hash_key(partition_key: str) -> int:
    """Return the MD5 of a partition key as the service computes it."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def shard_for(partition_key: str, shards: Sequence[Shard]) -> str:
    """Return the shard among ``shards`` whose hash keys cover the partition key."""
    (owner,) = (s["ShardId"] for s in shards if hash_range(s)[0] <= hash_key(partition_key) <= hash_range(s)[1])
    return owner


def all_payloads(answers: Sequence[Answer]) -> list[bytes]:
    """Return the data of each record in several answers."""
    return [data for answer in answers for data in payloads(answer["Records"])]


def payloads(records: Sequence[Record]) -> list[bytes]:
    """Return the data of each record."""
    return [record["Data"] for record in records]


def numbers(records: Sequence[Record]) -> list[int]:
    """Return the sequence numbers as integers."""
    return [int(record["SequenceNumber"]) for record in records]


# -- expectations


@contextmanager
def refused(code: str, message: str = "") -> Iterator[None]:
    """Expect an error with this code (a regular expression for all of it) and this text (found anywhere in it)."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert re.fullmatch(code, error["Code"]), f"{error['Code']}: {error['Message']}"
    assert re.search(message, error["Message"], re.IGNORECASE | re.DOTALL), error["Message"]


def in_time(attempt: Callable[[], None]) -> None:
    """Make an attempt that must meet a stream in a state of some 50 ms; a busy machine may miss it a few times."""
    for _ in range(4):
        with suppress(AssertionError, pytest.fail.Exception, ClientError):
            attempt()
            return
    attempt()


def wait_until(condition: Callable[[], bool], complaint: str, seconds: float = SECONDS_TO_CHANGE) -> None:
    """Poll a server until it says what it must; real servers change state in their own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{complaint} after {seconds:.0f} s"
        time.sleep(0.01)
