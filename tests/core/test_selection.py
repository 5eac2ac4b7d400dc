"""What a sync keeps: which expressions it takes, what a table records of them, and where a sync with an end stops."""

from __future__ import annotations

import json
import threading
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.core.selection import COLUMNS, EVERYTHING, Selection, Where, check_same
from kinesis_nb.core.shards import Shard, hash_key
from kinesis_nb.reading.ending import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA, KEY, SUB = pl.col("data"), pl.col("partition_key"), pl.col("sub_sequence_number")
LOCK = threading.Lock()  # it cannot be pickled
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

ROW_BY_ROW = [
    DATA.str.contains("x") & KEY.is_in(["a", "b"]),
    DATA.str.json_path_match("$.n").cast(pl.Int64, strict=False) > 3,
    DATA.str.json_decode(pl.Struct({"n": pl.Int64})).struct.field("n") > 1,
    pl.col("kinesis_ingestion_timestamp") > NOON,
    pl.col("data_raw").is_null(),
    pl.when(DATA == "a").then(statement=True).otherwise(statement=False),
    DATA.str.split(",").list.len() > 1,
    SUB.is_between(0, 1),
    DATA.replace_strict({"a": 1}, default=0) > 0,
    pl.lit(value=True),
]
ACROSS_ROWS = [
    DATA.is_first_distinct(),
    KEY.is_duplicated(),
    SUB.sum().over("partition_key") > 1,
    DATA.str.len_chars().over("partition_key") > 1,
    DATA.shift(1) == "a",
    SUB.cum_sum() > 3,
    DATA.cum_count() <= 5,
    SUB.diff() > 0,
    SUB.mean() < SUB,
    SUB.rank() > 1,
    DATA.rle_id() > 1,
    SUB.rolling_mean(2) > 1,
    DATA.forward_fill() == "a",
    DATA.sort_by("partition_key") == "a",
    DATA.reverse() == "a",
    DATA.first() == DATA,
    (DATA == "a").any(),
    pl.len() > 1,
    pl.int_range(pl.len()) < 5,
    DATA.str.contains("x") & DATA.is_unique(),
]


def rows_of(*data: str, key: str = "k", at: Sequence[datetime] = ()) -> pa.RecordBatch:
    columns: dict[str, Any] = {
        "partition_key": [key] * len(data),
        "data": list(data),
        "kinesis_ingestion_timestamp": list(at) or [NOON] * len(data),
        "foundry_ingestion_timestamp": [NOON] * len(data),
        "shard_id": ["shardId-000000000000"] * len(data),
        "sequence_number": [str(number) for number in range(len(data))],
        "sub_sequence_number": [0] * len(data),
        "data_raw": [None] * len(data),
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


@pytest.mark.parametrize("expression", ROW_BY_ROW, ids=str)
def test_an_expression_that_decides_on_each_row_is_taken(expression: pl.Expr) -> None:
    """It keeps the same rows of a batch as of each of its rows alone."""
    chosen = Selection(where=Where.of(expression))
    rows = rows_of("a", '{"n": 7}', "x,y")
    if "json" in str(expression):
        rows = rows_of('{"n": 1}', '{"n": 7}', '{"m": 7}')
    one_by_one = [chosen.keep(rows.slice(place, 1)) for place in range(rows.num_rows)]
    assert chosen.keep(rows).to_pylist() == pa.Table.from_batches(one_by_one).to_pylist()


@pytest.mark.parametrize("expression", ACROSS_ROWS, ids=str)
def test_an_expression_that_looks_across_rows_is_refused(expression: pl.Expr) -> None:
    """What it means would depend on how the rows were cut into batches."""
    with pytest.raises(kn.ConfigError, match=r"across rows[^$]*hint: "):
        Where.of(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (DATA.map_elements(bool, return_dtype=pl.Boolean), "Python function"),
        (DATA.map_elements(LOCK.__eq__, return_dtype=pl.Boolean), "Python function"),
        (DATA.map_batches(lambda s: s == "a", return_dtype=pl.Boolean, is_elementwise=True), "Python function"),
        (pl.col("foundry_ingestion_timestamp") > NOON, "cannot be applied"),
        (pl.col("shard_offset") > 1, "cannot be applied"),
    ],
)
def test_what_a_table_cannot_record_is_refused(expression: pl.Expr, reason: str) -> None:
    """A Python function, the time of a commit that has not come, a column that there is not."""
    with pytest.raises(kn.ConfigError, match=rf"{reason}[^$]*hint: "):
        Where.of(expression)


def test_a_text_that_looks_like_a_python_function_is_a_text() -> None:
    """Only what polars itself calls one counts."""
    Where.of(DATA == '{"AnonymousFunction":')


def test_null_is_not_kept_and_a_literal_counts_for_each_row() -> None:
    """As in a filter of polars."""
    assert (
        Selection(where=Where.of(DATA.str.json_path_match("$.n") == "1")).keep(rows_of("{}", '{"n":1}')).num_rows == 1
    )
    assert Selection(where=Where.of(pl.lit(value=True))).keep(rows_of("a", "b")).num_rows == 2
    both = pa.Table.from_batches([rows_of("a", "b"), rows_of("a", key="other")]).combine_chunks().to_batches()[0]
    assert Selection(key="k", where=Where.of(DATA == "a")).keep(both).num_rows == 1
    assert Selection(key="other").keep(both)["partition_key"].to_pylist() == ["other"]
    assert EVERYTHING.keep(both) is both


def test_an_expression_that_fails_on_a_row_says_so() -> None:
    """An error of ours, with the shard and what to do."""
    chosen = Selection(where=Where.of(DATA.cast(pl.Int64) > 1))
    assert chosen.keep(rows_of("1", "2")).num_rows == 1
    with pytest.raises(kn.ConfigError, match=r"shardId-000000000000: .*[^$]*hint: .*strict=False"):
        chosen.keep(rows_of("1", "many"))


# --- which shards


def test_a_key_is_in_the_shards_that_hold_it() -> None:
    """And of the two parents of a merge one alone held it, where it is known which."""
    key = "k"
    holding = Shard("b", hash_range=(hash_key(key), hash_key(key)))
    child = Shard("c", ("a", "b"))
    assert Selection(key=key).wants(holding)
    assert not Selection(key=key).wants(Shard("a", hash_range=(0, hash_key(key) - 1)))
    assert not Selection(key=key).wants(Shard("d", hash_range=(hash_key(key) + 1, 2**128 - 1)))
    assert Selection(key=key).parents(child, {"b"}) == ("b",)
    assert Selection(key=key).parents(child, ()) == ("a", "b")
    assert EVERYTHING.parents(child, {"b"}) == ("a", "b")
    assert Selection(shards=frozenset({"a", "c"})).parents(child, ()) == ("a",)
    assert not Selection(shards=frozenset({"a"}), key=key).wants(holding)


# --- the record in a table

SELECTIONS = [
    EVERYTHING,
    Selection(shards=frozenset({"a", "b"})),
    Selection(shards=frozenset({"a"})),
    Selection(key="k"),
    Selection(key="l"),
    Selection(decompress=True),
    Selection(where=Where.of(DATA == "a")),
    Selection(where=Where.of(DATA.is_in(pl.Series(["a"])))),
    Selection(where=Where.of(DATA.is_in(pl.Series(["b"])))),
    Selection(key="k", where=Where.of(DATA == "a")),
]


@pytest.mark.parametrize("wanted", SELECTIONS, ids=str)
@pytest.mark.parametrize("found", SELECTIONS, ids=str)
def test_a_table_takes_the_selection_that_it_was_made_with(found: Selection, wanted: Selection) -> None:
    """And no other one, even if polars shows both expressions alike."""
    if found == wanted:
        check_same(found.record(), wanted.record(), "/t")
        return
    with pytest.raises(kn.TableError, match=r"/t keeps .*, and this call asks for .*[^$]*hint: "):
        check_same(found.record(), wanted.record(), "/t")


def test_a_table_without_a_selection_records_nothing() -> None:
    """So it is as tables were before there was one."""
    assert EVERYTHING.record() == ""
    assert json.loads(Selection(key="k").record()) == {"key": "k"}


def test_the_order_of_shards_does_not_matter() -> None:
    """The record is the same in every process."""
    record = json.loads(Selection(shards=frozenset({"b", "a", "c"})).record())
    assert record == {"shards": ["a", "b", "c"]}


def test_another_version_of_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may show and digest the same expression otherwise, so a table cannot insist; it does on everything else."""
    mine = Selection(key="k", where=Where.of(DATA == "a"))
    found = json.loads(mine.record())
    monkeypatch.setattr(pl, "__version__", "99.0")
    check_same(json.dumps(found | {"digest": "other"}), mine.record(), "/t")
    with pytest.warns(UserWarning, match=r"/t was made with where=col\(data\) is a by polars"):
        check_same(json.dumps(found | {"digest": "other", "where": "col(data) is a"}), mine.record(), "/t")
    for other in (Selection(where=mine.where), Selection(key="l", where=mine.where), Selection(key="k"), EVERYTHING):
        asked = other.record()
        with warnings.catch_warnings(action="ignore"), pytest.raises(kn.TableError):
            check_same(json.dumps(found), asked, "/t")


# --- where it ends


@given(st.lists(st.lists(st.integers(-3, 3), max_size=5), max_size=5))
def test_rows_up_to_the_last_one_that_arrived_in_time(batches: list[list[int]]) -> None:
    """However they came, and whatever arrived too late before that one."""
    ending = Ending(NOON)
    taken: list[int] = []
    for batch in batches:
        at = [NOON + timedelta(seconds=second) for second in batch]
        now, late = ending.split("a", rows_of(*map(str, batch), at=at))
        ending.hold("a", late)
        taken += [int(text) for rows in now for text in rows["data"].to_pylist()]
        assert ending.seen(NOON + timedelta(hours=1), late) == (NOON if late else NOON + timedelta(hours=1))
    everything = [second for batch in batches for second in batch]
    last = max((place for place, second in enumerate(everything) if second <= 0), default=-1)
    assert taken == everything[: last + 1]


def test_shards_are_held_back_apart() -> None:
    """What one shard holds back does not go into the table with rows of another one."""
    ending = Ending(NOON)
    ending.hold("a", ending.split("a", rows_of("late", at=[NOON + timedelta(seconds=1)]))[1])
    assert [rows.num_rows for rows in ending.split("b", rows_of("in time"))[0]] == [1]
    assert [rows.num_rows for rows in ending.split("a", rows_of("in time"))[0]] == [1, 1]


def test_a_batch_has_all_columns_but_the_time_of_the_commit() -> None:
    """What `where` may name is what the table will have."""
    assert {*COLUMNS, "foundry_ingestion_timestamp"} == set(SCHEMA.names)
