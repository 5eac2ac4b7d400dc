"""Names of places: whatever a place is called, all that reads and writes its table does so there, or it is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.exporting.follow import TableFollower
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table.address import read_address
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import LOG, Storage
from kinesis_nb.table.verify import verify_table
from tests.support import servers
from tests.support.local import local
from tests.support.places import Place, checkpoint
from tests.support.s3_proxy import S3Proxy

BIG = 49590338271490256608559692538361571095921575989136588898
PLAIN = [
    *(
        "plain",
        "My Data",
        "jürgen",
        "ju\u0308rgen",
        "日本",
        "😀",
        "50%",
        "%",
        "%zz",
        "a+b",
        "a&b=c",
        "year=2024",
        "a;b",
        "a,b",
    ),
    *(
        "run[1]",
        "{a}",
        "{a,b}",
        "st*r",
        "**",
        "~",
        "~ada",
        "a:b",
        "a|b",
        "<a>",
        "a^b",
        "a`b",
        "a'b",
        'a"b',
        "$HOME",
        "(a)",
    ),
    *(" lead", "trail ", "..a", "a..", "...", ".hid", "_under", "a@b", "!a", "a\\b", "file:", "x" * 200),
]
FOLDERS = [*PLAIN, "a#b", "what?", "50%25", "a%20b", "%2e%2e", "..%2Fb", "a%2Fb", "é%C3", "\\", "\\\\a"]
IN_S3 = [
    *(
        "plain",
        "My Data+ü",
        "ju\u0308rgen 日本 😀",
        "50% {a,b}",
        "run[1]*",
        "~a|b^c`d",
        "a\"b'c<d>",
        "a\\b",
        " lead trail ",
    ),
    "k=v&w;x,y:z@!$(a)",
]
ODD_IN_S3 = [name for name in FOLDERS if name not in PLAIN]
REFUSED = ["a\nb", "a\tb", "a\x7fb", "a\x00b", "\x01", "\udcff"]


@pytest.fixture(scope="module")
def bucket(moto: str) -> Place:
    return Place(*servers.bucket(moto))


def work(place: Place) -> None:
    """Do with a table all that is ever done with one, and check what is seen of it."""
    table = place.open()
    table.acquire(["s"])
    export = TableFollower(place.storage)
    for offset in range(3):
        assert table.commit(table.write_rows(_rows(offset)), {"s": Checkpoint(offset + 1, str(BIG + offset))})
    _look(place, 3)
    assert sum(map(len, export.bands({}))) == 3
    assert TableFollower(place.storage).ends() == {"s": 3}
    before = place.storage.names()
    Maintenance(place.storage).run()
    files = [uri.rpartition("/")[2] for uri in place.storage.open().file_uris()]
    assert len(files) == 1
    assert before | set(files) == place.storage.names()
    assert table.commit(table.write_rows(_rows(3)), {"s": Checkpoint(4, str(BIG + 3))}) or table.commit(
        table.write_rows(_rows(3)), {"s": Checkpoint(4, str(BIG + 3))}
    )
    _look(place, 4)
    removed = place.storage.open().vacuum(0, dry_run=False, full=False, enforce_retention_duration=False)
    assert len(removed) == 3
    assert not {name.rpartition("/")[2] for name in removed} & place.storage.names()
    _look(place, 4)


def _look(place: Place, rows: int) -> None:
    scanned = place.storage.scan()
    assert scanned.collect()["shard_offset"].sort().to_list() == list(range(rows))
    assert scanned.collect_schema().names() == TABLE_SCHEMA.names
    table = place.open()
    found = verify_table(table, [])
    assert found, found
    assert found.rows == rows
    assert checkpoint(table, "s").offset == rows


def _rows(offset: int) -> pa.Table:
    row: dict[str, Any] = dict.fromkeys(TABLE_SCHEMA.names) | {
        "data": "{}",
        "partition_key": "k",
        "shard_id": "s",
        "shard_offset": offset,
        "sequence_number": str(BIG + offset),
        "sub_sequence_number": 0,
    }
    return pa.Table.from_pylist([row], schema=TABLE_SCHEMA)


def _tables(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob(LOG))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("form", ["{}", "{}/t"])
def test_every_name_of_a_folder(tmp_path: Path, name: str, form: str) -> None:
    """Written, read, verified, exported, merged and cleaned up in the folder of that name, and nowhere else."""
    folder = tmp_path / form.format(name)
    work(Place(str(folder)))
    assert _tables(tmp_path) == [folder]
    assert _names(tmp_path) == [name]


@pytest.mark.parametrize("name", IN_S3)
def test_every_name_of_a_prefix(bucket: Place, name: str) -> None:
    """The same below a prefix in S3; the keys begin with the prefix as it was given."""
    place = Place(f"{bucket.uri}/{name}/t", bucket.options)
    work(place)
    assert LOG in Storage(place.uri, lambda: bucket.options).names()


@given(st.text(min_size=1, max_size=30).filter(lambda name: name.strip("/.")))
@settings(max_examples=60, deadline=None)
def test_any_name_at_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """A text is a place where a table can be made and found again, or it is refused and nothing is made."""
    root = tmp_path_factory.mktemp("any")
    folder = f"{root}/x/{name}"
    try:
        place = Place(folder)
        storage = place.storage
        place.open()
    except (kn.errors.ConfigError, kn.TableError) as error:
        assert error.hint
        assert _tables(root) == []
        return
    assert _tables(root) == [Path(storage.uri)] == [Path(os.path.normpath(folder))]
    assert storage.scan().collect().is_empty()


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_names_that_no_place_has(tmp_path: Path, name: str, where: str) -> None:
    """Control characters and what is not Unicode are refused in two lines, before anything is written."""
    root = str(tmp_path) if where == "folder" else "s3://bucket"
    with pytest.raises(kn.errors.ConfigError) as refused:
        Place(f"{root}/{name}/t").open()
    assert len(str(refused.value).splitlines()) == 2
    assert _names(tmp_path) == []


@pytest.mark.parametrize("name", [*ODD_IN_S3[:-2], "a//b", "a/../b", "a/./b", "..", "/a"])
def test_prefixes_that_mean_another_place(name: str) -> None:
    """What readers of s3:// addresses decode, cut off or resolve is refused: they would look in another place."""
    with pytest.raises(kn.errors.ConfigError, match="hint: "):
        Storage.at(f"s3://bucket/{name}")


@pytest.mark.parametrize(
    "place", ["s3:/bucket/t", Path("s3://bucket/t"), "file:///t", "file:/t", "gs://b/t", b"/t", " ", None]
)
def test_places_that_are_none(place: object) -> None:
    """Another kind of address, or one that lost a slash in pathlib, is no folder of that name."""
    with pytest.raises(kn.errors.ConfigError, match="hint: "):
        Storage.at(place)  # type: ignore[arg-type]


def test_ways_to_write_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~, relative paths, .., a slash at the end, links and PathLike lead to one folder."""
    real = tmp_path.resolve() / "home" / "t"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real.parent)
    monkeypatch.setenv("HOME", str(real.parent))
    monkeypatch.chdir(real.parent)
    ways = [
        "~/t",
        "t",
        "./t",
        "t/",
        "t//",
        "../home/t",
        "x/../t",
        f"{tmp_path}/link/t",
        str(real),
        Path("~/t"),
        Path("t"),
    ]
    assert {read_address(way) for way in ways} == {str(real)}
    assert read_address("./~/t") == f"{real.parent}/~/t"


def test_users_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    """The home of nobody is refused; a loop of links cannot be used; both say so in two lines."""
    (tmp_path / "a").symlink_to(tmp_path / "a")
    for place in ("~nobody-of-that-name/t", f"{tmp_path}/a/t", f"{tmp_path}/{'x' * 300}/t"):
        with pytest.raises((kn.errors.ConfigError, kn.TableError), match="hint: "):
            Place(place).open()


def test_a_name_is_never_taken_for_another(tmp_path: Path) -> None:
    """Next to a table at "a b" one at "a%20b" is a second one, and reading what is not there makes nothing."""
    names = ["a b", "a%20b", "a%2520b"]
    for number, name in enumerate(names):
        with pytest.raises(OSError, match=r"."):
            Place(str(tmp_path / name)).storage.open()
        assert len(_names(tmp_path)) == number
        table = Place(str(tmp_path / name)).open()
        table.acquire(["s"])
        assert table.commit(table.write_rows(_rows(number)), {"s": Checkpoint(1, str(BIG + number))})
    for number, name in enumerate(names):
        assert Place(str(tmp_path / name)).storage.scan().collect()["shard_offset"].to_list() == [number]


@pytest.mark.parametrize("name", ["My Data", "50%25"])
def test_a_column_that_somebody_adds(tmp_path: Path, name: str) -> None:
    """An export of a table whose schema grew reads old and new files with all columns."""
    place = Place(str(tmp_path / name))
    table = place.open()
    table.acquire(["s"])
    assert table.commit(table.write_rows(_rows(0)), {"s": Checkpoint(1, str(BIG))})
    handle = place.storage.open()
    new = _rows(1).append_column("note", pa.array(["mine"]))
    log = json.dumps({"add": _add(place, new)})
    handle.alter.add_columns([_field("note")])
    (tmp_path / name / LOG / f"{handle.version() + 1:020d}.json").write_text(log)
    for rows in (place.storage.scan().collect(), *TableFollower(place.storage).bands({})):
        assert rows.sort("shard_offset")["note"].to_list() == [None, "mine"]


def _field(name: str) -> Any:
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    return Field(name, PrimitiveType("string"))


def _add(place: Place, rows: pa.Table) -> dict[str, Any]:
    name, size = place.storage.write_parquet(rows)
    return {"path": name, "size": size, "partitionValues": {}, "modificationTime": 0, "dataChange": True}


@pytest.mark.parametrize("name", ["plain", "My Data"])
def test_rows_that_a_deletion_vector_takes(tmp_path: Path, name: str) -> None:
    """A row that another engine deleted without a new file stays deleted, whatever the folder is called."""
    place = Place(str(tmp_path / name))
    rows = pa.concat_tables([_rows(0), _rows(1)]).combine_chunks()  # one file, in this order
    write_deltalake(str(tmp_path / name), rows)
    # the bitmap of row 0, as the protocol stores it within the log
    vector = {"storageType": "i", "pathOrInlineDv": _inline_vector(), "sizeInBytes": 34, "cardinality": 1}
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}  # type: ignore[dict-item]
    [old] = [uri.rpartition("/")[2] for uri in place.storage.open().file_uris()]
    size = (tmp_path / name / old).stat().st_size
    stats = json.dumps({"numRecords": 2})
    add = {"path": old, "size": size, "partitionValues": {}, "modificationTime": 0, "dataChange": True, "stats": stats}
    remove = {"path": old, "deletionTimestamp": 1, "dataChange": True}
    actions = [{"protocol": protocol}, {"remove": remove}, {"add": add | {"deletionVector": vector}}]
    (tmp_path / name / LOG / f"{1:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    assert place.storage.scan().collect()["shard_offset"].to_list() == [1]


def _inline_vector() -> str:
    """Return a vector of row 0 in Z85: magic, one bitmap, its key, and a roaring bitmap of one value."""
    numbers = [1681511377, 1, 0, 0, 12346, 1, 0, 16]
    body = b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(4)
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = ""
    for first in range(0, len(body), 4):
        value = int.from_bytes(body[first : first + 4], "big")
        text += "".join(letters[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


DROPPINGS = [".gitkeep", ".DS_Store", "desktop.ini", "Thumbs.db", ".ipynb_checkpoints/t.ipynb", "._x", "lost+found/"]


@pytest.mark.parametrize("name", DROPPINGS)
def test_a_folder_with_droppings_is_empty(tmp_path: Path, name: str) -> None:
    """What tools leave in empty folders keeps no table out, and stays."""
    path = tmp_path / "t" / name
    (path if name.endswith("/") else path.parent).mkdir(parents=True)
    if not name.endswith("/"):
        path.write_text("")
    Place(str(tmp_path / "t")).open()
    assert path.exists()


@pytest.mark.parametrize(
    "name", ["notes.txt", ".env", ".git/config", "x/.gitkeep", "part-1.parquet", "inner/_delta_log/x"]
)
def test_a_folder_with_work_in_it_is_not(tmp_path: Path, name: str) -> None:
    """A folder that holds anything of somebody, another table for example, is refused, and nothing is made."""
    path = tmp_path / "t" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    (tmp_path / "t" / LOG).mkdir()  # an empty one makes no table
    with pytest.raises(kn.TableError, match="hint: "):
        Place(str(tmp_path / "t")).open()
    assert list((tmp_path / "t" / LOG).iterdir()) == []


@pytest.mark.parametrize("inner", ["x", "x/y/z", LOG, f"{LOG}/x", "_kinesis_nb/x", "year=2024", "50%25"])
def test_no_new_table_within_another(tmp_path: Path, inner: str) -> None:
    """A place within a table, however deep, is refused before anything is made; an old one there is still opened."""
    outer = Place(str(tmp_path / "outer"))
    outer.open()
    before = sorted(tmp_path.rglob("*"))
    within = Place(str(tmp_path / "outer" / inner))
    with pytest.raises(kn.TableError, match=r"within .*outer"):
        within.open()
    assert sorted(tmp_path.rglob("*")) == before
    if inner == "x":
        (tmp_path / "outer" / LOG).rename(tmp_path / "log")
        (tmp_path / "outer" / "_kinesis_nb").mkdir(exist_ok=True)
        within.open()
        (tmp_path / "log").rename(tmp_path / "outer" / LOG)
        within.open()


def test_no_new_table_within_another_in_s3(moto: str) -> None:
    """The same for prefixes, with two requests for each of their parts; a table around another one is refused too."""
    address, options = servers.bucket(moto)
    proxy = S3Proxy(moto)
    with proxy.open() as url:
        options |= {"endpoint_url": url}
        Place(f"{address}/a/t", options).open()
        Place(f"{address}/a/t2", options).open()  # a longer name is no place within
        asked = len(proxy.seen)
        with pytest.raises(kn.TableError, match=r"within s3://.*/a/t,"):
            Place(f"{address}/a/t/x/y", options).open()
        assert len(proxy.seen) - asked <= 2 * 4 + 3
        assert not [line for line in proxy.seen[asked:] if line.startswith(("PUT", "POST", "DELETE"))]
        with pytest.raises(kn.TableError, match="not empty"):
            Place(f"{address}/a", options).open()
        Place(f"{address}/a/t", options).open()


def test_outer_prefixes_that_may_not_be_seen(moto: str) -> None:
    """Credentials for one prefix only are enough: what they may not look at is not looked at."""
    address, options = servers.bucket(moto)
    hidden = f"/{address[5:]}/team/{LOG}"
    proxy = S3Proxy(
        moto, before=lambda _, path, __: 403 if path.startswith(hidden) or path.endswith(f"={hidden}") else 0
    )
    with proxy.open() as url:
        Place(f"{address}/team/t", options | {"endpoint_url": url}).open()


@pytest.mark.slow
def test_a_sync_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """sync() and everything its handle offers, and the export of its table, work in such folders."""
    from kinesis_nb.emulator import Emulator

    with Emulator() as emulator:
        for stream in ("orders", "out"):
            emulator.model.call("CreateStream", {"StreamName": stream, "ShardCount": 1})
        record = {"PartitionKey": "k", "Data": b"{}"}
        emulator.model.call("PutRecords", {"StreamName": "orders", "Records": [record] * 10})
        keys = kn.StaticCredentials("a", "b")
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=keys, exports_enabled=True)
        arn = source.explore("out").summary.arn
        for name in ("My Data/ö", "50%25", "run[1]", "a\\b"):
            sync = source.sync("orders", tmp_path / name, commit_interval=0.05)
            assert sync.wait(timeout=30)
            assert len(sync) == len(sync.to_polars()) == len(sync.to_pandas()) == sync.verify().rows == 10
            export = local(source.export_stream(str(tmp_path / name), arn))
            assert export.wait(timeout=30)
            assert export.status().rows == 10
            export.stop()
            sync.stop()


def test_deltalake_itself_opens_that_place(tmp_path: Path) -> None:
    """For names that deltalake can handle, the address that a handle shows opens the same table elsewhere."""
    for name in ("My Data", "jürgen", "a#b", "50%", "run[1]"):
        place = Place(str(tmp_path / name))
        place.open().acquire(["s"])
        assert DeltaTable(place.storage.uri).version() == place.storage.open().version() == 1
