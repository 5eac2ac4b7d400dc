"""The thread of a sync that commits: one commit for all shards per interval, and the table handed over on request.

=========  ==========================================================================  ============================
phase      what a step does                                                            next
=========  ==========================================================================  ============================
STARTING   claims the table; errors go to who called                                   WAITING or OWNING
WAITING    checks whether the table may be taken; then owns the shards, starts to read OWNING
OWNING     commits when that is due; checks whether a newer call wants the table       YIELDING when one does
YIELDING   checks whether the newer call ever took the table                           OWNING when it did not
=========  ==========================================================================  ============================

What another call must have written is described in :mod:`kinesis_nb.syncing.ownership`. Any phase may also end, when
a stop was requested or by an error.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol, TypeVar

from kinesis_nb.core import interrupt
from kinesis_nb.errors import Closed, Fenced, KinesisError, TableError
from kinesis_nb.table.failures import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.syncing.intake import Intake
    from kinesis_nb.syncing.ledger import Pending, Prepared
    from kinesis_nb.syncing.ownership import Ownership

T = TypeVar("T")

CLAIM_POLL_SECONDS = 0.5  # between two checks whether a newer call wants the table
POLL_SECONDS = 0.25  # between two checks whether the table is ours, or taken
SEEN_EVERY, SEEN_AT_END = timedelta(minutes=1), timedelta(seconds=1)  # how far `seen` in the table may lag


class Phase(StrEnum):
    """What a writer is doing."""

    STARTING = "starting"  # has not claimed the table yet
    WAITING = "waiting"
    OWNING = "running"
    YIELDING = "handing over"


class Reading(Protocol):
    """What fills the intake."""

    def start(self, feed: ReadPlan) -> None:
        """Start to read; returns at once."""

    def stop(self) -> None:
        """End; returns at once."""


@dataclass(slots=True)
class _Timetable:
    """When what is due, by the clock of the sync.

    Attributes
    ----------
    interval
        Seconds between commits.
    eager
        Seconds from when a commit is asked for until it is made.
    """

    interval: float
    eager: float
    now: float = float("-inf")
    commit_at: float = float("-inf")
    poll_at: float = float("-inf")

    def restart(self) -> None:
        """Begin to count now."""
        self.commit_at, self.poll_at = self.now + self.interval, self.now + CLAIM_POLL_SECONDS

    @property
    def wait(self) -> float:
        """Seconds until something is due."""
        return max(0.0, min(self.commit_at, self.poll_at) - self.now)


class Committer:
    """Commits what is in the intake, while the table is ours.

    Other writers may commit other shards of the same table meanwhile: those that the feed does not want.

    Parameters
    ----------
    reading
        Started when the table is ours, stopped at the end of the thread, whatever ended it.
    interval
        Seconds between commits.
    eager
        When somebody asks for a commit, it is made after that many seconds, with what else comes within them.
    """

    def __init__(
        self, ownership: Ownership, intake: Intake, reading: Reading, interval: float, eager: float = 0.0
    ) -> None:
        self.phase = Phase.STARTING
        self._ownership, self._turn, self._table = ownership, ownership.turn, ownership.table
        self._feed, self._signals, self._retries = ownership.feed, ownership.signals, ownership.retries
        self._intake, self._reading = intake, reading
        intake.at_version(ownership.table.version)
        self._due = _Timetable(interval, eager)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()  # the first steps are done: reading, waiting, or over
        self._over = threading.Event()  # not Thread.join(): interrupted, it takes a living thread for a dead one

    # --- the thread, from outside

    def start(self, name: str) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until shards are being read, or another writer is waited for; raise what went wrong before."""
        interrupt.wait(self._ready)
        if self._signals.error is not None and self.phase is Phase.STARTING:
            raise self._signals.error

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it came."""
        if self._thread is not threading.current_thread():
            interrupt.wait(self._over, timeout)
        return not self.is_running

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and not self._over.is_set()

    # --- the thread

    def _run(self) -> None:
        waited = 0.0
        try:
            while (wait := self.step(waited)) is not None:
                waited = 0.0 if self._signals.wait(wait) else wait
        except Closed:
            pass  # stopped while storage was away; the next run reads those rows again
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self._signals.error = error
            with suppress(OSError, KinesisError):  # the table may be needed to say more
                self._signals.error = self._explained(error)
        finally:
            self._end()

    def _explained(self, error: BaseException) -> BaseException:
        """Return what a user is to see of an error that ended the thread."""
        if isinstance(error, Fenced) and self.phase is Phase.YIELDING:
            return self._turn.fenced_by()
        if isinstance(error, OSError) and not isinstance(error, KinesisError):
            return explain(self._table.storage.uri, error)
        if type(error).__name__ == "PanicException":  # of the Rust libraries; not an Exception
            return TableError(f"{self._table.storage.uri} cannot be used: {error}", hint="this may be a damaged table")
        return error

    def _end(self) -> None:
        try:
            self._intake.close()
            self._signals.stop()
            self._reading.stop()
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            self._signals.error = self._signals.error or error
        finally:
            self._ready.set()
            self._over.set()

    def step(self, waited: float = 0.0) -> float | None:
        """Do what is due.

        Parameters
        ----------
        waited
            Seconds that the caller waited since the last step, though the clock may not have moved.

        Returns
        -------
        float or None
            Seconds until something is due again; None when this writer has ended.
        """
        self._due.now = max(self._feed.clock.monotonic(), self._due.now + waited)
        is_woken = self._signals.take_wake()
        match self.phase:
            case Phase.OWNING:
                return self._own(is_woken=is_woken)
            case Phase.YIELDING:
                return self._yield()
            case _:
                return self._wait_for_turn()

    def _wait_for_turn(self) -> float | None:
        if self._signals.is_stopping:
            return None
        if self.phase is Phase.STARTING:
            self._turn.claim()
        if not self._retried(lambda: self._turn.may_take(self._due.now)):
            self.phase = Phase.WAITING
            self._ready.set()
            return POLL_SECONDS
        feed = self._retried(lambda: self._ownership.take_all(self._feed.lookups))
        if self._signals.is_stopping:
            self._retries.retry_until_done(self._turn.release)
            return None
        self._reading.start(feed)
        self.phase = Phase.OWNING
        self._ready.set()
        self._due.restart()
        return 0.0

    def _retried(self, action: Callable[[], T]) -> T:
        """Retry something once the call that started the sync has returned; until then its caller sees the error."""
        return action() if self.phase is Phase.STARTING else self._retries.retry_until_done(action)

    def _own(self, *, is_woken: bool) -> float | None:
        due = self._due
        if self._signals.is_stopping:
            self._intake.close()
            self._commit_pending(SEEN_AT_END)
            self._retries.retry_until_done(self._turn.release)
            return None
        if is_woken:
            due.commit_at = min(due.commit_at, due.now + due.eager)
        if due.now >= due.commit_at:
            self._commit_pending(SEEN_AT_END if self._signals.take_seen_wanted() else SEEN_EVERY)
            due.commit_at = due.now + due.interval
        if due.now >= due.poll_at:
            due.poll_at = due.now + CLAIM_POLL_SECONDS
            if self._retries.try_once(lambda: self._turn.is_wanted(due.now)):
                self._commit_pending(SEEN_AT_END)
                self._retries.retry_until_done(self._turn.release)
                self.phase = Phase.YIELDING
                return POLL_SECONDS
        return due.wait

    def _yield(self) -> float | None:
        if self._signals.is_stopping:
            return None
        if not self._retries.try_once(lambda: self._turn.may_resume(self._due.now)):
            return POLL_SECONDS
        self._ownership.resume()
        self.phase = Phase.OWNING
        return 0.0

    # --- commits

    def _commit_pending(self, patience: timedelta = SEEN_EVERY) -> None:
        requested, pending = self._intake.take(patience)
        ready = self._ownership.make_ready(requested.values()) if requested else set[str]()
        if pending:
            self._commit(pending)
        self._intake.admit(ready)

    def _commit(self, pending: Pending) -> None:
        self._ownership.own(child.shard_id for children in pending.ended.values() for child in children)
        # by the service's clock where ours cannot be right: one wrong time would stamp all later rows too
        now = self._feed.kinesis.server_time().likely(self._feed.clock.now())
        prepared = self._intake.prepare(pending, now)
        self._publish(prepared)
        self._intake.committed(pending, prepared, self._table.version)

    def _publish(self, prepared: Prepared) -> None:
        """Write the rows to a file, once, and commit it.

        A handle that is older than a round of maintenance is refused once, and that is no reason to wait.
        """
        table, retry = self._table, self._retries.retry_until_done
        file = retry(lambda: table.write_rows(prepared.rows))
        for number in count():
            if number > 1:
                self._retries.wait_to_retry(f"the commit did not go through: {table.refusal}")
            may_be_gone = number > 0 or table.storage.folder is not None  # an object stays where it was put
            if file is not None and may_be_gone and not retry(partial(table.has_file, file)):
                file = retry(lambda: table.write_rows(prepared.rows))  # its folder was away meanwhile
            if retry(partial(table.commit, file, prepared.checkpoints, prepared.gaps, prepared.notes)):
                return
