"""A look at a source: its streams, their shards, a sample of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from kinesis_nb.display import table_html
from kinesis_nb.errors import AccessDenied, StreamNotFound, closest
from kinesis_nb.frames import Records
from kinesis_nb.position import StartingPosition
from kinesis_nb.transport import StreamSummary

if TYPE_CHECKING:
    import polars as pl

    from kinesis_nb.shards import Shard
    from kinesis_nb.transport import Listings

_LOOK_BACK = (timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=4))

ReadWindow = Callable[[str, StartingPosition, int | None, int | None], Records]
"""Reads a stream from a position up to now.

Stream, position, limit, newest (see :func:`kinesis_nb.read.read_window`).
"""


class StreamView:
    """One stream; everything is asked for when you ask for it, and asked once."""

    def __init__(self, kinesis: Listings, name: str, read: ReadWindow) -> None:
        self.name = name
        self._kinesis, self._read = kinesis, read

    @cached_property
    def summary(self) -> StreamSummary:
        """What the service says of the stream."""
        return self._kinesis.describe_stream(self.name)

    @cached_property
    def _listing(self) -> list[Shard]:
        return self._kinesis.list_shards(self.name)

    @property
    def shards(self) -> pl.DataFrame:
        """One row per shard: id, state, parents, share of the hash keys in percent, first and last sequence number."""
        import polars as pl

        rows = [
            {
                "shard_id": shard.shard_id,
                "state": "open" if shard.is_open else "closed",
                "parents": list(shard.parents),
                "hash_share": 100 * (shard.hash_range[1] - shard.hash_range[0] + 1) / 2**128,
                "starting_sequence_number": shard.starting_sequence_number,
                "ending_sequence_number": shard.ending_sequence_number,
            }
            for shard in self._listing
        ]
        return pl.DataFrame(rows, schema_overrides={"parents": pl.List(pl.String), "ending_sequence_number": pl.String})

    @property
    def open_shards(self) -> int:
        """How many shards take records now."""
        return sum(shard.is_open for shard in self._listing)

    def sample(self, n: int = 20, *, newest: bool = True) -> Records:
        """Return up to `n` records from the newest or the oldest end of the stream, in order of arrival.

        The newest end is looked for in the last minute, then 15 minutes, 4 hours and all that the stream keeps.
        """
        if not newest:
            return self._read(self.name, StartingPosition.trim_horizon(), n, None)
        now = self._kinesis.server_time().earliest
        for back in _LOOK_BACK:
            found = self._read(self.name, StartingPosition.at(now - back), None, n)
            if len(found) >= n:
                return found.last(n)
        return self._read(self.name, StartingPosition.trim_horizon(), None, n).last(n)

    def _repr_html_(self) -> str:
        rows = [(field.name, getattr(self.summary, field.name)) for field in fields(StreamSummary)]
        rows.append(("open shards", self.open_shards))
        return table_html(("", self.name), [(name, str(value)) for name, value in rows]) + table_html(
            self.shards.columns,
            ([", ".join(v) if isinstance(v, list) else v for v in row] for row in self.shards.iter_rows()),
        )

    def __repr__(self) -> str:
        return f"<StreamView {self.name}: {self.open_shards} open of {len(self._listing)} shards>"


class Catalog(Mapping[str, StreamView]):
    """The streams of a source by name; displays as a table."""

    def __init__(self, kinesis: Listings, region: str, read: ReadWindow) -> None:
        self._kinesis, self._region, self._read = kinesis, region, read
        self._views = {name: StreamView(kinesis, name, read) for name in kinesis.list_streams()}

    def __getitem__(self, name: str) -> StreamView:
        try:
            return self._views[name]
        except KeyError:
            msg = f"no stream {name!r} in {self._region}"
            raise StreamNotFound(msg, hint=closest(name, self._views)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def to_arrow(self) -> pa.Table:
        """Return one row per stream; what the policy does not allow to see is null."""
        return pa.Table.from_pylist([_row(view) for view in self._views.values()], _CATALOG)

    def to_polars(self) -> pl.DataFrame:
        """Return one row per stream as a polars DataFrame."""
        import polars as pl

        return pl.DataFrame(self.to_arrow())

    def _repr_html_(self) -> str:
        table = self.to_arrow()
        rows = ([row[name] for name in table.column_names] for row in table.to_pylist())
        return table_html(table.column_names, rows, f"{len(self)} streams in {self._region}")

    def __repr__(self) -> str:
        return f"<Catalog {self._region}: {', '.join(self._views) or 'no streams'}>"


_CATALOG = pa.schema(
    [
        pa.field("stream", pa.string()),
        pa.field("status", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("open_shards", pa.int64()),
        pa.field("retention_hours", pa.int64()),
        pa.field("encryption", pa.string()),
        pa.field("created_at", pa.timestamp("ms", tz="UTC")),
    ]
)


def _row(view: StreamView) -> dict[str, object]:
    try:
        summary, open_shards = view.summary, view.open_shards
    except AccessDenied:
        return {"stream": view.name, "status": "not permitted"}
    return {
        "stream": view.name,
        "status": summary.status,
        "mode": summary.mode,
        "open_shards": open_shards,
        "retention_hours": summary.retention,
        "encryption": summary.encryption,
        "created_at": summary.created_at,
    }
