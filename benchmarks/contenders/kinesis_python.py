"""kinesis-python: one process per shard and a queue between them; records only counted.

Its readers sleep 0.2 s between polls (default: 1 s); less would only make those that have nothing left burn CPU.
"""

from __future__ import annotations

import os
from typing import Any

import boto3
import measure
from kinesis.consumer import KinesisConsumer

POLL_SECONDS = 0.2


class FromTheBeginning:
    """The least that can be a consumer's state: it would start at LATEST without one."""

    def lock_shard(self, _shard_id: str, _seconds: float) -> bool:
        return True

    def get_iterator_args(self, _shard_id: str) -> dict[str, Any]:
        return {"ShardIteratorType": "TRIM_HORIZON"}

    def checkpoint(self, _shard_id: str, _sequence_number: str) -> None:
        """Keep nothing."""


def connect(endpoint: str) -> measure.Read:
    """Return what counts the records that the consumer yields."""
    os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint  # it has no setting for it
    return count


def count(stream: str, records: int) -> int:
    aws: Any = boto3
    consumer = KinesisConsumer(stream, aws.Session(), FromTheBeginning(), reader_sleep_time=POLL_SECONDS)
    seen = 0
    for _ in consumer:
        seen += 1
        if seen == records:
            for reader in consumer.shards.values():
                reader.process.kill()  # its own shutdown waits forever for readers that wait for room in the queue
            consumer.run = False
    return seen


if __name__ == "__main__":
    measure.main(connect)
