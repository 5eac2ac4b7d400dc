"""Who writes a table: a file beside it with the name of the process. A hint that saves waiting; the table decides.

Whoever wants a table claims it in the log and waits for its writer to let go (:mod:`kinesis_nb.syncing.ownership`).
A writer whose process is known to be gone never will, so it is not waited for.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kinesis_nb.errors import KinesisError
from kinesis_nb.table.storage import LEASE_FOLDER

if TYPE_CHECKING:
    from kinesis_nb.table.storage import Storage

_OWNER = f"{LEASE_FOLDER}/owner.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """A writer: the number of its call, and the process that it lives in.

    Attributes
    ----------
    turn
        Which call of this sync it is, as the table counts them.
    started
        When the process started, in the kernel's own unit; distinguishes it from a later one with the same number.
        Empty where that cannot be known.
    """

    turn: int
    host: str
    pid: int
    started: str

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False for one on another machine."""
        return bool(self.started) and self.host == _host() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


def take(storage: Storage, turn: int) -> None:
    """Write the name of this process for the call of that number; when that fails, others wait longer."""
    me = Holder(turn, _host(), os.getpid(), _started(os.getpid()))
    with suppress(OSError, KinesisError):
        storage.write(_OWNER, msgspec.json.encode(asdict(me)))


def holder(storage: Storage, turn: int) -> Holder | None:
    """Return the process that wrote its name for the call of that number; None when that is not known."""
    try:
        found = msgspec.json.decode(storage.read(_OWNER) or b"null", type=Holder | None)
    except (OSError, KinesisError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found is not None and found.turn == turn else None


def _host() -> str:
    """Name this machine and its current boot; process numbers mean nothing beyond either."""
    with suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def _started(pid: int) -> str:
    """Return when a process started; empty for one that has ended, though its parent may not have noticed."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else rest[18]
