"""Resharding: hash key ranges, lineage and shard ends."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.emulator.test_model_kit import FIRST, HASH_KEYS, Kit, refused, shard_name


def ranges(kit: Kit) -> list[tuple[int, int]]:
    """Return the hash key ranges of the open shards, in order."""
    keys = [shard["HashKeyRange"] for shard in kit.shards(ShardFilter={"Type": "AT_LATEST"})]
    return sorted((int(key["StartingHashKey"]), int(key["EndingHashKey"])) for key in keys)


def assert_whole(kit: Kit) -> None:
    """Assert that the open shards cover every hash key once."""
    edges = ranges(kit)
    assert edges[0][0] == 0
    assert edges[-1][1] == HASH_KEYS - 1
    assert all(left[1] + 1 == right[0] for left, right in pairwise(edges))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_a_new_stream_covers_the_hash_keys(count: int) -> None:
    """The shards of a new stream share the hash keys evenly, without gaps, and have no parents."""
    kit = Kit(shards=count)
    assert_whole(kit)
    assert kit.open_ids() == list(range(count))
    assert all("ParentShardId" not in shard for shard in kit.shards())
    assert max(b - a for a, b in ranges(kit)) - min(b - a for a, b in ranges(kit)) <= count


def test_a_split_closes_the_parent_and_opens_two_children() -> None:
    """SplitShard leaves a parent with an EndingSequenceNumber and two open children that share its range."""
    kit = Kit()
    kit.split(0, 1000)
    parent, left, right = kit.shards()
    assert int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
    assert left["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": "999"}
    assert right["HashKeyRange"] == {"StartingHashKey": "1000", "EndingHashKey": str(HASH_KEYS - 1)}
    for child in (left, right):
        assert child["ParentShardId"] == FIRST
        assert "AdjacentParentShardId" not in child
        assert "EndingSequenceNumber" not in child["SequenceNumberRange"]


@pytest.mark.parametrize("key", [0, 1, HASH_KEYS - 1])
def test_a_split_must_leave_two_parts(key: int) -> None:
    """A NewStartingHashKey at the edge of the shard is refused."""
    with refused("InvalidArgumentException", "is not both greater than one plus the shard's StartingHashKey"):
        Kit().split(0, key)


def test_a_shard_is_split_once() -> None:
    """A closed shard is not eligible for splitting or merging."""
    kit = Kit()
    kit.split(0, 1000)
    with refused("InvalidArgumentException", "has already been merged or split"):
        kit.split(0, 500)
    with refused("InvalidArgumentException", "has already been merged or split"):
        kit.merge(0, 1)


def test_a_merge_names_both_parents() -> None:
    """MergeShards opens one child with both parents and their common range."""
    kit = Kit(shards=2)
    kit.merge(0, 1)
    child = kit.shards()[2]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (shard_name(0), shard_name(1))
    assert ranges(kit) == [(0, HASH_KEYS - 1)]


def test_only_neighbours_merge() -> None:
    """Shards that do not touch, a shard with itself, and the wrong order of hash keys are refused."""
    kit = Kit(shards=3)
    with refused("InvalidArgumentException", "are not an adjacent pair of shards eligible for merging"):
        kit.merge(0, 2)
    with refused("InvalidArgumentException", "are not an adjacent pair"):
        kit.merge(1, 1)
    with refused("InvalidArgumentException", "are not an adjacent pair"):
        kit.merge(1, 0)


def test_an_unknown_shard_is_told() -> None:
    """Resharding a shard that does not exist is ResourceNotFoundException, as is an id of a wrong form."""
    kit = Kit()
    with refused("ResourceNotFoundException", "Could not find shard shardId-000000000009 in stream s under account"):
        kit.call("SplitShard", ShardToSplit=shard_name(9), NewStartingHashKey="5")
    with refused("ResourceNotFoundException", "Could not find shard shard-zero"):
        kit.call("SplitShard", ShardToSplit="shard-zero", NewStartingHashKey="5")


@pytest.mark.parametrize(("start", "target"), [(1, 2), (2, 4), (4, 2), (2, 3), (3, 2), (5, 7), (7, 4), (3, 6), (10, 5)])
def test_a_rescale_ends_with_even_shards(start: int, target: int) -> None:
    """UpdateShardCount leaves that many open shards, all nearly as wide, that cover every hash key."""
    kit = Kit(shards=start)
    answer = kit.rescale(target)
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (start, target)
    assert_whole(kit)
    widths = [last - first for first, last in ranges(kit)]
    assert len(widths) == target
    assert max(widths) - min(widths) < 2**66


@pytest.mark.parametrize(("start", "target"), [(2, 4), (2, 3), (5, 3), (7, 4)])
def test_a_rescale_leaves_the_lineage(start: int, target: int) -> None:
    """Every shard that UpdateShardCount opens names its parents, which are closed and came before it."""
    kit = Kit(shards=start)
    kit.rescale(target)
    shards = {shard["ShardId"]: shard for shard in kit.shards()}
    for shard in list(shards.values())[start:]:
        parents = [shards[shard[name]] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]
        assert parents
        for parent in parents:
            ending = int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
            assert parent["ShardId"] < shard["ShardId"]
            assert ending < int(shard["SequenceNumberRange"]["StartingSequenceNumber"])


def test_a_rescale_back_and_forth_makes_no_slivers() -> None:
    """Rounding between 3, 6, 4 and 3 shards leaves no shard of a few hash keys."""
    kit = Kit(shards=3)
    for count in (6, 4, 3, 5):
        kit.rescale(count)
        assert min(last - first for first, last in ranges(kit)) > HASH_KEYS // 8


@pytest.mark.parametrize(("target", "text"), [(9, "up over double"), (1, "down below half"), (10_001, "over 10000")])
def test_a_rescale_has_limits(target: int, text: str) -> None:
    """UpdateShardCount goes to double and to half, not further."""
    with refused("LimitExceededException", text):
        Kit(shards=4).rescale(target)


def test_an_on_demand_stream_scales_itself() -> None:
    """Streams in on-demand mode refuse every resharding call."""
    kit = Kit(create=False)
    kit.call("CreateStream", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert kit.open_ids() == [0, 1, 2, 3]
    with refused("ValidationException", "is in On-Demand mode."):
        kit.rescale(8)
    with refused("ValidationException", "is in On-Demand mode."):
        kit.split(0, 1000)
    with refused("ValidationException", "is in On-Demand mode."):
        kit.merge(0, 1)


def test_the_end_of_a_shard_comes_after_its_last_record() -> None:
    """A closed shard gives its records with an iterator, then no records, no iterator and its children."""
    kit = Kit()
    kit.put(b"1")
    kit.put(b"2")
    kit.split(0)
    first = kit.get(kit.iterator(), Limit=1)
    assert "ChildShards" not in first
    second = kit.get(first["NextShardIterator"])
    assert [record["Data"] for record in second["Records"]] == [b"2"]
    assert "ChildShards" not in second
    end = kit.get(second["NextShardIterator"])
    assert (end["Records"], end.get("NextShardIterator")) == ([], None)
    children = [(child["ShardId"], child["ParentShards"]) for child in end["ChildShards"]]
    assert children == [(shard_name(1), [FIRST]), (shard_name(2), [FIRST])]
    assert end["ChildShards"][0]["HashKeyRange"]["StartingHashKey"] == "0"


def test_an_open_shard_never_ends() -> None:
    """An idle open shard answers no records, a fresh iterator and 0 milliseconds behind, again and again."""
    kit = Kit()
    iterators = {iterator := kit.iterator()}
    for _ in range(3):
        answer = kit.get(iterator)
        assert (answer["Records"], answer["MillisBehindLatest"]) == ([], 0)
        iterators.add(iterator := answer["NextShardIterator"])
    assert len(iterators) == 4


def test_both_parents_of_a_merge_name_the_child() -> None:
    """The end of either parent of a merge names the same child, with both parents."""
    kit = Kit(shards=2)
    kit.merge(0, 1)
    for parent in (0, 1):
        (child,) = kit.get(kit.iterator(parent))["ChildShards"]
        assert child["ParentShards"] == [shard_name(0), shard_name(1)]


def test_an_iterator_from_before_the_split_reaches_the_end() -> None:
    """A reader at the tip of a shard that is then split gets what came before the split, then the end."""
    kit = Kit()
    iterator = kit.iterator(kind="LATEST")
    kit.put(b"before")
    kit.split(0)
    kit.put(b"after")
    answer = kit.get(iterator)
    assert [record["Data"] for record in answer["Records"]] == [b"before"]
    assert len(kit.get(answer["NextShardIterator"])["ChildShards"]) == 2
