"""Forms in a real JupyterLab in Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.support.lab import browser_page, jupyter_lab, open_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[2] / ".build" / "screenshots"
CANARY = "CANARYbrowser0123456789"

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # playwright's own event loop
]


def write(folder: Path, *cells: str) -> str:
    """Write a notebook, and have JupyterLab save the state of widgets with it."""
    settings = folder / ".jupyter" / "settings" / "@jupyter-widgets" / "jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text(json.dumps({"saveState": True}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in cells], metadata={"kernelspec": kernel}
    )
    nbformat.write(notebook, folder / "forms.ipynb")
    PICTURES.mkdir(parents=True, exist_ok=True)
    return "forms.ipynb"


def run_cell(page: Page, number: int, *, wait: bool = True) -> None:
    page.evaluate(
        """async ([number, wait]) => {
            const app = window.jupyterapp;
            app.shell.currentWidget.content.activeCellIndex = number;
            const done = app.commands.execute('notebook:run-cell');
            if (wait) await done;
        }""",
        [number, wait],
    )


def execute(page: Page, command: str, **options: str) -> None:
    page.evaluate("([name, options]) => window.jupyterapp.commands.execute(name, options)", [command, options])


def picture(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_secret_typed_into_a_form_is_in_no_file(tmp_path: Path) -> None:
    """With the state of widgets saved: not in the notebook, its checkpoint, workspaces, logs or the history."""
    name = write(
        tmp_path,
        "import logging, sys\nlogging.basicConfig(level=logging.DEBUG, stream=sys.stderr)\n"
        "from kinesis_nb.widgets import SourceForm\nform = SourceForm()\nform",
        "auth = form.source().config.auth\nprint(len(auth.secret_access_key.reveal()), form.source().config.proxy)",
        "print(form.to_code(), form, form.source())\n%hist -g",
    )
    with jupyter_lab(tmp_path) as address, browser_page() as (page, outside):
        page.set_default_timeout(90_000)
        open_notebook(page, address.format(name))
        run_cell(page, 0)
        page.get_by_label("Authentication").select_option("Static Credentials")
        page.get_by_label("Access key ID").fill("AKIATEST")
        box = page.get_by_role("textbox", name="Secret access key")
        box.fill(CANARY)
        page.get_by_role("textbox", name="Session token").fill(CANARY)
        page.get_by_label("Own endpoints, proxy or certificates").check()
        page.get_by_role("textbox", name="Proxy").fill(f"http://ada:{CANARY}@127.0.0.1:9")
        page.get_by_label("Save as").fill("prod")  # leaves the box before
        page.wait_for_function("() => document.querySelectorAll('.knb-secret-note:not(:empty)').length === 3")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.knb-secret input')].every((one) => one.value === '')"
        )
        page.get_by_label("Region").fill("frankfurt")
        page.wait_for_selector("text=✗ 'frankfurt' is not the name of a region")
        picture(page, "source-form-wrong")
        page.get_by_label("Region").fill("eu-central-1")
        page.get_by_role("button", name="Code").click()
        page.wait_for_selector("pre >> text=getpass.getpass")
        picture(page, "source-form")
        execute(page, "apputils:change-theme", theme="JupyterLab Dark")
        page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
        picture(page, "source-form-dark")
        run_cell(page, 1)
        page.wait_for_selector(f"text={len(CANARY)} http://ada:********@127.0.0.1:9")
        run_cell(page, 2)
        execute(page, "docmanager:save")
        page.wait_for_selector(".jp-NotebookPanel:not(.jp-mod-dirty)")
        execute(page, "docmanager:save")
        assert outside == []
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    saved = files[tmp_path / name]
    assert b"AKIATEST" in saved  # the state of widgets is there
    assert b"widget-state+json" in saved
    assert any(".ipynb_checkpoints" in str(path) for path in files)
    assert any(path.name == "history.sqlite" for path in files)
    assert [str(path) for path, content in files.items() if b"CANARYbrowser" in content] == []


def test_a_sync_is_started_and_stopped_while_a_cell_runs(tmp_path: Path) -> None:
    """The buttons do not wait for the kernel's main thread; what was typed before counts."""
    name = write(
        tmp_path,
        "import kinesis_nb as kn\nfrom kinesis_nb.widgets import SyncForm\nform = SyncForm(kn.demo())\nform",
        "import time\nuntil = time.monotonic() + 120\n"
        "while time.monotonic() < until and (form.sync is None or form.sync.status().state != 'stopped'):\n"
        "    time.sleep(0.05)\n"
        "print('stopped' if time.monotonic() < until else 'nobody came')",
    )
    with jupyter_lab(tmp_path) as address, browser_page() as (page, outside):
        page.set_default_timeout(90_000)
        open_notebook(page, address.format(name))
        run_cell(page, 0)
        run_cell(page, 1, wait=False)
        page.get_by_label("Stream", exact=True).fill("clicks")
        page.get_by_label("Table", exact=True).fill("tables/clicks")
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_selector("text=caught up")
        picture(page, "sync-form")
        page.locator(".knb-live").get_by_role("button", name="Stop").click()
        output = page.locator(".jp-RenderedText pre").last
        output.wait_for()
        assert output.inner_text().strip() == "stopped"
        assert outside == []
