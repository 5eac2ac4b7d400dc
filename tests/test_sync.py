"""The durable sync: rows and checkpoints in one Delta commit."""

from __future__ import annotations

import _thread
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from unittest.mock import Mock

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.committer import OnDataLoss
from kinesis_nb.emulator import ErrorReply, Stall
from kinesis_nb.feed import Feed
from kinesis_nb.lease import _OWNER as OWNER
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.storage import Storage
from kinesis_nb.sync import Sync
from kinesis_nb.table import Checkpoint, Origin, SyncTable
from kinesis_nb.transport import SystemClock
from tests.conftest import Streams, by_key, engine_threads, written_by_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from kinesis_nb.shards import Shard

ORIGIN = Origin("arn:aws:kinesis:us-east-1:000000000000:stream/orders", "2026-11-01", "trim_horizon")
BIG = 49590338271490256608559692538361571095921575989136588898


def table_rows(path: Path) -> pl.DataFrame:
    return pl.scan_delta(str(path)).collect().sort("partition_key", "shard_offset")


def open_table(folder: Path, origin: Origin = ORIGIN) -> SyncTable:
    return SyncTable.open(Storage.at(folder / "t"), origin)


def checkpoint(table: SyncTable, shard_id: str) -> Checkpoint:
    return table.checkpoints([shard_id])[shard_id]


def test_every_record_once_in_order_through_reshards(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """The table has every record once; ORDER BY partition_key, shard_offset is the order they were written in."""
    streams.create(shards=2)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    for change in (streams.split, streams.merge, lambda: streams.rescale(4)):
        streams.put(80, keys=20)
        change()
    streams.put(80, keys=20)
    assert sync.wait(timeout=30)
    sync.stop()
    rows = table_rows(tmp_path / "t")
    assert by_key(rows.to_arrow()) == written_by_key(streams)
    assert rows.select("shard_id", "shard_offset").is_unique().all()
    assert rows["foundry_ingestion_timestamp"].null_count() == 0
    assert engine_threads() == []


def test_resumes_after_the_last_commit(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A second run of the same line reads only what is new, across a reshard that happened in between."""
    streams.create()
    streams.put(30)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(timeout=30)
    sync.stop()
    streams.put(10)
    streams.split()
    streams.put(10)
    again = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert again.wait(timeout=30)
    again.stop()
    assert again.status().rows == 20
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)


def test_same_line_again_returns_the_running_one(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Re-running the cell does not start a second writer."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t")
    assert source.sync("orders", tmp_path / "t") is sync
    sync.stop()
    assert source.sync("orders", tmp_path / "t") is not sync
    source.sync("orders", tmp_path / "t").stop()


def test_latest_is_a_moment_kept_in_the_table(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """start="latest" of a new table skips older records, and a restart before the first record skips nothing more."""
    streams.create()
    streams.call("PutRecord", StreamName="orders", PartitionKey="old", Data=b"{}")
    while len(source.read("orders", start="now", progress=False)):
        pass
    source.sync("orders", tmp_path / "t", "latest").stop()
    streams.put(5, keys=1)
    sync = source.sync("orders", tmp_path / "t", "latest", commit_interval=0.05)
    assert sync.wait(timeout=30)
    sync.stop()
    assert "key-0" in set(table_rows(tmp_path / "t")["partition_key"])
    assert table_rows(tmp_path / "t").filter(partition_key="key-0").height == 5


def test_hybrid_view_has_no_row_twice(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Committed and pending rows together are each record once, while commits go on."""
    streams.create(shards=2)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    for _ in range(10):
        streams.put(50)
        view = sync.to_polars()
        assert view.select("shard_id", "sequence_number").is_unique().all()
        assert len(view) <= len(streams.written)
    assert sync.wait(timeout=30)
    assert len(sync) == len(sync.to_polars()) == len(streams.written) == 500
    assert len(sync.live) == 0
    sync.stop()


def test_faults_neither_lose_nor_double(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path
) -> None:
    """Whatever the service answers in between, the table has each record once."""
    streams.create(shards=2)
    streams.put(300)
    emulator.chaos(
        seed=1,
        rate=0.3,
        operations=["GetRecords", "GetShardIterator"],
        faults=[
            ErrorReply("InternalFailure"),
            ErrorReply("ExpiredIteratorException"),
            ErrorReply("KMSThrottlingException"),
        ],
    )
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    streams.put(100)
    assert sync.wait(timeout=60)
    emulator.calm()
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)
    assert emulator.delivered.total() > 0


def test_second_writer_fences_the_first(tmp_path: Path) -> None:
    """After a take-over the old writer cannot commit, neither at once nor after it looked at the table again."""
    old = open_table(tmp_path)
    old.acquire(["s"])
    assert old.commit(None, {"s": Checkpoint(1, str(BIG))})
    new = open_table(tmp_path)
    new.acquire(["s"])
    for _ in range(2):
        with pytest.raises(kn.Fenced):
            old.commit(None, {"s": Checkpoint(2, str(BIG + 1))})
    assert checkpoint(new, "s") == Checkpoint(1, str(BIG))
    assert new.commit(None, {"s": Checkpoint(2, str(BIG + 1))})


def test_writer_of_other_shards_does_not_disturb(tmp_path: Path) -> None:
    """Two writers of one table that own different shards commit side by side."""
    first, second = (open_table(tmp_path) for _ in range(2))
    first.acquire(["a"])
    second.acquire(["b"])
    for offset in range(1, 4):
        assert first.commit(None, {"a": Checkpoint(offset, str(BIG + offset))})
        assert second.commit(None, {"b": Checkpoint(offset, str(BIG + offset))})
    assert checkpoint(open_table(tmp_path), "a") == Checkpoint(3, str(BIG + 3))


@pytest.mark.parametrize("number", ["1", str(BIG), str(2**186 - 1)])
def test_checkpoint_survives_the_table(tmp_path: Path, number: str) -> None:
    """A sequence number of up to 186 bits comes back from the table as it went in."""
    table = open_table(tmp_path)
    table.acquire(["s"])
    wanted = Checkpoint(7, number, ended=True)
    assert table.commit(None, {"s": wanted})
    assert checkpoint(open_table(tmp_path), "s") == wanted
    assert checkpoint(table, "other") == Checkpoint()


def test_refuses_what_is_not_its_table(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A folder with other files, a foreign Delta table, and the table of another stream are refused and left alone."""
    streams.create()
    streams.create("other")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("mine")
    pl.DataFrame({"a": [1]}).write_delta(str(tmp_path / "foreign"))
    source.sync("other", tmp_path / "others").stop()
    for name in ("files", "foreign", "others", "files/notes.txt"):
        path = tmp_path / name
        before = sorted(os.walk(tmp_path))
        with pytest.raises(kn.TableError, match="hint: "):
            source.sync("orders", path)
        assert sorted(os.walk(tmp_path)) == before
    assert engine_threads() == []


def test_refuses_a_stream_made_again(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A stream that was deleted and created again under its name is another stream."""
    streams.create()
    source.sync("orders", tmp_path / "t").stop()
    created = streams.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"]
    streams.call("DeleteStream", StreamName="orders")
    while True:
        streams.create()
        new = streams.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"]
        if new["StreamCreationTimestamp"] != created["StreamCreationTimestamp"]:
            break
        streams.call("DeleteStream", StreamName="orders")
    with pytest.raises(kn.TableError, match="earlier stream of the same name"):
        source.sync("orders", tmp_path / "t")


def test_storage_that_comes_back(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """While the table cannot be written nothing is lost; when it can again the sync goes on by itself."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    table, away = tmp_path / "t", tmp_path / "away"
    table.rename(away)
    table.write_text("a file where the folder was: nothing can be written below it")
    streams.put(20)
    while "cannot be written" not in sync.status().error:
        assert sync.is_active, sync.status().error
    assert sync.status().pending == 20
    table.unlink()
    away.rename(table)
    assert sync.wait(timeout=30)
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)


def test_log_is_checkpointed(tmp_path: Path) -> None:
    """After a hundred commits the Delta log has a checkpoint, and the numbers survive it."""
    table = open_table(tmp_path)
    table.acquire(["s"])
    for offset in range(1, 111):
        assert table.commit(None, {"s": Checkpoint(offset, str(offset))})
    assert list((tmp_path / "t" / "_delta_log").glob("*.checkpoint.parquet"))
    assert checkpoint(open_table(tmp_path), "s") == Checkpoint(110, "110")
    assert DeltaTable(str(tmp_path / "t")).version() == 111


class StaleListing(KinesisClient):
    """A real client whose first listing is old when it arrives: `meanwhile` happens between the two."""

    meanwhile: Callable[[], None] | None = None

    def list_shards(self, stream: str) -> list[Shard]:
        shards = super().list_shards(stream)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return shards


def test_take_over_during_a_reshard_doubles_nothing(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A shard that the old writer ended, and children it wrote, while the new one was listing, are not read again."""
    streams.create()
    streams.put(20)
    old = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert old.wait(timeout=30)

    def reshard_and_commit() -> None:
        streams.split()
        streams.put(20)
        assert old.wait(timeout=30)

    client = StaleListing(source.config)
    client.meanwhile = reshard_and_commit
    (tmp_path / "t" / OWNER).unlink()  # so the new writer does not ask first
    origin = open_table(tmp_path, old._table.origin)
    new = Sync(Feed(client, "orders", SystemClock(), ()), origin, 0.05, OnDataLoss.FAIL)
    streams.put(20)
    assert new.wait(timeout=30)
    new.stop()
    with pytest.raises(kn.Fenced):
        old.wait(timeout=30)
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)


def test_wait_means_committed(source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path) -> None:
    """wait() does not take an old "nothing left" for an answer, while the call that would know better is under way."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(timeout=30)
    emulator.on("GetRecords", Stall(1.5))
    while not emulator.delivered.total():
        pass
    streams.put(5)
    assert sync.wait(timeout=30)
    assert len(table_rows(tmp_path / "t")) == 5
    sync.stop()


def test_wait_after_stop_does_not_claim_to_have_caught_up(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A stopped sync is not a finished one."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t")
    sync.stop()
    streams.put(5)
    assert not sync.wait(timeout=30)


def test_storage_hiccup_is_no_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails, and cannot be looked up either, is tried again; nobody is called Fenced without a rival."""
    table = open_table(tmp_path)
    table.acquire(["parent", "child"])
    children = {"parent": Checkpoint(3, str(BIG), ended=True), "child": Checkpoint(3)}
    with monkeypatch.context() as broken:
        broken.setattr(table.storage, "open", Mock(side_effect=OSError("EIO")))
        broken.setattr(table, "_write", Mock(side_effect=OSError("EIO")))
        assert not table.commit(None, children)
    assert table.commit(None, children)
    assert checkpoint(table, "child") == Checkpoint(3)


def test_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be written whole is removed: a full disk must not fill up further with every try."""
    table = open_table(tmp_path)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError("ENOSPC")))
    with pytest.raises(OSError, match="ENOSPC"):
        table.write_rows(pa.table({"a": [1]}))
    assert list((tmp_path / "t").glob("*.parquet")) == []


def test_started_at_once_by_many_threads_is_one(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Threads that start the same sync at the same time get the same one."""
    streams.create()
    with ThreadPoolExecutor(4) as pool:
        syncs = list(pool.map(lambda _: source.sync("orders", tmp_path / "t"), range(4)))
    assert len(set(map(id, syncs))) == 1
    syncs[0].stop()


def test_discovery_survives_a_bad_listing(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A listing that fails while the sync runs neither ends it nor stops it from finding shards."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    for code in ("ExpiredNextTokenException", "ResourceInUseException", "LimitExceededException"):
        streams.emulator.on("ListShards", ErrorReply(code))
        sync._scheduler._list()
    assert sync.status().state == "running"
    assert streams.emulator.delivered.total() == 3
    sync.stop()


def test_interrupted_wait_leaves_the_sync_running(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Ctrl-C in wait() ends the waiting and nothing else: the sync goes on, and the same line returns it."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    interrupt = threading.Timer(0.3, _thread.interrupt_main)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        sync.wait(until_caught_up=False)
    interrupt.join()
    assert sync.status().state == "running"
    assert source.sync("orders", tmp_path / "t") is sync
    streams.put(5)
    assert sync.wait(30)
    sync.stop()
    assert len(table_rows(tmp_path / "t")) == 5


def test_stop_that_cannot_commit_says_so(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Rows that stop() could not write are named; the next sync has them."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    table, away = tmp_path / "t", tmp_path / "away"
    table.rename(away)
    table.write_text("a file where the folder was")
    streams.put(20)
    while "cannot be written" not in sync.status().error:
        assert sync.is_active, sync.status().error
    with pytest.raises(kn.TableError, match="20 rows that were read are not in the table"):
        sync.stop()
    table.unlink()
    away.rename(table)
    again = source.sync("orders", table)
    assert again.wait(30)
    again.stop()
    assert len(table_rows(table)) == 20


def test_start_holds_for_children_that_were_there(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A sync from a time, of a stream that was split before it, has no record from before that time."""
    streams.create()
    streams.split()
    streams.put(10)
    rows = source.read("orders", progress=False).to_polars()
    start = rows["kinesis_ingestion_timestamp"].max() + timedelta(milliseconds=1)
    while datetime.now(UTC) <= start:
        pass
    streams.written.clear()
    streams.put(10)
    sync = source.sync("orders", tmp_path / "t", start, commit_interval=0.05)
    assert sync.wait(30)
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)
