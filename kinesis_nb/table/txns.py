"""The ``txn`` numbers of a Delta table, all of them from one reading of its log.

deltalake gives one at a time and reads the end of the log again for each. A writer asks for ten of each of its shards
before it begins, and for one of each whenever another writer has committed: with a hundred entries in the log every
reading takes some 4 ms of CPU. Here an entry is read once, and none that a checkpoint of the log already holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.table import deltalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kinesis_nb.table.storage import Storage

_FAR = 1_000  # versions behind a hint, from where on it is better to look for a newer checkpoint first


class Txns:
    """What every ``txn`` name had reached at a version of a table. Not thread-safe.

    An entry of the log never changes, so what is known of one version holds for all later ones.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._version: int | None = None  # up to which `_numbers` goes
        self._numbers: dict[str, int] = {}

    def at(self, version: int) -> Mapping[str, int]:
        """Return the numbers by name.

        Raises
        ------
        OSError
            When the log cannot be read, or that part of it was cleaned up.
        TableError
            When a file of the log is incomplete.
        """
        if self._version is None or version < self._version or not self._read_on(self._version, version):
            self._begin_at_checkpoint(version)
        return self._numbers

    def _begin_at_checkpoint(self, version: int) -> None:
        """Read the newest checkpoint of the log up to a version, and the entries behind it."""
        if self._storage.folder is None:  # there listing all names takes one request per thousand
            hint, parts = deltalog.hinted(self._storage)
            if 0 <= version - hint < _FAR and self._read(hint, parts) and self._read_on(hint, version):
                return
        found = deltalog.live(self._storage.sizes(deltalog.LOG), version)
        if not (self._read(found.checkpoint, found.parts) and self._read_on(found.checkpoint, version)):
            raise OSError(f"version {version} of {self._storage.uri} is not in its log any more")

    def _read(self, checkpoint: int, parts: Sequence[str]) -> bool:
        """Begin with a checkpoint; False when a part of it is gone."""
        bodies = self._storage.read_all([f"{deltalog.LOG}/{name}" for name in parts])
        whole = [body for body in bodies if body is not None]
        if len(whole) < len(parts):
            return False
        self._numbers, self._version = deltalog.txns(self._storage, parts, whole), checkpoint
        return True

    def _read_on(self, known: int, version: int) -> bool:
        """Read the entries behind what is known; False, and nothing changed, when one of them is gone."""
        numbers = range(known + 1, version + 1)
        bodies = self._storage.read_all([deltalog.entry(number) for number in numbers])
        if None in bodies:
            return False
        for number, body in zip(numbers, bodies, strict=True):
            actions = deltalog.actions(self._storage, number, body or b"")
            self._numbers |= {action.txn.app_id: action.txn.version for action in actions if action.txn}
        self._version = version
        return True
