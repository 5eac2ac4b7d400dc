"""Reads what a synced table records about its shards: how far they got, who owns them, what is lost of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from kinesis_nb.table.checkpoints import GAP_KEYS, TURNS, Checkpoint, RecordedGap, known, reached, time_of
from kinesis_nb.table.failures import storage_errors
from kinesis_nb.table.txns import Txns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from deltalake import DeltaTable

    from kinesis_nb.table.origin import Origin
    from kinesis_nb.table.storage import Storage

_RELATIVE = re.compile(r"[\w.=-]+(/[\w.=-]+)*")


@dataclass(frozen=True, slots=True)
class Turns:
    """Who wants the table, who has it, and who has let go of it: numbers of calls, in the order of their claims.

    Attributes
    ----------
    claimed
        The newest call that wants the table; 0 when there was none.
    taken
        The newest call that took shards of it.
    released
        The newest call that has committed its last row, or whose successor need not wait for that.
    """

    claimed: int
    taken: int
    released: int


class TableReader:
    """Reads the ``txn`` numbers of one version of a synced table. Not thread-safe."""

    def __init__(self, storage: Storage, table: DeltaTable, origin: Origin) -> None:
        self.storage, self.origin = storage, origin
        self._table = table
        self._sync = origin.stream_arn
        self._numbers = Txns(storage)

    @property
    def version(self) -> int:
        """The version that is read; of a writer, the newest one that it has seen."""
        return self._table.version()

    def ended(self, shard_ids: Iterable[str]) -> set[str]:
        """Return those shards of which everything is in the table."""
        ids = list(shard_ids)
        states = self._txns((shard_id, "state") for shard_id in ids)
        return {shard_id for shard_id, state in zip(ids, states, strict=True) if state}

    def checkpoints(self, shard_ids: Iterable[str]) -> dict[str, Checkpoint]:
        """Return how far shards got."""
        return self._checkpoints(self._table, shard_ids)

    def _checkpoints(self, table: DeltaTable, shard_ids: Iterable[str]) -> dict[str, Checkpoint]:
        numbers = self._all_numbers(table)
        return {shard_id: reached(numbers, self._sync, shard_id) for shard_id in shard_ids}

    def known(self) -> set[str]:
        """Return the ids of all shards that the table has records about."""
        return known(self._all_numbers(self._table), self._sync)

    def acquired(self, shard_ids: Iterable[str]) -> set[str]:
        """Return those shards that some writer has owned."""
        ids = list(shard_ids)
        epochs = self._txns((shard_id, "epoch") for shard_id in ids)
        return {shard_id for shard_id, epoch in zip(ids, epochs, strict=True) if epoch}

    def turns(self) -> Turns:
        """Return whose turn it is, at this version."""
        return Turns(*self._txns((TURNS, key) for key in ("claimed", "taken", "released")))

    def gaps(self, shard_ids: Iterable[str]) -> list[RecordedGap]:
        """Return what is known to be lost of shards."""
        numbers = {shard_id: found.gaps for shard_id, found in self.checkpoints(shard_ids).items() if found.gaps}
        places = [(shard_id, number) for shard_id, count in numbers.items() for number in range(count)]
        values = self._txns((shard_id, f"gap{number}/{key}") for shard_id, number in places for key in GAP_KEYS)
        return [
            RecordedGap(shard_id, next(values), time_of(1000 * next(values)), time_of(1000 * next(values)))
            for shard_id, _ in places
        ]

    def faults(self, *, every: bool = False) -> list[str]:
        """Name the data files of this version that are missing or torn.

        Parameters
        ----------
        every
            Whether files of the right size are opened as well.
        """
        found = pa.table(self._table.get_add_actions())
        sizes = dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))
        with storage_errors():
            present = {} if every else self.storage.data_files()
            suspects = [name for name, size in sizes.items() if name not in present or present[name].size != size]
            # a shallow clone names files of another table
            return list(filter(None, map(self.storage.fault, filter(_RELATIVE.fullmatch, suspects))))

    def _txns(self, names: Iterable[tuple[str, str]], table: DeltaTable | None = None) -> Iterator[int]:
        """Return the numbers of `txn` names, 0 for those that were never committed."""
        numbers = self._all_numbers(table or self._table)
        return iter([numbers.get(f"{self._sync}/{shard_id}/{key}", 0) for shard_id, key in names])

    def _all_numbers(self, table: DeltaTable) -> Mapping[str, int]:
        with storage_errors():
            return self._numbers.at(table.version())
