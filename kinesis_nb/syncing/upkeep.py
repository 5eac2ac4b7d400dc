"""The maintenance of a synced table: compaction, a short log, and the removal of files that are no longer read.

Maintenance has a handle of its own and commits next to the committer, and next to whatever else writes the table. It
only ever touches files of the table itself: the folder is the user's.
"""

from __future__ import annotations

import json
import random
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from kinesis_nb.core import interrupt
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.errors import KinesisError, TableError
from kinesis_nb.table import deltalog
from kinesis_nb.table.datafiles import is_ours
from kinesis_nb.table.failures import one_line, storage_errors
from kinesis_nb.table.others import OURS, to_remember
from kinesis_nb.table.schema import MAPPING, arrow_schema
from kinesis_nb.table.storage import LOG
from kinesis_nb.table.table import NO_HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from deltalake import DeltaTable
    from pyarrow.fs import FileInfo

    from kinesis_nb.core.transport import Clock
    from kinesis_nb.table.storage import Storage

POLL_SECONDS = 1.0  # between two checks whether a round is due
RETRY_SECONDS = 60.0  # between two rounds that fail, at most: one may merge for long before it does

EVERY = 100  # versions between two rounds of maintenance
SMALL_FILE, LARGE_FILE = 8 * 2**20, 128 * 2**20  # bytes; a round makes small files, so that no row is written often
LARGE_EVERY, VACUUM_EVERY = 20, 10  # rounds
ROUND = (
    f"{OURS}maintenance"  # the `txn` name of a round: marks it as ours; rounds of older releases are kept apart by it
)
RETENTION_HOURS = 24  # age from which an unpublished file is removed
CLOCK_STEP_SECONDS = 3_600.0  # a wall clock that moved by that much more than time passed tells nothing about ages
TRIES = 20  # to commit right behind the version that was read
TRY_SECONDS = 0.05  # between them, at most: a busy committer publishes a few versions a second


class Maintenance:
    """Compacts a table, checkpoints and shortens its log, and removes files that are no longer read.

    Parameters
    ----------
    patience
        How many versions it leaves a round that is due to another process.
    clock
        Of this machine by default.

    Attributes
    ----------
    is_stopping
        Ends a round that is under way where it can be left: what is merged by then is committed.
    """

    def __init__(self, storage: Storage, patience: int = 0, clock: Clock | None = None) -> None:
        self.is_stopping = threading.Event()
        self._storage, self._every = storage, EVERY + patience
        self._done_at: int | None = None  # the version of the last round
        self._clock = clock or SystemClock()
        self._seen_clocks = self._clocks()
        self._published: tuple[int, set[str]] | None = None  # where a commit of unknown outcome belongs, and its files

    def is_due(self, version: int) -> bool:
        """Whether enough was committed up to `version` since the last round, whoever made it."""
        if self._done_at is None:
            self._done_at = self._storage.last_log_checkpoint()
        if version - self._done_at >= self._every:
            self._done_at = max(self._done_at, self._storage.last_log_checkpoint())  # another one may have been first
        return version - self._done_at >= self._every

    def run(self) -> None:
        """Make one round. A part of it that fails keeps no other part from being done.

        Raises
        ------
        OSError
            When the table cannot be read or written; nothing is lost or half done then.
        """
        with storage_errors():
            table = self._storage.open()
            number = table.version() // EVERY
            most = SMALL_FILE if number % LARGE_EVERY else LARGE_FILE
            parts: list[Callable[[], None]] = [
                lambda: self._compact(table, most),
                # before the checkpoint, which forgets the removed files that are due
                lambda: self._remove_unused(table, with_orphans=number % VACUUM_EVERY == 0),
                lambda: self._shorten_log(table),
            ]
            failed = [error for part in parts if not self.is_stopping.is_set() for error in _attempt(part)]
            if failed:
                raise failed[0]
        self._done_at = table.version()

    def _shorten_log(self, table: DeltaTable) -> None:
        self._storage.checkpoint_log(table)  # durable before anything that it stands for is removed
        table.cleanup_metadata()

    # --- merging

    def _compact(self, table: DeltaTable, most: int) -> None:
        """Merge small files into files of at most `most` bytes, in one commit.

        It lands at the version right behind one in which every file that it removes was part of the table, or not at
        all: without that, rows that another writer merged meanwhile would be doubled, and rows it erased would be back.
        """
        table.update_incremental()
        if not self._settle(table.version()):
            return
        remembered = to_remember(self._storage, table.version())
        state = _Mergeable.of(table)
        merged: list[_Merged] = []
        faults: list[str] = []  # a bad file keeps no other from being merged
        try:
            for files in _bins(state.files, most):
                if self.is_stopping.is_set():
                    break
                found = {name: self._storage.fault(name) for name in files}
                faults += filter(None, found.values())
                merged += self._merge({name: size for name, size in files.items() if not found[name]}, state)
        except BaseException:  # before the commit, whose outcome may be unknown
            self._storage.discard(one.name for one in merged)
            raise
        if merged or len(remembered) > 1:  # more than up to which version the log was searched
            self._publish(table, state, merged, remembered)
        if faults:
            raise TableError("; ".join(faults), hint="put a copy of the file back; verify() names all such files")

    def _merge(self, files: dict[str, int], state: _Mergeable) -> list[_Merged]:
        if len(files) < 2:  # noqa: PLR2004 - nothing to merge it with
            return []
        return [_Merged(*self._storage.merge_parquet(files, state.schema, state.table_id), files)]

    def _publish(self, table: DeltaTable, state: _Mergeable, merged: list[_Merged], remembered: dict[str, int]) -> None:
        """Commit the merged files, as soon as nobody else commits in between; give up when one of them is outdated."""
        names = {one.name for one in merged}
        for _ in range(TRIES):
            now = _Mergeable.of(table)
            if not now.allows(state, merged) or not self._storage.data_files().keys() >= names:
                break
            self._published = table.version() + 1, names
            try:
                self._commit(table, merged, remembered)
            except CommitFailedError:
                self._clock.sleep(random.uniform(0, TRY_SECONDS))  # noqa: S311 - keeps two rounds out of step
                table.update_incremental()
                if self._outcome(table.version()) is True:
                    return
            else:
                self._published = None
                table.update_incremental()
                return
        if self._published is None:
            self._storage.discard(names)

    def _commit(self, table: DeltaTable, merged: list[_Merged], remembered: dict[str, int]) -> None:
        now = int(self._clock.now().timestamp() * 1000)
        # Only removals that change data are compared with what an OPTIMIZE of deltalake removes that began before this
        # commit; without that it would go through, and each row be there twice.
        old = [RemoveAction(file, True, now, size) for one in merged for file, size in one.sources.items()]
        new = [AddAction(one.name, one.size, {}, now, False, json.dumps({"numRecords": one.rows})) for one in merged]
        numbers = {ROUND: table.version() + 1, **remembered}
        table.create_write_transaction(
            [*old, *new],
            "append",
            table.schema(),
            commit_properties=CommitProperties(
                custom_metadata=deltalog.counted(old, new, list(numbers)),
                app_transactions=[Transaction(name, number) for name, number in numbers.items()],
                max_commit_retries=0,  # a retry would be behind commits that nobody compared with these files
            ),
            post_commithook_properties=NO_HOOKS,
        )

    def _settle(self, newest: int) -> bool:
        """Find out what an earlier round left behind, and remove it where it was for nothing.

        Returns
        -------
        bool
            False while that is not known: another merge would only leave more files behind.
        """
        if self._published is None:
            return True
        _, names = self._published
        landed = self._outcome(newest)
        if landed is False:
            self._storage.discard(names)
        return landed is not None

    def _outcome(self, newest: int) -> bool | None:
        """Return whether a commit that failed is in the table all the same; None while it may still get there."""
        if self._published is None or newest < self._published[0]:
            return None
        (version, names), self._published = self._published, None
        entry = self._storage.read(f"{LOG}/{version:020d}.json")
        # an entry that was cleaned up tells nothing; a later vacuum knows whether these files count, so they are kept
        return entry is None or any(name.encode() in entry for name in names)

    # --- removing

    def _remove_unused(self, table: DeltaTable, *, with_orphans: bool) -> None:
        """Remove files that the table had once and no reader needs, and those that a writer left unpublished.

        Both only at the top of the table's folder: files below it are not the table's, whatever a log says.
        """
        table.update_incremental()
        # by the age that the table's own property says; deltalake only lists them, for it would follow any path
        dropped = set(table.vacuum(None, dry_run=True)) - _files(table).keys()
        if not dropped and not with_orphans:
            return
        present = self._storage.data_files()
        unused = dropped & present.keys()
        if with_orphans and self._clock_is_steady():
            unused |= self._orphans(present, table)
        if unused:
            # a power cut must not take the commits that removed these files, and leave a table that needs them
            self._storage.make_all_durable(table.version())
        self._storage.discard(unused)

    def _orphans(self, present: Mapping[str, FileInfo], table: DeltaTable) -> set[str]:
        """Return files that a writer of this table made and never published."""
        table.update_incremental()  # after the files were listed: one that was published since is not an orphan
        named = set(_files(table)) | deltalog.removed(self._storage, table.version())
        table_id = str(table.metadata().id)
        # by the clock of whoever keeps the files: one here that is a day ahead would make all of them old
        now = min(self._clock.now(), max((info.mtime for info in present.values()), default=self._clock.now()))
        old = {name for name, info in present.items() if (now - info.mtime).total_seconds() >= RETENTION_HOURS * 3600}
        return {name for name in old - named - self._storage.in_flight() if is_ours(name, table_id)}

    def _clock_is_steady(self) -> bool:
        """Whether ages are what they seem: the clock was not set, and the machine did not sleep, since the last check.

        A writer that slept may be about to publish a file that looks old.
        """
        (wall, monotonic), self._seen_clocks = self._seen_clocks, self._clocks()
        passed = self._seen_clocks[0] - wall, self._seen_clocks[1] - monotonic
        return abs(passed[0] - passed[1]) < CLOCK_STEP_SECONDS

    def _clocks(self) -> tuple[float, float]:
        return self._clock.now().timestamp(), self._clock.monotonic()


@dataclass(frozen=True, slots=True)
class _Merged:
    """A file of this round, and the files that it replaces with their sizes."""

    name: str
    size: int
    rows: int
    sources: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Mergeable:
    """What of a version of a table may be merged: nothing where that would change what others see.

    Attributes
    ----------
    files
        With their sizes.
    """

    table_id: str
    schema: pa.Schema
    files: dict[str, int]

    @classmethod
    def of(cls, table: DeltaTable) -> _Mergeable:
        """Look at a table."""
        metadata = table.metadata()
        properties = {name: metadata.configuration.get(name, "false") for name in _KEEP_FILES}
        is_mapped = metadata.configuration.get(MAPPING, "none") != "none"
        has_vectors = "deletionVectors" in (table.protocol().reader_features or ())
        is_left_out = "true" in properties.values() or metadata.partition_columns or is_mapped or has_vectors
        files = {} if is_left_out else {name: size for name, size in _files(table).items() if _PLAIN.fullmatch(name)}
        # nullable: the rows of before a column that somebody made required have none of it
        schema = pa.schema([field.with_nullable(True) for field in arrow_schema(table)])
        return cls(str(metadata.id), schema, files)

    def allows(self, before: _Mergeable, merged: Iterable[_Merged]) -> bool:
        """Whether files that were merged from an earlier version may still take the place of their sources."""
        is_same = self.table_id == before.table_id and self.schema.equals(before.schema)
        return is_same and all(one.sources.items() <= self.files.items() for one in merged)


_PLAIN = re.compile(r"[\w.-]+")  # at the top of the table's folder, and written in the log as it is on disk
# an append-only table refuses removals that change data, and a change feed would report each of them as a deletion
_KEEP_FILES = ("delta.appendOnly", "delta.enableChangeDataFeed")


def _files(table: DeltaTable) -> dict[str, int]:
    """Return the files of a table with their sizes."""
    found = pa.table(table.get_add_actions())
    return dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))


def _bins(files: dict[str, int], most: int) -> list[dict[str, int]]:
    """Return files to be merged, with their sizes: in groups of at most `most` bytes each."""
    bins: list[dict[str, int]] = [{}]
    for path, size in sorted(files.items(), key=lambda file: file[1]):
        if sum(bins[-1].values()) + size > most:
            bins.append({})
        bins[-1][path] = size
    return [some for some in bins if len(some) > 1]


def _attempt(part: Callable[[], None]) -> list[BaseException]:
    """Do something; return what went wrong, a panic of deltalake included, which is not an Exception."""
    try:
        part()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the other parts of a round must not depend on it
        return [error]
    return []


class Upkeep:
    """The thread that looks after one running sync. A failure never ends it: it is reported, and the round is retried.

    Parameters
    ----------
    version
        Gives the newest version that the sync has seen.
    patience
        As for :class:`Maintenance`.
    """

    def __init__(self, storage: Storage, version: Callable[[], int], patience: int = 0) -> None:
        self.retry_reason = ""  # why the last round of maintenance failed
        self._maintenance = Maintenance(storage, patience)
        self._version = version
        self._wait = POLL_SECONDS
        self._stop = self._maintenance.is_stopping
        self._over = threading.Event()
        self._over.set()

    def start(self, name: str) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._over.clear()
        try:
            thread.start()
        except RuntimeError:  # the machine has no more of them; nobody is to wait for this one
            self._over.set()
            raise

    def stop(self) -> None:
        """Let the thread end as soon as a round of maintenance can be left; returns at once."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread, in seconds; return whether it came."""
        return interrupt.wait(self._over, timeout)

    def step(self) -> float:
        """Make a round when one is due; return how many seconds to wait until the next step."""
        try:
            if self._maintenance.is_due(self._version()):
                self._maintenance.run()
        except BaseException as error:  # noqa: BLE001 - a panic is not an Exception; nothing may end the thread
            said = error.message if isinstance(error, KinesisError) else one_line(error)
            self.retry_reason = f"maintenance failed, and will be retried: {said or type(error).__name__}"
            self._wait = min(2 * self._wait, RETRY_SECONDS)
        else:
            self.retry_reason, self._wait = "", POLL_SECONDS
        return self._wait

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._wait):
                self.step()
        finally:
            self._over.set()
