"""Defects in what a person sees: the order, filters, columns and pages of a grid, the state of a tail, its rate."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

GRID, VIEWS, RATE = "tests/widgets/test_grid.py", "tests/widgets/test_views.py", "tests/widgets/test_rate.py"
TROUBLE = "tests/widgets/test_trouble.py"

MUTANTS = [
    Mutant(
        "rows are in the order of their batches",
        "widgets/grid/rows.py",
        'return frame.sort("arrived", "number", descending=True)',
        'return frame.sort("number", descending=True)',
        tests=f"{GRID}::test_records_of_many_shards_are_by_arrival",
    ),
    Mutant(
        "held rows have no bound",
        "widgets/grid/rows.py",
        "self._rows > self._most_rows or self._bytes > self._most_bytes",
        "self._rows > self._most_rows and self._bytes > self._most_bytes",
        tests=f"{VIEWS}::test_held_rows_are_bounded",
    ),
    Mutant(
        "rows of one look are left out",
        "widgets/grid/rows.py",
        "if first + rows.num_rows - 1 > beyond",
        "if first > beyond",
        tests=f"{VIEWS}::test_a_view_shows_the_newest_rows_first",
    ),
    Mutant(
        "a page is one row off",
        "widgets/grid/snapshot.py",
        "self.places[max(0, first) : max(0, last)]",
        "self.places[max(0, first) : max(0, last - 1)]",
        tests=f"{GRID}::test_pages_are_the_rows_of_their_places",
    ),
    Mutant(
        "empty values are sorted to the top",
        "widgets/grid/snapshot.py",
        "nulls_last=True",
        "nulls_last=False",
        tests=f"{GRID}::test_sorting_is_by_value_and_not_by_text",
    ),
    Mutant(
        "an upper edge belongs to every bar",
        "widgets/grid/filters.py",
        'closed="both" if self.closed else "left"',
        'closed="both"',
        tests=f"{GRID}::test_a_window_of_time_is_a_filter",
    ),
    Mutant(
        "a bar has a value twice",
        "widgets/grid/profile.py",
        "np.minimum(((numbers - low) / step).astype(np.int64), count - 1)",
        "np.minimum(((numbers - low) / step).round().astype(np.int64), count - 1)",
        tests=f"{GRID}::test_a_click_on_a_bar_is_what_polars_filters",
    ),
    Mutant(
        "a new filter replaces the others",
        "widgets/rows_view.py",
        "chips=(*kept, *added)",
        "chips=(*(added or kept),)",
        tests=f"{GRID}::test_a_chip_can_be_removed",
    ),
    Mutant(
        "fields beyond the sixteenth are left out",
        "widgets/grid/cells.py",
        "MOST_FIELDS, MOST_SHOWN = 500, 100",
        "MOST_FIELDS, MOST_SHOWN = 16, 16",
        tests=f"{GRID}::test_all_fields_can_be_chosen",
    ),
    Mutant(
        "JSON columns leave the data out",
        "widgets/grid/cells.py",
        "return [*BASE, *fields[:MOST_SHOWN], DATA]",
        "return [*BASE, *fields[:MOST_SHOWN]]",
        tests=f"{GRID}::test_all_fields_can_be_chosen",
    ),
    Mutant(
        "a page may name any column",
        "widgets/grid/cells.py",
        "if str(code) not in known:",
        "if False:",
        tests=f"{GRID}::test_a_column_that_is_not_there_is_refused",
    ),
    Mutant(
        "the code calls a field what it is not called",
        "widgets/grid/code.py",
        'f"{name}_json" if name in',
        "name if name in",
        tests=f"{GRID}::test_the_code_gives_the_rows_that_are_shown",
    ),
    Mutant(
        "the last part of a file is not sent",
        "widgets/grid/download.py",
        "is_last = sent >= len(self._data)",
        "is_last = sent + PART >= len(self._data)",
        tests=f"{GRID}::test_data_arrive_exactly",
    ),
    Mutant(
        "a stretch of time loses what is old",
        "widgets/grid/timeline.py",
        "counted.update(dict(",
        "counted |= Counter(dict(",
        tests=f"{GRID}::test_rows_over_time_by_shard",
    ),
    Mutant(
        "a rate is what came since the last look",
        "widgets/rate.py",
        "WINDOW_SECONDS = 10.0",
        "WINDOW_SECONDS = 1.5",
        tests=RATE,
    ),
    Mutant(
        "a tail that is not read looks healthy",
        "widgets/shard_map.py",
        "return bool(shard.error) or shard.waiting_seconds >= SILENT_SECONDS",
        "return False",
        tests=TROUBLE,
    ),
    Mutant(
        "who waits for a response is not seen",
        "reading/consumer.py",
        "since = self._waits_since",
        "since = None",
        tests=TROUBLE,
    ),
    Mutant(
        "a throttle is no throttle",
        "reading/consumer.py",
        "error.message, isinstance(error, Throttled)",
        "error.message, False",
        tests=TROUBLE,
    ),
    Mutant(
        "a failed tail leaves no error",
        "widgets/tail_view.py",
        "self._error = self.tail.error or self._error",
        "pass",
        tests=TROUBLE,
    ),
]
SUITE = Suite(MUTANTS)
