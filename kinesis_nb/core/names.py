"""How a region and a stream are called: what AWS accepts as the name of a stream, and as its ARN."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kinesis_nb.core.limits import KEY_CHARACTERS
from kinesis_nb.errors import ConfigError

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,3}-\d{1,2}")
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,128}")  # AWS: StreamName
_STREAM_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kinesis:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):stream/(?P<stream>[a-zA-Z0-9_.-]{1,128})",
    re.ASCII,
)


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
            raise ConfigError(
                f"{arn!r} is not the ARN of a stream",
                hint="it looks like arn:aws:kinesis:us-east-1:123456789012:stream/orders",
            )
        found = cls(**match.groupdict())
        if found.region != region:
            raise ConfigError(
                f"stream {found.stream!r} is in {found.region}, the source in {region}",
                hint=f'connect a source with region="{found.region}" for it',
            )
        return found

    def __str__(self) -> str:
        return f"arn:{self.partition}:kinesis:{self.region}:{self.account}:stream/{self.stream}"
