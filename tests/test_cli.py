"""The command line, as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from deltalake import DeltaTable

import kinesis_nb as kn
from kinesis_nb.cli import _with_notebooks, main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AWS = str(Path(sys.executable).parent / "aws")
KEYS = {"AWS_ACCESS_KEY_ID": "emulator", "AWS_SECRET_ACCESS_KEY": "emulator", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``kinesis-nb`` in a process group of its own, and end all of it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "kinesis_nb", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def is_gone(group: int, seconds: float = 5.0) -> bool:
    """Whether the last process of a group ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
    return False


@pytest.fixture
def endpoint() -> Iterator[str]:
    with command("emulator", "--port", "0", "--stream", "ready:2") as process:
        assert process.stdout is not None
        yield next(word for word in process.stdout.readline().split() if word.startswith("http://127.0.0.1:"))


def read_shard(aws: Any, stream: str, shard_id: str) -> list[bytes]:
    iterator = aws.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    answer = aws.get_records(ShardIterator=iterator["ShardIterator"])
    return [record["Data"] for record in answer["Records"]]


def test_boto3_splits_and_reads_parent_then_children(endpoint: str) -> None:
    """A boto3 client creates a stream, writes, splits, writes again, and finds each half where it belongs."""
    aws = boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="emulator",
        aws_secret_access_key="emulator",
        config=Config(retries={"total_max_attempts": 1}),
    )
    assert aws.list_streams()["StreamNames"] == ["ready"]
    aws.create_stream(StreamName="orders", ShardCount=1)
    aws.get_waiter("stream_exists").wait(StreamName="orders")
    aws.put_record(StreamName="orders", PartitionKey="a", Data=b"before")
    aws.split_shard(StreamName="orders", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    for key in "abcdefgh":
        aws.put_record(StreamName="orders", PartitionKey=key, Data=key.encode())
    shards = aws.list_shards(StreamName="orders")["Shards"]
    assert [shard.get("ParentShardId") for shard in shards] == [None, shards[0]["ShardId"], shards[0]["ShardId"]]
    assert read_shard(aws, "orders", shards[0]["ShardId"]) == [b"before"]
    children = [read_shard(aws, "orders", shard["ShardId"]) for shard in shards[1:]]
    assert all(children)
    assert sorted(children[0] + children[1]) == [key.encode() for key in "abcdefgh"]
    aws.close()


def test_aws_cli_splits_and_reads_parent_then_children(endpoint: str) -> None:
    """The AWS CLI does the same."""

    def aws(*arguments: str) -> Any:
        done = subprocess.run(
            [AWS, "--endpoint-url", endpoint, "--output", "json", "kinesis", *arguments],
            env={**os.environ, **KEYS},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout or "{}")

    def data(shard_id: str) -> list[str]:
        where = ["--shard-id", shard_id, "--shard-iterator-type", "TRIM_HORIZON"]
        iterator = aws("get-shard-iterator", "--stream-name", "orders", *where)["ShardIterator"]
        return [record["PartitionKey"] for record in aws("get-records", "--shard-iterator", iterator)["Records"]]

    aws("create-stream", "--stream-name", "orders", "--shard-count", "1")
    aws("put-record", "--stream-name", "orders", "--partition-key", "before", "--data", "aGk=")
    split = ["--shard-to-split", "shardId-000000000000", "--new-starting-hash-key", str(2**127)]
    aws("split-shard", "--stream-name", "orders", *split)
    entries = [{"PartitionKey": key, "Data": "aGk="} for key in "abcdefgh"]
    aws("put-records", "--stream-name", "orders", "--records", json.dumps(entries))
    parent, *children = (shard["ShardId"] for shard in aws("list-shards", "--stream-name", "orders")["Shards"])
    assert data(parent) == ["before"]
    assert sorted(key for child in children for key in data(child)) == list("abcdefgh")


def test_emulator_ends_on_ctrl_c() -> None:
    """Ctrl-C ends the emulator with code 0 and frees its port."""
    with command("emulator", "--port", "0") as process:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is said in two lines, with code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["emulator", "--port", str(taken.getsockname()[1])]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "in use" in first
    assert second.startswith("hint: ")


@pytest.mark.parametrize("stream", ["a:b", "..:1", "ok:0"])
def test_bad_stream_option(capsys: pytest.CaptureFixture[str], stream: str) -> None:
    """A stream that cannot be created is said in two lines, with code 2."""
    assert main(["emulator", "--port", "0", "--stream", stream]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "Exception" not in first
    assert second.startswith("hint: ")


def test_demo_tells_a_true_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo ends with 0, loses nothing, doubles nothing, leaves no process, and what it says to do next works."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with command("demo", "--seconds", "1") as process:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert "duplicates 0" in out
        assert "lost 0" in out
        assert "FAIL" not in out
        assert is_gone(process.pid)
    _, _, following = out.partition("\nNext: ")
    assert f"kept in {tmp_path}" in following
    rows = re.search(r"([\d,]+) rows in the table", out)
    look, code = re.search("look into it: +(.*)", following), re.search(">>> (.*)", following)
    assert look and code and rows
    shown = subprocess.run(look[1], shell=True, capture_output=True, text=True, check=True)
    assert "shape: (5, " in shown.stdout
    folder = re.search(r"scan_delta\('(.*?)'\)", look[1])
    assert folder and DeltaTable(folder[1]).count() == int(rows[1].replace(",", ""))
    subprocess.run([sys.executable, "-c", code[1]], check=True, capture_output=True)


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` of each command has a description and an example that can be parsed, and shows every default."""
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert names == ["demo", "emulator", "lab", "agent", "scheduler", "agents"]
    for name in names:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        usage, description, options, example = capsys.readouterr().out.split("\n\n")[-4:]
        assert len(description.split()) > 8, usage
        assert example.startswith(f"example: kinesis-nb {name}")
        for option in re.split(r"\n  (?=-)", options)[2:]:
            assert "default" in option or "--scheduler" in option, option


@pytest.mark.parametrize("given", [None, "mine", "mine/deep"])
def test_the_tutorials_are_put_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """Anywhere but in the checkout; the next time the folder is opened as it is, and no file in it is written over."""
    monkeypatch.chdir(tmp_path)
    folder = _with_notebooks(Path(given) if given else None)
    assert folder == Path(given or "kinesis_nb_tutorials")
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in TUTORIALS]
    first, second, *_ = sorted(folder.iterdir())
    first.write_text("mine now")
    second.unlink()
    assert _with_notebooks(Path(given) if given else None) == folder
    assert (first.read_text(), second.exists()) == ("mine now", False)


def test_a_folder_of_notebooks_is_opened_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named, or ./notebooks; a file in its place is refused in two lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "mine.txt").touch()
    assert _with_notebooks(None) == _with_notebooks(Path("notebooks")) == Path("notebooks")
    assert len(list(tmp_path.rglob("*"))) == 2
    with pytest.raises(kn.ConfigError, match=r"is a file\nhint: give a folder"):
        _with_notebooks(Path("notebooks/mine.txt"))


def test_the_package_brings_all_tutorials() -> None:
    """The wheel has each of them where `kinesis-nb lab` looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {f"notebooks/{path.name}": f"kinesis_nb/tutorials/{path.name}" for path in TUTORIALS}


def test_a_demo_that_is_too_short_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """In two lines, before anything is started."""
    assert main(["demo", "--seconds", "0"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--seconds 0" in first
    assert second.startswith("hint: ")


def test_make_help_names_every_target() -> None:
    """Every target with a description stands in ``make help``, those with digits in their names too."""
    described = set(re.findall(r"^(\S+):[^=\n]*##", Path("Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run(["make", "--no-print-directory", "help"], capture_output=True, text=True, check=True).stdout
    assert {line.split("\t")[0] for line in shown.splitlines()} == described
    assert "e2e" in described


@pytest.mark.parametrize("moment", ["tail clicks", "kill it with SIGKILL", "resume the sync"])
def test_ctrl_c_in_the_demo_leaves_nothing(moment: str) -> None:
    """Ctrl-C at any moment ends the demo soon, with code 130, and leaves no process."""
    with command("demo", "--seconds", "2") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        assert is_gone(process.pid)
