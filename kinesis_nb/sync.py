"""A durable sync: every record of a stream once, in order, into a Delta table.

It goes on where it stopped, whatever stopped it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from kinesis_nb.committer import Committer, OnDataLoss, encode_start
from kinesis_nb.config import check_process, hinted
from kinesis_nb.consumer import State
from kinesis_nb.display import show_live, table_html
from kinesis_nb.errors import ConfigError, KinesisError, TableError
from kinesis_nb.feed import Feed
from kinesis_nb.frames import Records, TableLike, concat
from kinesis_nb.lease import LEASE_SECONDS, POLL_SECONDS, Guest, Lease
from kinesis_nb.position import Kind, StartingPosition
from kinesis_nb.retry import Patient
from kinesis_nb.scheduler import Scheduler
from kinesis_nb.shards import Shard
from kinesis_nb.storage import explain
from kinesis_nb.table import Origin, SyncTable, as_written
from kinesis_nb.upkeep import Upkeep
from kinesis_nb.verify import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinesis_nb.consumer import ConsumerStats
    from kinesis_nb.storage import Storage
    from kinesis_nb.transport import Clock, Kinesis, Listings, StreamSummary

STOP_SECONDS = 10.0  # for the last commit; a kernel that ends gives all syncs together EXIT_SECONDS
EXIT_SECONDS = 2.0
PART_EAGER_SECONDS = 0.05  # until a part commits the first rows of a shard: another writer has just left it
PART_PATIENCE = 10  # versions that one part of a sync leaves the maintenance of the table to the part before it


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """A moment of a sync.

    Attributes
    ----------
    state
        ``running``; ``waiting`` for the process that writes the table to hand it over; ``storage unavailable``, and
        tried again; ``ended`` (every shard was read to its end), ``stopped`` or ``failed``.
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
    """

    state: str
    rows: int
    commits: int
    pending: int
    lag: timedelta | None
    shards: tuple[ConsumerStats, ...]
    lost: tuple[str, ...]
    error: str

    def __repr__(self) -> str:
        lag = "unknown lag" if self.lag is None else f"{self.lag.total_seconds():,.1f} s behind"
        notes = "".join(f", {note}" for note in (*self.lost, self.error) if note)
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


class Sync(TableLike):
    """A running sync.

    Made by :meth:`Source.sync`. ``to_polars()`` and the like give committed and pending rows, none twice.

    Parameters
    ----------
    feed
        Its ``wanted`` says which shards this sync reads and commits.
    part
        The number of this sync, when others write the other shards of the table; None when it is the only one.
    """

    def __init__(
        self,
        feed: Feed,
        table: SyncTable,
        commit_interval: float,
        on_data_loss: OnDataLoss,
        *,
        part: int | None = None,
    ) -> None:
        self.stream = feed.stream
        self._feed, self._table, self._clock = feed, table, feed.clock
        self._scheduler: Scheduler | None = None  # none before the table is ours
        self._process = os.getpid()
        eager = None if part is None else PART_EAGER_SECONDS
        self._writer = Committer(table, feed, commit_interval, on_data_loss, self._end, eager)
        self._lease = Lease(table.storage) if part is None else Guest(table.storage)
        self._upkeep = Upkeep(
            table.storage,
            lambda: self._committer.snapshot().version,
            patience=PART_PATIENCE * (part or 0),
        )
        name = f"kinesis_nb {feed.stream} commit"
        if self._lease.other() is None:
            self._begin()
            self._committer.start(name)
        else:
            self._committer.start(name, self._wait_and_begin)

    @property
    def _committer(self) -> Committer:
        check_process(self._process)  # a forked child might wait for a lock that nobody will release
        return self._writer

    def _wait_and_begin(self) -> None:
        """Ask the owner for the table, and pass it over when it does not answer within the lease."""
        while owner := self._lease.other():
            self._lease.request()
            give_up = self._clock.monotonic() + LEASE_SECONDS
            while self._lease.other() == owner and self._clock.monotonic() < give_up:
                if self._committer.pause(POLL_SECONDS):
                    return
            if self._lease.other() == owner:
                break
        self._committer.insist(self._begin)

    def _begin(self) -> None:
        shards = self._take_over(Patient(self._feed.kinesis, self._clock))
        self._lease.take()
        self._scheduler = Scheduler(
            replace(self._feed, shards=shards),
            self._committer,
            skipped=self._committer.ended,
            on_done=self._committer.reading_done,
        )
        self._scheduler.start()
        self._upkeep.start(f"kinesis_nb {self.stream} upkeep")
        threading.Thread(target=self._watch, name=f"kinesis_nb {self.stream} lease", daemon=True).start()

    def _watch(self) -> None:
        while not self._committer.pause(1.0):
            if rival := self._lease.wanted_by():
                self._committer.hand_over(str(rival))

    def _take_over(self, listings: Listings) -> tuple[Shard, ...]:
        """Own every shard that is listed after the last take-over, and those that left the stream half read.

        A writer that is being fenced may end a shard meanwhile; its children are in the next listing then.
        """
        while True:
            listing = listings.list_shards(self.stream)
            shards = list(filter(self._committer.wants, listing))
            shards += map(Shard, sorted(self._committer.half_read(_gone(listing, self._committer.wants))))
            unowned = [shard.shard_id for shard in shards if shard.shard_id not in self._committer.owned]
            if not unowned:
                self._committer.inherit(shards)
                return tuple(shards)
            self._committer.take_over(unowned)

    def _end(self) -> None:
        """Stop everything else, and let the next writer begin without waiting: the committer has ended."""
        self._upkeep.stop()
        if self._scheduler is not None:
            self._scheduler.stop(0)
        self._lease.release()

    def stop(self) -> None:
        """Commit what was read, then stop. Stopping twice is fine.

        Raises
        ------
        TableError
            When rows that were read could not be committed. Nothing is lost: the next sync reads them again.
        """
        self._committer.request_stop()
        self._committer.join(STOP_SECONDS)
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._committer.trouble:
            pending = sum(rows.num_rows for rows in self._committer.snapshot().pending)
            raise TableError(
                f"{pending:,} rows that were read are not in the table: {self._committer.trouble}",
                hint="nothing is lost: the next sync of this table reads them again",
            )

    @hinted
    def wait(self, timeout: float | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait until everything that is in the stream now is in the table.

        Parameters
        ----------
        timeout
            Seconds; None waits as long as it takes.
        until_caught_up
            False waits until the sync ends, which an open stream never does by itself.

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
        give_up = self._clock.monotonic() + (float("inf") if timeout is None else timeout)
        while not self._committer.join(0.05):
            if next(caught_up):
                return True
            if self._clock.monotonic() >= give_up:
                return False
        if self._committer.error is not None:
            raise self._committer.error
        return self._scheduler is not None and not self._scheduler.unfinished()

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
            yield self._committer.snapshot().committed >= received

    def status(self) -> SyncStatus:
        """Return a moment of the sync."""
        now = self._committer.snapshot()
        pending = sum(rows.num_rows for rows in now.pending)
        error = str(self._committer.error or self._committer.trouble or self._upkeep.trouble)
        shards = tuple(self._scheduler.stats()) if self._scheduler else ()
        lost = tuple(map(str, now.lost))
        return SyncStatus(self._state(), now.committed, now.commits, pending, _lag(shards), shards, lost, error)

    def _state(self) -> str:
        if self._committer.error is not None:
            return "failed"
        if self.is_active:
            if self._scheduler is None:
                return "waiting"
            return "storage unavailable" if self._committer.trouble else "running"
        return "stopped" if self._scheduler is None or self._scheduler.unfinished() else "ended"

    @property
    def is_active(self) -> bool:
        """Whether it runs, or waits for the table."""
        return self._committer.is_running and not self._committer.is_stopping

    @property
    def born_elsewhere(self) -> int:
        """How many children of shards that were read to their end are for another part of the sync."""
        return self._committer.born_elsewhere

    def look(self) -> None:
        """List the shards of the stream now: another part has seen the beginning of one."""
        if self._scheduler is not None:
            self._scheduler.look()

    @property
    def live(self) -> Records:
        """The rows that are read but not committed yet."""
        return Records(concat(self._committer.snapshot().pending))

    @property
    def uri(self) -> str:
        """Where the table is."""
        return self._table.storage.uri

    @property
    def storage_options(self) -> dict[str, str]:
        """What a reader of the table needs to reach it now; empty for a folder."""
        return self._table.storage.options()

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the committed table as a polars LazyFrame; the newest version by default."""
        return self._table.storage.scan(version)

    def verify(self) -> Verdict:
        """Read the whole committed table and check that each shard is there whole, once and in order.

        Memory holds the places of the rows of one shard at a time.

        Returns
        -------
        Verdict
            True when all is well; one line per shard, what was lost before it could be read, and what is wrong.
        """
        version = self._committer.snapshot().version
        at = SyncTable(self._table.storage, self._table.storage.open(version), self._table.origin)
        return verify(at, Patient(self._feed.kinesis, self._clock).list_shards(self.stream))

    def to_arrow(self) -> pa.Table:
        """Return the committed rows, then the pending ones (without a ``shard_offset``), as an Arrow table."""
        now = self._committer.snapshot()
        committed = as_written(self.scan(now.version).collect().to_arrow())
        return pa.concat_tables([committed, concat(now.pending)], promote_options="default")

    def __len__(self) -> int:
        now = self._committer.snapshot()
        committed = self.scan(now.version).select(pl.len()).collect().item()
        return int(committed) + sum(rows.num_rows for rows in now.pending)

    def __repr__(self) -> str:
        return (
            f"<Sync {self.stream} -> {self._table.storage.name}: {repr(self.status()).strip('<>').partition(' ')[2]}>"
        )

    def _ipython_display_(self) -> None:
        show_live("status_view", "SyncView", self)

    def _repr_html_(self) -> str:
        status = self.status()
        return status._repr_html_()  # pyright: ignore[reportPrivateUsage]


def _gone(listing: list[Shard], wants: Callable[[Shard], bool]) -> set[str]:
    """Return the parents that have left the stream, and whose first child is for this writer."""
    heirs: dict[str, Shard] = {}
    for shard in sorted(listing, key=lambda shard: shard.hash_range, reverse=True):
        heirs |= dict.fromkeys(shard.parents, shard)
    listed = {shard.shard_id for shard in listing}
    return {parent for parent, heir in heirs.items() if parent not in listed and wants(heir)}


def _lag(shards: tuple[ConsumerStats, ...]) -> timedelta | None:
    behind = [shard.millis_behind_latest for shard in shards if shard.state is not State.ENDED]
    known = [millis for millis in behind if millis is not None]
    return timedelta(milliseconds=max(known, default=0)) if shards and len(known) == len(behind) else None


_lock = threading.Lock()  # guards _running; held while a sync starts, so that two threads never start the same one
_running: dict[tuple[str, str], Sync] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # they run on in the parent


def start_sync(
    kinesis: Kinesis,
    stream: str,
    storage: Storage,
    start: StartingPosition,
    *,
    clock: Clock,
    commit_interval: float,
    on_data_loss: str,
) -> Sync:
    """Start a sync, or return the one that is running for this stream and table in this process."""
    decided = check_options(start, commit_interval, on_data_loss)
    summary = Patient(kinesis, clock).describe_stream(stream)
    key = (summary.arn, storage.uri)
    with _lock:
        running = _running.get(key)
        if running is not None and running.is_active:
            return running
        table = _open(kinesis, summary, storage, start)
        try:
            sync = _running[key] = Sync(Feed(kinesis, stream, clock, ()), table, commit_interval, decided)
        except KinesisError:  # some of them are an OSError as well
            raise
        except OSError as error:
            raise explain(storage.uri, error) from error
        return sync


def start_part(
    kinesis: Kinesis,
    table: SyncTable,
    stream: str,
    part: int,
    wanted: Callable[[Shard], bool],
    *,
    clock: Clock,
    commit_interval: float,
    on_data_loss: str,
) -> Sync:
    """Start a sync of those shards that are wanted; other writers have the other shards of the same table.

    Parameters
    ----------
    part
        Its number among them.
    """
    feed = Feed(kinesis, stream, clock, (), wanted)
    return Sync(feed, table, commit_interval, OnDataLoss(on_data_loss), part=part)


def open_table(kinesis: Kinesis, stream: str, storage: Storage, start: StartingPosition, *, clock: Clock) -> SyncTable:
    """Open the table of a sync, or make it."""
    summary = Patient(kinesis, clock).describe_stream(stream)
    return _open(kinesis, summary, storage, start)


def _open(kinesis: Kinesis, summary: StreamSummary, storage: Storage, start: StartingPosition) -> SyncTable:
    begin = encode_start(start, kinesis.server_time().earliest)
    return SyncTable.open(storage, Origin(summary.arn, summary.created_at.isoformat(), begin))


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


@atexit.register
def _stop_all() -> None:
    """Stop all syncs at once, and wait for all of them together."""
    committers = [sync._committer for sync in _running.values()]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    for committer in committers:
        committer.request_stop()
    deadline = time.monotonic() + EXIT_SECONDS
    for committer in committers:
        committer.join(deadline - time.monotonic())
