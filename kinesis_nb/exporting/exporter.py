"""Sends entries to a stream with one thread per lane; frames and growing tables both use it."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING

from kinesis_nb.core import interrupt
from kinesis_nb.core.shards import hash_key
from kinesis_nb.exporting.lane import Entry, Lane, Outcome
from kinesis_nb.exporting.report import QueueLimit
from kinesis_nb.exporting.throughput import WriteRate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kinesis_nb.exporting.lane import Observer
    from kinesis_nb.exporting.options import Delivery
    from kinesis_nb.exporting.report import Tally
    from kinesis_nb.exporting.target import Outlet, Target

STREAMED = QueueLimit(200_000, 64 * 2**20)  # of what is read as it is sent
IN_MEMORY = QueueLimit(2_000_000, 512 * 2**20)  # of a frame: the more keys are at hand, the fuller the requests
TICK_SECONDS = 0.1


class Exporter:
    """Lanes, their threads, and the one place that takes entries.

    Parameters
    ----------
    tally
        Counts for the report.
    journal
        Gets every request and outcome as well, before the tally does.
    """

    def __init__(
        self, outlet: Outlet, target: Target, tally: Tally, delivery: Delivery, journal: Observer | None = None
    ) -> None:
        self._stream, self._target, self._tally = outlet.stream, target, tally
        observer = tally if journal is None else _Both(journal, tally)
        self.lanes = [_lane(outlet, target, observer, delivery) for _ in target.hash_ranges]
        self._lane_of = lru_cache(65_536)(self._find_lane)
        self._stopping = threading.Event()
        self._is_complete = False  # no more entries will be queued
        # not Thread.join(): after an interrupt it takes a living thread for a dead one
        self._ends: list[threading.Event] = []
        self.error: BaseException | None = None

    # --- what the simulation of exports calls without threads ---

    def queue(self, entries: Sequence[Entry]) -> None:
        """Give each entry to the lane of its key."""
        self._tally.queued(sum(len(entry.rows) for entry in entries), sum(entry.size for entry in entries))
        if len(self.lanes) == 1:
            self.lanes[0].add(entries)
            return
        parts: dict[int, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(self._lane_of(entry.key), []).append(entry)
        for number, part in parts.items():
            self.lanes[number].add(part)

    def _find_lane(self, key: str) -> int:
        return bisect_left(self._target.hash_ranges, hash_key(key))

    # --- threads ---

    def start(self) -> None:
        """Start one thread per lane."""
        for number, lane in enumerate(self.lanes):
            name = f"kinesis_nb {self._stream} export {number}"
            end = threading.Event()
            self._ends.append(end)
            threading.Thread(target=self._run, args=(lane, end), name=name, daemon=True).start()

    def _run(self, lane: Lane, end: threading.Event) -> None:
        try:
            while not self._stopping.is_set():
                wait = lane.step()
                if wait:
                    self._stopping.wait(wait)
                elif wait is None:
                    if self._is_complete and lane.is_idle:
                        return
                    lane.has_work.wait()
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the caller, whatever it is
            self.error = self.error or error
            self.halt()
        finally:
            end.set()

    def wait_for_room(self, most: QueueLimit, progress: Callable[[int], None]) -> None:
        """Wait until the queues are below their bounds, or nothing more is to be sent.

        Raises
        ------
        BaseException
            What a lane failed with.
        """
        while not self._stopping.is_set() and not self._tally.wait_for_room(most, TICK_SECONDS):
            progress(self._tally.rows)
        self._raise_failure()

    def finish(self, progress: Callable[[int], None]) -> None:
        """Wait until everything that was queued is written or given up, and end the threads.

        Raises
        ------
        BaseException
            What a lane failed with.
        """
        self._is_complete = True
        for lane in self.lanes:
            lane.has_work.set()
        for end in self._ends:
            while not end.wait(TICK_SECONDS):
                progress(self._tally.rows)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.error is not None:
            raise self.error

    def halt(self) -> None:
        """Send no further request."""
        self._stopping.set()
        for lane in self.lanes:
            lane.has_work.set()

    def stop(self, timeout: float | None = None) -> None:
        """Send no further request, and wait for the responses to those under way, at most `timeout` seconds."""
        self.halt()
        give_up = time.monotonic() + (float("inf") if timeout is None else timeout)
        for end in self._ends:
            interrupt.wait(end, give_up - time.monotonic())


def _lane(outlet: Outlet, target: Target, observer: Observer, delivery: Delivery) -> Lane:
    rate = WriteRate(outlet.clock, target.shards_per_lane or 1)
    return Lane(outlet, rate, observer, ordered=delivery.is_ordered, resend_unknown=delivery.resends_unknown)


class _Both:
    """Two observers as one."""

    def __init__(self, first: Observer, second: Observer) -> None:
        self._observers = (first, second)

    def on_request(self, entries: Sequence[Entry]) -> None:
        for observer in self._observers:
            observer.on_request(entries)

    def on_outcome(self, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.on_outcome(outcome)
