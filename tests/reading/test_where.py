"""`where=` means what it says: what it lets through does not depend on how the rows came."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.reading.read import row_filter

if TYPE_CHECKING:
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

DATA, KEY, NUMBER = pl.col("data"), pl.col("partition_key"), pl.col("sub_sequence_number")
WORDS = pl.Series(["1", "2", "1", "x", None, "2"])

BY_ROW = {
    "the same twice": NUMBER.is_null() | (NUMBER % 2 == 0),
    "comparison": DATA == "1",
    "two columns": (DATA == KEY) | DATA.is_null(),
    "text": DATA.str.contains("[0-9]"),
    "list of values": DATA.is_in(["1", "x"]),
    "all": pl.lit(value=True),
    "nothing": pl.lit(value=False),
    "case": pl.when(DATA == "x").then(NUMBER > 2).otherwise(DATA == "2"),
    "any of several": pl.any_horizontal(DATA == "x", NUMBER > 4),
    "parts of a text": DATA.str.split(",").list.eval(pl.element() == "1").list.any(),
    "function of a value": DATA.map_elements("1x".startswith, return_dtype=pl.Boolean),
    "hash": KEY.hash() % 2 == 0,
}
ACROSS = {
    "first of its kind": DATA.is_first_distinct(),
    "duplicates": DATA.is_duplicated(),
    "count of a group": pl.len().over("partition_key") > 1,
    "row before": DATA.shift(1) == "1",
    "difference": NUMBER.diff() > 0,
    "running sum": NUMBER.cum_sum() > 3,
    "mean": NUMBER.mean() < NUMBER,
    "largest, deep inside": pl.when(NUMBER.max() == NUMBER).then(DATA == "1").otherwise(KEY == "x"),
    "rank": NUMBER.rank() < 3,
    "number of the row": pl.int_range(pl.len()) < 3,
    "order": DATA.reverse() == "1",
    "value before": DATA.forward_fill() == "1",
    "function of a column": DATA.map_batches(lambda column: column == "1", return_dtype=pl.Boolean),
    "more rows": DATA.str.split(",").explode() == "1",
}


def _fail(text: str) -> bool:
    raise LookupError(text)


def _rows() -> pa.RecordBatch:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    columns = [
        pa.array(["1", "1", "2", "2", "x", "x"]),
        pa.array(WORDS.to_list(), pa.string()),
        *[pa.array([now] * 6, pa.timestamp("us", "UTC"))] * 2,
        *[pa.array(["0"] * 6)] * 2,
        pa.array(range(6), pa.int64()),
        pa.nulls(6, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


@pytest.mark.parametrize("name", BY_ROW)
def test_batches_make_no_difference(name: str) -> None:
    """What is let through batch by batch is what a filter of all rows lets through."""
    keep, rows = row_filter(None, BY_ROW[name]), _rows()
    at_once = pl.DataFrame(rows).filter(BY_ROW[name])
    for size in (1, 2, 6):
        pieces = [keep(rows.slice(first, size)) for first in range(0, 6, size)]
        assert pl.DataFrame(pa.Table.from_batches(pieces)).equals(at_once)


@pytest.mark.parametrize("name", ACROSS)
def test_what_looks_across_rows_is_refused(source: kn.Source, emulator: Emulator, name: str) -> None:
    """It would give other rows with other batches; so it is refused before anything is sent."""
    with pytest.raises(kn.ConfigError, match=r"looks at other rows.*\n.*filter"):
        source.read("orders", where=ACROSS[name])
    assert emulator.requests.total() == 0


@pytest.mark.parametrize(
    "where",
    [
        DATA.str.to_integer() > 2,
        DATA.map_elements(_fail, return_dtype=pl.Boolean),
        DATA.str.json_decode(pl.Struct({"a": pl.Int64})).struct.field("a") > 1,
    ],
    ids=["cast", "function", "JSON"],
)
def test_what_fails_on_rows_is_told(source: kn.Source, streams: Streams, where: pl.Expr) -> None:
    """An expression that is right and fails on what a record holds is an error of two lines."""
    streams.create()
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b"1,2,no number{")
    with pytest.raises(kn.ConfigError, match=r"where= cannot be applied: .*\nhint: "):
        source.read("orders", where=where, progress=False)
