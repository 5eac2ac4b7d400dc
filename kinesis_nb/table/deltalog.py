"""The log of a Delta table as files: which of them count, and whether they are complete.

A power cut leaves a file that was not fsynced empty, cut off, or full of zeros. Delta takes an empty entry for a commit
of nothing and half an entry for a smaller commit, so that rows and the numbers that count them come apart; here both
are reported. An entry that nothing relies on yet is different: its writer had not reached its fsync, so the commit was
never reported to anybody, and :func:`settle` turns it into the empty commit that other readers take it for.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kinesis_nb.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LOG = "_delta_log"
LAST_CHECKPOINT = f"{LOG}/_last_checkpoint"

# Where a folder is on a server, another machine may see an entry by its name before what is in it.
PATIENCE_SECONDS, POLL_SECONDS = 2.0, 0.05

_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\..+)?\.parquet")
_STARTS_AGAIN = "start the sync of this table again: that commit was never reported, and its rows are read once more"
_LOST = "put the file back from a backup, or sync into a new place while the stream still has the records"


class Files(Protocol):
    """What is needed of a :class:`~kinesis_nb.table.storage.Storage`."""

    uri: str

    def read(self, name: str) -> bytes | None:
        """Return a file, None when there is none."""

    def read_all(self, names: list[str]) -> list[bytes | None]:
        """Return several."""
        ...

    def write(self, name: str, body: bytes) -> None:
        """Write a file whole or not at all, and durably."""

    def sizes(self, within: str) -> dict[str, int]:
        """Return how many bytes each file in a folder has."""
        ...


class Txn(msgspec.Struct, rename="camel"):
    """How far a writer got, under a name of its own."""

    app_id: str
    version: int


class Remove(msgspec.Struct):
    """A data file that is no longer part of the table."""

    path: str


class CommitInfo(msgspec.Struct):
    """What a commit records about itself; its number of lines, if it was ours."""

    kinesis_nb_lines: str | None = None


class LogAction(msgspec.Struct, rename="camel"):
    """A line of an entry; only these kinds of actions matter here."""

    txn: Txn | None = None
    remove: Remove | None = None
    commit_info: CommitInfo | None = None


def counted(*actions: Sequence[object]) -> dict[str, str]:
    """Return what a commit records about itself: its number of lines, to detect one that was cut between two lines."""
    return {"kinesis_nb_lines": str(1 + sum(map(len, actions)))}


_ACTIONS = msgspec.json.Decoder(LogAction)


@dataclass(frozen=True, slots=True)
class Live:
    """What a reader of one version needs.

    Attributes
    ----------
    checkpoint
        The version of the newest complete set of checkpoint files up to that version; -1 without one.
    parts
        The names of these files.
    entries
        The bytes of each entry behind it, by version, in order.
    """

    checkpoint: int
    parts: tuple[str, ...]
    entries: dict[int, int]


_EMPTY = Live(-1, (), {})


def live(sizes: Mapping[str, int], version: int | None = None) -> Live:
    """Choose from all files of a log; the newest version by default."""
    found: dict[int, list[re.Match[str]]] = {}
    for match in filter(None, map(_CHECKPOINT.fullmatch, sizes)):
        found.setdefault(int(match[1]), []).append(match)
    whole = {number: parts for number, matches in found.items() if (parts := _whole(matches))}
    newest = math.inf if version is None else version
    checkpoint = max((number for number in whole if number <= newest), default=-1)
    numbers = sorted(int(match[1]) for match in map(_ENTRY.fullmatch, sizes) if match)
    entries = {number: sizes[f"{number:020d}.json"] for number in numbers if checkpoint < number <= newest}
    return Live(checkpoint, whole.get(checkpoint, ()), entries)


def _whole(matches: list[re.Match[str]]) -> tuple[str, ...]:
    """Return the files of one checkpoint of a version; nothing when one of several is missing."""
    if single := [match[0] for match in matches if not match[3]]:
        return (min(single, key=len),)
    parts = {match[2]: match[0] for match in matches}
    return tuple(parts.values()) if len(parts) == int(matches[0][3]) else ()


def is_gone(sizes: Mapping[str, int]) -> bool:
    """Return whether the log holds no table: ``_last_checkpoint`` alone only says where one was."""
    return live(sizes) == _EMPTY


def entry(version: int) -> str:
    """Return the name of an entry."""
    return f"{LOG}/{version:020d}.json"


def actions(files: Files, version: int, body: bytes) -> list[LogAction]:
    """Return the actions of an entry.

    Raises
    ------
    TableError
        When it is incomplete, and does not become so.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := _decode(body)):
        if time.monotonic() >= until:
            raise _torn(files, version, body)
        time.sleep(POLL_SECONDS)
        body = files.read(entry(version)) or b""
    return found


def _decode(body: bytes) -> list[LogAction]:
    """Return the actions of an entry; an empty list when it is incomplete, because every commit has at least one."""
    try:
        found = _ACTIONS.decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    said = next((action.commit_info.kinesis_nb_lines for action in found if action.commit_info), None)
    return found if said in (None, str(len(found))) else []


def txns(files: Files, parts: Iterable[str], bodies: Iterable[bytes]) -> dict[str, int]:
    """Return the ``txn`` numbers of a checkpoint.

    Raises
    ------
    TableError
        When a part is incomplete.
    """
    numbers: dict[str, int] = {}
    for txn in _of_checkpoint(files, parts, bodies, "txn"):
        numbers[txn["appId"]] = txn["version"]
    return numbers


def removed(files: Files, version: int) -> set[str]:
    """Return the names of the data files that the log up to a version still remembers as removed, however recently.

    A ``VACUUM`` lists those whose removal lies in the past by the clock of this machine. Another machine's clock may be
    ahead, and a file that it has just removed must not pass for one that was never published.

    Raises
    ------
    TableError
        When a file of the log is incomplete.
    """
    found = live(files.sizes(LOG), version)
    names = {f"{LOG}/{name}": name for name in found.parts}
    bodies = [body or b"" for body in files.read_all(list(names))]
    paths = {remove["path"] for remove in _of_checkpoint(files, names.values(), bodies, "remove")}
    for number, body in zip(found.entries, files.read_all([entry(number) for number in found.entries]), strict=True):
        if body is not None:  # otherwise cleaned up meanwhile
            paths |= {action.remove.path for action in actions(files, number, body) if action.remove}
    return paths


def _of_checkpoint(files: Files, parts: Iterable[str], bodies: Iterable[bytes], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the actions of one kind that a checkpoint holds."""
    for name, body in zip(parts, bodies, strict=True):
        try:
            yield from pq.ParquetFile(pa.BufferReader(body)).read(columns=[kind]).column(kind).drop_null().to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise _torn_checkpoint(files, name, body) from error


def hinted(files: Files) -> tuple[int, tuple[str, ...]]:
    """Return the version and the files of the checkpoint that ``_last_checkpoint`` names; -1 when it names none."""
    try:
        found = json.loads(files.read(LAST_CHECKPOINT) or b"{}")
        version, parts = int(found["version"]), int(found.get("parts") or 1)
    except (ValueError, KeyError, TypeError, AttributeError):
        return -1, ()  # Delta does without it, too
    if parts == 1:
        return version, (f"{version:020d}.checkpoint.parquet",)
    return version, tuple(f"{version:020d}.checkpoint.{part:010d}.{parts:010d}.parquet" for part in range(1, parts + 1))


def check(files: Files, version: int | None = None) -> None:
    """Raise TableError for an entry that Delta would take for less than it was."""
    numbers = list(live(files.sizes(LOG), version).entries)
    for number, body in zip(numbers, files.read_all([entry(number) for number in numbers]), strict=True):
        if body is not None:  # else cleaned up meanwhile: a newer checkpoint holds it
            actions(files, number, body)


def settle(files: Files) -> list[int]:
    """Turn torn entries that nothing relies on into empty commits; return their versions.

    The name stays taken, and what is written depends on nothing else: it does not matter how many processes do this
    at once, nor who has read the entry before.
    """
    found = live(files.sizes(LOG))
    newest = list(reversed(found.entries))
    torn = sorted(takewhile(lambda number: not _decode(files.read(entry(number)) or b""), newest))
    if not torn or torn[0] == 0:
        return []
    return [number for number in torn if _cancel(files, number)]


def _cancel(files: Files, version: int) -> bool:
    try:
        actions(files, version, b"")  # it may only have been on its way
    except TableError:
        files.write(entry(version), _nothing())
        return True
    return False


def _nothing() -> bytes:
    """Return an entry without actions that records why it has none."""
    why = {"reason": "a power cut tore this commit before it was reported"}
    now = time.time_ns() // 1_000_000
    return msgspec.json.encode({"commitInfo": {"timestamp": now, "operation": "CANCELLED", "operationParameters": why}})


def explain(files: Files, version: int | None = None) -> TableError | None:
    """Return what is wrong with a log that cannot be read, if its files show that."""
    sizes = files.sizes(LOG)
    found = live(sizes, version)
    if found == _EMPTY:
        return None  # there is no log, so nothing is missing from it
    hint, named = hinted(files)
    try:
        check(files, version)
        txns(files, found.parts, [files.read(f"{LOG}/{name}") or b"" for name in found.parts])
    except TableError as error:
        return error
    numbers = range(found.checkpoint + 1, max(found.entries, default=found.checkpoint) + 1)
    if missing := [number for number in numbers if number not in found.entries]:
        msg = (
            f"{files.uri}: entry {missing[0]:,} of its log is missing ({entry(missing[0])}), and later ones rely on it"
        )
        return TableError(msg, hint=_LOST)
    if hint > found.checkpoint and version is None and not sizes.keys() >= set(named):
        msg = f"{files.uri}: checkpoint {hint:,} of its log is missing ({LOG}/{named[0]})"
        return TableError(msg, hint=f"remove {LAST_CHECKPOINT}" if numbers else _LOST)
    return None


def _torn(files: Files, version: int, body: bytes) -> TableError:
    entries = live(files.sizes(LOG)).entries
    later = [number for number in entries if number > version]
    is_newest = version > 0 and not any(map(_decode, filter(None, files.read_all([entry(number) for number in later]))))
    what = f"{files.uri}: entry {version:,} of its log is {_state(body)} ({entry(version)})"
    if is_newest:
        return TableError(f"{what}, as a power cut leaves a commit", hint=_STARTS_AGAIN)
    return TableError(f"{what}, and all later ones rely on it", hint=_LOST)


def _torn_checkpoint(files: Files, name: str, body: bytes) -> TableError:
    """Say what to do about a checkpoint that is incomplete: without it, the log before it may still be."""
    sizes = files.sizes(LOG)
    before = live({other: size for other, size in sizes.items() if other != name})
    version = int(name[:20])
    is_whole = set(range(before.checkpoint + 1, version + 1)) <= before.entries.keys()
    hint = f"remove that file and {LAST_CHECKPOINT}: the log before it is complete" if is_whole else _LOST
    what = f"{files.uri}: checkpoint {version:,} of its log is {_state(body)} ({LOG}/{name})"
    return TableError(f"{what}, as a power cut leaves a file", hint=hint)


def _state(body: bytes) -> str:
    if not body.strip():
        return "empty"
    return "cut off" if body.strip(b"\0") else "full of zeros"
