r"""What a user may write for the place of a table, and how deltalake is led to that place and to no other.

deltalake takes an address for a URL, and a folder of a name with ``%25`` or ``\`` for one of another name. It gives
the files of a table as a URL would write them, which no reader finds when there is a space or an umlaut in the path.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from deltalake import DeltaTable

from kinesis_nb.core.process import check_threads_of
from kinesis_nb.errors import ConfigError
from kinesis_nb.table.deltalog import LOG

_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(.*[^/].*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive of Windows has one letter
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_HINT = "give a path, or s3://bucket/prefix"


def read_address(table: object) -> str:
    """Return the absolute path, or the ``s3://`` address, that a user means.

    Raises
    ------
    ConfigError
        For anything else, and for a name that not every reader of Delta tables would take for the same place.
    """
    given = os.fspath(table) if isinstance(table, str | os.PathLike) else None
    if not isinstance(given, str) or not given.strip():
        raise ConfigError(f"a {type(table).__name__} is not the place of a table", hint="give a path or s3://…")
    found = _prefix(given) if "://" in given else _folder(given)
    if _CONTROL.search(found) or not _is_unicode(found):
        raise ConfigError(f"{given!r} has characters that no name of a place may have", hint=_HINT)
    return found


def _folder(given: str) -> str:
    if _SCHEME.match(given):  # pathlib makes s3:/bucket of s3://bucket
        raise ConfigError(f"{given!r} is not the place of a table", hint=f"{_HINT} as a text")
    home = _expanded(given)
    try:
        folder = str(Path(home).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise ConfigError(f"{given!r} is not the place of a table: {error}", hint=_HINT) from None
    if os.name == "nt" and _ESCAPE.search(folder):
        raise ConfigError(f"{given!r} has a percent sign that Delta would decode", hint="give another name")
    return folder


def _expanded(given: str) -> str:
    home = os.path.expanduser(given)  # noqa: PTH111 - to pathlib ./~ is the same as ~
    if home.startswith("~"):
        raise ConfigError(
            f"{given!r} names the home folder of an unknown user",
            hint="write ./~name for a folder whose name begins with ~",
        )
    return home


def _prefix(given: str) -> str:
    found = _S3.fullmatch(given)
    if not found:
        raise ConfigError(f"{given!r} is not the place of a table", hint=_HINT)
    prefix = found[1].rstrip("/")
    if {"", ".", ".."} & set(prefix.split("/")):
        raise ConfigError(f"{given!r} has a part that is empty, or . or ..", hint="give the prefix as it is in S3")
    if _ESCAPE.search(prefix) or "#" in prefix or "?" in prefix:
        msg = f"{given!r} has a #, ? or %, which others who read the table take for part of a URL"
        raise ConfigError(msg, hint="give a prefix without them")
    return given.rstrip("/")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Handle(DeltaTable):
    """A version of a table that names its files as they are.

    Parameters
    ----------
    uri
        As `read_address` gives it.
    version
        The newest by default.
    options
        For deltalake.
    """

    def __init__(self, uri: str, version: int | None, options: dict[str, str]) -> None:
        self._place = uri
        check_threads_of("deltalake")
        super().__init__(url_of(uri), version, options or None)  # shown without secrets in a traceback: no copy
        self._storage_options = None  # polars would take the keys from here, and pickle them

    @property
    def table_uri(self) -> str:
        """The path or address that all files begin with."""
        return f"{self._place}/"

    def file_uris(self, *args: Any, **options: Any) -> list[str]:
        """Return the paths of the data files, or their addresses in S3, with nothing encoded."""
        return [self._exact(uri) for uri in super().file_uris(*args, **options)]

    def deletion_vectors(self) -> pa.RecordBatchReader:
        """Return which rows of which files are deleted, with the same names of files."""
        found = pa.table(super().deletion_vectors())
        files = pa.array(map(self._exact, found["filepath"].to_pylist()), pa.string())
        return found.set_column(found.schema.get_field_index("filepath"), "filepath", files).to_reader()

    def _exact(self, uri: str) -> str:
        """Return the address of a file in the table; one that is elsewhere stays as it is."""
        root = super().table_uri.removeprefix("file://").lstrip("/")
        name = uri.partition(root)[2]
        return f"{self._place}/{name}" if name else uri

    def vacuum(
        self,
        retention_hours: int | None = None,
        dry_run: bool = True,  # noqa: FBT001, FBT002 - deltalake's signature
        enforce_retention_duration: bool = True,  # noqa: FBT001, FBT002
        *args: Any,
        **options: Any,
    ) -> list[str]:
        """Remove files as deltalake does, which finds none to remove in a folder that it reaches by a detour."""
        if not _needs_detour(self._place):
            return super().vacuum(retention_hours, dry_run, enforce_retention_duration, *args, **options)
        names = super().vacuum(retention_hours, True, enforce_retention_duration, *args, **options)
        for name in () if dry_run else names:
            Path(self._place, name).unlink(missing_ok=True)
        return names


def create(uri: str, options: dict[str, str], **table: Any) -> None:
    """Create an empty table.

    Parameters
    ----------
    table
        As ``DeltaTable.create`` takes it.
    """
    check_threads_of("deltalake")
    if _needs_detour(uri):
        Path(uri, LOG).mkdir(parents=True, exist_ok=True)  # a detour ends there
    DeltaTable.create(url_of(uri), storage_options=options or None, **table)


def url_of(uri: str) -> str:
    """Return the address by which deltalake finds a place."""
    if "://" in uri:
        return f"s3://{quote(uri.removeprefix('s3://'))}"
    return _detours.to(Path(uri)) if _needs_detour(uri) else uri


def _needs_detour(uri: str) -> bool:
    """Whether deltalake would look for a folder in another place: it decodes a name once too often."""
    return "://" not in uri and os.name != "nt" and bool(_ESCAPE.search(uri) or "\\" in uri)


class _Detours:
    """Folders with plain names that hold a link to the log of a table, and nothing else.

    deltalake resolves links in the address of a table, but not within the table; it reads and writes the log, and the
    data files are read and written by us.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._root: Path | None = None

    def to(self, folder: Path) -> str:
        """Return the way to a table."""
        with self._lock:
            detour = self._made() / hashlib.sha256(str(folder).encode()).hexdigest()
            if not (detour / LOG).is_symlink():  # the first time, or the system tidied up meanwhile
                detour.mkdir(exist_ok=True)
                (detour / LOG).symlink_to(folder / LOG)
        return str(detour)

    def _made(self) -> Path:
        if self._root is None or not self._root.exists():
            self._root = Path(tempfile.mkdtemp(prefix="kinesis_nb-"))
            atexit.register(_remove, self._root, os.getpid())
        return self._root


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a child of it may still need them
        shutil.rmtree(folder, ignore_errors=True)


_detours = _Detours()
