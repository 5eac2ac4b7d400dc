"""The durable sync in every kind of place: a folder, and S3 as two servers speak it (see `place`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.core.shards import Shard
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import ErrorReply
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.syncing import lease, upkeep
from kinesis_nb.syncing.lease import _OWNER as OWNER
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table import table as table_module
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.table import SyncTable
from kinesis_nb.table.txns import Txns
from kinesis_nb.table.verify import verify_table
from tests.conftest import Streams, by_key, engine_threads, written_by_key
from tests.support.places import Place, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

BIG = 49590338271490256608559692538361571095921575989136588898


def test_every_record_once_in_order_through_reshards(source: kn.Source, streams: Streams, place: Place) -> None:
    """The table has every record once; ORDER BY partition_key, shard_offset is the order they were written in."""
    streams.create(shards=2)
    sync = place.sync(source, commit_interval=0.05)
    changes: list[Callable[[], None]] = [streams.split, streams.merge, lambda: streams.rescale(4)]
    for change in changes:
        streams.put(80, keys=20)
        change()
    streams.put(80, keys=20)
    assert sync.wait(timeout=30)
    sync.stop()
    rows = place.rows()
    assert by_key(rows.to_arrow()) == written_by_key(streams)
    assert rows.select("shard_id", "shard_offset").is_unique().all()
    assert rows["foundry_ingestion_timestamp"].null_count() == 0
    assert engine_threads() == []


def test_resumes_after_the_last_commit(source: kn.Source, streams: Streams, place: Place) -> None:
    """A second run of the same line reads only what is new, across a reshard that happened in between."""
    streams.create()
    streams.put(30)
    sync = place.sync(source, commit_interval=0.05)
    assert sync.wait(timeout=30)
    sync.stop()
    streams.put(10)
    streams.split()
    streams.put(10)
    again = place.sync(source, commit_interval=0.05)
    assert again.wait(timeout=30)
    again.stop()
    assert again.status().rows == 20
    assert by_key(place.rows().to_arrow()) == written_by_key(streams)


def test_same_line_again_returns_the_running_one(source: kn.Source, streams: Streams, place: Place) -> None:
    """Re-running the cell does not start a second writer."""
    streams.create()
    sync = place.sync(source)
    assert place.sync(source) is sync
    sync.stop()
    assert place.sync(source) is not sync
    place.sync(source).stop()


def test_hybrid_view_has_no_row_twice(source: kn.Source, streams: Streams, place: Place) -> None:
    """Committed and pending rows together are each record once, while commits go on."""
    streams.create(shards=2)
    sync = place.sync(source, commit_interval=0.01)
    for _ in range(10):
        streams.put(50)
        view = sync.to_polars()
        assert view.select("shard_id", "sequence_number").is_unique().all()
        assert len(view) <= len(streams.written)
    assert sync.wait(timeout=30)
    assert len(sync) == len(sync.to_polars()) == len(streams.written) == 500
    assert len(sync.live) == 0
    sync.stop()


def test_faults_neither_lose_nor_double(source: kn.Source, streams: Streams, emulator: Emulator, place: Place) -> None:
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
    sync = place.sync(source, commit_interval=0.05)
    streams.put(100)
    assert sync.wait(timeout=60)
    emulator.calm()
    sync.stop()
    assert by_key(place.rows().to_arrow()) == written_by_key(streams)
    assert emulator.delivered.total() > 0


def test_second_writer_fences_the_first(place: Place) -> None:
    """After a take-over the old writer cannot commit, neither at once nor after it looked at the table again."""
    old = place.open()
    old.acquire(["s"])
    assert old.commit(None, {"s": Checkpoint(1, str(BIG))})
    new = place.open()
    new.acquire(["s"])
    for _ in range(2):
        with pytest.raises(kn.Fenced):
            old.commit(None, {"s": Checkpoint(2, str(BIG + 1))})
    assert checkpoint(new, "s") == Checkpoint(1, str(BIG))
    assert new.commit(None, {"s": Checkpoint(2, str(BIG + 1))})


def test_writer_of_other_shards_does_not_disturb(place: Place) -> None:
    """Two writers of one table that own different shards commit side by side."""
    first, second = (place.open() for _ in range(2))
    first.acquire(["a"])
    second.acquire(["b"])
    for offset in range(1, 4):
        assert first.commit(None, {"a": Checkpoint(offset, str(BIG + offset))})
        assert second.commit(None, {"b": Checkpoint(offset, str(BIG + offset))})
    assert checkpoint(place.open(), "a") == Checkpoint(3, str(BIG + 3))


def test_every_number_of_the_log(place: Place) -> None:
    """What is read from the log is what Delta says, at every version, before and after a checkpoint of the log."""
    table = place.open()
    numbers = Txns(place.storage)
    for offset in range(1, 9):
        table.acquire([f"s{offset % 3}"])
        assert table.commit(None, {f"s{offset % 3}": Checkpoint(offset, str(BIG + offset))})
        if offset % 4 == 0:
            place.storage.open().create_checkpoint()
        known = place.storage.open()
        for read in (numbers, Txns(place.storage)):
            found = read.at(known.version())
            assert len(found) == 10 * min(offset, 3)
            assert all(known.transaction_version(name) == number for name, number in found.items())

    assert Txns(place.storage).at(0) == {}


def test_a_log_that_was_cleaned_up(tmp_path: Path) -> None:
    """Numbers come from the newest checkpoint of the log; of a version before it they are not known any more."""
    place = Place(str(tmp_path / "table"))
    place.open().acquire(["s"])
    place.storage.open().create_checkpoint()
    (tmp_path / "table" / "_delta_log" / f"{0:020d}.json").unlink()
    place.open().acquire(["s"])
    numbers = Txns(place.storage)
    for version in (1, 2):
        assert list(numbers.at(version).values()) == [version]
    with pytest.raises(OSError, match=r"version 0 of .* is not in its log any more"):
        numbers.at(0)
    assert list(numbers.at(2).values()) == [2]


def test_a_take_over_settles_no_other_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that landed unnoticed is found in the table after another shard was taken over, and not made again."""
    table = place.open()
    table.acquire(["s"])
    with monkeypatch.context() as broken:
        broken.setattr(table, "_update", Mock(side_effect=OSError("EIO")))
        broken.setattr(table.storage, "open", Mock(side_effect=OSError("EIO")))
        assert not table.commit(None, {"s": Checkpoint(1, str(BIG))})
    table.acquire(["other"])
    version = table.version
    assert table.commit(None, {"s": Checkpoint(1, str(BIG))})
    assert table.version == version


@pytest.mark.parametrize("number", ["1", str(BIG), str(2**186 - 1)])
def test_checkpoint_survives_the_table(place: Place, number: str) -> None:
    """A sequence number of up to 186 bits comes back from the table as it went in."""
    table = place.open()
    table.acquire(["s"])
    wanted = Checkpoint(7, number, ended=True)
    assert table.commit(None, {"s": wanted})
    assert checkpoint(place.open(), "s") == wanted
    assert checkpoint(table, "other") == Checkpoint()


def test_refuses_a_stream_made_again(source: kn.Source, streams: Streams, place: Place) -> None:
    """A stream that was deleted and created again under its name is another stream."""
    streams.create()
    place.sync(source).stop()
    created = streams.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"]
    streams.call("DeleteStream", StreamName="orders")
    while True:
        streams.create()
        new = streams.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"]
        if new["StreamCreationTimestamp"] != created["StreamCreationTimestamp"]:
            break
        streams.call("DeleteStream", StreamName="orders")
    with pytest.raises(kn.TableError, match="earlier stream of the same name"):
        place.sync(source)


def test_storage_hiccup_is_no_take_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails, and cannot be looked up either, is tried again; nobody is called Fenced without a rival."""
    table = place.open()
    table.acquire(["parent", "child"])
    children = {"parent": Checkpoint(3, str(BIG), ended=True), "child": Checkpoint(3)}
    with monkeypatch.context() as broken:
        broken.setattr(table.storage, "open", Mock(side_effect=OSError("EIO")))
        broken.setattr(table, "_write", Mock(side_effect=OSError("EIO")))
        assert not table.commit(None, children)
        with pytest.raises(OSError, match="EIO"):
            table.commit(None, children)
    assert table.commit(None, children)
    assert checkpoint(table, "child") == Checkpoint(3)


def test_a_second_process_is_handed_the_table(source: kn.Source, streams: Streams, place: Place) -> None:
    """A writer that is asked for its table commits what it has and says who took it; the other one goes on."""
    streams.create()
    streams.put(20)
    old = place.sync(source, commit_interval=0.05)
    assert old.wait(timeout=30)
    feed = ReadPlan(KinesisClient(source.config), "orders", SystemClock(), ())
    new = Sync(feed, place.open(old._table.origin), 0.05, "fail")  # as another process would
    new.start()
    assert new.status().state == "waiting"
    streams.put(20)
    assert new.wait(timeout=30)
    with pytest.raises(kn.Fenced, match="process"):
        old.wait(timeout=30)
    new.stop()
    assert by_key(place.rows().to_arrow()) == written_by_key(streams)


def test_who_is_fenced_can_say_by_whom(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name lies beside the table when the entry that takes it over appears in its log."""
    acquire, names = SyncTable.acquire, []

    def acquire_and_look(self: SyncTable, shard_ids: Collection[str]) -> None:
        acquire(self, shard_ids)
        names.append(lease.holder(self.storage, self.turn))

    monkeypatch.setattr(SyncTable, "acquire", acquire_and_look)
    streams.create()
    source.sync("orders", tmp_path / "t").stop()
    assert [str(os.getpid()) in str(name) for name in names] == [True]


def test_the_name_of_the_owner(place: Place) -> None:
    """The file beside the table tells which process took it at which call, and nothing of any other call."""
    place.open()
    assert lease.holder(place.storage, 1) is None
    lease.take(place.storage, 1)
    holder = lease.holder(place.storage, 1)
    assert holder is not None
    assert not holder.is_gone()
    assert str(os.getpid()) in str(holder)
    assert lease.holder(place.storage, 2) is None


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b'{"owner":"\xff"}', b'{"owner":"x","host":"h","pid":1,"started":""}']
)
def test_a_name_that_cannot_be_read_is_none(place: Place, note: bytes) -> None:
    """The file is a hint: one that is torn, of something else or of an earlier version stops nobody."""
    place.open()
    place.storage.write(OWNER, note)
    assert lease.holder(place.storage, 0) is None


def test_maintenance_breaks_no_reader(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction, log checkpoint, cleanup and vacuum keep every row, for old and new readers, and the checkpoints."""
    monkeypatch.setattr(upkeep, "VACUUM_EVERY", 1)
    monkeypatch.setitem(table_module._PROPERTIES, "delta.logRetentionDuration", "interval 0 seconds")
    table = place.open()
    table.acquire(["s"])
    for offset in range(30):
        assert table.commit(table.write_rows(_row(offset)), {"s": Checkpoint(offset + 1, str(BIG + offset))})
    old = place.storage.open()
    before = set(old.file_uris())
    maintenance = Maintenance(place.storage)
    assert not maintenance.is_due(99)
    assert maintenance.is_due(100)
    maintenance.run()
    assert len(place.storage.open().file_uris()) == 1 < len(before)
    assert old.to_pandas()["shard_offset"].sort_values().tolist() == list(range(30))
    file, reached = table.write_rows(_row(30)), {"s": Checkpoint(31, str(BIG + 30))}
    assert table.commit(file, reached) or table.commit(file, reached)  # its handle was older than the log
    assert place.rows()["shard_offset"].to_list() == list(range(31))
    assert checkpoint(place.open(), "s") == Checkpoint(31, str(BIG + 30))
    assert place.storage.last_log_checkpoint() > 0


def test_others_read_while_it_is_written(source: kn.Source, streams: Streams, place: Place) -> None:
    """DuckDB, pandas and polars see whole commits of a table that is being written: each key without a hole."""
    streams.create(shards=2)
    sync = place.sync(source, commit_interval=0.01)
    for _ in range(5):
        streams.put(100)
        table = DeltaTable(place.uri, storage_options=place.options or None)
        for frame in (
            duckdb.from_arrow(table.to_pyarrow_dataset()).pl(),
            pl.from_pandas(table.to_pandas()),
            sync.scan().collect(),
        ):
            for numbers in by_key(frame.sort("partition_key", "shard_offset").to_arrow()).values():
                assert numbers == list(range(1, len(numbers) + 1))
    assert sync.wait(timeout=30)
    view = sync.to_arrow()
    counted = duckdb.sql("SELECT count(*) FROM view")
    assert counted is not None
    assert counted.fetchall() == [(500,)]
    assert isinstance(sync.to_pandas(), pd.DataFrame)
    assert len(view) == len(sync) == 500
    sync.stop()


def test_verify_finds_a_good_table_good(source: kn.Source, streams: Streams, place: Place) -> None:
    """Through reshards, every shard of the table has its verdict, and all is well."""
    streams.create(shards=2)
    sync = place.sync(source, commit_interval=0.05)
    for change in (streams.split, streams.merge):
        streams.put(50)
        change()
    streams.put(50)
    assert sync.wait(timeout=30)
    verdict = sync.verify()
    assert verdict, verdict
    assert verdict.rows == 150
    assert verdict.to_polars()["rows"].sum() == 150
    assert "every row once and in order" in verdict._repr_html_()
    assert "ended" in verdict.to_polars()["state"].to_list()
    sync.stop()


def test_verify_finds_what_is_wrong(place: Place) -> None:
    """Rows doubled, missing or out of order, a child before its parent, a wrong checkpoint: each is named."""
    table = place.open()
    table.acquire(["p", "s"])
    good = {"s": Checkpoint(4, str(BIG + 3)), "p": Checkpoint(2, str(BIG), ended=True)}
    for offset, number in ((2, 2), (2, 2), (5, 1)):
        assert table.commit(table.write_rows(_row(offset, number)), good)
        good["p"] = Checkpoint(2, str(BIG + number))
    said = str(verify_table(table, [Shard("p"), Shard("s", parents=("p",))]).problems)
    for problem in ("1 rows doubled", "1 holes", "2 rows out of order", "has not ended", "the checkpoint counts"):
        assert problem in said


def _row(offset: int, number: int | None = None) -> pa.Table:
    """Return a table of one row of the shard ``s``."""
    row = dict.fromkeys(TABLE_SCHEMA.names) | {
        "data": "{}",
        "shard_id": "s",
        "shard_offset": offset,
        "sequence_number": str(BIG + (offset if number is None else number)),
        "sub_sequence_number": 0,
    }
    return pa.Table.from_pylist([row], schema=TABLE_SCHEMA)


def test_places_that_cannot_be_used_say_why(source: kn.Source, streams: Streams, place: Place, tmp_path: Path) -> None:
    """A bucket that is not there, wrong keys, a file in the way: a TableError with a hint, and no thread."""
    streams.create()
    if place.options:
        wrong = [Place("s3://no-such-bucket-here/t", place.options)]
    else:
        (tmp_path / "file").write_text("mine")
        wrong = [Place(str(tmp_path / "file")), Place(str(tmp_path / "file" / "t"))]
    for there in wrong:
        with pytest.raises(kn.TableError, match="hint: "):
            there.sync(source)
    assert engine_threads() == []


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("gs://bucket/t", {}),
        ("s3://bucket", {}),
        ("s3://B_UCKET/t", {}),
        ("", {}),
        (7, {}),
        ("t", {"commit_interval": 0}),
        ("t", {"commit_interval": -1.0}),
        ("t", {"commit_interval": float("nan")}),
        ("t", {"on_data_loss": "ignore"}),
        ("t", {"storage_options": {"endpoint_url": 7}}),
        ("t", {"storage_options": "endpoint_url"}),
        ("t", {"start": kn.StartingPosition.after("1")}),
    ],
)
def test_values_that_cannot_be_right_are_refused(source: kn.Source, table: Any, options: dict[str, Any]) -> None:
    """Nothing is sent, and nothing written, for a place, an interval or an option that cannot be right."""
    with pytest.raises(kn.errors.ConfigError, match="hint: "):
        source.sync("orders", table, **options)  # there is no stream of that name: nothing was asked
