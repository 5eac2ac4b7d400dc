"""SubscribeToShard over HTTP: the frames, and what boto3 makes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, ConnectionClosedError, EventStreamError
from urllib3.exceptions import HTTPError, ProtocolError

from kinesis_nb.emulator import AwsError, CutBody, Emulator, ErrorReply, ManualClock, Reset, SlowDrip, eventstream

AWS: Any = boto3  # its stubs name every service there is
SHARD = "shardId-000000000000"
HORIZON = {"Type": "TRIM_HORIZON"}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def emulator(clock: ManualClock) -> Iterator[Emulator]:
    """Serve an empty embedded Kinesis with a clock that is moved by hand."""
    with Emulator(clock=clock) as emulator:
        yield emulator


@pytest.fixture
def kinesis(emulator: Emulator) -> Iterator[Any]:
    """Connect boto3, without retries, to a stream `orders` of one shard."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    client = AWS.client("kinesis", **emulator.settings, config=config)
    client.create_stream(StreamName="orders", ShardCount=1)
    yield client
    client.close()


@pytest.fixture
def consumer(kinesis: Any) -> str:
    """Register a consumer of `orders`; return its ARN."""
    stream = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]
    reply = kinesis.register_stream_consumer(StreamARN=stream, ConsumerName="reader")
    return str(reply["Consumer"]["ConsumerARN"])


Subscribe = Callable[[], Any]


@pytest.fixture
def subscribe(kinesis: Any, consumer: str) -> Iterator[Subscribe]:
    """Begin subscriptions from the horizon; all are closed at the end."""
    begun: list[Any] = []

    def begin() -> Any:
        reply = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=SHARD, StartingPosition=HORIZON)
        begun.append(reply["EventStream"])
        return begun[-1]

    yield begin
    for events in begun:
        events.close()


def put(kinesis: Any, *payloads: bytes) -> None:
    for payload in payloads:
        kinesis.put_record(StreamName="orders", Data=payload, PartitionKey="k")


def records(events: Any, count: int) -> list[bytes]:
    """Read events until `count` records have arrived."""
    seen: list[bytes] = []
    for event in events:
        seen += [record["Data"] for record in event["SubscribeToShardEvent"]["Records"]]
        if len(seen) >= count:
            return seen
    return seen


# -- frames ---------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_botocore_decodes_the_frames() -> None:
    """Prelude, headers, payload and both checksums are as botocore expects them."""
    first, second = decode(eventstream.event("initial-response") + eventstream.event("X", b'{"a":1}'))
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "initial-response",
        ":content-type": "application/x-amz-json-1.1",
    }
    assert (second.headers[":event-type"], second.payload) == ("X", b'{"a":1}')


def test_an_exception_frame() -> None:
    """An error inside the stream carries its code in the headers and its text in the payload."""
    (message,) = decode(eventstream.exception(AwsError("ResourceInUseException", "busy")))
    assert message.headers[":exception-type"] == "ResourceInUseException"
    assert message.payload == b'{"message":"busy"}'


def test_an_unread_stream_ends_its_subscription(emulator: Emulator, consumer: str) -> None:
    """Dropping the frames closes the subscription behind them."""
    request = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": HORIZON}
    subscription = emulator.model.subscribe(request)
    frames = eventstream.subscription_frames(subscription, lambda _: True)
    assert decode(next(frames))[0].headers[":event-type"] == "initial-response"
    assert not subscription.closed
    frames.close()
    assert subscription.closed


# -- the stream -----------------------------------------------------------------------------------------------------


def test_boto3_reads_what_is_there(kinesis: Any, subscribe: Subscribe) -> None:
    """A subscription from the horizon brings the records, with a position to resume from."""
    put(kinesis, b"one", b"two")
    events = subscribe()
    first = next(iter(events))["SubscribeToShardEvent"]
    assert [record["Data"] for record in first["Records"]] == [b"one", b"two"]
    assert first["ContinuationSequenceNumber"]
    assert first["MillisBehindLatest"] == 0


def test_records_are_pushed_while_they_are_written(kinesis: Any, subscribe: Subscribe) -> None:
    """A record that is put after the subscription began arrives without another request."""
    events = subscribe()
    put(kinesis, b"live")
    assert records(events, 1) == [b"live"]


def test_the_session_ends_after_five_minutes(kinesis: Any, subscribe: Subscribe, clock: ManualClock) -> None:
    """The stream ends by itself, in an orderly way; the connection can be used again."""
    put(kinesis, b"one")
    events = iter(subscribe())
    assert next(events)["SubscribeToShardEvent"]["Records"]
    clock.advance(301)
    assert all(not event["SubscribeToShardEvent"]["Records"] for event in events)
    assert kinesis.list_streams()["StreamNames"] == ["orders"]


def test_the_end_of_a_shard_names_its_children(kinesis: Any, subscribe: Subscribe) -> None:
    """A closed shard is delivered to its last record; the last event lists the child shards."""
    put(kinesis, b"one")
    kinesis.split_shard(StreamName="orders", ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    events = [event["SubscribeToShardEvent"] for event in subscribe()]
    assert [record["Data"] for event in events for record in event["Records"]] == [b"one"]
    assert len(events[-1]["ChildShards"]) == 2


def test_an_unknown_consumer_is_refused_before_the_stream(kinesis: Any, consumer: str) -> None:
    """What is wrong from the start is an ordinary error."""
    unknown = consumer.replace("reader", "nobody")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        kinesis.subscribe_to_shard(ConsumerARN=unknown, ShardId=SHARD, StartingPosition=HORIZON)


def test_an_abandoned_subscription_leaves_no_thread(kinesis: Any, consumer: str, emulator: Emulator) -> None:
    """A client that hangs up is noticed although nothing is written to it."""
    before = {thread.name for thread in threading.enumerate()}
    other = AWS.client("kinesis", **emulator.settings)
    stream = other.subscribe_to_shard(ConsumerARN=consumer, ShardId=SHARD, StartingPosition=HORIZON)["EventStream"]
    serving = [thread for thread in threading.enumerate() if thread.name not in before]
    assert serving
    stream.close()
    other.close()
    for thread in serving:
        thread.join(5)
        assert not thread.is_alive()


def test_stop_ends_a_subscription(kinesis: Any, subscribe: Subscribe, emulator: Emulator) -> None:
    """stop() takes less than a second with a subscription open, and the reader sees a broken stream."""
    put(kinesis, b"one")
    events = iter(subscribe())
    next(events)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: records(events, 1_000))
        started = monotonic()
        emulator.stop()
        assert monotonic() - started < 1
        assert isinstance(rest.exception(5), (HTTPError, ConnectionError, OSError))


# -- faults ---------------------------------------------------------------------------------------------------------


def test_a_stream_cut_inside_an_event(kinesis: Any, subscribe: Subscribe, emulator: Emulator) -> None:
    """The connection ends within the first event: no record, and a broken stream."""
    put(kinesis, b"one")
    emulator.on("SubscribeToShard", CutBody(0.5))
    with pytest.raises(ProtocolError):
        records(subscribe(), 1)
    assert emulator.delivered == {"CutBody": 1}


def test_a_stream_cut_with_an_orderly_end(kinesis: Any, subscribe: Subscribe, emulator: Emulator) -> None:
    """With `short` the stream seems to end well, and botocore drops half an event in silence."""
    put(kinesis, b"one")
    emulator.on("SubscribeToShard", CutBody(0.5, short=True))
    assert records(subscribe(), 1) == []


def test_an_error_inside_the_stream(subscribe: Subscribe, emulator: Emulator) -> None:
    """`applied=True` begins the subscription and ends it with an exception event."""
    emulator.on("SubscribeToShard", ErrorReply("ResourceInUseException", applied=True))
    with pytest.raises(EventStreamError, match="ResourceInUseException"):
        records(subscribe(), 1)


def test_an_error_instead_of_the_stream(subscribe: Subscribe, emulator: Emulator) -> None:
    """A plain error comes before any event."""
    emulator.on("SubscribeToShard", ErrorReply("LimitExceededException"))
    with pytest.raises(ClientError, match="LimitExceededException"):
        subscribe()


def test_a_reset_subscription(subscribe: Subscribe, emulator: Emulator) -> None:
    """The connection is reset before any event."""
    emulator.on("SubscribeToShard", Reset(before=False))
    with pytest.raises(ConnectionClosedError):
        subscribe()


def test_a_dripping_subscription_arrives_whole(kinesis: Any, subscribe: Subscribe, emulator: Emulator) -> None:
    """Events that arrive in small pieces are put together by the client."""
    put(kinesis, b"one")
    emulator.on("SubscribeToShard", SlowDrip(4000))
    events = subscribe()
    assert records(events, 1) == [b"one"]
