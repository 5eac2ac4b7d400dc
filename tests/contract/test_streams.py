"""Streams: creating, describing, listing and deleting them."""

from __future__ import annotations

import pytest

from .kit import (
    HASH_KEYS,
    MOCK_VALIDATION,
    Server,
    Stream,
    cover_all_hash_keys,
    deviates,
    hash_range,
    in_time,
    new_name,
    refused,
    wait_until,
)


def test_a_new_stream_describes_itself(server: Server) -> None:
    """DescribeStreamSummary tells name, ARN, state and the defaults of a new stream."""
    stream = server.create(shards=3)

    summary = stream.summary()

    assert summary["StreamName"] == stream.name
    assert summary["StreamARN"].startswith("arn:aws:kinesis:us-east-1:")
    assert summary["StreamARN"].endswith(f":stream/{stream.name}")
    assert summary["StreamStatus"] == "ACTIVE"
    assert summary["OpenShardCount"] == 3
    assert summary["RetentionPeriodHours"] == 24
    assert summary["EncryptionType"] == "NONE"
    assert summary["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]


@deviates("kinesalite", "knows no stream modes")
def test_a_stream_is_provisioned_unless_said_otherwise(server: Server) -> None:
    """The stream mode is PROVISIONED by default, and there are no consumers yet."""
    summary = server.create().summary()

    assert summary["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}


@deviates("moto", "leaves ConsumerCount out")
def test_a_new_stream_has_no_consumers(server: Server) -> None:
    """ConsumerCount is there and 0."""
    assert server.create().summary()["ConsumerCount"] == 0


@deviates("moto", "streams are ACTIVE at once")
def test_a_stream_is_creating_at_first(server: Server) -> None:
    """Straight after CreateStream the stream is CREATING, and it becomes ACTIVE by itself."""

    def attempt() -> None:
        stream = Stream(server, new_name())
        server.client.create_stream(StreamName=stream.name, ShardCount=1)
        assert stream.summary()["StreamStatus"] == "CREATING"
        stream.wait_until_active()

    in_time(attempt)


@deviates("kinesis-mock", "answers ResourceInUseException")
@deviates("moto", "streams are ACTIVE at once")
def test_a_stream_that_is_creating_takes_no_records(server: Server) -> None:
    """A put to a stream that is still CREATING is refused as if the stream did not exist."""

    def attempt() -> None:
        stream = Stream(server, new_name())
        server.client.create_stream(StreamName=stream.name, ShardCount=1)
        with refused("ResourceNotFoundException", stream.name):
            stream.put(b"too early")

    in_time(attempt)


@deviates("moto", "streams are ACTIVE at once")
def test_a_stream_that_is_creating_cannot_be_resharded(server: Server) -> None:
    """A reshard of a stream that is not ACTIVE is refused with ResourceInUseException."""

    def attempt() -> None:
        stream = Stream(server, new_name())
        server.client.create_stream(StreamName=stream.name, ShardCount=1)
        with refused("ResourceInUseException", "not (currently )?ACTIVE"):
            server.client.split_shard(
                StreamName=stream.name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HASH_KEYS // 2)
            )

    in_time(attempt)


def test_the_shards_of_a_new_stream_share_all_hash_keys(server: Server) -> None:
    """The shards are numbered from 0, have no parents, and cover 0 to 2**128 - 1 evenly without a gap."""
    shards = server.create(shards=3).shards()

    assert [shard["ShardId"] for shard in shards] == [f"shardId-{number:012d}" for number in range(3)]
    assert not any(shard.get("ParentShardId") for shard in shards)
    assert cover_all_hash_keys(shards)
    sizes = [last - first for first, last in map(hash_range, shards)]
    assert max(sizes) - min(sizes) <= 2


def test_describe_stream_lists_the_shards(server: Server) -> None:
    """DescribeStream gives the same shards as ListShards and says that there are no more."""
    stream = server.create(shards=2)

    description = server.client.describe_stream(StreamName=stream.name)["StreamDescription"]

    assert description["Shards"] == stream.shards()
    assert description["HasMoreShards"] is False


@deviates("kinesalite", "ignores Limit and ExclusiveStartShardId")
@deviates("moto", "ignores ExclusiveStartShardId")
def test_describe_stream_gives_shards_in_pages(server: Server) -> None:
    """Limit cuts the list of shards, HasMoreShards says so, ExclusiveStartShardId goes on after a shard."""
    name = server.create(shards=3).name

    first = server.client.describe_stream(StreamName=name, Limit=2)["StreamDescription"]
    last_seen = first["Shards"][-1]["ShardId"]
    rest = server.client.describe_stream(StreamName=name, Limit=2, ExclusiveStartShardId=last_seen)["StreamDescription"]

    assert [shard["ShardId"][-1] for shard in first["Shards"]] == ["0", "1"]
    assert first["HasMoreShards"] is True
    assert [shard["ShardId"][-1] for shard in rest["Shards"]] == ["2"]
    assert rest["HasMoreShards"] is False


def test_a_name_is_taken_once(server: Server) -> None:
    """CreateStream for a name that exists is refused with ResourceInUseException."""
    stream = server.create()

    with refused("ResourceInUseException", f"{stream.name}"):
        server.client.create_stream(StreamName=stream.name, ShardCount=1)


@pytest.mark.parametrize("name", ["with space", "with/slash", "", "x" * 129], ids=["space", "slash", "empty", "long"])
@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", "checks no names")
def test_a_bad_stream_name_is_refused(server: Server, name: str) -> None:
    """A name must be 1 to 128 of [a-zA-Z0-9_.-]; anything else is a ValidationException."""
    with refused("ValidationException", "streamName"):
        server.unchecked.create_stream(StreamName=name, ShardCount=1)


@deviates("kinesis-mock", "answers LimitExceededException")
@deviates("moto", "answers 500 to a stream without shards")
def test_a_stream_needs_a_shard(server: Server) -> None:
    """ShardCount 0 is a ValidationException."""
    with refused("ValidationException"):
        server.unchecked.create_stream(StreamName=new_name(), ShardCount=0)


@deviates("moto", "lists streams in the order of their creation")
def test_streams_are_listed_by_name_in_pages(server: Server) -> None:
    """ListStreams is sorted; Limit cuts a page, HasMoreStreams says so, ExclusiveStartStreamName goes on."""
    # Behind every other stream of the run, so that the last page really is the last one.
    names = [f"zzz-{letter}-{new_name()}" for letter in "cab"]
    for name in names:
        server.client.create_stream(StreamName=name, ShardCount=1)
    first, second, third = sorted(names)

    page = server.client.list_streams(ExclusiveStartStreamName=first, Limit=1)
    last = server.client.list_streams(ExclusiveStartStreamName=second, Limit=1)

    assert (page["StreamNames"], page["HasMoreStreams"]) == ([second], True)
    assert (last["StreamNames"], last["HasMoreStreams"]) == ([third], False)
    for name in names:
        Stream(server, name).wait_until_active()
        server.client.delete_stream(StreamName=name)


@deviates("kinesalite", "knows no stream summaries")
@deviates("kinesis-mock", "knows no stream summaries")
@deviates("moto", "lists the summaries of all streams on every page")
def test_list_streams_summarises_each_stream(server: Server) -> None:
    """StreamSummaries has one entry for each name on the page, with ARN, state and mode."""
    for _ in range(3):
        server.create()

    page = server.client.list_streams(Limit=2)

    assert [summary["StreamName"] for summary in page["StreamSummaries"]] == page["StreamNames"]
    assert all(summary["StreamARN"].endswith(summary["StreamName"]) for summary in page["StreamSummaries"])
    modes = {summary["StreamModeDetails"]["StreamMode"] for summary in page["StreamSummaries"]}
    assert modes <= {"PROVISIONED", "ON_DEMAND"}  # other tests leave streams of either mode


@deviates("kinesalite", "knows no NextToken for streams")
@deviates("kinesis-mock", "knows no NextToken for streams")
@deviates("moto", "knows no NextToken for streams")
def test_streams_are_listed_with_a_token_too(server: Server) -> None:
    """The NextToken of a ListStreams page leads to the next page."""
    for _ in range(3):
        server.create()
    two = server.client.list_streams(Limit=2)["StreamNames"]

    first = server.client.list_streams(Limit=1)
    second = server.client.list_streams(Limit=1, NextToken=first["NextToken"])

    assert first["StreamNames"] + second["StreamNames"] == two


@pytest.mark.parametrize("limit", [0, 10_001])
@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", "checks no limits")
def test_list_streams_checks_its_limit(server: Server, limit: int) -> None:
    """Limit must be 1 to 10,000."""
    with refused("ValidationException", "limit"):
        server.unchecked.list_streams(Limit=limit)


def test_a_deleted_stream_is_gone(server: Server) -> None:
    """A deleted stream is DELETING for a while, then unknown and no longer listed."""
    stream = server.create()

    server.client.delete_stream(StreamName=stream.name)

    wait_until(lambda: stream.name not in all_names(server), "the stream is still listed")
    with refused("ResourceNotFoundException", stream.name):
        stream.summary()


@deviates("moto", "streams are gone at once")
def test_a_stream_is_deleting_before_it_is_gone(server: Server) -> None:
    """Straight after DeleteStream the stream can be described and is DELETING."""

    def attempt() -> None:
        stream = server.create()
        server.client.delete_stream(StreamName=stream.name)
        assert stream.summary()["StreamStatus"] == "DELETING"

    in_time(attempt)


def test_a_deleted_name_starts_afresh(server: Server) -> None:
    """A stream created under the name of a deleted one has none of its records."""
    stream = server.create()
    stream.put(b"old")
    server.client.delete_stream(StreamName=stream.name)
    wait_until(lambda: stream.name not in all_names(server), "the stream is still listed")

    server.client.create_stream(StreamName=stream.name, ShardCount=1)
    stream.wait_until_active()
    shard_id, _ = stream.put(b"new")

    assert [record["Data"] for record in stream.read(shard_id, expect=1)] == [b"new"]


@deviates("kinesalite", "knows no stream modes")
def test_an_on_demand_stream_starts_with_four_shards(server: Server) -> None:
    """A stream in ON_DEMAND mode needs no ShardCount and gets 4 shards."""
    stream = Stream(server, new_name())

    server.client.create_stream(StreamName=stream.name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    stream.wait_until_active()

    assert stream.summary()["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert len(stream.open_shards()) == 4


@deviates("kinesalite", "knows no stream modes")
def test_the_mode_of_a_stream_can_be_changed(server: Server) -> None:
    """UpdateStreamMode turns a provisioned stream into an on-demand one."""
    stream = server.create()

    server.client.update_stream_mode(StreamARN=stream.arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    stream.wait_until_active()

    assert stream.summary()["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


@deviates("kinesalite", "knows no stream modes")
@deviates("kinesis-mock", "rescales on-demand streams")
def test_an_on_demand_stream_cannot_be_rescaled(server: Server) -> None:
    """UpdateShardCount is refused with ValidationException for a stream that scales by itself."""
    stream = Stream(server, new_name())
    server.client.create_stream(StreamName=stream.name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    stream.wait_until_active()

    with refused("ValidationException", "on-demand"):
        stream.rescale(8)


@deviates("kinesalite", "has no DescribeLimits")
@deviates("moto", "always says that no shard is open")
def test_describe_limits_counts_open_shards(server: Server) -> None:
    """DescribeLimits tells how many shards are open in the account and how many may be."""
    server.create()  # once this one is active, so is whatever other tests left in between states
    before = server.client.describe_limits()

    server.create(shards=2)

    after = server.client.describe_limits()
    assert after["OpenShardCount"] - before["OpenShardCount"] == 2
    assert after["ShardLimit"] > after["OpenShardCount"]


def all_names(server: Server) -> list[str]:
    """Return the names of all streams, page by page."""
    page = server.client.list_streams(Limit=100)
    names = list(page["StreamNames"])
    while page["HasMoreStreams"]:
        page = server.client.list_streams(Limit=100, ExclusiveStartStreamName=names[-1])
        names += page["StreamNames"]
    return names
