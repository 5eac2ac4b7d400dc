"""Several writers of one synced table, each with shards of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import kinesis_nb as kn
from kinesis_nb.agents.placement import PartFilter, Placement, plan
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.syncing.start import open_table, start_part, sync_feed
from kinesis_nb.syncing.sync import RunPart, Sync
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.verify import verify_table
from tests.conftest import Streams, by_key, written_by_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.table.table import SyncTable

CLOCK = SystemClock()
FEW_SECONDS = 20.0


class Parts:
    """A table, and parts of its sync that come and go."""

    def __init__(self, source: kn.Source, folder: Path) -> None:
        self.source, self.storage = source, Storage.at(folder / "table")
        self.running: list[Sync] = []
        self.placements: dict[int, Placement] = {}

    def feed(self) -> ReadPlan:
        return sync_feed(self.source._kinesis, "orders", CLOCK)

    def table(self) -> SyncTable:
        start = StartingPosition.trim_horizon()
        return open_table(self.feed(), self.storage, start)

    def plan(self, parts: int) -> Placement:
        return plan(self.source._kinesis.list_shards("orders"), parts)

    def start(self, placement: Placement, number: int, interval: float = 0.05) -> Sync:
        sync = start_part(
            self.feed(),
            self.table(),
            RunPart(self.run_of(placement), number, PartFilter(placement, number)),
            commit_interval=interval,
            on_data_loss="fail",
        )
        self.running.append(sync)
        return sync

    def run_of(self, placement: Placement) -> str:
        """Return the name of a run: those who have the same placement belong together."""
        return str(id(self.placements.setdefault(id(placement), placement)))

    def start_all(self, placement: Placement) -> list[Sync]:
        return [self.start(placement, number) for number in range(len(placement))]

    def rows(self) -> Any:
        return self.storage.scan().sort("partition_key", "shard_offset").collect()

    def is_right(self, streams: Streams) -> bool:
        verdict = verify_table(self.table(), RetryingLookups(self.source._kinesis, CLOCK).list_shards("orders"))
        assert verdict, repr(verdict)
        return by_key(self.rows()) == written_by_key(streams)

    def stop(self) -> None:
        for sync in self.running:
            sync.stop()


@pytest.fixture
def parts(source: kn.Source, tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(source, tmp_path)
    yield parts
    parts.stop()


def until(condition: Any) -> None:
    give_up = time.monotonic() + FEW_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        threading.Event().wait(0.02)


def until_right(parts: Parts, streams: Streams) -> None:
    until(lambda: parts.rows().height == len(streams.written))
    assert parts.is_right(streams)


def test_parts_write_one_table(parts: Parts, streams: Streams) -> None:
    """Parts commit side by side, each its own shards, and every record is there once and in order."""
    streams.create(shards=4)
    streams.put(400)
    syncs = parts.start_all(parts.plan(2))
    streams.put(400)
    until_right(parts, streams)
    assert all(sync.status().commits > 0 for sync in syncs)
    read = [{shard.shard_id for shard in sync.status().shards} for sync in syncs]
    assert len(read[0]) == len(read[1]) == 2
    assert not read[0] & read[1]


def test_merge_across_parts(parts: Parts, streams: Streams) -> None:
    """The child of two parts' shards is read when both parents are in the table, and goes on where both stopped."""
    streams.create(shards=2)
    streams.put(300, keys=40)
    placement = parts.plan(2)
    lower = parts.start(placement, 0)
    until(lambda: lower.status().rows > 0)
    streams.merge()
    streams.put(300, keys=40)
    until(lambda: "shardId-000000000002" in {shard.shard_id for shard in lower.status().shards})
    threading.Event().wait(0.3)  # time enough to do it wrong
    assert "shardId-000000000002" not in set(parts.rows()["shard_id"])
    parts.start(placement, 1)
    until_right(parts, streams)


def test_split_into_another_part(parts: Parts, streams: Streams) -> None:
    """A child among the hash keys of another part is found and read there, after its parent."""
    streams.create(shards=2)
    placement = parts.plan(2)
    streams.merge()
    streams.put(200, keys=40)
    [merged] = streams.open_shards()
    streams.call(
        "SplitShard", StreamName="orders", ShardToSplit=merged["ShardId"], NewStartingHashKey=str(placement.bounds[0])
    )
    streams.put(200, keys=40)
    upper, lower = parts.start(placement, 1), parts.start(placement, 0)
    until_right(parts, streams)
    assert {shard.shard_id for shard in upper.status().shards} >= {"shardId-000000000004"}
    assert "shardId-000000000004" not in {shard.shard_id for shard in lower.status().shards}


def test_news_of_a_child(parts: Parts, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part says when a child is for another one, not before its parent is in the table; who is told reads it."""
    monkeypatch.setattr("kinesis_nb.reading.scheduler.DISCOVERY_SECONDS", 3600)
    streams.create(shards=3)
    placement = parts.plan(2)
    lower, upper = parts.start_all(placement)
    until(lambda: len(lower.status().shards) + len(upper.status().shards) == 3)
    [border] = placement.bounds
    streams.merge()  # a shard of the one with the first of the other's two
    until(lambda: "shardId-000000000003" in {shard.shard_id for shard in lower.status().shards})
    until(lambda: upper.children_for_others == 1)
    assert lower.children_for_others == 0
    streams.call("SplitShard", StreamName="orders", ShardToSplit="shardId-000000000003", NewStartingHashKey=str(border))
    streams.put(300, keys=40)
    until(lambda: lower.children_for_others == 1)
    assert "shardId-000000000003" in parts.table().ended(["shardId-000000000003"])
    assert "shardId-000000000005" not in {shard.shard_id for shard in upper.status().shards}
    upper.list_now()
    until_right(parts, streams)
    assert "shardId-000000000005" in {shard.shard_id for shard in upper.status().shards}


def test_a_parent_that_is_newer_than_the_last_listing(
    parts: Parts, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent of which nobody has read anything is waited for, though the last listing is too old to hold it."""
    monkeypatch.setattr("kinesis_nb.syncing.ownership.LISTING_SECONDS", 3600)
    streams.create(shards=2)
    placement = parts.plan(2)
    [border] = placement.bounds
    lower = parts.start(placement, 0)
    streams.merge()
    until(lambda: "shardId-000000000002" in {shard.shard_id for shard in lower.status().shards})
    threading.Event().wait(0.3)  # by now it has looked for the other parent of that one
    upper = parts.start(placement, 1)
    until(lambda: not upper.is_active)
    streams.call("SplitShard", StreamName="orders", ShardToSplit="shardId-000000000002", NewStartingHashKey=str(border))
    streams.put(300, keys=40)
    streams.merge()
    streams.put(300, keys=40)
    until(lambda: "shardId-000000000005" in {shard.shard_id for shard in lower.status().shards})
    threading.Event().wait(0.3)  # time enough to do it wrong
    assert "shardId-000000000005" not in set(parts.rows()["shard_id"])
    parts.start(placement, 1)
    until_right(parts, streams)


def test_another_number_of_parts(parts: Parts, streams: Streams) -> None:
    """A sync of two parts goes on as a whole, and then with three; a merged shard that was not begun yet too."""
    streams.create(shards=2)
    streams.put(210)
    placement = parts.plan(2)
    upper = parts.start(placement, 1)
    until(lambda: upper.status().rows > 0)
    streams.merge()
    until(lambda: not upper.is_active)  # its shard has ended in the table; whose the child is was never there
    assert upper.status().rows > 210 // 2, "else the child needs nothing from this parent"
    streams.put(210)
    whole = parts.source.sync("orders", parts.storage.uri, commit_interval=0.05)
    assert whole.wait(FEW_SECONDS)
    whole.stop()
    assert parts.is_right(streams)
    streams.rescale(2)
    streams.rescale(4)
    streams.put(210)
    parts.start_all(parts.plan(3))
    until_right(parts, streams)


def test_taken_over_part_is_fenced(parts: Parts, streams: Streams) -> None:
    """A part that was taken over never commits again, however much other parts committed in between."""
    streams.create(shards=4)
    streams.put(100)
    placement = parts.plan(2)
    old, other = parts.start(placement, 0, interval=3600), parts.start(placement, 1)
    until(lambda: other.status().rows > 0)
    until(lambda: old.status().rows + old.status().pending > 0)
    streams.put(200)
    until(lambda: old.status().pending > 0)
    new = parts.start(placement, 0)
    until(lambda: new.status().commits > 0)
    before, committed = other.status().commits, old.status().commits
    streams.put(200)
    until(lambda: other.status().commits > before)
    old.request_stop()  # it commits what it holds, or tries to
    until(lambda: not old._committer.is_running)
    assert isinstance(old._signals.error, kn.Fenced)
    assert old.status().commits == committed
    until_right(parts, streams)


def test_a_part_asks_a_whole_sync_for_the_table(parts: Parts, streams: Streams) -> None:
    """A sync in a notebook commits what it has and ends when agents take its table; nothing is lost on the way."""
    streams.create(shards=2)
    streams.put(100)
    whole = parts.source.sync("orders", parts.storage.uri, commit_interval=0.05)
    assert whole.wait(FEW_SECONDS)
    assert isinstance(whole, Sync)
    streams.put(100)
    parts.start_all(parts.plan(2))
    until(lambda: not whole.is_active)
    until_right(parts, streams)


def test_two_rounds_of_maintenance_at_once(parts: Parts, streams: Streams) -> None:
    """Whoever compacts the same files as another one and is later leaves them alone: no row is there twice."""
    streams.create(shards=2)
    syncs = parts.start_all(parts.plan(2))
    for _ in range(5):
        streams.put(50)
        until(lambda: parts.rows().height == len(streams.written))
    for sync in syncs:
        sync.stop()
    first, second = Maintenance(parts.storage), Maintenance(parts.storage)
    early = parts.storage.open()
    first.run()
    assert len(parts.storage.open().file_uris()) == 1
    second._compact(early, 2**20)
    assert len(parts.storage.open().file_uris()) == 1
    assert parts.is_right(streams)
    second.run()
    assert parts.is_right(streams)


def test_engine_does_not_import_dask() -> None:
    """Who uses no agents loads nothing of Dask, though the settings for agents are there."""
    code = (
        "import sys, kinesis_nb as kn\n"
        "kn.connect(agents='tcp://127.0.0.1:1').sync\n"
        "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
