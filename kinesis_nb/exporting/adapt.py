"""Arrow arrays -> arrays that polars holds exactly: it has no fixed offsets, drops the UUID type, and more."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow has no types)
from __future__ import annotations

import re
from datetime import timedelta
from itertools import accumulate

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.exporting.json_rows import iso
from kinesis_nb.exporting.refusals import AS_INTEGER, Inexact

_OFFSET = re.compile(r"[+-]\d\d:?\d\d")
_MOST_DIGITS = 38  # of a decimal of polars
_PERIODS = {"Y-DEC": "%Y", "M": "%Y-%m", "D": "%Y-%m-%d"}  # ISO 8601 has no quarters, and no weeks of a Wednesday
_TIMES = ("h", "min", "s", "ms", "us", "ns")
_UNKNOWN = (  # of these types polars has none
    pa.types.is_run_end_encoded,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_union,
    pa.types.is_interval,
    pa.types.is_decimal32,
    pa.types.is_decimal64,
    pa.types.is_decimal256,
)


def needs_adapting(kind: pa.DataType) -> bool:
    """Return whether polars would change or refuse a type, or one within it."""
    types = pa.types
    if types.is_timestamp(kind) or types.is_duration(kind):
        return kind.unit == "s" or bool(_OFFSET.fullmatch(getattr(kind, "tz", None) or ""))
    if types.is_dictionary(kind):
        return needs_adapting(kind.value_type)
    parts = (kind.field(place).type for place in range(kind.num_fields))
    return (
        isinstance(kind, pa.BaseExtensionType)
        or any(is_unknown(kind) for is_unknown in _UNKNOWN)
        or any(part != kind and needs_adapting(part) for part in parts)
    )


def adapted(array: pa.Array, path: str) -> pa.Array:
    """Return an array with the same values, of types that polars has; text where only text says them exactly.

    Raises
    ------
    Inexact
        When there is no such type, or a value does not fit into it.
    """
    kind, types = array.type, pa.types
    if not needs_adapting(kind):
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return _storage(array, path)
    if types.is_timestamp(kind) or types.is_duration(kind):
        return _times(array, path)
    if types.is_dictionary(kind):
        return adapted(array.dictionary_decode(), path)
    if types.is_run_end_encoded(kind):
        return adapted(pc.run_end_decode(array), path)
    if types.is_decimal(kind):
        return _decimals(array, path)
    if types.is_struct(kind):
        parts = [adapted(part, f"{path}.{kind.field(place).name}") for place, part in enumerate(array.flatten())]
        names = [kind.field(place).name for place in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, names=names, mask=array.is_null())
    if types.is_map(kind):
        pair = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        return adapted(array.cast(pa.list_(pair)), path)
    if hasattr(kind, "value_type"):
        offsets, items = _lists(array)
        return pa.LargeListArray.from_arrays(offsets, adapted(items, f"{path}[]"), mask=array.is_null())
    raise Inexact(path, f"has the type {kind}, which has no standard form")


def _lists(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return where each list begins and ends in the items, and the items; Arrow's own function fails for UUIDs."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = array.offsets.cast(pa.int64())
        first, last = offsets[0].as_py(), offsets[-1].as_py()
        return pc.subtract(offsets, first), array.values.slice(first, last - first)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        offsets = pa.array(range(0, (len(array) + 1) * size, size), pa.int64())
        return offsets, array.values.slice(array.offset * size, len(array) * size)
    lengths = pc.list_value_length(array).fill_null(0).to_pylist()
    return pa.array(accumulate(lengths, initial=0), pa.int64()), pc.list_flatten(array)


def _storage(array: pa.Array, path: str) -> pa.Array:
    """Return the values of an extension type as what they mean."""
    kind = array.type
    name = getattr(kind, "extension_name", str(kind))
    match name:
        case "arrow.uuid":
            return _uuids(array.storage)
        case "arrow.bool8":
            return array.storage.cast(pa.bool_())
        case "arrow.json":
            return adapted(array.storage, path)
        case "pandas.period" if kind.freq in _PERIODS or kind.freq in _TIMES:
            return _periods(array.storage, kind.freq)
        case "pandas.period":
            what = f"holds periods of {kind.freq}, which ISO 8601 has no form for"
            raise Inexact(path, what, "send begin and end as columns of their own, or .astype(str)")
        case "pandas.interval":
            raise Inexact(path, "holds intervals", "send left and right as columns of their own, or .astype(str)")
        case _:
            raise Inexact(path, f"has the extension type {name}, which has no standard form")


def _uuids(storage: pa.Array) -> pa.Array:
    digits = pl.Series(storage.cast(pa.binary())).bin.encode("hex")
    parts = [digits.str.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return pl.select(pl.concat_str(*(pl.lit(part) for part in parts), separator="-")).to_series().to_arrow()


def _periods(ordinals: pa.Array, freq: str) -> pa.Array:
    import pandas as pd

    numbers = ordinals.fill_null(0).to_numpy()
    periods = pd.PeriodIndex(pd.arrays.PeriodArray(numbers, dtype=pd.PeriodDtype(freq)))
    if freq in _TIMES:
        texts = iso(pl.Series(pa.array(periods.to_timestamp()))).to_arrow()
    else:
        texts = pa.array(periods.strftime(_PERIODS[freq]), pa.large_string())
    return pc.if_else(ordinals.is_valid(), texts, None)


def _times(array: pa.Array, path: str) -> pa.Array:
    """Widen seconds to what polars has, and write a time with a fixed offset as ISO 8601 text."""
    kind = array.type
    unit, zone = ("ms" if kind.unit == "s" else kind.unit), getattr(kind, "tz", None) or ""
    wider = pa.duration(unit) if pa.types.is_duration(kind) else pa.timestamp(unit, zone or None)
    try:
        array = array.cast(wider)
    except pa.ArrowInvalid as error:
        raise Inexact(path, "holds a time that milliseconds in 64 bits do not reach", AS_INTEGER) from error
    return _with_offset(array, zone) if _OFFSET.fullmatch(zone) else array


def _with_offset(array: pa.Array, zone: str) -> pa.Array:
    offset = f"{zone[:3]}:{zone[-2:]}"
    minutes = int(f"{zone[0]}1") * (int(zone[1:3]) * 60 + int(zone[-2:]))
    utc = pl.Series(array.cast(pa.timestamp(array.type.unit, "UTC"))).dt.replace_time_zone(None)
    return (iso(utc + timedelta(minutes=minutes)) + offset).to_arrow()


def _decimals(array: pa.Array, path: str) -> pa.Array:
    kind = array.type
    try:
        return array.cast(pa.decimal128(_MOST_DIGITS, min(kind.scale, _MOST_DIGITS)))
    except pa.ArrowInvalid as error:
        raise Inexact(path, f"holds decimals of more than {_MOST_DIGITS} digits") from error
