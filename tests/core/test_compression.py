"""Compressed records: text when they hold text, untouched when they are damaged or grow too much."""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from kinesis_nb.core.compression import MOST_BYTES, MOST_RATIO, decompressed
from kinesis_nb.core.frames import SCHEMA, Batch

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def batch(*data: bytes) -> Batch:
    """Return a response as the reader makes it."""
    rows = []
    for value in data:
        text = value.decode(errors="replace")
        raw = None if text.encode() == value else value
        rows.append(
            {"partition_key": "k", "data": text, "kinesis_ingestion_timestamp": NOW, "shard_id": "s"}
            | {"foundry_ingestion_timestamp": NOW, "sequence_number": "1", "sub_sequence_number": 0, "data_raw": raw}
        )
    return Batch(pa.RecordBatch.from_pylist(rows, SCHEMA), "i", 0)


def opened(*data: bytes) -> list[tuple[str, bytes | None]]:
    """Return text and bytes of each row."""
    (opened,) = decompressed(batch(*data), MOST_BYTES)
    rows = opened.rows
    return list(zip(rows.column("data").to_pylist(), rows.column("data_raw").to_pylist(), strict=True))


def zstd(data: bytes) -> bytes:
    """Return zstd-compressed data."""
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_compressed_text_becomes_text(pack: Callable[[bytes], bytes]) -> None:
    """gzip and zstd are recognised by their magic number; rows of text stay as they are, in their places."""
    assert opened(b"plain", pack("tea ☕".encode()), b"last") == [("plain", None), ("tea ☕", None), ("last", None)]


def test_compressed_bytes_stay_bytes() -> None:
    """What comes out and is no text is kept as bytes."""
    assert opened(gzip.compress(b"\xff\x00")) == [("\ufffd\x00", b"\xff\x00")]


@pytest.mark.parametrize(
    "damaged",
    [
        gzip.compress(b"x" * 100)[:-9],
        b"\x1f\x8bnothing of the kind",
        b"\x28\xb5\x2f\xfd\xff\xff",
        zlib.compress(b"x\xff"),
    ],
    ids=["cut", "gzip by chance", "zstd by chance", "another format"],
)
def test_damaged_data_stays_as_it_came(damaged: bytes) -> None:
    """One bad record is a row with its bytes, never an error."""
    assert opened(damaged, gzip.compress(b"good")) == [
        (damaged.decode(errors="replace"), damaged if b"\x8b" in damaged or b"\xb5" in damaged or damaged else None),
        ("good", None),
    ]


@pytest.mark.parametrize("rest", [b"\n", bytes(9), b"x\x1f\x8b"], ids=["newline", "padding", "bytes"])
def test_bytes_behind_gzip_data_do_not_hide_it(rest: bytes) -> None:
    """The text of all members is read, and the row keeps its bytes; rows beside it are as ever."""
    data = gzip.compress(b"one ") + gzip.compress("☕".encode()) + rest
    assert opened(data, b"plain", gzip.compress(b"good")) == [("one ☕", data), ("plain", None), ("good", None)]
    assert opened(data) == [("one ☕", data)]


def test_bytes_behind_gzip_data_open_no_limit() -> None:
    """Neither a bomb, nor a record of thousands of members, nor a member that is cut comes in that way."""
    bomb = gzip.compress(bytes(4 * 2**20)) + b"\n"
    many = gzip.compress(b"") * 5_000 + b"\n"
    cut = gzip.compress(b"good") + gzip.compress(b"cut")[:-1]
    assert opened(bomb, many, cut) == [(data.decode(errors="replace"), data) for data in (bomb, many, cut)]
    members = gzip.compress(bytes(150_000)) * 8 + b"\n"  # each is within the limit
    assert len(members) * MOST_RATIO > 150_000
    assert opened(members)[0][0] == members.decode(errors="replace")


def test_bomb_stays_packed() -> None:
    """A record that would grow beyond the limit is left as it is."""
    bomb = gzip.compress(bytes(4 * 2**20))
    assert len(bomb) * MOST_RATIO < 4 * 2**20
    assert opened(bomb)[0][1] == bomb


def test_nothing_to_do_costs_nothing() -> None:
    """Rows of text are handed back as they are."""
    plain = batch(b"a", b"b")
    (opened,) = decompressed(plain, MOST_BYTES)
    assert opened.rows is plain.rows
