"""Registered consumers and SubscribeToShard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.emulator.test_model_kit import FIRST, Kit, refused, shard_name

if TYPE_CHECKING:
    from kinesis_nb.emulator.model import Subscription


def register(kit: Kit, name: str = "c") -> str:
    """Register a consumer and return its ARN."""
    arn: str = kit.call("RegisterStreamConsumer", StreamARN=kit.arn, ConsumerName=name)["Consumer"]["ConsumerARN"]
    return arn


def subscribe(kit: Kit, arn: str, kind: str = "TRIM_HORIZON", shard: int = 0, **start: Any) -> Subscription:
    """Subscribe to a shard."""
    position = {"Type": kind, **start}
    return kit.model.subscribe({"ConsumerARN": arn, "ShardId": shard_name(shard), "StartingPosition": position})


def polled(subscription: Subscription) -> list[bytes]:
    """Return the data of all records that are ready."""
    return [record["Data"] for event in subscription.poll() for record in event["Records"]]


def test_a_consumer_is_registered_described_and_deregistered() -> None:
    """A consumer is found by ARN or by stream and name, counted, and gone after deregistration."""
    kit = Kit()
    arn = register(kit)
    assert arn == f"{kit.arn}/consumer/c:1700000000"
    for params in ({"ConsumerARN": arn}, {"StreamARN": kit.arn, "ConsumerName": "c"}):
        description = kit.call("DescribeStreamConsumer", **params)["ConsumerDescription"]
        assert description == {
            "ConsumerName": "c",
            "ConsumerARN": arn,
            "ConsumerStatus": "ACTIVE",
            "ConsumerCreationTimestamp": kit.clock.now(),
            "StreamARN": kit.arn,
        }
    assert kit.summary()["ConsumerCount"] == 1
    kit.call("DeregisterStreamConsumer", ConsumerARN=arn)
    with refused("ResourceNotFoundException", "Consumer c, account 000000000000 not found."):
        kit.call("DescribeStreamConsumer", ConsumerARN=arn)
    assert kit.summary()["ConsumerCount"] == 0


def test_parameters_that_name_a_consumer_agree() -> None:
    """Too few parameters, contradicting ones, and the ARN of an earlier consumer are refused."""
    kit = Kit()
    arn = register(kit)
    with refused("InvalidArgumentException", "Either ConsumerARN"):
        kit.call("DescribeStreamConsumer", StreamARN=kit.arn)
    with refused("InvalidArgumentException", "do not refer to the same consumer"):
        kit.call("DescribeStreamConsumer", ConsumerARN=arn, ConsumerName="d")
    with refused("ResourceNotFoundException"):
        kit.call("DescribeStreamConsumer", ConsumerARN=arn[:-1] + "7")


def test_consumers_change_state_with_time() -> None:
    """A consumer is CREATING, ACTIVE and DELETING, each in its time, and can subscribe only in between."""
    kit = Kit(transition_seconds=10)
    kit.clock.advance(10)
    arn = register(kit)

    def status() -> str:
        text: str = kit.call("DescribeStreamConsumer", ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"]
        return text

    assert status() == "CREATING"
    with refused("ResourceInUseException", "is not in ACTIVE status."):
        subscribe(kit, arn)
    kit.clock.advance(10)
    assert status() == "ACTIVE"
    subscription = subscribe(kit, arn)
    kit.call("DeregisterStreamConsumer", ConsumerARN=arn)
    assert (status(), subscription.closed) == ("DELETING", True)
    kit.clock.advance(10)
    with refused("ResourceNotFoundException"):
        status()


def test_a_stream_has_20_consumers() -> None:
    """Names are unique, and the 21st consumer is one too many."""
    kit = Kit()
    for n in range(20):
        register(kit, f"c{n:02d}")
    with refused("ResourceInUseException", "Consumer c00 under stream s already exists"):
        register(kit, "c00")
    with refused("LimitExceededException"):
        register(kit, "c20")


def test_five_consumers_are_created_at_once() -> None:
    """The sixth consumer has to wait until one of the five is ACTIVE."""
    kit = Kit(transition_seconds=10)
    kit.clock.advance(10)
    for n in range(5):
        register(kit, f"c{n}")
    with refused("LimitExceededException"):
        register(kit, "c5")
    kit.clock.advance(10)
    register(kit, "c5")


def test_consumers_are_listed_in_pages() -> None:
    """ListStreamConsumers pages by MaxResults and NextToken, which expires."""
    kit = Kit()
    for n in range(5):
        register(kit, f"c{n}")
    answer = kit.call("ListStreamConsumers", StreamARN=kit.arn, MaxResults=3)
    token = answer["NextToken"]
    rest = kit.call("ListStreamConsumers", StreamARN=kit.arn, NextToken=token)
    names = [consumer["ConsumerName"] for consumer in answer["Consumers"] + rest["Consumers"]]
    assert names == [f"c{n}" for n in range(5)]
    kit.clock.advance(301)
    with refused("ExpiredNextTokenException"):
        kit.call("ListStreamConsumers", StreamARN=kit.arn, NextToken=token)


def test_consumers_have_tags() -> None:
    """A consumer's tags are set at registration and by its ARN."""
    kit = Kit()
    answer = kit.call("RegisterStreamConsumer", StreamARN=kit.arn, ConsumerName="c", Tags={"a": "1"})
    arn = answer["Consumer"]["ConsumerARN"]
    kit.call("TagResource", ResourceARN=arn, Tags={"b": "2"})
    tags = kit.call("ListTagsForResource", ResourceARN=arn)["Tags"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    assert kit.call("ListTagsForStream")["Tags"] == []


def test_a_stream_with_consumers_is_not_deleted_by_mistake() -> None:
    """DeleteStream wants EnforceConsumerDeletion while there are consumers, and then ends their subscriptions."""
    kit = Kit()
    subscription = subscribe(kit, register(kit))
    with refused("ResourceInUseException", "EnforceConsumerDeletion"):
        kit.call("DeleteStream")
    kit.call("DeleteStream", EnforceConsumerDeletion=True)
    assert subscription.closed
    assert subscription.poll() == []


def test_a_subscription_pushes_what_is_there_and_what_comes() -> None:
    """poll gives each record once, with the number to go on from and the lag."""
    kit = Kit()
    kit.put(b"1")
    last = kit.put(b"2")["SequenceNumber"]
    subscription = subscribe(kit, register(kit))
    (event,) = subscription.poll()
    assert [record["Data"] for record in event["Records"]] == [b"1", b"2"]
    assert (event.get("ContinuationSequenceNumber"), event["MillisBehindLatest"]) == (last, 0)
    assert "ChildShards" not in event
    assert subscription.poll() == []
    kit.put(b"3")
    assert polled(subscription) == [b"3"]


@pytest.mark.parametrize(
    ("kind", "due"),
    [
        ("TRIM_HORIZON", [b"0", b"1", b"2"]),
        ("LATEST", []),
        ("AT_SEQUENCE_NUMBER", [b"1", b"2"]),
        ("AFTER_SEQUENCE_NUMBER", [b"2"]),
        ("AT_TIMESTAMP", [b"1", b"2"]),
    ],
)
def test_a_subscription_starts_where_it_is_told(kind: str, due: list[bytes]) -> None:
    """The five types of StartingPosition mean what they mean for iterators."""
    kit = Kit()
    start: dict[str, Any] = {}
    for n in range(3):
        number = kit.put(str(n).encode())["SequenceNumber"]
        if n == 1 and kind.endswith("NUMBER"):
            start = {"SequenceNumber": number}
        if n == 1 and kind == "AT_TIMESTAMP":
            start = {"Timestamp": kit.clock.now()}
        kit.clock.advance(1)
    assert polled(subscribe(kit, register(kit), kind, **start)) == due


def test_a_starting_position_is_validated() -> None:
    """Foreign numbers, the future and unknown types are refused before a subscription exists."""
    kit = Kit()
    arn = register(kit)
    with refused("InvalidArgumentException", "StartingSequenceNumber"):
        subscribe(kit, arn, "AFTER_SEQUENCE_NUMBER", SequenceNumber="5")
    with refused("InvalidArgumentException"):
        subscribe(kit, arn, "AT_TIMESTAMP", Timestamp=kit.clock.now() + 1)
    with refused("ValidationException", "at 'startingPosition.type'"):
        subscribe(kit, arn, "NOW")
    with refused("ResourceNotFoundException"):
        subscribe(kit, arn, shard=3)
    subscribe(kit, arn)


def test_a_session_lasts_five_minutes() -> None:
    """After 300 s the subscription is closed and gives nothing more."""
    kit = Kit()
    subscription = subscribe(kit, register(kit))
    kit.clock.advance(299.999)
    assert not subscription.closed
    kit.clock.advance(0.001)
    kit.put()
    assert (subscription.closed, subscription.poll()) == (True, [])


def test_an_idle_shard_tells_its_progress() -> None:
    """Every 5 s an idle subscription gives an empty event whose number leads on without loss."""
    kit = Kit()
    kit.put(b"1")
    arn = register(kit)
    subscription = subscribe(kit, arn, "LATEST")
    assert subscription.poll() == []
    kit.clock.advance(5)
    (event,) = subscription.poll()
    assert (event["Records"], event["MillisBehindLatest"]) == ([], 0)
    assert subscription.poll() == []
    kit.put(b"2")
    number = event.get("ContinuationSequenceNumber", "")
    again = subscribe(kit, arn, "AFTER_SEQUENCE_NUMBER", SequenceNumber=number)
    assert polled(again) == [b"2"]


def test_a_subscription_ends_with_its_shard() -> None:
    """The last event of a closed shard has its last records, its children and no continuation."""
    kit = Kit()
    subscription = subscribe(kit, register(kit))
    kit.put(b"1")
    kit.split(0)
    (event,) = subscription.poll()
    assert [record["Data"] for record in event["Records"]] == [b"1"]
    assert [child["ShardId"] for child in event.get("ChildShards", ())] == [shard_name(1), shard_name(2)]
    assert "ContinuationSequenceNumber" not in event
    assert (subscription.closed, subscription.poll()) == (True, [])


def test_large_data_come_in_several_events() -> None:
    """One event has up to 1 MiB of records; several polls give them all, in order, with the lag on the way."""
    kit = Kit()
    for n in range(40):
        kit.put(str(n).encode().rjust(300_000, b"."))
    subscription = subscribe(kit, register(kit))
    events = [event for _ in range(3) for event in subscription.poll()]
    data = [record["Data"].lstrip(b".") for event in events for record in event["Records"]]
    assert data == [str(n).encode() for n in range(40)]
    assert all(len(event["Records"]) <= 3 for event in events)
    assert [event["MillisBehindLatest"] > 0 for event in events] == [True] * (len(events) - 1) + [False]


def test_a_large_closed_shard_ends_after_its_last_event() -> None:
    """Of several events only the last one, with the last records, is the end."""
    kit = Kit()
    for n in range(12):
        kit.put(str(n).encode().rjust(300_000, b"."))
    kit.split(0)
    events = subscribe(kit, register(kit)).poll()
    assert ["ChildShards" in event for event in events] == [False, False, False, True]
    assert sum(len(event["Records"]) for event in events) == 12


def test_a_large_record_is_an_event_of_its_own() -> None:
    """A record larger than an event should be is pushed alone."""
    kit = Kit()
    kit.call("UpdateMaxRecordSize", StreamARN=kit.arn, MaxRecordSizeInKiB=10_240)
    for size in (3, 5_000_000, 4):
        kit.put(bytes(size))
    events = subscribe(kit, register(kit)).poll()
    assert [[len(record["Data"]) for record in event["Records"]] for event in events] == [[3], [5_000_000], [4]]


def test_a_subscription_is_taken_over_after_five_seconds() -> None:
    """A second call within 5 s is refused, even after the first was closed; later it takes over."""
    kit = Kit()
    arn = register(kit)
    first = subscribe(kit, arn)
    first.close()
    with refused(
        "ResourceInUseException", f"Another active subscription exists for this consumer: 000000000000:s:{FIRST}:c"
    ):
        subscribe(kit, arn)
    kit.clock.advance(5)
    second = subscribe(kit, arn)
    kit.clock.advance(5)
    third = subscribe(kit, arn)
    assert (second.closed, third.closed) == (True, False)


def test_consumers_and_shards_do_not_disturb_each_other() -> None:
    """Two consumers get every record, and one consumer can subscribe to two shards."""
    kit = Kit(shards=2)
    one, two = register(kit, "one"), register(kit, "two")
    subscriptions = [subscribe(kit, one), subscribe(kit, two), subscribe(kit, one, shard=1)]
    kit.put(b"left", ExplicitHashKey="0")
    kit.put(b"right", ExplicitHashKey=str(2**128 - 1))
    assert [polled(subscription) for subscription in subscriptions] == [[b"left"], [b"left"], [b"right"]]


def test_a_dropped_shard_ends_its_subscription() -> None:
    """A shard that vanishes closes the subscription without a word about children."""
    kit = Kit()
    subscription = subscribe(kit, register(kit))
    kit.split(0)
    kit.model.drop_shard("s", FIRST)
    assert (subscription.closed, subscription.poll()) == (True, [])


def test_a_dry_run_subscribes_nothing() -> None:
    """DryRun answers yes and leaves the 5-second rule alone."""
    kit = Kit()
    arn = register(kit)
    params = {"ConsumerARN": arn, "ShardId": FIRST, "StartingPosition": {"Type": "LATEST"}}
    with refused("DryRunOperationException"):
        kit.model.subscribe({**params, "DryRun": True})
    kit.model.subscribe(params)
