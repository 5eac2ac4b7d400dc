"""From batches to what a table shows: the newest rows that match, as short lines of text, and one of them as a tree."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.frames import concat, iter_records
from kinesis_nb.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kinesis_nb.core.frames import Record
    from kinesis_nb.reading.buffer import Held
    from kinesis_nb.widgets.flow import Message

WAITING_ROWS, WAITING_BYTES = 50_000, 16 * 2**20  # what may wait for the next poll; it is the tail's own memory, mostly
WINDOW_ROWS, WINDOW_BYTES = 1_000, 16 * 2**20  # what was shown, and can be shown in detail
MOST_NAMES = 16  # JSON columns
LONGEST_CELL, LONGEST_NAME = 200, 40  # characters
LONGEST_TEXT = 64 * 1024  # characters of a record in detail
MOST_NODES, MOST_DEPTH, LONGEST_VALUE = 2_000, 32, 2_000  # of a tree

_BASE = ("arrived (UTC)", "key", "shard")
_Object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Array = msgspec.json.Decoder(list[msgspec.Raw])
_Text = msgspec.json.Decoder(str)
_KIND_OF = {b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null", b"{": "text", b"[": "text"}
Node: TypeAlias = "list[str | list[Node]]"
"""A JSON value as the front end draws it: name, kind, text, children."""


class Waiting:
    """What came since the last poll: threads append to it, one takes out of it.

    It holds the newest 50,000 rows or 16 MiB, and counts what had no room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below; taken under the lock of a buffer, never around it
        self._batches: deque[pa.RecordBatch] = deque()
        self._rows = self._bytes = 0
        self._skipped = 0

    def __call__(self, held: Held) -> None:
        """Take a batch."""
        rows = held[1]
        with self._lock:
            self._batches.append(rows)
            self._rows += rows.num_rows
            self._bytes += rows.nbytes
            while len(self._batches) > 1 and (self._rows > WAITING_ROWS or self._bytes > WAITING_BYTES):
                self._skipped += self._pop().num_rows

    def _pop(self) -> pa.RecordBatch:
        rows = self._batches.popleft()
        self._rows -= rows.num_rows
        self._bytes -= rows.nbytes
        return rows

    def take(self) -> tuple[list[pa.RecordBatch], int]:
        """Return what waits, and how many rows before it had no room."""
        with self._lock:
            skipped, self._skipped = self._skipped, 0
            return [self._pop() for _ in range(len(self._batches))], skipped


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are wanted: those whose data, and whose partition key, hold a text in any case."""

    text: str = ""
    key: str = ""

    def __bool__(self) -> bool:
        return bool(self.text or self.key)

    def __call__(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that match."""
        for name, text in (("data", self.text), ("partition_key", self.key)):
            if text:
                rows = rows.filter(pc.match_substring(rows.column(name), text, ignore_case=True))
        return rows


class NewestRows:
    """The newest rows that match, numbered from 0 in the order they came; what had no room leaves its numbers out."""

    def __init__(self) -> None:
        self.rows = 0  # that matched so far; the number of the next one
        self._parts: deque[tuple[int, pa.RecordBatch]] = deque()  # copies, so that no batch is kept for one row of it
        self._held = self._bytes = 0

    def add(self, batches: Sequence[pa.RecordBatch], skipped: int, most: int) -> None:
        """Take the newest `most` of the rows that came; `skipped` came before them and are gone."""
        self.rows += skipped
        first = self.rows
        self.rows += sum(rows.num_rows for rows in batches)
        wanted = self.rows - most
        for rows in batches:
            skip = min(max(0, wanted - first), rows.num_rows)
            if skip < rows.num_rows:
                self._append(first + skip, rows.take(pa.array(range(skip, rows.num_rows), pa.int64())))
            first += rows.num_rows

    def _append(self, first: int, rows: pa.RecordBatch) -> None:
        self._parts.append((first, rows))
        self._held += rows.num_rows
        self._bytes += rows.nbytes
        while len(self._parts) > 1 and (self._held > WINDOW_ROWS or self._bytes > WINDOW_BYTES):
            _, old = self._parts.popleft()
            self._held -= old.num_rows
            self._bytes -= old.nbytes

    def newest(self, most: int, beyond: int = -1) -> list[tuple[int, Record]]:
        """Return the newest rows with their numbers, newest first: at most `most`, and only those after a number."""
        return list(islice(self._backwards(beyond), most))

    def _backwards(self, beyond: int) -> Iterator[tuple[int, Record]]:
        for first, rows in reversed(self._parts):
            if first + rows.num_rows - 1 <= beyond:
                return
            part = rows.slice(max(0, beyond + 1 - first))
            number = first + rows.num_rows - 1
            for place, record in enumerate(reversed(list(iter_records(part)))):
                yield number - place, record

    def find(self, number: int) -> Record | None:
        """Return the row of a number, while it is held."""
        for first, rows in self._parts:
            if first <= number < first + rows.num_rows:
                return next(iter_records(rows.slice(number - first, 1)))
        return None

    def to_arrow(self) -> pa.Table:
        """Return the rows that are held, oldest first."""
        return concat(rows for _, rows in self._parts)


class Columns:
    """How a row becomes cells: the record as it is, or the fields of its JSON object as they are met.

    Numbers are shown as they were written, whatever a float could hold.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._names: dict[str, None] = {}
        self._has_rest = False  # rows that are not JSON objects

    @property
    def names(self) -> list[str]:
        """What the columns are called."""
        rest = [] if self.json and self._names and not self._has_rest else ["data"]
        return [*_BASE, *(cut(name, LONGEST_NAME) for name in self._names), *rest]

    def cells(self, records: Iterable[tuple[int, Record]], today: datetime) -> list[list[object]]:
        """Return the number and the cells of each row; columns that were met now are at the end of the earlier ones."""
        rows = [(number, record, json_object(record.data) if self.json else None) for number, record in records]
        for _, _, fields in reversed(rows):
            self._meet(fields)
        return [[number, *_base_cells(record, today), *self._values(record, fields)] for number, record, fields in rows]

    def _meet(self, fields: Mapping[str, msgspec.Raw] | None) -> None:
        self._has_rest = self._has_rest or fields is None
        for name in fields or ():
            if len(self._names) < MOST_NAMES:
                self._names.setdefault(name)

    def _values(self, record: Record, fields: Mapping[str, msgspec.Raw] | None) -> Iterator[str]:
        if not self.json:
            yield cut(record.data)
            return
        for name in self._names:
            yield cut(scalar(fields[name])) if fields is not None and name in fields else ""
        if self._has_rest or not self._names:
            yield "" if fields is not None else cut(record.data)


def _base_cells(record: Record, today: datetime) -> tuple[str, str, str]:
    arrived = record.kinesis_ingestion_timestamp.astimezone(UTC)
    is_today = arrived.date() == today.date()
    when = f"{arrived:%H:%M:%S}.{arrived.microsecond // 1000:03d}" if is_today else f"{arrived:%Y-%m-%d %H:%M:%S}"
    return when, cut(record.partition_key or "-"), short(record.shard_id)


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
    """Return all that is known of a row, as text: its places and times, its data, and the JSON in it as a tree."""
    text = record.data[:LONGEST_TEXT]
    return {
        "number": number,
        "facts": [[name, cut(value or "-", LONGEST_VALUE)] for name, value in _facts(record).items()],
        "tree": tree(record.data),
        "text": "\n".join(map(visible, text.split("\n"))) + ("…" if len(record.data) > LONGEST_TEXT else ""),
    }


def _facts(record: Record) -> dict[str, str | None]:
    facts = {
        "partition key": record.partition_key,
        "shard": record.shard_id,
        "sequence number": f"{record.sequence_number} / {record.sub_sequence_number}",
        "arrived": record.kinesis_ingestion_timestamp.isoformat(sep=" ", timespec="milliseconds"),
        "size": f"{len(record.data_raw or record.data.encode()):,} bytes",
    }
    if record.data_raw is not None:
        facts["bytes"] = record.data_raw[:256].hex(" ")
    return facts


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
