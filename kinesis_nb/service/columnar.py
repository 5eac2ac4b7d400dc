"""The records of a large answer of ``GetRecords`` as columns, without the GIL: several answers are decoded at once.

polars takes more than it should: a number where a text belongs becomes a text. So it is believed only where nothing is
out of the ordinary, which the number of quotation marks tells. What else there is, is for the strict decoder to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGE_BYTES = 2**20  # below, msgspec takes less than 2 ms and polars half as long again

_RECORD = pl.Struct(
    {
        "SequenceNumber": pl.String,
        "Data": pl.String,
        "ApproximateArrivalTimestamp": pl.Float64,
        "PartitionKey": pl.String,
        "EncryptionType": pl.String,
    }
)
_ANSWER = pl.Schema({"Records": pl.List(_RECORD), "NextShardIterator": pl.String, "MillisBehindLatest": pl.Float64})
_ALWAYS = ("SequenceNumber", "Data", "ApproximateArrivalTimestamp")
_EARLIEST = 1e6  # seconds since 1970; polars makes 0 or 1 of a boolean
_PIECE = 2**18  # bytes that are looked at in one go


class Columns(NamedTuple):
    """What an answer holds; of each record one value in each array."""

    keys: pa.Array  # string
    data: pa.Array  # binary
    seconds: pa.Array  # since 1970, float64
    sequence_numbers: pa.Array  # string
    next_iterator: str | None = None
    lag: int | None = None  # ms


def read_columns(body: bytes) -> Columns | None:
    """Return an answer with records, or None for one that must be decoded strictly."""
    if not body.startswith(b"{") or b"\\" in body:
        return None
    try:
        answer = pl.read_json(body, schema=_ANSWER)
        records = answer["Records"].explode().struct.unnest()
        data = records["Data"].str.decode("base64")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    iterator, lag = answer["NextShardIterator"][0], answer["MillisBehindLatest"][0]
    there = {name: len(records) - records[name].null_count() for name in records.columns}
    if any(there[name] != len(records) for name in _ALWAYS):
        return None
    if _quotation_marks(there, iterator, lag) != _count(body, b'"'):
        return None
    seconds = records["ApproximateArrivalTimestamp"].to_numpy()
    if seconds.min() < _EARLIEST or not (lag is None or lag.is_integer()):
        return None
    return Columns(
        _arrow(records["PartitionKey"], pa.string()),
        _arrow(data, pa.binary()),
        pa.array(seconds),
        _arrow(records["SequenceNumber"], pa.string()),
        iterator,
        None if lag is None else int(lag),
    )


def _quotation_marks(there: Mapping[str, int], iterator: str | None, lag: float | None) -> int:
    """Return how many an answer has in which everything that is there stands once, and every text is one."""
    names = 1 + (iterator is not None) + (lag is not None) + sum(there.values())
    texts = (iterator is not None) + sum(there.values()) - there["ApproximateArrivalTimestamp"]
    return 2 * (names + texts)


def _count(body: bytes, character: bytes) -> int:
    characters = np.frombuffer(body, np.uint8)
    pieces = (characters[start : start + _PIECE] for start in range(0, len(characters), _PIECE))
    return sum(int(np.count_nonzero(piece == ord(character))) for piece in pieces)


def _arrow(column: pl.Series, kind: pa.DataType) -> pa.Array:
    return column.to_arrow(compat_level=pl.CompatLevel.newest()).cast(kind)  # the oldest level copies once more
