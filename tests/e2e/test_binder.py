"""What Binder does with this repository, as far as it can be done without Binder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest

from tests.e2e.driver import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_RUN = """
import nbformat, sys
from nbclient import NotebookClient
NotebookClient(nbformat.read(sys.argv[1], 4), kernel_name="python3", timeout=60).execute()
"""


@pytest.mark.timeout(600)
def test_the_tutorials_run_where_binder_installs_them(tmp_path: Path) -> None:
    """``postBuild`` installs all that a tutorial needs into a bare environment; nothing else of ours is there."""
    for name in ("binder", "kinesis_nb", "notebooks", "README.md", "LICENSE", "pyproject.toml", "constraints.txt"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    venv.create(tmp_path / "env", with_pip=True)
    places = {"PATH": f"{tmp_path / 'env' / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    env = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **places}
    subprocess.run(["bash", "binder/postBuild"], cwd=tmp_path, env=env, check=True)
    # nbclient comes with JupyterLab, by nbconvert; duckdb is what tutorial 05 asks for beyond the package
    for tutorial in ("01_first_look", "05_sync_and_query"):
        subprocess.run(["python", "-c", _RUN, f"notebooks/{tutorial}.ipynb"], cwd=tmp_path, env=env, check=True)


def test_binders_python_is_one_of_ours() -> None:
    """The environment has a Python that the package takes, and is not newer than what is tested by name."""
    environment = (ROOT / "binder" / "environment.yml").read_text(encoding="utf-8")
    version = re.search(r"python=3\.(\d+)", environment)
    assert version is not None
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"Programming Language :: Python :: 3.{version[1]}"' in project
