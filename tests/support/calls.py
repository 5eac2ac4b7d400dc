"""Calls of one sync, in virtual time: real committers on a real table, driven one step at a time, without a thread.

A call here is what a process, or a cell, makes of ``source.sync(...)``. It can be frozen, thaw, stop, or die.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinesis_nb.errors import Fenced
from kinesis_nb.reading.consumer import ShardConsumer
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.syncing.committer import Phase
from kinesis_nb.syncing.signals import Signals
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.conftest import by_key
from tests.support.places import ORIGIN
from tests.support.virtual import VirtualKinesis, world
from tests.support.writers import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.table.origin import Origin
    from tests.support.virtual import VirtualClock

FOR_EVER = 120.0  # seconds of virtual time within which everything settles
MANY = 50  # tries in a row


class SeamedTable(SyncTable):
    """A table that lets other things happen right before and right after each of its commits."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    @classmethod
    def open(cls, storage: Storage, origin: Origin) -> SeamedTable:
        table = super().open(storage, origin)
        assert isinstance(table, SeamedTable)
        return table

    def _write(self, *what: Any, **options: Any) -> None:
        self.meanwhile()
        super()._write(*what, **options)
        self.meanwhile()


class PacedSignals(Signals):
    """Signals of a writer whose pauses pass in virtual time, and that does not try the same for ever."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.pauses = 0

    def pause(self, seconds: float) -> bool:
        self.pauses += 1
        assert self.pauses < MANY, "the same is tried again and again"
        self._clock.sleep(seconds)
        return self.is_stopping


class Call(Parts):
    """One call: its committer, and consumers that read between its steps."""

    def __init__(self, stage: Stage, run: str, wanted: Callable[[Shard], bool], interval: float) -> None:
        self._clock = stage.clock
        self.table = SeamedTable.open(stage.storage, ORIGIN)
        self.kinesis = VirtualKinesis(stage.model, stage.clock)
        feed = ReadPlan(self.kinesis, "orders", stage.clock, (), wanted)
        super().__init__(feed, self.table, run, interval=interval, signals=PacedSignals(stage.clock))
        self.due = stage.clock.monotonic()
        self.error: BaseException | None = None
        self.is_over = self.is_frozen = self.is_stepping = False
        self._consumers: list[ShardConsumer] = []

    def start(self, feed: ReadPlan) -> None:
        """Begin to read; what there is is read between the steps."""
        self._consumers = [ShardConsumer(feed, shard, self.intake) for shard in feed.shards]

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self.committer.phase

    @property
    def is_owning(self) -> bool:
        """Whether it lives and takes itself for the writer."""
        return self.phase is Phase.OWNING and not self.is_over

    def read(self) -> None:
        """Read what there is."""
        for consumer in self._consumers:
            consumer.step()

    def step(self) -> None:
        """Do what is due, as the committer's thread does it."""
        self.is_stepping = True
        try:
            wait = self.committer.step()
        except Fenced as error:
            self.error, wait = self.committer._explained(error), None
        finally:
            self.is_stepping = False
        self.is_over = wait is None
        self.due = self._clock.monotonic() + (wait or 0.0)
        if not self.is_over:
            self.read()

    def end(self) -> None:
        """Stop as a user does."""
        self.signals.stop()
        while not self.is_over:
            self.step()

    def die(self) -> None:
        """Be gone, as a killed process is."""
        self.is_over = True


class Stage:
    """A stream, a table in a folder, and all calls that were made."""

    def __init__(self, folder: Path, shards: int = 1) -> None:
        self.model, self.clock, self.kinesis = world(shards)
        self.storage = Storage.at(folder / "t")
        self.calls: list[Call] = []
        self.put_count = 0

    def call(self, run: str = "", wanted: Callable[[Shard], bool] = lambda _shard: True, interval: float = 1.0) -> Call:
        """Make another call; nothing of it happens before its first step."""
        self.calls.append(Call(self, run, wanted, interval))
        return self.calls[-1]

    def writer(self, **options: Any) -> Call:
        """Make another call, and let it come to write the table."""
        call = self.call(**options)
        self.until(lambda: call.is_owning)
        return call

    def put(self, count: int = 3) -> None:
        """Write records of one key, numbered in order."""
        for _ in range(count):
            data = f'{{"n": {self.put_count}}}'.encode()
            self.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": data})
            self.put_count += 1

    def until(self, condition: Callable[[], bool], within: float = FOR_EVER) -> float:
        """Let time pass, and every call do what is due, until something holds; return the seconds that this took."""
        began = self.clock.monotonic()
        while not condition():
            living = [call for call in self.calls if not (call.is_over or call.is_frozen)]
            first = min(living, key=lambda call: call.due)
            assert first.due - began <= within, f"not within {within} s"
            self.clock.sleep(max(0.0, first.due - self.clock.monotonic()))
            first.step()
        return self.clock.monotonic() - began

    def sleep(self, seconds: float) -> None:
        """Let time pass, and every call do what is due."""
        end = self.clock.monotonic() + seconds
        while due := [call for call in self.calls if not (call.is_over or call.is_frozen) and call.due <= end]:
            first = min(due, key=lambda call: call.due)
            self.clock.sleep(max(0.0, first.due - self.clock.monotonic()))
            first.step()
        self.clock.sleep(max(0.0, end - self.clock.monotonic()))

    def owners(self) -> list[Call]:
        """Return the calls that live and take themselves for the writer."""
        return [call for call in self.calls if call.is_owning]

    def settle(self) -> Call:
        """Let time pass until one call is left, which writes; return it."""
        self.until(lambda: len(self.owners()) == 1 == sum(not call.is_over for call in self.calls))
        return self.owners()[0]

    def numbers(self) -> list[int]:
        """Return the numbers of the records in the table, in the order of their offsets."""
        rows = self.storage.scan().sort("shard_offset").collect()
        return by_key(rows.to_arrow()).get("k", [])

    def assert_all_once(self) -> None:
        """Check that a living writer brings every record into the table, each once and in order."""
        self.put()
        self.sleep(3.0)
        assert self.numbers() == list(range(self.put_count))


def interleave(calls: Sequence[Call], choices: Sequence[int]) -> None:
    """Let calls make their steps in the order of `choices`, also while another one is about to commit or just has.

    A choice is the number of a call that makes one step; any other number: nobody does.
    """
    left = iter(choices)

    def someone() -> None:
        chosen = next(left, None)
        if chosen is None or chosen >= len(calls):
            return
        call = calls[chosen]
        if not (call.is_stepping or call.is_over):
            call.step()

    for call in calls:
        call.table.meanwhile = someone
    for chosen in left:
        if chosen < len(calls) and not calls[chosen].is_over:
            calls[chosen].step()
    for call in calls:
        call.table.meanwhile = lambda: None
