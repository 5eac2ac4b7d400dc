"""kinesis_nb to pandas: `source.read(...).to_pandas()`."""

from __future__ import annotations

import measure
import ours


def read(job: measure.Job) -> int:
    """Read all shards into a pandas DataFrame."""
    return len(ours.records(job).to_pandas())


if __name__ == "__main__":
    measure.main(read)
