"""User records of another shard's keys: which are dropped and which kept, and that it is told and counted once."""

from __future__ import annotations

import base64
import json
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.agents.order import Parcel, SyncOrder
from kinesis_nb.config import SourceConfig
from kinesis_nb.emulator import Emulator, ManualClock, sequence
from kinesis_nb.foreign import STALE_MAP, Dropped, Foreign, count, drops, made_at
from kinesis_nb.ledger import Ledger
from kinesis_nb.payload import decompressed
from kinesis_nb.position import StartingPosition
from kinesis_nb.service.wire import decode_batch
from kinesis_nb.shards import MAX_HASH_KEY, Shard, hash_key
from kinesis_nb.source import open_kinesis
from kinesis_nb.table import Checkpoint
from tests.conftest import Streams
from tests.kpl import aggregate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinesis_nb.frames import Batch

HALF = 2**127
CHILD = Shard("shardId-000000000001", ("shardId-000000000000",), (0, HALF - 1))
ROOT = Shard("shardId-000000000000", (), (0, HALF - 1))
MADE = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LOW = [key for key in map(str, range(100)) if hash_key(key) < HALF]
HIGH = [key for key in map(str, range(100)) if hash_key(key) >= HALF]
TOLD = "user records of aggregates were dropped"


def number(made: datetime, written: datetime) -> str:
    """Return the sequence number of the first record of a shard, in the layout of the service."""
    prefix = sequence.prefix(round(made.timestamp() * 1000), stream=1, shard=1)
    return sequence.encode(prefix, 1, round(written.timestamp() * 1000))


def epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- the rule


@pytest.mark.parametrize(
    ("sequence_number", "arrived", "made"),
    [
        # AWS's developer guides of Lambda: one stream, two records a minute apart
        ("49590338271490256608559692538361571095921575989136588898", 1545084650.987, 1542776258),
        ("49590338271490256608559692540925702759324208523137515618", 1545084711.166, 1542776258),
        # of a real split: the parent's last number, and the children's first
        ("49548859072981407141756144980517230543978492779512725506", 1426527176.0, 1426526784),
        ("49548859213219643322715968606065803827347328807764754450", 1426527177.0, 1426527177),
        ("49548859213241944067914499229207339545619977169270734882", 1426527177.0, 1426527177),
        # the last number of such a child, which was merged twelve minutes later
        ("49548859213230793695315233917635362760664090379986927634", 1426527934.0, 1426527177),
    ],
)
def test_numbers_of_aws_say_when_their_shard_was_made(sequence_number: str, arrived: float, made: int) -> None:
    """Published sequence numbers of the service hold the second of their shard's making, whatever the record's age."""
    written = int(sequence_number) >> 36 & (2**36 - 1)
    assert abs(written - arrived) < 3
    assert made_at(sequence_number, epoch(arrived)) == epoch(made)


@given(st.integers(2 << 184, (3 << 184) - 1), st.integers(1_380_000_000, 4_100_000_000).map(epoch))
def test_a_number_that_does_not_hold_the_arrival_says_nothing(value: int, arrived: datetime) -> None:
    """Whatever its layout: a number is believed only where it agrees with when the record arrived."""
    written = value >> 36 & (2**36 - 1)
    assert made_at(str(value), arrived) is None or abs(written - arrived.timestamp()) <= 60


@pytest.mark.parametrize("text", ["1", "0", "9" * 129, number(MADE, MADE)[:-1], number(MADE, MADE) + "0"])
def test_numbers_of_other_servers_say_nothing(text: str) -> None:
    """Where a server counts otherwise nobody knows when the shard was made."""
    assert made_at(text, MADE) is None


def test_the_two_times_of_a_record_may_differ_by_a_minute() -> None:
    """A little skew is a clock's; more of it is another layout, and so is a record from before its shard."""
    for skew in (-60, -1, 0, 2, 60):
        assert made_at(number(MADE, MADE + skew * SECOND), MADE) == MADE
    assert made_at(number(MADE, MADE + 61 * SECOND), MADE) is None
    assert made_at(number(MADE, MADE - 61 * SECOND), MADE) is None
    assert made_at(number(MADE + 61 * SECOND, MADE), MADE) is None


@pytest.mark.parametrize(
    ("foreign", "shard", "age", "is_dropped"),
    [
        ("auto", CHILD, timedelta(0), True),
        ("auto", CHILD, STALE_MAP, True),
        ("auto", CHILD, STALE_MAP + timedelta(milliseconds=1), False),
        ("auto", CHILD, timedelta(days=300), False),
        ("auto", ROOT, timedelta(0), False),
        ("keep", CHILD, timedelta(0), False),
        ("drop", ROOT, timedelta(days=300), True),
    ],
)
def test_the_rule(foreign: str, shard: Shard, age: timedelta, *, is_dropped: bool) -> None:
    """By default foreign user records are dropped only in a shard that a reshard made up to two minutes before."""
    arrived = MADE + age
    assert drops(Foreign(foreign), shard, number(MADE, arrived), arrived) is is_dropped


def test_an_unknown_time_of_making_keeps() -> None:
    """Where nothing says when a child was made its foreign user records are kept: a double can be told, a loss not."""
    assert not drops(Foreign.AUTO, CHILD, "17", MADE)
    assert drops(Foreign.DROP, CHILD, "17", MADE)


def page(*rows: list[str], shard: Shard = CHILD, foreign: Foreign = Foreign.AUTO, most: int = 2**30) -> list[Batch]:
    """Decode a response of aggregates with these keys, all of which arrived right after the shard was made."""
    prefix = sequence.prefix(round(MADE.timestamp() * 1000), stream=1, shard=1)
    records = [
        {
            "SequenceNumber": sequence.encode(prefix, i + 1, round(MADE.timestamp() * 1000)),
            "Data": base64.b64encode(aggregate([(key, None, b"\xff%d" % i) for key in keys])).decode(),
            "ApproximateArrivalTimestamp": MADE.timestamp(),
            "PartitionKey": "packed",
        }
        for i, keys in enumerate(rows)
    ]
    body = json.dumps({"Records": records, "NextShardIterator": "i", "MillisBehindLatest": 0}).encode()
    return list(decode_batch(body, shard, MADE).parts(most, foreign))


@given(
    st.lists(st.lists(st.sampled_from(LOW[:3] + HIGH[:3]), min_size=1, max_size=4), min_size=1, max_size=6), st.data()
)
def test_every_user_record_is_a_row_or_counted(records: list[list[str]], data: st.DataObject) -> None:
    """In whatever parts a response is given: each user record is kept with its place, or counted with its record."""
    foreign, most = data.draw(st.sampled_from(Foreign)), data.draw(st.sampled_from([1, 3_000, 2**30]))
    shard = data.draw(st.sampled_from([CHILD, ROOT]))
    opened = [
        part for whole in page(*records, shard=shard, foreign=foreign, most=most) for part in decompressed(whole, 1)
    ]
    numbers = [batch.read_to for batch in page(*records, shard=shard, most=1)]
    keeps = foreign is Foreign.KEEP or (foreign is Foreign.AUTO and shard is ROOT)
    wanted = [
        (number, place, key)
        for number, keys in zip(numbers, records, strict=True)
        for place, key in enumerate(keys)
        if keeps or hash_key(key) < HALF
    ]
    columns = ("sequence_number", "sub_sequence_number", "partition_key")
    found = [row for batch in opened for row in zip(*(batch.rows[name].to_pylist() for name in columns), strict=True)]
    assert found == wanted
    dropped = [record for batch in opened for record in batch.dropped]
    assert {record.sequence_number: record.user_records for record in dropped} == {
        number: lost
        for number, keys in zip(numbers, records, strict=True)
        if (lost := len(keys) - sum(row[0] == number for row in wanted))
    }
    assert len(dropped) == len({record.sequence_number for record in dropped})
    for batch in opened:  # what is delivered up to a part is what its position says
        assert all(int(record.sequence_number) <= int(batch.read_to or 0) for record in batch.dropped)


def test_what_was_delivered_before_is_not_counted_again() -> None:
    """A response that begins again at the last record, to prove that nothing was lost, gives only what is behind it."""
    (batch,) = page([LOW[0], HIGH[0]], [HIGH[0], HIGH[1]])
    first, second = (record.sequence_number for record in batch.dropped)
    assert [record.sequence_number for record in batch.behind(first).dropped] == [second]
    assert batch.behind(second).dropped == ()


# --- what a sync is about to commit


def dropped(*numbers: int) -> tuple[Dropped, ...]:
    return tuple(Dropped(str(number), MADE, 2) for number in numbers)


def rows(*numbers: int) -> pa.RecordBatch:
    """Return rows with these sequence numbers."""
    (batch,) = page([LOW[0]] * len(numbers))
    columns = dict(zip(batch.rows.schema.names, batch.rows.columns, strict=True))
    columns["sequence_number"] = pa.array(map(str, numbers), pa.string())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.rows.schema)


def ledger() -> Ledger:
    made = Ledger()
    made.own(["a"], [], {"a": Checkpoint(4, "10")})
    return made


def committed(made: Ledger, held: list[Any]) -> Checkpoint:
    pending = made.pending(lambda: held)
    prepared = made.prepare(pending, MADE, 24)
    made.committed(pending, prepared)
    return made.reached("a")


def test_a_checkpoint_passes_what_was_dropped() -> None:
    """A record of which nothing was kept is counted, and never read again."""
    made = ledger()
    made.drop("a", dropped(11, 12))
    made.delivered("a", "12")
    reached = committed(made, [])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (4, "12", 4)
    assert not made.pending(list)


def test_a_checkpoint_does_not_pass_rows_that_are_not_committed() -> None:
    """What was dropped behind rows that wait for room is not counted before these are committed."""
    made = ledger()
    made.drop("a", dropped(12, 14))
    assert not made.pending(list)  # row 11 may wait to be taken
    reached = committed(made, [("a", rows(11, 13))])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (6, "13", 2)
    made.delivered("a", "14")
    reached = committed(made, [])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (6, "14", 4)


def test_the_last_row_counts_where_it_is_behind() -> None:
    """Of the last row and the last dropped record the later one is the checkpoint."""
    made = ledger()
    made.drop("a", dropped(11))
    made.delivered("a", "12")
    assert committed(made, [("a", rows(12))]).sequence_number == "12"


def test_a_batch_that_comes_again_is_counted_once() -> None:
    """What could not be delivered is delivered again, with all that was dropped in it."""
    made = ledger()
    made.drop("a", dropped(11, 12))
    made.drop("a", dropped(11, 12, 13))
    made.delivered("a", "13")
    assert committed(made, []).dropped == 6


# --- read, tail and sync


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def still(clock: ManualClock) -> Iterator[Emulator]:
    """An emulator whose clock the test moves."""
    with Emulator(clock=clock) as emulator:
        yield emulator


@pytest.fixture
def streams(still: Emulator) -> Streams:
    return Streams(still)


@pytest.fixture
def source(still: Emulator) -> kn.Source:
    return kn.connect(endpoint_url=still.endpoint_url, auth=kn.StaticCredentials("emulator", "emulator"))


def put(streams: Streams, keys: list[str], into: int = 0) -> None:
    """Write one record of several keys to the shard that takes a hash key."""
    data = aggregate([(key, None, f"{n}".encode()) for n, key in enumerate(keys)])
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", ExplicitHashKey=str(into), Data=data)


def quietly(source: kn.Source, **options: Any) -> kn.Records:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return source.read("orders", progress=False, **options)


def test_what_nobody_writes_again_is_kept(source: kn.Source, streams: Streams) -> None:
    """Of a record of many keys each user record is a row, in its order and with its place, and nothing is said."""
    streams.create(shards=4)
    put(streams, LOW + HIGH, into=MAX_HASH_KEY)
    records = source.read("orders", progress=False)
    table = records.to_arrow()
    assert table["partition_key"].to_pylist() == LOW + HIGH
    assert table["sub_sequence_number"].to_pylist() == list(range(100))
    assert records.note == ""


def test_a_read_tells_what_it_drops(source: kn.Source, streams: Streams, clock: ManualClock) -> None:
    """After a reshard, and for two minutes, foreign user records are dropped: in the note and in one warning."""
    streams.create()
    put(streams, [LOW[0], HIGH[0]])
    clock.advance(3600)
    streams.split()
    put(streams, [LOW[0], HIGH[0], HIGH[1]])
    clock.advance(STALE_MAP.total_seconds() + 1)
    put(streams, [HIGH[0], LOW[0]])
    clock.advance(1)
    with pytest.warns(UserWarning, match=f"2 {TOLD}") as said:
        records = source.read("orders", progress=False)
    assert len(said) == 1
    assert records.to_arrow()["data"].to_pylist() == ["0", "1", "0", "0", "1"]
    assert f"2 {TOLD}" in records.note
    assert f"2 {TOLD}" in repr(records)
    assert len(quietly(source, foreign="keep")) == 7
    assert quietly(source, foreign="keep").note == ""
    dropped_all = quietly(source, foreign="drop")
    assert dropped_all.to_arrow()["data"].to_pylist() == ["0", "1", "0", "1"]
    assert f"3 {TOLD}" in dropped_all.note
    assert quietly(source, start=epoch(clock.now() - 60)).note == ""  # what was dropped lies before


def test_a_tail_tells_what_it_drops(source: kn.Source, streams: Streams, clock: ManualClock) -> None:
    """Rows that were taken out say what is missing between them; so do the counts, once."""
    streams.create()
    streams.split()
    put(streams, [HIGH[0], LOW[0], HIGH[1]])
    put(streams, [HIGH[0]], into=MAX_HASH_KEY)
    clock.advance(1)
    with source.tail("orders", "trim_horizon", shards=[CHILD.shard_id]) as tail:
        with pytest.warns(UserWarning, match=f"2 {TOLD}"):
            taken = tail.take(1, timeout=20)
        assert f"2 {TOLD}" in taken.note
        assert tail.stats().dropped == 2
        assert f"2 {TOLD}" in repr(tail)
        put(streams, [LOW[0]])
        clock.advance(1)
        assert tail.take(1, timeout=20).note == ""
    with source.tail("orders", "trim_horizon", foreign="keep") as tail:
        assert len(tail.take(4, timeout=20)) == 4
        assert tail.stats().dropped == 0


def caught_up(source: kn.Source, folder: Path, **options: Any) -> kn.Sync:
    sync = source.sync("orders", folder, commit_interval=0.05, **options)
    assert isinstance(sync, kn.Sync)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sync.wait(30)
    return sync


def stop(sync: kn.Sync) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sync.stop()


def places(sync: kn.Sync) -> list[tuple[str, int]]:
    """Return data and place in its aggregate of each row, in order."""
    table = sync.scan().sort("shard_id", "shard_offset").collect()
    return list(table.select("data", "sub_sequence_number").iter_rows())


def history(folder: Path) -> str:
    return " | ".join(str(entry.get("kinesis_nb", "")) for entry in DeltaTable(str(folder)).history())


def test_a_sync_tells_what_it_drops(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """What was dropped is in a warning, in status(), in verify() and in the history; the rest is whole and in order."""
    streams.create()
    put(streams, [HIGH[0], LOW[0]])
    streams.split()
    put(streams, [HIGH[0], LOW[0], HIGH[1], LOW[1]])
    put(streams, [HIGH[0]])
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert isinstance(sync, kn.Sync)
    with pytest.warns(UserWarning, match=f"3 {TOLD}"):
        assert sync.wait(30)
    assert sync.status().dropped == 3
    assert f"3 {TOLD}" in repr(sync.status())
    stop(sync)
    verdict = sync.verify()
    assert verdict
    assert verdict.dropped == 3
    assert f"3 {TOLD}" in repr(verdict)
    assert sum(f"{CHILD.shard_id}: 3 {TOLD}" in note for note in verdict.notes) == 1
    assert verdict.to_polars()["dropped"].sum() == 3
    assert f"{CHILD.shard_id}: " in history(tmp_path / "t")
    assert TOLD in history(tmp_path / "t")
    assert places(sync) == [("0", 0), ("1", 1), ("1", 1), ("3", 3)]


def test_a_restart_counts_nothing_twice(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """However often a sync goes on behind a record of which all was dropped, it is counted once."""
    streams.create()
    streams.split()
    for _ in range(3):
        put(streams, [HIGH[0], HIGH[1]])
        stop(sync := caught_up(source, tmp_path / "t"))
    stop(sync := caught_up(source, tmp_path / "t"))
    assert sync.status().dropped == 0
    assert sync.verify().dropped == 6
    assert sync.verify()
    put(streams, [LOW[0]])
    stop(sync := caught_up(source, tmp_path / "t"))
    assert sync.verify()
    assert places(sync) == [("0", 0)]


def test_another_choice_counts_from_the_next_record_on(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A call with another foreign= replaces the running sync; what was decided stays, each record is decided once."""
    streams.create(shards=2)
    first = caught_up(source, tmp_path / "t", foreign="drop")
    put(streams, [HIGH[0], LOW[0]])
    put(streams, [HIGH[0]])
    assert caught_up(source, tmp_path / "t", foreign="drop") is first
    sync = caught_up(source, tmp_path / "t", foreign="keep")
    assert not first.is_active
    put(streams, [HIGH[0], LOW[0]])
    sync = caught_up(source, tmp_path / "t", foreign="keep")
    sync = caught_up(source, tmp_path / "t")
    put(streams, [HIGH[0], LOW[0]])
    stop(sync := caught_up(source, tmp_path / "t"))
    assert places(sync) == [("1", 1), ("0", 0), ("1", 1), ("0", 0), ("1", 1)]
    verdict = sync.verify()
    assert verdict
    assert verdict.dropped == 2


def test_orders_of_agents_with_another_choice_differ() -> None:
    """A job that runs is replaced when the same line says something else."""

    def order(foreign: Foreign) -> SyncOrder:
        parcel = Parcel(SourceConfig(auth=kn.StaticCredentials("emulator", "emulator")), {})
        return SyncOrder(parcel, open_kinesis, "orders", "/t", StartingPosition.trim_horizon(), 1.0, "fail", foreign)

    orders = [order(foreign) for foreign in Foreign]
    assert len({order.setup() for order in orders}) == 3
    assert len({order.job() for order in orders}) == 1


def test_verify_knows_rows_from_dropped_records(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """That something was dropped excuses no missing row, and what earlier versions dropped uncounted is told."""
    streams.create()
    streams.split()
    put(streams, [HIGH[0], LOW[0]])
    put(streams, [HIGH[0]])
    sync = caught_up(source, tmp_path / "t")
    assert sync.verify()
    put(streams, [LOW[0], LOW[1], LOW[2]])
    stop(sync := caught_up(source, tmp_path / "t"))
    DeltaTable(str(tmp_path / "t")).delete(
        "sub_sequence_number = 1 and data = '1' and partition_key = '" + LOW[1] + "'"
    )
    verdict = sync.verify()
    assert not verdict
    DeltaTable(str(tmp_path / "t")).delete("true")
    verdict = sync.verify()
    assert any("rows are missing" in problem for problem in verdict.problems)


def test_verify_tells_what_was_dropped_uncounted(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table in which an earlier version dropped user records without a word says so now."""
    streams.create(shards=2)
    put(streams, [HIGH[0], LOW[0], HIGH[1], LOW[1]])
    monkeypatch.setattr(Ledger, "drop", lambda *_: None)
    stop(sync := caught_up(source, tmp_path / "t", foreign="drop"))
    verdict = sync.verify()
    assert verdict
    assert any("2 user records within aggregates are not here" in note for note in verdict.notes)


@pytest.mark.parametrize("foreign", ["", "kept", None, True, 1, b"keep", ["keep"]])
def test_any_other_choice_is_refused(source: kn.Source, streams: Streams, tmp_path: Path, foreign: Any) -> None:
    """Before any request and any file."""
    streams.create()
    calls = [
        lambda: source.read("orders", foreign=foreign),
        lambda: source.tail("orders", foreign=foreign),
        lambda: source.sync("orders", tmp_path / "t", foreign=foreign),
    ]
    for call in calls:
        with pytest.raises(kn.ConfigError, match="foreign=") as refused:
            call()
        assert '"auto", "keep" or "drop"' in str(refused.value)
    assert not (tmp_path / "t").exists()


def test_counts() -> None:
    """What was dropped is counted by user records, not by records."""
    assert count(dropped(1, 2)) == 4
