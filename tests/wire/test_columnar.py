"""Large responses, split into columns: the same rows as by the strict decoder, or none."""

from __future__ import annotations

import base64
import json
import os
import string
import threading
import tracemalloc
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.emulator import CutBody, ErrorReply, Html, Reset
from kinesis_nb.errors import MalformedResponse
from kinesis_nb.wire import batches, columnar
from kinesis_nb.wire.aggregation import MAGIC, pack
from kinesis_nb.wire.columnar import LARGE_BYTES, read_columns
from kinesis_nb.wire.decoding import Decoding
from tests.conftest import by_key, written_by_key
from tests.reading.test_reader_rules import until

if TYPE_CHECKING:
    import kinesis_nb as kn
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SHARD = Shard("shardId-000000000000", hash_range=(0, MAX_HASH_KEY))

names = st.text(max_size=12) | st.sampled_from(["key-1", "Schlüssel", '"', "},{", "\\", '"Data":"', "\x00"])
data = st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.just(pack("k", [b"1", b"2"]))
needed: dict[str, st.SearchStrategy[Any]] = {
    "SequenceNumber": st.integers(0, 10**56).map(str),
    "Data": data.map(lambda data: base64.b64encode(data).decode()),
    "ApproximateArrivalTimestamp": st.floats(1.6e9, 1.9e9) | st.integers(1_600_000_000, 1_900_000_000),
}
optional: dict[str, st.SearchStrategy[Any]] = {
    "PartitionKey": names,
    "EncryptionType": st.sampled_from(["KMS", "NONE"]),
}
records = st.fixed_dictionaries(needed, optional=optional)
lags = st.integers(0, 10**9)
answers = st.fixed_dictionaries(
    {"Records": st.lists(records, max_size=5), "MillisBehindLatest": lags},
    optional={"NextShardIterator": st.text(min_size=1, max_size=20), "More": st.just(1)},
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :")])
styles = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "separators": separators, "indent": st.none() | st.just(1)}
)
wrong: st.SearchStrategy[object] = st.sampled_from(
    [None, True, False, 0, 1, -1, 1234, 1.5, 1e300, "", "1234", "Zg==\n", "Zg", "ü", [], {}, ["a"]]
)
characters = st.characters(min_codepoint=ord(" "), exclude_characters='"\\', exclude_categories=["Cs"])


@st.composite
def plain(draw: st.DrawFn) -> bytes:
    """Make a response as a service writes it: all records have the same fields in the same order."""
    fields = draw(st.permutations([*needed, *draw(st.sets(st.sampled_from(sorted(optional))))]))
    values = {**needed, **optional, "PartitionKey": st.text(characters, max_size=256)}
    values["Data"] = (st.binary(max_size=40) | st.text(max_size=40).map(str.encode)).map(
        lambda data: base64.b64encode(data.removeprefix(MAGIC)).decode()
    )
    found = draw(st.lists(st.fixed_dictionaries({field: values[field] for field in fields}), min_size=2, max_size=5))
    numbers = sorted((record["SequenceNumber"] for record in found), key=int)
    found = [{**record, "SequenceNumber": number} for record, number in zip(found, numbers, strict=True)]
    found = [{field: record[field] for field in fields} for record in found]
    answer = {"MillisBehindLatest": draw(lags), "NextShardIterator": "AAA", "Records": found}
    answer = {name: answer[name] for name in draw(st.permutations(sorted(answer)))}
    return json.dumps(answer, ensure_ascii=False, separators=draw(separators)).encode()


def same(body: bytes) -> bool:
    """Return whether the response is split into columns; then it must be the strict decoder's."""
    batch = batches._decode_columns(body, SHARD, NOW)
    if batch is not None:
        assert batch == batches._decode(body, SHARD, NOW)
    return batch is not None


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(body=plain())
def test_what_a_service_writes_is_split(body: bytes) -> None:
    """Whatever the order of the fields, the spaces, the keys and the data, text or not."""
    assert same(body)


@settings(max_examples=300, deadline=None)
@given(answer=answers, style=styles)
def test_the_same_rows(answer: dict[str, Any], style: dict[str, Any]) -> None:
    """Whatever the records hold and however the response is written."""
    same(json.dumps(answer, **style).encode())


@settings(max_examples=200, deadline=None)
@given(body=plain(), value=wrong, where=st.data())
def test_a_wrong_type_is_never_taken(body: bytes, value: object, where: st.DataObject) -> None:
    """A number, a boolean, a null or a list where something else belongs is for the strict decoder to judge."""
    answer = json.loads(body)
    holder = where.draw(st.sampled_from([answer, *answer["Records"]]))
    holder[where.draw(st.sampled_from(sorted(holder)))] = value
    same(json.dumps(answer, ensure_ascii=False).encode())


@settings(max_examples=200, deadline=None)
@given(body=plain(), where=st.data())
def test_a_damaged_body_is_never_taken(body: bytes, where: st.DataObject) -> None:
    """Cut off, with bytes changed, added or left out."""
    start, end = sorted(where.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    end = where.draw(st.sampled_from([start, min(start + 1, len(body)), end]))
    pieces = [
        b"",
        b'"',
        b"0",
        b".",
        b"-",
        b"\x00",
        b"\n",
        b"\\",
        b"\xff",
        b" ",
        b"}",
        b"]",
        b",",
        b'","',
        body[end:start:-1],
    ]
    same(body[:start] + where.draw(st.sampled_from(pieces)) + body[end:])


RECORD = b'{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":1.7e9}'
ENDS_OTHERWISE = b'{"ApproximateArrivalTimestamp":1.7e9,"SequenceNumber":"1","Data":""}'
WITH_BLANKS = b'{ "SequenceNumber" : "1" , "ApproximateArrivalTimestamp" : 1.7e9 , "Data" : "" }'
NUMBERS = (
    *(
        b"",
        b" ",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"-1",
        b"1e",
        b"1.e5",
        b"1_0",
        b"1e5.5",
        b"1.5.5",
        b"1-1",
        b"1 0",
        b"0x10",
    ),
    *(b"inf", b"nan", b"NaN", b"1e400", b"1.7e12", b"1e9f", b"true", b'"1.7e9"', b"1.7e9 ", b"\xef\xbc\x91"),
)


def body_of(*records: bytes, after: bytes = b"") -> bytes:
    """Return a response with these records, and something more behind them."""
    return b'{"Records":[%b]%b}' % (b",".join(records), after)


@pytest.mark.slow
def test_one_character_is_another() -> None:
    """Or missing, or one too many, wherever it is."""
    for record in (RECORD, ENDS_OTHERWISE, WITH_BLANKS):
        body = body_of(record, record, after=b',"NextShardIterator":"A"')
        for place in range(len(body)):
            for piece in (b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"0", b".", b"\xff"):
                same(body[:place] + piece + body[place + 1 :])
                same(body[:place] + piece + body[place:])


@pytest.mark.parametrize("places", [{0}, {1}, {2}, {0, 1, 2}], ids=["first", "middle", "last", "all"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"1"', b"1"),
        (b'"1"', b'"\\ud800"'),
        (b'"1"', b'"\\u0041"'),
        (b'"1"', b'"\xff"'),
        (b'"1"', b'"\n"'),
        (b'"1"', b'"1","SequenceNumber":"2"'),
        (b'"1"', b'"1","SequenceNumber":2'),
        (b'"1"', b'"1","More":0'),
        (b'"1"', b'"1","EncryptionType":01'),
        (b'"1"', b'"1","EncryptionType":"\xff"'),
        (b'"1"', b'"1" , "EncryptionType":"KMS"'),
        (b'""', b"1234"),
        (b'""', b'"Y"'),
        (b'""', b'"Zg"'),
        (b'""', b'"Zh=="'),
        (b'""', b'" Zg=="'),
        (b'""', b'"Y","Data":"Zg=="'),
        (b'"Data":"",', b""),
        (b" 1.7e9", b""),
        *[(b"1.7e9", number) for number in NUMBERS],
    ],
)
def test_a_record_is_not_as_it_should_be(old: bytes, new: bytes, places: set[int]) -> None:
    """The strict decoder judges it, wherever it stands."""
    for record in (RECORD, ENDS_OTHERWISE, WITH_BLANKS):
        assert same(body_of(record, record, record))
        changed = record.replace(old, new, 1)
        same(body_of(*[changed if place in places else record for place in range(3)]))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"EncryptionType":0', b'"EncryptionType":01'),
        (b'"EncryptionType":"KMS"', b'"EncryptionType":"\xff"'),
        (b'"EncryptionType":"KMS"', b'"EncryptionType":"\n"'),
        (b'"More":null', b'"More":nul1'),
        (b'"More":"1"', b'"More":"\\x"'),
        (b'"Data":"Zg=="', b'"Data":"Y"'),
        (b'"SequenceNumber":"2"', b'"SequenceNumber":"\xff"'),
    ],
)
def test_what_nobody_wants_to_know_is_well_formed(right: bytes, wrong: bytes) -> None:
    """Fields that become no column, and those that are there twice."""
    for place in (b'{%b,"', b'{"Data":"",%b,"'):
        first, second = (RECORD.replace(b'{"', place % field, 1) for field in (right, wrong))
        assert batches._decode(body_of(first, first), SHARD, NOW).rows.num_rows == 2
        same(body_of(first, first))
        same(body_of(first, second))


def test_where_libraries_disagree_the_strict_decoder_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each response is a test of the values of its first record."""
    monkeypatch.setattr(columnar, "_from_base64", lambda texts: pa.array([b"x"] * len(texts)))
    assert batches._decode_columns(body_of(RECORD, RECORD), SHARD, NOW) is None


def test_what_arrow_cannot_count_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its places in a text have 32 bits."""
    body = body_of(RECORD, RECORD)
    monkeypatch.setattr(columnar, "_MOST_BYTES", len(body) - 1)
    assert batches._decode_columns(body, SHARD, NOW) is None


LISTED = b"[%b]" % b",".join([RECORD.replace(b"{", b'{"EncryptionType":"KMS",')] * 3)
OTHERS = b"[%b]" % RECORD
CHILD = {"ShardId": "a", "ParentShards": ["b"], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"Records":%b,"MillisBehindLatest":true}' % LISTED,
        b'{"Records":%b,"MillisBehindLatest":"5"}' % LISTED,
        b'{"Records":%b,"MillisBehindLatest":-5}' % LISTED,
        b'{"Records":%b,"MillisBehindLatest":1e300}' % LISTED,
        b'{"Records":%b,"NextShardIterator":5}' % LISTED,
        b'{"Records":%b,"NextShardIterator":"\\ud800"}' % LISTED,
        b'{"Records":%b,"ChildShards":%b}' % (LISTED, json.dumps([CHILD] * 9).encode()),
        b'{"Records":%b,"Records":%b}' % (LISTED, OTHERS),
        b'{"Records":%b,"\\u0052ecords":%b}' % (LISTED, OTHERS),
        b'{"More":{"Records":%b}}' % LISTED,
        b'{"More":{"Records":%b},"Records":[]}' % LISTED,
        b'{"More":{"Records":%b},"Records":%b}' % (LISTED, OTHERS),
        b'{"More":"\\"Records\\":[","Records":%b}' % LISTED,
        b'[{"Records":%b}]' % LISTED,
        b'{"Records":%b' % LISTED,
        b'{"Records":%b,]}' % LISTED[:-1],
        b'{"Records":%b}{}' % LISTED,
        b'{"a":' * 2_000 + b'{"Records":%b}' % LISTED + b"}" * 2_000,
    ],
)
def test_an_answer_is_not_as_it_should_be(body: bytes) -> None:
    """A lag that is none, records that are not those of the response, a response without an end or without a bottom."""
    assert same(b'{"Records":%b,"MillisBehindLatest":5,"NextShardIterator":"A"}' % LISTED)
    same(body)


def test_what_is_no_text_is_asked_for_again() -> None:
    """A response that has bytes which are not UTF-8 where a text belongs."""
    with pytest.raises(MalformedResponse):
        batches.decode_iterator(b'{"ShardIterator":"\xff"}')
    with pytest.raises(MalformedResponse):
        batches.decode_batch(body_of(RECORD.replace(b'"1"', b'"\xff"')), SHARD, NOW)


def test_the_last_answer_of_a_shard_has_its_children() -> None:
    """However many there are."""
    for count in (1, 2, 9):
        body = body_of(RECORD, RECORD, after=b',"ChildShards":' + json.dumps([CHILD] * count).encode())
        same(body)
        assert len(batches.decode_batch(body, SHARD, NOW).child_shards) == count


@pytest.mark.parametrize("key", ["", "x", "-1", "1.5", "0x1", "1_0", " 1", "9" * 5_000])
def test_a_child_with_a_hash_key_that_is_none(key: str) -> None:
    """The response is requested again, whoever decodes it."""
    child = {**CHILD, "HashKeyRange": {"StartingHashKey": key, "EndingHashKey": "9"}}
    for records in (b"[]", LISTED):
        body = b'{"ChildShards":%b,"Records":%b}' % (json.dumps([child]).encode(), records)
        assert batches._decode_columns(body, SHARD, NOW) is None
        with pytest.raises(MalformedResponse):
            batches._decode(body, SHARD, NOW)


@pytest.mark.parametrize("more", [b" " * 100_000, b'"%b":"",' % (b"x" * 100_000)], ids=["blanks", "a long name"])
def test_a_first_record_unlike_all_others_takes_no_memory(more: bytes) -> None:
    """What stands in it is looked for only as often as there is room for it."""
    first = RECORD.replace(b'"Data"', more + b'"Data"')
    body = body_of(first, *[RECORD] * 2_000, after=b',"NextShardIterator":"%b"' % (b"A" * 100_000))
    tracemalloc.start()
    try:
        same(body)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(body)
    finally:
        tracemalloc.stop()


def test_a_record_of_very_many_fields_is_decoded_strictly() -> None:
    """Each field takes time, however short it is."""
    for count, is_taken in ((10, True), (20, False)):
        record = RECORD.replace(b"{", b"{" + b"".join(b'"X%d":"",' % n for n in range(count)))
        assert same(body_of(record, record)) is is_taken


def test_what_polars_reads_is_what_is_allowed() -> None:
    """Numbers with any two characters in their midst, base64 with any bits that are left over."""
    for pair in product(b"01.-+eE_xinfa ,", repeat=2):
        number = b"1%b1" % bytes(pair)
        same(body_of(RECORD, RECORD.replace(b"1.7e9", number), RECORD))
    for character in string.ascii_letters + string.digits + "+/-_=":
        for text in (f"A{character}==", f"AA{character}=", f"AAA{character}"):
            same(body_of(RECORD, RECORD.replace(b'""', b'"%b"' % text.encode()), RECORD))


def test_aggregates_are_unpacked() -> None:
    """In the first record, which tells early, or in another."""
    users = RECORD.replace(b'""', b'"%b"' % base64.b64encode(pack("k", [b"1", b"2"])))
    for records, count in (([users, RECORD, users], 5), ([RECORD, users, RECORD], 4)):
        assert not same(body_of(*records))
        (batch,) = batches.decode_batch(body_of(*records), SHARD, NOW).parts(LARGE_BYTES)
        assert batch.rows.num_rows == count


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Split small answers too; collects how many records were found in each."""
    counts: list[int] = []

    def spy(body: bytes) -> Any:
        split = read_columns(body)
        counts.append(0 if split is None else len(split[0].data))
        return split

    monkeypatch.setattr(batches, "LARGE_BYTES", 0)
    monkeypatch.setattr(batches, "read_columns", spy)
    return counts


def test_faults_neither_lose_nor_double(
    taken: list[int], source: kn.Source, streams: Streams, emulator: Emulator
) -> None:
    """Shards that are read at the same time give every record once, in order, whoever decoded it."""
    streams.create(shards=4)
    streams.put(4_000)
    faults = [ErrorReply("ProvisionedThroughputExceededException"), CutBody(at=0.5), Html(status=200), Reset()]
    emulator.on("GetRecords", *faults * 3)
    assert by_key(source.read("orders", progress=False)) == written_by_key(streams)
    assert sum(taken) == 4_000


def test_small_answers_are_decoded_strictly(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a megabyte that takes less of the processor."""
    monkeypatch.setattr(batches, "LARGE_BYTES", LARGE_BYTES)
    for count, found in ((10, []), (20_000, [20_000])):
        assert batches.decode_batch(body_of(*[RECORD] * count), SHARD, NOW).rows.num_rows == count
        assert taken == found


def test_answers_are_split_at_the_same_time() -> None:
    """As many as there are cores, always in the same threads, and no more."""
    decoding, inside, go_on = Decoding(cores=2), [], threading.Event()

    def decode() -> None:
        inside.append(threading.get_ident())
        assert go_on.wait(30)

    threads = [threading.Thread(target=decoding.beside_others, args=(decode,)) for _ in range(3)]
    with decoding.call(), decoding.call():
        for thread in threads:
            thread.start()
        until(lambda: len(inside) == 2 and decoding._responses == 3)
        go_on.set()
        for thread in threads:
            thread.join()
    assert len(inside) == 3
    assert len(set(inside)) == 2


def test_an_answer_without_company_is_split_where_it_came() -> None:
    """What was just received is still in the cache of that core."""
    decoding = Decoding(cores=2)
    with decoding.call():
        assert decoding.beside_others(threading.get_ident) == threading.get_ident()
        with decoding.call():
            assert decoding.beside_others(threading.get_ident) != threading.get_ident()


def test_the_child_of_a_fork_decodes() -> None:
    """The threads that decode stay behind in the parent; the child has its own."""
    decoding = Decoding(cores=1)
    with decoding.call(), decoding.call(), decoding.alone():
        assert decoding.beside_others(threading.get_ident)
        child = os.fork()
        if child == 0:
            threading.Timer(30, lambda: os._exit(1)).start()
            with decoding.call(), decoding.call(), decoding.alone():
                os._exit(0 if decoding.beside_others(lambda: "decoded") == "decoded" else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
