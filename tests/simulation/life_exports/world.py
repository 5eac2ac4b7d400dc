"""The world of a sync with one thing more: an output stream, and the processes that export the table into it."""

from __future__ import annotations

import base64
import errno
import json
import warnings
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast
from unittest.mock import patch

import msgspec

from kinesis_nb.core.running import Registry
from kinesis_nb.core.transport import StreamExtras
from kinesis_nb.emulator import AwsError
from kinesis_nb.errors import AccessDenied, InvalidRequest, ServiceError, Throttled
from kinesis_nb.exporting import exporter, follow, journal, journal_file, lane, report, start, streaming
from kinesis_nb.exporting.follow import TableFollower
from kinesis_nb.exporting.streaming import StreamingExport
from kinesis_nb.table.txns import Txns
from kinesis_nb.wire.aggregation import MAGIC, unpack
from kinesis_nb.wire.batches import decode_page
from kinesis_nb.wire.finding import Page, find
from kinesis_nb.wire.putting import decode_results, request_body
from tests.simulation.life.world import Life, LifeKinesis, Process, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from kinesis_nb.core.shards import Shard
    from kinesis_nb.core.transport import PutResult
    from kinesis_nb.exporting.target import Outlet
    from tests.simulation.life.world import Machine

OUTPUT = "copy"
_REFUSED = ("ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException")
_FAULTS = ("throttled", "reset before", "reset after", "late", "cut off", "too large for a proxy")
_LOSES_RESPONSES = {"reset after", "late", "cut off", "reset before"}  # or the sender cannot tell
_SLOW = 3.0  # seconds that a request takes where the output is slow


@dataclass
class Request:
    """A PutRecords call on its way."""

    records: list[dict[str, str]]
    is_applied: bool = False


class OutputKinesis(LifeKinesis):
    """The service as a process reaches it that exports."""

    process: ExportProcess

    @property
    def _life(self) -> ExportLife:
        return self.process.world

    def describe_extras(self, stream: str) -> StreamExtras:
        if not self._life.may_describe:
            raise AccessDenied("DescribeStreamSummary: AccessDeniedException")
        found = self._call("DescribeStreamSummary", StreamName=stream)["StreamDescriptionSummary"]
        created_at = datetime.fromtimestamp(found["StreamCreationTimestamp"], UTC)
        return StreamExtras(arn=found["StreamARN"], created_at=created_at)

    def list_shards(self, stream: str) -> list[Shard]:
        if stream == OUTPUT and not self._life.may_list:
            raise AccessDenied("ListShards: AccessDeniedException")
        return super().list_shards(stream)

    def find(self, stream: str, records: Sequence[bytes], since: datetime) -> list[str | None]:
        found = find(self, stream, records, since)
        self._life.happened["search: found"] += sum(shard_id is not None for shard_id in found)
        self._life.happened["search: missing"] += found.count(None)
        return found

    def get_page(self, stream: str, iterator: str) -> Page:
        return decode_page(msgspec.json.encode(self._call("GetRecords", ShardIterator=iterator)))

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        life = self._life
        life.pause(self.process, "before request")
        request = Request(json.loads(request_body(stream, records))["Records"])
        fault = life.fault(len(records))
        if fault == "throttled":
            raise Throttled("PutRecords: LimitExceededException", retryable=True)
        if fault == "too large for a proxy":
            raise InvalidRequest("PutRecords: 413")
        self.process.requests.append(request)
        self._take_time()
        if fault == "late":
            life.late.append(request)
        results: Any = []
        if fault not in {"late", "reset before"}:
            results = self._applied(request)
            self._take_time()
        self.process.requests.remove(request)
        if fault in {"late", "reset before", "reset after"}:
            raise ServiceError("PutRecords: connection reset", retryable=True)
        body = json.dumps({"FailedRecordCount": 0, "Records": results}).encode()
        return decode_results(body[: len(body) // 2] if fault == "cut off" else body, len(records))

    def _take_time(self) -> None:
        most = _SLOW if self._life.is_slow else 0.05
        self._life.fibers.wait(None, self._life.random.uniform(0.001, most))

    def _applied(self, request: Request) -> list[dict[str, Any]]:
        try:
            return self._life.apply(request)
        except AwsError:
            return cast("list[dict[str, Any]]", self._call("PutRecords", StreamName=OUTPUT, Records=[]))


class ExportProcess(Process):
    """A process that may also export."""

    world: ExportLife
    kinesis: OutputKinesis

    def __init__(self, world: ExportLife, machine: Machine, pid: int) -> None:
        super().__init__(world, machine, pid)
        self.kinesis = OutputKinesis(world, self.clock)
        self.kinesis.process = self
        self.running_exports: Registry[StreamingExport] = Registry()
        self.exports: list[StreamingExport] = []  # in the order of the calls that made them
        self.locks: list[Any] = []  # open files that hold one
        self.requests: list[Request] = []  # under way
        self.line: Any = None  # options and range of its newest line

    def kill(self) -> None:
        """End it by force: the system lets go of its locks, and what is on the wire may get there."""
        for file in self.locks:
            file.close()
        for request in self.requests:
            self.world.count("killed with a request under way")
            if not request.is_applied and self.world.random.random() < 0.5:
                self.world.late.append(request)
        if any(export.is_running for export in self.exports):
            self.world.has_doubt = True
        super().kill()  # which does not return to a fiber of this process


class JournalOnDisk:
    """The open file of a journal: the disk may be full, and the process may end at each step."""

    def __init__(self, life: ExportLife, file: Any) -> None:
        self._life, self._file = life, file
        self.close, self.fileno, self.seek, self.truncate = file.close, file.fileno, file.seek, file.truncate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, body: bytes) -> int:
        life = self._life
        life.pause(life.running, "before line")
        if life.is_disk_full:
            life.has_doubt = True  # what became of requests under way is not written down
            life.count("journal: disk full")
            if life.random.random() < 0.5 or not (room := life.random.randrange(len(body))):
                raise OSError(errno.ENOSPC, "No space left on device")
            body = body[:room]
        written = int(self._file.write(body))
        life.pause(life.running, "after line")
        return written


class ExportLife(Life):
    """One seed."""

    threaded = (*Life.threaded, exporter, journal, lane, report, streaming)

    def __init__(self, seed: int, root: Path) -> None:
        super().__init__(seed, root)
        self.call("CreateStream", StreamName=OUTPUT, ShardCount=self.random.randint(1, 3))
        self.manual.advance(5.0)
        self.trace = deque(self.trace, maxlen=300)
        self.arn: str = self._describe()["StreamARN"]
        self.copied: list[Record] = []  # what the output stream holds, in the order in which it was written
        self.made: list[StreamingExport] = []
        self.late: list[Request] = []  # whose sender does not wait for them any more
        self.faults = 0.0  # share of the requests that go wrong
        self.is_slow = False
        self.may_describe = self.random.random() < 0.85
        self.may_list = self.random.random() < 0.8
        self.has_doubt = False  # whether anything happened after which a row may be there twice

    def begin_process(self, machine: Machine | None = None) -> ExportProcess:
        """Start a process."""
        self._pids += 1
        machine = machine or self.random.choice(self.machines)
        process = ExportProcess(self, machine, self._pids)
        machine.processes[process.pid] = process
        return process

    @property
    def running(self) -> ExportProcess:
        """The process whose turn it is."""
        return cast("ExportProcess", super().running)

    @property
    def exporting(self) -> list[ExportProcess]:
        """Those that live."""
        return cast("list[ExportProcess]", self.processes)

    @property
    def exports(self) -> list[StreamingExport]:
        """All exports of processes that live, in the order in which they were made."""
        return [export for export in self.made if any(export in process.exports for process in self.exporting)]

    def put(self) -> None:
        """Write some records: enough for requests of several."""
        for _ in range(self.random.randint(1, 4)):
            super().put()

    # --- the output stream

    def _describe(self) -> dict[str, Any]:
        return self.call("DescribeStreamSummary", StreamName=OUTPUT)["StreamDescriptionSummary"]

    def fault(self, records: int) -> str:
        """Return what goes wrong with a request."""
        if not self.chance(self.faults):
            return ""
        fault = self.random.choice(_FAULTS)
        if fault == "too large for a proxy" and records == 1:
            return ""
        self.has_doubt |= fault in _LOSES_RESPONSES
        self.happened[f"request: {fault}"] += 1
        return fault

    def apply(self, request: Request) -> list[dict[str, Any]]:
        """Write the records of a request in any order, some of them not at all."""
        request.is_applied = True
        responses: dict[int, dict[str, Any]] = {}
        for place in self.random.sample(range(len(request.records)), len(request.records)):
            record = request.records[place]
            if self.chance(self.faults / 3):
                code = self.random.choice(_REFUSED)
                self.happened[f"record: {code}"] += 1
                responses[place] = {"ErrorCode": code, "ErrorMessage": "made up"}
                continue
            key, data = record["PartitionKey"], base64.b64decode(record["Data"])
            self.happened["aggregates"] += data.startswith(MAGIC)
            one = {"Data": data, "PartitionKey": key}
            responses[place] = self.call("PutRecords", StreamName=OUTPUT, Records=[one])["Records"][0]
            users = [user.data for user in unpack(data) or ()] or [data]
            self.copied += [(key, int(user)) for user in users]
        self.note("written " + " ".join(f"{r['PartitionKey'][4:]}" for r in request.records))
        return [responses[place] for place in range(len(request.records))]

    def land_request(self) -> None:
        """Let a request arrive that nobody waits for."""
        self.count("request lands late")
        with suppress(AwsError):
            self.apply(self.late.pop(self.random.randrange(len(self.late))))

    def reshard_output(self) -> None:
        """Change the number of its shards."""
        now = self._describe()["OpenShardCount"]
        count = self.random.choice([n for n in range(-(-now // 2), min(2 * now, 4) + 1) if n != now] or [now + 1])
        self.call("UpdateShardCount", StreamName=OUTPUT, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        self.manual.advance(0.001)

    # --- the package on this world

    def fsync(self, descriptor: int) -> None:
        """Make an open file durable; the process may end before and after that."""
        if self.fibers.current is not None:
            self.pause(self.running, "before fsync")
        super().fsync(descriptor)
        if self.fibers.current is not None:
            self.pause(self.running, "after fsync")

    @contextmanager
    def installed(self) -> Generator[None]:
        """Let the package run on the fibers, the clocks and the disk of this world."""
        with super().installed(), ExitStack() as stack:

            def replace(*what: Any) -> None:
                stack.enter_context(patch.object(*what))

            replace(start, "_exports", _Exports(self))
            replace(journal, "_boot", lambda: self.running.machine.host)
            replace(streaming, "POLL_SECONDS", 1.0)
            replace(follow, "BAND_ROWS", self.random.choice([7, 30, 1_000]))
            replace(journal_file, "REWRITE_BYTES", self.random.choice([500, 3_000, 100_000]))
            _around_journals(replace, self)
            _around_looks(replace, self)
            _remembered(replace)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # of damage, and of loops
            yield


class _Exports:
    """Stands where the package keeps what runs in its process."""

    def __init__(self, life: ExportLife) -> None:
        self._life = life

    def start(self, *what: Any) -> Any:
        """Start one in the process that runs."""
        return self._life.running.running_exports.start(*what)


def _around_journals(replace: Callable[..., Any], life: ExportLife) -> None:
    locked, written = journal_file._locked, journal_file._write_new

    def played_locked(path: Path) -> Any:
        file = locked(path)
        life.running.locks.append(file)
        return file

    def played_new(path: Path, body: bytes) -> Any:
        life.pause(life.running, f"before {path.name} is written anew")
        if life.is_disk_full:
            life.has_doubt = True
            life.count("journal: disk full")
            path.with_name(f"{path.name}.new").write_bytes(body[: life.random.randrange(len(body))])
            raise OSError(errno.ENOSPC, "No space left on device")
        return JournalOnDisk(life, written(path, body))

    replace(journal_file, "_locked", played_locked)
    replace(journal_file, "_write_new", played_new)


def _around_looks(replace: Callable[..., Any], life: ExportLife) -> None:
    newest, scan, bands = TableFollower._newest, TableFollower._scan, follow._in_bands

    def played_newest(self: TableFollower) -> Any:
        life.at(life.running, "before look", writes=False)
        found = newest(self)
        life.at(life.running, "after look", writes=False)
        return found

    def played_scan(self: TableFollower, files: list[str]) -> Any:
        life.at(life.running, "before scan", writes=False)
        return scan(self, files)

    def played_bands(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        for number, band in enumerate(bands(rows)):
            life.at(life.running, f"before band {min(number, 2)}", writes=False)
            yield band

    class PlayedTxns(Txns):
        def at(self, version: int) -> Any:
            life.at(life.running, "before txns", writes=False)
            return super().at(version)

    replace(TableFollower, "_newest", played_newest)
    replace(TableFollower, "_scan", played_scan)
    replace(follow, "_in_bands", played_bands)
    replace(follow, "Txns", PlayedTxns)


def _remembered(replace: Callable[..., Any]) -> None:
    """Let each process know the exports that were made in it, also those that no cell got."""
    make = StreamingExport.__init__

    def made(self: StreamingExport, outlet: Outlet, *what: Any) -> None:
        make(self, outlet, *what)
        process = cast("OutputKinesis", outlet.kinesis).process
        process.exports.append(self)
        process.world.made.append(self)

    replace(StreamingExport, "__init__", made)


__all__ = ["OUTPUT", "ExportLife", "ExportProcess", "Request"]
