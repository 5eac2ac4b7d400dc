"""Looking at a source."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.core.shards import MAX_HASH_KEY, Shard
from kinesis_nb.emulator import ErrorReply
from kinesis_nb.exploring.lineage import Lineage

if TYPE_CHECKING:
    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams


EXTRAS = ["consumers", "distribution", "channels", "queues", "max_record_bytes"]


def test_an_empty_catalog_says_how_to_choose_a_region(source: kn.Source, streams: Streams) -> None:
    """Streams in another region are the most likely reason; so it is with a name that nothing is like."""
    catalog = source.explore()
    for shown in (repr(catalog), catalog._repr_html_()):
        assert "no streams in us-east-1; connect(region=...) chooses another region" in shown
    with pytest.raises(kn.StreamNotFound, match=r"hint: connect\(region=\.\.\.\)"):
        catalog["orders"]
    with pytest.raises(
        kn.StreamNotFound, match=r"hint: .*connect\(region=\.\.\.\) chooses another region than us-east-1"
    ):
        source.read("orders")


def test_catalog_is_a_mapping_and_a_table(source: kn.Source, streams: Streams) -> None:
    """All streams are there by name, over several pages, and show as a table."""
    for number in range(105):
        streams.create(f"stream-{number:03d}")
    catalog = source.explore()
    assert len(catalog) == 105
    assert "stream-104" in catalog
    assert "nope" not in catalog
    assert catalog.get("nope") is None
    assert catalog.to_pandas()["stream"].to_list() == catalog.to_polars()["stream"].to_list()
    assert pa.table(catalog).equals(catalog.to_arrow())
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


def test_four_actions_are_enough(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """With nothing but the connector's policy for readers every look at a named stream works."""
    streams.create(shards=2)
    streams.put(50)
    denied = [ErrorReply("AccessDeniedException")] * 30
    for action in ("ListStreams", "DescribeStreamSummary", "ListStreamConsumers", "DescribeAccountSettings"):
        emulator.on(action, *denied)
    view = source.explore("orders")
    assert set(view.extras.values()) == {"not permitted"}
    assert (view.summary.name, view.shards.height, len(view.sample(10))) == ("orders", 2, 10)
    assert view.lag().height == 2
    assert view.schema(20)
    heat = view.heat(20)
    assert (heat.shards.height, heat.keys["records"].sum()) == (2, 20)
    assert view.shard_for("key-1").shard_id in view.shards["shard_id"].to_list()
    assert "image/svg+xml" in view.lineage._repr_html_()
    assert len(source.read("orders", progress=False)) == 50
    with source.tail("orders", start="trim_horizon") as tail:
        assert len(tail.take(50, timeout=10)) == 50
    used = {"ListShards", "GetShardIterator", "GetRecords", "DescribeStream", "DescribeStreamSummary"}
    assert set(emulator.requests) <= used
    with pytest.raises(kn.AccessDenied, match=r"ListStreams[\s\S]*name a stream"):
        source.explore()


def test_what_is_not_permitted_is_said(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A stream that may be listed but not described is a row that says so."""
    streams.create("a")
    streams.create("b")
    emulator.on("DescribeStream", ErrorReply("AccessDeniedException"))
    assert sorted(source.explore().to_polars()["status"]) == ["ACTIVE", "not permitted"]


def test_extras_are_optional(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """Consumers and the like are columns; they say when they are not permitted, and are empty where nobody knows."""
    arn = streams.create()
    streams.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="app")
    catalog = source.explore()
    assert catalog.to_polars().select("consumers", "channels").row(0) == (1, None)
    for code, shown in (("AccessDeniedException", "not permitted"), ("UnknownOperationException", None)):
        emulator.on("DescribeStreamSummary", ErrorReply(code))
        catalog = source.explore()
        assert catalog["orders"].extras == dict.fromkeys(EXTRAS, shown)
        assert (
            ("not permitted" in catalog._repr_html_())
            == ("not permitted" in catalog["orders"]._repr_html_())
            == bool(shown)
        )
        assert catalog.to_polars().select("status", "consumers", "queues").row(0) == ("ACTIVE", None, None)


def test_shard_for_a_key(source: kn.Source, streams: Streams) -> None:
    """The open shard of a key is the one that its records go to, also after reshards."""
    streams.create(shards=3)
    streams.split(index=1)
    streams.merge(index=2)
    view = source.explore("orders")
    for key in ("a", "b", "Grace", "é", "x" * 256):
        answer = streams.call("PutRecord", StreamName="orders", PartitionKey=key, Data=b"x")
        shard = view.shard_for(key)
        assert shard.shard_id == answer["ShardId"]
        assert shard.is_open
    for key in ("", "x" * 257):
        with pytest.raises(kn.ConfigError, match="1 to 256"):
            view.shard_for(key)


def test_schema_of_a_sample(source: kn.Source, streams: Streams) -> None:
    """The schema is that of the newest records and can be given to parse_json."""
    streams.create()
    streams.put(20)
    schema = source.explore("orders").schema(10)
    assert (schema.rows, schema.dtype) == (10, pl.Struct({"n": pl.Int64}))
    assert kn.parse_json(source.read("orders", progress=False), schema=schema)["n"].null_count() == 0


def test_heat_finds_the_hot_key_and_shard(source: kn.Source, streams: Streams) -> None:
    """Shares of records and bytes per shard and key; what has far more than its share is hot."""
    streams.create(shards=4)
    put = [{"PartitionKey": "hot" if n % 4 else f"key-{n}", "Data": b"0123456789"} for n in range(400)]
    streams.call("PutRecords", StreamName="orders", Records=put)
    view = source.explore("orders")
    heat = view.heat()
    assert heat.shards.height == 4
    assert heat.shards["records"].sum() == 400
    assert heat.shards["byte_share"].sum() == pytest.approx(1)
    assert heat.shards.filter("hot")["shard_id"].to_list() == [view.shard_for("hot").shard_id]
    assert heat.keys.filter("hot")["partition_key"].to_list() == ["hot"]
    assert heat.keys.row(0, named=True) | {"byte_share": 0} == {
        "partition_key": "hot",
        "records": 300,
        "bytes": 300 * 13,
        "record_share": 0.75,
        "byte_share": 0,
        "hot": True,
    }
    assert repr(heat) == f"<Heat: 400 records, 4 shards, 101 keys, hot: {view.shard_for('hot').shard_id}, hot>"
    assert "75.0%" in heat._repr_html_()


def test_even_heat_is_not_hot(source: kn.Source, streams: Streams) -> None:
    """Records that spread evenly make nothing hot; a stream without records has shards without heat."""
    streams.create(shards=4)
    view = source.explore("orders")
    assert view.heat().shards.select("records", "byte_share", "hot").unique().rows() == [(0, 0.0, False)]
    assert view.heat().keys.is_empty()
    streams.put(400, keys=200)
    heat = view.heat(400)
    assert not heat.shards["hot"].any()
    assert not heat.keys["hot"].any()


def test_lag_of_a_reader_from_the_start(source: kn.Source, streams: Streams) -> None:
    """Each shard says how far back its oldest record is; one without records says zero."""
    streams.create(shards=2)
    before = datetime.now(UTC) - timedelta(seconds=2)
    streams.call("PutRecord", StreamName="orders", PartitionKey="a", Data=b"x")
    view = source.explore("orders")
    lag = {row["shard_id"]: row for row in view.lag().to_dicts()}
    full = lag.pop(view.shard_for("a").shard_id)
    assert before < full["oldest"] < datetime.now(UTC) + timedelta(seconds=2)
    assert timedelta(0) <= full["lag"] < timedelta(seconds=10)
    (empty,) = lag.values()
    assert (empty["state"], empty["lag"], empty["oldest"]) == ("open", timedelta(0), None)


def test_lag_tries_again(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """A throttled look is tried again; one that is not permitted names the action."""
    streams.create()
    view = source.explore("orders")
    emulator.on("GetRecords", ErrorReply("ProvisionedThroughputExceededException"))
    assert view.lag().height == 1
    emulator.on("GetRecords", ErrorReply("AccessDeniedException"))
    with pytest.raises(kn.AccessDenied, match="GetRecords"):
        view.lag()


def test_lineage_is_a_picture(source: kn.Source, streams: Streams) -> None:
    """The picture is well-formed SVG with every shard, the open ones to the right edge, no box over another."""
    streams.create(shards=3)
    streams.split(index=0)
    streams.merge(index=2)
    streams.rescale(2)
    view = source.explore("orders")
    lineage = view.lineage
    svg, areas = _picture(lineage)
    space = "{http://www.w3.org/2000/svg}"
    width = float(svg.attrib["width"])
    boxes, states = [], []
    for group, area in zip(svg.iter(f"{space}g"), areas, strict=True):
        found = group.find(f"{space}rect")
        assert found is not None
        rect = found.attrib
        x, y, w, h = (float(rect[name]) for name in ("x", "y", "width", "height"))
        boxes.append((x, y, x + w, y + h))
        assert [float(edge) for edge in area.attrib["coords"].split(",")] == pytest.approx(boxes[-1], abs=2)
        states.append((group.attrib["class"], area.attrib["title"].split(",")[0], x + w > width - 3))
    assert sorted((state, name) for state, name, _ in states) == sorted(view.shards.select("state", "shard_id").rows())
    assert all((state == "open") == at_the_edge for state, _, at_the_edge in states)
    assert not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a in boxes for b in boxes if a is not b
    )
    assert sum((x1 - x) * (y1 - y) for x, y, x1, y1 in boxes) > 0.9 * width * float(svg.attrib["height"])
    assert "shardId-000000000000 closed -> shardId-000000000003, shardId-000000000004" in repr(lineage)


def _picture(lineage: Lineage) -> tuple[ET.Element, list[ET.Element]]:
    """Return the SVG of the image, and what says under the pointer which shard it is."""
    html = lineage._repr_html_()
    (picture,) = re.findall('src="data:image/svg.xml;base64,([^"]+)"', html)
    (areas,) = re.findall("<map.*</map>", html)
    return ET.fromstring(b64decode(picture)), list(ET.fromstring(areas))


def test_what_is_shown_needs_neither_style_nor_svg(source: kn.Source, streams: Streams) -> None:
    """Where a notebook is not trusted, <style> and <svg> are dropped: cells align themselves, a picture is an image."""
    streams.create(shards=2)
    shown: list[Any] = [source.explore(), source.explore("orders"), source.explore("orders").lineage]
    plain = [re.sub("<style>.*?</style>", "", one._repr_html_()) for one in shown]
    assert [html for html in plain if re.search("<t[hd]>|<svg|<caption>", html)] == []
    assert "<td" in plain[0] and "<img" in plain[2]


def test_lineage_of_what_is_odd() -> None:
    """Parents that have left, no shards, thousands of them, names that are markup: all have a picture and a text."""
    markup = Lineage("<b>", [Shard("<script>", parents=("gone",))])
    assert "<script>" not in markup._repr_html_()
    assert "<b>" not in markup._repr_html_()
    assert repr(markup) == "<Lineage <b>: 1 open and 0 closed shards>\n<script> open"
    assert "<script>" not in markup.svg
    assert _picture(Lineage("none", []))[1] == []
    step = (MAX_HASH_KEY + 1) // 2000
    many = Lineage("many", [Shard(f"s-{n}", hash_range=(n * step, (n + 1) * step - 1)) for n in range(2000)])
    assert len(many._repr_html_()) < 1_000_000
    assert repr(many).endswith("… and 1,960 more")


def test_unknown_stream(source: kn.Source, streams: Streams) -> None:
    """A name that is nearly right is suggested."""
    streams.create()
    with pytest.raises(kn.StreamNotFound, match="did you mean 'orders'"):
        source.explore("order")
    with pytest.raises(kn.StreamNotFound, match="did you mean 'orders'"):
        source.explore()["order"]
