"""The records of a large answer of ``GetRecords`` as columns, without the GIL: several answers are decoded at once.

polars takes more than it should: a number where a text belongs becomes a text. So it is believed only where nothing is
out of the ordinary: as many colons as there are fields that we know, and two quotation marks for each name and each
text. What else there is, is for the strict decoder to judge.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

LARGE_BYTES = 2**20  # below, msgspec takes less than 2 ms and polars half as long again
LATEST = 2.5e11  # seconds since 1970, in the year 9892
MOST_LAG = 1e15  # ms

_RECORD = pl.Struct(
    {
        "SequenceNumber": pl.String,
        "Data": pl.String,
        "ApproximateArrivalTimestamp": pl.Float64,
        "PartitionKey": pl.String,
        "EncryptionType": pl.String,
    }
)
_ANSWER: dict[str, pl.DataType | type[pl.DataType]] = {
    "Records": pl.List(_RECORD),
    "NextShardIterator": pl.String,
    "MillisBehindLatest": pl.Float64,
}
_ALWAYS = ("SequenceNumber", "Data", "ApproximateArrivalTimestamp")
_EARLIEST = 1e6  # polars makes 0 or 1 of a boolean
_LAG_OF_0_OR_1 = re.compile(rb'"MillisBehindLatest"\s*:\s*[01]')  # that is no boolean
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
    there = {name: len(records) - records[name].null_count() for name in records.columns}
    if not len(records) or any(there[name] != len(records) for name in _ALWAYS):
        return None
    iterator, lag = answer["NextShardIterator"][0], answer["MillisBehindLatest"][0]
    keys, seconds = _arrow(records["PartitionKey"], pa.string()), records["ApproximateArrivalTimestamp"].to_numpy()
    fields = 1 + (iterator is not None) + (lag is not None) + sum(there.values())
    numbers = 1 + (lag is not None) + there["ApproximateArrivalTimestamp"]  # and the list
    in_texts = (iterator or "").count(":") + (pc.sum(pc.count_substring(keys, ":")).as_py() or 0)
    if _count(body, b":", b'"') != [fields + in_texts, 2 * (2 * fields - numbers)]:
        return None
    if seconds.min() < _EARLIEST or seconds.max() > LATEST or not (lag is None or 0 <= lag <= MOST_LAG):
        return None
    if lag in {0, 1} and not _LAG_OF_0_OR_1.search(body):
        return None
    return Columns(
        keys,
        _arrow(data, pa.binary()),
        pa.array(seconds),
        _arrow(records["SequenceNumber"], pa.string()),
        iterator,
        None if lag is None else int(lag),
    )


def _count(body: bytes, *characters: bytes) -> list[int]:
    """Return how often each is there, piece by piece, so that a piece is still in the cache for the second."""
    values = np.frombuffer(body, np.uint8)
    pieces = [values[start : start + _PIECE] for start in range(0, len(values), _PIECE)]
    found = [[np.count_nonzero(piece == ord(character)) for character in characters] for piece in pieces]
    return [int(count) for count in np.sum(found, axis=0)]


def _arrow(column: pl.Series, kind: pa.DataType) -> pa.Array:
    return column.to_arrow(compat_level=pl.CompatLevel.newest()).cast(kind)  # the oldest level copies once more
