"""Frames of all libraries, with all types, at the top and nested: values arrive exactly, or are refused."""

from __future__ import annotations

import enum
import json
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.exporting.encode import Payload
from kinesis_nb.exporting.tables import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

ID = UUID("0189f7ea-ae2c-7809-8aeb-b819cf5e9e7f")
INDIA = timezone(timedelta(hours=5, minutes=30))
NOON = datetime(2026, 11, 1, 12, tzinfo=INDIA)
NANOS = pd.Timestamp("2026-11-01T12:00:00.123456789")
FAR = np.array(["11999-01-01"], "M8[s]")
REFUSED = None

PLACES = ("top", "in a list", "in a struct", "in a list of structs")
AS_JSON = {
    "top": '{{"v":{0}}} {{"v":null}}',
    "in a list": '{{"v":[{0},null]}}',
    "in a struct": '{{"v":{{"x":{0}}}}} {{"v":{{"x":null}}}}',
    "in a list of structs": '{{"v":[{{"x":{0}}},{{"x":null}}]}}',
}


class Colour(enum.Enum):
    RED = "red"


class Size(enum.StrEnum):
    S = "s"


class Level(enum.IntEnum):
    HIGH = 3


def sent(frame: Any) -> list[str]:
    """Return the JSON objects that an export makes of a frame."""
    rows = read_rows(frame)
    payload = Payload(rows.schema, None, None)
    found: list[str] = []
    for batch in rows.batches:
        places = pl.int_range(len(found), len(found) + batch.height, dtype=pl.Int64, eager=True)
        found += [data.decode() for data in payload.encoded(batch, places)]
    return found


def check(frame: Callable[[], Any], text: str | None, place: str) -> None:
    """Hold what is sent against the text of the value, or the refusal against what it must name."""
    if text is not None:
        assert " ".join(sent(frame())) == AS_JSON[place].format(text)
        return
    with pytest.raises(kn.ConfigError) as caught:
        sent(frame())
    assert "column 'v" in caught.value.message
    assert caught.value.hint


# --- Arrow

ARROW: dict[str, tuple[pa.Array, str | None]] = {
    "int8": (pa.array([-128, None], pa.int8()), "-128"),
    "int64": (pa.array([2**63 - 1, None]), "9223372036854775807"),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), "18446744073709551615"),
    "float16": (pa.array([np.float16(1.5), None], pa.float16()), "1.5"),
    "float32": (pa.array([0.1, None], pa.float32()), "0.1"),
    "float64": (pa.array([0.1, None]), "0.1"),
    "NaN": (pa.array([float("nan"), None]), "null"),
    "bool": (pa.array([True, None]), "true"),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())), "true"),
    "null": (pa.nulls(2), "null"),
    "string": (pa.array(['a"☕', None]), '"a\\"☕"'),
    "large string": (pa.array(["a", None], pa.large_string()), '"a"'),
    "string view": (pa.array(["a", None], pa.string_view()), '"a"'),
    "binary": (pa.array([b"\xff", None]), '"/w=="'),
    "fixed binary": (pa.array([b"\xff\x00", None], pa.binary(2)), '"/wA="'),
    "binary view": (pa.array([b"\xff", None], pa.binary_view()), '"/w=="'),
    "decimal32": (pa.array([Decimal("1.20"), None], pa.decimal32(5, 2)), "1.20"),
    "decimal128": (pa.array([Decimal("-1.20"), None]), "-1.20"),
    "decimal128, wide": (pa.array([Decimal(10**37), None]), str(10**37)),
    "decimal256 that fits": (pa.array([Decimal("1.20"), None], pa.decimal256(50, 2)), "1.20"),
    "decimal256": (pa.array([Decimal("1E+3"), Decimal("1E-40")]), REFUSED),
    "date32": (pa.array([date(2026, 1, 2), None]), '"2026-01-02"'),
    "date of the year 11999": (pa.array([3663148, None], pa.int32()).cast(pa.date32()), '"+11999-05-12"'),
    "date64": (pa.array([date(2026, 1, 2), None], pa.date64()), '"2026-01-02T00:00:00"'),
    "time32": (pa.array([time(3, 4, 5), None], pa.time32("s")), '"03:04:05"'),
    "time64": (pa.array([123, None], pa.time64("ns")), '"00:00:00.000000123"'),
    "timestamp in s": (pa.array([0, None], pa.timestamp("s")), '"1970-01-01T00:00:00"'),
    "timestamp in ns": (pa.array([NANOS.value, None], pa.timestamp("ns")), '"2026-11-01T12:00:00.123456789"'),
    "timestamp in UTC": (pa.array([1, None], pa.timestamp("us", "UTC")), '"1970-01-01T00:00:00.000001Z"'),
    "timestamp of a zone": (pa.array([0, None], pa.timestamp("ms", "Europe/Berlin")), '"1970-01-01T01:00:00+01:00"'),
    "timestamp of the year 11999": (pa.array(FAR).cast(pa.timestamp("s")), '"+11999-01-01T00:00:00"'),
    "timestamp out of reach": (pa.array([2**60], pa.timestamp("s")), REFUSED),
    "timestamp beyond the calendar": (pa.array([2**62], pa.timestamp("ms")), REFUSED),
    "fixed offset": (pa.array([NOON, None], pa.timestamp("us", "+05:30")), '"2026-11-01T12:00:00+05:30"'),
    "fixed offset in s": (pa.array([0, None], pa.timestamp("s", "-03:30")), '"1969-12-31T20:30:00-03:30"'),
    "no zone that anybody knows": (pa.array([0], pa.timestamp("us", "Mars/Olympus")), REFUSED),
    "duration": (pa.array([timedelta(hours=1), None]), '"PT1H"'),
    "duration in s": (pa.array([1, None], pa.duration("s")), '"PT1S"'),
    "duration out of reach": (pa.array([2**60], pa.duration("s")), REFUSED),
    "interval of months": (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), REFUSED),
    "UUID": (pa.array([ID, None]), f'"{ID}"'),
    "dictionary of text": (pa.array(["a", None]).dictionary_encode(), '"a"'),
    "dictionary of dates": (pa.array([date(2026, 1, 2), None]).dictionary_encode(), '"2026-01-02"'),
    "dictionary of times with an offset": (
        pa.array([NOON, None], pa.timestamp("us", "+05:30")).dictionary_encode(),
        '"2026-11-01T12:00:00+05:30"',
    ),
    "run ends": (pa.RunEndEncodedArray.from_arrays([1, 2], pa.array([5, None])), "5"),
    "list": (pa.array([[1, None], None]), "[1,null]"),
    "empty list": (pa.array([[], None], pa.list_(pa.int64())), "[]"),
    "list view": (pa.array([[1], None], pa.list_view(pa.int64())), "[1]"),
    "fixed list": (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), "[1,2]"),
    "struct": (pa.array([{"a": 1, "b": "x"}, None]), '{"a":1,"b":"x"}'),
    "map": (pa.array([[("a", 1), ("b", None)], None], pa.map_(pa.string(), pa.int64())), '{"a":1,"b":null}'),
    "map of numbers": (pa.array([[(5, "x")], None], pa.map_(pa.int64(), pa.string())), '{"5":"x"}'),
    "union": (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), REFUSED),
    "tensor": (pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 2, 2))), REFUSED),
    "period": (pa.array(pd.Series(pd.PeriodIndex(["2026-02", None], freq="M"))), '"2026-02"'),
    "interval": (pa.array(pd.Series(pd.interval_range(0, 1))), REFUSED),
}


def placed(array: pa.Array, place: str) -> pa.Array:
    """Return the values of an array at the top, or within something."""
    if place == "top":
        return array
    if place.endswith(("struct", "structs")):
        array = pa.StructArray.from_arrays([array], names=["x"])
    return array if place == "in a struct" else pa.LargeListArray.from_arrays([0, len(array)], array)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ARROW)
def test_arrow_types(kind: str, place: str) -> None:
    """Each type of Arrow has one JSON text, wherever it stands, or is refused."""
    array, text = ARROW[kind]
    if kind.startswith("dictionary") and "list" in place:
        pytest.skip("Arrow slices no list of these")
    if text is not None and len(array) == 1:
        array = pa.concat_arrays([array, pa.nulls(1, array.type)])
    check(lambda: pa.table({"v": placed(array, place)}), text, place)


@pytest.mark.parametrize("kind", ARROW)
def test_a_stream_of_arrow_batches_is_the_same(kind: str) -> None:
    """What is read batch by batch is refused, or written, as a table is; the row is that of the whole stream."""
    array, text = ARROW[kind]
    batch = pa.record_batch({"v": array})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch])
    if text is not None:
        assert sent(reader) == sent(pa.table({"v": array})) * 2
    else:
        with pytest.raises(kn.ConfigError, match="column 'v"):
            sent(reader)


# --- polars

POLARS: dict[str, tuple[pl.Series, str | None]] = {
    "Int128": (pl.Series([-(2**127), None], dtype=pl.Int128), str(-(2**127))),
    "UInt128": (pl.Series([2**128 - 1, None], dtype=pl.UInt128), str(2**128 - 1)),
    "Float16": (pl.Series([1.5, None], dtype=pl.Float16), "1.5"),
    "Float32": (pl.Series([0.1, None], dtype=pl.Float32), "0.1"),
    "Decimal": (pl.Series([Decimal("1.20"), None]), "1.20"),
    "Categorical": (pl.Series(["a", None], dtype=pl.Categorical), '"a"'),
    "Enum": (pl.Series(["a", None], dtype=pl.Enum(["b", "a"])), '"a"'),
    "Binary": (pl.Series([b"\xff", None]), '"/w=="'),
    "Date": (pl.Series([date(2026, 1, 2), None]), '"2026-01-02"'),
    "Time": (pl.Series([time(1, 2, 3, 4), None]), '"01:02:03.000004"'),
    "Duration": (pl.Series([timedelta(days=1, microseconds=1), None]), '"P1DT0.000001S"'),
    "Datetime in ns": (pl.Series([NANOS.value, None]).cast(pl.Datetime("ns")), '"2026-11-01T12:00:00.123456789"'),
    "Datetime before whole offsets": (
        pl.Series([datetime(1800, 1, 1, tzinfo=UTC), None]).dt.convert_time_zone("Europe/Berlin"),
        '"1800-01-01T00:00:00Z"',
    ),
    "Datetime beyond the calendar": (pl.Series([2**61]).cast(pl.Datetime("ms")), REFUSED),
    "Array": (pl.Series([[1, None], None], dtype=pl.Array(pl.Int64, 2)), "[1,null]"),
    "List of List": (pl.Series([[[0.5], None], None]), "[[0.5],null]"),
    "Map": (pl.Series([{"a": 1}, None], dtype=pl.Map(pl.String, pl.Int64)), '{"a":1}'),
    "Null": (pl.Series([None, None]), "null"),
}


@pytest.mark.parametrize("is_lazy", [False, True], ids=["DataFrame", "LazyFrame"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", POLARS)
def test_polars_types(kind: str, place: str, *, is_lazy: bool) -> None:
    """Each type of polars has one JSON text, wherever it stands, lazy or not."""
    series, text = POLARS[kind]
    if place.endswith(("struct", "structs")):
        series = series.alias("x").to_frame().to_struct()
    if "list" in place:
        series = series.implode()
    frame = series.alias("v").to_frame()
    check(lambda: frame.lazy() if is_lazy else frame, text, place)


def test_polars_objects_are_what_they_mean() -> None:
    """polars keeps a UUID as a Python object; its text is sent. An extension that it only carries is what it means."""
    assert sent(pl.DataFrame({"v": [ID, None]})) == [f'{{"v":"{ID}"}}', '{"v":null}']
    periods = pl.DataFrame(pa.table({"v": ARROW["period"][0]}))
    assert sent(periods) == ['{"v":"2026-02"}', '{"v":null}']
    with pytest.raises(kn.ConfigError, match="column 'v' holds Python objects of the type complex: row 0"):
        sent(pl.DataFrame({"v": [1j]}))


# --- pandas

PANDAS: dict[str, tuple[pd.Series[Any], str | None]] = {
    "int": (pd.Series([1, None], dtype="Int64"), "1"),
    "2**70": (pd.Series([2**70, None], dtype=object), str(2**70)),
    "2**70 in numpy's objects": (pd.Series([2**70, np.int64(5)], dtype=object)[:1], str(2**70)),
    "numpy integer": (pd.Series([np.uint8(5), None], dtype=object), "5"),
    "numpy float": (pd.Series([np.float64(0.5), None], dtype=object), "0.5"),
    "numpy bool": (pd.Series([np.bool_(1), None], dtype=object), "true"),
    "numpy time": (
        pd.Series([np.datetime64("2026-01-02T00:00:00.000000001"), None], dtype=object),
        '"2026-01-02T00:00:00.000000001"',
    ),
    "10**80": (pd.Series([10**80], dtype=object), REFUSED),
    "int beside Decimal": (pd.Series([2**60, Decimal("0.5")], dtype=object)[:1], str(2**60)),
    "infinite Decimal": (pd.Series([Decimal("Infinity")], dtype=object), REFUSED),
    "NaN as Decimal": (pd.Series([Decimal("NaN"), None], dtype=object), "null"),
    "large int beside a float": (pd.Series([2**53 + 1, 0.5], dtype=object), REFUSED),
    "text": (pd.Series(["a", np.nan]), '"a"'),
    "NA": (pd.Series([pd.NA, pd.NaT], dtype=object), "null"),
    "text of objects": (pd.Series(["a", None], dtype=object), '"a"'),
    "lone surrogate": (pd.Series(["a", "\ud800"], dtype=object), REFUSED),
    "text and bytes": (pd.Series(["a", b"\xff"], dtype=object), REFUSED),
    "bytes": (pd.Series([b"\xff", None]), '"/w=="'),
    "bytearray": (pd.Series([bytearray(b"\xff"), None]), '"/w=="'),
    "category of text": (pd.Series(["a", None], dtype="category"), '"a"'),
    "category of times": (pd.Series([NANOS, None], dtype="category"), '"2026-11-01T12:00:00.123456789"'),
    "category of periods": (pd.Series(pd.PeriodIndex(["2026-02"], freq="M")).astype("category"), REFUSED),
    "time": (pd.Series([NANOS, None]), '"2026-11-01T12:00:00.123456789"'),
    "time of objects": (pd.Series([NANOS, None], dtype=object), '"2026-11-01T12:00:00.123456789"'),
    "time of the year 9999": (pd.Series([datetime(9999, 1, 1), None], dtype=object), '"9999-01-01T00:00:00"'),  # noqa: DTZ001
    "time of the year 11999": (pd.Series([pd.Timestamp(FAR[0])], dtype=object), REFUSED),
    "times of a zone": (pd.Series([NANOS.tz_localize("Europe/Berlin"), None]), '"2026-11-01T12:00:00.123456789+01:00"'),
    "time with a fixed offset": (
        pd.Series(pd.to_datetime(cast("list[str]", ["2026-11-01T12:00:00+05:30", None]))),
        '"2026-11-01T12:00:00+05:30"',
    ),
    "time with an offset of objects": (pd.Series([NOON, None], dtype=object), '"2026-11-01T12:00:00+05:30"'),
    "times of two offsets": (pd.Series([NOON, NOON.astimezone(UTC)], dtype=object)[:1], '"2026-11-01T12:00:00+05:30"'),
    "times with and without a zone": (pd.Series([NOON, NANOS], dtype=object), REFUSED),
    "date": (pd.Series([date(2026, 1, 2), None]), '"2026-01-02"'),
    "date and time": (pd.Series([date(2026, 1, 2), datetime(2026, 1, 2, 5)], dtype=object), REFUSED),  # noqa: DTZ001
    "time of day with a zone": (pd.Series([time(1, tzinfo=UTC)]), REFUSED),
    "time of day": (pd.Series([time(1, 2), None]), '"01:02:00"'),
    "timedelta": (pd.Series([pd.Timedelta(1), None]), '"PT0.000000001S"'),
    "timedelta of objects": (pd.Series([pd.Timedelta(1), None], dtype=object), '"PT0.000000001S"'),
    "timedelta out of reach": (pd.Series([pd.Timedelta(np.timedelta64(2**60, "s"))], dtype=object), REFUSED),
    "UUID": (pd.Series([ID, None]), f'"{ID}"'),
    "set": (pd.Series([{1, 2}]), REFUSED),
    "frozenset": (pd.Series([frozenset({1})]), REFUSED),
    "enum": (pd.Series([Colour.RED]), REFUSED),
    "enum of text": (pd.Series([Size.S, None], dtype=object), '"s"'),
    "enum of numbers": (pd.Series([Level.HIGH, None], dtype=object), "3"),
    "complex": (pd.Series([1j]), REFUSED),
    "long double": (pd.Series(np.array([1.5], np.longdouble)), REFUSED),
    "offset of dates": (pd.Series([pd.DateOffset(months=1)], dtype=object), REFUSED),
    "object": (pd.Series([object()]), REFUSED),
    "int and text": (pd.Series([1, "x"], dtype=object), REFUSED),
    "int and bool": (pd.Series([1, True], dtype=object), REFUSED),
    "dict": (pd.Series([{"a": NANOS, "b": None}, None]), '{"a":"2026-11-01T12:00:00.123456789","b":null}'),
    "dict with a number as key": (pd.Series([{1: "x"}]), REFUSED),
    "dict without keys": (pd.Series([{}, None]), "{}"),
    "dicts of different types": (pd.Series([{"a": 1}, {"a": "x"}]), REFUSED),
    "vector": (pd.Series([np.array([0.1, 2], np.float32), None]), "[0.1,2.0]"),
    "matrix": (pd.Series([np.array([[1, 2], [3, 4]]), None]), "[[1,2],[3,4]]"),
    "tuple": (pd.Series([(1, 2), None]), "[1,2]"),
}
ONLY_AT_THE_TOP: dict[str, tuple[pd.Series[Any], str | None]] = {
    "time of the year 11999": (pd.Series([*FAR, None], dtype="M8[s]"), '"+11999-01-01T00:00:00"'),
    "sparse": (pd.Series(pd.arrays.SparseArray([0.5, np.nan])), "0.5"),
    "year": (pd.Series(pd.PeriodIndex(["2026", None], freq="Y")), '"2026"'),
    "month": (pd.Series(pd.PeriodIndex(["2026-02", None], freq="M")), '"2026-02"'),
    "day": (pd.Series(pd.PeriodIndex(["2026-02-03", None], freq="D")), '"2026-02-03"'),
    "hour": (pd.Series(pd.PeriodIndex(["2026-02-03 04", None], freq="h")), '"2026-02-03T04:00:00"'),
    "second": (pd.Series(pd.PeriodIndex(["2026-02-03 04:05:06", None], freq="s")), '"2026-02-03T04:05:06"'),
    "millisecond": (
        pd.Series(pd.PeriodIndex(["2026-02-03 04:05:06.007", None], freq="ms")),
        '"2026-02-03T04:05:06.007"',
    ),
    "nanosecond": (
        pd.Series(pd.PeriodIndex(["2026-02-03 04:05:06.000000007", None], freq="ns")),
        '"2026-02-03T04:05:06.000000007"',
    ),
    "quarter": (pd.Series(pd.PeriodIndex(["2026Q1"], freq="Q")), REFUSED),
    "week": (pd.Series(pd.PeriodIndex(["2026-02-03"], freq="W")), REFUSED),
    "two months": (pd.Series(pd.PeriodIndex(["2026-02"], freq="2M")), REFUSED),
    "interval": (pd.Series(pd.interval_range(0, 1)), REFUSED),
    "Arrow's own": (pd.Series([Decimal("1.20"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "1.20"),
    "text of Python": (pd.Series(["a", None], dtype=pd.StringDtype("python")), '"a"'),
}


def of_pandas(series: pd.Series[Any], place: str) -> pd.DataFrame:
    """Return a frame with the values of a series at the top, or as Python objects within something."""
    if place == "top":
        return pd.DataFrame({"v": series.reset_index(drop=True)})
    values = [{"x": value} for value in series] if place.endswith(("struct", "structs")) else list(series)
    return pd.DataFrame({"v": pd.Series([values] if "list" in place else values, dtype=object)})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", PANDAS)
def test_pandas_types(kind: str, place: str) -> None:
    """Each value in a pandas frame has one JSON text, wherever it stands, or is refused."""
    series, text = PANDAS[kind]
    if text is not None and len(series) == 1:
        series = pd.Series([series.iloc[0], None], dtype=object)
    check(lambda: of_pandas(series, place), text, place)


@pytest.mark.parametrize("kind", ONLY_AT_THE_TOP)
def test_pandas_types_of_columns(kind: str) -> None:
    """Types that only a whole column can have are written or refused."""
    series, text = ONLY_AT_THE_TOP[kind]
    check(lambda: pd.DataFrame({"v": series}), text, "top")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, 2, "x", 3], "'v' holds Python objects of different types, int and str: row 2"),
        (["a", "b", "\ud800"], "'v' cannot be exported .*surrogates.*: row 2"),
        ([1, 10**80], "'v' holds numbers of more than 38 digits: row 1"),
        ([0.5, 2**53 + 1], "'v' holds 9007199254740993 beside floats.*: row 1"),
        ([[1], [1, {2}]], "'v\\[\\]' holds Python objects of different types, int and set: row 1"),
        ([{"a": {"b": [1]}}, {"a": {"b": [1j]}}], "'v.a.b\\[\\]' holds Python objects of different.*: row 1"),
        ([None, {3}], "'v' holds a set, which has no order: row 1"),
        ([None, Colour.RED], "'v' holds Colour, an enum: row 1"),
    ],
)
def test_a_refusal_names_column_row_and_cast(values: list[object], says: str) -> None:
    """The path within the column, the first row that does not fit, and what to do."""
    with pytest.raises(kn.ConfigError, match=says) as caught:
        sent(pd.DataFrame({"k": "a", "v": pd.Series(values, dtype=object)}))
    assert caught.value.hint


def test_rows_of_a_stream_are_numbered_through() -> None:
    """The row that is refused is named by its place in the stream, not in its batch."""
    fine, bad = (pa.record_batch({"v": pa.array(v, pa.decimal256(60, 0))}) for v in ([1, 2, 3], [4, 10**50]))
    with pytest.raises(kn.ConfigError, match="column 'v' holds decimals of more than 38 digits: row 4"):
        sent(pa.RecordBatchReader.from_batches(fine.schema, [fine, bad]))


def test_sliced_arrays_are_their_slice() -> None:
    """What an array has before and behind its slice is not sent, however deep it is nested."""
    ids = pa.StructArray.from_arrays([pa.array([UUID(int=n) for n in range(15)])], names=["u"])
    missing = pa.array([True, *[False] * 5])
    table = pa.table({"v": pa.ListArray.from_arrays(pa.array([0, 0, 1, 3, 6, 10, 15], pa.int32()), ids, mask=missing)})
    every = sent(table)
    assert every[0] == '{"v":null}'
    assert [row["u"][-2:] for row in json.loads(every[5])["v"]] == ["0a", "0b", "0c", "0d", "0e"]
    assert sent(table.slice(2, 3)) == every[2:5]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([UUID(int=n) for n in range(8)]), 2)
    assert sent(pa.table({"v": fixed}).slice(1, 2)) == sent(pa.table({"v": fixed}))[1:3]


def test_items_behind_a_null_are_not_sent() -> None:
    """A list that is null may have items all the same; they are not part of the value."""
    for items in (pa.array([1, 2, 3]), pa.array([UUID(int=n) for n in (1, 2, 3)])):
        lists = pa.LargeListArray.from_arrays([0, 2, 3], items, mask=pa.array([True, False]))
        first, second = (json.loads(text)["v"] for text in sent(pa.table({"v": lists})))
        assert first is None
        assert second == [3 if items.type == pa.int64() else str(UUID(int=3))]


# --- what is a row


def test_the_index_of_pandas() -> None:
    """Named levels are data; an index without a name is not, nor is one that says again what a column says."""
    frame = pd.DataFrame({"k": ["a", "b", "c"], "n": [1, 2, 3]})
    assert sent(frame[frame.n != 2]) == ['{"k":"a","n":1}', '{"k":"c","n":3}']
    assert sent(frame.set_index("n")) == ['{"k":"a","n":1}', '{"k":"b","n":2}', '{"k":"c","n":3}']
    assert sent(frame.set_index("k", drop=False))[0] == '{"k":"a","n":1}'
    assert sent(frame.rename_axis("row"))[1] == '{"k":"b","n":2,"row":1}'
    assert sent(frame.groupby(["k", "n"]).size().rename("count").to_frame())[0] == '{"count":1,"k":"a","n":1}'
    with pytest.raises(kn.ConfigError, match="two columns 'k'"):
        sent(frame.set_index("k", drop=False).assign(k="other"))


def test_columns_of_several_levels_are_joined() -> None:
    """agg() names columns in levels; empty levels are left out, and names that become the same are refused."""
    frame = pd.DataFrame({"k": ["a", "a"], "n": [1, 2]}).groupby("k").agg({"n": ["sum", "max"]}).reset_index()
    assert sent(frame) == ['{"k":"a","n_sum":3,"n_max":2}']
    same = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a_b", "")]))
    with pytest.raises(kn.ConfigError, match="two columns 'a_b'\nhint: rename"):
        sent(same)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[1, "1"]),
        pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ],
)
def test_two_columns_of_a_name_are_refused(frame: object) -> None:
    """JSON could hold one of them only."""
    with pytest.raises(kn.ConfigError, match="the frame has two columns "):
        sent(frame)


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (pl.Series("n", [1, 2]), "n"),
        (pl.Series([1, 2]), "value"),
        (pd.Series([1, 2], name="n"), "n"),
        (pd.Series([1, 2]), "value"),
        (pd.Series([1, 2], dtype=object), "value"),
    ],
)
def test_a_series_is_one_column(series: object, name: str) -> None:
    """With its name, or as "value"."""
    assert sent(series) == [f'{{"{name}":1}}', f'{{"{name}":2}}']


@pytest.mark.parametrize("thing", [None, 5, "a", [1], {"a": [1]}, np.ones(2)])
def test_what_is_no_table(thing: object) -> None:
    """It is refused by its type, and what is a table is named."""
    with pytest.raises(kn.ConfigError, match=f"a {re.escape(type(thing).__name__)} is not a table\nhint: give "):
        sent(thing)
