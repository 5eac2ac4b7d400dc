"""The Delta table of a sync: rows and checkpoints in one commit, and a fence against a second writer.

Every commit carries, next to the rows, ``txn`` actions that say for each shard how far it got. Delta applies both or
neither, so after a crash the checkpoint is exactly what the rows say. To own a shard a writer commits an empty
transaction that raises the shard's epoch; Delta refuses a commit from a handle that is older than another writer's
commit to the same ``txn`` name, and that is the fence. A handle that was just brought up to date would be accepted
whatever epoch it carries, so after every refresh that may have brought more than our own commit the epochs are read
again before anything else is committed.

Calls of the same sync take turns. Each first claims the table, which gives it a number: the order of the claims in the
log is the order of the calls. The writer sees the claim, commits what it has, and releases the table; then the claimant
takes it. All three are ``txn`` actions too, so nothing beside the table decides who writes it.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.core.selection import check_same
from kinesis_nb.errors import Fenced, TableError
from kinesis_nb.table import address, deltalog
from kinesis_nb.table.origin import Origin, has_properties, read_origin
from kinesis_nb.table.storage import LOG, Storage, conform, explain, one_line, storage_errors
from kinesis_nb.table.txns import Txns

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
_SEQUENCE = tuple(f"seq{piece}" for piece in range(_PIECES))
_KEYS = ("offset", "state", "seen", "kept", "gaps", "stamp", "arrived", "dropped", "filtered", *_SEQUENCE)
_RARE = ("kept", "dropped", "filtered")  # written when they change: in most syncs they never do
_GAP_KEYS = ("offset", "seen", "until")
_TURNS = "run"  # stands where the id of a shard stands in the other names
_TRIES = 20
_RELATIVE = re.compile(r"[\w.=-]+(/[\w.=-]+)*")
MAPPING = "delta.columnMapping.mode"
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
        Of the last record that was read, and committed if it was to be kept; None when there was none yet.
    ended
        Whether everything in the (closed) shard is committed.
    seen
        Everything that arrived up to this moment was read, in whole milliseconds; None before the first answer.
    kept
        How long the stream kept its records when `seen` was recorded, in hours; 0 when that was not known.
    gaps
        How many times records were lost to the stream's retention.
    stamp
        The ``foundry_ingestion_timestamp`` of the last row, or of its parents' last; it never goes back.
    arrived
        The ``kinesis_ingestion_timestamp`` of the last row, in whole milliseconds; None when there was none yet.
    dropped
        How many user records of aggregates up to that record are not in the table, because their hash keys are another
        shard's.
    filtered
        How many rows were read and not kept. The last row that the others speak of may be one of these.
    """

    offset: int = 0
    sequence_number: str | None = None
    ended: bool = False
    seen: datetime | None = None
    kept: int = 0
    gaps: int = 0
    stamp: datetime | None = None
    arrived: datetime | None = None
    dropped: int = 0
    filtered: int = 0


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
class Turns:
    """Who wants the table, who has it, and who has let go of it: numbers of calls, in the order of their claims.

    Attributes
    ----------
    claimed
        The newest call that wants the table; 0 when there was none.
    taken
        The newest call that took shards of it.
    released
        The newest call that has committed its last row, or whose successor need not wait for that.
    """

    claimed: int
    taken: int
    released: int


class SyncTable:
    """A Delta table that one sync writes. Not thread-safe: one thread commits."""

    def __init__(self, storage: Storage, table: DeltaTable, origin: Origin) -> None:
        self.storage, self.origin = storage, origin
        self._table = table
        self._options = storage.options()  # that the handle was opened with
        self._sync = origin.stream_arn
        self._numbers = Txns(storage)
        self._epochs: dict[str, int] = {}
        self._turn = 0  # the number of this writer's call; 0 before it has claimed the table
        self._run = ""  # whose writers have the same number
        self._rare: dict[tuple[str, str], int] = {}  # what the table is known to hold of those, by shard and key
        self._is_in_doubt = False  # whether the last commit may have landed, or a rival's may have
        self.refusal = ""  # why the last commit did not go through
        self._durable: int | None = None  # up to which the log is known to survive a power cut

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
            storage.settle()
            table = storage.open()
            made = cls(storage, table, _check_origin(storage, table, origin))
            made._use(table)
            made._make_durable()  # what is read there is built on, and may have been written just now
        except OSError as error:
            raise explain(storage.uri, error) from error
        return made

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
        numbers = self._all_numbers(table)
        return {shard_id: reached(numbers, self._sync, shard_id) for shard_id in shard_ids}

    def known(self) -> set[str]:
        """Return the ids of all shards that the table says anything about."""
        return known(self._all_numbers(self._table), self._sync)

    def acquired(self, shard_ids: Iterable[str]) -> set[str]:
        """Return those shards that some writer has owned."""
        ids = list(shard_ids)
        epochs = self._txns((shard_id, "epoch") for shard_id in ids)
        return {shard_id for shard_id, epoch in zip(ids, epochs, strict=True) if epoch}

    # --- turns

    def turns(self) -> Turns:
        """Return whose turn it is, at the newest version that this writer has seen."""
        return Turns(*self._txns((_TURNS, key) for key in ("claimed", "taken", "released")))

    @property
    def turn(self) -> int:
        """The number of this writer's call; 0 before it has claimed the table."""
        return self._turn

    def claim(self, run: str = "") -> int:
        """Ask for the table, after everybody who asked before; return the number of this call.

        Parameters
        ----------
        run
            The name of a run of several writers, who share one number: the first one that comes claims the table for
            all. Empty for a single writer.

        Raises
        ------
        Fenced
            When the run had the table before, and another call took it since.
        OSError
            When the table cannot be read or written; then this may be called again.
        """
        self._run = run
        for _ in range(_TRIES):
            known = self._turn
            self.refresh()
            if self._turn > known:  # another writer of the run was first
                return self._turn
            number = self.turns().claimed + 1
            names = ["claimed", f"{run}/claimed"] if run else ["claimed"]
            if self._has_written([self._transaction(_TURNS, name, number) for name in names]):
                self._turn = number
                return number
        raise self._contended()

    def release(self) -> None:
        """Tell whoever wants the table that this writer has committed its last row."""
        if self.turns().taken == self._turn:
            self._has_written([self._transaction(_TURNS, "released", self._turn)])

    def faults(self, *, every: bool = False) -> list[str]:
        """Name the data files of this version that are missing or torn.

        Parameters
        ----------
        every
            Whether files of the right size are opened as well.
        """
        found = pa.table(self._table.get_add_actions())
        sizes = dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))
        with storage_errors():
            present = {} if every else self.storage.data_files()
            suspects = [name for name, size in sizes.items() if name not in present or present[name].size != size]
            # a shallow clone names files of another table
            return list(filter(None, map(self.storage.fault, filter(_RELATIVE.fullmatch, suspects))))

    def acquire(self, shard_ids: Iterable[str]) -> None:
        """Become the owner of shards: whoever owned them is fenced from its next commit on.

        Raises
        ------
        Fenced
            When a newer call has taken the table.
        OSError
            When the table cannot be read or written; then ownership is not known, and this may be called again.
        """
        wanted = list(shard_ids)
        # meanwhile the handle may move beyond a rival's take-over of what is owned already
        was_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        for shard_id in wanted:
            self._epochs.pop(shard_id, None)  # an earlier try may have raised it without our knowledge
        for _ in range(_TRIES):
            self._check_epochs()  # what was acquired by a fresh handle would fence a newer call
            found = self._txns((shard_id, "epoch") for shard_id in wanted)
            epochs = {shard_id: epoch + 1 for shard_id, epoch in zip(wanted, found, strict=True)}
            transactions = [self._transaction(shard_id, "epoch", epoch) for shard_id, epoch in epochs.items()]
            if self._has_written([*transactions, *self._taking()], epochs):
                self._check_epochs()
                self._is_in_doubt = was_in_doubt  # a take-over from here on is newer than the handle
                return
        raise self._contended()

    def _taking(self) -> list[Transaction]:
        """Return what makes two calls that take shards at the same time conflict, whichever shards they are.

        Writers of the same call must not conflict: once one of them has taken the table, the others write nothing here.
        """
        if not self._turn or (self._run and self.turns().taken == self._turn):
            return []
        keys = ["taken", "released"] if self._run else ["taken"]  # nobody waits for all writers of a run
        return [self._transaction(_TURNS, key, self._turn) for key in keys]

    def _has_written(self, transactions: list[Transaction], epochs: Mapping[str, int] | None = None) -> bool:
        """Commit transactions alone; return False when another writer committed to one of them first."""
        with storage_errors():
            try:
                self._write([], transactions)
            except CommitFailedError:
                self._table.update_incremental()
                return False
            self._epochs |= epochs or {}
            self._update()
        return True

    def _contended(self) -> Fenced:
        msg = f"{self.storage.uri} is being taken over by others again and again"
        return Fenced(msg, hint="stop the other syncs of this table")

    def has_news(self) -> bool:
        """Return whether others committed since the newest version that this writer has seen: one small request.

        False too when that entry of the log was removed again, so :meth:`refresh` is to be called now and then.
        """
        with storage_errors():
            return self.storage.has(f"{LOG}/{self.version + 1:020d}.json")

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
        if self._options != self.storage.options():
            self._reopen()
        with storage_errors():
            self._update()
        self._check_epochs()
        self._is_in_doubt = was_in_doubt  # a take-over from here on is newer than the handle

    def write_rows(self, rows: pa.Table) -> AddAction | None:
        """Write rows to a durable file that is not part of the table yet; None for no rows."""
        if not rows.num_rows:
            return None
        with storage_errors():
            name, size = self.storage.write_parquet(rows, str(self._table.metadata().id))
        return AddAction(name, size, {}, int(time.time() * 1000), True, json.dumps({"numRecords": rows.num_rows}))

    def has_file(self, file: AddAction) -> bool:
        """Return whether a file that :meth:`write_rows` gave is still there."""
        with storage_errors():
            return self.storage.has(file.path)

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
        self,
        file: AddAction | None,
        checkpoints: Mapping[str, Checkpoint],
        gaps: Iterable[RecordedGap] = (),
        notes: Iterable[str] = (),
    ) -> bool:
        """Publish a file and the checkpoints that go with it, both or neither. The shards must have been acquired.

        Parameters
        ----------
        gaps
            The last gap of each shard whose checkpoint counts one more.
        notes
            For the table's history.

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
                self._make_durable()
                return self._landed(checkpoints)
        self._is_in_doubt = True
        try:
            notes = [*map(str, gaps), *notes]
            self._write([file] if file else [], self._transactions(checkpoints, gaps), notes)
            self._update()
        except (DeltaError, OSError) as error:
            self.refusal = one_line(error)
            return self._has_landed(checkpoints)
        return self._landed(checkpoints)

    def _reopen(self) -> None:
        """Take a new handle: with new credentials, and with no part of the log that was cleaned up meanwhile."""
        self._is_in_doubt = True
        options = self.storage.options()
        self._use(self.storage.open())
        self._options = options

    def _use(self, table: DeltaTable) -> None:
        """Continue with another handle; raise TableError when somebody changed the table so that rows do not fit."""
        if (problem := unwritable(self.storage.uri, table)) is not None:
            raise problem
        self._table = table

    def _has_landed(self, checkpoints: Mapping[str, Checkpoint]) -> bool:
        """Find out what an error of :meth:`commit` left behind, from the table itself."""
        try:
            table = self.storage.open()
            landed = self._holds(table, checkpoints)
        except (DeltaError, OSError):
            return False  # the old handle stays: from it, Delta refuses to write the same transactions twice
        self._use(table)
        self._check_epochs()
        if not landed:
            return False
        self._make_durable()
        return self._landed(checkpoints)

    def _landed(self, checkpoints: Mapping[str, Checkpoint]) -> bool:
        self._rare |= {
            (shard_id, key): getattr(checkpoint, key) for shard_id, checkpoint in checkpoints.items() for key in _RARE
        }
        self._is_in_doubt = False
        return True

    def _holds(self, table: DeltaTable, checkpoints: Mapping[str, Checkpoint]) -> bool:
        return self._checkpoints(table, checkpoints) == dict(checkpoints)

    def _transactions(self, checkpoints: Mapping[str, Checkpoint], gaps: Iterable[RecordedGap]) -> list[Transaction]:
        reached = [
            self._transaction(shard_id, key, value)
            for shard_id, checkpoint in checkpoints.items()
            for key, value in _encode(checkpoint, self._epochs[shard_id])
            if key not in _RARE or value != self._rare.get((shard_id, key), 0)
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
                custom_metadata=deltalog.counted(files, transactions) | ({"kinesis_nb": note} if note else {}),
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
        if self._durable is None:
            self.storage.make_all_durable(self.version)
        else:
            self.storage.make_durable(range(self._durable + 1, self.version + 1))
        self._durable = self.version

    def _check_epochs(self) -> None:
        hint = "only one sync may write a table; this one stopped and lost nothing"
        if self._run:  # another writer of it may have claimed the table again, and taken it
            self._turn = max(self._turn, next(self._txns([(_TURNS, f"{self._run}/claimed")])))
        if self._turn and self.turns().taken > self._turn:
            raise Fenced("another writer took this sync over", hint=hint)
        found = self._txns((shard_id, "epoch") for shard_id in self._epochs)
        for (shard_id, epoch), owner in zip(self._epochs.items(), found, strict=True):
            if owner != epoch:
                msg = f"another writer took {shard_id} of this sync over"
                raise Fenced(msg, hint=hint)

    def _txns(self, names: Iterable[tuple[str, str]], table: DeltaTable | None = None) -> Iterator[int]:
        """Return the numbers of `txn` names, 0 for those that were never committed."""
        numbers = self._all_numbers(table or self._table)
        return iter([numbers.get(f"{self._sync}/{shard_id}/{key}", 0) for shard_id, key in names])

    def _all_numbers(self, table: DeltaTable) -> Mapping[str, int]:
        with storage_errors():
            return self._numbers.at(table.version())

    def _transaction(self, shard_id: str, key: str, value: int) -> Transaction:
        return Transaction(f"{self._sync}/{shard_id}/{key}", value)


def known(numbers: Iterable[str], stream_arn: str) -> set[str]:
    """Return the ids of all shards among the ``txn`` names of a table."""
    prefix = f"{stream_arn}/"
    names = (name.removeprefix(prefix) for name in numbers if name.startswith(prefix))
    return {name.partition("/")[0] for name in names} - {_TURNS}


def reached(numbers: Mapping[str, int], stream_arn: str, shard_id: str) -> Checkpoint:
    """Return how far a shard got, from the ``txn`` numbers of a table."""
    return _decode([numbers.get(f"{stream_arn}/{shard_id}/{key}", 0) for key in _KEYS])


def as_written(rows: pa.Table) -> pa.Table:
    """Return rows of a synced table with the columns of a sync first, and behind them those that somebody added.

    A column that somebody dropped or renamed is null.

    Raises
    ------
    TableError
        When somebody gave a column another type, and not all of its values fit the one it had.
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
    """Return the columns of a table as Arrow knows them, those that somebody added included."""
    return pa.schema([field.remove_metadata() for field in pa.schema(table.schema())])


def unwritable(uri: str, table: DeltaTable) -> TableError | None:
    """Return why a sync cannot write rows into a table that somebody changed; None when it can.

    Rows would lack a column that must not be null, or lose one that the table does not have any more.
    """
    fields = {field.name: field for field in arrow_schema(table)}
    metadata, features = table.metadata(), table.protocol().reader_features or ()
    problems = [
        *(["has deletion vectors"] if "deletionVectors" in features else []),
        *(["maps its columns"] if metadata.configuration.get(MAPPING, "none") != "none" else []),
        *(f"is partitioned by {name!r} now" for name in metadata.partition_columns),
        *(f"has no column {name!r} any more" for name in TABLE_SCHEMA.names if name not in fields),
        *filter(None, map(_unwritable_column, fields.values())),
    ]
    if not problems:
        return None
    hint = "undo the change and run the same line again; nothing is lost"
    return TableError(f"{uri} {problems[0]}, so this sync cannot write it", hint=hint)


def _unwritable_column(field: pa.Field) -> str:
    if field.name not in TABLE_SCHEMA.names:
        return "" if field.nullable else f"has a column {field.name!r} that must not be null, and a sync does not fill"
    ours = TABLE_SCHEMA.field(field.name)
    if _plain(field.type) != ours.type:
        return f"has a column {field.name!r} of type {field.type}, not {ours.type}"
    return "" if field.nullable or field.name != "data_raw" else "has a column 'data_raw' that must not be null"


def _encode(checkpoint: Checkpoint, epoch: int) -> list[tuple[str, int]]:
    number = int(checkpoint.sequence_number or 0)
    pieces = ((number >> (_PIECE * piece)) & (2**_PIECE - 1) for piece in range(_PIECES))
    stamp = _micros(checkpoint.stamp)
    seen, gaps, arrived = _millis(checkpoint.seen), checkpoint.gaps, _millis(checkpoint.arrived)
    rare = checkpoint.dropped, checkpoint.filtered
    values = (checkpoint.offset, int(checkpoint.ended), seen, checkpoint.kept, gaps, stamp, arrived, *rare, *pieces)
    return [("epoch", epoch), *zip(_KEYS, values, strict=True)]


def _decode(values: list[int]) -> Checkpoint:
    offset, ended, seen, kept, gaps, stamp, arrived, dropped, filtered, *pieces = values
    number = sum(value << (_PIECE * piece) for piece, value in enumerate(pieces))
    sequence_number = str(number) if number else None
    moments = _moment(1000 * seen), _moment(stamp), _moment(1000 * arrived)
    return Checkpoint(offset, sequence_number, bool(ended), moments[0], kept, gaps, *moments[1:], dropped, filtered)


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
        with storage_errors(), storage.creating() as uri:
            address.create(
                uri,
                storage.patient_options(),
                schema=TABLE_SCHEMA,
                mode="error",
                name=origin.stream_arn.rpartition("/")[2],
                configuration={**_PROPERTIES, **origin.properties()},
                raise_if_key_not_exists=False,
            )
    except OSError:
        if not storage.exists():  # else another process was first, and whose it is will be seen
            raise


def _check_origin(storage: Storage, table: DeltaTable, wanted: Origin) -> Origin:
    """Return the origin that the table was created with; bring that of an older table to where it is kept now."""
    found = read_origin(table)
    if found is None:
        msg = f"{storage.uri} is a Delta table, but not one that a sync made"
        raise TableError(msg, hint="give a new place")
    found.check_same_stream(wanted, storage.uri)
    check_same(found.selection, wanted.selection, storage.uri)
    if not has_properties(table):
        found = replace(found, newest_shard=wanted.newest_shard)
        set_origin(table, found)
    return found


def set_origin(table: DeltaTable, origin: Origin) -> None:
    """Write the origin into the properties of a table.

    Raises
    ------
    OSError
        When that is not possible now.
    """
    with storage_errors():
        table.alter.set_table_properties(
            origin.properties(),
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"kinesis_nb": "the origin is kept in properties now"}),
            post_commithook_properties=NO_HOOKS,
        )
