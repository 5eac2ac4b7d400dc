"""The parts of an export, in virtual time: lanes, pacing, the output stream."""

from __future__ import annotations

import base64
import heapq
import json
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.core.limits import PUT_RECORDS
from kinesis_nb.core.names import StreamArn
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.core.transport import PutResult, StreamExtras
from kinesis_nb.emulator import ManualClock, Model, Quotas
from kinesis_nb.errors import AccessDenied, InvalidRequest, KeyUnavailable, ServiceError
from kinesis_nb.exporting.entries import Preparer, waves
from kinesis_nb.exporting.exporter import Exporter
from kinesis_nb.exporting.lane import Entry, Lane
from kinesis_nb.exporting.options import Delivery, RecordOptions
from kinesis_nb.exporting.report import DoneRows, Tally
from kinesis_nb.exporting.target import Outlet, Target, describe_target
from kinesis_nb.exporting.throughput import MOST_BYTES, WriteRate
from kinesis_nb.wire.aggregation import pack, unpack
from kinesis_nb.wire.putting import decode_results, encode_records, request_body
from tests.support.virtual import VirtualClock, VirtualKinesis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kinesis_nb.core.transport import Clock, Writer

    Find = Callable[[Sequence[bytes], float], list[str | None]]

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/copy"


def entry(key: str, row: int, size: int = 10) -> Entry:
    return Entry(key, f"{key}{row}".encode(), size, (row,))


class Service:
    """Stands for an outlet; responds with what a script says: results, or an error; written otherwise."""

    def __init__(self, clock: Clock, script: Sequence[list[PutResult] | Exception], find: Find | None) -> None:
        self.clock, self.script, self._find = clock, list(script), find
        self.requests: list[list[str]] = []

    def put(self, records: Sequence[bytes]) -> list[PutResult]:
        self.requests.append([record.decode() for record in records])
        response = self.script.pop(0) if self.script else [PutResult("s")] * len(records)
        if isinstance(response, Exception):
            raise response
        return response

    def find(self, records: Sequence[bytes], seconds: float) -> list[str | None]:
        assert self._find is not None
        return self._find(records, seconds)


class LaneKit:
    """A lane on a scripted service."""

    def __init__(
        self,
        *script: list[PutResult] | Exception,
        ordered: bool = True,
        resend_unknown: bool = True,
        find: Find | None = None,
    ) -> None:
        self.clock = VirtualClock(ManualClock())
        self.service, self.tally = Service(self.clock, script, find), Tally("copy")
        outlet, rate = cast("Outlet", self.service), WriteRate(self.clock)
        self.lane = Lane(outlet, rate, self.tally, ordered=ordered, resend_unknown=resend_unknown)

    def drain(self) -> kn.ExportReport:
        while (wait := self.lane.step()) is not None:
            self.clock.sleep(wait)
        assert self.lane.is_idle
        return self.tally.report(0.0)


def refused(code: str = "InternalFailure") -> PutResult:
    return PutResult(None, code, "made up")


# --- lanes


def test_a_request_holds_one_record_of_a_key() -> None:
    """Records of one key go out one after the other, others together."""
    kit = LaneKit()
    kit.lane.add([entry("a", 0), entry("a", 1), entry("b", 2), entry("a", 3)])
    kit.drain()
    assert kit.service.requests == [["a0", "b2"], ["a1"], ["a3"]]


def test_without_order_they_go_together() -> None:
    """order="none" fills requests whatever the keys."""
    kit = LaneKit(ordered=False)
    kit.lane.add([entry("a", 0), entry("a", 1)])
    kit.drain()
    assert kit.service.requests == [["a0", "a1"]]


def test_a_refused_record_holds_its_key_back() -> None:
    """Only what was refused is sent again, before anything that came later, and its key waits for it."""
    kit = LaneKit([refused(), PutResult("s")])
    kit.lane.add([entry("a", 0), entry("b", 1), entry("a", 2), entry("b", 3)])
    report = kit.drain()
    assert kit.service.requests == [["a0", "b1"], ["a0", "b3"], ["a2"]]
    assert (report.rows, report.retries, report.possible_duplicates) == (4, 1, 0)


def test_a_request_that_is_too_large_is_halved_down_to_the_record() -> None:
    """A record that the service never takes is found, given up and named; all others are written."""
    invalid = InvalidRequest("PutRecords: ValidationException: record 3")
    kit = LaneKit(invalid, [PutResult("s")] * 2, invalid, [PutResult("s")], invalid)
    kit.lane.add([entry(key, row) for row, key in enumerate("abcd")])
    report = kit.drain()
    assert kit.service.requests == [["a0", "b1", "c2", "d3"], ["a0", "b1"], ["c2", "d3"], ["c2"], ["d3"]]
    assert report.rows == 3
    assert report.failed.rows() == [(3, "PutRecords: ValidationException: record 3")]


def test_an_unknown_code_is_tried_five_times() -> None:
    """A record refused with a code we do not know gets five tries, then is given up with the reason."""
    kit = LaneKit(*([refused("SomethingNew")] for _ in range(9)))
    kit.lane.add([entry("a", 0), entry("a", 1)])
    report = kit.drain()
    assert kit.service.requests == [["a0"]] * 5 + [["a1"]] * 5
    assert report.failed.rows() == [(0, "SomethingNew: made up")]


@pytest.mark.parametrize("error", [AccessDenied("no"), KeyUnavailable("no key", retryable=True)])
def test_a_refusal_for_good_ends_it_and_counts_nothing(error: kn.KinesisError) -> None:
    """No permission and no key are raised at once, and what was refused is not called a possible duplicate."""
    kit = LaneKit(error)
    kit.lane.add([entry("a", 0)])
    with pytest.raises(type(error)):
        kit.lane.step()
    assert kit.tally.report(0.0).possible_duplicates == 0


def packed(key: str, *rows: int) -> Entry:
    """Return an aggregate of rows."""
    return Entry(key, f"{key}{rows[0]}-{rows[-1]}".encode(), 10, rows)


LOST = ServiceError("connection reset", retryable=True)


def test_an_aggregate_without_a_response_is_searched_for_before_it_is_sent_again() -> None:
    """One that is in the stream is done, one that is not goes first again; a plain record goes again anyway."""
    searches: list[list[str]] = []

    def find(records: Sequence[bytes], _seconds: float) -> list[str | None]:
        searches.append([record.decode() for record in records])
        return ["s" if record == b"a0-1" else None for record in records]

    kit = LaneKit(LOST, find=find)
    kit.lane.add([packed("a", 0, 1), packed("b", 2, 3), entry("c", 4), packed("a", 5, 6), packed("b", 7, 8)])
    assert kit.lane.step() is not None
    assert not kit.lane.is_idle
    report = kit.drain()
    assert searches == [["a0-1", "b2-3"]]
    assert kit.service.requests == [["a0-1", "b2-3", "c4"], ["b2-3", "c4", "a5-6"], ["b7-8"]]
    assert (report.rows, report.possible_duplicates, report.shards.rows()) == (9, 3, [("s", 9, 50)])


@pytest.mark.parametrize(
    ("error", "searches"), [(AccessDenied("GetRecords: no"), 1), (kn.Throttled("GetRecords: busy", retryable=True), 5)]
)
def test_an_aggregate_that_cannot_be_searched_for_is_sent_again(error: kn.KinesisError, searches: int) -> None:
    """Without permission at once, and after some tries where the shard is busy; it is counted then."""
    asked: list[float] = []

    def find(_records: Sequence[bytes], seconds: float) -> list[str | None]:
        asked.append(seconds)
        raise error

    kit = LaneKit(LOST, find=find)
    kit.lane.add([packed("a", 0, 1)])
    report = kit.drain()
    assert len(asked) == searches
    assert asked == sorted(asked)
    assert kit.service.requests == [["a0-1"]] * 2
    assert report.possible_duplicates == 2


def test_what_was_found_is_no_ambiguity() -> None:
    """With on_ambiguous="fail" only what is not in the stream fails the export."""
    found = LaneKit(LOST, resend_unknown=False, find=lambda records, _seconds: ["s"] * len(records))
    found.lane.add([packed("a", 0, 1)])
    assert found.drain().rows == 2
    missing = LaneKit(LOST, resend_unknown=False, find=lambda records, _seconds: [None] * len(records))
    missing.lane.add([packed("a", 0, 1)])
    missing.lane.step()
    with pytest.raises(ServiceError, match="connection reset"):
        missing.lane.step()


def test_aggregates_of_the_same_rows_differ() -> None:
    """By a tag of their first record, which no reader takes for data."""
    one, other = (pack("a", [b"1", b"2"], number) for number in ("1", "2"))
    assert one != other
    assert unpack(one) == unpack(other) == unpack(pack("a", [b"1", b"2"]))


def test_a_throttled_request_was_not_written() -> None:
    """A request that is refused for lack of throughput is sent again, and is no possible duplicate."""
    kit = LaneKit(kn.Throttled("slow down", retryable=True))
    kit.lane.add([entry("a", 0), entry("b", 1)])
    report = kit.drain()
    assert kit.service.requests == [["a0", "b1"], ["a0", "b1"]]
    assert (report.rows, report.throttles, report.retries, report.possible_duplicates) == (2, 2, 2, 0)


def test_a_lost_answer_can_stop_it() -> None:
    """With on_ambiguous="stop" a request whose outcome is not known is not sent again."""
    kit = LaneKit(ServiceError("reset", retryable=True), resend_unknown=False)
    kit.lane.add([entry("a", 0)])
    with pytest.raises(ServiceError):
        kit.lane.step()
    assert kit.tally.report(0.0).possible_duplicates == 1


def test_requests_keep_the_limits_of_the_service() -> None:
    """A request has at most 500 records and 5 MiB with the keys; a larger record goes alone."""
    kit = LaneKit(ordered=False)
    kit.lane.add([entry("a", row) for row in range(1001)])
    kit.drain()
    assert [len(request) for request in kit.service.requests] == [500, 500, 1]
    kit = LaneKit(ordered=False)
    sizes = [3 * 2**20, 2 * 2**20, 1, 6 * 2**20, 1]
    kit.lane.add([entry("a", row, size) for row, size in enumerate(sizes)])
    kit.drain()
    assert kit.service.requests == [["a0", "a1"], ["a2"], ["a3"], ["a4"]]


def test_a_frame_sorted_by_key_fills_requests() -> None:
    """The first rows of all keys go before their second rows, so that rows sorted by key need no more requests."""
    rows = pl.DataFrame({"row": range(6), "key": ["a", "a", "a", "b", "b", "c"]})
    assert waves(rows)["row"].to_list() == [0, 3, 5, 1, 4, 2]
    assert waves(rows.clear()).height == 0


# --- pacing


class Quota(VirtualKinesis):
    """The model with its quotas; counts what it refuses."""

    refused = 0

    def put_records(self, stream: str, records: Sequence[bytes]) -> list[PutResult]:
        entries = json.loads(request_body(stream, records))["Records"]
        decoded = [{"PartitionKey": e["PartitionKey"], "Data": base64.b64decode(e["Data"])} for e in entries]
        response = self.model.call("PutRecords", {"StreamName": stream, "Records": decoded})
        self.refused += response["FailedRecordCount"]
        return decode_results(json.dumps(response).encode(), len(records))

    def aggregate(self, partition_key: str, data: Sequence[bytes]) -> bytes:
        return pack(partition_key, data)


def fill(shards: int, rows: int, data: str, quotas: Quotas) -> tuple[float, int, int]:
    """Export rows in virtual time; return the seconds, how many were refused, and how many the fullest shard got."""
    manual = ManualClock()
    clock = VirtualClock(manual)
    model = Model(clock=manual, quotas=quotas)
    model.call("CreateStream", {"StreamName": "copy", "ShardCount": shards})
    kinesis = Quota(model, clock)
    frame = pl.DataFrame({"key": [f"key-{row}" for row in range(rows)], "data": [data] * rows})
    target = Target(tuple(shard.hash_range[1] for shard in kinesis.list_shards("copy")), 1)
    tally = Tally("copy")
    exporter = Exporter(Outlet(cast("Writer", kinesis), clock, "copy", ARN), target, tally, Delivery())
    preparer = Preparer(frame.schema, RecordOptions(data_column="data"), tally.gave_up)
    exporter.queue(preparer.entries(preparer.records(frame, 0, DoneRows())))
    started = clock.monotonic()
    due = [(started, number) for number in range(shards)]
    while due:
        at, number = heapq.heappop(due)
        manual.advance(max(0.0, at - clock.monotonic()))
        wait = exporter.lanes[number].step()
        if wait is not None:
            heapq.heappush(due, (clock.monotonic() + max(wait, 0.005), number))  # a response takes 5 ms
    report = tally.report(0.0)
    assert report.rows == rows
    fullest = report.shards["rows"].max()
    assert isinstance(fullest, int)
    return clock.monotonic() - started, kinesis.refused, fullest


@pytest.mark.slow
def test_eight_shards_are_filled() -> None:
    """8 shards at AWS's write quotas are done within 5 % of the theoretical time, by records and by bytes."""
    for rows, size, per_second in ((80_000, 10, 1_000), (8 * 64 * 15, 16 * 1024 - 8, 2**20 / (16 * 1024))):
        seconds, refusals, fullest = fill(8, rows, "x" * size, Quotas())
        least = fullest / per_second - 1  # a shard that was idle takes a second's worth at once
        assert least <= seconds <= least * 1.05 + 0.1
        assert refusals <= 0.1 * rows + 8 * 320  # the first requests do not know the quota


def test_the_rate_goes_down_and_up_again() -> None:
    """The first refusal brings the pace of the service's own quota, later ones slow down further, calm speeds up."""
    clock = VirtualClock(ManualClock())
    rate = WriteRate(clock)
    assert rate.most() == (PUT_RECORDS, MOST_BYTES)
    rate.sent(500, 1000, throttled=False)
    assert rate.wait() == 0
    rate.sent(500, 1000, throttled=True)
    assert rate.wait() == pytest.approx(0.5)
    clock.sleep(1)
    rate.sent(500, 1000, throttled=True)
    assert rate.most()[0] == 425
    rate.sent(500, 1000, throttled=True)
    assert rate.most()[0] == 425  # the same overload
    for _ in range(10):
        clock.sleep(1)
        rate.sent(500, 1000, throttled=False)
    assert rate.most()[0] == 500
    assert rate.wait() < 0.3


# --- which rows are done


def test_done_rows() -> None:
    """Rows count as done one by one, in any order; the first open one is known."""
    rows = DoneRows()
    rows.add([3, 1, 0, 5000])
    assert (rows.first, rows.end) == (2, 5001)
    assert [row in rows for row in (0, 1, 2, 3, 4, 5000, 9999)] == [True, True, False, True, False, True, False]
    other = rows.copy()
    other.add([2])
    assert (other.first, rows.first) == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", [False, True])
@settings(deadline=None)
@given(done=st.sets(st.integers(0, 11)), batch=st.integers(1, 12))
def test_resuming_prepares_exactly_the_rest(*, aggregate: bool, done: set[int], batch: int) -> None:
    """Whatever rows are done, and however the frame comes in batches: each of the others is sent once, no other."""
    frame = pl.DataFrame({"key": ["a", "b", "c"] * 4, "n": range(12)})
    settled = DoneRows()
    settled.add(sorted(done))
    preparer = Preparer(frame.schema, RecordOptions(aggregate=aggregate), Tally("copy").gave_up)
    sent = [
        row
        for first_row in range(0, 12, batch)
        for one in preparer.entries(preparer.records(frame[first_row : first_row + batch], first_row, settled))
        for row in one.rows
    ]
    assert sorted(sent) == sorted(set(range(12)) - done)


# --- the output stream


def test_an_arn_says_where_the_stream_is() -> None:
    """ARNs of all partitions are taken; other services, regions, names and shapes are refused."""
    assert StreamArn.parse("arn:aws-cn:kinesis:cn-north-1:123456789012:stream/a.b", "cn-north-1").stream == "a.b"
    for wrong in ("orders", ARN.replace("kinesis", "sqs"), ARN.replace("123", "12"), ARN + "/consumer/x", ARN[:-4]):
        with pytest.raises(kn.ConfigError):
            StreamArn.parse(wrong, "us-east-1")
    with pytest.raises(kn.ConfigError, match="is in us-east-1, the source in eu-west-1"):
        StreamArn.parse(ARN, "eu-west-1")


class Described(VirtualKinesis):
    """Answers listings from what a test says."""

    def __init__(self, extras: StreamExtras | Exception, shards: list[Shard] | Exception) -> None:
        manual = ManualClock()
        super().__init__(Model(clock=manual), VirtualClock(manual))
        self.responses: tuple[Any, Any] = (extras, shards)

    def describe_extras(self, stream: str) -> StreamExtras:
        return _raise_or_return(self.responses[0])

    def list_shards(self, stream: str) -> list[Shard]:
        return _raise_or_return(self.responses[1])


def outlet_of(kinesis: Described) -> Outlet:
    return Outlet(cast("Writer", kinesis), kinesis.clock, "copy", ARN)


def _raise_or_return(response: Any) -> Any:
    if isinstance(response, Exception):
        raise response
    return response


def test_a_writer_that_may_ask_nothing_goes_by_hash_keys() -> None:
    """Without permission to list, lanes are parts of the hash keys and the default limit of a record holds."""
    kinesis = Described(AccessDenied("no"), AccessDenied("no"))
    target = describe_target(outlet_of(kinesis))
    assert len(target.hash_ranges) == 8
    assert (target.hash_ranges[-1], target.shards_per_lane, target.record_bytes) == (MAX_HASH_KEY, None, 2**20)


def test_lanes_are_the_open_shards() -> None:
    """Each open shard is a lane; from 65 on neighbours share one."""
    edges = [MAX_HASH_KEY * n // 130 for n in range(131)]
    shards = [Shard(f"s{n}", hash_range=(edges[n] + 1, edges[n + 1])) for n in range(130)]
    closed = Shard("old", ending_sequence_number="9")
    kinesis = Described(StreamExtras(arn=ARN, max_record_bytes=2**21), [closed, *shards[:3]])
    assert describe_target(outlet_of(kinesis)) == Target(tuple(edges[1:4]), 1, 2**21)
    kinesis = Described(StreamExtras(), shards)
    target = describe_target(outlet_of(kinesis))
    assert (len(target.hash_ranges), target.shards_per_lane, target.hash_ranges[-1]) == (44, 3, MAX_HASH_KEY)


def test_what_the_service_says_about_a_stream() -> None:
    """AUTO distribution causes a warning, another account's stream is refused, a missing stream is an error."""
    kinesis = Described(StreamExtras(distribution="AUTO", arn=ARN), [])
    with pytest.warns(UserWarning, match="AUTO"):
        describe_target(outlet_of(kinesis))
    kinesis = Described(StreamExtras(arn=ARN.replace("1234", "9999")), [])
    with pytest.raises(kn.ConfigError, match="these credentials see"):
        describe_target(outlet_of(kinesis))
    kinesis = Described(kn.StreamNotFound("no stream"), [])
    with pytest.raises(kn.StreamNotFound):
        describe_target(outlet_of(kinesis))


# --- the wire


def test_records_on_the_wire_are_what_boto3_would_send() -> None:
    """Keys and data of every kind survive the way into the request's body."""
    keys = ["plain", 'quo"te', "back\\slash", "new\nline", "é☕𝄞", "\u2028", "\x7f"]
    data = [b"", b"\x00\xff", b"text", b'"', b"\\", "é".encode(), b"x" * 1000]
    body = request_body("copy", encode_records(pl.Series(keys), pl.Series(data)))
    parsed = json.loads(body)
    assert parsed["StreamName"] == "copy"
    assert [record["PartitionKey"] for record in parsed["Records"]] == keys
    assert [base64.b64decode(record["Data"]) for record in parsed["Records"]] == data


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"<html>", b'{"Records":null}', b'{"Records":[{}]}', b'{"Records":[{},{}'),
        b'{"Records":[{},{"ShardId":"\xff"}]}',
    ],
)
def test_an_answer_that_is_not_whole_is_none(body: bytes) -> None:
    """A response that is cut off, empty, of somebody else or for fewer records means that nothing is known."""
    with pytest.raises(ServiceError) as caught:
        decode_results(body, 2)
    assert caught.value.retryable


def test_aggregates_can_be_unpacked() -> None:
    """What the writer packs, the reader unpacks: keys, data and order, whatever their sizes."""
    data = [b"", b"x" * 127, b"x" * 128, b"y" * 70_000]
    users = unpack(pack("kéy", data))
    assert users is not None
    assert [(user.partition_key, user.data) for user in users] == [("kéy", content) for content in data]
