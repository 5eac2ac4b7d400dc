"""Streaming exports: a synced table follows into another stream, resumable, in order, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply, ManualClock, PartialFailure, Reset, Stall
from kinesis_nb.exporting import follow
from kinesis_nb.exporting.follow import TableFollower
from kinesis_nb.exporting.report import QueueLimit
from kinesis_nb.syncing.start import hurry
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table.storage import Storage
from tests.conftest import Streams, by_key, written_by_key
from tests.kill_export import kill_again_and_again
from tests.support.local import local
from tests.support.servers import bucket
from tests.support.virtual import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from kinesis_nb.emulator import Emulator
    from tests.support.places import Place


@pytest.fixture
def table(source: kn.Source, streams: Streams, tmp_path: Path) -> Iterator[kn.Sync]:
    """A running sync of the stream orders."""
    streams.create("orders", shards=2)
    sync = local(source.sync("orders", tmp_path / "orders", commit_interval=0.05))
    yield sync
    sync.stop()


def finish(export: kn.StreamingExport) -> None:
    assert export.wait(timeout=30)
    export.stop()


def test_follows_a_table_as_it_grows(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """Rows that are there and rows that come later are exported once, with their own keys, bytes and order."""
    arn = streams.create("copy", shards=3)
    streams.put(200)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn))
    streams.split("orders")
    streams.put(200)
    assert table.wait(timeout=30)
    finish(export)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)
    status = export.status()
    assert (status.state, status.rows, status.possible_duplicates, status.pending) == ("stopped", 400, 0, 0)
    assert "400 rows" in repr(export)
    assert "shardId" in export._repr_html_()


def test_goes_on_where_it_stopped(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """A second export of the same table to the same stream sends only what the first did not."""
    arn = streams.create("copy")
    streams.put(50)
    assert table.wait(timeout=30)
    finish(local(source.export_stream(table.uri, arn)))
    streams.put(50)
    assert table.wait(timeout=30)
    second = local(source.export_stream(table.uri, arn))
    assert source.export_stream(table.uri, arn) is second
    finish(second)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)
    assert second.status().rows == 100
    assert second.status().report.rows == 50


def test_a_table_in_every_kind_of_place(source: kn.Source, streams: Streams, place: Place, tmp_path: Path) -> None:
    """A table in a folder or in S3, given as the running sync and then by its address, is exported whole."""
    arn, journal = streams.create("copy", shards=2), tmp_path / "journal"
    streams.create()
    streams.put(50)
    sync = place.sync(source, commit_interval=0.05)
    assert sync.wait(timeout=30)
    finish(local(source.export_stream(sync, arn, journal=journal)))
    streams.split()
    streams.put(50)
    assert sync.wait(timeout=30)
    sync.stop()
    export = local(source.export_stream(place.uri, arn, journal=journal, storage_options=place.options or None))
    finish(export)
    assert export.status().report.rows == 50
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_a_table_in_s3_is_read_with_the_keys_of_the_moment(source: kn.Source, streams: Streams, ministack: str) -> None:
    """Keys, or another address, that change while an export runs are used at its next poll of the table."""
    uri, options = bucket(ministack)
    streams.create()
    streams.put(10)
    sync = source.sync("orders", f"{uri}/t", storage_options=options, commit_interval=0.05)
    assert sync.wait(timeout=30)
    now = dict(options)
    table = TableFollower(Storage.at(f"{uri}/t", lambda: now))
    assert sum(band.height for band in table.bands({})) == 10
    now["endpoint_url"] = "http://127.0.0.1:9"
    with pytest.raises(kn.TableError, match="cannot be read"):
        list(table.bands({}))
    now["endpoint_url"] = options["endpoint_url"]
    streams.put(5)
    assert sync.wait(timeout=30)
    assert sum(band.height for band in table.bands({})) == 5
    sync.stop()


def test_a_file_that_cannot_be_read_is_trouble_not_the_end(
    source: kn.Source, streams: Streams, table: kn.Sync, tmp_path: Path
) -> None:
    """While a file of the table is missing the export says so and continues; when it is back its rows are sent."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    table.stop()
    files = list(Path(table.uri).glob("*.parquet"))
    for file in files:
        file.rename(tmp_path / file.name)
    export = local(source.export_stream(table, arn))
    while not export.status().error:
        assert not export.wait(timeout=0.1)
    assert "cannot be read" in export.status().error
    for file in files:
        (tmp_path / file.name).rename(file)
    finish(export)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_options_of_a_place_go_with_its_address(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """A sync reaches its own table, and a table in S3 needs a place for the journal; nothing is sent."""
    arn = streams.create("copy")
    with pytest.raises(kn.ConfigError, match="storage_options= goes with the path"):
        source.export_stream(table, arn, storage_options={"region": "x"})
    with pytest.raises(kn.ConfigError, match="is not the place of a table"):
        source.export_stream("gs://bucket/t", arn)
    assert len(source.read("copy", progress=False)) == 0


def test_faults_double_at_most_what_is_reported(
    source: kn.Source, streams: Streams, table: kn.Sync, emulator: Emulator
) -> None:
    """Throttles, partial failures and lost responses lose nothing and keep the order of every key."""
    arn = streams.create("copy", shards=2)
    streams.put(100)
    assert table.wait(timeout=30)
    emulator.on(
        "PutRecords", PartialFailure(0.5, "InternalFailure"), Reset(before=False), ErrorReply("InternalFailure")
    )
    export = local(source.export_stream(table, arn))
    finish(export)
    found = by_key(source.read("copy", progress=False))
    doubled = sum(len(numbers) - len(set(numbers)) for numbers in found.values())
    assert all(numbers == sorted(numbers) for numbers in found.values())
    assert {key: sorted(set(numbers)) for key, numbers in found.items()} == written_by_key(streams)
    assert 0 < doubled <= export.status().possible_duplicates
    assert emulator.delivered.total() == 3


def test_latest_sends_only_what_comes(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """With start="latest" the rows that are in the table already are left out, in a resumed export too."""
    arn = streams.create("copy")
    streams.put(30)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn, start="latest"))
    assert export.wait(timeout=30)
    export.stop()
    streams.put(10)
    assert table.wait(timeout=30)
    finish(local(source.export_stream(table, arn)))
    assert len(source.read("copy", progress=False)) == 10


def test_replays_a_time_range_at_a_rate(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """A range of arrival times goes into another stream at the rate that was asked for, and then the export ends."""
    arn = streams.create("copy")
    streams.put(60)
    assert table.wait(timeout=30)
    written = written_by_key(streams)
    times = table.scan().select("kinesis_ingestion_timestamp").collect().to_series()
    beginning, end = times.min(), times.max()
    assert isinstance(beginning, datetime)
    assert isinstance(end, datetime)
    export = local(source.export_stream(table.uri, arn, start=beginning, end=end, rate=60))
    streams.put(60)  # behind the end
    assert export.wait(timeout=30, until_caught_up=False)
    assert export.status().state == "ended"
    assert export.status().report.duration >= 0.7
    assert by_key(source.read("copy", progress=False)) == written
    later = local(
        source.export_stream(table.uri, arn, start=end + timedelta(seconds=1), end=end + timedelta(seconds=2))
    )
    later.stop()
    assert later.status().rows == 0


def test_follows_a_tail(source: kn.Source, streams: Streams) -> None:
    """Rows of a tail are exported until it is stopped, and everything it took is sent then."""
    streams.create("orders", shards=2)
    arn = streams.create("copy")
    with source.tail("orders", "trim_horizon", on_full="block") as tail:
        export = local(source.export_stream(tail, arn))
        streams.put(150)
        while export.status().rows < 150:
            assert not export.wait(timeout=0.1, until_caught_up=False)
    assert export.wait(timeout=30, until_caught_up=False)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)
    assert (export.status().state, export.status().dropped) == ("ended", 0)


def test_a_row_that_is_given_up_is_named(
    source: kn.Source, streams: Streams, table: kn.Sync, emulator: Emulator
) -> None:
    """A record that the service never takes is listed with its place and reason; the others are sent."""
    arn = streams.create("copy")
    streams.put(20)
    assert table.wait(timeout=30)
    emulator.on("PutRecords", *(PartialFailure(0.01, "SomethingNew") for _ in range(40)))
    export = local(source.export_stream(table, arn))
    finish(export)
    assert export.status().rows + export.failed.height == 20
    assert set(export.failed["reason"].str.split(":").list.first()) <= {"SomethingNew"}


def test_only_one_process_runs_an_export(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """The journal of an export belongs to one process; a second one is refused and sends nothing."""
    from kinesis_nb.exporting.journal_file import JournalFile

    arn = streams.create("copy")
    export = local(source.export_stream(table, arn))
    assert export.wait(timeout=30)
    path = next((Path(table.uri) / "_exports").glob("*.journal"))
    with pytest.raises(kn.Fenced, match="another process runs this export"):
        JournalFile(path, VirtualClock(ManualClock()))
    export.stop()


def test_warns_of_a_loop(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """A target that is the synced stream itself is warned of."""
    arn = source.explore("orders").summary.arn
    with pytest.warns(UserWarning, match="exported into itself"):
        export = local(source.export_stream(table, arn))
    export.stop()


def test_refuses_what_is_no_synced_table(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A folder without a table, a table without the columns, and an unknown stream are refused; nothing is sent."""
    arn = streams.create("copy")
    with pytest.raises(kn.TableError, match="is not a Delta table"):
        source.export_stream(tmp_path, arn)
    pl.DataFrame({"a": [1]}).write_delta(tmp_path / "other")
    with pytest.raises(kn.TableError, match="no column 'partition_key'"):
        source.export_stream(tmp_path / "other", arn)
    with pytest.raises(kn.ConfigError, match="neither a synced table nor a tail"):
        source.export_stream(pl.DataFrame(), arn)  # type: ignore[arg-type]
    assert len(source.read("copy", progress=False)) == 0


def test_refuses_a_journal_of_another_export(
    source: kn.Source, streams: Streams, table: kn.Sync, tmp_path: Path
) -> None:
    """A journal says what it is for, and another export does not continue from it."""
    first, second = streams.create("copy"), streams.create("other")
    finish(local(source.export_stream(table, first, journal=tmp_path / "place")))
    running = local(source.export_stream(table, first, journal=tmp_path / "place"))
    with pytest.raises(kn.ConfigError, match="is of another export"):
        source.export_stream(table, second, journal=tmp_path / "place")
    assert running.is_active, "a refused call stops no export"
    running.stop()


def test_files_that_are_rewritten_bring_no_row_twice(
    source: kn.Source, streams: Streams, table: kn.Sync, emulator: Emulator
) -> None:
    """Compaction, or somebody's OPTIMIZE, while the rows of the old files are queued and the output is slow."""
    arn = streams.create("copy", shards=2)
    for _ in range(5):
        streams.put(60)
        assert table.wait(timeout=30)
    emulator.on("PutRecords", *(Stall(0.05) for _ in range(60)))
    export = local(source.export_stream(table, arn))
    while not export.status().rows:
        assert not export.wait(timeout=0.01)
    assert export.status().pending
    Maintenance(Storage(table.uri)).run()
    DeltaTable(table.uri).optimize.compact()
    streams.put(20)
    assert table.wait(timeout=30)
    finish(export)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)
    assert export.status().possible_duplicates == 0


def test_a_look_that_breaks_brings_no_row_twice(
    source: kn.Source, streams: Streams, table: kn.Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading that fails behind the first of several bands is retried, behind what was taken."""
    arn = streams.create("copy")
    streams.put(300)
    assert table.wait(timeout=30)
    monkeypatch.setattr(follow, "BAND_ROWS", 50)
    bands, broken = follow._in_bands, list[int]()

    def breaking(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        for number, band in enumerate(bands(rows)):
            if number == 2 and not broken:
                broken.append(number)
                raise OSError("connection reset")
            yield band

    monkeypatch.setattr(follow, "_in_bands", breaking)
    export = local(source.export_stream(table, arn))
    finish(export)
    assert broken
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_a_table_that_cannot_be_read_now_is_retried(table: kn.Sync, streams: Streams, tmp_path: Path) -> None:
    """Whatever is asked of it, the error is ours and retryable."""
    streams.put(10)
    assert table.wait(timeout=30)
    table.stop()
    rows = TableFollower(Storage(table.uri))
    Path(table.uri).rename(tmp_path / "away")
    for ask in (rows.ends, rows.seen, lambda: list(rows.bands({}))):
        with pytest.raises(kn.TableError, match="cannot be read") as caught:
            ask()
        assert caught.value.retryable


def test_a_journal_that_cannot_be_written_ends_the_export(
    source: kn.Source, streams: Streams, table: kn.Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are not recorded as taken are not skipped while later ones are sent."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn))
    assert export.wait(timeout=30)
    fsync, refused = os.fsync, list[int]()

    def once_broken(file: int) -> None:
        if not refused and Path(f"/proc/self/fd/{file}").readlink().suffix == ".journal":
            refused.append(file)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", once_broken)
    streams.put(10)
    with pytest.raises(kn.TableError, match="cannot be written"):
        export.wait(timeout=20, until_caught_up=False)
    streams.put(10)
    assert table.wait(timeout=30)
    finish(local(source.export_stream(table, arn)))
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


@contextmanager
def no_room_for_journals(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let the disk of all journals be full."""
    fsync = os.fsync

    def full(file: int) -> None:
        if ".journal" in Path(f"/proc/self/fd/{file}").readlink().name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield


def test_an_export_waits_for_a_full_disk(
    source: kn.Source, streams: Streams, table: kn.Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends nothing that is not recorded, says what it waits for, and continues when there is room."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn))
    assert export.wait(timeout=30)
    with no_room_for_journals(monkeypatch):
        streams.put(10)
        assert table.wait(timeout=30)
        assert not export.wait(timeout=3)
        status = export.status()
        assert (status.state, status.rows) == ("running", 10)
        assert "No space left on device" in status.error
        assert source.export_stream(table, arn) is export
        assert len(source.read("copy", progress=False)) == 10
    assert export.wait(timeout=30)
    assert (export.status().error, export.status().possible_duplicates) == ("", 0)
    finish(export)
    finish(local(source.export_stream(table, arn)))
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_an_export_that_waits_for_a_full_disk_can_be_stopped(
    source: kn.Source, streams: Streams, table: kn.Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; what it could not record is an error, and nothing is lost or sent twice."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn))
    assert export.wait(timeout=30)
    with no_room_for_journals(monkeypatch):
        streams.put(10)
        assert table.wait(timeout=30)
        assert not export.wait(timeout=2)
        export.stop()
        assert export.status().state == "failed"
        assert "No space left on device" in export.status().error
    finish(local(source.export_stream(table, arn)))
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_what_was_taken_from_a_tail_is_sent_before_the_export_stops(source: kn.Source, streams: Streams) -> None:
    """However slow the rate: those rows are nowhere else. The others stay in the tail."""
    streams.create()
    arn = streams.create("copy")
    streams.put(100)
    with source.tail("orders", "trim_horizon", on_full="block") as tail:
        while len(tail) < 100:
            threading.Event().wait(0.01)
        export = local(source.export_stream(tail, arn, rate=20))
        while len(tail):
            assert not export.wait(0.05)
        export.stop()
        assert (export.status().state, export.status().rows) == ("stopped", 100)
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_an_export_whose_queues_are_full_can_be_stopped(
    source: kn.Source, streams: Streams, table: kn.Sync, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, although no room comes: nothing is sent any more; the same call sends the rest."""
    arn = streams.create("copy")
    streams.put(50)
    assert table.wait(timeout=30)
    monkeypatch.setattr("kinesis_nb.exporting.streaming.STREAMED", QueueLimit(5, 2**20))
    monkeypatch.setattr("kinesis_nb.exporting.streaming.SLICE_SECONDS", 0.01)
    emulator.chaos(seed=1, rate=1.0, faults=[ErrorReply("LimitExceededException")], operations=["PutRecords"])
    export = local(source.export_stream(table, arn, rate=500))
    while export.status().pending < 5:
        assert not export.wait(timeout=0.1)
    assert export.status().pending < 50
    export.stop()
    assert export.status().state == "stopped"
    emulator.calm()
    finish(local(source.export_stream(table, arn)))
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_a_failure_is_reported_however_slow_the_rate_is(
    source: kn.Source, streams: Streams, table: kn.Sync, emulator: Emulator
) -> None:
    """A request that is refused for good ends the export now, and not when all that was read has had its turn."""
    arn = streams.create("copy")
    streams.put(500)
    assert table.wait(timeout=30)
    emulator.on("PutRecords", ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied):
        source.export_stream(table, arn, rate=5).wait(timeout=20)


def test_rows_that_were_erased_hold_nothing_up(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """Rows that are deleted from the table before they are exported are not sent, and the others are done with."""
    arn = streams.create("copy")
    streams.put(40)
    assert table.wait(timeout=30)
    table.stop()
    DeltaTable(table.uri).delete("shard_offset % 3 = 1")
    left = table.scan().collect().height
    export = local(source.export_stream(table, arn))
    finish(export)
    assert export.status().rows == left == len(source.read("copy", progress=False))
    state = json.loads(next((Path(table.uri) / "_exports").glob("*.journal")).read_bytes().partition(b"\t")[0])
    assert state["done"] == {}


def test_an_end_is_reached_when_the_table_has_read_past_it(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """Rows that arrived before the end and come into the table later are sent; until then it says what it waits for."""
    arn = streams.create("copy")
    streams.put(20)
    assert table.wait(timeout=30)
    table.stop()
    streams.put(20)
    export = local(source.export_stream(table.uri, arn, end="now"))
    assert export.wait(timeout=30)
    assert not export.wait(timeout=1.2, until_caught_up=False)
    status = export.status()
    assert (status.state, status.rows) == ("running", 20)
    assert status.waits_for.startswith("the sync of the table, which has read the stream up to")
    assert status.waits_for in repr(export)
    sync = local(source.sync("orders", table.uri, commit_interval=0.05))
    assert export.wait(timeout=30, until_caught_up=False)
    sync.stop()
    assert (export.status().state, export.status().waits_for) == ("ended", "")
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_an_end_waits_for_every_shard(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """Also for those whose parent has ended and that are not read yet, and not for those that ended."""
    streams.put(20)
    streams.split("orders")
    assert table.wait(timeout=30)
    rows = TableFollower(Storage(table.uri))
    before = rows.seen()
    assert before is not None
    assert before <= datetime.now(UTC)
    now = datetime.now(UTC)
    streams.put(5)
    while not (after := rows.seen()) or after < now:  # said by each shard in its own time
        hurry(source.explore("orders").summary.arn, rows.storage)
        assert table.wait(timeout=30)
        list(rows.bands({}))


def test_an_end_of_a_silent_stream_is_reached_soon(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """Where the sync runs in the same process it says what it has read when an export waits for that."""
    arn = streams.create("copy")
    streams.put(20)
    assert table.wait(timeout=30)
    export = local(source.export_stream(table, arn, end="now"))
    assert export.wait(timeout=30, until_caught_up=False)
    assert export.status().rows == 20


def test_a_table_without_a_sync_ends_by_the_clock(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A table that no sync writes cannot say more."""
    synced(["a"], ['{"n": 1}']).write_delta(tmp_path / "table")
    export = local(source.export_stream(tmp_path / "table", streams.create("copy"), end="now"))
    assert export.wait(timeout=30, until_caught_up=False)
    assert export.status().rows == 1


def test_an_output_that_was_made_again_is_refused(source: kn.Source, streams: Streams, table: kn.Sync) -> None:
    """What the old one got is not in the new one; nothing is sent until somebody says what is wanted."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    finish(local(source.export_stream(table, arn)))
    streams.call("DeleteStream", StreamName="copy")
    streams.create("copy")
    with pytest.raises(kn.ConfigError, match="its output stream was created at"):
        source.export_stream(table, arn)
    assert len(source.read("copy", progress=False)) == 0
    next((Path(table.uri) / "_exports").glob("*.journal")).unlink()
    finish(local(source.export_stream(table, arn)))
    assert by_key(source.read("copy", progress=False)) == written_by_key(streams)


def test_a_journal_of_another_table_of_the_stream_is_refused(
    source: kn.Source, streams: Streams, table: kn.Sync, tmp_path: Path
) -> None:
    """Two tables of one stream number their rows alike."""
    arn = streams.create("copy")
    streams.put(10)
    assert table.wait(timeout=30)
    finish(local(source.export_stream(table, arn, journal=tmp_path / "j")))
    second = source.sync("orders", tmp_path / "second", commit_interval=0.05)
    assert second.wait(timeout=30)
    with pytest.raises(kn.ConfigError, match="another table of the same stream"):
        source.export_stream(second, arn, journal=tmp_path / "j")
    second.stop()
    assert len(source.read("copy", progress=False)) == 10


@pytest.mark.parametrize("journal", [3, "", b"j"])
def test_a_journal_that_is_no_path_is_refused(
    source: kn.Source, streams: Streams, tmp_path: Path, journal: Any
) -> None:
    """Before anything is asked or written."""
    with pytest.raises(kn.ConfigError, match=r"is not a valid path|journal= does not accept"):
        source.export_stream(tmp_path / "t", streams.create("copy"), journal=journal)


def test_a_journal_in_the_home_folder(
    source: kn.Source, streams: Streams, table: kn.Sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tilde is the home folder, and a relative path counts from where the process is now."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    arn = streams.create("copy")
    finish(local(source.export_stream(table, arn, journal="~/j")))
    finish(local(source.export_stream(table, arn, journal="there/j")))
    assert (tmp_path / "home" / "j").is_file()
    assert (tmp_path / "there" / "j").is_file()


def synced(keys: list[str | None], data: list[str]) -> pl.DataFrame:
    """Return rows as they stand in a synced table."""
    now = datetime.now(UTC)
    count = len(keys)
    return pl.DataFrame(
        {
            "partition_key": keys,
            "data": data,
            "kinesis_ingestion_timestamp": [now] * count,
            "shard_id": ["s"] * count,
            "shard_offset": range(count),
        }
    )


def test_a_row_that_is_too_large_is_given_up(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A record that the output stream does not take is named with its size, and the others are sent."""
    synced(["a", "a", "b"], ['{"n": 1}', "x" * 2**20, '{"n": 3}']).write_delta(tmp_path / "table")
    export = local(source.export_stream(tmp_path / "table", streams.create("copy")))
    finish(export)
    assert export.failed.rows() == [("s", 1, "larger than 1,048,576 bytes with the key")]
    assert by_key(source.read("copy", progress=False)) == {"a": [1], "b": [3]}
    assert (export.status().rows, export.status().failed) == (2, 1)


def test_a_null_key_stops_it_unless_told_otherwise(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A row without a partition key fails the export with its reason; on_bad_key says what to do instead."""
    rows = synced(["a", None], ['{"n": 1}', '{"n": 2}'])
    rows.write_delta(tmp_path / "table")
    arn = streams.create("copy")
    with pytest.raises(kn.ConfigError, match="no usable partition key"):
        source.export_stream(tmp_path / "table", arn).wait(timeout=30)
    export = local(source.export_stream(tmp_path / "table", arn, on_bad_key="skip"))
    finish(export)
    assert export.failed.rows() == [("s", 1, "no usable partition key in 'partition_key'")]
    assert [json.loads(record.data)["n"] for record in source.read("copy", progress=False)] == [1]


@pytest.mark.slow
def test_survives_kill_9() -> None:
    """Killed again and again with requests under way, it loses nothing, keeps the order, and counts what came twice."""
    killed = kill_again_and_again(4)
    assert killed.useful == killed.kills
