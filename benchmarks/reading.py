"""How fast records get from Kinesis into a DataFrame: `python benchmarks/reading.py`.

Everybody reads the same canned answers of 10,000 records of 200 bytes (`replay.py`) in one interleaved run
(A B C, B C A …), each time in a fresh process, peers from virtual environments of their own. What counts is from the
beginning of the read to the DataFrame, or to the last record a peer hands over (no DataFrame is made of its records);
imports and a first small read are over by then. CPU seconds are those of the client; some peers sleep between polls,
so they are the fair figure; only whether many shards are slower than one is told by the clock.
Prints medians as Markdown, and fails when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import peers
import replay

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENDERS = Path(__file__).parent / "contenders"
PAGE = 10_000  # records
MANY = 16  # shards
RUN_SECONDS = 300  # at most, for one run of one contender

OURS, OURS_PANDAS, BOTO3, CEILING = (
    "kinesis_nb → polars",
    "kinesis_nb → pandas",
    "boto3 loop → pandas",
    "ceiling → Arrow",
)
SCRIPTS = {  # contender: (script, the peer whose environment runs it)
    BOTO3: ("boto3_loop", None),
    "async-kinesis": ("async_kinesis", "async-kinesis"),
    "kinesis-python": ("kinesis_python", "kinesis-python"),
    "quixstreams": ("quix_streams", "quixstreams"),
    OURS: ("ours", None),
    OURS_PANDAS: ("ours_pandas", None),
    CEILING: ("ceiling", None),
}


class Run(NamedTuple):
    """One process; the median of several has the same shape."""

    wall: float  # records per second
    cpu: float  # records per CPU second
    peak: float  # bytes


Runs = dict[tuple[str, int], list[Run]]  # by contender and number of shards


def main() -> int:
    """Measure, print, and return 0 when every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--records", type=int, default=2 * MANY * PAGE, help="per run (default: 320000)")
    parser.add_argument("--only", nargs="*", default=list(SCRIPTS), help="some contenders, by name or script")
    options = parser.parse_args()
    if options.records % (MANY * PAGE):
        parser.error(f"--records must be a multiple of {MANY * PAGE:,}")
    chosen = [name for name, (script, _) in SCRIPTS.items() if {name, script} & set(options.only)]
    pythons = {name: _python(SCRIPTS[name][1]) for name in chosen}
    runs = _measure([name for name in chosen if pythons[name]], pythons, options.rounds, options.records)
    medians = {key: Run(*map(statistics.median, zip(*values, strict=True))) for key, values in runs.items()}
    print(_table(medians))
    return 0 if _verdict(medians) else 1


def _python(peer: str | None) -> str | None:
    return peers.python_of(peer) if peer else sys.executable


def _measure(names: list[str], pythons: dict[str, str | None], rounds: int, records: int) -> Runs:
    runs: Runs = {}
    with ExitStack() as servers:
        endpoints = {
            shards: servers.enter_context(replay.running(shards, records // PAGE // shards)) for shards in (1, MANY)
        }
        for number in range(rounds):
            for shards, endpoint in endpoints.items():
                turn = number % len(names)  # nobody always runs behind the one that leaves the machine in disorder
                for name in names[turn:] + names[:turn]:
                    run = _run(str(pythons[name]), name, endpoint, records)
                    print(f"round {number + 1}, {shards:2} shards, {name:20} {_shown(run)}", file=sys.stderr)
                    if run is not None:
                        runs.setdefault((name, shards), []).append(run)
    return runs


def _run(python: str, name: str, endpoint: str, records: int) -> Run | None:
    script = str(CONTENDERS / f"{SCRIPTS[name][0]}.py")
    streams = (replay.WARM, str(replay.WARM_RECORDS), replay.STREAM, str(records))
    command = [python, script, endpoint, *streams]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=RUN_SECONDS)
            said = json.loads(printed.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            is_late = isinstance(error, subprocess.TimeoutExpired)
            print(f"{name} failed: {error if is_late else complaints.strip()[-500:]}", file=sys.stderr)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it may have left
    return Run(said["records"] / said["wall"], said["records"] / said["cpu"], said["peak"])


def _shown(run: Run | None) -> str:
    return f"{run.cpu:11,.0f} per CPU second {run.wall:11,.0f} per second {run.peak / 2**20:6,.0f} MiB" if run else "-"


def _table(medians: dict[tuple[str, int], Run]) -> str:
    """Return one row per contender; the factor is that of the records per CPU second against boto3's loop."""
    columns = ("records per CPU second", "per second", "peak memory")
    heads = [f"{head}, {shards} shard{'s' if shards > 1 else ''}" for shards in (1, MANY) for head in columns]
    lines = [_row(["", *heads, "against boto3"]), _row(["---"] * (len(heads) + 2))]
    for name in dict.fromkeys(name for name, _ in medians):
        cells = [cell for shards in (1, MANY) for cell in _cells(medians.get((name, shards)))]
        own, other = medians.get((name, 1)), medians.get((BOTO3, 1))
        lines.append(_row([name, *cells, f"{own.cpu / other.cpu:.1f} x" if own and other else "—"]))
    return "\n".join(lines)


def _cells(run: Run | None) -> list[str]:
    if run is None:
        return ["—"] * 3
    return [f"{round(run.cpu, -3):,.0f}", f"{round(run.wall, -3):,.0f}", f"{run.peak / 2**20:,.0f} MiB"]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(medians: dict[tuple[str, int], Run]) -> bool:
    """Print each target that the contenders who ran can be held to; return whether all are met."""
    ours, many = medians.get((OURS, 1)), medians.get((OURS, MANY))
    others = [run.cpu for (name, shards), run in medians.items() if SCRIPTS[name][1] and shards == 1]
    alone, together = "per CPU second", "per second"  # slower is by the clock: many shards may keep several cores busy
    targets = [
        ("boto3's loop to pandas, to polars", alone, ours, medians.get((BOTO3, 1)), 10.0),
        ("boto3's loop to pandas, to pandas", alone, medians.get((OURS_PANDAS, 1)), medians.get((BOTO3, 1)), 10.0),
        ("the fastest peer", alone, ours, Run(0, max(others), 0) if others else None, 10.0),
        ("the ceiling", alone, ours, medians.get((CEILING, 1)), 0.8),
        (f"the ceiling, {MANY} shards", alone, many, medians.get((CEILING, MANY)), 0.8),
        (f"itself with one shard, {MANY} shards", together, many, ours, 1.0),
    ]
    passed = True
    for what, measure, own, other, required in targets:
        if own and other:
            ratio = own.cpu / other.cpu if measure == alone else own.wall / other.wall
            passed &= ratio >= required
            verdict = "PASS" if ratio >= required else "FAIL"
            print(f"{verdict}: {ratio:.2f} x {what}, records {measure} ({required:g} x required)")
    return passed


if __name__ == "__main__":
    sys.exit(main())
