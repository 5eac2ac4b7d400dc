"""StreamARN instead of StreamName in every call that takes one."""

from __future__ import annotations

from .kit import HASH_KEYS, Server, deviates, new_name, payloads, refused

pytestmark = deviates("kinesalite", "knows no StreamARN")
SHARD = "shardId-000000000000"


def test_a_stream_is_described_by_its_arn(server: Server) -> None:
    """DescribeStream, DescribeStreamSummary and ListShards find the stream by its ARN."""
    stream = server.create(shards=2)
    arn = stream.arn

    assert server.client.describe_stream(StreamARN=arn)["StreamDescription"]["StreamName"] == stream.name
    summary = server.client.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
    assert summary["StreamName"] == stream.name
    assert server.client.list_shards(StreamARN=arn)["Shards"] == stream.shards()


def test_records_are_put_and_read_by_arn(server: Server) -> None:
    """PutRecord, PutRecords, GetShardIterator and GetRecords take the ARN."""
    stream = server.create()
    arn = stream.arn

    server.client.put_record(StreamARN=arn, Data=b"one", PartitionKey="key")
    server.client.put_records(StreamARN=arn, Records=[{"Data": b"two", "PartitionKey": "key"}])
    iterator = server.client.get_shard_iterator(StreamARN=arn, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    answer = server.client.get_records(StreamARN=arn, ShardIterator=iterator["ShardIterator"])

    assert payloads(answer["Records"]) == [b"one", b"two"]


def test_a_stream_is_reshaped_by_arn(server: Server) -> None:
    """SplitShard, MergeShards and UpdateShardCount take the ARN."""
    stream = server.create()
    arn = stream.arn

    server.client.split_shard(StreamARN=arn, ShardToSplit=SHARD, NewStartingHashKey=str(HASH_KEYS // 2))
    stream.wait_until_active()
    left, right = (shard["ShardId"] for shard in stream.open_shards())
    server.client.merge_shards(StreamARN=arn, ShardToMerge=left, AdjacentShardToMerge=right)
    stream.wait_until_active()
    server.client.update_shard_count(StreamARN=arn, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    stream.wait_until_active()

    assert len(stream.open_shards()) == 2


def test_settings_are_changed_by_arn(server: Server) -> None:
    """Retention, tags and enhanced monitoring take the ARN."""
    stream = server.create()
    arn = stream.arn

    server.client.increase_stream_retention_period(StreamARN=arn, RetentionPeriodHours=48)
    server.client.add_tags_to_stream(StreamARN=arn, Tags={"team": "data"})
    server.client.enable_enhanced_monitoring(StreamARN=arn, ShardLevelMetrics=["IncomingBytes"])

    summary = stream.summary()
    assert summary["RetentionPeriodHours"] == 48
    assert summary["EnhancedMonitoring"] == [{"ShardLevelMetrics": ["IncomingBytes"]}]
    assert server.client.list_tags_for_stream(StreamARN=arn)["Tags"] == [{"Key": "team", "Value": "data"}]


def test_a_stream_is_deleted_by_arn(server: Server) -> None:
    """DeleteStream takes the ARN."""
    stream = server.create()

    server.client.delete_stream(StreamARN=stream.arn)

    with refused("ResourceNotFoundException|ResourceInUseException"):
        stream.wait_until_active()


def test_an_arn_of_no_stream_is_unknown(server: Server) -> None:
    """An ARN whose stream does not exist is refused with ResourceNotFoundException."""
    stream = server.create()
    other = new_name()

    with refused("ResourceNotFoundException", other):
        server.client.describe_stream_summary(StreamARN=stream.arn.replace(stream.name, other))
