"""A live tail: the newest rows of a stream in memory, bounded, while threads keep reading."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from kinesis_nb.core import foreign
from kinesis_nb.core.arguments import check_count, hinted, in_seconds
from kinesis_nb.core.compression import count_packed, unchanged
from kinesis_nb.core.frames import Record, Records, TableLike, concat, in_range, iter_records
from kinesis_nb.core.position import Kind, StartingPosition
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.running import Newest, Running
from kinesis_nb.display import frame_html, to_perspective
from kinesis_nb.errors import Closed, forget_frames, warn
from kinesis_nb.notebook import LiveDisplay
from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import TracebackType

    import pyarrow as pa

    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.core.foreign import Dropped
    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.buffer import Buffer, BufferStats, Held
    from kinesis_nb.reading.consumer import ConsumerStats
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Gap

WARN_SECONDS = 1.0  # how often whoever waits for rows is warned
POLL_SECONDS = 0.05  # between checks whether everything has come
OPEN_SECONDS = 2.0  # how long start() waits for the place "latest" in every shard


@dataclass(frozen=True, slots=True)
class TailStats:
    """A snapshot of a tail.

    Attributes
    ----------
    shards
        One entry per shard that was read.
    gaps
        Where the stream's retention ended before the tail came, so that records may be missing.
    dropped
        User records of aggregates that are not among the rows, because their hash keys are another shard's.
    warning
        A warning about the stream as a whole, or about the size of the tail; else an empty string.
    packed
        Rows received with compressed data that `decompress` left in ``data_raw``; parse_json says why.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     rows = tail.take(10, timeout=10)
    >>> tail.stats().gaps, tail.stats().buffer.dropped
    ((), {})
    """

    buffer: BufferStats
    shards: tuple[ConsumerStats, ...]
    gaps: tuple[Gap, ...] = ()
    warning: str = ""
    dropped: int = 0
    packed: int = 0


@of_one_process
class Tail(Running, TableLike, LiveDisplay):
    """The rows that a stream delivers from now on; made by :meth:`Source.tail`, running when you get it.

    ``to_polars()`` and the like show what is held now and leave it there; iterating and :meth:`batches` take rows
    out. The context manager stops it, and so does deleting it.

    Raises
    ------
    KinesisError
        When reading failed for good: iterating raises it once the rows read before are taken.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     tail.take(100, timeout=10)
    <Records: 100 rows>
    >>> tail.state
    'stopped'
    """

    def __init__(self, plan: ReadPlan, start: StartingPosition, buffer: Buffer) -> None:
        self.stream = plan.stream
        self._buffer = buffer
        is_latest = start.kind is Kind.LATEST
        # nothing new arrives in a closed shard
        skipped = [shard.shard_id for shard in plan.shards if is_latest and not shard.is_open]
        self._sink = _BufferSink(plan, start, buffer)
        self._gaps_warned = self._dropped_warned = 0  # of how many gaps and dropped user records the user was warned
        self._has_warned_of_size = False  # that records are larger than the buffer
        self._scheduler = Scheduler(plan, self._sink, skipped=skipped, on_done=buffer.close)
        self._stopper = weakref.finalize(self, self._scheduler.abandon)
        self._scheduler.start()
        if is_latest:
            self._scheduler.wait_opened(OPEN_SECONDS)

    def stop(self) -> None:
        """Stop reading; the rows that are held stay readable. Stopping it again does nothing."""
        self._buffer.close()
        self._stopper.detach()
        self._scheduler.stop()

    def pause(self) -> None:
        """Make no calls until :meth:`resume`; records are not missed while the stream retains them."""
        self._check_running()
        self._scheduler.pause()

    def resume(self) -> None:
        """Continue where :meth:`pause` stopped."""
        self._check_running()
        self._scheduler.resume()

    def _check_running(self) -> None:
        if self._buffer.is_closed:
            raise Closed(f"the tail is {self.state}", hint="tail() starts a new one")

    def status(self) -> TailStats:
        """Return the same as :meth:`stats`: every running thing has a status."""
        return self.stats()

    def stats(self) -> TailStats:
        """Return exact counts, as of now."""
        sink, scheduler = self._sink, self._scheduler
        return TailStats(
            self._buffer.stats(),
            tuple(scheduler.stats()),
            tuple(sink.gaps),
            ", ".join(filter(None, (scheduler.warning, self._buffer.warning))),
            sink.dropped,
            sum([*sink.packed.values()]),
        )

    def _next(self, timeout: float | None = None, most: int | None = None, batches: int | None = None) -> list[Held]:
        """Take rows out of the buffer; nothing comes when the time is over, or the tail."""
        give_up = time.monotonic() + in_seconds(timeout)
        while True:
            was_closed = self._buffer.is_closed
            taken = self._buffer.take(min(WARN_SECONDS, give_up - time.monotonic()), most, batches)
            try:
                self._warn()
            except BaseException:  # of a warning that is to be an error
                self._buffer.untake(taken)
                raise
            if taken or was_closed or time.monotonic() >= give_up:
                return taken

    def _warn(self) -> None:
        """Warn in the user's own thread: what a consumer thread prints lands anywhere."""
        gaps, small = self._sink.gaps[self._gaps_warned :], self._buffer.warning
        self._gaps_warned += len(gaps)
        for gap in gaps:
            warn(f"tail of {self.stream}: {gap}")
        if small and not self._has_warned_of_size:
            self._has_warned_of_size = True
            warn(f"tail of {self.stream}: {small}")
        dropped = self._sink.dropped
        number, self._dropped_warned = dropped - self._dropped_warned, dropped
        if said := foreign.describe_dropped(number):
            warn(f"tail of {self.stream}: {said}")

    def to_arrow(self) -> pa.Table:
        """Return the rows that are held now as an Arrow table."""
        return concat(self._buffer.peek())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Take rows out, batch by batch, waiting for more until the tail is stopped."""
        for _, rows in self._held():
            yield rows

    def _held(self) -> Iterator[Held]:
        while taken := self._next(batches=1):
            yield from taken

    def __iter__(self) -> Iterator[Record]:
        for shard_id, rows in self._held():
            used = 0
            try:
                for record in iter_records(rows):
                    used += 1
                    yield record
            finally:
                if used < rows.num_rows:  # the loop was left: the rest stays for the next one
                    self._buffer.untake([(shard_id, rows.slice(used))])

    @hinted
    def take(self, rows: int, timeout: Seconds | None = None) -> Records:
        """Take `rows` rows out, or as many as arrive.

        Parameters
        ----------
        timeout
            Seconds, or a timedelta, after which what came so far is returned; None waits for all of them.

        Raises
        ------
        KinesisError
            What the tail failed with, or an interrupt; the rows that came before stay in the tail then.
        """
        check_count("take", rows)
        give_up = time.monotonic() + in_seconds(timeout)
        taken: list[Held] = []
        count, before = 0, self._dropped_warned
        try:
            while count < rows:
                if not (more := self._next(give_up - time.monotonic(), rows - count)):
                    break
                taken += more
                count += sum(batch.num_rows for _, batch in more)
        except BaseException:
            self._buffer.untake(taken)
            raise
        return Records(concat(batch for _, batch in taken), foreign.describe_dropped(self._dropped_warned - before))

    def __len__(self) -> int:
        return self._buffer.stats().rows

    @property
    def state(self) -> str:
        """``running``, ``paused``, ``stopped``, ``failed``, or ``ended`` when there is nothing left to read."""
        if self._buffer.error is not None:
            return "failed"
        if not self._stopper.alive:
            return "stopped"
        if self._buffer.is_closed:
            return "ended"
        return "paused" if self._scheduler.is_paused else "running"

    @property
    def error(self) -> BaseException | None:
        """What the tail failed with, without its traceback; None for one that did not fail."""
        error = self._buffer.error
        if error is not None:
            forget_frames(error)
        return error

    @property
    def is_active(self) -> bool:
        """Whether it reads, or is paused."""
        return not self._buffer.is_closed

    def _outcomes(self, *, until_caught_up: bool) -> Iterator[bool | None]:
        caught_up = self._scheduler.caught_up()
        while not self._buffer.wait_closed(POLL_SECONDS):
            yield (until_caught_up and next(caught_up)) or None
        if self._buffer.error is not None:
            raise self._buffer.error
        yield self.state == "ended"

    @hinted
    def watch(self, see: Callable[[Held], object]) -> list[Held]:
        """Call `see` with the shard id and the rows of every batch as it comes, and return what is held now.

        Taking rows out makes no difference to it. It is called by the thread that read the batch, which it must not
        keep waiting: it may append to something, and nothing else.
        """
        return self._buffer.watch(see)

    @hinted
    def unwatch(self, see: Callable[[Held], object]) -> None:
        """Stop calling `see`."""
        self._buffer.unwatch(see)

    def view(self) -> Any:
        """Return a :class:`~kinesis_nb.widgets.TailView`: the newest rows as they come, with buttons and filters."""
        return self._view_of()

    def to_perspective(self) -> Any:
        """Return a PerspectiveWidget of the rows that are held now, to sort, group and plot them in the notebook.

        Raises
        ------
        ConfigError
            Without the extra: ``pip install kinesis-nb[perspective]``.
        """
        return to_perspective(self.to_arrow())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        return frame_html(self.to_arrow(), repr(self), newest=True)

    def __repr__(self) -> str:
        stats = self.stats()
        lags = [shard.millis_behind_latest or 0 for shard in stats.shards]
        counts = {"gaps": len(stats.gaps), "rows still compressed": stats.packed}
        counted = [f"{count:,} {name}" for name, count in counts.items() if count]
        notes = [*counted, foreign.describe_dropped(stats.dropped), stats.warning, _why(self.error)]
        trouble = "".join(f", {text}" for text in notes if text)
        return (
            f"<Tail {self.stream}: {self.state}, {len(lags)} shards, {stats.buffer.rows:,} of {stats.buffer.received:,}"
            f" rows held, {max(lags, default=0) / 1000:.1f} s behind{trouble}>"
        )


def _why(error: BaseException | None) -> str:
    """Return in one line what a tail failed with."""
    return "" if error is None else one_line(getattr(error, "message", str(error)))


class _BufferSink:
    def __init__(self, plan: ReadPlan, start: StartingPosition, buffer: Buffer) -> None:
        self.gaps: list[Gap] = []
        self._dropped: dict[str, tuple[int, int]] = {}  # by shard: up to which record, and how many; its thread counts
        self.packed: Counter[str] = Counter()  # by shard id, each of which has a thread
        self._plan, self._start, self._buffer = plan, start, buffer

    def position(self, shard: Shard) -> StartingPosition:
        """Start where the user said; a shard born later is read from its beginning."""
        return self._plan.position(shard, self._start)

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Put the rows into the buffer, which may wait for room."""
        earliest = self._start.timestamp if self._start.kind is Kind.AT_TIMESTAMP else None
        if batch.dropped:
            self._drop(shard.shard_id, batch.dropped, earliest)
        rows = in_range(batch.rows, earliest, None)
        if self._plan.unpack is not unchanged and (packed := count_packed(rows.column("data_raw"))):
            self.packed[shard.shard_id] += packed
        self._buffer.put(shard.shard_id, rows)  # who takes them may know the counts
        return True

    def _drop(self, shard_id: str, dropped: tuple[Dropped, ...], earliest: datetime | None) -> None:
        """Count what was not counted yet; a batch that could not be delivered comes again."""
        last, number = self._dropped.get(shard_id, (-1, 0))
        new = [record for record in dropped if int(record.sequence_number) > last]
        number += foreign.count(record for record in new if earliest is None or earliest <= record.arrived)
        self._dropped[shard_id] = max(last, int(dropped[-1].sequence_number)), number

    @property
    def dropped(self) -> int:
        """How many user records were dropped."""
        return sum(number for _, number in self._dropped.copy().values())

    def lost(self, gap: Gap) -> None:
        """Keep it for :meth:`Tail.stats`."""
        if gap not in self.gaps:
            self.gaps.append(gap)

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Do nothing: a tail keeps no checkpoints."""


tails: Newest[Tail] = Newest()
