"""boto3 and pandas as people write it: shard after shard, a dict per record, a DataFrame of the dicts."""

from __future__ import annotations

from typing import Any

import boto3
import measure
import pandas as pd


def connect(endpoint: str) -> measure.Read:
    """Return what reads a stream into a pandas DataFrame."""
    aws: Any = boto3
    client = aws.client("kinesis", endpoint_url=endpoint)
    return lambda stream, _records: len(read(client, stream))


def read(client: Any, stream: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            reply = client.get_records(ShardIterator=iterator, Limit=10_000)
            for record in reply["Records"]:
                rows.append(  # noqa: PERF401 - as people write it
                    {
                        "partition_key": record["PartitionKey"],
                        "data": record["Data"].decode(),
                        "arrival": record["ApproximateArrivalTimestamp"],
                        "sequence_number": record["SequenceNumber"],
                    }
                )
            iterator = reply["NextShardIterator"] if reply["MillisBehindLatest"] else None
    return pd.DataFrame(rows)


if __name__ == "__main__":
    measure.main(connect)
