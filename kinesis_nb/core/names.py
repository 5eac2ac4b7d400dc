"""How a region and a stream are called: what AWS accepts as the name of a stream, and as its ARN."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.errors import ConfigError

_DIRECTIONS = ("northeast", "northwest", "southeast", "southwest", "north", "south", "east", "west", "central")
# the part for the country is open, because AWS opens new ones; the directions have been these from the first region on
_REGION = re.compile(rf"[a-z]{{2,4}}(-[a-z]+){{0,2}}-({'|'.join(_DIRECTIONS)})-\d{{1,2}}")
_MEANT_REGION = re.compile(
    r"([a-z]{2,4}(?:-[a-z]+){0,2}?)-([a-z]+)-?(\d{1,2})[a-z]?"
)  # eu-cntral-1, eu-central1, and a zone
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,128}")  # AWS: StreamName
_STREAM_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kinesis:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):stream/(?P<stream>[a-zA-Z0-9_.-]{1,128})",
    re.ASCII,
)


def check_region(region: object, place: str = "") -> str:
    """Return the name of a region as it is, or raise ConfigError when no region can have it.

    Parameters
    ----------
    place
        Where the name is from, such as ``"AWS_REGION"``.
    """
    if isinstance(region, str) and is_region(region):
        return region
    hint = _meant_region(region) or 'regions look like "us-east-1" or "eu-central-1"'
    msg = f"{f'{place}: ' if place else ''}{region!r} is not the name of a region"
    raise ConfigError(msg, hint=hint)


def is_region(text: str) -> bool:
    """Return whether a region can have this name."""
    return _REGION.fullmatch(text) is not None


def _meant_region(given: object) -> str:
    """Return ``"did you mean 'eu-central-1'?"`` for what is nearly the name of a region, else an empty string."""
    found = _MEANT_REGION.fullmatch(given.strip().lower().replace("_", "-")) if isinstance(given, str) else None
    nearest = difflib.get_close_matches(found[2], _DIRECTIONS, n=1) if found else []
    return f"did you mean '{found[1]}-{nearest[0]}-{found[3]}'?" if found and nearest else ""


def check_stream_name(stream: object) -> str:
    """Return the name of a stream as it is, or raise ConfigError when no stream can have it.

    ``..`` is refused although AWS would allow it: in practice it is a path that slipped in.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream) or ".." in stream:
        raise ConfigError(
            f"{stream!r} is not the name of a stream", hint="1 to 128 letters, digits, '_', '.' and '-', without '..'"
        )
    return stream


def check_partition_key(key: object) -> None:
    """Raise ConfigError for anything but a partition key that a record can have."""
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS:
        raise ConfigError(
            f"no record has the partition key {key!r:.40}", hint=f"keys are text of 1 to {KEY_CHARACTERS} characters"
        )


@dataclass(frozen=True, slots=True)
class StreamArn:
    """The parts of a stream's ARN that count."""

    partition: str
    region: str
    account: str
    stream: str

    @classmethod
    def parse(cls, arn: object, region: str) -> StreamArn:
        """Parse an ARN; raise ConfigError when it is not valid, or names another region than the source's."""
        match = _STREAM_ARN.fullmatch(str(arn))
        if match is None:
            raise _not_an_arn(arn)
        found = cls(**match.groupdict())
        if found.region != region:
            raise ConfigError(
                f"stream {found.stream!r} is in {found.region}, the source in {region}",
                hint=f'connect a source with region="{found.region}" for it',
            )
        return found

    def __str__(self) -> str:
        return f"arn:{self.partition}:kinesis:{self.region}:{self.account}:stream/{self.stream}"


def _not_an_arn(given: object) -> ConfigError:
    looks = "it looks like arn:aws:kinesis:us-east-1:123456789012:stream/orders"
    is_name = isinstance(given, str) and _STREAM.fullmatch(given)
    hint = f'explore("{given}").summary.arn of the source is its ARN' if is_name else looks
    return ConfigError(f"{given!r} is not the ARN of a stream", hint=hint)
