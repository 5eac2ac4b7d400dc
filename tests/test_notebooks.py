"""The tutorials: what is committed, and that they run as people run them.

What they print is compared by nbval (see the Makefile).
"""

from __future__ import annotations

import copy
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import kinesis_nb as kn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.emulator import Emulator

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "notebooks"
TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
WRITERS = ["01_first_look", "06_export"]
ON_OWN_EMULATOR = "07_when_things_go_wrong"  # and nowhere else

_SECRETS = [
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"secret_access_key\W{1,4}[A-Za-z0-9/+]{40}\b"),
    re.compile(r"\?token=\w+"),
    re.compile(r"/(home|root|Users|work)/\w+"),  # whose machine it was
]

each_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


@each_tutorial
def test_committed_notebooks_are_clean(path: Path) -> None:
    """No widget state, secret, run time or place of a machine is in the file; it is small, and was run as a whole."""
    text = path.read_text(encoding="utf-8")
    assert len(text) <= 100_000
    assert "application/vnd.jupyter.widget" not in text
    assert [secret.pattern for secret in _SECRETS if secret.search(text)] == []
    notebook = json.loads(text)
    assert notebook["metadata"].keys() <= {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert cell["metadata"].keys() <= {"tags"}, cell["source"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


@each_tutorial
def test_only_what_is_meant_to_fail_fails(path: Path) -> None:
    """An error is in the file only where the tutorial shows one, and is two lines there."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        errors = [out for out in cell.get("outputs", ()) if out["output_type"] == "error"]
        assert bool(errors) == ("raises-exception" in cell["metadata"].get("tags", ())), cell["source"]
        for error in errors:
            assert [line.partition(":")[0] for line in error["traceback"]] == [error["ename"], "hint"]


@each_tutorial
def test_outputs_can_be_seen_where_nobody_trusts_the_notebook(path: Path) -> None:
    """GitHub, and JupyterLab before a cell was run, drop <svg> and <style>: pictures are images, cells align alone."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            html = "".join(output.get("data", {}).get("text/html", ""))
            assert "<svg" not in html
            if 'class="knb"' in html:
                assert re.findall("<t[hd]>", html) == [], cell["source"]


def test_tutorials_decide_in_the_same_words_where_they_run() -> None:
    """The choice between the samples and a stream of yours is the same cell everywhere."""
    setups = {path.stem: _setup(path) for path in TUTORIALS if path.stem != ON_OWN_EMULATOR}
    assert len({text[: text.index("kn.demo()")] for text in setups.values()}) == 1, setups


def _setup(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


@each_tutorial
@pytest.mark.timeout(240)
def test_runs_twice_in_the_same_kernel(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running all cells, and then all of them again without a restart, works; once takes less than two minutes.

    Whoever uses AWS has a region of their own configured, which is not that of a tutorial's emulator.
    """
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    _run(path, times=2)


def _run(path: Path, times: int = 1, env: dict[str, str] | None = None, **more: Any) -> Any:
    notebook = nbformat.read(path, as_version=4)
    cells = [copy.deepcopy(cell) for _ in range(times) for cell in notebook.cells]
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    notebook.cells = cells
    resources = {"metadata": {"path": FOLDER}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources, **more)
    client.execute(**({"env": env} if env else {}))
    return notebook


# --- on a stream of yours: the account is an emulator in this process, the notebook runs in a kernel of its own ---


class Account:
    """A service with a stream that is written all the time, and a saved source that leads there."""

    def __init__(self, emulator: Emulator, home: Path) -> None:
        self.emulator, self._home = emulator, home
        self.written = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write)
        for stream in ("mine", "allowed"):
            emulator.model.call("CreateStream", {"StreamName": stream, "ShardCount": 2})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stopping.wait(0.1):
            records = [
                {"PartitionKey": f"sensor-{n % 7}", "Data": json.dumps({"temperature": n / 10}).encode()}
                for n in range(20)
            ]
            self.emulator.model.call("PutRecords", {"StreamName": "mine", "Records": records})
            self.written += len(records)

    def env(self, **more: str) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"}
        return {**_path(), "HOME": str(self._home), **keys, "KINESIS_NB_SOURCE": "account", **more}

    def rows(self, stream: str) -> int:
        keys = kn.StaticCredentials("made-up", "made-up")
        source = kn.connect(endpoint_url=self.emulator.endpoint_url, auth=keys)
        return len(source.read(stream, progress=False))


def _path() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


@pytest.fixture
def account(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    kn.connect(endpoint_url=emulator.endpoint_url, exports_enabled=True).save("account")
    with Account(emulator, tmp_path) as account:
        yield account


on_your_stream = pytest.mark.parametrize(
    "path", [path for path in TUTORIALS if path.stem != ON_OWN_EMULATOR], ids=lambda path: path.stem
)


@on_your_stream
@pytest.mark.timeout(180)
def test_on_your_own_stream_nothing_is_written_unasked(path: Path, account: Account) -> None:
    """With KINESIS_NB_STREAM alone a tutorial reads that stream; one that exports stops with a hint before it does."""
    env = account.env(KINESIS_NB_STREAM="mine")
    if path.stem in WRITERS:
        with pytest.raises(CellExecutionError, match="KINESIS_NB_OUTPUT_STREAM"):
            _run(path, env=env)
    else:
        _run(path, env=env)
    assert account.emulator.requests["GetRecords"] > 0 or path.stem == "06_export"
    assert account.emulator.requests["PutRecords"] == 0


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.timeout(180)
def test_on_your_own_stream_exports_go_where_you_say(name: str, account: Account) -> None:
    """KINESIS_NB_OUTPUT_STREAM is the one stream that is written to, and it may not be the one that is read."""
    _run(FOLDER / f"{name}.ipynb", env=account.env(KINESIS_NB_STREAM="mine", KINESIS_NB_OUTPUT_STREAM="allowed"))
    assert account.rows("allowed") > 0
    account.stop()
    assert account.rows("mine") == account.written


def test_the_stream_that_is_read_is_not_written_to(account: Account) -> None:
    """Naming one stream for both is refused, in the same words wherever a tutorial writes."""
    with pytest.raises(CellExecutionError, match="KINESIS_NB_OUTPUT_STREAM"):
        _run(FOLDER / "06_export.ipynb", env=account.env(KINESIS_NB_STREAM="mine", KINESIS_NB_OUTPUT_STREAM="mine"))
    assert account.emulator.requests["PutRecords"] == 0
    for name in WRITERS:
        cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        assert any(
            "if results in (None, mine):\n    raise kn.ConfigError(" in "".join(cell["source"]) for cell in cells
        )
