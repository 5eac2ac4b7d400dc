"""Which process an object belongs to: threads, locks, connections and open files do not survive a fork.

What is used in a child says so. It would wait for a thread that the child does not have, or for a lock that nobody will
release; or it would write where its parent writes.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from kinesis_nb.errors import ForkedProcess, forgetful

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PROBE_SECONDS = 3.0  # the query takes milliseconds where polars has its threads
_HINT = "start the child with the multiprocessing method 'spawn' (or 'forkserver'), and connect() there"
_SPECIAL = {"__len__", "__iter__", "__enter__", "__repr__"}

_imported_in = os.getpid()
_probed: dict[int, bool] = {}  # by process: whether polars works there
_threads_of: dict[str, int] = {}  # by library: the process in which it started its threads


def check_process(made_in: int) -> None:
    """Raise ForkedProcess in a child of the process with this id, whose threads and locks the child does not have."""
    if os.getpid() != made_in:
        raise ForkedProcess(f"this was made in process {made_in}, and is used in its child {os.getpid()}", hint=_HINT)


def of_one_process(cls: type[T]) -> type[T]:
    """Let the public methods and properties of a class raise ForkedProcess in a child of the process that made it."""
    made: Callable[..., None] = cls.__init__

    @functools.wraps(made)
    def init(self: object, *args: object, **kwargs: object) -> None:
        object.__setattr__(self, "_process", os.getpid())
        made(self, *args, **kwargs)

    _check_members(cls)
    cls.__init__ = init  # type: ignore[method-assign]
    return cls


def _check_members(cls: type) -> None:
    for name, member in list(vars(cls).items()):
        if name.startswith("_") and name not in _SPECIAL:
            continue
        if isinstance(member, property) and member.fget is not None:
            setattr(cls, name, property(_checked(member.fget), member.fset, member.fdel, member.__doc__))
        elif inspect.isfunction(member):
            setattr(cls, name, _checked(member))


def _checked(method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def call(self: Any, *args: object, **kwargs: object) -> object:
        check_process(self._process)
        return method(self, *args, **kwargs)

    return forgetful(call) if getattr(method, "is_forgetful", False) else call  # the arguments are in this frame too


def check_polars() -> None:
    """Raise ForkedProcess in a child in which polars would hang, waiting for the threads that it had in the parent."""
    if not polars_works():
        raise ForkedProcess(
            f"polars had its threads in the parent of process {os.getpid()}, and does not work without them",
            hint=_HINT,
        )


def polars_works() -> bool:
    """Return whether polars can be used: not in a forked child whose parent had used it, for its threads are there."""
    process = os.getpid()
    if process == _imported_in:
        return True
    if process not in _probed:
        _probed[process] = "polars" not in sys.modules or _probe()
    return _probed[process]


def _probe() -> bool:
    import polars as pl

    frame = pl.DataFrame({"a": [1, 2], "b": [2, 1]})
    work = threading.Thread(target=lambda: frame.select(pl.all().sort()), name="kinesis_nb polars", daemon=True)
    work.start()
    work.join(PROBE_SECONDS)
    return not work.is_alive()


def check_threads_of(library: str) -> None:
    """Raise ForkedProcess in a child of the process in which a library was used first: its threads are there."""
    check_process(_threads_of.setdefault(library, os.getpid()))
