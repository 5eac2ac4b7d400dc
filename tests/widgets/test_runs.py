"""Forms that start something: a sync, an export, a tail; and the Studio that holds them all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import keyring
import polars as pl
import pytest
from keyring.backends import fail

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply, Stall
from kinesis_nb.widgets import Explorer, ExportForm, Studio, SyncForm, TailView
from kinesis_nb.widgets.run_form import defaults
from kinesis_nb.widgets.status_view import SyncView
from kinesis_nb.widgets.tail_form import TailForm
from tests.conftest import Streams, by_key, written_by_key
from tests.support.widgets import FrontEnd, shown
from tests.widgets.test_forms import button, buttons, cancel, end, everything_saved, fill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


__all__ = ["end"]  # a fixture
CANARY = "CANARYstorage0123456789"


@pytest.fixture
def orders(streams: Streams) -> Streams:
    streams.create("orders", 2)
    streams.create("results")
    return streams


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def arn(source: kn.Source, stream: str = "results") -> str:
    return source.explore(stream).summary.arn


def until(form: Any, holds: Callable[[], bool]) -> None:
    """Wait until something is shown; the form's own thread decides when."""
    deadline = time.monotonic() + 20
    looked = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, shown(form)
        looked.wait(0.02)


def buffers(end: FrontEnd) -> list[bytes]:
    return [one for message in end.messages for one in message["buffers"] or ()]


def ready(form: Any) -> Any:
    assert form.settle()  # the names of the streams
    return form


# --- syncs ---


def test_the_sync_form_has_the_options_of_sync_and_their_defaults(end: FrontEnd, source: kn.Source) -> None:
    """None is missing but those that are code, and what the form shows first is what sync() does by itself."""
    form = ready(SyncForm(source))
    usual = {name: value for name, value in defaults(kn.Source.sync).items() if name not in {"shards", "where"}}
    assert set(form.fields) == {"stream", "table", *usual}
    assert {name: form.fields[name].value for name in usual} == usual


def test_a_sync_from_a_form(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Start, watch rows and shards arrive, stop: the table holds each record once, in order per key."""
    orders.put(300)
    form = ready(SyncForm(source))
    assert form.fields["stream"].control.options == ("orders", "results")
    assert button(form, "Start").tooltip == "Stream is missing"
    fill(end, form, stream="orders", table="tables/orders", commit_interval=0.05)
    end.click(button(form, "Start"))
    assert form.settle()
    assert form.sync is not None
    until(form, lambda: form.sync.status().rows == 300)
    assert button(form, "Start").tooltip == "it is running; stop it first"
    (view,) = form._view.children
    assert isinstance(view, SyncView)
    end.send(view, {"kind": "hello", "page": "p", "view": "v"})
    until(form, lambda: any(b"shardId-000000000001" in bytes(one) for one in buffers(end)))
    end.send(view, {"kind": "stop"})
    until(form, lambda: not button(form, "Start").disabled)
    assert form.sync.status().state == "stopped"
    assert by_key(form.sync) == written_by_key(orders)


@pytest.mark.parametrize("starts", [True, False])
def test_a_start_that_was_cancelled_too_late(
    end: FrontEnd,
    source: kn.Source,
    orders: Streams,
    starts: bool,  # noqa: FBT001
) -> None:
    """What started all the same is shown with what stops it; until that is known nothing else is started."""
    form, gate = ready(SyncForm(source)), threading.Event()
    fill(end, form, stream="orders", table="tables/orders")
    begin = form._begin()

    def start() -> object:
        assert gate.wait(20)
        if starts:
            return begin()
        raise kn.ConfigError("no")

    form._do_start(start)
    cancel(end, form)
    assert button(form, "Start").tooltip == "the start that was cancelled is not over yet"
    assert not button(form, "Code").disabled
    gate.set()
    assert form.settle()
    assert "knb-error" not in shown(form)
    if not starts:
        assert not button(form, "Start").disabled
        return
    assert "it had started before it was cancelled" in shown(form)
    assert button(form, "Start").tooltip == "it is running; stop it first"
    assert isinstance(form._view.children[0], SyncView)
    form.sync.stop()


def test_a_tail_that_was_cancelled_too_late_is_stopped(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Nobody sees it, so it must not read on."""
    form = ready(TailForm(source))
    fill(end, form, stream="orders")
    orders.emulator.on("ListShards", Stall(1.0))
    end.click(button(form, "Start"))
    cancel(end, form)
    assert form.settle()
    assert form.tail is None
    assert form._view.children == ()
    until(form, lambda: not any("kinesis_nb orders" in one.name for one in threading.enumerate()))


def test_a_sync_that_cannot_start_says_why(end: FrontEnd, source: kn.Source, orders: Streams, tmp_path: Path) -> None:
    """Two lines below the form, and the form can be used again."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("mine")
    form = ready(SyncForm(source))
    fill(end, form, stream="orders", table="notes")
    end.click(button(form, "Start"))
    assert form.settle()
    assert "<b>TableError:</b>" in shown(form)
    assert "hint: " in shown(form)
    assert not button(form, "Start").disabled


def test_a_sync_that_fails_later_says_why(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """What a background thread failed with comes to the form that started it."""
    form = ready(SyncForm(source))
    fill(end, form, stream="orders", table="tables/orders", commit_interval=0.05)
    end.click(button(form, "Start"))
    assert form.settle()
    orders.emulator.on("GetRecords", *[ErrorReply("AccessDeniedException")] * 50)
    until(form, lambda: "knb-error" in shown(form))
    assert "<b>AccessDenied:</b>" in shown(form)
    assert not button(form, "Start").disabled


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stream", "no/stream", "is not the name of a stream"),
        ("table", "s3://X", "is not the place of a table"),
        ("start", "yesterday", "is not a position in a stream"),
        ("commit_interval", 0, "must be seconds, above 0"),
        ("end", "trim_horizon", "cannot end at"),
        ("key", "k" * 257, "no record has the partition key"),
    ],
)
def test_a_wrong_value_of_a_sync_is_marked(
    end: FrontEnd, source: kn.Source, orders: Streams, name: str, value: Any, message: str
) -> None:
    """With the engine's own words; the buttons say it too."""
    form = ready(SyncForm(source))
    fill(end, form, stream="orders", table="t")
    fill(end, form, **{name: value})
    assert message in shown(form.fields[name])
    assert message in (button(form, "Start").tooltip or "")


def test_the_code_of_a_sync(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Only what differs from the defaults; it runs and starts the same sync."""
    form = ready(SyncForm(source))
    fill(end, form, stream="orders", table="tables/orders", start="latest", commit_interval=0.5)
    made: dict[str, Any] = {"source": source}
    assert 'source.sync("orders", "tables/orders", start="latest", commit_interval=0.5)' in form.to_code()
    exec(form.to_code(), made)
    end.click(button(form, "Start"))
    assert form.settle()
    assert form.sync is made["sync"]
    form.sync.stop()


def test_storage_options_are_secrets(end: FrontEnd, source: kn.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for S3 only, may hold keys, and so are kept as secrets are."""
    form = ready(SyncForm(source))
    fill(end, form, stream="orders", table="tables/orders")
    assert not form.fields["storage_options"].is_shown
    fill(end, form, table="s3://bucket/orders", storage_options=f"endpoint_url=http://127.0.0.1:1 secret_key={CANARY}")
    assert form.fields["storage_options"].is_shown
    assert form._options()["storage_options"] == {"endpoint_url": "http://127.0.0.1:1", "secret_key": CANARY}
    code = form.to_code()
    assert '"endpoint_url": "http://127.0.0.1:1", "secret_key": getpass.getpass("secret_key: ")' in code
    compile(code, "cell", "exec")
    assert CANARY not in code + everything_saved(end) + repr(form) + repr(vars(form))
    fill(end, form, storage_options=CANARY)
    assert "cannot parse the storage options" in form.problem
    assert CANARY not in shown(form)


def test_a_stream_of_another_account_goes_by_its_arn(end: FrontEnd, source: kn.Source) -> None:
    """As in sync() itself; it must be of the source's region."""
    form = ready(SyncForm(source))
    fill(end, form, table="t", stream="arn:aws:kinesis:us-east-1:123456789012:stream/orders")
    assert form.problem == ""
    fill(end, form, stream="arn:aws:kinesis:eu-west-1:123456789012:stream/orders")
    assert "is in eu-west-1, the source in us-east-1" in form.problem


# --- exports ---


def frame(rows: int = 300) -> pl.DataFrame:
    return pl.DataFrame({"customer": [f"key-{i % 7}" for i in range(rows)], "n": range(rows)})


def test_the_export_form_has_the_options_and_their_defaults(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Of export_df for a frame and of export_stream for what grows; what only code can give is left out."""
    form = ready(ExportForm(source, frame()))
    usual = defaults(kn.Source.export_df)
    assert set(form.fields) == {"output_stream_arn", *usual} - {"encode", "resume", "progress"}
    assert form._options() == {}
    growing = ready(ExportForm(source))
    assert set(growing.fields) == {"table", "output_stream_arn", *defaults(kn.Source.export_stream)}
    assert growing._options() == {}


def test_an_export_of_a_frame(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """The output streams are proposed; the report is shown, and all rows are in the stream."""
    form = ready(ExportForm(source, frame()))
    assert arn(source) in form.fields["output_stream_arn"].control.options
    fill(end, form, output_stream_arn=arn(source))
    end.click(button(form, "Start"))
    assert form.settle()
    until(form, lambda: "possible duplicates" in shown(form))
    assert isinstance(form.export, kn.ExportReport)
    assert form.export.rows == 300
    assert len(source.read("results", progress=False)) == 300
    assert button(form, "Resume").tooltip == "no export was stopped or failed half way"
    made: dict[str, Any] = {"source": source, "df": frame()}
    exec(form.to_code(), made)
    assert made["report"].rows == 300


def test_an_export_that_is_stopped_can_be_resumed(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Stop leaves a report; Resume sends the rest and nothing twice."""
    rows = frame(4_000)
    form = ready(ExportForm(source, rows))
    fill(end, form, output_stream_arn=arn(source))
    end.click(button(form, "Start"))
    assert form.settle()
    end.click(button(form, "Stop"))
    assert form.settle()
    until(form, lambda: not button(form, "Resume").disabled)
    first = form.export
    assert isinstance(first, kn.ExportReport)
    assert first.note == "stopped"
    assert first.rows < 4_000
    end.click(button(form, "Resume"))
    assert form.settle()
    until(form, lambda: form.export is not None and form.export is not first and button(form, "Stop").disabled)
    assert isinstance(form.export, kn.ExportReport)
    assert first.rows + form.export.rows == 4_000
    assert len(source.read("results", progress=False)) == 4_000


def test_an_export_of_a_synced_table(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """It follows the table until it is stopped."""
    orders.put(100)
    sync = source.sync("orders", "tables/orders", commit_interval=0.05)
    assert sync.wait(20)
    form = ready(ExportForm(source, sync))
    assert "table" not in form.fields
    fill(end, form, output_stream_arn=arn(source))
    end.click(button(form, "Start"))
    assert form.settle()
    until(form, lambda: form.export.status().rows == 100)
    end.send(form._view.children[0], {"kind": "stop"})
    until(form, lambda: not button(form, "Start").disabled)
    assert form.export.status().state == "stopped"
    sync.stop()
    assert by_key(source.read("results", progress=False)) == written_by_key(orders)


def test_an_export_of_a_table_in_s3_has_storage_options(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Only there, and kept as secrets are."""
    form = ready(ExportForm(source))
    fill(end, form, table="tables/orders", output_stream_arn=arn(source))
    assert not form.fields["storage_options"].is_shown
    fill(end, form, table="s3://bucket/orders", storage_options=f"region=eu-west-1 secret_key={CANARY}", rate="100")
    assert form._options() == {"rate": 100.0, "storage_options": {"region": "eu-west-1", "secret_key": CANARY}}
    assert CANARY not in form.to_code() + everything_saved(end)
    compile(form.to_code(), "cell", "exec")


def test_exports_must_be_enabled(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """The field says so, and so do the buttons; nothing is sent."""
    closed = kn.connect(endpoint_url=source.config.endpoint_url, auth=source.config.auth)
    form = ready(ExportForm(closed, frame()))
    fill(end, form, output_stream_arn=arn(source))
    assert "exports are not enabled" in shown(form.fields["output_stream_arn"])
    assert "exports are not enabled" in (button(form, "Start").tooltip or "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output_stream_arn", "results", "is not the ARN of a stream"),
        ("output_stream_arn", "arn:aws:kinesis:eu-west-1:123456789012:stream/x", "is in eu-west-1"),
        ("partition_column", "nope", "the frame has no column 'nope'"),
        ("partition_column", "n", "holds Int64, not strings"),
        ("data_column", "n", "holds neither text nor bytes"),
    ],
)
def test_a_wrong_value_of_an_export_is_marked(
    end: FrontEnd, source: kn.Source, orders: Streams, name: str, value: str, message: str
) -> None:
    """With the engine's own words."""
    form = ready(ExportForm(source, frame()))
    fill(end, form, **{name: value})
    assert message in shown(form.fields[name]).replace("&#x27;", "'")
    assert message in (button(form, "Start").tooltip or "") or name != "output_stream_arn"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("start", "soon", "is not a position"),
        ("end", "never", "is not a position"),
        ("rate", "fast", "is not a number"),
        ("rate", "-1", "is not a valid rate"),
    ],
)
def test_a_wrong_value_of_a_streaming_export_is_marked(
    end: FrontEnd, source: kn.Source, orders: Streams, name: str, value: str, message: str
) -> None:
    """With the engine's own words."""
    form = ready(ExportForm(source))
    fill(end, form, **{name: value})
    assert message in shown(form.fields[name])


def test_a_frame_without_a_key_asks_for_a_column(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Where the first string column cannot be the partition column, because there is none."""
    form = ready(ExportForm(source, pl.DataFrame({"n": [1]})))
    fill(end, form, output_stream_arn=arn(source))
    assert button(form, "Start").tooltip == "Partition column is missing"


def test_what_is_no_table_is_refused(end: FrontEnd, source: kn.Source) -> None:
    """At once, as export_df would."""
    with pytest.raises(kn.ConfigError, match="a int is not a table"):
        ExportForm(source, 7)


# --- the tail and the studio ---


def test_a_tail_from_a_form(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """It starts without holding up the kernel, and is shown by the live view."""
    form = ready(TailForm(source))
    fill(end, form, stream="orders", start="trim_horizon", max_rows=0)
    assert form.problem
    fill(end, form, max_rows=10)
    assert form.to_code() == 'tail = source.tail("orders", start="trim_horizon", max_rows=10)\ntail.view()\n'
    end.click(button(form, "Start"))
    assert form.settle()
    assert form.tail is not None
    assert form.tail.stream == "orders"
    assert isinstance(form._view.children[0], TailView)
    form.tail.stop()


def test_a_form_has_one_tail(end: FrontEnd, source: kn.Source, orders: Streams) -> None:
    """Another one stops the one before, of whatever stream, and touches none of a cell's; a new source stops it too."""
    mine = source.tail("orders")
    studio = Studio(source)
    end.set(studio._tabs, selected_index=2)
    (form,) = pages(studio)["Tail"].children
    tails = []
    for stream in ("orders", "results"):
        fill(end, ready(form), stream=stream)
        end.click(button(form, "Start"))
        assert form.settle()
        tails.append(form.tail)
    first, second = tails
    assert first.wait(10, until_caught_up=False) is False
    assert (first.state, second.state, mine.state) == ("stopped", "running", "running")
    (view,) = form._view.children
    assert view.tail is second
    studio.use(source)
    assert second.wait(10, until_caught_up=False) is False
    assert (second.state, mine.state) == ("stopped", "running")
    mine.stop()


def pages(studio: Studio) -> dict[str, Any]:
    return dict(zip(studio._tabs.titles, studio._tabs.children, strict=True))


def test_the_studio_begins_with_a_source(end: FrontEnd, source: kn.Source) -> None:
    """Without one, the other tabs say that one is needed; each page is made when it is first looked at."""
    studio = Studio()
    assert list(pages(studio)) == ["Sources", "Explore", "Tail", "Syncs", "Exports"]
    for number in range(1, 5):
        end.set(studio._tabs, selected_index=number)
        assert "Choose a source first" in shown(pages(studio)[studio._tabs.titles[number]])
    studio.use(source)
    assert studio._tabs.selected_index == 1
    assert isinstance(pages(studio)["Explore"].children[0], Explorer)
    assert pages(studio)["Tail"].children == ()
    for number, title in ((2, "New tail"), (3, "New sync"), (4, "New export")):
        end.set(studio._tabs, selected_index=number)
        assert title in shown(studio._tabs.children[number])


def test_the_studio_opens_a_saved_source(
    end: FrontEnd, source: kn.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose secret is not in the keyring asks for it in a field; what was typed is for that source alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    kn.connect(region="eu-west-1").save("plain")
    monkeypatch.setattr(keyring, "get_keyring", fail.Keyring)
    with pytest.warns(UserWarning, match="without its secret access key"):
        source.save("with-keys")
    monkeypatch.setattr("getpass.getpass", pytest.fail)
    studio = Studio()
    known = pages(studio)["Sources"].children[0]
    fill(end, known, name="with-keys")
    assert known.settle()
    assert button(known, "Open").disabled
    assert known.problem == "Secret access key is missing"
    fill(end, known, secret_access_key=CANARY)
    fill(end, known, name="plain")
    assert known.settle()
    assert known.fields["secret_access_key"].control.secret is None
    end.click(button(known, "Open"))
    assert known.settle()
    assert studio.source is not None
    assert studio.source.config.region == "eu-west-1"

    fill(end, known, name="with-keys")
    assert known.settle()
    fill(end, known, secret_access_key=CANARY)
    end.click(button(known, "Open"))
    assert known.settle()
    assert studio.source.config.auth == kn.StaticCredentials("emulator", CANARY)
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_studio_uses_the_source_of_its_form(end: FrontEnd, source: kn.Source) -> None:
    """As soon as the form is whole."""
    studio = Studio()
    form = pages(studio)["Sources"].children[1]
    fill(end, form, auth="Static Credentials")
    assert button(form, "Use this source").disabled
    fill(end, form, access_key_id="A", secret_access_key="b")
    end.click(button(form, "Use this source"))
    assert studio.source is form.source()


def test_several_syncs_side_by_side(end: FrontEnd, source: kn.Source) -> None:
    """Another form below the first one."""
    studio = Studio(source)
    end.set(studio._tabs, selected_index=3)
    page = pages(studio)["Syncs"]
    end.click(button(page, "Another sync"))
    assert sum(one.description == "Start" for one in buttons(page)) == 2
