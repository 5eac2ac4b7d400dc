"""Discovers shards and runs one thread per active shard: the only module that starts consumer threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.consumer import ConsumerStats, ShardConsumer, Sink
from kinesis_nb.errors import Closed, KinesisError
from kinesis_nb.frames import warm_up
from kinesis_nb.position import StartingPosition
from kinesis_nb.shards import ShardTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kinesis_nb.shards import Shard
    from kinesis_nb.transport import Clock, Kinesis

DISCOVERY_SECONDS = 15.0  # a reshard shows itself at the end of its parents; listing only covers what that missed
TICK_SECONDS = 1.0  # how often the discovery thread looks whether its owner is gone
JOIN_SECONDS = 1.0


@dataclass(frozen=True)
class Feed:
    """One stream to read: how to call it, what is there at the beginning, and what of it is wanted.

    Attributes
    ----------
    shards
        The wanted shards of the first listing.
    wanted
        Which shards to read, children that appear later included.
    """

    kinesis: Kinesis
    stream: str
    clock: Clock
    shards: tuple[Shard, ...]
    wanted: Callable[[Shard], bool] = lambda _shard: True

    def position(self, shard: Shard, start: StartingPosition) -> StartingPosition:
        """Return where to start a shard: one that was born after the first listing is read from its beginning."""
        is_listed = any(shard.shard_id == listed.shard_id for listed in self.shards)
        return start if is_listed else StartingPosition.trim_horizon()


class Scheduler:
    """Reads a stream into a sink until it is stopped, fails, or every shard has given what the sink wants.

    Parameters
    ----------
    skipped
        Ids of listed shards that count as read to their end already.
    on_done
        Called once, from one of the threads: with None when there is nothing left to read, or with the error that
        ended it all.

    Notes
    -----
    Threads hold the scheduler and the sink, never the object that a user holds, so that object can be collected and
    stop them.
    """

    def __init__(
        self,
        feed: Feed,
        sink: Sink,
        *,
        skipped: Iterable[str] = (),
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        self._feed, self._sink, self._on_done = feed, sink, on_done
        self._lock = threading.Lock()  # guards the four below; never held during I/O
        self._tracker = ShardTracker()
        self._tracker.observe(feed.shards)
        for shard_id in skipped:
            self._tracker.skip(shard_id)
        self._consumers: dict[str, ShardConsumer] = {}
        self._threads: list[threading.Thread] = []
        self._is_done = False
        self._stop = threading.Event()
        self._is_abandoned = False
        self._may_run = threading.Event()
        self._may_run.set()
        self._stepped = threading.Condition()  # guards nothing; notified after every step of every consumer

    def start(self) -> None:
        """Start the threads; returns at once."""
        warm_up()
        self._start_runnable()
        self._spawn(self._discover, f"kinesis_nb {self._feed.stream} discovery")

    def wait_opened(self, timeout: float) -> None:
        """Wait until every consumer started so far holds its place in the shard, at most `timeout` seconds."""
        with self._stepped:
            self._stepped.wait_for(self._all_opened, timeout)

    def _all_opened(self) -> bool:
        return self._stop.is_set() or all(consumer.has_iterator for consumer in self._snapshot())

    def stop(self, timeout: float = JOIN_SECONDS) -> None:
        """End all threads and wait for them; one that is inside a network call may outlive `timeout` by that call."""
        self._stop.set()
        self._may_run.set()
        deadline = self._feed.clock.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - self._feed.clock.monotonic()))

    def abandon(self) -> None:
        """End all threads within a second or two, without waiting.

        For the finalizer of the owner. It may run inside any allocation of any thread, ours too, so it must not touch a
        lock: it leaves a mark that the discovery thread finds.
        """
        self._is_abandoned = True

    def pause(self) -> None:
        """Make no more calls until :meth:`resume`."""
        self._may_run.clear()

    def resume(self) -> None:
        """Go on where :meth:`pause` stopped."""
        self._may_run.set()

    @property
    def is_paused(self) -> bool:
        """Whether calls are on hold."""
        return not self._may_run.is_set()

    def stats(self) -> list[ConsumerStats]:
        """Return a moment of every consumer that was started, by shard id."""
        return sorted((consumer.stats() for consumer in self._snapshot()), key=lambda stats: stats.shard_id)

    def unfinished(self) -> set[str]:
        """Return the ids of the shards that are not read to their end, whether they are being read already or not."""
        with self._lock:
            return self._tracker.unfinished

    def _snapshot(self) -> list[ShardConsumer]:
        with self._lock:
            return list(self._consumers.values())

    def _spawn(self, target: Callable[..., None], name: str, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _start_runnable(self) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            ready = [
                ShardConsumer(self._feed.kinesis, self._feed.stream, shard, self._sink, self._feed.clock)
                for shard in self._tracker.start_runnable()
            ]
            self._consumers.update((consumer.shard.shard_id, consumer) for consumer in ready)
        for consumer in ready:
            self._spawn(self._consume, f"kinesis_nb {self._feed.stream} {consumer.shard.shard_id}", consumer)

    def _consume(self, consumer: ShardConsumer) -> None:
        try:
            while self._wait_while_paused():
                wait = consumer.step()
                self._notify_stepped()
                if wait is None:
                    self._finished(consumer)
                    return
                self._stop.wait(wait)
        except Closed:
            return  # the owner stopped us inside the sink
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the reader, whatever it is
            self._done(error)
        finally:
            self._notify_stepped()

    def _notify_stepped(self) -> None:
        with self._stepped:
            self._stepped.notify_all()

    def _wait_while_paused(self) -> bool:
        self._may_run.wait()
        return not self._stop.is_set()

    def _finished(self, consumer: ShardConsumer) -> None:
        with self._lock:
            self._tracker.finish(consumer.shard.shard_id)
            self._tracker.observe_new(filter(self._feed.wanted, consumer.children))
            is_complete = not self._tracker.unfinished
            awaits_listing = self._tracker.awaits_listing
        if is_complete:
            self._done(None)
            return
        self._start_runnable()
        if awaits_listing:
            self._list()

    def _discover(self) -> None:
        next_listing = self._feed.clock.monotonic() + DISCOVERY_SECONDS
        while not self._stop.wait(TICK_SECONDS):
            if self._is_abandoned:
                self._done(None)
            elif self._feed.clock.monotonic() >= next_listing:
                self._list()
                next_listing = self._feed.clock.monotonic() + DISCOVERY_SECONDS

    def _list(self) -> None:
        try:
            self._observe(self._feed.kinesis.list_shards(self._feed.stream))
        except BaseException as error:  # noqa: BLE001 - as in _consume
            if not (isinstance(error, KinesisError) and error.retryable):
                self._done(error)

    def _observe(self, shards: Iterable[Shard]) -> None:
        with self._lock:
            self._tracker.observe(filter(self._feed.wanted, shards))
        self._start_runnable()

    def _done(self, error: BaseException | None) -> None:
        with self._lock:
            if self._is_done or self._stop.is_set():
                return
            self._is_done = True
        self._stop.set()
        self._may_run.set()
        self._on_done(error)
