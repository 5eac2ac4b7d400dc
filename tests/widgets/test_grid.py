"""What a grid shows, without a browser: its order, filters, profiles, the code and the files that it gives."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import comm
import msgspec
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA, Records
from kinesis_nb.widgets.grid import download
from kinesis_nb.widgets.grid.cells import Columns, detail, hex_dump
from kinesis_nb.widgets.grid.download import Download, file_of
from kinesis_nb.widgets.grid.filters import Chip, Filter
from kinesis_nb.widgets.grid.frames import frame_of
from kinesis_nb.widgets.grid.profile import profile
from kinesis_nb.widgets.grid.timeline import Timeline
from kinesis_nb.widgets.rows_view import RecordsView
from kinesis_nb.widgets.shard_map import shard_map
from tests.widgets.test_views import FrontEnd, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Streams

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _front_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", FrontEnd)


def records(texts: Sequence[str], shards: int = 1, **columns: object) -> Records:
    """Return records, a second apart, in the order in which shards deliver them: one shard after the other."""
    rows = [
        {
            "partition_key": f"k{i}",
            "data": text,
            "kinesis_ingestion_timestamp": NOW + timedelta(seconds=i),
            "foundry_ingestion_timestamp": NOW,
            "shard_id": f"shardId-{i % shards:012d}",
            "sequence_number": str(i),
            "sub_sequence_number": 0,
        }
        | columns
        for i, text in enumerate(texts)
    ]
    return Records(pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["shard_id"])), SCHEMA))


def view_of(given: Records, *, json: bool = False) -> tuple[RecordsView, FrontEnd]:
    view = RecordsView(given)
    page = page_of(view)
    if json:
        page.say("json", json=True)
    view.refresh()
    return view, page


def shown(page: FrontEnd, title: str) -> list[Any]:
    """Return what stands in a column of the last frame."""
    frame = page.frames[-1]
    place = [name for _, name in frame["columns"]].index(title)
    return [row[2 + place] for row in frame["rows"]]


def code_of(page: FrontEnd, title: str) -> str:
    return next(code for code, name in page.frames[-1]["fields"] if name == title)


def test_records_have_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of them; in a kernel without anywidget, two lines that say what to do."""
    view = records(["a", "b"]).view()
    assert isinstance(view, RecordsView)
    assert len(view.rows()) == 2
    monkeypatch.setitem(sys.modules, "kinesis_nb.widgets.views", None)
    monkeypatch.setattr("kinesis_nb.widgets._NEEDED", ("kinesis_nb.widgets.views",))
    assert "records.to_polars() all" in repr(records(["a"]).view())


def test_records_of_many_shards_are_by_arrival() -> None:
    """However they came."""
    _, page = view_of(records([f'{{"n": {i}}}' for i in range(40)], shards=8))
    assert shown(page, "data") == [f'{{"n": {i}}}' for i in range(39, -1, -1)]


def test_pages_are_the_rows_of_their_places() -> None:
    """Every one of 1,500 rows is on a page; a page that is not there is empty."""
    view, page = view_of(records([str(i) for i in range(1_500)]))
    assert page.frames[-1]["total"] == 1_500
    found = []
    for first in range(0, 1_600, 100):
        page.say("page", first=first, last=first + 100)
        view.refresh()
        found += [row[-1] for row in page.heads[-1]["replies"][-1]["rows"]]
    assert found == [str(i) for i in range(1_499, -1, -1)]


@pytest.mark.parametrize("descending", [True, False])
def test_sorting_is_by_value_and_not_by_text(descending: bool) -> None:  # noqa: FBT001
    """Numbers by their size; rows without a value are last."""
    view, page = view_of(records(['{"n": 10}', '{"n": 9}', "none", '{"n": 100.5}']), json=True)
    page.say("sort", column=code_of(page, "n"), descending=descending)
    view.refresh()
    assert shown(page, "n") == (["100.5", "10", "9", ""] if descending else ["9", "10", "100.5", ""])
    page.say("release")
    view.refresh()
    assert shown(page, "n") == ["100.5", "", "9", "10"]


def test_a_column_that_is_not_there_is_refused() -> None:
    """What a page says is checked, and told in the view."""
    view, page = view_of(records(["{}"]))
    for kind, more in (
        ("sort", {"column": ".7"}),
        ("columns", {"columns": ["x"]}),
        ("chips", {"new": {"column": "x"}}),
    ):
        page.say(kind, **more)
        view.refresh()
        assert page.frames[-1]["error"].startswith("ConfigError: the page named a column")


_VALUES = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3))


@given(st.lists(_VALUES, min_size=1, max_size=60), st.data())
def test_a_click_on_a_bar_is_what_polars_filters(values: list[object], data: st.DataObject) -> None:
    """The rows of a bar, or of a frequent value, are as many as it says, and those of the code."""
    given_records = records([json.dumps({"v": value}) for value in values])
    about = profile(frame_of(given_records.to_arrow(), with_fields=True))[".v"]
    msgspec.json.encode(about)
    bars, top = about.get("bars", ()), about.get("top", ())
    assert sum(bars) in (0, len(values))
    if top:
        text, times = data.draw(st.sampled_from(top))
        chip = Chip(".v", text)
    elif bars:
        place = data.draw(st.integers(0, len(bars) - 1))
        step = (about["high"] - about["low"]) / len(bars)
        low, times = about["low"] + place * step, bars[place]
        is_whole, is_last = about["type"] == "integer", place == len(bars) - 1
        high = low + step - 1 if is_whole and step else about["high"] if is_last else low + step
        chip = Chip(".v", None, low, high, is_whole or is_last)
    else:
        return
    rows = given_records.to_arrow().combine_chunks().to_batches()
    kept = [Filter(chips=(chip,))(batch).num_rows for batch in rows]
    exact = about["type"] == "integer" and max(abs(about["low"]), abs(about["high"])) < 2**50
    if top or exact:  # edges of floats are rounded in the page as here
        assert sum(kept) == times


def test_the_code_gives_the_rows_that_are_shown() -> None:
    """Filters, order and names that are taken."""
    given_records = records([json.dumps({"n": i % 7, "data": f"d{i}"}) for i in range(50)])
    view, page = view_of(given_records, json=True)
    page.say("chips", kept=[], new={"column": code_of(page, "n"), "low": 2, "high": 4, "closed": True})
    page.say("filter", text="D1", key="")
    page.say("sort", column=code_of(page, "n"), descending=False)
    view.refresh()
    names: dict[str, Any] = {"records": given_records}
    *lines, last = view.to_code().splitlines()
    exec("\n".join([*lines, f"found = {last}"]), names)
    assert [str(n) for n in names["found"]["n"]] == shown(page, "n") != []
    assert [str(d) for d in names["found"]["data_json"]] == [
        json.loads(row[-1])["data"] for row in page.frames[-1]["rows"]
    ]


def test_a_chip_can_be_removed() -> None:
    """By its place; the others stay."""
    view, page = view_of(records([json.dumps({"n": i}) for i in range(10)]), json=True)
    for low in (2, 4):
        page.say("chips", kept=[0][: low // 3], new={"column": ".0", "low": low, "high": 9, "closed": True})
        view.refresh()
    assert page.frames[-1]["chips"] == ["n 2 to 9", "n 4 to 9"]
    assert page.frames[-1]["total"] == 6
    page.say("chips", kept=[0])
    view.refresh()
    assert (page.frames[-1]["chips"], page.frames[-1]["total"]) == (["n 2 to 9"], 8)


def test_only_this_key() -> None:
    """The rows with the key of a row, to the letter."""
    view, page = view_of(records(["a", "b"], partition_key="x"))
    page.say("only_key", number=0)
    view.refresh()
    assert page.frames[-1]["chips"] == ["key is 'x'"]
    assert page.frames[-1]["total"] == 2


def test_all_fields_can_be_chosen() -> None:
    """A hundred are shown at first, with the data; beyond 500 they are counted."""
    columns = Columns(json=True)
    for _ in range(2):
        columns.meet(f"f{i}" for i in range(600))
    assert len(columns.ids) == 3 + 500 + 1
    assert columns.shown[-2:] == [".f99", "data"]
    assert columns.beyond == 100
    columns.choose([".f499", "data"])
    assert columns.shown == [".f499", "data"]


@pytest.mark.parametrize("form", download.FORMATS)
def test_a_file_holds_the_rows(form: str) -> None:
    """With the fields in columns of their own, whatever is in them."""
    texts = ['{"n": 1, "deep": {"a": [1, 2]}, "tags": ["x"]}', '{"n": 2}', "none"]
    frame = frame_of(records(texts).to_arrow(), with_fields=True)
    name, data = file_of(frame, form)
    readers: dict[str, Callable[[io.BytesIO], pl.DataFrame]]
    readers = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}
    read = readers[form](io.BytesIO(data))
    assert name == f"records.{form}"
    assert read["n"].to_list() == [1, 2, None]
    assert read["data"].to_list()[:2] == texts[:2]
    if form == "csv":
        assert [json.loads(text or "null") for text in read["deep"]] == [{"a": [1, 2]}, None, None]


def test_there_are_three_kinds_of_files() -> None:
    """Others are refused."""
    with pytest.raises(kn.ConfigError, match="no download as 'xlsx'"):
        file_of(frame_of(records(["{}"]).to_arrow(), with_fields=False), "xlsx")


class _Page:
    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, Any], bytes]] = []

    def send(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        self.parts.append((content, bytes(buffers[0])))


@pytest.mark.parametrize("size", [0, 1, download.PART, download.PART + 1, 3 * download.PART])
def test_data_arrive_exactly(size: int) -> None:
    """In parts, of which the last one says so."""
    page, data = _Page(), bytes(i % 251 for i in range(size))
    Download(page, "a.json", data, "seven").run()
    assert b"".join(part for _, part in page.parts) == data
    assert [head["last"] for head, _ in page.parts] == [False] * (len(page.parts) - 1) + [True]
    assert {head["token"] for head, _ in page.parts} == {"seven"}


def test_too_much_for_a_page_is_refused() -> None:
    """With what to do instead."""
    with pytest.raises(kn.ConfigError, match="33,554,433 bytes"):
        Download(_Page(), "a", bytes(download.MOST + 1), "")


def test_a_record_in_four_forms() -> None:
    """A tree, indented JSON with numbers as they are written, text, bytes."""
    (record,) = records(['{"n": 1.10, "big": 12345678901234567890123}'])
    found = detail(0, record)
    assert '"n": 1.10' in found["json"]
    assert "12345678901234567890123" in found["json"]
    assert found["hex"].startswith("00000000  7b 22 6e 22")
    assert hex_dump(bytes(range(256)) * 17).endswith("\n…")
    assert detail(0, record._replace(data="none"))["json"] is None


# --- time and shards


def test_rows_over_time_by_shard() -> None:
    """Every row is in the bar of its second, whatever batch it came in; what is old is forgotten."""
    table = records(["x"] * 600, shards=12).to_arrow()
    timeline = Timeline(None)
    timeline.add(table.slice(0, 250).to_batches())
    timeline.add(table.slice(250).to_batches())
    found = timeline.bars()
    assert (found["start"], found["step"]) == (int(NOW.timestamp()), 10)
    assert found["shards"] == [*(str(i) for i in range(8)), "others"]
    assert [sum(bins) for bins in found["bars"]] == [50] * 8 + [200]
    assert [sum(bins) for bins in zip(*found["bars"], strict=True)] == [10] * 60
    live = Timeline(300)
    live.add(table.to_batches())
    assert sum(map(sum, live.bars(NOW.timestamp() + 599)["bars"])) == 300
    assert Timeline(300).bars(0.0)["bars"] == []


def test_a_window_of_time_is_a_filter() -> None:
    """From its first moment up to, and without, its last."""
    view, page = view_of(records([str(i) for i in range(100)]))
    start = NOW.timestamp() * 1e6
    page.say("window", low=start + 10e6, high=start + 20e6)
    view.refresh()
    assert sorted(map(int, shown(page, "data"))) == list(range(10, 20))
    assert page.frames[-1]["chips"] == ["arrived 12:00:10 to 12:00:20 UTC"]


def test_a_shard_is_chosen_and_let_go() -> None:
    """A second click on it shows all rows again; one on another shard shows that one."""
    view, page = view_of(records([str(i) for i in range(10)], shards=2))
    for shard, count in ((0, 5), (1, 5), (1, 10)):
        page.say("shard", shard=f"shardId-{shard:012d}")
        view.refresh()
        assert page.frames[-1]["total"] == count
        assert {row[4] for row in page.frames[-1]["rows"]} == ({str(shard)} if count == 5 else {"0", "1"})


def test_shards_are_in_the_order_of_their_hash_keys(source: kn.Source, streams: Streams) -> None:
    """With their shares, and the one that takes a key is lit."""
    streams.create(shards=4)
    with source.tail("orders") as tail:
        lines = shard_map(tail.stats().shards, "Ada")
    assert [line[0] for line in lines] == ["0", "1", "2", "3"]
    assert [line[7] for line in lines] == [0.25] * 4
    (lit,) = [line[1] for line in lines if line[9]]
    assert lit == source.explore("orders").shard_for("Ada").shard_id
    assert not any(line[9] for line in shard_map(tail.stats().shards, ""))
