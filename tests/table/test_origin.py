"""Whose table it is: kept where nobody edits it by accident."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import polars as pl
import pytest
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.table.origin import Origin, has_properties, read_origin
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import Storage
from kinesis_nb.table.table import SyncTable
from tests.support.places import ORIGIN

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = replace(ORIGIN, newest_shard="shardId-000000000007")


def described(origin: object) -> str:
    """Return the description that an earlier version gave its table."""
    return json.dumps({"kinesis_nb": origin})


def old(origin: Origin) -> dict[str, str]:
    return {name: value for name, value in asdict(origin).items() if name != "newest_shard"}


def create(folder: Path, description: str | None, properties: dict[str, str] | None = None) -> DeltaTable:
    made = DeltaTable.create(str(folder), TABLE_SCHEMA, description=description)
    if properties:
        made.alter.set_table_properties(properties, raise_if_not_exists=False)
    return made


def open_as(folder: Path, origin: Origin) -> SyncTable:
    return SyncTable.open(Storage.at(folder), origin)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every part of it survives the table; what later calls want instead changes nothing."""
    assert open_as(tmp_path / "t", KNOWN).origin == KNOWN
    later = replace(KNOWN, start="2026-01-01T00:00:00+00:00", newest_shard="shardId-000000000009")
    assert open_as(tmp_path / "t", later).origin == KNOWN
    assert open_as(tmp_path / "t", KNOWN).version == 0


@pytest.mark.parametrize("comment", ["a comment of a catalog", "", described({"stream_arn": "another"})])
def test_a_comment_on_the_table_changes_nothing(tmp_path: Path, comment: str) -> None:
    """The description is the user's."""
    open_as(tmp_path / "t", KNOWN)
    DeltaTable(tmp_path / "t").alter.set_table_description(comment)
    assert open_as(tmp_path / "t", KNOWN).origin == KNOWN


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(KNOWN, stream_arn="arn:aws:kinesis:eu-west-1:000000000000:stream/orders"), "belongs to arn:aws"),
        (replace(KNOWN, created_at="2027-01-01"), "earlier stream of the same name"),
    ],
)
def test_the_table_of_another_stream_is_refused(tmp_path: Path, wanted: Origin, message: str) -> None:
    """Another region is another stream, and so is one that was re-created; nothing is written, old table or new."""
    open_as(tmp_path / "new", KNOWN)
    create(tmp_path / "old", described(old(KNOWN)))
    for name in ("new", "old"):
        with pytest.raises(kn.TableError, match=message) as told:
            open_as(tmp_path / name, wanted)
        assert told.value.hint
        assert DeltaTable(tmp_path / name).version() == 0


def test_an_old_table_is_brought_over_once(tmp_path: Path) -> None:
    """What the description said is a property afterwards, so a comment does no harm from then on."""
    create(tmp_path / "t", described(old(ORIGIN)))
    assert not has_properties(DeltaTable(tmp_path / "t"))
    opened = open_as(tmp_path / "t", KNOWN)
    assert opened.origin == KNOWN
    assert has_properties(DeltaTable(tmp_path / "t"))
    DeltaTable(tmp_path / "t").alter.set_table_description("a comment")
    again = open_as(tmp_path / "t", replace(KNOWN, newest_shard="shardId-000000000009"))
    assert again.origin == KNOWN
    assert again.version == opened.version + 1, "only the comment was written since"


def test_an_old_table_of_a_stream_whose_shards_are_not_known(tmp_path: Path) -> None:
    """It is brought over once too."""
    create(tmp_path / "t", described(old(ORIGIN)))
    version = open_as(tmp_path / "t", ORIGIN).version
    assert open_as(tmp_path / "t", ORIGIN).version == version


@pytest.mark.parametrize(
    "description",
    [
        None,
        "",
        "text",
        "[]",
        "7",
        "null",
        '{"kinesis_nb": 1}',
        '{"kinesis_nb": {}}',
        described({"stream_arn": ORIGIN.stream_arn, "start": "trim_horizon"}),
        described({**old(ORIGIN), "created_at": 7}),
    ],
)
def test_what_is_no_origin_is_none(tmp_path: Path, description: str | None) -> None:
    """A Delta table with any other description is somebody else's, and left alone."""
    table = create(tmp_path / "t", description)
    assert read_origin(table) is None
    with pytest.raises(kn.TableError, match="not one that a sync made"):
        open_as(tmp_path / "t", KNOWN)
    assert DeltaTable(tmp_path / "t").version() == 0


def test_properties_go_before_the_description(tmp_path: Path) -> None:
    """Where both are there the properties count."""
    table = create(tmp_path / "t", described(old(replace(ORIGIN, start="elsewhere"))), KNOWN.properties())
    assert read_origin(table) == KNOWN


def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A foreign Delta table is refused and not touched."""
    pl.DataFrame({"a": [1]}).write_delta(str(tmp_path / "t"))
    with pytest.raises(kn.TableError, match="not one that a sync made"):
        open_as(tmp_path / "t", KNOWN)
    assert DeltaTable(tmp_path / "t").version() == 0
