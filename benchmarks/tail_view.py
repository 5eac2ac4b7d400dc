"""What live views cost at 20,000 rows a second, in JupyterLab and Chromium: `python benchmarks/tail_view.py`.

The embedded Kinesis runs in a process of its own. Prints Markdown: the CPU of all processes of the
browser, and of the kernel's thread that serves the views, in percent of a core; how long a click takes until its answer
is drawn; and how late the page's timers are. Takes a minute and a half.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import emulated
import nbformat
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.lab import browser_page, jupyter_lab, open_notebook, run_all

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Page

STREAM, SHARDS = "views", 4
RATE, REQUEST = 20_000, 500  # records a second, in a request
SECONDS, WARM_SECONDS = 10, 4
VIEWS = (0, 1, 10)
CLICKS = 8

_CELLS = """
import os, threading, time
import kinesis_nb as kn
source = kn.connect(auth=kn.StaticCredentials("emulator", "emulator"), endpoint_url="http://127.0.0.1:{port}")
tail = source.tail("{stream}")
def ticks():
    ids = [t.native_id for t in threading.enumerate() if t.name == "kinesis_nb views"]
    stats = [open(f"/proc/self/task/{{number}}/stat").read().rsplit(")")[1].split() for number in ids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats), tail.stats().buffer.received, time.time()
###
for _ in range({views}):
    display(tail.view())
###
print(*ticks())
"""

_CLICK = """async () => {
    const view = document.querySelector(".knb-tail");
    const state = () => view.querySelector(".knb-state").dataset.state;
    const button = view.querySelector("button");
    const before = state(), started = performance.now();
    button.click();
    while (state() === before) await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""
_LATE = """async (ms) => {
    const late = [], end = performance.now() + ms;
    while (performance.now() < end) {
        const started = performance.now();
        await new Promise((done) => setTimeout(done, 20));
        late.push(performance.now() - started - 20);
    }
    return late;
}"""


def main() -> None:
    """Measure and print."""
    print("| views | rows/s | browser, % of a core | kernel's view thread, % | click, ms | timers late, p95 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for views in VIEWS:
        with (
            emulated.running({STREAM: SHARDS}) as port,
            tempfile.TemporaryDirectory() as folder,
            jupyter_lab(Path(folder)) as address,
            browser_page() as (page, _),
        ):
            nbformat.write(_notebook(port, views), Path(folder) / "views.ipynb")
            page.set_viewport_size({"width": 1200, "height": 4_500})  # all views are in sight, which is the worst
            open_notebook(page, address.format("views.ipynb"))
            with _written(port):
                run_all(page)
                page.wait_for_timeout(WARM_SECONDS * 1_000)
                print(_measure(page, views), flush=True)


@contextmanager
def _written(port: int) -> Generator[None]:
    """Put records of 200 bytes at the rate, from a thread; the requests are made before, so it costs little."""
    rng, client, stopping = random.Random(1), emulated.RawClient(port), threading.Event()
    data = base64.b64encode(json.dumps({"text": "x" * 170, "number": 12}).encode()).decode()
    bodies = [
        json.dumps(
            {
                "StreamName": STREAM,
                "Records": [{"PartitionKey": f"key-{rng.getrandbits(32)}", "Data": data} for _ in range(REQUEST)],
            }
        ).encode()
        for _ in range(20)
    ]

    def write() -> None:
        due = time.monotonic()
        for body in itertools.cycle(bodies):
            due += REQUEST / RATE
            if stopping.wait(max(0.0, due - time.monotonic())):
                return
            client.post("PutRecords", body)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _notebook(port: int, views: int) -> nbformat.NotebookNode:
    cells = [part.format(port=port, stream=STREAM, views=views) for part in _CELLS.split("###\n")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells], metadata=kernel)


def _measure(page: Page, views: int) -> str:
    ticks, rows, at = _kernel(page)
    started, used = time.monotonic(), _browser_seconds()
    late = page.evaluate(_LATE, SECONDS * 1_000)
    browser = (_browser_seconds() - used) / (time.monotonic() - started)
    more_ticks, more_rows, then = _kernel(page)
    kernel = (more_ticks - ticks) / os.sysconf("SC_CLK_TCK") / (then - at)
    clicks = [page.evaluate(_CLICK) for _ in range(CLICKS)] if views else []
    click = f"{statistics.median(clicks):,.0f}" if clicks else "-"
    rate = (more_rows - rows) / (then - at)
    slow = statistics.quantiles(late, n=20)[-1]
    return f"| {views} | {rate:,.0f} | {browser:.0%} | {kernel:.1%} | {click} | {slow:,.0f} |"


def _kernel(page: Page) -> tuple[float, float, float]:
    """Run the last cell, and return what it says."""
    output = page.locator(".jp-Cell").last.locator(".jp-OutputArea-output")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-below')")
    page.wait_for_timeout(1_500)
    ticks, rows, at = map(float, output.last.inner_text().split())
    return ticks, rows, at


def _browser_seconds() -> float:
    """Return the CPU seconds that all processes of the browser have used."""
    children = psutil.Process().children(recursive=True)
    return sum(sum(child.cpu_times()[:2]) for child in children if "chrom" in child.name())


if __name__ == "__main__":
    main()
