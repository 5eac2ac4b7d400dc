"""What a source holds: its streams, their shards, a sample of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kinesis_nb.core.arguments import check_count, hinted
from kinesis_nb.core.frames import Records
from kinesis_nb.core.halt import Halt
from kinesis_nb.core.interrupt import result_of
from kinesis_nb.core.names import check_partition_key
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import hash_key
from kinesis_nb.core.transport import StreamExtras, StreamSummary
from kinesis_nb.display import SHOWN_ROWS, ShownAsText, plain, table_html, table_text
from kinesis_nb.errors import AccessDenied, KinesisError, ServiceError, StreamNotFound, closest
from kinesis_nb.exploring.lineage import Lineage
from kinesis_nb.reading.pace import PART_BYTES

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.retry import RetryingReader
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.jsontext.infer import Schema

_DENIED = "not permitted"
_EXTRAS = [field.name for field in fields(StreamExtras) if field.name not in {"arn", "created_at"}]  # see the summary
_AT_ONCE = 8  # shards that are asked at the same time
_SAMPLE_SPANS = (timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=4))

ReadRange = Callable[[str, StartingPosition, int | None, int | None], Records]
"""Reads a stream from a position up to now.

Stream, position, limit, newest (see :func:`kinesis_nb.reading.read.read_range`).
"""


class StreamView(ShownAsText):
    """One stream; each part is requested when first used, and only once.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> orders = kn.demo().explore("orders")
    >>> orders.shards.select("shard_id", "state").rows()
    [('shardId-000000000000', 'open'), ('shardId-000000000001', 'open')]
    >>> orders.sample(3)
    <Records: 3 rows>
    >>> orders.shard_for("Ada").shard_id
    'shardId-000000000000'
    """

    def __init__(self, kinesis: RetryingReader, name: str, read: ReadRange) -> None:
        self.name = name
        self._kinesis, self._read = kinesis, read

    @cached_property
    def summary(self) -> StreamSummary:
        """What the service says of the stream."""
        return self._kinesis.describe_stream(self.name)

    @cached_property
    def extras(self) -> Mapping[str, object]:
        """Consumers, how records find their shard, channels and queues; ``"not permitted"`` without that permission.

        Needs ``kinesis:DescribeStreamSummary``; None where the server does not say.
        """
        try:
            found = asdict(self._kinesis.describe_extras(self.name))
            return {name: found[name] for name in _EXTRAS}
        except AccessDenied:
            return dict.fromkeys(_EXTRAS, _DENIED)
        except KinesisError:  # a server that does not know the call; the rest is shown all the same
            return dict.fromkeys(_EXTRAS)

    @cached_property
    def _listing(self) -> list[Shard]:
        return self._kinesis.list_shards(self.name)

    @property
    def shards(self) -> pl.DataFrame:
        """One row per shard: id, state, parents, share of the hash keys in percent, first and last sequence number."""
        import polars as pl

        rows = [_shard_row(shard) for shard in self._listing]
        return pl.DataFrame(rows, schema_overrides={"parents": pl.List(pl.String), "ending_sequence_number": pl.String})

    @property
    def open_shards(self) -> int:
        """How many shards take records now."""
        return sum(shard.is_open for shard in self._listing)

    @hinted
    def sample(self, n: int = 20, *, newest: bool = True) -> Records:
        """Return up to `n` records from the newest or the oldest end of the stream, in order of arrival.

        The newest end is looked for in the last minute, then 15 minutes, 4 hours and all that the stream keeps.
        """
        check_count("n", n)
        if not newest:
            return self._read(self.name, StartingPosition.trim_horizon(), n, None)
        now = self._kinesis.server_time().earliest
        for back in _SAMPLE_SPANS:
            found = self._read(self.name, StartingPosition.at(now - back), None, n)
            if len(found) >= n:
                return found.last(n)
        return self._read(self.name, StartingPosition.trim_horizon(), None, n).last(n)

    @property
    def lineage(self) -> Lineage:
        """The family of the shards, as a picture: splits and merges, and which hash keys each shard takes."""
        return Lineage(self.name, self._listing)

    @hinted
    def shard_for(self, key: str) -> Shard:
        """Return the open shard that takes the records of a partition key.

        A producer that gives an explicit hash key decides otherwise.

        Raises
        ------
        ConfigError
            For a key that no record can have.
        """
        check_partition_key(key)
        hashed = hash_key(key)
        for shard in self._listing:
            if shard.is_open and shard.hash_range[0] <= hashed <= shard.hash_range[1]:
                return shard
        raise ServiceError(
            f"no open shard of {self.name!r} takes {key!r} now",
            hint="the stream was changing when it was listed: explore it again",
            retryable=True,
        )

    @hinted
    def schema(self, n: int = 1_000, *, max_fields: int = 500) -> Schema:
        """Return what the JSON in the newest `n` records holds: fields, types, how often they are there, conflicts.

        Give it to :func:`kinesis_nb.parse_json`, which then says what is not as it was.

        Parameters
        ----------
        max_fields
            How many fields to keep, the most frequent ones first. An object with more names stays JSON text.
        """
        from kinesis_nb.jsontext.infer import infer_schema

        check_count("max_fields", max_fields)
        return infer_schema(self.sample(n).to_arrow().column("data").to_pylist(), max_fields)

    @hinted
    def heat(self, n: int = 1_000) -> Heat:
        """Return how the newest `n` records spread over the open shards and the partition keys.

        A shard is hot when it took more than 1.5 times an equal share of the records or the bytes, a key when it took
        more than the equal share of a shard (with one or two shards: more than half), so that no split would help.
        Both only by more than chance does in a sample of that size.
        """
        return Heat(*_heat(self.sample(n).to_polars(), [s.shard_id for s in self._listing if s.is_open]))

    def lag(self) -> pl.DataFrame:
        """Return per shard how far a reader would be behind that starts at the oldest record now.

        That is what a sync or a read from ``"trim_horizon"`` has before it. The service knows no reader's position, so
        it is not the lag of one that runs: see ``Tail.stats()`` and ``Sync.status()``. Costs one record per shard.

        Returns
        -------
        polars.DataFrame
            `shard_id`, `state`, `lag` (``MillisBehindLatest`` of the first response; zero: nothing to read) and
            `oldest`, the arrival of the oldest record; null when there is none, or a stretch without records before it.
        """
        import polars as pl

        batches = self._first_batches()
        rows = [_lag_row(shard, batch) for shard, batch in zip(self._listing, batches, strict=True)]
        frame = pl.DataFrame(rows, schema=["shard_id", "state", "lag", "oldest"])
        return frame.cast({"shard_id": pl.String, "lag": pl.Duration("ms"), "oldest": pl.Datetime("us", "UTC")})

    def _first_batches(self) -> list[Batch]:
        halt = Halt()

        def first(shard: Shard) -> Batch:
            with halt.obeyed():
                return next(self._kinesis.first_batch(self.name, shard).parts(PART_BYTES))

        threads = ThreadPoolExecutor(_AT_ONCE, f"kinesis_nb {self.name} lag")
        try:
            return list(map(result_of, [threads.submit(first, shard) for shard in self._listing]))
        finally:
            halt.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def _repr_html_(self) -> str:
        return table_html(("name", self.name), self._about()) + table_html(self.shards.columns, self._shard_rows())

    def _rows_as_text(self) -> str:
        about = "\n".join(f"{name}: {value}" for name, value in self._about())
        return f"{about}\n\n{table_text(self.shards.columns, self._shard_rows())}"

    def _about(self) -> list[tuple[str, str]]:
        about: dict[str, object] = {
            field.name: getattr(self.summary, field.name) for field in fields(StreamSummary)[1:]
        }
        about |= {"retention": f"{self.summary.retention:,} hours", "open_shards": self.open_shards, **self.extras}
        return [(name.replace("_", " "), plain(value)) for name, value in about.items() if value is not None]

    def _shard_rows(self) -> list[list[object]]:
        return [[_in_a_cell(value) for value in row] for row in self.shards.iter_rows()]

    def _first_line(self) -> str:
        return f"<StreamView {self.name}: {self.open_shards} open of {len(self._listing)} shards>"


def _in_a_cell(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:.1f}%" if isinstance(value, float) else value


@dataclass(frozen=True, eq=False, repr=False)
class Heat(ShownAsText):
    """How a sample spreads over shards and partition keys.

    Attributes
    ----------
    shards, keys
        The shards in the order of the listing, the keys from the hottest: `records` and `bytes` (data and key) in the
        sample, their shares from 0 to 1, and whether it is `hot`.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> heat = kn.demo().explore("orders").heat()
    >>> heat.shards["records"].sum(), len(heat.keys)
    (1000, 10)
    """

    shards: pl.DataFrame
    keys: pl.DataFrame

    def _repr_html_(self) -> str:
        captions = (repr(self).strip("<>"), f"first {min(len(self.keys), SHOWN_ROWS)} of the keys")
        return "".join(table_html(*table, caption) for table, caption in zip(self._tables(), captions, strict=True))

    def _rows_as_text(self) -> str:
        return "\n\n".join(table_text(*table) for table in self._tables())

    def _tables(self) -> list[tuple[list[str], list[list[object]]]]:
        """Return the columns and rows of the shards, and of the hottest keys."""
        frames = (self.shards, self.keys.head(SHOWN_ROWS))
        return [(frame.columns, [[_shown(v) for v in row] for row in frame.iter_rows()]) for frame in frames]

    def _first_line(self) -> str:
        hot = self.shards.filter("hot")["shard_id"].to_list() + self.keys.filter("hot")["partition_key"].to_list()
        return (
            f"<Heat: {self.shards['records'].sum():,} records, {len(self.shards)} shards, {len(self.keys):,} keys, "
            f"hot: {', '.join(map(plain, hot)) or 'none'}>"
        )


def _shard_row(shard: Shard) -> dict[str, object]:
    return {
        "shard_id": shard.shard_id,
        "state": "open" if shard.is_open else "closed",
        "parents": list(shard.parents),
        "hash_share": 100 * (shard.hash_range[1] - shard.hash_range[0] + 1) / 2**128,
        "starting_sequence_number": shard.starting_sequence_number,
        "ending_sequence_number": shard.ending_sequence_number,
    }


def _lag_row(shard: Shard, first: Batch) -> dict[str, object]:
    return {
        "shard_id": shard.shard_id,
        "state": "open" if shard.is_open else "closed",
        "lag": timedelta(milliseconds=first.millis_behind_latest),
        "oldest": next(iter(first.rows.column("kinesis_ingestion_timestamp").to_pylist()), None),
    }


def _heat(sample: pl.DataFrame, open_shards: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    import polars as pl

    size = pl.coalesce(pl.col("data_raw").bin.size(), pl.col("data").str.len_bytes())
    rows = sample.with_columns(bytes=size + pl.col("partition_key").str.len_bytes().fill_null(0))
    fair = 1 / max(1, len(open_shards))
    shards = pl.DataFrame({"shard_id": open_shards}, schema={"shard_id": pl.String})
    seen = _shares(rows, "shard_id", 1.5 * fair)
    every = shards.join(seen, on="shard_id", how="full", coalesce=True, maintain_order="left_right")
    counts = pl.col("records", "bytes", "record_share", "byte_share").fill_null(0)
    keys = _shares(rows, "partition_key", min(fair, 0.5)).sort("bytes", "partition_key", descending=[True, False])
    return every.with_columns(counts, pl.col("hot").fill_null(value=False)), keys


def _shares(rows: pl.DataFrame, by: str, most: float) -> pl.DataFrame:
    """Return what each value of a column has of the rows; hot is what has more than `most`, and not by chance."""
    import polars as pl

    chance = 3 * (most / max(1, len(rows))) ** 0.5  # three standard deviations
    counted = rows.group_by(by).agg(pl.len().cast(pl.Int64).alias("records"), pl.col("bytes").sum().cast(pl.Int64))
    shares = {"record_share": pl.col("records"), "byte_share": pl.col("bytes")}
    return counted.with_columns(**{name: count / count.sum() for name, count in shares.items()}).with_columns(
        hot=(pl.max_horizontal("record_share", "byte_share") > most + chance) & pl.col(by).is_not_null()
    )


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else None
    return f"{value:.1%}" if isinstance(value, float) else value


class Catalog(ShownAsText, Mapping[str, StreamView]):
    """The streams of a source by name; displays as a table.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> catalog = kn.demo().explore()
    >>> sorted(catalog)
    ['clicks', 'orders', 'results']
    >>> catalog["orders"].summary.arn
    'arn:aws:kinesis:us-east-1:000000000000:stream/orders'
    """

    def __init__(self, kinesis: RetryingReader, region: str, read: ReadRange) -> None:
        self._kinesis, self._region, self._read = kinesis, region, read
        self._views: dict[str, StreamView] = {}  # a traceback may show this object before its names are known
        self._views = {name: StreamView(kinesis, name, read) for name in _names(kinesis)}

    def __getitem__(self, name: str) -> StreamView:
        try:
            return self._views[name]
        except KeyError:
            hint = closest(name, self._views) or "connect(region=...) chooses another region"
            raise StreamNotFound(f"no stream {name!r} in {self._region}", hint=hint) from None

    def __contains__(self, name: object) -> bool:
        return name in self._views

    @hinted
    def get(self, name: str, default: Any = None) -> Any:
        """Return a stream, or `default` where there is none of that name."""
        return self._views.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def to_arrow(self) -> pa.Table:
        """Return one row per stream; what the policy does not allow to see is null."""
        rows = [_row(view) for view in self._views.values()]
        return pa.Table.from_pylist(
            [{k: v for k, v in row.items() if k == "status" or v != _DENIED} for row in rows], _CATALOG
        )

    def to_polars(self) -> pl.DataFrame:
        """Return one row per stream as a polars DataFrame."""
        import polars as pl

        return pl.DataFrame(self.to_arrow())

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per stream as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Offer the rows to any library that speaks the Arrow PyCapsule protocol."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        rows = ([row.get(name) for name in _CATALOG.names] for row in map(_row, self._views.values()))
        return table_html(_CATALOG.names, rows, f"{len(self)} streams in {self._region}" if self else self._nothing)

    def _rows_as_text(self) -> str:
        first = [_row(view) for view in islice(self._views.values(), SHOWN_ROWS + 1)]  # each is asked for
        return table_text(_IN_A_TERMINAL, ([row.get(name) for name in _IN_A_TERMINAL] for row in first))

    @property
    def _nothing(self) -> str:
        return f"no streams in {self._region}; connect(region=...) chooses another region"

    def _first_line(self) -> str:
        if not self:
            return f"<Catalog: {self._nothing}>"
        names = [plain(name) for name in self._views]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"<Catalog {self._region}: {', '.join(names[:_MOST_NAMES])}{more}>"


def _names(kinesis: RetryingReader) -> list[str]:
    try:
        return kinesis.list_streams()
    except AccessDenied as error:
        error.hint += '; or name a stream, as in explore("orders"), which needs no list'
        raise


_MOST_NAMES = 20  # in a repr
_CATALOG = pa.schema(
    [
        pa.field("stream", pa.string()),
        pa.field("status", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("open_shards", pa.int64()),
        pa.field("retention_hours", pa.int64()),
        pa.field("encryption", pa.string()),
        pa.field("created_at", pa.timestamp("ms", tz="UTC")),
        pa.field("consumers", pa.int64()),
        pa.field("distribution", pa.string()),
        pa.field("channels", pa.int64()),
        pa.field("queues", pa.int64()),
    ]
)
_IN_A_TERMINAL = ("stream", "status", "mode", "open_shards", "retention_hours", "encryption")  # what fits


def _row(view: StreamView) -> dict[str, object]:
    try:
        summary, open_shards = view.summary, view.open_shards
    except AccessDenied:
        return {"stream": view.name, "status": _DENIED}
    return {
        "stream": view.name,
        "status": summary.status,
        "mode": summary.mode,
        "open_shards": open_shards,
        "retention_hours": summary.retention,
        "encryption": summary.encryption,
        "created_at": summary.created_at,
        **view.extras,
    }
