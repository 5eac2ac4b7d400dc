"""JSON text into columns: :func:`parse_json`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, overload

import numpy as np
import polars as pl
import pyarrow as pa

from kinesis_nb.core.arguments import hinted
from kinesis_nb.core.frames import TableLike, as_frame, is_pandas
from kinesis_nb.core.process import check_polars
from kinesis_nb.errors import ConfigError, closest, warn
from kinesis_nb.jsontext.infer import MAX_FIELDS, infer_schema
from kinesis_nb.jsontext.row_reader import Replaced, RowReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from kinesis_nb.jsontext.row_reader import SchemaLike

    Frame = pd.DataFrame | pl.DataFrame
    Slices = Callable[[int], Iterator[list[object]]]

_CHUNK = 20_000  # rows that are Python objects at the same time
_MOST_INFERENCES = 3  # how often the types are inferred, when integers show that those of the sample would lose digits
_PLACE = "place_in_record"
DATA, RAW = "data", "data_raw"  # the columns of what was read: text, and the bytes of what is not text


@overload
def parse_json(  # type: ignore[overload-overlap] # what is not pandas becomes polars
    frame: pd.DataFrame,
    column: str = ...,
    schema: SchemaLike | None = ...,
    *,
    sample: int | None = ...,
    prefix: str = ...,
    keep: bool = ...,
    error: str = ...,
    explode: bool | None = ...,
    max_fields: int = ...,
) -> pd.DataFrame: ...


@overload
def parse_json(
    frame: object,
    column: str = ...,
    schema: SchemaLike | None = ...,
    *,
    sample: int | None = ...,
    prefix: str = ...,
    keep: bool = ...,
    error: str = ...,
    explode: bool | None = ...,
    max_fields: int = ...,
) -> pl.DataFrame: ...


@hinted
def parse_json(
    frame: object,
    column: str = "data",
    schema: SchemaLike | None = None,
    *,
    sample: int | None = 1_000,
    prefix: str = "",
    keep: bool = True,
    error: str = "error",
    explode: bool | None = None,
    max_fields: int = MAX_FIELDS,
) -> Frame:
    """Add a column for every field of the JSON objects in a text column; docs/parsing.md has the rules.

    Parameters
    ----------
    frame, column
        A polars or pandas DataFrame, `Records`, a `Tail`, or anything that offers ``__arrow_c_stream__``; its column of
        JSON text.
    schema
        The fields and their polars types (integers, floats, Boolean, String, List, Struct) as a mapping, a
        ``pl.Struct``, or what ``StreamView.schema()`` gives. Other fields are left out. None infers it.
    sample, max_fields
        Number of rows to infer from, None for all; number of fields to keep, the most frequent ones.
    prefix, error
        What goes before the names of the new columns, of which one that is taken gets ``_json`` behind it; the name of
        the column that says what is wrong with a row.
    keep
        Whether the columns of `frame` stay.
    explode
        Make several objects in one record (also in an array) a row each, with its ``place_in_record``. False leaves
        such a record null. None, the default, explodes where there are such records, and warns.

    Returns
    -------
    polars.DataFrame or pandas.DataFrame
        The same kind as `frame`, with the same rows. A String column takes a JSON string as its value and anything else
        as its JSON text, to the letter. A row that is not a JSON object is null in all new columns, a value that does
        not fit its column is null there; `error` says why, and what was replaced.

    Warns
    -----
    UserWarning
        Once: fields and types the sample had not (never with a mapping or a ``pl.Struct``), fields beyond `max_fields`.

    Examples
    --------
    >>> frame = pl.DataFrame({"data": ['{"item": "apples", "count": 3}', "apples"]})
    >>> parse_json(frame, keep=False).rows()
    [('apples', 3, None), (None, None, 'not JSON: Expecting value: line 1 column 1 (char 0)')]
    """
    table, slices = _open(frame, column)
    taken: set[str] = set(table.columns) if keep else set()
    if error in taken:
        raise ConfigError(f"the frame has a column {error!r} already", hint='name another one with error="..."')
    reader, parsed = _read(slices, schema, (sample, max_fields), explode=explode)
    parsed = parsed.rename_columns([*(prefix + name for name in parsed.column_names[:-1]), error])
    if said := reader.remarks():
        warn(said)
    table, parsed = _explode(table, parsed, reader.several) if explode or reader.several else (table, parsed)
    return _close(table, parsed.rename_columns(_free_names(parsed.column_names, taken)), keep=keep)


def fields_of(frame: pl.DataFrame, prefix: str, sample: int = 10_000) -> pl.DataFrame:
    """Return only the fields of the JSON objects in ``data``, for a display: a row that holds none is null, unsaid.

    Several objects in one record are none; what parse_json would warn of is left out.
    """
    _, slices = _open(frame, DATA)
    _, parsed = _read(slices, None, (sample, MAX_FIELDS), explode=False)
    names = _free_names([*(prefix + name for name in parsed.column_names[:-1]), ""], set(frame.columns))[:-1]
    fields = pl.DataFrame(
        parsed.drop_columns(parsed.column_names[-1:]).rename_columns([f"{n}" for n in range(len(names))])
    )
    fields.columns = names
    return fields


def _read(
    slices: Slices, schema: SchemaLike | None, inferring: tuple[int | None, int], *, explode: bool | None
) -> tuple[RowReader, pa.Table]:
    """Return the columns and behind them the reasons, and what read them.

    A schema is inferred from the first rows, and from those with integers whose digits the types of these would lose.
    """
    sample, max_fields = inferring
    large: Mapping[str, object] = {}
    inferences = 0
    while True:
        inferences += 1
        texts = chain(_head(slices(_CHUNK), sample), large.values())
        reader = RowReader(infer_schema(texts, max_fields) if schema is None else schema, explode=explode)
        parsed = pa.concat_tables([reader.read([]), *map(reader.read, slices(_CHUNK))])
        if schema is not None or inferences == _MOST_INFERENCES or reader.large.keys() <= large.keys():
            return reader, parsed
        large = {**reader.large, **large}


def _explode(table: Frame, parsed: pa.Table, several: Mapping[int, int]) -> tuple[Frame, pa.Table]:
    """Repeat the rows that gave several rows, as `several` says, and add the place of each in its record."""
    counts = np.ones(len(table), np.int64)
    counts[[*several]] = [*several.values()]
    origins = np.repeat(np.arange(len(table)), counts)
    places = np.arange(len(origins)) - np.repeat(np.cumsum(counts) - counts, counts)
    repeated = table[origins] if isinstance(table, pl.DataFrame) else table.iloc[origins]
    return repeated, parsed.add_column(0, _PLACE, pa.array(places))


def _open(frame: object, column: str) -> tuple[Frame, Slices]:
    """Return the frame as polars or pandas, and a function that gives the values of a column, `size` at a time."""
    frame = as_frame(frame)
    if is_pandas(frame):
        return frame, _slices_of_pandas(frame, column)
    table = _to_polars(frame)
    _check_column(column, table.columns)
    series = table[column]
    if not isinstance(series.dtype, pl.String | pl.Binary | pl.Null):
        raise ConfigError(f"the column {column!r} holds {series.dtype}", hint="JSON is in a column of text")
    raw = table[RAW] if column == DATA and table.schema.get(RAW) == pl.Binary else series.clear()
    raw = raw if raw.null_count() < len(raw) else raw.clear()  # most often all are null
    return table, _slices(len(table), lambda part: series[part].to_list(), lambda part: raw[part].to_list())


def _slices_of_pandas(frame: pd.DataFrame, column: str) -> Slices:
    _check_column(column, list(frame.columns))
    values = frame[column].astype(object)
    texts = values.where(values.notna(), None).array.tolist()
    raws = frame[RAW].tolist() if column == DATA and list(frame.columns).count(RAW) == 1 else []
    return _slices(len(frame), lambda part: texts[part], lambda part: raws[part])


def _slices(height: int, texts: Callable[[slice], list[object]], raws: Callable[[slice], list[object]]) -> Slices:
    """Return a function that gives the values `size` at a time; `raws` has the bytes of those that are not UTF-8."""

    def give(size: int) -> Iterator[list[object]]:
        for start in range(0, height, size):
            part = slice(start, start + size)
            rows = texts(part)
            for place, raw in enumerate(raws(part)):
                if isinstance(raw, bytes) and isinstance(text := rows[place], str):
                    rows[place] = Replaced(text, raw)
            yield rows

    return give


class _Stream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


def _has_stream(frame: object) -> TypeGuard[_Stream]:
    return hasattr(frame, "__arrow_c_stream__")


def _to_polars(frame: object) -> pl.DataFrame:
    check_polars()
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, TableLike):
        return frame.to_polars()
    if isinstance(frame, pl.LazyFrame):
        raise ConfigError("a LazyFrame holds no rows yet", hint="collect() it first")
    if not _has_stream(frame):
        hint = "give a polars or pandas DataFrame, or what read(), tail() and sample() return"
        raise ConfigError(f"a {type(frame).__name__} is not a table", hint=hint)
    return pl.DataFrame(frame)


def _check_column(column: str, columns: Sequence[object]) -> None:
    if columns.count(column) != 1:
        names = [str(name) for name in columns]
        raise ConfigError(
            f"the frame has {columns.count(column) or 'no'} column{'s' * (column in columns)} {column!r}",
            hint=closest(column, names) or f"its columns are {', '.join(names) or 'none'}",
        )


def _head(slices: Iterable[list[object]], most: int | None) -> Iterator[Any]:
    if most is not None and most < 1:
        raise ConfigError(f"sample={most}: sample must be at least 1", hint="give None to infer from all rows")
    taken = 0
    for rows in slices:
        for value in rows:
            if value is not None:
                if taken == most:
                    return
                taken += 1
                yield value.text if isinstance(value, Replaced) else value


def _free_names(names: list[str], taken: set[str]) -> list[str]:
    """Return names of which none is twice; the last one, of the reasons, stays as it is."""
    *names, error = names
    free: list[str] = []
    taken = {*taken, error}
    for name in names:
        while name in taken:
            name += "_json"  # noqa: PLW2901
        taken.add(name)
        free.append(name)
    return [*free, error]


def _close(table: Frame, parsed: pa.Table, *, keep: bool) -> Frame:
    """Put the new columns behind the old ones, in the kind of frame that was given."""
    if not isinstance(table, pl.DataFrame):
        import pandas as pd

        # pandas would make integers with nulls floats, and lose digits; those within a cell are objects then
        exact = {getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in _INTEGERS}
        new = parsed.to_pandas(types_mapper=(exact | {pa.bool_(): pd.BooleanDtype()}).get, integer_object_nulls=True)
        new.index = table.index
        return pd.concat([table, new], axis=1) if keep else new
    new = pl.DataFrame(parsed.rename_columns([str(n) for n in range(parsed.num_columns)]))
    new.columns = parsed.column_names  # now, because polars makes up a name for an Arrow column that has none
    return table.hstack(new) if keep else new


_INTEGERS = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
