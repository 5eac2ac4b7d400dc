"""quixstreams: the consumer inside its KinesisSource, without Kafka behind it; records only counted."""

from __future__ import annotations

from typing import Any

import measure
from quixstreams.sources.community.kinesis.consumer import KinesisCheckpointer, KinesisConsumer


class InMemory:
    """A stateful source whose state is a dict: less work than the real one has."""

    def __init__(self) -> None:
        self.state = _State()

    def flush(self) -> None:
        """Write nothing."""


class _State(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


def connect(endpoint: str) -> measure.Read:
    """Return what counts the records that the consumer hands to its message processor."""
    return lambda stream, records: count(endpoint, stream, records)


def count(endpoint: str, stream: str, records: int) -> int:
    seen = 0

    def process(_record: Any) -> None:
        nonlocal seen
        seen += 1

    credentials = {
        "endpoint_url": endpoint,
        "region_name": measure.REGION,
        "aws_access_key_id": measure.KEY,
        "aws_secret_access_key": measure.KEY,
    }
    with KinesisConsumer(
        stream,
        credentials,
        process,
        KinesisCheckpointer(InMemory()),
        auto_offset_reset="earliest",
        max_records_per_shard=10_000,  # default: 1,000
    ) as consumer:
        while seen < records:
            consumer.process_shards()
            consumer.commit()
    return seen


if __name__ == "__main__":
    measure.main(connect)
