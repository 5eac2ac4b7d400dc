"""Run notebooks and keep what they print: from top to bottom in a new kernel, without run times and live widgets.

A saved widget shows "model not found" until its cell is run; what stands beside it, a table or a text, stays.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SETTLE_SECONDS = 2  # until what was stopped has left its last picture


def run(path: Path) -> None:
    """Run one notebook in place."""
    notebook = nbformat.read(path, as_version=4)
    last = nbformat.v4.new_code_cell(f"import time; time.sleep({SETTLE_SECONDS})")
    notebook.cells.append(last)
    started = time.monotonic()
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        store_widget_state=False,
        record_timing=False,
    ).execute()
    notebook.cells.remove(last)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata["language_info"] = {"name": "python"}  # the version of whoever ran it is noise
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb"))):
        run(path)
