"""A grid of rows to filter, sort and open one by one: what a TailView and the records of an Explorer share."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kinesis_nb.core.frames import Records, concat
from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.display import table_html
from kinesis_nb.errors import ConfigError
from kinesis_nb.widgets.grid.cells import FIELD, Columns, cut, detail, json_object, title
from kinesis_nb.widgets.grid.code import code_of
from kinesis_nb.widgets.grid.download import Download, file_of
from kinesis_nb.widgets.grid.filters import Chip, Filter, described
from kinesis_nb.widgets.grid.frames import frame_of
from kinesis_nb.widgets.grid.profile import profile
from kinesis_nb.widgets.grid.rows import HeldRows, concat_numbered
from kinesis_nb.widgets.grid.snapshot import Order, Snapshot
from kinesis_nb.widgets.grid.timeline import Timeline
from kinesis_nb.widgets.live import LiveView

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from kinesis_nb.core.frames import Record
    from kinesis_nb.widgets.flow import Message

FRAME_ROWS, FRAME_CHARACTERS = 40, 60_000  # of one message of a live grid, which shows fewer at a time
FIRST_ROWS, FIRST_CHARACTERS = 300, 250_000  # that a new front end gets
PAGE_ROWS = 200  # that a front end may ask for at once
PICTURE_ROWS = 20
PROFILE_ROWS, PROFILE_SECONDS = 1_000, 2.0  # of which rows of a live grid the histograms are, and how often anew
LONGEST_TOP = 60  # characters of a frequent value
QUIET_SECONDS = 60.0  # between two polls of rows that do not change


class RowsView(LiveView, scripts=("grid.js", "drawer.js", "timeline.js", "tail_view.js"), styles=("grid.css",)):
    """Rows in a grid, last arrival first: filters, columns for the fields of JSON, sorting, all of a row on a click."""

    _variable = "records"  # what the code calls the rows

    def __init__(self, *, text: str = "", key: str = "", json: bool = False) -> None:
        self._filter, self._columns, self._held = Filter(text, key), Columns(json=json), HeldRows()
        self._order = Order()
        self._snapshot: Snapshot | None = None  # the rows of a frozen grid; None for a live one
        self._snapshot_came = 0  # how many had come then
        self._first = 0  # the place of the first row that a front end gets
        self._sent = -1  # the number of the newest row that was sent
        self._profile: dict[str, Message] = {}
        self._profiled = 0.0
        self._scan()
        super().__init__()

    # --- what a subclass gives ---

    @abstractmethod
    def _all(self) -> Iterable[pa.RecordBatch]:
        """Return all rows there are now, oldest first; what comes from now on is for :meth:`_take`."""

    @abstractmethod
    def _take(self) -> None:
        """Add what came since the last poll."""

    @abstractmethod
    def _moment(self) -> Message:
        """Return what to show beside the rows."""

    # --- a poll ---

    def filter(self, text: str = "", key: str = "") -> None:
        """Show only rows whose data, and whose partition key, hold these texts, in any case."""
        with self._lock:
            self._filter = Filter(text[:KEY_CHARACTERS], key[:KEY_CHARACTERS], self._filter.chips)
            self._scan()

    def _scan(self) -> None:
        self._held, self._sent, self._is_new = self._empty(), -1, True
        rows = self._all()
        if self._filter:  # as one, so that a field has one type
            rows = map(self._filter, concat(rows).combine_chunks().to_batches())
        self._held.add(rows)
        if self._snapshot is not None:
            self._freeze()

    def _empty(self) -> HeldRows:
        return HeldRows()

    def rows(self) -> Records:
        """Return the rows that are held and match; those that arrived first at the beginning."""
        with self._lock:
            self._take()
            return Records(self._held.to_arrow())

    def _look(self, *, everything: bool) -> Message:
        self._take()
        rows = self._chosen(everything=everything)
        shown, today = self._columns.shown, datetime.now(UTC)
        cells = self._columns.cells(rows, today)
        if not everything and self._columns.shown != shown:  # fields that were not met before
            everything, cells = True, self._columns.cells(self._chosen(everything=True), today)
        self._sent = self._held.came - 1
        held = self._snapshot
        return {
            "everything": everything,
            "rows": _fitting(cells, FIRST_CHARACTERS if everything else FRAME_CHARACTERS),
            "first": self._first,
            "frozen": held is not None,
            "total": len(self._held) if held is None else len(held),
            "newer": 0 if held is None else self._held.came - self._snapshot_came,
            "matching": f"{len(self._held):,}" if self._filter else "",
            **(self._setting() if everything else {}),
            **self._profiles(everything=everything),
            "now": self._moment(),
        }

    def _chosen(self, *, everything: bool) -> list[tuple[int, Record]]:
        if self._snapshot is not None:
            return self._snapshot.page(self._first, self._first + FIRST_ROWS) if everything else []
        return self._held.newest(FIRST_ROWS) if everything else self._held.newest(FRAME_ROWS, self._sent)

    def _setting(self) -> Message:
        """Return what was chosen: columns, order, filters."""
        return {
            "columns": self._named(self._columns.shown),
            "fields": self._named(self._columns.ids),
            "beyond": self._columns.beyond,
            "json": self._columns.json,
            "filter": [self._filter.text, self._filter.key],
            "chips": [described(chip) for chip in self._filter.chips],
            "order": [self._columns.code(self._order.column or ""), self._order.descending],
        }

    def _named(self, columns: Iterable[str]) -> list[list[str]]:
        return [[self._columns.code(column), title(column)] for column in columns]

    def _profiles(self, *, everything: bool) -> Message:
        """Return what is in the columns, when it is due."""
        now = time.monotonic()
        if not everything and (self._snapshot is not None or now - self._profiled < PROFILE_SECONDS):
            return {}
        self._profiled = now
        if self._snapshot is not None:
            frame = self._snapshot.matching
        else:
            frame = frame_of(concat_numbered(self._held.newest(PROFILE_ROWS)), with_fields=self._columns.json)
        self._profile = profile(frame)
        known = set(self._columns.ids)
        return {"profile": {self._columns.code(c): _shown(about) for c, about in self._profile.items() if c in known}}

    def _freeze(self, number: int = -1) -> None:
        """Keep the rows as they are now in sight, from the one with a number on."""
        self._take()
        self._snapshot = Snapshot(*self._held.everything(), self._order, self._columns.json)
        if self._columns.json:
            self._columns.meet(name.removeprefix(FIELD) for name in self._snapshot.fields)
        self._snapshot_came = self._held.came
        self._first = max(0, self._snapshot.place_of(number) - FIRST_ROWS // 2)
        self._is_new = True

    def _thaw(self) -> None:
        """Show rows as they come, last arrival first."""
        self._snapshot, self._order, self._first, self._is_new = None, Order(), 0, True

    # --- buttons ---

    def _do(self, message: Message) -> None:
        match message.get("kind"):
            case "json":
                self._columns = Columns(json=bool(message.get("json")))
                self._scan()
            case "columns":
                self._columns.choose([self._columns.column(column) for column in message.get("columns") or ()])
                self._is_new = True
            case "sort":
                self._sort(message.get("column"), descending=bool(message.get("descending")))
            case "hold":
                self._freeze(int(message.get("number", -1)))
            case "release":
                self._thaw()
            case _:
                self._narrow(message)

    def _narrow(self, message: Message) -> None:
        """Change which rows are shown."""
        match message.get("kind"):
            case "filter":
                self.filter(str(message.get("text", "")), str(message.get("key", "")))
            case "chips":
                self._set_chips(message)
            case "window":
                self._set_chips({"kept": range(len(self._filter.chips)), "new": {"column": "arrived", **message}})
            case "shard":
                self._only_shard(str(message.get("shard")))
            case "only_key":
                self._only_key_of(int(message.get("number", -1)))
            case _:
                self._give(message)

    def _give(self, message: Message) -> None:
        """Reply to a question."""
        number = int(message.get("number", -1))
        match message.get("kind"):
            case "page":
                self._reply({"kind": "page", **self._page(int(message.get("first", 0)), int(message.get("last", 0)))})
            case "detail":
                record = self._held.find(number)
                self._reply({"kind": "detail", "detail": detail(number, record) if record else None, "number": number})
            case "data":
                self._send_data(number, str(message.get("token")))
            case "file":
                name, data = file_of(self._now().matching, str(message.get("format")))
                Download(self, name, data, str(message.get("token"))).start()
            case "code":
                self._reply({"kind": "code", "code": self.to_code()})
            case _:
                pass  # from a front end that knows more than we do

    def _set_chips(self, message: Message) -> None:
        """Take the chips that are there already, by their numbers, and perhaps a new one."""
        kept = [self._filter.chips[place] for place in message.get("kept") or () if place < len(self._filter.chips)]
        added = [self._chip(new)] if (new := message.get("new")) else []
        self._filter = replace(self._filter, chips=(*kept, *added))
        self._scan()

    def _chip(self, given: Message) -> Chip:
        """Return what a click on a bar, or on a frequent value, asks for."""
        column = self._columns.column(given.get("column"))
        if (place := given.get("top")) is None:
            return Chip.between(column, given)
        top = self._profile.get(column, {}).get("top", ())
        if place >= len(top):
            raise ConfigError("the values of this column have changed", hint="click the value again")
        return Chip(column, top[place][0])

    def _only_key_of(self, number: int) -> None:
        if (record := self._held.find(number)) is not None and record.partition_key is not None:
            self._filter = self._filter.narrowed(Chip("key", record.partition_key))
            self._scan()

    def _only_shard(self, shard_id: str) -> None:
        others = [chip for chip in self._filter.chips if chip.column != "shard"]
        is_there = Chip("shard", shard_id) in self._filter.chips  # a second click takes it away
        self._filter = replace(self._filter, chips=(*others, *([] if is_there else [Chip("shard", shard_id)])))
        self._scan()

    def _sort(self, column: object, *, descending: bool) -> None:
        self._order = Order(self._columns.column(column), descending)
        self._freeze()

    def _now(self) -> Snapshot:
        """Return the frozen rows, or those of this moment."""
        if self._snapshot is not None:
            return self._snapshot
        self._take()
        return Snapshot(*self._held.everything(), self._order, self._columns.json)

    def _page(self, first: int, last: int) -> Message:
        """Return the rows of some places; none when the grid is live again."""
        if self._snapshot is None:
            return {"first": first, "rows": []}
        rows = self._snapshot.page(first, min(last, first + PAGE_ROWS))
        return {"first": first, "rows": _fitting(self._columns.cells(rows, datetime.now(UTC)), FRAME_CHARACTERS)}

    def _send_data(self, number: int, token: str) -> None:
        record = self._held.find(number)
        if record is None:
            raise ConfigError("this row is not held any more", hint="read it again by its sequence number")
        data = record.data.encode("utf-8", "surrogatepass") if record.data_raw is None else record.data_raw
        name = f"{record.shard_id}-{record.sequence_number}.{'json' if json_object(record.data) else 'txt'}"
        Download(self, name, data, token).start()

    def to_code(self) -> str:
        """Return the code that gives the rows which are shown, from what the view shows.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> from kinesis_nb.widgets.rows_view import RecordsView
        >>> view = RecordsView(kn.demo().read("orders", progress=False))
        >>> view.filter(key="Ada")
        >>> print(view.to_code())
        import polars as pl
        <BLANKLINE>
        records.to_polars().filter(pl.col("partition_key")...
        """
        with self._lock:
            return code_of(self._variable, self._filter, self._order, self._now().frame, json=self._columns.json)

    # --- what stays ---

    def _picture(self) -> str:
        """Return the rows as they are shown: their columns, order and filter."""
        snapshot = self._now()
        cells = self._columns.cells(snapshot.page(0, PICTURE_ROWS), datetime.now(UTC))
        parts = [self._caption().strip("<>"), self._shown_of(len(snapshot))]
        titles = [title(column) for column in self._columns.shown]
        return table_html(titles, [row[2:] for row in cells], " · ".join(filter(None, parts)))

    def _shown_of(self, matching: int) -> str:
        what = self._filter.described()
        matched = f"{matching:,} rows where {what}" if what else ""
        column = self._order.column
        ordered = f"sorted by {title(column)}{', largest first' * self._order.descending}" if column else ""
        shown = f"the first {PICTURE_ROWS} shown" if matching > PICTURE_ROWS and column else ""
        newest = f"the newest {PICTURE_ROWS} shown" if matching > PICTURE_ROWS and not column else ""
        return ", ".join(filter(None, [matched, ordered, shown, newest]))

    def _caption(self) -> str:
        return repr(self)


class RecordsView(RowsView):
    """Records that were read, to search and open.

    Parameters
    ----------
    note
        What is to be known of them, beside their number.
    """

    def __init__(self, records: Records, note: str = "") -> None:
        self._records, self._note = records, note
        super().__init__()
        self._freeze()

    def _all(self) -> Iterable[pa.RecordBatch]:
        return self._records.to_arrow().to_batches()

    def _empty(self) -> HeldRows:
        return HeldRows(None, None)  # they are the caller's

    def _take(self) -> None:
        """Nothing comes."""

    def _thaw(self) -> None:
        self._order = Order()
        self._freeze()

    def _moment(self) -> Message:
        counts = " · ".join(filter(None, (f"{len(self._records):,} rows", self._note or self._records.note)))
        moment: Message = {"title": "records", "state": "", "counts": counts}
        if self._snapshot is not None and self._is_new:
            timeline = Timeline(None)
            timeline.add(self._snapshot.rows.to_batches())
            moment["timeline"] = timeline.bars()
        return moment

    def _interval(self) -> float:
        return QUIET_SECONDS

    def _is_live(self) -> bool:
        return True

    def _stop(self) -> None:
        """There is nothing to stop."""

    def __repr__(self) -> str:
        return f"<RecordsView: {len(self._records):,} rows>"


def _shown(about: Message) -> Message:
    """Return what is in a column as a page shows it."""
    if "top" not in about:
        return about
    return about | {"top": [[cut(text, LONGEST_TOP), times] for text, times in about["top"]]}


def _fitting(cells: list[list[object]], room: int) -> list[list[object]]:
    """Return the first rows that fit into the given number of characters; at least one."""
    for place, row in enumerate(cells):
        room -= sum(len(str(cell)) for cell in row)
        if room < 0:
            return cells[: max(1, place)]
    return cells
