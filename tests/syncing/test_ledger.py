"""What a sync knows of its shards from one run to the next: what children inherit, and what an outage cost."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.core.shards import Shard
from kinesis_nb.errors import ServiceError
from kinesis_nb.reading.plan import ReadPlan
from kinesis_nb.reading.sink import Gap
from kinesis_nb.syncing.ledger import WRONG_CLOCK, Ledger, Pending
from kinesis_nb.syncing.sync import Sync
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.origin import has_properties
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.table import _PROPERTIES, SyncTable
from tests.support.places import ORIGIN
from tests.support.virtual import VirtualKinesis
from tests.syncing.test_loss import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.core.position import StartingPosition

FIRST, SECOND, THIRD = (f"shardId-{number:012d}" for number in range(3))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MIDDLE = str(2**127)


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path / "t")


def split(stream: Stream, shard_id: str = FIRST, key: str = MIDDLE) -> None:
    stream.model.call("SplitShard", {"StreamName": "orders", "ShardToSplit": shard_id, "NewStartingHashKey": key})
    stream.sleep(0.01)


def merge(stream: Stream, first: str, second: str) -> None:
    what = {"StreamName": "orders", "ShardToMerge": first, "AdjacentShardToMerge": second}
    stream.model.call("MergeShards", what)
    stream.sleep(0.01)


def keep(stream: Stream, hours: int, was: int = 24) -> None:
    change = "Increase" if hours > was else "Decrease"
    what = {"StreamName": "orders", "RetentionPeriodHours": hours}
    stream.model.call(f"{change}StreamRetentionPeriod", what)


# --- pure


def ledger(**found: Checkpoint) -> Ledger:
    """Return the ledger of a writer that owns some shards."""
    ledger = Ledger()
    ledger.own(found, (), found)
    return ledger


def parents(*shard_ids: str) -> Shard:
    return Shard("child", parents=shard_ids)


def test_a_child_inherits_what_was_seen_of_its_parents() -> None:
    """A child that was never read goes on with the offset, the stamp and the knowledge of its parent."""
    told = ledger(child=Checkpoint())
    told.inherit(parents("a"), {"a": Checkpoint(7, "70", ended=True, seen=NOON, kept=24, stamp=NOON)})
    assert told.reached("child") == Checkpoint(7, None, seen=NOON, kept=24, stamp=NOON)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_merged_child_inherits_the_earlier_moment(order: str) -> None:
    """Of two parents a child takes the larger offset, the later stamp, and the earlier moment of being seen."""
    both = {
        "a": Checkpoint(7, "70", ended=True, seen=NOON, kept=24, stamp=NOON),
        "b": Checkpoint(9, "90", ended=True, seen=NOON - HOUR, kept=48, stamp=NOON - HOUR),
    }
    told = ledger(child=Checkpoint())
    told.inherit(parents(*order), both)
    assert told.reached("child") == Checkpoint(9, None, seen=NOON - HOUR, kept=48, stamp=NOON)


def test_a_child_with_rows_inherits_nothing() -> None:
    """Where a child has records of its own they say how far it is."""
    mine = Checkpoint(9, "90", seen=NOON, kept=24, stamp=NOON)
    told = ledger(child=mine)
    told.inherit(parents("a"), {"a": Checkpoint(7, "70", ended=True, seen=NOON - HOUR, kept=48)})
    assert told.reached("child") == mine


def test_a_child_that_was_read_keeps_what_was_seen_of_it() -> None:
    """At a restart a child that was read, and had no record, does not go back to the moment of its parents' end."""
    told = ledger(child=Checkpoint(7, None, seen=NOON, kept=24))
    told.inherit(parents("a"), {"a": Checkpoint(7, "70", ended=True, seen=NOON - HOUR, kept=48)})
    assert told.reached("child").seen == NOON
    assert told.reached("child").kept == 24


def test_a_child_inherits_of_a_parent_that_this_writer_owns() -> None:
    """What this writer knows of a parent counts, not what the table said of it before."""
    told = ledger(child=Checkpoint(), a=Checkpoint(9, "90", ended=True, seen=NOON))
    told.inherit(parents("a"), {"a": Checkpoint()})
    assert told.reached("child").offset == 9


def test_a_child_that_is_owned_anew_keeps_what_it_inherited() -> None:
    """The table does not know yet what a child took from its parents; a second take-over must not number it from 0."""
    told = ledger(child=Checkpoint())
    told.inherit(parents("a"), {"a": Checkpoint(7, "70", ended=True, seen=NOON, kept=24, stamp=NOON)})
    told.own(["child"], (), {"child": Checkpoint()})
    assert told.reached("child") == Checkpoint(7, None, seen=NOON, kept=24, stamp=NOON)


@pytest.mark.parametrize("found", [Checkpoint(9, "90", seen=NOON), Checkpoint(7, None, seen=NOON + HOUR, kept=48)])
def test_what_the_table_says_of_a_child_that_is_owned_anew_counts(found: Checkpoint) -> None:
    """Another writer read it meanwhile: what that committed is newer than what was inherited."""
    told = ledger(child=Checkpoint())
    told.inherit(parents("a"), {"a": Checkpoint(7, "70", ended=True, seen=NOON - HOUR, kept=24)})
    told.own(["child"], (), {"child": found})
    assert told.reached("child") == found


def test_what_the_table_says_of_a_shard_with_rows_counts() -> None:
    """A shard that this writer has read, and another one after it: the table knows how far."""
    told = ledger(a=Checkpoint(7, "70", seen=NOON, kept=24))
    told.own(["a"], (), {"a": Checkpoint(9, "90", seen=NOON + HOUR, kept=24)})
    assert told.reached("a") == Checkpoint(9, "90", seen=NOON + HOUR, kept=24)


def test_the_end_of_a_parent_is_committed_with_what_its_children_inherit() -> None:
    """One commit marks the parent as ended and gives its children its offset, stamp and seen."""
    told = ledger(a=Checkpoint(7, "70", seen=NOON, kept=24, stamp=NOON), child=Checkpoint())
    told.end("a", (parents("a"),))
    prepared = told.prepare(told.pending(list), NOON + HOUR, 24)
    assert prepared.checkpoints["a"] == Checkpoint(7, "70", ended=True, seen=NOON, kept=24, stamp=NOON)
    assert prepared.checkpoints["child"] == Checkpoint(7, None, seen=NOON, kept=24, stamp=NOON)


def row(number: int) -> pa.RecordBatch:
    values = dict.fromkeys(SCHEMA.names) | {"shard_id": "a", "sequence_number": str(number)}
    return pa.RecordBatch.from_pylist([values], schema=SCHEMA)


def committed_at(told: Ledger, now: datetime) -> datetime | None:
    pending = told.pending(lambda: [("a", row(1))])
    prepared = told.prepare(pending, now, 24)
    told.committed(pending, prepared)
    return prepared.checkpoints["a"].stamp


def test_stamps_grow_and_recover() -> None:
    """A clock that goes back a little stamps with the last time; a stamp of a wrong clock, far ahead, is not kept."""
    told = ledger(a=Checkpoint(stamp=NOON))
    assert committed_at(told, NOON - WRONG_CLOCK) == NOON
    assert committed_at(told, NOON - WRONG_CLOCK - timedelta(milliseconds=1)) == NOON - WRONG_CLOCK - timedelta(
        milliseconds=1
    )


def test_numbers_go_on_within_and_between_commits() -> None:
    """Rows of several batches of one commit, and of the next commit, are numbered without a hole."""
    told = ledger(a=Checkpoint(5, "5"))
    pending = told.pending(lambda: [("a", row(6)), ("a", row(7))])
    prepared = told.prepare(pending, NOON, 24)
    assert prepared.rows["shard_offset"].to_pylist() == [5, 6]
    told.committed(pending, prepared)
    assert told.prepare(told.pending(lambda: [("a", row(8))]), NOON, 24).rows["shard_offset"].to_pylist() == [7]


def test_what_came_while_a_commit_was_under_way_waits_for_the_next_one() -> None:
    """The end and the gap of a shard that are told during a commit are in the next one, not forgotten with that one."""
    told = ledger(a=Checkpoint(5, "5"), b=Checkpoint(3, "3"))
    early, late = Gap("a", "trimmed", None, NOON), Gap("a", "trimmed", None, NOON + HOUR)
    told.lose(early)
    pending = told.pending(list)
    told.end("b", ())
    told.lose(late)
    told.committed(pending, told.prepare(pending, NOON, 24))
    then = told.pending(list)
    assert (then.ended, then.gaps) == ({"b": ()}, {"a": late})


def test_seen_of_idle_shards_is_due_now_and_then() -> None:
    """Nothing is committed for a shard that is silent, until the table lies further behind than it may."""
    told = ledger(a=Checkpoint(5, "5", seen=NOON))
    told.saw("a", NOON + timedelta(minutes=9))
    assert not told.pending(list, timedelta(minutes=10))
    told.saw("a", NOON + timedelta(minutes=11))
    assert told.pending(list, timedelta(minutes=10))
    told = ledger(a=Checkpoint())
    told.saw("a", NOON)
    assert told.pending(list, timedelta(minutes=10)), "nothing is known of it in the table"


def test_seen_never_goes_back() -> None:
    """A shard that is said to be seen up to an earlier moment than the table knows keeps the later one."""
    told = ledger(a=Checkpoint(5, "5", seen=NOON))
    told.saw("a", NOON - HOUR)
    assert told.prepare(told.pending(lambda: [("a", row(6))]), NOON, 24).checkpoints["a"].seen == NOON


def test_the_shortest_retention_counts_that_anything_is_known_of() -> None:
    """What was kept for 24 h when it was last looked at may be gone after that, however long it is kept now."""
    told = ledger(a=Checkpoint(kept=48), b=Checkpoint(kept=24), c=Checkpoint(kept=1, ended=True), d=Checkpoint())
    assert told.trimmed_before(NOON, 168) == NOON - 24 * HOUR
    assert ledger(a=Checkpoint(kept=168)).trimmed_before(NOON, 24) == NOON - 24 * HOUR
    assert ledger(a=Checkpoint()).trimmed_before(NOON, 48) == NOON - 48 * HOUR


def test_the_old_retention_stays_in_the_table_until_the_outage_is_passed() -> None:
    """A shard that has not caught up with the outage yet keeps the retention that was in force then."""
    told = ledger(a=Checkpoint(5, "5", seen=NOON - 40 * HOUR, kept=24))
    told.trimmed_before(NOON, 168)
    told.saw("a", NOON - 30 * HOUR)
    assert told.prepare(told.pending(list), NOON, 168).checkpoints["a"].kept == 24
    told.saw("a", NOON)
    assert told.prepare(told.pending(list), NOON, 168).checkpoints["a"].kept == 168


def test_what_was_promised_holds_until_something_is_known() -> None:
    """A shard of which the table knows nothing must miss nothing since the promise; others are not touched."""
    told = ledger(a=Checkpoint(), b=Checkpoint(1, "1", seen=NOON))
    told.promise("a", NOON)
    told.promise("b", NOON + HOUR)
    assert told.pending(list) == Pending({"a": NOON}, {}, [], {}, {})


# --- outages, through the sync


def told_of(stream: Stream, *shard_ids: str) -> None:
    """Check that the next run fails, and that with "warn" the loss of each of these shards is recorded for good."""
    with pytest.raises(kn.DataLoss):
        stream.sync()
    lost = stream.sync("warn").verify().lost
    assert len(lost) == len(shard_ids), lost
    for shard_id in shard_ids:
        assert any(shard_id in text for text in lost), shard_id
    again = stream.sync()
    assert again.verify().lost == lost, "told once, and then known"


def test_retention_raised_after_an_outage_hides_no_loss(stream: Stream) -> None:
    """What a stream of 24 h dropped during 30 h is told, though it keeps its records for 168 h now."""
    stream.put(1)
    stream.sync()
    stream.lose(2, 3)
    keep(stream, 168)
    stream.put(4)
    told_of(stream, FIRST)
    assert stream.numbers() == [1, 4]


def test_retention_raised_after_an_outage_of_an_empty_shard(stream: Stream) -> None:
    """The same where nothing of the shard is in the table but that it was looked at."""
    stream.sync()
    stream.lose(2, 3)
    keep(stream, 168)
    stream.put(4)
    told_of(stream, FIRST)


def test_retention_raised_before_an_outage_is_no_loss(stream: Stream) -> None:
    """A stream that kept everything during the outage lost nothing: the record read last is still there."""
    stream.put(1)
    stream.sync()
    keep(stream, 168)
    stream.lose(2, 3)
    stream.put(4)
    assert stream.sync().verify().lost == []
    assert stream.numbers() == [1, 2, 3, 4]


def test_retention_lowered_after_an_outage(stream: Stream) -> None:
    """What a stream drops when its retention is lowered is told."""
    keep(stream, 168)
    stream.put(1)
    stream.sync()
    stream.lose(2, 3)
    keep(stream, 24, was=168)
    stream.put(4)
    told_of(stream, FIRST)


def test_retention_lowered_and_raised_in_an_outage(stream: Stream) -> None:
    """The record read last has to be there still, and is not: what was dropped with it is told."""
    keep(stream, 168)
    stream.put(1)
    stream.sync()
    stream.lose(2, 3)
    keep(stream, 24, was=168)
    stream.put(4)
    keep(stream, 168)
    told_of(stream, FIRST)
    assert stream.numbers() == [1, 4]


def test_children_born_while_nobody_read(stream: Stream) -> None:
    """A shard that was split in the outage is told once it is gone, and its children begin at what is left of them."""
    stream.put(1)
    stream.sync()
    stream.put(2)
    split(stream)
    stream.lose(3)
    stream.put(4)
    with pytest.raises(kn.DataLoss):
        stream.sync()
    lost = stream.sync("warn").verify().lost
    assert any(FIRST in text for text in lost), lost
    assert stream.numbers() == [1, 4]


class Held(VirtualKinesis):
    """A transport that gives nothing of any shard but the first one."""

    def get_shard_iterator(self, stream: str, shard_id: str, position: StartingPosition) -> str:
        if shard_id != FIRST:
            raise ServiceError("not now", retryable=True)
        return super().get_shard_iterator(stream, shard_id, position)


def sync_the_first_shard_only(stream: Stream) -> None:
    """Bring the end of the first shard into the table, and read nothing of its children."""
    feed = ReadPlan(Held(stream.model, stream.clock), "orders", stream.clock, ())
    sync = Sync(feed, SyncTable.open(stream.table, ORIGIN), 0.05, "fail")
    sync.start()
    while not SyncTable.open(stream.table, ORIGIN).ended([FIRST]):
        assert sync.is_active, sync.status()
    sync.stop()


def test_children_that_were_not_read_before_an_outage(stream: Stream) -> None:
    """Children of a parent whose end is in the table, of which nothing was read before 30 h passed, are told."""
    stream.put(1)
    stream.sync()
    split(stream)
    stream.put(2)
    sync_the_first_shard_only(stream)
    stream.lose(3)
    stream.put(4)
    told_of(stream, SECOND, THIRD)
    assert stream.numbers() == [1, 4]


def test_children_that_were_not_read_lose_nothing_in_time(stream: Stream) -> None:
    """The same children, read again within the retention, are whole, and go on with the offsets of their parent."""
    stream.put(1)
    stream.sync()
    split(stream)
    stream.put(2)
    sync_the_first_shard_only(stream)
    stream.sleep(20)
    stream.put(3)
    assert stream.sync().verify().lost == []
    assert stream.numbers() == [1, 2, 3]


def test_several_generations_gone(stream: Stream) -> None:
    """A shard that was split in the outage, and its children that were merged: the loss of all three is told."""
    stream.origin = replace(ORIGIN, newest_shard=FIRST)
    stream.put(1)
    stream.sync()
    stream.put(2)
    split(stream)
    stream.put(3)
    merge(stream, SECOND, THIRD)
    stream.lose(4)
    stream.put(5)
    listed = {shard.shard_id for shard in VirtualKinesis(stream.model, stream.clock).list_shards("orders")}
    assert listed == {"shardId-000000000003"}
    with pytest.raises(kn.DataLoss):
        stream.sync()
    verdict = stream.sync("warn").verify()
    assert verdict
    for shard_id in (FIRST, SECOND, THIRD):
        assert any(shard_id in text for text in verdict.lost), verdict.lost
    assert stream.numbers() == [1, 5], "what is left comes behind what was there before"
    assert stream.sync().verify().lost == verdict.lost


@pytest.mark.parametrize("newest", ["", THIRD], ids=["not known", "known"])
def test_parents_that_were_gone_before_the_table(stream: Stream, newest: str) -> None:
    """A stream that was split and has dropped the parent before anybody synced it: nothing was promised."""
    stream.put(1)
    split(stream)
    stream.sleep(30)
    stream.origin = replace(ORIGIN, newest_shard=newest)
    stream.put(2)
    for _ in range(2):
        assert stream.sync().verify().lost == []
    assert stream.numbers() == [2]


def test_known_children_gone_with_their_own_children(stream: Stream) -> None:
    """Children that the table knows, unread, and that left the stream with all they held, are told."""
    stream.put(1)
    stream.sync()
    split(stream)
    stream.put(2)
    sync_the_first_shard_only(stream)
    merge(stream, SECOND, THIRD)
    stream.sleep(30)
    stream.put(3)
    with pytest.raises(kn.DataLoss):
        stream.sync()
    lost = stream.sync("warn").verify().lost
    assert any(SECOND in text for text in lost)
    assert any(THIRD in text for text in lost)
    assert stream.numbers() == [1, 3]


@pytest.mark.parametrize("puts", [(), (1,)], ids=["empty", "with a record"])
def test_a_silent_stream_of_long_retention(stream: Stream, puts: tuple[int, ...]) -> None:
    """A stream that keeps its records for 7 days, and had none for 3 of them, lost nothing."""
    keep(stream, 168)
    stream.put(*puts)
    stream.sync()
    stream.sleep(72)
    stream.put(2)
    assert stream.sync().verify().lost == []
    assert stream.numbers() == [*puts, 2]


# --- tables of earlier versions


def old_table(folder: Path, numbers: dict[str, int]) -> None:
    """Make a table as earlier versions did: its origin in the description, no retention and no turns in its numbers."""
    origin = {key: value for key, value in asdict(ORIGIN).items() if key != "newest_shard"}
    table = DeltaTable.create(
        str(folder), TABLE_SCHEMA, description=json.dumps({"kinesis_nb": origin}), configuration=_PROPERTIES
    )
    names = [Transaction(f"{ORIGIN.stream_arn}/{name}", number) for name, number in numbers.items()]
    table.create_write_transaction(
        [], "append", table.schema(), commit_properties=CommitProperties(app_transactions=names)
    )


def test_a_table_of_an_earlier_version(tmp_path: Path) -> None:
    """It opens, is brought over once, and goes on where it stopped; the next opening writes nothing."""
    folder = tmp_path / "t"
    millis = round(NOON.timestamp() * 1000)
    numbers = {"epoch": 4, "offset": 7, "state": 0, "seen": millis, "gaps": 0, "stamp": millis * 1000, "seq0": 70}
    old_table(folder, {f"{FIRST}/{key}": number for key, number in numbers.items()})
    stream = Stream(folder)
    table = SyncTable.open(stream.table, replace(ORIGIN, newest_shard=FIRST, start="elsewhere"))
    assert table.origin == replace(ORIGIN, newest_shard=FIRST)
    assert has_properties(stream.table.open())
    assert table.checkpoints([FIRST])[FIRST] == Checkpoint(7, "70", seen=NOON, stamp=NOON)
    assert table.known() == {FIRST}
    version = table.version
    assert SyncTable.open(stream.table, ORIGIN).version == version
    assert table.claim() == 1
    table.acquire([FIRST])
    assert table.commit(None, {FIRST: Checkpoint(8, "71", seen=NOON, kept=24, stamp=NOON)})
    assert table.checkpoints([FIRST])[FIRST].kept == 24


def test_a_sync_of_an_earlier_version_goes_on(stream: Stream) -> None:
    """What such a table says of its shards is believed: only what came after that is read."""
    stream.put(1)
    where = {"StreamName": "orders", "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = stream.model.call("GetShardIterator", where)["ShardIterator"]
    found = stream.model.call("GetRecords", {"ShardIterator": iterator})["Records"]
    number = int(found[0]["SequenceNumber"])
    pieces = {f"seq{piece}": (number >> (62 * piece)) & (2**62 - 1) for piece in range(3)}
    numbers = {"epoch": 4, "offset": 1, "state": 0, "seen": 0, "gaps": 0, "stamp": 0, **pieces}
    assert stream.table.folder is not None
    old_table(stream.table.folder, {f"{FIRST}/{key}": number for key, number in numbers.items()})
    stream.put(2)
    sync = stream.sync()
    assert stream.numbers() == [2]
    rows = stream.table.scan().collect()
    assert rows["shard_offset"].to_list() == [1]
    assert sync.status().rows == 1


def test_a_commit_has_no_word_of_shards_that_have_nothing_new() -> None:
    """What a commit writes grows with the shards that gave rows, not with those that are idle or have ended."""
    told = ledger(**{name: Checkpoint(5, "5", seen=NOON) for name in "abc"})
    for name in "abc":
        told.saw(name, NOON + timedelta(minutes=1))
    told.end("c", ())
    pending = told.pending(lambda: [("a", row(6))], timedelta(minutes=10))
    prepared = told.prepare(pending, NOON, 24)
    assert prepared.checkpoints.keys() == {"a", "c"}
    told.committed(pending, prepared)
    assert told.pending(list).seen.keys() == {"b"}
