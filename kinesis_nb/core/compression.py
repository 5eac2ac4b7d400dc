"""Compressed records: gzip (CloudWatch Logs writes it) and zstd, decompressed up to a limit."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.core.frames import SCHEMA, Batch, decode_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.core.foreign import Dropped

MOST_BYTES = 64 * 2**20  # of one record of a stream; a record of 1 MiB could hold gigabytes
MOST_RATIO = 200  # size of the result to size of the data
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1952, RFC 8878; neither is UTF-8
_GZIP = 16 + zlib.MAX_WBITS  # as zlib takes it
_MEMBERS = 1_000  # of gzip in one record that are opened one by one: each copies what is behind it


class Opened(NamedTuple):
    """The result of decompressing data.

    Attributes
    ----------
    content
        None when the data is kept as received.
    fault
        What is wrong with it, else empty.
    """

    content: bytes | None
    fault: str = ""


_DAMAGED = Opened(None, "it is cut or damaged")
_TOO_LARGE = Opened(None, f"more than {MOST_RATIO} times its size or {MOST_BYTES // 2**20} MiB would come out")

Found = dict[int, Opened]
"""The decompressed data of rows, by their positions."""


def unchanged(batch: Batch, most: int) -> tuple[Batch, ...]:  # noqa: ARG001 - as below
    """Return the records unchanged."""
    return (batch,)


def may_burst(rows: pa.RecordBatch, most: int) -> bool:
    """Return whether what is in one record may be larger than `most` bytes."""
    longest = pc.max(pc.binary_length(rows.column("data_raw"))).as_py() or 0
    return MOST_RATIO * longest > most


def decompressed(batch: Batch, most: int) -> Iterator[Batch]:
    """Decompress records with gzip and zstd data, in parts of about `most` bytes of text.

    Only rows with ``data_raw`` can be compressed, so text costs nothing. A record that is damaged, or that would grow
    beyond 64 MiB or 200 times its size, stays as it is; so does a user record of a KPL aggregate beyond the first 64
    MiB of its aggregate. A record with other bytes behind gzip data becomes text, and keeps all its bytes in
    ``data_raw``. A part holds whole records: more than `most` where one of them is larger.
    """
    start = 0
    for end, found in _cut(batch.rows, most):
        yield _opened(batch, start, end, found)
        start = end


def _cut(rows: pa.RecordBatch, most: int) -> Iterator[tuple[int, Found]]:
    """Yield the end of each part of the rows, with the decompressed data in it."""
    raw = rows.column("data_raw")
    numbers = rows.column("sequence_number")
    found: Found = {}
    size, record, left = 0, -1, 0
    places = pc.indices_nonzero(pc.is_valid(raw)).to_pylist() if raw.null_count < len(raw) else []
    for place in places:
        if record < 0 or numbers[place] != numbers[record]:
            record, left = place, MOST_BYTES
            while record and numbers[record - 1] == numbers[place]:
                record -= 1
        if size >= most and max(found) < record:
            yield record, found
            found, size = {}, 0
        opened = decompress(raw[place].as_py(), left)
        if opened is not None and opened.content is not None:
            found[place] = opened
            size += len(opened.content)
            left -= len(opened.content)
        del opened  # it would outlive its part
    yield len(raw), found


def _opened(batch: Batch, start: int, end: int, found: Found) -> Batch:
    """Return the rows between two positions, with the decompressed data of some of them."""
    rows = batch.rows
    if end - start < rows.num_rows:  # a slice would keep all of it
        columns = [pa.concat_arrays([column.slice(start, end - start)]) for column in rows.columns]
        rows = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    if found:
        rows = _with_texts(rows, start, found)
    numbers = batch.rows.column("sequence_number")
    if end < len(numbers):
        first, last = numbers[start].as_py(), numbers[end - 1].as_py()
        return Batch.part(rows, first, last, _dropped_between(batch, start, last))
    dropped = _dropped_between(batch, start, None)
    return replace(batch, rows=rows, read_from=numbers[start].as_py() if start else batch.read_from, dropped=dropped)


def _dropped_between(batch: Batch, start: int, last: str | None) -> tuple[Dropped, ...]:
    """Return what was dropped after the record before a position, up to the record `last`."""
    before = int(batch.rows.column("sequence_number")[start - 1].as_py()) if start else -1
    return tuple(
        records
        for records in batch.dropped
        if before < (number := int(records.sequence_number)) and (last is None or number <= int(last))
    )


def _with_texts(rows: pa.RecordBatch, start: int, found: Found) -> pa.RecordBatch:
    is_opened = pa.array([start + place in found for place in range(rows.num_rows)], pa.bool_())
    is_faulty = pa.array([bool(opened.fault) for opened in found.values()], pa.bool_())
    data = pa.array([opened.content for opened in found.values()], pa.binary())
    found.clear()  # Arrow has it now
    text, rest = decode_text(data)
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    if is_faulty.true_count:  # the text does not hold all that was received
        rest = pc.if_else(is_faulty, columns["data_raw"].filter(is_opened), rest)
    if len(text) == rows.num_rows:  # as of one large record, which is not copied once more
        columns |= {"data": text, "data_raw": rest}
    else:
        columns["data"] = pc.replace_with_mask(columns["data"], is_opened, text)
        columns["data_raw"] = pc.replace_with_mask(columns["data_raw"], is_opened, rest)
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def count_packed(raw: pa.Array | pa.ChunkedArray) -> int:
    """Return how many values of a column ``data_raw`` are still compressed data after decompression."""
    return sum(pc.sum(pc.starts_with(raw, magic)).as_py() or 0 for magic in MAGIC)


def codec_of(data: bytes) -> str | None:
    """Return how data is compressed, judging by its first bytes."""
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


def decompress(data: bytes, left: int = MOST_BYTES) -> Opened | None:
    """Decompress data within the limits; None for what is not compressed.

    Parameters
    ----------
    left
        How many bytes may come out at most.
    """
    codec = codec_of(data)
    if codec is None:
        return None
    most = min(left, MOST_RATIO * len(data))
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            content: bytes = stream.read(most + 1)
    except (OSError, pa.ArrowException):
        return _with_bytes_behind(data, most) if codec == "gzip" else _DAMAGED
    return Opened(content) if len(content) <= most else _TOO_LARGE


def _with_bytes_behind(data: bytes, most: int) -> Opened:
    """Decompress gzip data that Arrow refuses: its members may be intact and followed by other bytes."""
    parts: list[bytes] = []
    left, rest = most, data
    for _ in range(_MEMBERS):
        if codec_of(rest) != "gzip":
            return Opened(b"".join(parts), f"{len(rest)} byte{'s' * (len(rest) > 1)} behind it")
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(rest, left + 1))
        except zlib.error:
            break
        left -= len(parts[-1])
        if left < 0:
            return _TOO_LARGE
        if not member.eof:
            break
        rest = member.unused_data
    return _DAMAGED
