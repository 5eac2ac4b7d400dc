"""Stopping a reader: one flag for all its threads; every wait of these threads ends when it is set.

A thread belongs to one reader at most. So stopping a reader does not disturb others of the same source.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kinesis_nb.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

POLL_SECONDS = 0.25  # how often a thread checks the flag while nothing can wake it: in a socket, for a lock


class Halt(threading.Event):
    """A flag that is set once and never cleared."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()  # guards the one below; never held around any other
        self._wakers: list[Callable[[], object]] = []

    def set(self) -> None:
        """End every thread that obeys the flag, and wake those that wait."""
        super().set()
        with self._lock:
            wakers = set(self._wakers)
        for wake in wakers:
            wake()

    @contextmanager
    def obeyed(self) -> Generator[None]:
        """Make this thread obey the flag: its waits raise Closed once the flag is set."""
        _of_thread.halt = self
        try:
            yield
        finally:
            _of_thread.halt = None

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Generator[None]:
        """Call `wake` when the flag is set, by the thread that sets it."""
        with self._lock:
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)


class _OfThread(threading.local):
    halt: Halt | None = None


_of_thread = _OfThread()
_NEVER = Halt()


def current() -> Halt:
    """Return the flag that this thread obeys; one that is never set where it obeys none."""
    return _of_thread.halt or _NEVER


def check() -> None:
    """Raise Closed when the flag of this thread is set."""
    if current().is_set():
        raise Closed("its reader was stopped")


def acquire(lock: threading.Lock) -> None:
    """Wait for a lock that others may hold during a call.

    Raises
    ------
    Closed
        When the flag of this thread is set; the lock is not held then.
    """
    while not lock.acquire(timeout=POLL_SECONDS):
        check()


@contextmanager
def holding(lock: threading.Lock) -> Generator[None]:
    """Hold a lock that was waited for as :func:`acquire` does."""
    acquire(lock)
    try:
        yield
    finally:
        lock.release()
