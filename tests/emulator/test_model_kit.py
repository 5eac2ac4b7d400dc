"""What the tests of the model share: a model on a clock that stands still, and the calls they make all the time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kinesis_nb.emulator.clock import ManualClock
from kinesis_nb.emulator.errors import AwsError
from kinesis_nb.emulator.model import Model

if TYPE_CHECKING:
    from collections.abc import Generator

HASH_KEYS = 2**128
HOUR = 3600.0
FIRST = "shardId-000000000000"


def shard_name(number: int) -> str:
    """Return the id of a shard."""
    return f"shardId-{number:012d}"


@contextmanager
def refused(code: str, text: str = "") -> Generator[None]:
    """Expect an error of this code whose message contains a text."""
    with pytest.raises(AwsError) as caught:
        yield
    assert (caught.value.code, text in caught.value.message) == (code, True), caught.value


class Kit:
    """A model with one stream, named s."""

    def __init__(self, *, shards: int = 1, create: bool = True, **options: Any) -> None:
        self.clock = ManualClock()
        self.model = Model(clock=self.clock, **options)
        if create:
            self.call("CreateStream", ShardCount=shards)

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """Call an operation on the stream."""
        unnamed = {"ListStreams", "DescribeLimits", "GetRecords", "ListTagsForResource", "TagResource", "UntagResource"}
        if operation not in unnamed and not {"StreamARN", "NextToken", "ConsumerARN", "StreamName"} & params.keys():
            params["StreamName"] = "s"
        return self.model.call(operation, params)

    @property
    def arn(self) -> str:
        """The stream's ARN."""
        arn: str = self.summary()["StreamARN"]
        return arn

    def summary(self) -> dict[str, Any]:
        """Return the stream's summary."""
        summary: dict[str, Any] = self.call("DescribeStreamSummary")["StreamDescriptionSummary"]
        return summary

    def shards(self, **params: Any) -> list[dict[str, Any]]:
        """Return what ListShards answers."""
        shards: list[dict[str, Any]] = self.call("ListShards", **params)["Shards"]
        return shards

    def ids(self, **params: Any) -> list[int]:
        """Return the numbers of the shards that ListShards answers."""
        return [int(shard["ShardId"][-12:]) for shard in self.shards(**params)]

    def open_ids(self) -> list[int]:
        """Return the numbers of the open shards."""
        return self.ids(ShardFilter={"Type": "AT_LATEST"})

    def put(self, data: bytes = b"x", key: str = "k", **params: Any) -> dict[str, Any]:
        """Put one record."""
        return self.call("PutRecord", Data=data, PartitionKey=key, **params)

    def put_many(self, *entries: dict[str, Any]) -> list[dict[str, Any]]:
        """Put records in one request and return their results."""
        results: list[dict[str, Any]] = self.call("PutRecords", Records=list(entries))["Records"]
        return results

    def iterator(self, shard: int = 0, kind: str = "TRIM_HORIZON", **params: Any) -> str:
        """Return a shard iterator."""
        answer = self.call("GetShardIterator", ShardId=shard_name(shard), ShardIteratorType=kind, **params)
        iterator: str = answer["ShardIterator"]
        return iterator

    def get(self, iterator: str, **params: Any) -> dict[str, Any]:
        """Call GetRecords."""
        return self.call("GetRecords", ShardIterator=iterator, **params)

    def read(self, shard: int = 0, kind: str = "TRIM_HORIZON", **params: Any) -> list[bytes]:
        """Return the data of all records from a position to the tip or the end of a shard."""
        return [record["Data"] for record in self.records(shard, kind, **params)]

    def records(self, shard: int = 0, kind: str = "TRIM_HORIZON", **params: Any) -> list[dict[str, Any]]:
        """Return all records from a position to the tip or the end of a shard."""
        records: list[dict[str, Any]] = []
        answer = self.get(self.iterator(shard, kind, **params))
        while answer["Records"]:
            records += answer["Records"]
            answer = self.get(answer["NextShardIterator"])
        return records

    def split(self, shard: int, key: int | None = None) -> None:
        """Split a shard, in the middle unless told where."""
        if key is None:
            keys = next(s for s in self.shards() if s["ShardId"] == shard_name(shard))["HashKeyRange"]
            key = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
        self.call("SplitShard", ShardToSplit=shard_name(shard), NewStartingHashKey=str(key))

    def merge(self, shard: int, adjacent: int) -> None:
        """Merge two shards."""
        self.call("MergeShards", ShardToMerge=shard_name(shard), AdjacentShardToMerge=shard_name(adjacent))

    def rescale(self, count: int) -> dict[str, Any]:
        """Change the number of shards."""
        return self.call("UpdateShardCount", TargetShardCount=count, ScalingType="UNIFORM_SCALING")


def entry(data: bytes = b"x", key: str = "k") -> dict[str, Any]:
    """Return one entry of PutRecords."""
    return {"Data": data, "PartitionKey": key}


def test_a_clock_stands_still_until_it_is_moved() -> None:
    """ManualClock tells the same time until advance() is called."""
    clock = ManualClock(start=5.0)
    assert (clock.now(), clock.now()) == (5.0, 5.0)
    clock.advance(2.5)
    assert clock.now() == 7.5
