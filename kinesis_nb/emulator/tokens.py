"""Opaque shard iterators and paging tokens: sealed, so that a client can neither read nor forge them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .errors import AwsError, invalid

if TYPE_CHECKING:
    from random import Random

LIFETIME_MS = 300_000  # AWS: iterators and paging tokens live 5 minutes

_HEADER = b"\0\0\0\0\0\0\0\1"  # the service's iterators begin like this, hence AAAAAAAAAAE…
_ITERATOR = struct.Struct(">QQQIQ")
_ITERATOR_BYTES = 144  # padded: the service's iterators have 200 characters and more


class Sealer:
    """Turns bytes into opaque text and back, with a key of its own.

    Parameters
    ----------
    random
        Source of the key and of the nonces; two seals of the same bytes differ.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._key = random.randbytes(32)

    def seal(self, payload: bytes) -> str:
        """Return `payload` as opaque base64 text."""
        nonce = self._random.randbytes(8)
        body = self._crypt(nonce, payload)
        return base64.b64encode(_HEADER + nonce + body + self._tag(nonce + body)).decode()

    def open(self, text: str) -> bytes | None:
        """Return the sealed bytes, or None when this sealer did not make the text."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        nonce, body, tag = raw[8:16], raw[16:-8], raw[-8:]
        if raw[:8] != _HEADER or len(raw) < 24 or tag != self._tag(nonce + body):
            return None
        return self._crypt(nonce, body)

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(self._key + nonce).digest(len(data))
        return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")

    def _tag(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=8).digest()


class Iterator(NamedTuple):
    """What a shard iterator stands for: a place in one shard of one stream, and when it was given out."""

    created_ms: int
    stream: int
    stream_created_ms: int
    shard: int
    position: int


def seal_iterator(sealer: Sealer, iterator: Iterator) -> str:
    """Return the text of a shard iterator."""
    return sealer.seal(_ITERATOR.pack(*iterator).ljust(_ITERATOR_BYTES, b"\0"))


def open_iterator(sealer: Sealer, text: str, now_ms: int) -> Iterator:
    """Return what the iterator stands for.

    Raises
    ------
    AwsError
        InvalidArgumentException for a foreign text, ExpiredIteratorException after 5 minutes.
    """
    payload = sealer.open(text)
    if payload is None or len(payload) != _ITERATOR_BYTES:
        raise invalid("Invalid ShardIterator.")
    iterator = Iterator._make(_ITERATOR.unpack_from(payload))
    if now_ms - iterator.created_ms > LIFETIME_MS:
        raise _iterator_expired(iterator.created_ms, now_ms)
    return iterator


def _iterator_expired(created_ms: int, now_ms: int) -> AwsError:
    return AwsError(
        "ExpiredIteratorException",
        f"Iterator expired. The iterator was created at time {_utc(created_ms)} while right now it is "
        f"{_utc(now_ms)} which is further in the future than the tolerated delay of {LIFETIME_MS} milliseconds.",
    )


def _utc(ms: int) -> str:
    """Return the time in the form the service uses: Thu Jan 22 01:22:02 UTC 2015."""
    weekday, month, day, clock, year = time.asctime(time.gmtime(ms // 1000)).split()
    return f"{weekday} {month} {int(day):02d} {clock} UTC {year}"


class Page(msgspec.Struct, frozen=True):
    """What a paging token stands for: a listing of one stream, and the last entry already shown."""

    created_ms: int
    kind: str
    stream: int
    after: str
    filter: dict[str, str | float] = {}


def seal_page(sealer: Sealer, page: Page) -> str:
    """Return the text of a NextToken."""
    return sealer.seal(msgspec.json.encode(page))


def open_page(sealer: Sealer, text: str, kind: str, now_ms: int) -> Page:
    """Return what the NextToken of a listing of this `kind` stands for.

    Raises
    ------
    AwsError
        InvalidArgumentException for a foreign text, ExpiredNextTokenException after 300 s.
    """
    payload = sealer.open(text)
    page = _page(payload) if payload is not None else None
    if page is None or page.kind != kind:
        raise invalid("NextToken is invalid.")
    if now_ms - page.created_ms > LIFETIME_MS:
        raise AwsError("ExpiredNextTokenException", f"NextToken {text} has expired.")
    return page


def _page(payload: bytes) -> Page | None:
    try:
        return msgspec.json.decode(payload, type=Page)
    except msgspec.MsgspecError:  # a shard iterator used as a token
        return None
