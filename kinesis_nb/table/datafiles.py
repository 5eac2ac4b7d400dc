"""The data files of a table: what they are called, how they are written, and whether they are complete."""

from __future__ import annotations

import hashlib
import io
import re
import uuid
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from kinesis_nb.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

    from deltalake import DeltaTable
    from pyarrow import Schema, Table

PARQUET_OPTIONS: dict[str, Any] = {  # of a Parquet file
    "use_dictionary": ["partition_key", "shard_id"],
    "write_statistics": ["shard_id", "shard_offset"],
}
_MAGIC = b"PAR1"  # a Parquet file begins and ends so
_DATA_FILE = re.compile(r"part-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.parquet")
_CHECKED = 20  # hexadecimal digits of a file's name; the other 12 are computed from them


def new_name(table_id: str = "") -> str:
    """Return a name for a data file.

    Parameters
    ----------
    table_id
        Of the table that the file is for: :func:`is_ours` then recognizes the name. A torn file has no content that
        could identify it, and a file that a user copied here looks like one of ours: only its name differs.
    """
    drawn = uuid.uuid4().hex
    digits = drawn[:_CHECKED] + _check(drawn[:_CHECKED], table_id) if table_id else drawn
    return f"part-{uuid.UUID(digits)}.parquet"


def is_ours(name: str, table_id: str) -> bool:
    """Whether a data file was written by a sync, for the table of that id."""
    if not (found := _DATA_FILE.fullmatch(name)):
        return False
    digits = found[1].replace("-", "")
    return digits[_CHECKED:] == _check(digits[:_CHECKED], table_id)


def _check(digits: str, table_id: str) -> str:
    return hashlib.sha256(f"kinesis_nb/{table_id}/{digits}".encode()).hexdigest()[: 32 - _CHECKED]


def write_rows(rows: Table, where: IO[bytes]) -> None:
    """Write rows fast rather than small: what is appended is compacted later."""
    pq.write_table(
        rows,
        where,
        compression="lz4",
        **PARQUET_OPTIONS,
    )


def check_files(folder: Path, table: DeltaTable) -> None:
    """Raise TableError for a file of rows that is gone, or whose length or ends are not those of what was written."""
    found = pa.table(table.get_add_actions())
    for path, size in zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True):
        if "://" not in path and (fault := _fault(folder / unquote(path), size)):
            msg = f"{folder}: the rows of version {table.version():,} are not all there: {path} is {fault}"
            raise TableError(msg, hint="put the file back from a backup, or sync into a new place")


def _fault(path: Path, size: int) -> str:
    """Return what is wrong with a file of rows; empty when its length and its ends are those of what was written."""
    try:
        with path.open("rb") as file:
            is_whole = file.read(4) == _MAGIC
            is_whole &= file.seek(-4, io.SEEK_END) == size - 4 and file.read() == _MAGIC
    except FileNotFoundError:
        return "missing"
    except OSError:  # shorter than that
        return "incomplete"
    return "" if is_whole else "incomplete"


def conform(rows: Table, schema: Schema) -> Table:
    """Return rows with the columns of a schema, found by name; one that the rows lack is null."""
    present = set(rows.schema.names)
    columns = [
        rows[field.name].cast(field.type) if field.name in present else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
