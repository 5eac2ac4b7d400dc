"""A table of rows to search and to open one by one: what a TailView and the records of an Explorer share."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kinesis_nb.core.frames import Records
from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.display import frame_html
from kinesis_nb.widgets.assets import source
from kinesis_nb.widgets.live import SCRIPTS, STYLES, LiveView
from kinesis_nb.widgets.rows import Columns, Filter, NewestRows, detail

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from kinesis_nb.widgets.flow import Message

FRAME_ROWS, FRAME_CHARACTERS = 100, 60_000  # of one message
FIRST_ROWS, FIRST_CHARACTERS = 300, 250_000  # that a new front end gets
PICTURE_ROWS = 20
QUIET_SECONDS = 60.0  # between two polls of rows that do not change


class RowsView(LiveView):
    """Rows, newest first: filters by text and key, the fields of JSON objects in columns, all of a row on a click."""

    _esm = SCRIPTS + source("tail_view.js")
    _css = STYLES

    def __init__(self, *, text: str = "", key: str = "", json: bool = False) -> None:
        self._filter, self._columns, self._window = Filter(text, key), Columns(json=json), NewestRows()
        self._sent = -1  # the number of the newest row that was sent
        self._scan()
        super().__init__()

    # --- what a subclass gives ---

    @abstractmethod
    def _all(self) -> Iterable[pa.RecordBatch]:
        """Return all rows there are now, oldest first; what comes from now on is for :meth:`_take`."""

    @abstractmethod
    def _take(self) -> None:
        """Put what came since the last poll into the window."""

    @abstractmethod
    def _moment(self) -> Message:
        """Return what to show beside the rows."""

    # --- a poll ---

    def filter(self, text: str = "", key: str = "") -> None:
        """Show only rows whose data, and whose partition key, hold these texts, in any case."""
        with self._lock:
            self._filter = Filter(text[:KEY_CHARACTERS], key[:KEY_CHARACTERS])
            self._scan()
            self._is_new = True

    def _scan(self) -> None:
        self._window, self._sent = NewestRows(), -1
        for rows in self._all():
            self._window.add([self._filter(rows)], 0, FIRST_ROWS)

    def rows(self) -> Records:
        """Return the newest rows that match, up to a thousand."""
        with self._lock:
            self._take()
            return Records(self._window.to_arrow())

    def _look(self, *, everything: bool) -> Message:
        self._take()
        today = datetime.now(UTC)
        names = self._columns.names
        records = self._window.newest(*((FIRST_ROWS,) if everything else (FRAME_ROWS, self._sent)))
        cells = self._columns.cells(records, today)
        if not everything and self._columns.names != names:  # fields that were not met before
            everything, cells = True, self._columns.cells(self._window.newest(FIRST_ROWS), today)
        self._sent = self._window.rows - 1
        return {
            "everything": everything,
            "columns": self._columns.names,
            "rows": _fitting(cells, FIRST_CHARACTERS if everything else FRAME_CHARACTERS),
            "json": self._columns.json,
            "filter": [self._filter.text, self._filter.key],
            "matching": f"{self._window.rows:,}" if self._filter else "",
            "now": self._moment(),
        }

    # --- buttons ---

    def _do(self, message: Message) -> None:
        match message.get("kind"):
            case "filter":
                self.filter(str(message.get("text", "")), str(message.get("key", "")))
            case "json":
                self._columns = Columns(json=bool(message.get("json")))
                self._is_new = True
            case "detail":
                self._show_detail(int(message.get("number", -1)))
            case _:
                pass  # from a front end that knows more than we do

    def _show_detail(self, number: int) -> None:
        record = self._window.find(number)
        self._reply({"detail": detail(number, record) if record else None, "number": number})

    # --- what stays ---

    def _picture(self) -> str:
        table: pa.Table = self.rows().to_arrow()
        shown = table.select(["kinesis_ingestion_timestamp", "partition_key", "shard_id", "data"])
        return frame_html(shown, self._caption(), PICTURE_ROWS, newest=True)

    def _caption(self) -> str:
        return repr(self)


class RecordsView(RowsView):
    """Records that were read, to search and open."""

    def __init__(self, records: Records) -> None:
        self._records = records
        super().__init__()

    def _all(self) -> Iterable[pa.RecordBatch]:
        return self._records.to_arrow().to_batches()

    def _take(self) -> None:
        """Nothing comes."""

    def _moment(self) -> Message:
        return {"title": "records", "state": "", "counts": f"{len(self._records):,} rows"}

    def _interval(self) -> float:
        return QUIET_SECONDS

    def _is_live(self) -> bool:
        return True

    def _stop(self) -> None:
        """There is nothing to stop."""

    def __repr__(self) -> str:
        return f"<RecordsView: {len(self._records):,} rows>"


def _fitting(cells: list[list[object]], room: int) -> list[list[object]]:
    """Return the newest rows that fit into the given number of characters."""
    for place, row in enumerate(cells):
        room -= sum(len(str(cell)) for cell in row)
        if room < 0:
            return cells[: max(1, place)]
    return cells
