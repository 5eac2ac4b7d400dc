"""A frame -> the partition key and the data of each record, column by column rather than row by row."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from kinesis_nb.core.frames import SCHEMA, decode_text
from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.errors import ConfigError, warn
from kinesis_nb.exporting.json_rows import json_objects, json_texts
from kinesis_nb.exporting.refusals import NOT_OURS, OURS, converted, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Encode = Callable[[dict[str, Any]], bytes | str]

KEY, DATA, RAW = "partition_key", "data", "data_raw"  # the columns of a synced table that make a record
_OF_RECORDS = {*SCHEMA.names, "shard_offset"}  # what a table of records says about each of them
_SHOWN = 10  # row numbers in a message


def partition_column(schema: pl.Schema, wanted: str | None) -> str:
    """Return the column that gives the partition keys: the one that was asked for, or the first string column.

    Raises
    ------
    ConfigError
        When there is none, or it holds no strings; the hint names the columns that could be used.
    """
    texts = [name for name, kind in schema.items() if _is_text(kind)]
    if wanted is None and not texts:
        raise _without_texts(schema)
    chosen = texts[0] if wanted is None else wanted
    if chosen not in schema:
        raise ConfigError(f"the frame has no column {chosen!r}", hint=f"its string columns are {_listed(texts)}")
    if chosen not in texts:
        what = f"the partition column {chosen!r} holds {schema[chosen]}, not strings"
        raise ConfigError(what, hint=f"cast it to string first, or use a string column ({_listed(texts)})")
    return chosen


def _without_texts(schema: pl.Schema) -> ConfigError:
    others = [f"{name} ({kind})" for name, kind in schema.items() if kind.is_integer() or kind.is_temporal()]
    candidates = f"; candidates: {', '.join(others)}" if others else ""
    return ConfigError(
        "no column of the frame holds strings, so none can be the partition column",
        hint=f"cast one to string and name it with partition_column={candidates}",
    )


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
        raise ConfigError(f"{what}: {_some(rows)}", hint=hint)


def _some(rows: Iterable[int]) -> str:
    rows = list(rows)
    shown = ", ".join(map(str, rows[:_SHOWN])) + (" …" if len(rows) > _SHOWN else "")
    return f"rows {shown} ({len(rows)} in all)"


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

    Attributes
    ----------
    is_synced
        Whether the rows are records that were read from a stream: they go out as they came in, their own keys included.
    beside
        Columns that are not those of records, where `partition_key` and `data` are there too: each row is one JSON
        object then, because nothing in a frame is left out silently.
    """

    def __init__(self, schema: pl.Schema, encode: Encode | None, data_column: str | None) -> None:
        if encode is not None:
            _check_encode(encode, data_column)
        self.beside: list[str] = []
        if data_column is None and encode is None and schema.get(KEY) == pl.String and schema.get(DATA) == pl.String:
            self.beside = [name for name in schema if name not in _OF_RECORDS]
            data_column = None if self.beside else DATA
        if data_column is not None:
            _check_data_column(schema, data_column)
        self._column, self._encode = data_column, encode
        self._raw = RAW if data_column == DATA and schema.get(RAW) == pl.Binary else None
        self.is_synced = data_column == DATA and schema.get(KEY) == pl.String

    def source_columns(self, key: str) -> list[str] | None:
        """Return the columns that a record is made of, with those of its key; None for all."""
        if self._column is None:
            return None
        return list(dict.fromkeys((key, self._column, *([self._raw] if self._raw else []))))

    def encoded(self, rows: pl.DataFrame, numbers: pl.Series) -> pl.Series:
        """Return the data of each row, as bytes; `numbers` are those of the rows, for messages."""
        if self._column is not None:
            return self._as_it_is(rows, self._column, numbers)
        if self._encode is not None:
            return pl.Series(DATA, list(_call(self._encode, rows, numbers)), pl.Binary)
        return _json(rows, numbers).cast(pl.Binary)

    def _as_it_is(self, rows: pl.DataFrame, column: str, numbers: pl.Series) -> pl.Series:
        data = rows[column]
        if data.dtype != pl.Binary:
            data = data.cast(pl.String).cast(pl.Binary)
        if self._raw is not None:
            data = _with_raw(data, rows[self._raw], numbers)
        refuse_rows(numbers.filter(data.is_null()), f"no data in {column!r}", "fill them or drop them")
        return data


def _with_raw(data: pl.Series, raw: pl.Series, numbers: pl.Series) -> pl.Series:
    """Put in the bytes that text cannot hold, where the text still is what a read makes of them.

    Where it is not, somebody changed the text: that is sent.
    """
    places = raw.is_not_null().arg_true()
    texts, contents = data.gather(places), raw.gather(places)
    shown, _ = decode_text(contents.to_arrow().cast(pa.binary()))
    is_fresh = texts.is_null() | (texts == pl.Series(shown).cast(pl.Binary)).fill_null(value=False)
    if not is_fresh.all():
        rows = _some(numbers.gather(places).filter(~is_fresh))
        warn(f"data was changed, so it is sent and not data_raw: {rows}")
    return data.scatter(places.filter(is_fresh), contents.filter(is_fresh))


def _json(rows: pl.DataFrame, numbers: pl.Series) -> pl.Series:
    """Return the rows as JSON objects; what has no JSON form is named with its column and row."""
    try:
        return json_objects(rows)
    except NOT_OURS:
        for column in rows.iter_columns():
            converted(lambda some: json_texts(some, some.name), column, column.name, numbers)
        raise


def _check_encode(encode: object, data_column: str | None) -> None:
    if not callable(encode):
        raise ConfigError(
            f"encode= does not accept this {type(encode).__name__}",
            hint="give a function from a dict to bytes or str",
        )
    if data_column is not None:
        raise ConfigError("encode= and data_column= both make the data", hint="leave one of them out")


def _check_data_column(schema: pl.Schema, column: str) -> None:
    usable = [name for name, kind in schema.items() if _is_text(kind) or kind == pl.Binary]
    if column not in usable:
        what = "holds neither text nor bytes" if column in schema else "does not exist"
        raise ConfigError(f"the data column {column!r} {what}", hint=f"use one of {_listed(usable)}")


def _call(encode: Encode, rows: pl.DataFrame, numbers: pl.Series) -> Iterator[bytes]:
    with reading("the rows have no form in Python that encode= could take", "cast the column, or leave encode= out"):
        for number, row in zip(numbers, rows.iter_rows(named=True), strict=True):
            try:
                data = encode(row)
                content = data.encode() if isinstance(data, str) else data
            except OURS:
                raise
            except NOT_OURS as error:
                msg = f"row {number} cannot be encoded: {error!r}"
                raise ConfigError(msg, hint="correct encode= or that row") from error
            if not isinstance(content, bytes):
                raise ConfigError(f"encode= returned {type(data).__name__}", hint="it must return bytes or str")
            yield content
