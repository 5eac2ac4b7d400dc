"""Which records of a stream a user chose: by shard, by partition key; a condition on a row is checked here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kinesis_nb.core.process import check_polars
from kinesis_nb.core.selection import Selection, Where
from kinesis_nb.core.shards import hash_key
from kinesis_nb.errors import ConfigError
from kinesis_nb.reading.read import row_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from kinesis_nb.core.shards import Shard


def check_shards(shards: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the shard ids that were given; None for all shards."""
    if shards is None:
        return None
    if isinstance(shards, str) or not isinstance(shards, Iterable) or not (chosen := tuple(shards)):
        raise ConfigError(f"shards={shards!r} is not a list of shard ids", hint='give shards=["shardId-000000000000"]')
    return chosen


def shard_filter(
    stream: str, listing: Iterable[Shard], shards: Iterable[str] | None, key: str | None
) -> Callable[[Shard], bool]:
    """Return the test for ``shards=`` and ``key=``; chosen shards must be in the listing."""
    known = {shard.shard_id for shard in listing}
    chosen = known if shards is None else set(shards)
    if missing := sorted(chosen - known):
        msg = f"stream {stream!r} has no shard {', '.join(missing)}"
        raise ConfigError(msg, hint=f"explore({stream!r}).shards lists them")

    def wanted(shard: Shard) -> bool:
        if shards is not None and shard.shard_id not in chosen:
            return False
        return key is None or shard.hash_range[0] <= hash_key(key) <= shard.hash_range[1]

    return wanted


def selection(shards: tuple[str, ...] | None, key: str | None, where: pl.Expr | None, *, decompress: bool) -> Selection:
    """Return what a sync keeps; raise ConfigError for what no sync can keep."""
    check_polars()
    row_filter(key, where)
    chosen = None if shards is None else frozenset(shards)
    return Selection(chosen, key, None if where is None else Where.of(where), decompress)
