"""Listing and describing: paging, filters, tokens, names and ARNs."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from tests.emulator.test_model_kit import FIRST, HOUR, Kit, refused, shard_name


def filtered(kit: Kit, kind: str, **more: Any) -> list[int]:
    """Return the numbers of the shards that a filter lets through."""
    return kit.ids(ShardFilter={"Type": kind, **more})


def lived() -> tuple[Kit, float]:
    """Return a kit whose shard 0 was split an hour after its creation, and shard 1 another hour later."""
    kit = Kit()
    start = kit.clock.now()
    for shard in (0, 1):
        kit.clock.advance(HOUR)
        kit.split(shard)
    kit.clock.advance(HOUR)
    return kit, start


@pytest.mark.parametrize(
    ("hours", "at", "since"),
    [
        (0.0, [0], [0, 1, 2, 3, 4]),
        (0.5, [0], [0, 1, 2, 3, 4]),
        (1.5, [1, 2], [1, 2, 3, 4]),
        (2.5, [2, 3, 4], [2, 3, 4]),
        (3.0, [2, 3, 4], [2, 3, 4]),
        (1.0, [0, 1, 2], [0, 1, 2, 3, 4]),
        (-1.0, [0], [0, 1, 2, 3, 4]),
    ],
)
def test_shards_by_time(hours: float, at: list[int], since: list[int]) -> None:
    """AT_TIMESTAMP gives the shards open then, FROM_TIMESTAMP those open then or later."""
    kit, start = lived()
    moment = start + hours * HOUR
    assert filtered(kit, "AT_TIMESTAMP", Timestamp=moment) == at
    assert filtered(kit, "FROM_TIMESTAMP", Timestamp=moment) == since


def test_shards_by_place() -> None:
    """The other filters: open now, open at the horizon, all, and after an id."""
    kit, _ = lived()
    assert filtered(kit, "AT_LATEST") == [2, 3, 4]
    assert filtered(kit, "AT_TRIM_HORIZON") == [0]
    assert filtered(kit, "FROM_TRIM_HORIZON") == kit.ids() == [0, 1, 2, 3, 4]
    assert filtered(kit, "AFTER_SHARD_ID", ShardId=shard_name(2)) == [3, 4]


def test_the_horizon_moves() -> None:
    """Once the first shard's time is over, AT_TRIM_HORIZON gives the shards that were open at the new horizon."""
    kit, start = lived()
    kit.clock.advance(start + 25.5 * HOUR - kit.clock.now())
    assert filtered(kit, "AT_TRIM_HORIZON") == [1, 2]


def test_shards_split_at_once_are_told_apart() -> None:
    """At the trim horizon of a stream that was split in the millisecond of its creation only the parent is open."""
    kit = Kit()
    kit.split(0)
    assert filtered(kit, "AT_TRIM_HORIZON") == [0]


@pytest.mark.parametrize(
    "bad",
    [
        {"Type": "AT_TIMESTAMP"},
        {"Type": "AFTER_SHARD_ID"},
        {"Type": "AT_LATEST", "ShardId": FIRST},
        {"Type": "AT_LATEST", "Timestamp": 1.0},
    ],
)
def test_a_filter_needs_its_own_parameters(bad: dict[str, Any]) -> None:
    """A filter with a missing or a superfluous parameter is refused."""
    with refused("InvalidArgumentException", "ShardFilter"):
        Kit().shards(ShardFilter=bad)


def test_a_filter_type_must_exist() -> None:
    """An unknown or missing type is a ValidationException that names the member."""
    for bad in ({"Type": "AT_NOON"}, {}):
        with refused("ValidationException", "at 'shardFilter.type'"):
            Kit().shards(ShardFilter=bad)


def test_a_filter_before_the_retention_period() -> None:
    """AT_TIMESTAMP older than the retention period is refused, FROM_TIMESTAMP is corrected to the horizon."""
    kit, start = lived()
    kit.clock.advance(30 * HOUR)
    with refused("InvalidArgumentException", "trim horizon"):
        filtered(kit, "AT_TIMESTAMP", Timestamp=start)
    assert filtered(kit, "FROM_TIMESTAMP", Timestamp=start) == [2, 3, 4]


def test_shards_come_in_pages() -> None:
    """MaxResults cuts the list, and the token alone leads on to the end."""
    kit = Kit(shards=7)
    answer = kit.call("ListShards", MaxResults=3)
    pages = [[shard["ShardId"] for shard in answer["Shards"]]]
    while "NextToken" in answer:
        answer = kit.call("ListShards", NextToken=answer["NextToken"], MaxResults=3)
        pages.append([shard["ShardId"] for shard in answer["Shards"]])
    assert [len(page) for page in pages] == [3, 3, 1]
    assert list(chain(*pages)) == [shard_name(n) for n in range(7)]


def test_a_page_has_up_to_1000_shards() -> None:
    """A list without MaxResults, or with more than 1,000, is cut at 1,000."""
    kit = Kit(shards=1001)
    assert len(kit.shards()) == len(kit.shards(MaxResults=5000)) == 1000


def test_a_token_remembers_the_filter() -> None:
    """The pages after the first show what the filter of the first lets through."""
    kit, _ = lived()
    answer = kit.call("ListShards", MaxResults=1, ShardFilter={"Type": "AT_LATEST"})
    rest = kit.call("ListShards", NextToken=answer["NextToken"])
    assert [shard["ShardId"] for shard in answer["Shards"] + rest["Shards"]] == [shard_name(n) for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StreamName", "s"),
        ("StreamARN", "arn:aws:kinesis:us-east-1:000000000000:stream/s"),
        ("ExclusiveStartShardId", FIRST),
        ("StreamCreationTimestamp", 1.0),
        ("ShardFilter", {"Type": "AT_LATEST"}),
    ],
)
def test_a_token_comes_alone(name: str, value: Any) -> None:
    """A token with anything that it already stands for is refused."""
    kit = Kit(shards=2)
    token = kit.call("ListShards", MaxResults=1)["NextToken"]
    with refused("InvalidArgumentException", f"NextToken and {name} cannot be provided together."):
        kit.call("ListShards", NextToken=token, **{name: value})


def test_a_token_lives_300_seconds() -> None:
    """A token is good for 300 s, then it is an ExpiredNextTokenException."""
    kit = Kit(shards=2)
    token = kit.call("ListShards", MaxResults=1)["NextToken"]
    kit.clock.advance(300)
    kit.call("ListShards", NextToken=token)
    kit.clock.advance(1)
    with refused("ExpiredNextTokenException"):
        kit.call("ListShards", NextToken=token)


def test_a_token_belongs_to_its_operation() -> None:
    """Tokens of other operations, iterators and nonsense are refused."""
    kit = Kit(shards=2)
    kit.call("CreateStream", StreamName="t", ShardCount=1)
    other = kit.call("ListStreams", Limit=1)["NextToken"]
    for token in (other, kit.iterator(), "nonsense"):
        with refused("InvalidArgumentException", "NextToken"):
            kit.call("ListShards", NextToken=token)


def test_listing_needs_a_stream_or_a_token() -> None:
    """ListShards with neither is refused in its own words."""
    with refused("InvalidArgumentException", "Either NextToken or StreamName should be provided."):
        Kit().model.call("ListShards", {})


def test_listing_starts_after_a_shard() -> None:
    """ExclusiveStartShardId leaves out the shards up to it."""
    assert Kit(shards=4).ids(ExclusiveStartShardId=shard_name(1)) == [2, 3]


def test_a_creation_time_tells_streams_apart() -> None:
    """StreamCreationTimestamp finds the stream created then, and no other."""
    kit = Kit()
    kit.shards(StreamCreationTimestamp=kit.clock.now())
    with refused("ResourceNotFoundException"):
        kit.shards(StreamCreationTimestamp=kit.clock.now() - 60)


def test_a_description_comes_in_pages() -> None:
    """DescribeStream pages by Limit and ExclusiveStartShardId, and shows at most 100 shards."""
    kit = Kit(shards=130)
    first = kit.call("DescribeStream")["StreamDescription"]
    assert (len(first["Shards"]), first["HasMoreShards"]) == (100, True)
    start = first["Shards"][-1]["ShardId"]
    rest = kit.call("DescribeStream", ExclusiveStartShardId=start, Limit=500)["StreamDescription"]
    assert (len(rest["Shards"]), rest["HasMoreShards"]) == (30, False)
    assert len(kit.call("DescribeStream", Limit=7)["StreamDescription"]["Shards"]) == 7


def test_closed_shards_expire() -> None:
    """A closed shard disappears, with its data, when everything in it has passed the retention period."""
    kit = Kit()
    kit.put(b"1")
    kit.split(0)
    kit.clock.advance(24 * HOUR)
    assert kit.ids() == [0, 1, 2]
    kit.clock.advance(0.001)
    assert kit.ids() == [1, 2]
    assert [s["ShardId"] for s in kit.call("DescribeStream")["StreamDescription"]["Shards"]] == [
        shard_name(1),
        shard_name(2),
    ]
    assert kit.shards()[0]["ParentShardId"] == FIRST
    with refused("ResourceNotFoundException", f"Shard {FIRST} in stream s under account 000000000000 does not exist"):
        kit.iterator(0)


def test_a_dropped_shard_is_gone() -> None:
    """drop_shard lets a closed shard vanish for lists, iterators and readers; an open one it refuses."""
    kit = Kit()
    kit.split(0)
    iterator = kit.iterator(0)
    kit.model.drop_shard("s", FIRST)
    assert kit.ids() == [1, 2]
    with refused("ResourceNotFoundException"):
        kit.get(iterator)
    with pytest.raises(ValueError, match="is open"):
        kit.model.drop_shard("s", shard_name(1))


def test_streams_are_listed_in_pages() -> None:
    """ListStreams gives names and summaries in order, by Limit, by token and by name."""
    kit = Kit(create=False)
    for name in ("c", "a", "d", "b"):
        kit.call("CreateStream", StreamName=name, ShardCount=1)
    first = kit.call("ListStreams", Limit=3)
    assert (first["StreamNames"], first["HasMoreStreams"]) == (["a", "b", "c"], True)
    assert [summary["StreamName"] for summary in first["StreamSummaries"]] == ["a", "b", "c"]
    assert first["StreamSummaries"][0]["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    for rest in (
        kit.call("ListStreams", NextToken=first["NextToken"]),
        kit.call("ListStreams", ExclusiveStartStreamName="c"),
    ):
        assert (rest["StreamNames"], rest["HasMoreStreams"], "NextToken" in rest) == (["d"], False, False)


def test_a_stream_is_found_by_its_arn() -> None:
    """StreamARN works alone and with the fitting name; a name that does not fit is refused."""
    kit = Kit()
    for params in ({"StreamARN": kit.arn}, {"StreamARN": kit.arn, "StreamName": "s"}):
        kit.call("DescribeStreamSummary", **params)
        kit.call("ListShards", **params)
        kit.call("PutRecord", **params, Data=b"", PartitionKey="k")
    with refused("InvalidArgumentException", "do not refer to the same stream"):
        kit.call("DescribeStreamSummary", StreamARN=kit.arn, StreamName="t")


@pytest.mark.parametrize(
    "arn",
    ["arn:aws:kinesis:eu-west-1:000000000000:stream/s", "arn:aws:kinesis:us-east-1:999999999999:stream/s"],
)
def test_an_arn_of_elsewhere_is_not_found(arn: str) -> None:
    """The ARN of another region or account names no stream here."""
    with refused("ResourceNotFoundException", f"Stream s under account {arn.split(':')[4]} not found."):
        Kit().call("DescribeStreamSummary", StreamARN=arn)


def test_a_call_names_a_stream() -> None:
    """Neither name nor ARN, and an ARN that is none, are refused."""
    kit = Kit()
    with refused("InvalidArgumentException", "Either StreamName or StreamARN"):
        kit.model.call("DescribeStream", {})
    with refused("ValidationException", "at 'streamARN'"):
        kit.call("DescribeStream", StreamARN="s")
    with refused("ValidationException", "at 'streamName' failed to satisfy constraint: Member must satisfy regular"):
        kit.call("DescribeStream", StreamName="../s")


def test_regions_do_not_know_each_other() -> None:
    """Streams of the same name live apart in each region."""
    kit = Kit()
    kit.model.call("CreateStream", {"StreamName": "s", "ShardCount": 3}, region="eu-west-1")
    there = kit.model.call("DescribeStreamSummary", {"StreamName": "s"}, region="eu-west-1")
    assert there["StreamDescriptionSummary"]["OpenShardCount"] == 3
    assert ":eu-west-1:" in there["StreamDescriptionSummary"]["StreamARN"]
    assert kit.summary()["OpenShardCount"] == 1


def test_validation_lists_every_complaint() -> None:
    """All broken members are told in one message, as the service words it."""
    with refused("ValidationException") as _:
        Kit().model.call("GetShardIterator", {"StreamName": "s"})
    text = (
        "2 validation errors detected: Value null at 'shardId' failed to satisfy constraint: Member must not be null; "
        "Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null"
    )
    with refused("ValidationException", text):
        Kit().model.call("GetShardIterator", {"StreamName": "s"})


def test_unknown_operations_are_told() -> None:
    """A misspelt operation is unknown, one that exists but is not emulated says so."""
    kit = Kit()
    with refused("UnknownOperationException"):
        kit.model.call("GetRecrods", {})
    with refused("UnsupportedOperationException", "CreateQueue is not emulated"):
        kit.model.call("CreateQueue", {})


def test_the_account_has_limits() -> None:
    """DescribeLimits counts open shards and on-demand streams."""
    kit = Kit(shards=3)
    kit.split(0)
    kit.call("CreateStream", StreamName="t", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    limits = kit.call("DescribeLimits")
    assert (limits["OpenShardCount"], limits["OnDemandStreamCount"]) == (8, 1)
    with refused("LimitExceededException", "would exceed the shard limit"):
        kit.call("CreateStream", StreamName="u", ShardCount=limits["ShardLimit"])
