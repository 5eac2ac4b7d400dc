"""The tutorials in JupyterLab as they are saved there, and the widgets in Notebook 7 and Voila."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.driver import PICTURES, ROOT, SECONDS, Notebook, labelled, write_notebook
from tests.e2e.test_tail import LOST
from tests.support.lab import open_notebook, run_all

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

WITH_WIDGETS = sorted((ROOT / "notebooks").glob("0[2-6]*.ipynb"))


@pytest.mark.parametrize("path", WITH_WIDGETS, ids=lambda path: path.stem)
def test_tutorials_are_small_when_saved_with_their_widgets(path: Path, page: Page, server: str, folder: Path) -> None:
    """A tutorial that was run and saved with widget state has at most 100 KB, and is whole when it is opened again."""
    shutil.copy(path, folder)
    book = Notebook(page, server, folder / path.name)
    run_all(page)
    assert len(book.save()) <= 100_000, path.name
    book.shut_down()
    book.open()
    book.settle()
    book.picture(f"tutorial-{path.stem}")
    assert [text for text in LOST if text in page.inner_text(".jp-Notebook")] == []


def test_notebook_7(page: Page, server: str, folder: Path, connect: str) -> None:
    """Forms and live tables work in Notebook 7 as they do in JupyterLab."""
    cells = [connect, "from kinesis_nb.widgets import SourceForm\nSourceForm()", 'tail = source.tail("clicks")\ntail']
    write_notebook(folder / "notebook_7.ipynb", cells, "ipykernel-7.4")
    open_notebook(page, server.format("notebook_7.ipynb").replace("/doc/tree/", "/notebooks/"))
    run_all(page)
    page.get_by_role("button", name="Test connection").wait_for(timeout=60 * SECONDS)
    page.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
    labelled(page.locator(".jp-Notebook"), "Region").fill("frankfurt")
    page.get_by_text("is not the name of a region").first.wait_for()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "notebook-7.png")


def test_voila(page: Page, server: str, folder: Path, connect: str) -> None:
    """The studio is an app in Voila."""
    write_notebook(
        folder / "voila.ipynb",
        [connect, "from kinesis_nb.widgets import Studio\nStudio()", 'tail = source.tail("clicks")\ntail'],
        "ipykernel-7.4",
    )
    page.goto(server.format("voila.ipynb").replace("/doc/tree/", "/voila/render/"))
    page.locator("[data-place='0']").wait_for(timeout=60 * SECONDS)
    page.get_by_role("button", name="Sample streams").click()
    page.get_by_role("button", name="Open").locator("visible=true").wait_for(timeout=30 * SECONDS)
    labelled(page.locator("body"), "Stream").locator("visible=true").fill("orders")
    page.get_by_role("button", name="Open").locator("visible=true").click()
    page.get_by_text("shardId-000000000001").locator("visible=true").first.wait_for(timeout=20 * SECONDS)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "voila.png")
