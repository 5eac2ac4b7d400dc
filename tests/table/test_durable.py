"""What a power cut leaves of a table: what was reported is on disk, and what is torn is told by its name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.exporting.follow import TableFollower
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table import deltalog
from kinesis_nb.table import table as table_module
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from kinesis_nb.table.txns import Txns
from kinesis_nb.table.verify import verify_table
from tests.crash.faults import FailingServer
from tests.support.places import ORIGIN, Place, checkpoint
from tests.support.servers import bucket, moto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FAR = 2_600_000  # versions, a month of one commit each second
LOG = "_delta_log"
HINT = f"{LOG}/_last_checkpoint"


@pytest.fixture
def tearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the rest of a file that is torn."""
    monkeypatch.setattr(deltalog, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A table of nine versions with a row in each but the first two, and a checkpoint of its log in the middle."""
    made = Place(str(tmp_path / "t"))
    table = made.open()
    table.acquire(["s"])
    for offset in range(8):
        if offset == 4:
            made.storage.checkpoint_log(made.storage.open())
        assert table.commit(table.write_rows(row_of(offset)), {"s": Checkpoint(offset + 1, str(offset + 1))})
    return made


def row_of(offset: int) -> pa.Table:
    row = dict.fromkeys(TABLE_SCHEMA.names) | {
        "data": "{}",
        "shard_id": "s",
        "shard_offset": offset,
        "sequence_number": str(offset + 1),
        "sub_sequence_number": 0,
    }
    return pa.Table.from_pylist([row], schema=TABLE_SCHEMA)


def grow(place: Place, offset: int) -> None:
    table = place.open()
    table.acquire(["s"])
    assert table.commit(table.write_rows(row_of(offset)), {"s": Checkpoint(offset + 1, str(offset + 1))})


def empty(_: bytes) -> bytes:
    return b""


def half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def whole_lines(body: bytes) -> bytes:
    return b"\n".join(body.split(b"\n")[:-1])


def zeros(body: bytes) -> bytes:
    return bytes(len(body))


def tear(place: Place, name: str, how: Callable[[bytes], bytes] | None) -> Path:
    """Leave of a file what a power cut may leave; None for nothing at all."""
    path = Path(place.uri, name)
    if how is None:
        path.unlink()
    else:
        path.write_bytes(how(path.read_bytes()))
    return path


TORN = pytest.mark.parametrize("how", [empty, half, zeros])
TORN_ENTRY = pytest.mark.parametrize("how", [empty, half, whole_lines, zeros])
WAYS = pytest.mark.parametrize("how", [empty, half, zeros, None], ids=["empty", "half", "zeros", "missing"])
READERS: dict[str, Callable[[Place], Any]] = {
    "sync": lambda place: place.open(),
    "open": lambda place: place.storage.open(),
    "scan": lambda place: place.storage.scan(),
    "numbers": lambda place: Txns(place.storage).at(9),
    "growing": lambda place: TableFollower(place.storage),
}


def told(place: Place, name: str, *readers: str) -> list[str]:
    """Return the hints of what each reader says, which must name the file."""
    hints = []
    for reader in readers:
        with pytest.raises(kn.TableError) as raised:
            READERS[reader](place)
        assert name in str(raised.value)
        hints.append(raised.value.hint)
    return hints


@pytest.mark.usefixtures("tearing")
@pytest.mark.parametrize("how", [empty, half, whole_lines, zeros, None])
def test_an_entry_that_later_ones_rely_on(place: Place, how: Callable[[bytes], bytes] | None) -> None:
    """A log entry in the middle that is incomplete is told by its file and version, whoever reads the table."""
    name = deltalog.entry(8)
    tear(place, name, how)
    hints = told(place, name, "sync", "open", "scan", "growing", *(["numbers"] if how else []))
    assert all("backup" in hint for hint in hints)


@pytest.mark.usefixtures("tearing")
@TORN_ENTRY
def test_the_newest_entry_was_told_to_nobody(place: Place, how: Callable[[bytes], bytes]) -> None:
    """Readers say that the sync is to be started; it goes on from the commit before, and nothing is lost or doubled."""
    name = deltalog.entry(9)
    tear(place, name, how)
    assert all("start the sync" in hint for hint in told(place, name, "open", "scan", "numbers", "growing"))
    table = place.open()
    assert table.version == 9
    assert checkpoint(table, "s") == Checkpoint(7, "7")
    grow(place, 7)
    assert place.rows()["shard_offset"].to_list() == list(range(8))
    assert verify_table(place.open(), [])
    assert [entry["version"] for entry in place.storage.open().history() if entry["operation"] == "CANCELLED"] == [9]


@pytest.mark.usefixtures("tearing")
def test_all_torn_entries_at_the_end(place: Place) -> None:
    """Several commits that nobody was told of are set straight together; a second process finds nothing to do."""
    for version in (8, 9):
        tear(place, deltalog.entry(version), empty)
    assert place.storage.settle() == [8, 9]
    assert place.storage.settle() == []
    assert checkpoint(place.open(), "s") == Checkpoint(6, "6")


@pytest.mark.usefixtures("tearing")
@TORN
def test_the_first_entry(tmp_path: Path, how: Callable[[bytes], bytes]) -> None:
    """A table whose only entry is torn cannot be opened: the error names the file, and what was found is left alone."""
    place = Place(str(tmp_path / "t"))
    place.open()
    path = tear(place, deltalog.entry(0), how)
    before = path.read_bytes()
    told(place, deltalog.entry(0), "sync", "open", "scan")
    assert path.read_bytes() == before


@WAYS
def test_a_checkpoint_of_the_log(place: Place, how: Callable[[bytes], bytes] | None) -> None:
    """One that is incomplete is told; the hint knows that the log before it is whole, and following it helps."""
    name = f"{LOG}/{5:020d}.checkpoint.parquet"
    path = tear(place, name, how)
    for hint in told(place, name, "sync", "open", "scan"):
        assert HINT in hint
    path.unlink(missing_ok=True)
    Path(place.uri, HINT).unlink()
    assert checkpoint(place.open(), "s") == Checkpoint(8, "8")


@TORN
def test_a_checkpoint_without_the_log_before_it(place: Place, how: Callable[[bytes], bytes]) -> None:
    """Where the entries that it stands for are gone only a backup helps, and the hint says so."""
    tear(place, name := f"{LOG}/{5:020d}.checkpoint.parquet", how)
    Path(place.uri, deltalog.entry(2)).unlink()
    assert all("backup" in hint for hint in told(place, name, "sync", "open", "scan", "numbers"))


@WAYS
def test_the_hint_at_a_checkpoint(place: Place, how: Callable[[bytes], bytes] | None) -> None:
    """A `_last_checkpoint` that is incomplete, or not there, costs nothing but a look at the names."""
    tear(place, HINT, how)
    assert place.storage.last_log_checkpoint() == 5
    assert checkpoint(place.open(), "s") == Checkpoint(8, "8")
    assert len(place.storage.scan().collect()) == 8


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"version": null}', b'{"version": "x"}', b"\xff"])
def test_a_hint_of_something_else(place: Place, body: bytes) -> None:
    """A `_last_checkpoint` that holds anything else is as good as none."""
    Path(place.uri, HINT).write_bytes(body)
    assert place.storage.last_log_checkpoint() == 5
    assert checkpoint(place.open(), "s") == Checkpoint(8, "8")


@TORN_ENTRY
def test_an_entry_that_a_checkpoint_stands_for(place: Place, how: Callable[[bytes], bytes]) -> None:
    """A power cut may come after the checkpoint and before the fsync of its entry, which nobody has to read then."""
    hint = Path(place.uri, HINT).read_bytes()
    place.storage.checkpoint_log(place.storage.open())
    Path(place.uri, HINT).write_bytes(hint)
    tear(place, deltalog.entry(9), how)
    assert checkpoint(place.open(), "s") == Checkpoint(8, "8")
    grow(place, 8)
    assert verify_table(place.open(), [])
    assert place.rows()["shard_offset"].to_list() == list(range(9))


@WAYS
def test_a_file_of_rows(place: Place, how: Callable[[bytes], bytes] | None) -> None:
    """A file of rows that is incomplete is told by its name before anybody reads it, and never ends in a panic."""
    name = place.storage.open().file_uris()[0].rpartition("/")[2]
    tear(place, name, how)
    assert all("backup" in hint for hint in told(place, name, "scan"))
    with pytest.raises(kn.TableError, match=name):
        verify_table(place.open(), [])


def test_an_entry_on_its_way(place: Place) -> None:
    """On a shared folder another machine may see a name before what is in it: that entry is looked at again."""
    path = Path(place.uri, deltalog.entry(9))
    body, path_of_body = path.read_bytes(), path.with_name("kept")
    path_of_body.write_bytes(body)

    class Late(Storage):
        def read(self, name: str) -> bytes | None:
            if name == deltalog.entry(9) and path_of_body.exists():
                path_of_body.unlink()
                return b""
            return super().read(name)

    assert Late(place.uri).settle() == []
    assert path.read_bytes() == body


# --- what is on disk when


class Kernel:
    """Knows what was fsynced: files by their number and length, folders by the names in them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: set[tuple[int, int]] = set()
        self.names: dict[Path, set[str]] = {}
        fsync = os.fsync

        def recorded(descriptor: int) -> None:
            fsync(descriptor)
            path, state = Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor)
            if path.is_dir():
                self.names[path] = {inside.name for inside in path.iterdir()}
            else:
                self.files.add((state.st_ino, state.st_size))

        monkeypatch.setattr(os, "fsync", recorded)

    def lacks(self, *paths: Path) -> list[str]:
        """Return which of these would be gone, or not whole, after a power cut."""
        return [
            path.name
            for path in paths
            if path.name not in self.names.get(path.parent, ())
            or (path.is_file() and (path.stat().st_ino, path.stat().st_size) not in self.files)
        ]

    def forget(self) -> None:
        self.files.clear()
        self.names.clear()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def live_files(place: Place) -> list[Path]:
    found = deltalog.live(place.storage.sizes(LOG))
    names = [*found.parts, *(f"{number:020d}.json" for number in found.entries)]
    return [Path(place.uri, LOG, name) for name in names]


def test_files_are_removed_after_their_removal_is_on_disk(
    kernel: Kernel, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut never leaves a table that needs a file which the maintenance deleted."""
    lacked: list[str] = []
    discard = Storage.discard

    def checked(self: Storage, names: Iterable[str]) -> None:
        if names := list(names):
            lacked.extend(kernel.lacks(*live_files(place)))
        discard(self, names)

    place.storage.open().alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    before = place.storage.data_files().keys()
    monkeypatch.setattr(Storage, "discard", checked)
    Maintenance(place.storage).run()
    assert not before & place.storage.data_files().keys()
    assert lacked == []


@pytest.mark.parametrize("left", [[], ["_last_checkpoint"]])
def test_a_log_that_is_gone_is_waited_for(place: Place, left: list[str]) -> None:
    """A folder without the log may come back, as a disk that is mounted again; what a checkpoint left says no more."""
    place.storage.checkpoint_log(place.storage.open())
    aside = Path(place.uri, "aside")
    Path(place.uri, LOG).rename(aside)
    Path(place.uri, LOG).mkdir()
    for name in left:
        shutil.copy(aside / name, Path(place.uri, LOG))
    with pytest.raises(OSError, match="is gone"):
        place.storage.open()


def test_a_new_table_is_on_disk(kernel: Kernel, tmp_path: Path) -> None:
    """When a table is open its first entry is on disk, with the names of all folders that were made for it."""
    place = Place(str(tmp_path / "a" / "b" / "t"))
    place.open()
    folder = Path(place.uri)
    made = [folder / deltalog.entry(0), folder / LOG, folder, folder.parent, folder.parent.parent]
    assert kernel.lacks(*made) == []
    assert not list((folder / "_kinesis_nb").glob("draft-*"))
    assert (
        json.loads((folder / deltalog.entry(0)).read_text().splitlines()[0])["commitInfo"]["operationParameters"][
            "location"
        ]
        == f"file://{folder}/"
    )


def test_the_first_entry_is_never_empty(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whole and on disk before it has its name, so that no power cut leaves a table that cannot be opened."""
    link, seen = os.link, []

    def looked_at(source: Path, target: Path) -> None:
        seen.append((source.stat().st_ino, source.stat().st_size) in kernel.files)
        link(source, target)

    monkeypatch.setattr(os, "link", looked_at)
    Place(str(tmp_path / "t")).open()
    assert seen == [True]


def test_two_that_make_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that make a table at once one does; the other goes on with what that one made."""
    place, other = Place(str(tmp_path / "t")), Place(str(tmp_path / "t"))
    create = DeltaTable.create

    def overtaken(*args: Any, **options: Any) -> Any:
        with monkeypatch.context() as before:
            before.setattr(DeltaTable, "create", create)
            grow(other, 0)
        return create(*args, **options)

    monkeypatch.setattr(DeltaTable, "create", overtaken)
    assert checkpoint(place.open(), "s") == Checkpoint(1, "1")


def test_who_opens_a_table_syncs_what_it_finds(kernel: Kernel, place: Place) -> None:
    """A process that was killed before its fsync left entries behind; whoever goes on makes them durable first."""
    kernel.forget()
    place.open()
    assert kernel.lacks(*live_files(place), Path(place.uri, HINT), Path(place.uri, LOG)) == []
    assert len(live_files(place)) == 5


def test_reading_syncs_nothing(kernel: Kernel, place: Place) -> None:
    """A look at the table, and one at an old version of it, writes nothing to the disk."""
    kernel.forget()
    verify_table(SyncTable(place.storage, place.storage.open(8), ORIGIN), [])
    place.storage.scan().collect()
    assert not kernel.files
    assert not kernel.names


def test_every_commit_syncs_four_times(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of rows, its folder, the entry and the log's folder; no more, for that is what a commit waits for."""
    table = place.open()
    table.acquire(["s"])
    kernel = Kernel(monkeypatch)
    count, fsync = [0], os.fsync

    def counted(descriptor: int) -> None:
        count[0] += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    assert table.commit(table.write_rows(row_of(8)), {"s": Checkpoint(9, "9")})
    assert count == [4]
    assert kernel.lacks(*map(Path, place.storage.open().file_uris()[:1]), live_files(place)[-1]) == []


def test_entries_of_other_writers_are_synced(kernel: Kernel, place: Place) -> None:
    """A commit stands on those that other writers made meanwhile: they are on disk before it is reported."""
    table = place.open()
    table.acquire(["s"])
    other = place.open()
    other.acquire(["r"])
    assert other.commit(other.write_rows(row_of(8)), {"r": Checkpoint(1, "1")})
    kernel.forget()
    assert table.commit(None, {"s": Checkpoint(9, "9")})
    assert kernel.lacks(*live_files(place)[-3:]) == []


def test_a_checkpoint_is_on_disk_before_anything_refers_to_it(
    kernel: Kernel, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No entry of the log is removed before the checkpoint, its name and the hint are on disk."""
    log, link, cleanup = Path(place.uri, LOG), os.link, DeltaTable.cleanup_metadata
    linked: list[bool] = []
    lacking: list[str] = []

    def looked_at(source: Path, target: Path) -> None:
        if target.parent == log:
            linked.append((source.stat().st_ino, source.stat().st_size) in kernel.files)
            assert deltalog.hinted(place.storage)[0] == 5
        link(source, target)

    def remove(*args: Any, **options: Any) -> Any:
        newest = deltalog.live(place.storage.sizes(LOG))
        assert newest.checkpoint == 10
        lacking.extend(kernel.lacks(*(log / part for part in newest.parts), Path(place.uri, HINT)))
        return cleanup(*args, **options)

    monkeypatch.setattr(os, "link", looked_at)
    monkeypatch.setattr(DeltaTable, "cleanup_metadata", remove)
    kernel.forget()
    Maintenance(place.storage).run()
    assert linked == [True]
    assert lacking == []
    assert place.storage.last_log_checkpoint() == 10
    assert len(place.rows()) == 8


def test_two_rounds_that_checkpoint_at_once(place: Place) -> None:
    """The second finds the checkpoint of the first, and the hint never goes back to an older one."""
    old, new = place.storage.open(), place.storage.open()
    grow(place, 8)
    new.update_incremental()
    for handle in (new, old, new):
        place.storage.checkpoint_log(handle)
    assert place.storage.last_log_checkpoint() == new.version()
    assert checkpoint(place.open(), "s") == Checkpoint(9, "9")


def test_drafts_of_killed_processes_are_removed(place: Place) -> None:
    """What a killed process left of a checkpoint goes with a later round, once it is old; a rival's stays."""
    old, young = (Path(place.uri, "_kinesis_nb", f"draft-{name}", LOG) for name in ("old", "young"))
    for draft in (old, young):
        draft.mkdir(parents=True)
    os.utime(old.parent, (0, 0))
    place.storage.checkpoint_log(place.storage.open())
    assert not old.parent.exists()
    assert young.exists()


def test_notes_alone_are_an_empty_place(tmp_path: Path) -> None:
    """A process that was killed while it made the table left notes only: the next one makes it."""
    Path(tmp_path, "t", "_kinesis_nb", "draft-1", LOG).mkdir(parents=True)
    assert Place(str(tmp_path / "t")).open().version == 0


# --- how much is read


class Counting(Storage):
    """Counts what is asked for."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.asked: list[str] = []

    def read(self, name: str) -> bytes | None:
        self.asked.append(name)
        return super().read(name)


def move_far(place: Place) -> None:
    """Give a table as it is a log of millions of versions, of which the old ones were cleaned up."""
    log = Path(place.uri, LOG)
    place.storage.checkpoint_log(place.storage.open())
    newest = f"{place.storage.last_log_checkpoint():020d}"
    for path in list(log.iterdir()):
        if path.name.startswith(newest):
            path.rename(path.with_name(path.name.replace(newest, f"{FAR:020d}")))
        elif path.name != "_last_checkpoint":
            path.unlink()
    hint = json.loads(Path(place.uri, HINT).read_text())
    Path(place.uri, HINT).write_text(json.dumps(hint | {"version": FAR}))


@pytest.mark.parametrize("has_hint", [True, False])
def test_opening_reads_what_is_live(place: Place, *, has_hint: bool) -> None:
    """At version 2.6 million, to open, resume and verify a table reads a handful of files, with a hint or without."""
    move_far(place)
    if not has_hint:
        Path(place.uri, HINT).unlink()
    counted = Counting(place.uri)
    table = SyncTable.open(counted, ORIGIN)
    assert table.version == FAR
    assert checkpoint(table, "s") == Checkpoint(8, "8")
    assert verify_table(SyncTable(counted, counted.open(), ORIGIN), [])
    table.acquire(["s"])
    assert table.commit(table.write_rows(row_of(8)), {"s": Checkpoint(9, "9")})
    assert len(counted.asked) < 30, counted.asked


def test_numbers_of_versions_before_the_checkpoint(place: Place) -> None:
    """An older version than the newest checkpoint is read from the one before it, while its entries are there."""
    place.storage.checkpoint_log(place.storage.open())
    numbers = Txns(place.storage)
    offsets = [numbers.at(version).get(f"{ORIGIN.stream_arn}/s/offset") for version in (9, 7, 4, 8)]
    assert offsets == [8, 6, 3, 7]


def test_a_checkpoint_in_parts(place: Place) -> None:
    """One of several files counts when all are there; while one is missing the checkpoint before it does."""
    log = Path(place.uri, LOG)
    single = log / f"{5:020d}.checkpoint.parquet"
    parts = [log / f"{5:020d}.checkpoint.{part:010d}.{2:010d}.parquet" for part in (1, 2)]
    for part in parts:
        shutil.copy(single, part)
    single.unlink()
    Path(place.uri, HINT).write_text(json.dumps({"version": 5, "size": 15, "parts": 2}))
    Path(place.uri, deltalog.entry(0)).unlink()
    assert deltalog.live(place.storage.sizes(LOG)).checkpoint == 5
    assert Txns(place.storage).at(9)[f"{ORIGIN.stream_arn}/s/offset"] == 8
    parts[1].unlink()
    assert deltalog.live(place.storage.sizes(LOG)).checkpoint == -1
    with pytest.raises(OSError, match="not in its log any more"):
        Txns(place.storage).at(9)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto() as url:
        yield url


def test_opening_in_s3_takes_few_requests(place: Place, s3: str, tmp_path: Path) -> None:
    """At version 2.6 million a table in S3 is opened, and its checkpoints known, with fewer than 50 requests."""

    class Counter(FailingServer):
        requests = 0

        def choose(self) -> str:
            self.requests += 1
            return ""

    move_far(place)
    address, options = bucket(s3)
    there = Place(f"{address}/t", options)
    for path in Path(place.uri).rglob("*"):
        if path.is_file():
            there.storage.write(str(path.relative_to(place.uri)), path.read_bytes())
    counter = Counter(s3)
    with counter.running():
        table = Place(there.uri, options | {"endpoint_url": counter.url}).open()
        assert checkpoint(table, "s") == Checkpoint(8, "8")
        assert 0 < counter.requests < 50


def test_maintenance_makes_the_log_short(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that is made beside the table is one that the cleanup of the log goes by."""
    monkeypatch.setitem(table_module._PROPERTIES, "delta.logRetentionDuration", "interval 0 seconds")
    short = Place(f"{place.uri}-short")
    for offset in range(5):
        grow(short, offset)
    Maintenance(short.storage).run()
    assert len(deltalog.live(short.storage.sizes(LOG)).entries) == 0
    assert not Path(short.uri, deltalog.entry(3)).exists()
    grow(short, 5)
    assert len(short.rows()) == 6
