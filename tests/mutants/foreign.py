"""Defects in what becomes of user records of another shard's keys."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

_RULE = "return made is not None and arrived - made <= STALE_MAP"
_TOLD, _AGENTS = "tests/reading/test_foreign_told.py", "tests/agents/test_jobs.py"

MUTANTS = [
    Mutant(*mutant)
    for mutant in (
        ("what nobody writes again is dropped", "core/foreign.py", _RULE, "return True"),
        ("what the KPL writes again is kept", "core/foreign.py", _RULE, "return False"),
        ("an unknown age drops", "core/foreign.py", _RULE, "return made is None or arrived - made <= STALE_MAP"),
        ("a map is stale for ever", "core/foreign.py", _RULE, "return made is not None"),
        ("a map is stale a millisecond too short", "core/foreign.py", "made <= STALE_MAP", "made < STALE_MAP"),
        ("shards of a new stream are new", "core/foreign.py", " if shard.parents else None", ""),
        (
            "a number is believed whenever the record arrived",
            "core/foreign.py",
            " or abs(written - arrived.timestamp()) > skew",
            "",
        ),
        ("a record may be older than its shard", "core/foreign.py", " or made > written + skew", ""),
        ("the time of writing is that of the shard", "core/foreign.py", "_WRITTEN = 148, 36", "_WRITTEN = 36, 36"),
        (
            "a number of any length is the service's",
            "core/foreign.py",
            "not _TOP <= number < _TOP + _TOP // 2",
            "False",
        ),
        ("what is kept is numbered anew", "wire/batches.py", "places += kept", "places += range(len(kept))"),
        (
            "what is kept loses its order",
            "wire/batches.py",
            "            kept = ours\n",
            "            kept = ours[::-1]\n",
        ),
        (
            "one foreign user record drops them all",
            "wire/batches.py",
            "            kept = ours\n",
            "            kept = ()\n",
        ),
        (
            "a part does not say what it dropped",
            "wire/batches.py",
            "Batch.part(rows, first, last, part.dropped)",
            "Batch.part(rows, first, last)",
        ),
        (
            "an opened part does not say what was dropped",
            "core/compression.py",
            "Batch.part(rows, first, last, _dropped_between(batch, start, last))",
            "Batch.part(rows, first, last)",
        ),
        (
            "an opened part says what earlier parts dropped",
            "core/compression.py",
            "if before < (number := int(records.sequence_number)) and",
            "if (number := int(records.sequence_number)) and",
        ),
        (
            "what was dropped before is counted again",
            "core/frames.py",
            "if int(record.sequence_number) > int(sequence_number))",
            "if sequence_number)",
        ),
        (
            "a batch that comes again is counted again",
            "syncing/ledger.py",
            "known + tuple(record for record in dropped if int(record.sequence_number) > last)",
            "known + dropped",
        ),
        (
            "a checkpoint passes rows that wait",
            "syncing/ledger.py",
            "_up_to(delivered.get(shard_id, -1), found)",
            "tuple(found)",
        ),
        (
            "a checkpoint steps back to what was dropped",
            "syncing/ledger.py",
            "number = max(int(reached.sequence_number or 0), int(dropped[-1].sequence_number))",
            "number = int(dropped[-1].sequence_number)",
        ),
        (
            "a checkpoint stays before what was dropped",
            "syncing/ledger.py",
            "reached, sequence_number=str(number), dropped=",
            "reached, dropped=",
        ),
        (
            "what was dropped is committed again",
            "syncing/ledger.py",
            "self._dropped[shard_id][len(dropped) :]",
            "self._dropped[shard_id]",
        ),
        (
            "the table forgets the count",
            "table/checkpoints.py",
            "rare = checkpoint.dropped, checkpoint.filtered\n",
            "rare = 0, checkpoint.filtered\n",
            _TOLD,
        ),
        (
            "the history says nothing",
            "syncing/ledger.py",
            'notes = [f"{shard_id}: {foreign.describe_dropped(number)}" for shard_id, number in self.dropped.items()]',
            "notes: list[str] = []",
            _TOLD,
        ),
        (
            "verify says nothing",
            "table/verify.py",
            "[describe_dropped(checkpoint.dropped)] if checkpoint.dropped",
            "[] if checkpoint",
            _TOLD,
        ),
        (
            "verify says nothing of what was not counted",
            "table/verify.py",
            "if holes > checkpoint.dropped:",
            "if False:",
            _TOLD,
        ),
        (
            "a shard of which something was dropped needs no rows",
            "table/verify.py",
            "if len(rows) else checkpoint.offset",
            "if len(rows) else 0",
            _TOLD,
        ),
        (
            "a read tells what it dropped outside of its window",
            "reading/read.py",
            "filter(self._is_within, batch.dropped)",
            "batch.dropped",
            _TOLD,
        ),
        (
            "a read does not warn",
            "reading/read.py",
            'warn(f"the read is without some: {said}")',
            "pass",
            _TOLD,
        ),
        ("a tail counts once more", "reading/tail.py", "if int(record.sequence_number) > last]", "]"),
        (
            "a tail warns again and again",
            "reading/tail.py",
            "dropped - self._dropped_warned, dropped",
            "dropped, dropped",
            _TOLD,
        ),
        (
            "a sync does not warn",
            "syncing/sync.py",
            "        if number:\n            warn",
            "        if False:\n            warn",
            _TOLD,
        ),
        (
            "another choice changes nothing",
            "syncing/start.py",
            "on_data_loss, feed.foreign, feed.end, feed.selection)",
            "on_data_loss, feed.end, feed.selection)",
            _TOLD,
        ),
        (
            "a part of a sync reads by the default",
            "agents/parts.py",
            "SystemClock(), spec.selection, spec.foreign)",
            "SystemClock(), spec.selection)",
            _AGENTS,
        ),
        (
            "another choice is the same setup",
            "agents/job_spec.py",
            ", self.foreign, self.selection",
            ", self.selection",
        ),
        (
            "any choice is the default",
            "core/arguments.py",
            "if value not in choices:",
            "if False:",
            _TOLD,
        ),
    )
]

SUITE = Suite(MUTANTS, ("tests/core/test_foreign.py",))
