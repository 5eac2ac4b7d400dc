"""Shard iterators: the five places to start from, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from .kit import MOCK_VALIDATION, MOTO_VALIDATION, Server, deviates, new_name, payloads, refused, wait_until

SHARD = "shardId-000000000000"


def test_trim_horizon_starts_with_the_oldest_record(server: Server) -> None:
    """TRIM_HORIZON gives every record of the shard."""
    stream = server.create()
    written = stream.put_numbered(3)

    assert payloads(stream.read(SHARD, "TRIM_HORIZON", expect=3)) == written


def test_latest_gives_only_what_comes_later(server: Server) -> None:
    """LATEST leaves out what is there and gives what is put afterwards."""
    stream = server.create()
    stream.put(b"before")
    iterator = stream.iterator(SHARD, "LATEST")
    stream.put(b"after")

    answers = stream.answers(iterator)
    seen = payloads(next(answers)["Records"] or next(answers)["Records"])

    assert seen == [b"after"]


def test_at_sequence_number_includes_the_record(server: Server) -> None:
    """AT_SEQUENCE_NUMBER starts with the record that has the number."""
    stream = server.create()
    numbers = [stream.put(data)[1] for data in (b"0", b"1", b"2")]

    records = stream.read(SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1], expect=2)

    assert payloads(records) == [b"1", b"2"]


def test_after_sequence_number_excludes_the_record(server: Server) -> None:
    """AFTER_SEQUENCE_NUMBER starts with the record behind the one that has the number."""
    stream = server.create()
    numbers = [stream.put(data)[1] for data in (b"0", b"1", b"2")]

    records = stream.read(SHARD, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1], expect=1)

    assert payloads(records) == [b"2"]


def test_after_the_last_record_waits_for_the_next(server: Server) -> None:
    """AFTER_SEQUENCE_NUMBER of the newest record gives nothing, and then what is put afterwards."""
    stream = server.create()
    _, last = stream.put(b"last")
    answers = stream.answers(stream.iterator(SHARD, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=last))

    assert next(answers)["Records"] == []
    stream.put(b"next")
    assert payloads(next(answers)["Records"]) == [b"next"]


def test_the_first_sequence_number_of_a_shard_is_a_place_to_start(server: Server) -> None:
    """AT_SEQUENCE_NUMBER with the StartingSequenceNumber of the shard is the trim horizon."""
    stream = server.create()
    written = stream.put_numbered(2)
    first = stream.shard(SHARD)["SequenceNumberRange"]["StartingSequenceNumber"]

    assert payloads(stream.read(SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=first, expect=2)) == written


def test_at_timestamp_starts_with_the_first_record_from_then_on(server: Server) -> None:
    """AT_TIMESTAMP gives the records that arrived at the moment or later."""
    stream = server.create()
    stream.put_numbered(5)
    records = stream.read(SHARD, expect=5)
    moment = records[2]["ApproximateArrivalTimestamp"]
    due = [record["Data"] for record in records if record["ApproximateArrivalTimestamp"] >= moment]

    assert payloads(stream.read(SHARD, "AT_TIMESTAMP", Timestamp=moment, expect=len(due))) == due


def test_at_timestamp_long_ago_is_the_trim_horizon(server: Server) -> None:
    """AT_TIMESTAMP with a moment before the oldest record gives every record."""
    stream = server.create()
    written = stream.put_numbered(2)
    long_ago = datetime.now(UTC) - timedelta(hours=20)

    assert payloads(stream.read(SHARD, "AT_TIMESTAMP", Timestamp=long_ago, expect=2)) == written


@deviates("kinesalite", "never answers", run=False)
def test_at_timestamp_behind_the_newest_record_waits_for_the_next(server: Server) -> None:
    """AT_TIMESTAMP with a moment after the newest record gives what is put afterwards."""
    stream = server.create()
    stream.put(b"old")
    arrived = stream.read(SHARD, expect=1)[0]["ApproximateArrivalTimestamp"]
    wait_until(lambda: datetime.now(UTC) > arrived + timedelta(milliseconds=20), "the clock stands still")
    iterator = stream.iterator(SHARD, "AT_TIMESTAMP", Timestamp=arrived + timedelta(milliseconds=10))
    stream.put(b"new")

    assert payloads(next(stream.answers(iterator))["Records"]) == [b"new"]


@deviates("kinesis-mock", "accepts it")
@deviates("moto", "accepts it")
def test_at_timestamp_in_the_future_is_refused(server: Server) -> None:
    """AT_TIMESTAMP with a moment that has not come is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException", "timestamp"):
        stream.iterator(SHARD, "AT_TIMESTAMP", Timestamp=datetime.now(UTC) + timedelta(hours=1))


def test_the_same_iterator_gives_the_same_records_again(server: Server) -> None:
    """Reading with an iterator does not use it up."""
    stream = server.create()
    written = stream.put_numbered(2)
    iterator = stream.iterator(SHARD)

    first, second = (server.client.get_records(ShardIterator=iterator)["Records"] for _ in range(2))

    assert payloads(first) == payloads(second) == written


def test_iterators_of_one_shard_are_independent(server: Server) -> None:
    """Two readers of a shard each see every record."""
    stream = server.create()
    written = stream.put_numbered(3)

    assert payloads(stream.read(SHARD, expect=3)) == written
    assert payloads(stream.read(SHARD, expect=3)) == written


@deviates("moto", "accepts it, or answers 500")
@pytest.mark.parametrize("kind", ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP"])
def test_a_place_to_start_needs_its_parameter(server: Server, kind: str) -> None:
    """A sequence number or timestamp that is missing is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException"):
        stream.iterator(SHARD, kind)


@deviates("kinesis-mock", "ignores it")
@deviates("moto", "ignores it")
@pytest.mark.parametrize("kind", ["TRIM_HORIZON", "LATEST"])
def test_either_end_takes_no_sequence_number(server: Server, kind: str) -> None:
    """TRIM_HORIZON and LATEST together with a sequence number are refused with InvalidArgumentException."""
    stream = server.create()
    _, number = stream.put(b"x")

    with refused("InvalidArgumentException", kind):
        stream.iterator(SHARD, kind, StartingSequenceNumber=number)


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
def test_an_unknown_place_to_start_is_refused(server: Server) -> None:
    """A ShardIteratorType that does not exist is a ValidationException."""
    name = server.create().name

    with refused("ValidationException", "shardIteratorType"):
        server.unchecked.get_shard_iterator(StreamName=name, ShardId=SHARD, ShardIteratorType="EARLIEST")


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
def test_a_sequence_number_is_a_number(server: Server) -> None:
    """A StartingSequenceNumber with letters in it is a ValidationException."""
    name = server.create().name

    with refused("ValidationException", "startingSequenceNumber"):
        server.unchecked.get_shard_iterator(
            StreamName=name, ShardId=SHARD, ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber="12ab"
        )


@deviates("kinesis-mock", "accepts any number")
@deviates("moto", "accepts any number")
def test_a_sequence_number_belongs_to_its_shard(server: Server) -> None:
    """The sequence number of a record in another shard is refused with InvalidArgumentException."""
    stream = server.create(shards=2)
    shard_id, number = stream.put(b"here", ExplicitHashKey="0")
    (other,) = {"shardId-000000000000", "shardId-000000000001"} - {shard_id}

    with refused("InvalidArgumentException"):
        stream.iterator(other, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number)


@deviates("kinesis-mock", "accepts any number")
@deviates("moto", "accepts any number")
def test_an_invented_sequence_number_is_refused(server: Server) -> None:
    """A number that no shard can have given is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException"):
        stream.iterator(SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber="9" * 60)


def test_an_unknown_shard_has_no_iterator(server: Server) -> None:
    """GetShardIterator for a shard that does not exist is refused with ResourceNotFoundException."""
    stream = server.create()

    with refused("ResourceNotFoundException", "shardId-000000000007"):
        stream.iterator("shardId-000000000007")


def test_an_unknown_stream_has_no_iterator(server: Server) -> None:
    """GetShardIterator for a stream that does not exist is refused with ResourceNotFoundException."""
    name = new_name()

    with refused("ResourceNotFoundException", name):
        server.client.get_shard_iterator(StreamName=name, ShardId=SHARD, ShardIteratorType="LATEST")


@deviates("kinesis-mock", "answers 500")
@deviates("moto", "answers 500")
@pytest.mark.parametrize("iterator", ["invented", "AAAAAAAAAAEinvented=="])
def test_an_invented_iterator_is_refused(server: Server, iterator: str) -> None:
    """GetRecords with an iterator that the server did not give is refused with InvalidArgumentException."""
    with refused("InvalidArgumentException", "iterator"):
        server.client.get_records(ShardIterator=iterator)


def test_an_iterator_ends_with_its_stream(server: Server) -> None:
    """GetRecords on an iterator of a stream that was deleted is refused with ResourceNotFoundException."""
    stream = server.create()
    iterator = stream.iterator(SHARD)
    server.client.delete_stream(StreamName=stream.name)
    wait_until(lambda: is_unknown(server, stream.name), "the stream is still there")

    with refused("ResourceNotFoundException"):
        server.client.get_records(ShardIterator=iterator)


def is_unknown(server: Server, name: str) -> bool:
    """Tell whether the server no longer knows the stream."""
    try:
        server.client.describe_stream_summary(StreamName=name)
    except server.client.exceptions.ResourceNotFoundException:
        return True
    return False
