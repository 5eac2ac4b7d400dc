"""Bounded reads over HTTP."""

from __future__ import annotations

import gc
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest
from botocore import exceptions as boto_errors

import kinesis_nb as kn
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import CutBody, ErrorReply, Fault, Html, Reset
from kinesis_nb.service.translate import FailedCall, translate
from tests.conftest import Streams, by_key, engine_threads, written_by_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.emulator import Emulator


def test_four_columns_first(source: kn.Source, streams: Streams) -> None:
    """A row has the connector's four columns, in its order and types, before all others."""
    streams.create()
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    streams.call("PutRecord", StreamName="orders", PartitionKey="κλειδί", Data="τσάι ☕".encode())
    frame = source.read("orders", progress=False).to_polars()
    assert frame.columns[:4] == [
        "partition_key",
        "data",
        "kinesis_ingestion_timestamp",
        "foundry_ingestion_timestamp",
    ]
    row = frame.row(0, named=True)
    assert (row["partition_key"], row["data"]) == ("κλειδί", "τσάι ☕")
    assert before <= row["kinesis_ingestion_timestamp"] <= row["foundry_ingestion_timestamp"] <= datetime.now(UTC)
    assert row["data_raw"] is None


def test_bytes_that_are_no_text_are_kept(source: kn.Source, streams: Streams) -> None:
    """A record that is not UTF-8 is a row with replacement characters and its exact bytes; its neighbours are plain."""
    streams.create()
    for data in (b"before", b"\xff\xfe\x00", b"after", b"", "�".encode()):
        streams.call("PutRecord", StreamName="orders", PartitionKey="k", Data=data)
    frame = source.read("orders", progress=False).to_polars()
    assert frame["data"].to_list() == ["before", "��\x00", "after", "", "�"]
    assert frame["data_raw"].to_list() == [None, b"\xff\xfe\x00", None, None, None]


def test_every_record_once_in_order_through_reshards(source: kn.Source, streams: Streams) -> None:
    """A stream that was split, merged and rescaled while it was written is read whole, once, in order per key."""
    streams.create(shards=2)
    changes: list[Callable[[], None]] = [streams.split, streams.merge, lambda: streams.rescale(4)]
    changes += [streams.split, lambda: streams.rescale(3)]
    for change in changes:
        streams.put(137, keys=40)
        change()
    streams.put(100, keys=40)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    assert engine_threads() == []


def test_reads_while_it_is_written_and_resharded(source: kn.Source, streams: Streams) -> None:
    """A read beside a writer gives a gap-free beginning of every key; the next read gives the rest too."""
    streams.create(shards=2)
    streams.put(500, keys=20)

    def write() -> None:
        changes: list[Callable[[], None]] = [streams.split, streams.merge, lambda: streams.rescale(4)]
        for change in changes:
            streams.put(300, keys=20)
            change()

    writer = threading.Thread(target=write)
    writer.start()
    found = by_key(source.read("orders", progress=False))
    writer.join()
    assert sum(map(len, found.values())) >= 500
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in found.values())
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)


def test_faults_neither_lose_nor_double(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Throttles, expired iterators, resets and responses that are cut off leave no trace in the rows."""
    streams.create(shards=2)
    streams.put(1_000)
    faults = [
        ErrorReply("ProvisionedThroughputExceededException"),
        ErrorReply("ExpiredIteratorException"),
        ErrorReply("InternalFailure"),
        CutBody(at=0.5),
        CutBody(at=0.5, short=True),
        Html(status=200),
        Html(status=502),
        Reset(before=True),
        Reset(before=False),
    ]
    emulator.on("GetRecords", *faults)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    assert sum(emulator.delivered.values()) == len(faults)


def test_random_numbers_of_the_user_are_left_alone(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Threads that try again draw nothing from `random`: what a cell gets after `random.seed()` stays the same."""
    streams.create()
    streams.put(10)
    emulator.on("GetRecords", *[ErrorReply("InternalFailure")] * 3)
    before = random.getstate()
    assert source.read("orders", progress=False).to_polars().height == 10
    assert random.getstate() == before


def test_end_is_fixed_at_the_call(source: kn.Source, streams: Streams) -> None:
    """Rows that arrived after the end are left out, rows at the end are in."""
    streams.create()
    streams.put(3)
    rows = source.read("orders", progress=False).to_polars()
    end = rows["kinesis_ingestion_timestamp"].max()
    assert isinstance(end, datetime)
    streams.emulator.model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "k", "Data": b"{}"})
    while datetime.now(UTC) <= end:
        pass
    streams.put(2)
    assert len(source.read("orders", end=end, progress=False)) >= 3
    assert len(source.read("orders", end=end - timedelta(milliseconds=1), progress=False)) < 3
    assert len(source.read("orders", start="now", progress=False)) == 0


def test_an_end_in_the_future_is_now(source: kn.Source, streams: Streams) -> None:
    """A read does not wait for it, and says so where it was called; a start there alone is blamed alone."""
    streams.create()
    streams.put(10)
    with pytest.warns(UserWarning, match=r"end .* is in the future: read\(\) reads up to now, sync\(end=\)") as warned:
        found = source.read("orders", end=datetime.now(UTC) + timedelta(hours=1), progress=False)
    assert (len(found), [warning.filename for warning in warned]) == (10, [__file__])
    with pytest.raises(kn.ConfigError, match=r"the start .* is in the future: it is .*\nhint: give an earlier one"):
        source.read("orders", start=datetime.now(UTC) + timedelta(hours=1), progress=False)
    with pytest.raises(kn.ConfigError, match=r"is after the end .*\nhint: swap them"):
        source.read("orders", start="-1h", end="-2h", progress=False)


def test_where_has_no_fields_of_json(source: kn.Source, streams: Streams) -> None:
    """Whoever filters by one is told when it is a column."""
    streams.create()
    with pytest.raises(kn.ConfigError, match=r"\nhint: .*the fields of JSON are columns after parse_json"):
        source.read("orders", where=pl.col("n") > 1, progress=False)


def test_shards_key_where_and_limit(source: kn.Source, streams: Streams) -> None:
    """Each filter gives just the rows it names."""
    streams.create(shards=4)
    streams.put(200, keys=10)
    whole = source.read("orders", progress=False).to_polars()
    for shard_id in whole["shard_id"].unique():
        one = source.read("orders", shards=[shard_id], progress=False).to_polars()
        assert one["sequence_number"].to_list() == whole.filter(shard_id=shard_id)["sequence_number"].to_list()
    key = source.read("orders", key="key-3", progress=False)
    assert by_key(key) == {"key-3": written_by_key(streams)["key-3"]}
    some = source.read("orders", where=pl.col("partition_key").is_in(["key-1", "key-2"]), progress=False)
    assert set(by_key(some)) == {"key-1", "key-2"}
    assert len(source.read("orders", limit=7, progress=False)) == 7


def test_key_reads_only_the_shards_that_may_hold_it(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """With key= one of four shards is asked."""
    streams.create(shards=4)
    streams.put(50)
    source.read("orders", key="key-1", progress=False)
    assert emulator.requests["GetShardIterator"] == 1


def test_records_are_table_like(source: kn.Source, streams: Streams) -> None:
    """Rows come as polars, pandas, Arrow, through the Arrow protocol, by iteration, and as escaped HTML."""
    streams.create()
    streams.call("PutRecord", StreamName="orders", PartitionKey="<b>", Data=b"<script>alert(1)</script>\x1b[31m")
    records = source.read("orders", progress=False)
    assert records.to_pandas().shape == records.to_polars().shape == pl.DataFrame(records).shape == (1, 8)
    assert [record.partition_key for record in records] == ["<b>"]
    html = records._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html


def test_empty_stream(source: kn.Source, streams: Streams) -> None:
    """A stream without records gives no rows and all columns."""
    streams.create()
    frame = source.read("orders", progress=False).to_polars()
    assert frame.shape == (0, 8)


def test_fatal_error_reaches_the_caller(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """An error no retry can mend ends the read, names the action, and leaves no thread."""
    streams.create(shards=2)
    streams.put(10)
    emulator.on("GetRecords", ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied, match="kinesis:GetRecords"):
        source.read("orders", progress=False)
    assert engine_threads() == []


def test_wrong_local_clock_loses_nothing(source: kn.Source, streams: Streams) -> None:
    """The end of a read is compared with the service's clock, not with one here that is ten minutes ahead."""
    streams.create()
    streams.put(10)
    ahead = kn.Source(source.config, clock=AheadClock())
    middle = source.read("orders", progress=False).to_polars()["kinesis_ingestion_timestamp"].max()
    assert isinstance(middle, datetime)
    streams.emulator.model.gap("orders", "shardId-000000000000", calls=3)
    assert len(ahead.read("orders", end=middle, progress=False)) == 10
    assert len(ahead.read("orders", progress=False)) == 10


class AheadClock(SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(minutes=10)


@pytest.mark.parametrize(
    "fault",
    [
        ErrorReply("LimitExceededException"),
        ErrorReply("ResourceInUseException"),
        ErrorReply("ExpiredNextTokenException"),
        ErrorReply("InternalFailure"),
        Reset(before=True),
        CutBody(at=0.5, short=True),
    ],
    ids=lambda fault: fault.name,
)
def test_listing_is_tried_again(source: kn.Source, streams: Streams, emulator: Emulator, fault: Fault) -> None:
    """The first listing survives what may pass by itself."""
    streams.create()
    streams.put(5)
    emulator.on("ListShards", fault)
    assert len(source.read("orders", progress=False)) == 5
    assert emulator.delivered.total() == 1


@pytest.mark.parametrize(
    "fault",
    [
        *map(
            ErrorReply,
            (
                *("LimitExceededException", "ThrottlingException", "ThrottledException", "Throttling", "SlowDown"),
                *("RequestThrottledException", "RequestThrottled", "RequestLimitExceeded", "BandwidthLimitExceeded"),
                *("ProvisionedThroughputExceededException", "KMSThrottlingException", "TooManyRequestsException"),
            ),
        ),
        ErrorReply("NewNameForTooFast", status=429),
    ],
    ids=lambda fault: fault.name,
)
def test_every_word_for_too_fast_is_waited_for(
    source: kn.Source, streams: Streams, emulator: Emulator, fault: Fault
) -> None:
    """AWS and what stands in front of it have many; the status tells those that nobody knows yet."""
    streams.create()
    streams.put(5)
    emulator.on("ListShards", fault)
    emulator.on("GetRecords", fault)
    assert len(source.read("orders", progress=False)) == 5
    assert emulator.delivered.total() == 2


def test_shards_may_be_any_iterable(source: kn.Source, streams: Streams) -> None:
    """A generator of shard ids is as good as a list."""
    streams.create()
    streams.put(5)
    first = source.read("orders", progress=False).to_polars()["sequence_number"][0]
    start = kn.StartingPosition.after(first)
    assert len(source.read("orders", start, shards=(f"shardId-{n:012d}" for n in [0]), progress=False)) == 4


@pytest.mark.parametrize(
    "error",
    [
        boto_errors.EndpointConnectionError(endpoint_url="x"),
        boto_errors.ConnectTimeoutError(endpoint_url="x"),
        boto_errors.ReadTimeoutError(endpoint_url="x"),
        boto_errors.ConnectionClosedError(endpoint_url="x"),
        boto_errors.ProxyConnectionError(proxy_url="x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_network_may_come_back(error: Exception) -> None:
    """A connection that cannot be made, or breaks, is worth another try."""
    assert translate(error, FailedCall("get_records")).retryable


def test_a_wrong_certificate_is_not_tried_again() -> None:
    """A certificate that does not check out is fatal, with the hint how to give another authority."""
    error = translate(boto_errors.SSLError(endpoint_url="x", error="bad"), FailedCall("get_records"))
    assert not error.retryable
    assert "verify=" in error.hint


def test_rows_are_freed_with_the_frame(source: kn.Source, streams: Streams) -> None:
    """What a read returned is all that holds its rows: a cell that runs again needs no more memory than before."""
    streams.create(shards=4)
    for key in range(100):
        streams.call("PutRecord", StreamName="orders", PartitionKey=f"key-{key}", Data=b"x" * 10_000)
    before = pa.total_allocated_bytes()
    gc.disable()
    try:
        held = source.read("orders", progress=False)
        assert len(held) == 100
        del held
        assert pa.total_allocated_bytes() - before < 100_000
    finally:
        gc.enable()
