"""The ceiling: `http.client`, msgspec, Arrow columns; a thread per shard, one decode lock, nothing checked."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import measure
import msgspec
import pyarrow as pa


class Record(msgspec.Struct, gc=False):
    """One record of an answer."""

    SequenceNumber: str
    Data: bytes
    ApproximateArrivalTimestamp: float
    PartitionKey: str | None = None


class Answer(msgspec.Struct):
    """An answer of GetRecords."""

    Records: list[Record]
    NextShardIterator: str | None
    MillisBehindLatest: int


_decoder = msgspec.json.Decoder(Answer)
_decode_lock = threading.Lock()  # threads that decode at once would fight for the GIL


def connect(endpoint: str) -> measure.Read:
    """Return what reads a stream into an Arrow table of the connector's four columns and the sequence numbers."""
    address = urlsplit(endpoint)
    return lambda stream, _records: read(f"{address.hostname}:{address.port}", stream).num_rows


def read(host: str, stream: str) -> pa.Table:
    listing = json.loads(_post(http.client.HTTPConnection(host), "ListShards", StreamName=stream))["Shards"]
    with ThreadPoolExecutor(len(listing)) as threads:
        shards = threads.map(lambda shard: _read_shard(host, stream, shard["ShardId"]), listing)
        return pa.concat_tables([pa.Table.from_batches(batches) for batches in shards])


def _read_shard(host: str, stream: str, shard_id: str) -> list[pa.RecordBatch]:
    connection = http.client.HTTPConnection(host)
    where = {"StreamName": stream, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = json.loads(_post(connection, "GetShardIterator", **where))["ShardIterator"]
    batches = []
    while iterator:
        body = _post(connection, "GetRecords", ShardIterator=iterator, Limit=10_000)
        with _decode_lock:
            rows, iterator = _decode(body)
        batches.append(rows)
    return batches


def _decode(body: bytes) -> tuple[pa.RecordBatch, str | None]:
    """Return the rows and where to go on; the records are freed when this returns, so under the lock too."""
    answer = _decoder.decode(body)
    return _columns(answer.Records), answer.NextShardIterator if answer.MillisBehindLatest else None


def _columns(records: list[Record]) -> pa.RecordBatch:
    kind = pa.timestamp("us", tz="UTC")
    arrival = pa.array([record.ApproximateArrivalTimestamp for record in records], pa.float64())
    return pa.RecordBatch.from_pydict(
        {
            "partition_key": pa.array([record.PartitionKey for record in records], pa.string()),
            "data": pa.array([record.Data for record in records], pa.binary()).cast(pa.string()),
            "kinesis_ingestion_timestamp": pa.compute.multiply(arrival, 1e6).cast(pa.int64(), safe=False).cast(kind),
            "foundry_ingestion_timestamp": pa.repeat(pa.scalar(time.time_ns() // 1_000, kind), len(records)),
            "sequence_number": pa.array([record.SequenceNumber for record in records], pa.string()),
        }
    )


def _post(connection: http.client.HTTPConnection, operation: str, **params: object) -> bytes:
    headers = {"X-Amz-Target": f"Kinesis_20131202.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    connection.request("POST", "/", json.dumps(params), headers)
    return connection.getresponse().read()


if __name__ == "__main__":
    measure.main(connect)
