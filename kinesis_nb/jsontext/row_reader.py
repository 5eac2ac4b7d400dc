"""Rows of JSON text into columns: :class:`RowReader`.

Every row is decoded by itself, by msgspec, into types made from the schema. polars' ``str.json_decode`` is not used: it
joins rows before it parses, so that two broken rows can become one good one and move all rows behind them, and it
silently turns 1.5 into 1 where the schema says integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pyarrow as pa

from kinesis_nb.core.compression import codec_of, decompress
from kinesis_nb.errors import ConfigError
from kinesis_nb.jsontext.infer import Schema
from kinesis_nb.jsontext.lenient import Value, read_leniently
from kinesis_nb.jsontext.shapes import NEW_FIELD, Misfits, Object, object_shape

SchemaLike = Schema | pl.Struct | Mapping[str, Any]

_REMAKES = 32  # times that the types are rebuilt for fields that the schema lacks; further ones are ignored
_NAMED = 10  # in a warning, and in the reason of a row
_TEXT = pa.large_string()
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError)


class Replaced(NamedTuple):
    """Text of bytes that are not all UTF-8, so it does not say all of them."""

    text: str
    raw: bytes

    def fault(self) -> str:
        """Return what is wrong with the bytes; empty when they are UTF-8 and the text was changed later."""
        opened = decompress(self.raw)
        if opened is None:
            return "not UTF-8: what is not became U+FFFD" if "\ufffd" in self.text else ""
        if opened.fault or self.is_packed:
            return f"{codec_of(self.raw)} data: {opened.fault or 'read(decompress=True) opens it'}"
        return ""

    @property
    def is_packed(self) -> bool:
        """Whether the text is compressed data that was not decompressed."""
        return codec_of(self.raw) is not None and self.text == self.raw.decode(errors="replace")


class RowReader:
    """Reads rows of text into rows of values, and notes what the schema does not know.

    Parameters
    ----------
    explode
        Whether a row may give several; None is as True, with a remark.

    Attributes
    ----------
    several
        How many rows those rows gave that gave more than one, by their number.
    large
        A row with an integer whose digits a type of the schema cannot hold, by its path.
    """

    def __init__(self, schema: SchemaLike, *, explode: bool | None) -> None:
        self.several: dict[int, int] = {}
        self.large: dict[str, bytes] = {}
        self._schema = schema if isinstance(schema, Schema) else None
        self._explode = explode
        self._count = 0
        self._shape = _top_shape(schema)
        self._misfits = Misfits()
        self._changes: dict[str, None] = {}  # in the order in which they were met
        self._remakes = _REMAKES
        self._make()

    def _make(self) -> None:
        self._decode = self._shape.decoder(forbid_unknown=self._schema is not None and self._remakes > 0)

    def read(self, rows: list[object]) -> pa.Table:
        """Return the columns of some rows, and behind them what is wrong with each row."""
        values: list[object] = []
        reasons: dict[int, str] = {}
        decode = self._decode
        for n, row in enumerate(rows):
            try:
                values.append(decode(row if type(row) is str else _text(row)))
            except _UNREADABLE:
                found = self._read_carefully(row)
                decode = self._decode  # it may have learned
                if len(found) > 1:
                    self.several[self._count + n] = len(found)
                reasons |= {len(values) + place: "; ".join(said) for place, (_, said) in enumerate(found) if said}
                values += [value for value, _ in found]
        self._count += len(rows)
        why = pa.array(map(reasons.get, range(len(values))), _TEXT) if reasons else pa.nulls(len(values), _TEXT)
        return pa.Table.from_arrays([*self._shape.columns(values), why], names=[*self._shape.names, ""])

    def _read_carefully(self, row: object) -> list[tuple[object, list[str]]]:
        """Read a row that the quick way refused: value by value, and say what is wrong."""
        if isinstance(row, bytes):
            text = row.decode(errors="replace")
            row = Replaced(text, row) if text.encode() != row else text
        if isinstance(row, Replaced):
            fault = row.fault()
            found = [(None, [])] if row.is_packed else self._read_text(row.text)
            return [(value, [fault, *said] if fault else said) for value, said in found]
        if not isinstance(row, str):
            return [(None, [] if row is None else [f"{type(row).__name__}, not text"])]
        return self._read_text(row)

    def _read_text(self, text: str) -> list[tuple[object, list[str]]]:
        with suppress(*_UNREADABLE):  # then it may be less than strict JSON, or several objects
            return [self._fit(Value(text.encode(), []))]
        try:
            found = read_leniently(text)
        except RecursionError:
            return [(None, ["nested too deeply"])]
        except ValueError as error:
            return [(None, [f"not JSON: {error}"])]
        if len(found) > 1 and self._explode is False:
            return [(None, [f"{len(found):,} JSON values in one record: explode=True gives each a row"])]
        return [self._fit_object(value) for value in found]

    def _fit_object(self, value: Value) -> tuple[object, list[str]]:
        try:
            return self._fit(value)
        except RecursionError:
            return None, ["nested too deeply"]
        except _UNREADABLE:
            return None, [f"not an object: {value.raw[:40].decode(errors='ignore')}"]

    def _fit(self, value: Value) -> tuple[object, list[str]]:
        self._misfits.clear()
        fitted = self._shape.fit(value.raw, self._misfits)
        self._learn(value.raw)
        return fitted, list(dict.fromkeys([*value.changed, *self._misfits.lost]))[:_NAMED]

    def _learn(self, raw: bytes) -> None:
        """Note what was new, and take it into the types, so that the next such row is read the quick way."""
        if self._remakes and not self._changes.keys() >= {*self._misfits.kept}:
            self._remakes -= 1
            self._make()
        self._changes |= dict.fromkeys([*self._misfits.lost, *self._misfits.kept])
        for path in self._misfits.large:
            self.large.setdefault(path, raw)

    def remarks(self) -> str:
        """Return a message of what is in the rows and not in the schema, and of rows that were split."""
        said = [] if self._schema is None else self._beyond(self._schema)  # one without fields is false
        if self._explode is None and self.several:
            said.append(
                f"records that held several JSON objects, each of which is a row now: {len(self.several):,}"
                " (explode=True says that this is meant, explode=False leaves such records null)"
            )
        return ". ".join(said)

    def _beyond(self, schema: Schema) -> list[str]:
        """Say what is in the rows and not in an inferred schema."""
        said: list[str] = []
        if schema.left_out:
            said.append(f"left out, as max_fields={len(schema.dtype.fields)}: {_named(sorted(schema.left_out))}")
        changes = [change for change in self._changes if change.removeprefix(NEW_FIELD) not in schema.left_out]
        if changes:
            said.append(f"not in the {schema.rows:,} rows of the schema: {_named(changes, '; ')}")
        return said


def _named(things: list[str], between: str = ", ") -> str:
    more = len(things) - _NAMED
    return between.join([*things[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _top_shape(schema: SchemaLike) -> Object:
    if isinstance(schema, Schema):
        return object_shape(schema.dtype, text=schema.text)
    hint = 'give field names and polars types, as {"total": pl.Float64}'
    if not isinstance(schema, pl.Struct | Mapping):
        raise ConfigError(f"{schema!r} is not a schema", hint=hint)
    try:
        dtype = schema if isinstance(schema, pl.Struct) else pl.Struct(dict(schema))
    except (TypeError, ValueError):
        raise ConfigError(f"{schema!r} is not a schema", hint=hint) from None
    return object_shape(dtype)


def _text(row: object) -> str:
    match row:
        case str():
            return row
        case bytes():
            return row.decode()
        case _:
            raise TypeError(f"{type(row).__name__}, not text")
