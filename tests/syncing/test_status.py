"""What a sync says of itself when it has stopped, and a table of how far it goes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import kinesis_nb as kn
from kinesis_nb.core.shards import Shard
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.verify import verify_table
from tests.conftest import by_key, written_by_key

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams
    from tests.support.places import Place


@pytest.mark.parametrize("change", ["", "split"])
def test_a_stopped_sync_says_up_to_when(source: kn.Source, streams: Streams, tmp_path: Path, change: str) -> None:
    """Rows that came later are missing: the status, the verdict and wait() give the time, which lies before them."""
    streams.create(shards=2)
    streams.put(50)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(timeout=30)
    assert sync.status().as_of is None
    sync.stop()
    stopped = datetime.now(UTC)
    if change:
        streams.split()
    streams.put(50)
    later = source.read("orders", progress=False).to_arrow()["kinesis_ingestion_timestamp"].to_pylist()[50:]
    status, verdict = sync.status(), sync.verify()
    assert status.as_of is not None
    assert status.as_of <= stopped
    assert f"s behind as of {status.as_of:%Y-%m-%d %H:%M:%S} UTC" in repr(sync)
    assert verdict
    assert verdict.rows == 50
    assert verdict.up_to is not None
    assert verdict.up_to < min(later)
    assert f"every row once and in order up to {verdict.up_to:%Y-%m-%d %H:%M:%S} UTC" in repr(verdict)
    with pytest.warns(UserWarning, match="sync of orders: stopped at 20.* UTC; what arrived later is not in the t"):
        assert not sync.wait(timeout=1)


def test_a_verdict_on_shards_that_are_read_to_their_ends(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """There is nothing more to come, so there is no time up to which the table is complete."""
    streams.create(shards=1)
    streams.put(10)
    streams.split()
    sync = source.sync("orders", tmp_path / "t", shards=["shardId-000000000000"])
    assert sync.wait(timeout=30, until_caught_up=False)
    verdict = sync.verify()
    assert (verdict.up_to, verdict.is_to_the_end) == (None, True)
    assert "in order to the end of every shard" in repr(verdict)
    assert sync.wait(timeout=1)


EARLY, LATE = datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2026, 11, 30, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reached", "up_to"),
    [
        ({}, None),
        ({"p": Checkpoint(seen=LATE), "q": Checkpoint(seen=EARLY)}, EARLY),
        ({"p": Checkpoint(seen=EARLY, ended=True), "q": Checkpoint(seen=LATE)}, EARLY),  # its child is not begun
        ({"p": Checkpoint(seen=EARLY, ended=True), "c": Checkpoint(seen=LATE), "q": Checkpoint(ended=True)}, LATE),
        ({"p": Checkpoint(seen=LATE)}, None),
    ],
)
def test_the_slowest_shard_bounds_the_verdict(
    place: Place, reached: dict[str, Checkpoint], up_to: datetime | None
) -> None:
    """A child that was not begun is read up to where its parents were; a shard that was never read leaves no time."""
    shards = [Shard("p"), Shard("q"), Shard("c", parents=("p",))]
    table = place.open()
    table.acquire(["p", "q", "c"])
    if reached:
        assert table.commit(None, reached)
    verdict = verify_table(table, shards)
    assert verdict, verdict
    assert (verdict.up_to, verdict.is_to_the_end) == (up_to, False)
    if up_to is None:
        assert "but a shard was not read yet" in repr(verdict)


@pytest.mark.parametrize(("last", "warnings"), [("", 1), ("sync.wait(30)", 0), ("sync.stop()", 0)])
def test_a_script_that_waited_for_nothing_is_warned(
    emulator: Emulator, streams: Streams, tmp_path: Path, last: str, warnings: int
) -> None:
    """Its sync ends with the process, perhaps before anything was read: exit code 0 alone would not say so."""
    streams.create()
    streams.put(100)
    script = f"""
import kinesis_nb as kn
source = kn.connect(endpoint_url={emulator.endpoint_url!r}, auth=kn.StaticCredentials("emulator", "emulator"))
sync = source.sync("orders", {str(tmp_path / "t")!r})
{last}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("sync of orders: stopped by the end of this process") == warnings, done.stderr
    assert "Traceback" not in done.stderr
    sync = emulator.source().sync("orders", tmp_path / "t")
    assert sync.wait(30)
    assert by_key(sync) == written_by_key(streams)
    sync.stop()


def test_a_repr_is_one_line() -> None:
    """What a sync failed with is in it without its hint, which is a second line."""
    error = str(kn.Fenced("process 7 took this sync over", hint="only one sync may write a table"))
    status = kn.SyncStatus("failed", 50, 2, 0, None, (), (), error)
    assert repr(status).endswith("unknown lag, process 7 took this sync over>")
    assert "hint: only one" in status.error
