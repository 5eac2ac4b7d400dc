"""What a running sync does beside committing: it answers who wants its table, and keeps the table fast.

Maintenance has a handle of its own and commits next to the committer; Delta merges the two, because compaction moves
rows and neither adds nor takes any.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from deltalake import CommitProperties

from kinesis_nb.storage import storage_errors
from kinesis_nb.table import NO_HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.lease import Holder, Lease
    from kinesis_nb.storage import Storage

LOOK_SECONDS = 1.0  # between looks for a request

EVERY = 100  # versions between two rounds of maintenance
SMALL_FILE, LARGE_FILE = 8 * 2**20, 128 * 2**20  # bytes; a round makes small files, so that no row is written often
LARGE_EVERY, VACUUM_EVERY = 20, 10  # rounds
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
            table.optimize.compact(
                target_size=SMALL_FILE if number % LARGE_EVERY else LARGE_FILE,
                max_concurrent_tasks=1,
                commit_properties=CommitProperties(max_commit_retries=15),
                post_commithook_properties=NO_HOOKS,
            )
            table.create_checkpoint()
            table.cleanup_metadata()
            if number % VACUUM_EVERY == 0:
                # full: what a crash left is in no log
                table.vacuum(RETENTION_HOURS, dry_run=False, full=True, post_commithook_properties=NO_HOOKS)
        self._done_at = table.version()


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
        lease: Lease,
        version: Callable[[], int],
        on_request: Callable[[Holder], None],
        patience: int = 0,
    ) -> None:
        self.trouble = ""  # why the last round of maintenance failed
        self._maintenance = Maintenance(storage, patience)
        self._lease, self._version, self._on_request = lease, version, on_request
        self._stop = threading.Event()

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Let the thread end; a round of maintenance that has begun is finished first."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            if rival := self._lease.wanted_by():
                self._on_request(rival)
                return
            self._maintain()

    def _maintain(self) -> None:
        try:
            if self._maintenance.is_due(self._version()):
                self._maintenance.run()
            self.trouble = ""
        except (OSError, ValueError) as error:
            self.trouble = f"maintenance failed, and will be tried again: {error}"
