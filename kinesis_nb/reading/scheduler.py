"""Discovers shards and runs one thread per active shard: the only module that starts consumer threads."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from kinesis_nb.core import interrupt
from kinesis_nb.core.frames import warm_up
from kinesis_nb.core.halt import Halt
from kinesis_nb.core.shards import ShardTracker, has_hole
from kinesis_nb.errors import Closed, KinesisError, MalformedResponse
from kinesis_nb.reading.consumer import ConsumerStats, ShardConsumer, ShardState
from kinesis_nb.reading.pace import SharedQuota
from kinesis_nb.reading.phase import ShardPhase
from kinesis_nb.reading.plan import check_same_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.reading.gaps import Reach
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.sink import Sink

DISCOVERY_SECONDS = 15.0  # a reshard shows itself at the end of its parents; listing only covers what that missed
TICK_SECONDS = 1.0  # how often the discovery thread checks whether its owner is gone
JOIN_SECONDS = 1.0  # a thread that waits for a response or a lock checks four times a second whether it is to stop
HOLES = 2  # listings in a row; one alone may just have met a reshard
WAVE = 256  # threads that may be opening their shard at a time; fewer lose the race against those that read already
STALE = 4  # listings in a row without the newest shard; it takes seconds at most until all servers know it


class Scheduler:
    """Reads a stream into a sink until it is stopped, fails, or every shard has given what the sink wants.

    Parameters
    ----------
    skipped
        Ids of listed shards that count as read to their end already.
    on_done
        Called once, from one of the threads: with None when there is nothing left to read, or with the error that
        ended reading.

    Notes
    -----
    Threads hold the scheduler and the sink, never the object that a user holds, so that object can be collected and
    stop them.
    """

    def __init__(
        self,
        plan: ReadPlan,
        sink: Sink,
        *,
        skipped: Iterable[str] = (),
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        self._plan, self._sink, self._on_done = plan, sink, on_done
        self._lock = threading.Lock()  # guards the eleven below; never held during I/O
        self._tracker = ShardTracker(is_ordered=plan.is_ordered)
        self._refused: MalformedResponse | None = None  # why the first listing was, which `start` reports
        try:
            self._tracker.observe(plan.shards)
        except MalformedResponse as error:
            self._refused = error
        for shard_id in skipped:
            self._tracker.skip(shard_id)
        self._consumers: dict[str, ShardConsumer] = {}
        self._to_start: deque[ShardConsumer] = deque()  # without a thread so far
        self._opening: list[ShardConsumer] = []  # they have a thread, and maybe no response yet
        self._active = 0  # consumers that have not ended
        self._quota = SharedQuota(lambda: self._active)
        self._enough: set[str] = set()  # ids of shards of which the sink wants no more
        self._reach: dict[str, Reach] = {}  # by child: how far its parents were read
        self._threads: list[threading.Thread] = []
        self._at_work: set[threading.Thread] = set()  # those of them that have not done all they had to do
        self._is_done = False
        self._holes = 0  # listings in a row that lacked a shard; only the thread that lists writes these three
        self._stale = 0  # listings in a row that lacked the newest shard
        self._odd_listing = ""  # why the last one was refused
        self._left = threading.Condition(self._lock)  # notified when a thread has finished its work
        self._stop = Halt()
        self._was_awaited = False  # by `stop`
        self._is_abandoned = False
        self._may_run = threading.Event()
        self._may_run.set()
        self._stepped = threading.Condition()  # guards nothing; notified after every step of every consumer

    def start(self) -> None:
        """Start the threads; returns at once. When that fails, or is interrupted, none is left."""
        warm_up()
        if self._refused is not None:
            self._done(self._refused)
            return
        try:
            self._start_runnable()
            self._spawn(self._discover, f"kinesis_nb {self._plan.stream} discovery")
        except BaseException:
            self.stop()
            raise

    def wait_opened(self, timeout: float) -> None:
        """Wait until every consumer started so far holds its place in the shard, at most `timeout` seconds."""
        with self._stepped:
            interrupt.wait_for(self._stepped, self._all_opened, timeout)

    def _all_opened(self) -> bool:
        return self._stop.is_set() or all(consumer.has_iterator for consumer in self._snapshot())

    def stop(self, timeout: float = JOIN_SECONDS) -> None:
        """End all threads and wait for them: all together, until none ended for `timeout` seconds.

        Whatever they wait for is given up: a connection, a response, room in the sink. Only what cannot be given up,
        such as resolving the host's name, lets a thread outlive that; then `warning` says so. Calling it again, after
        an interrupt too, waits for those that are left.
        """
        self._end()
        me = {threading.current_thread()}
        with self._left:
            before = -1
            while before != (before := len(self._at_work)):  # a thousand take long on a busy machine, and do end
                if interrupt.wait_for(self._left, lambda: self._at_work <= me, timeout):
                    break
            gone = [thread for thread in self._threads if thread not in self._at_work]
            self._was_awaited = True
        for thread in gone:  # nothing is left for them to do
            thread.join()

    def _end(self) -> None:
        self._stop.set()
        self._may_run.set()

    def abandon(self) -> None:
        """End all threads within a second or two, without waiting.

        For the finalizer of the owner. It may run inside any allocation of any thread, ours too, so it must not touch a
        lock: it leaves a mark that the discovery thread finds.
        """
        self._is_abandoned = True

    def list_now(self) -> None:
        """List the shards now, and not at the next turn of the discovery; returns at once."""
        self._spawn(self._list, f"kinesis_nb {self._plan.stream} listing")

    def pause(self) -> None:
        """Make no calls until :meth:`resume`."""
        self._may_run.clear()

    def resume(self) -> None:
        """Continue where :meth:`pause` stopped."""
        self._may_run.set()

    @property
    def is_paused(self) -> bool:
        """Whether reading is paused."""
        return not self._may_run.is_set()

    def stats(self) -> list[ConsumerStats]:
        """Return a snapshot of every consumer that was started, by shard id."""
        return sorted((consumer.stats() for consumer in self._snapshot()), key=lambda stats: stats.shard_id)

    def caught_up(self) -> Iterator[bool]:
        """Yield whether everything that was in the stream at the first look is delivered by now.

        Every shard that is not finished must have answered "nothing left" to a call made after that look.
        """
        before = {shard.shard_id: shard.calls for shard in self.stats()}
        caught_up: set[str] = set()
        while not self.unfinished() <= caught_up:
            yield False
            caught_up |= {
                shard.shard_id for shard in self.stats() if shard.caught_up_call > before.get(shard.shard_id, 0)
            }
        while True:
            yield True

    def unfinished(self) -> set[str]:
        """Return the ids of the shards that are not read to their end, whether they are being read already or not."""
        with self._lock:
            return (
                self._tracker.unfinished if self._refused is None else {shard.shard_id for shard in self._plan.shards}
            )

    @property
    def warning(self) -> str:
        """A warning about the stream as a whole, or about threads that have not ended, else an empty string."""
        odd = self._odd_listing or ("no open shard takes some of the hash keys" if self._holes >= HOLES else "")
        return self.lingering or odd

    @property
    def lingering(self) -> str:
        """Which threads `stop` did not wait for any longer, else an empty string."""
        with self._lock:
            count = len(self._at_work) if self._was_awaited else 0
        return f"{count:,} threads have not ended yet: they wait for the network" if count else ""

    def _snapshot(self) -> list[ShardConsumer]:
        with self._lock:
            return list(self._consumers.values())

    def _spawn(self, target: Callable[..., None], name: str, *args: object) -> None:
        thread = threading.Thread(target=self._run, args=(target, *args), name=name, daemon=True)
        with self._lock:
            if self._stop.is_set():
                return
            self._threads.append(thread)
            self._at_work.add(thread)
            try:
                thread.start()
            except RuntimeError:  # the machine has no more of them
                self._threads.remove(thread)
                self._at_work.remove(thread)
                raise

    def _run(self, work: Callable[..., None], *args: object) -> None:
        """Run a thread's work; every thread ends here, whatever was raised."""
        try:
            with self._stop.obeyed():
                work(*args)
        except Closed:
            pass  # the owner stopped us, inside the sink or a call
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the reader, whatever it is
            self._done(error)
        finally:
            self._notify_stepped()
            with self._left:
                self._at_work.discard(threading.current_thread())
                if len(self._at_work) <= 1:  # the one that stops may be among them
                    self._left.notify_all()

    def _start_runnable(self) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            ready = [
                ShardConsumer(self._plan, shard, self._sink, self._quota, self._reach.get(shard.shard_id))
                for shard in self._tracker.start_runnable()
            ]
            self._active += len(ready)
            self._consumers.update((consumer.shard.shard_id, consumer) for consumer in ready)
            self._to_start.extend(ready)
        self._start_next()

    def _start_next(self) -> None:
        """Start the threads of shards that may be read, as those started before have read from theirs.

        Thousands at once would only wait for each other, with what each of them has in memory.
        """
        while True:
            with self._lock:
                self._opening = [consumer for consumer in self._opening if consumer.state is ShardState.STARTING]
                if not self._to_start or len(self._opening) >= WAVE:
                    return
                consumer = self._to_start.popleft()
                self._opening.append(consumer)
            self._spawn(self._consume, f"kinesis_nb {self._plan.stream} {consumer.shard.shard_id}", consumer)

    def _start_wave(self) -> None:
        """Start more threads although others have not read yet: those may be waiting for just these."""
        with self._lock:
            self._opening.clear()
        self._start_next()

    def _consume(self, consumer: ShardConsumer) -> None:
        while self._wait_while_paused():
            wait = consumer.step()
            self._notify_stepped()
            if self._to_start:
                self._start_next()
            if wait is None:
                self._finished(consumer)
                return
            self._stop.wait(wait)

    def _notify_stepped(self) -> None:
        with self._stepped:
            self._stepped.notify_all()

    def _wait_while_paused(self) -> bool:
        self._may_run.wait()
        return not self._stop.is_set()

    def _finished(self, consumer: ShardConsumer) -> None:
        with self._lock:
            self._active -= 1
            self._tracker.finish(consumer.shard.shard_id)
            if consumer.phase is ShardPhase.GAVE_ENOUGH:
                self._enough.add(consumer.shard.shard_id)
            if (reach := consumer.reach) is not None:
                for child in consumer.children:
                    known = self._reach.get(child.shard_id, reach)
                    self._reach[child.shard_id] = min(reach, known, key=lambda reach: reach.seen)
            self._tracker.observe_new(filter(self._plan.wanted, consumer.children))
            is_complete = not self._tracker.unfinished
            awaits_listing = self._tracker.awaits_listing
        has_expired = consumer.phase is ShardPhase.EXPIRED
        if is_complete and not has_expired:
            self._done(None)
            return
        self._start_runnable()
        if awaits_listing or has_expired:  # the children of an expired shard may not be known yet
            self._list()

    def _discover(self) -> None:
        next_listing = self._plan.clock.monotonic() + DISCOVERY_SECONDS
        while not self._stop.wait(TICK_SECONDS):
            if self._to_start and not self.is_paused:
                self._start_wave()
            if self._is_abandoned:
                self._done(None)
            elif self._plan.clock.monotonic() >= next_listing:
                with self._lock:
                    self._threads = [known for known in self._threads if known.is_alive()]
                self._list()
                self._note_retention()
                next_listing = self._plan.clock.monotonic() + DISCOVERY_SECONDS

    def _note_retention(self) -> None:
        """Keep what is known of the stream's retention up to date: a sync records it for the next one."""
        with suppress(KinesisError):
            self._plan.lookup.retention()

    def _list(self) -> None:
        try:
            self._observe(self._plan.lookup.shards(since=self._plan.clock.monotonic()).values())
            self._odd_listing = ""
        except BaseException as error:  # noqa: BLE001 - as in _run
            self._odd_listing = error.message if isinstance(error, MalformedResponse) else ""
            if not (isinstance(error, KinesisError) and error.retryable):
                self._done(error)

    def _observe(self, shards: Collection[Shard]) -> None:
        self._holes = self._holes + 1 if has_hole(shards) else 0
        with self._lock:
            for shard in shards:
                check_same_stream(self._tracker.known(shard.shard_id) or shard, shard)
            if max((shard.shard_id for shard in shards), default="") < (newest := self._tracker.newest):
                self._note_stale(newest)
                return  # stale, or of another stream of this name; ids ascend
            self._stale = 0
            wanted = list(filter(self._plan.wanted, shards))
            self._tracker.observe(wanted)
            is_complete = not self._tracker.unfinished
            # if a shard that has ended is open in it
            is_old = any(shard.is_open and shard.shard_id not in self._enough for shard in wanted)
        if is_complete and not is_old:
            self._done(None)
        self._start_runnable()

    def _note_stale(self, newest: str) -> None:
        self._stale += 1
        if self._stale > STALE:
            raise MalformedResponse(
                f"{newest} was named as a child, but no listing has it",
                hint="start again; if that does not help, check endpoint_url",
            )

    def _done(self, error: BaseException | None) -> None:
        with self._lock:
            if self._is_done or self._stop.is_set():
                return
            self._is_done = True
        self._end()
        self._on_done(error)
