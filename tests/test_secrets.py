"""Canaries: secrets given to a source are searched wherever they could end up."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
import urllib.parse
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from IPython.core.ultratb import VerboseTB
from IPython.lib.pretty import pretty
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback as RichTraceback

import kinesis_nb as kn
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import Emulator, ErrorReply
from kinesis_nb.errors import forgetful
from kinesis_nb.table.storage import Storage
from tests.conftest import Streams
from tests.support.aws import Gate, Sts
from tests.support.local import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

CANARIES = {
    "secret": "CANARYsecret/k3y+0123456789",
    "token": "CANARYtoken//0123456789==",
    "proxy": "CANARYproxy0123456789",
    "role's secret": "CANARYrolesecret/0123456789",
    "role's token": "CANARYroletoken+0123456789",
    "record": "CANARYrecord0123456789",
}
ROLE = kn.StsRole("arn:aws:iam::123456789012:role/reader", "me")


def hits(text: str | bytes) -> list[str]:
    """Return which canaries are in a text: as they are, quoted for an address, or in base64."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    found = []
    for name, canary in CANARIES.items():
        user = base64.b64encode(f"ada:{canary}".encode())
        forms = [canary.encode(), urllib.parse.quote(canary, safe="").encode(), base64.b64encode(canary.encode()), user]
        if any(form in data for form in forms):
            found.append(name)
    return found


class _Sts(Sts):
    def give(self, body: str) -> tuple[int, bytes]:
        status, answer = super().give(body)
        number = len(self.requests)
        secret, token = CANARIES["role's secret"], CANARIES["role's token"]
        self.expires[token] = self.expires.get(f"token-{number}", SystemClock().now())
        text = answer.decode().replace(f"secret-{number}", secret).replace(f"token-{number}", token)
        return status, text.encode()


def credentials() -> kn.StaticCredentials:
    return kn.StaticCredentials("AKIATEST", CANARIES["secret"], CANARIES["token"])


@dataclasses.dataclass
class World:
    """A source with secrets of every kind, what it made, and the mistakes one can make with it."""

    gate: Gate
    source: kn.Source
    broken: kn.Source
    streams: Streams
    folder: Path

    def objects(self) -> dict[str, object]:
        made: dict[str, object] = {
            "source": self.source,
            "config": self.source.config,
            "auth": self.source.config.auth,
            "secret": self.source.config.auth.secret_access_key,  # type: ignore[union-attr]
            "role": self.source.config.sts_role,
            "proxied": self.broken,
            "proxied config": self.broken.config,
            "proxy": self.broken.config.proxy,
            "policy": self.source.iam_policy(["orders"], trust=ROLE.role_arn),
            "check": self.source.check(read=["orders"]),
            "catalog": self.source.explore(),
            "view": self.source.explore("orders"),
            "client": self.source._kinesis,
            "credentials": self.source._kinesis._credentials,  # type: ignore[attr-defined]
            "loaded": self.source._kinesis._credentials._loaded,  # type: ignore[attr-defined]
        }
        return made | self.running()

    def running(self) -> dict[str, object]:
        """Return what reads and writes, stopped, and what it gave."""
        arn = self.streams.create("copy")
        rows = self.source.read("orders", progress=False)
        with self.source.tail("orders", start="trim_horizon") as tail:
            tail.take(10, timeout=5)
        sync = self.source.sync("orders", self.folder / "shown", commit_interval=0.05)
        assert sync.wait(timeout=20)
        sync.stop()
        export = local(self.source.export_stream(sync, arn))
        assert export.wait(timeout=20)
        export.stop()
        return {
            "records": rows,
            "tail": tail,
            "tail's figures": tail.stats(),
            "sync": sync,
            "sync's status": sync.status(),
            "verdict": sync.verify(),
            "report": self.source.export_df(rows, arn, progress=False),
            "streaming export": export,
            "streaming export's status": export.status(),
            "journal": export.journal,
        }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with Emulator() as emulator:
        streams = Streams(emulator)
        streams.create()
        streams.put(20)
        sts = _Sts(SystemClock())
        allowed = {"ListShards", "GetShardIterator", "GetRecords", "DescribeStream", "DescribeStreamSummary"}
        gate = Gate(emulator.endpoint_url, {*allowed, "ListStreams", "PutRecords"})
        with sts.open() as sts_url, gate.open() as url:
            auth = credentials()
            source = kn.connect(
                auth=auth, sts_role=ROLE, endpoint_url=url, sts_endpoint_url=sts_url, exports_enabled=True
            )
            broken = kn.connect(auth=auth, proxy=f"http://ada:{CANARIES['proxy']}@127.0.0.1:9")
            yield World(gate, source, broken, streams, tmp_path)


def failures(world: World) -> list[BaseException]:
    """Return errors of every kind that a source with secrets can end in."""
    found: list[BaseException] = []
    for code in ("AccessDeniedException", "InvalidSignatureException", "InternalFailure", "ExpiredTokenException"):
        world.streams.emulator.on("ListShards", *[ErrorReply(code)] * 2)
        found += _error(world.source._kinesis.list_shards, "orders")
    found += _error(world.broken._kinesis.list_streams)
    found += _error(world.source.read, "ordres")
    found += _error(_connect_wrongly)
    found += _error(_sign_in_wrongly)
    found += _error(lambda: kn.connect(auth=kn.Profile("no-such-profile")).explore())
    assert len(found) == 9
    return found


def _connect_wrongly() -> None:
    kn.connect(region="not a region", **_secrets())


def _sign_in_wrongly() -> None:
    kn.StaticCredentials("AKIA\n", *_keys())


def _secrets() -> dict[str, Any]:
    return {"proxy": f"http://ada:{CANARIES['proxy']}@127.0.0.1:9", "auth": credentials()}


def _keys() -> list[str]:
    return [CANARIES["secret"], CANARIES["token"]]


def _error(call: Callable[..., object], *args: object) -> list[BaseException]:
    try:
        call(*args)
    except kn.KinesisError as error:
        return [error]
    return []


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError):
        return b""


def _copied(value: object) -> str:
    try:
        return repr(vars(copy.deepcopy(value)))
    except TypeError:
        return ""


def _fields(value: object) -> str:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return ""
    shown = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return f"{shown} {json.dumps(shown, default=str)}"


def _rich_locals(error: BaseException) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(RichTraceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    return console.file.getvalue()  # type: ignore[attr-defined]


VALUE_PLACES: dict[str, Callable[[Any], str | bytes]] = {
    "repr": repr,
    "str": str,
    "format": lambda value: f"{value} {value!s} {value!r}",
    "rich": lambda value: pretty_repr(value),
    "IPython's pretty": pretty,
    "HTML": lambda value: value._repr_html_() if hasattr(value, "_repr_html_") else "",
    "pickle": _pickled,
    "deepcopy": _copied,
    "fields and JSON": _fields,
    "vars": lambda value: repr(getattr(value, "__dict__", "")),
    "dir": lambda value: " ".join(dir(value)),
}
ERROR_PLACES: dict[str, Callable[[BaseException], str]] = {
    "message and hint": lambda error: f"{error} {error.__dict__} {error.args}",
    "the errors behind it": lambda error: " ".join(f"{one!r} {one.__dict__}" for one in _chain(error)),
    "traceback": lambda error: "".join(traceback.format_exception(error)),
    "traceback with locals": lambda error: "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    ),
    "IPython's Verbose": lambda error: (
        VerboseTB(theme_name="nocolor", tb_offset=0).text(type(error), error, error.__traceback__)
        if error.__traceback__
        else ""
    ),
    "rich's locals": _rich_locals,
}


def test_no_value_shows_a_secret(world: World) -> None:
    """Nothing that a source is made of, or gives, tells a secret by being printed, copied or pickled."""
    objects = world.objects()
    held = world.source._kinesis._credentials.get_frozen_credentials()  # type: ignore[attr-defined]
    assert hits(f"{held.secret_key} {held.token}") == ["role's secret", "role's token"]  # or nothing is proven
    found = {
        f"{place} of {name}": hits(show(value))
        for name, value in objects.items()
        for place, show in VALUE_PLACES.items()
    }
    assert len(found) == len(objects) * len(VALUE_PLACES)
    assert {where: what for where, what in found.items() if what} == {}


def test_no_error_shows_a_secret(world: World) -> None:
    """Messages, what led to them, and tracebacks in their most talkative forms."""
    errors = failures(world)
    found = {
        f"{place} of {type(error).__name__} {error}": hits(show(error))
        for error in errors
        for place, show in ERROR_PLACES.items()
    }
    assert {where: what for where, what in found.items() if what} == {}


def test_no_error_about_a_table_in_s3_shows_a_secret(world: World, ministack: str) -> None:
    """Neither the keys of the source, which a table in S3 is reached with, nor those that were given for it."""
    arn = world.streams.create("copy")
    errors = _error(lambda: world.source.sync("orders", "s3://no-such-bucket/t", storage_options=_given(ministack)))
    errors += _error(
        lambda: world.source.export_stream(
            "s3://no-such-bucket/t", arn, journal=world.folder / "j", storage_options={"endpoint_url": ministack}
        )
    )
    keys = world.source._kinesis.storage_options
    with pytest.raises(OSError) as caught:  # as a background thread meets it
        Storage("s3://no-such-bucket/t", lambda: {**keys(), "endpoint_url": ministack}).open()
    errors.append(caught.value)
    found = {f"{place} of {error!r}": hits(show(error)) for error in errors for place, show in ERROR_PLACES.items()}
    assert len(errors) == 3
    assert {where: what for where, what in found.items() if what} == {}
    options = Storage("s3://bucket/t", keys).options()
    assert hits(json.dumps(options)) == ["role's secret", "role's token"]  # or nothing is proven
    shown = {place: hits(show(options)) for place, show in VALUE_PLACES.items() if place != "pickle"}  # workers get it
    assert not any(shown.values()), shown


def _given(url: str) -> dict[str, str]:
    return {"endpoint_url": url, "access_key_id": "A", "secret_access_key": CANARIES["secret"]}


def test_no_log_shows_a_secret_or_a_record(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """With everything logged at DEBUG: no key, token, signature or record, while the calls can still be seen."""
    canary = json.dumps({"n": CANARIES["record"]}).encode()
    world.streams.call("PutRecord", StreamName="orders", PartitionKey="a", Data=canary)
    with caplog.at_level(logging.DEBUG):
        rows = world.source.read("orders", progress=False)
        world.source.export_df(rows, world.source.explore("orders").summary.arn, progress=False)
        failures(world)
    assert CANARIES["record"] in str(rows.to_polars().to_dicts())
    lines = [f"{record.name} {record.getMessage()} {record.exc_text or ''}" for record in caplog.records]
    text = "\n".join(lines)
    assert hits(text) == []
    assert hits(caplog.text) == []
    for word in ("Signature=", "AWS4-HMAC-SHA256", "Credential="):
        assert word not in text
    assert any("OperationModel(name=ListShards)" in line for line in lines)
    assert any(line.startswith("botocore") for line in lines)


def test_nothing_is_printed_or_put_into_the_environment(world: World, recwarn: pytest.WarningsRecorder) -> None:
    """Neither output, nor warnings, nor what child processes inherit."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        world.source.read("orders", progress=True)
        failures(world)
    assert hits(out.getvalue() + err.getvalue()) == []
    assert hits(" ".join(str(warning.message) for warning in recwarn)) == []
    assert hits(repr(dict(os.environ))) == []


def test_no_file_holds_a_secret(world: World) -> None:
    """A saved source, a table with its log and checkpoints, a journal, and the figures of whatever runs."""
    for source, name in ((world.source, "prod"), (world.broken, "proxied")):
        with pytest.warns(UserWarning, match=f"source '{name}' is saved without its "):
            source.save(name)
    sync = world.source.sync("orders", world.folder / "table", commit_interval=0.05)
    world.streams.put(200)
    assert sync.wait(timeout=20)
    shown = [repr(sync), sync._repr_html_(), repr(sync.status())]
    sync.stop()
    with world.source.tail("orders", start="trim_horizon") as tail:
        tail.take(10, timeout=5)
        shown += [repr(tail), tail._repr_html_(), repr(tail.stats())]
    arn = world.source.explore("orders").summary.arn
    report = world.source.export_df(world.source.read("orders", progress=False), arn, progress=False)
    shown += [repr(report), report._repr_html_()]
    export = world.source.export_stream(sync, world.streams.create("copy"))
    assert export.wait(timeout=20)
    shown += [repr(export), export._repr_html_(), repr(export.status())]
    export.stop()
    files = [path for path in world.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".toml", ".parquet", ".json", ".journal"}
    assert {str(path): hits(path.read_bytes()) for path in files if hits(path.read_bytes())} == {}
    assert hits("".join(shown)) == []


CELLS = [
    """
import json, logging, os, sys
import kinesis_nb as kn
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
""",
    """
secrets = json.load(open(os.environ['CANARIES']))
auth = kn.StaticCredentials('AKIATEST', secrets['secret'], secrets['token'])
source = kn.connect(auth=auth, endpoint_url=os.environ['ENDPOINT'])
proxied = kn.connect(auth=auth, proxy='http://ada:%s@127.0.0.1:9' % secrets['proxy'])
del secrets
""",
    "display(source, proxied, auth, source.config, proxied.config, vars(source), source.explore('orders'))",
    "display(source.read('orders'), source.check(read=['orders']), source.iam_policy(['orders']))",
    "%xmode Verbose\nsource.read('ordres')",
    "proxied._kinesis.list_streams()",
    "kn.connect(region='?', auth=auth)",
    "%whos",
    "source.save('from-a-notebook')",
    "%hist -g",
]


def test_a_saved_notebook_holds_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is displayed, logged or fails in a real kernel: the notebook, its widgets, its HTML, its history."""
    home = world.folder / "home"
    home.mkdir()
    given = world.folder / "given.json"
    given.write_text(json.dumps(CANARIES))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home / name))
    monkeypatch.setenv("CANARIES", str(given))
    monkeypatch.setenv("ENDPOINT", world.streams.emulator.endpoint_url)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    client = NotebookClient(notebook, timeout=60, allow_errors=True, store_widget_state=True)
    client.extra_arguments = [f"--HistoryManager.hist_file={home / 'history.sqlite'}"]
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert sum(output.output_type == "error" for output in outputs) == 3
    assert "application/vnd.jupyter.widget-state+json" in notebook.metadata["widgets"]
    saved = nbformat.writes(notebook)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "OperationModel" in saved
    assert "did you mean" in saved
    given.unlink()
    files = {str(path): hits(path.read_bytes()) for path in home.rglob("*") if path.is_file()}
    assert any(path.endswith("history.sqlite") for path in files)
    assert {
        name: found for name, found in {"notebook": hits(saved), "HTML": hits(page), **files}.items() if found
    } == {}


def test_the_search_finds_what_is_there() -> None:
    """A canary in any of its forms is found, or the tests above would prove nothing."""
    for name, canary in CANARIES.items():
        for text in (canary, urllib.parse.quote(canary, safe=""), base64.b64encode(canary.encode()).decode()):
            assert name in hits(f"x{text}y")
    assert hits(repr(credentials().secret_access_key.reveal())) == ["secret"]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_a_bug_and_an_interrupt_keep_their_lines_alone(raised: type[BaseException]) -> None:
    """Of a call that takes secrets the traceback says where it happened, and not with what."""

    def inner(key: str) -> None:
        raise raised(len(key))

    @forgetful
    def call(key: str) -> None:
        copied = {"key": key}
        try:
            inner(copied["key"])
        except ValueError as error:
            raise RuntimeError("no") from error

    with pytest.raises((RuntimeError, KeyboardInterrupt)) as caught:
        call(CANARIES["secret"])
    beneath = caught.value.with_traceback(caught.tb.tb_next)
    shown = "".join(traceback.TracebackException.from_exception(beneath, capture_locals=True).format())
    assert "in inner" in shown
    assert hits(shown) == []


def test_secret_is_nothing_but_itself() -> None:
    """Equal to the same secret, true unless empty, and no way to pickle, copy or dump it."""
    secret = kn.Secret(CANARIES["secret"])
    assert secret == kn.Secret(CANARIES["secret"])
    assert secret != CANARIES["secret"]
    assert secret
    assert not kn.Secret("")
    assert secret.reveal() == CANARIES["secret"]
    for call in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            call(secret)
    assert hits(f"{secret} {secret!r} {secret:>40} {[secret]} %s" % secret) == []


def test_a_command_line_holds_no_secret() -> None:
    """The command line takes no secret as an argument."""
    text = subprocess.run([sys.executable, "-m", "kinesis_nb", "--help"], capture_output=True, text=True, check=True)
    assert "secret" not in text.stdout.lower()
