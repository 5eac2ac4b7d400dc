"""Where in a stream reading starts, or ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from kinesis_nb.core.arguments import hinted
from kinesis_nb.errors import ConfigError, warn

_AGO = re.compile(r"-(\d+(?:\.\d+)?)(s|m|h|d)")
_LONGEST_AGO = 1e6  # of any unit: long before there was Kinesis
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Kind(StrEnum):
    """The ``ShardIteratorType`` values that we use, by the names of the service."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"
    AT_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"
    AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"


@dataclass(frozen=True, slots=True)
class StartingPosition:
    """A place in a stream; make one with the named constructors.

    Examples
    --------
    >>> StartingPosition.trim_horizon()
    StartingPosition.trim_horizon()
    >>> StartingPosition.at(datetime(2026, 11, 1, 12, tzinfo=UTC))
    StartingPosition.at('2026-11-01T12:00:00+00:00')
    """

    kind: Kind
    timestamp: datetime | None = None
    sequence_number: str | None = None
    seen: datetime | None = None
    arrived: datetime | None = None

    @classmethod
    def trim_horizon(cls) -> StartingPosition:
        """Return the oldest record that the stream still holds (AWS: ``TRIM_HORIZON``)."""
        return cls(Kind.TRIM_HORIZON)

    @classmethod
    @hinted
    def latest(cls, pinned: datetime | None = None) -> StartingPosition:
        """Return the place just after the newest record (AWS: ``LATEST``).

        Parameters
        ----------
        pinned
            The time that "latest" meant. A shard iterator that is lost before the first record came is re-created
            again at this time, because a second LATEST would skip what arrived in between.
        """
        return cls(Kind.LATEST, timestamp=pinned)

    @classmethod
    @hinted
    def at(cls, timestamp: datetime) -> StartingPosition:
        """Return the first record that arrived at `timestamp` or later (AWS: ``AT_TIMESTAMP``, millisecond resolution).

        A datetime without a time zone is taken as local time.
        """
        try:
            # pandas' own kind has no local time; what is said twice on the last night of summer time has a fold
            exact = datetime.fromisoformat(timestamp.isoformat()).replace(fold=timestamp.fold)
            moment = exact.astimezone(UTC)
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise ConfigError(f"{timestamp!r} is not a time in a stream", hint="give a datetime") from None
        if exact.tzinfo is None:
            warn(f"{exact} has no time zone and is taken as local time: {moment:%Y-%m-%d %H:%M:%S} UTC")
        return cls(Kind.AT_TIMESTAMP, timestamp=moment)

    @classmethod
    @hinted
    def after(
        cls, sequence_number: str, seen: datetime | None = None, arrived: datetime | None = None
    ) -> StartingPosition:
        """Return the place just after one record of one shard (AWS: ``AFTER_SEQUENCE_NUMBER``).

        Parameters
        ----------
        seen
            When everything up to then is known to have been read: so a shard that was silent for longer than the
            stream's retention can be distinguished from one whose records were lost.
        arrived
            When that record arrived, if that is known: it says whether the stream must still have it.
        """
        if not sequence_number.isdecimal():
            raise ConfigError(
                f"{sequence_number!r} is not a sequence number", hint="a sequence number is a string of decimal digits"
            )
        return cls(Kind.AFTER_SEQUENCE_NUMBER, sequence_number=sequence_number, seen=seen, arrived=arrived)

    @classmethod
    @hinted
    def parse(cls, value: StartingPosition | str | datetime | timedelta, now: datetime) -> StartingPosition:
        """Parse what a user may write for a start or an end.

        Parameters
        ----------
        value
            ``"trim_horizon"``, ``"latest"``, ``"now"``, a datetime (without time zone: local time), a timedelta
            before `now`, a text like ``"-15m"`` (s, m, h, d) or ``"2026-11-01T12:00Z"``, or a StartingPosition.
        now
            The time that ``"now"``, ``"-15m"`` and a timedelta are counted from.

        Raises
        ------
        ConfigError
            For anything else.

        Examples
        --------
        >>> StartingPosition.parse("-15m", datetime(2026, 11, 1, 12, tzinfo=UTC))
        StartingPosition.at('2026-11-01T11:45:00+00:00')
        """
        match value:
            case StartingPosition(kind=Kind.LATEST, timestamp=None):
                return cls.latest(pinned=now)
            case StartingPosition():
                return value
            case datetime():
                return cls.at(value)
            case timedelta():
                return cls._ago(value, now)
            case str():
                return cls._read(value.strip().lower(), now)
            case _:
                raise _not_a_position(value)

    @classmethod
    def _read(cls, text: str, now: datetime) -> StartingPosition:
        match text:
            case "trim_horizon":
                return cls.trim_horizon()
            case "latest":
                return cls.latest(pinned=now)
            case "now":
                return cls.at(now)
            case _ if match := _AGO.fullmatch(text):
                return cls._ago(timedelta(**{_UNITS[match[2]]: min(float(match[1]), _LONGEST_AGO)}), now)
            case _ if _ISO.match(text):
                return cls._iso(text)
            case _:
                raise _not_a_position(text)

    @classmethod
    def _ago(cls, ago: timedelta, now: datetime) -> StartingPosition:
        try:
            return cls.at(now - abs(ago))
        except OverflowError:
            raise _not_a_position(ago) from None

    @classmethod
    def _iso(cls, text: str) -> StartingPosition:
        try:
            return cls.at(datetime.fromisoformat(text.upper()))
        except ValueError:
            raise _not_a_position(text) from None

    def __repr__(self) -> str:
        match self.kind:
            case Kind.AT_TIMESTAMP if self.timestamp:
                return f"StartingPosition.at({self.timestamp.isoformat()!r})"
            case Kind.AFTER_SEQUENCE_NUMBER:
                return f"StartingPosition.after({self.sequence_number!r})"
            case _:
                return f"StartingPosition.{self.kind.lower()}()"


def moment(given: StartingPosition | str | datetime | timedelta) -> StartingPosition | str | datetime | timedelta:
    """Convert a time to a position, so that a warning is given once; return anything else as it is."""
    if isinstance(given, datetime) or (isinstance(given, str) and _ISO.match(given.strip())):
        return StartingPosition.parse(given, datetime.now(UTC))
    return given


def _not_a_position(value: object) -> ConfigError:
    if isinstance(value, str) and _AGO.fullmatch(f"-{value}"):
        return ConfigError(f"{value!r} is not a position in a stream", hint=f'did you mean "-{value}"?')
    return ConfigError(
        f"{value!r} is not a position in a stream",
        hint='use "trim_horizon", "latest", "now", a datetime, an ISO time, "-15m" (s, m, h, d) or a timedelta',
    )


def check_end(start: StartingPosition, end: StartingPosition, now: datetime | None = None) -> datetime:
    """Return the time at which a read ends, in whole milliseconds: the service rounds arrival times to those.

    Parameters
    ----------
    now
        The time that both were counted from; an end that equals it was given by nobody, and is not blamed.

    Raises
    ------
    ConfigError
        When the end is not a time, or is before the start.
    """
    if end.kind is not Kind.AT_TIMESTAMP or end.timestamp is None:
        raise ConfigError(f"a read cannot end at {end!r}", hint='use "now", a datetime or a text like "-5m"')
    if start.timestamp is not None and start.timestamp > end.timestamp:
        if now is not None and end.timestamp == now:
            raise ConfigError(
                f"the start {start.timestamp.astimezone(UTC)} is in the future: it is {now.astimezone(UTC)}",
                hint='give an earlier one; "latest" follows a stream from now on, with tail() or sync()',
            )
        raise ConfigError(
            f"the start {start.timestamp.astimezone(UTC)} is after the end {end.timestamp.astimezone(UTC)}",
            hint="swap them, or leave end out to read up to now",
        )
    return end.timestamp + timedelta(microseconds=-end.timestamp.microsecond % 1000)
