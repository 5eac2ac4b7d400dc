"""What runs in the background: how a user waits for it and stops it, and what of it runs in this process."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from kinesis_nb.core.arguments import hinted, in_seconds
from kinesis_nb.core.halt import holding
from kinesis_nb.core.process import of_one_process
from kinesis_nb.errors import KinesisError, forgetful

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, MutableMapping

    from kinesis_nb.core.arguments import Seconds

EXIT_SECONDS = 2.0  # for everything of one kind together when the process ends


@of_one_process
class Running(ABC):
    """What a tail, a sync, a streaming export and a job of agents have in common: it runs when you get it.

    It runs until it ends by itself, fails, or is stopped. A subclass says what happens to it (:meth:`_outcomes`); how
    to wait for that stands here.
    """

    @property
    @abstractmethod
    def is_active(self) -> bool:
        """Whether it runs and was not asked to stop."""

    @abstractmethod
    def status(self) -> object:
        """Return a snapshot: its state, what it has done so far, and what is wrong."""

    @abstractmethod
    def stop(self) -> None:
        """Finish what is under way, then stop. Stopping twice is fine."""

    @abstractmethod
    def _repr_html_(self) -> str:
        """Return what a notebook without live views shows."""

    @forgetful
    @hinted
    def wait(self, timeout: Seconds | None = None, *, until_caught_up: bool = True) -> bool:
        """Wait until everything that is there to read now has arrived where it goes.

        For a tail that is its memory, for a sync the table, for an export the output stream.

        Parameters
        ----------
        timeout
            Seconds, or a timedelta; None waits as long as it takes.
        until_caught_up
            False waits until it ends by itself: at its end, or when all shards are closed and read.

        Returns
        -------
        bool
            False when the time ran out, or it was stopped before.

        Raises
        ------
        KinesisError
            What it failed with.
        """
        give_up = self._monotonic() + in_seconds(timeout)
        for outcome in self._outcomes(until_caught_up=until_caught_up):
            if outcome is not None:
                return outcome
            if self._monotonic() >= give_up:
                break
        return False

    @abstractmethod
    def _outcomes(self, *, until_caught_up: bool) -> Iterator[bool | None]:
        """Yield None every now and then while there is nothing to say.

        Then True when it has caught up or has ended by itself, False when it was stopped; raise what it failed with.
        """

    def _monotonic(self) -> float:
        return time.monotonic()


class Restartable(Protocol):
    """What a registry starts: a sync or an export of this process."""

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


R = TypeVar("R", bound=Restartable)


class _Forgetting(ABC):
    """Forgets everything in a child of the process: what it holds runs in the parent, where its lock may be held."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    @abstractmethod
    def _forget(self) -> None:
        """Hold nothing, with a lock that nobody holds."""


class Registry(_Forgetting, Generic[R]):
    """The running things of one kind in this process, by what they work on: the same call gives the same one back.

    Register :meth:`stop_all` with :mod:`atexit`.
    """

    def _forget(self) -> None:
        self._lock = threading.Lock()  # guards the two below; never held during I/O
        self._running: dict[Hashable, tuple[R, object]] = {}
        self._starting: dict[Hashable, threading.Lock] = {}  # held while one starts, so that none starts twice

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


class Stoppable(Protocol):
    """What the next call of its kind stops."""

    def stop(self) -> None:
        """End; twice is fine."""
        ...


S = TypeVar("S", bound=Stoppable)


class Newest(_Forgetting, Generic[S]):
    """The newest running thing of each name: another call stops it. Held weakly, so one that nobody holds may end."""

    def _forget(self) -> None:
        self._newest: MutableMapping[Hashable, S] = WeakValueDictionary()

    def replace(self, key: Hashable, start: Callable[[], S]) -> S:
        """Stop the one of this name, and start another one."""
        if (old := self._newest.pop(key, None)) is not None:  # a tail without rows is false
            old.stop()
        self._newest[key] = new = start()
        return new
