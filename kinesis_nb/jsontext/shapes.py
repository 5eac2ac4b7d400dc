"""The types of a schema, each with what reading JSON takes: a type to decode into, and a way back to columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import accumulate, chain
from math import isfinite
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

NEW_FIELD = "new field "
_NULL = b"null"
_MOST = 2**63 - 1  # msgspec does not accept a larger bound
_AS_ARROW: dict[object, pa.DataType] = {
    pl.Float32(): pa.float32(),
    pl.Float64(): pa.float64(),
    pl.Boolean(): pa.bool_(),
    pl.String(): pa.large_string(),
}
WHOLE_BITS = 53  # a double holds every integer up to 2^53, and beyond that not every one
_PLAIN = 16  # characters of a fraction that has no more digits than a double keeps
_SMALL, _LARGE = 1e-300, 1e300  # what is between has all digits of a double
_WHOLE: dict[object, int] = {pl.Float32(): 2**24, pl.Float64(): 2**WHOLE_BITS}
_KINDS = {b'"': "string", b"{": "object", b"[": "array", b"t": "bool", b"f": "bool"}


@dataclass(slots=True)
class Misfits:
    """What did not fit in one row.

    Attributes
    ----------
    lost
        Values that are null now.
    kept
        Fields that the schema does not name, and values that became JSON text.
    large
        The paths of lost integers of which text would have kept every digit.
    """

    lost: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Begin another row."""
        self.lost.clear()
        self.kept.clear()
        self.large.clear()


class Leaf:
    """A number, a truth value or a text.

    Parameters
    ----------
    as_text
        For String: anything may come, and what is not a string is taken as its JSON text.
    """

    def __init__(self, dtype: object, path: str, *, as_text: bool = False) -> None:
        self._dtype, self._path, self._as_text = dtype, path, as_text
        self._range = _integer_range(dtype)
        self._whole = _WHOLE.get(dtype, 0)
        self._arrow = _AS_ARROW.get(dtype) or getattr(pa, str(dtype).lower())()

    def annotation(self, *, forbid_unknown: bool) -> object:  # noqa: ARG002 - the shapes have the same methods
        """Return the type to decode into."""
        if self._range:
            least, most = self._range
            return Optional[Annotated[int, msgspec.Meta(ge=least, le=min(most, _MOST))]]  # noqa: UP045 - for pyright
        if self._dtype == pl.String:
            return msgspec.Raw if self._as_text else str | None
        if self._dtype == pl.Boolean:
            return bool | None
        # `float` alone would also accept an integer that it cannot hold, and round it
        whole = Annotated[int, msgspec.Meta(ge=-self._whole, le=self._whole)]
        return Optional[whole | float]  # noqa: UP045 - for pyright

    def fit(self, raw: bytes, misfits: Misfits) -> object:
        """Return the value, or None and a word in `misfits`."""
        if raw == _NULL:
            return None
        if self._dtype == pl.String:
            if not raw.startswith(b'"') and not self._as_text:
                self._as_text = True
                misfits.kept.append(f"{self._path}: {_kind(raw)}, not string")
            return _string(raw)
        value = self._converted(raw)
        if value is None:
            self._note_lost(raw, misfits)
        return value

    def _note_lost(self, raw: bytes, misfits: Misfits) -> None:
        kind = _kind(raw)
        if kind == "int" and self._dtype != pl.Boolean:
            misfits.large.append(self._path)
            kind += f" beyond 2^{self._whole.bit_length() - 1}" if self._whole else ""
        misfits.lost.append(f"{self._path}: {kind} does not fit {self._dtype}")

    def _converted(self, raw: bytes) -> bool | float | None:
        try:
            value = msgspec.json.decode(raw)
        except msgspec.ValidationError:  # beyond all floats, or thousands of digits
            return None
        if isinstance(value, bool) or self._dtype == pl.Boolean:
            return value if isinstance(value, bool) and self._dtype == pl.Boolean else None
        if not isinstance(value, int | float):
            return None
        if self._range:
            whole = value if isinstance(value, int) else whole_number(raw.decode(), value)
            return whole if whole is not None and self._range[0] <= whole <= self._range[1] else None
        return float(value) if isinstance(value, float) or abs(value) <= self._whole else None

    def column(self, values: list[object]) -> pa.Array:
        """Return the values as an Arrow array."""
        if self._as_text:
            values = [_string(bytes(value)) if type(value) is msgspec.Raw else value for value in values]
        return pa.array(values, self._arrow)


class Day:
    """A date in ISO 8601, which JSON has as text."""

    def __init__(self, path: str) -> None:
        self._path = path

    def annotation(self, *, forbid_unknown: bool) -> object:  # noqa: ARG002 - as of a leaf
        """Return the type to decode into."""
        return date | None

    def fit(self, raw: bytes, misfits: Misfits) -> object:
        """Return the date, or None and a word in `misfits`."""
        try:
            return msgspec.json.decode(raw, type=date | None)
        except msgspec.ValidationError:
            misfits.lost.append(f"{self._path}: {_kind(raw)} does not fit Date")
            return None

    def column(self, values: list[object]) -> pa.Array:
        """Return the values as an Arrow array."""
        return pa.array(values, pa.date32())


class List:
    """An array."""

    def __init__(self, items: Shape, path: str) -> None:
        self._items, self._path = items, path

    def annotation(self, *, forbid_unknown: bool) -> object:
        """Return the type to decode into."""
        return list[self._items.annotation(forbid_unknown=forbid_unknown)] | None  # type: ignore[misc]

    def fit(self, raw: bytes, misfits: Misfits) -> object:
        """Return the items, or None and a word in `misfits`."""
        if raw == _NULL:
            return None
        if not raw.startswith(b"["):
            misfits.lost.append(f"{self._path}: {_kind(raw)}, not array")
            return None
        return [self._items.fit(bytes(item), misfits) for item in msgspec.json.decode(raw, type=list[msgspec.Raw])]

    def column(self, values: list[Any]) -> pa.Array:
        """Return the values as an Arrow array."""
        offsets = pa.array(accumulate(map(len, (value or () for value in values)), initial=0), pa.int64())
        items = self._items.column(list(chain.from_iterable(value for value in values if value)))
        missing = pa.array([value is None for value in values], pa.bool_())
        return pa.LargeListArray.from_arrays(offsets, items, mask=missing)


class Object:
    """An object with known fields; what else it has is named once and then passed over."""

    def __init__(self, fields: dict[str, Shape], path: str | None) -> None:
        self._fields, self._path = fields, path
        self._slots = {name: f"f{n}" for n, name in enumerate(fields)}
        self._unknown: list[str] = []
        self._empty = SimpleNamespace(**dict.fromkeys(self._slots.values()))

    def annotation(self, *, forbid_unknown: bool) -> object:
        """Return the type to decode into; raise ValueError for a field name that msgspec does not accept."""
        return self._struct(forbid_unknown=forbid_unknown) | None

    def _struct(self, *, forbid_unknown: bool) -> type[msgspec.Struct]:
        members: list[tuple[str, object, object]] = [
            (self._slots[name], kind := shape.annotation(forbid_unknown=forbid_unknown), _default(kind))
            for name, shape in self._fields.items()
        ]
        extra = {f"x{n}": name for n, name in enumerate(self._unknown)}
        members += [(slot, msgspec.Raw, msgspec.Raw(_NULL)) for slot in extra]
        rename = {slot: name for name, slot in self._slots.items()} | extra
        return msgspec.defstruct("Row", members, rename=rename, forbid_unknown_fields=forbid_unknown, gc=False)

    def decoder(self, *, forbid_unknown: bool) -> Callable[[str], object]:
        """Return the quick way from a row to an object with a slot per field; it raises for what does not fit."""
        try:
            kind = self._struct(forbid_unknown=forbid_unknown)
        except ValueError:
            return _refuse
        decode: Callable[[str], object] = msgspec.json.Decoder(kind).decode
        return decode

    def fit(self, raw: bytes, misfits: Misfits) -> object:
        """Return an object with a slot per field, or None and a word in `misfits`.

        Raises
        ------
        msgspec.ValidationError
            When a whole row is not an object.
        """
        if self._path is not None and raw == _NULL:
            return None
        if self._path is not None and not raw.startswith(b"{"):
            misfits.lost.append(f"{self._path}: {_kind(raw)}, not object")
            return None
        row = SimpleNamespace(**vars(self._empty))
        for name, value in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items():
            if name in self._fields:
                setattr(row, self._slots[name], self._fields[name].fit(bytes(value), misfits))
            else:
                self._unknown += [name] * (name not in self._unknown)
                misfits.kept.append(NEW_FIELD + join(self._path, name))
        return row

    @property
    def names(self) -> list[str]:
        """The fields, in order."""
        return list(self._fields)

    def columns(self, values: list[object]) -> list[pa.Array]:
        """Return an array per field; a value that is None is null in all of them."""
        rows = [self._empty if value is None else value for value in values]
        return [shape.column(list(map(attrgetter(self._slots[name]), rows))) for name, shape in self._fields.items()]

    def column(self, values: list[object]) -> pa.Array:
        """Return the values as an Arrow array."""
        missing = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(self.columns(values), names=self.names, mask=missing)


Shape = Leaf | Day | List | Object


def object_shape(dtype: pl.Struct, path: str | None = None, text: frozenset[str] = frozenset()) -> Object:
    """Return the shape of an object with the fields of a Struct.

    Parameters
    ----------
    path
        Its path in the rows; None for a whole row, because a field may be called "".
    text
        The paths of String fields for which anything may come.

    Raises
    ------
    ConfigError
        For a type that JSON has no values of.
    """
    if any("\0" in field.name for field in dtype.fields):
        raise ConfigError("a field name cannot hold a NUL", hint="leave the field out")
    fields = {field.name: shape_of(field.dtype, join(path, field.name), text) for field in dtype.fields}
    return Object(fields, path)


def shape_of(dtype: object, path: str, text: frozenset[str]) -> Shape:
    """Return the shape of a polars type; see :func:`object_shape`."""
    dtype = dtype() if isinstance(dtype, type) and issubclass(dtype, pl.DataType) else dtype
    match dtype:
        case pl.Struct() if dtype.fields:
            return object_shape(dtype, path, text)
        case pl.List():
            return List(shape_of(dtype.inner, f"{path}[]", text), path)
        case pl.Date():
            return Day(path)
        case _ if dtype in _AS_ARROW or _integer_range(dtype):
            return Leaf(dtype, path, as_text=path in text)
        case _:
            raise ConfigError(f"{path} cannot be {dtype}", hint="take it as pl.String and convert it afterwards")


def join(path: str | None, name: str) -> str:
    """Return the path of a field of an object; the whole row has none."""
    return name if path is None else f"{path}.{name}"


def whole_number(text: str, value: float) -> int | None:
    """Return the integer that a JSON number with a fraction or an exponent equals, if it has at most 64 bits.

    Parameters
    ----------
    value
        The same number as a double, which may be another integer: ``9007199254740993.0`` is rounded there.
    """
    if not value or abs(value) > _MOST * 2:
        return None if value or _has_digits(text) else 0
    exact = Decimal(text)
    return int(exact) if exact == int(exact) else None


def is_double(text: str, value: float) -> bool:
    """Return whether a double says all that a JSON number with a fraction or an exponent does.

    It does when, printed with as many digits, it is that number: ``0.1`` and ``0.10000000000000001`` are the same
    double, and ``0.10000000000000002`` is another one; ``0.1000000000000000123`` is none.
    """
    if (len(text) <= _PLAIN and _SMALL < abs(value) < _LARGE) or repr(value) == text:
        return True
    if not value or not isfinite(value):
        return not value and not _has_digits(text)
    exact = Decimal(text)
    digits = len(exact.as_tuple().digits)
    return exact in (Decimal(repr(value)), Decimal(f"{value:.{digits - 1}e}"))


def _has_digits(text: str) -> bool:
    """Return whether a number is not zero."""
    return not {*text.lower().partition("e")[0]} <= {*"-0."}


def _integer_range(dtype: object) -> tuple[int, int] | None:
    sign, _, bits = str(dtype).rpartition("Int")
    if sign not in {"", "U"} or bits not in {"8", "16", "32", "64"}:
        return None
    return (0, 2 ** int(bits) - 1) if sign else (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1)


def _default(annotation: object) -> object:
    return msgspec.Raw(_NULL) if annotation is msgspec.Raw else None


def _string(raw: bytes) -> str | None:
    """Return a JSON string's value, and anything else as it is written."""
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str)
    return None if raw == _NULL else raw.decode()


def _kind(raw: bytes) -> str:
    return _KINDS.get(raw[:1], "float" if {*b".eE"} & {*raw} else "int")


def _refuse(_row: str) -> object:
    """Send every row the careful way."""
    raise msgspec.ValidationError
