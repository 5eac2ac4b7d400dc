"""A disk in a file. A power cut keeps the blocks that were written to it, and forgets what the kernel held back."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

MEGABYTES = 96
# ext4 as it comes, but for the journal: written each second, so that names are on disk before what is in the files
OPTIONS = "loop,commit=1"
TRIES = 100


def why_not() -> str:
    """Return why there can be no such disk here; an empty string when there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "mounting an image needs root"
    missing = [program for program in ("mkfs.ext4", "e2fsck", "mount", "umount") if not shutil.which(program)]
    if missing:
        return f"there is no {missing[0]}"
    return "" if Path("/dev/loop-control").exists() else "there are no loop devices"


class Disk:
    """An image and the folder where it is mounted.

    Parameters
    ----------
    folder
        For both.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "disk"
        self._image = folder / "image"
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(MEGABYTES * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Mount what is in the image; ext4 replays its journal."""
        _run("mount", "-o", OPTIONS, str(self._image), str(self.root))

    def unmount(self) -> None:
        """Write everything, as no power cut does."""
        _run("umount", str(self.root))

    @contextmanager
    def cut(self) -> Generator[None]:
        """Cut the power now. In the block all who use the disk must be ended; it is mounted again afterwards."""
        kept = self._image.with_suffix(".cut")
        for _ in range(TRIES):  # the kernel may write by itself, and a power cut comes at one moment
            before = self._written()
            shutil.copyfile(self._image, kept)
            if self._written() == before:
                break
        else:
            msg = "the kernel wrote to the disk all the time"
            raise RuntimeError(msg)
        yield
        self.unmount()
        kept.replace(self._image)
        self.mount()

    def _written(self) -> tuple[str, str]:
        """Return how many blocks were written to the disk, and how many requests are on their way."""
        mounts = map(str.split, Path("/proc/mounts").read_text().splitlines())
        device = next(device for device, root, *_ in mounts if root == str(self.root))
        found = Path("/sys/block", Path(device).name, "stat").read_text().split()
        return found[6], found[8]

    def check(self) -> None:
        """Raise when the file system itself is damaged: then what was done to it was no power cut."""
        self.unmount()
        _run("e2fsck", "-f", "-n", str(self._image))

    @contextmanager
    def neighbour(self) -> Generator[None]:
        """Let another program fsync a file all the time; with each the names of all new files reach the disk."""
        stop = threading.Event()

        def write() -> None:
            with (self.root / "neighbour").open("wb") as file:
                while not stop.wait(0.002):
                    os.pwrite(file.fileno(), os.urandom(16), 0)
                    os.fsync(file.fileno())

        thread = threading.Thread(target=write, name="neighbour")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def disk(folder: Path) -> Generator[Disk]:
    """Give a disk, and take it away."""
    made = Disk(folder)
    try:
        yield made
        made.check()
    finally:
        subprocess.run(["umount", "-l", str(made.root)], check=False, capture_output=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
