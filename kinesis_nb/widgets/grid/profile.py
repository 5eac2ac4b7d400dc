"""What is in the columns of a grid: their types, histograms, most frequent values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from kinesis_nb.widgets.grid.cells import COLUMNS, FIELD

if TYPE_CHECKING:
    from kinesis_nb.widgets.flow import Message

BINS, MOST_TOP = 20, 3  # bars of a histogram; values of a text column that are named
LEAST_TIMES = 2  # how often a text must be there to be named


def profile(frame: pl.DataFrame) -> dict[str, Message]:
    """Return what is in each column, by the id of the column: its type, and a histogram or the most frequent texts."""
    ids = {name: column for column, name in COLUMNS.items()}
    found = {}
    for series in frame:
        if series.name in ids or series.name.startswith(FIELD):
            found[ids.get(series.name, series.name)] = _profile_of(series)
    return found


def _profile_of(series: pl.Series) -> Message:
    kind = series.dtype
    filled = series.drop_nulls()
    about: Message = {"type": type_name(kind), "filled": len(filled), "rows": len(series)}
    if not len(filled):
        return about
    if kind.is_numeric() or kind.is_temporal():
        return about | _histogram(filled)
    if isinstance(kind, pl.String | pl.Boolean) and series.name != "data":
        counted = filled.cast(pl.String).value_counts(sort=True, name="times")
        top = counted.head(MOST_TOP).rows()
        named = [(text, times) for text, times in top if times >= LEAST_TIMES]
        return about | {"distinct": len(counted), "top": named}
    return about


def _histogram(values: pl.Series) -> Message:
    """Return the edges of the bars and how many values each has; of integers a bar has whole ones."""
    kind = values.dtype
    numbers = values.cast(pl.Int64 if kind.is_temporal() else pl.Float64).to_numpy().astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return {}
    low, high = float(numbers.min()), float(numbers.max())
    step = (high / BINS) - (low / BINS)  # divided first: the difference of the largest floats is infinite
    if step == 0 or not np.isfinite(BINS * step):  # all are the same, or too far apart to be told from each other
        return {"low": low, "high": high, "bars": [len(numbers)]}
    count = BINS
    if kind.is_integer():
        step = max(1.0, float(np.ceil((high - low + 1) / BINS)))
        count = int(np.ceil((high - low + 1) / step))
    places = np.minimum(((numbers - low) / step).astype(np.int64), count - 1)
    return {"low": low, "high": low + count * step, "bars": np.bincount(places, minlength=count).tolist()}


def type_name(kind: pl.DataType) -> str:
    """Return what a column holds, in one word."""
    if kind.is_integer():
        return "integer"
    if kind.is_numeric():
        return "number"
    if kind.is_temporal():
        return "time"
    names: dict[type[pl.DataType], str] = {
        pl.String: "text",
        pl.Boolean: "boolean",
        pl.Struct: "object",
        pl.List: "list",
    }
    return names.get(type(kind), "")
