"""What all operations share: the account with its regions, and how a request names a stream."""

from __future__ import annotations

import re
import threading
from random import Random
from typing import TYPE_CHECKING

from .errors import in_use, invalid, shard_not_found, shard_unknown, stream_not_found
from .shards import Shard, shard_name
from .streams import Stream
from .tokens import Sealer

if TYPE_CHECKING:
    from .clock import Clock
    from .protocol import Params
    from .quotas import Quotas

Reply = dict[str, object]

_STREAM_ARN = re.compile(
    r"arn:(?P<partition>aws[^:]*):kinesis:(?P<region>[^:]*):(?P<account>\d{12}):stream/(?P<name>.+)"
)
_SHARD_ID = re.compile(r"(?:[^-]*-)?(\d{1,12})")


class Account:
    """Everything the emulator knows: one account with its regions."""

    def __init__(
        self, account: str, *, clock: Clock, seed: int, quotas: Quotas | None, transition_seconds: float
    ) -> None:
        self.id = account
        self.clock = clock
        self.quotas = quotas
        self.transition_ms = round(transition_seconds * 1000)
        self.random = Random(seed)  # noqa: S311 - repeatable, not secret
        self.sealer = Sealer(self.random)
        self.lock = threading.RLock()  # guards everything below, all streams, shards and subscriptions included
        self.streams_made = 0
        self._regions: dict[str, Region] = {}

    def region(self, name: str) -> Region:
        """Return a region, which comes into being when first asked for."""
        if name not in self._regions:
            self._regions[name] = Region(self, name)
        return self._regions[name]


class Region:
    """The streams of one region."""

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.name = name
        self.streams: dict[str, Stream] = {}
        self._by_number: dict[int, Stream] = {}

    @property
    def now_ms(self) -> int:
        """The clock in milliseconds: the resolution of all times in the API."""
        return max(0, round(self.account.clock.now() * 1000))

    @property
    def due_ms(self) -> int:
        """When a passing state that begins now will end."""
        return self.now_ms + self.account.transition_ms

    def add(self, name: str, mode: str) -> Stream:
        """Make a stream, without shards yet."""
        self.account.streams_made += 1
        arn = f"arn:aws:kinesis:{self.name}:{self.account.id}:stream/{name}"
        number, quotas = self.account.streams_made, self.account.quotas
        stream = Stream(name, arn, number=number, now_ms=self.now_ms, mode=mode, quotas=quotas)
        self.streams[name] = self._by_number[number] = stream
        return stream

    def all_streams(self) -> list[Stream]:
        """Return the streams that exist now, by name."""
        streams = [self.get(name) for name in sorted(self.streams)]
        return [stream for stream in streams if stream is not None]

    def get(self, name: str) -> Stream | None:
        """Return the stream as it is now, or None."""
        stream = self.streams.get(name)
        if stream is None:
            return None
        stream.settle(self.now_ms)
        if stream.status != "DELETED":
            return stream
        del self.streams[name], self._by_number[stream.number]
        return None

    def by_number(self, number: int) -> Stream | None:
        """Return the stream an iterator or a token was made for, if it still exists."""
        stream = self._by_number.get(number)
        return self.get(stream.name) if stream is not None else None

    def require(self, name: str) -> Stream:
        """Return the stream of this name; raise ResourceNotFoundException if there is none."""
        stream = self.get(name)
        if stream is None:
            raise stream_not_found(name, self.account.id)
        return stream

    def find(self, params: Params) -> Stream:
        """Return the stream that a request names by StreamName, StreamARN or both."""
        name, arn = params.get("StreamName"), params.get("StreamARN")
        if name is None and arn is None:
            raise invalid("Either StreamName or StreamARN should be provided.")
        if arn is None:
            return self.require(str(name))
        named = self.name_in_arn(arn)
        if name is not None and name != named:
            raise invalid(f"StreamName {name} and StreamARN {arn} do not refer to the same stream.")
        return self.require(named)

    def name_in_arn(self, arn: str) -> str:
        """Return the stream name of an ARN that belongs to this account and region."""
        match = _STREAM_ARN.fullmatch(arn)
        if match is None:
            raise invalid(f"StreamARN {arn} is invalid.")
        if (match["region"], match["account"]) != (self.name, self.account.id):
            raise stream_not_found(match["name"], match["account"])
        return match["name"]

    def active(self, params: Params) -> Stream:
        """Return the stream a request names, which must be ACTIVE."""
        stream = self.find(params)
        self.require_status(stream, "ACTIVE")
        return stream

    def require_status(self, stream: Stream, *allowed: str) -> None:
        """Raise ResourceInUseException unless the stream is in one of the states."""
        if stream.status not in allowed:
            raise in_use(
                f"Stream {stream.name} under account {self.account.id} not {' or '.join(allowed)}, "
                f"instead in state {stream.status}"
            )

    def check_created(self, stream: Stream, timestamp: float | None) -> None:
        """Raise ResourceNotFoundException if StreamCreationTimestamp means another stream of that name."""
        if timestamp is not None and abs(timestamp * 1000 - stream.created_ms) >= 1000:
            raise stream_not_found(stream.name, self.account.id)

    def update(self, stream: Stream) -> None:
        """Let the stream be UPDATING for a while, after a change of a setting."""
        stream.begin("UPDATING", self.due_ms, self.now_ms, lambda _: None)

    def readable_shard(self, stream: Stream, shard_id: str) -> Shard:
        """Return a shard to read from, trimmed; raise ResourceNotFoundException if it is not there (any more)."""
        shard = stream.shards.get(self.shard_id(stream, shard_id))
        now_ms = self.now_ms
        if shard is None or not stream.is_listed(shard, now_ms):
            raise shard_not_found(shard_id, stream.name, self.account.id)
        stream.trim_shard(shard, now_ms)
        return shard

    def shard_to_change(self, stream: Stream, shard_id: str) -> Shard:
        """Return a shard for a resharding call, which words its errors differently."""
        shard = stream.shards.get(self.shard_id(stream, shard_id))
        if shard is None or not stream.is_listed(shard, self.now_ms):
            raise shard_unknown(shard_id, stream.name, self.account.id)
        if not shard.is_open:
            raise invalid(
                f"Shard {shard.id} in stream {stream.name} under account {self.account.id} has already been "
                "merged or split, and thus is not eligible for merging or splitting."
            )
        return shard

    def shard_id(self, stream: Stream, text: str) -> str:
        """Return the full form of a shard id; the service also takes a bare number."""
        match = _SHARD_ID.fullmatch(text)
        if match is None:
            raise shard_unknown(text, stream.name, self.account.id)
        return shard_name(int(match[1]))


def require_alone(params: Params, *others: str) -> None:
    """Raise InvalidArgumentException if a NextToken comes with a parameter that it already stands for."""
    for name in others:
        if params.get(name) is not None:
            raise invalid(f"NextToken and {name} cannot be provided together.")
