"""A forked child: what was made in its parent neither hangs there nor writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SECONDS = 90

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")]


def forked(name: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.forks", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_everything_says_that_it_is_of_another_process() -> None:
    """Every public call and property of whatever has threads, locks, connections or files; the hint names spawn."""
    found = forked("everything")
    told: dict[str, str] = found["told"]
    assert told.pop("spawned") == "returned 'not in a child'"  # the child came to its end
    assert {name: said for name, said in told.items() if not said.startswith("ForkedProcess: ")} == {}
    assert [name for name, said in told.items() if "\nhint: " not in said or "spawn" not in said] == []
    assert len(told) > 80
    for kind in ("Source", "Sync", "Tail", "StreamingExport", "Journal", "Emulator", "Cluster", "Job", "KinesisClient"):
        assert sum(name.startswith(f"{kind}.") for name in told) >= 3, kind
    assert (found["whole"], found["sent"], found["copies"]) == (True, 100, 100)


def test_a_child_with_a_source_of_its_own() -> None:
    """Where polars lost its threads a child reads all the same; what needs polars says so in seconds."""
    told = forked("after")
    for name in ("where", "export", "a tail's rows", "parse_json"):
        assert told.pop(name).startswith("ForkedProcess: polars had its threads in the parent"), name
    assert told.pop("large") == "returned 10000"
    rows = ("read", "len", "rows", "to_arrow", "to_polars", "to_pandas")
    assert told == dict.fromkeys((*rows, "spawned"), "returned 50") | dict.fromkeys(
        ("in order", "html"), "returned True"
    )


def test_a_child_of_a_process_that_has_imported_everything() -> None:
    """No import starts threads that a child would miss: one of a forkserver that preloads all connects and reads."""
    assert forked("before") == {"read": "returned 50"}
