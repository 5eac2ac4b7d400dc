"""PutRecord and PutRecords: the answer for each record, and what is refused as a whole."""

from __future__ import annotations

import pytest

from .kit import HASH_KEYS, MOCK_VALIDATION, MOTO_VALIDATION, Server, deviates, new_name, numbers, payloads, refused

SHARD = "shardId-000000000000"


@deviates("moto", "answers 500 to the last hash key of a shard")
def test_put_records_answers_for_each_record(server: Server) -> None:
    """The answer has the shard and the sequence number of each record, in the order of the request."""
    stream = server.create(shards=2)
    keys = [0, HASH_KEYS - 1, 0, HASH_KEYS - 1]

    answer = server.client.put_records(
        StreamName=stream.name,
        Records=[{"Data": b"x", "PartitionKey": "key", "ExplicitHashKey": str(key)} for key in keys],
    )

    assert answer["FailedRecordCount"] == 0
    assert [record["ShardId"][-1] for record in answer["Records"]] == ["0", "1", "0", "1"]
    assert not any(record.get("ErrorCode") for record in answer["Records"])
    given = [record["SequenceNumber"] for record in answer["Records"]]
    assert set(numbers(stream.read(SHARD, expect=2))) == {int(given[0]), int(given[2])}


def test_the_records_of_a_request_can_be_read(server: Server) -> None:
    """Every record of a PutRecords request comes back once, with its own data and key."""
    stream = server.create(shards=2)
    sent = {f"key {number}": str(number).encode() for number in range(50)}

    server.client.put_records(
        StreamName=stream.name, Records=[{"Data": data, "PartitionKey": key} for key, data in sent.items()]
    )
    records = stream.read_everything()

    assert len(records) == 50
    assert {record["PartitionKey"]: record["Data"] for record in records} == sent


def test_put_records_takes_500_records(server: Server) -> None:
    """A request may have 500 records."""
    stream = server.create()

    answer = server.client.put_records(
        StreamName=stream.name, Records=[{"Data": b"x", "PartitionKey": str(number)} for number in range(500)]
    )

    assert (answer["FailedRecordCount"], len(answer["Records"])) == (0, 500)
    assert len({record["SequenceNumber"] for record in answer["Records"]}) == 500


@deviates("kinesis-mock", MOCK_VALIDATION)
def test_put_records_takes_no_more_than_500(server: Server) -> None:
    """A request with 501 records is a ValidationException, and none of them is stored."""
    stream = server.create()

    with refused("ValidationException", "records"):
        server.client.put_records(
            StreamName=stream.name, Records=[{"Data": b"x", "PartitionKey": str(number)} for number in range(501)]
        )

    assert stream.read(SHARD, expect=0) == []


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
def test_put_records_needs_a_record(server: Server) -> None:
    """A request without records is a ValidationException."""
    stream = server.create()

    with refused("ValidationException", "records"):
        server.unchecked.put_records(StreamName=stream.name, Records=[])


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
def test_one_invalid_record_spoils_the_request(server: Server) -> None:
    """A request with an invalid record is refused as a whole; the valid ones are not stored."""
    stream = server.create()

    with refused("ValidationException", r"records\.2\.member\.partitionKey"):
        server.unchecked.put_records(
            StreamName=stream.name,
            Records=[{"Data": b"good", "PartitionKey": "key"}, {"Data": b"bad", "PartitionKey": "k" * 257}],
        )

    assert stream.read(SHARD, expect=0) == []


@deviates("moto", "stores the records before the bad one")
def test_one_impossible_hash_key_spoils_the_request(server: Server) -> None:
    """A request with an explicit hash key of 2**128 is refused with InvalidArgumentException; nothing is stored."""
    stream = server.create()
    good = {"Data": b"good", "PartitionKey": "key", "ExplicitHashKey": "0"}

    with refused("InvalidArgumentException"):
        server.unchecked.put_records(
            StreamName=stream.name, Records=[good, {**good, "ExplicitHashKey": str(HASH_KEYS)}]
        )

    assert stream.read(SHARD, expect=0) == []


@deviates("kinesalite", "answers 413 without an error code")
@deviates("kinesis-mock", "has no such limit")
def test_a_request_has_up_to_ten_mebibytes(server: Server) -> None:
    """A request of more than 10 MiB, keys included, is refused with InvalidArgumentException."""
    stream = server.create()
    records = [{"Data": b"m" * (2**20 - 256), "PartitionKey": "k" * 256} for _ in range(11)]

    with refused("InvalidArgumentException", "size"):
        server.unchecked.put_records(StreamName=stream.name, Records=records)


def test_an_unknown_stream_takes_no_records(server: Server) -> None:
    """PutRecord and PutRecords to a stream that does not exist are refused with ResourceNotFoundException."""
    name = new_name()

    with refused("ResourceNotFoundException", name):
        server.client.put_record(StreamName=name, Data=b"x", PartitionKey="key")
    with refused("ResourceNotFoundException", name):
        server.client.put_records(StreamName=name, Records=[{"Data": b"x", "PartitionKey": "key"}])


def test_puts_can_be_chained_by_sequence_number(server: Server) -> None:
    """With SequenceNumberForOrdering each record gets a greater number than the one named."""
    stream = server.create()
    _, previous = stream.put(b"0")

    for data in (b"1", b"2"):
        _, number = stream.put(data, SequenceNumberForOrdering=previous)
        assert int(number) > int(previous)
        previous = number

    assert payloads(stream.read(SHARD, expect=3)) == [b"0", b"1", b"2"]


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", "ignores it")
def test_a_number_for_ordering_is_a_number(server: Server) -> None:
    """SequenceNumberForOrdering with letters in it is a ValidationException."""
    stream = server.create()

    with refused("ValidationException", "sequenceNumberForOrdering"):
        server.unchecked.put_record(
            StreamName=stream.name, Data=b"x", PartitionKey="key", SequenceNumberForOrdering="12ab"
        )


@deviates("moto", "ignores it")
def test_a_number_for_ordering_was_given_by_the_server(server: Server) -> None:
    """SequenceNumberForOrdering that no shard can have given is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException"):
        stream.put(b"x", SequenceNumberForOrdering="9" * 60)


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
@pytest.mark.parametrize("missing", ["Data", "PartitionKey"])
def test_a_record_has_data_and_a_key(server: Server, missing: str) -> None:
    """A put without data, or without a key on a stream that routes by key, is a ValidationException."""
    stream = server.create()
    request = {"StreamName": stream.name, "Data": b"x", "PartitionKey": "key"}
    del request[missing]

    with refused("ValidationException", missing):
        server.unchecked.put_record(**request)
