"""Defects put into the package on purpose: each must be noticed by a simulation, or else by a test, and not by a hang.

``python -m tests.mutants`` applies them one by one to a copy of the package and names what killed each. It fails when
one survives or makes everything stand still, and when the text that a defect replaces is not found exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300  # seconds for one run
_HANG = "HANGS"


class Mutant(NamedTuple):
    """One defect: in a file of the package, a text and what stands there instead; `tests` where not the suite's."""

    name: str
    file: str
    old: str
    new: str
    tests: str = ""


class Suite(NamedTuple):
    """Defects, and what must notice them: a simulation (a module with ``--seeds``) if there is one, or else tests."""

    mutants: Sequence[Mutant]
    tests: tuple[str, ...] = ()
    simulation: str = ""
    seeds: int = 150


def noticed(mutant: Mutant | None, suite: Suite, seeds: int) -> str:
    """Return what noticed a defect, or fails without one; an empty string when nothing did."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place)
        for folder in ("kinesis_nb", "tests"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for servers in (".node", ".ministack"):
            (copy / servers).symlink_to(ROOT / servers)
        own = dict.fromkeys(one.tests for one in suite.mutants if one.tests)
        runs = [suite.tests, *((tests,) for tests in own)]
        if mutant is not None:
            path = copy / "kinesis_nb" / mutant.file
            path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
            runs = [(mutant.tests,) if mutant.tests else suite.tests]
        found = _simulate(copy, seeds, suite.simulation) if suite.simulation else ""
        return found or next(filter(None, (_test(copy, tests) for tests in runs if tests)), "")


def is_killed(found: str) -> bool:
    """Return whether a defect was noticed by more than that nothing went on."""
    return bool(found) and not found.startswith(_HANG)


def _simulate(copy: Path, seeds: int, module: str) -> str:
    code, output = _call(copy, "-m", module, "--seeds", str(seeds), "--stop-after", "1")
    if code == 0 or output == _HANG:
        return output if code else ""
    found = re.search(r"^seed \d+: .*", output, re.MULTILINE)
    return f"simulation, {found[0]}" if found else f"simulation, {output.strip().splitlines()[-1]}"


def _test(copy: Path, tests: tuple[str, ...]) -> str:
    quiet = ("-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=ci")
    code, output = _call(copy, "-m", "pytest", *quiet, *tests)
    if code == 0 or output == _HANG:
        return output if code else ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    name = found[1] if found else output.strip().splitlines()[-1]
    return f"{_HANG}: {name}" if re.search(r"Timeout \(?>\d", output) else f"test, {name}"


def _call(copy: Path, *command: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PLACES"] = "folder"  # S3 takes longer and shows the same
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=copy,
            env=environment,
            timeout=PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, _HANG
    return done.returncode, done.stdout + done.stderr


def has_its_place(mutant: Mutant) -> bool:
    """Return whether the text that a mutant replaces is found exactly once, so that the defect is what it says."""
    return (ROOT / "kinesis_nb" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
