"""The file of a journal: lines are added and never changed, until the file is replaced by the state they add up to.

Each line has a checksum that continues that of the line before it, so lines that a power cut or a full disk left torn,
short, zeroed or missing are recognised. The first line is the state that the later ones change. It is kept twice, and
so are the durable ones of the later lines, so that a file that lost its end is recognised too.
"""

from __future__ import annotations

import errno
import os
import weakref
import zlib
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, NamedTuple, NotRequired, TypedDict, TypeVar, cast

import msgspec

from kinesis_nb.errors import ConfigError, Fenced, TableError
from kinesis_nb.table.durable import sync_folder
from kinesis_nb.table.failures import one_line

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from kinesis_nb.core.transport import Clock

T = TypeVar("T", bound="Container[object]")

REWRITE_BYTES = 4 * 2**20  # then the file is replaced by the state its lines add up to
SYNC_SECONDS = 1.0  # a power cut loses at most the lines of this time
_DURABLE = {"taken", "closed"}  # keys of the lines that are in the copy as well
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CHECK = b"\t"  # between a line and its checksum; JSON has none

ByShard = dict[str, list[int]]
"""Offsets of rows, by shard id."""

Line = TypedDict(  # a call, because `try` is a keyword of Python
    "Line",
    {
        "taken": dict[str, tuple[int, int]],  # the first offset, and that behind the last
        "try": ByShard,
        "done": ByShard,
        "refused": ByShard,
        "unknown": ByShard,
        "failed": list[tuple[str, int, str]],  # shard id, offset, reason
        "rows": int,
        "closed": bool,
        "begin": dict[str, int],  # of earlier releases
    },
    total=False,
)
"""What happened since the line before it."""

_Begin = TypedDict("_Begin", {"from": str | None})


class State(Line, _Begin):
    """The first line: what all before it add up to."""

    header: dict[str, str | None]
    low: dict[str, int]
    possible_duplicates: int
    given_up: NotRequired[int]
    boot: NotRequired[str]


class Found(NamedTuple):
    """What a file held.

    Attributes
    ----------
    state
        The first line; None for a new file.
    lines
        Those behind it, up to the first that is damaged.
    is_damaged
        Whether a line before the last is damaged, or lines are gone, so that what happened since is not known. The last
        line may be torn without that: the process died while it wrote it, and did nothing after it.
    """

    state: State | None
    lines: list[Line]
    is_damaged: bool


def read_journal(path: Path) -> Found:
    """Return what is in the file of a journal, which another process may be writing.

    Raises
    ------
    ConfigError
        When both copies of its state are damaged.
    """
    body = _read(path)
    if body is None:
        return Found(None, [], is_damaged=False)
    found = _merged(_parsed(body), _parsed(_read_copy(path)))
    if found.state is None:
        raise ConfigError(
            f"{path} is damaged in its first line, and so is its copy: what was sent is not known",
            hint="restore it from a backup; or delete it, which sends all rows again",
        )
    return found


def _merged(file: Found, copy: Found) -> Found:
    """Return what the file and its copy say together."""
    if file.state is None:
        return copy._replace(is_damaged=True)
    if copy.state is not None and file.state != copy.state:
        return copy._replace(is_damaged=False)  # the process died after it replaced the copy, which holds all of it
    missing = copy.lines[sum(not _DURABLE.isdisjoint(line) for line in file.lines) :]
    return Found(file.state, file.lines + missing, file.is_damaged or bool(missing))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}", hint="check its permissions") from None


def _read_copy(path: Path) -> bytes:
    try:
        return _copy_of(path).read_bytes()
    except OSError:
        return b""


def _copy_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.copy")


class JournalFile:
    """One journal's file, locked for one process.

    Raises
    ------
    Fenced
        When another process has it.
    ConfigError
        When it cannot be there.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._copied: IO[bytes] | None = None
        self._size = self._copied_size = self._least = 0  # bytes; the last, those of the state
        self._check = self._copied_check = 0  # of the last line, and of that in the copy
        self._synced_at = clock.monotonic()
        try:
            _make_folder(path.parent)
            self._lock = _locked(path.with_name(f"{path.name}.lock"))
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {one_line(error)}", hint="name a file in a folder of yours with journal="
            ) from None

    def rewrite(self, state: State) -> None:
        """Replace the file by one that holds this state; a crash leaves the old one or the new one."""
        body = _encode(state)
        paths = _copy_of(self.path), self.path
        try:
            with ExitStack() as opened:  # both, before either is replaced: a full disk leaves both as they are
                copied, new = (opened.enter_context(_write_new(path, body)) for path in paths)
                self._close_files()  # a line added from here on would be in the file and not in its newer copy
                for path in paths:
                    _new_of(path).replace(path)
                    sync_folder(path.parent)
                opened.pop_all()
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self._file, self._copied, self._least = new, copied, len(body)
        self._size = self._copied_size = len(body)
        self._check = self._copied_check = _check_of(body)
        self._synced_at = self._clock.monotonic()

    def add(self, line: Mapping[str, object], *, durable: bool = False) -> None:
        """Add a line, whole or not at all.

        Parameters
        ----------
        durable
            Make it survive a power cut now; other lines do within a second, as long as lines are added.

        Raises
        ------
        TableError
            When it cannot be written.
        """
        if self._file is None or self._copied is None:
            raise ConfigError("the journal is closed", hint="start the export again")
        body, copy = _encode(line, self._check), _encode(line, self._copied_check) if durable else b""
        try:
            _write(self._file, body)
            if durable or self._clock.monotonic() - self._synced_at >= SYNC_SECONDS:
                self._sync(self._file)
            _write(self._copied, copy)  # after the file itself, which may hold more than its copy and never less
        except OSError as error:
            for file, size in ((self._copied, self._copied_size), (self._file, self._size)):
                with suppress(OSError):  # else the torn line is recognised when the file is read
                    file.seek(file.truncate(size))
            raise _unwritable(self.path, error) from None
        self._size, self._check = self._size + len(body), _check_of(body)
        if durable:
            self._copied_size, self._copied_check = self._copied_size + len(copy), _check_of(copy)

    @property
    def is_large(self) -> bool:
        """Whether it should be rewritten, so that the cost of a line does not depend on how many there were."""
        return self._size > max(REWRITE_BYTES, 2 * self._least)

    def sync(self) -> None:
        """Make everything so far survive a power cut."""
        if self._file is not None:
            try:
                self._sync(self._file)
            except OSError as error:
                raise _unwritable(self.path, error) from None

    def sync_copy(self) -> None:
        """Make the copy as durable as the file: after a power cut it still tells that the file had lines it lost."""
        if self._copied is not None:
            with suppress(OSError):  # the file itself has all of it
                os.fsync(self._copied.fileno())

    def _sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())
        self._synced_at = self._clock.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether lines can be added."""
        return self._file is not None

    def close(self) -> None:
        """Close the file, and let another process have it."""
        self._close_files()
        _unlock(self._lock)

    def _close_files(self) -> None:
        for file in (self._file, self._copied):
            if file is not None:
                file.close()
        self._file = self._copied = None


class GivenUp:
    """The rows that were given up, in a file of its own that only grows; a row may be in it twice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, rows: list[tuple[str, int, str]]) -> None:
        """Add rows, durably."""
        if not rows:
            return
        try:
            with self._path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    _write(file, b"".join(map(_encode, rows)))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)  # half a line would spoil the one behind it
                    raise
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def rows(self) -> dict[tuple[str, int], str]:
        """Return the reasons by shard id and offset."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except OSError:
            return {}
        found = (_decode(line, list) for line in lines)
        return {(shard_id, offset): reason for shard_id, offset, reason in filter(None, found)}

    def clear(self) -> None:
        """Forget all of them: a new journal starts."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _unwritable(path: Path, error: OSError) -> TableError:
    """Return what a user can do about it; retryable where waiting may help, and a fault of the disk never passes."""
    return TableError(
        f"{path} cannot be written: {one_line(error)}",
        hint="make room there: an export that waits for it continues; else run the same line again",
        retryable=error.errno in _FULL,
    )


def _encode(line: object, before: int = 0) -> bytes:
    body = msgspec.json.encode(line)
    return b"%s%s%08x\n" % (body, _CHECK, zlib.crc32(body, before))


def _check_of(line: bytes) -> int:
    """Return the checksum of a line; 0 where it has none."""
    _, mark, check = line.rstrip(b"\n").rpartition(_CHECK)
    try:
        return int(check, 16) if mark else 0
    except ValueError:
        return 0


def _parsed(body: bytes) -> Found:
    """Return the state in a file, the lines behind it that are as they were written, and whether others are not."""
    *whole, torn = body.split(b"\n")
    first, *rest = whole or [b""]
    if (state := _decode(first, dict)) is None:
        return Found(None, [], is_damaged=True)
    lines = _decoded(rest, _check_of(first))
    is_damaged = len(lines) < len(rest) or b"\0" in torn  # a process that dies leaves half a line, and no zeros
    return Found(cast("State", state), lines, is_damaged)


def _decoded(lines: Sequence[bytes], before: int) -> list[Line]:
    """Return what the lines say up to the first that is damaged, or does not follow the one before it."""
    found: list[Line] = []
    for line in lines:
        entry = _decode(line, dict, before)
        if entry is None:
            break
        found.append(cast("Line", entry))
        before = _check_of(line)
    return found


def _decode(line: bytes, kind: type[T], before: int = 0) -> T | None:
    """Return what a line says; None for one that is damaged."""
    body, mark, check = line.rpartition(_CHECK)
    if mark and check != b"%08x" % zlib.crc32(body, before):
        return None
    try:
        found = msgspec.json.decode(body if mark else line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # earlier releases wrote lines without a checksum, and states without "boot"
    return found if mark or (not before and "boot" not in found) else None


def _write(file: IO[bytes], body: bytes) -> None:
    """Write all of it: a full disk takes a part, and fails at the next call."""
    while body:
        body = body[file.write(body) :]


def _make_folder(folder: Path) -> None:
    """Create a folder durably; one that exists is synced too, because who made it may have died before that."""
    if not folder.exists():
        if not folder.parent.exists():
            _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _write_new(path: Path, body: bytes) -> IO[bytes]:
    """Write a file that is to replace another, durably; return it open, for lines to be added."""
    file = _new_of(path).open("wb", buffering=0)
    try:
        _write(file, body)
        os.fsync(file.fileno())
    except BaseException:
        file.close()
        raise
    return file


def _new_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


# --- the lock


_held: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()  # by this process


def _locked(path: Path) -> IO[bytes]:
    """Return an open file that only one process has locked; the system releases it when the process dies."""
    file = path.open("ab")
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Fenced(f"another process runs this export ({path})", hint="stop it there first") from None
    except OSError as error:
        file.close()
        raise ConfigError(
            f"the file system of {path} has no locks, so two processes could run this export: {one_line(error)}",
            hint="name a file on a disk of this machine with journal=",
        ) from None
    _held.add(file)
    return file


def _unlock(file: IO[bytes]) -> None:
    """Release a lock, even if a child of this process has the same open file."""
    if file in _held:
        import fcntl

        _held.discard(file)
        fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _leave_to_parent() -> None:
    """Close the locks in a child without releasing them: there they would outlive the parent."""
    for file in list(_held):
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
