"""JSON text into columns: :func:`parse_json`.

Every row is decoded by itself, by msgspec, into types made from the schema. polars' ``str.json_decode`` is not used: it
joins rows before it parses, so that two broken rows can become one good one and move all rows behind them, and it
silently turns 1.5 into 1 where the schema says integer.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, overload

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.config import hinted
from kinesis_nb.errors import ConfigError, closest, warn
from kinesis_nb.frames import TableLike, as_frame
from kinesis_nb.infer import Schema, infer_schema
from kinesis_nb.process import check_polars
from kinesis_nb.shapes import Misfits, Object, object_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pandas as pd

    SchemaLike = Schema | pl.Struct | Mapping[str, Any]

_CHUNK = 20_000  # rows that are Python objects at the same time
_REMAKES = 32  # how often the types are made anew for what the schema does not know; then the unknown is passed over
_NAMED = 10  # in the warning

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError)


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
) -> Any:
    """Add a column for every field of the JSON objects in a text column.

    Parameters
    ----------
    frame
        A polars or pandas DataFrame, `Records`, a `Tail`, or anything that offers ``__arrow_c_stream__``.
    column
        The column that holds the JSON text.
    schema
        The fields and their polars types (integers up to 64 bits, floats, Boolean, String, List, Struct), as a mapping,
        a ``pl.Struct``, or what ``StreamView.schema()`` gives. Other fields are left out. None infers it.
    sample
        Infer from the first so many rows; None looks at all.
    prefix
        Goes before the names of the new columns. A name that is taken gets ``_json`` behind it.
    keep
        Whether the columns of `frame` stay.
    error
        The name of the column that says what is wrong with a row.

    Returns
    -------
    polars.DataFrame or pandas.DataFrame
        The same kind as `frame`, with the same rows. A String column takes a JSON string as its value and anything else
        as its JSON text, to the letter. A row that is not a JSON object is null in all new columns, a value that does
        not fit its column is null there; `error` says why.

    Warns
    -----
    UserWarning
        Once, for fields and types that the sample had not; never with a mapping or a ``pl.Struct``.

    Raises
    ------
    ConfigError
        For a wrong call; never for what the rows hold.

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
    parsed = _parse(slices, infer_schema(_head(slices(_CHUNK), sample)) if schema is None else schema)
    names = _free_names([prefix + name for name in parsed.column_names[:-1]], taken | {error})
    return _close(table, parsed.rename_columns([*names, error]), keep=keep)


def _parse(slices: Callable[[int], Iterator[list[Any]]], schema: SchemaLike) -> pa.Table:
    """Return the columns, and behind them the reasons; warn of what the schema has not."""
    reader = _Reader(schema)
    parsed = pa.concat_tables([reader.read([]), *map(reader.read, slices(_CHUNK))])
    if isinstance(schema, Schema) and (changes := reader.changes()):
        warn(f"not in the {schema.rows:,} rows of the schema: {changes}")
    return parsed


def _open(frame: Any, column: str) -> tuple[Any, Callable[[int], Iterator[list[Any]]]]:
    """Return the frame as polars or pandas, and a function that gives the values of a column, so many at a time."""
    frame, pandas = as_frame(frame), sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        _check_column(column, list(frame.columns))
        values = frame[column].astype(object)
        values = values.where(values.notna(), None).array
        return frame, lambda size: (values[at : at + size].tolist() for at in range(0, len(values), size))
    table = _to_polars(frame)
    _check_column(column, table.columns)
    series = table[column]
    if not isinstance(series.dtype, pl.String | pl.Binary | pl.Null):
        raise ConfigError(f"the column {column!r} holds {series.dtype}", hint="JSON is in a column of text")
    return table, lambda size: (series[at : at + size].to_list() for at in range(0, len(series), size))


def _to_polars(frame: Any) -> pl.DataFrame:
    check_polars()
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, TableLike):
        return frame.to_polars()
    if isinstance(frame, pl.LazyFrame):
        raise ConfigError("a LazyFrame holds no rows yet", hint="collect() it first")
    if not hasattr(frame, "__arrow_c_stream__"):
        msg = f"a {type(frame).__name__} is not a table"
        raise ConfigError(msg, hint="give a polars or pandas DataFrame, or what read(), tail() and sample() return")
    return pl.DataFrame(frame)


def _check_column(column: str, columns: list[Any]) -> None:
    if columns.count(column) != 1:
        msg = f"the frame has {columns.count(column) or 'no'} column{'s' * (column in columns)} {column!r}"
        names = [str(name) for name in columns]
        raise ConfigError(msg, hint=closest(column, names) or f"its columns are {', '.join(names) or 'none'}")


def _head(slices: Iterable[list[Any]], most: int | None) -> Iterator[Any]:
    if most is not None and most < 1:
        raise ConfigError(f"sample={most} shows nothing", hint="give 1 or more, or None for all rows")
    taken = 0
    for rows in slices:
        for value in rows:
            if value is not None:
                if taken == most:
                    return
                taken += 1
                yield value


def _free_names(names: list[str], taken: set[str]) -> list[str]:
    free: list[str] = []
    for name in names:
        while name in taken:
            name += "_json"  # noqa: PLW2901
        taken.add(name)
        free.append(name)
    return free


def _close(table: Any, parsed: pa.Table, *, keep: bool) -> Any:
    """Put the new columns behind the old ones, in the kind of frame that was given."""
    if not isinstance(table, pl.DataFrame):
        import pandas as pd

        # pandas would make integers with nulls floats, and lose digits
        exact = {getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in _INTEGERS}
        new = parsed.to_pandas(types_mapper=(exact | {pa.bool_(): pd.BooleanDtype()}).get)
        new.index = table.index
        return pd.concat([table, new], axis=1) if keep else new
    new = pl.DataFrame(parsed.rename_columns([str(n) for n in range(parsed.num_columns)]))
    new.columns = parsed.column_names  # now, because polars makes up a name for an Arrow column that has none
    return table.hstack(new) if keep else new


_INTEGERS = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]


class _Reader:
    """Rows of text into rows of values, and what was met on the way that the schema does not know."""

    def __init__(self, schema: SchemaLike) -> None:
        self._curious = isinstance(schema, Schema)
        self._shape = _top_shape(schema)
        self._misfits = Misfits()
        self._changes: dict[str, None] = {}  # in the order in which they were met
        self._remakes = _REMAKES
        self._make()

    def _make(self) -> None:
        self._decode = self._shape.decoder(forbid_unknown=self._curious and self._remakes > 0)

    def read(self, rows: list[Any]) -> pa.Table:
        """Return the columns of some rows, and behind them what is wrong with each row."""
        values: list[Any] = []
        reasons: list[str | None] = [None] * len(rows)
        for n, row in enumerate(rows):
            try:
                values.append(self._decode(row if type(row) is str else _text(row)))
            except _UNREADABLE:
                value, reasons[n] = self._read_carefully(row)
                values.append(value)
        arrays = [*self._shape.columns(values), pa.array(reasons, pa.large_string())]
        return pa.Table.from_arrays(arrays, names=[*self._shape.names, ""])

    def _read_carefully(self, row: Any) -> tuple[Any, str | None]:
        """Read a row that the quick way refused: value by value, and say what is wrong."""
        if row is None:
            return None, None
        self._misfits.clear()
        try:
            value = self._shape.fit(_text(row).encode(), self._misfits)
        except _UNREADABLE as error:
            return None, _reason(row, error)
        self._learn()
        return value, "; ".join(list(dict.fromkeys(self._misfits.lost))[:_NAMED]) or None

    def _learn(self) -> None:
        """Note what was new, and take it into the types, so that the next such row is read the quick way."""
        if self._remakes and not self._changes.keys() >= {*self._misfits.kept}:
            self._remakes -= 1
            self._make()
        self._changes |= dict.fromkeys([*self._misfits.lost, *self._misfits.kept])

    def changes(self) -> str:
        """Name what the rows had and the schema had not."""
        named = list(self._changes)[:_NAMED]
        more = len(self._changes) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")


def _top_shape(schema: SchemaLike) -> Object:
    if isinstance(schema, Schema):
        return object_shape(schema.dtype, text=schema.text)
    try:
        dtype = schema if isinstance(schema, pl.Struct) else pl.Struct(dict(schema.items()))
    except (AttributeError, TypeError, ValueError):
        msg = f"{schema!r} is not a schema"
        raise ConfigError(msg, hint='give field names and polars types, as {"total": pl.Float64}') from None
    return object_shape(dtype)


def _text(row: Any) -> str:
    match row:
        case str():
            return row
        case bytes():
            return row.decode()
        case _:
            msg = f"{type(row).__name__}, not text"
            raise TypeError(msg)


def _reason(row: Any, error: Exception) -> str:
    """Say why a row cannot be read; the standard library says it better than msgspec."""
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    if not isinstance(error, msgspec.MsgspecError):
        return "nested too deeply" if isinstance(error, RecursionError) else str(error)
    try:
        value = json.loads(row, parse_constant=_refuse)
    except RecursionError:
        return "nested too deeply"
    except ValueError as said:
        return f"not JSON: {said}"
    return "a character that UTF-8 cannot hold" if isinstance(value, dict) else f"not an object: {str(row)[:40]}"


def _refuse(constant: str) -> None:
    msg = f"{constant} is not in JSON"
    raise ValueError(msg)
