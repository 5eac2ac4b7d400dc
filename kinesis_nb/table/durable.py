"""Files and folders of this machine that survive a power cut, assuming that the disk honours fsync."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextmanager
def drafted(path: Path, body: bytes) -> Generator[Path]:
    """Give a durable file that is to get the name `path` in the block; that name is durable afterwards."""
    path.parent.mkdir(exist_ok=True)  # not its parents: a table that was moved away must not seem to be there
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(body)
        fsync(draft)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def fsync(file: Path) -> None:
    """Make the content of a file survive a power cut."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut.

    Where folders cannot be opened (Windows) there is nothing to do.
    """
    with suppress(PermissionError):
        fsync(folder)
