"""Records: what comes back, in which order and shard, and the limits of a read."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from .kit import (
    HASH_KEYS,
    MOCK_VALIDATION,
    MOTO_VALIDATION,
    Server,
    deviates,
    hash_range,
    numbers,
    payloads,
    refused,
    shard_for,
    wait_until,
)

SHARD = "shardId-000000000000"
MIB = 2**20


def test_a_record_comes_back_as_it_was_put(server: Server) -> None:
    """Data, partition key and the sequence number that PutRecord answered are those of the record read."""
    stream = server.create()

    shard_id, number = stream.put(b"payload", "a key")
    (record,) = stream.read(shard_id, expect=1)

    assert (record["Data"], record["PartitionKey"], record["SequenceNumber"]) == (b"payload", "a key", number)


def test_a_record_has_its_time_of_arrival(server: Server) -> None:
    """ApproximateArrivalTimestamp is the time of the put, to a few seconds."""
    stream = server.create()
    stream.put(b"now")

    (record,) = stream.read(SHARD, expect=1)

    assert abs(record["ApproximateArrivalTimestamp"] - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_shard_keeps_the_order_of_the_puts(server: Server) -> None:
    """Records of a shard come back in the order of their puts, whatever their keys."""
    stream = server.create()
    written = [str(number).encode() for number in range(20)]
    for number, data in enumerate(written):
        stream.put(data, f"key {number % 3}")

    assert payloads(stream.read(SHARD, expect=20)) == written


def test_sequence_numbers_increase(server: Server) -> None:
    """Every put into a shard gets a greater sequence number than the one before, and reads are sorted by it."""
    stream = server.create()
    put = [int(stream.put(b"x", f"key {number}")[1]) for number in range(10)]

    read = numbers(stream.read(SHARD, expect=10))

    assert read == put == sorted(set(put))


@deviates("moto", "counts 1, 2, 3")
def test_sequence_numbers_have_56_digits(server: Server) -> None:
    """A sequence number is a decimal of 56 digits without a leading zero, greater than the start of its shard."""
    stream = server.create()

    _, number = stream.put(b"x")

    assert number.isdecimal()
    assert len(number) == 56
    assert int(number) > int(stream.shard(SHARD)["SequenceNumberRange"]["StartingSequenceNumber"])


@deviates("moto", "numbers are alike in every shard")
def test_sequence_numbers_differ_between_shards(server: Server) -> None:
    """Two shards never give the same sequence number."""
    stream = server.create(shards=2)

    first = {stream.put(b"x", ExplicitHashKey="0")[1] for _ in range(3)}
    second = {stream.put(b"x", ExplicitHashKey=str(HASH_KEYS - 1))[1] for _ in range(3)}

    assert not first & second


def test_limit_cuts_without_losing(server: Server) -> None:
    """With Limit an answer has at most that many records, and following the iterators gives each once."""
    stream = server.create()
    written = stream.put_numbered(7)

    seen: list[bytes] = []
    iterator = stream.iterator(SHARD)
    while len(seen) < 7:
        answer = server.client.get_records(ShardIterator=iterator, Limit=3)
        assert len(answer["Records"]) <= 3
        seen += payloads(answer["Records"])
        iterator = answer["NextShardIterator"]

    assert seen == written


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
@pytest.mark.parametrize("limit", [0, 10_001])
def test_get_records_checks_its_limit(server: Server, limit: int) -> None:
    """Limit must be 1 to 10,000."""
    iterator = server.create().iterator(SHARD)

    with refused("ValidationException", "limit"):
        server.unchecked.get_records(ShardIterator=iterator, Limit=limit)


def test_an_empty_shard_gives_nothing_and_goes_on(server: Server) -> None:
    """An open shard without records answers none, an iterator to go on with, and 0 ms behind."""
    stream = server.create()

    answer = server.client.get_records(ShardIterator=stream.iterator(SHARD))

    assert answer["Records"] == []
    assert answer["NextShardIterator"]
    assert answer["MillisBehindLatest"] == 0


def test_a_reader_at_the_tip_is_not_behind(server: Server) -> None:
    """MillisBehindLatest is 0 when there is nothing more to read."""
    stream = server.create()
    stream.put_numbered(2)
    *_, answer = (answer for answer, _ in zip(stream.answers(stream.iterator(SHARD)), range(3), strict=False))

    assert answer["MillisBehindLatest"] == 0


@deviates("kinesalite", "says 0 on every open shard")
def test_a_reader_before_the_tip_is_behind(server: Server) -> None:
    """MillisBehindLatest is greater than 0 when older records are still to be read."""
    stream = server.create()
    stream.put_numbered(3)
    iterator = stream.iterator(SHARD)

    def is_behind() -> bool:
        return server.client.get_records(ShardIterator=iterator, Limit=1)["MillisBehindLatest"] > 0

    wait_until(is_behind, "the reader is said to be at the tip", seconds=2)


def test_partition_keys_are_routed_by_md5(server: Server) -> None:
    """A record goes to the shard whose hash keys cover the MD5 of its partition key."""
    stream = server.create(shards=4)
    shards = stream.shards()
    keys = [f"customer {number}" for number in range(24)] + ["ключ", "鍵", "🗝"]

    went_to = {key: stream.put(b"x", key)[0] for key in keys}

    assert went_to == {key: shard_for(key, shards) for key in keys}
    assert len(set(went_to.values())) == 4


@deviates("moto", "answers 500 to the last hash key of a shard")
def test_an_explicit_hash_key_overrides_the_partition_key(server: Server) -> None:
    """ExplicitHashKey chooses the shard; the first and the last hash key of each shard belong to it."""
    stream = server.create(shards=3)

    for shard in stream.shards():
        first, last = hash_range(shard)
        assert stream.put(b"x", "same", ExplicitHashKey=str(first))[0] == shard["ShardId"]
        assert stream.put(b"x", "same", ExplicitHashKey=str(last))[0] == shard["ShardId"]


def test_an_explicit_hash_key_has_128_bits(server: Server) -> None:
    """ExplicitHashKey 2**128 is refused with InvalidArgumentException."""
    stream = server.create()

    with refused("InvalidArgumentException", "Explicit_?HashKey|explicit_hash_key|hash key"):
        stream.put(b"x", ExplicitHashKey=str(HASH_KEYS))


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
@pytest.mark.parametrize(
    "key",
    [
        pytest.param("-1", marks=deviates("kinesalite", "answers InvalidArgumentException")),
        pytest.param("01", marks=deviates("kinesalite", "accepts it")),
        "ten",
    ],
)
def test_an_explicit_hash_key_is_a_plain_decimal(server: Server, key: str) -> None:
    """ExplicitHashKey with a sign, a leading zero or letters is a ValidationException."""
    stream = server.create()

    with refused("ValidationException", "explicitHashKey"):
        server.unchecked.put_record(StreamName=stream.name, Data=b"x", PartitionKey="key", ExplicitHashKey=key)


@pytest.mark.parametrize("key", ["k" * 256, "é" * 256, "鍵" * 256], ids=["ascii", "two bytes", "three bytes"])
def test_a_partition_key_has_up_to_256_characters(server: Server, key: str) -> None:
    """256 characters are accepted however many bytes they take, and come back."""
    stream = server.create()

    stream.put(b"x", key)

    assert [record["PartitionKey"] for record in stream.read(SHARD, expect=1)] == [key]


@deviates("kinesis-mock", MOCK_VALIDATION)
@deviates("moto", MOTO_VALIDATION)
@pytest.mark.parametrize("key", ["", "k" * 257], ids=["empty", "long"])
def test_a_partition_key_of_another_length_is_refused(server: Server, key: str) -> None:
    """An empty partition key and one of 257 characters are ValidationExceptions."""
    stream = server.create()

    with refused("ValidationException", "partitionKey"):
        server.unchecked.put_record(StreamName=stream.name, Data=b"x", PartitionKey=key)


def test_any_bytes_come_back(server: Server) -> None:
    """Data is bytes: all 256 of them survive, in any order and in a length that is no multiple of three."""
    stream = server.create()
    every_byte = bytes(range(256))
    noise = random.Random(7).randbytes(1001)

    stream.put(every_byte)
    stream.put(noise)

    assert payloads(stream.read(SHARD, expect=2)) == [every_byte, noise]


def test_data_may_be_empty(server: Server) -> None:
    """A record without data is a record."""
    stream = server.create()

    stream.put(b"")

    assert payloads(stream.read(SHARD, expect=1)) == [b""]


def test_data_may_have_a_mebibyte(server: Server) -> None:
    """A record of 1 MiB, its key included, is accepted and comes back whole."""
    stream = server.create()
    data = b"m" * (MIB - len("key"))

    stream.put(data)

    assert payloads(stream.read(SHARD, expect=1)) == [data]


@deviates("moto", "accepts it")
def test_data_may_not_have_more_than_a_mebibyte(server: Server) -> None:
    """A record of more than 1 MiB is refused."""
    stream = server.create()

    # A ValidationException for as long as 1 MiB was the same for every stream; since a stream may allow more, not
    # even the service's documentation says.
    with refused("ValidationException|InvalidArgumentException", "1048576|size"):
        stream.put(b"m" * (MIB + 1))


@deviates("kinesalite", "has no such limit")
@deviates("moto", "has no such limit")
def test_a_read_has_up_to_ten_mebibytes(server: Server) -> None:
    """An answer has at most 10 MiB of records, and following the iterators gives each once."""
    stream = server.create()
    written = [bytes([65 + number]) * (MIB - 16) for number in range(11)]
    for data in written:
        stream.put(data)

    answers = stream.answers(stream.iterator(SHARD))
    sizes: list[int] = []
    seen: list[bytes] = []
    while len(seen) < len(written):
        page = payloads(next(answers)["Records"])
        sizes.append(sum(map(len, page)))
        seen += page

    assert seen == written
    assert max(sizes) <= 10 * MIB
