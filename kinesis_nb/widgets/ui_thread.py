"""The one thread that changes the widgets of a view."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.core.interrupt import wait_for
from kinesis_nb.core.process import of_one_process

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

ROUND_SECONDS = 0.1  # between two rounds of changes: at most 10 a second, however often the state changes


@of_one_process
class UiThread:
    """Changes the widgets of one view, a round of changes at a time; there is a thread only while there is work.

    ipywidgets is not made for several threads, and a callback of a widget must return at once. So a callback gives its
    work to :meth:`run`, which does it in a thread of its own, and what it found is shown here.

    Parameters
    ----------
    name
        What the thread is called.
    failed
        Shows an error: of the work, or of showing it.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], object]) -> None:
        self._name, self._failed = name, failed
        self._changed = threading.Condition()  # guards everything below
        self._calls: list[Callable[[], object]] = []
        self._draw: Callable[[], bool] | None = None
        self._seconds, self._due = ROUND_SECONDS, 0.0  # between two pictures; when the next one is due
        self._jobs = 0  # work that is under way
        self._is_alive = self._in_round = False

    def run(
        self,
        work: Callable[[], T],
        then: Callable[[T], object],
        failed: Callable[[BaseException], object] | None = None,
    ) -> None:
        """Do `work`, which may take long, in a thread of its own, then give what it returned to `then` here.

        What it fails with is given to `failed`, or shown as any other error.
        """
        with self._changed:
            self._jobs += 1
        threading.Thread(
            target=self._work, args=(work, then, failed or self._failed), name=f"{self._name} work", daemon=True
        ).start()

    def _work(
        self, work: Callable[[], T], then: Callable[[T], object], failed: Callable[[BaseException], object]
    ) -> None:
        try:
            outcome = partial(then, work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must be seen
            outcome = partial(failed, error)
        with self._changed:
            self._jobs -= 1
            self._calls.append(outcome)
            self._wake()

    def post(self, call: Callable[[], object]) -> None:
        """Have something changed in the next round."""
        with self._changed:
            self._calls.append(call)
            self._wake()

    def animate(self, draw: Callable[[], bool], seconds: float = ROUND_SECONDS) -> None:
        """Call `draw` at an interval in seconds until it returns False."""
        with self._changed:
            self._draw, self._seconds, self._due = draw, seconds, 0.0
            self._wake()

    def settle(self, timeout: float) -> bool:
        """Wait until all work is done and shown; return whether it is."""
        with self._changed:
            return wait_for(self._changed, lambda: not (self._jobs or self._calls or self._in_round), timeout)

    def _wake(self) -> None:
        if not self._is_alive:
            self._is_alive = True
            threading.Thread(target=self._loop, name=self._name, daemon=True).start()

    def _loop(self) -> None:
        while (calls := self._next()) is not None:
            for call in calls:
                try:
                    call()
                except BaseException as error:  # noqa: BLE001 - the thread must continue, and the error must be seen
                    self._failed(error)
            with self._changed:
                self._in_round = False
                self._changed.notify_all()
            time.sleep(ROUND_SECONDS)

    def _next(self) -> list[Callable[[], object]] | None:
        """Return what is to be done in this round, or None when there is nothing left to do."""
        with self._changed:
            calls, self._calls = self._calls, []
            now = time.monotonic()
            if self._draw is not None and now >= self._due:
                self._due = now + self._seconds
                calls.append(partial(self._step, self._draw))
            self._in_round = bool(calls)
            self._is_alive = self._in_round or self._draw is not None
            return calls if self._is_alive else None

    def _step(self, draw: Callable[[], bool]) -> None:
        goes_on = False
        try:
            goes_on = draw()
        finally:
            with self._changed:
                if not goes_on and self._draw is draw:
                    self._draw = None
