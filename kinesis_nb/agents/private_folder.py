"""Folders that only this user can open, for certificates and for specs of jobs: what they hold is secret, or is run."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from kinesis_nb.core.private_files import open_file, replace_file
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from pathlib import Path


class PrivateFolder:
    """A folder of mode 0700 with files of mode 0600, below the state folder of the user.

    One that others may open, or that belongs to another user, is refused before anything in it is used.
    """

    def __init__(self, *names: str) -> None:
        import platformdirs

        parts = ("agents", *names)
        root = platformdirs.user_state_path("kinesis_nb")
        self._chain = [root, *(root.joinpath(*parts[: number + 1]) for number in range(len(parts)))]
        self.path = self._chain[-1]

    def names(self) -> list[str]:
        """Return the names of its files, sorted."""
        found = self.path.iterdir() if self._exists() else ()
        return sorted(one.name for one in found if not one.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none.

        Raises
        ------
        AgentError
            When others than this user can open the folder or the file.
        """
        if not self._exists():
            return None
        try:
            handle = open_file(self.path / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(self.path / name, error.strerror or "") from None
        with os.fdopen(handle, "rb") as file:
            _check(self.path / name, os.fstat(handle))
            return file.read()

    def write(self, name: str, body: bytes) -> None:
        """Write a file, completely or not at all.

        Raises
        ------
        AgentError
            When others than this user can open the folder.
        OSError
            When the folder cannot be written.
        """
        self._chain[0].parent.mkdir(parents=True, exist_ok=True)
        for one in self._chain:
            one.mkdir(mode=0o700, exist_ok=True)
            _check_folder(one)
        replace_file(self.path / name, body)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        (self.path / name).unlink(missing_ok=True)

    def _exists(self) -> bool:
        for one in self._chain:
            try:
                _check_folder(one)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True


def _check_folder(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(path, "it is not a folder")
    _check(path, found)


def _check(path: Path, found: os.stat_result) -> None:
    if os.name != "posix":
        return
    if found.st_uid != os.getuid():
        raise _refused(path, "it belongs to another user")
    if found.st_mode & 0o077:
        raise _refused(path, "others may open it")


def _refused(path: Path, why: str) -> AgentError:
    return AgentError(f"{path} is not yours alone: {why}", hint="check who owns it and remove it; it is re-created")
