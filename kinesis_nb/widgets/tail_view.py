"""The live table of a tail."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kinesis_nb.core.arguments import hinted
from kinesis_nb.display import plain
from kinesis_nb.errors import ConfigError
from kinesis_nb.reading.consumer import ConsumerStats, ShardState
from kinesis_nb.reading.tail import Tail
from kinesis_nb.widgets.grid.cells import cut
from kinesis_nb.widgets.grid.rows import Waiting
from kinesis_nb.widgets.grid.timeline import Timeline
from kinesis_nb.widgets.rate import Rate
from kinesis_nb.widgets.rows_view import RowsView
from kinesis_nb.widgets.shard_map import is_stuck, shard_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from kinesis_nb.widgets.flow import Message

FRAME_SECONDS = 0.2
MAP_SECONDS = 1.0  # between two pictures of the shards and of the last minutes
LONGEST_NOTE = 2_000


class TailView(RowsView):
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

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets import TailView
    >>> tail = kn.demo().tail("clicks")
    >>> view = TailView(tail, key="/cart")
    >>> tail.stop()
    """

    _variable = "tail"

    @hinted
    def __init__(self, tail: Tail, *, text: str = "", key: str = "", json: bool = False) -> None:
        if not isinstance(tail, Tail):
            raise ConfigError(f"TailView shows a Tail, not {type(tail).__name__}", hint="source.tail(...) makes one")
        self.tail = tail
        self._waiting = Waiting()
        self._rate, self._timeline = Rate(tail.stats().buffer.received), Timeline()
        self._pictured = float("-inf")
        super().__init__(text=text, key=key, json=json)

    def to_perspective(self) -> Any:
        """Return a PerspectiveWidget of the rows that the tail holds now; needs ``kinesis-nb[perspective]``."""
        return self.tail.to_perspective()

    # --- a poll ---

    def _interval(self) -> float:
        return FRAME_SECONDS

    def _is_live(self) -> bool:
        return self.tail.state in {"running", "paused"}

    def _all(self) -> Iterable[pa.RecordBatch]:
        self.tail.unwatch(self._waiting)
        self._waiting = Waiting()
        return [rows for _, rows in self.tail.watch(self._waiting)]

    def _scan(self) -> None:
        super()._scan()
        self._timeline = Timeline()
        self._timeline.add(self._held.everything()[1].to_batches())

    def _take(self) -> None:
        batches, skipped = self._waiting.take()
        wanted = [self._filter(rows) for rows in batches] if self._filter else batches
        self._held.add(wanted, 0 if self._filter else skipped)
        self._timeline.add(wanted)

    def _moment(self) -> Message:
        stats = self.tail.stats()
        buffer, state = stats.buffer, self.tail.state
        going = [shard for shard in stats.shards if shard.state is not ShardState.ENDED]
        trouble, banner = _trouble(going) if state == "running" else ("", "")
        return {
            "title": plain(self.tail.stream),
            "state": state,
            "trouble": trouble,
            "banner": banner,
            "counts": f"{buffer.received:,} rows · {buffer.rows:,} held",
            "dropped": f"{total:,}" if (total := sum(buffer.dropped.values())) else "",
            **self._rate.counted(buffer.received),
            **({"rate": "0"} if state == "paused" else {}),
            **self._second(going),
            "notes": [cut(str(note), LONGEST_NOTE) for note in (*stats.gaps[-3:], stats.warning) if note],
        }

    def _second(self, going: Sequence[ConsumerStats]) -> Message:
        """Return the shards and the last minutes, once a second."""
        now = time.monotonic()
        if now - self._pictured < MAP_SECONDS and not self._is_new:
            return {}
        self._pictured = now
        return {"shards": shard_map(going, self._filter.key), "timeline": self._timeline.bars(time.time())}

    # --- buttons ---

    def _do(self, message: Message) -> None:
        match message.get("kind"):
            case "pause":
                self.tail.pause()
            case "resume":
                self.tail.resume()
            case _:
                super()._do(message)

    def _stop(self) -> None:
        self.tail.stop()

    # --- the end ---

    def _release(self) -> None:
        self.tail.unwatch(self._waiting)
        self._take()
        self._error = self.tail.error or self._error

    def _caption(self) -> str:
        buffer = self.tail.stats().buffer
        return f"tail of {self.tail.stream}: {self.tail.state}, {buffer.rows:,} of {buffer.received:,} rows held"

    def __repr__(self) -> str:
        return f"<TailView of {repr(self.tail).strip('<>')}>"


def _trouble(going: Sequence[ConsumerStats]) -> tuple[str, str]:
    """Return in a word why rows do not come, and in two lines what happened and what to do; empty when they do."""
    if not (stuck := [shard for shard in going if is_stuck(shard)]):
        return "", ""
    which = f"{len(stuck)} of {len(going)} shards" if len(going) > 1 else "the shard"
    if all(shard.is_throttled for shard in stuck):
        said = f"{which}: throttled, because all readers of a shard share 5 calls and 2 MB a second"
        return "throttled", f"{said}\nhint: nothing is lost; fewer readers, or more shards, make it faster"
    cause = next(filter(None, (shard.error for shard in stuck)), "")
    if not cause:
        cause = f"no response for {max(shard.waiting_seconds for shard in stuck):,.0f} s"
    hint = "nothing is lost: reading goes on when the service responds; source.check() finds what is wrong"
    word = "not reading" if len(stuck) == len(going) else ""
    return word, f"{which} cannot be read: {cut(cause, LONGEST_NOTE)}\nhint: {hint}"
