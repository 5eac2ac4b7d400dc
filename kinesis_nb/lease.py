"""Who writes a table, and how one writer asks another for it. Hints only: what decides is the fence in the table.

The owner leaves a note with its name. Who wants the table leaves a request and waits: an owner that lives commits what
it has and withdraws its note; one that does not answer within the lease is passed over. The wait is measured on the
clock of the one who waits, so clocks need not agree. A note of a process that is gone from this machine is passed over
at once.
"""

from __future__ import annotations

import os
import platform
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kinesis_nb.storage import NOTES

if TYPE_CHECKING:
    from kinesis_nb.storage import Storage

LEASE_SECONDS = 3.0  # how long an owner has to answer a request
POLL_SECONDS = 0.25  # how often the answer is looked for; an owner looks for requests once a second

_OWNER, _REQUEST = f"{NOTES}/owner.json", f"{NOTES}/request.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """A writer: a name of its own, and the process it lives in.

    Attributes
    ----------
    started
        When the process started, in the kernel's own unit; tells it from a later one with its number. Empty where
        that cannot be known.
    """

    owner: str
    host: str
    pid: int
    started: str

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False for one on another machine."""
        return bool(self.started) and self.host == _host() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


class Lease:
    """One writer's side of the notes next to a table."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.me = Holder(uuid.uuid4().hex, _host(), os.getpid(), _started(os.getpid()))

    def other(self) -> Holder | None:
        """Return who else owns the table and may be alive."""
        holder = self._read(_OWNER)
        return None if holder is None or holder.owner == self.me.owner or holder.is_gone() else holder

    def request(self) -> None:
        """Ask the owner to hand the table over."""
        self._write(_REQUEST, self.me)

    def take(self) -> None:
        """Note that this writer owns the table."""
        self._write(_OWNER, self.me)

    def release(self) -> None:
        """Note that this writer has stopped; the note of another one stays."""
        if self._read(_OWNER) == self.me:
            self._write(_OWNER, None)

    def wanted_by(self) -> Holder | None:
        """Return who asks for the table, or took it already."""
        if other := self.other():
            return other
        asking = self._read(_REQUEST)
        return None if asking is None or asking.owner == self.me.owner or asking.is_gone() else asking

    def clear_request(self) -> None:
        """Forget the request that was answered by taking the table."""
        self._write(_REQUEST, None)

    def _read(self, name: str) -> Holder | None:
        try:
            return msgspec.json.decode(self._storage.read(name) or b"null", type=Holder | None)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _write(self, name: str, holder: Holder | None) -> None:
        with suppress(OSError):
            self._storage.write(name, msgspec.json.encode(asdict(holder) if holder else None))


class Guest(Lease):
    """The side of a writer of some of a table's shards: it asks for the table, and leaves no note of its own.

    Who runs which part of a sync is decided elsewhere; the fence alone keeps the parts from writing twice.
    """

    def take(self) -> None:
        """Leave no note."""

    def release(self) -> None:
        """There is none."""

    def wanted_by(self) -> Holder | None:
        """Answer nobody."""
        return None


def _host() -> str:
    """Name this machine and its current boot; process numbers mean nothing beyond either."""
    with suppress(OSError):
        return f"{platform.node()}/{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def _started(pid: int) -> str:
    """Return when a process started; empty for one that has ended (and may not be buried yet)."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else rest[18]
