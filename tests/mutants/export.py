"""Defects in exports."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

MUTANTS = [
    Mutant(
        "two rows of a key in one request",
        "exporting/lane.py",
        "            if self._ordered:\n                entries",
        "            if False:\n                entries",
    ),
    Mutant(
        "rows that had to wait go to the end",
        "exporting/lane.py",
        "self._queue.extendleft(reversed(later))",
        "self._queue.extend(later)",
    ),
    Mutant(
        "rows that had to wait change places",
        "exporting/lane.py",
        "self._queue.extendleft(reversed(later))",
        "self._queue.extendleft(later)",
    ),
    Mutant(
        "refused records go to the end",
        "exporting/lane.py",
        "self._queue.extendleft(reversed(list(entries)))",
        "self._queue.extend(entries)",
    ),
    Mutant(
        "rows are put in an order of their own",
        "exporting/entries.py",
        'sort("wave", maintain_order=True)',
        'sort("wave", "row", descending=True)',
    ),
    Mutant(
        "refused records are taken for written",
        "exporting/lane.py",
        "zip(entries, results, strict=True) if result.error_code is None]",
        "zip(entries, results, strict=True)]",
    ),
    Mutant("refused records are forgotten", "exporting/lane.py", "        self._again(refused)\n", ""),
    Mutant("an unknown outcome is taken for a failure", "exporting/lane.py", "        self._again(entries)\n", ""),
    Mutant(
        "possible duplicates are not counted",
        "exporting/report.py",
        "            report.possible_duplicates += unknown\n",
        "",
    ),
    Mutant(
        "a throttled request counts as unknown",
        "exporting/lane.py",
        "is_unknown = error.retryable and not is_refusal",
        "is_unknown = error.retryable",
    ),
    Mutant(
        "a response for fewer records is taken",
        "wire/putting.py",
        "    if len(results) != count:",
        "    if len(results) > count:",
    ),
    Mutant(
        "a key belongs to two lanes",
        "exporting/exporter.py",
        "self._lane_of(entry.key)",
        "self._lane_of(entry.key * (1 + entry.rows[0] % 2))",
    ),
    Mutant(
        "bisecting drops the second half",
        "exporting/lane.py",
        "[entries[middle:], entries[:middle]]",
        "[entries[:middle]]",
    ),
    Mutant("a spoilt record is tried for ever", "exporting/lane.py", "return tries < TRIES", "return True"),
    Mutant("an unknown code is given up at once", "exporting/lane.py", "return tries < TRIES", "return False"),
    Mutant(
        "resuming sends everything", "exporting/entries.py", "        if first_row < done.end:", "        if False:"
    ),
    Mutant(
        "resuming leaves too much out",
        "exporting/report.py",
        "        return place < 0 or (",
        "        return place <= 0 or (",
    ),
    Mutant("aggregates mix keys", "exporting/entries.py", "latest.get(key)", "next(iter(latest.values()), None)"),
    Mutant(
        "keys are cut",
        "wire/putting.py",
        '"key": quoted(keys)',
        '"key": quoted(keys.str.head(6))',
    ),
    Mutant(
        "long keys pass", "exporting/encode.py", "return (length < 1) | (length > KEY_CHARACTERS)", "return length < 1"
    ),
    Mutant(
        "empty keys pass",
        "exporting/encode.py",
        "return (length < 1) | (length > KEY_CHARACTERS)",
        "return length > KEY_CHARACTERS",
    ),
    Mutant(
        "keys are counted in bytes",
        "exporting/encode.py",
        "length = keys.str.len_chars().fill_null(0)",
        "length = keys.str.len_bytes().fill_null(0)",
    ),
    Mutant(
        "large records pass",
        "exporting/entries.py",
        'records.filter(pl.col("size") > most)',
        'records.filter(pl.col("size") > 2 * most)',
    ),
    Mutant(
        "the limit does not count keys",
        "exporting/entries.py",
        "size = data.bin.size().cast(pl.Int64) + key_bytes",
        "size = data.bin.size().cast(pl.Int64)",
    ),
    Mutant(
        "a request holds too many bytes",
        "exporting/lane.py",
        "            while excess > 0 and len(entries) > 1:",
        "            while False:",
    ),
    Mutant("a request holds too many records", "core/limits.py", "PUT_RECORDS = 500", "PUT_RECORDS = 501"),
    Mutant(
        "NaN becomes NaN",
        "exporting/json_rows.py",
        "pl.when(column.is_finite()).then(column.cast(pl.String))",
        "column.cast(pl.String)",
    ),
    Mutant("quotes are not escaped", "wire/quoting.py", " | (found == _QUOTE)", ""),
    Mutant("backslashes are not escaped", "wire/quoting.py", " | (found == _BACKSLASH)", ""),
    Mutant("control characters are not escaped", "wire/quoting.py", "_PRINTABLE = 0x20 ", "_PRINTABLE = 0x1F "),
    Mutant(
        "the raw bytes are forgotten", "exporting/encode.py", "        if self._raw is not None:", "        if False:"
    ),
    Mutant(
        "a throttled shard is not spared",
        "exporting/throughput.py",
        "            self._slow_down(now)",
        "            pass",
    ),
    Mutant("the rate never rises again", "exporting/throughput.py", "_STEP = 0.1 ", "_STEP = 0.0 "),
    Mutant("the rate falls too far", "exporting/throughput.py", "_CUT = 0.85 ", "_CUT = 0.1 "),
    # --- aggregates whose response was lost
    Mutant(
        "an aggregate is sent again without a search",
        "exporting/lane.py",
        "if is_unknown and (packed",
        "if False and (packed",
    ),
    Mutant(
        "an aggregate that was not found is forgotten",
        "exporting/lane.py",
        "        self._again(missing)\n",
        "",
    ),
    Mutant(
        "an aggregate that was found is sent again",
        "exporting/lane.py",
        "missing = [entry for entry, shard_id in places if shard_id is None]",
        "missing = [entry for entry, _ in places]",
    ),
    Mutant(
        "what is sent again after a search is not counted",
        "exporting/lane.py",
        "[shard_id for shard_id in shard_ids if shard_id], unknown=missing))",
        "[shard_id for shard_id in shard_ids if shard_id], refused=missing))",
    ),
    Mutant(
        "a lane with an aggregate in doubt is idle",
        "exporting/lane.py",
        "return not (self._queue or self._suspects or self._doubtful)",
        "return not (self._queue or self._suspects)",
    ),
    Mutant(
        "aggregates of the same rows are the same",
        "wire/aggregation.py",
        'if number else b""\n',
        'if False else b""\n',
    ),
    Mutant(
        "an aggregate is searched for in one shard of several",
        "wire/finding.py",
        "        for page in _pages(reader, stream, shard, since) if wanted else ():",
        "        for page in _pages(reader, stream, shard, since) if wanted and shard.is_open else ():",
        "tests/exporting/test_frame.py",
    ),
    # --- frames of all kinds
    Mutant(
        "items behind a null come to light",
        "exporting/json_rows.py",
        "column.drop_nulls().explode(",
        "column.explode(",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "an offset loses its seconds",
        "exporting/json_rows.py",
        "pl.when(offsets % 60 == 0)",
        "pl.when(offsets % 1 == 0)",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "nanoseconds of Python objects are cut",
        "exporting/objects.py",
        'return "ns" if has_nanoseconds else "us"',
        'return "us"',
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "a time beside dates becomes a date",
        "exporting/objects.py",
        "pa.date32()), but=(datetime,)),",
        "pa.date32())),",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "whole numbers beside floats are rounded",
        "exporting/objects.py",
        "int(float(value)) != value)",
        "False)",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "a time with a fixed offset is that of UTC",
        "exporting/adapt.py",
        "iso(utc + timedelta(minutes=minutes))",
        "iso(utc)",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "the row of a refusal is one too far",
        "exporting/refusals.py",
        "return fails - 1 if fails else None",
        "return fails if fails else None",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "an index without a name is data",
        "exporting/tables.py",
        "        if label is not None:",
        "        if True:",
        "tests/exporting/test_tables.py",
    ),
    Mutant(
        "columns beside a record are left out",
        "exporting/encode.py",
        "data_column = None if self.beside else DATA",
        "data_column = DATA",
        "tests/exporting/test_frame.py",
    ),
    Mutant(
        "bytes are sent whose text was changed",
        "exporting/encode.py",
        "data.scatter(places.filter(is_fresh), contents.filter(is_fresh))",
        "data.scatter(places, contents)",
        "tests/exporting/test_frame.py",
    ),
    # --- the end of an export, and its rest
    Mutant(
        "an error has no report",
        "exporting/frame.py",
        'error.report = found = report("failed")',
        'found = report("failed")',
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "a row is the same in another place",
        "exporting/entries.py",
        "made_of.with_row_index(_PLACE, first_row).hash_rows()",
        "made_of.hash_rows()",
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "the first rows are not compared",
        "exporting/frame.py",
        "if beginning is not None and not",
        "if False and not",
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "rows behind the first open one are not compared",
        "exporting/report.py",
        "if place >= len(then) or then[place] != marks[known + place]]",
        "if place >= len(then)]",
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "a request goes out before all is compared",
        "exporting/frame.py",
        "            if row >= self.done.end:\n                yield",
        "            if True:\n                yield",
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "what a resumed export has done is not marked",
        "exporting/frame.py",
        "            self.tally.mark(row, marks)\n",
        "            if not self.done.end:\n                self.tally.mark(row, marks)\n",
        "tests/exporting/test_resume.py",
    ),
    Mutant(
        "the numbers of categories are compared",
        "exporting/entries.py",
        ".with_columns(cs.categorical().cast(pl.String))",
        "",
        "tests/exporting/test_resume.py",
    ),
]

SUITE = Suite(
    MUTANTS,
    (
        "tests/exporting/test_parts.py",
        "tests/exporting/test_encode.py",
    ),
    simulation="tests.simulation.exports",
)
