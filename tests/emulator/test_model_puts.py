"""PutRecord and PutRecords: routing, sizes, partial failures, AUTO distribution."""

from __future__ import annotations

from hashlib import md5
from typing import Any

import pytest

from kinesis_nb.emulator.model import Model
from tests.emulator.test_model_kit import FIRST, HASH_KEYS, Kit, entry, refused, shard_name

MIB = 2**20


def on_demand(**params: Any) -> Kit:
    """Return a kit with an on-demand stream."""
    kit = Kit(create=False)
    kit.call("CreateStream", StreamModeDetails={"StreamMode": "ON_DEMAND"}, **params)
    return kit


def test_a_record_comes_back_as_it_was_put() -> None:
    """Data, key, sequence number and arrival time are those of the put."""
    kit = Kit()
    put = kit.put(b"\x00\xff", "ключ")
    assert put == {"ShardId": FIRST, "SequenceNumber": put["SequenceNumber"]}
    assert kit.records() == [
        {
            "SequenceNumber": put["SequenceNumber"],
            "ApproximateArrivalTimestamp": 1_700_000_000.0,
            "Data": b"\x00\xff",
            "PartitionKey": "ключ",
        }
    ]


def test_arrival_has_milliseconds() -> None:
    """ApproximateArrivalTimestamp is the clock, rounded to milliseconds."""
    kit = Kit()
    kit.clock.advance(0.0126)
    kit.put()
    assert kit.records()[0]["ApproximateArrivalTimestamp"] == 1_700_000_000.013


def test_a_key_goes_to_the_shard_of_its_md5() -> None:
    """The MD5 of the key, as UTF-8, is the hash key that picks the shard."""
    kit = Kit(shards=8)
    for key in ("a", "Grüße", "🐟", *map(str, range(50))):
        hash_key = int.from_bytes(md5(key.encode()).digest())
        assert kit.put(key=key)["ShardId"] == shard_name(hash_key * 8 // HASH_KEYS)


def test_an_explicit_hash_key_overrides_the_partition_key() -> None:
    """ExplicitHashKey picks the shard, from 0 to 2^128-1 and no further."""
    kit = Kit(shards=2)
    edge = HASH_KEYS // 2
    due = {0: 0, edge - 1: 0, edge: 1, HASH_KEYS - 1: 1}
    assert {key: int(kit.put(ExplicitHashKey=str(key))["ShardId"][-1]) for key in due} == due
    with refused("InvalidArgumentException", f"must be in the range: [0, 2^128-1]. Specified value was {HASH_KEYS}"):
        kit.put(ExplicitHashKey=str(HASH_KEYS))
    with refused("ValidationException", "at 'explicitHashKey'"):
        kit.put(ExplicitHashKey="01")
    with refused("ValidationException", "at 'records.2.member.explicitHashKey'"):
        kit.put_many(entry(), {**entry(), "ExplicitHashKey": "-1"})


def test_records_go_to_open_shards() -> None:
    """After a split nothing is written to the parent."""
    kit = Kit()
    kit.split(0)
    shards = {kit.put(key=str(n))["ShardId"] for n in range(30)}
    assert shards == {shard_name(1), shard_name(2)}


def test_results_stand_in_the_order_of_the_request() -> None:
    """PutRecords answers each record at its place, and keeps the order within a shard."""
    kit = Kit(shards=4)
    entries = [entry(str(n).encode(), str(n % 10)) for n in range(100)]
    results = kit.put_many(*entries)
    stored = {r["SequenceNumber"]: r["Data"] for shard in range(4) for r in kit.records(shard)}
    assert [stored[result["SequenceNumber"]] for result in results] == [e["Data"] for e in entries]


@pytest.mark.parametrize("key", ["x", "x" * 256, "🐟" * 256])
def test_a_key_has_up_to_256_characters(key: str) -> None:
    """The limit counts characters, not bytes."""
    kit = Kit()
    kit.put(key=key)
    kit.put_many(entry(key=key))
    assert [record["PartitionKey"] for record in kit.records()] == [key, key]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "Member must have length greater than or equal to 1"),
        ("x" * 257, "Member must have length less than or equal to 256"),
        (None, "Member must not be null"),
    ],
)
def test_other_keys_are_refused(key: str | None, text: str) -> None:
    """An empty, missing or longer key is a ValidationException that names the record."""
    kit = Kit()
    with refused("ValidationException", f"at 'partitionKey' failed to satisfy constraint: {text}"):
        kit.call("PutRecord", Data=b"", PartitionKey=key)
    with refused("ValidationException", f"at 'records.2.member.partitionKey' failed to satisfy constraint: {text}"):
        kit.put_many(entry(), {"Data": b"", "PartitionKey": key})
    assert kit.records() == []


def test_wrong_types_are_refused() -> None:
    """Data that are not bytes and keys that are not text are a SerializationException."""
    kit = Kit()
    for bad in ({"Data": "text", "PartitionKey": "k"}, {"Data": b"", "PartitionKey": 7}, "record"):
        with refused("SerializationException"):
            kit.call("PutRecords", Records=[bad])
    with refused("ValidationException", "Value null at 'records.1.member.data'"):
        kit.call("PutRecords", Records=[{"PartitionKey": "k"}])


def test_a_request_has_one_to_500_records() -> None:
    """No records, and 501, are refused."""
    kit = Kit()
    assert len(kit.put_many(*[entry()] * 500)) == 500
    for count in (0, 501):
        with refused("ValidationException", "at 'records' failed to satisfy constraint: Member must have length"):
            kit.put_many(*[entry()] * count)


def test_a_record_has_up_to_one_mebibyte() -> None:
    """Data and key together may have 1 MiB."""
    kit = Kit()
    kit.put(bytes(MIB - 1), "k")
    with refused("InvalidArgumentException", "partition key included"):
        kit.put(bytes(MIB), "k")
    with refused("ValidationException", "at 'data' failed to satisfy constraint: Member must have length less than or"):
        kit.put(bytes(MIB + 1), "k")
    with refused("ValidationException", "at 'records.2.member.data'"):
        kit.put_many(entry(), entry(bytes(MIB + 1)))


def test_a_key_counts_in_bytes() -> None:
    """The size of a record counts its key as UTF-8."""
    kit = Kit()
    kit.put(bytes(MIB - 8), "🐟🐟")
    with refused("InvalidArgumentException", f"Record size of {MIB + 1} bytes"):
        kit.put(bytes(MIB - 7), "🐟🐟")


def test_a_stream_can_take_larger_records() -> None:
    """MaxRecordSizeInKiB raises the limit up to 10 MiB."""
    kit = Kit()
    kit.call("CreateStream", StreamName="t", ShardCount=1, MaxRecordSizeInKiB=2048)
    kit.put(bytes(2 * MIB - 1), StreamName="t")
    with refused("InvalidArgumentException"):
        kit.put(bytes(2 * MIB), StreamName="t")
    kit.call("UpdateMaxRecordSize", StreamARN=kit.arn, MaxRecordSizeInKiB=10_240)
    kit.put(bytes(10 * MIB - 1))
    assert kit.summary()["MaxRecordSizeInKiB"] == 10_240
    with refused("ValidationException", "at 'maxRecordSizeInKiB'"):
        kit.call("UpdateMaxRecordSize", StreamARN=kit.arn, MaxRecordSizeInKiB=10_241)


def test_a_request_has_up_to_ten_mebibytes() -> None:
    """Data and keys of all records together may have 10 MiB."""
    kit = Kit()
    full = entry(bytes(MIB - 4), "four")
    kit.put_many(*[full] * 10)
    with refused("InvalidArgumentException", "Records size exceeds 10 MB limit"):
        kit.put_many(*[full] * 10, entry(b""))


def test_empty_data_is_data() -> None:
    """A record of 0 bytes is stored and read."""
    kit = Kit()
    kit.put(b"")
    assert kit.read() == [b""]


def test_ordering_takes_an_earlier_number() -> None:
    """SequenceNumberForOrdering takes the number of the record before; nonsense and the future are refused."""
    kit = Kit()
    first = kit.put()["SequenceNumber"]
    second = kit.put(SequenceNumberForOrdering=first)["SequenceNumber"]
    assert int(second) > int(first)
    kit.clock.advance(-60)
    for number in ("5", second):
        with refused(
            "InvalidArgumentException", f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream"
        ):
            kit.put(SequenceNumberForOrdering=number)


def test_some_records_fail() -> None:
    """A count fails the next records; the others of the same request are written."""
    kit = Kit()
    kit.model.fail_records("s", 2, "InternalFailure")
    answer = kit.call("PutRecords", Records=[entry(b"1"), entry(b"2"), entry(b"3")])
    failure = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}
    assert answer["FailedRecordCount"] == 2
    assert answer["Records"][:2] == [failure, failure]
    assert kit.read() == [b"3"]
    assert kit.call("PutRecords", Records=[entry(b"1"), entry(b"2")])["FailedRecordCount"] == 0


def test_a_count_goes_on_in_the_next_request() -> None:
    """A rule for more records than one request has continues with the next."""
    kit = Kit()
    kit.model.fail_records("s", 3, "InternalFailure")
    failed = [kit.call("PutRecords", Records=[entry(), entry()])["FailedRecordCount"] for _ in range(3)]
    assert failed == [2, 1, 0]


def test_a_predicate_picks_the_records_that_fail() -> None:
    """A predicate fails what it picks in the first request in which it picks anything."""
    kit = Kit()
    kit.model.fail_records("s", lambda e: bool(e["PartitionKey"] == "b"), "ProvisionedThroughputExceededException")
    assert kit.call("PutRecords", Records=[entry(key="a")])["FailedRecordCount"] == 0
    results = kit.put_many(entry(key="a"), entry(key="b"), entry(key="b"))
    text = f"Rate exceeded for shard {FIRST} in stream s under account 000000000000."
    assert [result.get("ErrorMessage") for result in results] == [None, text, text]
    assert kit.call("PutRecords", Records=[entry(key="b")])["FailedRecordCount"] == 0


def test_rules_work_in_their_order() -> None:
    """The oldest rule that wants a record has it."""
    kit = Kit()
    kit.model.fail_records("s", 1, "InternalFailure")
    kit.model.fail_records("s", 1, "KMSThrottlingException")
    codes = [result.get("ErrorCode") for result in kit.put_many(entry(), entry(), entry())]
    assert codes == ["InternalFailure", "KMSThrottlingException", None]


def test_failing_needs_a_stream() -> None:
    """A misspelt stream is told at once."""
    with refused("ResourceNotFoundException", "Stream t under account"):
        Kit().model.fail_records("t", 1, "InternalFailure")


def test_auto_needs_no_key() -> None:
    """An AUTO stream takes records without a key and gives them back without one."""
    kit = on_demand(RecordDistributionStrategy="AUTO")
    kit.call("PutRecord", Data=b"1")
    kit.put_many({"Data": b"2"}, entry(b"3", "kept"))
    keys = {r["Data"]: r.get("PartitionKey") for shard in range(4) for r in kit.records(shard)}
    assert keys == {b"1": None, b"2": None, b"3": "kept"}
    assert kit.summary()["RecordDistributionStrategy"] == "AUTO"


def test_auto_spreads_records_evenly() -> None:
    """An AUTO stream ignores keys and explicit hash keys."""
    kit = on_demand(RecordDistributionStrategy="AUTO")
    kit.put_many(*({"Data": b"", "PartitionKey": "same", "ExplicitHashKey": "0"} for _ in range(400)))
    assert [len(kit.read(shard)) for shard in range(4)] == [100] * 4


def test_auto_is_for_on_demand_streams() -> None:
    """A provisioned stream refuses AUTO, and an on-demand stream can switch either way."""
    kit = Kit()
    with refused("InvalidArgumentException", "ON_DEMAND"):
        kit.call("CreateStream", StreamName="t", ShardCount=1, RecordDistributionStrategy="AUTO")
    with refused("InvalidArgumentException", "ON_DEMAND"):
        kit.call("UpdateStreamRecordDistributionStrategy", StreamARN=kit.arn, RecordDistributionStrategy="AUTO")
    assert "RecordDistributionStrategy" not in kit.summary()
    kit = on_demand()
    assert kit.summary()["RecordDistributionStrategy"] == "USER_PARTITION_KEY"
    with refused("ValidationException", "partitionKey"):
        kit.call("PutRecord", Data=b"")
    kit.call("UpdateStreamRecordDistributionStrategy", StreamARN=kit.arn, RecordDistributionStrategy="AUTO")
    kit.call("PutRecord", Data=b"")


def test_a_dry_run_says_yes_and_does_nothing() -> None:
    """DryRun answers DryRunOperationException where the call would have worked, and changes nothing."""
    kit = Kit()
    iterator = kit.iterator()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("PutRecord", {"Data": b"", "PartitionKey": "k"}),
        ("PutRecords", {"Records": [entry()]}),
        ("GetShardIterator", {"ShardId": FIRST, "ShardIteratorType": "LATEST"}),
        ("GetRecords", {"ShardIterator": iterator}),
    ]
    for operation, params in calls:
        with refused("DryRunOperationException", "DryRun"):
            kit.call(operation, DryRun=True, **params)
        kit.call(operation, DryRun=False, **params)
    assert len(kit.read()) == 2


def test_a_dry_run_says_no_with_the_real_error() -> None:
    """DryRun on a missing stream, a bad record or a bad iterator answers that error."""
    kit = Kit()
    with refused("ResourceNotFoundException"):
        kit.put(StreamName="t", DryRun=True)
    with refused("ValidationException"):
        kit.put(key="", DryRun=True)
    with refused("InvalidArgumentException"):
        kit.get("AAAA", DryRun=True)


def test_the_same_seed_gives_the_same_answers() -> None:
    """Two models with one seed and one clock answer alike, two seeds make different iterators."""

    def run(seed: int) -> tuple[Any, ...]:
        kit = Kit(seed=seed)
        return kit.put(), kit.iterator()

    assert run(1) == run(1)
    assert run(1)[1] != run(2)[1]


def test_the_model_shows_itself() -> None:
    """The repr of a model names account and region."""
    assert repr(Model(region="eu-west-1")) == "<Model 000000000000 eu-west-1, 0 streams made>"
