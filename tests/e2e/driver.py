"""A notebook that is open in a browser, and the things one does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import nbformat

from tests.support.lab import open_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parent.parent.parent
PICTURES = ROOT / ".build" / "screenshots"
SECONDS = 1_000  # in milliseconds, which playwright counts in


def write_notebook(path: Path, cells: Sequence[str], kernel: str = "python3") -> None:
    """Write a notebook that was never run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(notebook, path)


class Notebook:
    """A notebook in JupyterLab.

    Parameters
    ----------
    address
        Of a notebook, with a place for its name.
    """

    def __init__(self, page: Page, address: str, path: Path) -> None:
        self.page, self.path = page, path
        self._address = address.format(path.name)
        self.open()

    def open(self) -> None:
        """Open it as somebody does who comes back to it: nothing but what was saved."""
        open_notebook(self.page, self._address)

    def _ask(self, script: str) -> Any:
        return self.page.evaluate(
            "async () => { const app = window.jupyterapp, panel = app.shell.currentWidget; " + script + " }"
        )

    def run(self, *places: int) -> None:
        """Run cells, and wait until they are done."""
        for place in places:
            self._ask(f"panel.content.activeCellIndex = {place}; await app.commands.execute('notebook:run-cell')")

    def begin(self, place: int) -> None:
        """Begin to run a cell."""
        self._ask(f"panel.content.activeCellIndex = {place}; app.commands.execute('notebook:run-cell')")
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'busy'"
        )

    def text(self, place: int) -> str:
        """Return what a cell printed, showed as plain text, or failed with."""
        outputs = json.loads(
            self._ask(f"return JSON.stringify(panel.content.model.cells.get({place}).outputs.toJSON())")
        )
        return "\n".join(map(_plain, outputs))

    def source(self, place: int) -> str:
        """Return the code of a cell."""
        code: str = self._ask(f"return panel.content.model.cells.get({place}).sharedModel.getSource()")
        return code

    def output(self, place: int) -> Locator:
        """Return the output area of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(place).locator(".jp-OutputArea-output")

    def save(self) -> str:
        """Save the notebook; return what is in the file."""
        self._ask("await app.commands.execute('docmanager:save')")
        return self.path.read_text(encoding="utf-8")

    def settle(self) -> None:
        """Wait until nothing is being loaded any more."""
        self.page.wait_for_function("() => !document.body.innerText.includes('Loading widget')", timeout=20 * SECONDS)

    def interrupt(self) -> None:
        """Interrupt the kernel."""
        self._ask("await panel.sessionContext.session.kernel.interrupt()")

    def restart(self) -> None:
        """Restart the kernel."""
        self._ask("await panel.sessionContext.session.kernel.restart(); await panel.sessionContext.ready")

    def shut_down(self) -> None:
        """End the kernel, so that only what is in the file is left."""
        self._ask("await panel.sessionContext.shutdown()")

    def end_kernels(self) -> None:
        """End all kernels of the server, whatever page is open."""
        address = urlsplit(self._address)
        token, root = parse_qs(address.query)["token"][0], f"{address.scheme}://{address.netloc}"
        kernels = self.page.request.get(f"{root}/api/kernels?token={token}").json()
        for kernel in kernels:
            self.page.request.delete(f"{root}/api/kernels/{kernel['id']}?token={token}")

    def dark(self) -> None:
        """Change to the dark theme."""
        self._ask("await app.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        self.page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")

    def picture(self, name: str, place: int | None = None) -> None:
        """Keep a screenshot: of a cell's output, or of what is in sight."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        if place is None:
            self.page.screenshot(path=PICTURES / f"{name}.png")
        else:
            self.output(place).screenshot(path=PICTURES / f"{name}.png")


def _plain(output: dict[str, Any]) -> str:
    match output["output_type"]:
        case "stream":
            return "".join(output["text"])
        case "error":
            return "\n".join(output["traceback"])
        case _:
            return "".join(output["data"].get("text/plain", ""))


def labelled(area: Locator, label: str) -> Locator:
    """Return the control with a label, as a screen reader finds it."""
    return area.get_by_label(label, exact=True)
