"""What becomes of widgets when the kernel is busy, interrupted or restarted, and in the dark theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.e2e.driver import SECONDS, Notebook

if TYPE_CHECKING:
    from collections.abc import Callable

EXPLORE = 'from kinesis_nb.widgets import Explorer\nExplorer(source, "orders")'
TAIL = 'tail = source.tail("clicks")\ntail'
THREADS = 'import threading\nprint(sum("kinesis_nb clicks shardId" in one.name for one in threading.enumerate()) <= 8)'


def test_a_busy_kernel_is_interrupted(notebook: Callable[..., Notebook], kernel: str, connect: str) -> None:
    """While a cell is busy rows come on; a click works at once or after the interrupt, and the tail outlives it."""
    book = notebook([connect, TAIL, "import time\nwhile True: time.sleep(0.1)", "print(tail.state)"], kernel)
    book.run(0, 1)
    view = book.output(1)
    newest = view.locator("[data-place='0']")
    newest.wait_for(timeout=20 * SECONDS)
    book.begin(2)
    expect(newest).not_to_have_text(newest.text_content() or "", timeout=15 * SECONDS)

    view.get_by_role("button", name="Pause").click()
    if kernel == "ipykernel-7.3":
        view.get_by_text("paused").wait_for(timeout=10 * SECONDS)
    book.interrupt()
    view.get_by_text("paused").wait_for(timeout=10 * SECONDS)
    book.output(2).get_by_text("KeyboardInterrupt").first.wait_for(timeout=10 * SECONDS)
    view.get_by_role("button", name="Resume").click()
    view.get_by_text("running").wait_for(timeout=10 * SECONDS)
    book.run(3)
    assert book.text(3).strip() == "running"


def test_a_restarted_kernel_begins_again(notebook: Callable[..., Notebook], connect: str) -> None:
    """After a restart rows stay and say that the kernel has ended; the same cells run again with one set of threads."""
    book = notebook([connect, TAIL, THREADS, EXPLORE])
    book.run(0, 1, 3)
    book.output(1).locator("[data-place='0']").wait_for(timeout=20 * SECONDS)
    inner = book.output(3)
    inner.get_by_role("tab", name="Use it").click(timeout=20 * SECONDS)
    inner.get_by_role("button", name="Tail").locator("visible=true").click()
    inner.get_by_text("running").locator("visible=true").first.wait_for(timeout=20 * SECONDS)
    book.restart()
    book.output(1).get_by_text("clicks: the kernel has ended").wait_for(timeout=10 * SECONDS)
    book.output(1).locator("td", has_text="user-").first.wait_for()
    book.picture("restarted-1-before-running", 1)
    inner.get_by_text("no kernel").locator("visible=true").first.wait_for()
    book.picture("restarted-1-inner", 3)
    assert "the kernel has ended" in book.save()
    book.run(0, 1, 1, 2)
    book.output(1).locator("[data-place='0']").wait_for(timeout=20 * SECONDS)
    book.output(1).get_by_text("running").wait_for()
    assert book.text(2).strip() == "True"
    book.picture("restarted-2-running", 1)


def test_dark_theme(notebook: Callable[..., Notebook], connect: str, tmp_path: str) -> None:
    """Everything can be read in the dark theme: no text has less than 4.5 times the luminance of what is behind it."""
    book = notebook(
        [
            connect,
            "from kinesis_nb.widgets import SourceForm\nSourceForm(source.config)",
            TAIL,
            f"sync = source.sync('clicks', '{tmp_path}/clicks')\nsync.wait(timeout=60)\nsync",
            "source.explore('clicks').lineage",
            "source.explore('orders').heat()",
        ]
    )
    book.dark()
    book.run(0, 1, 2, 3, 4, 5)
    book.output(2).locator("[data-place='0']").wait_for(timeout=20 * SECONDS)
    for place, name in enumerate(("source-form", "tail", "sync", "lineage", "heat"), 1):
        book.output(place).scroll_into_view_if_needed()
        book.picture(f"dark-{name}", place)
        faint = book.output(place).evaluate(FAINT)
        assert faint == [], name


# the text elements whose colour is too near to what is behind them; what is disabled or a placeholder may be
FAINT = """area => {
    const rgb = text => (text.match(/[0-9.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b]
        .map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let one = element; one; one = one.parentElement) {
            const colour = rgb(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of area.querySelectorAll("*")) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || ["STYLE", "SCRIPT", "OPTION"].includes(element.tagName)) continue;
        if (element.closest("[disabled]") || element.disabled || !element.getClientRects().length) continue;
        const isDrawing = element instanceof SVGElement;
        const front = luminance(rgb(isDrawing ? getComputedStyle(element).fill : getComputedStyle(element).color));
        const back = luminance(behind(element));
        const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        if (contrast < 4.5) faint.push([element.outerHTML.slice(0, 200), contrast.toFixed(1)]);
    }
    return faint;
}"""
