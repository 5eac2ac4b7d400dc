"""What a folder holds after its power was cut: what was fsynced, and of the rest what chance left.

Names of one folder are kept in the order in which their files were made, as journaling file systems do: the newest
ones that were not synced may be missing. Names that were removed or replaced without a sync may be as they were. What a
file holds that was never synced may be there, or it is empty, cut off or full of zeros.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


class Disk:
    """Records every fsync below a folder.

    Parameters
    ----------
    shadow
        A place beside it, on the same file system: a link there keeps the content of a synced file, and its number
        from being used again.
    """

    def __init__(self, root: Path, shadow: Path, chooser: random.Random) -> None:
        self.root, self._shadow, self._random = root, shadow, chooser
        self._names: dict[Path, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        shadow.mkdir(exist_ok=True)

    def fsync(self, descriptor: int) -> None:
        """Make an open file or folder durable."""
        self.sync(Path(f"/proc/self/fd/{descriptor}").readlink())

    def sync(self, path: Path) -> None:
        """Make a file or the names of a folder durable."""
        if not path.is_relative_to(self.root):
            return
        if path.is_dir():
            self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path)}
        elif path.exists():
            self._pin(path)

    def _pin(self, path: Path) -> None:
        number = path.stat().st_ino
        if number not in self._contents:
            os.link(path, self._shadow / str(number))
        self._contents[number] = path.read_bytes()

    def sync_all(self) -> None:
        """Make everything durable, as whoever else writes here does."""
        for folder, _, files in os.walk(self.root):
            self.sync(Path(folder))
            for name in files:
                self.sync(Path(folder, name))

    def cut(self) -> list[str]:
        """Cut the power; return what became of what was not synced."""
        happened: list[str] = []
        for folder, folders, _ in os.walk(self.root):
            happened += self._cut_names(Path(folder))
            folders[:] = [name for name in folders if Path(folder, name).is_dir()]
        for folder, _, files in os.walk(self.root):
            happened += filter(None, (self._cut_content(Path(folder, name)) for name in files))
        self.sync_all()
        return happened

    def _cut_names(self, folder: Path) -> list[str]:
        now = {entry.name: entry.inode() for entry in os.scandir(folder)}
        then = self._names.get(folder, {})
        new = sorted((number, name) for name, number in now.items() if then.get(name) != number)
        kept = self._random.randint(0, len(new))
        happened = []
        for _, name in new[kept:]:
            self._remove(folder / name)
            happened.append(f"{folder.name}/{name} vanishes")
            if name in then:
                self._restore(folder / name, then[name])
        for name in then.keys() - now.keys():
            if self._random.random() < 0.5 and then[name] in self._contents:
                self._restore(folder / name, then[name])
                happened.append(f"{folder.name}/{name} is back")
        return happened

    def _restore(self, path: Path, number: int) -> None:
        if number in self._contents:
            os.link(self._shadow / str(number), path)

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _cut_content(self, path: Path) -> str:
        body = path.read_bytes()
        known = self._contents.get(path.stat().st_ino)
        if known == body or not body:
            return ""
        kept = known if known and body.startswith(known) else b""  # of a file that only grows what was synced stays
        rest = body[len(kept) :]
        kind = self._random.choice(["stays", "empty", "cut off", "zeros"])
        left = {
            "stays": rest,
            "empty": b"",
            "cut off": rest[: self._random.randrange(len(rest))],
            "zeros": bytes(len(rest)),
        }[kind]
        path.write_bytes(kept + left)
        return f"{path.name}: {kind}"
