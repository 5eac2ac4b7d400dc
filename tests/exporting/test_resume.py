"""Whatever ends an export, its report says what was written, and the rest of the same rows can be sent."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply, PartialFailure
from kinesis_nb.exporting.report import DoneRows, ExportReport, QueueLimit, sum_of
from tests.conftest import Streams, by_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinesis_nb.emulator import Emulator

ROWS, BATCH, KEYS = 400, 50, 40


class Ours(Exception):
    """An exception of the user's own code."""


def frame(rows: int = ROWS) -> pl.DataFrame:
    return pl.DataFrame({"k": [f"key-{n % KEYS}" for n in range(rows)], "n": range(rows)})


def expected(df: pl.DataFrame) -> dict[str, list[int]]:
    return {str(key): rows["n"].to_list() for (key,), rows in df.group_by("k")}


def reader(df: pl.DataFrame, error: BaseException | None = None, after: int = 6) -> pa.RecordBatchReader:
    """Return a stream of batches, which may fail after some of them."""
    table = df.to_arrow()

    def batches() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(table.to_batches(BATCH)):
            if error is not None and number == after:
                raise error
            yield batch

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def lazy(df: pl.DataFrame) -> pl.LazyFrame:
    """Return a query with an expression that fails for a late row."""
    wrong = pl.when(pl.col("n") == 300).then(pl.lit("x")).otherwise(pl.col("n").cast(pl.String))
    return df.lazy().with_columns(n=wrong.cast(pl.Int64, strict=True))


def failing(error: BaseException) -> Callable[[int], None]:
    """Return a `progress=` that fails when something was written."""

    def progress(rows: int) -> None:
        if rows > BATCH:
            raise error

    return progress


def encode(row: dict[str, Any]) -> str:
    if row["n"] == 300:
        raise Ours
    return json.dumps(row)


ENDS: dict[str, tuple[type[BaseException] | None, Callable[[pl.DataFrame], Any], dict[str, Any]]] = {
    "a reader that raises": (kn.ConfigError, lambda df: reader(df, OSError("the share went away")), {}),
    "a reader with an error of its own": (kn.ConfigError, lambda df: reader(df, Ours("no")), {}),
    "a reader out of memory": (MemoryError, lambda df: reader(df, MemoryError()), {}),
    "a reader that is interrupted": (None, lambda df: reader(df, KeyboardInterrupt()), {}),
    "a reader that exits": (SystemExit, lambda df: reader(df, SystemExit(1)), {}),
    "a lazy expression": (kn.ConfigError, lazy, {"on_bad_key": "skip"}),
    "progress with an error of its own": (Ours, reader, {"progress": failing(Ours("no"))}),
    "progress that is interrupted": (None, reader, {"progress": failing(KeyboardInterrupt())}),
    "progress that stops": (kn.Closed, reader, {"progress": failing(kn.Closed("stop"))}),
    "encode": (kn.ConfigError, reader, {"encode": encode}),
    "a key that no record can have": (
        kn.ConfigError,
        lambda df: reader(df.with_columns(k=pl.when(pl.col("n") != 300).then("k"))),
        {},
    ),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read little at once, so that something is sent before the end of a small frame is read."""
    monkeypatch.setattr("kinesis_nb.exporting.tables.CHUNK_ROWS", BATCH)
    monkeypatch.setattr("kinesis_nb.exporting.frame.STREAMED", QueueLimit(BATCH, 2**20))


def ended(error: type[BaseException] | None, call: Callable[[], ExportReport]) -> ExportReport:
    """Return the report of an export that ends with an error; of one that is interrupted it is what it returns."""
    if error is None:
        with pytest.warns(UserWarning, match="export was interrupted"):
            return call()
    with pytest.raises(error) as caught:
        call()
    report = caught.value.report  # type: ignore[attr-defined]
    assert isinstance(report, ExportReport)
    return report


@pytest.mark.parametrize("how", ENDS)
def test_every_end_has_its_report(source: kn.Source, streams: Streams, how: str) -> None:
    """It says how many rows were written, and with it the same rows are sent to their end, each once and in order."""
    error, rows, options = ENDS[how]
    arn, df = streams.create(shards=2), frame()
    report = ended(error, lambda: source.export_df(rows(df), arn, **{"progress": False, **options}))
    there = len(source.read("orders", progress=False))
    assert 0 < report.rows < ROWS
    assert report.rows <= there <= report.rows + report.possible_duplicates
    assert report.note in {"failed", "interrupted"}
    rest = source.export_df(reader(df), arn, resume=report, progress=False)
    assert report.rows + rest.rows == ROWS
    assert by_key(source.read("orders", progress=False)) == expected(df)


def test_an_end_before_the_first_request_has_a_report_too(
    source: kn.Source, streams: Streams, emulator: Emulator
) -> None:
    """Nothing was written, and it says so."""
    arn = streams.create()
    report = ended(kn.ConfigError, lambda: source.export_df(pl.DataFrame({"n": [1]}), arn, progress=False))
    assert (report.rows, report.settled.end) == (0, 0)
    broken = pl.LazyFrame({"k": ["a"]}).select(pl.col("nope"))
    report = ended(kn.ConfigError, lambda: source.export_df(broken, arn, progress=False))
    assert (report.rows, emulator.requests.total()) == (0, 0)


# --- other rows


def half(source: kn.Source, emulator: Emulator, arn: str, rows: Any, **options: Any) -> ExportReport:
    """Export until a request is refused for good; some rows in the middle are done then, others before them not."""
    emulator.on("PutRecords", PartialFailure(0.5), ErrorReply("AccessDeniedException"))
    return ended(kn.AccessDenied, lambda: source.export_df(rows, arn, progress=False, **options))


OTHERS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "in another order": lambda df: df.reverse(),
    "in another order, read as they are sent": lambda df: df.lazy().reverse(),
    "in another order, by a reader": lambda df: reader(df.reverse()),
    "pairs changed places": lambda df: df.sort(pl.int_range(pl.len()) // 2, -pl.int_range(pl.len())),
    "moved by one": lambda df: pl.concat([df[-1:], df[:-1]]),
    "another value": lambda df: df.with_columns(n=pl.col("n") + (pl.col("n") < KEYS)),
    "another type of value": lambda df: df.with_columns(pl.col("n").cast(pl.String)),
    "another key": lambda df: df.with_columns(k="x" + pl.col("k")),
    "fewer": lambda df: df[:1],
    "none": lambda df: df[:0],
}


@pytest.mark.parametrize("how", OTHERS)
def test_other_rows_are_refused(source: kn.Source, streams: Streams, emulator: Emulator, how: str) -> None:
    """A report is about rows in their order; before a request others are refused, and the report stays good."""
    arn, df = streams.create(shards=2), frame()
    report = half(source, emulator, arn, df)
    assert 0 < report.rows < ROWS
    asked = emulator.requests["PutRecords"]
    with pytest.raises(
        kn.ConfigError, match=r"these are not the rows of the report|report is of a frame with more"
    ) as e:
        source.export_df(OTHERS[how](df), arn, resume=report, progress=False)
    assert emulator.requests["PutRecords"] == asked
    source.export_df(df, arn, resume=e.value.report, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)


def test_nothing_is_sent_before_all_is_compared(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A row that was given up far behind the first open one is compared before the first request, also of a stream."""
    arn = streams.create()
    df = frame().with_columns(k=pl.when(pl.col("n") < 350).then("k"))
    report = half(source, emulator, arn, df, on_bad_key="skip")
    assert report.settled.first < BATCH < report.settled.end == ROWS
    asked = emulator.requests["PutRecords"]
    late = df.with_columns(n=pl.col("n") + (pl.col("n") == ROWS - 1))
    with pytest.raises(kn.ConfigError, match=r"not the rows of the report: rows 399 \(1 in all\)"):
        source.export_df(reader(late), arn, resume=report, progress=False, on_bad_key="skip")
    assert emulator.requests["PutRecords"] == asked
    source.export_df(reader(df), arn, resume=report, progress=False, on_bad_key="skip")
    assert by_key(source.read("orders", progress=False)) == expected(df[:350])


def test_a_query_without_an_order_is_noticed(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Also where the rows that are done are all behind the first one that is not."""
    arn, df = streams.create(shards=2), frame()
    emulator.on("PutRecords", PartialFailure(0.5), ErrorReply("AccessDeniedException"))
    report = ended(kn.AccessDenied, lambda: source.export_df(df.lazy(), arn, progress=False))
    assert report.settled.first < report.settled.end
    shuffled = df.sample(fraction=1, shuffle=True, seed=1)
    with pytest.raises(kn.ConfigError, match="these are not the rows of the report"):
        source.export_df(shuffled.lazy(), arn, resume=report, progress=False)


def test_an_export_that_is_through_is_about_its_rows_in_their_order(source: kn.Source, streams: Streams) -> None:
    """All rows are done and share one mark: it knows their order too, in one batch and over several."""
    arn, df = streams.create(), frame(120)
    report = source.export_df(df, arn, progress=False)
    assert source.export_df(df, arn, resume=report, progress=False).rows == 0
    for others in (df.reverse(), pl.concat([df[1:2], df[:1], df[2:]]), df.with_columns(n=pl.col("n") + 1)):
        with pytest.raises(kn.ConfigError, match="the first 120 rows differ"):
            source.export_df(others, arn, resume=report, progress=False)


SAME: dict[str, Callable[[pl.DataFrame], Any]] = {
    "LazyFrame": pl.DataFrame.lazy,
    "Arrow": pl.DataFrame.to_arrow,
    "reader": reader,
    "pandas": lambda df: pd.DataFrame({"k": df["k"].to_list(), "n": df["n"].to_list()}),
    "categories": lambda df: df.with_columns(pl.col("k").cast(pl.Categorical)),
    "with what was wrong put right": lambda df: df.with_columns(n=pl.col("n") - 0 * (pl.col("n") > KEYS)),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_rows_in_another_frame_are_taken(
    source: kn.Source, streams: Streams, emulator: Emulator, how: str
) -> None:
    """It is the rows that count, not the library that holds them."""
    arn, df = streams.create(shards=2), frame()
    report = pickle.loads(pickle.dumps(half(source, emulator, arn, df)))
    source.export_df(SAME[how](df), arn, resume=report, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)


def test_rows_that_are_not_settled_may_be_others(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """The row that ended an export is put right, and the rest is sent."""
    arn = streams.create()
    df = frame(100).with_columns(k=pl.when(pl.col("n") != 90).then("k"))
    report = ended(kn.ConfigError, lambda: source.export_df(reader(df), arn, progress=False))
    right = df.with_columns(pl.col("k").fill_null("late"))
    source.export_df(reader(right), arn, resume=report, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(right)


def test_only_what_a_record_is_made_of_counts(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """The same records read twice differ in when they were read; that is not part of what is sent."""
    streams.create()
    streams.put(30, keys=30)
    arn = streams.create("copy")
    report = half(source, emulator, arn, source.read("orders", progress=False))
    again = source.read("orders", progress=False).to_polars()
    again = again.with_columns(pl.col("foundry_ingestion_timestamp").dt.offset_by("1h"))
    source.export_df(again, arn, resume=report, progress=False)
    assert len(source.read("copy", progress=False)) == 30
    edited = again.with_columns(data=pl.lit("{}"))
    with pytest.raises(kn.ConfigError, match="these are not the rows of the report"):
        source.export_df(edited, arn, resume=report, progress=False)


def test_a_report_of_a_rest_is_about_all_rows(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """An export that was resumed and fails again has a report that can be resumed, and refuses others, as the first."""
    arn, df = streams.create(shards=2), frame()
    first = half(source, emulator, arn, df)
    second = half(source, emulator, arn, df.lazy(), resume=first)
    assert second.settled.end >= first.settled.end
    with pytest.raises(kn.ConfigError, match="these are not the rows of the report"):
        source.export_df(df.reverse(), arn, resume=second, progress=False)
    third = source.export_df(df, arn, resume=second, progress=False)
    assert first.rows + second.rows + third.rows == ROWS
    assert by_key(source.read("orders", progress=False)) == expected(df)


def test_a_report_without_marks_is_refused(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Which rows it is about cannot be checked."""
    arn, settled = streams.create(), DoneRows()
    settled.add([0, 2])
    report = ExportReport(stream="orders", settled=settled)
    with pytest.raises(kn.ConfigError, match="these are not the rows of the report"):
        source.export_df(frame(), arn, resume=report, progress=False)
    assert emulator.requests.total() == 0


@given(st.data())
def test_a_changed_row_is_noticed_if_it_is_done(data: st.DataObject) -> None:
    """Whatever was done in whatever order, and however the rows are cut into batches: that row, and no other one."""
    count = data.draw(st.integers(1, 40))
    marks = np.array(data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count)), np.uint64)
    order = data.draw(st.permutations(range(count)))
    settled, size = DoneRows(), data.draw(st.integers(1, count))
    for start in range(0, count, size):
        settled.mark(start, marks[start : start + size])
    for rows in (order[: count // 3], order[count // 3 : data.draw(st.integers(0, count))]):
        settled.add(rows)
    settled = settled.copy()
    changed = data.draw(st.integers(0, count - 1))
    others = marks.copy()
    others[changed] ^= np.uint64(1)
    size = data.draw(st.integers(1, count))
    for read, is_same in ((marks, True), (others, changed not in settled)):
        found = [row for start in range(0, count, size) for row in settled.differ(start, read[start : start + size])]
        assert found == ([] if is_same or changed < settled.first else [changed])
        beginning = sum(
            sum_of(read[start : min(start + size, settled.first)]) for start in range(0, settled.first, size)
        )
        assert settled.is_beginning(beginning) == (is_same or changed >= settled.first)


# --- arguments

THINGS: list[Any] = [
    5, 0.5, b"x", [], ["k", "n"], {}, {"k"}, object(), pl.col("k"), pl.Series(["k"]), pd.DataFrame(), np.array(["k"]),
    np.int64(3), "nope", kn, len, float("nan"),
]  # fmt: skip
NAMES = (
    "df", "output_stream_arn", "partition_column", "encode", "data_column", "order", "aggregate", "on_bad_key",
    "on_ambiguous", "resume", "progress",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_argument_gives_an_error_of_another_library(
    source: kn.Source, streams: Streams, emulator: Emulator, name: str
) -> None:
    """Every wrong argument is refused in two lines before a request; what is right is used."""
    arn, refused = streams.create(), 0
    for thing in THINGS:
        if name == "progress" and callable(thing):  # an error of the user's own function stays what it is
            continue
        before = emulator.requests.total()
        try:
            source.export_df(**{"df": frame(3), "output_stream_arn": arn, "progress": False, name: thing})
        except kn.KinesisError as error:
            refused += 1
            assert error.hint
            assert emulator.requests.total() == before, thing
    assert refused > len(THINGS) / 3


def test_a_refused_argument_is_named(source: kn.Source) -> None:
    """By its name and its type, with what to give instead."""
    arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
    for wrong in (pl.col("k"), ["k"]):
        with pytest.raises(
            kn.ConfigError, match=r"partition_column= does not accept this (Expr|list)\nhint: give text"
        ):
            source.export_df(frame(), arn, partition_column=wrong)  # type: ignore[arg-type]
    with pytest.raises(kn.ConfigError, match="progress= does not accept this DataFrame"):
        source.export_df(frame(), arn, progress=pd.DataFrame())  # type: ignore[arg-type]
