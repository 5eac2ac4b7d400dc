"""Any table -> batches of polars with exactly its values; what is wrong with a frame is reported from here."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow has no types)
from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - a NamedTuple has it in a field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import polars as pl
import pyarrow as pa

from kinesis_nb.core.frames import as_frame, is_pandas
from kinesis_nb.errors import ConfigError
from kinesis_nb.exporting.adapt import adapted
from kinesis_nb.exporting.objects import from_objects
from kinesis_nb.exporting.refusals import converted, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized

    import pandas as pd

T = TypeVar("T")

CHUNK_ROWS = 20_000  # large enough to work by column, small in memory
_JOINED_BY = "_"  # the levels of a column's name


class FrameRows(NamedTuple):
    """A table as an export reads it.

    Attributes
    ----------
    batches
        All rows, once.
    whole
        All of it, to be read ahead; None for what can be read only once.
    in_memory
        Whether reading ahead costs nothing.
    """

    schema: pl.Schema
    batches: Iterator[pl.DataFrame]
    whole: pl.LazyFrame | None
    in_memory: bool


def read_rows(frame: object) -> FrameRows:
    """Return any table as rows; a LazyFrame and a stream of Arrow batches are read as they are needed.

    A Series is a table of one column. The named levels of a pandas index are columns, those without a name are not.

    Raises
    ------
    ConfigError
        For what is not a table, or holds what polars and Arrow would change; the batches raise it too.
    """
    with reading("the frame cannot be read", "give a frame with a name and a type for every column"):
        if isinstance(frame, pl.LazyFrame):
            batches = frame.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True, lazy=True)
            schema = _of_polars(frame.collect_schema().to_frame(), 0).schema
            return FrameRows(schema, _as_they_come(batches, _of_polars), frame, in_memory=False)
        if isinstance(frame, pa.RecordBatchReader):
            return _of_reader(frame)
        whole = _whole(frame)
    return FrameRows(whole.schema, whole.iter_slices(CHUNK_ROWS), whole.lazy(), in_memory=True)


def _of_reader(reader: pa.RecordBatchReader) -> FrameRows:
    empty = ((field.name, pa.chunked_array([], field.type)) for field in reader.schema)
    schema = _of_columns(empty, 0).schema
    return FrameRows(schema, _as_they_come(reader, _of_arrow), None, in_memory=False)


def _as_they_come(batches: Iterable[T], frame_of: Callable[[T, int], pl.DataFrame]) -> Iterator[pl.DataFrame]:
    rows, coming = 0, iter(batches)
    while True:
        with reading("the rows could not be read to their end", "resume=error.report sends the rest of the same rows"):
            batch = next(coming, None)
            frame = None if batch is None else frame_of(batch, rows)
        if frame is None:
            return
        rows += frame.height
        yield frame


def _whole(frame: object) -> pl.DataFrame:
    frame = as_frame(frame)
    if is_pandas(frame):
        return _of_columns(_pandas_columns(frame), 0)
    if isinstance(frame, pl.DataFrame):
        return _of_polars(frame, 0)
    if not hasattr(frame, "__arrow_c_stream__"):
        raise ConfigError(
            f"a {type(frame).__name__} is not a table",
            hint="give a polars or pandas DataFrame or Series, a LazyFrame, or an Arrow table",
        )
    return _of_arrow(pa.table(frame), 0)


def _of_polars(frame: pl.DataFrame, first_row: int) -> pl.DataFrame:
    """Return a frame with Arrow's types for Python objects, and for extensions of which polars knows no more."""
    return frame.with_columns(
        _series(column.name, _from_python(column.to_list(), column.name, first_row), first_row)
        if column.dtype == pl.Object
        else _series(column.name, column.to_arrow(), first_row)
        for column in frame.iter_columns()
        if column.dtype == pl.Object or isinstance(column.dtype, pl.BaseExtension)
    )


def _of_arrow(table: pa.Table | pa.RecordBatch, first_row: int) -> pl.DataFrame:
    return _of_columns(zip(table.schema.names, table.columns, strict=True), first_row)


def _of_columns(columns: Iterable[tuple[str, pa.ChunkedArray]], first_row: int) -> pl.DataFrame:
    found: dict[str, pl.Series] = {}
    for name, column in columns:
        if name in found:
            raise ConfigError(f"the frame has two columns {name!r}", hint="rename one of them, or drop it")
        found[name] = _series(name, column, first_row)
    return pl.DataFrame(found)


def _series(name: str, column: pa.Array | pa.ChunkedArray, first_row: int) -> pl.Series:
    """Return an Arrow array, in chunks or not, as a column."""

    def convert(array: pa.Array | pa.ChunkedArray) -> pl.Series:
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        parts = [adapted(chunk, name) for chunk in chunks or [pa.nulls(0, array.type)]]
        return pl.Series(name, pa.chunked_array(parts))

    return converted(convert, column, name, _numbers(column, first_row))


def _from_python(values: list[object], name: str, first_row: int) -> pa.Array:
    return converted(lambda some: from_objects(some, name), values, name, _numbers(values, first_row))


def _numbers(column: Sized, first_row: int) -> range:
    return range(first_row, first_row + len(column))


# --- pandas


def _pandas_columns(frame: pd.DataFrame) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns of a pandas frame as Arrow arrays, and the levels of its index that have a name."""
    found: dict[str, pa.ChunkedArray] = {}
    for place, title in enumerate(frame.columns):
        name = _flat(title)
        found[name] = _pandas_array(frame.iloc[:, place], name)
        yield name, found[name]
    for place, label in enumerate(frame.index.names):
        if label is not None:
            name = _flat(label)
            level = _pandas_array(frame.index.get_level_values(place).to_series(), name)
            if name not in found or not level.equals(found[name]):
                yield name, level


def _flat(label: object) -> str:
    """Return the name of a column: the levels that it has, joined."""
    return _JOINED_BY.join(str(level) for level in label if level != "") if isinstance(label, tuple) else str(label)


def _pandas_array(column: pd.Series, name: str) -> pa.ChunkedArray:
    column = _plain(column.reset_index(drop=True))
    if column.dtype != object:
        try:
            array = pa.array(column, from_pandas=True)
        except Exception:  # noqa: BLE001 - whatever it was, its values say which row it is about
            column = column.astype(object)
        else:
            return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    return pa.chunked_array([_from_python(column.tolist(), name, 0)])


def _plain(column: pd.Series) -> pd.Series:
    """Return a column without what Arrow does not know, or does not keep."""
    import pandas as pd

    if isinstance(column.array, pd.arrays.SparseArray):
        column = pd.Series(column.array.to_dense())
    if isinstance(column.dtype, pd.CategoricalDtype) and not pd.api.types.is_string_dtype(column.cat.categories.dtype):
        column = column.astype(object)  # Arrow forgets what the numbers of other categories mean
    return column
