"""What runs beside the committer while a writer owns its table: the shard threads, and the upkeep of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.reading.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from kinesis_nb.core.transport import Clock
    from kinesis_nb.reading.consumer import ConsumerStats
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.syncing.intake import Intake
    from kinesis_nb.syncing.ledger import Ledger
    from kinesis_nb.syncing.signals import Signals
    from kinesis_nb.syncing.upkeep import Upkeep


UPKEEP_SECONDS = 30.0  # for a file that is being merged, when the storage is slow; it has 128 MiB at most


class Readers:
    """Reads the shards of a stream into an intake, from when the table is owned to the end."""

    def __init__(self, intake: Intake, ledger: Ledger, signals: Signals, upkeep: Upkeep) -> None:
        self._intake, self._ledger, self._signals, self._upkeep = intake, ledger, signals, upkeep
        self._scheduler: Scheduler | None = None  # none before the table is owned
        self._clock: Clock | None = None
        self.stopped_at: datetime | None = None

    def start(self, feed: ReadPlan) -> None:
        """Start to read; shards that have ended in the table are skipped."""
        self._scheduler = Scheduler(feed, self._intake, skipped=self._ledger.settled, on_done=self._signals.end)
        self._clock = feed.clock
        self._scheduler.start()
        self._upkeep.start(f"kinesis_nb {feed.stream} upkeep")

    def stop(self) -> None:
        """End all threads, and wait for none."""
        self._upkeep.stop()
        self.stopped_at = self._clock.now() if self._clock is not None else None
        if self._scheduler is not None:
            self._scheduler.stop(0)

    def join(self) -> None:
        """End all threads, and wait for them: nothing is written any more after that."""
        if self._scheduler is not None:
            self._scheduler.stop()
        self._upkeep.join(UPKEEP_SECONDS)

    @property
    def has_begun(self) -> bool:
        """Whether shards are being read, or were."""
        return self._scheduler is not None

    @property
    def has_finished(self) -> bool:
        """Whether every shard was read to its end, or to that of the sync."""
        return self._scheduler is not None and not self._scheduler.unfinished()

    def until_caught_up(self) -> Iterator[bool]:
        """Yield False until everything that was in the stream at the first check is received."""
        while self._scheduler is None:
            yield False
        caught_up = self._scheduler.caught_up()
        while not next(caught_up):
            yield False

    def unfinished(self) -> set[str]:
        """Return the ids of shards that may give more."""
        return set(self._scheduler.unfinished()) if self._scheduler is not None else set()

    def stats(self) -> tuple[ConsumerStats, ...]:
        """Return a snapshot of each shard; nothing before shards are read."""
        return tuple(self._scheduler.stats()) if self._scheduler is not None else ()

    @property
    def lingering(self) -> str:
        """What keeps threads alive that were asked to end; else an empty string."""
        if self._scheduler is not None and (said := self._scheduler.lingering):
            return said
        return "" if self._upkeep.join(0) or self.stopped_at is None else "a round of maintenance is under way"

    def list_now(self) -> None:
        """List the shards of the stream now."""
        if self._scheduler is not None:
            self._scheduler.list_now()
