"""What a terminal and a log show of rows and of progress."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest
from IPython.lib.pretty import pretty

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.emulator import Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams


def records(*data: str) -> kn.Records:
    return kn.Records(pa.Table.from_pylist([{"partition_key": "k", "data": text} for text in data], SCHEMA))


def test_ipython_shows_the_first_rows() -> None:
    """In a terminal, with the names of the columns; long values and what is not shown are cut."""
    lines = pretty(records(*(f"row {number}" for number in range(12)))).splitlines()
    assert lines[0] == "<Records: 12 rows>"
    assert lines[1].split() == ["partition_key", "kinesis_ingestion_timestamp", "data"]
    assert [line.split()[-1] for line in lines[2:12]] == [str(number) for number in range(10)]
    assert lines[12:] == ["…"]
    assert pretty(records()) == "<Records: 0 rows>"
    assert max(map(len, pretty(records("x" * 1_000)).splitlines())) < 120


def test_rows_in_a_terminal_are_harmless() -> None:
    """No escape sequence, line break or change of direction of a record reaches the terminal."""
    shown = pretty(records("\x1b[31mred", "two\nlines", "\u202etxt.exe"))
    assert shown.isprintable() or set(shown) - set("\n") == set(filter(str.isprintable, shown))
    assert len(shown.splitlines()) == 5


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
