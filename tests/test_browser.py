"""What a person sees: the first tutorial in a real JupyterLab in Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.lab import browser_page, jupyter_lab, open_notebook, run_all

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / ".build" / "screenshots"


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # playwright's own event loop
def test_first_look_in_jupyterlab(tmp_path: Path) -> None:
    """Every cell runs in the browser, tables are tables, a mistake is two lines, and nothing outside is asked for."""
    shutil.copy(ROOT / "notebooks" / "01_first_look.ipynb", tmp_path)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with jupyter_lab(tmp_path) as address, browser_page() as (page, outside):
        open_notebook(page, address.format("01_first_look.ipynb"))
        run_all(page)
        page.wait_for_selector("text=did you mean 'orders'?", timeout=120_000)
        errors = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
        assert len(errors) == 1, errors
        assert errors[0].strip().splitlines() == [
            "StreamNotFound: no stream 'orderss' in us-east-1",
            "hint: did you mean 'orders'?",
        ]
        for number, table in enumerate(page.locator("div.knb").all()):
            table.scroll_into_view_if_needed()
            page.screenshot(path=PICTURES / f"first-look-{number}.png")
        assert page.locator("div.knb table").count() >= 4
        page.locator(".knb-lineage img").last.scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / "first-look-lineage.png")
        assert outside == []
