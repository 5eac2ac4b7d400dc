"""Defects in the journal of streaming exports, and in what they take out of a table."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

MUTANTS = [
    Mutant(
        "rows that are queued are given again",
        "journal.py",
        "            rows = rows.filter(not_before(self.progress.high))\n",
        "",
    ),
    Mutant(
        "what an earlier run has sent is sent again",
        "journal.py",
        "                rows = rows.filter((pl.col(SHARD) != shard_id)",
        "                rows.filter((pl.col(SHARD) != shard_id)",
    ),
    Mutant(
        "a hole in the table holds the journal up",
        "progress.py",
        "self.low[shard_id] = taken[0] if taken else self.high[shard_id]",
        "self.low[shard_id] = taken[0] if taken else self.low.get(shard_id, 0)",
    ),
    Mutant(
        "done rows pile up",
        "progress.py",
        "            done.remove(taken.popleft())\n",
        "            taken.popleft()\n",
    ),
    Mutant(
        "the journal of another table is taken",
        "export_stream.py",
        '        "table_id": table.table_id,\n',
        '        "table_id": None,\n',
        "tests/test_export_stream.py",
    ),
    Mutant(
        "an output stream that was made again is taken for the old one",
        "export_stream.py",
        '        "output_created_at": target.created_at,\n',
        '        "output_created_at": None,\n',
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a sync is not asked what it has read",
        "feeders.py",
        "        self._hurry()\n",
        "        pass\n",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a range ends by the clock",
        "feeders.py",
        "        if not self._table.origin.stream_arn:  # nobody syncs it\n",
        "        if True:\n",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a range ends before every shard was read past it",
        "growing.py",
        "return min(seen) if seen and len(seen) == len(open_shards) else None",
        "return max(seen) if seen else None",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a line that follows on nothing is believed",
        "journal_file.py",
        "        before = _check_of(line)\n",
        "        before = before\n",
    ),
    Mutant(
        "damage is not counted",
        "journal.py",
        "        if found.is_damaged:\n",
        "        if False:\n",
    ),
    Mutant(
        "a power cut is taken for the death of the process",
        "journal.py",
        'elif not was_closed and state.get("boot", _boot()) != _boot():',
        "elif False:",
    ),
    Mutant(
        "a clean end is taken for a power cut",
        "journal.py",
        'was_closed = bool(found.lines) and "closed" in found.lines[-1]',
        "was_closed = False",
    ),
    Mutant(
        "rows are sent before it is durable that they were taken",
        "journal.py",
        'self._add({"taken": taken}, durable=True)',
        'self._add({"taken": taken})',
    ),
    Mutant(
        "a journal that is busy is never made durable",
        "journal_file.py",
        "if durable or self._clock.monotonic() - self._synced_at >= SYNC_SECONDS:",
        "if durable:",
    ),
    Mutant(
        "a full disk leaves half a line",
        "journal_file.py",
        "                self._file.seek(self._file.truncate(self._size))\n",
        "                pass\n",
    ),
    Mutant(
        "after a full disk lines go behind a hole",
        "journal_file.py",
        "self._file.seek(self._file.truncate(self._size))",
        "self._file.truncate(self._size)",
    ),
    Mutant(
        "a large state is written with every line",
        "journal_file.py",
        "return self._size > max(REWRITE_BYTES, 2 * self._least)",
        "return self._size > REWRITE_BYTES",
    ),
    Mutant(
        "two journals share a lock",
        "journal_file.py",
        'self._lock = _locked(path.with_name(f"{path.name}.lock"))',
        'self._lock = _locked(path.with_suffix(".lock"))',
    ),
    Mutant(
        "a child keeps the lock of a parent that closed it",
        "journal_file.py",
        "        fcntl.flock(file, fcntl.LOCK_UN)\n",
        "",
    ),
    Mutant(
        "a child keeps the lock of a parent that died",
        "journal_file.py",
        "    os.register_at_fork(after_in_child=_leave_to_parent)\n",
        "    pass\n",
    ),
    Mutant(
        "a state that is damaged is not looked for in its copy",
        "journal_file.py",
        "        state, lines, is_damaged = copy, kept, True\n",
        "        pass\n",
    ),
    Mutant(
        "rows that were given up are kept in the state",
        "journal.py",
        "        self._failed.clear()\n",
        "",
    ),
    Mutant(
        "the folder of a journal may vanish in a power cut",
        "journal_file.py",
        "        folder.mkdir(exist_ok=True)\n    sync_folder(folder.parent)\n",
        "        folder.mkdir(exist_ok=True)\n",
    ),
    Mutant(
        "a file that lost its end is taken for whole",
        "journal_file.py",
        "    elif state == copy and (missing",
        "    elif False and (missing",
    ),
    Mutant(
        "rows that were not written down as taken are left out",
        "streaming_export.py",
        "            if not error.retryable:  # the journal",
        "            if False:  # the journal",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a failure waits for its turn at a slow rate",
        "exporter.py",
        "        self._raise_failure()\n        while not self._tally",
        "        while not self._tally",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a log that cannot be read ends an export",
        "growing.py",
        "        with self._reading():\n            numbers",
        "        with storage_errors():\n            numbers",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "rows that cannot be read are an error of another library",
        "growing.py",
        '        with self._reading("run the same line again"):\n',
        "        with storage_errors():\n",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "the export of another table or output with the same journal is returned",
        "export_stream.py",
        "    setup = (setup, storage.uri, arn)",
        "    _ = (setup, storage.uri, arn)",
        "tests/test_export_stream.py",
    ),
    Mutant(
        "a call that is refused ends the export that runs",
        "export_stream.py",
        "    check_journal(path, header)\n",
        "",
        "tests/test_export_stream.py",
    ),
]

SUITE = Suite(MUTANTS, ("tests/test_journal.py",))
