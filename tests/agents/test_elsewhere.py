"""Agents as they are used beyond a trial: tables in S3, a limited life, any cluster of Dask, what watches them."""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import kinesis_nb as kn
from kinesis_nb.agents.cluster import Cluster
from kinesis_nb.table.storage import Storage
from tests.access.test_sign_in import Account, allow
from tests.agents_kill import Agents, agents, load, until
from tests.conftest import Streams, by_key, written_by_key
from tests.support import servers
from tests.support.aws import Gate
from tests.support.commands import cluster
from tests.support.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

KEYS = kn.StaticCredentials("emulator", "emulator")
SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # on a machine that is busy


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[Agents]:
    options = (("--metrics-port", str(metrics_port)), ())
    with agents(tmp_path_factory.mktemp("agents"), options=options, ttl=10.0) as running:
        yield running


def test_a_job_that_is_over_stays_so(
    running: Agents, remote: kn.Source, source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """When the agent that ran a job leaves after it was stopped, nobody runs it again: the table may be another's."""
    streams.create(shards=4)
    streams.put(100)
    there: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert there.wait(SECONDS)
    there.stop()
    here = source.sync("orders", tmp_path / "table", commit_interval=0.1)
    for name in running.agents:
        before = running.log(name).count("serves")
        running.kill_agent(name)
        running.revive(name)
        until(f"{name} serves again", lambda name=name, before=before: running.log(name).count("serves") > before)
    streams.put(100)
    assert here.wait(SECONDS)  # raises Fenced when another writer took the table
    assert len(here.scan().collect()) == 200
    here.stop()


def test_rows_need_no_scheduler(
    running: Agents, remote: kn.Source, source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """While the scheduler is away the parts continue; when it is back the job is resubmitted, and new parts take over.

    A job that cannot continue fails alone.
    """
    streams.create(shards=2)
    streams.create("others")
    streams.put(20)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.2)
    bad: Any = remote.sync("others", tmp_path / "others", commit_interval=0.2)
    assert sync.wait(SECONDS)
    assert bad.wait(SECONDS)
    before = {name: running.log(name).count("serves") for name in running.agents}
    running.kill_scheduler()
    streams.call("DeleteStream", StreamName="others")
    for _ in range(3):
        time.sleep(2)  # so long that a worker of Dask's would have ended
        streams.put(40)
    rows = Storage.at(tmp_path / "table")
    until("all is committed without a scheduler", lambda: rows.scan().collect().height == 140)
    running.start_scheduler()
    until("the agents are back", lambda: all(running.log(name).count("serves") > n for name, n in before.items()))
    until("the job is back", lambda: _state(sync) == "running")
    streams.put(40)
    assert sync.wait(SECONDS)
    assert by_key(rows.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    until("the bad one has failed", lambda: _state(bad) == "failed")
    assert _state(sync) == "running"
    sync.stop()
    here = source.sync("orders", tmp_path / "table", commit_interval=0.1)
    streams.put(40)
    assert here.wait(SECONDS)  # no part of an earlier life has the table
    here.stop()


def _state(job: Any) -> str:
    try:
        return str(job.status().state)
    except kn.AgentError:
        return ""


# --- a limited life


def test_lifetime(emulator: Emulator, streams: Streams, tmp_path: Path) -> None:
    """Workers that are replaced after a few seconds hand over first: no row is lost or doubled."""
    options = (
        ("--lifetime", "12s", "--stagger", "6s"),
    ) * 2  # where a worker starts slowly, less leaves no time to work
    with agents(tmp_path, options=options, ttl=10.0) as running:  # a busy machine is silent for two seconds
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=running.address)
        streams.create(shards=4)
        sync: Any = source.sync("orders", tmp_path / "table", commit_interval=0.2)
        with load(streams):
            until("each was replaced", lambda: all(_lives(running, name) > 1 for name in running.agents))
        until("all is in the table", lambda: sync.scan().collect().height >= len(streams.written))
        assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
        assert sync.verify()
        sync.stop()
        logs = [running.log(name) for name in running.agents]
    for log in logs:
        assert "its lifetime is over" in log
        assert "Fenced" not in log  # handed over, not lost


def _lives(running: Agents, name: str) -> int:
    return running.log(name).count(f"agent {name} serves")


# --- a table in S3


def test_sync_to_s3(running: Agents, remote: kn.Source, streams: Streams, ministack: str) -> None:
    """A table in S3 through agents, one of which is killed under load: every row once and in order."""
    place = Place(*servers.bucket(ministack))
    place = Place(f"{place.uri}/some/table", place.options)
    streams.create(shards=4)
    sync: Any = remote.sync("orders", place.uri, storage_options=place.options, commit_interval=0.2)
    with load(streams):
        until("both have parts", lambda: set(sync.agents()["agent"]) == {"agent-1", "agent-2"})
        until("rows", lambda: sync.status().rows > 0)
        before = _lives_of_workers(running)
        running.kill_worker("agent-1")
        until("agent-1 has a new worker", lambda: _lives_of_workers(running) > before)
        until("both have parts again", lambda: set(sync.agents()["agent"]) == {"agent-1", "agent-2"})
    assert sync.wait(SECONDS)
    assert by_key(place.rows()) == written_by_key(streams)
    assert sync.verify()
    assert place.options["secret_access_key"] not in "".join(map(running.log, running.agents)) + "".join(sync.logs())


def _lives_of_workers(running: Agents) -> int:
    return running.log("agent-1").count("Registered to:")


# --- any cluster


@pytest.mark.parametrize("processes", [True, False], ids=["processes", "threads"])
def test_a_local_cluster(emulator: Emulator, streams: Streams, tmp_path: Path, *, processes: bool) -> None:
    """A cluster that somebody made without us serves as well: its client is all that connect() needs."""
    streams.create(shards=4)
    streams.put(200)
    size = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    security = Security.temporary() if processes else None
    with (
        LocalCluster(processes=processes, security=security, **size) as cluster,
        Client(cluster, security=security, set_as_default=False) as client,
    ):
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=client)
        sync: Any = source.sync("orders", tmp_path / "table", commit_interval=0.1)
        assert sync.wait(SECONDS)
        assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
        assert set(sync.agents()["agent"]) <= {"0", "1"}
        assert [job.name for job in source.jobs()] == [sync.name]
        sync.stop()


# --- what watches them


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.read().decode()


def test_metrics_of_an_agent(metrics_port: int, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Prometheus finds rows, commits, pending rows, lag and rate of the agent's own parts at the given port."""
    streams.create(shards=2)
    streams.put(100)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    assert sync.wait(SECONDS)
    own = [shard for agent, shard in sync.agents().select("agent", "shard").rows() if agent == "agent-1"]
    rows = sync.scan().collect()
    text = fetch(f"http://127.0.0.1:{metrics_port}/metrics")
    counted = [float(number) for number in re.findall(r"^kinesis_nb_rows{.*} (.*)$", text, re.MULTILINE)]
    assert sum(counted) == sum(shard in own for shard in rows["shard_id"])
    for name in ("commits", "pending", "lag_seconds", "rows_per_second"):
        assert re.search(rf'^kinesis_nb_{name}{{.*stream="orders"}} ', text, re.MULTILINE), name
    assert "hunter2" not in text


def test_dashboard(running: Agents, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Dask's own dashboard is there, on loopback only, and shows the agents by name and the parts that they run."""
    address = re.findall(r"dashboard at (http://127\.0\.0\.1:\d+)/status", running.log("scheduler"))[-1]
    assert "Bokeh" in fetch(f"{address}/status")
    streams.create(shards=2)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    until("both have parts", lambda: set(sync.agents()["agent"]) == {"agent-1", "agent-2"})
    workers = fetch(f"{address}/info/main/workers.html")
    assert all(name in workers for name in running.agents)
    [agent] = {part.agent for part in sync._snapshot().parts if part.agent_name == "agent-1"}
    assert sync.name in fetch(f"{address}/info/worker/{urllib.parse.quote(agent, safe='')}.html")


# --- bad input


def test_another_version(emulator: Emulator, tmp_path: Path) -> None:
    """An agent of another version of this package is refused, both versions are named, and nothing is started."""
    about = tmp_path / "kinesis_nb-9.9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kinesis-nb\nVersion: 9.9.9\n")
    with cluster(agents=1, settings={"PYTHONPATH": str(tmp_path)}) as (address, _):
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=address)
        says = rf"runs kinesis-nb 9\.9\.9, this process {re.escape(kn.__version__)}"
        with pytest.raises(kn.AgentError, match=says) as raised:
            source.sync("orders", tmp_path / "table")
    assert "install the same versions" in raised.value.hint
    assert emulator.requests.total() == 0
    assert not (tmp_path / "table").exists()


def test_no_agent(emulator: Emulator, tmp_path: Path) -> None:
    """A scheduler without an agent is an error that says how to start one."""
    with cluster(agents=0) as (address, _):
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=address)
        with pytest.raises(kn.AgentError, match="no agent is connected") as raised:
            source.sync("orders", tmp_path / "table")
    assert "kinesis-nb agent --scheduler" in raised.value.hint


def test_no_permission_on_the_table(remote: kn.Source, streams: Streams) -> None:
    """An agent that may not write the table, or not even look at it, is an error of the call, and no job is left."""
    streams.create()
    with servers.ministack(auth=True) as url:
        account = Account(url)
        account.s3.create_bucket(Bucket="tables")
        for allowed in ([], [allow("s3:GetObject", "s3:ListBucket")]):
            user = account.user(*allowed)
            options = {"endpoint_url": url, "region": "us-east-1", "allow_http": "true"}
            options |= {"access_key_id": user.access_key_id, "secret_access_key": user.secret_access_key.reveal()}
            with pytest.raises(kn.TableError) as raised:
                remote.sync("orders", "s3://tables/t", storage_options=options)
            assert "access denied" in raised.value.message
            assert "s3:PutObject" in raised.value.hint
            assert user.secret_access_key.reveal() not in str(raised.value)
    assert not [job for job in remote.jobs() if job.is_active]


def test_no_permission_on_the_stream(running: Agents, emulator: Emulator, streams: Streams, tmp_path: Path) -> None:
    """An agent that may not look at the stream is an error of the call; one that may not read it ends the job."""
    streams.create(shards=2)
    gate = Gate(emulator.endpoint_url, {"ListShards"})
    with gate.open() as url:
        source = kn.connect(endpoint_url=url, auth=KEYS, agents=running.address)
        with pytest.raises(kn.AccessDenied, match="DescribeStream"):
            source.sync("orders", tmp_path / "table")
        gate.allowed |= {"DescribeStream", "GetShardIterator"}
        sync: Any = source.sync("orders", tmp_path / "table")
        with pytest.raises(kn.AccessDenied, match="GetRecords") as raised:
            sync.wait(SECONDS)
        assert raised.value.hint
        until("the job is over", lambda: not sync.is_active)
        assert sync.status().state == "failed"


def test_who_is_there_whatever_else_is_asked(running: Agents) -> None:
    """The agents are known while others ask for less: a client of Dask keeps the last response for all callers."""
    cluster = Cluster(running.address)
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            assert cluster.address

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    counts = {len(cluster.workers) for _ in range(300)}
    is_over.set()
    for thread in threads:
        thread.join()
    assert counts == {2}


def test_the_same_job_at_once(remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """The same call from several threads at the same time is one job."""
    streams.create(shards=2)
    streams.put(100)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(remote.sync("orders", tmp_path / "table", commit_interval=0.1)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len({sync.name for sync in found}) == 1
    assert len(found) == len(threads)
    assert len([job for job in remote.jobs() if job.is_active]) == 1
    assert found[0].wait(SECONDS)
    assert by_key(found[0].scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    assert sum("submitted" in line for line in found[0].logs()) == 1
