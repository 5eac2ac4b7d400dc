"""Streams from creation to deletion: states, retention, tags, encryption, monitoring, mode."""

from __future__ import annotations

import pytest

from tests.emulator.test_model_kit import FIRST, HOUR, Kit, refused


def slow(seconds: float = 10.0) -> Kit:
    """Return a kit in which every change takes a while, with a stream that is still CREATING."""
    return Kit(transition_seconds=seconds)


def active() -> Kit:
    """Return a kit in which every change takes 10 s, with an ACTIVE stream."""
    kit = slow()
    kit.clock.advance(10)
    return kit


def test_a_stream_is_created_at_once_by_default() -> None:
    """Without a transition time a stream is ACTIVE straight away."""
    assert Kit().summary()["StreamStatus"] == "ACTIVE"


def test_a_stream_is_creating_for_a_while() -> None:
    """CREATING lasts as long as told, with a description but without shards and data."""
    kit = slow()
    description = kit.call("DescribeStream")["StreamDescription"]
    assert (description["StreamStatus"], description["Shards"]) == ("CREATING", [])
    with refused("ResourceInUseException", "instead in state CREATING"):
        kit.shards()
    with refused("ResourceInUseException", "not ACTIVE, instead in state CREATING"):
        kit.split(0, 1000)
    with refused("ResourceNotFoundException", "Stream s under account 000000000000 not found."):
        kit.put()
    with refused("ResourceNotFoundException"):
        kit.iterator()
    kit.clock.advance(10)
    assert kit.summary()["StreamStatus"] == "ACTIVE"
    kit.put()
    assert len(kit.read()) == 1


def test_the_horizon_of_a_young_stream_has_its_first_shards() -> None:
    """The time in CREATING does not count: at the trim horizon the first shards are open."""
    kit = active()
    kit.clock.advance(60)
    assert kit.ids(ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [0]


def test_a_reshard_happens_at_the_end_of_updating() -> None:
    """While UPDATING, reading and writing go on in the old shards; another reshard is refused."""
    kit = active()
    kit.split(0, 1000)
    assert kit.summary()["StreamStatus"] == "UPDATING"
    kit.put(b"during")
    assert kit.read() == [b"during"]
    assert kit.ids() == [0]
    with refused("ResourceInUseException", "instead in state UPDATING"):
        kit.rescale(2)
    kit.clock.advance(9.999)
    assert kit.open_ids() == [0]
    kit.clock.advance(0.001)
    assert kit.open_ids() == [1, 2]
    assert kit.summary()["StreamStatus"] == "ACTIVE"


def test_a_reshard_is_dated_when_it_was_due() -> None:
    """A reshard that nobody looked at for an hour still happened when its time had come."""
    kit = active()
    kit.split(0, 1000)
    moment = kit.clock.now()
    kit.clock.advance(HOUR)
    assert kit.ids(ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": moment + 9}) == [0]
    assert kit.ids(ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": moment + 11}) == [1, 2]


def test_a_deleted_stream_can_be_read_for_a_while() -> None:
    """DELETING streams are read but not written, their name is taken, then they are gone."""
    kit = active()
    kit.put(b"last")
    kit.call("DeleteStream")
    assert kit.summary()["StreamStatus"] == "DELETING"
    assert kit.read() == [b"last"]
    with refused("ResourceNotFoundException"):
        kit.put()
    with refused("ResourceInUseException", "already exists"):
        kit.call("CreateStream", ShardCount=1)
    with refused("ResourceInUseException"):
        kit.call("DeleteStream")
    kit.clock.advance(10)
    with refused("ResourceNotFoundException", "Stream s under account 000000000000 not found."):
        kit.summary()
    assert kit.call("ListStreams")["StreamNames"] == []


def test_a_name_is_taken_once() -> None:
    """Creating a stream again is refused; after deletion the name is free and the stream empty."""
    kit = Kit()
    kit.put()
    with refused("ResourceInUseException", "Stream s under account 000000000000 already exists."):
        kit.call("CreateStream", ShardCount=1)
    kit.call("DeleteStream")
    kit.clock.advance(5)
    kit.call("CreateStream", ShardCount=1)
    assert kit.read() == []
    assert kit.summary()["StreamCreationTimestamp"] == kit.clock.now()


def test_shard_count_goes_with_the_mode() -> None:
    """Provisioned streams need ShardCount, on-demand streams refuse it."""
    kit = Kit(create=False)
    with refused("ValidationException", "ShardCount"):
        kit.call("CreateStream")
    with refused("ValidationException", "ShardCount"):
        kit.call("CreateStream", ShardCount=2, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    with refused("ValidationException", "at 'shardCount'"):
        kit.call("CreateStream", ShardCount=0)


def test_the_mode_can_be_changed() -> None:
    """UpdateStreamMode keeps the shards and decides who reshards."""
    kit = active()
    kit.call("UpdateStreamMode", StreamARN=kit.arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert kit.summary()["StreamStatus"] == "UPDATING"
    kit.clock.advance(10)
    assert kit.summary()["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    with refused("ValidationException", "On-Demand"):
        kit.rescale(2)


def test_retention_goes_up_and_down() -> None:
    """Each of the two calls goes its way, between 24 and 8,760 hours."""
    kit = Kit()
    kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=48)
    assert kit.summary()["RetentionPeriodHours"] == 48
    with refused("InvalidArgumentException", "can not be shorter than existing retention period (48 hours)"):
        kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=47)
    with refused("InvalidArgumentException", "can not be longer than existing retention period (48 hours)"):
        kit.call("DecreaseStreamRetentionPeriod", RetentionPeriodHours=49)
    with refused("InvalidArgumentException", "Minimum allowed retention period is 24 hours."):
        kit.call("DecreaseStreamRetentionPeriod", RetentionPeriodHours=23)
    with refused("InvalidArgumentException", "Maximum allowed retention period is 8760 hours."):
        kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=8761)
    kit.call("DecreaseStreamRetentionPeriod", RetentionPeriodHours=24)
    assert kit.summary()["RetentionPeriodHours"] == 24


def test_longer_retention_brings_nothing_back() -> None:
    """What had expired stays gone; what had not lives longer."""
    kit = Kit()
    kit.put(b"gone")
    kit.clock.advance(2 * HOUR)
    kit.put(b"kept")
    kit.clock.advance(23 * HOUR)
    kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=48)
    assert kit.read() == [b"kept"]
    kit.clock.advance(24 * HOUR)
    assert kit.read() == [b"kept"]


def test_longer_retention_brings_nothing_back_of_the_last_minute() -> None:
    """What expired seconds before the change is gone as well."""
    kit = Kit()
    kit.put(b"gone")
    kit.clock.advance(24 * HOUR - 1)
    kit.summary()
    kit.clock.advance(2)
    kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=48)
    assert kit.read() == []


def test_longer_retention_brings_no_shard_back() -> None:
    """A closed shard that had expired with its data is not listed again."""
    kit = Kit()
    kit.rescale(2)
    kit.clock.advance(25 * HOUR)
    listed = [shard["ShardId"] for shard in kit.call("ListShards")["Shards"]]
    kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=48)
    assert [shard["ShardId"] for shard in kit.call("ListShards")["Shards"]] == listed
    assert len(listed) == 2


def test_shorter_retention_takes_at_once() -> None:
    """Data older than the new period are lost."""
    kit = Kit()
    kit.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=48)
    kit.put(b"old")
    kit.clock.advance(25 * HOUR)
    assert kit.read() == [b"old"]
    kit.call("DecreaseStreamRetentionPeriod", RetentionPeriodHours=24)
    assert kit.read() == []


def test_tags_of_a_stream() -> None:
    """Tags are set at creation, added, overwritten, listed in pages and removed."""
    kit = Kit(create=False)
    kit.call("CreateStream", ShardCount=1, Tags={"a": "1"})
    kit.call("AddTagsToStream", Tags={"b": "2", "c": ""})
    kit.call("AddTagsToStream", Tags={"a": "one"})
    first = kit.call("ListTagsForStream", Limit=2)
    assert first == {"Tags": [{"Key": "a", "Value": "one"}, {"Key": "b", "Value": "2"}], "HasMoreTags": True}
    rest = kit.call("ListTagsForStream", ExclusiveStartTagKey="b")
    assert rest == {"Tags": [{"Key": "c", "Value": ""}], "HasMoreTags": False}
    kit.call("RemoveTagsFromStream", TagKeys=["a", "unknown"])
    assert [tag["Key"] for tag in kit.call("ListTagsForStream")["Tags"]] == ["b", "c"]


def test_tags_by_arn() -> None:
    """TagResource and its sisters work on the same tags."""
    kit = Kit()
    kit.call("TagResource", ResourceARN=kit.arn, Tags={"a": "1", "b": "2"})
    kit.call("UntagResource", ResourceARN=kit.arn, TagKeys=["a"])
    assert kit.call("ListTagsForResource", ResourceARN=kit.arn) == {"Tags": [{"Key": "b", "Value": "2"}]}
    assert kit.call("ListTagsForStream")["Tags"] == [{"Key": "b", "Value": "2"}]


def test_tags_have_limits() -> None:
    """51 tags, strange characters and long keys are refused, and nothing of them is kept."""
    kit = Kit()
    kit.call("AddTagsToStream", Tags={f"k{n}": "" for n in range(50)})
    with refused("InvalidArgumentException", "cannot have more than 50 tags"):
        kit.call("AddTagsToStream", Tags={"one more": ""})
    with refused("InvalidArgumentException", "Some tags contain invalid characters"):
        kit.call("AddTagsToStream", Tags={"k1": "{}"})
    with refused("ValidationException", "Map keys must satisfy constraint"):
        kit.call("AddTagsToStream", Tags={"x" * 129: ""})
    assert len(kit.call("ListTagsForStream")["Tags"]) == 50


def test_encryption_is_shown() -> None:
    """With encryption on, the stream, the answers of puts and the records say KMS."""
    kit = Kit()
    kit.put(b"plain")
    kit.call("StartStreamEncryption", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert (kit.summary()["EncryptionType"], kit.summary()["KeyId"]) == ("KMS", "alias/aws/kinesis")
    assert kit.put(b"secret")["EncryptionType"] == "KMS"
    assert [record.get("EncryptionType") for record in kit.records()] == [None, "KMS"]
    kit.call("StopStreamEncryption", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert kit.summary()["EncryptionType"] == "NONE"
    with refused("InvalidArgumentException", "KMS"):
        kit.call("StartStreamEncryption", EncryptionType="NONE", KeyId="k")


def test_metrics_are_switched() -> None:
    """Enhanced monitoring tells what was on and what is on now; ALL means all seven."""
    kit = Kit()
    on = kit.call("EnableEnhancedMonitoring", ShardLevelMetrics=["IncomingBytes"])
    assert (on["CurrentShardLevelMetrics"], on["DesiredShardLevelMetrics"]) == ([], ["IncomingBytes"])
    everything = kit.call("EnableEnhancedMonitoring", ShardLevelMetrics=["ALL"])["DesiredShardLevelMetrics"]
    assert len(everything) == 7
    off = kit.call("DisableEnhancedMonitoring", ShardLevelMetrics=["ALL"])
    assert (off["CurrentShardLevelMetrics"], off["DesiredShardLevelMetrics"]) == (everything, [])
    with refused("ValidationException", "enum value set"):
        kit.call("EnableEnhancedMonitoring", ShardLevelMetrics=["Heat"])


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("IncreaseStreamRetentionPeriod", {"RetentionPeriodHours": 48}),
        ("StartStreamEncryption", {"EncryptionType": "KMS", "KeyId": "k"}),
        ("EnableEnhancedMonitoring", {"ShardLevelMetrics": ["ALL"]}),
        ("MergeShards", {"ShardToMerge": FIRST, "AdjacentShardToMerge": FIRST}),
    ],
)
def test_changes_wait_for_each_other(operation: str, params: dict[str, object]) -> None:
    """A stream that is UPDATING refuses other changes."""
    kit = active()
    kit.rescale(2)
    with refused("ResourceInUseException", "Stream s under account 000000000000 not ACTIVE"):
        kit.call(operation, **params)
