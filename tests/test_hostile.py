"""What a producer may write into a stream to hurt whoever looks at it: shown as text, everywhere."""

from __future__ import annotations

import itertools
import json
import unicodedata
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.access.permissions import Permission, PermissionReport, Verdict
from kinesis_nb.core.shards import Shard
from kinesis_nb.core.transport import StreamExtras, StreamSummary
from kinesis_nb.errors import KinesisError
from kinesis_nb.exploring.explore import Catalog
from kinesis_nb.exploring.lineage import Lineage
from kinesis_nb.jsontext.infer import infer_schema
from tests.support.lab import browser_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kinesis_nb.core.retry import RetryingReader
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

HIT = "window.hit=1"
SCRIPTS = [
    f"<script>{HIT}</script>",
    f"<img src=x onerror='{HIT}'>",
    f"<svg onload='{HIT}'>",
    f"<svg><script>{HIT}</script></svg>",
    f"<svg><animate onbegin='{HIT}' attributeName=x dur=1s>",
    f"<body onload='{HIT}'>",
    f'<iframe srcdoc="<script>parent.{HIT}</script>"></iframe>',
    f"<iframe src='javascript:{HIT}'></iframe>",
    f"<a href='javascript:{HIT}'>x</a>",
    f"<form action='javascript:{HIT}'><input type=submit autofocus onfocus='{HIT}'></form>",
    f"<details open ontoggle='{HIT}'>",
    f"<video><source onerror='{HIT}'></video>",
    f"<math><mtext><table><mglyph><style><img src=x onerror='{HIT}'>",
    "<style>@import 'http://evil.example/x.css';*{display:none}</style>",
    "<link rel=stylesheet href='http://evil.example/x.css'>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<base href='http://evil.example/'>",
    f"<object data='javascript:{HIT}'></object>",
    f"<embed src='javascript:{HIT}'>",
    f"<template><img src=x onerror='{HIT}'></template>",
    f"<marquee onstart='{HIT}'>",
    f"<button onclick='{HIT}' style='position:fixed;inset:0'>x</button>",
    "<input type=password name=p>",
    f"{{{{constructor.constructor('{HIT}')()}}}}",
]
WRAPS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: f'">{text}',
    lambda text: f"'>{text}",
    lambda text: f"</td></tr></table>{text}",
    lambda text: f"</style></title></textarea>{text}",
    lambda text: f"<!--{text}-->{text}",
    lambda text: f"]]>{text}",
    lambda text: text.replace("<", "&lt;").replace(">", "&gt;"),
]
SEQUENCES = [
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x90q\x9c",
    "\x07\x08\x7f\x00",
    "a\rb",
    "a\nb\tc\x0bd\x0ce",
    "a\x85b\u2028c\u2029d",
    "\u202etxt.exe\u202c",
    "\u2066x\u2069\u2067y\u2068",
    "\u200e\u200f\u061c",
    "pass\u200bword\u200c\u200d\u2060\ufeff",
    "a\u00adb\u034fc\u180ed",
    "\u115f\u1160\u3164\uffa0\u2800",
    "a\ufe0f\U000e0101b\U000e0041",
    "z" + "\u0301" * 200,
    "\ue000\U000f0000\U0010ffff",
    "\uff1cscript\uff1e",
    "=cmd|' /C calc'!A0",
    "x" * 100_000,
    "\u202e" * 1_000,
]
PAYLOADS = list(dict.fromkeys([wrap(text) for wrap, text in itertools.product(WRAPS, SCRIPTS)] + SEQUENCES))
_ACTIVE = """fragments => {
    const tags = new Set(["DIV", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "CAPTION", "STYLE", "P", "I", "B", "PRE",
                          "svg", "g", "rect", "text", "IMG", "MAP", "AREA", "BUTTON"]);
    const found = [];
    for (const [name, html] of fragments) {
        const place = document.createElement("div");
        document.body.append(place);
        place.innerHTML = html;
        for (const node of place.querySelectorAll("*")) {
            const isButton = node.tagName === "BUTTON";
            const isCopy = isButton && node.getAttribute("onclick").startsWith("const pre=this.parentNode");
            if (!tags.has(node.tagName) || (isButton && !isCopy)) found.push(`${name}: ${node.tagName}`);
            const isPicture = node.tagName === "IMG" && node.src.startsWith("data:image/svg+xml;base64,");
            if (isPicture) fragments.push([`picture of ${name}`, atob(node.src.split(",")[1])]);
            for (const { name: attribute } of node.attributes)
                if ((attribute.startsWith("on") && !isCopy)
                    || (["href", "src", "srcdoc", "action"].includes(attribute) && !(isPicture && attribute === "src")))
                    found.push(`${name}: ${node.tagName} ${attribute}`);
            if (node.tagName === "STYLE" && /@import|url\\(|evil/.test(node.textContent)) found.push(`${name}: style`);
        }
        const dead = document.createNodeIterator(place, NodeFilter.SHOW_COMMENT);
        if (dead.nextNode()) found.push(`${name}: comment`);
    }
    return [found, document.body.textContent];
}"""


def test_there_are_enough() -> None:
    """At least 200 different payloads."""
    assert len(PAYLOADS) >= 200


@pytest.fixture
def shown(source: kn.Source, streams: Streams, emulator: Emulator, tmp_path: Path) -> Iterator[list[object]]:
    """Everything that shows itself, with payloads in every place that a producer, or a server, can fill."""
    arn = streams.create(shards=2)
    streams.create("names")
    for first in range(0, len(PAYLOADS), 100):
        some = PAYLOADS[first : first + 100]
        records = [{"PartitionKey": (text[:256] or "k"), "Data": text.encode()} for text in some]
        streams.call("PutRecords", StreamName="orders", Records=records)
        named = [json.dumps({text: text, "n": {"deep " + text: 1}}).encode() for text in some]
        streams.call("PutRecords", StreamName="names", Records=[{"PartitionKey": "k", "Data": one} for one in named])
    streams.call("PutRecord", StreamName="orders", PartitionKey="bytes", Data=b"\xff\xfe<script>\x1b[31m")
    rows = source.read("orders", progress=False)
    frame = rows.to_polars()
    assert len(frame) == len(PAYLOADS) + 1
    sync = source.sync("orders", tmp_path / "t")
    assert sync.wait(timeout=30)
    with source.tail("orders", start="trim_horizon") as tail:
        tail.take(1, timeout=5)
        views = [source.explore("orders"), source.explore("names")]
        things: list[object] = [rows, sync, tail, source, *views, *(view.lineage for view in views)]
        things += [view.heat(1_000) for view in views]
        things += [view.schema(1_000) for view in views] + [views[0].sample(50)]
        things += [type(rows)(frame[i : i + 10]) for i in range(0, len(frame), 10)]
        things += _of_a_hostile_server(source)
        report = source.export_df(frame.head(3), arn, progress=False)
        yield [*things, report, *rows]
    sync.stop()


def _of_a_hostile_server(source: kn.Source) -> list[object]:
    """Names, states and ids that no AWS would give."""
    made: list[object] = []
    for text in PAYLOADS:
        shards = [Shard(text, (), (0, 10)), Shard(f"{text}b", (text,), (0, 10))]
        made.append(Lineage(text, shards))
        made.append(
            PermissionReport((Permission(text, text, Verdict.DENIED, is_required=True, disables=text, reason=text),))
        )
        made += [KinesisError(text, hint=text), kn.AccessDenied(text)]
    return [*made, Catalog(cast("RetryingReader", _HostileListings(source)), "us-east-1", source._sample)]


class _HostileListings:
    """A server whose streams are called like payloads."""

    def __init__(self, source: kn.Source) -> None:
        self._good = source._listings
        self._summary = source.explore("orders").summary

    def list_streams(self) -> list[str]:
        return PAYLOADS

    def describe_stream(self, stream: str) -> StreamSummary:
        return replace(self._summary, name=stream, status=stream, arn=stream, encryption=stream, mode=stream)

    def list_shards(self, stream: str) -> list[Shard]:
        return [Shard(stream, (), (0, 10))]

    def describe_extras(self, stream: str) -> StreamExtras:
        return StreamExtras(1, stream)


def _html(thing: Any) -> str:
    if isinstance(thing, BaseException) or not hasattr(thing, "_repr_html_"):
        return ""
    html: str = thing._repr_html_()
    return html


def _texts(thing: object) -> list[str]:
    if isinstance(thing, KinesisError):
        return [str(thing), repr(thing), *thing._render_traceback_()]
    return [repr(thing), str(thing)] if not isinstance(thing, kn.Record) else [repr(thing)]


def _dangerous(text: str) -> list[str]:
    allowed = {"\n"}
    return sorted(
        {f"U+{ord(c):04X}" for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        - {f"U+{ord(c):04X}" for c in allowed}
    )


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # playwright's own event loop
def test_no_display_has_an_active_node(shown: list[object]) -> None:
    """In a real Chromium: no element, handler, link or request that we did not write, and no script ran."""
    fragments = [(type(thing).__name__, html) for thing in shown if (html := _html(thing))]
    kinds = {name for name, _ in fragments}
    assert kinds >= {
        "Records",
        "Tail",
        "Sync",
        "StreamView",
        "Catalog",
        "Heat",
        "Lineage",
        "ExportReport",
        "PermissionReport",
    }
    with browser_page() as (page, outside):
        page.set_content("<!doctype html><body></body>")
        found, text = page.evaluate(_ACTIVE, fragments)
        page.wait_for_timeout(300)  # for what would load or fire
        assert page.evaluate("window.hit") is None
        assert outside == []
    assert found == []
    assert "<script>window.hit=1</script>" in text  # it is there to be read
    assert "\\u202etxt.exe" in text


def test_no_text_hides_or_commands(shown: list[object]) -> None:
    """No control, direction or zero-width character in any text or HTML, and no text without an end."""
    found = {}
    for thing in shown:
        for text in [*_texts(thing), _html(thing)]:
            if bad := _dangerous(text):
                found[f"{type(thing).__name__} {text[:60]!r}"] = bad
        assert all(len(line) < 20_000 for text in _texts(thing) for line in text.splitlines())
    assert found == {}


def test_a_record_is_cut_in_displays_only(source: kn.Source, streams: Streams) -> None:
    """A megabyte is a short line in a notebook, and whole in the data."""
    streams.create()
    streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=b"x" * 1_000_000)
    rows = source.read("orders", progress=False)
    assert len(rows._repr_html_()) < 20_000
    assert len(repr(next(iter(rows)))) < 2_000
    assert len(rows.to_polars()["data"][0]) == 1_000_000


def test_warnings_quote_fields_as_text() -> None:
    """A field name that appeared after the schema was made is quoted without its escape sequences."""
    schema = infer_schema(['{"a": 1}'])
    frame = pl.DataFrame({"data": ['{"a": 1, "\\u001b[31m\\u202e": 2}']})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kn.parse_json(frame, schema=schema)
    assert caught
    assert _dangerous(str(caught[0].message)) == []
