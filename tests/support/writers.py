"""The parts of a writer, put together as a sync does it, without a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.syncing.committer import Committer
from kinesis_nb.syncing.intake import Intake
from kinesis_nb.syncing.ledger import Ledger
from kinesis_nb.syncing.ownership import Ownership
from kinesis_nb.syncing.retries import TableRetries
from kinesis_nb.syncing.signals import Signals

if TYPE_CHECKING:
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.table.table import SyncTable


class Parts:
    """One writer; what is read for it is up to the test."""

    made_of: type[Committer] = Committer

    def __init__(
        self, feed: ReadPlan, table: SyncTable, run: str = "", *, interval: float = 1.0, signals: Signals | None = None
    ) -> None:
        self.signals = signals or Signals()
        self.retries = TableRetries(feed.clock, self.signals)
        self.ledger = Ledger(feed.selection.keep)
        self.ledger.start = table.origin.position
        self.ownership = Ownership(feed, table, self.ledger, self.signals, self.retries, run)
        self.intake = Intake(feed, self.ledger, self.signals, "fail")
        self.committer = self.made_of(self.ownership, self.intake, self, interval)

    def start(self, feed: ReadPlan) -> None:
        """Begin to read: nothing here."""

    def stop(self) -> None:
        """End."""

    def commit(self) -> None:
        """Commit what was delivered."""
        self.committer._commit_pending()
