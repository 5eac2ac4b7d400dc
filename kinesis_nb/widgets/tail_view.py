"""The live table of a tail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kinesis_nb.config import hinted
from kinesis_nb.consumer import ConsumerStats, State
from kinesis_nb.display import frame_html, plain
from kinesis_nb.errors import ConfigError
from kinesis_nb.frames import Records
from kinesis_nb.tail import Tail
from kinesis_nb.widgets.live import LiveView, Rate, source
from kinesis_nb.widgets.rows import Columns, Filter, Waiting, Window, cut, detail, short

if TYPE_CHECKING:
    import pyarrow as pa

    from kinesis_nb.tail import TailStats

FRAME_SECONDS = 0.2
FRAME_ROWS, FRAME_CHARACTERS = 100, 60_000  # of one message
FIRST_ROWS, FIRST_CHARACTERS = 300, 250_000  # that a new front end gets
PICTURE_ROWS = 20
LONGEST_FILTER = 256  # characters, as a partition key
MOST_SHARDS = 24  # shown; those that are behind most


class TailView(LiveView):
    """The newest rows of a tail as they come; ``tail.view()``, and what a tail shows itself as in a notebook.

    With buttons to pause and stop, filters by text and key, columns for the fields of JSON objects, all of a row on a
    click, the rate of the last minute, how far each shard is behind, and what was dropped. When the tail is over a
    static table of the newest rows stays.

    Parameters
    ----------
    tail
        What to show; taking rows out of it makes no difference to the view.
    text, key
        Show only rows whose data, and whose partition key, hold these texts, in any case.
    json
        Show the fields of JSON objects in columns of their own.
    """

    _esm = source("live.js", "tail_view.js")
    _css = source("live.css")

    @hinted
    def __init__(self, tail: Tail, *, text: str = "", key: str = "", json: bool = False) -> None:
        if not isinstance(tail, Tail):
            raise ConfigError(f"TailView shows a Tail, not {type(tail).__name__}", hint="source.tail(...) makes one")
        self.tail = tail
        self._filter, self._columns = Filter(text, key), Columns(json=json)
        self._waiting, self._window = Waiting(), Window()
        self._sent = -1  # the number of the newest row that was sent
        self._rate = Rate(tail.stats().buffer.received)
        self._scan()
        super().__init__()

    def filter(self, text: str = "", key: str = "") -> None:
        """Show only rows whose data, and whose partition key, hold these texts, in any case."""
        with self._lock:
            self._filter = Filter(text[:LONGEST_FILTER], key[:LONGEST_FILTER])
            self.tail.unwatch(self._waiting)
            self._scan()
            self._is_new = True

    def _scan(self) -> None:
        """Look at all that the tail holds, and from then on at what comes."""
        self._waiting, self._window, self._sent = Waiting(), Window(), -1
        for held in self.tail.watch(self._waiting):
            self._window.add([self._filter(held[1])], 0, FIRST_ROWS)

    def rows(self) -> Records:
        """Return the newest rows that match, up to a thousand."""
        with self._lock:
            self._take()
            return Records(self._window.to_arrow())

    def to_perspective(self) -> Any:
        """Return a PerspectiveWidget of the rows that the tail holds now; needs ``kinesis-nb[perspective]``."""
        return self.tail.to_perspective()

    # --- a look ---

    def _interval(self) -> float:
        return FRAME_SECONDS

    def _is_live(self) -> bool:
        return self.tail.state in {"running", "paused"}

    def _take(self) -> None:
        batches, skipped = self._waiting.take()
        wanted = [self._filter(rows) for rows in batches] if self._filter else batches
        self._window.add(wanted, 0 if self._filter else skipped, FRAME_ROWS)

    def _look(self, *, everything: bool) -> dict[str, Any]:
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
            "live": self._moment(self.tail.stats()),
        }

    def _moment(self, stats: TailStats) -> dict[str, Any]:
        buffer = stats.buffer
        self._rate.count(buffer.received)
        lags = sorted(stats.shards, key=lambda shard: -(shard.millis_behind_latest or 0))
        open_shards = [shard for shard in lags if shard.state is not State.ENDED]
        return {
            "title": plain(self.tail.stream),
            "state": self.tail.state,
            "received": f"{buffer.received:,}",
            "matching": f"{self._window.rows:,}" if self._filter else "",
            "held": f"{buffer.rows:,}",
            "dropped": f"{total:,}" if (total := sum(buffer.dropped.values())) else "",
            "rate": f"{self._rate.now:,.0f}",
            "rates": self._rate.last_minute,
            "shards": [_badge(shard) for shard in sorted(open_shards[:MOST_SHARDS], key=lambda shard: shard.shard_id)],
            "more_shards": max(0, len(open_shards) - MOST_SHARDS),
            "notes": [cut(str(note), 2_000) for note in (*stats.gaps[-3:], stats.warning) if note],
        }

    # --- buttons ---

    def _do(self, message: dict[str, Any]) -> None:
        match message.get("kind"):
            case "pause":
                self.tail.pause()
            case "resume":
                self.tail.resume()
            case "filter":
                self.filter(str(message.get("text", "")), str(message.get("key", "")))
            case "json":
                self._columns = Columns(json=bool(message.get("json")))
                self._is_new = True
            case "detail":
                number = int(message.get("number", -1))
                record = self._window.find(number)
                self._reply({"detail": detail(number, record) if record else None, "number": number})
            case _:
                pass  # from a front end that knows more than we do

    def _stop(self) -> None:
        self.tail.stop()

    def _release(self) -> None:
        self.tail.unwatch(self._waiting)
        self._take()

    # --- what stays ---

    def _picture(self) -> str:
        table: pa.Table = self.rows().to_arrow()
        shown = table.select(["kinesis_ingestion_timestamp", "partition_key", "shard_id", "data"])
        return frame_html(shown, repr(self.tail), PICTURE_ROWS, newest=True)

    def __repr__(self) -> str:
        return f"<TailView of {repr(self.tail).strip('<>')}>"


def _fitting(cells: list[list[object]], room: int) -> list[list[object]]:
    """Return the newest rows that fit into so many characters."""
    for place, row in enumerate(cells):
        room -= sum(len(str(cell)) for cell in row)
        if room < 0:
            return cells[: max(1, place)]
    return cells


def _badge(shard: ConsumerStats) -> list[object]:
    """Return of a shard: number, id, state, seconds behind, throttles, error."""
    behind = shard.millis_behind_latest
    lag = "…" if behind is None else f"{behind / 1000:,.1f} s"
    kind = "bad" if shard.error else "slow" if (behind or 0) > 10_000 else "good"  # noqa: PLR2004 - ten seconds
    return [short(shard.shard_id), cut(shard.shard_id), shard.state.value, lag, shard.throttles, cut(shard.error), kind]
