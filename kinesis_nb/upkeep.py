"""What a running sync does beside committing: it answers who wants its table, and keeps the table fast.

Maintenance has a handle of its own and commits next to the committer; Delta merges the two, because compaction moves
rows and neither adds nor takes any.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb import deltalog
from kinesis_nb.storage import storage_errors
from kinesis_nb.table import NO_HOOKS, TABLE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltalake import DeltaTable

    from kinesis_nb.storage import Storage

LOOK_SECONDS = 1.0  # between looks for a request

EVERY = 100  # versions between two rounds of maintenance
SMALL_FILE, LARGE_FILE = 8 * 2**20, 128 * 2**20  # bytes; a round makes small files, so that no row is written often
LARGE_EVERY, VACUUM_EVERY = 20, 10  # rounds
ROUND = "kinesis_nb/maintenance"  # the `txn` name that keeps two rounds apart
RETENTION_HOURS = 24  # what a reader opened stays there for so long


class Maintenance:
    """Compacts a table, checkpoints and shortens its log, and removes files that nobody reads any more.

    Parameters
    ----------
    patience
        So many versions longer than needed it waits for another one to do it.
    """

    def __init__(self, storage: Storage, patience: int = 0) -> None:
        self._storage, self._every = storage, EVERY + patience
        self._done_at: int | None = None  # the version of the last round

    def is_due(self, version: int) -> bool:
        """Whether enough was committed up to `version` since the last round, whoever made it."""
        if self._done_at is None:
            self._done_at = self._storage.last_log_checkpoint()
        if version - self._done_at >= self._every:
            self._done_at = max(self._done_at, self._storage.last_log_checkpoint())  # another one may have been first
        return version - self._done_at >= self._every

    def run(self) -> None:
        """Make one round.

        Raises
        ------
        OSError
            When the table cannot be read or written; nothing is lost or half done then.
        """
        with storage_errors():
            table = self._storage.open()
            number = table.version() // EVERY
            self._compact(table, SMALL_FILE if number % LARGE_EVERY else LARGE_FILE)
            self._storage.checkpoint_log(table)  # durable before anything that it stands for is removed
            table.cleanup_metadata()
            if number % VACUUM_EVERY == 0:
                # full: what a crash left is in no log
                table.vacuum(RETENTION_HOURS, dry_run=False, full=True, post_commithook_properties=NO_HOOKS)
        self._done_at = table.version()

    def _compact(self, table: DeltaTable, most: int) -> None:
        """Merge small files into files of at most so many bytes, in one commit.

        Two rounds that merge the same files at once would leave their rows in the table twice: Delta sees no conflict
        in that. So the commit carries a ``txn`` of its own, and is refused when another round committed since the
        table was opened. deltalake's own compaction takes none.
        """
        now = int(time.time() * 1000)
        old: list[RemoveAction] = []
        new: list[AddAction] = []
        try:
            for files in _bins(table, most):
                name, size, rows = self._storage.merge_parquet(files, TABLE_SCHEMA)
                old += [RemoveAction(file, False, now, old_size) for file, old_size in files.items()]
                new.append(AddAction(name, size, {}, now, False, json.dumps({"numRecords": rows})))
        except BaseException:  # before the commit, whose outcome may be unknown
            self._storage.discard(action.path for action in new)
            raise
        if not new:
            return
        table.create_write_transaction(
            [*old, *new],
            "append",
            table.schema(),
            commit_properties=CommitProperties(
                custom_metadata=deltalog.counted(old, new, [ROUND]),
                app_transactions=[Transaction(ROUND, table.version() + 1)],
                max_commit_retries=15,
            ),
            post_commithook_properties=NO_HOOKS,
        )
        table.update_incremental()


def _bins(table: DeltaTable, most: int) -> list[dict[str, int]]:
    """Return files to be merged, with their sizes: some at a time, of at most so many bytes together."""
    found = pa.table(table.get_add_actions())
    sizes = dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))
    bins: list[dict[str, int]] = [{}]
    for path, size in sorted(sizes.items(), key=lambda file: file[1]):
        if sum(bins[-1].values()) + size > most:
            bins.append({})
        bins[-1][path] = size
    return [files for files in bins if len(files) > 1]


class Upkeep:
    """The thread that looks after one running sync.

    Parameters
    ----------
    version
        Gives the newest version that the sync has seen.
    on_request
        Called once, when another writer wants the table or has taken it; then the thread ends.
    patience
        As for :class:`Maintenance`.
    """

    def __init__(
        self,
        storage: Storage,
        version: Callable[[], int],
        patience: int = 0,
    ) -> None:
        self.trouble = ""  # why the last round of maintenance failed
        self._maintenance = Maintenance(storage, patience)
        self._version = version
        self._stop = threading.Event()

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Let the thread end; a round of maintenance that has begun is finished first."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._maintain()

    def _maintain(self) -> None:
        try:
            if self._maintenance.is_due(self._version()):
                self._maintenance.run()
            self.trouble = ""
        except (OSError, ValueError) as error:
            self.trouble = f"maintenance failed, and will be tried again: {error}"
