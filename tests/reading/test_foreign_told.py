"""User records of another shard's keys in reads, tails and syncs: as the call says, told, and counted once."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.core.foreign import STALE_MAP
from kinesis_nb.core.shards import MAX_HASH_KEY
from kinesis_nb.emulator import Emulator, ManualClock
from kinesis_nb.syncing.ledger import Ledger
from tests.conftest import Streams
from tests.core.test_foreign import CHILD, HIGH, LOW, epoch
from tests.support.kpl import aggregate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOLD = "user records of aggregates were dropped"


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
    assert quietly(source, end=epoch(clock.now() - 1800)).note == ""  # or behind


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
    with pytest.warns(UserWarning, match=f"3 {TOLD}") as said:
        assert sync.wait(30)
    assert [warning.filename for warning in said] == [__file__]
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
    """However often a sync continues behind a record of which all was dropped, it is counted once."""
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


def test_verify_knows_rows_from_dropped_records(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """That something was dropped excuses no missing row, and what earlier versions dropped uncounted is reported."""
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
    calls: list[Callable[[], object]] = [
        lambda: source.read("orders", foreign=foreign),
        lambda: source.tail("orders", foreign=foreign),
        lambda: source.sync("orders", tmp_path / "t", foreign=foreign),
    ]
    for call in calls:
        with pytest.raises(kn.ConfigError, match="foreign=") as refused:
            call()
        assert '"auto", "keep" or "drop"' in str(refused.value)
    assert not (tmp_path / "t").exists()
