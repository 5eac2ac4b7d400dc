"""A sync that keeps a part of its stream: exact over reshards, restarts and crashes, and counted."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.core.frames import TIMESTAMP
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.selection import EVERYTHING, Selection, Where
from kinesis_nb.core.shards import Shard, hash_key
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.table import SyncTable
from kinesis_nb.table.verify import verify_table
from tests.conftest import by_key, engine_threads, written_by_key
from tests.support.local import local
from tests.support.places import ORIGIN
from tests.support.virtual import ListSink, VirtualClock, VirtualKinesis
from tests.syncing.test_loss import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.types import OnDataLoss
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

N = pl.col("data").str.json_path_match("$.n").cast(pl.Int64)
EVEN = N % 2 == 0
ZERO, ONE, TWO, THREE = (f"shardId-{number:012d}" for number in range(4))
HALF = 2**127


def rows_of(path: Path) -> pl.DataFrame:
    return pl.scan_delta(str(path)).collect().sort("partition_key", "shard_offset")


def numbers(path: Path) -> dict[str, list[int]]:
    return by_key(rows_of(path))


def synced(source: kn.Source, table: Path, **options: Any) -> Sync:
    sync = local(source.sync("orders", table, commit_interval=0.05, **options))
    assert sync.wait(timeout=30)
    return sync


def moment(emulator: Emulator) -> datetime:
    """Return a moment of the service, behind all that arrived so far and before all that will."""
    time.sleep(0.01)
    now = datetime.fromtimestamp(emulator.model.clock.now(), UTC)
    time.sleep(0.01)
    return now


# --- what is kept


def test_what_is_not_kept_is_counted(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """In the status, in the table's history and by verify_table(); the offsets of what is kept have no holes."""
    streams.create(shards=2)
    streams.put(70)
    sync = synced(source, tmp_path / "t", where=EVEN)
    streams.put(71)
    assert sync.wait(30)
    sync.stop()
    odd = sum(number % 2 for _, number in streams.written)
    assert numbers(tmp_path / "t") == {
        key: [n for n in found if n % 2 == 0] for key, found in written_by_key(streams).items()
    }
    for _, rows in rows_of(tmp_path / "t").group_by("shard_id"):
        assert sorted(rows["shard_offset"]) == list(range(len(rows)))
    assert sync.status().filtered == odd
    assert f"{odd:,} rows not kept" in repr(sync.status())
    verdict = sync.verify()
    assert verdict, repr(verdict)
    assert verdict.filtered == odd == verdict.to_polars()["filtered"].sum()
    assert f"kept {Selection(where=Where.of(EVEN))}: {odd:,} rows were not" in repr(verdict)
    notes = [entry["kinesis_nb"] for entry in DeltaTable(tmp_path / "t").history() if "kinesis_nb" in entry]
    assert sum(int(note.partition(" rows not kept")[0]) for note in notes if "not kept" in note) == odd


def test_a_restart_reads_nothing_again_that_it_did_not_keep(
    source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """Where a shard was read to is in the table even if none of its last rows, or none at all, was kept."""
    streams.create()
    streams.put(10, keys=1)
    sync = None
    for _ in range(3):
        sync = synced(source, tmp_path / "t", where=N > 100)
        sync.stop()
        assert sync.verify().filtered == 10
    assert sync is not None
    assert sync.status().filtered == 0
    assert len(sync) == 0
    assert DeltaTable(tmp_path / "t").file_uris() == []
    streams.put(100, keys=1)
    sync = synced(source, tmp_path / "t", where=N > 100)
    sync.stop()
    assert numbers(tmp_path / "t") == {"key-0": list(range(101, 111))}
    assert sync.verify().filtered == 100


def test_records_behind_the_last_one_that_is_kept_are_counted_once(
    source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """However often the sync begins again before another one is kept."""
    streams.create()
    streams.put(10, keys=1)
    sync = None
    for _ in range(3):
        sync = synced(source, tmp_path / "t", where=N == 4)
        sync.stop()
    assert sync is not None
    verdict = sync.verify()
    assert verdict, repr(verdict)
    assert (verdict.rows, verdict.filtered) == (1, 9)


def test_compressed_records_are_opened_before_they_are_chosen(
    source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """The table holds the text, so SQL finds it; `where` sees it too."""
    streams.create()
    for number in range(6):
        data = gzip.compress(json.dumps({"n": number}).encode())
        streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=data)
    sync = synced(source, tmp_path / "t", decompress=True, where=EVEN)
    sync.stop()
    assert numbers(tmp_path / "t") == {"k": [0, 2, 4]}
    assert sync.verify()


def test_pending_rows_are_chosen_too(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """What a sync shows of rows that are not committed yet is what will be committed of them."""
    streams.create()
    streams.put(9, keys=1)
    sync = source.sync("orders", tmp_path / "t", where=EVEN, commit_interval=3600.0)
    while sync.status().pending < 9:
        time.sleep(0.01)
    assert len(sync) == len(sync.live) == 4
    assert by_key(sync) == {"key-0": [2, 4, 6, 8]}
    sync.stop()
    assert (len(sync), len(sync.live)) == (4, 0)


def test_a_row_on_which_the_expression_fails(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """The sync stops with an error of ours; the table has what came before, and nothing is half counted."""
    streams.create()
    streams.put(4, keys=1)
    chosen = N.is_null() | (pl.col("data").str.json_path_match("$.n").cast(pl.Int64) % 2 == 0)
    sync = synced(source, tmp_path / "t", where=chosen)
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b'{"n": "many"}')
    with pytest.raises(kn.ConfigError, match=rf"where= fails on rows of {ZERO}"):
        sync.wait(30, until_caught_up=False)
    assert sync.status().state == "failed"
    verdict = sync.verify()
    assert verdict
    assert (verdict.rows, verdict.filtered) == (2, 2)
    assert engine_threads() == []


# --- which shards


def test_a_key_is_followed_over_reshards(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """From shard to shard, and from no other one; whether the sync runs at the reshard or not."""
    streams.create()
    streams.put(40, keys=4)
    sync = synced(source, tmp_path / "t", key="key-2")
    for number in range(6):
        if number == 3:
            sync.stop()
        (streams.merge if number % 2 else streams.split)()
        streams.put(40, keys=4)
        if number in {2, 4, 5}:
            sync = synced(source, tmp_path / "t", key="key-2")
    sync.stop()
    assert numbers(tmp_path / "t") == {"key-2": list(range(1, 71))}
    assert rows_of(tmp_path / "t")["shard_offset"].to_list() == list(range(70))
    listed = source._kinesis.list_shards("orders")
    holding = {shard.shard_id for shard in listed if shard.hash_range[0] <= hash_key("key-2") <= shard.hash_range[1]}
    verdict = sync.verify()
    assert verdict, repr(verdict)
    assert {shard.shard_id for shard in verdict.shards} == holding < {shard.shard_id for shard in listed}


def test_only_the_shards_that_are_named_are_followed(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Not what comes out of them: when they have ended, so has the sync; and a shard is read whose parent is not."""
    streams.create(shards=2)
    streams.put(50)
    named = streams.open_shards()[0]["ShardId"]
    sync = synced(source, tmp_path / "t", shards=[named])
    streams.split()
    streams.put(50)
    sync.wait(30, until_caught_up=False)
    assert sync.status().state == "ended"
    everything = source.read("orders", progress=False, shards=[named]).to_polars()
    assert numbers(tmp_path / "t") == by_key(everything)
    assert {shard.shard_id: shard.state for shard in sync.verify().shards} == {named: "ended"}
    child = streams.open_shards()[0]["ShardId"]
    of_child = synced(source, tmp_path / "child", shards=[child])
    of_child.stop()
    assert of_child.verify(), repr(of_child.verify())
    assert numbers(tmp_path / "child") == by_key(source.read("orders", progress=False, shards=[child]))


def test_a_shard_that_is_not_there_is_refused(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """With the call that lists them, and without a table."""
    streams.create()
    with pytest.raises(kn.ConfigError, match=r"no shard shardId-7[^$]*hint: explore"):
        source.sync("orders", tmp_path / "t", shards=[ZERO, "shardId-7"])
    assert not (tmp_path / "t").exists()


class Chosen(Stream):
    """A sync of a part of a stream on a clock that only moves when it is told to."""

    selection = EVERYTHING

    def sync(self, on_data_loss: OnDataLoss = "fail") -> Sync:
        origin = replace(self.origin, newest_shard=ZERO, selection=self.selection.record())
        kinesis, chosen = VirtualKinesis(self.model, self.clock), self.selection
        feed = ReadPlan(kinesis, "orders", self.clock, (), chosen.wants, selection=chosen)
        sync = Sync(feed, SyncTable.open(self.table, origin), 0.05, on_data_loss)
        sync.start()
        try:
            assert sync.wait()
        finally:
            sync.stop()
        return sync

    def split(self, shard_id: str) -> None:
        what = {"StreamName": "orders", "ShardToSplit": shard_id, "NewStartingHashKey": str(HALF)}
        self.model.call("SplitShard", what)
        self.sleep(0.001)

    def merge(self) -> None:
        self.model.call("MergeShards", {"StreamName": "orders", "ShardToMerge": ONE, "AdjacentShardToMerge": TWO})
        self.sleep(0.001)


@pytest.fixture
def chosen(tmp_path: Path) -> Chosen:
    return Chosen(tmp_path / "t")


@pytest.mark.slow
def test_a_shard_that_never_held_the_key_is_no_loss(chosen: Chosen) -> None:
    """The other parent of a merge, which left the stream with nothing that the sync wants."""
    chosen.selection = Selection(key="k")
    chosen.put(1)
    chosen.sync()
    chosen.split(ZERO)
    chosen.put(2)
    chosen.sync()
    chosen.merge()
    chosen.sync()  # the end of the parents
    chosen.sleep(60)
    chosen.put(3)
    sync = chosen.sync("warn")
    assert chosen.numbers() == [1, 2, 3]
    assert sync.verify(), repr(sync.verify())
    assert all(THREE in text for text in sync.verify().lost)  # nobody can know whether it was silent


@pytest.mark.parametrize("selection", [Selection(key="k"), Selection(shards=frozenset({ZERO}))], ids=str)
def test_a_shard_that_left_half_read_is_told(chosen: Chosen, selection: Selection) -> None:
    """Also where its first child is not among those that the sync reads."""
    assert hash_key("k") >= HALF  # in the second child
    chosen.selection = selection
    chosen.put(1)
    chosen.sync()
    chosen.put(2)
    chosen.split(ZERO)
    chosen.sleep(60)
    chosen.put(3)
    with pytest.raises(kn.DataLoss, match=ZERO):
        chosen.sync()
    sync = chosen.sync("warn")
    assert chosen.numbers() == ([1, 3] if selection.key else [1])
    assert any(ZERO in text for text in sync.verify().lost)


# --- the end


def test_a_sync_with_an_end_ends(source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path) -> None:
    """With everything that arrived by then and nothing later; the next sync goes on where it stopped."""
    streams.create(shards=2)
    streams.put(60)
    streams.split()
    streams.put(60)
    end, before = moment(emulator), written_by_key(streams)
    streams.put(60)
    streams.merge(index=1)
    streams.put(60)
    sync = source.sync("orders", tmp_path / "t", end=end, commit_interval=0.05)
    assert sync.wait(30, until_caught_up=False)
    assert sync.status().state == "ended"
    assert numbers(tmp_path / "t") == before
    assert engine_threads() == []
    assert sync.verify(), repr(sync.verify())
    again = source.sync("orders", tmp_path / "t", end=end)
    assert again is not sync
    assert again.wait(30)
    assert numbers(tmp_path / "t") == before
    later = synced(source, tmp_path / "t")
    later.stop()
    assert numbers(tmp_path / "t") == written_by_key(streams)
    assert later.verify()


def test_an_end_that_is_to_come(source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path) -> None:
    """The sync runs until the service's responses are past it."""
    streams.create()
    end = moment(emulator) + timedelta(seconds=1.5)
    sync = source.sync("orders", tmp_path / "t", end=end, commit_interval=0.05)
    streams.put(20)
    assert sync.wait(30)
    assert sync.status().state == "running"
    assert sync.wait(30, until_caught_up=False)
    assert datetime.fromtimestamp(emulator.model.clock.now(), UTC) > end
    assert numbers(tmp_path / "t") == written_by_key(streams)


class YearsAhead(VirtualClock):
    """The clock of a machine that somebody set wrongly."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=1_000)


def test_it_is_the_clock_of_the_service_that_says_when(chosen: Chosen) -> None:
    """A machine whose clock is years ahead ends a sync no earlier, and what arrives meanwhile is in the table."""
    end = chosen.clock.now() + timedelta(seconds=10)
    feed = ReadPlan(VirtualKinesis(chosen.model, chosen.clock), "orders", YearsAhead(chosen.clock.manual), (), end=end)
    sync = Sync(feed, SyncTable.open(chosen.table, ORIGIN), 0.05, "fail")
    sync.start()
    chosen.put(1)
    assert sync.wait()
    assert sync.is_active
    chosen.clock.sleep(9.0)
    chosen.put(2)
    assert sync.wait()
    assert sync.is_active
    chosen.clock.sleep(5.0)
    chosen.put(3)
    while not sync.wait(1, until_caught_up=False):
        chosen.clock.sleep(1.0)
    assert chosen.numbers() == [1, 2]
    sync.stop()


class AtTheTip(VirtualKinesis):
    """A service that says of the last records of a closed shard that nothing is behind them."""

    def get_records(self, stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        return replace(super().get_records(stream, shard, iterator, limit), millis_behind_latest=0)


@pytest.mark.parametrize("service", [VirtualKinesis, AtTheTip])
def test_a_parent_that_ended_in_time_hands_over_to_its_children(chosen: Chosen, service: type[VirtualKinesis]) -> None:
    """What they hold from before the end is read; that their parent gives no more rows is not its end."""
    chosen.put(1)
    chosen.split(ZERO)
    chosen.put(2)
    end = chosen.clock.now()
    chosen.sleep(1)
    chosen.put(3)
    kinesis = service(chosen.model, chosen.clock)
    sync = Sync(
        ReadPlan(kinesis, "orders", chosen.clock, (), end=end),
        SyncTable.open(chosen.table, replace(ORIGIN, newest_shard=ZERO)),
        0.05,
        "fail",
    )
    sync.start()
    assert sync.wait(30, until_caught_up=False)
    assert chosen.numbers() == [1, 2]
    assert sync.verify()


class Skewed(VirtualKinesis):
    """A service whose clocks differ: what children hold seems to have arrived before it did."""

    def get_records(self, stream: str, shard: Shard, iterator: str, limit: int) -> Batch:
        batch = super().get_records(stream, shard, iterator, limit)
        if not shard.parents:
            return batch
        place = batch.rows.schema.get_field_index("kinesis_ingestion_timestamp")
        early = pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * batch.rows.num_rows, TIMESTAMP)
        return replace(batch, rows=batch.rows.set_column(place, batch.rows.schema.field(place), early))


def test_children_of_a_shard_that_is_not_read_on_wait(chosen: Chosen) -> None:
    """A shard that was left before its end has rows that come before those of its children."""
    chosen.put(1)
    end = chosen.clock.now()
    chosen.sleep(1)
    chosen.put(2)
    chosen.split(ZERO)
    chosen.put(3)
    for _ in range(2):
        kinesis = Skewed(chosen.model, chosen.clock)
        sync = Sync(
            ReadPlan(kinesis, "orders", chosen.clock, (), end=end),
            SyncTable.open(chosen.table, replace(ORIGIN, newest_shard=ZERO)),
            0.05,
            "fail",
        )
        sync.start()
        assert sync.wait(30, until_caught_up=False)
        assert chosen.numbers() == [1]
    assert chosen.sync().verify()
    assert chosen.numbers() == [1, 2, 3]


class Satisfied(ListSink):
    """Wants one answer of each shard."""

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        super().deliver(shard, batch)
        return False


def test_a_shard_that_left_the_stream_is_not_waited_for_when_all_others_gave_enough(chosen: Chosen) -> None:
    """A reader with an end ends, though no listing shows the others closed."""
    chosen.split(ZERO)
    chosen.sleep(60)
    kinesis = VirtualKinesis(chosen.model, chosen.clock)
    shards = (Shard(ZERO), *kinesis.list_shards("orders"))
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    feed = ReadPlan(kinesis, "orders", SystemClock(), shards, is_ordered=False)
    sink = Satisfied(StartingPosition.trim_horizon())
    scheduler = Scheduler(feed, sink, on_done=done.put)
    scheduler.start()
    try:
        assert done.get(timeout=20) is None
        assert sink.finished[0] == ZERO
    finally:
        scheduler.stop()


# --- one selection per table


def test_another_selection_is_refused(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Also none; both are named. What runs goes on, and the same line gives it."""
    streams.create(shards=2)
    streams.put(20)
    options: dict[str, Any] = {"where": EVEN, "key": "key-1"}
    sync = synced(source, tmp_path / "t", **options)
    others: list[dict[str, Any]] = [
        {},
        {"key": "key-1"},
        {"where": EVEN},
        options | {"where": ~EVEN},
        options | {"decompress": True},
    ]
    for other in others:
        with pytest.raises(kn.TableError, match=r"(?s)keeps key='key-1', where=.*asks for .*hint: .* new place"):
            source.sync("orders", tmp_path / "t", commit_interval=0.05, **other)
        assert sync.is_active
    assert synced(source, tmp_path / "t", where=N % 2 == 0, key="key-1") is sync
    sync.stop()
    every = synced(source, tmp_path / "all")
    with pytest.raises(kn.TableError, match="keeps every record, and this call asks for shards="):
        source.sync("orders", tmp_path / "all", shards=[ZERO])
    every.stop()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"where": "n > 1"}, "where= does not accept str"),
        ({"where": pl.col("nope") == 1}, "where= cannot be applied"),
        ({"where": pl.col("data")}, "where= gives String"),
        ({"where": pl.col("data").is_first_distinct()}, "where= looks at other rows"),
        ({"key": 7}, "key= does not accept"),
        ({"key": ""}, "partition key"),
        ({"shards": "shardId-000000000000"}, "shards= does not accept"),
        ({"shards": []}, "is not a list of shard ids"),
        ({"decompress": "gzip"}, "decompress="),
        ({"end": "soon"}, "not a position"),
        ({"end": "trim_horizon"}, "cannot end"),
        ({"end": "-1h", "start": "-1m"}, "after the end"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,  # an expression is written with its address
)
def test_what_cannot_be_right_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    """Before any request, and without a table."""
    source = kn.connect(endpoint_url="http://127.0.0.1:1", auth=kn.StaticCredentials("a", "b"))
    with pytest.raises(kn.ConfigError, match=rf"{reason}[^$]*hint: "):
        source.sync("orders", tmp_path / "t", **options)
    assert not (tmp_path / "t").exists()


def test_agents_take_a_selection_and_no_end(tmp_path: Path) -> None:
    """An end is refused before anybody is asked."""
    keys = kn.StaticCredentials("a", "b")
    source = kn.connect(endpoint_url="http://127.0.0.1:1", auth=keys, agents="tcp://127.0.0.1:1")
    with pytest.raises(kn.ConfigError, match=r"until it is stopped[^$]*hint: leave end= out"):
        source.sync("orders", tmp_path / "t", end="now")


# --- verify


def test_verify_finds_rows_that_the_sync_does_not_keep(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """They are a problem, unless somebody changed rows: then nobody can know."""
    streams.create()
    streams.put(10, keys=1)
    sync = synced(source, tmp_path / "t")
    sync.stop()
    listing, chosen = source._kinesis.list_shards("orders"), Selection(where=Where.of(EVEN))
    assert verify_table(sync._table, listing)
    verdict = verify_table(sync._table, listing, chosen)
    assert verdict.problems == [f"{ZERO}: 5 rows that the sync does not keep"]
    DeltaTable(tmp_path / "t").update({"data": "'{\"n\": 1}'"})
    assert sync.verify()


def test_verify_finds_that_all_rows_are_gone(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Of a shard of which some rows were not kept."""
    streams.create()
    streams.put(10, keys=1)
    sync = synced(source, tmp_path / "t", where=EVEN)
    sync.stop()
    DeltaTable(tmp_path / "t").delete()
    assert sync.verify().problems == [f"{ZERO}: its first 5 rows are missing"]


# --- crashes

WRITER = """
import sys, polars as pl, kinesis_nb as kn
source = kn.connect(endpoint_url=sys.argv[1], auth=kn.StaticCredentials("emulator", "emulator"))
even = pl.col("data").str.json_path_match("$.n").cast(pl.Int64) % 2 == 0
sync = source.sync("orders", sys.argv[2], where=even, commit_interval=0.02)
print("runs", flush=True)
sync.wait(until_caught_up=False)
"""


def test_a_sync_that_is_killed_again_and_again(
    source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path
) -> None:
    """Each record is kept, or counted as not kept, exactly once."""
    streams.create(shards=3)
    is_over = threading.Event()

    def write() -> None:
        while not is_over.wait(0.005):
            streams.put(7)  # as many as there are keys: the last record of a shard is kept as often as not

    writing = threading.Thread(target=write)
    writing.start()
    versions = []
    try:
        for _ in range(4):
            command = [sys.executable, "-c", WRITER, emulator.endpoint_url, str(tmp_path / "t")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"runs\n"
                began = DeltaTable(tmp_path / "t").version()
                while DeltaTable(tmp_path / "t").version() < began + 5:
                    time.sleep(0.005)
                process.kill()
            versions.append(DeltaTable(tmp_path / "t").version() - began)
    finally:
        is_over.set()
        writing.join()
    assert min(versions) >= 5
    sync = synced(source, tmp_path / "t", where=EVEN)
    sync.stop()
    expected = {key: [n for n in found if n % 2 == 0] for key, found in written_by_key(streams).items()}
    assert numbers(tmp_path / "t") == expected
    verdict = sync.verify()
    assert verdict, repr(verdict)
    assert verdict.rows + verdict.filtered == len(streams.written)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verdict.to_polars().height == 3
