"""How a writer uses its table while the storage may be away: each action is retried until it succeeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.errors import Closed, KinesisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.transport import Clock
    from kinesis_nb.syncing.signals import Signals

T = TypeVar("T")

RETRY_SECONDS = 1.0
SILENT_SECONDS = 5.0  # after which a table that does not respond is reported


class TableRetries:
    """Calls the table, and knows why it cannot be used at the moment. Only the thread that commits calls it."""

    def __init__(self, clock: Clock, signals: Signals) -> None:
        self._clock, self._signals = clock, signals
        self._reason = ""  # why something is being retried
        self._busy_since: float | None = None

    @property
    def retry_reason(self) -> str:
        """Why the table cannot be used at the moment; empty when it can. May be read by any thread."""
        since = self._busy_since
        silent = 0.0 if since is None else self._clock.monotonic() - since
        if silent < SILENT_SECONDS:
            return self._reason
        return self._reason or f"the table has not responded for {silent:,.0f} s"

    def retry_until_done(self, action: Callable[[], T]) -> T:
        """Do something with the table, retrying until it succeeds.

        Storage that is away for a while, or whose credentials cannot be renewed, only makes the shard threads wait.

        Raises
        ------
        Closed
            When the end was asked for while the storage was away.
        KinesisError
            When retrying does not help.
        """
        while True:
            try:
                result = self._timed(action)
            except KinesisError as error:  # some of them are an OSError as well
                if not error.retryable:
                    raise
                self.wait_to_retry(f"the table cannot be reached: {error.message}")
            except OSError as error:
                self.wait_to_retry(f"the table cannot be written: {error}")
            else:
                self._reason = ""
                return result

    def try_once(self, check: Callable[[], bool]) -> bool:
        """Check something in the table. A failure is reported and counts as False: the next check finds it out."""
        try:
            found = self._timed(check)
        except (OSError, KinesisError) as error:
            if isinstance(error, KinesisError) and not error.retryable:
                raise
            self._reason = f"the table cannot be read: {error}"
            return False
        self._reason = ""
        return found

    def wait_to_retry(self, reason: str) -> None:
        """Wait before the next try; raise Closed when the end was asked for."""
        self._reason = reason
        if self._signals.pause(RETRY_SECONDS):
            raise Closed(reason)

    def _timed(self, action: Callable[[], T]) -> T:
        """Call something that may not respond for long; see :attr:`retry_reason`."""
        self._busy_since = self._clock.monotonic()
        try:
            return action()
        finally:
            self._busy_since = None
