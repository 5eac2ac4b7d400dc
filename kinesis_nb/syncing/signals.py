"""What the threads of one writer tell each other: commit now, something has changed, stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kinesis_nb.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """Connects the shard threads, the user's thread, and the thread that commits.

    Attributes
    ----------
    changed
        The one lock of a writer: it guards the ledger and the counts of the intake, and is never held during I/O.
        Notified whenever something that a shard thread may wait for has happened.
    error
        What ended the writer; None while it runs, and when it ended well.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._wake = threading.Event()  # commit now, not at the end of the interval
        self._is_seen_wanted = threading.Event()  # somebody waits for the table to say up to when it was read
        self._stopping = threading.Event()

    # --- to the thread that commits

    def commit_now(self) -> None:
        """Have the next commit made at once."""
        self._wake.set()

    def record_seen(self) -> None:
        """Have the table say up to when its shards were read, also those that are idle."""
        self._is_seen_wanted.set()
        self._wake.set()

    def stop(self) -> None:
        """Let the writer commit what was read, and end."""
        self._stopping.set()
        self._wake.set()
        with self.changed:
            self.changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Stop because no shard thread delivers any more; `error` says why, and is None at the end of the stream."""
        self.error = error
        self.stop()

    @property
    def is_stopping(self) -> bool:
        """Whether the end was asked for or came by itself."""
        return self._stopping.is_set()

    # --- in the thread that commits

    def wait(self, seconds: float) -> bool:
        """Wait until a commit is wanted, at most `seconds`; return whether one is."""
        return self._wake.wait(seconds)

    def take_wake(self) -> bool:
        """Return whether a commit is wanted now, and forget that it was."""
        is_woken = self._wake.is_set()
        self._wake.clear()
        return is_woken

    def take_seen_wanted(self) -> bool:
        """Return whether :meth:`record_seen` was called, and forget that it was."""
        is_wanted = self._is_seen_wanted.is_set()
        self._is_seen_wanted.clear()
        return is_wanted

    def pause(self, seconds: float) -> bool:
        """Wait; return at once, and True, when the end was asked for."""
        return self._stopping.wait(seconds)

    # --- in the shard threads

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wake the thread that commits, and wait until it made `condition` true. :attr:`changed` must be held."""
        self._wake.set()
        self.changed.wait_for(lambda: condition() or self._stopping.is_set())
        if not condition():
            raise Closed("the sync was stopped")
