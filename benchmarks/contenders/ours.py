"""kinesis_nb to polars: `source.read(...).to_polars()`, with the pace that AWS's quotas ask for switched off."""

from __future__ import annotations

import measure

import kinesis_nb as kn
from kinesis_nb.reading import pace


def connect(endpoint: str) -> measure.Read:
    """Return what reads a stream into a polars DataFrame."""
    source = unpaced(endpoint)
    return lambda stream, _records: source.read(stream, progress=False).to_polars().height


def unpaced(endpoint: str) -> kn.Source:
    """Return a source that calls as often as it can: the others do not pace themselves by bytes either."""
    pace.BEHIND_SECONDS = pace.FULL_RESPONSE_SECONDS = 0.0
    pace.SHARD_READ_BYTES = float("inf")
    auth = kn.StaticCredentials(measure.KEY, measure.KEY)
    return kn.connect(region=measure.REGION, auth=auth, endpoint_url=endpoint)


if __name__ == "__main__":
    measure.main(connect)
