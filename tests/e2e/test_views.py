"""What a person sees of the live views, in a real Chromium."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import comm
import nbformat
import pytest

from kinesis_nb.widgets import TailView
from tests.support.lab import browser_page, jupyter_lab, open_notebook, run_all
from tests.test_hostile import PAYLOADS
from tests.widgets.test_views import FrontEnd, _hold, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

    import kinesis_nb as kn
    from tests.conftest import Streams

PICTURES = Path(__file__).parents[2] / ".build" / "screenshots"

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # playwright's event loop

# A model that keeps what the view says, and is fed by the test.
_RENDER = """async ([code, messages]) => {
    const view_tags = "div|span|button|input|label|i|dl|dt|dd|pre|details|summary|svg|polyline";
    const OURS = RegExp(`^(${view_tags}|style|table|caption|thead|tbody|tr|th|td)$`, "i");
    const view = (await import("data:text/javascript;base64," + code)).default;
    const style = document.createElement("style");
    style.textContent = view.styles;
    document.head.append(style);
    const el = document.body.appendChild(document.createElement("div"));
    const said = [];
    let receive, disconnect, left;
    const shown = { data: { "application/vnd.jupyter.widget-view+json": { model_id: messages[0][0].model } } };
    const outputs = { length: 1, get: () => shown, set: (_, output) => { left = output.data["text/html"]; } };
    const widget_manager = {  // of a notebook whose kernel has ended
        get_model: async () => ({ comm_live: false }),
        kernel: { status: "dead" },
        context: { model: { cells: [{ outputs }] } },
    };
    const on = (name, f) => { if (name === "msg:custom") receive = f; else disconnect = f; };
    view.render({ model: { send: (m) => said.push(m), on, off() {}, widget_manager }, el });
    for (const [place, [head, frame]] of messages.entries()) {
        const bytes = new TextEncoder().encode(JSON.stringify(frame));
        receive(head, [new DataView(bytes.buffer)]);
        await new Promise((done) => setTimeout(done, 120));  // views draw in rounds, a tenth of a second apart
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        found(el);
        const grid = el.querySelector(".knb-grid");
        if (place > 1) continue;  // the same rows again, and another one in detail
        for (let y = 0; y < grid.scrollHeight; y += 200) {  // every row is drawn once
            grid.scrollTop = y;
            await new Promise(requestAnimationFrame);
            found(el);
        }
        grid.scrollTop = 0;
    }
    function found(root) {
        for (const node of root.querySelectorAll("*")) {
            const isOurs = OURS.test(node.tagName);
            const bad = [...node.attributes].filter(({ name }) => /^(on|href|src|srcdoc|action|formaction)/.test(name));
            if (!isOurs || bad.length) window.bad = `${node.tagName} ${bad.map((a) => a.name)}`;
        }
        window.text = (window.text ?? "") + root.textContent;
    }
    found(el);
    await disconnect();
    const kept = document.body.appendChild(document.createElement("div"));
    kept.innerHTML = left;
    found(kept);
    if (!kept.querySelectorAll("td").length) window.bad = "nothing is left";
    return [window.bad ?? null, window.text, said];
}"""


def _play(page: Page, view: TailView) -> tuple[str | None, str, list[dict[str, object]]]:
    """Show in the page what a view has sent to its front end."""
    page.set_content("<!doctype html><body></body>")
    script = base64.b64encode(TailView._script).decode()
    messages = list(zip(page_of(view).heads, page_of(view).frames, strict=True))
    bad, text, said = page.evaluate(_RENDER, [script, json.loads(json.dumps(messages))])
    return bad, text, said


@pytest.mark.timeout(240)
def test_a_tail_view_has_no_active_node(source: kn.Source, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile keys, data, field names and details are text: no element but ours, no handler, no request, no script."""
    monkeypatch.setattr(comm, "create_comm", FrontEnd)
    streams.create()
    for text in PAYLOADS:
        data = json.dumps({text: text, "n": {text: [text]}}).encode()
        for record in (text.encode() or b"x", data):
            streams.call("PutRecord", StreamName="orders", PartitionKey=text[:256] or "k", Data=record)
    with source.tail("orders", start="trim_horizon") as tail:
        _hold(tail, 2 * len(PAYLOADS))
        view = TailView(tail)
        view.refresh()
        page_of(view).say("json", json=True)
        view.refresh()
        for number in range(0, 2 * len(PAYLOADS), 5):
            page_of(view).say("detail", number=number)
            view.refresh()
    with browser_page() as (page, outside):
        bad, text, said = _play(page, view)
        page.wait_for_timeout(300)  # for what would load or fire
        assert page.evaluate("window.hit") is None
        assert outside == []
    assert bad is None
    assert "<script>window.hit=1</script>" in text  # it is there to be read
    assert "\\u202etxt.exe" in text
    assert said[0]["kind"] == "hello"


_CELLS = [
    "import kinesis_nb as kn\nsource = kn.demo()",
    "tail = source.tail('clicks')\ntail",
    "kept = source.tail('orders', start='trim_horizon')\nkept.view()",
]
_BUSY = """() => {
    const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
    kernel.requestExecute({ code: "import pathlib, time\\nwhile not pathlib.Path('go-on').exists(): time.sleep(0.1)" });
}"""


@pytest.mark.timeout(400)
def test_a_tail_in_jupyterlab(tmp_path: Path) -> None:
    """While a cell runs: rows, one of them whole, filters, columns, Stop leaves a table. A reload changes nothing."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS], metadata=kernel)
    nbformat.write(book, tmp_path / "tail.ipynb")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with jupyter_lab(tmp_path) as address, browser_page() as (page, outside):
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.set_viewport_size({"width": 1200, "height": 1_500})
        open_notebook(page, address.format("tail.ipynb"))
        run_all(page)
        clicks, orders = page.locator(".knb-tail").nth(0), page.locator(".knb-tail").nth(1)
        clicks.locator(".knb-body .knb-row").first.wait_for(timeout=60_000)
        orders.locator(".knb-body .knb-row").first.wait_for()
        page.evaluate(_BUSY)
        page.screenshot(path=PICTURES / "tail-light.png")
        orders.get_by_text("JSON columns").click()
        orders.get_by_role("columnheader", name="customer").wait_for()
        orders.get_by_placeholder("text in the data").fill("CHEESE")
        orders.get_by_text("180 match").wait_for()
        orders.get_by_role("grid").press("ArrowDown")
        orders.get_by_role("grid").press("Enter")
        orders.get_by_role("region", name="one row").get_by_text("sequence number").wait_for()
        page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
        orders.scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / "tail-dark.png")
        clicks.get_by_text("Stop").click()
        page.locator("div.knb caption", has_text="tail of clicks: stopped").wait_for()
        (tmp_path / "go-on").touch()
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        page.screenshot(path=PICTURES / "tail-stopped.png")
        page.reload()
        page.locator(".knb-tail .knb-body .knb-row").first.wait_for(timeout=60_000)  # the kernel's tail goes on
        page.locator("div.knb caption", has_text="tail of clicks: stopped").wait_for()
        assert (problems, outside) == ([], [])
    saved = nbformat.read(tmp_path / "tail.ipynb", as_version=4)
    stopped = saved.cells[1].outputs[0].data
    assert set(stopped) == {"text/html", "text/plain"}
    assert "user-" in stopped["text/html"]
    assert (tmp_path / "tail.ipynb").stat().st_size < 40_000
