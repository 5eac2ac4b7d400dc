"""A record as text: one line of cells in the columns that are shown, and all that is known of it in detail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from kinesis_nb.errors import ConfigError
from kinesis_nb.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kinesis_nb.core.frames import Record
    from kinesis_nb.widgets.flow import Message

MOST_FIELDS, MOST_SHOWN = 500, 100  # of the JSON: that can be chosen; that are shown until some are chosen
MOST_COUNTED = 10_000  # fields beyond those: an object whose names are data has ever more
LONGEST_CELL, LONGEST_NAME = 200, 40  # characters
LONGEST_TEXT = 64 * 1024  # characters of a record in detail
LONGEST_HEX = 4 * 1024  # bytes of a record in detail
MOST_NODES, MOST_DEPTH, LONGEST_VALUE = 2_000, 32, 2_000  # of a tree
FIELD = "."  # the id of a column begins with it when the column is a field of the JSON

BASE = {"arrived": "arrived (UTC)", "key": "key", "shard": "shard"}
DATA = "data"
COLUMNS = {"arrived": "kinesis_ingestion_timestamp", "key": "partition_key", "shard": "shard_id", DATA: DATA}
"""The column of a frame of records by the id of the column that shows it."""
_Object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Array = msgspec.json.Decoder(list[msgspec.Raw])
_Text = msgspec.json.Decoder(str)
_KIND_OF = {b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null", b"{": "text", b"[": "text"}
Node: TypeAlias = "list[str | list[Node]]"
"""A JSON value as the front end draws it: name, kind, text, children."""


class Columns:
    """How a row becomes cells: the record as it is, or the fields of its JSON object as they are met.

    Numbers are shown as they were written, whatever a float could hold. The id of a column is "arrived", "key",
    "shard", "data", or the name of a field behind a dot.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._fields: dict[str, int] = {}  # with the number by which a page knows each
        self._beyond: set[str] = set()  # fields that cannot be chosen
        self._chosen: list[str] | None = None

    @property
    def beyond(self) -> int:
        """How many fields there are that cannot be chosen, as far as they are counted."""
        return len(self._beyond)

    @property
    def ids(self) -> list[str]:
        """All columns there are."""
        return [*BASE, *(FIELD + name for name in self._fields if self.json), DATA]

    @property
    def shown(self) -> list[str]:
        """The columns that are shown, in their order."""
        if self._chosen is not None:
            return [column for column in self._chosen if self.json or not column.startswith(FIELD)]
        fields = [column for column in self.ids if column.startswith(FIELD)]
        return [*BASE, *fields[:MOST_SHOWN], DATA]

    def code(self, column: str) -> str:
        """Return what a page calls a column: a name out of the stream may hide or command."""
        return f"{FIELD}{self._fields[column[1:]]}" if column.startswith(FIELD) else column

    def column(self, code: object) -> str:
        """Return the column that a page names.

        Raises
        ------
        ConfigError
            When there is no such column.
        """
        known = {self.code(column): column for column in self.ids}
        if str(code) not in known:
            raise ConfigError("the page named a column that is not there", hint="load the page again")
        return known[str(code)]

    def choose(self, columns: Sequence[str]) -> None:
        """Show these columns, in this order; none goes back to those that are shown at first."""
        known = set(self.ids)
        self._chosen = [column for column in dict.fromkeys(columns) if column in known] or None

    def cells(self, records: Iterable[tuple[int, Record]], today: datetime) -> list[list[object]]:
        """Return of each row its number, when it arrived (microseconds since 1970), and a cell for each column."""
        rows = [(number, record, json_object(record.data) if self.json else None) for number, record in records]
        for _, _, fields in reversed(rows):
            self.meet(fields or ())
        shown = self.shown
        return [
            [number, _micros(record), *(_cell(column, record, fields, today) for column in shown)]
            for number, record, fields in rows
        ]

    def meet(self, fields: Iterable[str]) -> None:
        """Take fields that were not met before into the columns."""
        for name in fields:
            if name not in self._fields:
                if len(self._fields) < MOST_FIELDS:
                    self._fields[name] = len(self._fields)
                elif len(self._beyond) < MOST_COUNTED:
                    self._beyond.add(name)


def title(column: str) -> str:
    """Return what a column is called."""
    return BASE.get(column) or cut(column.removeprefix(FIELD), LONGEST_NAME)


def _micros(record: Record) -> int:
    return round(record.kinesis_ingestion_timestamp.timestamp() * 1_000_000)


def _cell(column: str, record: Record, fields: Mapping[str, msgspec.Raw] | None, today: datetime) -> str:
    if column.startswith(FIELD):
        raw = fields.get(column[1:]) if fields else None
        return "" if raw is None else cut(scalar(raw))
    if column == "arrived":
        return when(record.kinesis_ingestion_timestamp, today)
    if column == "key":
        return cut(record.partition_key or "-")
    return short(record.shard_id) if column == "shard" else cut(record.data)


def when(arrived: datetime, today: datetime) -> str:
    """Return the UTC time to the millisecond, and the day unless it is today."""
    arrived = arrived.astimezone(UTC)
    day = "" if arrived.date() == today.date() else f"{arrived:%Y-%m-%d} "
    return f"{day}{arrived:%H:%M:%S}.{arrived.microsecond // 1000:03d}"


def short(shard_id: str) -> str:
    """Return the number of a shard as people say it."""
    return cut(shard_id.removeprefix("shardId-").lstrip("0") or "0", LONGEST_NAME)


def cut(text: str, most: int = LONGEST_CELL) -> str:
    """Return the beginning of a text in one line, with everything visible that hides or commands."""
    return visible(text if len(text) <= most else text[: most - 1] + "…")


def json_object(text: str) -> dict[str, msgspec.Raw] | None:
    """Return the fields of a JSON object as they are written, else None."""
    try:
        return _Object.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def scalar(raw: msgspec.Raw) -> str:
    """Return a JSON value as text: a string without quotes, anything else as it is written."""
    value = bytes(memoryview(raw)[: 4 * LONGEST_TEXT])
    if value.startswith(b'"'):
        try:
            return _Text.decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            pass
    return value.decode(errors="replace")


def detail(number: int, record: Record) -> Message:
    """Return all that is known of a row, as text: its places and times, and its data in four forms.

    These are a tree of its JSON, the JSON with indents, the text, and the first 4 KiB of the bytes.
    """
    text = record.data[:LONGEST_TEXT]
    return {
        "number": number,
        "facts": [[name, cut(value or "-", LONGEST_VALUE)] for name, value in _facts(record).items()],
        "tree": tree(record.data),
        "json": _indented(record.data),
        "text": _lines(text) + ("…" if len(record.data) > LONGEST_TEXT else ""),
        "hex": hex_dump(record.data_raw or record.data.encode("utf-8", "surrogatepass")),
    }


def _facts(record: Record) -> dict[str, str | None]:
    return {
        "partition key": record.partition_key,
        "shard": record.shard_id,
        "sequence number": f"{record.sequence_number} / {record.sub_sequence_number}",
        "arrived": record.kinesis_ingestion_timestamp.isoformat(sep=" ", timespec="milliseconds"),
        "size": f"{len(record.data_raw or record.data.encode('utf-8', 'surrogatepass')):,} bytes",
    }


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def _indented(text: str) -> str | None:
    """Return JSON with indents, values as they are written; None when the text is not JSON, or long."""
    if len(text) > LONGEST_TEXT:
        return None
    try:
        return _lines(msgspec.json.format(text.encode(), indent=2).decode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def hex_dump(data: bytes) -> str:
    """Return the beginning of some bytes, 16 to a line: offset, hexadecimal, and what of it is ASCII."""
    lines = []
    for offset in range(0, min(len(data), LONGEST_HEX), 16):
        part = data[offset : offset + 16]
        readable = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)  # noqa: PLR2004 - printable
        lines.append(f"{offset:08x}  {part.hex(' '):<47}  {readable}")
    return "\n".join(lines) + ("\n…" if len(data) > LONGEST_HEX else "")


def tree(text: str) -> Node | None:
    """Return a JSON document as nodes, within limits; None when it is not one."""
    try:
        raw = msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return _node("", raw, MOST_DEPTH, iter(range(MOST_NODES)))


def _node(name: str, raw: msgspec.Raw, depth: int, budget: Iterator[int]) -> Node:
    start = bytes(memoryview(raw)[:1])
    name = cut(name)
    try:
        if start == b"{" and depth:
            return _branch(name, "object", "fields", _Object.decode(raw).items(), depth, budget)
        if start == b"[" and depth:
            return _branch(name, "array", "items", _numbered(_Array.decode(raw)), depth, budget)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        start = b""
    return [name, _KIND_OF.get(start, "number"), cut(scalar(raw), LONGEST_VALUE), []]


def _numbered(values: list[msgspec.Raw]) -> Iterator[tuple[str, msgspec.Raw]]:
    return ((str(number), value) for number, value in enumerate(values))


def _branch(
    name: str, kind: str, what: str, items: Iterable[tuple[str, msgspec.Raw]], depth: int, budget: Iterator[int]
) -> Node:
    items = list(items)
    children = [_node(key, value, depth - 1, budget) for _, (key, value) in zip(budget, items, strict=False)]
    if len(children) < len(items):
        children.append(["", "more", f"… and {len(items) - len(children):,} more", []])
    return [name, kind, f"{len(items):,} {what if len(items) != 1 else what[:-1]}", children]
