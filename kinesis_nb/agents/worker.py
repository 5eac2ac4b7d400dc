"""What runs on an agent: one part of a job, until it ends, is stopped, or another agent is to go on with it."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kinesis_nb.agents.order import Answer, ExportOrder, SyncOrder
from kinesis_nb.agents.place import Part, how_many, plan
from kinesis_nb.core.retry import Patient, backoff
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.errors import Fenced, KinesisError, TableError
from kinesis_nb.exporting.rows import Rows
from kinesis_nb.exporting.start import start_export
from kinesis_nb.exporting.target import Outlet
from kinesis_nb.syncing.start import open_table, start_part, sync_feed
from kinesis_nb.syncing.sync import RunPart
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.verify import verify_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from distributed import Worker

    from kinesis_nb.agents.order import Task
    from kinesis_nb.agents.place import Placement
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.transport import Kinesis
    from kinesis_nb.exporting.streaming import StreamingExport
    from kinesis_nb.reading.feed import Feed
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.table.table import SyncTable
    from kinesis_nb.table.verify import TableCheck

REPORT_SECONDS = 0.25
ANSWER_SECONDS = 5.0  # for the scheduler
IDLE_SECONDS = 5.0  # between looks at a stream of which this part has nothing to read now
LATE_SECONDS = 30.0  # after its begin, in which a part takes back what an agent took that was lost before it could
LOCKED_SECONDS = 1.0  # between tries to get a journal that a lost agent may still hold

T = TypeVar("T")

log = logging.getLogger("kinesis_nb.agent")

_lock = threading.Lock()  # guards _running and _parts
_running: dict[str, Sync] = {}  # by key, for those who ask what is pending
_parts: set[str] = set()  # the keys of all parts of this process, exports too
_leaving = threading.Event()  # set when this process is to end: its parts commit and end then, whatever the desk says


class Running(Protocol):
    """What a part consists of: a sync, or an export."""

    def stop(self) -> None:
        """Finish what is under way, and end."""
        ...

    def status(self) -> Any:
        """Return a moment of it."""
        ...


def prepare(order: SyncOrder, agents: int) -> Placement:
    """Make the table, or open it; return how its stream is to be cut for so many agents."""
    from distributed import secede

    secede()  # others do not wait while this one waits for Kinesis
    kinesis, clock = order.connect(order.parcel.config), SystemClock()
    _open(order, kinesis)
    shards = list(filter(order.selection.wants, Patient(kinesis, clock).list_shards(order.stream)))
    return plan(shards, how_many(sum(shard.is_open for shard in shards), agents))


def run(task: Task) -> bytes:
    """Run a part of a job; return its last status, pickled."""
    from distributed import get_worker, secede

    secede()  # it takes no place among the threads that other tasks wait for
    desk = _Desk(task.key, get_worker())
    with _lock:
        _parts.add(task.key)
    try:
        if isinstance(task.order, ExportOrder):
            return _run_export(task.order, desk)
        return _run_sync(task, task.order, desk)
    except KinesisError as error:
        log.warning("%s: %s: %s", task, type(error).__name__, error)
        error.__traceback__ = error.__cause__ = error.__context__ = None  # frames hold secrets, and Dask sends them
        desk.report(None, 0, failure=pickle.dumps(error))
        raise
    finally:
        with _lock:
            _parts.discard(task.key)


def has_parts() -> bool:
    """Return whether any part runs in this process."""
    with _lock:
        return bool(_parts)


def leave() -> None:
    """Let all parts of this process commit and end."""
    _leaving.set()


def pending(keys: list[str]) -> list[pa.RecordBatch]:
    """Return the rows that parts in this process have read and not committed yet."""
    syncs = [sync for key, sync in running().items() if key in keys]
    return [batch for sync in syncs for batch in sync.live.to_arrow().to_batches()]


def running() -> dict[str, Sync]:
    """Return the syncs of this process by the keys of their parts."""
    with _lock:
        return dict(_running)


def look_at(order: SyncOrder) -> TableCheck:
    """Verify the table of a sync."""
    kinesis, clock = order.connect(order.parcel.config), SystemClock()
    return verify_table(_open(order, kinesis), Patient(kinesis, clock).list_shards(order.stream), order.selection)


def _open(order: SyncOrder, kinesis: Kinesis) -> SyncTable:
    return open_table(_feed(order, kinesis), _storage(order, kinesis), order.start)


def _feed(order: SyncOrder, kinesis: Kinesis) -> Feed:
    return sync_feed(kinesis, order.stream, SystemClock(), order.selection, order.foreign)


def _storage(order: SyncOrder | ExportOrder, kinesis: Kinesis) -> Storage:
    return Storage.at(order.uri, lambda: {**kinesis.storage_options(), **order.parcel.storage_options})


class _Desk:
    """The way to the desk in the scheduler, from a thread of a worker."""

    def __init__(self, key: str, worker: Worker) -> None:
        self._key, self._worker = key, worker
        self.mark = self.births = 0

    def report(
        self, status: Any, reached: int, births: int = 0, note: str = "", trouble: str = "", failure: bytes = b""
    ) -> Answer:
        """Report, and return what is to be done; without an answer, go on: only the fence may stop a sync."""
        from distributed import Status
        from distributed.utils import sync

        if _leaving.is_set():
            return Answer.HAND_OVER
        if self._worker.status in (Status.closed, Status.failed, Status.closing):
            return Answer.NOT_YOURS
        try:
            reply: Any = sync(
                self._worker.loop,
                self._worker.scheduler.kinesis_nb_report,
                callback_timeout=ANSWER_SECONDS,
                key=self._key,
                agent=self._worker.address,
                status=b"" if status is None else pickle.dumps(status),
                reached=reached,
                births=births,
                note=note,
                trouble=trouble,
                failure=failure,
            )
        except Exception:  # noqa: BLE001 - whatever ails the way to the scheduler, the rows go on
            time.sleep(REPORT_SECONDS)
            return Answer.NONE
        answer, self.mark, self.births = reply
        return Answer(answer)

    def may_take(self, note: str = "", trouble: str = "") -> bool:
        """Return whether a part may take what it is to write; False when it is to end.

        Unlike one that runs, it waits for an answer. Raises as :func:`_is_over` does.
        """
        while (answer := self.report(None, 0, note=note, trouble=trouble)) is Answer.NONE:
            pass
        if answer is Answer.LEFT_ALONE:
            answer = Answer.NOT_YOURS
        return not _is_over(answer, _Idle())


def _begun(begin: Callable[[], T], desk: _Desk) -> T | None:
    """Return what a part consists of, begun again and again while that may help; None when the part is to end."""
    clock, failures, trouble, again_at = SystemClock(), 0, "", float("-inf")
    while desk.may_take(trouble=trouble):
        if time.monotonic() < again_at:
            time.sleep(REPORT_SECONDS)
            continue
        try:
            return begin()
        except KinesisError as error:
            if not error.retryable:
                raise
            trouble, again_at = str(error), time.monotonic() + backoff(failures, error, clock)
            failures += 1
    return None


def _run_sync(task: Task, order: SyncOrder, desk: _Desk) -> bytes:
    kinesis = order.connect(order.parcel.config)
    began, note = time.monotonic(), ""

    def begin() -> Sync | None:
        table = _open(order, kinesis)
        if not desk.may_take(note):  # opening may have taken long
            return None
        return start_part(
            _feed(order, kinesis),
            table,
            RunPart(task.key.rpartition("-")[0], task.number, Part(task.placement, task.number)),
            commit_interval=order.commit_interval,
            on_data_loss=order.on_data_loss,
        )

    while (sync := _begun(begin, desk)) is not None:
        with _lock:
            _running[task.key] = sync
        is_over, note = False, ""
        try:
            is_over = _watch_sync(sync, desk)
        except Fenced:
            if time.monotonic() - began > LATE_SECONDS:
                raise
            note = "taken over, maybe by an agent that was lost when it began: taken back"
        finally:
            with suppress(TableError):  # what storage did not take is read again by whoever comes next
                sync.stop()
            with _lock:
                _running.pop(task.key, None)
            status = sync.status()
            if status.error:
                log.warning("%s stopped: %s", task, status.error)
        if not note and (is_over or not _wait_for_shards(kinesis, sync, desk, task, order.selection)):
            return pickle.dumps(status)
    return b""


def _watch_sync(sync: Sync, desk: _Desk) -> bool:
    """Report until the sync ends; return whether that is all there is to do."""
    mark = reached = births = 0
    caught_up: Iterator[bool] = iter(())
    while sync.is_active:
        status = sync.status()
        if _is_over(desk.report(status, reached, sync.children_for_others), sync):
            return True
        if desk.births != births:
            births = desk.births
            sync.list_now()
        if desk.mark != mark:
            mark, caught_up = desk.mark, sync.all_caught_up()
        if reached != mark and next(caught_up):
            reached = mark
        time.sleep(REPORT_SECONDS)
    sync.wait(0, until_caught_up=False)  # raises what it failed with
    return False


def _is_over(answer: Answer, part: Running) -> bool:
    """Do what the desk says; return whether the part is over. Handing over is an exception, as Dask has it."""
    from distributed import Reschedule

    match answer:
        case Answer.STOP:
            part.stop()
            return True
        case Answer.HAND_OVER:
            with suppress(TableError):  # storage is away: the next agent reads again what could not be committed
                part.stop()
            raise Reschedule
        case Answer.NOT_YOURS:
            raise Fenced("another agent runs this part", hint="nothing is lost: it goes on there")
        case _:
            return False


def _wait_for_shards(kinesis: Kinesis, ended: Sync, desk: _Desk, task: Task, selection: Selection) -> bool:
    """Wait until there may be something to read again; return False when there never will be, or on a word to stop.

    A part that has read all its shards to their end gets new ones when a child begins among its hash keys.
    """
    wanted = Part(task.placement, task.number)
    status, looked, births = ended.status(), float("-inf"), 0
    while True:
        answer = desk.report(status, desk.mark, ended.children_for_others)
        if answer is Answer.LEFT_ALONE:
            answer = Answer.NOT_YOURS  # it has nothing to go on with
        if _is_over(answer, _Idle()):
            return False
        if time.monotonic() - looked > IDLE_SECONDS or desk.births != births:
            looked, births = time.monotonic(), desk.births
            try:
                shards = list(filter(selection.wants, kinesis.list_shards(ended.stream)))
            except KinesisError as error:
                if not error.retryable:
                    raise
                continue
            if not any(shard.is_open for shard in shards):
                return False
            if any(shard.is_open and wanted(shard) for shard in shards):
                return True
        time.sleep(REPORT_SECONDS)


class _Idle:
    """A part that has nothing to read."""

    def stop(self) -> None:
        """Nothing runs."""

    def status(self) -> Any:
        return None


def _run_export(order: ExportOrder, desk: _Desk) -> bytes:
    kinesis = order.connect(order.parcel.config)
    outlet = Outlet(kinesis, SystemClock(), order.stream, order.arn)
    rows = Rows(_storage(order, kinesis))

    def begin() -> StreamingExport:
        note = "waits for the journal"
        while True:
            try:
                return start_export(outlet, rows, order.options, order.span)
            except Fenced:  # a lost agent that stands still holds the journal until it wakes and ends
                if not desk.may_take(note):
                    raise
                note = ""  # once is enough for the log
                time.sleep(LOCKED_SECONDS)

    export = _begun(begin, desk)
    if export is None:
        return b""
    try:
        mark = reached = 0
        while export.is_running:
            if _is_over(desk.report(export.status(), reached), export):
                break
            if desk.mark != mark and export.wait(REPORT_SECONDS):
                reached = mark = desk.mark
            time.sleep(REPORT_SECONDS)
        else:
            export.wait(0, until_caught_up=False)  # raises what it failed with
    finally:
        export.stop()
    return pickle.dumps(export.status())
