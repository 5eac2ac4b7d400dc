"""Rows -> JSON objects, a column at a time; nested values are written as top-level ones are."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.exporting.refusals import AS_INTEGER, Inexact
from kinesis_nb.wire.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHOLE_MINUTES_SINCE = datetime(1972, 2, 1, tzinfo=UTC)  # Liberia was the last to give up an offset with seconds
_DAYS = 95_000_000  # from 1970 to the year 262,000
_SECONDS = "%Y-%m-%dT%H:%M:%S%.f"


def json_objects(rows: pl.DataFrame) -> pl.Series:
    """Return each row as one JSON object.

    Integers and decimals keep all their digits, dates and times are ISO 8601, bytes are base64, NaN and infinity
    are null, and nested values stay nested.

    Raises
    ------
    Inexact
        For a value or a type that has no JSON form.

    Examples
    --------
    >>> json_objects(pl.DataFrame({"a": [1], "b": ["x"], "c": [float("nan")]})).to_list()
    ['{"a":1,"b":"x","c":null}']
    """
    return _objects(rows.columns, rows.get_columns(), rows.height)


def _objects(names: Sequence[str], columns: Sequence[pl.Series], height: int, within: str = "") -> pl.Series:
    if not names:
        return pl.Series(["{}"], dtype=pl.String).new_from_index(0, height)
    openings = [f"{',' if place else '{'}{msgspec.json.encode(name).decode()}:" for place, name in enumerate(names)]
    texts = [
        json_texts(column, within + name).fill_null("null").alias(str(place))
        for place, (name, column) in enumerate(zip(names, columns, strict=True))
    ]
    pieces = chain.from_iterable((pl.lit(text), pl.col(str(place))) for place, text in enumerate(openings))
    return pl.DataFrame(texts).select(pl.concat_str(*pieces, pl.lit("}"))).to_series()


def json_texts(column: pl.Series, path: str) -> pl.Series:
    """Return the JSON text of each value; null may stay null. `path` names the column in a refusal."""
    kind = column.dtype
    if kind.is_float():
        return pl.select(pl.when(column.is_finite()).then(column.cast(pl.String))).to_series()
    if kind.is_numeric() or kind in {pl.Boolean(), pl.Null()}:
        return column.cast(pl.String)
    if kind.is_temporal():
        _check_years(column, path)
        return '"' + iso(column) + '"'
    match kind:
        case pl.Binary():
            return '"' + column.bin.encode("base64") + '"'
        case pl.String() | pl.Categorical() | pl.Enum():
            return quoted(column.cast(pl.String))
        case pl.Struct():
            return _where_present(column, _struct(column, path))
        case pl.List():
            return _where_present(column, "[" + _joined(column, json_texts(_items(column), f"{path}[]")) + "]")
        case pl.Array():
            return json_texts(column.arr.to_list(), path)
        case pl.Map():
            return _where_present(column, _map(column, kind, path))
        case _:
            raise Inexact(path, f"has the type {kind}, which has no JSON form")


def _check_years(column: pl.Series, path: str) -> None:
    """Refuse a time beyond the calendar of polars, which panics there."""
    kind = column.dtype
    if isinstance(kind, pl.Date):
        most = _DAYS
    elif isinstance(kind, pl.Datetime) and kind.time_unit != "ns":  # nanoseconds end in the year 2262
        most = _DAYS * (86_400_000 if kind.time_unit == "ms" else 86_400_000_000)
    else:
        return
    numbers = column.to_physical()
    if not numbers.is_between(-most, most).all():
        raise Inexact(path, "holds a time beyond the year 262,000", AS_INTEGER)


def iso(column: pl.Series) -> pl.Series:
    """Return dates, times and durations as ISO 8601 writes them, with the offset that holds at the time."""
    match column.dtype:
        case pl.Datetime(time_zone=None):
            return column.dt.strftime(_SECONDS)
        case pl.Datetime(time_zone="UTC"):
            return column.dt.strftime(f"{_SECONDS}Z")
        case pl.Datetime():
            return _with_offset(column)
        case pl.Time():
            return column.dt.strftime("%H:%M:%S%.f")
        case _:
            return column.dt.to_string("iso")


def _with_offset(column: pl.Series) -> pl.Series:
    """ISO 8601 has offsets of whole minutes: a time with another one is written in UTC."""
    texts = column.dt.strftime(f"{_SECONDS}%:z")
    utc = column.dt.convert_time_zone("UTC")
    if not (utc < _WHOLE_MINUTES_SINCE).any():
        return texts
    offsets = column.dt.base_utc_offset().dt.total_seconds() + column.dt.dst_offset().dt.total_seconds()
    return pl.select(pl.when(offsets % 60 == 0).then(texts).otherwise(utc.dt.strftime(f"{_SECONDS}Z"))).to_series()


def _where_present(column: pl.Series, texts: pl.Series) -> pl.Series:
    return pl.select(pl.when(column.is_not_null()).then(texts)).to_series() if column.null_count() else texts


def _struct(column: pl.Series, path: str) -> pl.Series:
    names = column.struct.fields
    return _objects(names, [column.struct.field(name) for name in names], len(column), f"{path}.")


def _items(column: pl.Series) -> pl.Series:
    """Return the items of all lists; a null may have hidden items behind it, which `explode` alone would return."""
    return column.drop_nulls().explode(empty_as_null=False)


def _joined(column: pl.Series, texts: pl.Series) -> pl.Series:
    """Put the texts of all items back into the lists that they came from, with commas between them."""
    ends = column.list.len().fill_null(0).cast(pl.Int64).cum_sum().to_arrow()
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    items = texts.fill_null("null").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    joined: pl.Series = pl.Series(pa.LargeListArray.from_arrays(offsets, items)).list.join(",")
    return joined


def _map(column: pl.Series, kind: pl.Map, path: str) -> pl.Series:
    """Write a map as an object: its keys become text, as JSON wants them."""
    pairs = column.cast(pl.List(pl.Struct({"key": kind.key, "value": kind.value})))
    both = _items(pairs)
    keys = json_texts(both.struct.field("key"), f"{path}.key")
    is_text = keys.str.starts_with('"')
    names = pl.select(pl.when(is_text).then(keys).otherwise('"' + keys + '"')).to_series()
    values = json_texts(both.struct.field("value"), f"{path}.value").fill_null("null")
    return "{" + _joined(pairs, names + ":" + values) + "}"
