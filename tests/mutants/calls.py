"""Defects in what a user calls: arguments, interrupts, `where=`, regions, warnings."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

INTERRUPTS, ARGUMENTS, WHERE = (
    "tests/core/test_interrupts.py",
    "tests/core/test_arguments.py",
    "tests/reading/test_where.py",
)
STATUS = "tests/syncing/test_status.py"
TIMES = "tests/core/test_position.py::test_local_time_is_told_once_where_it_was_written"

MUTANTS = [
    Mutant(
        "a table needs a style sheet",
        "display.py",
        """_TEXT = ' style="text-align:left;white-space:nowrap"'""",
        '_TEXT = ""',
        tests="tests/exploring/test_explore.py::test_what_is_shown_needs_neither_style_nor_svg",
    ),
    Mutant(
        "print() shows one line",
        "display.py",
        'return "\\n".join(filter(None, (repr(self), self._rows_as_text())))',
        "return repr(self)",
        tests="tests/core/test_shown.py::test_what_a_terminal_shows",
    ),
    Mutant(
        "a message becomes many lines",
        "display.py",
        "return format(repr(self), spec)",
        "return format(str(self), spec)",
        tests="tests/core/test_shown.py::test_what_a_terminal_shows",
    ),
    Mutant(
        "an import is broken off",
        "core/interrupt.py",
        "if threading.current_thread() is not threading.main_thread():",
        "if True:",
        tests=f"{INTERRUPTS}::test_amid_the_first_import",
    ),
    Mutant(
        "an interrupted export waits for the responses under way",
        "exporting/frame.py",
        "exporter.stop(INTERRUPTED_SECONDS)",
        "exporter.stop()",
        tests=f"{INTERRUPTS}::test_in_a_script[export a frame]",
    ),
    Mutant(
        "where= may look across rows",
        "reading/read.py",
        "if where is not None and depends_on_other_rows(",
        "if False and depends_on_other_rows(",
        tests=WHERE,
    ),
    Mutant(
        "where= is asked by its outermost function alone",
        "core/selection.py",
        'return not plan.lstrip().startswith("WITH_COLUMNS")',
        "return not expression.meta.is_row_separable()",
        tests=WHERE,
    ),
    Mutant(
        "what where= fails with on rows is polars' own",
        "reading/read.py",
        "except (Exception, pl.exceptions.PanicException) as error:",
        "except TypeError as error:",
        tests=WHERE,
    ),
    Mutant(
        "the next tail leaves the one before running",
        "core/running.py",
        "if (old := self._newest.pop(key, None)) is not None:",
        "if old := self._newest.pop(key, None):",
        tests="tests/core/test_running.py",
    ),
    Mutant(
        "a tail has caught up at once",
        "reading/scheduler.py",
        "while not self.unfinished() <= caught_up:",
        "while False:",
        tests="tests/reading/test_tail.py",
    ),
    Mutant(
        "who waits for a tail is not told why it failed",
        "reading/tail.py",
        "        if self._buffer.error is not None:\n            raise self._buffer.error",
        "        if False:\n            raise self._buffer.error",
        tests="tests/reading/test_tail.py",
    ),
    Mutant(
        "a truth is a number",
        "core/arguments.py",
        "return isinstance(value, kind) and not isinstance(value, bool) and not is_time",
        "return isinstance(value, kind) and not is_time",
        tests=f"{ARGUMENTS}::test_walk",
    ),
    Mutant(
        "a time of numpy is a number of seconds",
        "core/arguments.py",
        "return isinstance(value, kind) and not isinstance(value, bool) and not is_time",
        "return isinstance(value, kind) and not isinstance(value, bool)",
        tests=f"{ARGUMENTS}::test_walk",
    ),
    Mutant(
        "text that is not Unicode is passed on",
        "core/arguments.py",
        "except UnicodeEncodeError:  # a lone surrogate\n        return _WRONG",
        "except UnicodeEncodeError:\n        pass",
        tests=f"{ARGUMENTS}::test_walk",
    ),
    Mutant(
        "a slice of records has no end",
        "core/frames.py",
        "return Records(self._rows.slice(places.start, len(places)), self.note)",
        "return Records(self._rows.slice(places.start), self.note)",
        tests=f"{ARGUMENTS}::test_rows_of_records",
    ),
    Mutant(
        "the environment goes before the named profile",
        "source.py",
        "region, place = next((one for one in found if one[0])",
        "region, place = next((one for one in found[::-1] if one[0])",
        tests="tests/service/test_networking.py::test_the_region_that_nobody_gave",
    ),
    Mutant(
        "a tail replaces those of other shards",
        "source.py",
        "same = name or (stream, None if shards is None else frozenset(shards))",
        "same = name or stream",
        tests="tests/reading/test_tail.py::test_tails_of_other_shards_run_side_by_side",
    ),
    Mutant(
        "the fold of a local time is lost",
        "core/position.py",
        ".replace(fold=timestamp.fold)",
        "",
        tests="tests/core/test_position.py::test_the_second_half_past_two",
    ),
    Mutant(
        "a local time is told each time it is read",
        "source.py",
        "start, end = moment(start), moment(end)",
        "pass",
        tests=f"{TIMES}[read-start0]",
    ),
    Mutant(
        "a warning points into the package",
        "errors.py",
        "warnings.warn(one_line(message), UserWarning, stacklevel=most + 1)",
        "warnings.warn(one_line(message), UserWarning, stacklevel=2)",
        tests=f"{TIMES}[sync-start0]",
    ),
    Mutant(
        "a tail too small for a record is silent",
        "reading/buffer.py",
        "if drop >= rows.num_rows and not self._rows:",
        "if False:",
        tests="tests/reading/test_tail.py::test_a_tail_smaller_than_a_record_says_so",
    ),
    Mutant(
        "the fastest shard bounds a verdict",
        "table/verify.py",
        "up_to = min(times) if times and len(times) == len(reached) else None",
        "up_to = max(times) if times and len(times) == len(reached) else None",
        tests=STATUS,
    ),
    Mutant(
        "a shard that was never read bounds no verdict",
        "table/verify.py",
        "up_to = min(times) if times and len(times) == len(reached) else None",
        "up_to = min(times, default=None)",
        tests=STATUS,
    ),
    Mutant(
        "a child that was not begun bounds no verdict",
        "table/verify.py",
        "open_ones = [shard_id for shard_id in ours if not checkpoints[shard_id].ended]",
        "open_ones = [shard_id for shard_id in ours if checkpoints[shard_id].seen and not checkpoints[shard_id].ended]",
        tests=STATUS,
    ),
    Mutant(
        "a stopped sync is as of now",
        "syncing/sync.py",
        "            None if self.is_active else self._readers.stopped_at,\n",
        "            None,\n",
        tests=STATUS,
    ),
    Mutant(
        "a sync that was waited for warns at exit",
        "syncing/sync.py",
        "        self._is_left_alone = False\n        caught_up",
        "        caught_up",
        tests=f"{STATUS}::test_a_script_that_waited_for_nothing_is_warned",
    ),
    Mutant(
        "a region may point anywhere",
        "core/names.py",
        "rf\"[a-z]{{2,4}}(-[a-z]+){{0,2}}-({'|'.join(_DIRECTIONS)})-\\d{{1,2}}\"",
        'r"[a-z]{2,4}(-[a-z]+){1,3}-\\d{1,2}"',
        tests="tests/service/test_networking.py::test_a_mistyped_region_is_refused_with_what_was_meant",
    ),
    Mutant(
        "the endpoint of all services comes before that of Kinesis",
        "service/session.py",
        'os.environ.get("AWS_ENDPOINT_URL_KINESIS"),',
        'os.environ.get("AWS_ENDPOINT_URL"),',
        tests="tests/service/test_networking.py::test_a_source_shows_where_its_profile_leads",
    ),
    Mutant(
        "a source shows the password of a configured endpoint",
        "service/session.py",
        'return masked(next((url for url in found if url), ""))',
        'return next((url for url in found if url), "")',
        tests="tests/service/test_networking.py::test_a_source_shows_no_password_of_a_configured_endpoint",
    ),
    Mutant(
        "latest is an end",
        "core/position.py",
        "if end.kind is not Kind.AT_TIMESTAMP or end.timestamp is None:",
        "if end.timestamp is None:",
        tests="tests/core/test_position.py",
    ),
]

SUITE = Suite(MUTANTS, (WHERE,))
