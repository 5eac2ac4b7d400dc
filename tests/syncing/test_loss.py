"""A sync that stood still for longer than the stream keeps its records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.core.transport import ServerTime
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.conftest import by_key
from tests.support.places import ORIGIN
from tests.support.virtual import VirtualKinesis, world
from tests.support.writers import Parts

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.core.types import OnDataLoss


HOUR = 3600.0  # seconds; a stream keeps its records for 24 of them


class Stream:
    """A stream of one shard on a clock that only moves when it is told to."""

    def __init__(self, table: Path) -> None:
        self.model, self.clock, _ = world()
        self.table = Storage.at(table)
        self.origin = ORIGIN

    def put(self, *numbers: int) -> None:
        for number in numbers:
            data = f'{{"n": {number}}}'.encode()
            self.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": data})

    def sleep(self, hours: float) -> None:
        self.clock.sleep(hours * HOUR)

    def lose(self, *numbers: int) -> None:
        self.put(*numbers)
        self.sleep(30)

    def sync(self, on_data_loss: OnDataLoss = "fail") -> Sync:
        """Begin a sync as a new process would, and let it catch up."""
        feed = ReadPlan(VirtualKinesis(self.model, self.clock), "orders", self.clock, ())
        sync = Sync(feed, SyncTable.open(self.table, self.origin), 0.05, on_data_loss)
        sync.start()
        try:
            assert sync.wait()
        finally:
            sync.stop()
        return sync

    def numbers(self) -> list[int]:
        rows = self.table.scan().sort("shard_offset").collect()
        return by_key(rows.to_arrow()).get("k", [])


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path / "t")


def test_a_shard_that_is_gone_is_told(stream: Stream) -> None:
    """A shard that was split and trimmed while nobody read it is a gap, though no listing has it any more."""
    stream.put(1)
    stream.sync()
    stream.put(2, 3)
    split = {"StreamName": "orders", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)}
    stream.model.call("SplitShard", split)
    stream.sleep(60)
    stream.put(4)
    with pytest.raises(kn.DataLoss, match="shardId-000000000000"):
        stream.sync()
    assert stream.numbers() == [1]
    report = stream.sync("warn").verify()
    assert stream.numbers() == [1, 4]
    assert any("shardId-000000000000" in text for text in report.lost)


def test_records_that_are_gone_stop_the_sync(stream: Stream) -> None:
    """By default nothing is written behind a gap: the sync fails, says where, and says what would go on."""
    stream.put(1)
    stream.sync()
    stream.lose(2, 3)
    stream.put(4)
    with pytest.raises(kn.DataLoss, match="shardId-000000000000") as told:
        stream.sync()
    assert "on_data_loss" in told.value.hint
    assert stream.numbers() == [1]


def test_a_gap_is_recorded_in_the_table(stream: Stream) -> None:
    """With "warn" the sync goes on; the table's history, verify() and status() name the gap, for good."""
    stream.put(1)
    stream.sync()
    stream.lose(2, 3)
    stream.put(4)
    sync = stream.sync("warn")
    assert stream.numbers() == [1, 4]
    assert "lost: shardId-000000000000" in sync.status().lost[0]
    assert any("lost: shard" in entry.get("kinesis_nb", "") for entry in stream.table.open().history())
    again = stream.sync()
    verdict = again.verify()
    assert verdict, "a gap that is recorded is no fault of the table"
    assert len(verdict.lost) == 1
    assert "lost: shardId-000000000000" in repr(verdict)
    assert "lost" in verdict._repr_html_()
    assert again.status().lost == ()


@pytest.mark.slow
def test_a_silent_stream_is_no_loss(stream: Stream) -> None:
    """A shard that had nothing for longer than the retention, while the sync looked now and then, lost nothing."""
    stream.put(1)
    for _ in range(3):
        stream.sync()
        stream.sleep(15)
    stream.put(2)
    sync = stream.sync()
    assert stream.numbers() == [1, 2]
    assert sync.verify().lost == []


def test_a_shard_that_was_empty_can_lose_too(stream: Stream) -> None:
    """Records that came and went after the only look at an empty shard are told."""
    stream.sync()
    stream.lose(1, 2)
    stream.put(3)
    with pytest.raises(kn.DataLoss, match="trimmed"):
        stream.sync()
    sync = stream.sync("warn")
    assert stream.numbers() == [3]
    assert len(sync.status().lost) == 1


class Stamps:
    """Commits one record of a shard at a time, each as a new process would, and tells what it was stamped with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.clock, self.kinesis = world()

    def next(self) -> datetime:
        table = SyncTable.open(Storage.at(self.folder), ORIGIN)
        feed = ReadPlan(self.kinesis, "orders", self.clock, tuple(self.kinesis.list_shards("orders")))
        parts = Parts(feed, table)
        parts.ownership.take_over([shard.shard_id for shard in feed.shards])
        self.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": b"{}"})
        (shard,) = feed.shards
        position = parts.intake.position(shard)
        assert position is not None
        iterator = self.kinesis.get_shard_iterator("orders", shard.shard_id, position)
        parts.intake.deliver(shard, self.kinesis.get_records("orders", shard, iterator, 10))
        parts.commit()
        rows = DeltaTable(self.folder).to_pandas().sort_values("shard_offset")
        stamp: datetime = rows["foundry_ingestion_timestamp"].iloc[-1].to_pydatetime()
        return stamp


def test_times_of_commit_never_go_back(tmp_path: Path) -> None:
    """A clock that is set back a little, and a restart, leave `foundry_ingestion_timestamp` growing within a shard."""
    stamps = Stamps(tmp_path / "t")
    first = stamps.next()
    stamps.clock.manual.advance(-30)
    assert stamps.next() >= first


def test_a_wrong_clock_stamps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is years ahead of the service's own is not believed."""
    stamps = Stamps(tmp_path / "t")
    right = stamps.clock.now()
    monkeypatch.setattr(stamps.clock, "now", lambda: datetime(2040, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(stamps.kinesis, "server_time", lambda: ServerTime(right, right + timedelta(seconds=1)))
    assert stamps.next() == right + timedelta(seconds=1)


def test_times_of_commit_recover_from_a_wrong_clock(tmp_path: Path) -> None:
    """Rows that a wrong clock stamped with a time far ahead do not stamp all later ones."""
    stamps = Stamps(tmp_path / "t")
    stamps.clock.manual.advance(14 * 365 * 24 * HOUR)
    wrong = stamps.next()
    stamps.clock.manual.advance(-14 * 365 * 24 * HOUR)
    assert stamps.next() < wrong
