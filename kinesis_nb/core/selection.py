"""Which records of a stream a sync keeps; one choice per table, recorded in its properties."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.core.shards import hash_key
from kinesis_nb.errors import ConfigError, TableError, warn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pyarrow as pa

    from kinesis_nb.core.shards import Shard

COLUMNS = [name for name in SCHEMA.names if name != "foundry_ingestion_timestamp"]  # that one comes with the commit
MOST_SHOWN = 300  # characters of an expression, in a message
_LET_NULL = "nothing is lost. Let it give null for such rows, as cast(…, strict=False) does, and sync into a new place"
_ONE_TABLE = "a table keeps the selection that it was made with: give the same options, or a new place"


@dataclass(frozen=True, slots=True)
class Where:
    """A polars expression, and what identifies it.

    Attributes
    ----------
    text
        As polars shows it: for people, and it may leave something out.
    digest
        Differs for another expression; another version of polars may give another one for the same.
    """

    text: str
    digest: str
    expression: pl.Expr = field(compare=False, repr=False)

    @classmethod
    def of(cls, expression: pl.Expr) -> Where:
        """Return an expression that decides on each row by itself.

        Raises
        ------
        ConfigError
            For one that looks across rows, calls Python, or cannot be applied to the columns.
        """
        try:
            serialized = expression.meta.serialize(format="json")
        except pl.exceptions.PolarsError:  # of a function that cannot be pickled
            serialized = '"AnonymousFunction":'
        if '"AnonymousFunction":' in serialized:
            raise ConfigError(
                "where= calls a Python function, and a table cannot record which one", hint="use expressions of polars"
            )
        check_row_by_row(expression)
        return cls(str(expression), hashlib.sha256(serialized.encode()).hexdigest(), expression)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a sync keeps of a stream.

    Attributes
    ----------
    shards
        The only shards that are read; their children are others. None for all.
    key
        The only partition key, read from the shards whose hash keys hold it, over any number of reshards.
    where
        Which rows are kept.
    decompress
        Whether gzip and zstd data is opened before `where` sees it.
    """

    shards: frozenset[str] | None = None
    key: str | None = None
    where: Where | None = None
    decompress: bool = False

    def wants(self, shard: Shard) -> bool:
        """Whether a shard is read."""
        if self.shards is not None and shard.shard_id not in self.shards:
            return False
        return self.key is None or shard.hash_range[0] <= hash_key(self.key) <= shard.hash_range[1]

    def parents(self, shard: Shard, ours: Collection[str]) -> tuple[str, ...]:
        """Return the parents of a shard that are read, too, or may have been.

        Parameters
        ----------
        ours
            Ids of shards that are known to be read. Of the two parents of a merge one alone held a key.
        """
        parents = [parent for parent in shard.parents if self.shards is None or parent in self.shards]
        found = [parent for parent in parents if parent in ours] if self.key is not None else []
        return tuple(found or parents)

    @property
    def mask(self) -> pl.Expr | None:
        """What is true for the rows that are kept, as an expression over `COLUMNS`; None when all of them are."""
        tests = [] if self.key is None else [pl.col("partition_key") == self.key]
        tests += [] if self.where is None else [self.where.expression]
        return pl.all_horizontal(tests).fill_null(value=False) if tests else None

    def keep(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that are kept.

        Raises
        ------
        ConfigError
            When the expression fails on one of them.
        """
        if (mask := self.mask) is None:
            return rows
        columns = ["partition_key"] if self.where is None else COLUMNS
        try:
            kept = pl.DataFrame(rows.select(columns)).with_columns(mask.alias("kept"))["kept"]
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            what = f"where= fails on rows of {rows['shard_id'][0]}: {str(error).splitlines()[0]}"
            raise ConfigError(what, hint=_LET_NULL) from error
        return rows.filter(kept.to_arrow())

    def check_listed(self, stream: str, listing: Iterable[Shard]) -> None:
        """Raise ConfigError for a shard that the stream does not have."""
        if missing := sorted((self.shards or set()) - {shard.shard_id for shard in listing}):
            raise ConfigError(
                f"stream {stream!r} has no shard {', '.join(missing)}", hint=f"explore({stream!r}).shards lists them"
            )

    # --- in the properties of a table

    def record(self) -> str:
        """Return what a table records of it; empty when every record is kept as it is."""
        if self == EVERYTHING:
            return ""
        chosen: dict[str, object] = {
            "shards": None if self.shards is None else sorted(self.shards),
            "key": self.key,
            "where": self.where and self.where.text,
            "decompress": self.decompress or None,
        }
        found = {name: value for name, value in chosen.items() if value is not None}
        if self.where is not None:
            found |= {"digest": self.where.digest, "polars": pl.__version__}
        return json.dumps(found)

    def __str__(self) -> str:
        """As the arguments of a call."""
        return _as_arguments(json.loads(self.record() or "{}"))


EVERYTHING = Selection()


def _as_arguments(record: dict[str, object]) -> str:
    shown = [f"{name}={record[name]!r}" for name in ("shards", "key", "decompress") if name in record]
    shown += [f"where={record['where']:.{MOST_SHOWN}}"] if "where" in record else []
    return ", ".join(shown) or "every record"


def check_same(recorded: str, wanted: str, uri: str) -> None:
    """Raise TableError when a table keeps another selection of its stream.

    Expressions of two versions of polars are compared by what they look like alone: where that differs, it is a
    warning.
    """
    if recorded == wanted:
        return
    found, given = (json.loads(text or "{}") for text in (recorded, wanted))
    versions = found.pop("polars", None), given.pop("polars", None)
    if None not in versions and versions[0] != versions[1]:
        _leave_out_where(found, given, uri, versions[0])
    if found != given:
        shown = _as_arguments(json.loads(recorded or "{}")), _as_arguments(json.loads(wanted or "{}"))
        differs = "" if shown[0] != shown[1] else ", which differs in what is not shown"
        raise TableError(f"{uri} keeps {shown[0]}, and this call asks for {shown[1]}{differs}", hint=_ONE_TABLE)


def _leave_out_where(found: dict[str, object], given: dict[str, object], uri: str, version: str) -> None:
    """Take the expressions out of two selections; warn where they alone do not look the same."""
    texts = [(one.pop("digest"), one.pop("where"))[1] for one in (found, given)]
    if found == given and texts[0] != texts[1]:
        warn(
            f"{uri} was made with where={texts[0]} by polars {version}; this call's where={texts[1]}"
            " cannot be compared with it, and is assumed to mean the same"
        )


def check_row_by_row(expression: pl.Expr) -> None:
    """Raise ConfigError for an expression whose value for a row depends on other rows, or that cannot be applied.

    A sync cuts its rows into batches differently after a restart, so it would mean something else each time.
    """
    empty = pl.DataFrame(SCHEMA.empty_table()).select(COLUMNS)
    try:
        empty.lazy().filter(expression).explain()  # an unknown column, or a result other than true or false
        is_across = depends_on_other_rows(expression, empty)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        what = f"where= cannot be applied: {str(error).splitlines()[0]}"
        raise ConfigError(what, hint=f"a sync has the columns {', '.join(COLUMNS)} to choose by") from error
    if is_across:
        what = "where= looks across rows, and a sync filters batch by batch"
        raise ConfigError(what, hint="keep the rows, and apply it to the table: sync.scan().filter(…)")


def depends_on_other_rows(expression: pl.Expr, empty: pl.DataFrame) -> bool:
    """Return whether the value of an expression in one row depends on other rows.

    The optimizer of polars knows: it cuts the rows before it computes an expression only where the other rows make no
    difference. (``Expr.meta.is_row_separable`` sees no further than the outermost function. What an expression computes
    twice would become a column of its own, below which no cut is moved.)

    Parameters
    ----------
    empty
        A frame without rows that has the columns.
    """
    query = empty.lazy().with_columns(expression.alias("mask")).slice(1, 2)
    plan = query.explain(optimizations=pl.QueryOptFlags(comm_subexpr_elim=False))
    return not plan.lstrip().startswith("WITH_COLUMNS")
