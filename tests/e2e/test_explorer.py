"""The explorer in JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.driver import SECONDS, Notebook, labelled

if TYPE_CHECKING:
    from collections.abc import Callable


def test_explore(notebook: Callable[..., Notebook], connect: str) -> None:
    """From the streams to the shards, records, fields and hot spots of one, and on to a tail of it."""
    book = notebook([connect, "from kinesis_nb.widgets import Explorer\nExplorer(source)"])
    book.run(0, 1)
    view = book.output(1)
    view.get_by_role("button", name="All streams").click()
    view.get_by_text("3 streams in us-east-1").wait_for(timeout=20 * SECONDS)
    book.picture("explorer-1-streams", 1)
    labelled(view, "Stream").fill("orders")
    view.get_by_role("button", name="Open").click()
    view.locator(".knb-lineage img").first.wait_for(timeout=20 * SECONDS)
    book.picture("explorer-2-shards", 1)
    for number, (tab, found) in enumerate(
        (("Records", "apples"), ("Fields", "customer"), ("Heat", "Katherine"), ("Key → shard", "Find")), 3
    ):
        view.get_by_role("tab", name=tab).click()
        view.get_by_text(found).locator("visible=true").first.wait_for(timeout=20 * SECONDS)
        book.picture(f"explorer-{number}-{tab.split()[0].lower()}", 1)
    labelled(view, "Partition key").locator("visible=true").fill("Ada")
    view.get_by_role("button", name="Find").click()
    view.get_by_text("shardId-000000000000").locator("visible=true").first.wait_for()
    book.picture("explorer-7-key", 1)
    view.get_by_role("tab", name="Use it").click()
    view.get_by_role("button", name="Tail").locator("visible=true").click()
    view.get_by_text("running").locator("visible=true").first.wait_for(timeout=20 * SECONDS)
    book.picture("explorer-8-tail", 1)
    view.get_by_role("button", name="Insert as a cell below").locator("visible=true").click()
    view.get_by_text("inserted").locator("visible=true").wait_for()
    assert book.source(2) == 'tail = source.tail("orders")\ntail.view()'
