"""The live table of a tail in JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.e2e.driver import SECONDS, Notebook

if TYPE_CHECKING:
    from collections.abc import Callable

LOST = ("model not found", "Error displaying widget", "Loading widget")


def test_tail_with_pause_filter_and_stop(notebook: Callable[..., Notebook], kernel: str, connect: str) -> None:
    """Rows come by themselves, stand still while paused, and stay in the saved notebook when it is over."""
    book = notebook([connect, 'tail = source.tail("clicks")\ntail', "print(tail.state)"], kernel)
    book.run(0, 1)
    view = book.output(1)
    rows = view.locator("[role=gridcell]")
    rows.first.wait_for(timeout=20 * SECONDS)
    book.page.wait_for_timeout(2 * SECONDS)
    book.picture(f"tail-{kernel}-1-running", 1)

    view.get_by_role("button", name="Pause").click()
    view.get_by_text("paused").wait_for()
    book.run(2)
    assert book.text(2).strip() == "paused"
    before = view.locator("[role=row]").nth(1).inner_text()
    book.page.wait_for_timeout(1 * SECONDS)
    assert view.locator("[role=row]").nth(1).inner_text() == before
    view.locator("[data-place='1']").click()
    view.get_by_role("region", name="one row").wait_for()
    book.picture(f"tail-{kernel}-2-detail", 1)
    view.get_by_role("button", name="close").click()
    view.get_by_role("button", name="Resume").click()
    view.get_by_placeholder("partition key").fill("user-7")
    view.get_by_role("button", name="JSON columns").click()
    view.get_by_role("columnheader", name="page").wait_for()
    book.page.wait_for_timeout(1 * SECONDS)
    book.picture(f"tail-{kernel}-3-filtered", 1)

    view.get_by_role("button", name="Stop").click()
    view.get_by_text("stopped").first.wait_for(timeout=10 * SECONDS)
    view.locator("table td").first.wait_for(timeout=10 * SECONDS)
    book.picture(f"tail-{kernel}-4-stopped", 1)
    assert len(book.save()) <= 100_000

    book.shut_down()
    book.open()
    book.output(1).locator("table td").first.wait_for()
    book.picture(f"tail-{kernel}-5-reopened", 1)
    assert [text for text in LOST if text in book.output(1).inner_text()] == []


def test_page_reload_while_a_tail_runs(notebook: Callable[..., Notebook], connect: str) -> None:
    """After a reload of the page the view goes on by itself, and when it is stopped its rows are in the notebook."""
    book = notebook([connect, 'tail = source.tail("clicks")\ntail', "print(tail.state)"])
    book.run(0, 1)
    book.output(1).locator("[role=gridcell]").first.wait_for(timeout=20 * SECONDS)
    book.save()
    book.page.reload()
    book.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60 * SECONDS)
    view = book.output(1)
    view.get_by_text("● running").wait_for(timeout=30 * SECONDS)
    newest = view.locator("[data-place='0']")
    expect(newest).not_to_have_text(newest.text_content() or "", timeout=15 * SECONDS)
    book.picture("tail-reloaded", 1)
    assert [text for text in LOST if text in view.inner_text()] == []

    view.get_by_role("button", name="Stop").click()
    view.locator("table td", has_text="user-").first.wait_for(timeout=10 * SECONDS)
    book.save()
    book.shut_down()
    book.open()
    book.output(1).locator("table td", has_text="user-").first.wait_for()
    book.picture("tail-reloaded-stopped-reopened", 1)
    assert [text for text in LOST if text in book.output(1).inner_text()] == []
