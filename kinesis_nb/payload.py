"""Compressed records: gzip (CloudWatch Logs writes it) and zstd, taken apart with a limit on what comes out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.frames import SCHEMA, decode_text

MOST_BYTES = 64 * 2**20  # of one record; a record of 1 MiB could hold gigabytes
MOST_RATIO = 200  # what comes out to what went in
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1952, RFC 8878; neither is UTF-8


def unchanged(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows as they came."""
    return rows


def decompressed(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with gzip and zstd data as the text that is in them.

    Only rows with ``data_raw`` can be compressed, so text costs nothing. A record that is damaged, or that would grow
    beyond 64 MiB or 200 times its size, stays as it is.
    """
    raw = rows.column("data_raw")
    if raw.null_count == len(raw):
        return rows
    places = pc.indices_nonzero(pc.is_valid(raw)).to_pylist()
    found = {place: text for place in places if (text := _decompress(raw[place].as_py())) is not None}
    if not found:
        return rows
    opened = pa.array([place in found for place in range(len(raw))], pa.bool_())
    text, rest = decode_text(pa.array(found.values(), pa.binary()))
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    columns["data"] = pc.replace_with_mask(columns["data"], opened, text)
    columns["data_raw"] = pc.replace_with_mask(raw, opened, rest)
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _decompress(data: bytes) -> bytes | None:
    codec = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        return None
    most = min(MOST_BYTES, MOST_RATIO * len(data))
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            content: bytes = stream.read(most + 1)
    except (OSError, pa.ArrowException):
        return None
    return content if len(content) <= most else None
