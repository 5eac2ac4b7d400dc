"""The durable sync: rows and checkpoints in one Delta commit."""

from __future__ import annotations

import _thread
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import ErrorReply, Stall
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.syncing import committer, ownership, upkeep
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.conftest import Streams, by_key, engine_threads, written_by_key
from tests.support.local import local
from tests.support.places import ORIGIN, away

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.emulator import Emulator
    from kinesis_nb.table.origin import Origin


def table_rows(path: Path) -> pl.DataFrame:
    return pl.scan_delta(str(path)).collect().sort("partition_key", "shard_offset")


def open_table(folder: Path, origin: Origin = ORIGIN) -> SyncTable:
    return SyncTable.open(Storage.at(folder / "t"), origin)


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


def test_storage_that_comes_back(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """While the table cannot be written nothing is lost; when it can again the sync goes on by itself."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    with away(tmp_path / "t"):
        streams.put(20)
        while "cannot be written" not in (status := sync.status()).error or status.pending < 20:
            assert sync.is_active, status.error
        assert status.state == "storage unavailable"
    assert sync.wait(timeout=30)
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)


def test_rows_written_where_the_table_was(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of rows that is not there any more when it is to be committed is written again: none is missing."""
    streams.create()
    table, elsewhere = tmp_path / "t", tmp_path / "elsewhere"
    write, lost = SyncTable.write_rows, list[object]()

    def write_and_lose(self: SyncTable, rows: pa.Table) -> object:
        file = write(self, rows)
        if file is not None and not lost:  # as when the folder was away meanwhile
            lost.append((table / file.path).rename(elsewhere))
        return file

    monkeypatch.setattr(SyncTable, "write_rows", write_and_lose)
    sync = source.sync("orders", table, commit_interval=0.05)
    streams.put(20)
    assert sync.wait(timeout=30)
    assert lost
    assert by_key(table_rows(table).to_arrow()) == written_by_key(streams)
    assert sync.verify()
    sync.stop()


def test_a_folder_that_was_moved_away_stays_away(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Nothing is created where the table was: whoever moved it there again would find files in the way."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=1.0)  # no commit is under way when the folder goes
    (tmp_path / "t").rename(tmp_path / "away")
    streams.put(20)
    while sync.status().state != "storage unavailable" or sync.status().pending < 20:
        assert sync.is_active, sync.status().error
    assert not (tmp_path / "t").exists()
    (tmp_path / "away").rename(tmp_path / "t")
    assert sync.wait(timeout=30)
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)


def test_no_file_beside_a_table_that_is_not_there(tmp_path: Path) -> None:
    """A note is not written, and no folder is created for it, where the table is away."""
    with pytest.raises(FileNotFoundError):
        Storage.at(tmp_path / "t").write("_kinesis_nb/owner.json", b"{}")
    assert not (tmp_path / "t").exists()


class StaleListing(KinesisClient):
    """A real client whose first listing is old when it arrives: `meanwhile` happens between the two."""

    meanwhile: Callable[[], None] | None = None

    def list_shards(self, stream: str) -> list[Shard]:
        shards = super().list_shards(stream)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return shards


def test_take_over_during_a_reshard_doubles_nothing(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that the old writer ended, and children it wrote, while the new one was listing, are not read again."""
    monkeypatch.setattr(committer, "CLAIM_POLL_SECONDS", 3600)  # so the old writer does not see that it is asked
    monkeypatch.setattr(ownership, "LEASE_SECONDS", 0.0)
    streams.create()
    streams.put(20)
    old = local(source.sync("orders", tmp_path / "t", commit_interval=0.05))
    assert old.wait(timeout=30)

    def reshard_and_commit() -> None:
        streams.split()
        streams.put(20)
        assert old.wait(timeout=30)

    client = StaleListing(source.config)
    client.meanwhile = reshard_and_commit
    origin = open_table(tmp_path, old._table.origin)
    new = Sync(ReadPlan(client, "orders", SystemClock(), ()), origin, 0.05, "fail")
    new.start()
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
    with pytest.warns(UserWarning, match="stopped at"):
        assert not sync.wait(timeout=30)


def test_what_counts_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Parquet file, the log entry and the names of both are fsynced before a commit counts."""
    synced = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    table = open_table(tmp_path)
    table.acquire(["s"])
    monkeypatch.setattr(os, "fsync", note)
    row = dict.fromkeys(TABLE_SCHEMA.names) | {"shard_id": "s", "shard_offset": 0}
    file = table.write_rows(pa.Table.from_pylist([row], schema=TABLE_SCHEMA))
    assert file is not None
    assert table.commit(file, {"s": Checkpoint(1, "1")})
    folder = tmp_path / "t"
    assert synced == {
        folder,
        folder / file.path,
        folder / "_delta_log",
        folder / f"_delta_log/{table.version:020d}.json",
    }


def test_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be written whole is removed: a full disk must not fill up further with every try."""
    table = open_table(tmp_path)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError("ENOSPC")))
    with pytest.raises(OSError, match="ENOSPC"):
        table.write_rows(pa.table({"a": [1]}))
    assert list((tmp_path / "t").glob("*.parquet")) == []


def test_failed_maintenance_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the file that could not be written whole stays, nor those that the same round had finished before."""
    table = open_table(tmp_path)
    table.acquire(["s"])
    for number in range(4):
        row = dict.fromkeys(TABLE_SCHEMA.names) | {"shard_id": "s", "shard_offset": number}
        file = table.write_rows(pa.Table.from_pylist([row], schema=TABLE_SCHEMA))
        assert table.commit(file, {"s": Checkpoint(number + 1, str(number))})
    before = sorted((tmp_path / "t").glob("*.parquet"))
    assert len(before) == 4
    monkeypatch.setattr(upkeep, "SMALL_FILE", 1 + 2 * max(path.stat().st_size for path in before))  # so two files arise
    monkeypatch.setattr(upkeep, "LARGE_FILE", upkeep.SMALL_FILE)
    real, done = os.fsync, list[int]()

    def full(handle: int) -> None:
        if len(done) == 2:  # the first file and its folder
            raise OSError("ENOSPC")
        done.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="ENOSPC"):
        upkeep.Maintenance(table.storage).run()
    assert len(done) == 2
    assert sorted((tmp_path / "t").glob("*.parquet")) == before


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
    sync = local(source.sync("orders", tmp_path / "t", commit_interval=0.05))
    for code in ("ExpiredNextTokenException", "ResourceInUseException", "LimitExceededException"):
        streams.emulator.on("ListShards", ErrorReply(code))
        assert sync._readers._scheduler is not None
        sync._readers._scheduler._list()
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
    assert source.sync("orders", tmp_path / "t", commit_interval=0.05) is sync
    streams.put(5)
    assert sync.wait(30)
    sync.stop()
    assert len(table_rows(tmp_path / "t")) == 5


def test_stop_that_cannot_commit_says_so(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Rows that stop() could not write are named; the next sync has them."""
    streams.create()
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.01)
    with away(tmp_path / "t"):
        streams.put(20)
        while "cannot be written" not in (status := sync.status()).error or status.pending < 20:
            assert sync.is_active, status.error
        with pytest.raises(kn.TableError, match="20 rows that were read are not in the table"):
            sync.stop()
    again = source.sync("orders", tmp_path / "t")
    assert again.wait(30)
    again.stop()
    assert len(table_rows(tmp_path / "t")) == 20


def test_start_holds_for_children_that_were_there(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A sync from a time, of a stream that was split before it, has no record from before that time."""
    streams.create()
    streams.split()
    streams.put(10)
    rows = source.read("orders", progress=False).to_polars()
    newest = rows["kinesis_ingestion_timestamp"].max()
    assert isinstance(newest, datetime)
    start = newest + timedelta(milliseconds=1)
    while datetime.now(UTC) <= start:
        pass
    streams.written.clear()
    streams.put(10)
    sync = source.sync("orders", tmp_path / "t", start, commit_interval=0.05)
    assert sync.wait(30)
    sync.stop()
    assert by_key(table_rows(tmp_path / "t").to_arrow()) == written_by_key(streams)
