"""Which rows a grid shows: by a text in the data or the key, and by conditions on single columns."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.errors import ConfigError
from kinesis_nb.widgets.grid.cells import COLUMNS, FIELD, cut, short
from kinesis_nb.widgets.grid.frames import frame_of

if TYPE_CHECKING:
    from kinesis_nb.widgets.flow import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Chip:
    """One condition on one column: a text, or a range of numbers or of times (microseconds since 1970).

    The upper end of a range belongs to it where `closed` says so: in the last bar of a histogram.
    """

    column: str
    text: str | None = None
    low: float = 0.0
    high: float = 0.0
    closed: bool = True

    @classmethod
    def between(cls, column: str, given: Message) -> Chip:
        """Return the range that a page describes.

        Raises
        ------
        ConfigError
            When it is none.
        """
        try:
            return cls(column, None, float(given["low"]), float(given["high"]), bool(given.get("closed")))
        except (KeyError, TypeError, ValueError):
            raise ConfigError("the page sent a filter that is none", hint="load the page again") from None

    def expression(self, name: str, kind: pl.DataType) -> pl.Expr:
        """Return the condition on the column of a frame."""
        if kind.is_nested() or kind == pl.Binary:
            return pl.lit(value=False)
        column = pl.col(name)
        if self.text is not None:
            return (column if kind == pl.String else column.cast(pl.String)) == self.text
        if not (kind.is_numeric() or kind.is_temporal()):
            column = column.cast(pl.Float64, strict=False)
        low, high = self._bounds(kind)
        return column.is_between(low, high, closed="both" if self.closed else "left")

    def _bounds(self, kind: pl.DataType) -> tuple[float, float] | tuple[datetime, datetime]:
        if kind.is_temporal():
            return _moment(self.low), _moment(self.high)
        whole = kind.is_integer() and self.low % 1 == self.high % 1 == 0
        return (int(self.low), int(self.high)) if whole else (self.low, self.high)

    def code(self, name: str, kind: pl.DataType) -> str:
        """Return the condition as a polars expression in Python."""
        column = f"pl.col({name!r})"
        if self.text is not None:
            return f"{column} == {self.text!r}" if kind == pl.String else f"{column}.cast(pl.String) == {self.text!r}"
        low, high = self._bounds(kind)
        edges = ", ".join(_literal(edge) for edge in (low, high))
        return f"{column}.is_between({edges}{'' if self.closed else ', closed=' + repr('left')})"


def _moment(micros: float) -> datetime:
    return _EPOCH + timedelta(microseconds=round(micros))


def _literal(edge: float | datetime) -> str:
    return f"datetime.fromisoformat({edge.isoformat()!r})" if isinstance(edge, datetime) else repr(edge)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are wanted: whose data, and whose partition key, hold a text in any case, and that fit all chips."""

    text: str = ""
    key: str = ""
    chips: tuple[Chip, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.key or self.chips)

    def __call__(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that match."""
        for name, text in (("data", self.text), ("partition_key", self.key)):
            if text:
                rows = rows.filter(pc.match_substring(rows.column(name), text, ignore_case=True))
        if not self.chips or not rows.num_rows:
            return rows
        return rows.filter(pa.array(self._holds(rows)))

    def _holds(self, rows: pa.RecordBatch) -> pl.Series:
        frame = frame_of(pa.Table.from_batches([rows]), with_fields=any(c.column.startswith(FIELD) for c in self.chips))
        holds = pl.lit(value=True)
        for chip in self.chips:
            name = COLUMNS.get(chip.column, chip.column)
            if name not in frame.columns:
                return pl.repeat(value=False, n=len(frame), eager=True)
            holds &= chip.expression(name, frame.schema[name])
        return frame.select(holds.fill_null(value=False).alias("holds"))["holds"]

    def narrowed(self, *chips: Chip) -> Filter:
        """Return the same filter with more chips."""
        return replace(self, chips=(*self.chips, *chips))

    def described(self) -> str:
        """Return what the rows have in common, in words; empty for all rows."""
        parts = [
            f"data holds {cut(self.text)!r}" if self.text else "",
            f"key holds {cut(self.key)!r}" if self.key else "",
        ]
        return " and ".join(filter(None, [*parts, *map(described, self.chips)]))


def described(chip: Chip) -> str:
    """Return a chip in words."""
    name = cut(chip.column.removeprefix(FIELD))
    if chip.text is not None:
        return f"{name} is {cut(short(chip.text) if chip.column == 'shard' else chip.text)!r}"
    if chip.column == "arrived":
        low, high = (_moment(edge) for edge in (chip.low, chip.high))
        return f"arrived {low:%H:%M:%S} to {high:%H:%M:%S} UTC"
    return f"{name} {chip.low:,.10g} to {chip.high:,.10g}"
