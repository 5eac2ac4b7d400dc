"""kinesis_nb to polars: `source.read(...).to_polars()`, with the pace that AWS's quotas ask for switched off."""

from __future__ import annotations

import measure

import kinesis_nb as kn
from kinesis_nb import consumer


def records(job: measure.Job) -> kn.Records:
    """Read the whole stream."""
    consumer.BEHIND_SECONDS = 0.0
    auth = kn.StaticCredentials(measure.KEY, measure.KEY)
    source = kn.connect(region=measure.REGION, auth=auth, endpoint_url=job.endpoint)
    return source.read(measure.STREAM, progress=False)


def read(job: measure.Job) -> int:
    """Read all shards into a polars DataFrame."""
    return records(job).to_polars().height


if __name__ == "__main__":
    measure.main(read)
