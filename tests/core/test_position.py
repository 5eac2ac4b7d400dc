"""What a user may write for a start or an end."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from kinesis_nb.core.position import Kind, StartingPosition, check_end
from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import kinesis_nb as kn
    from kinesis_nb.source import Position
    from tests.conftest import Streams

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("trim_horizon", StartingPosition.trim_horizon()),
        ("latest", StartingPosition(Kind.LATEST, timestamp=NOW)),
        ("now", StartingPosition.at(NOW)),
        ("-15m", StartingPosition.at(NOW - timedelta(minutes=15))),
        ("-1.5h", StartingPosition.at(NOW - timedelta(minutes=90))),
        ("-30s", StartingPosition.at(NOW - timedelta(seconds=30))),
        ("-2d", StartingPosition.at(NOW - timedelta(days=2))),
        (timedelta(minutes=5), StartingPosition.at(NOW - timedelta(minutes=5))),
        (timedelta(minutes=-5), StartingPosition.at(NOW - timedelta(minutes=5))),
        (NOW.astimezone(timezone(timedelta(hours=5))), StartingPosition.at(NOW)),
        (StartingPosition.after("42"), StartingPosition.after("42")),
        ("TRIM_HORIZON", StartingPosition.trim_horizon()),
        ("2026-11-01T12:00:00Z", StartingPosition.at(NOW)),
        (pd.Timestamp(NOW), StartingPosition.at(NOW)),
        (StartingPosition.latest(), StartingPosition(Kind.LATEST, timestamp=NOW)),
    ],
)
def test_parses(value: Position, expected: StartingPosition) -> None:
    """Every documented way to name a position gives that position."""
    assert StartingPosition.parse(value, NOW) == expected


def test_naive_datetime_is_local_time() -> None:
    """A moment without a zone is taken as the local time of this machine, and that is said."""
    local = datetime(2026, 11, 1, 12)  # noqa: DTZ001 - the point of the test
    for naive in (local, pd.Timestamp(local), local.isoformat()):
        with pytest.warns(UserWarning, match="taken as local time"):
            assert StartingPosition.parse(naive, NOW).timestamp == local.astimezone(UTC)


@pytest.mark.parametrize("value", ["yesterday", "-15", "", None, 5, "-m"])
def test_refuses(value: Any) -> None:
    """Anything else is refused with a hint."""
    with pytest.raises(ConfigError, match="hint: use"):
        StartingPosition.parse(value, NOW)


def test_a_time_ago_needs_its_sign() -> None:
    """ "15m" could be anything; the hint is what was most likely meant."""
    with pytest.raises(ConfigError, match='hint: did you mean "-15m"'):
        StartingPosition.parse("15m", NOW)


def test_sequence_number_must_be_digits() -> None:
    """A sequence number is decimal text."""
    with pytest.raises(ConfigError):
        StartingPosition.after("shardId-1")


def test_an_end_is_a_whole_millisecond() -> None:
    """Arrival times are rounded to milliseconds: what arrived before the end may stand at the next whole one."""
    first = StartingPosition.trim_horizon()
    for micros, millis in ((1_200, 2), (2_000, 2), (999_999, 1_000)):
        end = check_end(first, StartingPosition.at(NOW + timedelta(microseconds=micros)))
        assert end == NOW + timedelta(milliseconds=millis)


@pytest.mark.parametrize("end", ["latest", "trim_horizon", "after"])
def test_what_is_not_a_time_is_not_an_end(end: str) -> None:
    """ "latest" is where a tail begins; whoever ends there may mean now, or never."""
    place = StartingPosition.after("1") if end == "after" else StartingPosition.parse(end, NOW)
    with pytest.raises(ConfigError, match=r'cannot end at.*\nhint: use "now"'):
        check_end(StartingPosition.trim_horizon(), place)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Berlin, where 2:30 on the last night of summer time comes twice."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(("fold", "hour"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("kind", [datetime, pd.Timestamp])
def test_the_second_half_past_two(kind: Callable[..., datetime], fold: int, hour: int) -> None:
    """A local time that comes twice is the one that its fold says."""
    local = kind(year=2026, month=10, day=25, hour=2, minute=30, fold=fold)
    with pytest.warns(UserWarning, match="no time zone"):
        found = StartingPosition.parse(local, NOW)
    assert found == StartingPosition.at(datetime(2026, 10, 25, hour, 30, tzinfo=UTC))


@pytest.mark.parametrize("start", [datetime(2026, 11, 1, 12), "2026-11-01T12:00"])  # noqa: DTZ001 - what is tested
@pytest.mark.parametrize("call", ["read", "tail", "sync", "export_stream", "export_stream to"])
def test_local_time_is_told_once_where_it_was_written(
    source: kn.Source, streams: Streams, tmp_path: Path, start: datetime | str, call: str
) -> None:
    """One warning, whatever the call asks for afterwards, and it names the line of the caller."""
    out = streams.create("out")
    streams.create()
    path = tmp_path / "t"
    if call.startswith("export_stream"):
        sync = source.sync("orders", path)
        sync.wait()
        sync.stop()
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: source.read("orders", start, progress=False),
        "tail": lambda: source.tail("orders", start).stop(),
        "sync": lambda: source.sync("orders", path, start).stop(),
        "export_stream": lambda: source.export_stream(path, out, start=start).stop(),
        "export_stream to": lambda: source.export_stream(path, out, end=start).stop(),
    }
    with pytest.warns(UserWarning, match="no time zone") as told:
        calls[call]()
    assert [warning.filename for warning in told] == [__file__]
