"""When the responses of many shards are requested and decoded."""

from __future__ import annotations

import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
P = ParamSpec("P")

MOST_CORES = 4  # beyond, what needs the GIL is all that counts
MOST_WAIT_SECONDS = 0.25


def _cores_of_this_process() -> int:
    # polars knows them too, and starts its threads to say so: a child forked after an import would not have them
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Decoding:
    """GIL-bound decoding runs one at a time; GIL-free decoding gets one core each; calls keep them busy.

    Threads that decode with the GIL at the same time fight for it and take 2-3 times as long. So do, less, those that
    send and receive meanwhile, and each response takes up to 10 MiB of memory until it is decoded. How many calls it
    takes depends on how far away the service is: one more whenever a decoder had to wait for longer than it worked, and
    fewer when responses pile up.

    Parameters
    ----------
    cores
        Responses that are decoded at the same time without the GIL.
    least
        Calls that may be made at the same time in any case; by default one response can come while all cores decode.
    most_wait
        Seconds without the end of a call after which one is made in any case: those before it may be stuck.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        cores: int | None = None,
        least: int | None = None,
        most_wait: float = MOST_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cores = cores or min(_cores_of_this_process(), MOST_CORES)
        self._least = least or self._cores + 1
        self._most_wait, self._clock = most_wait, clock
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # where the threads do not exist

    def _begin(self) -> None:
        # always the same few threads: memory that one response took in its thread is at hand there for the next
        self._threads = ThreadPoolExecutor(self._cores, "kinesis_nb decoding")
        self._home: weakref.ref[threading.Thread] | None = None
        self._alone = threading.Lock()
        self._changed = threading.Condition()  # guards all below
        self._room = self._least
        self._calls = 0  # from the request to the decoded response
        self._went = self._clock()  # the last of them
        self._responses = 0  # waiting for their turn, or being decoded
        self._ended = self._clock()  # the last turn

    @contextmanager
    def call(self) -> Generator[None]:
        """Wait for room for one call and the decoding of its response."""
        with self._changed:
            waits = self._calls >= self._room
            while waits and not self._changed.wait(self._most_wait):
                waits = self._clock() - self._went < self._most_wait
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._went = self._clock()
                if self._calls < self._room:
                    self._changed.notify()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Wait until no other thread decodes with the GIL."""
        with self._response(), self._alone, self._turn(1):
            yield

    def beside_others(self, decode: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Decode without the GIL: in this thread when no other call is under way, else on a free core."""

        def work() -> T:
            with self._turn(self._cores):
                return decode(*args, **kwargs)

        with self._response():
            return work() if self._calls <= 1 and self._is_at_home() else _run_in(self._threads, work)

    def _is_at_home(self) -> bool:
        """Whether this thread may make arrays itself: one at a time may, for as long as it lives."""
        me = threading.current_thread()
        with self._changed:
            owner = self._home() if self._home is not None else None
            if owner is None or not owner.is_alive():
                self._home, owner = weakref.ref(me), me
            return owner is me

    @contextmanager
    def _response(self) -> Generator[None]:
        with self._changed:
            self._responses += 1
        try:
            yield
        finally:
            with self._changed:
                self._responses -= 1

    @contextmanager
    def _turn(self, width: int) -> Generator[None]:
        """Decode beside at most `width - 1` others; then adapt the number of calls."""
        with self._changed:
            began = self._clock()
            idle = began - self._ended
        try:
            yield
        finally:
            with self._changed:
                self._ended = self._clock()
                piled_up = self._responses - 1 - width
                if piled_up > 0:
                    self._room = max(self._least, self._room - piled_up)
                elif idle > self._ended - began and self._calls >= self._room:
                    self._room += 1
                    self._changed.notify()


def _run_in(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    try:
        decoded = threads.submit(work)
    except RuntimeError:  # the interpreter is about to end
        return work()
    return decoded.result()
