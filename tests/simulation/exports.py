"""Exports against the emulator's model, in virtual time and in one thread, from one seed.

A run exports rows over some keys while chance refuses records, throttles, loses responses before and after the request
was applied, cuts and replaces them, reshards the output stream, writes the records of a request in any order (the
service promises none), and interrupts the export, which is then resumed.

What is real: everything from the frame to the body of the request, the lanes and their pacing, the reading of the
response, the report. What is played: the network, threads, and time.

The promise that is checked: every row is written; the rows of a key are written in their order; a row that is there
twice comes in place (but for aggregates that could not be searched for), and there are at most as many of those as the
report calls possible.

Run many seeds with ``python -m tests.simulation.exports --seeds 1000``.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from kinesis_nb.emulator import AwsError, ManualClock, Model, Quotas
from kinesis_nb.errors import InvalidRequest, KinesisError, ServiceError, Throttled
from kinesis_nb.exporting.entries import Preparer, waves
from kinesis_nb.exporting.exporter import Exporter
from kinesis_nb.exporting.options import Delivery, RecordOptions
from kinesis_nb.exporting.report import DoneRows, ExportReport, Tally, sum_of
from kinesis_nb.exporting.tables import read_rows
from kinesis_nb.exporting.target import Outlet, describe_target
from kinesis_nb.wire.aggregation import MAGIC, unpack
from kinesis_nb.wire.batches import decode_page
from kinesis_nb.wire.finding import Page, find
from kinesis_nb.wire.putting import decode_results, request_body
from tests.support.virtual import VirtualClock, VirtualKinesis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kinesis_nb.core.transport import PutResult, StreamExtras

STREAM = "copy"
RECORD_FAILURES = 0.05  # of all records
REQUEST_FAULTS = 0.15  # of all requests
MOST_STEPS = 20_000  # of all lanes together; an export that does not end is one that lost something
MUST_HAPPEN = (
    "record: ProvisionedThroughputExceededException",
    "record: InternalFailure",
    "record: KMSThrottlingException",
    "request: throttled",
    "request: reset before",
    "request: reset after",
    "request: cut response",
    "request: empty response",
    "request: short response",
    "request: html",
    "request: too large for a proxy",
    "quota",
    "reshard: split",
    "reshard: merge",
    "interrupted",
    "aggregates",
    "search: found",
    "search: missing",
    "search: throttled",
    "no permission to list",
    "rows in several batches",
)


class Violation(Exception):
    """The export broke a promise."""


class PlayedKinesis(VirtualKinesis):
    """Writes to the model, with what chance makes of it; notes what was really written, in its order."""

    def __init__(self, model: Model, clock: VirtualClock, rng: random.Random, happened: Counter[str]) -> None:
        super().__init__(model, clock)
        self.random, self.happened = rng, happened
        self.written: list[tuple[str, int]] = []  # key and number, by the order in the stream
        self.may_list = rng.random() < 0.7
        self.is_calm = self._was_throttled = False

    def list_shards(self, stream: str) -> Any:
        if not self.may_list:
            self.happened["no permission to list"] += 1
            raise ServiceError("ListShards: AccessDeniedException")
        return super().list_shards(stream)

    def describe_extras(self, stream: str) -> StreamExtras:
        raise ServiceError("DescribeStreamSummary: AccessDeniedException")

    def find(self, stream: str, records: Sequence[bytes], since: datetime) -> list[str | None]:
        self._was_throttled = not self._was_throttled and self.random.random() < REQUEST_FAULTS
        if self._was_throttled and not self.is_calm:
            self.happened["search: throttled"] += 1
            raise Throttled("GetRecords: too many", retryable=True)
        found = find(self, stream, records, since)
        self.happened["search: found"] += sum(shard_id is not None for shard_id in found)
        self.happened["search: missing"] += found.count(None)
        return found

    def get_page(self, stream: str, iterator: str) -> Page:
        return decode_page(msgspec.json.encode(self.model.call("GetRecords", {"ShardIterator": iterator})))

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        self.clock.manual.advance(self.random.uniform(0.001, 0.02))
        fault = "" if self.is_calm or self.random.random() > REQUEST_FAULTS else self.random.choice(_FAULTS)
        if fault == "too large for a proxy" and len(records) == 1:
            fault = ""
        if fault:
            self.happened[f"request: {fault}"] += 1
        if fault in _BEFORE:
            raise _BEFORE[fault]
        response = self._apply(json.loads(request_body(stream, records))["Records"])
        if fault == "reset after":
            raise ServiceError("PutRecords: connection reset", retryable=True)
        return decode_results(self._damaged(response, fault), len(records))

    def _apply(self, records: list[dict[str, str]]) -> list[dict[str, Any]]:
        """Write records in any order, some of them not at all."""
        responses: dict[int, dict[str, Any]] = {}
        for place in self.random.sample(range(len(records)), len(records)):
            record = records[place]
            data = base64.b64decode(record["Data"])
            self.happened["aggregates"] += data.startswith(MAGIC)
            if not self.is_calm and self.random.random() < RECORD_FAILURES:
                code = self.random.choice(_CODES)
                self.happened[f"record: {code}"] += 1
                responses[place] = {"ErrorCode": code, "ErrorMessage": "made up"}
                continue
            one = {"Data": data, "PartitionKey": record["PartitionKey"]}
            response = self.model.call("PutRecords", {"StreamName": STREAM, "Records": [one]})["Records"][0]
            responses[place] = response
            if "ErrorCode" in response:
                self.happened["quota"] += 1
                continue
            users = [user.data for user in unpack(data) or ()] or [data]
            self.written += [(record["PartitionKey"], json.loads(user)["n"]) for user in users]
        return [responses[place] for place in range(len(records))]

    def _damaged(self, response: list[dict[str, Any]], fault: str) -> bytes:
        body = json.dumps({"FailedRecordCount": 0, "Records": response}).encode()
        match fault:
            case "cut response":
                return body[: self.random.randrange(len(body))]
            case "empty response":
                return b"{}"
            case "short response":
                return json.dumps({"Records": response[:-1]}).encode()
            case "html":
                return b"<html><body>It works!</body></html>"
            case _:
                return body


_BEFORE: dict[str, KinesisError] = {
    "throttled": Throttled("PutRecords: LimitExceededException", retryable=True),
    "reset before": ServiceError("PutRecords: connection reset", retryable=True),
    "too large for a proxy": InvalidRequest("PutRecords: 413"),
}
_FAULTS = [*_BEFORE, "reset after", "cut response", "empty response", "short response", "html"]
_CODES = ["ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException"]


class Run:
    """One export from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.happened: Counter[str] = Counter()
        manual = ManualClock()
        self.clock = VirtualClock(manual, seed)
        quotas = Quotas(write_records_per_second=200) if self.random.random() < 0.3 else None
        self.model = Model(clock=manual, seed=seed, quotas=quotas)
        self.model.call("CreateStream", {"StreamName": STREAM, "ShardCount": self.random.randint(1, 4)})
        self.kinesis = PlayedKinesis(self.model, self.clock, self.random, self.happened)
        self.reports: list[ExportReport] = []
        self.rows = self._rows(self.random.randint(1, 600), self.random.choice([1, 3, 20, 300]))
        self.options = RecordOptions(aggregate=self.random.random() < 0.25)
        self.batch = self.random.choice([50, 1000])

    def _rows(self, count: int, keys: int) -> pl.DataFrame:
        last: Counter[str] = Counter()
        rows: list[tuple[str, int]] = []
        for _ in range(count):
            key = f'key-{self.random.randrange(keys)}"é'
            rows.append((key, last[key]))
            last[key] += 1
        return pl.DataFrame(rows, {"key": pl.String, "n": pl.Int64}, orient="row")

    def run(self) -> Counter[str]:
        settled = DoneRows()
        while settled.first < self.rows.height:
            report = self._export(settled)
            self.reports.append(report)
            settled = report.settled
            self.happened["export"] += 1
            if not report.note and settled.first < self.rows.height:  # a resumed one would leave it out again
                raise Violation(f"an export that nobody interrupted left out row {settled.first}")
        self._check()
        return self.happened

    def _export(self, settled: DoneRows) -> ExportReport:
        """Export what is not done, until the end or an interrupt."""
        tally = Tally(STREAM, settled.copy())
        schema = read_rows(self.rows).schema
        preparer = Preparer(schema, self.options, tally.gave_up)
        outlet = Outlet(self.kinesis, self.clock, STREAM, "")
        exporter = Exporter(outlet, describe_target(outlet), tally, Delivery())
        batches = list(self.rows.iter_slices(self.batch))
        self.happened["rows in several batches"] += len(batches) > 1
        first_row, steps, idle, note = 0, 0, 0, ""
        in_waves = self.random.random() < 0.5
        interrupt = self.random.randint(2, 60) if self.random.random() < 0.3 else MOST_STEPS
        while batches or not all(lane.is_idle for lane in exporter.lanes):
            steps += 1
            if steps >= interrupt:
                self.happened["interrupted"] += interrupt < MOST_STEPS
                if interrupt == MOST_STEPS:
                    raise Violation("the export does not end")
                note = "interrupted"
                break
            if batches and (idle > 3 * len(exporter.lanes) or self.random.random() < 0.2):
                batch = batches.pop(0)
                tally.mark(first_row, preparer.marks(batch, first_row))
                records = preparer.records(batch, first_row, settled)
                if in_waves:
                    records = waves(records)
                first_row += batch.height
                exporter.queue(preparer.entries(records))
            wait = self.random.choice(exporter.lanes).step()
            idle = 0 if wait == 0.0 else idle + 1
            if wait:
                self.clock.sleep(max(wait / len(exporter.lanes), 0.01))  # the other lanes wait at the same time
            if self.random.random() < 0.01:
                self._reshard()
        report = tally.report(0.0, note)
        marks = preparer.marks(self.rows, 0)
        beginning = sum_of(marks[: report.settled.first])
        if list(report.settled.differ(0, marks)) or not report.settled.is_beginning(beginning):
            raise Violation("the report would refuse its own rows")
        return report

    def _reshard(self) -> None:
        shards = self.model.call("ListShards", {"StreamName": STREAM, "ShardFilter": {"Type": "AT_LATEST"}})["Shards"]
        shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        try:
            if len(shards) > 1 and self.random.random() < 0.5:
                place = self.random.randrange(len(shards) - 1)
                names = ("ShardToMerge", "AdjacentShardToMerge")
                pair = {name: shards[place + i]["ShardId"] for i, name in enumerate(names)}
                self.model.call("MergeShards", {"StreamName": STREAM, **pair})
                self.happened["reshard: merge"] += 1
            elif len(shards) < 6:
                shard = self.random.choice(shards)
                low, high = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
                where = {"ShardToSplit": shard["ShardId"], "NewStartingHashKey": str((low + high) // 2)}
                self.model.call("SplitShard", {"StreamName": STREAM, **where})
                self.happened["reshard: split"] += 1
        except AwsError:
            self.happened["reshard: refused"] += 1

    def _check(self) -> None:
        found: dict[str, list[int]] = {}
        for key, number in self.kinesis.written:
            found.setdefault(key, []).append(number)
        # an aggregate comes again whole, unless it could be searched for before it was sent again
        could_look = self.kinesis.may_list and not self.happened["interrupted"]
        may_come_again = self.options.aggregate and not could_look
        for (key,), part in self.rows.group_by("key"):
            numbers = found.get(key, [])
            if sorted(set(numbers)) != part["n"].to_list():
                raise Violation(f"{key}: lost {sorted(set(part['n']) - set(numbers))}")
            if not may_come_again and numbers != sorted(numbers):
                raise Violation(f"{key} is out of order: {numbers}")
            if [n for place, n in enumerate(numbers) if n not in numbers[:place]] != sorted(set(numbers)):
                raise Violation(f"{key} came out of order: {numbers}")
        doubled = len(self.kinesis.written) - self.rows.height
        possible = sum(report.possible_duplicates for report in self.reports)
        if doubled > possible:
            raise Violation(f"{doubled} rows are doubled, the report says at most {possible}")
        if sum(report.rows for report in self.reports) != self.rows.height:
            raise Violation(f"the reports count {[report.rows for report in self.reports]} of {self.rows.height} rows")
        if (in_shards := sum(report.shards["rows"].sum() for report in self.reports)) != self.rows.height:
            raise Violation(f"the reports count {in_shards} rows in the shards")
        self.happened["rows"] += self.rows.height
        self.happened["duplicates"] += doubled
        self.happened["possible duplicates"] += possible


def simulate(seed: int) -> tuple[Counter[str], str]:
    """Run one seed; return what happened, and which promise was broken (empty: none)."""
    run = Run(seed)
    try:
        return run.run(), ""
    except Violation as error:
        return run.happened, f"seed {seed}: {error}"


def main() -> int:
    """Run seeds; return 1 when one fails, or when something that must happen never did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.exports")
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stop-after", type=int, default=5, help="failures")
    options = parser.parse_args()
    happened: Counter[str] = Counter()
    failures: list[str] = []
    started = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        counts, failure = simulate(seed)
        happened += counts
        if failure:
            failures.append(failure)
            print(failure)
            if len(failures) >= options.stop_after:
                break
    print(*(f"{count:10,}  {name}" for name, count in sorted(happened.items())), sep="\n")
    missing = [name for name in MUST_HAPPEN if not happened[name]]
    seconds = time.monotonic() - started
    print(f"{options.seeds:,} seeds in {seconds:.0f} s: {len(failures)} failed; never: {missing or '-'}")
    return 1 if failures or (missing and options.seeds >= 100) else 0


if __name__ == "__main__":
    sys.exit(main())
