"""KPL aggregates: many user records packed into one record of a stream.

An aggregate is a magic number, a protobuf message and the MD5 of that message. The format is described in
aggregation-format.md of the Kinesis Producer Library; docs/decisions says why the reader is our own.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.core.shards import MAX_HASH_KEY, hash_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST = 16  # bytes of an MD5
MOST_RECORDS = 2**20 // 6  # in one aggregate: KPL writes at most 1 MiB, of which each takes 6 bytes without any data
ROW_BYTES = 4 * KEY_CHARACTERS + 128  # of one as a row besides its data, at most: UTF-8 has 4 bytes for a character
_MAX_VARINT = 10  # bytes of a 64-bit number

_VARINT, _BYTES = 0, 2  # protobuf's wire types
_FIXED = {1: 8, 5: 4}  # wire types whose values have a fixed number of bytes
_KEYS, _EXPLICIT_HASH_KEYS, _RECORDS = (number << 3 | _BYTES for number in (1, 2, 3))
_KEY_INDEX, _HASH_INDEX, _DATA, _TAGS = 1 << 3 | _VARINT, 2 << 3 | _VARINT, 3 << 3 | _BYTES, 4 << 3 | _BYTES
_TAG_KEY, _TAG_VALUE = 1 << 3 | _BYTES, 2 << 3 | _BYTES


class UserRecord(NamedTuple):
    """One record as its producer meant it."""

    partition_key: str
    hash_key: int
    data: bytes


def may_hold_aggregates(data: pa.Array) -> bool:
    """Return whether a value of a binary array begins like an aggregate; costs about 10 ns per value."""
    pool = pa.system_memory_pool()  # why: batches.py
    return bool(pc.any(pc.starts_with(data, MAGIC, memory_pool=pool), memory_pool=pool).as_py())


def unpack(data: bytes) -> list[UserRecord] | None:
    """Return the user records of an aggregate, in their order.

    Returns
    -------
    list of UserRecord or None
        None for a plain record: whatever is not complete and well-formed, or holds more than `MOST_RECORDS`; and an
        aggregate of nothing, because a record that gave no row would look like a lost one.
    """
    message = data[len(MAGIC) : -_DIGEST]
    if not data.startswith(MAGIC) or hashlib.md5(message, usedforsecurity=False).digest() != data[-_DIGEST:]:
        return None
    try:
        return _user_records(message) or None
    except (ValueError, IndexError):  # an IndexError is an index out of a table, or a message that ends too early
        return None


def pack(partition_key: str, data: Iterable[bytes], number: str = "") -> bytes:
    """Return an aggregate of records that all have the same partition key, in their order.

    Parameters
    ----------
    number
        Distinguishes it from any other aggregate of the same rows; a tag of its first record, which readers ignore.

    Examples
    --------
    >>> unpack(pack("a", [b"1", b"2"]))[1].data
    b'2'
    """
    message = bytearray(_field(_KEYS, partition_key.encode()))
    tag = _field(_TAGS, _field(_TAG_KEY, b"kinesis_nb") + _field(_TAG_VALUE, number.encode())) if number else b""
    for content in data:
        message += _field(_RECORDS, bytes([_KEY_INDEX, 0]) + _field(_DATA, content) + tag)
        tag = b""
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte, the eighth says "more follows"
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _user_records(message: bytes) -> list[UserRecord]:
    keys: list[tuple[str, int]] = []
    explicit: list[bytes] = []
    records: list[bytes] = []
    for tag, _, content in _fields(message):
        if tag == _RECORDS:
            if len(records) == MOST_RECORDS:
                raise ValueError("no producer writes this many records")
            records.append(content)
        elif tag == _KEYS:
            keys.append(_partition_key(content))
        elif tag == _EXPLICIT_HASH_KEYS:
            explicit.append(content)
    return [_user_record(record, keys, explicit) for record in records]


def _user_record(message: bytes, keys: list[tuple[str, int]], explicit: list[bytes]) -> UserRecord:
    key_index = hash_index = data = None
    for tag, number, content in _fields(message):
        if tag == _KEY_INDEX:
            key_index = number
        elif tag == _HASH_INDEX:
            hash_index = number
        elif tag == _DATA:
            data = content
    if key_index is None or data is None:
        raise ValueError("a required field is missing")
    key, hashed = keys[key_index]
    return UserRecord(key, hashed if hash_index is None else _explicit_hash_key(explicit[hash_index]), data)


def _partition_key(content: bytes) -> tuple[str, int]:
    key = content.decode()
    if len(key) > KEY_CHARACTERS:  # else one long key could be repeated in gigabytes of rows
        raise ValueError("too long for a partition key")
    return key, hash_key(key)


def _explicit_hash_key(content: bytes) -> int:
    if not content.isdigit() or int(content) > MAX_HASH_KEY:
        raise ValueError("not a hash key")
    return int(content)


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the tag of each field with its number or its bytes, whichever it has; fixed-size fields are skipped."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, kind = tag >> 3, tag & 7
        if not field:
            raise ValueError("no field has the number 0")
        if kind == _BYTES:
            length, start = _varint(message, position)
            position = start + length
            yield tag, 0, message[start:position]
        elif kind == _VARINT:
            number, position = _varint(message, position)
            yield tag, number, b""
        elif kind in _FIXED:
            position += _FIXED[kind]
        else:
            raise ValueError("a group, which aggregates do not have, or no wire type at all")
    if position > len(message):
        raise ValueError("the message ends too early")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position behind it."""
    byte = message[position]
    if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"; nearly all numbers have one byte
        return byte, position + 1
    number = 0
    for length in range(_MAX_VARINT):
        byte = message[position + length]
        number |= (byte & 0x7F) << (7 * length)
        if byte < 0x80:  # noqa: PLR2004
            return number, position + length + 1
    raise ValueError("a number of more than 64 bits")
