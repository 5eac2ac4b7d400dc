"""Starts syncs: one for each stream and table of this process; the parts of a sync on agents."""

from __future__ import annotations

import atexit
from dataclasses import replace
from typing import TYPE_CHECKING

from kinesis_nb.core.compression import decompressed, unchanged
from kinesis_nb.core.interrupt import apart
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.running import Registry
from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.errors import ConfigError
from kinesis_nb.reading.plan import NOW, ReadPlan
from kinesis_nb.syncing.sync import RunPart, Sync
from kinesis_nb.table.origin import Origin, encode_start
from kinesis_nb.table.table import SyncTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.transport import Clock, Kinesis, StreamSummary
    from kinesis_nb.core.types import Foreign, OnDataLoss
    from kinesis_nb.table.storage import Storage

_syncs: Registry[Sync] = Registry()


@atexit.register
def _end_all() -> None:
    for sync in _syncs.stop_all():
        sync.warn_if_left_alone()


def sync_feed(
    kinesis: Kinesis,
    stream: str,
    clock: Clock,
    selection: Selection = EVERYTHING,
    foreign: Foreign = "auto",
    end: datetime | None = None,
) -> ReadPlan:
    """Return what a sync reads."""
    unpack = decompressed if selection.decompress else unchanged
    return ReadPlan(
        kinesis, stream, clock, (), selection.wants, unpack=unpack, selection=selection, foreign=foreign, end=end
    )


def start_sync(
    feed: ReadPlan,
    storage: Storage,
    start: StartingPosition,
    *,
    commit_interval: float,
    on_data_loss: OnDataLoss,
    setup: object = None,
) -> Sync:
    """Start a sync, or return the one that is running for this stream and table in this process.

    Parameters
    ----------
    setup
        Equal for calls with the same source and the same options of the storage. One that runs with other ones, with
        another `commit_interval`, `on_data_loss`, `foreign` or `end` is stopped, and another one started.
    """
    check_options(start, commit_interval)
    summary = feed.lookups.describe_stream(feed.stream)

    def prepare() -> Callable[[], Sync]:
        table = apart(_open)(feed, summary, storage, start)
        begun = replace(feed, began=NOW)
        return lambda: Sync(begun, table, commit_interval, on_data_loss)

    # with another selection the table refuses the call, and what runs continues
    options = (setup, commit_interval, on_data_loss, feed.foreign, feed.end, feed.selection)
    return _syncs.start((summary.arn, storage.uri), options, prepare)


def hurry(stream_arn: str, storage: Storage) -> None:
    """Have a sync of this process, if one writes a table, say there soon up to when its shards were read."""
    if (running := _syncs.get((stream_arn, storage.uri))) is not None:
        running._signals.record_seen()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no call for users


def start_part(
    feed: ReadPlan, table: SyncTable, part: RunPart, *, commit_interval: float, on_data_loss: OnDataLoss
) -> Sync:
    """Start a sync of some shards; other writers have the other shards of the same table."""
    wanted = lambda shard: part.wanted(shard) and feed.selection.wants(shard)  # noqa: E731
    sync = Sync(replace(feed, wanted=wanted), table, commit_interval, on_data_loss, part)
    sync.start()
    return sync


def open_table(feed: ReadPlan, storage: Storage, start: StartingPosition) -> SyncTable:
    """Open the table of a sync, or create it."""
    return _open(feed, feed.lookups.describe_stream(feed.stream), storage, start)


def _open(feed: ReadPlan, summary: StreamSummary, storage: Storage, start: StartingPosition) -> SyncTable:
    """Open the table, or create it once the stream is known to be readable: a call that fails must leave nothing."""
    listing = feed.lookups.list_shards(feed.stream)
    if feed.selection.shards is not None and not storage.exists():  # later they may have left the stream
        feed.selection.check_listed(feed.stream, listing)
    begin = encode_start(start, feed.kinesis.server_time().earliest)
    newest = max((shard.shard_id for shard in listing), default="")
    origin = Origin(summary.arn, summary.created_at.isoformat(), begin, newest, feed.selection.record())
    return SyncTable.open(storage, origin)


def check_options(start: StartingPosition, commit_interval: float) -> None:
    """Raise ConfigError for a start or an interval that no sync can have."""
    if not isinstance(commit_interval, int | float) or not 0 < commit_interval <= 3600:  # noqa: PLR2004 - an hour
        raise ConfigError(
            f"commit_interval={commit_interval!r} must be seconds, above 0 and at most 3600",
            hint="give commit_interval=1, for example",
        )
    if start.kind is Kind.AFTER_SEQUENCE_NUMBER:
        raise ConfigError("a sequence number is a place in one shard", hint='use "trim_horizon", "latest" or a time')
