"""Whether an object store refuses to write a key that is there already: what keeps a second writer out of a table.

S3 does, and so do most stores that speak its language; some ignore the condition and write, and then two writers of a
table each take the same version for their own. It cannot be seen from outside, so it is tried: deltalake begins a new
table below the place, and while it waits for its (no) rows, the first entry of the log is written behind its back. Its
own one must be refused then. So what is tried is deltalake's own request, with its options, credentials and retries.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from kinesis_nb.table.address import url_of
from kinesis_nb.table.deltalog import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST = f"{LOG}/{0:020d}.json"
_SCHEMA = pa.schema([("x", pa.int64())])
_FIELDS = {"type": "struct", "fields": [{"name": "x", "type": "long", "nullable": True, "metadata": {}}]}


def first_entry() -> bytes:
    """Return the log entry of an empty table."""
    table = {"id": str(uuid.uuid4()), "format": {"provider": "parquet", "options": {}}, "partitionColumns": []}
    table |= {"schemaString": json.dumps(_FIELDS), "configuration": {}}
    actions = ({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": table})
    return b"\n".join(json.dumps(action).encode() for action in actions)


def collide(uri: str, options: dict[str, str], plant: Callable[[], None]) -> None:
    """Let deltalake begin a table in a new place, where `plant` writes :data:`FIRST` of another one in between.

    What is there afterwards says whether the store refused to write over it.

    Raises
    ------
    OSError, DeltaError
        When it is not known whether deltalake was refused.
    """

    def rows() -> Iterator[pa.RecordBatch]:
        plant()
        yield from ()

    with suppress(CommitFailedError):
        write_deltalake(
            url_of(uri),
            pa.RecordBatchReader.from_batches(_SCHEMA, rows()),
            mode="append",
            storage_options=options,
            commit_properties=CommitProperties(max_commit_retries=0),
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
        )
