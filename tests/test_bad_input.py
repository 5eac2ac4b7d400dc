"""What a user may get wrong: a typed error of two lines, before anything is sent or written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pytest

import kinesis_nb as kn
from tests.conftest import Streams, engine_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
ROW = pl.DataFrame({"key": ["a"]})
LATER = datetime(2100, 1, 1, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/reader"
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"

CALLS: dict[str, tuple[type[kn.KinesisError], Callable[[kn.Source], object]]] = {
    "unknown option of connect": (kn.UnknownOption, lambda _: kn.connect(regoin="us-east-1")),  # type: ignore[call-arg]
    "unknown option of read": (kn.UnknownOption, lambda s: s.read("orders", strat=1)),  # type: ignore[call-arg]
    "unknown option of tail": (kn.UnknownOption, lambda s: s.tail("orders", maxrows=1)),  # type: ignore[call-arg]
    "unknown option of sync": (kn.UnknownOption, lambda s: s.sync("orders", "t", interval=1)),  # type: ignore[call-arg]
    "unknown option of export_df": (kn.UnknownOption, lambda s: s.export_df(pl.DataFrame(), "arn", column="a")),  # type: ignore[call-arg]
    "unknown option of export_stream": (kn.UnknownOption, lambda s: s.export_stream("t", ARN, column="a")),  # type: ignore[call-arg]
    "ARN of an export": (kn.ConfigError, lambda s: s.export_stream("t", "orders")),
    "region of an export": (kn.ConfigError, lambda s: s.export_df(ROW, ARN.replace("us-east-1", "eu-west-1"))),
    "stream name in an ARN": (kn.ConfigError, lambda s: s.export_df(ROW, ARN + "/../x")),
    "export without string column": (kn.ConfigError, lambda s: s.export_df(pl.DataFrame({"n": [1]}), ARN)),
    "export of no table": (kn.ConfigError, lambda s: s.export_df("rows", ARN)),
    "export_stream of no table": (kn.ConfigError, lambda s: s.export_stream(ROW, ARN)),  # type: ignore[arg-type]
    "table that is not there": (kn.TableError, lambda s: s.export_stream("nowhere", ARN)),
    "order of an export": (kn.ConfigError, lambda s: s.export_df(ROW, ARN, order="any")),  # type: ignore[arg-type]
    "on_bad_key": (kn.ConfigError, lambda s: s.export_df(ROW, ARN, on_bad_key="cut")),  # type: ignore[arg-type]
    "on_ambiguous": (kn.ConfigError, lambda s: s.export_df(ROW, ARN, on_ambiguous="guess")),  # type: ignore[arg-type]
    "resume": (kn.ConfigError, lambda s: s.export_df(ROW, ARN, resume=5)),  # type: ignore[arg-type]
    "data_column": (kn.ConfigError, lambda s: s.export_df(ROW, ARN, data_column="none")),
    "rate of an export": (kn.ConfigError, lambda s: s.export_stream("t", ARN, rate=0)),
    "end of an export": (kn.ConfigError, lambda s: s.export_stream("t", ARN, end="trim_horizon")),
    "sequence number for an export": (
        kn.ConfigError,
        lambda s: s.export_stream("t", ARN, start=kn.StartingPosition.after("5")),
    ),
    "region": (kn.ConfigError, lambda _: kn.connect(region="us east")),
    "empty region": (kn.ConfigError, lambda _: kn.connect(region="")),
    "endpoint": (kn.ConfigError, lambda _: kn.connect(endpoint_url="localhost:4567")),
    "proxy": (kn.ConfigError, lambda _: kn.connect(proxy="user:hunter2@host")),
    "password in the endpoint": (kn.ConfigError, lambda _: kn.connect(endpoint_url="http://user:hunter2@host")),
    "auth": (kn.ConfigError, lambda _: kn.connect(auth="key")),  # type: ignore[arg-type]
    "empty key": (kn.ConfigError, lambda _: kn.StaticCredentials("", "x")),
    "profile": (kn.ConfigError, lambda _: kn.connect(auth=kn.Profile("no such profile")).explore()),
    "dots": (kn.ConfigError, lambda s: s.read("..")),
    "path as stream": (kn.ConfigError, lambda s: s.tail("../orders")),
    "empty stream": (kn.ConfigError, lambda s: s.explore("")),
    "stream of spaces": (kn.ConfigError, lambda s: s.sync("my orders", "t")),
    "start": (kn.ConfigError, lambda s: s.read("orders", "yesterday")),
    "end": (kn.ConfigError, lambda s: s.read("orders", end="trim_horizon")),
    "start after end": (kn.ConfigError, lambda s: s.read("orders", LATER, "now")),
    "sequence number for all shards": (kn.ConfigError, lambda s: s.read("orders", kn.StartingPosition.after("5"))),
    "limit": (kn.ConfigError, lambda s: s.read("orders", limit=0)),
    "key": (kn.ConfigError, lambda s: s.read("orders", key="k" * 257)),
    "where without such a column": (kn.ConfigError, lambda s: s.read("orders", where=pl.col("nope") == 1)),
    "where that is no condition": (kn.ConfigError, lambda s: s.read("orders", where=pl.col("data"))),
    "max_rows": (kn.ConfigError, lambda s: s.tail("orders", max_rows=0)),
    "on_full": (kn.ConfigError, lambda s: s.tail("orders", on_full="drop")),  # type: ignore[arg-type]
    "no shard": (kn.ConfigError, lambda s: s.read("orders", shards=[])),
    "a shard that is no list": (kn.ConfigError, lambda s: s.tail("orders", shards="shardId-000000000000")),
    "interval without end": (kn.ConfigError, lambda s: s.sync("orders", "t", commit_interval=float("inf"))),
    "limit that is text": (kn.ConfigError, lambda s: s.read("orders", limit="10")),  # type: ignore[arg-type]
    "key that is a number": (kn.ConfigError, lambda s: s.read("orders", key=3)),  # type: ignore[arg-type]
    "where that is text": (kn.ConfigError, lambda s: s.read("orders", where="x > 1")),  # type: ignore[arg-type]
    "shards that are a number": (kn.ConfigError, lambda s: s.read("orders", shards=0)),  # type: ignore[arg-type]
    "max_rows that is text": (kn.ConfigError, lambda s: s.tail("orders", max_rows="many")),  # type: ignore[arg-type]
    "endless ago": (kn.ConfigError, lambda s: s.read("orders", "-99999999d")),
    "year 1": (kn.ConfigError, lambda s: s.read("orders", datetime(1, 1, 1))),  # noqa: DTZ001
    "month 13": (kn.ConfigError, lambda s: s.read("orders", "2026-13-01")),
    "text as a moment": (kn.ConfigError, lambda s: kn.StartingPosition.at("2026-01-01")),  # type: ignore[arg-type]
    "table that is a number": (kn.ConfigError, lambda s: s.sync("orders", 5)),  # type: ignore[arg-type]
    "interval that is text": (kn.ConfigError, lambda s: s.sync("orders", "t", commit_interval="1s")),  # type: ignore[arg-type]
    "no stream": (kn.UnknownOption, lambda s: s.read()),  # type: ignore[call-arg]
    "positional region": (kn.ConfigError, lambda _: kn.connect("eu-central-1")),
    "start of a sync": (kn.ConfigError, lambda s: s.sync("orders", "t", "never")),
    "commit_interval": (kn.ConfigError, lambda s: s.sync("orders", "t", commit_interval=0)),
    "table elsewhere": (kn.ConfigError, lambda s: s.sync("orders", "ftp://x/y")),
    "instance without agents": (kn.ConfigError, lambda _: kn.connect(auth=kn.AwsInstance())),
    "class as auth": (kn.ConfigError, lambda _: kn.connect(auth=kn.AwsInstance)),  # type: ignore[arg-type]
    "role as text": (kn.ConfigError, lambda _: kn.connect(sts_role="arn:aws:iam::123456789012:role/r")),  # type: ignore[arg-type]
    "role that is a user": (kn.ConfigError, lambda _: kn.StsRole("arn:aws:iam::123456789012:user/u", "me")),
    "role of a short account": (kn.ConfigError, lambda _: kn.StsRole("arn:aws:iam::12345:role/r", "me")),
    "session name with a space": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "a b")),
    "session name of one letter": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "a")),
    "session name of 65 letters": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "a" * 65)),
    "duration too short": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", 899)),
    "duration too long": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", 43_201)),
    "duration with a fraction": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", 900.0)),  # type: ignore[arg-type]
    "duration that is a truth": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", duration=True)),
    "external id of one letter": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", external_id="x")),
    "empty external id": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", external_id="")),
    "external id with a space": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", external_id="a b")),
    "external id too long": (kn.ConfigError, lambda _: kn.StsRole(ROLE, "me", external_id="x" * 1225)),
    "secret with a line break": (kn.ConfigError, lambda _: kn.StaticCredentials("AKIA", "hunter2\n")),
    "secret that is bytes": (kn.ConfigError, lambda _: kn.StaticCredentials("AKIA", b"hunter2")),  # type: ignore[arg-type]
    "key id with a letter that no key has": (kn.ConfigError, lambda _: kn.StaticCredentials("AKIÄ", "x")),
    "profile without a name": (kn.ConfigError, lambda _: kn.Profile("")),
    "http to another machine": (kn.ConfigError, lambda _: kn.connect(endpoint_url="http://10.1.2.3:4567")),
    "STS by http": (kn.ConfigError, lambda _: kn.connect(sts_endpoint_url="http://sts.example.com")),
    "endpoint with a line break": (kn.ConfigError, lambda _: kn.connect(endpoint_url="https://x\r\nHost: y")),
    "no such CA bundle": (kn.ConfigError, lambda _: kn.connect(verify="/no/such/file.pem")),
    "CA bundle that is a number": (kn.ConfigError, lambda _: kn.connect(verify=1.5)),  # type: ignore[arg-type]
    "exports_enabled as text": (kn.ConfigError, lambda _: kn.connect(exports_enabled="no")),  # type: ignore[arg-type]
    "region that is a number": (kn.ConfigError, lambda _: kn.connect(region=1)),  # type: ignore[arg-type]
    "saved source with a path": (kn.ConfigError, lambda s: s.save("../orders")),
    "saved source that is not there": (kn.ConfigError, lambda _: kn.connect("no-such-source")),
    "policy for text": (kn.ConfigError, lambda s: s.iam_policy(read="orders")),
    "policy for another region": (
        kn.ConfigError,
        lambda s: s.iam_policy(["arn:aws:kinesis:eu-west-1:123456789012:stream/orders"]),
    ),
    "policy for a stream that cannot be": (kn.ConfigError, lambda s: s.iam_policy(["a b"])),
    "policy with an alias": (kn.ConfigError, lambda s: s.iam_policy([STREAM], kms_key="alias/mine")),
    "policy for a stranger": (kn.ConfigError, lambda s: s.iam_policy([STREAM], cross_account="*")),
    "trust in everybody": (kn.ConfigError, lambda s: s.iam_policy([STREAM], trust="*")),
    "check of a number": (kn.ConfigError, lambda s: s.check(read=3)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_refused_before_any_request(
    source: kn.Source, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Two lines, the second a hint; no request, no file, no thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    expected, call = CALLS[name]
    with pytest.raises(expected) as caught:
        call(source)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    assert caught.value._render_traceback_() == [f"{expected.__name__}: {lines[0]}", lines[1]]
    assert emulator.requests.total() == 0
    assert list(tmp_path.iterdir()) == []
    assert engine_threads() == []


@pytest.mark.parametrize("method", ["read", "tail", "explore", "sync"])
def test_unknown_stream(source: kn.Source, streams: Streams, tmp_path: Path, method: str) -> None:
    """A stream that is not there is a LookupError that names the nearest one; nothing is written."""
    streams.create("orders")
    more = [tmp_path / "t"] if method == "sync" else []
    with pytest.raises(kn.StreamNotFound, match="no stream 'ordesr' in us-east-1\nhint: did you mean 'orders'") as e:
        getattr(source, method)("ordesr", *more)
    assert isinstance(e.value, LookupError)
    assert list(tmp_path.iterdir()) == []


def test_unknown_shard(source: kn.Source, streams: Streams) -> None:
    """A shard id that the stream does not have is refused."""
    streams.create()
    with pytest.raises(kn.ConfigError, match="has no shard shardId-7"):
        source.tail("orders", shards=["shardId-7"])


def test_errors_are_the_builtins_people_catch() -> None:
    """Each error is also the builtin it is a case of."""
    assert issubclass(kn.ConfigError, ValueError)
    assert issubclass(kn.UnknownOption, TypeError)
    assert issubclass(kn.StreamNotFound, LookupError)
    assert issubclass(kn.AccessDenied, PermissionError)
    assert issubclass(kn.CredentialsError, PermissionError)
    assert issubclass(kn.TableError, ValueError)


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    """Credentials in a form that is not known are refused without showing them."""
    with pytest.raises(kn.ConfigError) as caught:
        kn.connect(auth=("AKIA", "hunter2"))  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_a_proxy_password_is_not_shown() -> None:
    """Neither the source nor an error shows what stands in a proxy's address."""
    source = kn.connect(proxy="http://user:hunter2@127.0.0.1:3128")
    assert "hunter2" not in repr(source) + repr(source.config)
    with pytest.raises(kn.ConfigError) as caught:
        kn.connect(proxy="user:hunter2@host")
    assert "hunter2" not in str(caught.value)
