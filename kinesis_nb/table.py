"""The Delta table of a sync: rows and checkpoints in one commit, and a fence against a second writer.

Every commit carries, next to the rows, ``txn`` actions that say for each shard how far it got. Delta applies both or
neither, so after a crash the checkpoint is exactly what the rows say. To own a shard a writer commits an empty
transaction that raises the shard's epoch; Delta refuses a commit from a handle that is older than another writer's
commit to the same ``txn`` name, and that is the fence. A handle that was just brought up to date would be accepted
whatever epoch it carries, so after every refresh that may have brought more than our own commit the epochs are read
again before anything else is committed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb.errors import Fenced, TableError
from kinesis_nb.frames import SCHEMA
from kinesis_nb.storage import Storage, explain, storage_errors
from kinesis_nb.txns import Txns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from deltalake import DeltaTable

TABLE_SCHEMA = SCHEMA.insert(5, pa.field("shard_offset", pa.int64()))
"""The columns of every row, and its gap-free place in the lineage of its shard.

``ORDER BY partition_key, shard_offset``. Unique is ``(shard_id, sequence_number, sub_sequence_number)``: the rows of an
aggregate share a sequence number. They come in one batch and go into one commit, so no checkpoint lies within them.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE = 62  # bits; a txn version is an int64 and a sequence number has up to 186 bits
_PIECES = 3
_KEYS = ("offset", "state", "seen", "gaps", "stamp", *(f"seq{piece}" for piece in range(_PIECES)))
_GAP_KEYS = ("offset", "seen", "until")
_TRIES = 20
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # maintenance does both
_PROPERTIES = {
    # every commit lists the log, so it must stay short; who opens the table has so long to read it
    "delta.logRetentionDuration": "interval 20 seconds",
    "delta.deletedFileRetentionDuration": "interval 1 days",  # so long a reader may hold on to what it opened
}


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
    seen
        Everything that arrived up to this moment was read, in whole milliseconds; None before the first answer.
    gaps
        How many times records were lost to the stream's retention.
    stamp
        The ``foundry_ingestion_timestamp`` of the last row, or of its parents' last; it never goes back.
    """

    offset: int = 0
    sequence_number: str | None = None
    ended: bool = False
    seen: datetime | None = None
    gaps: int = 0
    stamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordedGap:
    """Records that are not in the table, because the stream did not keep them until they were read.

    Attributes
    ----------
    offset
        The ``shard_offset`` of the first row behind the gap.
    seen, until
        It begins after `seen`, and ends before `until`, the arrival of that row; None where that is not known.
    """

    shard_id: str
    offset: int
    seen: datetime | None
    until: datetime | None

    def __str__(self) -> str:
        seen = f"{self.seen:%Y-%m-%d %H:%M:%S} UTC" if self.seen else "the start"
        until = f"{self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "the end of the shard"
        return f"lost: {self.shard_id}, from {seen} to {until}"


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
    """A Delta table that one sync writes. Not thread-safe: one thread commits."""

    def __init__(self, storage: Storage, table: DeltaTable, origin: Origin) -> None:
        self.storage, self.origin = storage, origin
        self._table = table
        self._options = storage.options()  # that the handle was opened with
        self._sync = origin.stream_arn
        self._numbers = Txns(storage)
        self._epochs: dict[str, int] = {}
        self._is_in_doubt = False  # whether the last commit may have landed, or a rival's may have
        self._durable = table.version()

    @classmethod
    def open(cls, storage: Storage, origin: Origin) -> SyncTable:
        """Open the table of a sync, or make it where there is nothing yet.

        Raises
        ------
        TableError
            When something else is there, the place cannot be used, or the table belongs to another stream. Nothing is
            written then.
        """
        try:
            storage.refuse_foreign()
            storage.check_fencing()
            if not storage.exists():
                _create(storage, origin)
            table = storage.open()
        except OSError as error:
            raise explain(storage.uri, error) from error
        return cls(storage, table, _check_origin(storage.uri, table, origin))

    @property
    def version(self) -> int:
        """The newest version that this writer has seen."""
        return self._table.version()

    def ended(self, shard_ids: Iterable[str]) -> set[str]:
        """Return those shards of which everything is in the table."""
        ids = list(shard_ids)
        states = self._txns((shard_id, "state") for shard_id in ids)
        return {shard_id for shard_id, state in zip(ids, states, strict=True) if state}

    def checkpoints(self, shard_ids: Iterable[str]) -> dict[str, Checkpoint]:
        """Return how far shards got."""
        return self._checkpoints(self._table, shard_ids)

    def _checkpoints(self, table: DeltaTable, shard_ids: Iterable[str]) -> dict[str, Checkpoint]:
        ids = list(shard_ids)
        values = self._txns(((shard_id, key) for shard_id in ids for key in _KEYS), table)
        return {shard_id: _decode([next(values) for _ in _KEYS]) for shard_id in ids}

    def acquire(self, shard_ids: Iterable[str]) -> None:
        """Become the owner of shards: whoever owned them is fenced from its next commit on.

        Raises
        ------
        OSError
            When the table cannot be read or written; then ownership is not known, and this may be called again.
        """
        wanted = list(shard_ids)
        # meanwhile the handle may move beyond a rival's take-over of what is owned already
        was_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        for _ in range(_TRIES):
            found = self._txns((shard_id, "epoch") for shard_id in wanted)
            epochs = {shard_id: epoch + 1 for shard_id, epoch in zip(wanted, found, strict=True)}
            with storage_errors():
                try:
                    self._write([], [self._transaction(shard_id, "epoch", epoch) for shard_id, epoch in epochs.items()])
                except CommitFailedError:  # somebody else acquires at the same time
                    self._table.update_incremental()
                    continue
                self._epochs |= epochs
                self._update()
            self._check_epochs()
            self._is_in_doubt = was_in_doubt  # a take-over from here on is newer than the handle
            return
        msg = f"{self.storage.uri} is being taken over by others again and again"
        raise Fenced(msg, hint="stop the other syncs of this table")

    def refresh(self) -> None:
        """Look at what other writers committed, each to its own shards.

        Raises
        ------
        Fenced
            When one of them took a shard of this writer over.
        OSError
            When the table cannot be read.
        """
        was_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        with storage_errors():
            self._update()
        self._check_epochs()
        self._is_in_doubt = was_in_doubt  # a take-over from here on is newer than the handle

    def write_rows(self, rows: pa.Table) -> AddAction | None:
        """Write rows to a durable file that is not part of the table yet; None for no rows."""
        if not rows.num_rows:
            return None
        with storage_errors():
            name, size = self.storage.write_parquet(rows)
        return AddAction(name, size, {}, int(time.time() * 1000), True, json.dumps({"numRecords": rows.num_rows}))

    def gaps(self, shard_ids: Iterable[str]) -> list[RecordedGap]:
        """Return what is known to be lost of shards."""
        numbers = {shard_id: found.gaps for shard_id, found in self.checkpoints(shard_ids).items() if found.gaps}
        places = [(shard_id, number) for shard_id, count in numbers.items() for number in range(count)]
        values = self._txns((shard_id, f"gap{number}/{key}") for shard_id, number in places for key in _GAP_KEYS)
        return [
            RecordedGap(shard_id, next(values), _moment(1000 * next(values)), _moment(1000 * next(values)))
            for shard_id, _ in places
        ]

    def commit(
        self, file: AddAction | None, checkpoints: Mapping[str, Checkpoint], gaps: Iterable[RecordedGap] = ()
    ) -> bool:
        """Publish a file and the checkpoints that go with it, both or neither. The shards must have been acquired.

        Parameters
        ----------
        gaps
            The last gap of each shard whose checkpoint counts one more.

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
        if self._is_in_doubt or self._options != self.storage.options():
            self._reopen()
            self._check_epochs()  # the handle is newer than any take-over, and Delta would accept anything from it
            if self._holds(self._table, checkpoints):  # it landed at an earlier try that could not find out
                return self._landed()
        self._is_in_doubt = True
        try:
            self._write([file] if file else [], self._transactions(checkpoints, gaps), map(str, gaps))
            self._update()
        except (DeltaError, OSError):
            return self._has_landed(checkpoints)
        self._is_in_doubt = False
        return True

    def _reopen(self) -> None:
        """Take a new handle: with new credentials, and with no part of the log that was cleaned up meanwhile."""
        self._is_in_doubt = True
        options = self.storage.options()
        self._table, self._options = self.storage.open(), options

    def _has_landed(self, checkpoints: Mapping[str, Checkpoint]) -> bool:
        """Find out what an error of :meth:`commit` left behind, from the table itself."""
        try:
            table = self.storage.open()
            landed = self._holds(table, checkpoints)
        except (DeltaError, OSError):
            return False  # the old handle stays: from it, Delta refuses to write the same transactions twice
        self._table = table
        self._check_epochs()
        return landed and self._landed()

    def _landed(self) -> bool:
        self._make_durable()
        self._is_in_doubt = False
        return True

    def _holds(self, table: DeltaTable, checkpoints: Mapping[str, Checkpoint]) -> bool:
        return self._checkpoints(table, checkpoints) == dict(checkpoints)

    def _transactions(self, checkpoints: Mapping[str, Checkpoint], gaps: Iterable[RecordedGap]) -> list[Transaction]:
        reached = [
            self._transaction(shard_id, key, value)
            for shard_id, checkpoint in checkpoints.items()
            for key, value in _encode(checkpoint, self._epochs[shard_id])
        ]
        lost = [
            self._transaction(gap.shard_id, f"gap{checkpoints[gap.shard_id].gaps - 1}/{key}", value)
            for gap in gaps
            for key, value in zip(_GAP_KEYS, (gap.offset, _millis(gap.seen), _millis(gap.until)), strict=True)
        ]
        return reached + lost

    def _write(
        self, files: list[AddAction | RemoveAction], transactions: list[Transaction], notes: Iterable[str] = ()
    ) -> None:
        """Commit; `notes` go into the table's history."""
        note = "; ".join(notes)
        self._table.create_write_transaction(
            files,
            "append",
            self._table.schema(),
            commit_properties=CommitProperties(
                custom_metadata={"kinesis_nb": note} if note else None,
                app_transactions=transactions,
                max_commit_retries=15,
            ),
            post_commithook_properties=NO_HOOKS,
        )

    def _update(self) -> None:
        """Bring the handle up to the commit just made, and make that commit survive a power cut."""
        before = self.version
        self._table.update_incremental()
        self._make_durable()
        if self.version != before + 1:  # not only our own
            self._check_epochs()

    def _make_durable(self) -> None:
        self.storage.make_durable(range(self._durable + 1, self.version + 1))
        self._durable = self.version

    def _check_epochs(self) -> None:
        found = self._txns((shard_id, "epoch") for shard_id in self._epochs)
        for (shard_id, epoch), owner in zip(self._epochs.items(), found, strict=True):
            if owner != epoch:
                msg = f"another writer took {shard_id} of this sync over"
                raise Fenced(msg, hint="only one sync may write a table; this one stopped and lost nothing")

    def _txns(self, names: Iterable[tuple[str, str]], table: DeltaTable | None = None) -> Iterator[int]:
        """Return the numbers of `txn` names, 0 for those that were never committed."""
        with storage_errors():
            numbers = self._numbers.at((table or self._table).version())
        return iter([numbers.get(f"{self._sync}/{shard_id}/{key}", 0) for shard_id, key in names])

    def _transaction(self, shard_id: str, key: str, value: int) -> Transaction:
        return Transaction(f"{self._sync}/{shard_id}/{key}", value)


def _encode(checkpoint: Checkpoint, epoch: int) -> list[tuple[str, int]]:
    number = int(checkpoint.sequence_number or 0)
    pieces = ((number >> (_PIECE * piece)) & (2**_PIECE - 1) for piece in range(_PIECES))
    stamp = _micros(checkpoint.stamp)
    values = (checkpoint.offset, int(checkpoint.ended), _millis(checkpoint.seen), checkpoint.gaps, stamp, *pieces)
    return [("epoch", epoch), *zip(_KEYS, values, strict=True)]


def _decode(values: list[int]) -> Checkpoint:
    offset, ended, seen, gaps, stamp, *pieces = values
    number = sum(value << (_PIECE * piece) for piece, value in enumerate(pieces))
    sequence_number = str(number) if number else None
    return Checkpoint(offset, sequence_number, bool(ended), _moment(1000 * seen), gaps, _moment(stamp))


def _micros(moment: datetime | None) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) if moment else 0


def _millis(moment: datetime | None) -> int:
    return _micros(moment) // 1000


def _moment(micros: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=micros) if micros else None


def in_millis(moment: datetime) -> datetime:
    """Return a moment as a checkpoint keeps it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _create(storage: Storage, origin: Origin) -> None:
    try:
        storage.create(
            schema=TABLE_SCHEMA,
            mode="error",
            name=origin.stream_arn.rpartition("/")[2],
            description=json.dumps({"kinesis_nb": asdict(origin)}),
            configuration=_PROPERTIES,
        )
    except OSError:
        if not storage.exists():  # else another process was first, and whose it is will be seen
            raise


def _check_origin(uri: str, table: DeltaTable, wanted: Origin) -> Origin:
    """Return the origin that the table was made with."""
    try:
        found = Origin(**json.loads(table.metadata().description or "")["kinesis_nb"])
    except (ValueError, KeyError, TypeError):
        msg = f"{uri} is a Delta table, but not one that a sync made"
        raise TableError(msg, hint="give a new place") from None
    if found.stream_arn != wanted.stream_arn:
        msg = f"{uri} belongs to {found.stream_arn}, not to {wanted.stream_arn}"
        raise TableError(msg, hint="every stream needs a table of its own")
    if found.created_at != wanted.created_at:
        msg = f"{uri} belongs to an earlier stream of the same name, created {found.created_at}"
        raise TableError(msg, hint="the stream was deleted and made again; sync it into a new table")
    return found
