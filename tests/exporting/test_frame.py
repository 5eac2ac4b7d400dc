"""Exports: order per key, nothing silently lost."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake.schema import PrimitiveType

import kinesis_nb as kn
from kinesis_nb.emulator import CutBody, EmptyReply, ErrorReply, PartialFailure, Reset, Stall
from kinesis_nb.exporting.report import QueueLimit, Tally
from kinesis_nb.service.client import KinesisClient
from tests.conftest import Streams, by_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kinesis_nb.core.transport import PutResult
    from kinesis_nb.emulator import Emulator


def frame(rows: int, keys: int = 5, seed: int = 1) -> pl.DataFrame:
    rng, out = random.Random(seed), []
    count: dict[str, int] = {}
    for _ in range(rows):
        key = f"key-{rng.randrange(keys)}"
        count[key] = count.get(key, 0) + 1
        out.append({"name": key, "n": count[key]})
    return pl.DataFrame(out)


def expected(df: pl.DataFrame) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key, n in df.iter_rows():
        found.setdefault(key, []).append(n)
    return found


def test_writes_every_row_in_order_per_key(source: kn.Source, streams: Streams) -> None:
    """What was exported is read back once and in order per key, and the report says what was done."""
    arn, df = streams.create(shards=4), frame(700)
    report = source.export_df(df, arn, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)
    assert (report.rows, report.possible_duplicates, len(report.failed)) == (700, 0, 0)
    assert report.bytes == sum(len(f'{{"name":"{k}","n":{n}}}') + len(k) for k, n in df.iter_rows())


@pytest.mark.parametrize("seed", range(2))
def test_order_survives_partial_failures(source: kn.Source, streams: Streams, emulator: Emulator, seed: int) -> None:
    """Records refused one by one, requests refused as a whole and faults before the request change nothing."""
    arn, df = streams.create(shards=3), frame(300, seed=seed)
    emulator.on(
        "PutRecords",
        PartialFailure(0.5, "ProvisionedThroughputExceededException"),
        ErrorReply("ProvisionedThroughputExceededException"),
        PartialFailure(0.3, "InternalFailure"),
        Reset(before=True),
        PartialFailure(0.9, "ProvisionedThroughputExceededException"),
        ErrorReply("InternalFailure"),
    )
    report = source.export_df(df, arn, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)
    assert report.rows == 300
    assert report.retries > 0
    assert sum(emulator.delivered.values()) == 6


def test_unknown_outcomes_are_counted(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A response lost after its request was applied loses no row, and doubles at most those reported."""
    arn, df = streams.create(), frame(40, keys=40)
    emulator.on("PutRecords", Reset(before=False), CutBody(at=0.5))
    report = source.export_df(df, arn, progress=False)
    found = source.read("orders", progress=False).to_polars()
    assert set(found["partition_key"]) == set(df["name"])
    assert 0 < len(found) - len(df) <= report.possible_duplicates
    assert emulator.delivered.total() == 2


def test_synced_rows_go_out_byte_for_byte(source: kn.Source, streams: Streams) -> None:
    """Keys and bytes of records that were read come out as they went in, text or not."""
    streams.create()
    payloads = [b"text", b"\xff\x00", b"", "tea ☕".encode()]
    for data in payloads:
        streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=data)
    arn = streams.create("copy")
    source.export_df(source.read("orders", progress=False), arn, progress=False)
    back = source.read("copy", progress=False).to_polars()
    raw = [text.encode() if kept is None else kept for text, kept in back.select("data", "data_raw").iter_rows()]
    assert raw == payloads
    assert set(back["partition_key"]) == {"k"}


def test_values_are_exact_json(source: kn.Source, streams: Streams) -> None:
    """Dates, decimals, large integers, NaN, nulls, bytes and nested values have one JSON form each."""
    arn = streams.create()
    row = {
        "key": "k",
        "when": datetime(2026, 11, 1, 12, 30, tzinfo=UTC),
        "day": date(2026, 11, 1),
        "price": Decimal("0.10"),
        "big": 2**63 - 1,
        "nan": float("nan"),
        "none": None,
        "raw": b"\xff",
        "nested": {"list": [1, 2]},
    }
    source.export_df(pa.Table.from_pylist([row]), arn, progress=False)
    (record,) = source.read("orders", progress=False)
    assert '"price":0.10' in record.data
    assert json.loads(record.data) == {
        "key": "k",
        "when": "2026-11-01T12:30:00Z",
        "day": "2026-11-01",
        "price": 0.1,
        "big": 2**63 - 1,
        "nan": None,
        "none": None,
        "raw": "/w==",
        "nested": {"list": [1, 2]},
    }


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.table], ids=lambda kind: kind.__name__)
def test_takes_any_table(source: kn.Source, streams: Streams, kind: type) -> None:
    """polars, lazy polars, pandas and Arrow tables are the same to it; the first string column is the key."""
    arn = streams.create()
    source.export_df(kind({"n": [1, 2], "who": ["a", "b"], "what": ["x", "y"]}), arn, progress=False)
    assert sorted(by_key(source.read("orders", progress=False)).items()) == [("a", [1]), ("b", [2])]


def test_partition_column_encode_and_order(source: kn.Source, streams: Streams) -> None:
    """A named column gives the keys, a callable gives the data, and order="none" still sends every row."""
    arn, df = streams.create(), pl.DataFrame({"a": ["x", "y"], "b": ["p", "p"]})
    report = source.export_df(df, arn, partition_column="b", encode=lambda row: row["a"], order="none", progress=False)
    back = source.read("orders", progress=False).to_polars()
    assert sorted(back["data"]) == ["x", "y"]
    assert set(back["partition_key"]) == {"p"}
    assert report.requests == 1
    assert repr(report).endswith("partition key: column 'b'>")
    assert "column &#x27;b&#x27;" in report._repr_html_()


def test_the_report_says_which_column_gave_the_keys(source: kn.Source, streams: Streams) -> None:
    """The first string column by default; the own keys of rows that are records."""
    arn = streams.create()
    report = source.export_df(pl.DataFrame({"n": [1], "a": ["x"], "b": ["y"]}), arn, progress=False)
    assert report.partition_column == "a"
    read = source.read("orders", progress=False)
    assert read[0].partition_key == "x"
    assert source.export_df(read, arn, progress=False).partition_column == "partition_key"


def test_categorical_keys_are_strings(source: kn.Source, streams: Streams) -> None:
    """A categorical column of strings gives the keys like a plain one."""
    arn = streams.create()
    source.export_df(pd.DataFrame({"who": pd.Categorical(["a", "b"]), "n": [1, 2]}), arn, progress=False)
    assert sorted(by_key(source.read("orders", progress=False)).items()) == [("a", [1]), ("b", [2])]


def test_empty_frame_sends_nothing(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A frame without rows gives a report of zero and no request."""
    arn = streams.create()
    assert source.export_df(pl.DataFrame({"a": []}, schema={"a": pl.String}), arn, progress=False).rows == 0
    assert emulator.requests.total() == 0


def test_gives_up_a_record_after_some_tries(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A row that is refused again and again with an unknown code is reported with its number and reason."""
    arn = streams.create()
    emulator.on("PutRecords", *(PartialFailure(1, "SomethingNew") for _ in range(5)))
    report = source.export_df(pl.DataFrame({"a": ["x"]}), arn, progress=False)
    assert report.rows == 0
    assert report.failed.rows() == [(0, "SomethingNew: " + report.failed["reason"][0].split(": ", 1)[1])]
    assert "failed" in report._repr_html_()


@pytest.mark.parametrize(
    ("df", "options", "says"),
    [
        (pl.DataFrame({"n": [1]}), {}, "no column of the frame holds strings"),
        (pl.DataFrame({"a": ["x"]}), {"partition_column": "b"}, "has no column 'b'"),
        (pl.DataFrame({"a": ["x"], "n": [1]}), {"partition_column": "n"}, "not strings"),
        (pl.DataFrame({"a": ["x", None, "", "y" * 257]}), {}, r"rows 1, 2, 3 \(3 in all\)"),
        (pl.DataFrame({"a": ["x", "y" * 2**20]}), {"encode": lambda row: row["a"], "partition_column": "a"}, "rows 1 "),
        (pl.DataFrame({"k": ["x"], "a": ["y" * 10 * 2**20]}), {}, "larger than 10,485,760 bytes.*: rows 0 "),
        (pl.DataFrame({"a": ["x"]}), {"order": "fast"}, "order='fast'"),
        (pl.DataFrame({"a": ["x"]}), {"encode": lambda _row: 5}, "encode= returned int"),
        ([1, 2], {}, "a list is not a table"),
        (pl.DataFrame({"a": ["x"], "o": [object()]}), {}, "column 'o' holds Python objects"),
        (pd.DataFrame({"a": ["x", 1]}), {}, "column .a. holds Python objects of different types, int and str: row 1"),
        (pl.DataFrame({"a": ["x"]}), {"encode": "csv"}, "encode= does not accept this str"),
        (pl.DataFrame({"a": ["x"]}), {"encode": lambda row: row["b"]}, "row 0 cannot be encoded: KeyError"),
    ],
)
def test_refuses_before_sending(
    source: kn.Source, streams: Streams, emulator: Emulator, df: object, options: dict[str, Any], says: str
) -> None:
    """A frame that cannot be exported is refused with the rows named, and nothing is sent."""
    arn = streams.create()
    with pytest.raises(kn.ConfigError, match=says):
        source.export_df(df, arn, progress=False, **options)
    assert emulator.requests.total() == 0


def test_keys_of_256_characters_are_allowed(source: kn.Source, streams: Streams) -> None:
    """The limit of a key is 256 characters, not bytes."""
    arn = streams.create()
    assert source.export_df(pl.DataFrame({"a": ["é" * 256]}), arn, progress=False).rows == 1


@pytest.mark.parametrize(
    ("arn", "says"),
    [
        ("orders", r'is not the ARN of a stream\nhint: explore\("orders"\)\.summary\.arn'),
        ("arn:aws:sqs:us-east-1:000000000000:orders", "is not the ARN of a stream"),
        ("arn:aws:kinesis:eu-west-1:000000000000:stream/orders", "stream 'orders' is in eu-west-1"),
    ],
)
def test_refuses_bad_arns(source: kn.Source, emulator: Emulator, arn: str, says: str) -> None:
    """An ARN that is none, or of another region, is refused before any request."""
    with pytest.raises(kn.ConfigError, match=says):
        source.export_df(pl.DataFrame({"a": ["x"]}), arn)
    assert emulator.requests.total() == 0


def test_must_be_enabled(emulator: Emulator) -> None:
    """A source without exports_enabled=True does not write."""
    source = kn.connect(endpoint_url=emulator.endpoint_url, auth=kn.StaticCredentials("a", "b"))
    with pytest.raises(kn.ExportsDisabled, match="exports_enabled=True"):
        source.export_df(pl.DataFrame({"a": ["x"]}), "arn:aws:kinesis:us-east-1:000000000000:stream/orders")


class Interrupted(KinesisClient):
    """A real client; Ctrl-C comes after its second request reached the service."""

    requests = 0

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        results = super().put_records(stream, records)
        self.requests += 1
        if self.requests == 2:
            raise KeyboardInterrupt
        return results


def test_interrupt_reports_what_is_known(source: kn.Source, streams: Streams) -> None:
    """After Ctrl-C the report has the acknowledged rows, and those under way as possible duplicates."""
    arn = streams.create()
    interrupted = kn.Source(source.config, kinesis=Interrupted(source.config))
    with pytest.warns(UserWarning, match="export was interrupted"):
        report = interrupted.export_df(frame(30, keys=10), arn, progress=False)
    assert (report.rows, report.note) == (10, "interrupted")
    assert len(source.read("orders", progress=False)) == 10 + report.possible_duplicates > 10


def test_rows_without_data_are_refused(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A null in the data of a synced frame is named; it does not become an empty record."""
    arn = streams.create()
    with pytest.raises(kn.ConfigError, match="no data in 'data': rows 1 "):
        source.export_df(pl.DataFrame({"partition_key": ["a", "b"], "data": ["x", None]}), arn)
    assert emulator.requests.total() == 0


def test_columns_beside_a_record_are_sent_too(source: kn.Source, streams: Streams) -> None:
    """A frame with more columns than a record goes out as JSON rows of all of them, by its keys, and says so."""
    streams.create()
    streams.put(2, keys=1)
    arn = streams.create("copy")
    parsed = kn.parse_json(source.read("orders", progress=False)).with_columns(total=pl.col("n") * 10)
    with pytest.warns(UserWarning, match=r'one JSON object.*\(n, .*total\): data_column="data" sends'):
        source.export_df(parsed.select("n", pl.exclude("n")), arn, progress=False)
    back = source.read("copy", progress=False).to_polars()
    assert [json.loads(data)["total"] for data in back["data"]] == [10, 20]
    assert set(back["partition_key"]) == {"key-0"}
    source.export_df(parsed, arn, data_column="data", progress=False)
    assert source.read("copy", progress=False).to_polars()["data"][2:].to_list() == ['{"n": 1}', '{"n": 2}']


def test_what_the_user_sees_is_sent(source: kn.Source, streams: Streams) -> None:
    """data_raw counts where data still is its text; where data was changed, that is sent, and the rows are named."""
    arn = streams.create()
    raw = {"data_raw": [b"\xff", b"\xff", b"\xff", None, b"x"]}
    df = pl.DataFrame({"partition_key": list("abcde"), "data": ["\ufffd", "redacted", None, "text", "x"], **raw})
    with pytest.warns(UserWarning, match="data was changed, so it is sent and not data_raw: rows 1 "):
        source.export_df(df, arn, progress=False)
    back = {record.partition_key: record.data_raw or record.data.encode() for record in source.read("orders")}
    assert back == {"a": b"\xff", "b": b"redacted", "c": b"\xff", "d": b"text", "e": b"x"}


def test_a_column_that_users_add_does_not_change_what_follows_a_table(
    source: kn.Source, streams: Streams, tmp_path: Path
) -> None:
    """export_stream() sends records as they came, whatever else is in the table."""
    import deltalake

    streams.create()
    streams.put(3)
    arn = streams.create("copy")
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(timeout=30)
    sync.stop()
    deltalake.DeltaTable(tmp_path / "t").alter.add_columns(
        deltalake.Field("mine", PrimitiveType("string"), nullable=True)
    )
    export = source.export_stream(tmp_path / "t", arn)
    assert export.wait(timeout=30)
    export.stop()
    assert by_key(source.read("copy", progress=False)) == by_key(source.read("orders", progress=False))


def test_data_column_that_is_no_text_is_part_of_the_json(source: kn.Source, streams: Streams) -> None:
    """Only a text column named data is sent as it is."""
    arn = streams.create()
    source.export_df(pl.DataFrame({"partition_key": ["a"], "data": [5]}), arn, progress=False)
    assert [record.data for record in source.read("orders", progress=False)] == ['{"partition_key":"a","data":5}']


def test_resume_sends_only_the_rest(source: kn.Source, streams: Streams) -> None:
    """After an interrupt its report makes the next export send what was not done, in order, and no more."""
    arn, df = streams.create(), frame(200, keys=7)
    interrupted = kn.Source(source.config, kinesis=Interrupted(source.config))
    with pytest.warns(UserWarning, match="export was interrupted"):
        first = interrupted.export_df(df, arn, progress=False)
    second = source.export_df(df, arn, resume=first, progress=False)
    assert first.rows + second.rows == len(df)
    found = by_key(source.read("orders", progress=False))
    assert {key: sorted(set(numbers)) for key, numbers in found.items()} == expected(df)
    assert all(numbers == sorted(numbers) for numbers in found.values())
    assert sum(map(len, found.values())) - len(df) <= first.possible_duplicates
    assert source.export_df(df, arn, resume=second, progress=False).rows == 0


def test_a_failure_has_its_report(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """When the service refuses for good, the error carries a report, and that can be resumed."""
    arn, df = streams.create(), frame(100, keys=3)
    emulator.on("PutRecords", Stall(0), ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied) as caught:
        source.export_df(df, arn, progress=False)
    report = caught.value.report
    assert (report.rows, report.note, report.possible_duplicates) == (3, "failed", 0)
    source.export_df(df, arn, resume=report, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)


@pytest.mark.parametrize(
    ("resume", "says"),
    [
        ("yes", "resume= does not accept this str"),
        (kn.ExportReport(stream="other"), "is of an export to 'other', not to 'orders'"),
    ],
)
def test_a_report_of_something_else_is_refused(
    source: kn.Source, streams: Streams, emulator: Emulator, resume: Any, says: str
) -> None:
    """Only the report of an export to the same stream can be resumed."""
    arn = streams.create()
    with pytest.raises(kn.ConfigError, match=says):
        source.export_df(frame(3), arn, resume=resume, progress=False)
    assert emulator.requests.total() == 0


def test_bad_keys_can_be_left_out_or_hashed(source: kn.Source, streams: Streams) -> None:
    """on_bad_key="skip" reports such rows and sends the others, "hash" makes a key of their content."""
    arn = streams.create()
    df = pl.DataFrame({"a": ["x", None, "", "y" * 257], "n": [0, 1, 2, 3]})
    report = source.export_df(df, arn, on_bad_key="skip", progress=False)
    assert report.failed["row"].to_list() == [1, 2, 3]
    assert report.rows == 1
    report = source.export_df(df, arn, on_bad_key="hash", progress=False)
    assert (report.rows, len(report.failed)) == (4, 0)
    keys = source.read("orders", progress=False).to_polars()["partition_key"]
    assert sorted(map(len, keys)) == [1, 1, 64, 64, 64]


def test_aggregates_keep_the_order_and_the_keys(source: kn.Source, streams: Streams) -> None:
    """Rows joined into KPL aggregates are read back as they were, from few records."""
    arn, df = streams.create(shards=3), frame(900, keys=4)
    report = source.export_df(df, arn, aggregate=True, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)
    assert report.rows == 900
    assert report.requests <= 3


def test_an_aggregate_whose_response_was_lost_is_not_sent_twice(
    source: kn.Source, streams: Streams, emulator: Emulator
) -> None:
    """Written or not, every row is there once and in order, also where the output stream was split meanwhile."""
    arn = streams.create("copy", shards=2)
    emulator.on("PutRecords", EmptyReply(applied=True), EmptyReply(applied=False), Reset(before=False), EmptyReply())
    df = pl.DataFrame({"key": [f"k{number % 3}" for number in range(300)], "n": range(300)})
    report = source.export_df(df, arn, aggregate=True, progress=False)
    streams.split("copy")
    emulator.on("PutRecords", EmptyReply(applied=True))
    again = source.export_df(df, arn, aggregate=True, progress=False)
    found = [json.loads(record.data)["n"] for record in source.read("copy", progress=False)]
    assert sorted(found) == sorted([*range(300)] * 2)
    for key in range(3):
        assert [number for number in found if number % 3 == key] == [*range(key, 300, 3)] * 2
    assert (report.rows, again.rows) == (300, 300)
    assert again.possible_duplicates == 0


def test_aggregates_stay_within_the_limit_of_a_record(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """More rows than a record holds become several aggregates; one that fills a record alone goes as it is."""
    arn = streams.create()
    sizes = [2**20 - 1, 10, 2**18 - 1, 2**18, 2**18 + 1, *[2**16] * 40, 0]  # the first is the limit with its key
    df = pl.DataFrame({"k": "a", "data": [f"{row:02}".ljust(size, "x")[:size] for row, size in enumerate(sizes)]})
    report = source.export_df(df, arn, aggregate=True, data_column="data", progress=False)
    assert (report.rows, report.retries, len(report.failed)) == (len(sizes), 0, 0)
    rows = source.read("orders", progress=False).to_polars()
    assert rows["data"].to_list() == df["data"].to_list()
    assert rows["sequence_number"].n_unique() < len(sizes) / 2
    sent = emulator.requests["PutRecords"]
    large = pl.DataFrame({"k": "a", "data": ["x", "x" * 2**20, "x"]})
    with pytest.raises(kn.ConfigError, match="larger than 1,048,576 bytes with the key: rows 1 "):
        source.export_df(large, arn, aggregate=True, data_column="data", progress=False)
    assert emulator.requests["PutRecords"] == sent


def test_large_records_where_the_stream_takes_them(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """The limit of a record is the stream's own; beyond it the rows are named and nothing is sent."""
    arn = streams.create()
    df = pl.DataFrame({"k": ["a", "b"], "data": ["x" * 2**20, "y"]})
    with pytest.raises(kn.ConfigError, match="larger than 1,048,576 bytes with the key: rows 0 "):
        source.export_df(df, arn, data_column="data", progress=False)
    assert emulator.requests["PutRecords"] == 0
    streams.call("UpdateMaxRecordSize", StreamName="orders", StreamARN=arn, MaxRecordSizeInKiB=2048)
    assert source.export_df(df, arn, data_column="data", progress=False).rows == 2


def test_a_lazy_frame_is_read_as_it_is_sent(
    source: kn.Source, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a LazyFrame no more is queued than the window holds, and every row arrives."""
    monkeypatch.setattr("kinesis_nb.exporting.tables.CHUNK_ROWS", 50)
    monkeypatch.setattr("kinesis_nb.exporting.frame.STREAMED", QueueLimit(100, 2**20))
    arn, df, most = streams.create(shards=2), frame(600, keys=2), 0
    queued = Tally.queued

    def watch(tally: Tally, rows: int, size: int) -> None:
        nonlocal most
        queued(tally, rows, size)
        most = max(most, tally.open)

    monkeypatch.setattr(Tally, "queued", watch)
    source.export_df(df.lazy(), arn, progress=False)
    assert by_key(source.read("orders", progress=False)) == expected(df)
    assert 100 <= most < 100 + 50 + 10


def test_a_lazy_frame_with_bad_keys_sends_nothing(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """The keys of a LazyFrame are checked before its first row is sent."""
    arn = streams.create()
    df = pl.LazyFrame({"a": ["x"] * 30_000 + [None]})
    with pytest.raises(kn.ConfigError, match="rows 30000 "):
        source.export_df(df, arn, progress=False)
    assert emulator.requests.total() == 0


def test_a_stream_of_arrow_batches(source: kn.Source, streams: Streams) -> None:
    """A RecordBatchReader is read once, batch by batch."""
    arn = streams.create()
    table = pa.table({"who": ["a", "b", "a"], "n": [1, 2, 3]})
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))
    assert source.export_df(reader, arn, progress=False).rows == 3
    assert by_key(source.read("orders", progress=False)) == {"a": [1, 3], "b": [2]}


def test_a_missing_stream(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A stream that is not there is a typed error, and nothing was sent."""
    arn = streams.create().replace("orders", "ordres")
    with pytest.raises(kn.StreamNotFound, match="did you mean 'orders'"):
        source.export_df(frame(3), arn, progress=False)
    assert emulator.requests["PutRecords"] == 0


def test_another_account_is_noticed(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """An ARN of another account is refused where the service says so: the name alone would be taken for our own."""
    arn = streams.create()
    account = arn.split(":")[4]
    with pytest.raises(kn.ConfigError, match="these credentials see"):
        source.export_df(frame(3), arn.replace(account, "999999999999"), progress=False)
    assert emulator.requests["PutRecords"] == 0


def test_round_trip(source: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """sync -> export_df -> read gives equal keys, equal bytes and the same order per key."""
    streams.create("orders", shards=2)
    arn = streams.create("copy", shards=3)
    streams.put(300)
    streams.call("PutRecord", StreamName="orders", PartitionKey="raw", Data=b"\xff\x00")
    streams.split("orders")
    streams.put(300)
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.05)
    assert sync.wait(timeout=30)
    sync.stop()
    table = sync.scan().sort("shard_offset").collect()
    source.export_df(table, arn, progress=False)
    back = source.read("copy", progress=False).to_polars()
    columns = ["data", "data_raw"]
    for (key,), rows in table.group_by("partition_key"):
        assert back.filter(pl.col("partition_key") == key).select(columns).equals(rows.select(columns))
    assert len(back) == len(table) == 601


def test_the_report_shows_itself(source: kn.Source, streams: Streams) -> None:
    """The report names the shards that took the rows, and lists what failed."""
    arn = streams.create(shards=2)
    report = source.export_df(frame(100, keys=30), arn, progress=False)
    assert report.shards["rows"].sum() == 100
    assert report.shards["shard_id"].to_list() == ["shardId-000000000000", "shardId-000000000001"]
    assert "shardId-000000000001" in report._repr_html_()
