"""Make the pictures of the README: the widgets in JupyterLab, as they look on the sample streams."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.e2e.driver import ROOT, SECONDS, Notebook, labelled, write_notebook
from tests.support.lab import browser_page, jupyter_lab

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000

CELLS = [
    "import kinesis_nb as kn\nsource = kn.demo()",
    'tail = source.tail("clicks")\ntail',
    "from kinesis_nb.widgets import SourceForm\nSourceForm()",
    'sync = source.sync("clicks", "tables/clicks", start="-5s")\nsync.wait(timeout=30)\nsync',
    'source.explore("clicks").lineage',
    'from kinesis_nb.widgets import Explorer\nExplorer(source, "orders")',
]


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyter_lab(Path(folder)) as address,
        browser_page() as (page, outside),
    ):
        path = Path(folder) / "pictures.ipynb"
        write_notebook(path, CELLS)
        page.set_viewport_size({"width": 1000, "height": 1600})
        book = Notebook(page, address, path)
        book.run(0, 1)
        tail = book.output(1)
        tail.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
        tail.get_by_role("button", name="JSON columns").click()
        tail.get_by_role("columnheader", name="page").wait_for()
        tail.get_by_role("button", name="JSON columns").blur()
        page.wait_for_timeout(8 * SECONDS)  # for the line of the rate
        save(book, "tail", 1)
        book.run(4)
        book.output(4).locator(".knb-lineage img").wait_for()
        save(book, "lineage", 4)

        book.run(2)
        form = book.output(2)
        labelled(form, "Authentication").select_option("Profile")
        labelled(form, "Profile name").fill("dev")
        labelled(form, "Assume a role").check()
        labelled(form, "Role ARN").fill("arn:aws:iam::123456789012:role/reader")
        labelled(form, "Session name").fill("my notebook")
        form.get_by_text("✗").first.wait_for()
        save(book, "source-form", 2)

        book.run(5)
        explorer = book.output(5)
        explorer.get_by_role("tab", name="Records").click(timeout=30 * SECONDS)
        explorer.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
        save(book, "explorer", 5)

        book.run(3)
        page.wait_for_timeout(3 * SECONDS)
        save(book, "sync", 3)
    if outside:
        raise SystemExit(f"asked for outside this machine: {outside}")


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
