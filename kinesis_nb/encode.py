"""A frame -> the partition key and the data of each record, column by column rather than row by row."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow has no types)
from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator  # noqa: TC003 - a NamedTuple has it in a field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.errors import ConfigError
from kinesis_nb.frames import as_frame
from kinesis_nb.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Encode = Callable[[dict[str, Any]], bytes | str]

CHUNK_ROWS = 20_000  # enough for the columns to pay, and little memory
KEY_CHARACTERS = 256  # AWS: characters, not bytes
KEY, DATA, RAW = "partition_key", "data", "data_raw"  # the columns of a synced table that make a record
_SHOWN = 10  # row numbers in a message
_json = msgspec.json.Encoder(decimal_format="number")


class Rows(NamedTuple):
    """A table as an export reads it.

    Attributes
    ----------
    batches
        All rows, once.
    whole
        All of it for a look ahead; None for what can be read only once.
    in_memory
        Whether reading ahead costs nothing.
    """

    schema: pl.Schema
    batches: Iterator[pl.DataFrame]
    whole: pl.LazyFrame | None
    in_memory: bool


def read_rows(frame: Any) -> Rows:
    """Return any table as rows; a LazyFrame and a stream of Arrow batches are read as they are needed.

    Raises
    ------
    ConfigError
        For what is not a table, or has columns without an Arrow type.
    """
    frame = as_frame(frame)
    if isinstance(frame, pl.LazyFrame):
        batches = frame.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True, lazy=True)
        return Rows(frame.collect_schema(), batches, frame, in_memory=False)
    if not hasattr(frame, "__arrow_c_stream__"):
        raise ConfigError(
            f"a {type(frame).__name__} is not a table",
            hint="give a polars or pandas DataFrame, a LazyFrame, or an Arrow table",
        )
    if isinstance(frame, pl.DataFrame) and (objects := [n for n, kind in frame.schema.items() if kind == pl.Object]):
        raise ConfigError(f"column {objects[0]!r} holds Python objects", hint="cast it to a type that has a meaning")
    try:
        if isinstance(frame, pa.RecordBatchReader):
            schema = pl.DataFrame(frame.schema.empty_table()).schema
            return Rows(schema, map(pl.DataFrame, frame), None, in_memory=False)
        whole = frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(pa.table(frame))
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"the frame has no Arrow form: {error}", hint="give every column one type") from error
    return Rows(whole.schema, whole.iter_slices(CHUNK_ROWS), whole.lazy(), in_memory=True)


def partition_column(schema: pl.Schema, wanted: str | None) -> str:
    """Return the column that gives the partition keys: the one that was asked for, or the first string column.

    Raises
    ------
    ConfigError
        When there is none, or it holds no strings; the hint names the columns that could be used.
    """
    texts = [name for name, kind in schema.items() if _is_text(kind)]
    if wanted is None and not texts:
        others = [f"{name} ({kind})" for name, kind in schema.items() if kind.is_integer() or kind.is_temporal()]
        raise ConfigError(
            "no column of the frame holds strings, so none can be the partition column",
            hint=f"cast one to string and name it with partition_column={_candidates(others)}",
        )
    chosen = texts[0] if wanted is None else wanted
    if chosen not in schema:
        raise ConfigError(f"the frame has no column {chosen!r}", hint=f"its string columns are {_listed(texts)}")
    if chosen not in texts:
        raise ConfigError(
            f"the partition column {chosen!r} holds {schema[chosen]}, not strings",
            hint=f"cast it to string first, or use a string column ({_listed(texts)})",
        )
    return chosen


def _candidates(others: list[str]) -> str:
    return f"; candidates: {', '.join(others)}" if others else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)


# --- keys


def unusable_keys(keys: pl.Series) -> pl.Series:
    """Return which of the keys no record can have: null, empty, or of more than 256 characters."""
    length = keys.str.len_chars().fill_null(0)
    return (length < 1) | (length > KEY_CHARACTERS)


def hashed_keys(keys: pl.Series, data: pl.Series, unusable: pl.Series) -> pl.Series:
    """Replace unusable keys by a SHA-256 in hexadecimal: of the key where there is one, else of the record's data."""
    places = unusable.arg_true()
    source = [key or content for key, content in zip(keys.gather(places), data.gather(places), strict=True)]
    digests = [hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest() for text in source]
    return keys.scatter(places, digests)


def refuse_rows(rows: Iterable[int], what: str, hint: str) -> None:
    """Raise a ConfigError that names the rows, if there are any."""
    rows = list(rows)
    if rows:
        shown = ", ".join(map(str, rows[:_SHOWN])) + (" …" if len(rows) > _SHOWN else "")
        raise ConfigError(f"{what}: rows {shown} ({len(rows)} in all)", hint=hint)


# --- data


class Payload:
    """Makes the data of the records of a frame.

    Parameters
    ----------
    schema
        Of the frame. The columns `partition_key` and `data` of a synced table are recognised.
    encode
        From a row, as a dict, to bytes or text; one JSON object per row by default.
    data_column
        Send this column as it is. With ``data``, a column ``data_raw`` has the bytes of what text cannot hold.
    """

    def __init__(self, schema: pl.Schema, encode: Encode | None, data_column: str | None) -> None:
        if encode is not None and not callable(encode):
            raise ConfigError(
                f"encode= takes no {type(encode).__name__}", hint="give a function from a dict to bytes or str"
            )
        if encode is not None and data_column is not None:
            raise ConfigError("encode= and data_column= are two ways to make the data", hint="leave one of them out")
        if data_column is None and encode is None and schema.get(KEY) == pl.String and schema.get(DATA) == pl.String:
            data_column = DATA
        if data_column is not None:
            _check_data_column(schema, data_column)
        self._column, self._encode = data_column, encode
        self._raw = RAW if data_column == DATA and schema.get(RAW) == pl.Binary else None
        # records that were read from a stream: they go out as they came in, their own keys included
        self.is_synced = data_column == DATA and schema.get(KEY) == pl.String

    def encoded(self, rows: pl.DataFrame, numbers: pl.Series) -> pl.Series:
        """Return the data of each row, as bytes; `numbers` are those of the rows, for messages."""
        if self._column is not None:
            return self._as_it_is(rows, self._column, numbers)
        if self._encode is not None:
            return pl.Series(DATA, list(_call(self._encode, rows, numbers)), pl.Binary)
        return json_objects(rows).cast(pl.Binary)

    def _as_it_is(self, rows: pl.DataFrame, column: str, numbers: pl.Series) -> pl.Series:
        data = rows[column]
        if data.dtype != pl.Binary:
            data = data.cast(pl.String).cast(pl.Binary)
        if self._raw is not None:
            data = rows.select(pl.coalesce(self._raw, pl.lit(data))).to_series()
        refuse_rows(numbers.filter(data.is_null()), f"no data in {column!r}", "fill them or drop them")
        return data


def _check_data_column(schema: pl.Schema, column: str) -> None:
    usable = [name for name, kind in schema.items() if _is_text(kind) or kind == pl.Binary]
    if column not in usable:
        what = "holds neither text nor bytes" if column in schema else "does not exist"
        raise ConfigError(f"the data column {column!r} {what}", hint=f"those that do are {_listed(usable)}")


def _call(encode: Encode, rows: pl.DataFrame, numbers: pl.Series) -> Iterator[bytes]:
    for number, row in zip(numbers, rows.iter_rows(named=True), strict=True):
        try:
            data = encode(row)
        except Exception as error:
            raise ConfigError(f"row {number} cannot be encoded: {error!r}", hint="mend encode= or that row") from error
        if not isinstance(data, bytes | str):
            raise ConfigError(f"encode= returned {type(data).__name__}", hint="it must return bytes or str")
        yield data if isinstance(data, bytes) else data.encode()


def json_objects(rows: pl.DataFrame) -> pl.Series:
    """Return each row as one JSON object.

    Integers and decimals keep all their digits, dates and times are ISO 8601, bytes are base64, what is no number is
    null, and nested values stay nested.

    Examples
    --------
    >>> json_objects(pl.DataFrame({"a": [1], "b": ["x"], "c": [float("nan")]})).to_list()
    ['{"a":1,"b":"x","c":null}']
    """
    if not rows.width:
        return pl.Series(DATA, ["{}"] * rows.height, pl.String)
    names = [_json.encode(name).decode() for name in rows.columns]
    openings = ["{" + names[0] + ":", *("," + name + ":" for name in names[1:])]
    values = [_json_texts(column).fill_null("null").alias(str(place)) for place, column in enumerate(rows)]
    pieces = chain.from_iterable((pl.lit(text), pl.col(str(place))) for place, text in enumerate(openings))
    return pl.DataFrame(values).select(pl.concat_str(*pieces, pl.lit("}")).alias(DATA)).to_series()


def _json_texts(column: pl.Series) -> pl.Series:
    """Return the JSON text of each value; null may stay null."""
    kind = column.dtype
    if kind.is_float():
        return pl.select(pl.when(column.is_finite()).then(column.cast(pl.String))).to_series()
    if kind.is_numeric() or kind in {pl.Boolean(), pl.Null()}:
        return column.cast(pl.String)
    if kind.is_temporal():
        return '"' + _iso(column) + '"'
    if kind == pl.Binary:
        return '"' + column.bin.encode("base64") + '"'
    if _is_text(kind):
        return quoted(column.cast(pl.String))
    return pl.Series([_json.encode(_plain(value)).decode() for value in column], dtype=pl.String)


def _iso(column: pl.Series) -> pl.Series:
    match column.dtype:
        case pl.Datetime(time_zone=None):
            return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
        case pl.Datetime(time_zone="UTC"):
            return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        case pl.Datetime():
            return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f%:z")
        case pl.Time():
            return column.dt.strftime("%H:%M:%S%.f")
        case pl.Duration():
            return column.dt.to_string("iso")
        case _:
            return column.dt.to_string("iso")


def _plain(value: Any) -> Any:
    """Return a nested value as msgspec takes it: a series within a cell is a list."""
    if isinstance(value, pl.Series):
        return value.to_list()
    return None if isinstance(value, float) and not math.isfinite(value) else value
