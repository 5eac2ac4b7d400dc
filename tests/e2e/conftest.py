"""One server and one browser for all tests; a page, an account and the count of requests to the outside for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kinesis_nb.samples import SampleStreams
from tests.e2e.driver import ROOT, Notebook, write_notebook
from tests.support.lab import browser_page, jupyter_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Page

    from kinesis_nb.emulator import Emulator

OLDER = ROOT / ".build" / "ipykernel-7.3"  # made by `make e2e`
# what the page of Voila asks for whatever is in it, icons and MathJax; it does without them
VOILAS_OWN = ("https://cdn.jsdelivr.net/npm/@fortawesome/", "https://cdnjs.cloudflare.com/ajax/libs/mathjax/")
KERNELS = {"ipykernel-7.4": None, "ipykernel-7.3": OLDER}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))
            # playwright's own event loop
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks are, and everything that Jupyter keeps."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[str]:
    """JupyterLab, Notebook 7 and Voila; widget state is saved with the notebooks."""
    for name, where in KERNELS.items():
        spec = folder / ".jupyter" / "jupyter_data_dir" / "kernels" / name
        spec.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        env = {} if where is None else {"PYTHONPATH": str(where)}
        (spec / "kernel.json").write_text(
            json.dumps({"argv": command, "display_name": name, "language": "python", "env": env})
        )
    (folder / ".home").mkdir()
    settings = {"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True}}
    with jupyter_lab(folder, settings=settings, home=str(folder / ".home")) as address:
        yield address


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser; the test fails when anything outside this machine is asked for."""
    with browser_page() as (page, outside):
        yield page
    assert [url for url in outside if not url.startswith(VOILAS_OWN)] == []


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    """Both kernels: a click that comes while a cell is busy is handled at once by 7.3, after the cell by 7.4."""
    name: str = request.param
    where = KERNELS[name]
    if where is not None and not where.is_dir():
        pytest.skip(f"{name} could not be installed")
    return name


@pytest.fixture
def samples(emulator: Emulator) -> Iterator[SampleStreams]:
    """The sample streams, on an emulator of this process."""
    samples = SampleStreams(emulator)
    samples.start()
    yield samples
    samples.stop()


@pytest.fixture
def connect(emulator: Emulator, samples: SampleStreams) -> str:
    """The code that connects to them."""
    return (
        "import kinesis_nb as kn\n"
        f'source = kn.connect(endpoint_url="{emulator.endpoint_url}", exports_enabled=True,\n'
        '                    auth=kn.StaticCredentials("emulator", "emulator"))'
    )


@pytest.fixture
def notebook(
    page: Page, server: str, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Notebook]]:
    """Make a notebook of these cells, and open it."""
    opened: list[Notebook] = []

    def make(cells: Sequence[str], kernel: str = "ipykernel-7.4") -> Notebook:
        name = request.node.name.removeprefix("test_").translate(str.maketrans("[]", "-_")).strip("_")
        path = folder / f"{name}.ipynb"
        write_notebook(path, cells, kernel)
        opened.append(Notebook(page, server, path))
        return opened[-1]

    yield make
    for one in opened:
        one.shut_down()
