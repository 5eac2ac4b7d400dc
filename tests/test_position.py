"""What a user may write for a start or an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest

from kinesis_nb.errors import ConfigError
from kinesis_nb.position import Kind, StartingPosition, check_end

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
def test_parses(value: object, expected: StartingPosition) -> None:
    """Every documented way to name a position gives that position."""
    assert StartingPosition.parse(value, NOW) == expected


def test_naive_datetime_is_local_time() -> None:
    """A moment without a zone is taken as the local time of this machine, and that is said."""
    local = datetime(2026, 11, 1, 12)  # noqa: DTZ001 - the point of the test
    for naive in (local, pd.Timestamp(local), local.isoformat()):
        with pytest.warns(UserWarning, match="taken as local time"):
            assert StartingPosition.parse(naive, NOW).timestamp == local.astimezone(UTC)


@pytest.mark.parametrize("value", ["yesterday", "15m", "-15", "", None, 5, "-m"])
def test_refuses(value: object) -> None:
    """Anything else is refused with a hint."""
    with pytest.raises(ConfigError, match="hint: use"):
        StartingPosition.parse(value, NOW)


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
