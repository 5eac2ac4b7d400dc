"""What JSON objects look like: :func:`infer_schema`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.core.frames import TableLike
from kinesis_nb.display import ShownAsText, table_html, table_text
from kinesis_nb.errors import ConfigError
from kinesis_nb.jsontext.lenient import read_leniently
from kinesis_nb.jsontext.shapes import WHOLE_BITS, is_double, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FIELDS = 500  # by default: an object with more names is a map, and stays JSON text
MAX_DEPTH = 16

_KINDS = {bool: "bool", int: "int", float: "float", str: "string", dict: "object", list: "array", type(None): "null"}
_BIG = "int beyond 64 bits"
_LARGE = f"int beyond 2^{WHOLE_BITS}"
_LONG = "float of more digits than a double keeps"
_OBJECT, _ARRAY = frozenset({"object"}), frozenset({"array"})
_SCALARS: dict[frozenset[str], pl.DataType] = {
    frozenset({"bool"}): pl.Boolean(),
    frozenset({"int"}): pl.Int64(),
    frozenset({"float"}): pl.Float64(),
    frozenset({"int", "float"}): pl.Float64(),
}


class _LongFloat(float):
    """A number with a fraction that a double would round."""


def _float(text: str) -> float:
    value = float(text)
    return value if is_double(text, value) else _LongFloat(value)


_KINDS[_LongFloat] = "float"
_decode = msgspec.json.Decoder(dict[str, object], float_hook=_float).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError)


@dataclass(frozen=True, slots=True)
class SchemaField:
    """One field of a schema.

    Attributes
    ----------
    path
        ``customer.name`` is a field of an object, ``items[].price`` one of the objects in an array.
    dtype
        The polars type.
    presence
        Share of the objects it belongs to that have it, from 0 to 1; for the items of an array, share of the arrays
        that have any.
    types
        How often which JSON type was seen.
    conflict
        Why it is JSON text, else empty.
    """

    path: str
    dtype: pl.DataType
    presence: float
    types: tuple[tuple[str, int], ...]
    conflict: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Schema(ShownAsText, TableLike):
    """What a sample of JSON objects holds; a table with one row per field.

    Attributes
    ----------
    dtype
        The type of the whole object, to give to :func:`kinesis_nb.parse_json` or to polars.
    rows
        How many rows were read.
    malformed
        How many of them were not a JSON object.
    fields
        The fields in the order in which they were met, those of an object behind it.
    left_out
        The names beyond `max_fields`: the least frequent fields of the whole objects.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> schema = kn.demo().explore("orders").schema()
    >>> [field.path for field in schema.fields]
    ['order', 'customer', 'item', 'count', 'total']
    """

    dtype: pl.Struct
    rows: int
    malformed: int
    fields: tuple[SchemaField, ...]
    left_out: frozenset[str] = frozenset()

    @property
    def text(self) -> frozenset[str]:
        """The paths of the fields that are JSON text, because of a conflict."""
        return frozenset(field.path for field in self.fields if field.conflict)

    def to_arrow(self) -> pa.Table:
        """Return one row per field."""
        columns = {
            "field": [field.path for field in self.fields],
            "dtype": [str(field.dtype) for field in self.fields],
            "presence": [field.presence for field in self.fields],
            "types": [", ".join(f"{kind} {count:,}" for kind, count in field.types) for field in self.fields],
            "conflict": [field.conflict or None for field in self.fields],
        }
        return pa.table(columns, _TABLE)

    def _repr_html_(self) -> str:
        return table_html(_TABLE.names, self._shown_rows(), repr(self).strip("<>"))

    def _rows_as_text(self) -> str:
        return table_text(_TABLE.names, self._shown_rows())

    def _shown_rows(self) -> list[list[object]]:
        return [[_percent(value) for value in row.values()] for row in self.to_arrow().to_pylist()]

    def _first_line(self) -> str:
        bad = f", {self.malformed:,} malformed" if self.malformed else ""
        left = f", {len(self.left_out):,} more left out: max_fields={len(self.dtype.fields)}" if self.left_out else ""
        return f"<Schema: {len(self.fields)} fields from {self.rows:,} rows{bad}{left}>"


_TABLE = pa.schema(
    [
        pa.field("field", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("presence", pa.float64()),
        pa.field("types", pa.string()),
        pa.field("conflict", pa.string()),
    ]
)


def infer_schema(texts: Iterable[str | bytes | None], max_fields: int = MAX_FIELDS) -> Schema:
    """Return the schema of JSON texts; nothing in them is an error.

    None is passed over; a text may hold several objects. Integers and floats together are Float64. Any other two types,
    integers beyond 64 bits, or beyond 2^53 beside floats, floats with more digits than a double keeps, objects with
    more than `max_fields` names and what is nested more than 16 deep are String, to hold JSON text; so is a field that
    was only ever null. Of the fields of a whole row the `max_fields` most frequent are kept.

    Examples
    --------
    >>> schema = infer_schema(['{"id": 1, "tags": ["a"]}', '{"id": "x"}', '{"id'])
    >>> schema.dtype
    Struct({'id': String, 'tags': List(String)})
    >>> schema
    <Schema: 2 fields from 3 rows, 1 malformed>
    """
    if not isinstance(max_fields, int) or max_fields < 1:
        raise ConfigError(f"max_fields={max_fields!r} is not a number of fields", hint="give a whole number, 1 or more")
    top, malformed = _Seen(max_fields), 0
    for text in texts:
        if text is None:
            continue
        try:
            top.add(_decode(text))
        except _UNREADABLE:
            for found in _objects(text):
                if found is None:
                    malformed += 1
                else:
                    top.add(found)
    dtype, fields = top.struct(None, 0)
    left_out = top.fields.keys() - {field.name for field in dtype.fields}
    return Schema(dtype, top.count + malformed, malformed, tuple(fields), frozenset(left_out))


def _objects(text: str | bytes) -> Iterator[dict[str, object] | None]:
    """Give the objects of a text that is not one; None for each other value, and for a text that is not JSON."""
    try:
        values = read_leniently(text if isinstance(text, str) else bytes.decode(text, errors="replace"))
    except (ValueError, *_UNREADABLE):  # TypeError: it is neither text nor bytes
        yield None
        return
    for value in values:
        try:
            yield _decode(value.raw)
        except _UNREADABLE:
            yield None


class _Seen:
    """What was met at one place in the objects."""

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self.kinds: Counter[str] = Counter()
        self.fields: dict[str, _Seen] = {}
        self.items: _Seen | None = None
        self.has_large = self.has_long = False

    @property
    def count(self) -> int:
        return self.kinds.total()

    def add(self, value: Any, depth: int = 0) -> None:
        kind = _KINDS[type(value)]
        if kind == "int" and not -(2**WHOLE_BITS) <= value <= 2**WHOLE_BITS:
            self.has_large = True
            kind = kind if -(2**63) <= value < 2**63 else _BIG
        self.has_long |= isinstance(value, _LongFloat)
        self.kinds[kind] += 1
        if depth >= MAX_DEPTH:
            return
        if kind == "object":
            for name, member in value.items():
                if "\0" in name:  # Arrow would cut it there; it is reported as not in the schema
                    continue
                if (seen := self.fields.get(name)) is None:
                    seen = self.fields[name] = _Seen(self._max_fields)
                seen.add(member, depth + 1)
        elif kind == "array":
            self.items = self.items or _Seen(self._max_fields)
            for item in value:
                self.items.add(item, depth + 1)

    def struct(self, path: str | None, depth: int) -> tuple[pl.Struct, list[SchemaField]]:
        """Return the type of these objects and their fields; of too many fields those that are there most often."""
        kept = sorted(self.fields, key=lambda name: -self.fields[name].count)[: self._max_fields]
        types: dict[str, pl.DataType] = {}
        found: list[SchemaField] = []
        for name, seen in self.fields.items():
            if name in {*kept}:
                types[name], fields = seen.typed(join(path, name), self.kinds["object"], depth + 1)
                found += fields
        return pl.Struct(types), found

    def typed(self, path: str, of: int, depth: int) -> tuple[pl.DataType, list[SchemaField]]:
        """Return the type of what was met here, and this field and those below it."""
        kinds = frozenset(self.kinds.keys() - {"null"})
        conflict = self._conflict(kinds, depth)
        dtype, below = (pl.String(), []) if conflict else self._alike(kinds, path, depth)
        presence = min(1.0, self.count / of) if of else 0.0
        field = SchemaField(path, dtype, presence, tuple(self.kinds.most_common()), conflict)
        return dtype, [field, *below]

    def _alike(self, kinds: frozenset[str], path: str, depth: int) -> tuple[pl.DataType, list[SchemaField]]:
        """Return the type of values of kinds that go together, and the fields below it."""
        if kinds == _OBJECT:
            return self.struct(path, depth)
        if kinds == _ARRAY and self.items is not None:
            inner, below = self.items.typed(f"{path}[]", self.kinds["array"], depth + 1)
            # the items of an array are not a field themselves
            return pl.List(inner), below if below[0].conflict else below[1:]
        return _SCALARS.get(kinds, pl.String()), []

    def _conflict(self, kinds: frozenset[str], depth: int) -> str:
        """Say why only JSON text can hold what was met here, if so."""
        if len(kinds) > 1 and kinds not in _SCALARS:
            return " or ".join(sorted(kinds))
        if _BIG in kinds:
            return _BIG
        if "float" in kinds and (self.has_large or self.has_long):
            return f"float or {_LARGE}" if self.has_large else _LONG
        if kinds == _OBJECT and not 0 < len(self.fields) <= self._max_fields and depth < MAX_DEPTH:
            return _too_many(len(self.fields), self._max_fields)
        if depth >= MAX_DEPTH and kinds & (_OBJECT | _ARRAY):
            return f"more than {MAX_DEPTH} deep"
        return ""


def _too_many(names: int, most: int) -> str:
    return f"object with {names:,} names" + (f", more than max_fields={most}" if names else "")


def _percent(value: object) -> object:
    return f"{value:.0%}" if isinstance(value, float) else value
