"""The grid of rows in JupyterLab: their order, all their columns and rows, filters, sorting, copies, what stays."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.e2e.driver import SECONDS, Notebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from kinesis_nb.emulator import Emulator

VIEW = "records = source.read({stream!r}, progress=False)\nrecords.view()"


def _put(emulator: Emulator, stream: str, shards: int, rows: list[tuple[str, bytes]]) -> None:
    call = emulator.model.call
    call("CreateStream", {"StreamName": stream, "ShardCount": shards})
    for first in range(0, len(rows), 500):
        some = [{"PartitionKey": key, "Data": data} for key, data in rows[first : first + 500]]
        call("PutRecords", {"StreamName": stream, "Records": some})


def _column(view: Locator, title: str) -> str:
    """Return the number of a column as a screen reader counts it."""
    head = view.locator("[role=columnheader]", has=view.page.locator(f".knb-sort:text-is('{title}')"))
    return head.first.get_attribute("aria-colindex") or ""


def _show(view: Locator, title: str, first: str) -> Locator:
    """Scroll to a column of a field, once the first field is there; return its head."""
    head = view.locator("[role=columnheader]", has=view.page.locator(".knb-sort", has_text=title))
    view.locator(".knb-sort", has_text=first).wait_for()
    for left in range(0, 8_000, 300):
        view.locator("[role=grid]").evaluate("(grid, left) => { grid.scrollLeft = left; }", left)
        view.page.wait_for_timeout(100)
        if head.count():
            break
    return head


def _seen(view: Locator, column: str) -> list[str]:
    """Return what stands in a column, in the rows of the page from top to bottom."""
    script = """(grid, column) => [...grid.querySelectorAll('.knb-body .knb-row')].filter((row) => !row.hidden)
        .sort((a, b) => a.dataset.place - b.dataset.place)
        .map((row) => [Number(row.dataset.place), row.querySelector(`[aria-colindex="${column}"]`)?.textContent])"""
    return [text for _, text in view.locator("[role=grid]").evaluate(script, column)]


def _every_row(view: Locator, column: str, count: int) -> list[str]:
    """Scroll from the first row to the last; return what stood in a column."""
    script = """async (grid, [column, count]) => {
        const found = new Map();
        for (let top = 0; found.size < count && top < count * 22 + 400; top += 200) {
            grid.scrollTop = top;
            for (let wait = 0; wait < 60; wait++) {
                await new Promise((resolve) => setTimeout(resolve, 30));
                const rows = [...grid.querySelectorAll('.knb-body .knb-row')].filter((row) => !row.hidden);
                const cellOf = (row) => row.querySelector(`[aria-colindex="${column}"]`)?.textContent;
                const cells = rows.map((row) => [Number(row.dataset.place), cellOf(row)]);
                const there = cells.filter(([, text]) => text !== '…');
                there.forEach(([place, text]) => found.set(place, text));
                if (wait > 1 && there.length === cells.length) break;
            }
        }
        return [...found.keys()].sort((a, b) => a - b).map((place) => found.get(place));
    }"""
    return list(view.locator("[role=grid]").evaluate(script, [column, count]))


def test_rows_of_eight_shards_are_in_the_order_of_their_arrival(
    notebook: Callable[..., Notebook], connect: str, emulator: Emulator
) -> None:
    """Arrival falls from the top to the last of 1,500 rows, and all of them can be reached."""
    call = emulator.model.call
    call("CreateStream", {"StreamName": "eight", "ShardCount": 8})
    book = notebook([connect, 'tail = source.tail("eight", start="trim_horizon")\ntail'])
    for number in range(30):  # at thirty moments, over all shards
        some = [{"PartitionKey": f"k{i}", "Data": b'{"n": %d}' % (50 * number + i)} for i in range(50)]
        call("PutRecords", {"StreamName": "eight", "Records": some})
        book.page.wait_for_timeout(5)
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("1,500 held").wait_for(timeout=20 * SECONDS)
    view.locator("[role=gridcell]").first.wait_for()
    arrived = _every_row(view, _column(view, "arrived (UTC)"), 1_500)
    assert len(arrived) == 1_500
    assert arrived == sorted(arrived, reverse=True)
    assert len(set(arrived)) >= 20
    numbers = _every_row(view, _column(view, "data"), 1_500)
    assert sorted(json.loads(text)["n"] for text in numbers) == list(range(1_500))


def test_all_of_sixty_fields(notebook: Callable[..., Notebook], connect: str, emulator: Emulator) -> None:
    """The last field is there with its values, the data too; the chooser has them all, and hides what is not wanted."""
    rows = [("k", json.dumps({f"field_{i}": n * 100 + i for i in range(60)}).encode()) for n in range(40)]
    _put(emulator, "wide", 1, rows)
    book = notebook([connect, VIEW.format(stream="wide")])
    book.run(0, 1)
    view = book.output(1)
    view.locator("[role=gridcell]").first.wait_for(timeout=20 * SECONDS)
    view.get_by_role("button", name="JSON columns").click()
    view.locator(".knb-sort", has_text="field_0").wait_for()
    view.locator("[role=grid]").evaluate("(grid) => { grid.scrollLeft = grid.scrollWidth; }")
    view.locator(".knb-sort", has_text="data").wait_for()
    seen = _seen(view, _column(view, "field_59"))
    assert seen[:14] == [str(n * 100 + 59) for n in range(39, 25, -1)]
    book.picture("grid-wide", 1)
    view.locator("summary", has_text="Columns").click()
    view.locator(".knb-choice").first.wait_for()
    assert view.locator(".knb-choice").count() == 64
    view.get_by_role("button", name="none").click()
    view.get_by_label("field_7", exact=True).check()
    view.get_by_text("Columns: 1 of 64").wait_for()
    assert _seen(view, "1")[:2] == ["3907", "3807"]
    book.picture("grid-columns", 1)


def test_a_bar_filters_as_polars_does(notebook: Callable[..., Notebook], connect: str) -> None:
    """The rows after a click on a bar are those of the code that the view shows; sorting puts the largest first."""
    book = notebook([connect, VIEW.format(stream="orders"), ""])
    book.run(0, 1)
    view = book.output(1)
    view.locator("[role=gridcell]").first.wait_for(timeout=20 * SECONDS)
    view.get_by_role("button", name="JSON columns").click()
    head = _show(view, "total", "order")
    head.locator(".knb-hist", has=book.page.locator("i:not([style='height:0px'])")).nth(3).click()
    view.locator(".knb-chip", has_text="total").wait_for()
    head.locator(".knb-sort").click()
    view.locator(".knb-sort", has_text="total ↓").wait_for()
    book.picture("grid-filtered", 1)
    matching = int((view.locator(".knb-counts").inner_text().split(" · ")[-1]).split()[0].replace(",", ""))
    totals = _every_row(view, _column(view, "total ↓"), matching)
    assert len(totals) == matching > 0
    view.get_by_role("button", name="Code").click()
    view.get_by_role("button", name="Insert as a cell below").click()
    book.page.wait_for_timeout(300)
    code = book.source(2).splitlines()
    code[-1] = f"print({code[-1]}['total'].to_list())"
    book._ask(f"panel.content.model.cells.get(2).sharedModel.setSource({json.dumps(chr(10).join(code))})")
    book.run(2)
    assert [float(total) for total in totals] == json.loads(book.text(2))


def test_a_long_record_is_copied_exactly(notebook: Callable[..., Notebook], connect: str, emulator: Emulator) -> None:
    """200 kB with everything that hides in text: what is on the clipboard is the data."""
    alphabet = 'abc "\\ \t\n\r\u202e\u200f\u05d0é🙂\x01\ufeff'
    text = "".join(random.Random(1).choices(alphabet, k=90_000))
    _put(emulator, "long", 1, [("k", text.encode())])
    book = notebook([connect, VIEW.format(stream="long")])
    book.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    book.run(0, 1)
    view = book.output(1)
    view.locator("[role=gridcell]").first.click(timeout=20 * SECONDS)
    view.get_by_role("button", name="Copy", exact=True).click()
    view.get_by_text(f"copied {len(text.encode()):,} bytes").wait_for(timeout=10 * SECONDS)
    copied = book.page.evaluate(
        """async () => { const bytes = new TextEncoder().encode(await navigator.clipboard.readText());
        return [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))]; }"""
    )
    assert bytes(copied) == hashlib.sha256(text.encode()).digest()


def test_rows_can_be_saved_as_a_file(notebook: Callable[..., Notebook], connect: str) -> None:
    """What matches the filter, as JSON Lines."""
    book = notebook([connect, VIEW.format(stream="orders")])
    book.run(0, 1)
    view = book.output(1)
    view.locator("[role=gridcell]").first.wait_for(timeout=20 * SECONDS)
    view.get_by_placeholder("partition key").fill("Ada")
    view.get_by_text(" match").first.wait_for()
    view.locator("summary", has_text="Download").click()
    with book.page.expect_download() as going:
        view.get_by_role("button", name="JSON Lines").click()
    lines = going.value.path().read_text().splitlines()
    assert {json.loads(line)["partition_key"] for line in lines} == {"Ada"}
    assert view.get_by_text(f"{len(lines)} match").count() == 1


def test_a_stopped_view_keeps_what_it_showed(notebook: Callable[..., Notebook], connect: str) -> None:
    """Columns, order and filter stay in the picture, which says so."""
    book = notebook([connect, 'tail = source.tail("orders", start="trim_horizon")\ntail'])
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("1,000 held").wait_for(timeout=20 * SECONDS)
    view.get_by_role("button", name="JSON columns").click()
    view.get_by_placeholder("partition key").fill("Grace")
    view.get_by_text(" match").first.wait_for()
    _show(view, "total", "order").locator(".knb-sort").click()
    view.locator(".knb-sort", has_text="total ↓").wait_for()
    view.get_by_role("button", name="Stop").click()
    view.locator("table td").first.wait_for(timeout=10 * SECONDS)
    caption = view.locator("caption").inner_text()
    assert "stopped" in caption
    assert "rows where key holds 'Grace', sorted by total, largest first" in caption
    heads = view.locator("th").all_inner_texts()
    assert heads[:8] == ["arrived (UTC)", "key", "shard", "order", "customer", "item", "count", "total"]
    totals = [float(text) for text in view.locator("td:nth-child(8)").all_inner_texts()]
    assert totals == sorted(totals, reverse=True)
    assert set(view.locator("td:nth-child(2)").all_inner_texts()) == {"Grace"}
    book.picture("grid-stopped", 1)


def test_a_stretch_of_time_is_dragged(notebook: Callable[..., Notebook], connect: str, emulator: Emulator) -> None:
    """500 rows at one moment, 500 four seconds later: a drag over the second ones shows these and no others."""
    book = notebook([connect, VIEW.format(stream="moments")])
    for name in "AB":
        rows = [(f"k{i}", b'{"moment": "%s"}' % name.encode()) for i in range(500)]
        if name == "A":
            _put(emulator, "moments", 2, rows)
        else:
            some = [{"PartitionKey": key, "Data": data} for key, data in rows]
            emulator.model.call("PutRecords", {"StreamName": "moments", "Records": some})
        book.page.wait_for_timeout(4_000)
    book.run(0, 1)
    view = book.output(1)
    view.locator(".knb-slice i").first.wait_for(timeout=20 * SECONDS)
    field = view.locator(".knb-time")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box is not None
    book.page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 20)
    book.page.mouse.down()
    book.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20, steps=5)
    book.page.mouse.up()
    view.locator(".knb-chip", has_text="arrived").wait_for()
    view.get_by_text("500 match").wait_for()
    assert set(_seen(view, _column(view, "data"))) == {'{"moment": "B"}'}
    book.picture("grid-window", 1)


def test_a_click_on_a_shard_shows_its_rows(notebook: Callable[..., Notebook], connect: str) -> None:
    """And the shard that takes the key in the box is lit."""
    book = notebook([connect, 'tail = source.tail("orders", start="trim_horizon")\ntail'])
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("1,000 held").wait_for(timeout=20 * SECONDS)
    view.locator(".knb-badge").nth(1).click()
    view.locator(".knb-chip", has_text="shard is '1'").wait_for()
    assert set(_seen(view, _column(view, "shard"))) == {"1"}
    view.locator(".knb-badge").nth(1).click()
    view.locator(".knb-chip").wait_for(state="hidden")
    view.get_by_placeholder("partition key").fill("Ada")
    view.locator(".knb-badge.knb-lit").wait_for()
    assert view.locator(".knb-badge.knb-lit").count() == 1


_SERVER = """import subprocess, sys, kinesis_nb as kn
code = '''
import sys
from kinesis_nb.emulator import Emulator
with Emulator() as emulator:
    emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 2})
    print(emulator.endpoint_url, flush=True)
    sys.stdin.read()
'''
server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
source = kn.connect(endpoint_url=server.stdout.readline().strip(), auth=kn.StaticCredentials("a", "b"))"""


def test_a_dead_connection_is_seen(notebook: Callable[..., Notebook]) -> None:
    """Within three seconds of the end of the server the state says so, with what happened and what to do."""
    book = notebook([_SERVER, 'tail = source.tail("orders")\ntail', "server.kill()", "tail.stop()"])
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("● running").wait_for(timeout=20 * SECONDS)
    book.run(2)
    view.get_by_text("✕ not reading").wait_for(timeout=3 * SECONDS)
    banner = view.locator(".knb-error").first.inner_text()
    assert "2 shards cannot be read" in banner
    assert "hint: nothing is lost" in banner
    view.locator(".knb-badge", has_text="retrying").first.wait_for()
    book.picture("grid-not-reading", 1)


def test_a_server_that_says_nothing_is_seen(notebook: Callable[..., Notebook]) -> None:
    """One that stops in the middle: not an error yet, and not healthy."""
    stop = "import os, signal\nos.kill(server.pid, signal.SIGSTOP)"
    book = notebook([_SERVER, 'tail = source.tail("orders")\ntail', stop, "os.kill(server.pid, signal.SIGCONT)"])
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("● running").wait_for(timeout=20 * SECONDS)
    book.run(2)
    view.get_by_text("no response for").first.wait_for(timeout=5 * SECONDS)
    book.run(3)
    view.get_by_text("● running").wait_for(timeout=10 * SECONDS)


def test_a_failed_tail_says_why(notebook: Callable[..., Notebook], connect: str, emulator: Emulator) -> None:
    """The whole error and its hint stay in the notebook, readable."""
    emulator.model.call("CreateStream", {"StreamName": "gone", "ShardCount": 1})
    cells = [connect, 'tail = source.tail("gone")\ntail']
    book = notebook(cells)
    book.run(0, 1)
    view = book.output(1)
    view.get_by_text("● running").wait_for(timeout=20 * SECONDS)
    emulator.model.call("DeleteStream", {"StreamName": "gone"})
    view.locator(".knb-error b").wait_for(timeout=40 * SECONDS)
    said = view.inner_text()
    assert "\\u000a" not in said
    assert "hint: " in said
    assert "failed" in said
    book.picture("grid-failed", 1)
    expect(view.locator(".knb-error")).to_have_count(1)
