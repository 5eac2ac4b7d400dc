"""When the answers of many shards are asked for, and decoded."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LEAST_CALLS = 2
MOST_WAIT_SECONDS = 0.25


class Decoding:
    """One thread decodes at a time (``with decoding:``), and no more calls are on their way than keep it busy.

    Threads that decode at the same time fight for the GIL and take 2-3 times as long. So do, less, those that send and
    receive meanwhile, and each answer takes up to 10 MiB of memory until it is decoded. How many calls it takes depends
    on how far away the service is: one more whenever the decoder had to wait for longer than it worked, and fewer when
    answers pile up.

    Parameters
    ----------
    least
        Calls that may be made at the same time in any case: one answer is decoded while another one comes.
    most_wait
        Seconds after which a call is made in any case: those before it may be stuck.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        least: int = LEAST_CALLS,
        most_wait: float = MOST_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._least, self._most_wait, self._clock = least, most_wait, clock
        self._turn = threading.Lock()  # guards the two below
        self._began = self._ended = clock()
        self._changed = threading.Condition()  # guards the three below
        self._room = least
        self._calls = 0  # from the request to the decoded answer
        self._answers = 0  # that wait for their turn, or have it

    @contextmanager
    def call(self) -> Generator[None]:
        """Wait for room, and take it for one call and what is made of its answer."""
        with self._changed:
            if self._calls >= self._room:
                self._changed.wait(self._most_wait)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify()

    def __enter__(self) -> None:
        with self._changed:
            self._answers += 1
        self._turn.acquire()
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        now = self._clock()
        has_idled = self._began - self._ended > now - self._began
        self._ended = now
        self._turn.release()
        with self._changed:
            self._answers -= 1
            piled_up = self._answers - 1
            if piled_up > 0:
                self._room = max(self._least, self._room - piled_up)
            elif has_idled and self._calls >= self._room:
                self._room += 1
                self._changed.notify()
