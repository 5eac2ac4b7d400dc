"""Jobs of agents with injected clocks and no process: states, the job registry, specs, heartbeats, one part."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest
from distributed import Client, LocalCluster, Reschedule, Scheduler, Status, Worker
from distributed.utils import LoopRunner

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig
from kinesis_nb.agents import parts
from kinesis_nb.agents.cluster import Cluster
from kinesis_nb.agents.heartbeats import HeartbeatMonitor
from kinesis_nb.agents.job import AgentSync, PartStatus, _sync_status
from kinesis_nb.agents.job_registry import FORGET_SECONDS, JobRegistry
from kinesis_nb.agents.job_spec import ExportSpec, JobSpec, PartTask, SyncSpec, dump_spec, read_spec
from kinesis_nb.agents.metrics import guarded
from kinesis_nb.agents.placement import Placement
from kinesis_nb.agents.protocol import (
    JOIN,
    REGISTER,
    REPORT,
    WITHDRAW,
    AgentInfo,
    Instruction,
    JobInfo,
    JobRef,
    NewJob,
    PartInstructions,
    PartReport,
    RegisteredJob,
    Withdrawal,
)
from kinesis_nb.agents.registry_client import RegistryClient
from kinesis_nb.agents.settings import PortableSettings
from kinesis_nb.agents.spec_store import CAP_SECONDS, SpecStore, spec_folder
from kinesis_nb.agents.states import TRANSITIONS, JobEvent, JobState, next_state
from kinesis_nb.agents.submit import submit
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.selection import Selection, Where
from kinesis_nb.exporting.options import Range, RecordOptions
from kinesis_nb.source import open_kinesis
from kinesis_nb.syncing.status import SyncStatus
from kinesis_nb.table.failures import storage_explained
from kinesis_nb.table.storage import Storage
from tests.agents_kill import until
from tests.conftest import Streams, by_key, written_by_key

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from kinesis_nb.agents.private_folder import PrivateFolder

KEYS = kn.StaticCredentials("emulator", "emulator")
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/copies"
HORIZON = StartingPosition.trim_horizon()
INFO = JobInfo("sync", "orders", "/data/orders")
ANYONE = AgentInfo("anyone", "client")


class Ticks:
    """A monotonic clock that only moves when it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def sync_spec(uri: str = "/data/orders", auth: Any = None, interval: float = 1.0, **options: Any) -> SyncSpec:
    settings = PortableSettings(SourceConfig(auth=auth, **options), {})
    return SyncSpec(settings, open_kinesis, "orders", uri, HORIZON, interval, "fail")


def export_spec(**span: Any) -> ExportSpec:
    settings = PortableSettings(SourceConfig(exports_enabled=True), {})
    return ExportSpec(settings, open_kinesis, "copies", "/data/orders", ARN, RecordOptions(), Range(HORIZON, **span))


# --- states


@pytest.mark.parametrize("state", JobState)
def test_final_states_are_final(state: JobState) -> None:
    """What is over stays as it is whatever happens; what is not over can fail, or be stopped before it does."""
    after_all = {next_state(state, event) for event in JobEvent}
    if state.is_final:
        assert after_all == {state}
    else:
        assert JobState.FAILED in after_all
        assert next_state(state, JobEvent.ASKED_TO_STOP) is JobState.STOPPING


def test_a_stopping_job_never_runs_again() -> None:
    """From stopping only an end is reached, and ended differs from stopped; every state can be reached."""
    assert {next_state(JobState.STOPPING, event) for event in JobEvent} - {JobState.STOPPING} == {
        JobState.ENDED,
        JobState.STOPPED,
        JobState.FAILED,
    }
    assert next_state(JobState.RUNNING, JobEvent.ALL_ENDED) is JobState.ENDED
    assert next_state(JobState.STOPPING, JobEvent.ALL_OVER) is JobState.STOPPED
    assert {*TRANSITIONS.values()} | {JobState.SUBMITTED} == {*JobState}


# --- the job registry


def with_registry(
    act: Callable[[JobRegistry, Scheduler], Coroutine[Any, Any, None]], clock: Callable[[], float], ttl: float = 5.0
) -> None:
    """Run something with a job registry in a scheduler of Dask's, in this thread."""

    async def run() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=None) as scheduler:
            registry = JobRegistry(ttl, clock)
            await registry.start(scheduler)
            scheduler.add_plugin(registry, name=registry.name)
            await act(registry, scheduler)
            await registry.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def opened(registry: JobRegistry, name: str = "job-1", *, again: bool = False, info: JobInfo = INFO) -> RegisteredJob:
    job = NewJob(name, info, b"spec", "", "run", (f"{name}-run-0", f"{name}-run-1"), is_resubmission=again)
    return registry.register(job)


def test_a_job_that_was_never_submitted_has_failed() -> None:
    """A job whose client ended between its two calls fails after a while; it never looks like one that has ended."""
    clock = Ticks()

    async def act(registry: JobRegistry, _: Scheduler) -> None:
        opened(registry)
        clock.now += FORGET_SECONDS - 1
        await registry.sweep()
        assert registry.jobs()["job-1"].state is JobState.SUBMITTED
        clock.now += 2
        await registry.sweep()
        job = registry.jobs()["job-1"]
        assert (job.state, job.is_over) == (JobState.FAILED, True)
        assert all("never submitted" in part.error for part in job.parts)
        assert registry.join(ANYONE).specs == {}
        assert opened(registry).is_new

    with_registry(act, clock)


def test_a_job_that_nobody_runs_stops_at_once() -> None:
    """Parts without an agent have nothing to commit: they are over when they are asked to stop, and none comes back."""

    async def act(registry: JobRegistry, _: Scheduler) -> None:
        opened(registry)
        registry.stop(JobRef("job-1", "another one of that name"))
        assert registry.jobs()["job-1"].state is JobState.SUBMITTED
        registry.stop(JobRef("job-1"))
        job = registry.jobs()["job-1"]
        assert (job.state, job.is_over) == (JobState.STOPPED, True)
        assert registry.join(ANYONE).over == ("job-1",)
        assert not opened(registry, again=True).is_new  # an agent that remembers it does not bring it back
        assert opened(registry).is_new

    with_registry(act, Ticks())


def test_a_part_of_an_earlier_scheduler() -> None:
    """Its sync continues until its job is known and was stopped; an export ends as soon as another may continue."""

    async def act(registry: JobRegistry, _: Scheduler) -> None:
        def instruction_for(job: str) -> str:
            return registry.report(PartReport(f"{job}-earlier-0", "tls://127.0.0.1:1")).instruction

        assert instruction_for("job-1") == Instruction.UNKNOWN_JOB
        opened(registry)
        assert instruction_for("job-1") == Instruction.UNKNOWN_JOB
        registry.stop(JobRef("job-1"))
        assert instruction_for("job-1") == Instruction.STOP
        opened(registry, "job-2", info=JobInfo("export", "orders", "/data/orders"))
        assert instruction_for("job-2") == Instruction.NOT_YOURS

    with_registry(act, Ticks())


WORK: queue.Queue[str] = queue.Queue()  # what a part in this process does next


def part_of_job() -> None:
    if WORK.get(timeout=30) == "hand over":
        raise Reschedule


def test_a_part_without_an_agent_shows_none_as_well() -> None:
    """What an agent reported of a part is shown while it runs it: not after it handed over, nor when it is gone."""

    async def act(registry: JobRegistry, scheduler: Scheduler) -> None:
        opened(registry)

        def shown() -> tuple[str, bytes]:
            found = registry.jobs()["job-1"].parts[0]
            return found.agent_name, found.status

        def report(worker: Worker, status: bytes) -> str:
            return registry.report(PartReport("job-1-run-0", worker.address, status)).instruction

        async def begun() -> None:
            while (task := scheduler.tasks.get("job-1-run-0")) is None or task.processing_on is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        async with (
            Worker(scheduler.address, name="one", nthreads=1, dashboard=False, dashboard_address=None) as one,
            Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
        ):
            future = client.submit(part_of_job, key="job-1-run-0", pure=False)
            await begun()
            report(one, b"running")
            assert shown() == ("one", b"running")
            WORK.put("hand over")
            while shown() != ("", b""):  # noqa: ASYNC110 - Dask notices it
                await asyncio.sleep(0.01)
            await begun()
            report(one, b"")
            assert shown() == ("one", b"")
            report(one, b"running")
            await scheduler.remove_worker(one.address, stimulus_id="it is gone")
            assert shown() == ("", b"")
            assert sum("an agent has left: part 0" in line for line in registry.jobs()["job-1"].log) == 1
            WORK.put("end")
            del future

    with_registry(act, Ticks())


def test_a_job_with_a_part_that_nobody_runs_is_not_called_running() -> None:
    """Of two parts one runs: the job waits for an agent, and how far it is behind is not known."""
    running = SyncStatus("running", 1, 1, 0, timedelta(0), (), (), "")

    def status(*of_parts: SyncStatus | None) -> SyncStatus:
        parts = [PartStatus(number, "", one, "", "", "") for number, one in enumerate(of_parts)]
        return _sync_status(JobState.RUNNING, parts)

    assert [(one.state, one.lag) for one in (status(running, None), status(None, None))] == [("waiting", None)] * 2
    assert status(running, running).state == "running"


def test_the_clock_on_the_wall_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the scheduler's wall clock steps by a minute no agent is lost; one that is silent for as long is."""
    clock, step = Ticks(), 0.0

    async def act(registry: JobRegistry, scheduler: Scheduler) -> None:
        nonlocal step
        async with Worker(scheduler.address, nthreads=1, dashboard=False, dashboard_address=None) as one:
            one.periodic_callbacks["heartbeat"].stop()
            [known] = scheduler.workers.values()
            await registry.sweep()
            known.last_seen += 60
            await registry.sweep()
            known.last_seen -= 120
            await registry.sweep()
            assert scheduler.workers
            for _ in range(400):
                clock.now += 1
                await registry.sweep()
            assert not scheduler.workers
            assert one.status in {*Status}

    with_registry(act, clock)


def test_silence() -> None:
    """Only time in which somebody listened counts, from the last heartbeat that differs from the one before."""
    clock = Ticks()
    monitor = HeartbeatMonitor(clock, stall=1.0)
    assert monitor.silent_seconds({"a": 5.0, "b": 5.0}) == {"a": 0, "b": 0}
    clock.now += 0.5
    assert monitor.silent_seconds({"a": 5.0, "b": 65.0}) == {"a": 0.5, "b": 0}
    clock.now += 3600  # the listener was held up
    assert monitor.silent_seconds({"a": 5.0, "b": 65.0}) == {"a": 1.5, "b": 1.0}
    assert monitor.silent_seconds({"b": 65.0}) == {"b": 1.0}
    assert monitor.silent_seconds({"a": 5.0, "b": 65.0}) == {"a": 0, "b": 1.0}


def test_a_killed_agent_leaves_no_ghost() -> None:
    """An agent whose worker or connection is gone is forgotten at once; another one may be away at its time."""
    clock = Ticks()

    async def act(registry: JobRegistry, scheduler: Scheduler) -> None:
        def join(name: str, client: str) -> set[str]:
            return set(registry.join(AgentInfo(name, client, ("Sun 03:00-03:05 UTC",))).windows)

        def others() -> set[str]:
            return join("new", "new")

        async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
            join("early", client.id)
            assert others() == {"early"}
        while client.id in scheduler.clients:  # noqa: ASYNC110 - Dask notices that it is gone
            await asyncio.sleep(0.01)
        assert others() == set()
        async with Worker(scheduler.address, name="first", nthreads=1, dashboard=False, dashboard_address=None):
            join("first", "client")
            assert others() == {"first"}
        while scheduler.workers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert others() == set()
        join("silent", "client")
        clock.now += FORGET_SECONDS + 1
        assert others() == set()

    with_registry(act, clock)


# --- what a job is


def test_a_job_is_what_it_writes() -> None:
    """Other options, credentials or streams are the same job with another setup; another table is another job."""
    first = sync_spec()
    for other in (sync_spec(interval=2.0), sync_spec(auth=KEYS), sync_spec(region="eu-west-1")):
        assert other.job() == first.job()
        assert other.setup() != first.setup()
    chosen = [Selection(key="k"), Selection(where=Where.of(pl.col("data") == "a")), Selection(decompress=True)]
    setups = {replace(first, selection=selection).setup() for selection in chosen}
    assert len(setups | {first.setup()}) == 1 + len(chosen)
    assert pickle.loads(pickle.dumps(replace(first, selection=chosen[1]))).selection == chosen[1]
    assert sync_spec(interval=1).setup() == first.setup()
    assert sync_spec(exports_enabled=True).setup() == first.setup()
    assert sync_spec("/data/others").job() != first.job()
    secret = kn.StaticCredentials("emulator", "another")
    assert sync_spec(auth=secret).setup() != sync_spec(auth=KEYS).setup()


def test_an_export_is_a_table_and_an_output() -> None:
    """Another rate or journal is the same export with another setup; a time range is one of its own."""
    first = export_spec()
    for other in (export_spec(rate=5.0), export_spec(journal="/data/journal")):
        assert other.job() == first.job()
        assert other.setup() != first.setup()
    assert export_spec(rate=5).setup() == export_spec(rate=5.0).setup()
    end = datetime(2026, 11, 24, tzinfo=UTC)
    assert export_spec(end=end).job() != first.job()
    same = end.astimezone(tz=None)
    assert export_spec(end=same).job() == export_spec(end=end).job() != export_spec(end=end + timedelta(1)).job()


# --- specs


def body(work: SyncSpec | ExportSpec) -> bytes:
    return dump_spec(JobSpec(work, Placement((7,))))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateFolder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return spec_folder("tls://127.0.0.1:8786")


def test_a_spec_is_forgotten_when_its_job_is_over_and_not_before(folder: PrivateFolder) -> None:
    """A job is resubmitted to a scheduler that does not know it, and never to one that knows that it is over."""
    mine = SpecStore(folder, Ticks())
    one = body(sync_spec())
    mine.update({"job-1": one, "job-2": one}, [])
    assert mine.due(["job-1", "job-2"]) == {}
    mine.update({}, [])
    assert mine.due([]) == {"job-1": one, "job-2": one}
    mine.update({"job-1": one}, ["job-2"])
    assert mine.due([]) == {"job-1": one}
    assert SpecStore(folder, Ticks()).due([]) == {"job-1": one}  # an agent that was started again
    mine.update({}, ["job-1"])
    assert SpecStore(folder, Ticks()).due([]) == {}


def test_a_spec_that_cannot_be_given_back_keeps_no_other() -> None:
    """It is tried again later, and later each time; the others are due at once."""
    clock = Ticks()
    mine = SpecStore(None, clock)
    mine.update({"bad": b"1", "good": b"2"}, [])
    waits = []
    for _ in range(10):
        mine.postpone("bad")
        assert set(mine.due([])) == {"good"}
        began = clock.now
        while "bad" not in mine.due([]):
            clock.now += 0.5
        waits.append(clock.now - began)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == CAP_SECONDS


def test_secrets_are_not_kept(folder: PrivateFolder) -> None:
    """A spec with a secret is kept in memory only; what is in the folder only this user can read."""
    mine = SpecStore(folder, Ticks())
    mine.update({"secret": body(sync_spec(auth=KEYS)), "plain": body(sync_spec())}, [])
    assert folder.names() == ["plain"]
    assert [path.stat().st_mode & 0o777 for path in (folder.path, folder.path / "plain")] == [0o700, 0o600]
    assert set(mine.due([])) == {"secret", "plain"}
    assert "emulator" not in str(folder.read("plain"))


def test_a_folder_that_others_may_write_is_not_believed(folder: PrivateFolder) -> None:
    """What is in it would be run; the agent continues without it."""
    SpecStore(folder, Ticks()).update({"plain": body(sync_spec())}, [])
    folder.path.chmod(0o770)
    mine = SpecStore(folder, Ticks())
    assert mine.due([]) == {}
    mine.update({"plain": body(sync_spec())}, [])
    assert set(mine.due([])) == {"plain"}


def test_a_spec_outlives_its_process() -> None:
    """What an agent kept is read by the next process as it was, with the division into parts."""
    for work in (sync_spec(), sync_spec(auth=KEYS), export_spec(rate=5.0, journal="/data/journal")):
        spec = read_spec(body(work))
        assert spec is not None
        assert (spec.work.job(), spec.work.setup()) == (work.job(), work.setup())
        assert spec.placement == Placement((7,))


class Executed:
    """Something whose pickle does something when it is read."""

    def __reduce__(self) -> Any:
        return READ.append, ("a pickle of another format was read",)


READ: list[str] = []


def test_a_spec_of_another_version() -> None:
    """What another version dumped in a format of its own is not even unpickled; what is damaged is none."""
    now = body(sync_spec())
    header = now[: now.index(b"\n") + 1]
    before = header.replace(b"2", b"1")
    for other in (b"nothing", pickle.dumps(Executed()), before + pickle.dumps(Executed()), before + now[len(header) :]):
        assert read_spec(other) is None
    assert READ == []
    for damaged in (header + pickle.dumps("text"), header, now[:-10]):
        assert read_spec(damaged) is None
    assert read_spec(now) is not None


def test_an_agent_forgets_a_spec_of_another_version(folder: PrivateFolder) -> None:
    """It is due once, so that the agent can say that it cannot be resubmitted, and is not kept any longer."""
    folder.write("job-1", b"of an earlier format")
    mine = SpecStore(folder, Ticks())
    assert mine.due([]) == {"job-1": b"of an earlier format"}
    mine.forget("job-1")
    assert folder.names() == []


# --- a part and the job registry


class Responses:
    """A worker of Dask's whose scheduler responds with given instructions; an empty one is no response."""

    def __init__(self, *responses: str) -> None:
        self._runner = LoopRunner()
        self._runner.start()
        self.loop, self.status, self.address = self._runner.loop, Status.running, "tls://127.0.0.1:1"
        self.scheduler, self._responses, self.reports = self, list(responses), 0

    async def kinesis_nb_report(self, message: bytes) -> bytes:
        self.reports += 1
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        if not response:
            raise OSError("the scheduler is away")
        return await REPORT.served_by(lambda _: PartInstructions(Instruction(response)))(message)

    def stop(self) -> None:
        self._runner.stop()


def client_of(worker: Responses) -> RegistryClient:
    return RegistryClient("job-run-0", cast("Worker", worker))


@pytest.fixture
def responses() -> Iterator[Callable[..., Responses]]:
    made: list[Responses] = []

    def make(*given: str) -> Responses:
        made.append(Responses(*given))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def part(spec: SyncSpec) -> PartTask:
    return PartTask("job-run-0", spec, Placement(()), 0)


def table_of(emulator: Any, tmp_path: Path) -> SyncSpec:
    return sync_spec(str(tmp_path / "table"), KEYS, 0.1, endpoint_url=emulator.endpoint_url)


def owned(spec: SyncSpec) -> bool:
    """Whether anybody ever took a shard of the table."""
    storage = Storage.at(spec.uri)
    return storage.exists() and any("epoch" in text for text in map(str, _actions(storage)))


def _actions(storage: Storage) -> list[str]:
    folder = storage.folder
    assert folder is not None
    return [path.read_text() for path in sorted((folder / "_delta_log").glob("*.json"))]


@pytest.mark.parametrize(
    "instruction", [Instruction.STOP, Instruction.HAND_OVER, Instruction.NOT_YOURS, Instruction.UNKNOWN_JOB]
)
def test_a_part_takes_nothing_when_it_is_to_end(
    responses: Callable[..., Responses], emulator: Any, streams: Streams, tmp_path: Path, instruction: str
) -> None:
    """A part that may not run takes over no shard from its owner, neither at first nor after it opened the table."""
    from distributed import Reschedule

    streams.create()
    streams.put(10)
    for given in ((instruction,), (Instruction.CONTINUE, instruction)):
        spec = table_of(emulator, tmp_path)
        scheduler: Any = responses(*given, Instruction.STOP)  # or a part that goes on would never end
        try:
            parts.run_part(part(spec), client_of(scheduler))
        except (Reschedule, kn.Fenced):
            assert instruction != Instruction.STOP
        else:
            assert instruction == Instruction.STOP
        assert not owned(spec)


def test_a_part_starts_with_a_response_and_continues_without(
    responses: Callable[..., Responses], emulator: Any, streams: Streams, tmp_path: Path
) -> None:
    """Before it takes a shard a part waits for its scheduler; afterwards it commits whether that responds or not."""
    streams.create()
    streams.put(10)
    spec = table_of(emulator, tmp_path)
    scheduler: Any = responses("", "", Instruction.CONTINUE, Instruction.CONTINUE, "")
    running = threading.Thread(target=lambda: parts.run_part(part(spec), client_of(scheduler)), daemon=True)
    running.start()
    until("it begins", lambda: scheduler.reports > 4, 30)
    streams.put(50)
    storage = Storage.at(spec.uri)
    until("all is committed", lambda: storage.scan().collect().height == 60, 30)
    scheduler._responses = [Instruction.STOP]
    running.join(30)
    assert not running.is_alive()
    assert by_key(storage.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)


def test_a_part_waits_for_a_response(
    responses: Callable[..., Responses], emulator: Any, streams: Streams, tmp_path: Path
) -> None:
    """A part whose scheduler does not respond when it is to start takes nothing: it does not know whether it may."""
    streams.create()
    spec = table_of(emulator, tmp_path)
    scheduler: Any = responses("", Instruction.CONTINUE, "", Instruction.STOP)
    assert parts.run_part(part(spec), client_of(scheduler)) == b""
    assert not owned(spec)


def test_a_part_waits_for_kinesis(
    responses: Callable[..., Responses], emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a retry may cure is tried again when a part starts, until it is instructed to stop."""
    monkeypatch.setattr("kinesis_nb.core.retry.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("kinesis_nb.core.retry.CAP_SECONDS", 0.1)
    away = sync_spec(str(tmp_path / "table"), KEYS, 0.1, endpoint_url="http://127.0.0.1:9")
    scheduler: Any = responses(*[Instruction.CONTINUE] * 5, Instruction.STOP)
    assert parts.run_part(part(away), client_of(scheduler)) == b""


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device", "Generic error (os error 5)"])
def test_a_part_waits_for_its_disk(
    responses: Callable[..., Responses], emulator: Any, streams: Streams, tmp_path: Path, said: str
) -> None:
    """A folder that is full when a part starts is tried again until the part is to stop; a wrong one is not."""
    streams.create()
    spec = table_of(emulator, tmp_path)
    scheduler: Any = responses(*[Instruction.CONTINUE] * 5, Instruction.STOP)

    def begin() -> None:
        with storage_explained(spec.uri):
            raise OSError(said)

    assert parts.start_when_possible(begin, client_of(scheduler)) is None
    assert scheduler.reports > 5
    said = "[Errno 13] Permission denied"
    with pytest.raises(kn.TableError, match="Permission denied"):
        parts.start_when_possible(
            begin, client_of(responses(Instruction.CONTINUE, Instruction.CONTINUE, Instruction.STOP))
        )


def test_a_part_fails_with_what_no_retry_can_fix(
    responses: Callable[..., Responses], emulator: Any, tmp_path: Path
) -> None:
    """What no retry can cure is its error, at once."""
    spec = table_of(emulator, tmp_path)
    scheduler: Any = responses(*[Instruction.CONTINUE] * 20, Instruction.STOP)
    with pytest.raises(kn.StreamNotFound):
        parts.run_part(part(spec), client_of(scheduler))


# --- a job and its handle


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Cluster]:
    """Agents that are threads of this process, so that nothing has to be started."""
    size: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        LocalCluster(processes=False, **size) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Cluster(client)


def test_other_options_replace_a_job(near: Cluster, emulator: Any, streams: Streams, tmp_path: Path) -> None:
    """The same call returns the same job; with other options, or while it stops, it ends and another one starts."""
    streams.create()
    streams.put(10)
    source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=near.client)
    runs = []
    for interval in (0.1, 0.1, 0.2):
        sync: Any = source.sync("orders", tmp_path / "table", commit_interval=interval)
        assert sync.wait(30)
        runs.append(sync._snapshot().run)
    assert runs[0] == runs[1] != runs[2]
    sync.request_stop()
    again: Any = source.sync("orders", tmp_path / "table", commit_interval=0.2)
    streams.put(10)
    assert again.wait(30)
    assert again.is_active
    assert again._snapshot().run not in runs
    assert len(source.jobs()) == 1
    with pytest.raises(kn.StreamNotFound):
        source.sync("nowhere", tmp_path / "table")
    assert again.is_active  # what cannot begin replaces nothing
    again.stop()
    assert again.wait(5) is False
    assert by_key(again.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)


def test_a_stopped_job_was_not_through(near: Cluster, emulator: Any, streams: Streams, tmp_path: Path) -> None:
    """wait() is True only when every row is in the table: not when the job was stopped, or never submitted."""
    streams.create()
    spec = table_of(emulator, tmp_path)
    near.check()
    sync = AgentSync(near, spec, Storage.at(spec.uri))
    near.ask(REGISTER, NewJob(spec.job(), INFO, b"", "", "r", ("a-r-0",)))
    assert sync.wait(0) is False
    near.ask(WITHDRAW, Withdrawal(spec.job(), "r", "its client ended"))
    with pytest.raises(kn.AgentError, match="never submitted"):
        sync.wait(5)
    assert sync.status().state == "failed"
    submit(near, spec)
    assert sync.wait(30)
    sync.stop()
    assert sync.wait(5) is False
    assert sync.status().state == "stopped"


def test_a_relative_path_is_of_this_process(
    near: Cluster, emulator: Any, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative place or journal is in the folder of the caller; agents on other machines do not have that."""
    arn = streams.create("copies")
    streams.create()
    streams.put(10)
    monkeypatch.chdir(tmp_path)
    source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=near.client, exports_enabled=True)
    sync: Any = source.sync("orders", "table", commit_interval=0.1)
    assert sync.wait(30)
    assert sync.uri == str(tmp_path / "table")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    export: Any = source.export_stream("../table", arn, journal="own.journal")
    assert export.wait(30)
    assert (tmp_path / "elsewhere" / "own.journal").exists()
    [body] = [body for body in near.ask(JOIN, ANYONE).specs.values() if b"own.journal" in body]
    spec: Any = read_spec(body)  # whoever runs it may be in any folder
    assert spec.work.span.journal == str(tmp_path / "elsewhere" / "own.journal")
    export.stop()
    sync.stop()
    monkeypatch.setattr("platform.node", lambda: "here" if threading.current_thread().name == "MainThread" else "there")
    for call in (
        lambda: source.sync("orders", "table"),
        lambda: source.export_stream("../table", arn),
        lambda: source.export_stream(tmp_path / "table", arn, journal="own.journal"),
    ):
        with pytest.raises(kn.ConfigError, match="relative to a folder of this machine") as raised:
            call()
        assert "absolute path" in raised.value.hint
    near.check_paths(tmp_path / "table", "s3://bucket/table", None, "~/table")


# --- pages


@pytest.mark.parametrize(
    ("listens_at", "headers", "is_answered"),
    [
        ("127.0.0.1", {"HTTP_HOST": "127.0.0.1:9000"}, True),
        ("127.0.0.1", {"HTTP_HOST": "localhost:9000"}, True),
        ("127.0.0.1", {"HTTP_HOST": "[::1]:9000"}, True),
        ("127.0.0.1", {"HTTP_HOST": "evil.example:9000"}, False),
        ("127.0.0.1", {"HTTP_HOST": "10.0.0.1:9000"}, False),
        ("127.0.0.1", {"HTTP_HOST": "[:9000"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"HTTP_HOST": "127.0.0.1:9000", "HTTP_ORIGIN": "http://evil.example"}, False),
        ("127.0.0.1", {"HTTP_HOST": "127.0.0.1:9000", "HTTP_ORIGIN": "http://127.0.0.1:9000"}, False),
        ("0.0.0.0", {"HTTP_HOST": "10.0.0.1:9000"}, True),
        ("0.0.0.0", {"HTTP_HOST": "evil.example:9000"}, False),
        ("metrics.internal", {"HTTP_HOST": "metrics.internal:9000"}, True),
    ],
)
def test_metrics_are_not_for_web_pages(listens_at: str, headers: dict[str, str], *, is_answered: bool) -> None:
    """A page of another site gets no metrics, whatever name it makes a browser use."""
    said: list[str] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"rows"]

    def start(status: str, *_more: object) -> Callable[[bytes], object]:
        said.append(status)
        return bytes

    answer = guarded(app, listens_at)(headers, start)
    assert said == (["200 OK"] if is_answered else ["403 Forbidden"])
    assert (b"rows" in b"".join(answer)) is is_answered
