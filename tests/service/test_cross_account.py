"""Streams of another account: reached by their ARN in every call, and never mixed up with our own of the same name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply
from tests.conftest import by_key, written_by_key
from tests.service.test_networking import recording
from tests.support.aws import ACCOUNT, Gate, Sts, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

KEYS = kn.StaticCredentials("emulator", "emulator")
THEIRS = "000000000000"  # the emulator's account
STREAM = f"arn:aws:kinesis:us-east-1:{THEIRS}:stream/orders"
ALL = {"ListShards", "GetShardIterator", "GetRecords", "DescribeStream", "DescribeStreamSummary", "PutRecords"}


class Sharing(Gate):
    """Kinesis as the caller's account sees it: it has no stream, and others answer to their ARN only."""

    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        names_it = action == "ListStreams" or {"StreamARN", "NextToken"} & set(json.loads(body))
        if not names_it:
            self.refused["by name"] += 1
            return 400, refusal("ResourceNotFoundException", f"Stream under account {ACCOUNT} not found.")
        return super().pass_on(action, token, body, headers)


@pytest.fixture
def sharing(emulator: Emulator) -> Sharing:
    return Sharing(emulator.endpoint_url, set(ALL))


@pytest.fixture
def source(sharing: Sharing) -> Iterator[kn.Source]:
    """A source whose credentials are of another account than the streams."""
    with sharing.open() as url, Sts().open() as sts_url:
        yield kn.connect(endpoint_url=url, sts_endpoint_url=sts_url, auth=KEYS, exports_enabled=True)


def read(source: kn.Source, _: Path) -> object:
    return source.read(STREAM, progress=False)


def tail(source: kn.Source, _: Path) -> object:
    with source.tail(STREAM, start="trim_horizon") as tail:
        return tail.take(30, timeout=10)


def sync(source: kn.Source, folder: Path) -> object:
    sync = source.sync(STREAM, folder / "table", commit_interval=0.1)
    try:
        assert sync.wait(timeout=30)
        return sync.scan().sort("partition_key", "shard_offset").collect().to_arrow()
    finally:
        sync.stop()


def sample(source: kn.Source, _: Path) -> object:
    view = source.explore(STREAM)
    assert view.summary.arn == STREAM
    assert view.lag().height == 4
    assert "denied" not in view._repr_html_()
    return view.sample(30)


@pytest.mark.parametrize("use", [read, tail, sync, sample])
def test_every_way_of_reading(
    source: kn.Source, sharing: Sharing, streams: Streams, tmp_path: Path, use: Callable[[kn.Source, Path], object]
) -> None:
    """By its ARN a stream is read whole and in order, through a reshard; no call names it otherwise."""
    streams.create(shards=2)
    streams.put(15)
    streams.split()
    streams.put(15)
    assert by_key(use(source, tmp_path)) == written_by_key(streams)
    assert not sharing.refused


def test_exports(source: kn.Source, sharing: Sharing, streams: Streams, tmp_path: Path) -> None:
    """A frame, and a synced table as it grows, reach the stream of another account."""
    streams.create()
    streams.put(20)
    copy = streams.create("copy", shards=2)
    df = pl.DataFrame({"partition_key": ["a", "a"], "data": ['{"n": 1}', '{"n": 2}']})
    assert source.export_df(df, copy, progress=False).rows == 2
    table = source.sync(STREAM, tmp_path / "table", commit_interval=0.1)
    assert table.wait(timeout=30)
    export = source.export_stream(table, copy)
    assert export.wait(timeout=30)
    export.stop()
    table.stop()
    assert by_key(source.read(copy, progress=False)) == written_by_key(streams) | {"a": [1, 2]}
    assert not sharing.refused


def test_check_asks_about_that_stream(source: kn.Source, sharing: Sharing, streams: Streams) -> None:
    """The report is about the stream of the ARN, not about one of ours with its name."""
    streams.create()
    sharing.allowed.discard("GetRecords")
    report = source.check(read=[STREAM], write=[STREAM])
    assert [one.action for one in report.denied if one.is_required] == ["kinesis:GetRecords"]
    assert {one.resource for one in report if one.is_required} == {STREAM}
    assert not sharing.refused["by name"]


def test_our_own_stream_goes_by_name(emulator: Emulator, streams: Streams) -> None:
    """The ARN of a stream of the caller's account is its name, which no other host is asked for."""
    streams.create()
    streams.put(5)
    gate = Sharing(emulator.endpoint_url, set(ALL))
    with gate.open() as url, Sts(account=THEIRS).open() as sts_url:
        source = kn.connect(endpoint_url=url, sts_endpoint_url=sts_url, auth=KEYS)
        with pytest.raises(kn.StreamNotFound, match="no stream 'orders'"):
            source.read(STREAM, progress=False)
    assert gate.refused["by name"]


def test_only_hosts_of_that_account_are_asked() -> None:
    """An ARN moves calls to hosts of its account. An account that nobody can tell is not taken for our own."""
    arn = f"arn:aws:kinesis:eu-central-1:{ACCOUNT}:stream/orders"
    with recording() as (url, hosts):
        source = kn.connect(region="eu-central-1", auth=KEYS, proxy=url, exports_enabled=True)
        kinesis, named = source._kinesis, source._address(arn)
        for call in (
            lambda: kinesis.list_shards(named),
            lambda: kinesis.describe_stream(named),
            lambda: kinesis.put_records(named, []),
        ):
            with pytest.raises(kn.KinesisError):
                call()
    assert named == source._outlet(arn).stream == arn
    assert set(hosts) - {"sts.eu-central-1.amazonaws.com:443"} == {
        f"{ACCOUNT}.{kind}-kinesis.eu-central-1.amazonaws.com:443" for kind in ("data", "control")
    }


@pytest.mark.parametrize("arn", ["arn:aws:kinesis:eu-west-1:123456789012:stream/orders", "arn:aws:s3:::orders"])
def test_an_arn_that_cannot_be_right(source: kn.Source, sharing: Sharing, tmp_path: Path, arn: str) -> None:
    """One of another region, or of no stream, is refused before anything is sent."""
    for use in (source.read, source.tail, source.explore, lambda stream: source.sync(stream, tmp_path)):
        with pytest.raises(kn.ConfigError):
            use(arn)
    assert not sharing.asked


def test_a_stream_that_is_not_shared(source: kn.Source, emulator: Emulator) -> None:
    """A denial by the other account says who must do what."""
    why = (
        f"User: arn:aws:iam::{ACCOUNT}:user/ada is not authorized to perform: kinesis:ListShards on resource: {STREAM} "
        "because no resource-based policy allows the kinesis:ListShards action"
    )
    emulator.on("ListShards", ErrorReply("AccessDeniedException", message=why))
    with pytest.raises(kn.AccessDenied) as caught:
        source.read(STREAM, progress=False)
    assert caught.value.message.endswith("by the stream's own account")
    assert "cross_account=" in caught.value.hint


def test_a_stream_that_is_not_there(source: kn.Source) -> None:
    """The error names the ARN, and does not suggest a stream of ours."""
    with pytest.raises(kn.StreamNotFound, match=f"no stream '{STREAM}'.*\nhint: check the ARN"):
        source.read(STREAM, progress=False)
