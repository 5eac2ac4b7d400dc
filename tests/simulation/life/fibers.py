"""Threads that take turns when the simulation says so: the same seed gives the same turns.

`Fibers` stands for the kernel: a fiber runs until it waits for something, and then chance chooses the next one. Virtual
time passes only when all of them wait. `Threading` and `Time` stand where the modules of the package have `threading`
and `time`; what they give behaves as the real thing does, so the package runs unchanged.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from greenlet import GreenletExit, getcurrent, greenlet

from kinesis_nb.core.halt import Halt

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from kinesis_nb.emulator import ManualClock

FOREVER = float("inf")
MOST_TURNS = 400_000  # of one seed; more is a loop that never waits
_SAME = 1e-6  # seconds: what adding up times may be off


class Group:
    """The fibers of one process: they live, stop and go on together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.frozen_until = 0.0

    def __repr__(self) -> str:
        return self.name


class Fiber:
    """One thread of a process."""

    def __init__(self, group: Group, name: str, work: Callable[[], object]) -> None:
        self.group, self.name = group, name
        self.ready: Callable[[], bool] | None = None
        self.until = 0.0
        self.error: BaseException | None = None  # to be raised where it waits
        self.greenlet = greenlet(work)

    def __repr__(self) -> str:
        return f"{self.name} of {self.group}"


class Stuck(Exception):
    """A fiber never waits, or waits for a lock that nobody will release."""


class Fibers:
    """All threads of all processes."""

    def __init__(self, clock: ManualClock, chooser: random.Random) -> None:
        self.clock, self._random = clock, chooser
        self.current: Fiber | None = None
        self.escaped: list[tuple[Fiber, BaseException]] = []  # what ended a fiber
        self.is_over = False
        self.turns = 0
        self._fibers: list[Fiber] = []
        self._hub = getcurrent()

    def spawn(self, group: Group, name: str, work: Callable[[], object]) -> Fiber:
        """Begin a thread; it has its first turn later."""
        if self.is_over:
            raise GreenletExit

        def run() -> None:
            try:
                work()
            except GreenletExit:
                pass
            except BaseException as error:  # noqa: BLE001 - whatever it is, the oracle must see it
                self.escaped.append((fiber, error))

        fiber = Fiber(group, name, run)
        self._fibers.append(fiber)
        return fiber

    def wait(self, ready: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        """Let others run until `ready` says so, or the time is over; return whether it does."""
        if ready is not None and ready():
            return True
        fiber = self.current
        if self.is_over:
            raise GreenletExit
        if fiber is None:
            raise Stuck("the simulation itself would wait")
        fiber.ready = ready
        least = 2 * _SAME if timeout else 0.0  # of a wait, however short: else it would never end
        fiber.until = FOREVER if timeout is None else self.clock.now() + max(least, timeout)
        self._hub.switch()
        if fiber.error is not None:
            error, fiber.error = fiber.error, None
            raise error
        return ready is not None and ready()

    def end_group(self, group: Group) -> None:
        """Let the fibers of a process never have a turn again; nothing of them is cleaned up."""
        group.is_alive = False
        if self.current is not None and self.current.group is group:
            self.current.ready, self.current.until = None, FOREVER
            self._hub.switch()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let everybody run for a time, or until something is so."""
        end = self.clock.now() + seconds
        while not until():
            now = self.clock.now()
            self._fibers = [fiber for fiber in self._fibers if not fiber.greenlet.dead]
            living = [fiber for fiber in self._fibers if fiber.group.is_alive]
            if due := [fiber for fiber in living if self._is_due(fiber, now)]:
                self._resume(self._random.choice(due))
                continue
            following = min((max(fiber.until, fiber.group.frozen_until) for fiber in living), default=FOREVER)
            self.clock.advance(max(0.0, min(following, end) - now))
            if following > end:
                return

    @staticmethod
    def _is_due(fiber: Fiber, now: float) -> bool:
        if fiber.group.frozen_until > now + _SAME:
            return False
        return fiber.until <= now + _SAME or fiber.error is not None or (fiber.ready is not None and fiber.ready())

    def _resume(self, fiber: Fiber) -> None:
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise Stuck(f"{fiber} is among those that never wait")
        self.current = fiber
        try:
            fiber.greenlet.switch()
        finally:
            self.current = None

    def close(self) -> None:
        """End all fibers; what they still do has no effect that anybody looks at."""
        self.is_over = True
        for fiber in self._fibers:
            self.current = fiber
            for _ in range(20):
                if fiber.greenlet.dead:
                    break
                fiber.greenlet.throw(GreenletExit)
        self.current = None


class _OfWorld:
    """A thing that waits in one world; each world has a class of its own."""

    fibers: Fibers


class _Thread(_OfWorld):
    started: ClassVar[dict[int, _Thread]]

    def __init__(
        self,
        *,
        target: Callable[..., object] = lambda: None,
        name: str = "",
        args: tuple[Any, ...] = (),
        daemon: bool = True,
    ) -> None:
        self.name, self.daemon = name, daemon
        self._work = lambda: target(*args)
        self._fiber: Fiber | None = None

    def start(self) -> None:
        assert self.fibers.current is not None
        self._fiber = self.fibers.spawn(self.fibers.current.group, self.name, self._work)
        self.started[id(self._fiber)] = self

    def is_alive(self) -> bool:
        return self._fiber is not None and not self._fiber.greenlet.dead

    def join(self, timeout: float | None = None) -> None:
        self.fibers.wait(lambda: not self.is_alive(), timeout)


class _Event(_OfWorld, threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        self.fibers.wait(self.is_set, timeout)
        return self.is_set()


class _Halt(_OfWorld, Halt):
    def wait(self, timeout: float | None = None) -> bool:
        self.fibers.wait(self.is_set, timeout)
        return self.is_set()


class _Lock(_OfWorld):
    def __init__(self) -> None:
        self._owner: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as the real one
        if self._owner is not None and not blocking:
            return False
        if not self.fibers.wait(lambda: self._owner is None, None if timeout < 0 else timeout):
            return False
        self._owner = self.fibers.current or self
        return True

    def release(self) -> None:
        assert self._owner is not None
        self._owner = None

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _RLock(_Lock):
    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as the real one
        is_mine = self._owner is not None and self._owner is (self.fibers.current or self)
        if not is_mine and not super().acquire(blocking, timeout):
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            super().release()


class _Condition(_OfWorld):
    new_lock: type[_Lock]

    def __init__(self, lock: _Lock | None = None) -> None:
        self._lock = lock or type(self).new_lock()
        self._waiting: list[list[bool]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        woken = [False]
        self._waiting.append(woken)
        self._lock.release()
        try:
            self.fibers.wait(lambda: woken[0], timeout)
        finally:
            self._lock.acquire()
            self._waiting = [other for other in self._waiting if other is not woken]
        return woken[0]

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        end = None if timeout is None else self.fibers.clock.now() + timeout
        while not (found := predicate()):
            left = None if end is None else end - self.fibers.clock.now()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify_all(self) -> None:
        self.notify(len(self._waiting))

    def notify(self, n: int = 1) -> None:
        for woken in self._waiting[:n]:
            woken[0] = True


class Threading:
    """What the package needs of `threading`, on fibers."""

    def __init__(self, fibers: Fibers) -> None:
        self._fibers, self._main = fibers, object()
        self._started: dict[int, _Thread] = {}

        def here(kind: type[_OfWorld], **more: object) -> Any:
            return type(kind.__name__.strip("_"), (kind,), {"fibers": fibers, **more})

        self.Thread = here(_Thread, started=self._started)
        self.Event, self.Halt, self.Lock, self.RLock = here(_Event), here(_Halt), here(_Lock), here(_RLock)
        self.Condition = here(_Condition, new_lock=self.RLock)

    def current_thread(self) -> object:
        """Return the thread of the fiber that runs; one that stands for the cell of a notebook otherwise."""
        return self._started.get(id(self._fibers.current), self._main)

    def main_thread(self) -> object:
        """Return one that never runs: no cell has to leave what it waits for to another thread."""
        return self


class OfFiber:
    """What `halt` keeps per thread."""

    def __init__(self, fibers: Fibers) -> None:
        self._fibers, self._halts = fibers, defaultdict[int, Halt | None](lambda: None)

    @property
    def halt(self) -> Halt | None:
        """What the fiber that runs obeys."""
        return self._halts[id(self._fibers.current)]

    @halt.setter
    def halt(self, halt: Halt | None) -> None:
        self._halts[id(self._fibers.current)] = halt


class Time:
    """What the package needs of `time`; `now` is the wall clock of the machine that runs."""

    def __init__(self, fibers: Fibers, now: Callable[[], float]) -> None:
        self.time, self._fibers = now, fibers

    def time_ns(self) -> int:
        """Return the same in nanoseconds."""
        return int(self.time() * 1e9)

    def monotonic(self) -> float:
        """Return a time that no step of a clock changes."""
        return self._fibers.clock.now()

    def sleep(self, seconds: float) -> None:
        """Let others run meanwhile."""
        self._fibers.wait(None, seconds)
