"""What many tests share: an emulator, a source on it, and the check that no thread is left."""

from __future__ import annotations

import gc
import json
import os
import signal
import tempfile
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

import kinesis_nb as kn
from kinesis_nb.core.running import Running
from kinesis_nb.emulator import Emulator
from tests.support import servers
from tests.support.aws import Gate
from tests.support.places import Place
from tests.support.virtual import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.agents_kill import Agents


os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"  # nothing of a test goes into the user's own
_state = tempfile.TemporaryDirectory(prefix="state-")  # nor into his own state: certificates, orders
os.environ["XDG_STATE_HOME"] = _state.name
os.environ["AWS_CONFIG_FILE"] = f"{_state.name}/none"  # nor does his region count
for _name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
    os.environ.pop(_name, None)
hypothesis.settings.register_profile("here", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("here")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it, and so would ours


class Streams:
    """Writes to an emulator and remembers what it wrote."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.written: list[tuple[str, int]] = []
        self._count: dict[str, int] = {}

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.emulator.model.call(operation, params)

    def create(self, name: str = "orders", shards: int = 1) -> str:
        self.call("CreateStream", StreamName=name, ShardCount=shards)
        return self.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]["StreamARN"]

    def put(self, count: int, name: str = "orders", keys: int = 7) -> None:
        """Write `count` records over `keys` partition keys; each carries the number of its key."""
        records = []
        for i in range(count):
            key = f"key-{i % keys}"
            self._count[key] = number = self._count.get(key, 0) + 1
            self.written.append((key, number))
            records.append({"PartitionKey": key, "Data": json.dumps({"n": number}).encode()})
        for first in range(0, count, 500):
            answer = self.call("PutRecords", StreamName=name, Records=records[first : first + 500])
            assert answer["FailedRecordCount"] == 0

    def open_shards(self, name: str = "orders") -> list[dict[str, Any]]:
        shards = self.call("ListShards", StreamName=name, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        return sorted(shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self, name: str = "orders", index: int = 0) -> None:
        shard = self.open_shards(name)[index]
        low, high = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
        self.call(
            "SplitShard", StreamName=name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2)
        )

    def merge(self, name: str = "orders", index: int = 0) -> None:
        first, second = self.open_shards(name)[index : index + 2]
        self.call("MergeShards", StreamName=name, ShardToMerge=first["ShardId"], AdjacentShardToMerge=second["ShardId"])

    def rescale(self, shards: int, name: str = "orders") -> None:
        self.call("UpdateShardCount", StreamName=name, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")


def by_key(rows: Any) -> dict[str, list[int]]:
    """Return the numbers of each key in the order of the rows: as written means each once, in order."""
    found: dict[str, list[int]] = {}
    table = rows if hasattr(rows, "column") else rows.to_arrow()
    for key, data in zip(table.column("partition_key").to_pylist(), table.column("data").to_pylist(), strict=True):
        found.setdefault(key, []).append(json.loads(data)["n"])
    return found


def written_by_key(streams: Streams) -> dict[str, list[int]]:
    expected: dict[str, list[int]] = {}
    for key, number in streams.written:
        expected.setdefault(key, []).append(number)
    return expected


@pytest.fixture
def bench() -> Bench:
    """A consumer in virtual time, and everything around it."""
    return Bench()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def streams(emulator: Emulator) -> Streams:
    return Streams(emulator)


LONGEST = {"simulation", "agents", "test_notebooks", "test_browser"}
SERVED = {"emulator", "server", "moto", "ministack", "place", "running", "stream"}  # they start a server, or a sync


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What talks to a server, or runs a whole sync, is slow; a test that is slow for another reason says so itself.

    The files that take longest go first, so that processes side by side end at about the same time.
    """
    items.sort(key=lambda item: LONGEST.isdisjoint((item.path.parent.name, item.path.stem)))
    for item in items:
        if isinstance(item, pytest.Function) and not SERVED.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "let the source of every test do only these actions, given with commas between them"
    parser.addoption("--allow-only", help=what)


@pytest.fixture
def source(emulator: Emulator, request: pytest.FixtureRequest) -> Iterator[kn.Source]:
    """A source on the emulator; when the test is over no thread of the engine may be left."""
    keys = kn.StaticCredentials("emulator", "emulator")
    allowed = request.config.getoption("--allow-only")
    with Gate(emulator.endpoint_url, set(allowed.split(","))).open() if allowed else nullcontext() as gate:
        yield kn.connect(endpoint_url=gate or emulator.endpoint_url, auth=keys, exports_enabled=True)
    if engine_threads():
        gc.collect()  # what nobody holds ends then; after every test it would take minutes in all
    deadline = time.monotonic() + 5
    try:
        while engine_threads():
            assert time.monotonic() < deadline, engine_threads()
    finally:
        if engine_threads():  # of a test that failed, so that no other one fails for it
            for running in [one for one in gc.get_objects() if issubclass(type(one), Running) and one.is_active]:
                with suppress(kn.KinesisError):
                    running.stop()


@pytest.fixture
def remote(running: Agents, emulator: Emulator) -> Iterator[kn.Source]:
    """A source whose jobs run on the agents that the module has as `running`; none is left when the test is over."""
    keys = kn.StaticCredentials("emulator", "emulator")
    source = kn.connect(endpoint_url=emulator.endpoint_url, auth=keys, agents=running.address, exports_enabled=True)
    yield source
    for job in source.jobs():
        if job.is_active:
            job.stop()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with servers.moto() as url:
        yield url


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    with servers.ministack(auth=False) as url:
        yield url


@pytest.fixture(params=os.environ.get("PLACES", "folder ministack").split())
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a table is; ``PLACES="folder moto ministack"`` chooses among them."""
    if request.param == "folder":
        return Place(str(tmp_path / "t"))
    address, options = servers.bucket(request.getfixturevalue(request.param))
    return Place(f"{address}/some/t", options)


def engine_threads() -> list[str]:
    """Return the names of the engine's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kinesis_nb orders")]
