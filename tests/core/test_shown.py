"""What a terminal and a log show of rows and of progress."""

from __future__ import annotations

import io
import json
import sys
import traceback
import unicodedata
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from IPython.lib.pretty import pretty

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.display import table_text
from kinesis_nb.emulator import Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams


def records(*data: str) -> kn.Records:
    return kn.Records(pa.Table.from_pylist([{"partition_key": "k", "data": text} for text in data], SCHEMA))


def test_ipython_shows_the_first_rows() -> None:
    """In a terminal, with the names of the columns that have values; long values and what is not shown are cut."""
    lines = pretty(records(*(f"row {number}" for number in range(12)))).splitlines()
    assert lines[0] == "<Records: 12 rows>"
    assert lines[1].split() == ["partition_key", "data"]
    assert [line.split()[-1] for line in lines[2:12]] == [str(number) for number in range(10)]
    assert lines[12:] == ["…"]
    assert pretty(records()) == "<Records: 0 rows>"
    assert max(map(len, pretty(records("x" * 1_000)).splitlines())) < 120


def test_rows_in_a_terminal_are_harmless() -> None:
    """No escape sequence, line break or change of direction of a record reaches the terminal."""
    of_records = records("\x1b[31mred", "two\nlines", "\u202etxt.exe")
    shown = pretty(of_records)
    assert str(of_records) == shown
    assert shown.isprintable() or set(shown) - set("\n") == set(filter(str.isprintable, shown))
    assert len(shown.splitlines()) == 5


def test_what_a_terminal_shows(source: kn.Source, streams: Streams) -> None:
    """Below the line that is their repr(), print() and IPython show rows; messages that name them have the one line."""
    streams.create(shards=12)
    streams.put(100)
    view = source.explore("orders")
    for shown, said in (
        (source.read("orders", progress=False), ["partition_key", "kinesis_ingestion_timestamp", "data"]),
        (view.sample(3), ["partition_key", "kinesis_ingestion_timestamp", "data"]),
        (view.schema(), ["field", "dtype", "presence", "types"]),
        (view.heat(), ["shard_id", "records", "bytes", "record_share", "byte_share", "hot"]),
        (source.explore(), ["stream", "status", "mode", "open_shards", "retention_hours", "encryption"]),
        (view, ["shard_id", "state", "hash_share", "starting_sequence_number"]),
    ):
        first, *lines = str(shown).splitlines()
        assert pretty(shown) == str(shown)
        assert first == repr(shown) == f"{shown}"
        assert said in [line.split() for line in lines]
        assert max(map(len, lines)) <= 100
        assert len(lines) <= 30
    assert "n      Int64" in str(view.schema())
    assert str(source.explore()).count("orders") == 2


def test_a_policy_in_a_terminal(source: kn.Source, streams: Streams) -> None:
    """IPython shows which action is allowed on what; print() the document, to be pasted."""
    arn = streams.create()
    policy = source.iam_policy(write=["orders"])
    assert pretty(policy).splitlines()[1:] == ["action              resource", f"kinesis:PutRecords  {arn}"]
    assert json.loads(str(policy)) == policy.to_dict()


@pytest.mark.parametrize("columns", [None, 60, 100, 180])
def test_a_table_fits_a_terminal(columns: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as it is: the widest columns are cut first, wide letters count twice, numbers stand at the right."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)  # no terminal, whoever runs the tests
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    line = columns or 100
    text = table_text(("a", "b", "n"), [("x" * 200, "語" * 100, 1_000), ("y", "z", 5)])
    assert [_columns(line) for line in text.splitlines()] == [line] * 3
    assert text.splitlines()[2].endswith(" " * 4 + "5")
    many = table_text([f"column {n}" for n in range(40)], [list(range(40))] * 11).splitlines()
    assert line - 12 <= max(map(len, many)) <= line
    assert (len(many), many[-1]) == (12, "…")


def _columns(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in line)


@pytest.mark.parametrize(
    "call",
    [
        lambda source: source.read("ordres"),
        lambda source: source.explore("ordres"),
        lambda source: source.tail("ordres"),
        lambda source: source.sync("ordres", "table"),
        lambda source: source.export_df(pl.DataFrame({"key": ["a"]}), "results"),
        lambda source: source.save("../orders"),
        lambda source: source.read("orders", end="latest"),
    ],
)
def test_an_error_in_a_script_is_not_buried(
    source: kn.Source, streams: Streams, call: Callable[[kn.Source], Any]
) -> None:
    """A traceback shows where the user called, and hardly a line of the package."""
    streams.create()
    with pytest.raises(kn.KinesisError) as error:
        call(source)
    files = [frame.filename for frame in traceback.extract_tb(error.value.__traceback__)]
    assert files[0] == __file__
    assert len([file for file in files if file != __file__]) <= 2
    assert (error.value.__cause__, error.value.__suppress_context__ or error.value.__context__) in [
        (None, None),
        (None, True),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def call(source: kn.Source, streams: Streams, emulator: Emulator) -> Callable[[str], None]:
    """Make a call that takes longer than a bar is held back, or one that is refused."""
    arn = streams.create("out")
    streams.create()
    streams.put(10)
    frame = pl.DataFrame({"key": ["a", "b"]})

    def made(what: str) -> None:
        match what:
            case "read":
                emulator.on("GetRecords", Stall(0.5))
                source.read("orders")
            case "export":
                emulator.on("PutRecords", Stall(0.5))
                source.export_df(frame, arn)
            case _:
                with pytest.raises(kn.ConfigError):
                    source.export_df(frame, arn, partition_column="nope")

    return made


@pytest.mark.parametrize(
    ("stderr", "what", "is_shown"),
    [
        (Terminal, "read", True),
        (Terminal, "export", True),
        (Terminal, "refused export", False),
        (io.StringIO, "read", False),
        (io.StringIO, "export", False),
    ],
)
def test_bars(
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[str], None],
    stderr: type[io.StringIO],
    what: str,
    *,
    is_shown: bool,
) -> None:
    """A terminal shows how far a call is, unless it is refused; a log has no bars in it."""
    shown = stderr()
    monkeypatch.setattr(sys, "stderr", shown)
    call(what)
    assert ("\r" in shown.getvalue()) == is_shown
