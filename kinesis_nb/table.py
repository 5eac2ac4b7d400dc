"""The Delta table of a sync: rows and checkpoints in one commit, and a fence against a second writer.

Every commit carries, next to the rows, ``txn`` actions that say for each shard how far it got. Delta applies both or
neither, so after a crash the checkpoint is exactly what the rows say. To own a shard a writer commits an empty
transaction that raises the shard's epoch; Delta refuses a commit from a handle that is older than another writer's
commit to the same ``txn`` name, and that is the fence. A handle that was just brought up to date would be accepted
whatever epoch it carries, so after every refresh the epochs are read again before anything else is committed.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb.errors import Fenced, TableError
from kinesis_nb.frames import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

TABLE_SCHEMA = SCHEMA.insert(5, pa.field("shard_offset", pa.int64()))
"""The columns of every row, and its gap-free place in the lineage of its shard.

``ORDER BY partition_key, shard_offset``. Unique is ``(shard_id, sequence_number, sub_sequence_number)``: the rows of an
aggregate share a sequence number. They come in one batch and go into one commit, so no checkpoint lies within them.
"""

_PIECE = 62  # bits; a txn version is an int64 and a sequence number has up to 186 bits
_PIECES = 3
_TRIES = 20
_LOG_CHECKPOINT_EVERY = 100  # commits; keeps opening the table fast


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one shard got.

    Attributes
    ----------
    offset
        The ``shard_offset`` of the next row.
    sequence_number
        Of the last committed record; None when there was none yet.
    ended
        Whether everything in the (closed) shard is committed.
    """

    offset: int = 0
    sequence_number: str | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Which stream a table belongs to; kept in the table's own description.

    Attributes
    ----------
    stream_arn, created_at
        Together they tell a stream from all others, and from a later one of the same name.
    start
        ``trim_horizon``, or the ISO time where the sync started reading.
    """

    stream_arn: str
    created_at: str
    start: str


class SyncTable:
    """A Delta table on the local file system that one sync writes. Not thread-safe: one thread commits."""

    def __init__(self, path: Path, table: DeltaTable, origin: Origin) -> None:
        self.path, self.origin = path, origin
        self._table = table
        self._sync = origin.stream_arn
        self._epochs: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], origin: Origin) -> SyncTable:
        """Open the table of a sync, or make it where there is nothing yet.

        Raises
        ------
        TableError
            When something else is there, or the table belongs to another stream. Nothing is written then.
        """
        path = Path(path)
        _refuse_foreign(path)
        if not DeltaTable.is_deltatable(str(path)):
            with suppress(DeltaError):  # another process may be first; then the check below decides
                _create(path, origin)
        try:
            table = DeltaTable(str(path))
        except (DeltaError, OSError) as error:
            msg = f"{path} cannot be opened as a Delta table: {error}"
            raise TableError(msg, hint="check the path and its permissions") from error
        return cls(path, table, _check_origin(path, table, origin))

    @property
    def version(self) -> int:
        """The newest version that this writer has seen."""
        return self._table.version()

    def checkpoint(self, shard_id: str) -> Checkpoint | None:
        """Return how far a shard got, None for a shard that was never committed."""
        return self._checkpoint(self._table, shard_id)

    def _checkpoint(self, table: DeltaTable, shard_id: str) -> Checkpoint | None:
        offset = self._txn(table, shard_id, "offset")
        if offset is None:
            return None
        number = sum((self._txn(table, shard_id, f"seq{piece}") or 0) << (_PIECE * piece) for piece in range(_PIECES))
        return Checkpoint(offset, str(number) if number else None, bool(self._txn(table, shard_id, "state")))

    def acquire(self, shard_ids: Iterable[str]) -> None:
        """Become the owner of shards: whoever owned them is fenced from its next commit on.

        Raises
        ------
        OSError
            When the table cannot be read or written; then ownership is not known, and this may be called again.
        """
        wanted = list(shard_ids)
        for _ in range(_TRIES):
            epochs = {shard_id: (self._txn(self._table, shard_id, "epoch") or 0) + 1 for shard_id in wanted}
            with _storage_errors():
                try:
                    self._write([], [self._transaction(shard_id, "epoch", epoch) for shard_id, epoch in epochs.items()])
                except CommitFailedError:  # somebody else acquires at the same time
                    self._table.update_incremental()
                    continue
                self._update()
            self._epochs |= epochs
            self._check_epochs()
            return
        msg = f"{self.path} is being taken over by others again and again"
        raise Fenced(msg, hint="stop the other syncs of this table")

    def write_rows(self, rows: pa.Table) -> AddAction | None:
        """Write rows to a durable file that is not part of the table yet; None for no rows."""
        if not rows.num_rows:
            return None
        name = f"part-{uuid.uuid4()}.parquet"
        try:
            with (self.path / name).open("wb") as file:
                pq.write_table(rows, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self.path)
        except BaseException:
            with suppress(OSError):  # on a full disk every try would leave another piece
                (self.path / name).unlink(missing_ok=True)
            raise
        size = (self.path / name).stat().st_size
        return AddAction(name, size, {}, int(time.time() * 1000), True, json.dumps({"numRecords": rows.num_rows}))

    def commit(self, file: AddAction | None, checkpoints: Mapping[str, Checkpoint]) -> bool:
        """Publish a file and the checkpoints that go with it, both or neither. The shards must have been acquired.

        Returns
        -------
        bool
            Whether it is in the table now. After False the same commit may be tried again: if it did land unnoticed,
            the next try finds that out.

        Raises
        ------
        Fenced
            When another writer has taken one of the shards over; nothing was written then.
        """
        self._check_epochs()  # the handle may be newer than a take-over, and Delta would accept anything from it then
        if self._holds(self._table, checkpoints):
            return True  # it landed at an earlier try that could not find out
        try:
            self._write([file] if file else [], self._transactions(checkpoints))
            self._update()
        except (DeltaError, OSError):
            return self._has_landed(checkpoints)
        self._check_epochs()
        return True

    def _has_landed(self, checkpoints: Mapping[str, Checkpoint]) -> bool:
        """Find out what an error of :meth:`commit` left behind, from the table itself."""
        try:
            table = DeltaTable(str(self.path))
            landed = self._holds(table, checkpoints)
        except (DeltaError, OSError):
            return False  # the old handle stays: from it, Delta refuses to write the same transactions twice
        self._table = table
        self._check_epochs()
        return landed

    def _holds(self, table: DeltaTable, checkpoints: Mapping[str, Checkpoint]) -> bool:
        return all(self._checkpoint(table, shard_id) == wanted for shard_id, wanted in checkpoints.items())

    def _transactions(self, checkpoints: Mapping[str, Checkpoint]) -> list[Transaction]:
        return [
            self._transaction(shard_id, key, value)
            for shard_id, checkpoint in checkpoints.items()
            for key, value in _encode(checkpoint, self._epochs[shard_id])
        ]

    def _write(self, files: list[AddAction | RemoveAction], transactions: list[Transaction]) -> None:
        self._table.create_write_transaction(
            files,
            "append",
            self._table.schema(),
            commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=15),
        )

    def _update(self) -> None:
        """Bring the handle up to the commit just made, and make that commit survive a power cut."""
        self._table.update_incremental()
        _fsync(self.path / "_delta_log" / f"{self.version:020d}.json")
        _sync_folder(self.path / "_delta_log")
        if self.version and self.version % _LOG_CHECKPOINT_EVERY == 0:
            self._table.create_checkpoint()

    def _check_epochs(self) -> None:
        for shard_id, epoch in self._epochs.items():
            if self._txn(self._table, shard_id, "epoch") != epoch:
                msg = f"another writer took {shard_id} of this sync over"
                raise Fenced(msg, hint="only one sync may write a table; this one stopped and lost nothing")

    def _txn(self, table: DeltaTable, shard_id: str, key: str) -> int | None:
        with _storage_errors():  # it may have to read the log again
            return table.transaction_version(f"{self._sync}/{shard_id}/{key}")

    def _transaction(self, shard_id: str, key: str, value: int) -> Transaction:
        return Transaction(f"{self._sync}/{shard_id}/{key}", value)


@contextmanager
def _storage_errors() -> Generator[None]:
    """Raise what Delta says of its storage as the OSError that it is: to be tried again."""
    try:
        yield
    except DeltaError as error:
        raise OSError(str(error)) from error


def _encode(checkpoint: Checkpoint, epoch: int) -> list[tuple[str, int]]:
    number = int(checkpoint.sequence_number or 0)
    pieces = [(f"seq{piece}", (number >> (_PIECE * piece)) & (2**_PIECE - 1)) for piece in range(_PIECES)]
    return [("epoch", epoch), ("offset", checkpoint.offset), ("state", int(checkpoint.ended)), *pieces]


def _create(path: Path, origin: Origin) -> None:
    DeltaTable.create(
        str(path),
        schema=TABLE_SCHEMA,
        mode="error",
        name=origin.stream_arn.rpartition("/")[2],
        description=json.dumps({"kinesis_nb": asdict(origin)}),
    )


def _refuse_foreign(path: Path) -> None:
    """Accept a table, an empty folder, or nothing at all."""
    if path.exists() and not (path.is_dir() and ((path / "_delta_log").is_dir() or not any(path.iterdir()))):
        msg = f"{path} is not a Delta table, and not empty"
        raise TableError(msg, hint="give the path of a new folder, or of a table that this sync made before")


def _check_origin(path: Path, table: DeltaTable, wanted: Origin) -> Origin:
    """Return the origin that the table was made with."""
    try:
        found = Origin(**json.loads(table.metadata().description or "")["kinesis_nb"])
    except (ValueError, KeyError, TypeError):
        msg = f"{path} is a Delta table, but not one that a sync made"
        raise TableError(msg, hint="give the path of a new folder") from None
    if found.stream_arn != wanted.stream_arn:
        msg = f"{path} belongs to {found.stream_arn}, not to {wanted.stream_arn}"
        raise TableError(msg, hint="every stream needs a table of its own")
    if found.created_at != wanted.created_at:
        msg = f"{path} belongs to an earlier stream of the same name, created {found.created_at}"
        raise TableError(msg, hint="the stream was deleted and made again; sync it into a new table")
    return found


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut.

    Where folders cannot be opened (Windows) there is nothing to do.
    """
    with suppress(PermissionError):
        _fsync(folder)
