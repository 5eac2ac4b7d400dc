"""What runs in the background of this process: the same call gives the same one back, and all end with the process."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from kinesis_nb.core.halt import holding
from kinesis_nb.errors import KinesisError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

EXIT_SECONDS = 2.0  # for everything of one kind together when the process ends


class Running(Protocol):
    """A sync or an export."""

    @property
    def is_active(self) -> bool:
        """Whether it runs and was not asked to stop."""
        ...

    @property
    def has_trouble(self) -> bool:
        """Whether it runs and cannot do its work at the moment."""
        ...

    def start(self) -> None:
        """Start it; when that fails, or is interrupted, nothing is left running."""
        ...

    def stop(self) -> None:
        """Finish what is under way, and end."""
        ...

    def request_stop(self) -> None:
        """Begin to stop, and return at once."""
        ...

    def join(self, timeout: float) -> bool:
        """Wait until it is over; return whether it is."""
        ...


R = TypeVar("R", bound=Running)


class Registry(Generic[R]):
    """The running things of one kind, by what they work on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below; never held during I/O
        self._running: dict[Hashable, tuple[R, Any]] = {}
        self._starting: dict[Hashable, threading.Lock] = {}  # held while one starts, so that none starts twice
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Forget everything in a child of the process: it runs on in the parent, and so may whoever held a lock."""
        self._lock = threading.Lock()
        self._running, self._starting = {}, {}

    def start(self, key: Hashable, setup: object, prepare: Callable[[], Callable[[], R]]) -> R:
        """Return the one that runs, or start another one.

        One that runs with another setup is stopped first, and so is one that is in trouble: other credentials, or the
        same ones again, may be what cures it.

        Parameters
        ----------
        setup
            Equal for calls with the same options.
        prepare
            Checks everything that may be wrong, and returns what makes the new one. When it fails, what runs stays.
        """
        with self._lock:
            starting = self._starting.setdefault(key, threading.Lock())
        with holding(starting):
            running, its_setup = self._running.get(key, (None, None))
            if running is not None and not running.is_active:
                running = None
            if running is not None and its_setup == setup and not running.has_trouble:
                return running
            try:
                make = prepare()
            except KinesisError:
                if running is not None and its_setup == setup:
                    return running  # it keeps trying, and says what is wrong
                raise
            if running is not None:
                with suppress(KinesisError):  # what it could not finish is done by the new one
                    running.stop()
            new = make()
            with self._lock:
                self._running[key] = new, setup
            new.start()
            return new

    def get(self, key: Hashable) -> R | None:
        """Return the one that works on something."""
        with self._lock:
            running, _ = self._running.get(key, (None, None))
        return running

    def stop_all(self) -> list[R]:
        """Stop all at once, and wait for all of them together; return those that nobody had stopped before."""
        with self._lock:
            running = [one for one, _setup in self._running.values()]
        active = [one for one in running if one.is_active]
        for one in running:
            one.request_stop()
        deadline = time.monotonic() + EXIT_SECONDS
        for one in running:
            one.join(deadline - time.monotonic())
        return active
