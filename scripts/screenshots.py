"""Make the pictures of the README and the site: what JupyterLab shows of the sample streams, light and dark."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.driver import ROOT, SECONDS, Notebook, labelled, write_notebook
from tests.support.lab import browser_page, jupyter_lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000

CELLS = [
    "import kinesis_nb as kn\nsource = kn.demo()",
    'tail = source.tail("clicks")\ntail',
    "from kinesis_nb.widgets import SourceForm\nSourceForm()",
    'sync = source.sync("clicks", "tables/clicks{}", start="-5s")\nsync.wait(timeout=30)\nsync',
    'source.explore("clicks").lineage',
    'from kinesis_nb.widgets import Explorer\nExplorer(source, "orders")',
]


def main() -> None:
    """Make all pictures, in both themes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyter_lab(Path(folder)) as address,
        browser_page() as (page, outside),
    ):
        page.set_viewport_size({"width": 1000, "height": 1600})
        for suffix in ("", "-dark"):
            path = Path(folder) / f"pictures{suffix}.ipynb"
            write_notebook(path, [cell.replace("{}", suffix) for cell in CELLS])
            book = Notebook(page, address, path)
            if suffix:
                book.dark()
            _show(book)
            for place, name in enumerate(("tail", "source-form", "sync", "lineage", "explorer"), 1):
                save(book, name + suffix, place)
            book.shut_down()
    if outside:
        raise SystemExit(f"asked for outside this machine: {outside}")


def _show(book: Notebook) -> None:
    """Run the cells, and bring each output to where it is worth a picture."""
    book.run(0, 1)
    tail = book.output(1)
    tail.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
    tail.get_by_role("button", name="JSON columns").click()
    tail.get_by_role("columnheader", name="page").wait_for()
    tail.get_by_role("button", name="JSON columns").blur()
    book.page.wait_for_timeout(8 * SECONDS)  # for the line of the rate
    book.run(4)
    book.output(4).locator(".knb-lineage img").wait_for()
    book.run(2)
    _fill(book.output(2))
    book.run(5)
    explorer = book.output(5)
    explorer.get_by_role("tab", name="Records").click(timeout=30 * SECONDS)
    explorer.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
    book.run(3)
    book.page.wait_for_timeout(3 * SECONDS)


def _fill(form: Locator) -> None:
    """Fill the form of a source, with one mistake."""
    labelled(form, "Authentication").select_option("Profile")
    labelled(form, "Profile name").fill("dev")
    labelled(form, "Assume a role").check()
    labelled(form, "Role ARN").fill("arn:aws:iam::123456789012:role/reader")
    labelled(form, "Session name").fill("my notebook")
    form.get_by_text("✗").first.wait_for()


def save(book: Notebook, name: str, place: int) -> None:
    """Keep a picture of a cell's output."""
    book.page.mouse.move(0, 0)
    picture = IMAGES / f"{name}.png"
    book.output(place).screenshot(path=picture)
    size = picture.stat().st_size
    print(f"{picture.relative_to(ROOT)}: {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit("too large for the README")


if __name__ == "__main__":
    main()
