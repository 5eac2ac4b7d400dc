"""Sequence numbers: 56 decimal digits that carry their shard, their order and their time.

They have the 186 bits of the service's, which say in the same places when the shard was made and when the record was
written, in whole seconds. From the top: 2 bits that fix the number of digits, the shard's epoch (36 bits for the
seconds, 10 for the milliseconds), the record's place in the shard (44), the stream's number in this emulator (20), 2
bits unused, the second of writing (36), the shard's number (32) and a version (4). Epoch and place come first, so
numbers grow within a shard and from parent to child; stream and shard are inside, so no two records ever share a
number.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_INDEX = 2**44 - 1  # the place in a shard's EndingSequenceNumber: above every record it can hold

_TOP = 0b10 << 184
_VERSION = 2
_EPOCH_SHIFT, _MILLIS_SHIFT, _INDEX_SHIFT, _STREAM_SHIFT, _TIME_SHIFT, _SHARD_SHIFT = 148, 138, 94, 74, 36, 4
_MASK_44, _MASK_36, _MASK_32, _MASK_20, _MASK_10 = 2**44 - 1, 2**36 - 1, 2**32 - 1, 2**20 - 1, 2**10 - 1


class Sequence(NamedTuple):
    """The parts of one sequence number; times in milliseconds since the epoch, that of writing in whole seconds."""

    epoch_ms: int
    place: int
    stream: int
    time_ms: int
    shard: int


def prefix(epoch_ms: int, stream: int, shard: int) -> int:
    """Return the part that all sequence numbers of one shard have in common."""
    seconds, millis = divmod(epoch_ms, 1000)
    epoch = seconds << _EPOCH_SHIFT | millis << _MILLIS_SHIFT
    return _TOP | _VERSION | epoch | (stream & _MASK_20) << _STREAM_SHIFT | shard << _SHARD_SHIFT


def encode(shard_prefix: int, index: int, time_ms: int) -> str:
    """Return the sequence number of the record at place `index` (from 1; 0 is the shard's start)."""
    return str(shard_prefix + (index << _INDEX_SHIFT) + (time_ms // 1000 << _TIME_SHIFT))


def decode(text: str) -> Sequence | None:
    """Return the parts of a sequence number, or None when no emulator of this kind made it."""
    number = int(text)
    if number >> 184 != 0b10 or number & 0xF != _VERSION:
        return None
    return Sequence(
        epoch_ms=1000 * (number >> _EPOCH_SHIFT & _MASK_36) + (number >> _MILLIS_SHIFT & _MASK_10),
        place=number >> _INDEX_SHIFT & _MASK_44,
        stream=number >> _STREAM_SHIFT & _MASK_20,
        time_ms=1000 * (number >> _TIME_SHIFT & _MASK_36),
        shard=number >> _SHARD_SHIFT & _MASK_32,
    )
