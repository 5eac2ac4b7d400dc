"""The columns of a synced table, and what of them others may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.errors import TableError
from kinesis_nb.table.datafiles import conform

if TYPE_CHECKING:
    from deltalake import DeltaTable

TABLE_SCHEMA = SCHEMA.insert(5, pa.field("shard_offset", pa.int64()))
"""The columns of every row, and its gap-free place in the lineage of its shard.

``ORDER BY partition_key, shard_offset``. Unique is ``(shard_id, sequence_number, sub_sequence_number)``: the rows of an
aggregate share a sequence number. They come in one batch and go into one commit, so no checkpoint lies within them.
"""
MAPPING = "delta.columnMapping.mode"


def as_written(rows: pa.Table) -> pa.Table:
    """Return rows of a synced table with the columns of a sync first, followed by those that others added.

    A column that others dropped or renamed is null.

    Raises
    ------
    TableError
        When others changed the type of a column, and not all of its values fit the old one.
    """
    added = [field for field in rows.schema if field.name not in TABLE_SCHEMA.names]
    plain = [pa.field(field.name, _plain(field.type)) for field in added]
    try:
        return conform(rows, pa.schema([*TABLE_SCHEMA, *plain]))
    except pa.ArrowInvalid as error:
        msg = f"a column of the table has another type than a sync wrote: {error}"
        raise TableError(msg, hint="scan() returns the rows as they are") from error


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of a text or of bytes as pyarrow knows it best; polars hands over others."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) else kind


def arrow_schema(table: DeltaTable) -> pa.Schema:
    """Return the columns of a table as Arrow knows them, including those that others added."""
    return pa.schema([field.remove_metadata() for field in pa.schema(table.schema())])


def unwritable(uri: str, table: DeltaTable) -> TableError | None:
    """Return why a sync cannot write rows into a table that others changed; None when it can.

    Rows would lack a column that must not be null, or lose one that the table does not have any more.
    """
    problems = _problems(table)
    if not problems:
        return None
    hint = "undo the change and run the same line again; nothing is lost"
    return TableError(f"{uri} {problems[0]}, so this sync cannot write it", hint=hint)


def _problems(table: DeltaTable) -> list[str]:
    fields = {field.name: field for field in arrow_schema(table)}
    metadata, features = table.metadata(), table.protocol().reader_features or ()
    return [
        *(["has deletion vectors"] if "deletionVectors" in features else []),
        *(["maps its columns"] if metadata.configuration.get(MAPPING, "none") != "none" else []),
        *(f"is partitioned by {name!r} now" for name in metadata.partition_columns),
        *(f"has no column {name!r} any more" for name in TABLE_SCHEMA.names if name not in fields),
        *filter(None, map(_unwritable_column, fields.values())),
    ]


def _unwritable_column(field: pa.Field) -> str:
    if field.name not in TABLE_SCHEMA.names:
        return "" if field.nullable else f"has a column {field.name!r} that must not be null, and a sync does not fill"
    ours = TABLE_SCHEMA.field(field.name)
    if _plain(field.type) != ours.type:
        return f"has a column {field.name!r} of type {field.type}, not {ours.type}"
    return "" if field.nullable or field.name != "data_raw" else "has a column 'data_raw' that must not be null"
