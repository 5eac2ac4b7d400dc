"""What others did to a synced table: an erasure, an update, an OPTIMIZE. Read from the commits in its log.

The log is kept for seconds only. So a round of maintenance writes down, as ``txn`` actions, which commits of others
changed rows, before it shortens the log; those records last. A commit that only moved rows is reported while it is in
the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from kinesis_nb.table.failures import storage_errors
from kinesis_nb.table.storage import LOG
from kinesis_nb.table.txns import Txns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kinesis_nb.table.storage import Storage

OURS = "kinesis_nb/"  # begins the `txn` names that belong to a table as a whole
SEARCHED = f"{OURS}others"  # up to which version the log was searched
_STREAM = "arn:"  # begins those of a shard; every commit of rows has some
_UNKNOWN = -1
_BACK = 1_000  # versions that are searched at most; a round of maintenance comes long before
_REMOVED = (  # names of the count of rows that a commit took out, as the engines write them
    "num_deleted_rows",
    "numDeletedRows",
    "num_target_rows_deleted",
    "numTargetRowsDeleted",
)
_MOVES = ("OPTIMIZE", "VACUUM")  # begins the name of an operation that leaves the rows as they are


@dataclass(frozen=True, slots=True)
class OtherCommit:
    """A commit that no sync made.

    Attributes
    ----------
    removed
        How many rows it took out; None when it does not say.
    engine
        Which program made it.
    changes_rows
        Whether it added or removed any, or other values of them.
    """

    version: int
    operation: str
    engine: str
    removed: int | None
    changes_rows: bool

    def __str__(self) -> str:
        what = f"{self.operation} at version {self.version:,} by {self.engine or 'an unknown program'}"
        return f"{self.removed:,} rows removed by others ({what})" if self.removed else f"commit of others: {what}"


class _Named(msgspec.Struct, rename="camel"):
    app_id: str = ""


class _File(msgspec.Struct, rename="camel"):
    data_change: bool = False


class _Info(msgspec.Struct, rename="camel"):
    operation: str = "a commit"
    engine_info: str = ""
    operation_metrics: dict[str, object] | None = None
    kinesis_nb: object = msgspec.field(default=None, name="kinesis_nb")


class _EntryAction(msgspec.Struct, rename="camel"):
    txn: _Named | None = None
    add: _File | None = None
    remove: _File | None = None
    commit_info: _Info | None = None


_ACTIONS = msgspec.json.Decoder(_EntryAction)


def others(storage: Storage, version: int) -> list[OtherCommit]:
    """Return what is known of commits of others, up to a version of the table.

    Raises
    ------
    OSError
        When the log cannot be read.
    """
    written_down = {commit.version: commit for commit in _remembered(Txns(storage).at(version))}
    in_log = {commit.version: commit for commit in _in_log(storage, 0, version)}
    return [commit for _, commit in sorted((written_down | in_log).items())]


def to_remember(storage: Storage, version: int) -> dict[str, int]:
    """Return the `txn` numbers that record what others did in the log up to a version.

    Raises
    ------
    OSError
        When the log cannot be read.
    """
    searched = Txns(storage).at(version).get(SEARCHED, _UNKNOWN)
    lasting = (commit for commit in _in_log(storage, searched + 1, version) if commit.changes_rows)
    kept = {
        f"{SEARCHED}/{commit.version}/{commit.operation}/{commit.engine}": (
            _UNKNOWN if commit.removed is None else commit.removed
        )
        for commit in lasting
    }
    return {SEARCHED: version} | kept


def _in_log(storage: Storage, first: int, last: int) -> list[OtherCommit]:
    """Return the commits of others between two versions, as far as the log still has them."""
    wanted = range(max(first, last - _BACK), last + 1)
    with storage_errors():
        present = storage.names(LOG)
        names = {version: f"{version:020d}.json" for version in wanted}
        kept = [version for version in wanted if names[version] in present]
        entries = storage.read_all([f"{LOG}/{names[version]}" for version in kept])
    found = (_parse(version, entry) for version, entry in zip(kept, entries, strict=True) if entry)
    return [commit for commit in found if commit]


def _remembered(numbers: Mapping[str, int]) -> Iterator[OtherCommit]:
    for name, removed in numbers.items():
        if name.startswith(f"{SEARCHED}/"):
            version, operation, engine = name.removeprefix(f"{SEARCHED}/").split("/", 2)
            yield OtherCommit(int(version), operation, engine, None if removed < 0 else removed, changes_rows=True)


def _parse(version: int, entry: bytes) -> OtherCommit | None:
    """Return the commit of an entry of the log; None for one of ours, and for the table's creation."""
    try:
        actions = _ACTIONS.decode_lines(entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return OtherCommit(version, "an unreadable entry of the log", "", None, changes_rows=False)
    info = next((action.commit_info for action in actions if action.commit_info), _Info())
    is_ours = any(action.txn and action.txn.app_id.startswith((OURS, _STREAM)) for action in actions)
    if is_ours or info.kinesis_nb is not None or version == 0:
        return None
    files = [file for action in actions for file in (action.add, action.remove) if file]
    changes = any(file.data_change for file in files) and not info.operation.startswith(_MOVES)
    return OtherCommit(version, info.operation.replace("/", " "), info.engine_info, _removed(info), changes)


def _removed(info: _Info) -> int | None:
    counts = (_count((info.operation_metrics or {}).get(name)) for name in _REMOVED)
    return next((count for count in counts if count is not None), None)


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else None
