"""The ``txn`` numbers of a Delta table, all of them from one reading of its log.

deltalake gives one at a time and reads the end of the log again for each. A writer asks for ten of each of its shards
before it begins, and for one of each whenever another writer has committed: with a hundred entries in the log every
look is some 4 ms of CPU. Here an entry is read once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kinesis_nb.storage import LOG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinesis_nb.storage import Storage

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\..+)?\.parquet")


class _Txn(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _Action(msgspec.Struct):
    """A line of the log; only this kind of action matters here."""

    txn: _Txn | None = None


_ACTIONS = msgspec.json.Decoder(_Action)


class Txns:
    """What every ``txn`` name had reached at a version of a table. Not thread-safe.

    An entry of the log never changes, so what is known of one version holds for all later ones.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._version = -1  # up to which `_numbers` goes
        self._numbers: dict[str, int] = {}

    def at(self, version: int) -> Mapping[str, int]:
        """Return the numbers by name.

        Raises
        ------
        OSError
            When the log cannot be read, or that part of it was cleaned up.
        """
        if version < self._version or not self._read_on(version):
            self._numbers, self._version = self._checkpoint(version)
            if not self._read_on(version):
                raise OSError(f"version {version} of {self._storage.uri} is not in its log any more")
        return self._numbers

    def _read_on(self, version: int) -> bool:
        """Read the entries up to a version; False, and nothing changed, when one of them is gone."""
        names = [f"{LOG}/{number:020d}.json" for number in range(self._version + 1, version + 1)]
        entries = self._storage.read_all(names)
        if None in entries:
            return False
        for entry in filter(None, entries):
            actions = _ACTIONS.decode_lines(entry)
            self._numbers |= {action.txn.app_id: action.txn.version for action in actions if action.txn}
        self._version = version
        return True

    def _checkpoint(self, version: int) -> tuple[dict[str, int], int]:
        """Return what the newest checkpoint up to a version holds, and the version it is of; -1 when there is none."""
        found = {name: int(match[1]) for name in self._storage.names(LOG) if (match := _CHECKPOINT.fullmatch(name))}
        newest = max((number for number in found.values() if number <= version), default=-1)
        numbers: dict[str, int] = {}
        for name in (name for name, number in found.items() if number == newest):
            file = pq.ParquetFile(pa.BufferReader(self._storage.read(f"{LOG}/{name}")))
            txns = file.read(columns=["txn"]).column("txn").drop_null().to_pylist()
            numbers |= {txn["appId"]: txn["version"] for txn in txns}
        return numbers, newest
