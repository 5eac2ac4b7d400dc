"""Whether a synced table holds each shard whole, once and in order: read from the table itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from kinesis_nb.display import table_html
from kinesis_nb.table import Checkpoint, SyncTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kinesis_nb.shards import Shard
    from kinesis_nb.table import RecordedGap


@dataclass(frozen=True, slots=True)
class ShardVerdict:
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :meth:`Sync.verify` found; true when every shard is whole, once and in order.

    Attributes
    ----------
    version
        Of the table that was looked at.
    """

    version: int
    shards: tuple[ShardVerdict, ...]

    @property
    def rows(self) -> int:
        """All rows of the table."""
        return sum(shard.rows for shard in self.shards)

    @property
    def problems(self) -> list[str]:
        """What should not be, of all shards."""
        return [problem for shard in self.shards for problem in shard.problems]

    @property
    def lost(self) -> list[str]:
        """What the stream did not keep until it was read, of all shards; recorded, and so no problem of the table."""
        return [text for shard in self.shards for text in shard.lost]

    def __bool__(self) -> bool:
        return not self.problems

    def to_polars(self) -> pl.DataFrame:
        """Return one row per shard."""
        columns = ("lost", "problems")
        return pl.DataFrame(
            [
                {name: getattr(shard, name) for name in ShardVerdict.__slots__ if name not in columns}
                | {name: list(getattr(shard, name)) for name in columns}
                for shard in self.shards
            ]
        )

    def __repr__(self) -> str:
        found = "every row once and in order" if self else f"{len(self.problems)} PROBLEMS: {'; '.join(self.problems)}"
        lost = f"; {'; '.join(self.lost)}" if self.lost else ""
        return f"<Verdict on {self.rows:,} rows of {len(self.shards)} shards, version {self.version}: {found}{lost}>"

    def _repr_html_(self) -> str:
        rows = (
            (
                shard.shard_id,
                shard.state,
                shard.rows,
                shard.first_offset,
                shard.last_offset,
                shard.first_sequence_number,
                shard.last_sequence_number,
                "; ".join((*shard.problems, *shard.lost)) or "ok",
            )
            for shard in self.shards
        )
        columns = ("shard", "state", "rows", "offsets from", "to", "sequence numbers from", "to", "verdict")
        return table_html(columns, rows, repr(self).strip("<>"))


def verify(table: SyncTable, listing: Iterable[Shard]) -> Verdict:
    """Read all places of all rows, one shard at a time, and check them against each other and the checkpoints.

    Parameters
    ----------
    table
        Opened at the version to look at.
    listing
        The stream's shards; of those that have left it no parent is known, and none is checked.
    """
    frame = table.storage.scan(table.version)
    parents = {shard.shard_id: shard.parents for shard in listing}
    found = frame.select(pl.col("shard_id").unique()).collect()["shard_id"].to_list()
    shard_ids = sorted(set(found) | parents.keys())
    checkpoints = table.checkpoints(shard_ids)
    gaps = table.gaps(shard_ids)
    verdicts = [_look_at(frame, shard_id, checkpoints, parents.get(shard_id), gaps) for shard_id in shard_ids]
    known = [verdict for verdict in verdicts if verdict.rows or checkpoints[verdict.shard_id] != Checkpoint()]
    return Verdict(table.version, tuple(known))


def _look_at(
    frame: pl.LazyFrame,
    shard_id: str,
    checkpoints: Mapping[str, Checkpoint],
    parents: tuple[str, ...] | None,
    gaps: Iterable[RecordedGap],
) -> ShardVerdict:
    columns = ("shard_offset", "sequence_number", "sub_sequence_number", "foundry_ingestion_timestamp")
    rows = frame.filter(pl.col("shard_id") == shard_id).select(columns).sort("shard_offset").collect()
    checkpoint = checkpoints[shard_id]
    problems = [*_problems(rows), *_against(rows, checkpoint), *_lineage(rows, checkpoints, parents)]
    nothing: dict[str, Any] = dict.fromkeys(columns)
    first, last = (rows.row(0, named=True), rows.row(-1, named=True)) if len(rows) else (nothing, nothing)
    return ShardVerdict(
        shard_id,
        "ended" if checkpoint.ended else "open",
        len(rows),
        first["shard_offset"],
        last["shard_offset"],
        first["sequence_number"],
        last["sequence_number"],
        tuple(str(gap) for gap in gaps if gap.shard_id == shard_id),
        tuple(f"{shard_id}: {problem}" for problem in problems),
    )


def _problems(rows: pl.DataFrame) -> list[str]:
    """Name what is wrong with the rows of one shard, in the order of their offsets."""
    steps = rows["shard_offset"].diff().drop_nulls()
    number, sub = pl.col("sequence_number"), pl.col("sub_sequence_number")
    length = number.str.len_chars()  # decimal text without leading zeros: longer is larger
    disordered = rows.select(
        (
            (length < length.shift())
            | ((length == length.shift()) & (number < number.shift()))
            | ((number == number.shift()) & (sub <= sub.shift()))
        ).sum()
    ).item()
    backwards = (rows["foundry_ingestion_timestamp"].diff().drop_nulls().dt.total_microseconds() < 0).sum()
    counts = {
        "rows doubled": int((steps == 0).sum()),
        "holes in the offsets": int((steps > 1).sum()),
        "rows out of order": int(disordered),
        "times of commit that go back": int(backwards),
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _against(rows: pl.DataFrame, checkpoint: Checkpoint) -> list[str]:
    if not len(rows):
        return []
    last = rows.row(-1, named=True)
    wrong = []
    if checkpoint.offset != last["shard_offset"] + 1:
        wrong.append(f"the checkpoint says {checkpoint.offset:,} rows, the last row is number {last['shard_offset']:,}")
    if int(checkpoint.sequence_number or 0) != int(last["sequence_number"]):
        wrong.append(f"the checkpoint is at {checkpoint.sequence_number}, the last row at {last['sequence_number']}")
    return wrong


def _lineage(rows: pl.DataFrame, checkpoints: Mapping[str, Checkpoint], parents: tuple[str, ...] | None) -> list[str]:
    """Check that a shard with rows began after its parents had ended."""
    if not len(rows) or parents is None:
        return []
    known = [(parent, checkpoints[parent]) for parent in parents if parent in checkpoints]
    first = rows["shard_offset"][0]
    wrong = [f"has rows, and its parent {parent} has not ended" for parent, reached in known if not reached.ended]
    wrong += [f"begins before the end of {parent}" for parent, reached in known if reached.offset > first]
    expected = max((reached.offset for _, reached in known), default=first if parents else 0)
    return wrong + ([f"its first {first - expected:,} rows are missing"] if first > expected else [])
