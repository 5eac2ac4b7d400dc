"""Write what DESIGN.md shows of the code, its map of files and its pictures; a test fails when they are old.

The floors come from the import contracts in pyproject.toml, the rest of the map from the modules' own docstrings.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kinesis_nb"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- map of files: make design -->\n", "<!-- end of the map -->\n"
MOST_TYPES = 5
BESIDE = (
    *("tests", "tests/support", "tests/contract", "tests/simulation", "tests/simulation/life"),
    *("tests/simulation/life_exports", "tests/simulation/life_jobs", "tests/mutants", "tests/crash", "tests/powercut"),
    "scripts",
)

RECORD = (
    ("Shard", "GetRecords, from the position of the shard's consumer"),
    ("Batch", "checked, and decoded into Arrow columns"),
    ("Sink.deliver", "may block, the only back-pressure; then the position moves on"),
    ("Ledger", "rows that wait, and how far each shard was read"),
    ("Commit", "rows and checkpoints, or neither"),
    ("Sink.finish", "the shard has ended in the table: now its children may be read"),
)
COMMIT = (
    ("take", "rows that wait, and how far each shard was read"),
    ("select", "keep, count the rest, number by shard_offset, stamp"),
    ("write", "one Parquet file, and fsync"),
    ("publish", "one entry of the log: the file, and txn actions per shard"),
    ("if refused", "another epoch: Fenced, and stop"),
    ("if unknown", "open the table again: it landed, or it is committed again"),
)


class Module(NamedTuple):
    """What the map says of a file."""

    path: Path
    about: str
    types: tuple[str, ...]


def modules(folder: Path) -> list[Module]:
    """Read the Python files of a folder: those that define something."""
    return [_module(path) for path in sorted(folder.glob("*.py")) if path.name != "__init__.py" or _defines(path)]


def _defines(path: Path) -> bool:
    body = ast.parse(path.read_text("utf-8")).body
    return any(isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[:2] != "__" for node in body)


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    return Module(path, _about(tree), (*names[:MOST_TYPES], *["…"] * (len(names) > MOST_TYPES)))


def _about(tree: ast.Module) -> str:
    """Return the first line of a module's docstring, in Markdown."""
    line = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    return re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", lambda code: f"`{code[1] or code[2]}`", line).replace("|", "/")


def floors() -> list[list[str]]:
    """Return the rooms of each floor, from the roof to the ground."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "floors")
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def file_map() -> str:
    """Return the map as Markdown: the files at the top, then room by room from the roof down."""
    parts = ["### kinesis_nb: the doors\n\n" + _table(modules(PACKAGE))]
    for room in (room for floor in floors() for room in floor if (PACKAGE / room).is_dir()):
        about = _about(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
        parts.append(f"### {room}\n\n{about}.\n\n" + _table(_with_inner(PACKAGE / room)))
    beside = [
        module for folder in BESIDE for module in modules(ROOT / folder) if not module.path.name.startswith("test_")
    ]
    parts.append(
        "### beside the package\n\nNot the tests themselves: what they are made with.\n\n" + _table(beside, ROOT)
    )
    return "\n".join(parts)


def _with_inner(room: Path) -> list[Module]:
    """Return the files of a room, and below them those of the rooms in it."""
    inner = [path.parent for path in sorted(room.glob("*/__init__.py"))]
    return [*modules(room), *(module for folder in inner for module in modules(folder))]


def _table(found: list[Module], root: Path = PACKAGE) -> str:
    rows = [
        f"| `{module.path.relative_to(root)}` | {module.about} | {', '.join(map(_as_code, module.types))} |"
        for module in found
    ]
    return "\n".join(["| file | what it is | key types |", "| --- | --- | --- |", *rows]) + "\n"


def _as_code(name: str) -> str:
    return name if name == "…" else f"`{name}`"


def house() -> str:
    """Draw the floors: a room may import what is below it, and nothing beside it."""
    width, height, gap = 760, 34, 6
    boxes = []
    for number, rooms in enumerate(floors()):
        share = (width + gap) / len(rooms)
        for place, room in enumerate(rooms):
            is_room = (PACKAGE / room).is_dir()
            boxes.append(_box(place * share, number * (height + gap), share - gap, height, room, is_room=is_room))
    return _svg(width, len(floors()) * (height + gap) - gap, boxes, "The floors of kinesis_nb, from roof to ground")


def life(steps: tuple[tuple[str, str], ...], title: str) -> str:
    """Draw steps one below the other."""
    width, height, gap = 560, 34, 18
    boxes = []
    for number, (name, about) in enumerate(steps):
        y = number * (height + gap)
        boxes.append(_box(0, y, 140, height, name, is_room=True))
        boxes.append(f'<text x="156" y="{y + height / 2 + 4}" fill="#888">{escape(about)}</text>')
        if number:
            boxes.append(f'<path d="M70 {y - gap + 2}v{gap - 7}m-4 -4l4 5l4 -5" stroke="#888" fill="none"/>')
    return _svg(width, len(steps) * (height + gap) - gap, boxes, title)


def _box(x: float, y: float, width: float, height: float, name: str, *, is_room: bool) -> str:
    fill = "#1f5f99" if is_room else "#6b6b6b"
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height}" rx="4" fill="{fill}"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + height / 2 + 4:.0f}" text-anchor="middle" fill="#fff">'
        f"{escape(name)}</text>"
    )


def _svg(width: int, height: int, parts: list[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 {width + 8} {height + 8}" width="{width}" '
        f'font-family="system-ui,sans-serif" font-size="13" role="img"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def wanted() -> dict[Path, str]:
    """Return what the files should hold."""
    design = ROOT / "DESIGN.md"
    before, _, rest = design.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        design: f"{before}{BEGIN}\n{file_map()}\n{END}{after}",
        IMAGES / "house.svg": house(),
        IMAGES / "record.svg": life(RECORD, "The life of a record that a sync reads"),
        IMAGES / "commit.svg": life(COMMIT, "The life of a commit"),
    }


if __name__ == "__main__":
    for path, text in wanted().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT), file=sys.stderr)
