"""The one schema, and how columnar batches become Arrow, polars and pandas."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import operator
import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, overload

import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.arguments import hinted
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.limits import MOST_RETENTION
from kinesis_nb.core.process import check_polars
from kinesis_nb.display import SHOWN_ROWS, ShownAsText, frame_html, plain, table_text
from kinesis_nb.errors import ConfigError
from kinesis_nb.notebook import HasView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import polars as pl

    from kinesis_nb.core.foreign import Dropped
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.types import Foreign

CHUNK_BYTES = 2**30
_IN_A_TERMINAL = ("partition_key", "kinesis_ingestion_timestamp", "data")  # what fits
TIMESTAMP = pa.timestamp("us", tz="UTC")

UNKNOWN_LAG = MOST_RETENTION // timedelta(milliseconds=1)  # of a response that does not say it: it may end anywhere

SCHEMA = pa.schema(
    [
        pa.field("partition_key", pa.string()),
        pa.field("data", pa.string()),
        pa.field("kinesis_ingestion_timestamp", TIMESTAMP),
        pa.field("foundry_ingestion_timestamp", TIMESTAMP),
        pa.field("shard_id", pa.string()),
        pa.field("sequence_number", pa.string()),
        pa.field("sub_sequence_number", pa.int64()),
        pa.field("data_raw", pa.binary()),
    ]
)
"""The connector's four columns, where a row came from, and the bytes of a record that is not UTF-8 (else null)."""


class Record(NamedTuple):
    """One row. Made only by iterating; everything else stays columnar.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> first = kn.demo().read("orders", progress=False)[0]
    >>> first.partition_key, first.sub_sequence_number
    ('Barbara', 0)
    """

    partition_key: str | None
    data: str
    kinesis_ingestion_timestamp: datetime
    foundry_ingestion_timestamp: datetime
    shard_id: str
    sequence_number: str
    sub_sequence_number: int
    data_raw: bytes | None

    def __repr__(self) -> str:
        """As a named tuple's, with long data shortened."""
        shown = (f"{name}={plain(repr(value))}" for name, value in zip(self._fields, self, strict=True))
        return f"Record({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Batch:
    """One response of ``GetRecords``, or a part of it.

    Attributes
    ----------
    rows
        The records in the order of the shard, with the columns of `SCHEMA`.
    next_iterator
        Where to continue; None at the end of a closed shard.
    millis_behind_latest
        How far the response's end is behind the tip of the shard, in milliseconds, or `UNKNOWN_LAG`. An empty response
        with a value above 0 is a gap in the shard, not its end.
    child_shards
        Given with the last response of a closed shard.
    dropped
        User records of aggregates that are not in `rows`, because the shard does not take their hash keys; by record,
        in the order of the shard.
    read_from, read_to
        The sequence numbers of the response's first and last record, whose rows may have been dropped.
    seen
        Up to when, by the service's clock, everything in the shard is delivered with this batch; None when not known.
    count, size
        Records, and bytes of data and partition keys, as the service counts them for its quota.
    is_part
        Whether more of the same response follows; only the last part says how the response ends.
    packed
        For a response with aggregates: takes a size in bytes and what becomes of foreign user records, and gives parts
        of about that size; `rows` is empty.
    """

    rows: pa.RecordBatch
    next_iterator: str | None
    millis_behind_latest: int
    child_shards: tuple[Shard, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    read_from: str | None = None
    read_to: str | None = None
    count: int = 0
    size: int = 0
    seen: datetime | None = None
    is_part: bool = False
    packed: Callable[[int, Foreign], Iterator[Batch]] | None = field(default=None, repr=False, compare=False)

    @property
    def first_arrival(self) -> datetime | None:
        """When the first row arrived."""
        column = self.rows.column("kinesis_ingestion_timestamp")
        return column[0].as_py() if len(column) else None

    @property
    def last_arrival(self) -> datetime | None:
        """When the last row arrived."""
        column = self.rows.column("kinesis_ingestion_timestamp")
        return column[-1].as_py() if len(column) else None

    def parts(self, most: int, foreign: Foreign = "auto") -> Iterator[Batch]:
        """Return the response in parts of whole records: of about `most` bytes each, or of one larger record."""
        return iter((self,)) if self.packed is None else self.packed(most, foreign)

    @classmethod
    def part(cls, rows: pa.RecordBatch, read_from: str, read_to: str, dropped: tuple[Dropped, ...] = ()) -> Batch:
        """Return a part of a response that is not its last one: its lag says that more follows."""
        return cls(rows, None, UNKNOWN_LAG, (), dropped, read_from, read_to, is_part=True)

    def behind(self, sequence_number: str) -> Batch:
        """Return the batch without records up to and including a sequence number."""
        dropped = tuple(record for record in self.dropped if int(record.sequence_number) > int(sequence_number))
        return replace(self, rows=rows_behind(self.rows, sequence_number), dropped=dropped)


def rows_behind(rows: pa.RecordBatch, sequence_number: str | None) -> pa.RecordBatch:
    """Return the rows of one shard, which are in order, after a sequence number; all of them for None."""
    if sequence_number is None:
        return rows
    numbers = rows.column("sequence_number")
    places = range(rows.num_rows)
    return rows.slice(bisect_right(places, int(sequence_number), key=lambda place: int(numbers[place].as_py())))


def decode_text(data: pa.Array, pool: pa.MemoryPool | None = None) -> tuple[pa.Array, pa.Array]:
    """Split record bytes into text, and the bytes that are not text.

    Parameters
    ----------
    data
        A binary array, or a string array.
    pool
        What gives the memory; None for Arrow's default.

    Returns
    -------
    text, raw
        `text` is a string array in which bytes that are not UTF-8 became U+FFFD; `raw` holds the original bytes of
        just those rows and is null elsewhere.
    """
    whole = as_text(data, pool)
    if whole is not None:
        return whole, pa.nulls(len(data), pa.binary(), memory_pool=pool)
    values: list[bytes] = data.to_pylist()  # one bad row makes the vectorised cast fail; then go row by row
    replaced = [value.decode(errors="replace").encode() for value in values]  # as text it may take twice the memory
    raw = [value if text != value else None for value, text in zip(values, replaced, strict=True)]
    text = pa.array(replaced, pa.binary(), memory_pool=pool).cast(pa.string(), memory_pool=pool)
    return text, pa.array(raw, pa.binary(), memory_pool=pool)


def as_text(data: pa.Array, pool: pa.MemoryPool | None = None) -> pa.Array | None:
    """Return a binary array as a string array; None when one of its values is not UTF-8."""
    try:
        return data.cast(pa.string(), memory_pool=pool)
    except pa.ArrowInvalid:
        return None


def constant(value: object, length: int, kind: pa.DataType) -> pa.Array:
    """Return an array of `length` times the same value."""
    return pa.repeat(pa.scalar(value, kind), length)


def concat(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return the rows of all `batches` as one table with the columns of `SCHEMA`; nothing is copied."""
    return pa.Table.from_batches(batches, SCHEMA)


def as_arrow(frame: pl.DataFrame) -> pa.Table:
    """Return rows that polars holds as a table with the columns of `SCHEMA`, in chunks: one holds 2 GiB of text."""
    import polars as pl

    newest = pl.CompatLevel.newest()  # else polars copies the text as well
    if frame.estimated_size() <= CHUNK_BYTES:
        return frame.to_arrow(compat_level=newest).cast(SCHEMA)
    sizes = frame.select(pl.col("data").str.len_bytes() + pl.col("data_raw").bin.size().fill_null(0)).to_series()
    pieces = [frame.slice(start, length) for start, length in _pieces(sizes.fill_null(0).to_numpy())]
    return pa.concat_tables(piece.to_arrow(compat_level=newest).cast(SCHEMA) for piece in pieces)


def take_rows(table: pa.Table, order: npt.NDArray[np.int64]) -> pa.Table:
    """Return rows in another order, with the columns of `SCHEMA`, in chunks as :func:`as_arrow` makes them."""
    wide = {"string": pa.large_string(), "binary": pa.large_binary()}  # for more than 2 GiB of text in one chunk
    large = pa.schema([column.with_type(wide.get(str(column.type), column.type)) for column in SCHEMA])
    table = table.cast(large).take(pa.array(order))
    sizes = pc.add(*(pc.fill_null(pc.binary_length(table[name]), 0) for name in ("data", "data_raw")))
    return pa.concat_tables([table.slice(*piece).cast(SCHEMA) for piece in _pieces(sizes.to_numpy())])


def _pieces(sizes: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where each chunk starts and how many rows it has, by how many bytes each row has."""
    ends = sizes.cumsum()
    chunks = 1 + (int(ends[-1]) // CHUNK_BYTES if len(ends) else 0)
    bounds = [int(ends.searchsorted(n * CHUNK_BYTES)) for n in range(chunks)]
    return [(start, end - start) for start, end in pairwise([*bounds, len(sizes)])]


def in_range(rows: pa.RecordBatch, start: datetime | None, end: datetime | None) -> pa.RecordBatch:
    """Return the rows that arrived at `start` or later and at `end` or earlier; None leaves that side open."""
    arrival = rows.column("kinesis_ingestion_timestamp")
    seen = pc.min_max(arrival)  # most batches lie within the range as a whole, and need no copy
    if start is not None and not pc.greater_equal(seen["min"], bound := pa.scalar(start, TIMESTAMP)).as_py():
        rows = rows.filter(pc.greater_equal(arrival, bound))
        arrival = rows.column("kinesis_ingestion_timestamp")
    if end is not None and not pc.less_equal(seen["max"], bound := pa.scalar(end, TIMESTAMP)).as_py():
        rows = rows.filter(pc.less_equal(arrival, bound))
    return rows


def as_frame(given: object) -> object:
    """Return a single column as a frame of it, named ``value`` if it has no name; anything else as it is."""
    polars, pandas = sys.modules.get("polars"), sys.modules.get("pandas")
    if polars is not None and isinstance(given, polars.Series):
        return given.to_frame(given.name or "value")
    if pandas is not None and isinstance(given, pandas.Series):
        return given.to_frame("value" if given.name is None else given.name)
    return pa.table({"value": given}) if isinstance(given, pa.Array | pa.ChunkedArray) else given


def is_pandas(given: object) -> TypeGuard[pd.DataFrame]:
    """Whether this is a DataFrame of pandas, which is not imported to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(given, pandas.DataFrame)


@cache
@apart
def warm_up() -> None:
    """Make the first conversion from Python to Arrow now.

    It imports pandas, which takes a second; a consumer thread that met it first would hold the import lock meanwhile.
    """
    pa.array(["x"])


class TableLike(ABC):
    """The conversions of everything that holds rows; a subclass only defines :meth:`to_arrow`."""

    @abstractmethod
    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table."""

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars DataFrame."""
        import polars as pl

        check_polars()
        frame = pl.from_arrow(self.to_arrow(), rechunk=False)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the rows to any library that supports the Arrow PyCapsule protocol."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self.to_arrow().num_rows)

    def _repr_html_(self) -> str:
        return frame_html(self.to_arrow(), repr(self))


class Records(ShownAsText, TableLike, HasView):
    """Rows in memory: what :meth:`Source.read` and a sample return.

    Parameters
    ----------
    rows
        With the columns of `SCHEMA`.
    note
        Something to say about them in the display, for example that reading was interrupted.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> orders = kn.demo().read("orders", progress=False)
    >>> orders
    <Records: 1,000 rows>
    >>> orders[0].partition_key
    'Barbara'
    >>> orders.head(2).to_pandas()["data"][0]
    '{"order": 1, "customer": "Barbara", "item": "apples", "count": 1, "total": 1.9}'
    """

    def __init__(self, rows: pa.Table | pl.DataFrame, note: str = "") -> None:
        self._rows = rows
        self.note = note

    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table; copied when polars holds them, whose layout of text is another one."""
        return self._rows if isinstance(self._rows, pa.Table) else as_arrow(self._rows)

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars DataFrame; nothing is copied when they are held by polars, as those of a read."""
        return super().to_polars() if isinstance(self._rows, pa.Table) else self._rows

    def view(self) -> Any:
        """Return a grid of the rows for a notebook, sorted, filtered and opened by clicks: docs/widgets.md."""
        return self._view_of()

    @hinted
    def head(self, n: int = 5) -> Records:
        """Return the first `n` rows."""
        return self[: _not_negative(n)]

    @hinted
    def tail(self, n: int = 5) -> Records:
        """Return the last `n` rows."""
        return self[max(0, len(self) - _not_negative(n)) :]

    @hinted
    def last(self, n: int) -> Records:
        """Return the last `n` rows, as :meth:`tail`."""
        return self.tail(n)

    @overload
    def __getitem__(self, which: int) -> Record: ...

    @overload
    def __getitem__(self, which: slice) -> Records: ...

    def __getitem__(self, which: int | slice) -> Record | Records:
        """Return one row, or those of a slice; as of a list, a negative number counts from the end.

        Raises
        ------
        IndexError
            When there is no such row: it ends an iteration by number.
        ConfigError
            For what is neither a number nor a slice of numbers.
        """
        if isinstance(which, slice):
            return self._sliced(which)
        place = _index(which)
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self):,} rows, so none has the number {place:,}")
        place %= len(self)
        return next(iter(self[place : place + 1]))

    def _sliced(self, which: slice) -> Records:
        parts = (None if part is None else _index(part) for part in (which.start, which.stop, which.step))
        asked = slice(*parts)
        if asked.step == 0:
            raise ConfigError("a slice cannot have a step of 0", hint="records[::2] gives every second row")
        places = range(len(self))[asked]
        if places.step == 1:
            return Records(self._rows.slice(places.start, len(places)), self.note)
        rows = self._rows
        return Records(rows.take(list(places)) if isinstance(rows, pa.Table) else rows[list(places)], self.note)

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), 1_000):
            for batch in Records(self._rows.slice(start, 1_000)).to_arrow().to_batches():
                yield from iter_records(batch)

    def __len__(self) -> int:
        return len(self._rows)

    def _repr_html_(self) -> str:
        return frame_html(Records(self._rows.slice(0, SHOWN_ROWS + 1)).to_arrow(), repr(self))

    def _rows_as_text(self) -> str:
        first = Records(self._rows.slice(0, SHOWN_ROWS + 1)).to_arrow().select(_IN_A_TERMINAL)
        return table_text(_IN_A_TERMINAL, (list(row.values()) for row in first.to_pylist()))

    def _first_line(self) -> str:
        return f"<Records: {len(self):,} rows{', ' + self.note if self.note else ''}>"


def _index(given: object) -> int:
    try:
        return operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(
            f"rows are indexed by integers and slices, not by this {type(given).__name__}",
            hint="records[0], records[-1], records[:10]; to_polars() has the columns",
        ) from None


def _not_negative(n: int) -> int:
    if n < 0:
        raise ConfigError(f"n={n}: there are no negative numbers of rows", hint="give a whole number, 0 or more")
    return n


def iter_records(rows: pa.RecordBatch) -> Iterator[Record]:
    """Yield the rows one by one."""
    columns: list[list[object]] = [rows.column(name).to_pylist() for name in Record._fields]
    yield from map(Record._make, zip(*columns, strict=True))
