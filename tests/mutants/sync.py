"""Defects in the sync."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

_ACQUIRE = "        if wanted:\n            self._table.acquire(wanted)\n"
_WRITE = "self._write([file] if file else [], self._transactions(checkpoints, gaps), map(str, gaps))"
_DURABLE = "tests/test_durable.py"

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
        "range(known + 1, version + 1)",
        "range(known + 1, version)",
    ),
    Mutant("a checkpoint of the log is not read", "deltalog.py", "        numbers |= {", "        {"),
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
    Mutant(
        "the first entry has its name before it is on disk",
        "storage.py",
        "        _fsync(draft)\n        yield draft\n",
        "        yield draft\n",
        _DURABLE,
    ),
    Mutant(
        "what a killed process left is not synced by the next",
        "table.py",
        "            made._make_durable()  # what is read",
        "            pass  # what is read",
        _DURABLE,
    ),
    Mutant(
        "a checkpoint of the log has its name before it is on disk",
        "storage.py",
        "                    _fsync(draft / LOG / name)\n",
        "",
        _DURABLE,
    ),
    Mutant(
        "a checkpoint of the log is made where readers find it at once",
        "upkeep.py",
        "self._storage.checkpoint_log(table)",
        "table.create_checkpoint()",
        _DURABLE,
    ),
    Mutant(
        "the hint at the checkpoint goes back",
        "storage.py",
        "if hint and version > deltalog.hinted(self)[0]:",
        "if hint:",
        _DURABLE,
    ),
    Mutant(
        "an empty entry is a commit of nothing",
        "storage.py",
        "                deltalog.check(self, version)\n",
        "                pass\n",
        _DURABLE,
    ),
    Mutant(
        "an entry that was cut between two lines is a smaller commit",
        "deltalog.py",
        "if said in (None, str(len(found))) else []",
        "",
        _DURABLE,
    ),
    Mutant(
        "a torn entry that later ones rely on is cancelled",
        "deltalog.py",
        "sorted(takewhile(",
        "sorted(filter(",
        _DURABLE,
    ),
    Mutant(
        "a checkpoint counts while a part of it is missing",
        "deltalog.py",
        "if len(parts) == int(matches[0][3]) else ()",
        "",
        _DURABLE,
    ),
    Mutant(
        "the log is read from its first entry on",
        "txns.py",
        "self._version: int | None = None",
        "self._version: int | None = -1",
        _DURABLE,
    ),
    Mutant(
        "a file of rows that is not whole is left to polars",
        "storage.py",
        "            _check_files(self.folder, self.open(version))\n",
        "            pass\n",
        _DURABLE,
    ),
    Mutant(
        "only own entries are made durable",
        "table.py",
        "self.storage.make_durable(range(self._durable + 1, self.version + 1))",
        "self.storage.make_durable(range(self.version, self.version + 1))",
        _DURABLE,
    ),
]

SUITE = Suite(
    MUTANTS,
    ("tests/test_sync_loss.py", "tests/test_sync_places.py", "tests/test_sync.py"),
    simulation="tests.simulation_table",
    seeds=12,  # the real table makes a seed slow
)
