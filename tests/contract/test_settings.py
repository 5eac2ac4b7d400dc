"""What can be set on a stream: retention, tags, encryption, enhanced monitoring."""

from __future__ import annotations

import pytest

from .kit import MOCK_VALIDATION, MOTO_VALIDATION, Server, Stream, deviates, new_name, refused, wait_until

NO_ENCRYPTION = "has no encryption"
NO_LARGE_RECORDS = "knows no other size than 1 MiB"
NO_MONITORING = "has no enhanced monitoring"


def test_retention_goes_up_and_down(server: Server) -> None:
    """IncreaseStreamRetentionPeriod and its opposite set the hours that the stream describes."""
    stream = server.create()

    server.client.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=168)
    assert stream.summary()["RetentionPeriodHours"] == 168

    server.client.decrease_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=48)
    assert stream.summary()["RetentionPeriodHours"] == 48


def test_records_survive_a_change_of_retention(server: Server) -> None:
    """Young records stay when the retention is changed."""
    stream = server.create()
    shard_id, _ = stream.put(b"young")

    server.client.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=48)
    server.client.decrease_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=24)

    assert [record["Data"] for record in stream.read(shard_id, expect=1)] == [b"young"]


def test_retention_is_not_increased_downwards(server: Server) -> None:
    """IncreaseStreamRetentionPeriod to fewer hours is refused with InvalidArgumentException."""
    stream = server.create()
    server.client.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=72)

    with refused("InvalidArgumentException", "retention period"):
        server.client.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=48)


def test_retention_is_not_decreased_upwards(server: Server) -> None:
    """DecreaseStreamRetentionPeriod to more hours is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException", "retention period"):
        server.client.decrease_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=48)


def test_retention_is_a_day_at_least(server: Server) -> None:
    """Fewer than 24 hours are refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException", "retention period"):
        server.client.decrease_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=23)


@deviates("kinesalite", "knows the older limit of 168 hours and answers ValidationException")
def test_retention_is_a_year_at_most(server: Server) -> None:
    """More than 8,760 hours are refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException", "retention period"):
        server.client.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=8761)


def test_tags_are_added_listed_and_removed(server: Server) -> None:
    """Tags are listed by key; adding one again replaces its value; removing one that is not there is no error."""
    name = server.create().name

    server.client.add_tags_to_stream(StreamName=name, Tags={"team": "data", "env": "test"})
    server.client.add_tags_to_stream(StreamName=name, Tags={"env": "prod"})
    assert tags_of(server, name) == {"env": "prod", "team": "data"}

    server.client.remove_tags_from_stream(StreamName=name, TagKeys=["team", "absent"])
    assert tags_of(server, name) == {"env": "prod"}


@deviates("moto", "begins the next page with the last tag of the one before")
def test_tags_are_listed_in_pages(server: Server) -> None:
    """Limit cuts the list of tags, HasMoreTags says so, ExclusiveStartTagKey goes on."""
    name = server.create().name
    server.client.add_tags_to_stream(StreamName=name, Tags={"a": "1", "b": "2", "c": "3"})

    first = server.client.list_tags_for_stream(StreamName=name, Limit=2)
    rest = server.client.list_tags_for_stream(StreamName=name, ExclusiveStartTagKey="b")

    assert ([tag["Key"] for tag in first["Tags"]], first["HasMoreTags"]) == (["a", "b"], True)
    assert ([tag["Key"] for tag in rest["Tags"]], rest["HasMoreTags"]) == (["c"], False)


@deviates("moto", "takes any number of tags")
def test_a_stream_has_up_to_50_tags(server: Server) -> None:
    """The 51st tag of a stream is refused."""
    name = server.create().name
    for tens in range(5):
        server.client.add_tags_to_stream(StreamName=name, Tags={f"{tens}{ones}": "" for ones in range(10)})

    with refused("InvalidArgumentException|LimitExceededException", "tags"):
        server.client.add_tags_to_stream(StreamName=name, Tags={"one": "too many"})


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
@pytest.mark.parametrize("key", ["", "k" * 129], ids=["empty", "long"])
def test_a_tag_key_has_1_to_128_characters(server: Server, key: str) -> None:
    """A tag with an empty key or one of 129 characters is a ValidationException."""
    name = server.create().name

    with refused("ValidationException", "tags"):
        server.unchecked.add_tags_to_stream(StreamName=name, Tags={key: "value"})


@deviates("kinesalite", "ignores tags of CreateStream")
@deviates("moto", "ignores tags of CreateStream")
def test_a_stream_can_be_created_with_tags(server: Server) -> None:
    """Tags given to CreateStream are on the stream."""
    stream = Stream(server, new_name())

    server.client.create_stream(StreamName=stream.name, ShardCount=1, Tags={"team": "data"})
    stream.wait_until_active()

    assert tags_of(server, stream.name) == {"team": "data"}


@deviates("kinesalite", "has no TagResource")
@deviates("moto", "has no TagResource")
def test_tags_of_a_resource_are_the_tags_of_the_stream(server: Server) -> None:
    """TagResource, ListTagsForResource and UntagResource work on the tags of the stream."""
    stream = server.create()

    server.client.tag_resource(ResourceARN=stream.arn, Tags={"team": "data", "env": "test"})
    server.client.untag_resource(ResourceARN=stream.arn, TagKeys=["env"])

    assert server.client.list_tags_for_resource(ResourceARN=stream.arn)["Tags"] == [{"Key": "team", "Value": "data"}]
    assert tags_of(server, stream.name) == {"team": "data"}


@deviates("kinesalite", NO_LARGE_RECORDS)
@deviates("moto", NO_LARGE_RECORDS)
def test_a_stream_can_allow_larger_records(server: Server) -> None:
    """UpdateMaxRecordSize lets records of more than 1 MiB in, up to the new size, and the stream describes it."""
    stream = server.create()
    data = b"m" * (2**20 + 2**19)

    server.client.update_max_record_size(StreamARN=stream.arn, MaxRecordSizeInKiB=2048)
    stream.wait_until_active()
    shard_id, _ = stream.put(data)

    assert stream.summary()["MaxRecordSizeInKiB"] == 2048
    assert [record["Data"] for record in stream.read(shard_id, expect=1)] == [data]
    with refused("ValidationException|InvalidArgumentException", "1572864|2097152|size"):
        stream.put(data + data)


@deviates("kinesalite", NO_ENCRYPTION)
def test_encryption_is_switched_on_and_off(server: Server) -> None:
    """StartStreamEncryption shows as KMS with the key; StopStreamEncryption takes it back."""
    stream = server.create()

    server.client.start_stream_encryption(StreamName=stream.name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    wait_until(lambda: stream.summary()["EncryptionType"] == "KMS", "encryption is off")
    stream.wait_until_active()
    assert stream.summary()["KeyId"] == "alias/aws/kinesis"

    server.client.stop_stream_encryption(StreamName=stream.name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    wait_until(lambda: stream.summary()["EncryptionType"] == "NONE", "encryption is on")


@deviates("kinesalite", NO_ENCRYPTION)
@deviates("moto", "leaves EncryptionType out of puts and reads")
def test_an_encrypted_stream_says_so_with_each_record(server: Server) -> None:
    """Puts to and reads from an encrypted stream carry EncryptionType KMS, and the data comes back in clear."""
    stream = server.create()
    server.client.start_stream_encryption(StreamName=stream.name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    wait_until(lambda: stream.summary()["EncryptionType"] == "KMS", "encryption is off")
    stream.wait_until_active()

    answer = server.client.put_record(StreamName=stream.name, Data=b"secret", PartitionKey="key")
    (record,) = stream.read(answer["ShardId"], expect=1)

    assert (answer["EncryptionType"], record["EncryptionType"]) == ("KMS", "KMS")
    assert record["Data"] == b"secret"


@deviates("kinesalite", NO_MONITORING)
def test_enhanced_monitoring_is_switched_on_and_off(server: Server) -> None:
    """The answers tell the metrics before and after, and the stream describes those that are on."""
    name = server.create().name

    on = server.client.enable_enhanced_monitoring(
        StreamName=name, ShardLevelMetrics=["IncomingBytes", "OutgoingRecords"]
    )
    off = server.client.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["IncomingBytes"])

    assert (on["CurrentShardLevelMetrics"], set(on["DesiredShardLevelMetrics"])) == (
        [],
        {"IncomingBytes", "OutgoingRecords"},
    )
    assert set(off["CurrentShardLevelMetrics"]) == {"IncomingBytes", "OutgoingRecords"}
    assert off["DesiredShardLevelMetrics"] == ["OutgoingRecords"]
    assert Stream(server, name).summary()["EnhancedMonitoring"] == [{"ShardLevelMetrics": ["OutgoingRecords"]}]


@deviates("kinesalite", NO_MONITORING)
def test_all_metrics_can_be_switched_off_at_once(server: Server) -> None:
    """DisableEnhancedMonitoring with ALL leaves none."""
    name = server.create().name
    server.client.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["IncomingBytes", "OutgoingRecords"])

    server.client.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])

    assert Stream(server, name).summary()["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]


def tags_of(server: Server, name: str) -> dict[str, str]:
    """Return the tags of a stream."""
    return {tag["Key"]: tag["Value"] for tag in server.client.list_tags_for_stream(StreamName=name)["Tags"]}
