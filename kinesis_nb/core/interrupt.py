"""Waits that Ctrl-C can end, whatever handles the signal.

Python notices an interrupt between two of its own steps; a wait for a lock is a single step, which the signal breaks
off. After polars was imported it does not any more: the handler that polars installs has such a wait resumed. So what
a user waits for is waited for in turns of a quarter of a second, and what cannot be waited for in turns, because
another library does it, runs in a thread of its own.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from kinesis_nb.core.halt import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_loaded: set[str] = set()  # modules whose import has ended


def wait_for(condition: threading.Condition, is_ready: Callable[[], object], timeout: float | None = None) -> bool:
    """Wait as `condition.wait_for()` does; return whether it is ready."""
    give_up = time.monotonic() + (float("inf") if timeout is None else timeout)
    while not is_ready():
        if (left := give_up - time.monotonic()) <= 0:
            return False
        condition.wait(min(left, POLL_SECONDS))
    return True


def wait(event: threading.Event, timeout: float | None = None) -> bool:
    """Wait as `event.wait()` does; return whether it is set."""
    give_up = time.monotonic() + (float("inf") if timeout is None else timeout)
    while (left := give_up - time.monotonic()) > 0:
        if event.wait(min(left, POLL_SECONDS)):
            return True
    return event.is_set()


def result_of(future: futures.Future[R]) -> R:
    """Wait for a future; return its result, or raise what it failed with."""
    while not futures.wait([future], POLL_SECONDS).done:
        pass
    return future.result()


def apart(function: Callable[P, R]) -> Callable[P, R]:
    """Make the main thread, where interrupts are raised, run a function in a thread of its own.

    For what waits in another library: interrupted, the caller leaves it there, and it ends by itself.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        outcome: futures.Future[R] = futures.Future()

        def work() -> None:
            try:
                outcome.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised below
                outcome.set_exception(error)

        thread = threading.Thread(target=work, name=f"kinesis_nb {function.__name__}", daemon=True)
        thread.start()
        try:
            return result_of(outcome)
        finally:
            if outcome.done():
                thread.join()

    return call


def load(*names: str) -> None:
    """Import modules apart: after an interrupted import numpy and polars cannot be imported any more."""
    if missing := set(names) - _loaded:
        _import(sorted(missing))
        _loaded.update(missing)


@apart
def _import(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)


def loading(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function :func:`load` what it needs first."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            load(*names)
            return function(*args, **kwargs)

        return call

    return decorate
