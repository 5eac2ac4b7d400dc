"""Exporting, against a boto3 loop and the producers of other libraries: `python benchmarks/export.py`.

Every contender writes the same rows of about 200 bytes as JSON to a server of canned answers (`replay.py`) that is a
process of its own, so that what is measured is the client. Rounds are interleaved; the figure is rows per CPU-second of
the client's process, the median of the rounds. The other libraries get an environment of their own, made when first
needed in the folder `.peers`; without a package index those contenders are left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from replay import running

ROOT = Path(__file__).resolve().parent.parent
PEERS = {"async-kinesis": "async-kinesis==3.0.1", "quixstreams": "quixstreams[kinesis]==3.28.1"}

_ROWS = """
import json, sys, time
url, count, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def rows():
    row = {"name": "John Doe", "pad": "x" * 120}
    return [{"key": f"key-{n % keys}", "id": n, "value": n / 7, **row} for n in range(count)]
def report(wall, cpu):
    print(json.dumps({"wall": count / (time.perf_counter() - wall), "cpu": count / (time.process_time() - cpu)}))
"""
_OURS = """
import polars as pl, kinesis_nb as kn
frame = pl.DataFrame(rows())
source = kn.connect(endpoint_url=url, auth=kn.StaticCredentials("a", "b"), exports_enabled=True)
arn = "arn:aws:kinesis:us-east-1:123456789012:stream/replay"
source.export_df(frame.head(10), arn, progress=False)
wall, cpu = time.perf_counter(), time.process_time()
done = source.export_df(frame, arn, progress=False, OPTIONS)
report(wall, cpu)
assert done.rows == count, done
"""
_BOTO3 = """
import boto3, polars as pl
frame = pl.DataFrame(rows())
client = boto3.client("kinesis", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")
client.list_streams()
wall, cpu = time.perf_counter(), time.process_time()
for first in range(0, count, 500):
    records = [
        {"Data": json.dumps(row).encode(), "PartitionKey": row["key"]}
        for row in frame[first : first + 500].iter_rows(named=True)
    ]
    client.put_records(StreamName="replay", Records=records)
report(wall, cpu)
"""
_ASYNC_KINESIS = """
import asyncio, os
os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_DEFAULT_REGION="us-east-1")
from kinesis import Producer
async def main():
    data = rows()
    async with Producer("replay", endpoint_url=url, region_name="us-east-1", put_rate_limit_per_shard=10**9,
                        put_bandwidth_limit_per_shard=10**9) as producer:
        wall, cpu = time.perf_counter(), time.process_time()
        for row in data:
            await producer.put(row, partition_key=row["key"])
        await producer.flush()
        report(wall, cpu)
asyncio.run(main())
"""
_QUIXSTREAMS = """
from quixstreams.sinks.community.kinesis import KinesisSink
sink = KinesisSink("replay", "a", "b", "us-east-1", url)
sink.setup()
data = rows()
wall, cpu = time.perf_counter(), time.process_time()
for number, row in enumerate(data):
    sink.add(row, row["key"].encode(), 0, [], "topic", 0, number)
sink.flush()
report(wall, cpu)
"""


def contenders() -> dict[str, tuple[str, str]]:
    """Return, by name, the interpreter and the program."""
    ours = sys.executable
    found = {
        "kinesis_nb": (ours, _OURS.replace(", OPTIONS", "")),
        'kinesis_nb, order="none"': (ours, _OURS.replace("OPTIONS", 'order="none"')),
        "kinesis_nb, aggregate=True": (ours, _OURS.replace("OPTIONS", "aggregate=True")),
        "boto3 loop": (ours, _BOTO3),
    }
    for name, program in (("async-kinesis", _ASYNC_KINESIS), ("quixstreams", _QUIXSTREAMS)):
        python = _peer(name)
        if python is not None:
            found[name] = (python, program)
    return found


def _peer(name: str) -> str | None:
    """Return the interpreter of an environment that holds a library."""
    folder = ROOT / ".peers" / name
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEERS[name]], check=True, capture_output=True)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{name} is left out: {error}")
        return None
    return str(python)


def measure(python: str, program: str, url: str, rows: int, keys: int) -> dict[str, float]:
    """Run a contender once; return its rates."""
    command = [python, "-c", _ROWS + program, url, str(rows), str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> int:
    """Measure, print a table, and return 0 when the target of three times the boto3 loop is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=10_000, help="distinct partition keys")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    chosen = contenders()
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    with running(options.shards, 0) as url:
        for _ in range(options.rounds):
            for name, (python, program) in chosen.items():
                rates[name].append(measure(python, program, url, options.rows, options.keys))
    cpu = {name: statistics.median(rate["cpu"] for rate in found) for name, found in rates.items()}
    wall = {name: statistics.median(rate["wall"] for rate in found) for name, found in rates.items()}
    print(f"{options.rows:,} rows of about 200 bytes, {options.keys:,} keys, {options.shards} shards")
    print(f"{'':28} {'rows/CPU-s':>12} {'rows/s':>12} {'x boto3':>8}")
    for name in chosen:
        print(f"{name:28} {cpu[name]:12,.0f} {wall[name]:12,.0f} {cpu[name] / cpu['boto3 loop']:8.1f}")
    passed = cpu["kinesis_nb"] >= 3 * cpu["boto3 loop"]
    print("PASS" if passed else "FAIL", "three times the boto3 loop per CPU-second")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
