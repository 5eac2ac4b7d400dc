"""Shards: listing, filtering and paging them, and what a split, a merge and a rescale leave behind."""

from __future__ import annotations

from datetime import timedelta

import pytest

from .kit import (
    HASH_KEYS,
    Server,
    Stream,
    cover_all_hash_keys,
    deviates,
    hash_range,
    in_time,
    is_open,
    middle,
    new_name,
    parents,
    refused,
)

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
NO_FILTERS = "ignores ShardFilter"


@deviates("kinesalite", "ignores MaxResults")
@deviates("moto", "its token works only together with the stream's name")
def test_shards_are_listed_in_pages(server: Server) -> None:
    """MaxResults cuts the list; NextToken alone, without the stream's name, leads on."""
    name = server.create(shards=3).name

    first = server.client.list_shards(StreamName=name, MaxResults=2)
    second = server.client.list_shards(NextToken=first["NextToken"], MaxResults=2)

    assert [shard["ShardId"][-1] for shard in first["Shards"] + second["Shards"]] == ["0", "1", "2"]
    assert len(first["Shards"]) == 2
    assert not second.get("NextToken")


@deviates("kinesalite", "ignores MaxResults and so gives no token")
@deviates("moto", "accepts both")
def test_a_token_comes_without_a_stream_name(server: Server) -> None:
    """ListShards with both a token and a stream name is refused with InvalidArgumentException."""
    name = server.create(shards=2).name
    token = server.client.list_shards(StreamName=name, MaxResults=1)["NextToken"]

    with refused("InvalidArgumentException", "NextToken"):
        server.client.list_shards(StreamName=name, NextToken=token)


@deviates("moto", "answers ResourceNotFoundException")
def test_list_shards_wants_a_stream_or_a_token(server: Server) -> None:
    """ListShards with neither is refused with InvalidArgumentException."""
    with refused("InvalidArgumentException", "NextToken"):
        server.client.list_shards()


@deviates("kinesalite", "crashes: it looks for a stream without a name", run=False)
@deviates("moto", "answers 500")
def test_an_invented_token_is_refused(server: Server) -> None:
    """A NextToken that no ListShards gave is refused with InvalidArgumentException."""
    with refused("InvalidArgumentException"):
        server.client.list_shards(NextToken="AAAAAAAAinvented")


@deviates("moto", "ignores ExclusiveStartShardId")
def test_list_shards_can_start_after_a_shard(server: Server) -> None:
    """ExclusiveStartShardId leaves out the shards up to that one."""
    name = server.create(shards=3).name

    rest = server.client.list_shards(StreamName=name, ExclusiveStartShardId=FIRST)["Shards"]

    assert [shard["ShardId"][-1] for shard in rest] == ["1", "2"]


@pytest.mark.parametrize("limit", [0, 10_001])
@deviates("kinesis-mock", "answers 500 to 0 and accepts any greater number")
@deviates("moto", "checks no limits")
def test_list_shards_checks_its_limit(server: Server, limit: int) -> None:
    """MaxResults must be 1 to 10,000."""
    name = server.create().name

    with refused("ValidationException", "maxResults"):
        server.unchecked.list_shards(StreamName=name, MaxResults=limit)


def test_the_shards_of_an_unknown_stream_cannot_be_listed(server: Server) -> None:
    """ListShards for a stream that does not exist is refused with ResourceNotFoundException."""
    name = new_name()

    with refused("ResourceNotFoundException", f"{name}.* not found"):
        server.client.list_shards(StreamName=name)


@deviates("kinesalite", NO_FILTERS)
@deviates("moto", NO_FILTERS)
def test_filter_at_latest_gives_the_open_shards(server: Server) -> None:
    """AT_LATEST leaves out the closed parent."""
    stream = server.create()
    children = stream.split(FIRST)

    shards = server.client.list_shards(StreamName=stream.name, ShardFilter={"Type": "AT_LATEST"})["Shards"]

    assert shards == children


@deviates("kinesalite", NO_FILTERS)
@deviates("kinesis-mock", "adds the children")
@deviates("moto", NO_FILTERS)
def test_filter_at_trim_horizon_gives_the_oldest_generation(server: Server) -> None:
    """AT_TRIM_HORIZON gives the shards that were open at the oldest record, not their children."""
    stream = server.create()
    stream.split(FIRST)

    shards = server.client.list_shards(StreamName=stream.name, ShardFilter={"Type": "AT_TRIM_HORIZON"})["Shards"]

    assert [shard["ShardId"] for shard in shards] == [FIRST]


def test_filter_from_trim_horizon_gives_every_shard(server: Server) -> None:
    """FROM_TRIM_HORIZON gives every shard that still holds records, which is all of a young stream."""
    stream = server.create()
    stream.split(FIRST)

    shards = server.client.list_shards(StreamName=stream.name, ShardFilter={"Type": "FROM_TRIM_HORIZON"})["Shards"]

    assert [shard["ShardId"][-1] for shard in shards] == ["0", "1", "2"]


@deviates("kinesalite", NO_FILTERS)
@deviates("moto", NO_FILTERS)
def test_filter_after_shard_id_gives_the_later_ones(server: Server) -> None:
    """AFTER_SHARD_ID gives the shards whose id follows the given one."""
    name = server.create(shards=3).name

    shards = server.client.list_shards(StreamName=name, ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": FIRST})

    assert [shard["ShardId"][-1] for shard in shards["Shards"]] == ["1", "2"]


@deviates("kinesalite", NO_FILTERS)
@deviates("kinesis-mock", "adds the children, or does not, as its clock falls", run=False)
@deviates("moto", NO_FILTERS)
def test_filter_at_timestamp_gives_the_shards_open_then(server: Server) -> None:
    """AT_TIMESTAMP with a moment before the split gives the parent and neither child."""
    stream = server.create()
    stream.put(b"before")
    moment = stream.read(FIRST, expect=1)[0]["ApproximateArrivalTimestamp"]
    stream.split(FIRST)

    shards = server.client.list_shards(
        StreamName=stream.name, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": moment}
    )["Shards"]

    assert [shard["ShardId"] for shard in shards] == [FIRST]


def test_filter_from_timestamp_gives_the_shards_open_since(server: Server) -> None:
    """FROM_TIMESTAMP with a moment before the split gives the parent and both children."""
    stream = server.create()
    stream.put(b"before")
    moment = stream.read(FIRST, expect=1)[0]["ApproximateArrivalTimestamp"]
    stream.split(FIRST)

    shards = server.client.list_shards(
        StreamName=stream.name, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": moment}
    )["Shards"]

    assert [shard["ShardId"][-1] for shard in shards] == ["0", "1", "2"]


@deviates("kinesalite", NO_FILTERS)
@deviates("moto", NO_FILTERS)
@pytest.mark.parametrize("kind", ["AFTER_SHARD_ID", "AT_TIMESTAMP", "FROM_TIMESTAMP"])
def test_a_filter_needs_its_parameter(server: Server, kind: str) -> None:
    """A filter by shard or by time without that shard or time is refused with InvalidArgumentException."""
    name = server.create().name

    with refused("InvalidArgumentException"):
        server.unchecked.list_shards(StreamName=name, ShardFilter={"Type": kind})


@deviates("kinesalite", "ignores MaxResults")
@deviates("moto", NO_FILTERS)
def test_a_filter_holds_on_every_page(server: Server) -> None:
    """The pages behind a token are filtered as the first one was."""
    stream = server.create(shards=2)
    stream.split(FIRST)

    first = server.client.list_shards(StreamName=stream.name, ShardFilter={"Type": "AT_LATEST"}, MaxResults=1)
    rest = server.client.list_shards(NextToken=first["NextToken"])

    assert [shard["ShardId"][-1] for shard in first["Shards"] + rest["Shards"]] == ["1", "2", "3"]


def test_a_split_closes_the_parent_and_opens_two_children(server: Server) -> None:
    """The children name the one parent, share its hash keys at the chosen one, and the parent is closed."""
    stream = server.create()
    cut = HASH_KEYS // 4

    left, right = stream.split(FIRST, at=cut)

    assert not is_open(stream.shard(FIRST))
    assert is_open(left)
    assert is_open(right)
    assert parents(left) == parents(right) == {FIRST}
    assert not left.get("AdjacentParentShardId")
    assert (hash_range(left), hash_range(right)) == ((0, cut - 1), (cut, HASH_KEYS - 1))
    assert {left["ShardId"], right["ShardId"]} == {"shardId-000000000001", "shardId-000000000002"}


@deviates("kinesis-mock", "ends every shard at 2**63 - 1, below all of its records")
@deviates("moto", "sequence numbers start at 0 in every shard")
def test_children_begin_behind_their_parent(server: Server) -> None:
    """The first sequence number of a child is greater than the last one of its parent's records."""
    stream = server.create()
    _, last = stream.put(b"in the parent")

    children = stream.split(FIRST)

    ending = int(stream.shard(FIRST)["SequenceNumberRange"]["EndingSequenceNumber"])
    assert ending >= int(last)
    assert all(int(child["SequenceNumberRange"]["StartingSequenceNumber"]) > ending for child in children)


@pytest.mark.parametrize("key", [2**127, 2**127 - 1, HASH_KEYS - 1], ids=["outside", "last", "far"])
def test_a_split_needs_a_hash_key_inside_the_shard(server: Server, key: int) -> None:
    """NewStartingHashKey at the end of the shard or outside of it is refused with InvalidArgumentException."""
    stream = server.create(shards=2)

    with refused("InvalidArgumentException", "NewStartingHashKey"):
        stream.split(FIRST, at=key)


@deviates("kinesis-mock", "accepts both")
@pytest.mark.parametrize("key", [0, pytest.param(1, marks=deviates("moto", "accepts it"))])
def test_a_split_leaves_both_children_a_share(server: Server, key: int) -> None:
    """NewStartingHashKey must be greater than one plus the first hash key of the shard."""
    stream = server.create()

    with refused("InvalidArgumentException", "NewStartingHashKey"):
        stream.split(FIRST, at=key)


@deviates("kinesalite", "takes 07x for a number")
@deviates("kinesis-mock", "answers 500")
@deviates("moto", "reads it as a hash key up to the first bad character, or answers 500")
def test_a_split_needs_a_hash_key_that_is_a_number(server: Server) -> None:
    """NewStartingHashKey with leading zeros or letters is a ValidationException."""
    name = server.create().name

    with refused("ValidationException", "newStartingHashKey"):
        server.unchecked.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey="07x")


@deviates("kinesalite", "splits a closed shard again")
@deviates("kinesis-mock", "answers ResourceInUseException")
def test_a_closed_shard_cannot_be_split_again(server: Server) -> None:
    """Splitting a shard that is closed is refused with InvalidArgumentException."""
    stream = server.create()
    cut = middle(stream.shard(FIRST))
    stream.split(FIRST)

    with refused("InvalidArgumentException"):
        stream.split(FIRST, at=cut)


def test_an_unknown_shard_cannot_be_split(server: Server) -> None:
    """Splitting a shard that does not exist is refused with ResourceNotFoundException."""
    stream = server.create()

    with refused("ResourceNotFoundException", "shardId-000000000009"):
        stream.split("shardId-000000000009", at=HASH_KEYS // 2)


def test_a_merge_closes_both_parents_and_opens_one_child(server: Server) -> None:
    """The child names both parents and has the hash keys of both; both parents are closed."""
    stream = server.create(shards=2)

    child = stream.merge(FIRST, SECOND)

    assert not is_open(stream.shard(FIRST))
    assert not is_open(stream.shard(SECOND))
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (FIRST, SECOND)
    assert hash_range(child) == (0, HASH_KEYS - 1)


def test_only_neighbours_can_be_merged(server: Server) -> None:
    """Merging shards whose hash keys do not touch is refused with InvalidArgumentException."""
    stream = server.create(shards=3)

    with refused("InvalidArgumentException"):
        stream.merge(FIRST, "shardId-000000000002")


def test_the_lower_shard_is_named_first_in_a_merge(server: Server) -> None:
    """Merging two neighbours in the order of falling hash keys is refused with InvalidArgumentException."""
    stream = server.create(shards=2)

    with refused("InvalidArgumentException"):
        stream.merge(SECOND, FIRST)


def test_a_shard_cannot_be_merged_with_itself(server: Server) -> None:
    """A shard is no neighbour of itself."""
    stream = server.create(shards=2)

    with refused("InvalidArgumentException"):
        stream.merge(FIRST, FIRST)


def test_an_unknown_shard_cannot_be_merged(server: Server) -> None:
    """Merging with a shard that does not exist is refused with ResourceNotFoundException."""
    stream = server.create()

    with refused("ResourceNotFoundException", "shardId-000000000009"):
        stream.merge(FIRST, "shardId-000000000009")


@deviates("kinesalite", "has no UpdateShardCount")
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_a_rescale_doubles_and_halves(server: Server, before: int, after: int) -> None:
    """After UpdateShardCount the open shards are as many as wanted and cover all hash keys evenly, without a gap."""
    stream = server.create(before)

    stream.rescale(after)

    assert_even(stream, after)


@deviates("kinesalite", "has no UpdateShardCount")
@deviates("kinesis-mock", "leaves shards of half the size of others")
@deviates("moto", "leaves shards of twice the size of others")
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
def test_a_rescale_to_another_count_is_even_too(server: Server, before: int, after: int) -> None:
    """UNIFORM_SCALING means shards of equal size for counts that do not double or halve as well."""
    stream = server.create(before)

    stream.rescale(after)

    assert_even(stream, after)


def assert_even(stream: Stream, count: int) -> None:
    """Check that the open shards are ``count``, of equal size, and leave out no hash key."""
    shards = stream.open_shards()
    assert len(shards) == count
    assert cover_all_hash_keys(shards)
    sizes = [last - first for first, last in map(hash_range, shards)]
    assert max(sizes) - min(sizes) <= HASH_KEYS // 1000


@deviates("kinesalite", "has no UpdateShardCount")
@deviates("kinesis-mock", "answers InvalidArgumentException")
@deviates("moto", "scales to any count")
@pytest.mark.parametrize("count", [1, 9])
def test_one_rescale_doubles_or_halves_at_most(server: Server, count: int) -> None:
    """Fewer than half of the open shards, or more than double, are refused with LimitExceededException."""
    stream = server.create(4)

    with refused("LimitExceededException", "open shard count"):
        stream.rescale(count)


@deviates("kinesalite", "has no UpdateShardCount")
def test_every_shard_of_a_rescale_has_its_parents(server: Server) -> None:
    """Each new shard names parents that exist, are closed, and hold the hash keys next to or around its own."""
    stream = server.create(2)

    stream.rescale(4)

    by_id = {shard["ShardId"]: shard for shard in stream.shards()}
    new = [shard for shard in by_id.values() if shard["ShardId"] not in {FIRST, SECOND}]
    assert len(new) >= 4
    assert all(parents(shard) and parents(shard) <= by_id.keys() for shard in new)
    assert not any(is_open(by_id[parent]) for shard in new for parent in parents(shard))


@deviates("kinesalite", "has no UpdateShardCount")
def test_update_shard_count_answers_both_counts(server: Server) -> None:
    """The answer names the stream, the count before and the count wanted."""
    stream = server.create(2)

    answer = server.client.update_shard_count(StreamName=stream.name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")

    assert (answer["StreamName"], answer["CurrentShardCount"], answer["TargetShardCount"]) == (stream.name, 2, 4)
    stream.wait_until_active()


@deviates("moto", "changes a stream at once")
def test_a_stream_is_reshaped_once_at_a_time(server: Server) -> None:
    """While a stream is UPDATING another split is refused with ResourceInUseException."""

    def attempt() -> None:
        stream = server.create(2)
        stream.start_split(FIRST, HASH_KEYS // 4)
        with refused("ResourceInUseException", "not (currently )?ACTIVE"):
            stream.start_split(SECOND, HASH_KEYS // 4 * 3)

    in_time(attempt)


@deviates("kinesis-mock", "opens the children at once")
@deviates("moto", "changes a stream at once")
def test_the_parent_takes_records_until_the_split_is_done(server: Server) -> None:
    """While a stream is UPDATING puts go on, into the shard that is being split."""

    def attempt() -> None:
        stream = server.create()
        stream.start_split(FIRST, HASH_KEYS // 2)
        assert stream.put(b"x")[0] == FIRST
        stream.wait_until_active()
        assert stream.put(b"x")[0] != FIRST

    in_time(attempt)


def test_a_timestamp_filter_reaches_back_to_the_beginning(server: Server) -> None:
    """FROM_TIMESTAMP with a moment long before the stream existed gives every shard."""
    stream = server.create()
    stream.split(FIRST)
    long_ago = stream.summary()["StreamCreationTimestamp"] - timedelta(hours=1)

    shards = server.client.list_shards(
        StreamName=stream.name, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": long_ago}
    )["Shards"]

    assert [shard["ShardId"][-1] for shard in shards] == ["0", "1", "2"]
