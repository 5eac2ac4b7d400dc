"""How long 8 shards of 20 MiB take under AWS's read quotas: `python benchmarks/draining.py`.

The emulator enforces the quotas in a process of its own; `source.read()` drains it. The quota gives the bytes of a
shard in bytes / rate; this fails when a drain takes more than 5 % longer. Beside it stands the least time that the
emulator's token buckets allow at all (see `least_seconds`), were its answers served and decoded in no time. Two sizes
of records: with the small ones a full answer (10,000 records) has about as many bytes as a shard gives in a second;
with the large ones it is just short of the 10 MiB that close a shard for 5 s. Prints Markdown.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from itertools import repeat

import emulated

from kinesis_nb.emulator.quotas import Meter, Quotas
from kinesis_nb.emulator.reading import MAX_BYTES, MAX_RECORDS

STREAM, WARM = "drained", "warm"
PER_SHARD = 20 * 2**20  # bytes, about
SIZES = (210, 1_048)  # bytes per record, its key included
KEY = "key-0000"
BATCH = 500  # records per PutRecords request
ALLOWED = 1.05  # of bytes / rate


def main() -> int:
    """Measure, print, and return 0 when every drain was as fast as required."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="drains of each size; the quickest counts (default: 1)")
    options = parser.parse_args()
    print("| bytes per record | MiB per shard | measured, s | bytes / rate, s | ratio | least, s | client's CPU, s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    passed = True
    for size in SIZES:
        pages = round(PER_SHARD / (size * MAX_RECORDS))
        least = least_seconds(pages, size * MAX_RECORDS)
        seconds, cpu = min(_drain(options.shards, pages, size) for _ in range(options.rounds))
        mebibytes = pages * MAX_RECORDS * size / 2**20
        quota = mebibytes * 2**20 / (Quotas().read_bytes_per_second or 0.0)
        row = (f"{size:,}", *(f"{number:.2f}" for number in (mebibytes, seconds, quota, seconds / quota, least, cpu)))
        print(f"| {' | '.join(row)} |")
        passed &= seconds <= quota * ALLOWED
    print(f"{'PASS' if passed else 'FAIL'}: at most {ALLOWED:.2f} x bytes / rate")
    return 0 if passed else 1


def least_seconds(pages: int, page_bytes: int) -> float:
    """Return the least time in which any reader can drain a shard of full answers.

    A shard's bytes are a bucket of one second's worth that fills at that rate; an answer may overdraw it, and the next
    call passes when the debt is paid. When the last call is made, everything but its own answer has therefore been
    paid for, except what was in the bucket at first: (bytes - last answer - bucket) / rate.
    """
    quotas = Quotas()
    rate = quotas.read_bytes_per_second or 0.0
    assert page_bytes < MAX_BYTES  # 10 MiB would close the shard for 5 seconds
    least = max(0.0, ((pages - 1) * page_bytes - rate) / rate)
    eager = _eager_seconds(pages, page_bytes, Meter(quotas, 0))
    assert abs(eager - least) < 0.01, (eager, least)  # the bound can be reached
    return least


def _eager_seconds(pages: int, page_bytes: int, meter: Meter) -> float:
    """Return, in virtual time, when a reader is through that makes each call the millisecond it is allowed."""
    now = 0
    for _ in range(pages):
        while not meter.may_read(now):
            now += 1
        meter.has_read(page_bytes, full=False, now_ms=now)
    return now / 1_000


def _drain(shards: int, pages: int, size: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of one read."""
    with emulated.running({STREAM: shards, WARM: 1}, emulated.AWS_READ_QUOTAS) as port:
        client = emulated.RawClient(port)
        _put(client, WARM, 1, BATCH, size)
        _put(client, STREAM, shards, pages * MAX_RECORDS, size)
        source = emulated.connect(port)
        source.read(WARM, progress=False).to_polars()
        wall, cpu = time.perf_counter(), time.process_time()
        rows = len(source.read(STREAM, progress=False).to_polars())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert rows == shards * pages * MAX_RECORDS, rows
    return wall, cpu


def _put(client: emulated.RawClient, stream: str, shards: int, records: int, size: int) -> None:
    data = base64.b64encode(b"x" * (size - len(KEY))).decode()
    for shard in range(shards):
        entry = {"Data": data, "PartitionKey": KEY, "ExplicitHashKey": str(2**128 * shard // shards + 1)}
        body = json.dumps({"StreamName": stream, "Records": list(repeat(entry, BATCH))}).encode()
        for _ in range(records // BATCH):
            assert b'"FailedRecordCount":0' in client.post("PutRecords", body)


if __name__ == "__main__":
    sys.exit(main())
