"""Defects put into the reader on purpose: each must be noticed by the simulation, or else by a test.

``python -m tests.mutants`` applies them one by one to a copy of the package and names what killed each. It fails when
one survives, and when the text that a defect replaces is not found exactly once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.mutants_access import ACCESS_MUTANTS, AccessMutant

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # seconds for one run; a defect may also make it hang


class Suite(NamedTuple):
    """What must notice a defect: a simulation (a module with ``--seeds``), or else tests."""

    simulation: str
    tests: tuple[str, ...]


SUITE = Suite(
    "tests.simulation",
    tuple(
        f"tests/test_{name}.py"
        for name in ("consumer", "pace", "gaps", "payload", "shards", "buffer", "reader_rules", "read", "tail")
    ),
)


class Mutant(NamedTuple):
    """One defect: in a file of the package, a text and what stands there instead."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "an empty answer is the end",
        "consumer.py",
        "self._at_end = batch.next_iterator is None",
        "self._at_end = batch.next_iterator is None or not batch.rows.num_rows",
    ),
    Mutant(
        "a missing Records is an empty list", "service/wire.py", "Records: list[_Record]", "Records: list[_Record] = []"
    ),
    Mutant("a null iterator is the end", "consumer.py", "if not self.children:", "if False:"),
    Mutant(
        "a closed shard ends before its children are listed",
        "consumer.py",
        "if not self.children and self.shard.shard_id in listing:",
        "if False:",
    ),
    Mutant(
        "only one parent is waited for",
        "shards.py",
        "for parent in shard.parents if parent in self._shards)",
        "for parent in shard.parents[:1] if parent in self._shards)",
    ),
    Mutant("a child is read before its parent", "shards.py", "return all(parent in self._finished", "return all(True"),
    Mutant(
        "a shard is started twice",
        "shards.py",
        "self._started.update(shard.shard_id for shard in ready)",
        "pass",
    ),
    Mutant(
        "a stale listing removes shards",
        "shards.py",
        'while its children are, has left the stream.\n        """',
        'while its children are, has left the stream.\n        """\n        self._shards.clear()',
    ),
    Mutant(
        "a child starts at LATEST",
        "feed.py",
        "return start if is_listed else StartingPosition.trim_horizon()",
        "return start if is_listed else StartingPosition.latest()",
    ),
    Mutant(
        "a child starts where the read did",
        "feed.py",
        "return start if is_listed else StartingPosition.trim_horizon()",
        "return start",
    ),
    Mutant(
        "children are not observed",
        "scheduler.py",
        "self._tracker.observe_new(filter(self._feed.wanted, consumer.children))",
        "pass",
    ),
    Mutant(
        "a failed listing is the end",
        "scheduler.py",
        "if not (isinstance(error, KinesisError) and error.retryable):",
        "if True:",
    ),
    Mutant(
        "AT in place of AFTER",
        "position.py",
        'AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"',
        'AFTER_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"',
    ),
    Mutant(
        "an expired iterator goes on at LATEST",
        "consumer.py",
        "                self._renew_iterator(error)",
        "                self._renew_iterator(error)\n                self._position = StartingPosition.latest()",
    ),
    Mutant(
        "an expired iterator goes on at TRIM_HORIZON",
        "consumer.py",
        "                self._renew_iterator(error)",
        "                self._renew_iterator(error)\n                self._position = StartingPosition.trim_horizon()",
    ),
    Mutant(
        "the place moves before the delivery",
        "consumer.py",
        "wants_more = self._sink.deliver(self.shard, batch)\n        self._gaps.delivered(batch, gap)\n"
        "        self._advance(batch, elapsed)",
        "self._advance(batch, elapsed)\n        wants_more = self._sink.deliver(self.shard, batch)",
    ),
    Mutant(
        "a retry delivers twice",
        "consumer.py",
        "wants_more = self._sink.deliver(self.shard, batch)",
        "wants_more = self._sink.deliver(self.shard, batch)\n"
        "        if self._failures:\n            self._sink.deliver(self.shard, batch)",
    ),
    Mutant(
        "the position is not moved", "consumer.py", "self._position = StartingPosition.after(batch.read_to)", "pass"
    ),
    Mutant(
        "LATEST is not pinned",
        "consumer.py",
        "return StartingPosition.at(position.timestamp) if is_late or self._failures else position",
        "return position",
    ),
    Mutant(
        "a throttle is fatal",
        "service/translate.py",
        "return Throttled(said, retryable=True)",
        "return Throttled(said)",
    ),
    Mutant(
        "an answer without its member is empty",
        "service/client.py",
        "value = answer.get(member)",
        "value = answer.get(member, kind())",
    ),
    Mutant(
        "only the first page of a listing counts",
        "service/client.py",
        "            if not token:\n                return shards",
        "            return shards",
    ),
    Mutant(
        "a cut body is fatal",
        "service/wire.py",
        'hint="it will be asked for again", retryable=True)',
        'hint="it will be asked for again")',
    ),
    Mutant("an answer names one child", "service/wire.py", "in answer.ChildShards\n", "in answer.ChildShards[:1]\n"),
    Mutant(
        "waits grow without bound",
        "retry.py",
        "min(CAP_SECONDS, BASE_SECONDS * 2 ** min(failures, 10))",
        "BASE_SECONDS * 2 ** min(failures, 10)",
    ),
    Mutant("a throttled shard is asked at once", "retry.py", "max(wait, THROTTLED_AT_LEAST)", "wait"),
    Mutant(
        "a read stops at the first gap",
        "read.py",
        "if batch.millis_behind_latest == 0:",
        "if not batch.rows.num_rows:",
    ),
    Mutant(
        "a read stops before its end",
        "read.py",
        "> self._window.end + timedelta(minutes=1)",
        "> self._window.end - timedelta(minutes=1)",
    ),
    Mutant(
        "a read goes beyond its end",
        "read.py",
        "in_range(batch.rows, self._window.start.timestamp, self._window.end)",
        "in_range(batch.rows, self._window.start.timestamp, None)",
    ),
    Mutant("a tail shows rows from before its start", "tail.py", "in_range(batch.rows, earliest, None)", "batch.rows"),
    Mutant(
        "the dropped count is wrong",
        "buffer.py",
        "self._dropped[shard_id] += min(drop, rows.num_rows)",
        "self._dropped[shard_id] += drop",
    ),
    Mutant(
        "a batch is cut from the wrong end",
        "buffer.py",
        "pa.array(range(drop, rows.num_rows), pa.int64())",
        "pa.array(range(rows.num_rows - drop), pa.int64())",
    ),
    Mutant("rows put back count as taken", "buffer.py", "                self._taken -= rows.num_rows\n", ""),
    Mutant("bytes cost nothing", "pace.py", "+ size / BYTES_PER_SECOND", "+ 0 * size"),
    Mutant(
        "a full answer is not waited for", "pace.py", "counted_at + FULL_REPLY_SECONDS if is_full", "0.0 if is_full"
    ),
    Mutant(
        "who is throttled keeps what was saved up", "pace.py", "self._paid_at = max(self._paid_at, now)\n", "pass\n"
    ),
    Mutant("the page never shrinks", "pace.py", "max(LEAST_PAGE, self._most // 2)", "PAGE"),
    Mutant(
        "nobody looks for a gap",
        "gaps.py",
        "return self._pending is not None",
        "self._pending = None\n        return False",
    ),
    Mutant(
        "the record that proves comes twice",
        "gaps.py",
        "return batch.behind(gap.after), None",
        "return batch, None",
    ),
    Mutant(
        "a gap is settled before the delivery",
        "consumer.py",
        "        wants_more = self._sink.deliver(self.shard, batch)\n        self._gaps.delivered(batch, gap)\n",
        "        self._gaps.delivered(batch, gap)\n        wants_more = self._sink.deliver(self.shard, batch)\n",
    ),
    Mutant(
        "what lies behind an untold gap counts as seen",
        "gaps.py",
        "seen=self.seen if gap else self._seen_with(batch)",
        "seen=self._seen_with(batch)",
    ),
    Mutant(
        "a gap is only told when its end is known",
        "gaps.py",
        "batch.millis_behind_latest > 0 and batch.next",
        "batch.next",
    ),
    Mutant(
        "a child does not know up to when its parents were read",
        "scheduler.py",
        "self._seen.get(shard.shard_id))",
        "None)",
    ),
    Mutant(
        "a shard that is gone ends without a word",
        "consumer.py",
        "            if not self._is_closed:  # else it had given everything",
        "            if False:",
    ),
    Mutant("a number that is refused is no gap", "consumer.py", "self._gaps.refuse(self._position)", "pass"),
    Mutant("a listing is believed for ever", "feed.py", "if self._listed_at <= since:", "if not self._shards:"),
    Mutant(
        "a stream that was made again goes on",
        "feed.py",
        'if known.starting_sequence_number not in ("0", listed.starting_sequence_number):',
        "if False:",
    ),
    Mutant("a missing shard is looked for without end", "consumer.py", "if self._missed > MISSING_TRIES:", "if False:"),
    Mutant(
        "LATEST is asked for however late",
        "consumer.py",
        "is_late = self._kinesis.server_time().latest - position.timestamp > LATEST_LASTS",
        "is_late = False",
    ),
    Mutant("an old listing ends the reading", "scheduler.py", "if is_complete and not is_old:", "if is_complete:"),
    Mutant(
        "a key that is blocked is fatal",
        "service/translate.py",
        "before the stream's retention ends\", retryable=True)",
        "before the stream's retention ends\")",
    ),
    Mutant("a blocked key is hammered", "retry.py", "return PROBE_SECONDS", "return 0.0"),
    Mutant("an answer may drip for ever", "service/deadline.py", "if left <= 0:", "if False:"),
    Mutant(
        "a child that left before it was listed is waited for",
        "shards.py",
        "self._unlisted.difference_update(shard.parents)",
        "pass",
    ),
    Mutant("relaxed waits for parents", "shards.py", "if not self._is_ordered:", "if False:"),
    Mutant("a bomb goes off", "payload.py", "return content if len(content) <= most else None", "return content"),
    Mutant("a fork is not noticed", "config.py", "if os.getpid() != made_in:", "if False:"),
]


ALL_MUTANTS: list[Mutant | AccessMutant] = [*MUTANTS, *ACCESS_MUTANTS]


def run(mutant: Mutant | AccessMutant | None, seeds: int, suite: Suite = SUITE) -> str:
    """Return what noticed the defect; an empty string when nothing did."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place)
        for folder in ("kinesis_nb", "tests"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            path = copy / "kinesis_nb" / mutant.file
            path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        if isinstance(mutant, AccessMutant):
            return _test(copy, (mutant.tests, "-k", "not servers_own and not another_host"))
        return _simulate(copy, seeds, suite.simulation) or _test(copy, suite.tests)


def _simulate(copy: Path, seeds: int, module: str) -> str:
    code, output = _call(copy, "-m", module, "--seeds", str(seeds), "--stop-after", "1")
    if code == 0:
        return ""
    found = re.search(r"^seed \d+: .*", output, re.MULTILINE)
    return f"simulation, {found[0]}" if found else f"simulation, {output.strip().splitlines()[-1]}"


def _test(copy: Path, tests: tuple[str, ...]) -> str:
    code, output = _call(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *tests)
    if code == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return f"test, {found[1]}" if found else f"test, {output.strip().splitlines()[-1]}"


def _call(copy: Path, *command: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=copy,
            env=environment,
            timeout=PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end within {PATIENCE} s"
    return done.returncode, done.stdout + done.stderr


def misplaced(mutants: Sequence[Mutant | AccessMutant] = ALL_MUTANTS) -> list[str]:
    """Name the mutants whose text is not found exactly once."""
    return [
        mutant.name
        for mutant in mutants
        if (ROOT / "kinesis_nb" / mutant.file).read_text(encoding="utf-8").count(mutant.old) != 1
    ]


def main(mutants: Sequence[Mutant | AccessMutant] = ALL_MUTANTS, suite: Suite = SUITE, seeds: int = 150) -> int:
    """Try all mutants; return 1 when one survives or has no place."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Seed defects; each must be noticed.")
    parser.add_argument("--seeds", type=int, default=seeds, help="of the simulation, per mutant")
    parser.add_argument("--only", default="", help="mutants with this text in their name")
    options = parser.parse_args()
    if lost := misplaced(mutants):
        print("the text is not there exactly once:", *lost, sep="\n  ")
        return 1
    if noticed := run(None, options.seeds, suite):
        print(f"without any mutant: {noticed}")
        return 1
    chosen = [mutant for mutant in mutants if options.only in mutant.name]
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, noticed in zip(chosen, pool.map(lambda m: run(m, options.seeds, suite), chosen), strict=True):
            survivors += not noticed
            print(f"{mutant.name:<55} {noticed or 'SURVIVED'}"[:200], flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
