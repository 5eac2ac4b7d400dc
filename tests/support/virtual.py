"""The engine's transport straight on the emulator's model, in virtual time: no socket, no thread, no waiting.

Answers go through JSON and the engine's own decoder, so only boto3 and HTTP are left out.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.transport import ServerTime, StreamSummary
from kinesis_nb.emulator import AwsError, ManualClock, Model
from kinesis_nb.errors import ServiceError
from kinesis_nb.reading.consumer import ShardConsumer
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.service.translate import FailedCall, translate
from kinesis_nb.wire.batches import decode_batch
from kinesis_nb.wire.listing import all_streams, read_shard, stream_extras

if TYPE_CHECKING:
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import StreamExtras
    from kinesis_nb.reading.sink import Gap


class VirtualClock:
    """The emulator's clock, as the engine wants it."""

    def __init__(self, manual: ManualClock, seed: int = 0) -> None:
        self.manual = manual
        self._random = random.Random(seed)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.manual.now(), UTC)

    def monotonic(self) -> float:
        return self.manual.now()

    def sleep(self, seconds: float) -> None:
        self.manual.advance(seconds)

    def random(self) -> float:
        return self._random.random()


class VirtualKinesis:
    """Reads from a model; `faults` are raised first, one per call, in order."""

    def __init__(self, model: Model, clock: VirtualClock) -> None:
        self.model, self.clock = model, clock
        self.faults: list[Exception] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def _call(self, operation: str, **params: Any) -> dict[str, Any]:
        self.calls.append((operation, params))
        if self.faults:
            raise self.faults.pop(0)
        try:
            return self.model.call(operation, params)
        except AwsError as error:
            answer = {
                "Error": {"Code": error.code, "Message": error.message},
                "ResponseMetadata": {"HTTPStatusCode": error.status},
            }
            method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
            raise translate(ClientError(answer, operation), FailedCall(method, params.get("StreamName", ""))) from error

    def describe_stream(self, stream: str) -> StreamSummary:
        found = self._call("DescribeStream", StreamName=stream)["StreamDescription"]
        created_at = datetime.fromtimestamp(found["StreamCreationTimestamp"], UTC)
        retention = found["RetentionPeriodHours"]
        return StreamSummary(
            stream, found["StreamARN"], found["StreamStatus"], "PROVISIONED", created_at, retention, "NONE"
        )

    def describe_extras(self, stream: str) -> StreamExtras:
        return stream_extras(self._call("DescribeStreamSummary", StreamName=stream))

    def list_streams(self) -> list[str]:
        return all_streams(
            lambda last: self._call("ListStreams", **({"ExclusiveStartStreamName": last} if last else {}))
        )

    def list_shards(self, stream: str) -> list[Shard]:
        return [read_shard(shard) for shard in self._call("ListShards", StreamName=stream)["Shards"]]

    def get_shard_iterator(self, stream: str, shard_id: str, position: StartingPosition) -> str:
        where: dict[str, Any] = {"ShardIteratorType": position.kind.value}
        if position.kind is Kind.AT_TIMESTAMP:
            assert position.timestamp is not None
            where["Timestamp"] = position.timestamp.timestamp()
        if position.sequence_number is not None:
            where["StartingSequenceNumber"] = position.sequence_number
        return self._call("GetShardIterator", StreamName=stream, ShardId=shard_id, **where)["ShardIterator"]

    def get_records(self, stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        answer = self._call("GetRecords", ShardIterator=iterator, Limit=limit)
        return decode_batch(msgspec.json.encode(answer), shard, self.clock.now())

    def server_time(self) -> ServerTime:
        return ServerTime(self.clock.now(), self.clock.now())


def world(shards: int = 1) -> tuple[Model, VirtualClock, VirtualKinesis]:
    """Return a model with one stream, ``orders``, its clock, and a transport to it."""
    manual = ManualClock()
    model = Model(clock=manual)
    model.call("CreateStream", {"StreamName": "orders", "ShardCount": shards})
    clock = VirtualClock(manual)
    return model, clock, VirtualKinesis(model, clock)


class ListSink:
    """Keeps what is delivered; raises the next of `errors` instead of taking a batch."""

    def __init__(self, start: StartingPosition) -> None:
        self.start = start
        self.data: list[str] = []
        self.finished: list[str] = []
        self.errors: list[Exception] = []
        self.gaps: list[Gap] = []
        self.refuses_gaps = False

    def position(self, shard: Shard) -> StartingPosition:
        return self.start

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        self.data += batch.rows.column("data").to_pylist()
        return True

    def lost(self, gap: Gap) -> None:
        if self.refuses_gaps:
            raise ServiceError(str(gap))
        self.gaps.append(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        self.finished += [shard.shard_id, *(child.shard_id for child in children)]


class Bench:
    """A consumer of the only shard of ``orders``, and everything around it."""

    def __init__(self, start: StartingPosition | None = None) -> None:
        self.model, self.clock, self.kinesis = world()
        self.put_count = 0
        self.resume(start or StartingPosition.trim_horizon())

    def resume(self, position: StartingPosition) -> None:
        """Begin again with a new consumer."""
        self.sink = ListSink(position)
        (shard,) = self.kinesis.list_shards("orders")
        feed = ReadPlan(self.kinesis, "orders", self.clock, (shard,))
        self.consumer = ShardConsumer(feed, shard, self.sink)

    def put(self, count: int) -> list[str]:
        data = [str(self.put_count + i) for i in range(count)]
        self.put_count += count
        for text in data:
            self.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": text.encode()})
        return data

    def step(self) -> float | None:
        wait = self.consumer.step()
        self.clock.manual.advance(wait or 0)
        return wait

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.kinesis.calls]
