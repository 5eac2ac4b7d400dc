"""User records of another shard's keys: which are dropped and which kept, and what a commit is made of then."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig
from kinesis_nb.agents.job_spec import SyncSpec
from kinesis_nb.agents.settings import PortableSettings
from kinesis_nb.core.compression import decompressed
from kinesis_nb.core.foreign import STALE_MAP, Dropped, count, drops, made_at
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import Shard, hash_key
from kinesis_nb.core.types import Foreign
from kinesis_nb.emulator import sequence
from kinesis_nb.reading.buffer import Buffer
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.tail import _BufferSink
from kinesis_nb.source import open_kinesis
from kinesis_nb.syncing.ledger import Ledger
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.wire.batches import decode_batch
from tests.support.kpl import aggregate
from tests.support.virtual import world

if TYPE_CHECKING:
    from kinesis_nb.core.frames import Batch

HALF = 2**127
CHILD = Shard("shardId-000000000001", ("shardId-000000000000",), (0, HALF - 1))
ROOT = Shard("shardId-000000000000", (), (0, HALF - 1))
MADE = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LOW = [key for key in map(str, range(100)) if hash_key(key) < HALF]
HIGH = [key for key in map(str, range(100)) if hash_key(key) >= HALF]


def number(made: datetime, written: datetime) -> str:
    """Return the sequence number of the first record of a shard, in the layout of the service."""
    prefix = sequence.prefix(round(made.timestamp() * 1000), stream=1, shard=1)
    return sequence.encode(prefix, 1, round(written.timestamp() * 1000))


def epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- the rule


@pytest.mark.parametrize(
    ("sequence_number", "arrived", "made"),
    [
        # AWS's developer guides of Lambda: one stream, two records a minute apart
        ("49590338271490256608559692538361571095921575989136588898", 1545084650.987, 1542776258),
        ("49590338271490256608559692540925702759324208523137515618", 1545084711.166, 1542776258),
        # of a real split: the parent's last number, and the children's first
        ("49548859072981407141756144980517230543978492779512725506", 1426527176.0, 1426526784),
        ("49548859213219643322715968606065803827347328807764754450", 1426527177.0, 1426527177),
        ("49548859213241944067914499229207339545619977169270734882", 1426527177.0, 1426527177),
        # the last number of such a child, which was merged twelve minutes later
        ("49548859213230793695315233917635362760664090379986927634", 1426527934.0, 1426527177),
    ],
)
def test_numbers_of_aws_say_when_their_shard_was_made(sequence_number: str, arrived: float, made: int) -> None:
    """Published sequence numbers of the service hold the second of their shard's making, whatever the record's age."""
    written = int(sequence_number) >> 36 & (2**36 - 1)
    assert abs(written - arrived) < 3
    assert made_at(sequence_number, epoch(arrived)) == epoch(made)


@given(st.integers(2 << 184, (3 << 184) - 1), st.integers(1_380_000_000, 4_100_000_000).map(epoch))
def test_a_number_that_does_not_hold_the_arrival_says_nothing(value: int, arrived: datetime) -> None:
    """Whatever its layout: a number is believed only where it agrees with when the record arrived."""
    written = value >> 36 & (2**36 - 1)
    assert made_at(str(value), arrived) is None or abs(written - arrived.timestamp()) <= 60


@pytest.mark.parametrize(
    "text",
    [
        *("1", "0", "9" * 129, number(MADE, MADE)[:-1], number(MADE, MADE) + "0"),
        *(str(int(number(MADE, MADE)) + (top << 184)) for top in (-2, -1, 1, 2)),
    ],
)
def test_numbers_of_other_servers_say_nothing(text: str) -> None:
    """Where a server counts otherwise nobody knows when the shard was made."""
    assert made_at(text, MADE) is None


def test_the_two_times_of_a_record_may_differ_by_a_minute() -> None:
    """A little skew is a clock's; more of it is another layout, and so is a record from before its shard."""
    for skew in (-60, -1, 0, 2, 60):
        assert made_at(number(MADE, MADE + skew * SECOND), MADE) == MADE
    assert made_at(number(MADE, MADE + 61 * SECOND), MADE) is None
    assert made_at(number(MADE, MADE - 61 * SECOND), MADE) is None
    assert made_at(number(MADE + 61 * SECOND, MADE), MADE) is None


@pytest.mark.parametrize(
    ("foreign", "shard", "age", "is_dropped"),
    [
        ("auto", CHILD, timedelta(0), True),
        ("auto", CHILD, STALE_MAP, True),
        ("auto", CHILD, STALE_MAP + timedelta(milliseconds=1), False),
        ("auto", CHILD, timedelta(days=300), False),
        ("auto", ROOT, timedelta(0), False),
        ("keep", CHILD, timedelta(0), False),
        ("drop", ROOT, timedelta(days=300), True),
    ],
)
def test_the_rule(foreign: Foreign, shard: Shard, age: timedelta, *, is_dropped: bool) -> None:
    """By default foreign user records are dropped only in a shard that a reshard made up to two minutes before."""
    arrived = MADE + age
    assert drops(foreign, shard, number(MADE, arrived), arrived) is is_dropped


def test_an_unknown_time_of_making_keeps() -> None:
    """Where nothing says when a child was made its foreign user records are kept: a double can be told, a loss not."""
    assert not drops("auto", CHILD, "17", MADE)
    assert drops("drop", CHILD, "17", MADE)


def page(*rows: list[str], shard: Shard = CHILD, foreign: Foreign = "auto", most: int = 2**30) -> list[Batch]:
    """Decode a response of aggregates with these keys, all of which arrived right after the shard was made."""
    prefix = sequence.prefix(round(MADE.timestamp() * 1000), stream=1, shard=1)
    records = [
        {
            "SequenceNumber": sequence.encode(prefix, i + 1, round(MADE.timestamp() * 1000)),
            "Data": base64.b64encode(aggregate([(key, None, gzip.compress(b"%d" % i)) for key in keys])).decode(),
            "ApproximateArrivalTimestamp": MADE.timestamp(),
            "PartitionKey": "packed",
        }
        for i, keys in enumerate(rows)
    ]
    body = json.dumps({"Records": records, "NextShardIterator": "i", "MillisBehindLatest": 0}).encode()
    return list(decode_batch(body, shard, MADE).parts(most, foreign))


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(LOW[:3] + HIGH[:3]), min_size=1, max_size=4), min_size=1, max_size=6), st.data()
)
def test_every_user_record_is_a_row_or_counted(records: list[list[str]], data: st.DataObject) -> None:
    """In whatever parts a response is given: each user record is kept with its place, or counted with its record."""
    foreign, most = data.draw(st.sampled_from(get_args(Foreign))), data.draw(st.sampled_from([1, 3_000, 2**30]))
    shard = data.draw(st.sampled_from([CHILD, ROOT]))
    opened = [
        part for whole in page(*records, shard=shard, foreign=foreign, most=most) for part in decompressed(whole, 1)
    ]
    numbers = [batch.read_to for batch in page(*records, shard=shard, most=1)]
    keeps = foreign == "keep" or (foreign == "auto" and shard is ROOT)
    wanted = [
        (number, place, key)
        for number, keys in zip(numbers, records, strict=True)
        for place, key in enumerate(keys)
        if keeps or hash_key(key) < HALF
    ]
    columns = ("sequence_number", "sub_sequence_number", "partition_key")
    found = [row for batch in opened for row in zip(*(batch.rows[name].to_pylist() for name in columns), strict=True)]
    assert found == wanted
    dropped = [record for batch in opened for record in batch.dropped]
    assert {record.sequence_number: record.user_records for record in dropped} == {
        number: lost
        for number, keys in zip(numbers, records, strict=True)
        if (lost := len(keys) - sum(row[0] == number for row in wanted))
    }
    assert len(dropped) == len({record.sequence_number for record in dropped})
    for batch in opened:  # what is delivered up to a part is what its position says
        assert all(int(record.sequence_number) <= int(batch.read_to or 0) for record in batch.dropped)


def test_what_was_delivered_before_is_not_counted_again() -> None:
    """A response that begins again at the last record, to prove that nothing was lost, gives only what is behind it."""
    (batch,) = page([LOW[0], HIGH[0]], [HIGH[0], HIGH[1]])
    first, second = (record.sequence_number for record in batch.dropped)
    assert [record.sequence_number for record in batch.behind(first).dropped] == [second]
    assert batch.behind(second).dropped == ()


# --- what a sync is about to commit


def dropped(*numbers: int) -> tuple[Dropped, ...]:
    return tuple(Dropped(str(number), MADE, 2) for number in numbers)


def rows(*numbers: int) -> pa.RecordBatch:
    """Return rows with these sequence numbers."""
    (batch,) = page([LOW[0]] * len(numbers))
    columns = dict(zip(batch.rows.schema.names, batch.rows.columns, strict=True))
    columns["sequence_number"] = pa.array(map(str, numbers), pa.string())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.rows.schema)


def ledger() -> Ledger:
    made = Ledger()
    made.own(["a"], [], {"a": Checkpoint(4, "10")})
    return made


def committed(made: Ledger, held: list[Any]) -> Checkpoint:
    pending = made.pending(lambda: held)
    prepared = made.prepare(pending, MADE, 24)
    made.committed(pending, prepared)
    return made.reached("a")


def test_a_checkpoint_passes_what_was_dropped() -> None:
    """A record of which nothing was kept is counted, and never read again."""
    made = ledger()
    made.drop("a", dropped(11, 12))
    made.delivered("a", "12")
    reached = committed(made, [])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (4, "12", 4)
    assert not made.pending(list)


def test_a_checkpoint_does_not_pass_rows_that_are_not_committed() -> None:
    """What was dropped behind rows that wait for room is not counted before these are committed."""
    made = ledger()
    made.drop("a", dropped(12, 14))
    assert not made.pending(list)  # row 11 may wait to be taken
    reached = committed(made, [("a", rows(11, 13))])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (6, "13", 2)
    made.delivered("a", "14")
    reached = committed(made, [])
    assert (reached.offset, reached.sequence_number, reached.dropped) == (6, "14", 4)


def test_the_last_row_counts_where_it_is_behind() -> None:
    """Of the last row and the last dropped record the later one is the checkpoint."""
    made = ledger()
    made.drop("a", dropped(11))
    made.delivered("a", "12")
    assert committed(made, [("a", rows(12))]).sequence_number == "12"


def test_a_batch_that_comes_again_is_counted_once() -> None:
    """What could not be delivered is delivered again, with all that was dropped in it."""
    made = ledger()
    made.drop("a", dropped(11, 12))
    made.drop("a", dropped(11, 12, 13))
    made.delivered("a", "13")
    assert committed(made, []).dropped == 6


def test_a_tail_counts_what_comes_again_once() -> None:
    """A batch that found no memory is delivered again; what was dropped before the start of the tail is not counted."""
    (batch,) = page([HIGH[0]], [HIGH[0], HIGH[1]])
    _, clock, kinesis = world()
    feed = ReadPlan(kinesis, "orders", clock, ())
    sink = _BufferSink(feed, StartingPosition.trim_horizon(), Buffer(1_000, 2**20, "drop_oldest"))
    for _ in range(2):
        sink.deliver(CHILD, batch)
    sink.deliver(ROOT, batch)
    assert sink.dropped == 6
    late = _BufferSink(feed, StartingPosition.at(MADE + SECOND), Buffer(1_000, 2**20, "drop_oldest"))
    late.deliver(CHILD, batch)
    assert late.dropped == 0


def test_counts() -> None:
    """What was dropped is counted by user records, not by records."""
    assert count(dropped(1, 2)) == 4


def test_specs_of_agents_with_another_choice_differ() -> None:
    """A job that runs is replaced when the same call has another choice."""

    def spec(foreign: Foreign) -> SyncSpec:
        settings = PortableSettings(SourceConfig(auth=kn.StaticCredentials("emulator", "emulator")), {})
        return SyncSpec(settings, open_kinesis, "orders", "/t", StartingPosition.trim_horizon(), 1.0, "fail", foreign)

    specs = [spec(foreign) for foreign in get_args(Foreign)]
    assert len({one.setup() for one in specs}) == 3
    assert len({one.job() for one in specs}) == 1
