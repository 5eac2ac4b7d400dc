"""A server that lies: it is asked again, or there is an error that says so; nothing hangs or fills memory."""

from __future__ import annotations

import itertools
import json
import resource
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.core import retry
from kinesis_nb.emulator import Emulator
from kinesis_nb.errors import KinesisError
from kinesis_nb.reading import scheduler
from kinesis_nb.wire import listing
from tests.conftest import Streams, by_key, engine_threads, written_by_key
from tests.support.aws import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = dict[str, Any]
    Lie = Callable[[Answer], object]

pytestmark = pytest.mark.slow


LIMIT_SECONDS = 10.0  # for a call that a lie ends, on a busy machine
LIMIT_MIB = 400  # more than before any lie
KEYS = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
ALL = {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": "A"}


class Liar(Gate):
    """A Kinesis that tells lies in the place of what it would say."""

    action = ""
    lies: Iterator[Lie] | None = None
    told: Counter[str]

    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        status, answer = super().pass_on(action, token, body, headers)
        lie = next(self.lies, None) if self.lies is not None and action == self.action else None
        if lie is None:
            return status, answer
        self.told[action] += 1
        said = lie(json.loads(answer))
        return 200, said if isinstance(said, bytes) else json.dumps(said).encode()

    def will(self, action: str, *lies: Lie) -> None:
        """Tell these lies, one by one, and then the truth; who asks is patient."""
        retry.PATIENCE_SECONDS = 30.0
        self.action, self.lies, self.told = action, iter(lies), Counter()

    def always(self, action: str, lie: Lie) -> None:
        """Tell one lie for ever; who asks is soon out of patience."""
        retry.PATIENCE_SECONDS = 0.1
        self.action, self.lies, self.told = action, iter(lambda: lie, None), Counter()


def but(**changes: object) -> Lie:
    """Say the truth but for some members; ``...`` leaves one out."""

    def lie(answer: Answer) -> Answer:
        changed = {**answer, **changes}
        return {name: value for name, value in changed.items() if value is not ...}

    return lie


def each(member: str, **changes: object) -> Lie:
    """Say the truth but for some members of each item of a list."""
    return lambda answer: {**answer, member: [but(**changes)(item) for item in answer[member]]}


def within(member: str, **changes: object) -> Lie:
    """Say the truth but for some members of an object."""
    return lambda answer: {**answer, member: but(**changes)(answer[member])}


def child(**changes: object) -> Lie:
    """Say that the shard has ended, with such a child."""
    good = {"ShardId": "shardId-000000000099", "ParentShards": ["shardId-000000000000"], "HashKeyRange": KEYS}
    return but(NextShardIterator=None, ChildShards=[{**good, **changes}])


def backwards(answer: Answer) -> Answer:
    """Say the records in the wrong order, or of an empty response that it lags."""
    return {**answer, "Records": answer["Records"][::-1]} if len(answer["Records"]) > 1 else {**answer, "Records": 7}


RECORDS: dict[str, Lie] = {
    "no object": lambda _: [],
    "nothing": lambda _: b"",
    "a web page": lambda _: b"<html>sign in</html>",
    "no UTF-8": lambda answer: json.dumps(answer).encode().replace(b"Records", b"Rec\xffrds"),
    "bottomless": lambda _: b'{"Records":' + b"[" * 100_000,
    "half": lambda answer: json.dumps(answer).encode()[:-10],
    "records missing": but(Records=...),
    "records null": but(Records=None),
    "records of text": but(Records="none"),
    "records of numbers": but(Records=[1, 2]),
    "lag negative": but(MillisBehindLatest=-1),
    "lag huge": but(MillisBehindLatest=10**15),
    "lag beyond floats": lambda answer: json.dumps(answer).replace(
        '"MillisBehindLatest": 0', '"MillisBehindLatest": 1e999'
    ),
    "lag of text": but(MillisBehindLatest="0"),
    "lag NaN": but(MillisBehindLatest=float("nan")),
    "lag a list": but(MillisBehindLatest=[0]),
    "numbers negative": each("Records", SequenceNumber="-5"),
    "numbers hexadecimal": each("Records", SequenceNumber="0xff"),
    "numbers empty": each("Records", SequenceNumber=""),
    "numbers not text": each("Records", SequenceNumber=5),
    "numbers of 130 digits": each("Records", SequenceNumber="9" * 130),
    "numbers endless": each("Records", SequenceNumber="9" * 50_000),
    "numbers of other digits": each("Records", SequenceNumber="\u0661\u0662"),
    "numbers missing": each("Records", SequenceNumber=...),
    "numbers going backwards": backwards,
    "times negative": each("Records", ApproximateArrivalTimestamp=-62_167_219_200),
    "times beyond the calendar": each("Records", ApproximateArrivalTimestamp=1e30),
    "times of text": each("Records", ApproximateArrivalTimestamp="0000-01-01T00:00:00Z"),
    "times NaN": each("Records", ApproximateArrivalTimestamp=float("nan")),
    "times null": each("Records", ApproximateArrivalTimestamp=None),
    "data no base64": each("Records", Data="!!!"),
    "data a number": each("Records", Data=1),
    "data missing": each("Records", Data=...),
    "keys a list": each("Records", PartitionKey=["k"]),
    "iterator a number": but(NextShardIterator=7),
    "iterator empty": but(NextShardIterator=""),
    "iterator a list": but(NextShardIterator=["A"]),
    "iterator of a megabyte": but(NextShardIterator="A" * 2**20),
    "children of text": but(NextShardIterator=None, ChildShards="none"),
    "child without keys": child(HashKeyRange={}),
    "child of all and more keys": child(HashKeyRange={"StartingHashKey": "0", "EndingHashKey": str(2**128)}),
    "child of turned keys": child(HashKeyRange={"StartingHashKey": "5", "EndingHashKey": "4"}),
    "child of many digits": child(HashKeyRange={"StartingHashKey": "0", "EndingHashKey": "9" * 40}),
    "child of a hundred parents": child(ParentShards=["shardId-000000000000"] * 100),
    "child without a name": child(ShardId=""),
    "child named like a path": child(ShardId="../../x"),
}
STRANGE: dict[str, Lie] = {  # nobody can tell that they are lies, but not all of them let a read succeed
    "iterator missing": but(NextShardIterator=...),
    "encryption nonsense": but(EncryptionType={"x": 1}),
    "encryption of records": each("Records", EncryptionType=7),
    "lag a fraction": but(MillisBehindLatest=0.25),
    "more members": but(More=[1] * 1_000),
    "child its own parent": child(ParentShards=["shardId-000000000099"]),
    "child of an unknown parent": child(ParentShards=["shardId-000000000077"]),
    "child that is the shard": child(ShardId="shardId-000000000000"),
    "child that nobody knows": child(),
}
_first_page: Answer = {}
_tokens = itertools.count()


def _page(answer: Answer, token: str) -> Answer:
    """Say the first page again, whatever token was asked for, and that there are more."""
    if "Shards" in answer:
        _first_page.update(answer)
    return {**_first_page, "NextToken": token}


LISTINGS: dict[str, Lie] = {
    "no object": lambda _: [],
    "shards missing": but(Shards=...),
    "shards of text": but(Shards="none"),
    "shards of numbers": but(Shards=[1]),
    "a name missing": each("Shards", ShardId=...),
    "a name like a path": each("Shards", ShardId="../x"),
    "a name of a megabyte": each("Shards", ShardId="s" * 2**20),
    "keys missing": each("Shards", HashKeyRange=...),
    "keys of text": each("Shards", HashKeyRange="all"),
    "keys negative": each("Shards", HashKeyRange={"StartingHashKey": "-1", "EndingHashKey": "5"}),
    "keys turned": each("Shards", HashKeyRange={"StartingHashKey": "6", "EndingHashKey": "5"}),
    "keys absurd": each("Shards", HashKeyRange={"StartingHashKey": "0", "EndingHashKey": "9" * 39}),
    "numbers missing": each("Shards", SequenceNumberRange={}),
    "numbers hexadecimal": each("Shards", SequenceNumberRange={"StartingSequenceNumber": "ff"}),
    "numbers endless": each("Shards", SequenceNumberRange={"StartingSequenceNumber": "9" * 5_000}),
    "parents a list": each("Shards", ParentShardId=["a"]),
    "its own parent": lambda answer: {"Shards": [{**s, "ParentShardId": s["ShardId"]} for s in answer["Shards"]]},
    "a circle": lambda answer: {
        "Shards": [
            {**one, "ParentShardId": other["ShardId"]}
            for one, other in zip(answer["Shards"], answer["Shards"][::-1], strict=True)
        ]
    },
    "the same page again and again": lambda answer: _page(answer, "again"),
    "pages without an end": lambda answer: _page(answer, str(next(_tokens))),
    "token a number": but(NextToken=5),
}
TWICE: Lie = lambda answer: {"Shards": answer["Shards"] * 2}  # noqa: E731
ITERATORS: dict[str, Lie] = {
    "null": but(ShardIterator=None),
    "empty": but(ShardIterator=""),
    "missing": but(ShardIterator=...),
    "a number": but(ShardIterator=5),
    "a list": but(ShardIterator=["A"]),
    "of nine megabytes": but(ShardIterator="A" * 9 * 2**20),
    "of a megabyte": but(ShardIterator="A" * 2**20),
}
DESCRIPTIONS: dict[str, Lie] = {
    "no object": lambda _: [],
    "missing": but(StreamDescription=...),
    "of text": but(StreamDescription="none"),
    "a list": but(StreamDescription=[1]),
    "retention negative": within("StreamDescription", RetentionPeriodHours=-1),
    "retention of ages": within("StreamDescription", RetentionPeriodHours=10**12),
    "retention of text": within("StreamDescription", RetentionPeriodHours="abc"),
    "retention missing": within("StreamDescription", RetentionPeriodHours=...),
    "created at text": within("StreamDescription", StreamCreationTimestamp="yesterday"),
    "created in the year 0": within("StreamDescription", StreamCreationTimestamp=-62_167_219_200),
    "created beyond the calendar": within("StreamDescription", StreamCreationTimestamp=1e30),
    "created never": within("StreamDescription", StreamCreationTimestamp=None),
    "created in a list": within("StreamDescription", StreamCreationTimestamp=[1]),
    "status a number": within("StreamDescription", StreamStatus=7),
    "status missing": within("StreamDescription", StreamStatus=...),
    "mode of text": within("StreamDescription", StreamModeDetails="x"),
    "encryption a list": within("StreamDescription", EncryptionType=["KMS"]),
}
SUMMARIES: dict[str, Lie] = {
    "missing": but(StreamDescriptionSummary=...),
    "a list": but(StreamDescriptionSummary=[1]),
    "consumers of text": within("StreamDescriptionSummary", ConsumerCount="abc"),
    "size of text": within("StreamDescriptionSummary", MaxRecordSizeInKiB="abc"),
    "size negative": within("StreamDescriptionSummary", MaxRecordSizeInKiB=-1),
    "size endless": within("StreamDescriptionSummary", MaxRecordSizeInKiB=10**30),
    "ARN a number": within("StreamDescriptionSummary", StreamARN=5),
}
NAMES: dict[str, Lie] = {
    "missing": but(StreamNames=...),
    "null": but(StreamNames=None),
    "of numbers": but(StreamNames=[1]),
    "a number": but(StreamNames=7),
    "pages without an end": but(HasMoreStreams=True),
    "pages of nothing": lambda _: {"StreamNames": [], "HasMoreStreams": True},
    "more of text": but(HasMoreStreams="maybe"),
}
PUTS: dict[str, Lie] = {
    "no object": lambda _: [],
    "bottomless": lambda _: b'{"Records":' + b"[" * 100_000,
    "results missing": but(Records=...),
    "results of text": but(Records="all"),
    "results of numbers": but(Records=[1, 2, 3]),
    "fewer results": lambda answer: {**answer, "Records": answer["Records"][:-1]},
    "more results": lambda answer: {**answer, "Records": answer["Records"] * 9},
    "results of nothing": each("Records", ShardId=..., SequenceNumber=...),
    "codes of numbers": each("Records", ErrorCode=500),
    "shards of numbers": each("Records", ShardId=5),
}
REFUSALS: dict[str, Lie] = {  # well-formed, and yet nonsense
    "codes unknown": each("Records", ErrorCode="Nonsense", ErrorMessage="\x1b[31m" * 10_000, ShardId=...),
    "counts wrong": but(FailedRecordCount=10**9),
}


@pytest.fixture(scope="module")
def streams() -> Iterator[Streams]:
    with Emulator() as emulator:
        streams = Streams(emulator)
        streams.create(shards=2)
        streams.put(20)
        streams.create("output")
        yield streams


@pytest.fixture(scope="module")
def liar(streams: Streams) -> Liar:
    actions = "ListStreams DescribeStream DescribeStreamSummary ListShards GetShardIterator GetRecords PutRecords"
    return Liar(streams.emulator.endpoint_url, set(actions.split()))


@pytest.fixture(scope="module")
def honest(liar: Liar) -> Iterator[kn.Source]:
    keys = kn.StaticCredentials("emulator", "emulator")
    with liar.open() as url:
        source = kn.connect(endpoint_url=url, auth=keys, exports_enabled=True)
        source.read("orders", progress=False)
        before = _peak_mib()
        yield source
        assert _peak_mib() - before < LIMIT_MIB


@pytest.fixture
def source(honest: kn.Source, liar: Liar, monkeypatch: pytest.MonkeyPatch) -> Iterator[kn.Source]:
    """A source that asks again at once; no thread of the engine is left when the test is over."""
    for name, seconds in (("PATIENCE_SECONDS", 30.0), ("BASE_SECONDS", 0.01), ("CAP_SECONDS", 0.05)):
        monkeypatch.setattr(retry, name, seconds)
    monkeypatch.setattr(listing, "MOST_PAGES", 5)
    for name, seconds in (("DISCOVERY_SECONDS", 0.2), ("TICK_SECONDS", 0.05)):
        monkeypatch.setattr(scheduler, name, seconds)
    liar.will("")
    yield honest
    liar.will("")
    give_up = time.monotonic() + 5
    while engine_threads():
        assert time.monotonic() < give_up, engine_threads()


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform != "darwin" else peak // 2**20


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or the error of ours that it ends with; nothing in time, or another, is a failure."""
    ended: Future[Any] = Future()

    def work() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ended.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return ended.result(LIMIT_SECONDS)
    except KinesisError as error:
        assert error.message
        assert all(len(line) < 2_000 for line in str(error).splitlines())
        return error


def ended(call: Callable[[], Any]) -> KinesisError:
    found = outcome(call)
    assert isinstance(found, KinesisError), found
    return found


def _rows(found: Any) -> dict[str, list[int]]:
    assert not isinstance(found, KinesisError), found
    return by_key(found)


def _read(source: kn.Source) -> kn.Records:
    return source.read("orders", progress=False)


def test_there_are_enough() -> None:
    """At least sixty."""
    lies = (RECORDS, STRANGE, LISTINGS, ITERATORS, DESCRIPTIONS, SUMMARIES, NAMES, PUTS, REFUSALS)
    assert sum(map(len, lies)) >= 60


@pytest.mark.parametrize("lie", RECORDS)
def test_records_are_asked_for_again(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """A read has every row, each once and in order; one that hears nothing else gives up and says so."""
    liar.will("GetRecords", *[RECORDS[lie]] * 3)
    assert _rows(outcome(lambda: _read(source))) == written_by_key(streams)
    assert liar.told["GetRecords"] > 1
    liar.always("GetRecords", RECORDS[lie])
    ended(lambda: _read(source))


@pytest.mark.parametrize("lie", STRANGE)
def test_what_might_be_true_never_hangs(lie: str, source: kn.Source, liar: Liar) -> None:
    """A read ends, with rows or with an error."""
    liar.always("GetRecords", STRANGE[lie])
    outcome(lambda: _read(source))
    assert liar.told["GetRecords"]


@pytest.mark.parametrize("lie", LISTINGS)
def test_a_listing_is_asked_for_again(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """By whoever lists; the error says what is wrong where it says nothing else."""
    is_circle = lie in {"its own parent", "a circle"}
    for call in (lambda: _read(source), lambda: source.explore("orders").shards):
        if not (is_circle or "page" in lie):
            liar.will("ListShards", *[LISTINGS[lie]] * 2)
            assert not isinstance(outcome(call), KinesisError)
        liar.always("ListShards", LISTINGS[lie])
        found = outcome(call)
        assert isinstance(found, KinesisError) or is_circle
    assert "own ancestor" in str(ended(lambda: _read(source))) or not is_circle
    view = outcome(lambda: source.explore("orders"))
    if not isinstance(view, KinesisError):
        outcome(view._repr_html_)
        outcome(lambda: view.lineage._repr_html_())
        outcome(lambda: repr(view.lineage))


def test_all_pages_of_a_listing_count(source: kn.Source, liar: Liar, streams: Streams) -> None:
    """In the order of the pages, each asked for with the token of the one before."""

    def first(answer: Answer) -> Answer:
        return {**_page(answer, "more"), "Shards": answer["Shards"][:1]}

    liar.will("ListShards", first, lambda _: {"Shards": _first_page["Shards"][1:]})
    assert _rows(outcome(lambda: _read(source))) == written_by_key(streams)
    assert liar.told["ListShards"] == 2


def test_a_shard_that_is_listed_twice_is_one(source: kn.Source, liar: Liar, streams: Streams) -> None:
    """Its rows come once."""
    liar.always("ListShards", TWICE)
    assert _rows(outcome(lambda: _read(source))) == written_by_key(streams)
    assert len(source.explore("orders").shards) == 2


@pytest.mark.parametrize("lie", ITERATORS)
def test_an_iterator_is_asked_for_again(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """As records are."""
    liar.will("GetShardIterator", *[ITERATORS[lie]] * 2)
    assert _rows(outcome(lambda: _read(source))) == written_by_key(streams)
    liar.always("GetShardIterator", ITERATORS[lie])
    ended(lambda: _read(source))


def test_the_same_response_for_ever(source: kn.Source, liar: Liar) -> None:
    """Records that were read before, and the iterator of before, are no progress: a read gives up."""
    first: list[Answer] = []

    def lie(answer: Answer) -> Answer:
        first.extend([{**answer, "MillisBehindLatest": 1_000}] if answer["Records"] and not first else [])
        return first[0] if first else answer

    liar.always("GetRecords", lie)
    assert "read before" in str(ended(lambda: source.read("orders", shards=["shardId-000000000000"], progress=False)))


def test_a_tail_outlives_all_lies(source: kn.Source, liar: Liar, streams: Streams) -> None:
    """One after the other; it has every row once, in order, and says how often it had to ask again."""
    liar.will("GetRecords", *RECORDS.values())
    with source.tail("orders", start="trim_horizon") as tail:
        rows = outcome(lambda: tail.take(len(streams.written), timeout=LIMIT_SECONDS))
        assert _rows(rows) == written_by_key(streams)
        assert (
            sum(shard.malformed for shard in tail.stats().shards) >= len(RECORDS) - 3
        )  # some are cured by the next call
        assert not tail.take(1, timeout=0.3).to_arrow().num_rows


def test_a_sync_outlives_all_lies(source: kn.Source, liar: Liar, streams: Streams, tmp_path: Path) -> None:
    """In the table each row is once, in the order of its key."""
    liar.will("GetRecords", *RECORDS.values())
    sync = source.sync("orders", tmp_path / "t", commit_interval=0.2)
    try:
        assert outcome(lambda: sync.wait(timeout=LIMIT_SECONDS)) is True
        frame = sync.to_polars().sort("shard_offset")
        assert _rows(frame.to_arrow()) == written_by_key(streams)
    finally:
        sync.stop()


@pytest.mark.parametrize("lie", ["its own parent", "a circle"])
def test_a_circle_ends_a_tail_and_a_sync(lie: str, source: kn.Source, liar: Liar, tmp_path: Path) -> None:
    """Where a shard could never be read nobody waits for it."""
    liar.always("ListShards", LISTINGS[lie])
    with source.tail("orders", start="trim_horizon") as tail:
        assert "own ancestor" in str(ended(lambda: tail.take(1, timeout=LIMIT_SECONDS)))
        assert tail.state == "failed"
    sync = source.sync("orders", tmp_path / "t")
    assert "own ancestor" in str(ended(lambda: sync.wait(timeout=LIMIT_SECONDS)))
    assert sync.status().state == "failed"
    sync.stop()


@pytest.mark.parametrize("lie", DESCRIPTIONS)
def test_a_description_is_asked_for_again(lie: str, source: kn.Source, liar: Liar) -> None:
    """Or is an error where nothing else is said."""
    liar.will("DescribeStream", DESCRIPTIONS[lie])
    assert "orders" in outcome(lambda: source.explore("orders")._repr_html_())
    liar.always("DescribeStream", DESCRIPTIONS[lie])
    ended(lambda: source.explore("orders")._repr_html_())
    ended(lambda: source.explore()._repr_html_())


@pytest.mark.parametrize("lie", SUMMARIES)
def test_what_is_not_needed_is_left_out(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """A summary helps an explorer and an export, and stops neither."""
    liar.always("DescribeStreamSummary", SUMMARIES[lie])
    assert "orders" in outcome(lambda: source.explore("orders")._repr_html_())
    report = outcome(lambda: _export(source, streams))
    assert report.rows == 3


@pytest.mark.parametrize("lie", NAMES)
def test_names_are_asked_for_again(lie: str, source: kn.Source, liar: Liar) -> None:
    """Or are an error where nothing else is said."""
    liar.will("ListStreams", NAMES[lie])
    assert "orders" in outcome(source.explore)
    liar.always("ListStreams", NAMES[lie])
    ended(source.explore)


def _export(source: kn.Source, streams: Streams) -> Any:
    arn = streams.call("DescribeStreamSummary", StreamName="output")["StreamDescriptionSummary"]["StreamARN"]
    frame = pl.DataFrame({"id": ["a", "b", "c"], "n": [1, 2, 3]})
    return source.export_df(frame, arn, partition_column="id", progress=False)


@pytest.mark.parametrize("lie", PUTS)
def test_records_are_sent_again(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """Nobody knows then what was written: they may be there twice. Without an end it is an error."""
    liar.will("PutRecords", *[PUTS[lie]] * 2)
    report = outcome(lambda: _export(source, streams))
    assert report.rows == 3
    liar.always("PutRecords", PUTS[lie])
    ended(lambda: _export(source, streams))


@pytest.mark.parametrize("lie", REFUSALS)
def test_refusals_end(lie: str, source: kn.Source, liar: Liar, streams: Streams) -> None:
    """A code that nobody knows is tried a few times."""
    liar.always("PutRecords", REFUSALS[lie])
    outcome(lambda: _export(source, streams))
    assert liar.told["PutRecords"] < 20


def test_threads_are_left_by_none() -> None:
    """After all of that."""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kinesis_nb orders")]
