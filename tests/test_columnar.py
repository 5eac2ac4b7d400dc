"""Large answers, decoded by polars beside others: the same rows as by the strict decoder, or none."""

from __future__ import annotations

import base64
import json
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinesis_nb.emulator import CutBody, ErrorReply, Html, Reset
from kinesis_nb.errors import MalformedAnswer
from kinesis_nb.service import wire
from kinesis_nb.service.aggregation import pack
from kinesis_nb.service.columnar import LARGE_BYTES, read_columns
from kinesis_nb.service.decoding import Decoding
from kinesis_nb.shards import MAX_HASH_KEY, Shard
from tests.conftest import by_key, written_by_key
from tests.test_reader_rules import until

if TYPE_CHECKING:
    import kinesis_nb as kn
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SHARD = Shard("shardId-000000000000", hash_range=(0, MAX_HASH_KEY))

names = st.text(max_size=12) | st.sampled_from(["key-1", "Schlüssel", '"', "},{", "\\", '"Data":"', "\x00"])
data = st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.just(pack("k", [b"1", b"2"]))
records = st.fixed_dictionaries(
    {
        "SequenceNumber": st.integers(0, 10**56).map(str),
        "Data": data.map(lambda data: base64.b64encode(data).decode()),
        "ApproximateArrivalTimestamp": st.floats(1.6e9, 1.9e9) | st.integers(1_600_000_000, 1_900_000_000),
    },
    optional={"PartitionKey": names, "EncryptionType": st.sampled_from(["KMS", "NONE"])},
)
answers = st.fixed_dictionaries(
    {"Records": st.lists(records, max_size=5), "MillisBehindLatest": st.integers(0, 10**9)},
    optional={"NextShardIterator": st.text(max_size=20), "More": st.just(1)},
)
styles = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "separators": st.sampled_from([(",", ":"), (", ", ": ")]), "indent": st.none()}
)
wrong = st.sampled_from([None, True, False, 0, 1, -1, 1234, 1.5, 1e300, "", "1234", "Zg==\n", "Zg", "ü", [], {}, ["a"]])


def same(body: bytes) -> bool:
    """Return whether polars has a say in the answer; then it must be the strict decoder's."""
    batch = wire._decode_plain(body, SHARD, NOW)
    if batch is not None:
        assert batch == wire._decode(body, SHARD, NOW)
    return batch is not None


@settings(max_examples=300, deadline=None)
@given(answer=answers, style=styles)
def test_the_same_rows(answer: dict[str, Any], style: dict[str, Any]) -> None:
    """Whatever the records hold and however the answer is written."""
    same(json.dumps(answer, **style).encode())


@settings(max_examples=500, deadline=None)
@given(answer=answers.filter(lambda answer: answer["Records"]), value=wrong, where=st.data())
def test_a_wrong_type_is_never_taken(answer: dict[str, Any], value: object, where: st.DataObject) -> None:
    """A number, a boolean, a null or a list where something else belongs is for the strict decoder to judge."""
    holder = where.draw(st.sampled_from([answer, *answer["Records"]]))
    holder[where.draw(st.sampled_from(sorted(holder)))] = value
    same(json.dumps(answer).encode())


@settings(max_examples=500, deadline=None)
@given(answer=answers.filter(lambda answer: answer["Records"]), where=st.data())
def test_a_damaged_body_is_never_taken(answer: dict[str, Any], where: st.DataObject) -> None:
    """Cut off, with bytes changed, added or left out."""
    body = json.dumps(answer, separators=(",", ":")).encode()
    start, end = sorted(where.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    instead = where.draw(st.sampled_from([b"", b'"', b"0", b"\x00", b"\n", b"\xff", b"}", b",", body[end:start:-1]]))
    same(body[:start] + instead + body[end:])


@pytest.mark.parametrize(
    "record",
    [
        '"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":1.7e9,"PartitionKey":"\\ud800"',
        '"SequenceNumber":"1","Data":1234,"ApproximateArrivalTimestamp":1.7e9',
        '"SequenceNumber":"1","Data":1234,"ApproximateArrivalTimestamp":1.7e9,"More":1',
        '"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":true',
        '"SequenceNumber":"1","ApproximateArrivalTimestamp":1.7e9',
        '"SequenceNumber":"1","Data":"Y","ApproximateArrivalTimestamp":1.7e9',
    ],
)
def test_what_polars_would_take_of_a_record_is_not(record: str) -> None:
    """Half a character, a number or a boolean for something else, no data at all, base64 that is cut off."""
    body = f'{{"Records":[{{{record}}}]}}'.encode()
    with pytest.raises(MalformedAnswer):
        wire._decode(body, SHARD, NOW)
    assert wire._decode_plain(body, SHARD, NOW) is None


RECORD = '{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":1.7e9}'
WRONG = RECORD.replace('"1"', "1")


@pytest.mark.parametrize(
    "body",
    [
        f'{{"Records":[{RECORD}],"MillisBehindLatest":true}}',
        f'{{"Records":[{WRONG}],"MillisBehindLatest":"5"}}',
        f'{{"Records":[{WRONG}],"MillisBehindLatest":"abc"}}',
        f'{{"Records":[{RECORD}],"MillisBehindLatest":-5}}',
        f'{{"Records":[{RECORD}],"MillisBehindLatest":1e300}}',
        f'{{"Records":[{RECORD}],"NextShardIterator":5}}',
        f'[{{"Records":[{RECORD}]}}]',
        '{"a":' * 2_000 + "1" + "}" * 2_000,
    ],
)
def test_what_polars_would_take_of_an_answer_is_not(body: str) -> None:
    """A lag that is none, also where a number for a text makes up for its quotation marks; a bottomless answer."""
    with pytest.raises(MalformedAnswer):
        wire._decode(body.encode(), SHARD, NOW)
    assert wire._decode_plain(body.encode(), SHARD, NOW) is None


def test_what_aws_sends_is_taken() -> None:
    """Compact, with or without encryption, keys that are not ASCII, bytes that are no text, at the tip and behind."""
    record = {"ApproximateArrivalTimestamp": 1.441215410867e9, "Data": "/w==", "PartitionKey": "ключ"}
    for encryption, lag in (({}, 0), ({"EncryptionType": "KMS"}, 1), ({}, 86_400_000)):
        found = [{**record, **encryption, "SequenceNumber": str(number)} for number in range(3)]
        answer = {"MillisBehindLatest": lag, "NextShardIterator": "AA:A", "Records": found}
        assert same(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let polars have a say in small answers too; collects how many records it took of each."""
    counts: list[int] = []

    def spy(body: bytes) -> Any:
        columns = read_columns(body)
        counts.append(0 if columns is None else len(columns.data))
        return columns

    monkeypatch.setattr(wire, "LARGE_BYTES", 0)
    monkeypatch.setattr(wire, "read_columns", spy)
    return counts


def test_faults_neither_lose_nor_double(
    taken: list[int], source: kn.Source, streams: Streams, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that are read at the same time give every record once, in order, whoever decoded it."""
    monkeypatch.setattr(Decoding, "has_company", True)
    streams.create(shards=4)
    streams.put(4_000)
    faults = [ErrorReply("ProvisionedThroughputExceededException"), CutBody(at=0.5), Html(status=200), Reset()]
    emulator.on("GetRecords", *faults * 3)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    assert sum(taken) == 4_000


def test_an_answer_without_company_is_decoded_strictly(
    taken: list[int], source: kn.Source, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one shard, or one core, it takes less of the processor, and nobody waits."""
    streams.create()
    streams.put(1_000)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    monkeypatch.setattr(wire, "decoding", Decoding(cores=1))
    with wire.decoding.call(), wire.decoding.call():
        assert wire.decode_batch(body_of(10), SHARD, NOW).rows.num_rows == 10
    assert taken == []


def body_of(count: int) -> bytes:
    record = {"SequenceNumber": "1", "Data": "Zg==", "ApproximateArrivalTimestamp": 1.7e9}
    return json.dumps({"Records": [record] * count}).encode()


def test_small_answers_are_decoded_strictly(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a megabyte polars has no say."""
    monkeypatch.setattr(wire, "LARGE_BYTES", LARGE_BYTES)
    monkeypatch.setattr(wire, "decoding", Decoding(cores=2))
    with wire.decoding.call(), wire.decoding.call():
        assert wire.decode_batch(body_of(10), SHARD, NOW).rows.num_rows == 10
        assert taken == []
        assert wire.decode_batch(body_of(20_000), SHARD, NOW).rows.num_rows == 20_000
        assert taken == [20_000]


def test_answers_are_decoded_at_the_same_time() -> None:
    """As many as there are cores, and no more."""
    decoding, inside, go_on = Decoding(cores=2), [], threading.Event()

    def decode() -> None:
        inside.append(threading.get_ident())
        assert go_on.wait(30)

    threads = [threading.Thread(target=decoding.together, args=(decode,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(inside) == 2 and decoding._answers == 3)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(inside) == 3
    assert len(set(inside)) == 2


def test_the_child_of_a_fork_decodes() -> None:
    """The threads that decode stay behind in the parent; the child has its own."""
    assert wire.decoding.together(threading.get_ident)
    child = os.fork()
    if child == 0:
        threading.Timer(30, lambda: os._exit(1)).start()
        os._exit(0 if wire.decoding.together(lambda: "decoded") == "decoded" else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
