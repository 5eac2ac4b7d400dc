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
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb.core.selection import check_same
from kinesis_nb.errors import Fenced, TableError
from kinesis_nb.table import address, deltalog
from kinesis_nb.table.checkpoints import (
    GAP_KEYS,
    RARE,
    TURNS,
    Checkpoint,
    RecordedGap,
    encode,
    millis,
)
from kinesis_nb.table.failures import explain, one_line, storage_errors
from kinesis_nb.table.origin import Origin, has_properties, read_origin
from kinesis_nb.table.reader import TableReader
from kinesis_nb.table.schema import TABLE_SCHEMA, unwritable
from kinesis_nb.table.storage import LOG, Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa
    from deltalake import DeltaTable

_TRIES = 20
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # maintenance does both
_PROPERTIES = {
    # every commit lists the log, so it must stay short; this is how long a reader has to open the table
    "delta.logRetentionDuration": "interval 20 seconds",
    "delta.deletedFileRetentionDuration": "interval 1 days",  # how long a reader may use a version that it opened
}


class SyncTable(TableReader):
    """A Delta table that one sync writes. Not thread-safe: one thread commits."""

    def __init__(self, storage: Storage, table: DeltaTable, origin: Origin) -> None:
        super().__init__(storage, table, origin)
        self._options = storage.options()  # that the handle was opened with
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

    # --- turns

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
            if self._has_written([self._transaction(TURNS, name, number) for name in names]):
                self._turn = number
                return number
        raise self._contended()

    def release(self) -> None:
        """Record for the next call that this writer has committed its last row."""
        if self.turns().taken == self._turn:
            self._has_written([self._transaction(TURNS, "released", self._turn)])

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
        return [self._transaction(TURNS, key, self._turn) for key in keys]

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

        False too when that entry of the log was cleaned up, so :meth:`refresh` must be called now and then.
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
        """Continue with another handle; raise TableError when others changed the table so that rows do not fit."""
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
            (shard_id, key): getattr(checkpoint, key) for shard_id, checkpoint in checkpoints.items() for key in RARE
        }
        self._is_in_doubt = False
        return True

    def _holds(self, table: DeltaTable, checkpoints: Mapping[str, Checkpoint]) -> bool:
        return self._checkpoints(table, checkpoints) == dict(checkpoints)

    def _transactions(self, checkpoints: Mapping[str, Checkpoint], gaps: Iterable[RecordedGap]) -> list[Transaction]:
        reached = [
            self._transaction(shard_id, key, value)
            for shard_id, checkpoint in checkpoints.items()
            for key, value in encode(checkpoint, self._epochs[shard_id])
            if key not in RARE or value != self._rare.get((shard_id, key), 0)
        ]
        lost = [self._gap(gap, checkpoints[gap.shard_id].gaps - 1) for gap in gaps]
        return reached + [transaction for transactions in lost for transaction in transactions]

    def _gap(self, gap: RecordedGap, number: int) -> list[Transaction]:
        values = (gap.offset, millis(gap.seen), millis(gap.until))
        places = zip(GAP_KEYS, values, strict=True)
        return [self._transaction(gap.shard_id, f"gap{number}/{key}", value) for key, value in places]

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
            self._turn = max(self._turn, next(self._txns([(TURNS, f"{self._run}/claimed")])))
        if self._turn and self.turns().taken > self._turn:
            raise Fenced("another writer took this sync over", hint=hint)
        found = self._txns((shard_id, "epoch") for shard_id in self._epochs)
        for (shard_id, epoch), owner in zip(self._epochs.items(), found, strict=True):
            if owner != epoch:
                msg = f"another writer took {shard_id} of this sync over"
                raise Fenced(msg, hint=hint)

    def _transaction(self, shard_id: str, key: str, value: int) -> Transaction:
        return Transaction(f"{self._sync}/{shard_id}/{key}", value)


def _create(storage: Storage, origin: Origin) -> None:
    try:
        with storage_errors(), storage.creating() as uri:
            address.create(
                uri,
                storage.options_with_timeouts(),
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
