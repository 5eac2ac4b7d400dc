"""Live views as a front end meets them: what they send, when, and how much; no browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import comm
import nbformat
import pyarrow as pa
import pytest
from comm.base_comm import BaseComm
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

import kinesis_nb as kn
from kinesis_nb import widgets
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.widgets import Explorer, TailView
from kinesis_nb.widgets.flow import Flow
from kinesis_nb.widgets.grid.cells import Columns, tree
from kinesis_nb.widgets.grid.rows import WAITING_BYTES, WAITING_ROWS, HeldRows, Waiting
from kinesis_nb.widgets.status_view import ExportView, SyncView
from tests.conftest import by_key
from tests.support.local import local
from tests.test_hostile import PAYLOADS, _dangerous

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import ipywidgets as W  # noqa: N812

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams


class FrontEnd(BaseComm):
    """The other end of a widget's comm, as a notebook's page would be: notes what comes, and answers."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        self.changed = threading.Condition()
        self.frames: list[dict[str, Any]] = []
        self.heads: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        super().__init__(*args, **keys)

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        content = (data or {}).get("content") or {}
        if content.get("kind") == "frame":
            with self.changed:
                self.heads.append(content)
                self.frames.append(json.loads(bytes(buffers[0])))
                self.sizes.append(len(buffers[0]))
                self.changed.notify_all()

    def say(self, kind: str, **more: Any) -> None:
        message = {"method": "custom", "content": {"kind": kind, "view": "v", "page": "p", **more}}
        self.handle_msg({"content": {"data": message}, "buffers": []})

    def _has_more_than(self, seen: int) -> bool:
        return len(self.frames) > seen

    def wait_for(self, is_there: Any) -> dict[str, Any]:
        """Wait for a frame, drawing every one."""
        seen = 0
        while True:
            with self.changed:
                assert self.changed.wait_for(partial(self._has_more_than, seen), 10), self.frames[-1:]
                frame, head = self.frames[seen], self.heads[seen]
            seen += 1
            self.say("drawn", number=head["number"])
            if is_there(frame, head):
                return frame


def page_of(view: W.Widget) -> FrontEnd:
    assert isinstance(view.comm, FrontEnd)
    return view.comm


@pytest.fixture(autouse=True)
def _front_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", FrontEnd)


@pytest.fixture
def tail(source: kn.Source, streams: Streams) -> Iterator[kn.Tail]:
    """A tail of a stream of two shards that holds 50 rows."""
    streams.create(shards=2)
    streams.put(50)
    with source.tail("orders", start="trim_horizon") as tail:
        _hold(tail, 50)
        yield tail


def _hold(tail: kn.Tail, rows: int) -> None:
    come = threading.Event()
    tail.watch(lambda _held: come.set())
    while tail.stats().buffer.received < rows:
        come.clear()
        assert tail.stats().buffer.received >= rows or come.wait(10)


def _batch(first: int, count: int, data: str = '{"n": %d}', arrived: int = 0) -> pa.RecordBatch:
    row = {"kinesis_ingestion_timestamp": arrived, "shard_id": "shardId-000000000001", "sequence_number": "1"}
    rows = [{**row, "partition_key": f"k{i}", "data": data.replace("%d", str(i))} for i in range(first, first + count)]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


# --- how much is sent ---


def test_at_most_ten_messages_a_second() -> None:
    """However often a view could send, and however fast everything is drawn."""
    flow, sent = Flow(), []
    for step in range(10_000):
        now = step / 1_000
        if flow.wait(now) == 0:
            number, wants_answer = flow.sent(now)
            sent.append(now)
            if wants_answer:
                flow.acked(number)
    assert len(sent) == 100
    assert min(later - earlier for earlier, later in pairwise(sent)) >= 0.099


def test_nothing_queues_for_a_front_end_that_draws_nothing() -> None:
    """Five frames, then ever fewer: under 20 in the first ten minutes, one a minute from then on."""
    flow, sent = Flow(), []
    for step in range(40_000):
        now = step / 10
        if flow.wait(now) == 0:
            flow.sent(now)
            sent.append(now)
    assert len([now for now in sent if now < 600]) < 20
    assert all(later - earlier >= 59 for earlier, later in pairwise(sent[-10:]))
    flow.acked(10_000)
    assert flow.wait(sent[-1] + 0.1) == 0  # it is back


def test_what_waits_is_bounded() -> None:
    """A view that nobody looks at holds 50,000 rows and 16 MiB at most, and knows how many it let go."""
    waiting = Waiting()
    for first in range(0, 200_000, 1_000):
        waiting(("shard", _batch(first, 1_000)))
    batches, skipped = waiting.take()
    assert sum(rows.num_rows for rows in batches) == WAITING_ROWS
    assert skipped == 200_000 - WAITING_ROWS
    for _ in range(30):
        waiting(("shard", _batch(0, 10, "x" * 100_000)))
    assert sum(rows.nbytes for rows in waiting.take()[0]) <= WAITING_BYTES


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=4), st.integers(0, 5)), max_size=8
    )
)
def test_rows_are_held_by_their_arrival(polls: list[tuple[list[tuple[int, int]], int]]) -> None:
    """Rows keep the number of their place in all that came; whoever asks gets them by arrival, then by number."""
    held, expected, number = HeldRows(), [], 0
    for batches, skipped in polls:
        number += skipped
        firsts = [number + sum(size for size, _ in batches[:i]) for i in range(len(batches))]
        made = [_batch(first, size, arrived=when) for first, (size, when) in zip(firsts, batches, strict=True)]
        held.add(made, skipped)
        expected += [
            (when, first + i) for first, (size, when) in zip(firsts, batches, strict=True) for i in range(size)
        ]
        number += sum(size for size, _ in batches)
    shown = held.newest(10_000)
    assert [place for place, _ in shown] == [place for _, place in sorted(expected, reverse=True)]
    assert all(record.partition_key == f"k{place}" for place, record in shown)
    assert all(held.find(place).partition_key == f"k{place}" for _, place in expected)  # type: ignore[union-attr]
    assert (held.came, len(held)) == (number, len(expected))
    assert held.to_arrow()["partition_key"].to_pylist() == [f"k{place}" for place, _ in reversed(shown)]


def test_held_rows_are_bounded() -> None:
    """By rows and by bytes; what was let go of is not found."""
    held = HeldRows(100, 2**30)
    held.add(_batch(first, 30) for first in range(0, 300, 30))
    assert (len(held), held.came, held.find(0)) == (90, 300, None)
    held = HeldRows(10**6, 100_000)
    held.add(_batch(first, 1, "x" * 30_000) for first in range(10))
    assert len(held) == 3


def test_a_message_is_small_whatever_is_in_the_stream(source: kn.Source, streams: Streams) -> None:
    """Records of half a megabyte, with 40 fields, are cut to lines; a frame stays below 300 kB."""
    streams.create()
    wide = json.dumps({f"field {i}": "x" * 12_000 for i in range(40)}).encode()
    for _ in range(4):
        streams.call("PutRecords", StreamName="orders", Records=[{"PartitionKey": "k", "Data": wide}] * 5)
    with source.tail("orders", start="trim_horizon") as tail:
        _hold(tail, 20)
        view = TailView(tail, json=True)
        view.refresh()
        assert page_of(view).sizes[-1] < 300_000
        assert len(page_of(view).frames[-1]["columns"]) == 3 + 40 + 1
        page_of(view).say("detail", number=19)
        view.refresh()
        assert len(json.dumps(page_of(view).heads[-1])) < 1_000_000


# --- what is sent ---


def test_a_view_shows_the_newest_rows_first(tail: kn.Tail, streams: Streams) -> None:
    """All that the tail holds at first, then what comes, each row once."""
    view = TailView(tail)
    page = page_of(view)
    page.say("hello")
    first = page.wait_for(lambda frame, _: frame["everything"] and len(frame["rows"]) == 50)
    assert [title for _, title in first["columns"]] == ["arrived (UTC)", "key", "shard", "data"]
    held = sorted(tail.to_arrow().to_pylist(), key=lambda row: row["kinesis_ingestion_timestamp"])
    assert {row[5] for row in first["rows"]} == {row["data"] for row in held}
    arrivals = [row[1] for row in first["rows"]]
    assert arrivals == sorted(arrivals, reverse=True)
    streams.put(5)
    page.wait_for(lambda frame, _: frame["rows"] and frame["rows"][0][0] == 54)
    numbers = [row[0] for frame in page.frames if not frame["everything"] for row in reversed(frame["rows"])]
    assert numbers == [50, 51, 52, 53, 54]
    view.close()


def test_rows_that_are_taken_out_were_seen(tail: kn.Tail, streams: Streams) -> None:
    """A loop over the tail and its view do not take rows from each other."""
    view = TailView(tail)
    assert len(tail.take(50)) == 50
    streams.put(30)
    assert len(tail.take(30, timeout=10)) == 30
    view.refresh()
    assert len(page_of(view).frames[-1]["rows"]) == 80
    assert view.rows().to_arrow().num_rows == 80


def test_ten_views_share_the_page(tail: kn.Tail) -> None:
    """At most 20 frames a second for all views in sight; one alone is drawn five times a second."""
    views = [TailView(tail) for _ in range(10)]
    page_of(views[0]).say("hello")
    page_of(views[0]).wait_for(lambda *_: True)
    with views[0]._lock:
        assert views[0].tick(time.monotonic() + 10) == pytest.approx(0.2)
    for view in views:
        page_of(view).say("hello")
        page_of(view).wait_for(lambda *_: True)
    with views[0]._lock:
        assert views[0].tick(time.monotonic() + 20) == pytest.approx(0.5)


def test_nothing_is_sent_while_nobody_looks(tail: kn.Tail, streams: Streams) -> None:
    """Before the first hello, and when every view of it has been scrolled away; a new page gets everything again."""
    view = TailView(tail)
    page = page_of(view)
    assert view.tick(0.0) == view.tick(100.0) == 1.0
    assert page.frames == []
    page.say("hello")
    page.wait_for(lambda frame, _: len(frame["rows"]) == 50)
    page.say("seen", is_seen=False)
    view.tick(200.0)
    count = len(page.frames)
    streams.put(10)
    _hold(tail, 60)
    assert [view.tick(300.0 + second) for second in range(10)] == [1.0] * 10
    assert len(page.frames) == count
    page.say("hello", view="of a page that was loaded again")
    page.wait_for(lambda frame, _: frame["everything"] and len(frame["rows"]) == 60)


def test_a_filter_finds_what_is_old(tail: kn.Tail, streams: Streams) -> None:
    """Rows that came long before the filter are found by data and key, in any case, and new ones as they come."""
    for text in ("a NEEDLE", "hay"):
        streams.call("PutRecord", StreamName="orders", PartitionKey="Ada", Data=text.encode())
    streams.put(3_000)
    _hold(tail, 3_052)
    view = TailView(tail)
    page = page_of(view)
    page.say("filter", text="needle", key="")
    view.refresh()
    assert [row[5] for row in page.frames[-1]["rows"]] == ["a NEEDLE"]
    assert page.frames[-1]["matching"] == "1"
    streams.call("PutRecord", StreamName="orders", PartitionKey="Bob", Data=b"needle 2")
    _hold(tail, 3_053)
    view.refresh()
    assert page.frames[-1]["rows"][0][5] == "needle 2"
    page.say("filter", text="", key="ADA")
    view.refresh()
    assert {row[5] for row in page.frames[-1]["rows"]} == {"a NEEDLE", "hay"}


def test_rare_rows_are_not_lost_in_a_flood(tail: kn.Tail, streams: Streams) -> None:
    """Between two looks more rows came than a message holds: a filter still sees each of them."""
    view = TailView(tail, text="needle")
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b"needle")
    streams.put(5_000)
    _hold(tail, 5_051)
    view.refresh()
    assert [row[5] for row in page_of(view).frames[-1]["rows"]] == ["needle"]


def test_json_columns_show_what_was_written() -> None:
    """Fields in the order in which they are met, numbers digit by digit, and rows that are no object beside them."""
    rows = [
        '{"id": 12345678901234567890123, "price": 1.10, "tags": ["a", {"b": 1}]}',
        "no json",
        '{"id": null, "name": "\\u0041da", "price": 1e400}',
    ]
    window = HeldRows()
    window.add([pa.concat_batches([_batch(0, 1, text) for text in rows])])
    columns = Columns(json=True)
    columns.cells(window.newest(10), datetime.now(UTC))
    cells = columns.cells(window.newest(10), datetime.now(UTC))
    assert columns.shown[3:] == [".id", ".price", ".tags", ".name", "data"]
    assert [row[5:] for row in reversed(cells)] == [
        ["12345678901234567890123", "1.10", '["a", {"b": 1}]', "", rows[0]],
        ["", "", "", "", "no json"],
        ["null", "1e400", "", "Ada", rows[2]],
    ]


def _fields(frame: dict[str, Any]) -> list[str]:
    return [title for column, title in frame.get("columns", ()) if column.startswith(".")]


def test_columns_appear_when_a_field_does(tail: kn.Tail, streams: Streams) -> None:
    """A frame with a new field brings all rows again, so that every row has every column."""
    view = TailView(tail, json=True)
    page_of(view).say("hello")
    page_of(view).wait_for(lambda frame, _: _fields(frame) == ["n"])
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b'{"n": 1, "new": 2}')
    frame = page_of(view).wait_for(lambda frame, _: _fields(frame) == ["n", "new"])
    assert frame["everything"]
    assert {len(row) for row in frame["rows"]} == {2 + 6}


def test_a_row_in_detail_is_whole(tail: kn.Tail, streams: Streams) -> None:
    """What a line cuts is there in the detail, as text and as a tree; so are bytes that are no text."""
    data = {"long": "x" * 1_500, "deep": [{"a": [1, 2.50]}]}
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=json.dumps(data).encode())
    _hold(tail, 51)
    view = TailView(tail)
    view.refresh()
    page_of(view).say("detail", number=50)
    view.refresh()
    detail = page_of(view).heads[-1]["replies"][-1]["detail"]
    assert json.loads(detail["text"]) == data
    name, kind, size, children = detail["tree"]
    assert (name, kind, size) == ("", "object", "2 fields")
    assert children[0] == ["long", "string", "x" * 1_500, []]
    assert children[1][3][0][3][0][3][1] == ["1", "number", "2.5", []]
    assert ["partition key", "k"] in detail["facts"]
    page_of(view).say("detail", number=10_000)
    view.refresh()
    assert page_of(view).heads[-1]["replies"][-1] == {"kind": "detail", "detail": None, "number": 10_000}


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"a":' * 10_000, "[" + "1," * 100_000 + "1]", '{"a": [1', "", "\ud800"]
)
def test_a_tree_has_an_end(text: str) -> None:
    """Whatever is called JSON: a tree within limits, or none."""
    found = tree(text)
    assert found is None or len(json.dumps(found)) < 1_000_000


# --- buttons, errors, and the end ---


def test_buttons_pause_resume_and_stop(tail: kn.Tail) -> None:
    """The tail does what the buttons say, and a button that comes too late says why it does nothing."""
    view = TailView(tail)
    page = page_of(view)
    page.say("hello")
    page.say("pause")
    page.wait_for(lambda frame, _: frame["now"]["state"] == "paused")
    page.say("resume")
    page.wait_for(lambda frame, _: frame["now"]["state"] == "running")
    page.say("stop")
    page.wait_for(lambda frame, _: frame["now"]["state"] == "stopped")
    assert tail.state == "stopped"
    page.say("pause")
    view.refresh()
    assert page.frames[-1]["error"] == "Closed: the tail is stopped\nhint: tail() starts a new one"


def test_a_bug_is_seen_and_stops_no_other_view(tail: kn.Tail) -> None:
    """An error while a view looks is shown in it; other views go on."""
    broken, whole = TailView(tail), TailView(tail)
    page_of(broken).say("hello")
    page_of(broken).wait_for(lambda frame, _: frame.get("rows"))
    broken._columns = None  # type: ignore[assignment]
    frame = page_of(broken).wait_for(lambda frame, _: frame["error"])
    assert frame["error"].startswith("AttributeError")
    page_of(whole).say("hello")
    page_of(whole).wait_for(lambda frame, _: len(frame["rows"]) == 50)
    broken.close()


def test_throttles_lag_and_drops_are_shown(source: kn.Source, streams: Streams) -> None:
    """What a person must know of the shards, and how many rows had no room."""
    streams.create(shards=2)
    streams.put(500)
    with source.tail("orders", start="trim_horizon", max_rows=100) as tail:
        _hold(tail, 500)
        view = TailView(tail)
        view.refresh()
        live = page_of(view).frames[-1]["now"]
    assert live["dropped"] == "400"
    assert live["counts"] == "500 rows · 100 held"
    assert [badge[0] for badge in live["shards"]] == ["0", "1"]
    assert {badge[4] for badge in live["shards"]} == {0}


def test_a_tail_in_perspective(tail: kn.Tail) -> None:
    """All rows that are held, with the columns of a tail; without the package there is a hint that installs it."""
    pytest.importorskip("perspective", reason="pip install 'kinesis-nb[perspective]'")
    found = TailView(tail).to_perspective()
    assert found.table.size() == len(tail) == 50
    assert set(found.table.schema()) == set(tail.to_arrow().column_names)


def test_without_perspective_there_is_a_hint(tail: kn.Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every extra."""
    monkeypatch.setitem(sys.modules, "perspective", None)
    monkeypatch.setitem(sys.modules, "perspective.widget", None)
    with pytest.raises(kn.ConfigError) as raised:
        tail.to_perspective()
    assert "kinesis-nb[perspective]" in raised.value.hint


def test_only_a_tail_has_a_tail_view(source: kn.Source) -> None:
    """Anything else is refused with a hint."""
    with pytest.raises(kn.ConfigError, match="TailView shows a Tail, not Source"):
        TailView(source)  # type: ignore[arg-type]
    with pytest.raises(kn.errors.UnknownOption, match="its options are tail, text, key, json"):
        TailView(source, colour="red")  # type: ignore[arg-type,call-arg]


def test_views_end_with_their_tails(source: kn.Source, streams: Streams) -> None:
    """A cell that is run a hundred times leaves one thread, and no view that still watches."""
    streams.create()
    views = [TailView(source.tail("orders")) for _ in range(20)]
    views[-1].tail.stop()
    for view in views:
        view.tick(0.0)
    assert all(view._is_over for view in views)
    assert [view for view in views if view.tail._buffer._watchers] == []
    assert len([t for t in threading.enumerate() if t.name == "kinesis_nb views"]) <= 1


def test_hostile_text_is_visible_in_every_frame(source: kn.Source, streams: Streams) -> None:
    """No control, direction or zero-width character in cells, columns, trees and what stays."""
    streams.create()
    named = [json.dumps({text: text, "n": [text]}).encode() for text in PAYLOADS]
    for data in [*(text.encode() for text in PAYLOADS), *named]:
        streams.call("PutRecord", StreamName="orders", PartitionKey="\u202ek", Data=data[: 2**20] or b"x")
    with source.tail("orders", start="trim_horizon") as tail:
        _hold(tail, 2 * len(PAYLOADS))
        view = TailView(tail, json=True)
        view.refresh()
        for number in range(0, 2 * len(PAYLOADS), 4):
            page_of(view).say("detail", number=number)
            view.refresh()
        sent = json.dumps([page_of(view).frames[:2], page_of(view).heads], ensure_ascii=False)
        assert _dangerous(sent) == []
        assert _dangerous(view._picture()) == []
        assert "<script>" not in view._picture()


def test_no_row_is_in_the_state_that_is_saved(tail: kn.Tail) -> None:
    """A notebook saved with its widget state holds the view's code, and nothing of the stream."""
    view = TailView(tail)
    view.refresh()
    state = json.dumps(view.get_state(), default=str)
    assert "key-" not in state
    assert len(state) < 40_000


_CELLS = [
    "import kinesis_nb as kn\nsource = kn.demo()",
    "tail = source.tail('orders', start='trim_horizon')\ntail",
    "tail.take(1_000, timeout=20)\ntail.stop()",
    "import time\nfrom kinesis_nb.widgets.pump import PUMP\nwhile PUMP._due: time.sleep(0.05)\ntail",
]


@pytest.mark.slow
def test_a_stopped_view_leaves_its_rows_in_the_notebook() -> None:
    """In a real kernel: the output of the cell is a table of rows, and no widget that is not there any more."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS])
    NotebookClient(book, timeout=60, kernel_name="python3", store_widget_state=False).execute()
    live, after = book.cells[1].outputs, book.cells[3].outputs
    assert [set(output.data) for output in (*live, *after)] == [{"text/html", "text/plain"}] * 2
    assert "stopped" in live[0].data["text/html"]
    assert "&quot;customer&quot;" in live[0].data["text/html"]
    assert len(json.dumps(live)) < 20_000


_SHOWN = """
import sys
from types import SimpleNamespace
import kinesis_nb as kn
kinds = [kn.Tail, kn.Sync, kn.StreamingExport, kn.Job, kn.AgentSync, kn.AgentExport]
assert not any(name.startswith("kinesis_nb.widgets") for name in sys.modules)
from kinesis_nb.widgets.views import view_of
print([view_of.dispatch(kind).__name__ for kind in kinds])
"""


@pytest.mark.slow
def test_the_views_are_known_by_type_and_loaded_when_one_is_shown() -> None:
    """The engine loads no widget; everything that runs in the background has its view, jobs of each kind too."""
    done = subprocess.run([sys.executable, "-c", _SHOWN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["TailView", "SyncView", "ExportView", *["JobView"] * 3])
    with pytest.raises(TypeError, match="no view shows a list"):  # a defect of ours
        widgets.view_of([])


def test_without_a_kernel_a_tail_is_text(tail: kn.Tail) -> None:
    """Where there is no front end IPython is told to use the text or the HTML."""
    with pytest.raises(NotImplementedError):
        tail._ipython_display_()


# --- what writes ---


def test_a_sync_shows_how_it_goes(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """State, rows, commits, lag, each shard; the button commits what was read and stops; a picture stays."""
    streams.create(shards=2)
    streams.put(30)
    sync = local(source.sync("orders", tmp_path / "table"))
    assert sync.wait(timeout=30)
    view = SyncView(sync)
    page = page_of(view)
    page.say("hello")
    frame = page.wait_for(lambda frame, _: frame["tables"])
    (shards,) = frame["tables"]
    assert frame["state"] == "running"
    assert dict(frame["facts"])["rows"] == "30"
    assert [row[0] for row in shards["rows"]] == [f"shardId-{number:012d}" for number in range(2)]
    assert sum(int(row[2]) for row in shards["rows"]) == 30
    streams.put(12)
    page.say("stop")
    page.wait_for(lambda frame, _: frame["state"] == "stopped")
    assert not sync.is_active
    assert len(by_key(sync)) == 7
    assert "stopped" in view._picture()


def test_an_export_shows_how_it_goes(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Acknowledged rows, per shard of the output stream, until the button stops it."""
    streams.create(shards=2)
    arn = streams.create("results", shards=2)
    streams.put(40)
    with source.tail("orders", start="trim_horizon") as tail:
        export = local(source.export_stream(tail, arn))
        view = ExportView(export)
        page = page_of(view)
        page.say("hello")
        frame = page.wait_for(lambda frame, _: dict(frame["facts"])["rows"] == "40")
        (shards,) = frame["tables"]
        assert shards["columns"] == ["shard", "rows", "bytes"]
        assert sum(int(row[1]) for row in shards["rows"]) == 40
        page.say("stop")
        page.wait_for(lambda frame, _: frame["state"] == "stopped")
    assert not export.is_running


def test_an_export_shows_what_it_waits_for(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """With an end, what has to happen before it is reached; without one nothing is said of it."""
    streams.create()
    arn = streams.create("results")
    sync = source.sync("orders", tmp_path / "table")
    assert sync.wait(timeout=30)
    sync.stop()
    export = local(source.export_stream(tmp_path / "table", arn, end="now"))
    page = page_of(ExportView(export))
    page.say("hello")
    frame = page.wait_for(lambda frame, _: "waits for" in dict(frame["facts"]))
    assert "the sync of the table" in dict(frame["facts"])["waits for"]
    export.stop()
    page.wait_for(lambda frame, _: "waits for" not in dict(frame["facts"]))


def test_a_sync_that_cannot_commit_says_so(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """The last error stands in the view, and what the stop button could not do as well."""
    streams.create()
    streams.put(5)
    sync = local(source.sync("orders", tmp_path / "table", commit_interval=0.1))
    assert sync.wait(timeout=30)
    shutil.rmtree(tmp_path / "table")
    (tmp_path / "table").write_text("in the way")
    view = SyncView(sync)
    page_of(view).say("hello")
    streams.put(5)
    frame = page_of(view).wait_for(lambda frame, _: frame["trouble"])
    assert "table" in frame["trouble"]
    page_of(view).say("stop")
    frame = page_of(view).wait_for(lambda frame, _: frame["error"])
    assert frame["error"].startswith("TableError: 5 rows that were read are not in the table")
    assert frame["error"].endswith("hint: nothing is lost: the next sync of this table reads them again")
    assert "TableError" in view._picture_bundle()["text/html"]


# --- exploring ---


def _page(explorer: Explorer, number: int) -> Any:
    explorer._pages.selected_index = number
    (page,) = explorer._pages.children[number].children
    if hasattr(page, "settle"):
        assert page.settle()
        assert page._error.value == ""
    return page


def test_an_explorer_shows_a_stream(source: kn.Source, streams: Streams) -> None:
    """Shards with their lineage, newest records, fields with how often they are there, heat, and the shard of a key."""
    streams.create(shards=2)
    streams.put(60)
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b'{"n": 1, "rare": true}')
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    assert explorer._error.value == ""
    listing, lineage = (part.value for part in _page(explorer, 0).children)
    assert "shardId-000000000001" in listing
    assert "image/svg+xml" in lineage
    (records,) = _page(explorer, 1)._view.children
    assert len(records.rows()) == 61
    assert "rare" in _page(explorer, 2)._result.value
    assert "61 records" in _page(explorer, 3)._result.value
    key = _page(explorer, 4)
    key.fields["key"].control.value = "key-1"
    key.find()
    assert key.settle()
    assert source.explore("orders").shard_for("key-1").shard_id in key._result.value


def test_an_explorer_reads_a_time_window(source: kn.Source, streams: Streams) -> None:
    """Start, end, key and text choose the records, and the code it shows reads the same ones."""
    streams.create(shards=2)
    streams.put(70)
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    page = _page(explorer, 1)
    values = {"from": "a time window", "start": "trim_horizon", "key": "key-1", "text": '"n": 1', "limit": 50}
    for name, value in values.items():
        page.fields[name].control.value = value
    page.read()
    assert page.settle()
    (records,) = page._view.children
    assert [row.data for row in records.rows()] == ['{"n": 1}', '{"n": 10}']
    names = {"source": source}
    exec(page.to_code(), names)
    assert [row.data for row in names["records"]] == ['{"n": 1}', '{"n": 10}']  # type: ignore[attr-defined]
    page.fields["start"].control.value = "yesterday"
    assert page.problem.startswith("Start: ")
    assert page._actions[0].disabled


def test_a_time_window_with_more_rows_says_so(source: kn.Source, streams: Streams) -> None:
    """The first ones are shown, it is said that there are more, and they can be read."""
    streams.create()
    streams.put(250)
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    page = _page(explorer, 1)
    assert page._actions[1].layout.display == "none"
    for name, value in {"from": "a time window", "start": "trim_horizon"}.items():
        page.fields[name].control.value = value
    page.read()
    assert page.settle()
    (records,) = page._view.children
    assert len(records.rows()) == 100
    assert "100 rows · the window has more" in records._moment()["counts"]
    assert page._actions[1].layout.display is None
    page.read_more()
    assert page.settle()
    (records,) = page._view.children
    assert (len(records.rows()), records._moment()["counts"]) == (250, "250 rows")
    assert page._actions[1].layout.display == "none"


def test_an_explorer_goes_on_with_a_stream(source: kn.Source, streams: Streams) -> None:
    """Tail starts one and shows it; Sync and Export show their forms; each shows code that says the same."""
    streams.create()
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    page = _page(explorer, 6)
    page.tail()
    assert page.settle()
    (view,) = page._below.children
    assert view.tail.state == "running"
    assert page._code_view.code.startswith('tail = source.tail("orders")')
    page.sync()
    (form,) = page._below.children
    assert _is_stopped(view.tail)
    assert form.fields["stream"].value == "orders"
    assert page._code_view.code.startswith('sync = source.sync("orders", "tables/orders")')
    assert form.settle()


def _is_stopped(tail: kn.Tail) -> bool:
    """Whether it stops by itself: it ends for whoever waits for its end."""
    return tail.wait(10, until_caught_up=False) is False and tail.state == "stopped"


def test_an_explorer_leaves_the_tails_of_cells_alone(source: kn.Source, streams: Streams) -> None:
    """Its own tail replaces none of the user's, and is stopped when another one takes its place, or another stream."""
    streams.create()
    streams.create("clicks")
    mine = source.tail("orders")
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    page = _page(explorer, 6)
    page.tail()
    assert page.settle()
    assert mine.state == "running"
    (first,) = page._below.children
    page.tail()
    assert page.settle()
    (second,) = page._below.children
    assert _is_stopped(first.tail)
    assert second.tail.state == "running"
    assert source.tail("orders") is not second.tail
    assert second.tail.state == "running"
    explorer.fields["stream"].control.value = "clicks"
    explorer.look()
    assert explorer.settle()
    assert _is_stopped(second.tail)


def test_the_tabs_of_an_explorer_say_which_stream_they_are_of(source: kn.Source, streams: Streams) -> None:
    """Another name that is typed, or cannot be opened, does not become theirs."""
    streams.create()
    streams.create("clicks")
    explorer = Explorer(source, "orders")
    assert explorer._name.value == ""
    assert explorer.settle()
    assert "Stream orders</h4>" in explorer._name.value
    explorer.fields["stream"].control.value = "<b>ordres"
    assert "Stream orders " in explorer._name.value
    assert "not &lt;b&gt;ordres, which is not open" in explorer._name.value
    explorer.fields["stream"].control.value = "ordres"
    explorer.look()
    assert explorer.settle()
    assert "StreamNotFound" in explorer._error.value
    assert "Stream orders " in explorer._name.value
    explorer.fields["stream"].control.value = "clicks"
    explorer.look()
    assert explorer.settle()
    assert "Stream clicks</h4>" in explorer._name.value


def test_a_record_is_put_by_hand(source: kn.Source, streams: Streams) -> None:
    """The newest record is there to begin with; what is typed is put to the letter, and its shard is named."""
    streams.create(shards=2)
    streams.put(3)
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    form = _page(explorer, 5)
    assert form.fields["data"].control.value.startswith('{"n": ')
    data = '  {"n": 1.10, "text": "spaces stay "}\n'
    for name, value in {"key": "Ada", "data": data}.items():
        form.fields[name].control.value = value
    form.find()
    assert form.settle()
    shard = source.explore("orders").shard_for("Ada").shard_id
    assert shard in form._result.value
    names = {"source": source}
    form.put()
    assert form.settle()
    assert shard in form._result.value
    exec(form.to_code(), names)
    assert [row.data for row in source.read("orders", key="Ada", progress=False)] == [data, data]
    form.fields["key"].control.value = "x" * 257
    assert form.problem.startswith("Partition key: a partition key of 257 characters")


def test_no_record_is_put_where_exports_are_off(emulator: Emulator, streams: Streams) -> None:
    """The button says why."""
    streams.create()
    auth = kn.StaticCredentials("emulator", "emulator")
    explorer = Explorer(kn.connect(endpoint_url=emulator.endpoint_url, auth=auth), "orders")
    assert explorer.settle()
    form = _page(explorer, 5)
    for name in ("key", "data"):
        form.fields[name].control.value = "a"
    assert form._actions[0].reason.startswith("exports are not enabled")
    assert not form._actions[1].disabled


def test_an_explorer_says_what_is_wrong(source: kn.Source, streams: Streams) -> None:
    """A stream that is not there: two lines below, and the explorer can be used again."""
    streams.create()
    explorer = Explorer(source, "ordres")
    assert explorer.settle()
    assert "StreamNotFound" in explorer._error.value
    assert explorer._pages.layout.display == "none"
    explorer.fields["stream"].control.value = "orders"
    explorer.look()
    assert explorer.settle()
    assert explorer._error.value == ""
    assert explorer.stream is not None
    assert explorer.stream.name == "orders"
    with pytest.raises(kn.ConfigError, match="Explorer needs a Source"):
        Explorer("orders")  # type: ignore[arg-type]


def test_an_explorer_shows_hostile_data_as_text(source: kn.Source, streams: Streams) -> None:
    """Keys, data and field names in every tab: escaped, and nothing that hides or commands."""
    streams.create()
    for text in PAYLOADS[:60]:
        data = json.dumps({text: text}).encode()
        streams.call("PutRecord", StreamName="orders", PartitionKey=text[:256] or "k", Data=data)
    explorer = Explorer(source, "orders")
    assert explorer.settle()
    for number in (0, 2, 3):
        page = _page(explorer, number)
        shown = page._result.value if hasattr(page, "_result") else "".join(part.value for part in page.children)
        assert _dangerous(shown) == []
        assert not re.search(r'<(script|img (?!src="data:image/svg)|iframe|svg on|a |form|body|style>@)', shown)
