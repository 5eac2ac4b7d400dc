"""How long an export takes to fill 8 shards under AWS's write quotas: `python benchmarks/filling.py`.

The emulator enforces the quotas in a process of its own; `source.export_df()` fills it. Of small records a shard takes
1,000 a second, of large ones 1 MiB. A shard saves up a second's worth of what it does not take, and is fresh at the
beginning, so the least time is that of the fullest shard less one second. Prints Markdown, and fails when an export
takes more than 5 % longer than it must.
"""

from __future__ import annotations

import argparse
import sys
import time

import emulated
import polars as pl

from kinesis_nb.emulator.quotas import Quotas

STREAM, WARM = "filled", "warm"
SECONDS = 20  # of quota that each shard is given, about
KEYS = 50_000
SIZES = (200, 2_048)  # bytes of data per record
ALLOWED = 1.05  # of the least time


def main() -> int:
    """Measure, print, and return 0 when every export was as fast as required."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="exports of each size; the quickest counts (default: 1)")
    options = parser.parse_args()
    print("| bytes per record | records | measured, s | least, s | ratio | refused records | requests | CPU, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    passed = True
    for size in SIZES:
        row, ratio = min((_fill(options.shards, size) for _ in range(options.rounds)), key=lambda result: result[1])
        print(f"| {' | '.join(row)} |")
        passed &= ratio <= ALLOWED
    print(f"{'PASS' if passed else 'FAIL'}: at most {ALLOWED:.2f} x the least time")
    return 0 if passed else 1


def _fill(shards: int, size: int) -> tuple[tuple[str, ...], float]:
    """Return a row of the table, and the ratio."""
    df = _frame(shards, size)
    with emulated.running({STREAM: shards, WARM: 1}, emulated.AWS_QUOTAS) as port:
        source = emulated.connect(port, exports_enabled=True)
        arns = [source.explore(stream).summary.arn for stream in (WARM, STREAM)]
        source.export_df(df.head(100), arns[0], progress=False)
        wall, cpu = time.perf_counter(), time.process_time()
        report = source.export_df(df, arns[1], progress=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert report.rows == df.height
    assert report.possible_duplicates == 0
    least = least_seconds(report.shards)
    row = (
        f"{size:,}",
        f"{report.rows:,}",
        f"{wall:.2f}",
        f"{least:.2f}",
        f"{wall / least:.3f}",
        f"{report.throttles:,}",
        f"{report.requests:,}",
        f"{cpu:.2f}",
    )
    return row, wall / least


def _frame(shards: int, size: int) -> pl.DataFrame:
    quotas = Quotas()
    assert quotas.write_records_per_second
    assert quotas.write_bytes_per_second
    per_second = min(quotas.write_records_per_second, quotas.write_bytes_per_second / size)
    row = pl.int_range(int(SECONDS * shards * per_second), eager=True)
    keys = (row % KEYS).cast(pl.String).str.zfill(8).alias("partition_key")
    return pl.DataFrame([keys, pl.Series("data", ["x" * size]).new_from_index(0, len(row))])


def least_seconds(shards: pl.DataFrame) -> float:
    """Return the least time in which these rows and bytes per shard can be written by anybody."""
    quotas = Quotas()
    needed = max(
        shards["rows"].max() / quotas.write_records_per_second,  # type: ignore[operator]
        shards["bytes"].max() / quotas.write_bytes_per_second,  # type: ignore[operator]
    )
    return needed - 1.0  # what a fresh shard has saved up


if __name__ == "__main__":
    sys.exit(main())
