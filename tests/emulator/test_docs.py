"""What docs/emulator.md and the banner show runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kinesis_nb as kn
from kinesis_nb.emulator import Emulator, _welcome

pytestmark = pytest.mark.slow

PAGE = Path("docs/emulator.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PLUGIN, TEST = (next(block for block in BLOCKS if mark in block) for mark in ("pytest_plugins", "def test_"))


@pytest.mark.parametrize("code", [block for block in BLOCKS if block not in (PLUGIN, TEST)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the examples leave their client of boto3 open
def test_examples(emulator: Emulator, code: str) -> None:
    """Each block of Python, with the emulator of `kinesis-nb emulator --stream orders:2` where it names the port."""
    emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 2})
    exec(code.replace("http://127.0.0.1:4567", emulator.endpoint_url), {})


def test_the_sample_of_a_test_passes_as_pasted(tmp_path: Path) -> None:
    """The fixture and the test, in the two files that the page names, and nothing else."""
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "test_mine.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_banner_shows_how_to_connect(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second line is code that works, whatever region the environment names; and the page shows the same line."""
    emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    line = _welcome(emulator.endpoint_url).splitlines()[1].strip()
    found: dict[str, kn.Source] = {}
    exec(line, {"kn": kn}, found)
    assert repr(found["source"].explore()) == "<Catalog us-east-1: orders>"
    assert found["source"].config == emulator.source().config
    assert line.replace(emulator.endpoint_url, "http://127.0.0.1:4567") in PAGE


def test_a_source_of_an_emulator() -> None:
    """It is of the region that is asked for, may export unless it must not, and needs an emulator that serves."""
    with Emulator() as emulator:
        call = {"StreamName": "orders", "ShardCount": 1}
        emulator.model.call("CreateStream", call, region="eu-central-1")
        assert list(emulator.source(region="eu-central-1").explore()) == ["orders"]
        assert not list(emulator.source().explore())
        assert emulator.source().config.exports_enabled
        assert not emulator.source(exports_enabled=False).config.exports_enabled
    with pytest.raises(RuntimeError, match="no port yet"):
        Emulator().source()
