"""A durable sync: every record of a stream once, in order, into a Delta table.

It goes on where it stopped, whatever stopped it.
"""

from __future__ import annotations

import atexit
import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.compression import decompressed, unchanged
from kinesis_nb.core.foreign import Foreign, told
from kinesis_nb.core.frames import Records, TableLike, concat, rows_behind
from kinesis_nb.core.halt import holding
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.retry import Patient
from kinesis_nb.core.running import Registry
from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.display import show_live, table_html
from kinesis_nb.errors import ConfigError, StreamNotFound, TableError, forgetful, warn
from kinesis_nb.reading.consumer import State
from kinesis_nb.reading.feed import Feed
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.syncing.committer import Committer, OnDataLoss
from kinesis_nb.syncing.ledger import encode_start
from kinesis_nb.syncing.ownership import Ownership
from kinesis_nb.syncing.upkeep import Upkeep
from kinesis_nb.table.lazy import scan
from kinesis_nb.table.origin import Origin
from kinesis_nb.table.storage import storage_told
from kinesis_nb.table.table import SyncTable, as_written, reached
from kinesis_nb.table.txns import Txns
from kinesis_nb.table.verify import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import Clock, Kinesis, StreamSummary
    from kinesis_nb.reading.consumer import ConsumerStats
    from kinesis_nb.table.storage import Storage

STOP_SECONDS = 10.0  # for the last commit
PART_EAGER_SECONDS = 0.05  # until a part commits the first rows of a shard: another writer has just left it
PART_PATIENCE = 10  # versions that one part of a sync leaves the maintenance of the table to the part before it


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """A moment of a sync.

    Attributes
    ----------
    state
        ``running``; ``waiting`` for the process that writes the table to hand it over; ``handing over`` the table to
        a newer call; ``storage unavailable``, and tried again; ``ended`` (every shard was read to its end, or to that
        of the sync), ``stopped`` or ``failed``.
    rows, commits
        Committed by this writer since it started.
    pending
        Rows read and not committed yet.
    lag
        How far the slowest shard is behind the tip of the stream; None before all have answered.
    lost
        What this run recorded as lost, because the stream did not keep it.
    error
        Why it failed or is retrying, else an empty string.
    filtered
        Rows that were read and not kept, because of ``where=`` or ``key=``, by this writer since it started.
    kept_apart_by
        What makes sure that no second writer gets rows into the table: the file system, or the conditional writes of
        the object store, which were tried before the first commit. Stores without them are refused.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = kn.demo().sync("orders", f"{folder}/orders", end="now")
    ...     sync.wait(timeout=60, until_caught_up=False), sync.status().state, sync.status().rows
    ...     sync.stop()
    (True, 'ended', 1000)
    """

    state: str
    rows: int
    commits: int
    pending: int
    lag: timedelta | None
    shards: tuple[ConsumerStats, ...]
    lost: tuple[str, ...]
    error: str
    kept_apart_by: str = ""
    filtered: int = 0

    @property
    def dropped(self) -> int:
        """How many user records of aggregates this run dropped, because their hash keys are another shard's."""
        return sum(shard.dropped for shard in self.shards)

    def __repr__(self) -> str:
        lag = "unknown lag" if self.lag is None else f"{self.lag.total_seconds():,.1f} s behind"
        filtered = f"{self.filtered:,} rows not kept" if self.filtered else ""
        notes = "".join(f", {note}" for note in (filtered, told(self.dropped), *self.lost, self.error) if note)
        return (
            f"<SyncStatus {self.state}: {self.rows:,} rows in {self.commits:,} commits by this run,"
            f" {self.pending:,} pending, {lag}{notes}>"
        )

    def _repr_html_(self) -> str:
        rows = (
            (
                shard.shard_id,
                shard.state.value,
                shard.records,
                None if shard.state is State.ENDED else shard.millis_behind_latest,
                shard.throttles,
                shard.retries,
                shard.error,
            )
            for shard in self.shards
        )
        columns = ("shard", "state", "records", "ms behind", "throttles", "retries", "error")
        return table_html(columns, rows, repr(self).strip("<>"))


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
class Sync(TableLike):
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
        feed: Feed,
        table: SyncTable,
        commit_interval: float,
        on_data_loss: OnDataLoss,
        part: RunPart | None = None,
    ) -> None:
        self._told = 0  # of how many dropped user records the user was warned
        self.stream = feed.stream
        self._feed, self._table, self._clock = feed, table, feed.clock
        self._scheduler: Scheduler | None = None  # none before the table is ours
        self._numbers = Txns(table.storage)
        self._viewing = threading.Lock()  # held during I/O by who looks at the table
        self._committer = Committer(
            table,
            Ownership(table, feed.wanted, part.run if part else "", feed.selection),
            feed,
            commit_interval,
            on_data_loss,
            self._begin,
            self._end,
            eager=PART_EAGER_SECONDS if part else None,
        )
        patience = PART_PATIENCE * part.number if part else 0
        self._upkeep = Upkeep(table.storage, lambda: self._committer.snapshot().version, patience)

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
            with storage_told(self.uri):
                self._committer.wait_ready()
        except BaseException:
            self.request_stop()
            raise

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        self._committer.request_stop()

    @hinted
    def join(self, timeout: Seconds) -> bool:
        """Wait until everything that was read is committed; return whether it is."""
        return self._committer.join(in_seconds(timeout))

    def _begin(self, feed: Feed) -> None:
        self._scheduler = Scheduler(
            feed,
            self._committer,
            skipped=self._committer.ended,
            on_done=self._committer.reading_done,
        )
        self._scheduler.start()
        self._upkeep.start(f"kinesis_nb {self.stream} upkeep")

    def _end(self) -> None:
        """Stop everything else: the committer has ended."""
        self._upkeep.stop()
        if self._scheduler is not None:
            self._scheduler.stop(0)

    @property
    def has_trouble(self) -> bool:
        """Whether it runs and cannot use its table at the moment."""
        return bool(self._committer.trouble)

    @forgetful
    def stop(self) -> None:
        """Commit what was read, then stop. Stopping twice is fine.

        Raises
        ------
        TableError
            When rows that were read could not be committed. Nothing is lost: the next sync reads them again.
        """
        self.request_stop()
        has_ended = self.join(STOP_SECONDS)
        if self._scheduler is not None:
            self._scheduler.stop()
        self._warn()
        trouble = self._committer.trouble
        if trouble or not has_ended:
            pending = self._committer.snapshot().pending_rows
            raise TableError(
                f"{pending:,} rows that were read are not in the table: {trouble or 'the last commit is under way'}",
                hint="nothing is lost: the next sync of this table reads them again",
            )

    @forgetful
    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait until everything that is in the stream now is in the table.

        Parameters
        ----------
        timeout
            Seconds, or a timedelta; None waits as long as it takes.
        until_caught_up
            False waits until the sync ends, which it does by itself at its end, or when all shards are closed and read.

        Returns
        -------
        bool
            False when the time ran out, or the sync was stopped before.

        Raises
        ------
        KinesisError
            What the sync failed with.
        """
        caught_up = self.all_caught_up() if until_caught_up else iter(lambda: False, None)
        give_up = self._clock.monotonic() + in_seconds(timeout)
        while not self._committer.join(0.05):
            if next(caught_up):
                self._warn()
                return True
            if self._clock.monotonic() >= give_up:
                return False
        if self._committer.error is not None:
            raise self._committer.error
        self._warn()
        return self._scheduler is not None and not self._scheduler.unfinished()

    def _warn(self) -> None:
        """Tell what was dropped in the user's own thread: what a shard's thread prints lands anywhere."""
        dropped = sum(shard.dropped for shard in self._scheduler.stats()) if self._scheduler else 0
        number, self._told = dropped - self._told, dropped
        if number:
            warn(f"sync of {self.stream}: {told(number)}")

    def all_caught_up(self) -> Iterator[bool]:
        """Yield whether everything that was in the stream at the first look is committed by now.

        First every shard that is not finished must have answered "nothing left" to a call made after that look; then
        what was received up to there must be in the table.
        """
        while self._scheduler is None:
            yield False
        before = {shard.shard_id: shard.calls for shard in self._scheduler.stats()}
        caught_up: set[str] = set()
        while not self._scheduler.unfinished() <= caught_up:
            yield False
            caught_up |= {
                shard.shard_id
                for shard in self._scheduler.stats()
                if shard.caught_up_call > before.get(shard.shard_id, 0)
            }
        received = self._committer.snapshot().received
        while True:
            now = self._committer.snapshot()
            yield now.committed + now.filtered >= received

    def status(self) -> SyncStatus:
        """Return a moment of the sync."""
        now = self._committer.snapshot()
        lingering = self._scheduler.lingering if self._scheduler else ""
        error = str(self._committer.error or self._committer.trouble or self._upkeep.trouble or lingering)
        shards = tuple(self._scheduler.stats()) if self._scheduler else ()
        lost = tuple(map(str, now.lost))
        lag, pending = _lag(shards), now.pending_rows
        fence = self._table.storage.kept_apart_by
        done = now.committed, now.commits, pending
        return SyncStatus(self._state(), *done, lag, shards, lost, error, fence, now.filtered)

    def _state(self) -> str:
        if self._committer.error is not None:
            return "failed"
        if self.is_active:
            return "storage unavailable" if self._committer.trouble else self._committer.phase.value
        return "stopped" if self._scheduler is None or self._scheduler.unfinished() else "ended"

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits for the table."""
        return self._committer.is_running and not self._committer.is_stopping

    @property
    def children_for_others(self) -> int:
        """How many children of shards that were read to their end are for another part of the sync."""
        return self._committer.children_for_others

    def look(self) -> None:
        """List the shards of the stream now: another part has seen the beginning of one."""
        if self._scheduler is not None:
            self._scheduler.look()

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
    def verify(self) -> Verdict:
        """Read the whole committed table and check that each shard is there whole, once and in order.

        Memory holds the places of the rows of one shard at a time.

        Returns
        -------
        Verdict
            True when all is well; one line per shard, what was lost before it could be read, and what is wrong.
        """
        with storage_told(self.uri):
            at = SyncTable(self._table.storage, self._table.storage.open(), self._table.origin)
            return verify(at, _listing(self._feed.kinesis, self._clock, self.stream), self._feed.selection)

    @forgetful
    @apart
    def to_arrow(self) -> pa.Table:
        """Return the committed rows, then the pending ones (without a ``shard_offset``), as an Arrow table."""
        version, pending = self._view()
        with storage_told(self.uri):
            committed = as_written(self._table.storage.scan(version).collect().to_arrow())
        return pa.concat_tables([committed, concat(pending)], promote_options="default")

    @forgetful
    @apart
    def __len__(self) -> int:
        version, pending = self._view()
        with storage_told(self.uri):
            committed = self._table.storage.scan(version).select(pl.len()).collect().item()
        return int(committed) + sum(rows.num_rows for rows in pending)

    @apart
    def _view(self) -> tuple[int, list[pa.RecordBatch]]:
        """Return the newest version of the table, and the rows that are read and not in it.

        The table says which ones are: it may hold a commit that the writer does not know of yet, or another writer may
        have read the same rows by now.
        """
        pending = self._committer.snapshot().pending
        with storage_told(self.uri), holding(self._viewing):
            version = self._table.storage.open().version()
            numbers, stream = self._numbers.at(version), self._table.origin.stream_arn
            ends = {shard_id: reached(numbers, stream, shard_id).sequence_number for shard_id, _ in pending}
        keep = self._feed.selection.keep
        return version, [keep(rows_behind(rows, ends[shard_id])) for shard_id, rows in pending]

    def __repr__(self) -> str:
        return (
            f"<Sync {self.stream} -> {self._table.storage.name}: {repr(self.status()).strip('<>').partition(' ')[2]}>"
        )

    def _ipython_display_(self) -> None:
        show_live("status_view", "SyncView", self)

    def _repr_html_(self) -> str:
        status = self.status()
        return status._repr_html_()  # pyright: ignore[reportPrivateUsage]


def _lag(shards: tuple[ConsumerStats, ...]) -> timedelta | None:
    behind = [shard.millis_behind_latest for shard in shards if shard.state is not State.ENDED]
    known = [millis for millis in behind if millis is not None]
    return timedelta(milliseconds=max(known, default=0)) if shards and len(known) == len(behind) else None


_syncs: Registry[Sync] = Registry()
atexit.register(_syncs.stop_all)


def start_sync(  # noqa: PLR0913 - one for each option of Source.sync
    kinesis: Kinesis,
    stream: str,
    storage: Storage,
    start: StartingPosition,
    *,
    clock: Clock,
    commit_interval: float,
    on_data_loss: str,
    foreign: Foreign = Foreign.AUTO,
    selection: Selection = EVERYTHING,
    end: datetime | None = None,
    setup: object = None,
) -> Sync:
    """Start a sync, or return the one that is running for this stream and table in this process.

    Parameters
    ----------
    setup
        Equal for calls with the same source and the same options of the storage. One that runs with other ones, with
        another `commit_interval`, `on_data_loss`, `foreign` or `end` is stopped, and another one started.
    """
    decided = check_options(start, commit_interval, on_data_loss)
    summary = Patient(kinesis, clock).describe_stream(stream)

    def prepare() -> Callable[[], Sync]:
        table = apart(_open)(kinesis, clock, stream, summary, storage, start, selection)
        feed = replace(_feed(kinesis, stream, clock, selection.wants, selection, foreign), end=end)
        return lambda: Sync(feed, table, commit_interval, decided)

    # with another selection the table refuses the call, and what runs goes on
    return _syncs.start((summary.arn, storage.uri), (setup, commit_interval, decided, foreign, end, selection), prepare)


def _feed(
    kinesis: Kinesis,
    stream: str,
    clock: Clock,
    wanted: Callable[[Shard], bool],
    selection: Selection,
    foreign: Foreign,
) -> Feed:
    unpack = decompressed if selection.decompress else unchanged
    return Feed(kinesis, stream, clock, (), wanted, unpack=unpack, selection=selection, foreign=foreign)


def hurry(stream_arn: str, storage: Storage) -> None:
    """Have a sync of this process, if one writes a table, say there soon up to when its shards were read."""
    if (running := _syncs.get((stream_arn, storage.uri))) is not None:
        running._committer.record_seen()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no call for users


def start_part(  # noqa: PLR0913 - the options of a call
    kinesis: Kinesis,
    table: SyncTable,
    stream: str,
    part: RunPart,
    *,
    clock: Clock,
    commit_interval: float,
    on_data_loss: str,
    foreign: Foreign = Foreign.AUTO,
    selection: Selection = EVERYTHING,
) -> Sync:
    """Start a sync of some shards; other writers have the other shards of the same table."""
    wanted = lambda shard: part.wanted(shard) and selection.wants(shard)  # noqa: E731
    feed = _feed(kinesis, stream, clock, wanted, selection, foreign)
    sync = Sync(feed, table, commit_interval, OnDataLoss(on_data_loss), part)
    sync.start()
    return sync


def open_table(
    kinesis: Kinesis,
    stream: str,
    storage: Storage,
    start: StartingPosition,
    *,
    clock: Clock,
    selection: Selection = EVERYTHING,
) -> SyncTable:
    """Open the table of a sync, or create it."""
    return _open(kinesis, clock, stream, Patient(kinesis, clock).describe_stream(stream), storage, start, selection)


def _open(
    kinesis: Kinesis,
    clock: Clock,
    stream: str,
    summary: StreamSummary,
    storage: Storage,
    start: StartingPosition,
    selection: Selection,
) -> SyncTable:
    """Open the table, or create it once the stream is known to be readable: a call that fails must leave nothing."""
    listing = Patient(kinesis, clock).list_shards(stream)
    if selection.shards is not None and not storage.exists():  # later they may have left the stream
        selection.check_listed(stream, listing)
    begin = encode_start(start, kinesis.server_time().earliest)
    newest = max((shard.shard_id for shard in listing), default="")
    origin = Origin(summary.arn, summary.created_at.isoformat(), begin, newest, selection.record())
    return SyncTable.open(storage, origin)


def _listing(kinesis: Kinesis, clock: Clock, stream: str) -> list[Shard] | None:
    """Return the shards of the stream; None when there is no such stream any more."""
    try:
        return Patient(kinesis, clock).list_shards(stream)
    except StreamNotFound:
        return None


def check_options(start: StartingPosition, commit_interval: float, on_data_loss: str) -> OnDataLoss:
    """Raise ConfigError for a start, an interval or a policy that no sync can have."""
    if not isinstance(commit_interval, int | float) or not 0 < commit_interval <= 3600:  # noqa: PLR2004 - an hour
        raise ConfigError(f"commit_interval={commit_interval!r} is no time to wait", hint="give seconds, 0 < s <= 3600")
    if start.kind is Kind.AFTER_SEQUENCE_NUMBER:
        raise ConfigError("a sequence number is a place in one shard", hint='use "trim_horizon", "latest" or a time')
    try:
        return OnDataLoss(on_data_loss)
    except ValueError:
        raise ConfigError(f"on_data_loss={on_data_loss!r} is not known", hint='use "fail" or "warn"') from None
