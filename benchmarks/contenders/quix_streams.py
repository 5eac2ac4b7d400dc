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


def read(job: measure.Job) -> int:
    """Count what the consumer hands to its message processor."""
    seen = 0

    def count(_record: Any) -> None:
        nonlocal seen
        seen += 1

    credentials = {
        "endpoint_url": job.endpoint,
        "region_name": measure.REGION,
        "aws_access_key_id": measure.KEY,
        "aws_secret_access_key": measure.KEY,
    }
    with KinesisConsumer(
        measure.STREAM,
        credentials,
        count,
        KinesisCheckpointer(InMemory()),
        auto_offset_reset="earliest",
        max_records_per_shard=10_000,  # default: 1,000
    ) as consumer:
        while seen < job.records:
            consumer.process_shards()
            consumer.commit()
    return seen


if __name__ == "__main__":
    measure.main(read)
