"""A real JupyterLab and a real Chromium to look at it, both on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Page, Route

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_READY = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    for (let tries = 0; tries < 600; tries++) {
        const panel = app.shell.currentWidget;
        if (panel && panel.sessionContext) {
            await panel.revealed;
            await panel.sessionContext.ready;
            return;
        }
        await new Promise(done => setTimeout(done, 100));
    }
    throw new Error("the notebook did not open");
}"""


@contextlib.contextmanager
def jupyter_lab(folder: Path, *, settings: Mapping[str, Any] | None = None, home: str | None = None) -> Iterator[str]:
    """Serve `folder`; yield the address of its notebooks, with a place for the file name.

    Everything that Jupyter and its kernels keep is below `folder`, in ``.jupyter``.

    Parameters
    ----------
    settings
        Of plugins of JupyterLab, by their ids.
    home
        The home of the kernels; the user's own by default.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, own = secrets.token_hex(16), folder / ".jupyter"
    quiet = {"checkForUpdates": False, "fetchNews": "false", "doNotDisturbMode": True}
    for plugin, values in {"@jupyterlab/apputils-extension:notification": quiet, **(settings or {})}.items():
        package, name = plugin.split(":")
        file = own / "settings" / package / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    places = {name: str(own / name.lower()) for name in names}
    log = (own / "lab.log").open("w")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
            *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
            *("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"),
        ],
        env={
            **os.environ,
            **places,
            "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
            "HOME": home or os.environ.get("HOME", ""),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/api/status?token={token}", process, own / "lab.log")
        yield f"http://127.0.0.1:{port}/doc/tree/{{}}?token={token}&reset"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180  # importing it takes a second, or a minute where others compute
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.1)
        else:
            return


@contextlib.contextmanager
def browser_page() -> Iterator[tuple[Page, list[str]]]:
    """Yield a page, and the list of addresses outside this machine that it asked for (and did not get)."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert chromium, "no Chromium on PATH; scripts/setup_chromium.sh installs one"
    outside: list[str] = []

    def route(request: Route) -> None:
        if request.request.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            request.continue_()
        else:
            outside.append(request.request.url)
            request.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        page = browser.new_context(viewport={"width": 1200, "height": 1600}).new_page()
        page.route("**/*", route)
        try:
            yield page, outside
        finally:
            browser.close()


def open_notebook(page: Page, address: str) -> None:
    """Open a notebook and wait until its kernel is ready."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.evaluate(_READY)


def run_all(page: Page) -> None:
    """Run every cell; returns when the kernel has finished them."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
