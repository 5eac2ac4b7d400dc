"""How many records per second the embedded Kinesis takes and gives: `python benchmarks/emulator.py`.

The emulator runs in a process of its own; the client is a raw `http.client` with prebuilt bodies, so that the figures
are the server's. Fails when either rate is below 20,000 records of 1 KiB per second. `--boto3` adds, for comparison,
what one boto3 client reaches.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import emulated

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = 20_000  # records per second
STREAM = "benchmark"
SHARDS = 4
BATCH = 500  # records per PutRecords request
PAYLOAD = bytes(range(256)) * 4  # 1 KiB


def main() -> int:
    """Measure, print, and return 0 when both rates suffice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="how many to put, and to get (default: 100000)")
    parser.add_argument("--boto3", action="store_true", help="also measure a boto3 client")
    options = parser.parse_args()
    with emulated.running({STREAM: SHARDS}) as port:
        client = emulated.RawClient(port)
        puts = _rate(lambda: _put(client, options.records))
        gets = _rate(lambda: _get(client, options.records))
    print(f"raw http.client  put {puts:10,.0f} records/s   get {gets:10,.0f} records/s   (1 KiB each)")
    if options.boto3:
        _boto3(options.records)
    passed = min(puts, gets) >= REQUIRED
    print(f"{'PASS' if passed else 'FAIL'}: {REQUIRED:,} records/s required for each")
    return 0 if passed else 1


def _rate(work: Callable[[], int]) -> float:
    started = perf_counter()
    return work() / (perf_counter() - started)


def _put(client: emulated.RawClient, records: int) -> int:
    data = base64.b64encode(PAYLOAD).decode()
    entries = [{"Data": data, "PartitionKey": f"key-{number}"} for number in range(BATCH)]
    body = json.dumps({"StreamName": STREAM, "Records": entries}).encode()
    for _ in range(records // BATCH):
        reply = client.post("PutRecords", body)
        assert b'"FailedRecordCount":0' in reply
    return records // BATCH * BATCH


def _get(client: emulated.RawClient, records: int) -> int:
    seen = 0
    for number in range(SHARDS):
        seen += _drain(client, f"shardId-{number:012d}")
    assert seen == records // BATCH * BATCH, seen
    return seen


def _drain(client: emulated.RawClient, shard_id: str) -> int:
    result = client.call("GetShardIterator", StreamName=STREAM, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    iterator, seen = result["ShardIterator"], 0
    while True:
        reply = client.post("GetRecords", json.dumps({"ShardIterator": iterator, "Limit": 10_000}).encode())
        count = reply.count(b'"SequenceNumber"')
        if not count:
            return seen
        seen += count
        iterator = reply.split(b'"NextShardIterator":"')[1].split(b'"')[0].decode()


def _boto3(records: int) -> None:
    import boto3  # only here: the rest needs no SDK

    aws: Any = boto3

    with emulated.running({STREAM: SHARDS}) as port:
        keys = {"aws_access_key_id": "emulator", "aws_secret_access_key": "emulator"}
        url = f"http://127.0.0.1:{port}"
        settings: dict[str, Any] = {"region_name": "us-east-1", "endpoint_url": url, **keys}
        kinesis = aws.client("kinesis", **settings)
        puts = _rate(lambda: _boto3_put(kinesis, records))
        gets = _rate(lambda: _boto3_get(kinesis))
    print(f"boto3 client     put {puts:10,.0f} records/s   get {gets:10,.0f} records/s")


def _boto3_put(kinesis: Any, records: int) -> int:
    entries = [{"Data": PAYLOAD, "PartitionKey": f"key-{number}"} for number in range(BATCH)]
    for _ in range(records // BATCH):
        assert kinesis.put_records(StreamName=STREAM, Records=entries)["FailedRecordCount"] == 0
    return records // BATCH * BATCH


def _boto3_get(kinesis: Any) -> int:
    seen = 0
    for number in range(SHARDS):
        shard = {"StreamName": STREAM, "ShardId": f"shardId-{number:012d}"}
        iterator = kinesis.get_shard_iterator(**shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while (reply := kinesis.get_records(ShardIterator=iterator, Limit=10_000))["Records"]:
            seen += len(reply["Records"])
            iterator = reply["NextShardIterator"]
    return seen


if __name__ == "__main__":
    sys.exit(main())
