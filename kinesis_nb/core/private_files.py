"""Read and replace files that only this user should write: never through a link, never half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)  # nor this one: opening a named pipe must not wait for a writer


def open_file(path: Path) -> int:
    """Open a file for reading, and return its descriptor. Raises OSError for a link."""
    return os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)


def replace_file(path: Path, body: bytes) -> None:
    """Write a file of mode 0600, completely or not at all; a link at its place is replaced, not followed."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
