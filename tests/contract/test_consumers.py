"""Enhanced fan-out: registering consumers, and records pushed by SubscribeToShard."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from .kit import HASH_KEYS, Answer, Server, Stream, all_payloads, deviates, new_name, payloads, refused, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


SHARD = "shardId-000000000000"
NO_PUSH = "has no SubscribeToShard"
NO_INITIAL_RESPONSE = "sends no initial-response, without which boto3 raises and leaves the connection open"

pytestmark = deviates("kinesalite", "has no consumers")


@dataclass(frozen=True)
class Consumer:
    """A registered consumer of a stream."""

    stream: Stream
    arn: str

    @classmethod
    def of(cls, stream: Stream, name: str = "reader") -> Consumer:
        """Register a consumer and wait until it may subscribe."""
        answer = stream.client.register_stream_consumer(StreamARN=stream.arn, ConsumerName=name)
        consumer = cls(stream, answer["Consumer"]["ConsumerARN"])
        wait_until(lambda: consumer.describe()["ConsumerStatus"] == "ACTIVE", "the consumer is not ACTIVE")
        return consumer

    def describe(self) -> Any:
        """Return the consumer as DescribeStreamConsumer gives it."""
        return self.stream.client.describe_stream_consumer(ConsumerARN=self.arn)["ConsumerDescription"]

    @contextmanager
    def subscribed(self, shard_id: str, kind: str, **where: Any) -> Iterator[Iterator[Answer]]:
        """Subscribe to a shard and give the events, until the block ends."""
        call: Any = self.stream.client.subscribe_to_shard
        answer = call(ConsumerARN=self.arn, ShardId=shard_id, StartingPosition={"Type": kind, **where})
        events = answer["EventStream"]
        try:
            yield (event["SubscribeToShardEvent"] for event in events)
        finally:
            events.close()


def pushed(events: Iterator[Answer], count: int) -> list[bytes]:
    """Return the data of the first ``count`` records that are pushed."""
    data: list[bytes] = []
    for event in events:
        data += payloads(event["Records"])
        if len(data) >= count:
            break
    return data


def test_a_consumer_describes_itself(server: Server) -> None:
    """A registered consumer has a name, an ARN below its stream's, and becomes ACTIVE."""
    stream = server.create()

    consumer = Consumer.of(stream, "reader")

    described = consumer.describe()
    assert described["ConsumerName"] == "reader"
    assert described["StreamARN"] == stream.arn
    assert consumer.arn.startswith(f"{stream.arn}/consumer/reader")


def test_a_consumer_is_found_by_name(server: Server) -> None:
    """DescribeStreamConsumer takes the name together with the ARN of the stream."""
    stream = server.create()
    consumer = Consumer.of(stream, "reader")

    found = server.client.describe_stream_consumer(StreamARN=stream.arn, ConsumerName="reader")

    assert found["ConsumerDescription"]["ConsumerARN"] == consumer.arn


@deviates("moto", "registers a name twice")
def test_a_consumer_name_is_taken_once(server: Server) -> None:
    """Registering a name again is refused with ResourceInUseException."""
    stream = server.create()
    Consumer.of(stream, "reader")

    with refused("ResourceInUseException", "reader"):
        server.client.register_stream_consumer(StreamARN=stream.arn, ConsumerName="reader")


@deviates("moto", "leaves ConsumerCount out")
def test_consumers_are_listed_and_counted(server: Server) -> None:
    """ListStreamConsumers gives every consumer, and the stream counts them."""
    stream = server.create()
    for name in ("first", "second"):
        Consumer.of(stream, name)

    listed = server.client.list_stream_consumers(StreamARN=stream.arn)["Consumers"]

    assert sorted(consumer["ConsumerName"] for consumer in listed) == ["first", "second"]
    assert stream.summary()["ConsumerCount"] == 2


@deviates("kinesis-mock", "gives no token")
def test_consumers_are_listed_in_pages(server: Server) -> None:
    """MaxResults cuts the list of consumers, NextToken leads on."""
    stream = server.create()
    for name in ("a", "b", "c"):
        Consumer.of(stream, name)

    first = server.client.list_stream_consumers(StreamARN=stream.arn, MaxResults=2)
    rest = server.client.list_stream_consumers(StreamARN=stream.arn, MaxResults=2, NextToken=first["NextToken"])

    names = [consumer["ConsumerName"] for consumer in first["Consumers"] + rest["Consumers"]]
    assert sorted(names) == ["a", "b", "c"]
    assert not rest.get("NextToken")


def test_a_deregistered_consumer_is_gone(server: Server) -> None:
    """A deregistered consumer can no longer be described, and its name is free again."""
    stream = server.create()
    # A name of its own: kinesis-mock looks for it in every stream and may delete the consumer of another one.
    name = f"reader-of-{stream.name}"
    consumer = Consumer.of(stream, name)

    server.client.deregister_stream_consumer(ConsumerARN=consumer.arn)
    wait_until(lambda: not server.client.list_stream_consumers(StreamARN=stream.arn)["Consumers"], "still listed")

    with refused("ResourceNotFoundException", "consumer"):
        consumer.describe()
    Consumer.of(stream, name)


def test_an_unknown_consumer_is_refused(server: Server) -> None:
    """Describing a consumer that was never registered is refused with ResourceNotFoundException."""
    stream = server.create()

    with refused("ResourceNotFoundException", "stranger"):
        server.client.describe_stream_consumer(StreamARN=stream.arn, ConsumerName="stranger")


@deviates("moto", "answers 500")
def test_an_unknown_stream_has_no_consumers(server: Server) -> None:
    """Registering a consumer with a stream that does not exist is refused with ResourceNotFoundException."""
    stream = server.create()
    other = new_name()

    with refused("ResourceNotFoundException", other):
        server.client.register_stream_consumer(StreamARN=stream.arn.replace(stream.name, other), ConsumerName="reader")


@deviates("moto", "deletes the stream")
def test_a_stream_with_consumers_is_deleted_only_on_demand(server: Server) -> None:
    """DeleteStream is refused with ResourceInUseException while there are consumers, unless EnforceConsumerDeletion."""
    stream = server.create()
    Consumer.of(stream)

    with refused("ResourceInUseException", "consumer"):
        server.client.delete_stream(StreamName=stream.name)
    server.client.delete_stream(StreamName=stream.name, EnforceConsumerDeletion=True)

    wait_until(lambda: is_gone(stream), "the stream is still there")


@deviates("moto", "has no such limit")
def test_a_stream_has_up_to_20_consumers(server: Server) -> None:
    """The 21st consumer of a stream is refused with LimitExceededException."""
    stream = server.create()
    for number in range(20):
        Consumer.of(stream, f"reader-{number}")

    with refused("LimitExceededException"):
        server.client.register_stream_consumer(StreamARN=stream.arn, ConsumerName="one-too-many")


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_pushes_what_is_there(server: Server) -> None:
    """A subscription from TRIM_HORIZON pushes the records of the shard in order, with where to go on from."""
    stream = server.create()
    written = stream.put_numbered(5)

    with Consumer.of(stream).subscribed(SHARD, "TRIM_HORIZON") as events:
        event = next(event for event in events if event["Records"])

    assert payloads(event["Records"]) == written
    assert event["Records"][-1]["PartitionKey"] == "key"
    assert int(event["ContinuationSequenceNumber"]) >= int(event["Records"][-1]["SequenceNumber"])
    assert event["MillisBehindLatest"] == 0


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_pushes_what_comes(server: Server) -> None:
    """A subscription from LATEST leaves out what is there and pushes each record that is put."""
    stream = server.create()
    stream.put(b"before")

    with Consumer.of(stream).subscribed(SHARD, "LATEST") as events:
        stream.put(b"first")
        assert pushed(events, 1) == [b"first"]
        stream.put(b"second")
        assert pushed(events, 1) == [b"second"]


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
@pytest.mark.parametrize(("kind", "due"), [("AT_SEQUENCE_NUMBER", 2), ("AFTER_SEQUENCE_NUMBER", 1)])
def test_a_subscription_starts_at_a_sequence_number(server: Server, kind: str, due: int) -> None:
    """A subscription can start at a record or behind it."""
    stream = server.create()
    numbers = [stream.put(data)[1] for data in (b"0", b"1", b"2")]

    with Consumer.of(stream).subscribed(SHARD, kind, SequenceNumber=numbers[1]) as events:
        assert pushed(events, due) == [b"0", b"1", b"2"][-due:]


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_starts_at_a_moment(server: Server) -> None:
    """A subscription can start with the first record that arrived at a moment or later."""
    stream = server.create()
    stream.put_numbered(3)
    records = stream.read(SHARD, expect=3)
    moment = records[1]["ApproximateArrivalTimestamp"]
    due = [record["Data"] for record in records if record["ApproximateArrivalTimestamp"] >= moment]

    with Consumer.of(stream).subscribed(SHARD, "AT_TIMESTAMP", Timestamp=moment) as events:
        assert pushed(events, len(due)) == due


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_ends_with_its_shard(server: Server) -> None:
    """The last event of a closed shard names its children, and nothing follows it."""
    stream = server.create()
    stream.put(b"last")
    children = stream.split(SHARD)

    with Consumer.of(stream).subscribed(SHARD, "TRIM_HORIZON") as events:
        received = list(events)

    assert all_payloads(received) == [b"last"]
    assert [child["ShardId"] for child in received[-1]["ChildShards"]] == [child["ShardId"] for child in children]
    assert all(child["ParentShards"] == [SHARD] for child in received[-1]["ChildShards"])


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_sees_its_shard_end(server: Server) -> None:
    """A shard that is split while it is subscribed to ends the subscription after its last record."""
    stream = server.create()

    with Consumer.of(stream).subscribed(SHARD, "LATEST") as events:
        stream.put(b"last")
        children = stream.split(SHARD)
        stream.put(b"in a child", ExplicitHashKey=str(HASH_KEYS - 1))
        received = list(events)

    assert all_payloads(received) == [b"last"]
    assert {child["ShardId"] for child in received[-1]["ChildShards"]} == {child["ShardId"] for child in children}


@deviates("kinesis-mock", NO_INITIAL_RESPONSE, run=False)
@deviates("moto", NO_PUSH)
def test_a_subscription_is_not_taken_over_at_once(server: Server) -> None:
    """Subscribing again within 5 seconds is refused with ResourceInUseException."""
    stream = server.create()
    consumer = Consumer.of(stream)

    with (
        consumer.subscribed(SHARD, "LATEST"),
        refused("ResourceInUseException"),
        consumer.subscribed(SHARD, "LATEST"),
    ):
        pass


@deviates("kinesis-mock", "answers 200 and no initial-response, and leaves the connection open", run=False)
@deviates("moto", NO_PUSH)
def test_a_stranger_cannot_subscribe(server: Server) -> None:
    """SubscribeToShard with the ARN of no consumer is refused with ResourceNotFoundException."""
    stream = server.create()
    consumer = Consumer(stream, f"{stream.arn}/consumer/stranger:1700000000")

    with refused("ResourceNotFoundException", "stranger"), consumer.subscribed(SHARD, "LATEST"):
        pass


@deviates("kinesis-mock", "answers 200 and no initial-response, and leaves the connection open", run=False)
@deviates("moto", NO_PUSH)
def test_an_unknown_shard_cannot_be_subscribed_to(server: Server) -> None:
    """SubscribeToShard for a shard that does not exist is refused with ResourceNotFoundException."""
    stream = server.create()

    with (
        refused("ResourceNotFoundException", "shardId-000000000009"),
        Consumer.of(stream).subscribed("shardId-000000000009", "LATEST"),
    ):
        pass


def is_gone(stream: Stream) -> bool:
    """Tell whether the server no longer knows the stream."""
    try:
        stream.summary()
    except stream.client.exceptions.ResourceNotFoundException:
        return True
    return False
