"""Maintenance next to what others do to a table: nothing twice, nothing erased comes back, no file of others goes."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import Field, PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

import kinesis_nb as kn
from kinesis_nb.core.shards import Shard
from kinesis_nb.syncing import upkeep
from kinesis_nb.syncing.upkeep import Maintenance, Upkeep
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.others import to_remember
from kinesis_nb.table.schema import TABLE_SCHEMA, as_written, unwritable
from kinesis_nb.table.storage import LOG, Storage
from kinesis_nb.table.table import SyncTable
from kinesis_nb.table.verify import TableCheck, verify_table
from tests.support.local import local
from tests.support.places import ORIGIN, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Streams

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OLD = time.time() - 3 * 24 * 3600
FILES, ROWS = 5, 4  # of the tables here: the number of files, and of rows in each
ERASED = "shard_offset % 4 = 3"  # a row of each file


def rows_of(first: int, count: int = ROWS, **columns: object) -> pa.Table:
    """Return rows of the shard ``s``, from an offset on."""
    row = {"partition_key": "k", "data": "{}", "shard_id": "s", "sub_sequence_number": 0}
    row |= {"kinesis_ingestion_timestamp": NOW, "foundry_ingestion_timestamp": NOW} | columns
    rows = [
        row | {"shard_offset": offset, "sequence_number": str(offset + 1)} for offset in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)


def commit(table: SyncTable, rows: pa.Table) -> str:
    """Commit rows; return the name of their file."""
    file, end = table.write_rows(rows), rows["shard_offset"][-1].as_py() + 1
    assert file is not None
    reached = {"s": Checkpoint(end, str(end))}
    assert table.commit(file, reached) or table.commit(file, reached)
    return file.path


def fill(storage: Storage) -> SyncTable:
    """Make a table of a few files."""
    table = SyncTable.open(storage, ORIGIN)
    table.acquire(["s"])
    for number in range(FILES):
        commit(table, rows_of(number * ROWS))
    return table


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "t")


@pytest.fixture
def table(storage: Storage) -> SyncTable:
    return fill(storage)


def offsets(storage: Storage) -> list[int]:
    return sorted(storage.scan().collect()["shard_offset"].to_list())


def checked(storage: Storage, listing: list[Shard] | None = None) -> TableCheck:
    return verify_table(SyncTable.open(storage, ORIGIN), [Shard("s")] if listing is None else listing)


def files_of(storage: Storage) -> set[str]:
    assert storage.folder is not None
    return {path.name for path in storage.folder.glob("*.parquet")}


def grow_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (OLD, OLD))


def overwrite(table: DeltaTable) -> None:
    pl.from_arrow(rows_of(0)).write_delta(table, mode="overwrite")  # type: ignore[union-attr]


def merge(table: DeltaTable) -> None:
    source = pa.table({"shard_offset": pa.array(range(3, FILES * ROWS, ROWS), pa.int64())})
    merged = table.merge(source, "s.shard_offset = t.shard_offset", source_alias="s", target_alias="t")
    merged.when_matched_delete().execute()


ALL = list(range(FILES * ROWS))
LEFT = [offset for offset in ALL if offset % ROWS != 3]
CHANGES: dict[str, tuple[Callable[[DeltaTable], Any], list[int]]] = {
    "OPTIMIZE": (lambda table: table.optimize.compact(), ALL),
    "Z-ORDER": (lambda table: table.optimize.z_order(["shard_offset"]), ALL),
    "DELETE": (lambda table: table.delete(ERASED), LEFT),
    "DELETE of all": (lambda table: table.delete(), []),
    "UPDATE": (lambda table: table.update({"data": "'redacted'"}), ALL),
    "MERGE": (merge, LEFT),
    "RESTORE": (lambda table: table.restore(table.version() - 2), ALL[: -2 * ROWS]),
    "overwrite": (overwrite, ALL[:ROWS]),
    "VACUUM": (lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True), ALL),
    "new column": (lambda table: table.alter.add_columns([Field("label", PrimitiveType("string"))]), ALL),
}


@pytest.mark.slow
@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("change", CHANGES)
def test_others_change_what_a_round_merges(storage: Storage, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """What somebody does between the merging and its commit holds: no row is there twice, and no erased one again."""
    do, right = CHANGES[change]
    merging, done = Storage.merge_parquet, list[int]()

    def meanwhile(self: Storage, *arguments: Any) -> tuple[str, int, int]:
        merged = merging(self, *arguments)
        if not done:
            done.append(do(storage.open()))
        return merged

    monkeypatch.setattr(Storage, "merge_parquet", meanwhile)
    Maintenance(storage).run()
    assert done
    assert offsets(storage) == right
    Maintenance(storage).run()
    assert offsets(storage) == right
    assert storage.scan().filter(pl.col("data") == "{}").collect().height == (0 if change == "UPDATE" else len(right))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("change", CHANGES)
def test_others_come_between_the_check_and_the_commit(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A round commits right behind the version that it compared its files with, or looks again."""
    do, right = CHANGES[change]
    committing, done = Maintenance._commit, list[int]()

    def meanwhile(self: Maintenance, *arguments: Any) -> None:
        if not done:
            done.append(do(storage.open()))
        committing(self, *arguments)

    monkeypatch.setattr(Maintenance, "_commit", meanwhile)
    Maintenance(storage).run()
    assert offsets(storage) == right


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("change", ["OPTIMIZE", "Z-ORDER", "DELETE", "UPDATE", "MERGE", "RESTORE", "overwrite"])
def test_others_who_began_before_a_round(storage: Storage, change: str) -> None:
    """Who opened the table before a round and commits after it is refused: its files are not in the table now."""
    early = storage.open()
    Maintenance(storage).run()
    with pytest.raises(DeltaError):
        CHANGES[change][0](early)
    assert offsets(storage) == ALL


@pytest.mark.usefixtures("table")
def test_a_round_that_gives_up_leaves_no_file(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was merged for nothing is removed at once."""
    before = files_of(storage)
    merging = Storage.merge_parquet

    def meanwhile(self: Storage, *arguments: Any) -> tuple[str, int, int]:
        merged = merging(self, *arguments)
        storage.open().delete(ERASED)
        return merged

    monkeypatch.setattr(Storage, "merge_parquet", meanwhile)
    Maintenance(storage).run()
    assert {path for path in files_of(storage) if path not in before} == set(
        pa.table(storage.open().get_add_actions())["path"].to_pylist()
    )


def test_a_busy_writer_does_not_keep_a_round_from_landing(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of new rows in between only make a round look again; its files are still the ones it merged."""
    committing, left = Maintenance._commit, [3]

    def meanwhile(self: Maintenance, *arguments: Any) -> None:
        if left[0]:
            left[0] -= 1
            commit(table, rows_of(ROWS * (FILES + 2 - left[0])))
        committing(self, *arguments)

    monkeypatch.setattr(Maintenance, "_commit", meanwhile)
    Maintenance(storage).run()
    assert not left[0]
    assert len(storage.open().file_uris()) == 1 + 3
    assert offsets(storage) == list(range(ROWS * (FILES + 3)))


@pytest.mark.usefixtures("table")
def test_a_round_whose_commit_lands_unnoticed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a commit that failed for the writer, and is in the log all the same, are not removed."""
    committing = Maintenance._commit

    def lost_response(self: Maintenance, *arguments: Any) -> None:
        committing(self, *arguments)
        raise CommitFailedError("the response was lost")

    monkeypatch.setattr(Maintenance, "_commit", lost_response)
    Maintenance(storage).run()
    assert len(storage.open().file_uris()) == 1
    assert offsets(storage) == ALL


def test_a_round_of_unknown_outcome_merges_nothing_more(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit may still arrive its files stay, and no others are written; once it cannot, they are removed."""
    before = files_of(storage)
    maintenance = Maintenance(storage)
    with monkeypatch.context() as broken:
        broken.setattr(Maintenance, "_commit", lambda *_: (_ for _ in ()).throw(OSError("EIO")))
        for _ in range(3):
            with pytest.raises(OSError, match="EIO") if files_of(storage) == before else nullcontext():
                maintenance.run()
            assert len(files_of(storage)) == len(before) + 1
    commit(table, rows_of(FILES * ROWS))
    maintenance.run()
    assert len(files_of(storage)) == len(before) + 2  # the new rows, and the merged ones
    assert offsets(storage) == list(range(ROWS * (FILES + 1)))


def test_a_round_without_retries_lands_right_behind_what_it_looked_at(storage: Storage, table: SyncTable) -> None:
    """deltalake rebases no commit that may not be tried again, though nothing in it conflicts."""
    early = storage.open()
    commit(table, rows_of(FILES * ROWS))
    properties = CommitProperties(max_commit_retries=0)
    with pytest.raises(CommitFailedError):
        early.create_write_transaction([], "append", early.schema(), commit_properties=properties)


def test_columns_of_others_survive(storage: Storage, table: SyncTable) -> None:
    """Values of an added column are there after a merge, and null where there were none."""
    storage.open().alter.add_columns([Field("label", PrimitiveType("string")), Field("n", PrimitiveType("integer"))])
    storage.open().update({"label": "'mine'", "n": "7"}, predicate=f"shard_offset < {ROWS}")
    commit(table, rows_of(FILES * ROWS))
    before = storage.scan().sort("shard_offset").collect()
    Maintenance(storage).run()
    after = storage.scan().sort("shard_offset").collect()
    assert len(storage.open().file_uris()) == 1
    assert after.equals(before)
    assert after["label"].null_count() == after["n"].null_count() == FILES * ROWS
    counts = pa.table(storage.open().get_add_actions())["num_records"].to_pylist()
    assert counts == [ROWS * (FILES + 1)]
    rows = as_written(storage.scan().collect().to_arrow())
    assert rows.schema.names == [*TABLE_SCHEMA.names, "label", "n"]
    assert checked(storage)


def test_a_column_of_ours_that_is_gone_is_null() -> None:
    """Rows without one of our columns still have all of them; text and bytes of polars become those of Arrow."""
    frame = pl.DataFrame({"mine": ["x"], "shard_id": ["s"], "raw": [b"y"]})
    rows = as_written(frame.to_arrow(compat_level=pl.CompatLevel.newest()))
    assert rows.schema.names == [*TABLE_SCHEMA.names, "mine", "raw"]
    assert rows.schema.field("mine").type == pa.string()
    assert rows["data"].null_count == 1
    with pytest.raises(kn.TableError, match="hint: "):
        as_written(pa.table({"shard_offset": ["not a number"]}))


@pytest.mark.usefixtures("table")
def test_a_wider_type_is_merged(storage: Storage) -> None:
    """A file whose column is narrower than the table's is cast to it."""
    storage.open().alter.add_columns([Field("n", PrimitiveType("long"))])
    rows = rows_of(FILES * ROWS).append_column("n", pa.array([1, 2, 3, 4], pa.int32()))
    name, size = storage.write_parquet(rows)
    opened = storage.open()
    opened.create_write_transaction([AddAction(name, size, {}, 0, True, "{}")], "append", opened.schema())
    Maintenance(storage).run()
    assert len(storage.open().file_uris()) == 1
    found = storage.scan().sort("shard_offset").collect()["n"]
    assert found.to_list() == [None] * FILES * ROWS + [1, 2, 3, 4]


@pytest.mark.parametrize(
    "properties",
    [{"delta.appendOnly": "true"}, {"delta.enableChangeDataFeed": "true"}],
    ids=lambda given: next(iter(given)),
)
def test_tables_whose_files_stay(storage: Storage, table: SyncTable, properties: dict[str, str]) -> None:
    """Nothing is merged where a removal is forbidden or would be told as a deletion; the rest of a round is done."""
    storage.open().alter.set_table_properties(properties)
    Maintenance(storage).run()
    assert len(storage.open().file_uris()) == FILES
    assert storage.last_log_checkpoint() == storage.open().version()
    commit(table, rows_of(FILES * ROWS))
    assert checked(storage)


@pytest.mark.usefixtures("table")
def test_files_with_deletion_vectors_stay(storage: Storage) -> None:
    """A table of deletion vectors is not merged, and is not written: rows that only a vector erases would come back."""
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}  # type: ignore[dict-item]
    entry = f"{LOG}/{storage.open().version() + 1:020d}.json"
    storage.write(entry, json.dumps({"protocol": protocol}).encode())
    Maintenance(storage).run()
    assert len(storage.open().file_uris()) == FILES
    refused = unwritable("t", storage.open())
    assert refused is not None
    assert "deletion vectors" in refused.message


@pytest.mark.usefixtures("table")
def test_what_a_sync_cannot_write_is_named(storage: Storage) -> None:
    """A column that must not be null is refused with two lines; other columns, comments and constraints are not."""
    assert unwritable("t", storage.open()) is None
    storage.open().alter.add_columns([Field("label", PrimitiveType("string"))])
    storage.open().alter.add_constraint({"positive": "shard_offset >= 0"})
    storage.open().alter.set_column_metadata("data", {"comment": "what was sent"})
    assert unwritable("t", storage.open()) is None
    storage.open().alter.add_columns([Field("required", PrimitiveType("string"), nullable=False)])
    Maintenance(storage).run()
    assert storage.scan().collect()["required"].null_count() == len(ALL)
    assert str(unwritable("t", storage.open())).count("\n") == 1
    assert "'required'" in str(unwritable("t", storage.open()))


@pytest.mark.usefixtures("table")
def test_a_torn_file_keeps_no_other_from_being_merged(storage: Storage) -> None:
    """The round names it, merges the others, and makes the log shorter."""
    assert storage.folder is not None
    torn = storage.folder / min(files_of(storage))
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(kn.TableError, match=torn.name):
        Maintenance(storage).run()
    assert len(storage.open().file_uris()) == 2
    assert storage.last_log_checkpoint() == storage.open().version()


# --- removing


def vacuumed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make every file old and run a round that looks for orphans; return what is left of the folder."""
    assert storage.folder is not None
    monkeypatch.setattr(upkeep, "VACUUM_EVERY", 1)
    grow_old(storage.folder)
    Maintenance(Storage(storage.uri)).run()
    return {str(path.relative_to(storage.folder)) for path in storage.folder.rglob("*") if path.is_file()}


def test_only_files_of_the_table_are_removed(
    storage: Storage, table: SyncTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes, copies, and a table below ours survive the vacuum, however old; orphans of a crash do not."""
    assert storage.folder is not None
    other = fill(Storage.at(tmp_path / "other"))
    shutil.copytree(tmp_path / "other", storage.folder / "below")
    orphan = table.write_rows(rows_of(0))
    assert orphan is not None
    torn = table.storage.write_parquet(rows_of(0), str(table._table.metadata().id))[0]
    (storage.folder / torn).write_bytes(b"")
    mine = {"notes.ipynb", "data.csv", "part-12345678-1234-4234-9234-123456789012.parquet", "notes/mine.parquet"}
    live = table.storage.open().file_uris()[0]
    for name in mine:
        (storage.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(live, storage.folder / name)
    copied = min(files_of(other.storage))
    shutil.copy(tmp_path / "other" / copied, storage.folder)
    below = {
        f"below/{path.relative_to(tmp_path / 'other')}" for path in (tmp_path / "other").rglob("*") if path.is_file()
    }
    left = vacuumed(storage, monkeypatch)
    assert left >= {*mine, *below, copied}
    assert not left & {orphan.path, torn}
    assert offsets(storage) == ALL
    assert offsets(Storage.at(storage.folder / "below")) == ALL


def test_a_file_that_may_be_published_yet_stays(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a young file is taken for an orphan, nor one that a writer of this process holds, however old."""
    assert storage.folder is not None
    monkeypatch.setattr(upkeep, "VACUUM_EVERY", 1)
    held = table.write_rows(rows_of(0))
    assert held is not None
    Maintenance(Storage(storage.uri)).run()
    assert held.path in files_of(storage)
    grow_old(storage.folder)
    Maintenance(table.storage).run()
    assert held.path in files_of(storage)


class SetClock:
    """A clock whose two hands are set apart from each other."""

    def __init__(self) -> None:
        self.wall, self.passed = datetime.now(UTC), 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds

    def random(self) -> float:
        return 0.5


def test_a_clock_that_was_set_removes_nothing(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that look old because the clock moved, or the machine slept, stay until a round with a steady clock."""
    monkeypatch.setattr(upkeep, "VACUUM_EVERY", 1)
    orphan = table.write_rows(rows_of(0))
    assert orphan is not None
    clock = SetClock()
    maintenance = Maintenance(Storage(storage.uri), clock=clock)
    clock.wall += timedelta(days=3)
    maintenance.run()
    assert orphan.path in files_of(storage)
    maintenance.run()
    assert orphan.path in files_of(storage), "by the clock of the files nothing is old"
    newest = table.write_rows(rows_of(4))
    assert newest is not None
    os.utime(Path(storage.uri, newest.path), (clock.wall.timestamp(), clock.wall.timestamp()))
    maintenance.run()
    assert orphan.path not in files_of(storage)


@pytest.mark.usefixtures("table")
def test_removed_files_go_after_the_retention_of_the_table(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a merge replaced stay for as long as the table says, and are removed then; an OPTIMIZE's too."""
    before = files_of(storage)
    storage.open().optimize.compact()
    assert files_of(storage) > before
    vacuumed(storage, monkeypatch)
    assert files_of(storage) > before  # removed minutes ago, and made days ago
    storage.open().alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    vacuumed(storage, monkeypatch)
    assert not files_of(storage) & before
    assert offsets(storage) == ALL


def test_files_removed_by_a_clock_ahead_stay(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another machine has just merged is no orphan, although its clock dates the removal into the future."""
    before = files_of(storage)
    clock = SetClock()
    clock.wall += timedelta(hours=1)
    Maintenance(Storage(storage.uri), clock=clock).run()
    assert files_of(storage) > before
    commit(table, rows_of(8))  # so that the round has something to merge, and a file of its own time
    vacuumed(storage, monkeypatch)
    assert files_of(storage) > before


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "path", ["../outside.parquet", "{root}/outside.parquet", "file://{root}/outside.parquet", "below/x.parquet"]
)
def test_a_path_out_of_the_folder_is_not_followed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A removed file that a log names with another folder stays, wherever it is."""
    assert storage.folder is not None
    (storage.folder / "below").mkdir()
    outside = [tmp_path / "outside.parquet", storage.folder / "below" / "x.parquet"]
    for file in outside:
        pq.write_table(rows_of(0), file)
    named = path.format(root=tmp_path)
    opened = storage.open()
    opened.create_write_transaction([AddAction(named, 1, {}, 0, True, "{}")], "append", opened.schema())
    opened = storage.open()
    opened.create_write_transaction([RemoveAction(named, True, 1, 1)], "append", opened.schema())
    vacuumed(storage, monkeypatch)
    assert all(file.exists() for file in outside)


def test_orphans_go_everywhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket as in a folder, unpublished files are removed: at once where that is known, else by the vacuum."""
    monkeypatch.setattr(upkeep, "VACUUM_EVERY", 1)
    monkeypatch.setattr(upkeep, "RETENTION_HOURS", 0)
    table = fill(place.storage)
    orphans = [table.write_rows(rows_of(0)) for _ in range(2)]
    names = [file.path for file in orphans if file]
    users = "part-12345678-1234-4234-9234-123456789012.parquet"
    place.storage.write(users, place.storage.read(names[0]) or b"")
    table.storage.discard(names[:1])
    assert set(names) & place.storage.data_files().keys() == {names[1]}
    Maintenance(place.storage).run()
    assert set(names) & place.storage.data_files().keys() == set()
    assert users in place.storage.data_files()
    assert len(place.storage.open().file_uris()) == 1
    assert place.rows()["shard_offset"].sort().to_list() == ALL


def test_a_merge_that_fails_leaves_no_file_anywhere(place: Place) -> None:
    """A torn source ends the merge, and the file that it had begun is gone."""
    table = fill(place.storage)
    names = sorted(place.storage.data_files())
    place.storage.write(names[-1], b"torn")
    with pytest.raises(pa.ArrowInvalid):
        place.storage.merge_parquet(names, TABLE_SCHEMA)
    assert sorted(place.storage.data_files()) == names
    assert table.faults() == [f"the data file {names[-1]} is not a complete Parquet file"]


# --- the thread


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "error",
    [
        OSError("EIO"),
        ValueError("no such thing"),
        kn.AccessDenied("no", hint="ask"),
        kn.errors.ServiceError("away", retryable=True),
        BaseException("a panic"),
        RuntimeError(),
    ],
    ids=repr,
)
def test_no_failure_ends_the_thread(storage: Storage, error: BaseException) -> None:
    """Whatever a round raises is told in one line and tried again, later and later; a good one clears it."""
    versions: Iterator[BaseException | int] = iter([error, error, 0])

    def version() -> int:
        if isinstance(found := next(versions), BaseException):
            raise found
        return found

    thread = Upkeep(storage, version)
    waits = [thread.step(), thread.step()]
    assert thread.retry_reason.startswith("maintenance failed")
    assert "\n" not in thread.retry_reason
    assert upkeep.POLL_SECONDS < waits[0] < waits[1] <= upkeep.RETRY_SECONDS
    assert thread.step() == upkeep.POLL_SECONDS
    assert thread.retry_reason == ""


def test_a_round_is_left_where_it_can_be(storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops the upkeep in the middle of a merge waits for that file and its commit, and for nothing else."""
    begun, may_go_on = threading.Event(), threading.Event()
    merged: list[object] = []
    merge = Storage.merge_parquet

    def slow(self: Storage, files: Any, *more: Any) -> Any:
        begun.set()
        assert may_go_on.wait(30)
        merged.append(files)
        return merge(self, files, *more)

    pairs = [("EVERY", 1), ("POLL_SECONDS", 0.01), ("_bins", lambda files, _: [dict(list(files.items())[:2])] * 2)]
    for name, value in pairs:
        monkeypatch.setattr(upkeep, name, value)
    monkeypatch.setattr(Storage, "merge_parquet", slow)
    thread = Upkeep(storage, lambda: table.version)
    thread.start("upkeep of a test")
    assert begun.wait(30)
    thread.stop()
    assert not thread.join(0.1)
    may_go_on.set()
    assert thread.join(30)
    assert len(merged) == 1
    assert storage.last_log_checkpoint() == 0  # the log was not shortened any more
    assert DeltaTable(storage.uri).to_pyarrow_table().num_rows == FILES * ROWS
    assert len(DeltaTable(storage.uri).file_uris()) == FILES - 1


def test_nothing_is_written_after_stop(
    source: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder can be moved or removed as soon as stop() returned, though a round of maintenance was under way."""
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(_self: Maintenance) -> None:
        begun.set()
        assert may_go_on.wait(30)

    monkeypatch.setattr(upkeep, "EVERY", 1)
    monkeypatch.setattr(upkeep, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Maintenance, "run", slow)
    streams.create()
    streams.put(5)
    sync = local(source.sync("orders", tmp_path / "t"))
    assert sync.wait(30)
    assert begun.wait(30)
    ends = threading.Thread(target=sync.stop)
    ends.start()
    assert sync.join(30)
    ends.join(0.2)
    assert ends.is_alive()
    assert sync.status().error == "a round of maintenance is under way"
    may_go_on.set()
    ends.join(30)
    assert not ends.is_alive()
    assert sync.status().error == ""


def test_one_failing_part_keeps_no_other_from_being_done(
    storage: Storage, table: SyncTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is shortened although the merging panics, and the panic is told."""
    monkeypatch.setattr(upkeep, "EVERY", 1)
    monkeypatch.setattr(Maintenance, "_compact", lambda *_: (_ for _ in ()).throw(BaseException("a panic")))
    thread = Upkeep(storage, lambda: table.version)
    thread.step()
    assert "a panic" in thread.retry_reason
    assert storage.last_log_checkpoint() == table.version


# --- what others did


@pytest.mark.usefixtures("table")
def test_verify_tells_what_others_did(storage: Storage) -> None:
    """An erasure is told with its version and program, next to the holes; what a sync does is not told."""
    assert checked(storage).notes == []
    Maintenance(storage).run()
    assert checked(storage).notes == []
    storage.open().optimize.z_order(["shard_offset"])
    assert "OPTIMIZE at version" in checked(storage).notes[0]
    assert checked(storage)
    storage.open().delete(ERASED)
    found = checked(storage)
    assert not found
    assert f"{FILES - 1} holes" in found.problems[0]
    assert f"{FILES} rows removed by others (DELETE at version {found.version} by delta-rs" in found.notes[-1]
    assert found.notes[-1] in repr(found)
    assert "DELETE" in found._repr_html_()
    assert found.to_polars()["notes"].to_list() == [[]]


def test_what_others_did_outlives_the_log(storage: Storage, table: SyncTable) -> None:
    """An erasure is told after the log was shortened, once, however many rounds and commits follow."""
    storage.open().delete(ERASED)
    told = checked(storage).notes
    assert len(told) == 1
    for number in range(3):
        commit(table, rows_of(ROWS * (FILES + number)))
        Maintenance(storage).run()
        for version in range(storage.last_log_checkpoint()):
            storage.discard([f"{LOG}/{version:020d}.json"])
        assert checked(storage).notes == told
    assert to_remember(storage, storage.open().version()).keys() == {"kinesis_nb/others"}


@pytest.mark.usefixtures("table")
def test_verify_finds_rows_that_are_all_gone(storage: Storage) -> None:
    """A shard whose rows were all erased is a problem, and named, though nothing of it is in the table's files."""
    storage.open().delete()
    found = checked(storage, [])
    assert found.problems == ["s: all of its rows are missing"]


@pytest.mark.usefixtures("table")
def test_verify_without_a_stream(storage: Storage) -> None:
    """A table whose stream was deleted is still checked, and what could not be is told."""
    found = verify_table(SyncTable.open(storage, ORIGIN), None)
    assert found
    assert found.rows == len(ALL)
    assert "no stream" in found.notes[0]


@pytest.mark.parametrize(("seconds", "is_problem"), [(1, True), (59, True), (61, False), (86_400, False)])
def test_steps_back_in_time(storage: Storage, table: SyncTable, seconds: int, *, is_problem: bool) -> None:
    """A time of commit that goes back by more than a minute is a corrected clock, by less a defect."""
    commit(table, rows_of(FILES * ROWS, foundry_ingestion_timestamp=NOW - timedelta(seconds=seconds)))
    found = checked(storage)
    assert bool(found) is not is_problem
    assert ("times of commit that go back" in str(found.problems)) is is_problem
    assert ("clock of the writer was corrected" in str(found.notes)) is not is_problem


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("content", [None, b"", b"torn", b"\0" * 5_000])
def test_verify_names_a_file_at_fault(storage: Storage, content: bytes | None) -> None:
    """A missing, torn or zeroed data file is an error of two lines with its name, never a panic of a reader."""
    assert storage.folder is not None
    name = min(files_of(storage))
    if content is None:
        (storage.folder / name).unlink()
    else:
        (storage.folder / name).write_bytes(content)
    with pytest.raises(kn.TableError, match=name) as raised:
        checked(storage)
    assert str(raised.value).count("\n") == 1


@pytest.mark.usefixtures("table")
def test_no_reader_panics_of_a_file_that_was_cut(storage: Storage, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that lost its end is found before polars opens it: polars panics, and prints pages of it."""
    assert storage.folder is not None
    path = storage.folder / min(files_of(storage))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(kn.TableError, match=path.name):
        checked(storage)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.usefixtures("table")
def test_verify_names_a_zeroed_file_of_the_right_size(storage: Storage) -> None:
    """A file that a power cut left full of zeros is named although its size is right."""
    assert storage.folder is not None
    path = storage.folder / min(files_of(storage))
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(kn.TableError, match=path.name):
        checked(storage)
