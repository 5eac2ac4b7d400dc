"""Defects in the sync."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

_ACQUIRE = "        if wanted:\n            self._table.acquire(wanted)\n"
_WRITE = "self._write([file] if file else [], self._transactions(checkpoints, gaps), map(str, gaps))"

_UPKEEP = [
    (
        "a round may land behind commits it did not look at",
        "upkeep.py",
        "max_commit_retries=0,",
        "max_commit_retries=15,",
    ),
    (
        "a file that is gone is merged all the same",
        "upkeep.py",
        "return is_same and all(one.sources.items() <= self.files.items() for one in merged)",
        "return is_same",
    ),
    ("a removal that others overlook", "upkeep.py", "RemoveAction(file, True, now", "RemoveAction(file, False, now"),
    ("a change feed tells a merge as a deletion", "upkeep.py", '"delta.enableChangeDataFeed")', '"")'),
    (
        "files of a commit that landed unnoticed are removed",
        "upkeep.py",
        "return entry is None or any(name.encode() in entry for name in names)",
        "return entry is None",
    ),
    (
        "a round of unknown outcome merges on",
        "upkeep.py",
        "        if not self._settle(table.version()):\n            return\n",
        "        self._settle(table.version())\n",
    ),
    (
        "what was merged for nothing stays",
        "upkeep.py",
        "            self._storage.discard(names)\n\n",
        "            pass\n\n",
    ),
    (
        "a torn file stops a round",
        "upkeep.py",
        "for name, size in files.items() if not found[name]",
        "for name, size in files.items()",
    ),
    ("a vacuum follows any path", "upkeep.py", "unused = dropped & present.keys()", "unused = dropped"),
    (
        "a vacuum takes any old file",
        "storage.py",
        "return digits[_CHECKED:] == _check(digits[:_CHECKED], table_id)",
        "return True",
    ),
    (
        "a vacuum takes files of another table",
        "storage.py",
        'f"kinesis_nb/{table_id}/{digits}"',
        'f"kinesis_nb/{digits}"',
    ),
    ("a vacuum takes what was just written", "upkeep.py", ">= RETENTION_HOURS * 3600", ">= 0"),
    ("a vacuum takes what a writer holds", "upkeep.py", "old - named - self._storage.in_flight()", "old - named"),
    (
        "a vacuum takes what a reader needs",
        "upkeep.py",
        "table.vacuum(None, dry_run=True)",
        "table.vacuum(0, dry_run=True, enforce_retention_duration=False)",
    ),
    (
        "a clock that was set makes files old",
        "upkeep.py",
        "if with_orphans and self._clock_is_steady():",
        "if with_orphans:",
    ),
    (
        "a panic ends the upkeep",
        "upkeep.py",
        "except BaseException as error:  # noqa: BLE001 - a panic is",
        "except Exception as error:  # noqa: BLE001 - a panic is",
    ),
    ("a failing merge keeps the log long", "upkeep.py", "        return [error]\n", "        raise\n"),
    (
        "a column of others is lost",
        "upkeep.py",
        "for field in arrow_schema(table)])",
        "for field in arrow_schema(table)][:9])",
    ),
    (
        "an erasure is forgotten with the log",
        "others.py",
        "return {LOOKED: version} | kept",
        "return {LOOKED: version}",
    ),
    ("what a sync commits is told as of others", "others.py", "startswith((OURS, _STREAM))", "startswith(_STREAM)"),
    (
        "a corrected clock is a defect",
        "verify.py",
        "(_steps_back(rows) <= CLOCK_STEP_SECONDS).sum()",
        "len(_steps_back(rows))",
    ),
    (
        "a shard whose rows are all gone is well",
        "verify.py",
        'return ["all of its rows are missing"] if checkpoint.sequence_number else []',
        "return []",
    ),
    ("a torn file reaches polars", "verify.py", "if faults := table.faults():", "if faults := []:"),
]

MUTANTS = [
    Mutant(
        "rows and checkpoint in two commits",
        "table.py",
        _WRITE,
        "self._write([file] if file else [], [])\n            self._write([], self._transactions(checkpoints, gaps))",
    ),
    Mutant(
        "the checkpoint before the rows",
        "table.py",
        _WRITE,
        "self._write([], self._transactions(checkpoints, gaps))\n            self._write([file] if file else [], [])",
    ),
    Mutant("rows without a checkpoint", "table.py", _WRITE, "self._write([file] if file else [], [])"),
    Mutant(
        "no look at the epochs after opening again",
        "table.py",
        "self._check_epochs()  # the handle is newer",
        "pass  # the handle is newer",
    ),
    Mutant(
        "a commit of unknown outcome is taken for landed",
        "table.py",
        "landed = self._holds(table, checkpoints)",
        "landed = True",
    ),
    Mutant(
        "a commit of unknown outcome is made again",
        "table.py",
        "        self._table = table\n        self._check_epochs()\n        return landed and self._landed()",
        "        self._table = table\n        self._is_in_doubt = False\n        return False",
    ),
    Mutant(
        "a take-over settles a commit of unknown outcome",
        "table.py",
        "            self._is_in_doubt = was_in_doubt  # a take-over from",
        "            self._is_in_doubt = False  # a take-over from",
    ),
    Mutant(
        "the last entry of the log is not read",
        "txns.py",
        "range(self._version + 1, version + 1)",
        "range(self._version + 1, version)",
    ),
    Mutant("a checkpoint of the log is not read", "txns.py", "            numbers |= {", "            {"),
    Mutant("a take-over does not raise the epoch", "table.py", "{shard_id: epoch + 1 for", "{shard_id: epoch + 0 for"),
    Mutant(
        "checkpoints are read before the take-over",
        "committer.py",
        f"{_ACQUIRE}        found = self._table.checkpoints(wanted)\n",
        f"        found = self._table.checkpoints(wanted)\n{_ACQUIRE}",
    ),
    Mutant(
        "a child is read before the end of its parent is committed",
        "committer.py",
        "            self._wait_for(lambda: shard.shard_id not in self._ended)\n",
        "",
    ),
    Mutant(
        "the offsets of a child begin again",
        "committer.py",
        "offset=max(done.offset, reached.offset)",
        "offset=reached.offset",
    ),
    Mutant(
        "the offsets of a merged child follow one parent",
        "committer.py",
        "offset=max(done.offset, reached.offset)",
        "offset=done.offset",
    ),
    Mutant("an ended shard is not marked", "committer.py", "ended=True)", "ended=False)"),
    Mutant(
        "a resumed shard starts over",
        "committer.py",
        "if checkpoint.sequence_number is not None:",
        "if False:",
    ),
    Mutant(
        "a resumed shard counts from 0", "committer.py", "offset=reached.offset + rows.num_rows", "offset=rows.num_rows"
    ),
    Mutant("a sequence number is cut", "table.py", "_PIECES = 3", "_PIECES = 2"),
    Mutant(
        "the clock may go back",
        "committer.py",
        "stamp = max(self._clock.now(), reached.stamp or _LONG_AGO)",
        "stamp = self._clock.now()",
    ),
    Mutant("a gap is not counted", "committer.py", "gaps=reached.gaps + 1", "gaps=reached.gaps"),
    Mutant("a loss does not stop the sync", "committer.py", "if self._on_data_loss is OnDataLoss.FAIL:", "if False:"),
    Mutant(
        "what was seen of a silent shard is forgotten",
        "committer.py",
        "seen=max(in_millis(moment), reached.seen or _LONG_AGO)",
        "seen=reached.seen",
    ),
    Mutant(
        "a listing from before the parents of a shard counts",
        "committer.py",
        'if max(listed, default="") >= newest:',
        "if True:",
        "tests/test_sync_parts.py",
    ),
    Mutant("a writer withdraws the note of another", "lease.py", "if self._read(_OWNER) == self.me:", "if True:"),
    Mutant(
        "a file that was not written whole stays",
        "storage.py",
        "                (self.folder / name).unlink(missing_ok=True)\n",
        "                pass\n",
    ),
    Mutant("a file is not fsynced", "storage.py", "                os.fsync(file.fileno())\n", ""),
    *(Mutant(*defect, "tests/test_upkeep.py") for defect in _UPKEEP),
]

SUITE = Suite(
    MUTANTS,
    ("tests/test_sync_loss.py", "tests/test_sync_places.py", "tests/test_sync.py"),
    simulation="tests.simulation_table",
    seeds=12,  # the real table makes a seed slow
)
