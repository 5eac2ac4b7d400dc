"""Whether a synced table holds each shard completely, once and in order: read from the table itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.core.foreign import describe_dropped
from kinesis_nb.core.selection import COLUMNS, EVERYTHING
from kinesis_nb.display import table_html
from kinesis_nb.errors import TableError
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.failures import one_line
from kinesis_nb.table.others import others
from kinesis_nb.table.schema import TABLE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.table.checkpoints import RecordedGap
    from kinesis_nb.table.others import OtherCommit
    from kinesis_nb.table.reader import TableReader

_NAMED = 3  # files at fault; the others are counted
CLOCK_STEP_SECONDS = 60  # a time of commit that goes back further than this many seconds is a corrected clock
_PLACES = ("shard_offset", "sequence_number", "sub_sequence_number", "foundry_ingestion_timestamp")


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """What the table holds of one shard.

    Attributes
    ----------
    state
        ``ended`` when everything in the (closed) shard is there, else ``open``.
    first_offset, last_offset, first_sequence_number, last_sequence_number
        Of its rows; None without rows.
    lost
        What the stream did not keep until it was read.
    problems
        What should not be; empty when all is well.
    notes
        What is worth knowing and not wrong.
    dropped
        How many user records of aggregates were dropped, because their hash keys are another shard's; named in `notes`.
    filtered
        How many rows were read and not kept.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = kn.demo().sync("orders", f"{folder}/orders", end="now")
    ...     _ = sync.wait(timeout=60, until_caught_up=False)
    ...     [shard.problems for shard in sync.verify().shards]
    ...     sync.stop()
    [(), ()]
    """

    shard_id: str
    state: str
    rows: int
    first_offset: int | None
    last_offset: int | None
    first_sequence_number: str | None
    last_sequence_number: str | None
    lost: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    dropped: int = 0
    filtered: int = 0


@dataclass(frozen=True, slots=True)
class TableCheck:
    """What :meth:`Sync.verify` found; true when every shard is complete, once and in order.

    Attributes
    ----------
    version
        Of the table that was checked.
    others
        What others committed to the table, and what could not be checked. Rows that a DELETE of theirs took out are a
        problem of their shards as well.
    selection
        What the table keeps of the stream, where that is not every record.
    up_to
        Every record that arrived by then was read, of all shards: the table is complete up to this moment. None when
        nothing was read of a shard yet, and when there is nothing more to read.
    is_to_the_end
        Whether all shards are closed and were read to their ends.

    Examples
    --------
    >>> import tempfile
    >>> import kinesis_nb as kn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync = kn.demo().sync("orders", f"{folder}/orders", end="now")
    ...     _ = sync.wait(timeout=60, until_caught_up=False)
    ...     check = sync.verify()
    ...     bool(check), check.rows, check.problems
    ...     sync.stop()
    (True, 1000, [])
    """

    version: int
    shards: tuple[ShardCheck, ...]
    others: tuple[str, ...] = ()
    selection: str = ""
    up_to: datetime | None = None
    is_to_the_end: bool = False

    @property
    def rows(self) -> int:
        """All rows of the table."""
        return sum(shard.rows for shard in self.shards)

    @property
    def dropped(self) -> int:
        """How many user records of aggregates were dropped, of all shards: see :meth:`Source.sync`."""
        return sum(shard.dropped for shard in self.shards)

    @property
    def filtered(self) -> int:
        """How many rows were read and not kept, of all shards."""
        return sum(shard.filtered for shard in self.shards)

    @property
    def problems(self) -> list[str]:
        """What should not be, of all shards."""
        return [problem for shard in self.shards for problem in shard.problems]

    @property
    def lost(self) -> list[str]:
        """What the stream did not keep until it was read, of all shards; recorded, and so no problem of the table."""
        return [text for shard in self.shards for text in shard.lost]

    @property
    def notes(self) -> list[str]:
        """What is worth knowing and not wrong: commits of others, corrected clocks, dropped user records."""
        return [*self.others, *(note for shard in self.shards for note in shard.notes)]

    def __bool__(self) -> bool:
        return not self.problems

    def to_polars(self) -> pl.DataFrame:
        """Return one row per shard."""
        columns = ("lost", "problems", "notes")
        return pl.DataFrame(
            [
                {name: getattr(shard, name) for name in ShardCheck.__slots__ if name not in columns}
                | {name: list(getattr(shard, name)) for name in columns}
                for shard in self.shards
            ]
        )

    @property
    def _reach(self) -> str:
        if self.up_to is not None:
            return f" up to {self.up_to:%Y-%m-%d %H:%M:%S} UTC"
        return " to the end of every shard" if self.is_to_the_end else ", but a shard was not read yet"

    def __repr__(self) -> str:
        found = (
            f"every row once and in order{self._reach}"
            if self
            else f"{len(self.problems)} PROBLEMS: {'; '.join(self.problems)}"
        )
        lost = "".join(f"; {text}" for text in (*self.lost, *self.notes))
        kept = f"; kept {self.selection}: {self.filtered:,} rows were not" if self.selection else ""
        where = f"{self.rows:,} rows of {len(self.shards)} shards, version {self.version}"
        return f"<TableCheck of {where}: {found}{kept}{lost}>"

    def _repr_html_(self) -> str:
        rows = map(_cells, self.shards)
        noted = ((None, "others", *[None] * 5, note) for note in self.others)
        columns = ("shard", "state", "rows", "offsets from", "to", "sequence numbers from", "to", "verdict")
        return table_html(columns, (*rows, *noted), repr(self).strip("<>"))


def _cells(shard: ShardCheck) -> tuple[object, ...]:
    return (
        shard.shard_id,
        shard.state,
        shard.rows,
        shard.first_offset,
        shard.last_offset,
        shard.first_sequence_number,
        shard.last_sequence_number,
        "; ".join((*shard.problems, *shard.lost, *shard.notes)) or "ok",
    )


def verify_table(table: TableReader, listing: Iterable[Shard] | None, selection: Selection = EVERYTHING) -> TableCheck:
    """Read all places of all rows, one shard at a time, and check them against each other and the checkpoints.

    Parameters
    ----------
    table
        Opened at the version to check.
    listing
        The stream's shards; of those that have left it no parent is known, and none is checked. None when there is no
        stream any more.
    selection
        What the sync of the table keeps.

    Raises
    ------
    TableError
        When a part of the table cannot be read; it names the file.
    """
    listed = list(listing or ())
    ours = set(table.known()) | {shard.shard_id for shard in listed if selection.wants(shard)}
    parents = {shard.shard_id: selection.parents(shard, ours) for shard in listed}
    try:
        if faults := table.faults():  # polars panics of some of them
            raise _unreadable(table, faults)
        frame = _frame(table)
        found = frame.select(pl.col("shard_id").unique()).collect()["shard_id"].drop_nulls().to_list()
        shard_ids = sorted({*found, *parents, *ours})
        checkpoints, gaps = table.checkpoints(shard_ids), table.gaps(shard_ids)
        commits = others(table.storage, table.version)
        alien = _not_kept(frame, selection, commits)
        verdicts = [
            _check_shard(frame, shard_id, checkpoints, parents.get(shard_id), gaps, alien.get(shard_id, 0))
            for shard_id in shard_ids
        ]
        by_others = tuple(map(str, commits))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable(table, table.faults(every=True), one_line(error)) from error
    known = [verdict for verdict in verdicts if verdict.rows or checkpoints[verdict.shard_id] != Checkpoint()]
    gone = (
        [] if listing is not None else ["there is no stream to compare with: the lineage of its shards is not checked"]
    )
    kept = "" if selection == EVERYTHING else str(selection)
    open_ones = [shard_id for shard_id in ours if not checkpoints[shard_id].ended]
    reached = [_read_up_to(shard_id, checkpoints, parents) for shard_id in open_ones]
    times = [moment for moment in reached if moment is not None]
    up_to = min(times) if times and len(times) == len(reached) else None
    return TableCheck(table.version, tuple(known), (*by_others, *gone), kept, up_to, is_to_the_end=not open_ones)


def _read_up_to(
    shard_id: str, checkpoints: Mapping[str, Checkpoint], parents: Mapping[str, tuple[str, ...]]
) -> datetime | None:
    """Return up to when a shard was read: one that was not begun since its parents were; None when that is unknown."""
    if (seen := checkpoints[shard_id].seen) is not None:
        return seen
    known = [checkpoints[parent].seen for parent in parents.get(shard_id, ()) if parent in checkpoints]
    times = [moment for moment in known if moment is not None]
    return min(times) if times and len(times) == len(known) else None


def _not_kept(frame: pl.LazyFrame, selection: Selection, commits: Iterable[OtherCommit]) -> dict[str, int]:
    """Return, per shard, how many rows are in the table that its sync does not keep.

    Rows that others may have changed since they were committed cannot be checked.
    """
    if selection.mask is None or any(commit.changes_rows for commit in commits):
        return {}
    rows = frame.select(COLUMNS).filter(~selection.mask).group_by("shard_id").len().collect(engine="streaming")
    return dict(rows.iter_rows())


def _frame(table: TableReader) -> pl.LazyFrame:
    """Return the rows of a table, or raise TableError when it lacks a column that places them."""
    frame = table.storage.scan(table.version)
    names = frame.collect_schema().names()
    if missing := [name for name in ("shard_id", *_PLACES) if name not in names]:
        raise TableError(
            f"{table.storage.uri} has no column {missing[0]!r} any more, so its rows cannot be checked",
            hint="it was dropped or renamed; scan(version) returns the table as it was before",
        )
    return frame.cast({name: pl.Schema(TABLE_SCHEMA)[name] for name in ("shard_id", *_PLACES)})


def _unreadable(table: TableReader, faults: list[str], otherwise: str = "") -> TableError:
    """Return an error that names the files at fault, or else repeats what the reader said."""
    said = "; ".join(faults[:_NAMED]) + (f"; and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else "")
    return TableError(
        f"{table.storage.uri} cannot be read at version {table.version:,}: {said or otherwise}",
        hint="put a copy of the file back, or take its rows out of the table with DeltaTable(…).repair()"
        if faults
        else "try again; if it persists, check the files of the table",
    )


def _check_shard(
    frame: pl.LazyFrame,
    shard_id: str,
    checkpoints: Mapping[str, Checkpoint],
    parents: tuple[str, ...] | None,
    gaps: Iterable[RecordedGap],
    alien: int,
) -> ShardCheck:
    rows = frame.filter(pl.col("shard_id") == shard_id).select(_PLACES).sort("shard_offset").collect()
    checkpoint = checkpoints[shard_id]
    problems = [*_problems(rows), *_against(rows, checkpoint), *_lineage(rows, checkpoints, shard_id, parents)]
    problems += [f"{alien:,} rows that the sync does not keep"] if alien else []
    nothing = dict.fromkeys(_PLACES)
    first, last = (rows.row(0, named=True), rows.row(-1, named=True)) if len(rows) else (nothing, nothing)
    return ShardCheck(
        shard_id,
        "ended" if checkpoint.ended else "open",
        len(rows),
        first["shard_offset"],
        last["shard_offset"],
        first["sequence_number"],
        last["sequence_number"],
        tuple(str(gap) for gap in gaps if gap.shard_id == shard_id),
        tuple(f"{shard_id}: {problem}" for problem in problems),
        tuple(f"{shard_id}: {note}" for note in (*_notes(rows), *_left_out(rows, checkpoint))),
        checkpoint.dropped,
        checkpoint.filtered,
    )


def _steps_back(rows: pl.DataFrame) -> pl.Series:
    """Return by how many seconds the time of commit goes back, where it does."""
    steps = -rows["foundry_ingestion_timestamp"].diff().drop_nulls().dt.total_microseconds() / 1_000_000
    return steps.filter(steps > 0)


def _notes(rows: pl.DataFrame) -> list[str]:
    corrected = _steps_back(rows).filter(_steps_back(rows) > CLOCK_STEP_SECONDS)
    return [f"the clock of the writer was corrected by {seconds:,.0f} s" for seconds in corrected]


def _left_out(rows: pl.DataFrame, checkpoint: Checkpoint) -> list[str]:
    """Tell what was dropped of aggregates: as the writers counted it, and what only the rows show."""
    number, sub = pl.col("sequence_number"), pl.col("sub_sequence_number")
    skipped = pl.when(number == number.shift()).then(sub - sub.shift() - 1).otherwise(sub)
    holes = int(rows.select(skipped.sum()).item() or 0)
    said = [describe_dropped(checkpoint.dropped)] if checkpoint.dropped else []
    if holes > checkpoint.dropped:
        uncounted = holes - checkpoint.dropped
        said.append(f"{uncounted:,} user records within aggregates are not here and were not counted as dropped")
    return said


def _problems(rows: pl.DataFrame) -> list[str]:
    """Name what is wrong with the rows of one shard, in the order of their offsets."""
    steps = rows["shard_offset"].diff().drop_nulls()
    backwards = (_steps_back(rows) <= CLOCK_STEP_SECONDS).sum()
    counts = {
        "rows doubled": int((steps == 0).sum()),
        "holes in the offsets": int((steps > 1).sum()),
        "rows out of order": int(rows.select(_is_out_of_order().sum()).item()),
        "times of commit that go back": int(backwards),
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _is_out_of_order() -> pl.Expr:
    """Return which rows have a number that is not larger than that of the row before."""
    number, sub = pl.col("sequence_number"), pl.col("sub_sequence_number")
    length = number.str.len_chars()  # decimal text without leading zeros: longer is larger
    return (
        (length < length.shift())
        | ((length == length.shift()) & (number < number.shift()))
        | ((number == number.shift()) & (sub <= sub.shift()))
    )


def _against(rows: pl.DataFrame, checkpoint: Checkpoint) -> list[str]:
    if not len(rows):
        return ["all of its rows are missing"] if checkpoint.sequence_number and not _leaves_out(checkpoint) else []
    wrong: list[str] = []
    offset, number = rows.select("shard_offset", "sequence_number").row(-1)
    if checkpoint.offset != offset + 1:
        wrong.append(f"the checkpoint counts {checkpoint.offset:,} rows, the last row is number {offset:,}")
    ahead = int(checkpoint.sequence_number or 0) - int(number)
    if ahead < 0 or (ahead and not _leaves_out(checkpoint)):  # the last record that was read may have left no row
        wrong.append(f"the checkpoint is at {checkpoint.sequence_number}, the last row at {number}")
    return wrong


def _leaves_out(checkpoint: Checkpoint) -> bool:
    """Whether records were read that left no row, or not all of theirs."""
    return bool(checkpoint.dropped or checkpoint.filtered)


def _lineage(
    rows: pl.DataFrame, checkpoints: Mapping[str, Checkpoint], shard_id: str, parents: tuple[str, ...] | None
) -> list[str]:
    """Check that a shard with rows, or of which none was kept, began after its parents had ended."""
    checkpoint = checkpoints[shard_id]
    if parents is None or not (len(rows) or _leaves_out(checkpoint)):
        return []
    known = [(parent, checkpoints[parent]) for parent in parents if parent in checkpoints]
    first = rows["shard_offset"][0] if len(rows) else checkpoint.offset
    wrong = [f"has rows, and its parent {parent} has not ended" for parent, reached in known if not reached.ended]
    # one that was lost before it was read has no rows to come before
    began = [(parent, reached.offset) for parent, reached in known if reached.sequence_number is not None]
    wrong += [f"begins before the end of {parent}" for parent, offset in began if offset > first]
    # whose rows it continues is not known when a parent left the stream before anybody had seen it
    expected = max((reached.offset for _, reached in known), default=0) if len(known) == len(parents) else first
    return wrong + ([f"its first {first - expected:,} rows are missing"] if first > expected else [])
