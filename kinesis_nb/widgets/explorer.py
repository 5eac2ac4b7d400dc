"""The streams of a source: shards, records, fields, hot spots; and the code for the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import ipywidgets as W  # noqa: N812 - as in base
import polars as pl

from kinesis_nb.core.arguments import check_count, hinted
from kinesis_nb.core.names import check_stream_name
from kinesis_nb.display import cell, table_html
from kinesis_nb.errors import ConfigError
from kinesis_nb.source import Source
from kinesis_nb.widgets.base import Action, Field, Form, heading, markup
from kinesis_nb.widgets.code import Arguments, Name, call_code
from kinesis_nb.widgets.export_form import ExportForm
from kinesis_nb.widgets.own_tail import OwnTailPlace, start_own, stop_soon
from kinesis_nb.widgets.put_form import PutForm
from kinesis_nb.widgets.routing import serve_while_busy
from kinesis_nb.widgets.rows_view import RecordsView
from kinesis_nb.widgets.run_form import choice, position, proposals
from kinesis_nb.widgets.sync_form import SyncForm

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.core.frames import Records
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.exploring.explore import Heat, StreamView
    from kinesis_nb.jsontext.infer import Schema
    from kinesis_nb.reading.tail import Tail

_NEWEST, _OLDEST, _BETWEEN = "the newest end", "the oldest end", "a time window"
_TABS = ("Shards", "Records", "Fields", "Heat", "Key → shard", "Put a record", "Use it")


class Explorer(Form):
    """The streams of a source, and one of them in detail.

    Shards and their lineage, records from either end or of a time window, the fields of their JSON, how they spread
    over shards and keys, which shard takes a key; buttons that follow or copy the stream, and the code for each.

    Parameters
    ----------
    source
        Where the streams are.
    stream
        The stream to open at once.

    Attributes
    ----------
    stream
        The stream that is open, or None.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets import Explorer
    >>> explorer = Explorer(kn.demo(), "orders")
    >>> explorer.settle()
    True
    >>> explorer.stream.name
    'orders'
    """

    @hinted
    def __init__(self, source: Source, stream: str = "") -> None:
        if not isinstance(source, Source):
            msg = f"Explorer needs a Source, not a {type(source).__name__}"
            raise ConfigError(msg, hint="kn.connect(...) makes one")
        self.source = source
        self.stream: StreamView | None = None
        self._pages, self._name = W.Tab(layout=W.Layout(display="none")), markup()
        names = proposals([], stream, "orders")
        fields = {"stream": Field("Stream", names, check_stream_name, is_required=True)}
        actions = [
            Action("Open", self.look, lambda: self.problem, primary=True),
            Action("All streams", self._list, lambda: ""),
        ]
        below = [self._name, self._pages]
        super().__init__(fields, [heading("Explore", 3), *fields.values()], actions, "explorer", below)
        self.add_class("knb-explorer")
        self._pages.observe(lambda _change: self._fill(), "selected_index")
        self.offer_streams(source, "stream")
        if stream:
            self.look()

    def look(self) -> None:
        """Open the stream that is named; returns at once."""
        name = self.fields["stream"].value
        self.do(f"Looking at {name} …", lambda: _first_look(self.source.explore(name)), self._opened)

    def _list(self) -> None:
        self.do("Listing …", lambda: _picture(self.source.explore()), self.show)

    def refresh(self) -> None:
        """Check the fields, and say which stream the tabs are of: the field may name another one by now."""
        super().refresh()
        if self.stream is None:
            return
        name, typed = self.stream.name, self.fields["stream"].value
        other = "" if typed in (name, None) else f' <span class="knb-quiet">not {cell(typed)}, which is not open</span>'
        self._name.value = f"<h4>Stream {cell(name)}{other}</h4>"

    def leave(self) -> None:
        """Stop the tail that was started here: what stops it goes."""
        for page in self._pages.children:
            for content in page.children:
                if isinstance(content, _Use):
                    content.leave()

    def _opened(self, stream: StreamView) -> None:
        self.leave()
        self.stream = stream
        self.show("")
        self.refresh()
        self._pages.children = [W.VBox() for _ in _TABS]
        self._pages.titles = _TABS  # after the pages: titles without a page are dropped
        self._pages.layout.display = None
        self._pages.selected_index = 0
        self._fill()

    def _fill(self) -> None:
        """Create the content of a tab when it is opened for the first time."""
        number = self._pages.selected_index
        if self.stream is None or number is None or self._pages.children[number].children:
            return
        makers: tuple[Callable[[Source, StreamView], W.Widget], ...]
        makers = (_Shards, _Records, _Fields, _Heat, _Key, PutForm, _Use)
        self._pages.children[number].children = [makers[number](self.source, self.stream)]

    def __repr__(self) -> str:
        return f"<Explorer of {self.source!r}{f': {self.stream.name}' if self.stream else ''}>"


def _first_look(stream: StreamView) -> StreamView:
    """Ask for what is shown first, where waiting holds up nothing; it is asked once."""
    _ = stream.shards, stream.extras
    return stream


class _Shards(W.VBox):
    """What the service says of the stream, and the family of its shards."""

    def __init__(self, _source: Source, stream: StreamView) -> None:
        super().__init__([_html(stream), _html(stream.lineage)])


class _Records(Form):
    """Records from either end, or of a time window."""

    def __init__(self, source: Source, stream: StreamView) -> None:
        self._source, self._stream = source, stream
        self._view = W.VBox()
        fields = _record_fields()
        actions = [
            Action("Read", self.read, lambda: self.problem, primary=True),
            Action("Read more", self.read_more, lambda: self.problem),
            Action("Code", lambda: self.show_code(self.to_code), lambda: self.problem),
        ]
        super().__init__(fields, fields.values(), actions, "records", [self._view])
        self._offer_more(is_there=False)
        self.read()

    def _offer_more(self, *, is_there: bool) -> None:
        self._actions[1].layout.display = None if is_there else "none"

    def refresh(self) -> None:
        """Show what belongs to the choice, and check all fields."""
        is_window = self.fields["from"].value == _BETWEEN
        for name in ("start", "end", "key", "text"):
            self.fields[name].is_shown = is_window
        super().refresh()

    def read(self) -> None:
        """Read what the fields describe; returns at once."""
        self.do("Reading …", self._reading(), self._shown)

    def read_more(self) -> None:
        """Read ten times as many; returns at once."""
        self.fields["limit"].control.value *= 10
        self.read()

    def _reading(self) -> Callable[[], Records]:
        """Return what reads: called in another thread, so it must not read a field."""
        values = {name: field.value for name, field in self.fields.items()}
        if values["from"] != _BETWEEN:
            return lambda: self._stream.sample(values["limit"], newest=values["from"] == _NEWEST)
        options, where = self._options(), _containing(values["text"])
        options["limit"] += 1  # to know whether there are more
        return lambda: self._source.read(self._stream.name, **options, where=where, progress=False)

    def _options(self) -> Arguments:
        values = {name: self.fields[name].value for name in ("start", "end", "key", "limit")}
        return {name: value for name, value in values.items() if value is not None}

    def _shown(self, records: Records) -> None:
        for earlier in self._view.children:
            earlier.close()
        limit = self.fields["limit"].value
        has_more = self.fields["from"].value == _BETWEEN and len(records) > limit
        self._offer_more(is_there=has_more)
        view = RecordsView(records[:limit], "the window has more: see Read more" if has_more else "")
        self._view.children = [view]
        serve_while_busy(self)

    def to_code(self) -> str:
        """Return the cell that reads the same, for a source in the variable ``source``."""
        if self.problem:
            raise ConfigError(self.problem, hint="fix it in the form")
        name, limit = self._stream.name, self.fields["limit"].value
        if self.fields["from"].value != _BETWEEN:
            newest = {} if self.fields["from"].value == _NEWEST else {"newest": False}
            stream, sample = call_code("source.explore", [name], {}), call_code("sample", [limit], newest)
            return f"records = {stream}.{sample}\nrecords\n"
        options = self._options()
        if (text := self.fields["text"].value) is None:
            return f"records = {call_code('source.read', [name], options)}\nrecords\n"
        test = call_code('pl.col("data").str.contains', [text], {"literal": True})
        call = call_code("source.read", [name], options | {"where": Name(test)})
        return f"import polars as pl\n\nrecords = {call}\nrecords\n"


def _record_fields() -> dict[str, Field]:
    return {
        "from": Field("From", choice((_NEWEST, _OLDEST, _BETWEEN), _NEWEST)),
        "start": Field("Start", proposals(("-15m", "-1h", "-1d", "trim_horizon"), "-15m"), position),
        "end": Field("End", proposals(("now", "-5m", "-1h"), "now"), position),
        "key": Field("Partition key", W.Text(placeholder="any")),
        "text": Field("Text in the data", W.Text(placeholder="any")),
        "limit": Field("At most", W.IntText(100, step=100), lambda rows: check_count("limit", rows)),
    }


def _containing(text: str | None) -> pl.Expr | None:
    return None if text is None else pl.col("data").str.contains(text, literal=True)


class _Sampled(Form):
    """Something that is found out from the newest records."""

    def __init__(self, name: str, work: Callable[[int], _Pictured]) -> None:
        self._work = work
        count = W.IntText(1_000, step=1_000)
        fields = {"n": Field("Newest records", count, lambda n: check_count("n", n))}
        actions = [Action("Sample", self.look, lambda: self.problem, primary=True)]
        super().__init__(fields, fields.values(), actions, name)
        self.look()

    def look(self) -> None:
        """Sample the number of records in the field; returns at once."""
        count = self.fields["n"].value
        self.do("Reading …", lambda: self._work(count), lambda found: self.show(_picture(found)))


class _Fields(_Sampled):
    """Which fields the JSON has, and how often."""

    def __init__(self, _source: Source, stream: StreamView) -> None:
        def look(n: int) -> Schema:
            return stream.schema(n)

        super().__init__("fields", look)


class _Heat(_Sampled):
    """How the records spread over shards and keys."""

    def __init__(self, _source: Source, stream: StreamView) -> None:
        def look(n: int) -> Heat:
            return stream.heat(n)

        super().__init__("heat", look)


class _Key(Form):
    """Which shard takes a partition key."""

    def __init__(self, _source: Source, stream: StreamView) -> None:
        self._stream = stream
        fields = {"key": Field("Partition key", W.Text(placeholder="customer-42"), is_required=True)}
        actions = [Action("Find", self.find, lambda: self.problem, primary=True)]
        super().__init__(fields, fields.values(), actions, "key")

    def find(self) -> None:
        """Find the shard; returns at once."""
        key = self.fields["key"].value
        self.do("Searching …", lambda: self._stream.shard_for(key), lambda shard: self.show(_shard_html(key, shard)))


def _shard_html(key: str, shard: Shard) -> str:
    low, high = shard.hash_range
    rows = [
        ("shard", shard.shard_id),
        ("hash keys", f"{low:,} to {high:,}"),
        ("share", f"{(high - low + 1) / 2**128:.1%}"),
    ]
    return table_html(("partition key", key), rows)


class _Use(Form):
    """Buttons for the next step with the stream, and the code for each."""

    def __init__(self, source: Source, stream: StreamView) -> None:
        self._source, self._stream = source, stream
        self._below = OwnTailPlace()
        actions = [
            Action("Tail", self.tail, lambda: "", primary=True),
            Action("Sync …", self.sync, lambda: ""),
            Action("Export …", self.export, lambda: self._why_not_export()),
        ]
        super().__init__({}, [], actions, "use", [self._below])

    def _why_not_export(self) -> str:
        return "" if self._source.config.exports_enabled else "exports are not enabled on this source"

    def tail(self) -> None:
        """Follow the stream, and show the code for it; returns at once."""
        code = f"tail = {call_code('source.tail', [self._stream.name], {})}\ntail.view()\n"
        self.show_code(lambda: code)
        self.do("Starting …", self._start, self._below.put_tail, stop_soon)

    def _start(self) -> Tail:
        return start_own(self._source, self._stream.name, {})

    def leave(self) -> None:
        """Stop the tail: what stops it goes."""
        self._below.clear()

    def sync(self) -> None:
        """Show the form that keeps a table in step with the stream, and the code for it."""
        call = call_code("source.sync", [self._stream.name, f"tables/{self._stream.name}"], {})
        self.show_code(lambda: f"sync = {call}\nsync\n")
        self._below.put(SyncForm(self._source, self._stream.name))

    def export(self) -> None:
        """Show the form that writes this stream's rows to another one, and the code for it."""
        path = f"tables/{self._stream.name}"
        code = call_code("source.export_stream", [path, Name("output_stream_arn")], {})
        self.show_code(lambda: f'output_stream_arn = "arn:aws:kinesis:…"\nexport = {code}\nexport\n')
        self._below.put(ExportForm(self._source))


class _Pictured(Protocol):
    def _repr_html_(self) -> str: ...


def _html(thing: _Pictured) -> W.HTML:
    return markup(_picture(thing))


def _picture(thing: _Pictured) -> str:
    return thing._repr_html_()  # pyright: ignore[reportPrivateUsage] - what IPython calls
