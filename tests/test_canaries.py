"""Every public call, with each thing failing that it needs: no secret in the error, its frames, the logs or warnings.

`WALK` names the places. A public call that is neither walked nor said to be harmless fails the last test.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import pickle
import traceback
import types
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keyring
import polars as pl
import pytest
from keyring.backend import KeyringBackend

import kinesis_nb as kn
from kinesis_nb.agents.job import Job
from kinesis_nb.agents.protocol import JobInfo
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import Emulator
from tests.conftest import Streams
from tests.support import servers
from tests.support.aws import Gate, Quiet, refusal, serving
from tests.support.local import local
from tests.support.s3_proxy import S3Proxy
from tests.test_secrets import CANARIES, ROLE, _Sts, credentials, hits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DEPTH = 6  # of what hangs on a variable of a frame
CLOSED = (type, types.ModuleType, types.FunctionType, kn.Secret, kn.Source)  # nothing of them is shown by itself


class _Kinesis(Gate):
    """A Kinesis that fails as it is told."""

    mode = ""

    def pass_on(self, action: str, token: str | None, body: bytes, headers: Any) -> tuple[int, bytes]:
        if self.mode == "signature":  # AWS quotes what should have been signed, the token among it
            quoted = f"The Canonical String should have been 'POST\n/\n\nx-amz-security-token:{token}\n'"
            return 400, refusal("InvalidSignatureException", quoted)
        if self.mode == "html":
            return 200, b"<html>proxy</html>"
        if self.mode == "denied":
            return 400, refusal("AccessDeniedException", "no")
        return super().pass_on(action, token, body, headers)


class _FailingSts(_Sts):
    mode = ""

    def give(self, body: str) -> tuple[int, bytes]:
        status, answer = super().give(body)
        if "<AssumeRoleResult>" in answer.decode():
            match self.mode:
                case "cut":
                    answer = answer[: answer.index(b"<Expiration>")]
                case "partial":
                    first, _, rest = answer.partition(b"<Expiration>")
                    answer = first + rest.partition(b"</Expiration>")[2]
                case "html":
                    answer = b"<html>proxy</html>"
                case "refuses":
                    status, answer = 403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
        return status, answer


class _Locked(KeyringBackend):
    """A keyring that fails, and says all it was given."""

    priority = 5.0  # pyright: ignore[reportAssignmentType] - as each back end of keyring sets it

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError(f"locked: {CANARIES['secret']}")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"locked: {password}")

    def delete_password(self, service: str, username: str) -> None:
        raise RuntimeError("locked")


class _Proxy(Quiet):
    def do_CONNECT(self) -> None:
        self.answer(407, b"", Proxy_Authenticate="Basic")


class _Hurried(SystemClock):
    """A clock on which whoever tries again has no time left for that."""

    def __init__(self) -> None:
        self._passed = 0.0

    def monotonic(self) -> float:
        self._passed += 1000
        return super().monotonic() + self._passed


@dataclass
class World:
    """Sources with secrets of every kind, and what can fail."""

    kinesis: _Kinesis
    sts: _FailingSts
    s3: S3Proxy
    streams: Streams
    folder: Path
    direct: kn.Source
    role: kn.Source
    refused: kn.Source  # by its proxy
    away: kn.Source  # whose proxy is not there
    agents: kn.Source
    storage: dict[str, str]
    bucket: str
    arn: str
    made: int = 0
    held: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def failing(self, what: str) -> Iterator[None]:
        which, _, mode = what.partition(" ")
        before = keyring.get_keyring()
        try:
            if which == "kinesis":
                self.kinesis.mode = mode
            elif which == "sts":
                self.sts.mode = mode
            elif which == "s3":
                self.s3.before = lambda *_: int(mode)
            elif which == "keyring":
                keyring.set_keyring(_Locked())
            yield
        finally:
            self.kinesis.mode = self.sts.mode = ""
            self.s3.before = lambda *_: 0
            keyring.set_keyring(before)

    def place(self) -> str:
        self.made += 1
        return f"{self.bucket}/t{self.made}"

    def new_folder(self) -> Path:
        self.made += 1
        return self.folder / f"t{self.made}"

    @property
    def sync(self) -> kn.Sync:
        """A sync into S3 that has committed."""
        if "sync" not in self.held:
            self.held["sync"] = local(self.direct.sync("orders", self.place(), storage_options=self.storage))
            assert self.held["sync"].wait(30)
        return self.held["sync"]

    @property
    def view(self) -> kn.StreamView:
        """What knows its stream, and has asked for nothing else."""
        return self.held.get("view") or self.held.setdefault("view", self.direct.explore("orders"))

    @property
    def rows(self) -> pl.LazyFrame:
        return self.held.get("rows") if "rows" in self.held else self.held.setdefault("rows", self.sync.scan())  # type: ignore[return-value]

    def fresh_view(self) -> kn.StreamView:
        """A view as it is right after it was made."""
        seen = self.view
        return kn.StreamView(seen._kinesis, "orders", seen._read)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, ministack: str) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("canaries")
    with pytest.MonkeyPatch.context() as patch, Emulator() as emulator, serving(_Proxy) as proxy:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        streams = Streams(emulator)
        streams.create()
        arn = streams.create("copy")
        streams.put(20)
        kinesis, sts, s3 = _Kinesis(emulator.endpoint_url, ALLOWED), _FailingSts(), S3Proxy(ministack)
        with kinesis.open() as url, sts.open() as sts_url, s3.open() as s3_url:
            auth = credentials()
            direct = kn.connect(auth=auth, endpoint_url=url, exports_enabled=True)
            role = kn.connect(auth=auth, sts_role=ROLE, endpoint_url=url, sts_endpoint_url=sts_url)
            password = f"ada:{CANARIES['proxy']}@"
            refused = kn.connect(auth=auth, proxy=proxy.replace("://", f"://{password}"))
            away = kn.connect(auth=auth, proxy=f"http://{password}127.0.0.1:9")
            agents = kn.connect(auth=auth, endpoint_url=url, agents="tcp://127.0.0.1:9", exports_enabled=True)
            address, options = servers.bucket(ministack)
            storage = {"endpoint_url": s3_url, "region": "us-east-1", "allow_http": "true", "access_key_id": "tester"}
            storage |= {"secret_access_key": CANARIES["role's secret"], "session_token": CANARIES["role's token"]}
            assert options
            made = World(kinesis, sts, s3, streams, folder, direct, role, refused, away, agents, storage, address, arn)
            yield made
            if "sync" in made.held:
                with contextlib.suppress(kn.TableError):  # it has just been refused, and may not have tried again yet
                    made.held["sync"].stop()
            made.held.clear()
            gc.collect()


ALLOWED = {
    *("ListShards", "GetShardIterator", "GetRecords", "DescribeStream", "DescribeStreamSummary", "ListStreams"),
    "PutRecords",
}

Call = Callable[[World], object]
KINESIS: dict[str, Call] = {
    "Source.explore": lambda w: w.direct.explore(),
    "Source.explore of a stream": lambda w: w.direct.explore("orders"),
    "Source.read": lambda w: w.direct.read("orders", progress=False),
    "Source.tail": lambda w: w.direct.tail("orders"),
    "Source.sync": lambda w: w.direct.sync("orders", w.new_folder()),
    "Source.sync into S3": lambda w: w.direct.sync("orders", w.place(), storage_options=w.storage),
    "Source.export_df": lambda w: w.direct.export_df(pl.DataFrame({"k": ["a"]}), w.arn, progress=False),
    "Source.export_stream": lambda w: w.direct.export_stream(
        w.sync.uri, w.arn, journal=w.new_folder(), storage_options=w.storage
    ).wait(20),
    "Source.iam_policy": lambda w: w.direct.iam_policy(["orders"]),
    "StreamView.summary": lambda w: w.fresh_view().summary,
    "StreamView.shards": lambda w: w.fresh_view().shards,
    "StreamView.open_shards": lambda w: w.fresh_view().open_shards,
    "StreamView.lineage": lambda w: w.fresh_view().lineage,
    "StreamView.shard_for": lambda w: w.fresh_view().shard_for("a"),
    "StreamView.sample": lambda w: w.fresh_view().sample(),
    "StreamView.schema": lambda w: w.fresh_view().schema(),
    "StreamView.heat": lambda w: w.fresh_view().heat(),
    "StreamView.lag": lambda w: w.fresh_view().lag(),
}
S3: dict[str, Call] = {
    "Source.sync": lambda w: w.direct.sync("orders", w.place(), storage_options=w.storage),
    "Source.export_stream": lambda w: w.direct.export_stream(w.sync, w.arn, journal=w.new_folder()),
    "Source.export_stream of an address": lambda w: w.direct.export_stream(
        w.sync.uri, w.arn, journal=w.new_folder(), storage_options=w.storage
    ),
    "Sync.scan": lambda w: w.sync.scan(),
    "Sync.scan of a version": lambda w: w.sync.scan(1),
    "a scan collected": lambda w: w.rows.collect(),
    "a scan collected by the streaming engine": lambda w: w.rows.select("data").collect(engine="streaming"),
    "Sync.to_arrow": lambda w: w.sync.to_arrow(),
    "Sync.to_polars": lambda w: w.sync.to_polars(),
    "Sync.to_pandas": lambda w: w.sync.to_pandas(),
    "Sync.__arrow_c_stream__": lambda w: w.sync.__arrow_c_stream__(),
    "Sync.__len__": lambda w: len(w.sync),
    "Sync.live": lambda w: w.sync.live,
    "Sync.verify": lambda w: w.sync.verify(),
}
OTHERS: dict[tuple[str, str], Call] = {
    ("Source.explore", "proxy 407"): lambda w: w.refused.explore(),
    ("Source.read", "proxy 407"): lambda w: w.refused.read("orders", progress=False),
    ("Source.check", "proxy away"): lambda w: w.away.check(read=["orders"]),
    ("Source.explore", "proxy away"): lambda w: w.away.explore(),
    ("Source.save", "keyring locked"): lambda w: w.direct.save("prod"),
    ("Source.save of a proxy", "keyring locked"): lambda w: w.away.save("proxied"),
    ("connect", "keyring locked"): lambda w: _saved_and_locked(w),
    ("connect", "a region"): lambda w: kn.connect(region="?", auth=w.direct.config.auth, proxy=_proxy_url()),
    ("connect", "an option"): lambda _: kn.connect(proxi=_proxy_url()),  # type: ignore[call-arg]
    ("connect", "a proxy"): lambda _: kn.connect(proxy=_proxy_url().replace("http", "gopher")),
    ("StaticCredentials", "a sign"): lambda _: kn.StaticCredentials("AKIA", CANARIES["secret"] + "\n"),
    ("Source.sync", "an option"): lambda w: w.direct.sync("orders", w.place(), storage_option=w.storage),  # type: ignore[call-arg]
    ("Source.sync", "options"): lambda w: w.direct.sync("orders", w.place(), storage_options={**w.storage, "a": 1}),  # type: ignore[dict-item]
    ("Source.export_stream", "an option"): lambda w: w.direct.export_stream(w.sync, w.arn, storage_options=w.storage),
    ("Source.jobs", "agents away"): lambda w: w.agents.jobs(),
    ("Source.sync on agents", "agents away"): lambda w: w.agents.sync("orders", w.place(), storage_options=w.storage),
    ("Job.status", "agents away"): lambda w: _job(w).status(),
    ("Job.wait", "agents away"): lambda w: _job(w).wait(1),
    ("Job.stop", "agents away"): lambda w: _job(w).stop(),
}
STS: dict[str, Call] = {
    "Source.explore": lambda w: _fresh_role(w).explore(),
    "Source.read": lambda w: _fresh_role(w).read("orders", progress=False),
    "Source.sync into S3": lambda w: _fresh_role(w).sync("orders", w.place(), storage_options=w.storage),
}
WALK: dict[tuple[str, str], Call] = {
    **{(name, f"kinesis {mode}"): call for name, call in KINESIS.items() for mode in ("signature", "denied")},
    **{(name, "s3 403"): call for name, call in S3.items()},
    **{(name, f"sts {mode}"): call for name, call in STS.items() for mode in ("cut", "partial", "html", "refuses")},
    **OTHERS,
}
CLASSES = (kn.Source, kn.Sync, kn.Tail, kn.Records, kn.StreamingExport, kn.StreamView, kn.Catalog, Job)
ELSEWHERE = {  # in the tests below, of what runs
    *(
        "Tail.error",
        "Tail.take",
        "Tail.stats",
        "Tail.status",
        "Tail.wait",
        "StreamingExport.wait",
        "StreamingExport.status",
    ),
    *("Sync.wait", "Sync.status", "Sync.stop", "Sync.storage_options", "StreamingExport.stop"),
}
HARMLESS = {  # tells what it holds, stops or starts threads, or is made of values alone
    *("Records.head", "Records.last", "Records.tail", "Records.to_arrow", "Records.to_pandas", "Records.to_polars"),
    *(
        "Tail.batches",
        "Tail.is_active",
        "Tail.pause",
        "Tail.resume",
        "Tail.state",
        "Tail.stop",
        "Tail.to_arrow",
        "Tail.to_pandas",
    ),
    "Records.view",
    *("Tail.to_perspective", "Tail.to_polars", "Tail.unwatch", "Tail.view", "Tail.watch"),
    *("Sync.all_caught_up", "Sync.children_for_others", "Sync.has_trouble", "Sync.is_active", "Sync.join"),
    *("Sync.list_now", "Sync.request_stop", "Sync.start", "Sync.uri"),
    *("StreamingExport.failed", "StreamingExport.has_trouble", "StreamingExport.is_active"),
    *("StreamingExport.is_running", "StreamingExport.join", "StreamingExport.request_stop", "StreamingExport.start"),
    # those ask as Job.status() does
    *("Job.agents", "Job.is_active", "Job.join", "Job.logs", "Job.parts", "Job.request_stop"),
    "StreamView.extras",  # a call that is refused gives no error
    *("Catalog.get", "Catalog.items", "Catalog.keys", "Catalog.to_arrow", "Catalog.to_polars", "Catalog.values"),
    *("Catalog.to_pandas", "Sync.warn_if_left_alone"),
    *("AwsInstance", "Profile", "Secret", "StsRole", "StartingPosition", "demo", "parse_json", "sources"),
    *("AgentExport", "AgentSync", "PartStatus", "SyncStatus", "TailStats", "StreamingExportStatus", "BufferStats"),
    *("TableCheck", "ShardCheck", "ConsumerStats", "Gap", "Heat", "Lineage", "Schema", "Shard", "StreamSummary"),
    *("Record", "ExportReport", "IamPolicy", "Permission", "PermissionReport", "Verdict"),
}


def _proxy_url() -> str:
    return f"http://ada:{CANARIES['proxy']}@127.0.0.1:9"


def _saved_and_locked(world: World) -> object:
    with world.failing(""):
        world.direct.save("prod")
    keyring.set_keyring(_Locked())
    return kn.connect("prod")


def _fresh_role(world: World) -> kn.Source:
    """A source that has not assumed its role yet."""
    return kn.Source(world.role.config, clock=_Hurried())


def _job(world: World) -> Job:
    return Job(world.agents._agents.cluster, "job", JobInfo("sync", "orders", "s3://bucket/t"))


def leaks(error: BaseException) -> dict[str, list[str]]:
    """Return where a secret hangs on an error: in its texts, and in all that a debugger finds from its frames."""
    found: dict[str, list[str]] = {}
    for one in _led(error):
        texts = f"{one!r} {one} {one.args} {getattr(one, '__notes__', '')} {vars(one)}"
        found[f"texts of {type(one).__name__}"] = hits(texts)
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename != __file__:
                for name, value in frame.f_locals.items():
                    found[f"{name} in {frame.f_code.co_qualname}"] = _within(value)
    with contextlib.suppress(AttributeError):  # a client of Dask that never connected has no repr
        captured = traceback.TracebackException.from_exception(_beneath(error), capture_locals=True)
        found["traceback with locals"] = hits("".join(captured.format()))
    return {where: what for where, what in found.items() if what}


def _led(error: BaseException) -> list[BaseException]:
    led = [error]
    for one in led:
        led += [more for more in (one.__cause__, one.__context__) if more is not None and more not in led]
    return led


def _beneath(error: BaseException) -> BaseException:
    """Return the error without the frames of this file, whose variables are secrets."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


def _within(value: object) -> list[str]:
    """Return the secrets within a value, its items and attributes, down to `DEPTH`."""
    found: set[str] = set()
    seen: set[int] = set()
    todo: list[tuple[object, int]] = [(value, 0)]
    while todo:
        one, depth = todo.pop()
        if id(one) in seen or depth > DEPTH or isinstance(one, CLOSED):
            continue
        seen.add(id(one))
        if isinstance(one, str | bytes):
            found.update(hits(one))
        elif isinstance(one, dict):
            todo += [(part, depth + 1) for part in (*one.keys(), *one.values())]
        elif isinstance(one, list | tuple | set | frozenset):
            todo += [(part, depth + 1) for part in one]
        elif isinstance(one, types.TracebackType):
            todo += [(frame.f_locals, depth + 1) for frame, _ in traceback.walk_tb(one)]
        elif isinstance(one, BaseException):
            todo += [(one.args, depth + 1), (vars(one), depth + 1), (one.__traceback__, depth + 1)]
        elif type(one).__module__.partition(".")[0] in {"kinesis_nb", "polars", "deltalake", "pyarrow"}:
            todo += [(one.__dict__, depth + 1)] if hasattr(one, "__dict__") else []
    return sorted(found)


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.lines.append(f"{record.name} {record.getMessage()} {trace}")


@contextmanager
def overheard() -> Iterator[_Logged]:
    """Hear every logger at DEBUG."""
    heard, root = _Logged(), logging.getLogger()
    level = root.level
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.removeHandler(heard)
        root.setLevel(level)


@pytest.mark.parametrize("place", WALK, ids=" - ".join)
def test_nothing_is_given_away(world: World, place: tuple[str, str]) -> None:
    """The error is ours, in two lines; nothing that hangs on it, that was logged or warned of, is a secret."""
    if place[1].startswith(("kinesis", "s3")):
        _ = world.view, world.sync, world.rows
    with world.failing(place[1]), overheard() as heard, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            given = WALK[place](world)
        except BaseException as raised:  # noqa: BLE001 - of whatever kind, it is looked at
            error = raised
        else:
            pytest.fail(f"nothing failed: {given!r}")
    assert leaks(error) == {}
    assert hits("\n".join(heard.lines)) == []
    assert hits(" ".join(str(one.message) for one in warned)) == []
    assert isinstance(error, kn.KinesisError), repr(error)
    assert len(str(error).splitlines()) <= 2


def test_a_running_tail_and_export_end_without_a_secret(world: World) -> None:
    """What their threads meet reaches the user from calls that only wait."""
    with world.direct.tail("orders") as tail, world.failing("kinesis denied"):
        world.streams.put(5)
        with pytest.raises(kn.KinesisError) as caught:
            tail.take(1000, timeout=30)
    assert leaks(caught.value) == {}
    assert hits(f"{tail!r} {tail.stats()} {tail._repr_html_()}") == []
    with world.direct.tail("orders") as tail, world.failing("kinesis denied"):
        world.streams.put(5)
        assert tail._buffer.wait_closed(30)
    assert isinstance(tail.error, kn.KinesisError)
    assert leaks(tail.error) == {}
    export = world.direct.export_stream(world.sync, world.arn, journal=world.new_folder())
    with world.failing("kinesis denied"):
        world.streams.put(5)
        with pytest.raises(kn.KinesisError) as caught:
            export.wait(30, until_caught_up=False)
    assert leaks(caught.value) == {}
    assert hits(f"{export!r} {export.status()} {export._repr_html_()}") == []


def test_a_running_sync_shows_no_secret(world: World) -> None:
    """While its storage refuses it, what it says of itself has no key; neither has what stop() raises."""
    sync = world.direct.sync("orders", world.place(), storage_options=world.storage, commit_interval=0.05)
    assert sync.wait(30)
    with world.failing("s3 403"), overheard() as heard:
        world.streams.put(5)
        assert not sync.wait(3)
        assert hits(f"{sync!r} {sync.status()} {sync._repr_html_()}") == []
        with pytest.raises(kn.TableError) as caught:
            sync.stop()
    assert leaks(caught.value) == {}
    assert hits("\n".join(heard.lines)) == []


@pytest.mark.parametrize("name", ["sync", "view", "rows"])
def test_what_survives_is_not_pickled_with_secrets(world: World, name: str) -> None:
    """A pickle of it has no secret, or is refused."""
    thing = getattr(world, name)
    try:
        dumped = pickle.dumps(thing)
    except (TypeError, AttributeError, pickle.PicklingError, pl.exceptions.ComputeError):
        return
    assert hits(dumped) == []


def test_the_search_finds_what_is_there() -> None:
    """In a variable of a frame, behind a cause, in a note: or the tests above would prove nothing."""

    def call(options: object) -> None:
        _ = options
        exec(compile("def inner(kept):\n    raise ValueError('no')\ninner(options)", "elsewhere.py", "exec"))

    for kept in (
        {"a": [CANARIES["token"]]},
        RuntimeError(CANARIES["token"]),
        kn.KinesisError("x", hint=CANARIES["token"]),
    ):
        with pytest.raises(ValueError, match="no") as caught:
            call(kept)
        assert any(name.startswith("kept in ") for name in leaks(caught.value))
    error = ValueError("no")
    error.__cause__ = ValueError(CANARIES["secret"])
    assert "texts of ValueError" in leaks(error)
    noted = ValueError("no")
    noted.add_note(CANARIES["secret"])
    assert leaks(noted)


def test_no_public_call_is_left_out() -> None:
    """Each is walked, or is said to be harmless; what does not exist any more is in neither."""
    classes = {kind.__name__ for kind in CLASSES}
    names = {
        f"{kind.__name__}.{name}"
        for kind in CLASSES
        for name in dir(kind)
        if not name.startswith("_") and callable_or_property(kind, name)
    }
    errors = {name for name in kn.__all__ if inspect.isclass(value := getattr(kn, name)) and _is_error(value)}
    names |= set(kn.__all__) - classes - errors
    walked = {name.partition(" ")[0] for name, _ in WALK}
    inner = {"Sync.__len__", "Sync.__arrow_c_stream__"}
    assert len(WALK) >= 40
    assert names - walked - ELSEWHERE - HARMLESS == set()
    assert (walked | ELSEWHERE | HARMLESS) - names - inner - {"a"} == set()
    assert walked & HARMLESS == set()


def callable_or_property(kind: type, name: str) -> bool:
    member = inspect.getattr_static(kind, name)
    return inspect.isfunction(member) or isinstance(member, property | cached_property)


def _is_error(value: type) -> bool:
    return issubclass(value, kn.KinesisError)
