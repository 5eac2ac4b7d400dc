"""The end of a closed shard, and what its children begin with."""

from __future__ import annotations

from .kit import HASH_KEYS, Server, all_payloads, deviates, hash_range, is_open, payloads

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
NEVER_ENDS = "closed shards never end: puts keep landing in the parent and its children stay empty"
NO_CHILD_SHARDS = "knows no ChildShards"


@deviates("moto", NEVER_ENDS)
def test_a_closed_shard_ends(server: Server) -> None:
    """A reader of a closed shard gets all of its records and then no iterator."""
    stream = server.create()
    written = stream.put_numbered(5)
    stream.split(FIRST)

    records, last = stream.read_to_end(FIRST)

    assert payloads(records) == written
    assert not last.get("NextShardIterator")


@deviates("kinesalite", NO_CHILD_SHARDS)
@deviates("moto", NEVER_ENDS)
def test_the_end_of_a_split_shard_names_its_children(server: Server) -> None:
    """The last answer of a split shard has both children with their parent and hash keys."""
    stream = server.create()
    stream.put(b"x")
    children = stream.split(FIRST)

    _, last = stream.read_to_end(FIRST)

    named = {child["ShardId"]: child for child in last["ChildShards"]}
    assert named.keys() == {child["ShardId"] for child in children}
    for child in children:
        assert named[child["ShardId"]]["ParentShards"] == [FIRST]
        assert named[child["ShardId"]]["HashKeyRange"] == child["HashKeyRange"]


@deviates("kinesalite", NO_CHILD_SHARDS)
@deviates("moto", NEVER_ENDS)
def test_the_end_of_a_merged_shard_names_both_parents(server: Server) -> None:
    """The last answers of both merged shards have the one child, and it names them both."""
    stream = server.create(shards=2)
    child = stream.merge(FIRST, SECOND)

    ends = [stream.read_to_end(shard_id)[1]["ChildShards"] for shard_id in (FIRST, SECOND)]

    for (named,) in ends:
        assert named["ShardId"] == child["ShardId"]
        assert set(named["ParentShards"]) == {FIRST, SECOND}
        assert hash_range({"HashKeyRange": named["HashKeyRange"]}) == (0, HASH_KEYS - 1)


@deviates("moto", NEVER_ENDS)
def test_a_closed_shard_ends_only_after_its_last_record(server: Server) -> None:
    """However small the answers are, every record comes before the iterator ends."""
    stream = server.create()
    written = stream.put_numbered(4)
    stream.split(FIRST)

    seen: list[bytes] = []
    iterator: str | None = stream.iterator(FIRST)
    for _ in range(20):
        if not iterator:
            break
        answer = server.client.get_records(ShardIterator=iterator, Limit=1)
        seen += payloads(answer["Records"])
        iterator = answer.get("NextShardIterator")

    assert seen == written
    assert not iterator


@deviates("moto", NEVER_ENDS)
def test_an_empty_shard_ends_too(server: Server) -> None:
    """A shard that was closed before it got a record ends without one."""
    stream = server.create()
    stream.split(FIRST)

    records, last = stream.read_to_end(FIRST)

    assert records == []
    assert not last.get("NextShardIterator")


@deviates("moto", NEVER_ENDS)
def test_a_reader_sees_the_shard_end_under_it(server: Server) -> None:
    """An iterator taken while the shard was open leads to its last record and its end."""
    stream = server.create()
    stream.put(b"before")
    answers = stream.answers(stream.iterator(FIRST))
    seen = payloads(next(answers)["Records"])

    stream.put(b"last")
    stream.split(FIRST)
    for answer in answers:
        seen += payloads(answer["Records"])

    assert seen == [b"before", b"last"]


@deviates("moto", NEVER_ENDS)
def test_a_closed_shard_has_no_latest(server: Server) -> None:
    """LATEST on a closed shard gives nothing but its end."""
    stream = server.create()
    stream.put(b"x")
    stream.split(FIRST)

    seen = [answer["Records"] for answer in stream.answers(stream.iterator(FIRST, "LATEST"))]

    assert not any(seen)


@deviates("moto", NEVER_ENDS)
def test_nothing_follows_the_last_record_of_a_closed_shard(server: Server) -> None:
    """AFTER_SEQUENCE_NUMBER of the last record of a closed shard gives nothing but its end."""
    stream = server.create()
    _, last = stream.put(b"x")
    stream.split(FIRST)
    iterator = stream.iterator(FIRST, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=last)

    seen = [answer["Records"] for answer in stream.answers(iterator)]

    assert not any(seen)


@deviates("moto", NEVER_ENDS)
def test_a_closed_shard_takes_no_records(server: Server) -> None:
    """After a split every put goes to a child."""
    stream = server.create()
    children = {child["ShardId"] for child in stream.split(FIRST)}

    went_to = {stream.put(b"x", f"key {number}")[0] for number in range(8)}

    assert went_to == children


@deviates("moto", NEVER_ENDS)
def test_children_begin_with_what_was_put_after_the_split(server: Server) -> None:
    """The children from TRIM_HORIZON hold what was put after the split, all of it and nothing else."""
    stream = server.create()
    stream.put_numbered(3)
    left, right = stream.split(FIRST)
    stream.put(b"left", ExplicitHashKey="0")
    stream.put(b"right", ExplicitHashKey=str(HASH_KEYS - 1))

    assert payloads(stream.read(left["ShardId"], expect=1)) == [b"left"]
    assert payloads(stream.read(right["ShardId"], expect=1)) == [b"right"]


@deviates("moto", "moves the records of the parents into the child")
def test_the_child_of_a_merge_begins_with_what_was_put_afterwards(server: Server) -> None:
    """The merged shards keep their records; the child holds what was put after the merge."""
    stream = server.create(shards=2)
    stream.put(b"low", ExplicitHashKey="0")
    stream.put(b"high", ExplicitHashKey=str(HASH_KEYS - 1))
    child = stream.merge(FIRST, SECOND)
    stream.put(b"merged", ExplicitHashKey="0")

    assert payloads(stream.read_to_end(FIRST)[0]) == [b"low"]
    assert payloads(stream.read_to_end(SECOND)[0]) == [b"high"]
    assert payloads(stream.read(child["ShardId"], expect=1)) == [b"merged"]


@deviates("kinesis-mock", "ends every shard at 2**63 - 1, below all of its records")
def test_a_closed_shard_says_where_it_ended(server: Server) -> None:
    """EndingSequenceNumber is there once a shard is closed, and is no smaller than its last record."""
    stream = server.create()
    _, last = stream.put(b"x")
    stream.split(FIRST)
    closed = stream.shard(FIRST)

    assert not is_open(closed)
    assert int(closed["SequenceNumberRange"]["EndingSequenceNumber"]) >= int(last)


@deviates("moto", NEVER_ENDS)
def test_an_open_shard_never_ends(server: Server) -> None:
    """The children stay open: reading them to the tip leaves an iterator and no ChildShards."""
    stream = server.create()
    stream.put_numbered(2)
    _, right = stream.split(FIRST)
    stream.put(b"x", ExplicitHashKey=str(HASH_KEYS - 1))

    answers = stream.answers(stream.iterator(right["ShardId"]))
    seen = [next(answers) for _ in range(3)]

    assert all_payloads(seen) == [b"x"]
    assert all(answer["NextShardIterator"] and not answer.get("ChildShards") for answer in seen)
