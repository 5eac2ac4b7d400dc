"""Looking at a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply

if TYPE_CHECKING:
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams


def test_catalog_is_a_mapping_and_a_table(source: kn.Source, streams: Streams) -> None:
    """All streams are there by name, over several pages, and show as a table."""
    for number in range(105):
        streams.create(f"stream-{number:03d}")
    catalog = source.explore()
    assert len(catalog) == 105
    assert "stream-104" in catalog
    assert catalog.to_polars()["stream"].to_list() == [f"stream-{number:03d}" for number in range(105)]
    assert "stream-000" in catalog._repr_html_()


def test_shards_of_a_stream(source: kn.Source, streams: Streams) -> None:
    """Open and closed shards with their parents and their share of the keys."""
    streams.create(shards=2)
    streams.split()
    view = source.explore("orders")
    frame = view.shards
    assert frame["state"].to_list() == ["closed", "open", "open", "open"]
    assert frame.filter(state="open")["hash_share"].sum() == pytest.approx(100)
    assert frame["parents"].to_list()[2] == ["shardId-000000000000"]
    assert view.open_shards == 3
    assert "shardId-000000000003" in view._repr_html_()


def test_sample_from_both_ends(source: kn.Source, streams: Streams) -> None:
    """A sample has the newest or the oldest records of the stream."""
    streams.create()
    streams.put(50, keys=1)
    view = source.explore("orders")
    assert [record.data for record in view.sample(2)] == ['{"n": 49}', '{"n": 50}']
    assert [record.data for record in view.sample(2, newest=False)] == ['{"n": 1}', '{"n": 2}']
    assert len(view.sample(100)) == 50


def test_what_is_not_permitted_is_said(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A stream that may be listed but not described is a row that says so."""
    streams.create("a")
    streams.create("b")
    emulator.on("DescribeStream", ErrorReply("AccessDeniedException"))
    assert sorted(source.explore().to_polars()["status"]) == ["ACTIVE", "not permitted"]


def test_unknown_stream(source: kn.Source, streams: Streams) -> None:
    """A name that is nearly right is suggested."""
    streams.create()
    with pytest.raises(kn.StreamNotFound, match="did you mean 'orders'"):
        source.explore("order")
    with pytest.raises(kn.StreamNotFound, match="did you mean 'orders'"):
        source.explore()["order"]
