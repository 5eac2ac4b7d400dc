"""Jobs that run on agents: where they run, what ends them and what does not, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from distributed import Client
from distributed.comm.core import CommClosedError
from prometheus_client import generate_latest

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig
from kinesis_nb.agents import parts
from kinesis_nb.agents.agent import AgentOptions, serve
from kinesis_nb.agents.certificates import resolve
from kinesis_nb.agents.cluster import _compare, _responses
from kinesis_nb.agents.maintenance import MaintenanceWindow, check_no_overlap, next_window
from kinesis_nb.agents.metrics import registry
from kinesis_nb.agents.placement import better_place, count_parts, first_places, plan
from kinesis_nb.agents.settings import PortableSettings, check_encrypted
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.exporting.streaming import StreamingExport
from kinesis_nb.syncing.start import open_table, sync_feed
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.storage import Storage
from tests.agents_kill import LONGEST_GAP, ROOT, Agents, agents, campaign, load, longest_gap, loops, until
from tests.conftest import Streams, by_key, written_by_key
from tests.support.kpl import aggregate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinesis_nb.core.types import Foreign

pytestmark = pytest.mark.slow


KEYS = kn.StaticCredentials("emulator", "emulator")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECONDS = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with agents(tmp_path_factory.mktemp("agents")) as running:
        yield running


# --- where shards and parts go


def even(count: int) -> list[Shard]:
    edges = [MAX_HASH_KEY * number // count for number in range(count + 1)]
    ranges = pairwise(edges)
    return [Shard(f"shard-{number}", hash_range=found) for number, found in enumerate(ranges)]


@pytest.mark.parametrize(("count", "agent_count"), [(1, 2), (8, 2), (64, 2), (1_000, 3), (10_000, 20)])
def test_plan_is_even(count: int, agent_count: int) -> None:
    """Parts have the same number of shards, one more or less, and no part more threads than it should."""
    placement = plan(even(count), count_parts(count, agent_count))
    load = [0] * len(placement)
    for shard in even(count):
        load[placement.part_of(shard)] += 1
    assert max(load) - min(load) <= 1
    assert max(load) <= 250
    places = first_places(len(placement), [f"agent-{number}" for number in range(agent_count)])
    assert max(map(places.count, places)) - min(map(places.count, places)) <= 1 or len(places) < agent_count


def test_skewed_shards_are_cut_evenly() -> None:
    """Not the hash keys are shared out but the shards: one half of them may be very small."""
    large, small = even(2)[0], [Shard(f"s{n}", hash_range=(2**127 + n, 2**127 + n)) for n in range(7)]
    placement = plan([large, *small], 2)
    assert [placement.part_of(shard) for shard in (large, *small)] == [0] * 4 + [1] * 4


def test_parts_move_only_when_it_helps() -> None:
    """A part moves to an agent that has two fewer, and never on a difference of one: else it would swing."""
    assert better_place("a", {"1": "a", "2": "a"}, ["a", "b"]) == "b"
    assert better_place("a", {"1": "a", "2": "a", "3": "b"}, ["a", "b"]) is None
    assert better_place("a", {"1": "a"}, ["a", "b"]) is None


# --- maintenance windows


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("Sun 03:00-03:05 UTC", "2026-11-29T03:00"),
        ("sunday 03:00 - 03:05", "2026-11-29T03:00"),
        ("daily 11:59-12:30 UTC", "2026-11-24T11:59"),  # open now
        ("23:30-00:30", "2026-11-24T23:30"),
        ("Tue 03:00-03:05 America/New_York", "2026-12-01T08:00"),
    ],
)
def test_windows(text: str, begin: str) -> None:
    """A window is what it says, in its time zone; one that is open counts."""
    assert MaintenanceWindow.parse(text).next(NOW)[0] == datetime.fromisoformat(begin).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "Sun", "Sun 25:00-26:00", "Son 03:00-04:00", "03:00-04:00 Mars/Olympus"])
def test_bad_windows(text: str) -> None:
    """What is no window is refused, with how one looks."""
    with pytest.raises(kn.ConfigError) as raised:
        MaintenanceWindow.parse(text)
    assert "Sun 03:00-03:05 UTC" in raised.value.hint


def test_windows_that_overlap() -> None:
    """Agents that would be away together are refused, and both are named; windows that touch are fine."""
    mine, theirs = (
        [MaintenanceWindow.parse("Sun 03:00-03:10 UTC")],
        [("agent-2", MaintenanceWindow.parse("daily 22:05-22:20 America/New_York"))],
    )
    with pytest.raises(kn.ConfigError, match=r"agent-1 \(Sun 03:00-03:10 UTC\) overlaps that of agent-2 \(daily"):
        check_no_overlap("agent-1", mine, theirs, NOW)  # in summer it is 02:05 to 02:20 there, in winter 03:05
    check_no_overlap("agent-1", mine, [("agent-2", MaintenanceWindow.parse("Sun 03:10-03:20 UTC"))], NOW)
    assert next_window([], NOW) is None


# --- what travels


def test_secrets_travel_only_where_nobody_listens() -> None:
    """Secrets go over TLS or within this process; loopback is there for all users of a machine, and refused."""
    secret = PortableSettings(SourceConfig(auth=KEYS), {})
    for address in ("tls://10.0.0.1:1", "tls://127.0.0.1:1", "inproc://x"):
        check_encrypted(secret, [address])
    for address in ("tcp://10.0.0.1:1", "tcp://127.0.0.1:1", "tcp://[::1]:1"):
        with pytest.raises(kn.AgentError, match="not encrypted") as raised:
            check_encrypted(secret, ["tls://127.0.0.1:1", address])
        assert "AwsInstance()" in raised.value.hint
    with pytest.raises(kn.AgentError):
        check_encrypted(PortableSettings(SourceConfig(), {"aws_secret_access_key": "x"}), ["tcp://10.0.0.1:1"])
    with pytest.raises(kn.AgentError):
        check_encrypted(PortableSettings(SourceConfig(proxy="http://ada:hunter2@proxy:1"), {}), ["tcp://10.0.0.1:1"])  # type: ignore[arg-type]
    check_encrypted(PortableSettings(SourceConfig(), {"region": "us-east-1"}), ["tcp://10.0.0.1:1"])


def test_a_parcel_arrives_and_shows_nothing() -> None:
    """Settings arrive as they were, secrets too, and neither repr nor text shows a secret."""
    config = SourceConfig(
        auth=kn.StaticCredentials("AKIA", "hunter2", "token3"),
        proxy="http://ada:hunter4@proxy:1",  # type: ignore[arg-type]
        sts_role=kn.StsRole("arn:aws:iam::123456789012:role/x", "me"),
    )
    settings = PortableSettings(config, {"secret": "hunter5"})
    arrived = pickle.loads(pickle.dumps(settings))
    assert arrived.config == settings.config
    assert arrived.storage_options == {"secret": "hunter5"}
    assert not any(secret in repr(settings) + str(vars(settings)["config"]) for secret in ("hunter", "token3"))


def test_aws_instance_is_for_agents() -> None:
    """The role of the instance is for agents: alone it is refused, with agents it is taken."""
    with pytest.raises(kn.ConfigError, match="through agents"):
        kn.connect(auth=kn.AwsInstance())
    source = kn.connect(auth=kn.AwsInstance(), agents="tls://scheduler:8786")
    assert not PortableSettings(source.config, {}).has_secrets
    assert isinstance(pickle.loads(pickle.dumps(PortableSettings(source.config, {}))).config.auth, kn.AwsInstance)


def test_saved_with_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of the agents is saved with a source, and so is that they use the role of their instance."""
    monkeypatch.setattr("platformdirs.user_config_path", lambda _name: tmp_path)
    kn.connect(auth=kn.AwsInstance(), agents="tls://scheduler:8786").save("far")
    config = kn.connect("far").config
    assert (config.agents, config.auth) == ("tls://scheduler:8786", kn.AwsInstance())


@pytest.mark.parametrize("given", ["", "scheduler", "http://scheduler:1", "tcp://u:p@h:1", 7, object()])
def test_bad_addresses(given: Any) -> None:
    """What is neither the address of a scheduler nor a client is refused before anything is tried."""
    with pytest.raises(kn.ConfigError, match="agents="):
        kn.connect(agents=given)


def test_an_agent_of_another_version(
    running: Agents, remote: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster with an agent that runs another version of this package takes no job, and names it."""
    streams.create()
    other = tmp_path / "kinesis_nb-9.9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: kinesis-nb\nVersion: 9.9.9\n")
    monkeypatch.setattr("tests.agents_kill.ROOT", f"{tmp_path}:{ROOT}")
    odd = running._start("odd", "agent", "--scheduler", running.address, "--name", "odd")
    try:
        until("the odd one serves", lambda: "serves" in running.log("odd"))
        with pytest.raises(kn.AgentError, match=r"runs kinesis-nb 9\.9\.9, this process \d") as raised:
            remote.sync("orders", tmp_path / "table")
        assert "same versions" in raised.value.hint
        assert not (tmp_path / "table").exists()
    finally:
        odd.send_signal(signal.SIGTERM)
        odd.wait(SECONDS)


def test_versions_must_agree() -> None:
    """Another minor version of Python, or any other version of this package, is refused and named."""
    _compare("Python", "3.11.2", "3.11.9", "tcp://h:1")
    with pytest.raises(kn.AgentError, match=r"tcp://h:1 runs Python 3\.12\.1, this process 3\.11\.2"):
        _compare("Python", "3.11.2", "3.12.1", "tcp://h:1")
    with pytest.raises(kn.AgentError, match="kinesis-nb none"):
        _compare("kinesis-nb", "1.2.3", "none", "tcp://h:1")


def test_an_agent_that_does_not_respond_has_no_version() -> None:
    """One that is gone or hangs while the versions are compared is left out; one that lacks the package is not."""
    gone, lost, lacks = CommClosedError("gone"), TimeoutError(), PackageNotFoundError("kinesis-nb")
    found = {"tls://h:1": "3.11.2", "tls://h:2": gone, "tls://h:3": lost, "tls://h:4": lacks}
    assert _responses(found) == {"tls://h:1": "3.11.2", "tls://h:4": lacks}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_no_scheduler(scheme: str) -> None:
    """A scheduler that does not respond is an error that says how to start one; nothing of the client is left."""
    before = loops()
    source = kn.connect(auth=KEYS, agents=f"{scheme}://127.0.0.1:9")
    assert repr(source).endswith(f", agents at {scheme}://127.0.0.1:9>")
    with pytest.raises(kn.AgentError, match=rf"no scheduler responds at {scheme}://127\.0\.0\.1:9") as raised:
        source.jobs()
    assert "kinesis-nb agents" in raised.value.hint
    assert loops() == before


# --- jobs


def test_same_handle() -> None:
    """The handle of a job on agents has everything that the handle of a local one has."""
    from kinesis_nb.agents.job import AgentExport, AgentSync

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    of_this_process = {"start", "has_trouble", "is_active", "warn_if_left_alone"}  # what the registry needs
    assert public(Sync) - {"all_caught_up", "children_for_others", "list_now"} - of_this_process <= public(AgentSync)
    assert public(StreamingExport) - of_this_process <= public(AgentExport)


def test_sync_through_agents(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """The same call gives the same handle, the same rows, and, called again, the job that runs."""
    streams.create(shards=4)
    streams.put(400)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    again: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert again.name == sync.name
    assert len([job for job in remote.jobs() if job.is_active]) == 1
    assert f"<Job: sync orders -> {tmp_path / 'table'}, running>" in repr(remote.jobs())
    streams.put(400)
    assert sync.wait(SECONDS)
    assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    status = sync.status()
    assert (status.state, status.rows, status.pending, len(status.shards)) == ("running", 800, 0, 4)
    assert set(sync.agents()["agent"]) == {"agent-1", "agent-2"}
    assert sync.verify()
    assert len(sync) == 800
    assert len(sync.live) == 0
    assert "shardId-000000000003" in sync._repr_html_()
    sync.stop()
    assert sync.status().state == "stopped"
    assert f"<Job: sync orders -> {tmp_path / 'table'}, stopped>" in repr(remote.jobs())
    assert any("asked to stop" in line for line in sync.logs())
    streams.put(100)
    more: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert more.wait(SECONDS)
    assert by_key(more.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    assert any("submitted" in line for line in more.logs())


def test_agents_drop_what_the_call_says(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """User records of another shard's keys are kept or dropped by agents as by this process, and counted."""
    streams.create(shards=2)
    packed = aggregate([(f"key-{n}", None, b"%d" % n) for n in range(20)])
    for place in ("0", str(2**127)):
        streams.call("PutRecord", StreamName="orders", PartitionKey="k", ExplicitHashKey=place, Data=packed)
    cases: list[tuple[Foreign, int]] = [("auto", 40), ("drop", 20)]
    for foreign, rows in cases:
        sync: Any = remote.sync("orders", tmp_path / foreign, commit_interval=0.1, foreign=foreign)
        with pytest.warns(UserWarning, match="20 user records") if foreign == "drop" else nullcontext():
            assert sync.wait(SECONDS)
        assert sync.wait(SECONDS)  # and says it once
        verdict = sync.verify()
        assert verdict
        assert (verdict.rows, verdict.dropped, sync.status().dropped) == (rows, 40 - rows, 40 - rows)


def test_agents_sync_a_part_of_a_stream(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """By key and expression over reshards, counted; another selection is refused, and the job continues."""
    streams.create(shards=2)
    streams.put(60, keys=3)
    even = pl.col("data").str.json_path_match("$.n").cast(pl.Int64) % 2 == 0
    options: dict[str, Any] = {"key": "key-1", "where": even, "commit_interval": 0.1}
    sync: Any = remote.sync("orders", tmp_path / "table", **options)
    assert sync.wait(SECONDS)
    for reshard in (streams.split, streams.merge):
        reshard()
        streams.put(60, keys=3)
    assert sync.wait(SECONDS)
    with pytest.raises(kn.TableError, match="keeps key='key-1', where="):
        remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    again: Any = remote.sync("orders", tmp_path / "table", **options)
    assert again.name == sync.name
    until("everything is counted", lambda: sync.status().rows == 30)
    rows = sync.scan().sort("shard_offset").collect()
    assert by_key(rows) == {"key-1": list(range(2, 61, 2))}
    assert rows["shard_offset"].to_list() == list(range(30))
    verdict = sync.verify()
    assert verdict, repr(verdict)
    assert verdict.filtered >= 30


def test_pending_rows(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """What agents have read and not committed is fetched from them when asked for, and is in no row twice."""
    streams.create(shards=2)
    streams.put(50)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=3600)
    until("each part has made its first commit", lambda: sync.status().rows == 50)
    streams.put(100)
    until("rows are pending", lambda: sync.status().rows + sync.status().pending == 150)
    assert len(sync.live) >= 100
    assert len(sync) == 150


def test_the_kernel_dies(running: Agents, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A job continues when the process that submitted it is killed, and a new one finds it again."""
    streams.create(shards=2)
    code = (
        "import sys, kinesis_nb as kn\n"
        "source = kn.connect(endpoint_url=sys.argv[1], auth=kn.StaticCredentials('emulator', 'emulator'),"
        " agents=sys.argv[2])\n"
        "print(source.sync('orders', sys.argv[3], commit_interval=0.1).name, flush=True)\n"
        "sys.stdin.read()"
    )
    place = str(tmp_path / "table")
    arguments = [sys.executable, "-c", code, str(remote.config.endpoint_url), running.address, place]
    kernel = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    name = kernel.stdout.readline().strip()
    kernel.kill()
    kernel.communicate()
    streams.put(200)
    [job] = [job for job in remote.jobs() if job.is_active]
    until("rows without a kernel", lambda: (status := job.status()) is not None and status.rows == 200)
    began = [line for line in job.logs() if "runs on" in line]
    again: Any = remote.sync("orders", place, commit_interval=0.1)
    assert again.name == name
    assert again.wait(SECONDS)
    assert [line for line in again.logs() if "runs on" in line] == began  # it never stopped


@pytest.mark.timeout(300)  # on a machine that is busy
def test_killed_and_cut_off(tmp_path: Path) -> None:
    """Kill an agent, then all, cut one off that continues to write, let the scheduler forget all: nothing is lost."""
    with campaign(tmp_path, 3, commit_interval=0.5) as going:
        with load(going.streams):
            going.kill("agent-1", with_nanny=False)
            going.kill_all()
            going.reshard()
            going.cut("agent-2")
            going.restart_scheduler()
        report = going.finish()
    print(report)
    assert report.broken == []
    assert report.done.pop("reshard") >= 1
    assert report.done == {"kill": 1, "kill of all": 1, "cut": 1, "scheduler restart": 1}


def test_split_across_parts(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """A child among the hash keys of another part is read at once, and not when that part lists the next time."""
    streams.create(shards=8)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    until("all parts run", lambda: len(sync.status().shards) == 8)
    for _ in range(2):
        first = streams.open_shards()[2]["HashKeyRange"]["StartingHashKey"]  # of the second part
        streams.merge(index=1)
        [merged] = [found for found in streams.open_shards() if found.get("AdjacentParentShardId")][-1:]
        streams.call("SplitShard", StreamName="orders", ShardToSplit=merged["ShardId"], NewStartingHashKey=first)
        [child] = [
            found["ShardId"] for found in streams.open_shards() if found["HashKeyRange"]["StartingHashKey"] == first
        ]
        streams.put(100, keys=64)
        took = until("the child is read", lambda: child in set(sync.agents()["shard"]))  # noqa: B023
        assert took < 8  # a listing of its own is up to 15 s away
    assert sync.wait(SECONDS)
    assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)


def test_drain(running: Agents, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """An agent that is asked to end commits and hands over first: committed rows come without a long gap."""
    streams.create(shards=4)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.2)
    until("both have parts", lambda: set(sync.agents()["agent"]) == {"agent-1", "agent-2"})
    with load(streams):
        until("rows", lambda: sync.status().rows > 0)
        running.terminate("agent-2")
        until("agent-1 has all", lambda: set(sync.agents()["agent"]) == {"agent-1"})
        until("agent-2 has ended", lambda: running.agents["agent-2"].poll() == 0)
        time.sleep(1)
        running.revive("agent-2")
    assert sync.wait(SECONDS)
    rows = sync.scan().collect()
    assert by_key(rows.sort("partition_key", "shard_offset")) == written_by_key(streams)
    assert longest_gap(rows) < LONGEST_GAP + 1  # the promise is 2 s (`make agents`); the machine is busy
    assert any("moves" in line or "runs on agent-1" in line for line in sync.logs())
    until("agent-2 serves again", lambda: running.log("agent-2").count("serves") >= 2)


def test_maintenance(running: Agents, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """When its window opens an agent hands over and leaves, and it comes back when the window is over, not before."""
    windows: Any = []
    syncs: list[Any] = []
    options = AgentOptions(running.address, "agent-away", windows, ttl=2.0)

    async def is_there(client: Any) -> bool:
        info = await client.scheduler.identity(n_workers=-1)
        return any(found["name"] == "agent-away" for found in info["workers"].values())

    async def serve_a_while() -> None:
        asked = asyncio.Event()
        serving = asyncio.create_task(serve(options, asked))
        address, security = resolve(running.address)
        async with Client(address, security=security, asynchronous=True, set_as_default=False) as client:
            while not await is_there(client):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            syncs.append(await asyncio.to_thread(remote.sync, "orders", tmp_path / "table", commit_interval=0.2))
            while "agent-away" not in set((await asyncio.to_thread(syncs[0].agents))["agent"]):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            now = datetime.now(UTC)
            windows.append(MaintenanceWindow("daily 00:00-00:01", None, now.time(), timedelta(seconds=10), "UTC"))
            for wanted in (False, True):
                while await is_there(client) != wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert datetime.now(UTC) >= now + timedelta(seconds=10)
        asked.set()
        await serving

    streams.create(shards=6)
    with load(streams):
        asyncio.run(asyncio.wait_for(serve_a_while(), 100))
    [sync] = syncs
    assert sync.wait(SECONDS)
    assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    assert any("runs on agent-away" in line for line in sync.logs())
    assert not any("an agent has left" in line for line in sync.logs())  # it had handed over everything before it left


def test_a_late_agent(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """An agent that was lost while it began, and takes a shard all the same, does not end the job: it is taken back."""
    streams.create(shards=2)
    streams.put(20)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    until("it runs", lambda: sync.status().rows > 0)
    start, storage = StartingPosition.trim_horizon(), Storage.at(tmp_path / "table")
    late = open_table(sync_feed(remote._kinesis, "orders", SystemClock()), storage, start)
    late.acquire(shard.shard_id for shard in remote._kinesis.list_shards("orders"))
    streams.put(100)
    assert sync.wait(SECONDS)
    assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    assert any("taken back" in line for line in sync.logs())
    assert sync.verify()


def test_errors_come_from_the_agent(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """What an agent finds wrong before it begins is raised by the call, as it would be here."""
    streams.create()
    with pytest.raises(kn.StreamNotFound):
        remote.sync("ordres", tmp_path / "table")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(kn.TableError, match="not a Delta table"):
        remote.sync("orders", tmp_path / "taken")
    with pytest.raises(kn.TableError):
        remote.sync("orders", "/proc/kinesis_nb/table")  # nobody may write there
    assert not [job for job in remote.jobs() if job.is_active]


def test_a_job_that_fails(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """An error that no retry can fix ends all parts, is in status and logs, and is raised by wait()."""
    streams.create(shards=2)
    streams.put(20)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert sync.wait(SECONDS)
    streams.call("DeleteStream", StreamName="orders")
    until("it failed", lambda: sync.status().state == "failed")
    with pytest.raises(kn.StreamNotFound):
        sync.wait(SECONDS)
    until("all parts are over", lambda: not sync.is_active)
    assert any("failed" in line for line in sync.logs())


def test_export_through_agents(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """An export runs on an agent, follows the table, and is the same job when asked for again."""
    arn = streams.create("copies", 2)
    streams.create(shards=2)
    streams.put(100)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert sync.wait(SECONDS)
    export: Any = remote.export_stream(sync, arn)
    assert remote.export_stream(sync, arn).name == export.name  # type: ignore[union-attr]
    streams.put(100)
    assert sync.wait(SECONDS)
    assert export.wait(SECONDS)
    assert export.status().rows == 200
    copies = kn.connect(endpoint_url=remote.config.endpoint_url, auth=KEYS).read("copies", progress=False)
    assert by_key(copies) == written_by_key(streams)
    export.stop()
    assert not export.is_running
    with pytest.raises(kn.ConfigError, match="cannot read a tail of this process"), remote.tail("orders") as tail:
        remote.export_stream(tail, arn)


def test_agents_with_overlapping_maintenance(running: Agents, tmp_path: Path) -> None:
    """An agent whose maintenance overlaps that of one that runs does not start, and names both."""
    first = running._start(
        "first", "agent", "--scheduler", running.address, "--name", "first", "--maintenance", "Sun 03:00-03:05"
    )
    try:
        until("the first one serves", lambda: "serves" in running.log("first"))
        second = running._start(
            "second", "agent", "--scheduler", running.address, "--name", "second", "--maintenance", "daily 03:04-03:09"
        )
        until("the second one has ended", lambda: second.poll() is not None)
        assert second.returncode == 2
        assert "second (daily 03:04-03:09) overlaps that of first (Sun 03:00-03:05)" in running.log("second")
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(SECONDS)


def test_metrics(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Prometheus gets rows, commits and lag of the parts that this process runs."""
    streams.create()
    streams.put(20)
    source = kn.connect(endpoint_url=remote.config.endpoint_url, auth=KEYS)
    sync = source.sync("orders", tmp_path / "table", commit_interval=0.05)
    assert isinstance(sync, Sync)
    assert sync.wait(SECONDS)
    parts._syncs["part-0"] = sync
    try:
        text = generate_latest(registry()).decode()
    finally:
        del parts._syncs["part-0"]
        sync.stop()
    assert 'kinesis_nb_rows{part="part-0",stream="orders"} 20.0' in text
    assert 'kinesis_nb_lag_seconds{shard="shardId-000000000000",stream="orders"} 0.0' in text
