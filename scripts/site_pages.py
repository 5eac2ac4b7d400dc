"""Pages of the site that are not below docs/: DESIGN.md and its kin, the tutorials, a page per public name.

A hook of MkDocs, see mkdocs.yml. Links in these files are those of the repository (GitHub follows them); here they are
led to the pages of the site, where MkDocs checks them.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ROOT_PAGES = {"DESIGN.md": "design.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")

_FENCED = re.compile(r"(^```.*?^```$|^ {4}.*?$)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?<![\[`])`(?:kn\.)?(?P<name>[A-Za-z_]+)(?:\.(?P<member>[a-z_]+))?(?:\([^`]*\))?`(?![\]`])")


@cache
def tutorials() -> dict[str, str]:
    """Return the notebooks by the pages that they become."""
    return {f"tutorials/{path.stem}.md": f"notebooks/{path.name}" for path in sorted(ROOT.glob("notebooks/*.ipynb"))}


@cache
def reference() -> dict[str, str]:
    """Return where each public name is defined, by the page that it gets."""
    return {f"reference/{page}.md": home for module in MODULES for page, home in _pages(module)}


MODULES = {"kinesis_nb": "", "kinesis_nb.widgets": "widgets/", "kinesis_nb.emulator": "emulator/"}


def _pages(module_name: str) -> Iterator[tuple[str, str]]:
    module = importlib.import_module(module_name)
    homes: dict[str, str] = getattr(module, "_HOME_OF", {})
    for name in module.__all__:
        home = f"{module_name}.{homes[name]}" if name in homes else module_name
        yield f"{MODULES[module_name]}{name}", f"{home}.{name}"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: each public name below the heading that mkdocs.yml has for its kind."""
    groups: dict[str, list[Any]] = {"functions": [], "classes": [], "errors": [], "widgets": [], "emulator": []}
    for page, home in sorted(reference().items(), key=lambda item: item[1].rpartition(".")[2].lower()):
        groups[_group(page, home)].append({home.rpartition(".")[2]: page})
    groups["decisions"] = [f"decisions/{path.name}" for path in sorted(ROOT.glob("docs/decisions/*.md"))]
    config.nav = _filled(config.nav, groups)
    return config


def _group(page: str, home: str) -> str:
    folder, _, name = page.removeprefix("reference/").removesuffix(".md").rpartition("/")
    if folder:
        return folder
    return "errors" if ".errors." in home else "functions" if name[0].islower() else "classes"


def _filled(nav: Any, groups: dict[str, list[Any]]) -> Any:
    """Replace ``<functions>`` and the like in a part of the navigation by their pages."""
    match nav:
        case list():
            return [_filled(entry, groups) for entry in nav]
        case dict():
            return {title: _filled(entry, groups) for title, entry in nav.items()}
        case str() if nav.startswith("<"):
            return groups[nav.strip("<>")]
        case _:
            return nav


@event_priority(100)  # before plugins look at the files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for place, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=_relinked((ROOT / place).read_text("utf-8"), ".", page)))
    for page, place in tutorials().items():
        files.append(File.generated(config, page, content=_relinked(_notebook(ROOT / place), "notebooks", page)))
    for page, home in reference().items():
        name = home.rpartition(".")[2]
        files.append(File.generated(config, page, content=f"---\ntitle: {name}\n---\n\n::: {home}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead the links of the pages below docs/ that go to what is outside of it, and public names to their pages."""
    place = page.file.src_uri
    if place in reference():
        return markdown
    if place not in tutorials() and place not in ROOT_PAGES.values():
        markdown = _relinked(markdown, posixpath.dirname(f"docs/{place}"), place)
    text_and_code = _FENCED.split(markdown)  # every second one is a block of code
    text_and_code[::2] = [_named(text, place) for text in text_and_code[::2]]
    return "".join(text_and_code)


def _named(text: str, page: str) -> str:
    """Make each public name, or method of a `source`, that stands alone as code a link."""
    homes = {home.rpartition(".")[2]: (place, home) for place, home in reference().items() if "/emulator/" not in place}

    def lead(code: re.Match[str]) -> str:
        name, member = code.group("name", "member")
        place, home = homes.get("Source" if name == "source" else name, ("", ""))
        if not place or (name == "source" and not member) or (member and not _has(home, member)):
            return code[0]
        anchor = f"#{home}.{member}" if member else ""
        return f"[{code[0]}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

    return _NAME.sub(lead, text)


@cache
def _has(home: str, member: str) -> bool:
    module, _, name = home.rpartition(".")
    return hasattr(getattr(importlib.import_module(module), name), member)


def _notebook(path: Path) -> str:
    from nbconvert import MarkdownExporter

    markdown, _ = MarkdownExporter().from_filename(str(path))
    return markdown


def _relinked(markdown: str, folder: str, page: str) -> str:
    """Lead relative links, written in a file of `folder` of the repository, to pages of the site.

    What the site does not have, such as a file below deploy/, stays as its name.
    """
    pages = {place: page for page, place in tutorials().items()} | ROOT_PAGES

    def lead(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups("")
        place = posixpath.normpath(posixpath.join(folder, target))
        to = pages.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if ":" in target:
            return link[0]
        if to is None:
            return text
        return f"{picture}[{text}]({posixpath.relpath(to, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(lead, markdown)
