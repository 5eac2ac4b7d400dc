"""The one thread that serves every live view of a kernel."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from kinesis_nb.core.process import of_one_process

IDLE_SECONDS = 60.0


class Served(Protocol):
    """A view as the pump knows it."""

    @property
    def is_seen(self) -> bool:
        """Whether it is in sight."""
        raise NotImplementedError

    def tick(self, now: float) -> float | None:
        """Do what is due; return in how many seconds to come again, or None when the view is over."""


@of_one_process
class Pump:
    """Gives each view its turn; there is a thread only while there are views."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below; never held during a turn
        self._due: dict[Served, float] = {}
        self._is_alive = False

    def add(self, view: Served) -> None:
        """Serve a view from now on, or at once if it is served already."""
        with self._changed:
            self._due[view] = 0.0
            if not self._is_alive:
                self._is_alive = True
                threading.Thread(target=self._loop, name="kinesis_nb views", daemon=True).start()
            self._changed.notify_all()

    def seen(self) -> int:
        """Return how many of the views are in sight."""
        with self._changed:
            return sum(view.is_seen for view in self._due)

    def wake(self, view: Served) -> None:
        """Give a view its turn now, if it is still served."""
        with self._changed:
            if view in self._due:
                self._due[view] = 0.0
                self._changed.notify_all()

    def _loop(self) -> None:
        while (ready := self._next()) is not None:
            for view in ready:
                wait = view.tick(time.monotonic())
                with self._changed:
                    if wait is None:
                        self._due.pop(view, None)
                    elif self._due.get(view):  # else it was woken meanwhile
                        self._due[view] = time.monotonic() + wait

    def _next(self) -> list[Served] | None:
        """Return the views whose turn it is, waiting for it; None when there is no view left."""
        with self._changed:
            while self._due:
                now = time.monotonic()
                if ready := [view for view, due in self._due.items() if due <= now]:
                    for view in ready:
                        self._due[view] = now + IDLE_SECONDS
                    return ready
                self._changed.wait(min(self._due.values()) - now)
            self._is_alive = False
            return None


PUMP = Pump()
