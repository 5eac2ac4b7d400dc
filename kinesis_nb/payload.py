"""Compressed records: gzip (CloudWatch Logs writes it) and zstd, taken apart with a limit on what comes out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.frames import SCHEMA, Batch, decode_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.foreign import Dropped

MOST_BYTES = 64 * 2**20  # of one record of a stream; a record of 1 MiB could hold gigabytes
MOST_RATIO = 200  # what comes out to what went in
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1952, RFC 8878; neither is UTF-8

Texts = dict[int, bytes]
"""What came out of rows, by their places."""


def unchanged(batch: Batch, most: int) -> tuple[Batch, ...]:  # noqa: ARG001 - as below
    """Return the records as they came."""
    return (batch,)


def may_burst(rows: pa.RecordBatch, most: int) -> bool:
    """Return whether what is in one record may be larger than `most` bytes."""
    longest = pc.max(pc.binary_length(rows.column("data_raw"))).as_py() or 0
    return MOST_RATIO * longest > most


def decompressed(batch: Batch, most: int) -> Iterator[Batch]:
    """Give records with gzip and zstd data as the text that is in them, in parts of about `most` bytes of it.

    Only rows with ``data_raw`` can be compressed, so text costs nothing. A record that is damaged, or that would grow
    beyond 64 MiB or 200 times its size, stays as it is; so does a user record of a KPL aggregate beyond the first 64
    MiB of its aggregate. A part holds whole records: more than `most` where one of them is larger.
    """
    start = 0
    for end, found in _cut(batch.rows, most):
        yield _opened(batch, start, end, found)
        start = end


def _cut(rows: pa.RecordBatch, most: int) -> Iterator[tuple[int, Texts]]:
    """Yield where a part of the rows ends, and what came out of those in it."""
    raw = rows.column("data_raw")
    numbers = rows.column("sequence_number")
    found: Texts = {}
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
        if (text := _decompress(raw[place].as_py(), left)) is not None:
            found[place] = text
            size += len(text)
            left -= len(text)
        del text  # it would outlive its part
    yield len(raw), found


def _opened(batch: Batch, start: int, end: int, found: Texts) -> Batch:
    """Return the rows between two places, with what came out of some of them."""
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
    """Return what was dropped behind the record before a place, up to the record `last`."""
    before = int(batch.rows.column("sequence_number")[start - 1].as_py()) if start else -1
    return tuple(
        records
        for records in batch.dropped
        if before < (number := int(records.sequence_number)) and (last is None or number <= int(last))
    )


def _with_texts(rows: pa.RecordBatch, start: int, found: Texts) -> pa.RecordBatch:
    opened = pa.array([start + place in found for place in range(rows.num_rows)], pa.bool_())
    data = pa.array(found.values(), pa.binary())
    found.clear()  # Arrow has it now
    text, rest = decode_text(data)
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    if len(text) == rows.num_rows:  # as of one large record, which is not copied once more
        columns |= {"data": text, "data_raw": rest}
    else:
        columns["data"] = pc.replace_with_mask(columns["data"], opened, text)
        columns["data_raw"] = pc.replace_with_mask(columns["data_raw"], opened, rest)
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _decompress(data: bytes, left: int) -> bytes | None:
    codec = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        return None
    most = min(left, MOST_RATIO * len(data))
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            content: bytes = stream.read(most + 1)
    except (OSError, pa.ArrowException):
        return None
    return content if len(content) <= most else None
