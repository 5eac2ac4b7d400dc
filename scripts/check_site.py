"""Check the built site: pages load nothing from other hosts, links lead somewhere, public names have examples.

MkDocs checks the links of Markdown; this reads pages as a browser does, so it sees those of HTML and docstrings too.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parent))

from site_pages import ROOT, reference

SITE = ROOT / ".build" / "site"
_LOADED = {"src", "srcset", "data", "poster"}  # attributes whose address a browser loads by itself
_ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^)'\"\s]+)", re.IGNORECASE)
_EXAMPLE = re.compile("(<[^>]*>)*".join(["&gt;"] * 3))
_LATER = re.compile(r"\bmermaid\b")  # the theme fetches what draws these from a CDN


class Page(HTMLParser):
    """What one page loads, links to, and can be linked to by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = _STYLES.findall(text)
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses in a tag."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [given[name] for name in _LOADED & given.keys()]
        if tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.loads.append(given.get("href", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        if _LATER.search(given.get("class", "")):
            self.loads.append("https://a-cdn/mermaid")


@cache
def page(path: Path) -> Page:
    """Read a page."""
    return Page(path.read_text("utf-8"))


def faults_of(path: Path) -> list[str]:
    """Return what is wrong with a page."""
    here = page(path)
    faults = [f"loads {address}" for address in here.loads if _ELSEWHERE.match(address)]
    local = [address for address in here.loads + here.links if not urlsplit(address).scheme and address[:2] != "//"]
    return faults + [f"leads nowhere: {address}" for address in local if not _is_there(path, address)]


def _is_there(path: Path, address: str) -> bool:
    parts = urlsplit(address)
    target = path.parent / unquote(parts.path) if parts.path not in {"", "."} else path
    if target.is_dir():
        target /= "index.html"
    is_page = target.suffix == ".html" and target.is_file()
    return target.is_file() and (not is_page or parts.fragment in {"", "__skip"} | page(target.resolve()).ids)


def main() -> None:
    """Check all pages and style sheets."""
    pages = [path.resolve() for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]
    faults = [f"{path.relative_to(SITE.resolve())}: {fault}" for path in pages for fault in faults_of(path)]
    for path in SITE.rglob("*.css"):
        faults += [f"{path.relative_to(SITE)}: loads {address}" for address in _STYLES.findall(path.read_text("utf-8"))]
    for place, home in reference().items():
        built = SITE / place.replace(".md", ".html")
        if not built.is_file():
            faults.append(f"{home} has no page")
        elif not re.search(r"\.(errors|emulator|agents)\b", home) and not _EXAMPLE.search(built.read_text("utf-8")):
            faults.append(f"{home} has no example")
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"{len(pages)} pages: open {SITE.relative_to(ROOT)}/index.html, or, with search,")
    print(f"python3 -m http.server --bind 127.0.0.1 --directory {SITE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
