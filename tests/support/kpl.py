"""Writes KPL aggregates, as producers do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"\xf3\x89\x9a\xc2"

Row = tuple[str, int | None, bytes]
"""Partition key, explicit hash key, data."""


def aggregate(rows: Iterable[Row]) -> bytes:
    """Pack rows into one aggregate; each key stands once in its table."""
    keys: dict[str, int] = {}
    explicit: dict[str, int] = {}
    records = b""
    for key, hash_key, data in rows:
        record = number(1, keys.setdefault(key, len(keys)))
        if hash_key is not None:
            record += number(2, explicit.setdefault(str(hash_key), len(explicit)))
        records += content(3, record + content(3, data))
    tables = b"".join(content(field, key.encode()) for field, table in ((1, keys), (2, explicit)) for key in table)
    return sealed(tables + records)


def sealed(message: bytes) -> bytes:
    """Put the magic number before a message, and its checksum behind it."""
    return MAGIC + message + hashlib.md5(message).digest()


def number(field: int, value: int) -> bytes:
    """Return a protobuf field with a number."""
    return _varint(field << 3) + _varint(value)


def content(field: int, value: bytes) -> bytes:
    """Return a protobuf field with bytes, text or a message."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
