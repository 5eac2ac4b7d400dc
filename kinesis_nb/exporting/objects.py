"""Python objects -> Arrow, exactly or not at all.

Arrow infers a type from objects too, but from the first value: then it cuts a time to a date, nanoseconds to
microseconds, and drops offsets.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow has no types)
from __future__ import annotations

import enum
import sys
from collections.abc import Callable  # noqa: TC003 - a NamedTuple has it in a field
from contextlib import suppress
from datetime import MAXYEAR, MINYEAR, date, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

from kinesis_nb.exporting.refusals import Inexact

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DIGITS = 38
_MOST_SECONDS = 2**63 // 10**6
_PLAIN = {str: pa.large_string(), bytes: pa.large_binary(), bool: pa.bool_(), date: pa.date32(), float: pa.float64()}


def from_objects(values: Sequence[object], path: str) -> pa.Array:
    """Return objects as an Arrow array; None, NaN, NaT and NA are null.

    Raises
    ------
    Inexact
        When they have no common type that holds each of them exactly.
    """
    kinds = {*map(type, values)} - {type(None)}
    if len(kinds) == 1 and (plain := _PLAIN.get(next(iter(kinds)))) is not None:
        return pa.array(values, plain, from_pandas=True)
    values = [None if _is_missing(value) else _unboxed(value) for value in values]
    kinds = {*map(type, values)} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    for kind in _KINDS:
        if kind.holds(kinds):
            return kind.build(values, path)
    raise _refusal(kinds, path)


def _refusal(kinds: set[type], path: str) -> Inexact:
    names = " and ".join(sorted(kind.__name__ for kind in kinds))
    kind = next(iter(kinds))
    if len(kinds) > 1:
        what = f"holds Python objects of different types, {names}"
        return Inexact(path, what, "cast it with .astype(str), or split it into columns")
    if issubclass(kind, set | frozenset):
        return Inexact(path, f"holds a {names}, which has no order", "make it a list first, with .map(sorted)")
    if issubclass(kind, enum.Enum):
        return Inexact(path, f"holds {names}, an enum", "send its value, with .map(lambda member: member.value)")
    return Inexact(path, f"holds Python objects of the type {names}", "cast it with .astype(str), or drop it")


def _is_missing(value: object) -> bool:
    if value is None or isinstance(value, float | np.floating | Decimal | np.datetime64 | np.timedelta64):
        return value is None or bool(value != value)  # noqa: PLR0124 - NaN and NaT alone differ from themselves
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _unboxed(value: object) -> object:
    """Return a scalar of numpy as Python's; of times pandas has the one with nanoseconds."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        import pandas as pd

        return pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    return value.item() if isinstance(value, np.generic) else value


# --- one builder per kind of value; missing ones are None already


def _numbers(values: Sequence[int | Decimal | None], path: str) -> pa.Array:
    """Return whole numbers in the smallest type that has all of them; beside decimals they are decimals."""
    if not any(isinstance(value, Decimal) for value in values):
        for kind in (pa.int64(), pa.uint64()):
            with suppress(OverflowError, pa.ArrowInvalid):
                return pa.array(values, kind)
    return _decimals(values, path)


def _decimals(values: Sequence[int | Decimal | None], path: str) -> pa.Array:
    decimals = [None if value is None else Decimal(value) for value in values]
    if any(value is not None and not value.is_finite() for value in decimals):
        raise Inexact(path, "holds an infinite decimal, which JSON has no form for")
    scale = max((-int(value.as_tuple().exponent) for value in decimals if value is not None), default=0)
    try:
        return pa.array(decimals, pa.decimal128(_MOST_DIGITS, min(max(scale, 0), _MOST_DIGITS)))
    except pa.ArrowInvalid as error:
        raise Inexact(path, f"holds numbers of more than {_MOST_DIGITS} digits") from error


def _floats(values: Sequence[float | None], path: str) -> pa.Array:
    """Return floats; a whole number beside them must be one of those that a float can be."""
    for value in values:
        if isinstance(value, int) and (abs(value) > sys.float_info.max or int(float(value)) != value):
            raise Inexact(path, f"holds {value} beside floats, which have no exact form for it")
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _moments(values: Sequence[datetime | None], path: str) -> pa.Array:
    present = [value for value in values if value is not None]
    _check_years(present, path)
    return pa.array(values, pa.timestamp(_unit(present), _zone(present, path)))


def _check_years(moments: Sequence[datetime], path: str) -> None:
    """Refuse the times beyond the calendar of Python that pandas has: Arrow turns them into 1970."""
    if not all(MINYEAR <= moment.year <= MAXYEAR for moment in moments):
        raise Inexact(
            path,
            f"holds times beyond the year {MAXYEAR} as Python objects",
            "make it a column of times, with pd.to_datetime()",
        )


def _zone(moments: Sequence[datetime], path: str) -> str | None:
    """Return the zone that all of the times have; UTC where they have several."""
    if len({moment.tzinfo is None for moment in moments}) > 1:
        raise Inexact(
            path,
            "holds times with and without a time zone",
            "give all of them a time zone, with pd.to_datetime(…, utc=True)",
        )
    zones = {pa.scalar(moment).type.tz for moment in {moment.tzinfo: moment for moment in moments}.values()}
    return next(iter(zones)) if len(zones) == 1 else "UTC"


def _spans(values: Sequence[timedelta | None], path: str) -> pa.Array:
    if any(value is not None and abs(value.total_seconds()) > _MOST_SECONDS for value in values):
        raise Inexact(path, "holds a duration that microseconds in 64 bits do not reach")  # Arrow turns it into null
    return pa.array(values, pa.duration(_unit(values)))


def _unit(values: Sequence[object]) -> str:
    """Return nanoseconds where one of the values has some; those do not reach as far as microseconds."""
    has_nanoseconds = any(getattr(value, "nanosecond", getattr(value, "nanoseconds", 0)) for value in values)
    return "ns" if has_nanoseconds else "us"


def _times_of_day(values: Sequence[time | None], path: str) -> pa.Array:
    if any(value is not None and value.tzinfo for value in values):
        raise Inexact(path, "holds times of day with a time zone")
    return pa.array(values, pa.time64("us"))


def _lists(values: Sequence[Sequence[object] | None], path: str) -> pa.Array:
    lengths = (0 if value is None else len(value) for value in values)
    offsets = pa.array(accumulate(lengths, initial=0), pa.int64())
    present = [value for value in values if value is not None]
    items = _vectors(present)
    if items is None:
        items = from_objects(list(chain.from_iterable(present)), f"{path}[]")
    return pa.LargeListArray.from_arrays(offsets, items, mask=pa.array([value is None for value in values], pa.bool_()))


def _vectors(lists: Sequence[object]) -> pa.Array | None:
    """Return the numbers of numpy vectors without a Python object for each."""
    vectors = [found for found in lists if isinstance(found, np.ndarray) and found.ndim == 1]
    dtypes = {vector.dtype for vector in vectors}
    is_alike = len(vectors) == len(lists) and len(dtypes) == 1
    return pa.array(np.concatenate(vectors)) if is_alike and next(iter(dtypes)).kind in "biuf" else None


def _structs(values: Sequence[dict[object, object] | None], path: str) -> pa.Array:
    names = dict.fromkeys(chain.from_iterable(value for value in values if value is not None))
    if odd := [name for name in names if not isinstance(name, str)]:
        raise Inexact(path, f"holds a dict with the key {odd[0]!r}, which is not text", "make its keys text")
    if not names:
        return pa.array(values, pa.struct([]))
    rows = [{} if value is None else value for value in values]
    fields = [from_objects([row.get(name) for row in rows], f"{path}.{name}") for name in names]
    mask = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(fields, names=list(names), mask=mask)


class _Kind(NamedTuple):
    """Types that go together, but not those of `but`, and what makes an array of their values."""

    types: tuple[type, ...]
    build: Callable[[list[Any], str], pa.Array]
    but: tuple[type, ...] = ()

    def holds(self, kinds: set[type]) -> bool:
        return all(issubclass(kind, self.types) and not issubclass(kind, self.but) for kind in kinds)


_KINDS = (
    _Kind((str,), lambda values, _path: pa.array(values, pa.large_string())),
    _Kind((bytes, bytearray), lambda values, _path: pa.array(values, pa.large_binary())),
    _Kind((bool,), lambda values, _path: pa.array(values, pa.bool_())),
    _Kind((int, Decimal), _numbers, but=(bool,)),
    _Kind((int, float), _floats, but=(bool,)),
    _Kind((datetime,), _moments),
    _Kind((date,), lambda values, _path: pa.array(values, pa.date32()), but=(datetime,)),
    _Kind((time,), _times_of_day),
    _Kind((timedelta,), _spans),
    _Kind((UUID,), lambda values, _path: pa.array([None if value is None else str(value) for value in values])),
    _Kind((list, tuple, np.ndarray), _lists),
    _Kind((dict,), _structs),
)
