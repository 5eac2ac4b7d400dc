"""Promises about the package itself."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kinesis_nb as kn
from scripts.design import wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
HEAVY = ["pandas", "polars", "pyarrow", "boto3", "botocore", "deltalake", "ipywidgets", "anywidget", "msgspec", "tqdm"]

_IMPORT = """
import json, sys, time
started = time.perf_counter()
import kinesis_nb
print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))
"""


def test_import_is_fast_and_light() -> None:
    """`import kinesis_nb` takes at most 100 ms (best of five) and loads no heavy library."""
    runs, modules = [], []
    for _ in range(5):
        answer = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True, cwd=ROOT)
        seconds, modules = json.loads(answer.stdout)
        runs.append(seconds)
    assert min(runs) <= 0.1
    assert not set(HEAVY) & set(modules)


def test_every_public_name_loads_and_is_documented() -> None:
    """Each name of __all__ can be had, says what it is, and calls the package its home."""
    for name in kn.__all__:
        value = getattr(kn, name)
        assert value.__doc__, name
        assert not value.__module__.startswith("kinesis_nb.emulator")
    assert set(kn.__all__) <= set(dir(kn))
    with pytest.raises(AttributeError, match="nope"):
        _ = kn.nope


def test_every_public_name_has_an_example() -> None:
    """What can be called shows in its docstring how; `make test` runs the examples, `make docs` gives each a page."""
    widgets = importlib.import_module("kinesis_nb.widgets")
    callables = [getattr(kn, name) for name in kn.__all__] + [getattr(widgets, name) for name in widgets.__all__]
    errors = {error for error in callables if isinstance(error, type) and issubclass(error, BaseException)}
    on_agents = {one for one in callables if ".agents." in one.__module__}  # an example would need a scheduler
    needed = [one for one in callables if one not in errors | on_agents]
    assert [one.__name__ for one in needed if ">>>" not in (one.__doc__ or "")] == []


def test_the_map_of_files_and_the_pictures_are_those_of_the_code() -> None:
    """DESIGN.md lists every module, and no other, with its key types; `make design` writes that."""
    assert [path.name for path, text in wanted().items() if path.read_text(encoding="utf-8") != text] == []


def test_design_names_files_that_exist() -> None:
    """Each file that DESIGN.md or CONTRIBUTING.md names in its text is in the repository, in the folder it says."""
    folders = ("kinesis_nb", "tests", "scripts", "docs", "deploy", "benchmarks", "notebooks")
    there = {path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.*")}
    there |= {path.as_posix() for path in ROOT.glob("*.*")}
    ends = {path[start:] for path in there for start in range(len(path)) if path[start - 1] == "/"}
    for document in ("DESIGN.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w./*-])[\w./-]*[\w-]+\.(?:py|js|css|md)\b", text))
        assert sorted(named - ends) == [], document


def test_the_table_of_locks_is_that_of_the_code() -> None:
    """DESIGN.md has a row for each lock of the engine, by class or module, and for no other."""
    text = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    table = text.partition("## Locks")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+\.\w+)", row)}
    assert named == set(_locks())


def _locks() -> Iterator[str]:
    """Yield the locks and conditions that the package makes, as `Class.name` or `module.name`."""
    for path in sorted((ROOT / "kinesis_nb").rglob("*.py")):
        if "emulator" in path.parts:
            continue
        owner = path.stem
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"class (\w+)", line):
                owner = found[1]
            made = r"\s*(?:self\.)?(\w+)(?:: .*threading\.Lock\b.* = |\b.* = threading\.(?:R?Lock|Condition)\()"
            if found := re.match(made, line):
                yield f"{owner}.{found[1]}"


NOT_NAMED = {
    "SchemaField",  # a line of a Schema, which is a table
    "Kind",  # of a StartingPosition, which has a constructor for each
    "DoneRows",  # what a resume needs of an ExportReport, opaque to users
    "ShardState",  # text to a user
    "TableLike",  # only the base of what is exported
}


def test_what_a_public_call_returns_is_public() -> None:
    """A class of ours that an exported class returns, or has as an attribute, is exported too."""
    ours = {
        node.name: node
        for path in sorted((ROOT / "kinesis_nb").rglob("*.py"))
        if path.parent.name not in {"emulator", "widgets"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    returned = {name: sorted(_returned(ours[name]) & ours.keys()) for name in kn.__all__ if name in ours}
    assert {name for names in returned.values() for name in names} - {*kn.__all__, *NOT_NAMED} == set()
    assert {"SyncStatus", "TailStats", "Job", "AgentSync", "ConsumerStats"} <= {*kn.__all__}


def _returned(owner: ast.ClassDef) -> set[str]:
    """Return the names in the annotations of what a class gives to its users."""
    given = [node.returns for node in owner.body if isinstance(node, ast.FunctionDef) and _is_public(node.name)]
    given += [node.annotation for node in owner.body if isinstance(node, ast.AnnAssign)]
    return {name for one in given if one for name in re.findall(r"[A-Z]\w+", ast.unparse(one))}


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in {"__iter__", "__getitem__"}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_says_what_it_promises(path: Path) -> None:
    """Every test has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert tests
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def test_functions_fit_a_screen() -> None:
    """No function of the package is longer than 60 lines, without what documents its arguments."""
    long = [
        f"{path.name}:{node.name}"
        for path in sorted((ROOT / "kinesis_nb").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and _lines(node) > 60
    ]
    assert long == []


def _lines(function: ast.FunctionDef) -> int:
    """Count those from the name to the end, but for the docstring."""
    documentation = len((ast.get_docstring(function, clean=False) or "").splitlines())
    return (function.end_lineno or 0) - function.lineno - documentation


LAZY = {"__init__.py", "widgets/__init__.py"}  # the lazy loaders of public names
PRELOAD = {  # for its effect alone: what the caller imports in its next line; what an agent will need
    "core/interrupt.py",
    "agents/preload.py",
}


def test_nothing_is_imported_by_a_string() -> None:
    """The walls of the house are seen by import-linter: a module named in a text is imported by a statement too."""
    hidden = []
    top = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "kinesis_nb").glob("*.py")]
    imported = {node.module for tree in top for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for path in sorted((ROOT / "kinesis_nb").rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT / "kinesis_nb").as_posix()
        tree = ast.parse(text)
        if "import_module" in text and name not in LAZY | PRELOAD:
            hidden.append(f"{name}: import_module")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not re.fullmatch(r"kinesis_nb(\.\w+)+", str(node.value)):
                continue
            if node.value not in imported and "/" not in name:
                hidden.append(f"{name}: {node.value!r}")
    assert hidden == []
