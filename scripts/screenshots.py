"""Make the pictures of the README and the site: what JupyterLab shows of the sample streams, light and dark."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.driver import ROOT, SECONDS, Notebook, labelled, write_notebook
from tests.support.lab import browser_page, jupyter_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000

SHOP = """
import itertools, json, random, threading, time
import kinesis_nb as kn
from kinesis_nb.emulator import Emulator

emulator, chosen = Emulator().start(), random.Random(1)
emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 4})

def sell(number):
    item, price = chosen.choice([("apples", 1.9), ("bread", 3.2), ("cheese", 4.5), ("coffee", 6.0), ("tea", 3.8)])
    city, count = chosen.choice(["Berlin", "Lyon", "Madrid", "Oslo", "Porto"]), chosen.randint(1, 9)
    row = {"order": number, "item": item, "count": count, "total": round(count * price, 2), "paid": count < 7}
    row |= {"city": city, "channel": chosen.choice(["web", "phone", "shop"])}
    row |= {"courier": chosen.choice(["bicycle", "van"])}
    key = f"customer-{chosen.randint(1, 60)}"
    emulator.model.call(
        "PutRecords", {"StreamName": "orders", "Records": [{"PartitionKey": key, "Data": json.dumps(row).encode()}]}
    )

def sell_on():
    for number in itertools.count(1):
        sell(number)
        time.sleep(chosen.uniform(0.05, 0.15))

threading.Thread(target=sell_on, daemon=True).start()
shop = emulator.source()
source = kn.demo()
"""
CELLS = [
    SHOP,
    'tail = shop.tail("orders")\ntail',
    "from kinesis_nb.widgets import SourceForm\nSourceForm()",
    'sync = source.sync("clicks", "tables/clicks{}", start="-5s")\nsync.wait(timeout=30)\nsync',
    'source.explore("clicks").lineage',
    'from kinesis_nb.widgets import Explorer\nExplorer(shop, "orders")',
]
RESHARDS = 12 * SECONDS  # some, but no more than a picture has room for
RATES = 60 * SECONDS  # what the line of a rate shows


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
            for place, name in _shown(book):
                save(book, name + suffix, place)
            book.shut_down()
    if outside:
        raise SystemExit(f"asked for outside this machine: {outside}")


def _shown(book: Notebook) -> Iterator[tuple[int, str]]:
    """Run the cells, and yield each output and its name when it is worth a picture."""
    book.run(0, 1)
    book.page.wait_for_timeout(RESHARDS)
    book.run(4)
    book.output(4).locator(".knb-lineage img").wait_for()
    yield 4, "lineage"
    tail = book.output(1)
    tail.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
    tail.get_by_role("button", name="JSON columns").click()
    tail.get_by_role("columnheader", name="order").first.wait_for()
    tail.get_by_role("button", name="JSON columns").blur()
    tail.scroll_into_view_if_needed()  # a view that is out of sight gets nothing
    book.page.wait_for_timeout(RATES)
    yield 1, "tail"
    book.run(2)
    _fill(book.output(2))
    yield 2, "source-form"
    book.run(5)
    explorer = book.output(5)
    explorer.get_by_role("tab", name="Records").click(timeout=30 * SECONDS)
    explorer.locator("[data-place='0']").wait_for(timeout=30 * SECONDS)
    explorer.get_by_role("button", name="JSON columns").click()
    explorer.get_by_role("columnheader", name="order").first.wait_for()
    explorer.get_by_role("button", name="JSON columns").blur()
    yield 5, "explorer"
    book.run(3)
    sync = book.output(3)
    sync.scroll_into_view_if_needed()
    book.page.wait_for_timeout(RATES)
    sync.get_by_text(re.compile(r"^[1-9]\d* rows/s$")).wait_for(timeout=30 * SECONDS)  # they come with each commit
    yield 3, "sync"


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
