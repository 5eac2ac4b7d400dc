"""What a job of agents goes through, with injected clocks and no process: states, the desk, orders, silence."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from distributed import Client, LocalCluster, Reschedule, Scheduler, Status, Worker
from distributed.utils import LoopRunner

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig
from kinesis_nb.agents import worker
from kinesis_nb.agents.cluster import Cluster
from kinesis_nb.agents.desk import FORGET_SECONDS, Desk
from kinesis_nb.agents.job import AgentSync, PartStatus, _sync_status, submit
from kinesis_nb.agents.metrics import guarded
from kinesis_nb.agents.order import Answer, ExportOrder, Parcel, SyncOrder, Task
from kinesis_nb.agents.orders import CAP_SECONDS, JobOrder, Orders, read_order
from kinesis_nb.agents.place import Placement
from kinesis_nb.agents.private import PrivateFolder, orders
from kinesis_nb.agents.silence import Silence
from kinesis_nb.agents.states import TRANSITIONS, Event, State, after
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

KEYS = kn.StaticCredentials("emulator", "emulator")
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/copies"
HORIZON = StartingPosition.trim_horizon()
STRANGER = {"name": "stranger", "windows": [], "away": "", "client": ""}  # an agent that joins


class Ticks:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def sync_order(uri: str = "/data/orders", auth: Any = None, interval: float = 1.0, **options: Any) -> SyncOrder:
    parcel = Parcel(SourceConfig(auth=auth, **options), {})
    return SyncOrder(parcel, open_kinesis, "orders", uri, HORIZON, interval, "fail")


def export_order(**span: Any) -> ExportOrder:
    parcel = Parcel(SourceConfig(exports_enabled=True), {})
    return ExportOrder(parcel, open_kinesis, "copies", "/data/orders", ARN, RecordOptions(), Range(HORIZON, **span))


# --- states


@pytest.mark.parametrize("state", State)
def test_final_states_are_final(state: State) -> None:
    """What is over stays as it is whatever happens; what is not over can fail, or be stopped before it does."""
    after_all = {after(state, event) for event in Event}
    if state.is_final:
        assert after_all == {state}
    else:
        assert State.FAILED in after_all
        assert after(state, Event.ASKED_TO_STOP) is State.STOPPING


def test_a_stopping_job_never_runs_again() -> None:
    """From stopping only an end is reached, and ended and stopped are told apart; every state can be reached."""
    assert {after(State.STOPPING, event) for event in Event} - {State.STOPPING} == {
        State.ENDED,
        State.STOPPED,
        State.FAILED,
    }
    assert after(State.RUNNING, Event.ALL_ENDED) is State.ENDED
    assert after(State.STOPPING, Event.ALL_OVER) is State.STOPPED
    assert {*TRANSITIONS.values()} | {State.SUBMITTED} == {*State}


# --- the desk


def at_a_desk(
    act: Callable[[Desk, Scheduler], Coroutine[Any, Any, None]], clock: Callable[[], float], ttl: float = 5.0
) -> None:
    """Run something at a desk in a scheduler of Dask's, in this thread."""

    async def run() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=None) as scheduler:
            desk = Desk(ttl, clock)
            await desk.start(scheduler)
            scheduler.add_plugin(desk, name=desk.name)
            await act(desk, scheduler)
            await desk.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def opened(desk: Desk, job: str = "job-1", setup: str = "", *, again: bool = False) -> dict[str, Any]:
    what = {"kind": "sync", "stream": "orders", "place": "/data/orders"}
    return desk.open(job, b"order", what, setup, "run", [f"{job}-run-0", f"{job}-run-1"], again=again)


def test_a_job_that_was_never_submitted_has_failed() -> None:
    """A job whose client ended between its two calls fails after a while; nobody takes it for one that is through."""
    clock = Ticks()

    async def act(desk: Desk, _: Scheduler) -> None:
        opened(desk)
        clock.now += FORGET_SECONDS - 1
        await desk.look()
        assert desk.jobs()["job-1"]["state"] == State.SUBMITTED
        clock.now += 2
        await desk.look()
        job = desk.jobs()["job-1"]
        assert (job["state"], job["is_over"]) == (State.FAILED, True)
        assert all("never submitted" in part["error"] for part in job["parts"])
        assert desk.join("one", [], "", "client")["orders"] == {}
        assert opened(desk)["is_new"]

    at_a_desk(act, clock)


def test_a_job_that_nobody_runs_stops_at_once() -> None:
    """Parts without an agent have nothing to commit: they are over when they are asked to stop, and none comes back."""

    async def act(desk: Desk, _: Scheduler) -> None:
        opened(desk)
        desk.stop("job-1", run="another one of that name")
        assert desk.jobs()["job-1"]["state"] == State.SUBMITTED
        desk.stop("job-1")
        job = desk.jobs()["job-1"]
        assert (job["state"], job["is_over"]) == (State.STOPPED, True)
        assert desk.join("one", [], "", "client")["over"] == ["job-1"]
        assert not opened(desk, again=True)["is_new"]  # an agent that remembers it does not bring it back
        assert opened(desk)["is_new"]

    at_a_desk(act, Ticks())


def test_a_part_of_an_earlier_scheduler() -> None:
    """Its sync goes on until its job is here and was stopped; an export ends as soon as somebody else may go on."""

    async def act(desk: Desk, _: Scheduler) -> None:
        def told(job: str) -> str:
            return desk.report(f"{job}-earlier-0", "tls://127.0.0.1:1", b"", 0, 0)[0]

        assert told("job-1") == Answer.LEFT_ALONE
        opened(desk)
        assert told("job-1") == Answer.LEFT_ALONE
        desk.stop("job-1")
        assert told("job-1") == Answer.STOP
        what = {"kind": "export", "stream": "orders", "place": "/data/orders"}
        desk.open("job-2", b"order", what, "", "run", ["job-2-run-0"], again=False)
        assert told("job-2") == Answer.NOT_YOURS

    at_a_desk(act, Ticks())


WORK: queue.Queue[str] = queue.Queue()  # what a part in this process does next


def part_of_job() -> None:
    if WORK.get(timeout=30) == "hand over":
        raise Reschedule


def test_a_part_without_an_agent_shows_none_as_well() -> None:
    """What an agent said of a part is shown while it runs it: not when it has handed over, nor when it is gone."""

    async def act(desk: Desk, scheduler: Scheduler) -> None:
        opened(desk)

        def shown() -> tuple[str, bytes]:
            found = desk.jobs()["job-1"]["parts"][0]
            return found["name"], found["status"]

        def report(worker: Worker, status: bytes) -> str:
            return desk.report("job-1-run-0", worker.address, status, 0, 0)[0]

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
            assert sum("an agent has left: part 0" in line for line in desk.jobs()["job-1"]["log"]) == 1
            WORK.put("end")
            del future

    at_a_desk(act, Ticks())


def test_a_job_with_a_part_that_nobody_runs_is_not_called_running() -> None:
    """Of two parts one runs: the job waits for an agent, and how far it is behind is not known."""
    running = SyncStatus("running", 1, 1, 0, timedelta(0), (), (), "")

    def status(*of_parts: SyncStatus | None) -> SyncStatus:
        parts = [PartStatus(number, "", one, "", "", "") for number, one in enumerate(of_parts)]
        return _sync_status({"state": "running"}, parts)

    assert [(one.state, one.lag) for one in (status(running, None), status(None, None))] == [("waiting", None)] * 2
    assert status(running, running).state == "running"


def test_the_clock_on_the_wall_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the scheduler's clock steps by a minute no agent is lost; one that is silent for as long is."""
    clock, step = Ticks(), 0.0

    async def act(desk: Desk, scheduler: Scheduler) -> None:
        nonlocal step
        async with Worker(scheduler.address, nthreads=1, dashboard=False, dashboard_address=None) as one:
            one.periodic_callbacks["heartbeat"].stop()
            [known] = scheduler.workers.values()
            await desk.look()
            known.last_seen += 60
            await desk.look()
            known.last_seen -= 120
            await desk.look()
            assert scheduler.workers
            for _ in range(400):
                clock.now += 1
                await desk.look()
            assert not scheduler.workers
            assert one.status in {*Status}

    at_a_desk(act, clock)


def test_silence() -> None:
    """Only the time in which somebody listened counts, from the last sign that differs from the one before."""
    clock = Ticks()
    silence = Silence(clock, pause=1.0)
    assert silence.look({"a": 5.0, "b": 5.0}) == {"a": 0, "b": 0}
    clock.now += 0.5
    assert silence.look({"a": 5.0, "b": 65.0}) == {"a": 0.5, "b": 0}
    clock.now += 3600  # the listener was held up
    assert silence.look({"a": 5.0, "b": 65.0}) == {"a": 1.5, "b": 1.0}
    assert silence.look({"b": 65.0}) == {"b": 1.0}
    assert silence.look({"a": 5.0, "b": 65.0}) == {"a": 0, "b": 1.0}


def test_a_killed_agent_leaves_no_ghost() -> None:
    """An agent whose worker or connection is gone is forgotten at once; another one may be away at its time."""
    clock = Ticks()

    async def act(desk: Desk, scheduler: Scheduler) -> None:
        windows = ["Sun 03:00-03:05 UTC"]

        def others() -> dict[str, Any]:
            found: dict[str, Any] = desk.join("new", windows, "", "new")["others"]
            return found

        async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
            desk.join("early", windows, "", client.id)
            assert set(others()) == {"early"}
        while client.id in scheduler.clients:  # noqa: ASYNC110 - Dask notices that it is gone
            await asyncio.sleep(0.01)
        assert others() == {}
        async with Worker(scheduler.address, name="first", nthreads=1, dashboard=False, dashboard_address=None):
            desk.join("first", windows, "", "client")
            assert set(others()) == {"first"}
        while scheduler.workers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert others() == {}
        desk.join("silent", windows, "", "client")
        clock.now += FORGET_SECONDS + 1
        assert others() == {}

    at_a_desk(act, clock)


# --- what a job is


def test_a_job_is_what_it_writes() -> None:
    """Other options, credentials or streams are the same job with another setup; another table is another job."""
    first = sync_order()
    for other in (sync_order(interval=2.0), sync_order(auth=KEYS), sync_order(region="eu-west-1")):
        assert other.job() == first.job()
        assert other.setup() != first.setup()
    chosen = [Selection(key="k"), Selection(where=Where.of(pl.col("data") == "a")), Selection(decompress=True)]
    setups = {replace(first, selection=selection).setup() for selection in chosen}
    assert len(setups | {first.setup()}) == 1 + len(chosen)
    assert pickle.loads(pickle.dumps(replace(first, selection=chosen[1]))).selection == chosen[1]
    assert sync_order(interval=1).setup() == first.setup()
    assert sync_order(exports_enabled=True).setup() == first.setup()
    assert sync_order("/data/others").job() != first.job()
    secret = kn.StaticCredentials("emulator", "another")
    assert sync_order(auth=secret).setup() != sync_order(auth=KEYS).setup()


def test_an_export_is_a_table_and_an_output() -> None:
    """Another rate or journal is the same export with another setup; a time range is one of its own."""
    first = export_order()
    for other in (export_order(rate=5.0), export_order(journal="/data/journal")):
        assert other.job() == first.job()
        assert other.setup() != first.setup()
    assert export_order(rate=5).setup() == export_order(rate=5.0).setup()
    end = datetime(2026, 11, 24, tzinfo=UTC)
    assert export_order(end=end).job() != first.job()
    same = end.astimezone(tz=None)
    assert export_order(end=same).job() == export_order(end=end).job() != export_order(end=end + timedelta(1)).job()


# --- orders


def body(order: Any) -> bytes:
    return pickle.dumps(JobOrder(order, Placement(())))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateFolder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return orders("tls://127.0.0.1:8786")


def test_an_order_is_forgotten_when_its_job_is_over_and_not_before(folder: PrivateFolder) -> None:
    """A scheduler that does not know a job gets it back; one that knows that it is over does not, and nobody else."""
    mine = Orders(folder, Ticks())
    one = body(sync_order())
    mine.heard({"job-1": one, "job-2": one}, [])
    assert mine.due(["job-1", "job-2"]) == {}
    mine.heard({}, [])
    assert mine.due([]) == {"job-1": one, "job-2": one}
    mine.heard({"job-1": one}, ["job-2"])
    assert mine.due([]) == {"job-1": one}
    assert Orders(folder, Ticks()).due([]) == {"job-1": one}  # an agent that was started again
    mine.heard({}, ["job-1"])
    assert Orders(folder, Ticks()).due([]) == {}


def test_an_order_that_cannot_be_given_back_keeps_no_other() -> None:
    """It is tried again later, and later each time; the others are due at once."""
    clock = Ticks()
    mine = Orders(None, clock)
    mine.heard({"bad": b"1", "good": b"2"}, [])
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
    """An order with a secret is remembered in memory alone; what is in the folder is for this user's eyes only."""
    mine = Orders(folder, Ticks())
    mine.heard({"secret": body(sync_order(auth=KEYS)), "plain": body(sync_order())}, [])
    assert folder.names() == ["plain"]
    assert [path.stat().st_mode & 0o777 for path in (folder.path, folder.path / "plain")] == [0o700, 0o600]
    assert set(mine.due([])) == {"secret", "plain"}
    assert "emulator" not in str(folder.read("plain"))


def test_a_folder_that_others_may_write_is_not_believed(folder: PrivateFolder) -> None:
    """What is in it would be run; the agent goes on without it."""
    Orders(folder, Ticks()).heard({"plain": body(sync_order())}, [])
    folder.path.chmod(0o770)
    mine = Orders(folder, Ticks())
    assert mine.due([]) == {}
    mine.heard({"plain": body(sync_order())}, [])
    assert set(mine.due([])) == {"plain"}


def test_an_order_of_another_version() -> None:
    """What cannot be read is none."""
    assert read_order(b"nothing") is None
    assert read_order(pickle.dumps("text")) is None
    assert read_order(body(sync_order())) is not None


# --- a part and its desk


class Answers:
    """A worker of Dask's whose scheduler says what it is told to say."""

    def __init__(self, *answers: str) -> None:
        self._runner = LoopRunner()
        self._runner.start()
        self.loop, self.status, self.address = self._runner.loop, Status.running, "tls://127.0.0.1:1"
        self.scheduler, self._answers, self.reports = self, list(answers), 0

    async def kinesis_nb_report(self, **_: Any) -> tuple[str, int, int]:
        self.reports += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not answer:
            raise OSError("the scheduler is away")
        return answer, 0, 0

    def stop(self) -> None:
        self._runner.stop()


@pytest.fixture
def answers() -> Iterator[Callable[..., Answers]]:
    made: list[Answers] = []

    def make(*given: str) -> Answers:
        made.append(Answers(*given))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def part(order: SyncOrder) -> Task:
    return Task("job-run-0", order, Placement(()), 0)


def table_of(emulator: Any, tmp_path: Path) -> SyncOrder:
    return sync_order(str(tmp_path / "table"), KEYS, 0.1, endpoint_url=emulator.endpoint_url)


def owned(order: SyncOrder) -> bool:
    """Whether anybody ever took a shard of the table."""
    storage = Storage.at(order.uri)
    return storage.exists() and any("epoch" in text for text in map(str, _actions(storage)))


def _actions(storage: Storage) -> list[str]:
    folder = storage.folder
    assert folder is not None
    return [path.read_text() for path in sorted((folder / "_delta_log").glob("*.json"))]


@pytest.mark.parametrize("answer", [Answer.STOP, Answer.HAND_OVER, Answer.NOT_YOURS, Answer.LEFT_ALONE])
def test_a_part_takes_nothing_when_it_is_to_end(
    answers: Callable[..., Answers], emulator: Any, streams: Streams, tmp_path: Path, answer: str
) -> None:
    """A part that is not to run takes no shard from whoever has it: not at first, nor after it opened the table."""
    from distributed import Reschedule

    streams.create()
    streams.put(10)
    for given in ((answer,), (Answer.GO_ON, answer)):
        order = table_of(emulator, tmp_path)
        desk: Any = answers(*given, Answer.STOP)  # or a part that goes on would never end
        try:
            worker._run_sync(part(order), order, worker._Desk("job-run-0", desk))
        except (Reschedule, kn.Fenced):
            assert answer != Answer.STOP
        else:
            assert answer == Answer.STOP
        assert not owned(order)


def test_a_part_begins_with_an_answer_and_goes_on_without(
    answers: Callable[..., Answers], emulator: Any, streams: Streams, tmp_path: Path
) -> None:
    """Before it takes a shard a part waits for its scheduler; afterwards it commits whether that is there or not."""
    streams.create()
    streams.put(10)
    order = table_of(emulator, tmp_path)
    desk: Any = answers("", "", Answer.GO_ON, Answer.GO_ON, "")
    running = threading.Thread(
        target=lambda: worker._run_sync(part(order), order, worker._Desk("job-run-0", desk)), daemon=True
    )
    running.start()
    until("it begins", lambda: desk.reports > 4, 30)
    streams.put(50)
    storage = Storage.at(order.uri)
    until("all is committed", lambda: storage.scan().collect().height == 60, 30)
    desk._answers = [Answer.STOP]
    running.join(30)
    assert not running.is_alive()
    assert by_key(storage.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)


def test_a_part_waits_for_an_answer(
    answers: Callable[..., Answers], emulator: Any, streams: Streams, tmp_path: Path
) -> None:
    """A part whose scheduler is away when it is to begin takes nothing: it does not know whether it may."""
    streams.create()
    order = table_of(emulator, tmp_path)
    desk: Any = answers("", Answer.GO_ON, "", Answer.STOP)
    assert worker._run_sync(part(order), order, worker._Desk("job-run-0", desk)) == b""
    assert not owned(order)


def test_a_part_waits_for_kinesis(
    answers: Callable[..., Answers], emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may pass is tried again when a part begins, until it is told to stop."""
    monkeypatch.setattr("kinesis_nb.core.retry.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("kinesis_nb.core.retry.CAP_SECONDS", 0.1)
    away = sync_order(str(tmp_path / "table"), KEYS, 0.1, endpoint_url="http://127.0.0.1:9")
    desk: Any = answers(*[Answer.GO_ON] * 5, Answer.STOP)
    assert worker._run_sync(part(away), away, worker._Desk("job-run-0", desk)) == b""


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device", "Generic error (os error 5)"])
def test_a_part_waits_for_its_disk(
    answers: Callable[..., Answers], emulator: Any, streams: Streams, tmp_path: Path, said: str
) -> None:
    """A folder that is full when a part begins is tried again, until it is told to stop; a wrong one is not."""
    streams.create()
    order = table_of(emulator, tmp_path)
    desk: Any = answers(*[Answer.GO_ON] * 5, Answer.STOP)

    def begin() -> None:
        with storage_explained(order.uri):
            raise OSError(said)

    assert worker._begun(begin, worker._Desk("job-run-0", desk)) is None
    assert desk.reports > 5
    said = "[Errno 13] Permission denied"
    with pytest.raises(kn.TableError, match="Permission denied"):
        worker._begun(begin, worker._Desk("job-run-0", answers(Answer.GO_ON, Answer.GO_ON, Answer.STOP)))


def test_a_part_says_what_will_not_help(answers: Callable[..., Answers], emulator: Any, tmp_path: Path) -> None:
    """What no retry can cure is its error, at once."""
    order = table_of(emulator, tmp_path)
    desk: Any = answers(*[Answer.GO_ON] * 20, Answer.STOP)
    with pytest.raises(kn.StreamNotFound):
        worker._run_sync(part(order), order, worker._Desk("job-run-0", desk))


# --- a job and its handle


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Cluster]:
    """Agents that are threads of this process, so that nothing has to be started."""
    with (
        LocalCluster(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Cluster(client)


def test_other_options_replace_a_job(near: Cluster, emulator: Any, streams: Streams, tmp_path: Path) -> None:
    """The same line gives the same job back; with other options, or while it stops, it ends and another one begins."""
    streams.create()
    streams.put(10)
    source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=near.client)
    runs = []
    for interval in (0.1, 0.1, 0.2):
        sync: Any = source.sync("orders", tmp_path / "table", commit_interval=interval)
        assert sync.wait(30)
        runs.append(sync._record()["run"])
    assert runs[0] == runs[1] != runs[2]
    sync.request_stop()
    again: Any = source.sync("orders", tmp_path / "table", commit_interval=0.2)
    streams.put(10)
    assert again.wait(30)
    assert again.is_active
    assert again._record()["run"] not in runs
    assert len(source.jobs()) == 1
    with pytest.raises(kn.StreamNotFound):
        source.sync("nowhere", tmp_path / "table")
    assert again.is_active  # what cannot begin replaces nothing
    again.stop()
    assert again.wait(5) is False
    assert by_key(again.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)


def test_a_stopped_job_was_not_through(near: Cluster, emulator: Any, streams: Streams, tmp_path: Path) -> None:
    """Who waits hears True only when every row is there: not when the job was stopped, or never submitted."""
    streams.create()
    order = table_of(emulator, tmp_path)
    near.check()
    sync = AgentSync(near, order.job(), order, Storage.at(order.uri))
    what = {"kind": "sync", "stream": "orders", "place": order.uri}
    near.desk("open", job=order.job(), order=b"", what=what, setup="", run="r", keys=["a-r-0"], again=False)
    assert sync.wait(0) is False
    near.desk("withdraw", job=order.job(), run="r", reason="its client ended")
    with pytest.raises(kn.AgentError, match="never submitted"):
        sync.wait(5)
    assert sync.status().state == "failed"
    submit(near, order)
    assert sync.wait(30)
    sync.stop()
    assert sync.wait(5) is False
    assert sync.status().state == "stopped"


def test_a_relative_path_is_of_this_process(
    near: Cluster, emulator: Any, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative place or journal is in the folder of whoever said it; agents on other machines do not have that."""
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
    [body] = [body for body in near.desk("join", **STRANGER)["orders"].values() if b"own.journal" in body]
    ordered: Any = read_order(body)  # whoever runs it may be in any folder
    assert ordered.order.span.journal == str(tmp_path / "elsewhere" / "own.journal")
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
    """A page of another site gets no metrics, by whatever name it leads a browser here."""
    said: list[str] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"rows"]

    answer = guarded(app, listens_at)(headers, lambda status, _headers: said.append(status))
    assert said == (["200 OK"] if is_answered else ["403 Forbidden"])
    assert (b"rows" in b"".join(answer)) is is_answered
