"""Shard iterators, sequence numbers and the rules of GetRecords."""

from __future__ import annotations

import base64
import tracemalloc

import pytest

from tests.emulator.test_model_kit import FIRST, HOUR, Kit, refused, shard_name

MIB = 2**20


def numbers(kit: Kit, shard: int = 0) -> list[int]:
    """Return the sequence numbers of a shard's records."""
    return [int(record["SequenceNumber"]) for record in kit.records(shard)]


def test_sequence_numbers_have_56_digits_and_grow() -> None:
    """Sequence numbers are decimal texts of 56 digits, strictly increasing within a shard, not contiguous."""
    kit = Kit()
    put = [kit.put()["SequenceNumber"] for _ in range(20)]
    assert {len(number) for number in put} == {56}
    assert [int(number) for number in put] == sorted({int(number) for number in put}) == numbers(kit)
    assert int(put[1]) - int(put[0]) > 1


def test_sequence_numbers_grow_when_the_clock_goes_back() -> None:
    """A clock that steps back changes arrival times, not the order of sequence numbers."""
    kit = Kit()
    for _ in range(5):
        kit.put()
        kit.clock.advance(-30)
    arrivals = [record["ApproximateArrivalTimestamp"] for record in kit.records()]
    assert arrivals == sorted(arrivals, reverse=True)
    assert numbers(kit) == sorted(numbers(kit))


def test_sequence_numbers_of_children_are_greater() -> None:
    """Every number of a child is greater than every number of its parents, even when no time has passed."""
    kit = Kit(shards=2)
    kit.put_many(*({"Data": b"p", "PartitionKey": str(n)} for n in range(20)))
    kit.merge(0, 1)
    kit.put(b"c")
    kit.split(2)
    kit.put(b"g")
    grandchild = max(numbers(kit, 3) + numbers(kit, 4))
    assert max(numbers(kit, 0) + numbers(kit, 1)) < numbers(kit, 2)[0] < grandchild


def test_sequence_numbers_lie_between_start_and_end() -> None:
    """A shard's records lie above its StartingSequenceNumber and below its EndingSequenceNumber."""
    kit = Kit()
    kit.put()
    kit.split(0)
    bounds = kit.shards()[0]["SequenceNumberRange"]
    assert int(bounds["StartingSequenceNumber"]) < numbers(kit)[0] < int(bounds["EndingSequenceNumber"])


def test_no_two_records_share_a_sequence_number() -> None:
    """Streams and shards made at the same moment give different numbers."""
    kit = Kit(shards=4)
    kit.call("CreateStream", StreamName="t", ShardCount=4)
    entries = [{"Data": b"", "PartitionKey": str(n)} for n in range(50)]
    put = [*kit.put_many(*entries), *kit.call("PutRecords", StreamName="t", Records=entries)["Records"]]
    assert len({result["SequenceNumber"] for result in put}) == 100


@pytest.mark.parametrize(("kind", "due"), [("AT_SEQUENCE_NUMBER", [b"1", b"2"]), ("AFTER_SEQUENCE_NUMBER", [b"2"])])
def test_reading_starts_at_a_sequence_number(kind: str, due: list[bytes]) -> None:
    """AT_SEQUENCE_NUMBER includes the record, AFTER_SEQUENCE_NUMBER leaves it out."""
    kit = Kit()
    number = [kit.put(str(n).encode())["SequenceNumber"] for n in range(3)][1]
    assert kit.read(0, kind, StartingSequenceNumber=number) == due


def test_reading_starts_at_either_end() -> None:
    """TRIM_HORIZON gives all that is there, LATEST what comes after."""
    kit = Kit()
    kit.put(b"old")
    latest = kit.iterator(kind="LATEST")
    kit.put(b"new")
    assert kit.read() == [b"old", b"new"]
    assert [record["Data"] for record in kit.get(latest)["Records"]] == [b"new"]


@pytest.mark.parametrize("name", ["StartingSequenceNumber", "EndingSequenceNumber"])
def test_the_bounds_of_a_shard_are_places_to_start(name: str) -> None:
    """A shard's own bounds can be read from: its start gives everything, its end nothing."""
    kit = Kit()
    kit.put(b"1")
    kit.split(0)
    number = kit.shards()[0]["SequenceNumberRange"][name]
    due = [b"1"] if name.startswith("Start") else []
    assert kit.read(0, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number) == due
    assert kit.read(0, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number) == due


@pytest.mark.parametrize(("offset", "due"), [(-1.0, 3), (0.0, 3), (0.001, 2), (1.0, 2), (1.5, 1), (2.0, 1)])
def test_reading_starts_at_a_moment(offset: float, due: int) -> None:
    """AT_TIMESTAMP gives the first record of that millisecond or later."""
    kit = Kit()
    start = kit.clock.now()
    for _ in range(3):
        kit.put()
        kit.clock.advance(1)
    assert len(kit.read(0, "AT_TIMESTAMP", Timestamp=start + offset)) == due


def test_reading_from_a_moment_survives_a_clock_that_went_back() -> None:
    """AT_TIMESTAMP starts with the first record that is late enough, although earlier ones follow it."""
    kit = Kit()
    start = kit.clock.now()
    for step in (10.0, -5.0, 1.0, 1.0, 0.0):
        kit.put(str(round(kit.clock.now() - start)).encode())
        kit.clock.advance(step)
    kit.clock.advance(60)
    assert kit.read(0, "AT_TIMESTAMP", Timestamp=start + 8) == [b"10", b"5", b"6", b"7"]


def test_a_moment_in_the_future_is_refused() -> None:
    """AT_TIMESTAMP after the clock is refused, the present millisecond is not."""
    kit = Kit()
    kit.iterator(kind="AT_TIMESTAMP", Timestamp=kit.clock.now())
    with refused("InvalidArgumentException", "timestampInMillis: 1700000000001, currentTimestampInMillis: 17000000000"):
        kit.iterator(kind="AT_TIMESTAMP", Timestamp=kit.clock.now() + 0.001)


def test_type_and_parameters_go_together() -> None:
    """Sequence number and timestamp must be there exactly where the type needs them."""
    kit = Kit()
    number = kit.put()["SequenceNumber"]
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        with refused("InvalidArgumentException", f"Request specified {kind} and no StartingSequenceNumber."):
            kit.iterator(kind=kind)
    for kind in ("TRIM_HORIZON", "LATEST"):
        with refused("InvalidArgumentException", f"Request specified {kind} and also a StartingSequenceNumber."):
            kit.iterator(kind=kind, StartingSequenceNumber=number)
    with refused("InvalidArgumentException", "Must specify timestampInMillis parameter"):
        kit.iterator(kind="AT_TIMESTAMP")


def test_a_number_of_another_shard_is_refused() -> None:
    """The message names the shard that the number encodes."""
    kit = Kit(shards=2)
    other = kit.put(ExplicitHashKey=str(2**128 - 1))
    assert other["ShardId"] == shard_name(1)
    with refused("InvalidArgumentException", "It encodes shardId-000000000001, while it was used in a call to a shard"):
        kit.iterator(0, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=other["SequenceNumber"])


def test_a_number_of_another_stream_is_refused() -> None:
    """Also when the other stream is an earlier one of the same name."""
    kit = Kit()
    number = kit.put()["SequenceNumber"]
    kit.call("DeleteStream")
    kit.call("CreateStream", ShardCount=1)
    text = f"StartingSequenceNumber {number} used in GetShardIterator on shard {FIRST} in stream s under account "
    with refused("InvalidArgumentException", text + "000000000000 is invalid because it did not come from this stream"):
        kit.iterator(0, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number)


@pytest.mark.parametrize("number", ["0", "1", "9" * 56, "9" * 129])
def test_a_number_nobody_made_is_refused(number: str) -> None:
    """Numbers that no emulator made are invalid."""
    with refused("InvalidArgumentException", f"StartingSequenceNumber {number} used in GetShardIterator"):
        Kit().iterator(0, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)


def test_an_iterator_lives_five_minutes() -> None:
    """An iterator works for 300 s and is then refused with the times in the message."""
    kit = Kit()
    iterator = kit.iterator()
    kit.clock.advance(300)
    kit.get(iterator)
    kit.clock.advance(0.001)
    text = (
        "Iterator expired. The iterator was created at time Tue Nov 14 22:13:20 UTC 2023 while right now it is "
        "Tue Nov 14 22:18:20 UTC 2023 which is further in the future than the tolerated delay of 300000 milliseconds."
    )
    with refused("ExpiredIteratorException", text):
        kit.get(iterator)


def test_an_iterator_is_opaque() -> None:
    """Iterators are long base64 texts, never twice the same, and cannot be forged or changed."""
    kit = Kit()
    one, two = kit.iterator(), kit.iterator()
    assert one != two
    assert 150 < len(one) <= 512
    raw = bytearray(base64.b64decode(one))
    assert b"shardId" not in raw
    raw[40] ^= 1
    for forged in (base64.b64encode(raw).decode(), "AAAA", one[:-4], "not base64!", "ä" * 40):
        with refused("InvalidArgumentException", "Invalid ShardIterator."):
            kit.get(forged)


def test_an_iterator_can_be_used_twice() -> None:
    """The same iterator gives the same records, so that a lost answer can be asked for again."""
    kit = Kit()
    kit.put(b"1")
    iterator = kit.iterator()
    assert kit.get(iterator)["Records"] == kit.get(iterator)["Records"]


def test_an_iterator_dies_with_its_stream() -> None:
    """The iterator of a deleted stream finds nothing, also when the name is taken again."""
    kit = Kit()
    iterator = kit.iterator()
    kit.call("DeleteStream")
    kit.call("CreateStream", ShardCount=1)
    with refused("ResourceNotFoundException", "does not exist"):
        kit.get(iterator)


def test_the_stream_arn_must_fit_the_iterator() -> None:
    """GetRecords takes the ARN of the iterator's stream and refuses another."""
    kit = Kit()
    kit.get(kit.iterator(), StreamARN=kit.arn)
    with refused("InvalidArgumentException"):
        kit.get(kit.iterator(), StreamARN=kit.arn + "x")


def test_a_call_gives_up_to_limit_records() -> None:
    """Limit cuts the answer, 10,000 is its greatest value and its default."""
    kit = Kit()
    for _ in range(21):
        kit.put_many(*({"Data": b"", "PartitionKey": "k"} for _ in range(500)))
    assert len(kit.get(kit.iterator(), Limit=3)["Records"]) == 3
    assert len(kit.get(kit.iterator())["Records"]) == 10_000
    with refused("ValidationException", "at 'limit' failed to satisfy constraint: Member must have value less than or"):
        kit.get(kit.iterator(), Limit=10_001)


def test_a_call_gives_up_to_ten_mebibytes() -> None:
    """Data and keys of one answer stay within 10 MiB."""
    kit = Kit()
    for _ in range(12):
        kit.put(bytes(MIB - 1))
    first = kit.get(kit.iterator())
    assert len(first["Records"]) == 10
    assert len(kit.get(first["NextShardIterator"])["Records"]) == 2


def test_a_record_of_ten_mebibytes_can_be_read() -> None:
    """A record is given alone rather than never, however large."""
    kit = Kit()
    kit.call("UpdateMaxRecordSize", StreamARN=kit.arn, MaxRecordSizeInKiB=10_240)
    for _ in range(2):
        kit.put(bytes(10 * MIB - 1))
    first = kit.get(kit.iterator())
    assert [len(record["Data"]) for record in first["Records"]] == [10 * MIB - 1]
    assert len(kit.get(first["NextShardIterator"])["Records"]) == 1


def test_lag_is_told_against_the_clock() -> None:
    """MillisBehindLatest is the age of the last record given while others wait, and 0 at the tip."""
    kit = Kit()
    for _ in range(3):
        kit.put()
        kit.clock.advance(1)
    first = kit.get(kit.iterator(), Limit=1)
    assert first["MillisBehindLatest"] == 3000
    kit.clock.advance(4)
    second = kit.get(first["NextShardIterator"], Limit=1)
    assert second["MillisBehindLatest"] == 6000
    assert kit.get(second["NextShardIterator"])["MillisBehindLatest"] == 0


def test_lag_is_not_zero_while_records_wait() -> None:
    """A reader with records before it is behind, even within the same millisecond."""
    kit = Kit()
    kit.put()
    kit.put()
    assert kit.get(kit.iterator(), Limit=1)["MillisBehindLatest"] > 0


def test_a_gap_looks_like_a_sparse_shard() -> None:
    """In a gap GetRecords gives no records, a lag, and a new iterator that has passed nothing."""
    kit = Kit()
    kit.put(b"1")
    kit.clock.advance(2)
    kit.model.gap("s", FIRST, calls=2)
    iterator = kit.iterator()
    for _ in range(2):
        answer = kit.get(iterator)
        assert (answer["Records"], answer["MillisBehindLatest"]) == ([], 2000)
        assert answer["NextShardIterator"] != iterator
        iterator = answer["NextShardIterator"]
    assert [record["Data"] for record in kit.get(iterator)["Records"]] == [b"1"]


def test_a_gap_at_the_end_is_not_the_end() -> None:
    """A gap on a closed and exhausted shard still gives an iterator and a lag, and only then the end."""
    kit = Kit()
    kit.split(0)
    kit.model.gap("s", FIRST)
    answer = kit.get(kit.iterator())
    assert answer["MillisBehindLatest"] > 0
    assert "ChildShards" not in answer
    assert "ChildShards" in kit.get(answer["NextShardIterator"])


def test_a_shard_can_be_named_by_number() -> None:
    """ShardId may be the bare number, as the service accepts it."""
    kit = Kit()
    assert kit.call("GetShardIterator", ShardId="0", ShardIteratorType="LATEST")["ShardIterator"]


def test_an_unknown_shard_is_told() -> None:
    """GetShardIterator words a missing shard and a missing stream as the service does."""
    kit = Kit()
    text = "Shard shardId-000000000007 in stream s under account 000000000000 does not exist"
    with refused("ResourceNotFoundException", text):
        kit.iterator(7)
    with refused("ResourceNotFoundException", "Stream t under account 000000000000 not found."):
        kit.iterator(0, StreamName="t")


def test_records_are_trimmed_by_retention() -> None:
    """Records older than the retention period are gone for every starting position, to the millisecond."""
    kit = Kit()
    number = kit.put(b"old")["SequenceNumber"]
    moment = kit.clock.now()
    kit.clock.advance(HOUR)
    kit.put(b"new")
    kit.clock.advance(23 * HOUR)
    assert kit.read() == [b"old", b"new"]
    kit.clock.advance(0.001)
    assert kit.read() == [b"new"]
    assert kit.read(0, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number) == [b"new"]
    assert kit.read(0, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number) == [b"new"]
    assert kit.read(0, "AT_TIMESTAMP", Timestamp=moment) == [b"new"]


def test_a_trimmed_shard_goes_on() -> None:
    """Positions and sequence numbers stay right while thousands of records are trimmed bit by bit."""
    kit = Kit()
    kept: list[bytes] = []
    for n in range(3000):
        kit.put(str(n).encode())
        kit.clock.advance(60)
        if n % 500 == 0:
            kept = kit.read()
            assert kept == [str(i).encode() for i in range(max(0, n - 1439), n + 1)]
    assert numbers(kit) == sorted(numbers(kit))
    assert len(kit.read()) == 1440


def test_a_reader_is_not_disturbed_by_trimming() -> None:
    """A reader an hour behind gets each record once while thousands behind it are trimmed."""
    kit = Kit()
    iterator, read, written = "", [], []
    for n in range(4000):
        written.append(kit.put(str(n).encode())["SequenceNumber"])
        kit.clock.advance(60)
        if n >= 60:
            answer = kit.get(iterator or kit.iterator(), Limit=1)
            read += [int(record["Data"]) for record in answer["Records"]]
            iterator = answer["NextShardIterator"]
    assert read == list(range(3940))
    assert len(set(written)) == 4000
    assert kit.read(0, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=written[3997]) == [b"3998", b"3999"]


def test_a_number_of_another_emulator_is_refused() -> None:
    """A number from before a restart does not fit the stream of the same name that was made since."""
    number = Kit().put()["SequenceNumber"]
    kit = Kit(create=False)
    kit.clock.advance(60)
    kit.call("CreateStream", ShardCount=1)
    with refused("InvalidArgumentException", "did not come from this stream"):
        kit.iterator(0, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number)


@pytest.mark.parametrize("records", [40, 3000])
def test_trimmed_records_are_freed(records: int) -> None:
    """The memory of trimmed records is given back, also of a few, and of a shard that nobody reads."""
    kit = Kit()
    tracemalloc.start()
    try:
        for n in range(records):
            kit.put(bytes(30 * MIB // records), str(n))
        kit.clock.advance(25 * HOUR)
        assert tracemalloc.get_traced_memory()[0] > 29 * MIB
        kit.put()
        assert tracemalloc.get_traced_memory()[0] < 5 * MIB  # other threads of the test run allocate a little
    finally:
        tracemalloc.stop()


def test_an_iterator_before_the_horizon_goes_on_with_what_is_left() -> None:
    """An iterator whose records were trimmed since continues with the oldest record."""
    kit = Kit()
    for n in range(3):
        kit.put(str(n).encode())
        kit.clock.advance(1)
    kit.clock.advance(24 * HOUR - 4)
    iterator = kit.iterator()
    kit.clock.advance(2.5)
    assert [record["Data"] for record in kit.get(iterator)["Records"]] == [b"2"]
