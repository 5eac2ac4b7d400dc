"""What runs on an agent: one part of a job, until it ends, is stopped, or is handed over to another agent."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from kinesis_nb.agents.job_spec import ExportSpec
from kinesis_nb.agents.placement import PartFilter, count_parts, plan
from kinesis_nb.agents.registry_client import REPORT_SECONDS, RegistryClient, is_over, owning_nothing
from kinesis_nb.core.retry import RetryingLookups, backoff
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
    from collections.abc import Callable, Generator, Iterator

    import pyarrow as pa

    from kinesis_nb.agents.job_spec import PartTask, SyncSpec
    from kinesis_nb.agents.placement import Placement
    from kinesis_nb.core.transport import Kinesis
    from kinesis_nb.exporting.streaming import StreamingExport, StreamingExportStatus
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.syncing.status import SyncStatus
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.table.table import SyncTable
    from kinesis_nb.table.verify import TableCheck

IDLE_SECONDS = 5.0  # between listings of a stream of which this part has nothing to read now
RECLAIM_SECONDS = 30.0  # after its start; until then a part takes back shards that an already lost agent took late
JOURNAL_SECONDS = 1.0  # between attempts to open a journal that a lost agent may still hold

T = TypeVar("T")

log = logging.getLogger("kinesis_nb.agent")

_lock = threading.Lock()  # guards _syncs and _parts
_syncs: dict[str, Sync] = {}  # the syncs of this process by the keys of their parts, for pending rows and metrics
_parts: set[str] = set()  # the keys of all parts of this process, exports too


# --- what the cluster calls


def prepare(spec: SyncSpec, agents: int) -> Placement:
    """Create the table, or open it; return how the stream is divided among a number of agents."""
    from distributed import secede

    secede()  # while this waits for Kinesis, other tasks can use the thread
    kinesis, clock = spec.connect(spec.settings.config), SystemClock()
    _open_table(spec, kinesis)
    shards = list(filter(spec.selection.wants, RetryingLookups(kinesis, clock).list_shards(spec.stream)))
    return plan(shards, count_parts(sum(shard.is_open for shard in shards), agents))


def verify_sync(spec: SyncSpec) -> TableCheck:
    """Verify the table of a sync."""
    kinesis, clock = spec.connect(spec.settings.config), SystemClock()
    return verify_table(
        _open_table(spec, kinesis), RetryingLookups(kinesis, clock).list_shards(spec.stream), spec.selection
    )


def pending(keys: list[str]) -> list[pa.RecordBatch]:
    """Return the rows that parts in this process have read and not committed yet."""
    syncs = [sync for key, sync in syncs_here().items() if key in keys]
    return [batch for sync in syncs for batch in sync.live.to_arrow().to_batches()]


def run(task: PartTask) -> bytes:
    """Run a part of a job; return its last status, pickled."""
    from distributed import get_worker, secede

    secede()  # a part runs for days: it must not occupy a thread that short tasks wait for
    registry = RegistryClient(task.key, get_worker())
    with _lock:
        _parts.add(task.key)
    try:
        return run_part(task, registry)
    except KinesisError as error:
        log.warning("%s: %s: %s", task, type(error).__name__, error)
        error.__traceback__ = error.__cause__ = error.__context__ = None  # frames hold secrets, and Dask sends them
        registry.report(failure=error)
        raise
    finally:
        with _lock:
            _parts.discard(task.key)


# --- what this process runs


def has_parts() -> bool:
    """Return whether any part runs in this process."""
    with _lock:
        return bool(_parts)


def syncs_here() -> dict[str, Sync]:
    """Return the syncs of this process by the keys of their parts."""
    with _lock:
        return dict(_syncs)


# --- a part


def run_part(task: PartTask, registry: RegistryClient) -> bytes:
    """Run a part of a sync or an export; return its last status, pickled, or nothing if it never started."""
    work = task.work
    part = _ExportPart(work, registry) if isinstance(work, ExportSpec) else _SyncPart(task, work, registry)
    status = part.run()
    return b"" if status is None else pickle.dumps(status)


def start_when_possible(start: Callable[[], T], registry: RegistryClient) -> T | None:
    """Start what a part runs, and try again what a retry may cure; None when the part is to end."""
    clock, failures, trouble, retry_at = SystemClock(), 0, "", float("-inf")
    while registry.may_start(error=trouble):
        if time.monotonic() < retry_at:
            registry.pause()
            continue
        try:
            return start()
        except KinesisError as error:
            if not error.retryable:
                raise
            trouble, retry_at = str(error), time.monotonic() + backoff(failures, error, clock)
            failures += 1
    return None


class _SyncPart:
    """One part of a sync: started, watched, and started again when it gets new shards or takes some back."""

    def __init__(self, task: PartTask, spec: SyncSpec, registry: RegistryClient) -> None:
        self._task, self._spec, self._registry = task, spec, registry
        self._kinesis = spec.connect(spec.settings.config)
        self._is_ours = PartFilter(task.placement, task.number)
        self._note = ""  # for the log of the job

    def run(self) -> SyncStatus | None:
        """Run it to its end; return its last status, None if it never started."""
        began = time.monotonic()
        while (sync := start_when_possible(self._start, self._registry)) is not None:
            self._note, is_done = "", False
            try:
                with self._listed(sync):
                    is_done = self._watch(sync)
            except Fenced:
                if time.monotonic() - began > RECLAIM_SECONDS:
                    raise
                self._note = "taken over, perhaps by an agent that had been replaced already: taken back"
            if not self._note and (is_done or not self._wait_for_shards(sync)):
                return sync.status()
        return None

    def _start(self) -> Sync | None:
        spec, task = self._spec, self._task
        table = _open_table(spec, self._kinesis)
        if not self._registry.may_start(self._note):  # opening may have taken long
            return None
        return start_part(
            _feed(spec, self._kinesis),
            table,
            RunPart(task.key.rpartition("-")[0], task.number, self._is_ours),
            commit_interval=spec.commit_interval,
            on_data_loss=spec.on_data_loss,
        )

    @contextmanager
    def _listed(self, sync: Sync) -> Generator[None]:
        """List a sync among those of this process, and stop it in the end."""
        with _lock:
            _syncs[self._task.key] = sync
        try:
            yield
        finally:
            with suppress(TableError):  # the next agent reads again what storage did not accept
                sync.stop()
            with _lock:
                _syncs.pop(self._task.key, None)
            if error := sync.status().error:
                log.warning("%s stopped: %s", self._task, error)

    def _watch(self, sync: Sync) -> bool:
        """Report until the sync ends; return whether the part is over then."""
        registry = self._registry
        mark = reached = children = 0
        caught_up: Iterator[bool] = iter(())
        while sync.is_active:
            status = sync.status()
            if is_over(registry.report(status, reached, sync.children_for_others), sync):
                return True
            if registry.children_for_others != children:
                children = registry.children_for_others
                sync.list_now()
            if registry.mark != mark:
                mark, caught_up = registry.mark, sync.all_caught_up()
            if reached != mark and next(caught_up):
                reached = mark
            registry.pause()
        sync.wait(0, until_caught_up=False)  # raises what it failed with
        return False

    def _wait_for_shards(self, ended: Sync) -> bool:
        """Wait until the part has open shards again; return False when it never will, or is to stop.

        A part that has read all its shards to their end gets new ones when a child begins among its hash keys.
        """
        registry = self._registry
        status, listed_at, children = ended.status(), float("-inf"), 0
        while True:
            instruction = registry.report(status, registry.mark, ended.children_for_others)
            if is_over(owning_nothing(instruction)):
                return False
            if time.monotonic() - listed_at > IDLE_SECONDS or registry.children_for_others != children:
                listed_at, children = time.monotonic(), registry.children_for_others
                try:
                    shards = filter(self._spec.selection.wants, self._kinesis.list_shards(ended.stream))
                    is_ours = [self._is_ours(shard) for shard in shards if shard.is_open]
                except KinesisError as error:
                    if not error.retryable:
                        raise
                    continue
                if not is_ours:  # the stream has ended
                    return False
                if any(is_ours):
                    return True
            registry.pause()


class _ExportPart:
    """An export, which is one part."""

    def __init__(self, spec: ExportSpec, registry: RegistryClient) -> None:
        self._spec, self._registry = spec, registry
        self._kinesis = spec.connect(spec.settings.config)
        self._outlet = Outlet(self._kinesis, SystemClock(), spec.stream, spec.arn)
        self._rows = Rows(_storage(spec, self._kinesis))

    def run(self) -> StreamingExportStatus | None:
        """Run it to its end; return its last status, None if it never started."""
        export = start_when_possible(self._start, self._registry)
        if export is None:
            return None
        try:
            self._watch(export)
        finally:
            export.stop()
        return export.status()

    def _start(self) -> StreamingExport:
        spec = self._spec
        note = "waits for the journal"
        while True:
            try:
                return start_export(self._outlet, self._rows, spec.options, spec.span)
            except Fenced:  # a lost agent that hangs holds the journal until it wakes up and ends
                if not self._registry.may_start(note):
                    raise
                note = ""  # once is enough for the log
                time.sleep(JOURNAL_SECONDS)

    def _watch(self, export: StreamingExport) -> None:
        registry = self._registry
        mark = reached = 0
        while export.is_running:
            if is_over(registry.report(export.status(), reached), export):
                return
            if registry.mark != mark and export.wait(REPORT_SECONDS):
                reached = mark = registry.mark
            registry.pause()
        export.wait(0, until_caught_up=False)  # raises what it failed with


def _open_table(spec: SyncSpec, kinesis: Kinesis) -> SyncTable:
    return open_table(_feed(spec, kinesis), _storage(spec, kinesis), spec.start)


def _feed(spec: SyncSpec, kinesis: Kinesis) -> ReadPlan:
    return sync_feed(kinesis, spec.stream, SystemClock(), spec.selection, spec.foreign)


def _storage(spec: SyncSpec | ExportSpec, kinesis: Kinesis) -> Storage:
    return Storage.at(spec.uri, lambda: {**kinesis.storage_options(), **spec.settings.storage_options})
