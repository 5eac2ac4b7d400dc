"""When an agent is taken down: weekly or daily maintenance windows. Pure."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([A-Za-z]{3,9})\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})(?:\s+([\w/+-]+))?", re.ASCII)
_YEAR_DAYS = 371  # whole weeks that include every change to and from daylight saving time


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A time of the week, or of every day, in which an agent runs no part of a job.

    Examples
    --------
    >>> window = MaintenanceWindow.parse("Sun 03:00-03:05 UTC")
    >>> window.next(datetime(2026, 11, 24, tzinfo=UTC))[0].isoformat()
    '2026-11-29T03:00:00+00:00'
    """

    text: str
    day: int | None  # 0 is Monday; None every day
    begin: time
    length: timedelta
    zone: str

    @classmethod
    def parse(cls, text: str) -> MaintenanceWindow:
        """Parse what a user wrote, or raise ConfigError."""
        match = _WINDOW.fullmatch(text.strip())
        name, hour, minute, last_hour, last_minute, zone = match.groups() if match else ("",) * 6
        try:
            day = None if name is None or name.lower() == "daily" else _DAYS.index(name[:3].lower())
            begin, end = time(int(hour), int(minute)), time(int(last_hour), int(last_minute))
            zoneinfo.ZoneInfo(zone or "UTC")
        except (ValueError, zoneinfo.ZoneInfoNotFoundError):
            hint = 'write a day, a time from and to, and a time zone: "Sun 03:00-03:05 UTC"'
            raise ConfigError(f"{text!r} is not a valid maintenance window", hint=hint) from None
        return cls(text.strip(), day, begin, _length(begin, end), zone or "UTC")

    def _days(self, now: datetime, days: int) -> Iterator[tuple[datetime, datetime]]:
        zone = zoneinfo.ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        for ahead in range(-1, days):
            day = today + timedelta(days=ahead)
            if self.day in (None, day.weekday()):
                begin = datetime.combine(day, self.begin, zone).astimezone(UTC)
                if begin + self.length > now:
                    yield begin, begin + self.length

    def next(self, now: datetime) -> tuple[datetime, datetime]:
        """Return the first window that is not over, as two times in UTC."""
        return next(self._days(now, 9))

    def overlaps(self, other: MaintenanceWindow, now: datetime) -> bool:
        """Whether both are open at once within a year."""
        theirs = list(other._days(now, _YEAR_DAYS))
        return any(begin < end and first < last for first, end in self._days(now, _YEAR_DAYS) for begin, last in theirs)

    def __str__(self) -> str:
        return self.text


def _length(begin: time, end: time) -> timedelta:
    """Return how long it is from a time of day to the next time that it is another."""
    length = datetime.combine(date.min, end) - datetime.combine(date.min, begin)
    return length if length > timedelta(0) else length + timedelta(days=1)


def next_window(windows: Iterable[MaintenanceWindow], now: datetime) -> tuple[datetime, datetime] | None:
    """Return the first of all windows that is not over."""
    return min((window.next(now) for window in windows), default=None)


def check_no_overlap(
    name: str, windows: Iterable[MaintenanceWindow], others: Iterable[tuple[str, MaintenanceWindow]], now: datetime
) -> None:
    """Raise ConfigError when an agent would be away while another one is."""
    known = list(others)
    for window in windows:
        for other, theirs in known:
            if window.overlaps(theirs, now):
                raise ConfigError(
                    f"the maintenance of {name} ({window}) overlaps that of {other} ({theirs})",
                    hint="choose non-overlapping windows: one of the agents must run",
                )
