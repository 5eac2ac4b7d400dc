"""kinesis_nb to pandas: `source.read(...).to_pandas()`."""

from __future__ import annotations

import measure
import ours


def connect(endpoint: str) -> measure.Read:
    """Return what reads a stream into a pandas DataFrame."""
    source = ours.unpaced(endpoint)
    return lambda stream, _records: len(source.read(stream, progress=False).to_pandas())


if __name__ == "__main__":
    measure.main(connect)
