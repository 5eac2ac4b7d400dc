"""Throughput limits by the clock."""

from __future__ import annotations

import pytest

from kinesis_nb.emulator.model import Quotas
from tests.emulator.test_model_kit import FIRST, HASH_KEYS, Kit, entry, refused, shard_name

MIB = 2**20
TEXT = f"Rate exceeded for shard {FIRST} in stream s under account 000000000000."


def kit_with(**limits: float | None) -> Kit:
    """Return a kit with only these limits."""
    names = ("reads_per_second", "read_bytes_per_second", "write_records_per_second", "write_bytes_per_second")
    return Kit(quotas=Quotas(**dict.fromkeys(names, None) | limits))


def failed(kit: Kit, count: int, data: bytes = b"") -> int:
    """Put records in one request and return how many failed."""
    number: int = kit.call("PutRecords", Records=[entry(data)] * count)["FailedRecordCount"]
    return number


def test_nothing_is_limited_by_default() -> None:
    """Without quotas no call is throttled."""
    kit = Kit()
    assert sum(failed(kit, 500) for _ in range(10)) == 0
    for _ in range(100):
        kit.get(kit.iterator())


def test_a_shard_has_five_reads_a_second() -> None:
    """The sixth GetRecords of a second is refused; every fifth of a second allows one more."""
    kit = kit_with(reads_per_second=5)
    iterator = kit.iterator()
    for _ in range(5):
        kit.get(iterator)
    with refused("ProvisionedThroughputExceededException", TEXT):
        kit.get(iterator)
    kit.clock.advance(0.2)
    kit.get(iterator)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(iterator)
    kit.clock.advance(60)
    for _ in range(5):
        kit.get(iterator)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(iterator)


def test_iterators_are_counted_apart() -> None:
    """GetShardIterator has five calls a second of its own."""
    kit = kit_with(reads_per_second=5)
    iterators = [kit.iterator() for _ in range(5)]
    with refused("ProvisionedThroughputExceededException", TEXT):
        kit.iterator()
    kit.get(iterators[0])


def test_shards_are_counted_apart() -> None:
    """A throttled shard leaves the others alone."""
    kit = Kit(shards=2, quotas=Quotas())
    left, right = kit.iterator(0), kit.iterator(1)
    for _ in range(5):
        kit.get(left)
    kit.get(right)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(left)


def test_a_shard_gives_two_mebibytes_a_second() -> None:
    """A reply of more than 2 MiB is given, and paid off before the next."""
    kit = kit_with(read_bytes_per_second=2 * MIB)
    for _ in range(6):
        kit.put(bytes(MIB - 1))
    first = kit.get(kit.iterator(), Limit=4)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(first["NextShardIterator"])
    kit.clock.advance(0.9)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(first["NextShardIterator"])
    kit.clock.advance(0.2)
    assert len(kit.get(first["NextShardIterator"])["Records"]) == 2


def test_a_full_reply_closes_the_shard_for_five_seconds() -> None:
    """After a reply of 10 MiB every read within 5 s is refused."""
    kit = Kit(quotas=Quotas(write_bytes_per_second=None))
    for _ in range(11):
        kit.put(bytes(MIB - 1))
    first = kit.get(kit.iterator())
    assert len(first["Records"]) == 10
    kit.clock.advance(4.999)
    with refused("ProvisionedThroughputExceededException"):
        kit.get(first["NextShardIterator"])
    kit.clock.advance(0.001)
    assert len(kit.get(first["NextShardIterator"])["Records"]) == 1


def test_a_shard_takes_a_thousand_records_a_second() -> None:
    """Records beyond the limit fail one by one within a successful call."""
    kit = kit_with(write_records_per_second=1000)
    assert [failed(kit, 500), failed(kit, 500), failed(kit, 500)] == [0, 0, 500]
    kit.clock.advance(0.1)
    answer = kit.call("PutRecords", Records=[entry(str(n).encode()) for n in range(300)])
    assert answer["FailedRecordCount"] == 200
    assert answer["Records"][-1] == {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": TEXT}
    assert len(kit.read()) == 1100


def test_a_shard_takes_one_mebibyte_a_second() -> None:
    """Bytes count with their keys, and a throttled PutRecord is an exception."""
    kit = kit_with(write_bytes_per_second=MIB)
    assert failed(kit, 5, bytes(MIB // 4 - 1)) == 1
    with refused("ProvisionedThroughputExceededException", TEXT):
        kit.put(b"x")
    kit.clock.advance(0.25)
    kit.put(bytes(MIB // 4 - 1))


def test_a_large_record_passes_and_is_paid_off() -> None:
    """A record of more than a second's worth is taken when the shard is rested, and later ones wait for it."""
    kit = kit_with(write_bytes_per_second=MIB)
    kit.call("UpdateMaxRecordSize", StreamARN=kit.arn, MaxRecordSizeInKiB=10_240)
    kit.put(bytes(3 * MIB))
    kit.clock.advance(2)
    with refused("ProvisionedThroughputExceededException"):
        kit.put(b"x")
    kit.clock.advance(0.1)
    kit.put(b"x")


def test_a_hot_shard_fails_while_the_other_takes() -> None:
    """A partial failure names the hot shard; the records of the other shard are written."""
    kit = Kit(shards=2, quotas=Quotas(write_records_per_second=10))
    entries = [{**entry(), "ExplicitHashKey": "0" if n % 3 else str(HASH_KEYS - 1)} for n in range(30)]
    results = kit.put_many(*entries)
    codes = {result["ShardId"] for result in results if "ShardId" in result}
    assert codes == {shard_name(0), shard_name(1)}
    assert sum("ErrorCode" in result for result in results) == 10


def test_children_start_rested() -> None:
    """A split gives each child the full throughput."""
    kit = kit_with(write_records_per_second=10)
    failed(kit, 10)
    kit.split(0)
    assert sum(failed(kit, 10) for _ in range(1)) == 0


def test_a_clock_that_goes_back_does_not_throttle() -> None:
    """A step back in time leaves the tokens that are there."""
    kit = kit_with(reads_per_second=5)
    iterator = kit.iterator()
    kit.clock.advance(-100)
    for _ in range(5):
        kit.get(iterator)


@pytest.mark.parametrize("operation", ["GetRecords", "PutRecords"])
def test_a_dry_run_costs_nothing(operation: str) -> None:
    """DryRun calls are not counted."""
    kit = Kit(quotas=Quotas())
    iterator = kit.iterator()
    params = {"ShardIterator": iterator} if operation == "GetRecords" else {"Records": [entry()]}
    for _ in range(2000):
        with refused("DryRunOperationException"):
            kit.call(operation, DryRun=True, **params)
    kit.get(iterator)
    assert failed(kit, 500) == 0
