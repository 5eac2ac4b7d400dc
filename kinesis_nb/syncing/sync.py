"""A durable sync: every record of a stream once, in order, into a Delta table.

It continues where it stopped, whatever stopped it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.foreign import describe_dropped
from kinesis_nb.core.frames import Records, TableLike, concat, rows_behind
from kinesis_nb.core.halt import holding
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.running import Running
from kinesis_nb.errors import StreamNotFound, TableError, forgetful, warn
from kinesis_nb.notebook import LiveDisplay
from kinesis_nb.syncing.committer import Committer
from kinesis_nb.syncing.intake import Intake
from kinesis_nb.syncing.ledger import Ledger
from kinesis_nb.syncing.ownership import Ownership
from kinesis_nb.syncing.readers import Readers
from kinesis_nb.syncing.retries import TableRetries
from kinesis_nb.syncing.signals import Signals
from kinesis_nb.syncing.status import SyncStatus, lag_of
from kinesis_nb.syncing.upkeep import Upkeep
from kinesis_nb.table.checkpoints import reached
from kinesis_nb.table.failures import storage_explained
from kinesis_nb.table.lazy import scan
from kinesis_nb.table.reader import TableReader
from kinesis_nb.table.schema import as_written
from kinesis_nb.table.txns import Txns
from kinesis_nb.table.verify import TableCheck, verify_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.types import OnDataLoss
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.table.table import SyncTable

STOP_SECONDS = 10.0  # for the last commit
PART_EAGER_SECONDS = 0.05  # until a part commits the first rows of a shard: another writer has just left it
PART_PATIENCE = 10  # versions that one part of a sync leaves the maintenance of the table to the part before it


@dataclass(frozen=True, slots=True)
class RunPart:
    """One of several writers of a table, each with shards of its own.

    Attributes
    ----------
    run
        A name that all of them share, and no other run of the same sync.
    number
        Its number among them.
    wanted
        Which shards it reads and commits.
    """

    run: str
    number: int
    wanted: Callable[[Shard], bool]


@of_one_process
class Sync(Running, TableLike, LiveDisplay):
    """A running sync.

    Made by :meth:`Source.sync`. ``to_polars()`` and the like give committed and pending rows, none twice, as they are
    at the moment of the call.

    Parameters
    ----------
    part
        Which shards are read and committed, when others write the other shards of the table; None for all.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = kn.demo().sync("orders", f"{folder}/orders")
    ...     sync.wait(timeout=60), len(sync), bool(sync.verify())
    ...     sync.stop()
    (True, 1000, True)
    """

    def __init__(
        self,
        feed: ReadPlan,
        table: SyncTable,
        commit_interval: float,
        on_data_loss: OnDataLoss,
        part: RunPart | None = None,
    ) -> None:
        self._warned_of = 0  # how many dropped user records the user was warned of
        self._is_left_alone = True  # nobody has waited for it or stopped it
        self.stream = feed.stream
        self._feed, self._table = feed, table
        self._viewing, self._numbers = threading.Lock(), Txns(table.storage)  # the lock is held during I/O
        self._signals = Signals()
        self._retries = TableRetries(feed.clock, self._signals)
        ledger = Ledger(feed.selection.keep)
        ownership = Ownership(feed, table, ledger, self._signals, self._retries, part.run if part else "")
        self._intake = Intake(feed, ledger, self._signals, on_data_loss, is_eager=part is not None)
        patience = PART_PATIENCE * part.number if part else 0
        self._upkeep = Upkeep(table.storage, lambda: self._intake.snapshot().version, patience)
        self._readers = Readers(self._intake, ledger, self._signals, self._upkeep)
        eager = PART_EAGER_SECONDS if part else 0.0
        self._committer = Committer(ownership, self._intake, self._readers, commit_interval, eager)

    @forgetful
    def start(self) -> None:
        """Start; return when shards are being read, or another writer of the table is waited for.

        Raises
        ------
        BaseException
            What went wrong before that, or an interrupt; then nothing of it runs any more, or only as long as a call
            that is under way takes.
        """
        try:  # around the start of the thread too: an interrupt may come when it runs already
            self._committer.start(f"kinesis_nb {self.stream} commit")
            with storage_explained(self.uri):
                self._committer.wait_ready()
        except BaseException:
            self.request_stop()
            raise

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        self._signals.stop()

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until everything that was read is committed; return whether it is."""
        return self._committer.join(in_seconds(timeout))

    @property
    def has_trouble(self) -> bool:
        """Whether it runs and cannot use its table at the moment."""
        return bool(self._retries.retry_reason)

    @forgetful
    def stop(self) -> None:
        """Commit what was read, then stop. Stopping twice is fine.

        Raises
        ------
        TableError
            When rows that were read could not be committed. Nothing is lost: the next sync reads them again.
        """
        self._is_left_alone = False
        self.request_stop()
        has_ended = self.join(STOP_SECONDS)
        self._readers.join()
        self._warn()
        reason = self._retries.retry_reason
        if reason or not has_ended:
            pending = self._intake.snapshot().pending_rows
            raise TableError(
                f"{pending:,} rows that were read are not in the table: {reason or 'the last commit is under way'}",
                hint="nothing is lost: the next sync of this table reads them again",
            )

    def _outcomes(self, *, until_caught_up: bool) -> Iterator[bool | None]:
        self._is_left_alone = False
        caught_up = self.all_caught_up()
        while not self._committer.join(0.05):
            if until_caught_up and next(caught_up):
                self._warn()
                yield True
            yield None
        if self._signals.error is not None:
            raise self._signals.error
        self._warn()
        if until_caught_up and not self._readers.has_finished:
            since = f" at {ended:%Y-%m-%d %H:%M:%S} UTC" if (ended := self._readers.stopped_at) else ""
            warn(f"sync of {self.stream}: stopped{since}; what arrived later is not in the table")
        yield self._readers.has_finished

    def _monotonic(self) -> float:
        return self._feed.clock.monotonic()

    def warn_if_left_alone(self) -> None:
        """Warn at the end of the process when nobody waited: a script may have ended before anything was read."""
        if self._is_left_alone:
            rows = self._intake.snapshot().committed
            warn(
                f"sync of {self.stream}: stopped by the end of this process; {rows:,} rows were committed by"
                " this run; the next sync of the table reads the rest. Call wait() before a script ends"
            )

    def _warn(self) -> None:
        """Warn of dropped user records in the user's own thread: what a shard's thread prints lands anywhere."""
        dropped = sum(shard.dropped for shard in self._readers.stats())
        number, self._warned_of = dropped - self._warned_of, dropped
        if number:
            warn(f"sync of {self.stream}: {describe_dropped(number)}")

    def all_caught_up(self) -> Iterator[bool]:
        """Yield whether everything that was in the stream at the first check is committed by now.

        First the readers must have caught up; then everything received up to there must be in the table.
        """
        yield from self._readers.until_caught_up()
        received = self._intake.snapshot().received
        while True:
            now = self._intake.snapshot()
            yield now.committed + now.filtered >= received

    def status(self) -> SyncStatus:
        """Return a snapshot of the sync."""
        now, shards = self._intake.snapshot(), self._readers.stats()
        retrying = self._retries.retry_reason or self._upkeep.retry_reason
        return SyncStatus(
            self._state(),
            now.committed,
            now.commits,
            now.pending_rows,
            lag_of(shards),
            shards,
            tuple(map(str, now.lost)),
            str(self._signals.error or retrying or self._readers.lingering),
            self._table.storage.kept_apart_by,
            now.filtered,
            None if self.is_active else self._readers.stopped_at,
        )

    def _state(self) -> str:
        if self._signals.error is not None:
            return "failed"
        if self.is_active:
            return "storage unavailable" if self._retries.retry_reason else self._committer.phase.value
        return "ended" if self._readers.has_finished else "stopped"

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits for the table."""
        return self._committer.is_running and not self._signals.is_stopping

    @property
    def children_for_others(self) -> int:
        """How many children of shards that were read to their end are for another part of the sync."""
        return self._intake.children_for_others

    def list_now(self) -> None:
        """List the shards of the stream now: another part has seen the beginning of one."""
        self._readers.list_now()

    @property
    @forgetful
    def live(self) -> Records:
        """The rows that are read but not committed yet."""
        _version, pending = self._view()
        return Records(concat(pending))

    @property
    def uri(self) -> str:
        """Where the table is."""
        return self._table.storage.uri

    @property
    @forgetful
    @apart
    def storage_options(self) -> dict[str, str]:
        """What a reader of the table needs to reach it now; empty for a folder."""
        return self._table.storage.options()

    @forgetful
    @hinted
    @apart
    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the committed table as a polars LazyFrame; the newest version by default."""
        return scan(self._table.storage, version)

    @forgetful
    @apart
    def verify(self) -> TableCheck:
        """Read the whole committed table and check that each shard is there whole, once and in order.

        Memory holds the places of the rows of one shard at a time.

        Returns
        -------
        TableCheck
            True when all is well; one line per shard, what was lost before it could be read, and what is wrong.
        """
        with storage_explained(self.uri):
            at = TableReader(self._table.storage, self._table.storage.open(), self._table.origin)
            return verify_table(at, self._listing(), self._feed.selection)

    def _listing(self) -> list[Shard] | None:
        """Return the shards of the stream; None when there is no such stream any more."""
        try:
            return self._feed.lookups.list_shards(self.stream)
        except StreamNotFound:
            return None

    @forgetful
    @apart
    def to_arrow(self) -> pa.Table:
        """Return the committed rows, then the pending ones (without a ``shard_offset``), as an Arrow table."""
        version, pending = self._view()
        with storage_explained(self.uri):
            committed = as_written(self._table.storage.scan(version).collect().to_arrow())
        return pa.concat_tables([committed, concat(pending)], promote_options="default")

    @forgetful
    @apart
    def __len__(self) -> int:
        version, pending = self._view()
        with storage_explained(self.uri):
            committed = self._table.storage.scan(version).select(pl.len()).collect().item()
        return int(committed) + sum(rows.num_rows for rows in pending)

    @apart
    def _view(self) -> tuple[int, list[pa.RecordBatch]]:
        """Return the newest version of the table, and the rows that are read and not in it.

        The table says which ones are: it may hold a commit that the writer does not know of yet, or another writer may
        have read the same rows by now.
        """
        pending = self._intake.snapshot().pending
        with storage_explained(self.uri), holding(self._viewing):
            version = self._table.storage.open().version()
            numbers, stream = self._numbers.at(version), self._table.origin.stream_arn
            ends = {shard_id: reached(numbers, stream, shard_id).sequence_number for shard_id, _ in pending}
        keep = self._feed.selection.keep
        return version, [keep(rows_behind(rows, ends[shard_id])) for shard_id, rows in pending]

    def __repr__(self) -> str:
        return (
            f"<Sync {self.stream} -> {self._table.storage.name}: {repr(self.status()).strip('<>').partition(' ')[2]}>"
        )

    def _repr_html_(self) -> str:
        status = self.status()
        return status._repr_html_()  # pyright: ignore[reportPrivateUsage]
