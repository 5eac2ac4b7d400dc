"""The full run: every named point many times, zombies, failing storage, S3; prints what happened, fails on doubt."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.emulator import Emulator
from tests.crash import points
from tests.crash.campaign import Report, campaign
from tests.crash.faults import FailingServer
from tests.crash.writer import Orders
from tests.support.servers import bucket, moto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crash.campaign import Campaign

RESTART_SECONDS = 3.0
TAKEOVER_SECONDS = Orders._field_defaults["lease_seconds"] + 2.0
ROUNDS_PER_TABLE = 4  # so that no stream has hundreds of shards
POINTS_IN_S3 = [
    f"{when} {step}"
    for step in ("Parquet write", "commit", "takeover commit", "checkpoint read", "lease", "reshard: commit of the end")
    for when in ("before", "after")
]


def on_folder(seed: int, act: Callable[[Campaign], None]) -> Report:
    """Run one campaign against a local folder."""
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        place = Path(folder)
        with campaign(emulator, str(place / "table"), {}, place, seed=seed) as going:
            act(going)
            return going.finish()


def on_s3(seed: int, act: Callable[[Campaign], None], rate: float) -> Report:
    """Run one campaign against moto's S3 behind a server that answers 5xx to a share of the requests."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        emulator = stack.enter_context(Emulator())
        front = stack.enter_context(FailingServer(stack.enter_context(moto()), seed).running())
        place, options = bucket(front.url)
        going = stack.enter_context(campaign(emulator, f"{place}/table", options, folder, seed=seed, may_fail=rate > 0))
        front.rate = rate
        act(going)
        front.rate = 0.0
        report = going.finish()
        report.events.update({f"fault: S3 5xx {kind}": count for kind, count in front.delivered.items()})
        return report


def every_point(times: int, records: int, chosen: Sequence[str] = points.POINTS) -> Callable[[Campaign], None]:
    """Kill a life at each named point, so many times; a point that was missed gets another two tries."""

    def act(going: Campaign) -> None:
        for _ in range(times):
            for point in chosen:
                any(going.kill_at(point, records) for _ in range(3))

    return act


def _parts(options: argparse.Namespace) -> list[tuple[str, Callable[[int], Report]]]:
    """Return the campaigns by name; each takes a seed."""

    def anywhere(going: Campaign) -> None:
        for _ in range(8 * options.times):
            going.kill_at_random(options.records)
        for _ in range(max(options.times // 2, 2)):
            going.cold_restart(options.records)
            going.pass_over(options.records)

    def disk(going: Campaign) -> None:
        for _ in range(2 * options.times):
            going.fail_and_kill(0.1, options.records, 1.5)

    def zombies(writers: int, count: int) -> Callable[[Campaign], None]:
        def act(going: Campaign) -> None:
            going.kill_at("after commit", options.records)  # so that there is something to go on from
            going.zombies(count, writers, options.records)

        return act

    rounds = [min(ROUNDS_PER_TABLE, options.times - first) for first in range(0, options.times, ROUNDS_PER_TABLE)]
    share, few = max(options.zombies // 2, 1), every_point(max(options.times // 20, 1), options.records, POINTS_IN_S3)
    return [
        *(("named points, folder", lambda seed, n=n: on_folder(seed, every_point(n, options.records))) for n in rounds),
        ("random places, cold starts, silent owners; folder", lambda seed: on_folder(seed, anywhere)),
        ("disk full, read-only and broken; folder", lambda seed: on_folder(seed, disk)),
        ("2 contending writers, folder", lambda seed: on_folder(seed, zombies(2, share))),
        ("3 contending writers, folder", lambda seed: on_folder(seed, zombies(3, share))),
        ("named points, S3", lambda seed: on_s3(seed, few, 0.0)),
        ("named points, S3 that answers 5xx", lambda seed: on_s3(seed, few, 0.03)),
        ("2 contending writers, S3", lambda seed: on_s3(seed, zombies(2, max(share // 10, 1)), 0.0)),
    ]


def main() -> int:
    """Run everything; return 1 when a promise was broken, or too little happened to tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill syncs; look at their tables.")
    parser.add_argument("--times", type=int, default=20, help="kills at each named point")
    parser.add_argument("--zombies", type=int, default=100)
    parser.add_argument("--records", type=int, default=1_000, help="written per life")
    parser.add_argument("--rows", type=int, default=1_000_000, help="written at least, in all")
    options = parser.parse_args()
    started = time.monotonic()
    total, seed = Report(), 0
    for seed, (name, part) in enumerate(_parts(options), 1):
        report = part(seed)
        total += report
        print(f"--- {name}\n{report}\n", flush=True)
    if missed := [point for point in points.POINTS for _ in range(options.times - total.kills[point])]:
        total += on_folder(seed + 1, every_point(1, options.records, missed))
    print(f"=== all of it\n{total}")
    wrong = [*total.broken, *_too_little(total, options)]
    print(f"{time.monotonic() - started:.0f} s;", "; ".join(wrong) or "everything held")
    return 1 if wrong else 0


def _too_little(total: Report, options: argparse.Namespace) -> list[str]:
    """Say what did not happen often enough to prove anything."""
    kinds = ("half a file", "fsync", "commit", "S3")
    return [
        *(f"killed too seldom {point}" for point in points.POINTS if total.kills[point] < options.times),
        *([f"only {total.zombies} zombies"] if total.zombies < options.zombies else []),
        *([f"only {total.rows:,} rows"] if total.rows < options.rows else []),
        *(f"no fault of {kind}" for kind in kinds if not _had(total, kind)),
        *([f"a restart took {max(total.restarts):.1f} s"] if max(total.restarts) > RESTART_SECONDS else []),
        *([f"a takeover took {max(total.takeovers):.1f} s"] if max(total.takeovers) > TAKEOVER_SECONDS else []),
    ]


def _had(report: Report, kind: str) -> bool:
    return any(event.startswith(f"fault: {kind}") for event in report.events)


if __name__ == "__main__":
    sys.exit(main())
