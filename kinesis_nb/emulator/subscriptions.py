"""SubscribeToShard: records pushed to a registered consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

from .consumers import find_consumer
from .errors import dry_run, in_use
from .reading import MAX_RECORDS, millis_behind, starting_position
from .shards import Record, Shard, describe_child

if TYPE_CHECKING:
    from .consumer import Consumer, Session
    from .protocol import Params
    from .regions import Region
    from .streams import Stream

SESSION_MS = 300_000  # AWS: a subscription lasts up to 5 minutes
_RESUBSCRIBE_MS = 5_000  # AWS: not again within 5 seconds of a successful call
_HEARTBEAT_MS = 5_000  # how often an idle shard tells its progress
_EVENT_BYTES = 2**20
_EVENTS_PER_POLL = 8


class ShardEvent(TypedDict):
    """A SubscribeToShardEvent."""

    Records: list[Record]
    MillisBehindLatest: int
    ContinuationSequenceNumber: NotRequired[str]  # of all but the last event
    ChildShards: NotRequired[list[dict[str, object]]]  # of the last one


class Subscription:
    """One session of one consumer on one shard.

    Read it with `poll` until `closed`; after that no event comes any more.
    """

    def __init__(self, region: Region, stream: Stream, consumer: Consumer, shard: Shard, position: int) -> None:
        self._region = region
        self._stream = stream
        self._consumer = consumer
        self._shard = shard
        self._position = position
        self._closed = False
        self.started_ms = self._told_ms = region.now_ms

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Subscription {self._consumer.name} to {self._shard.id} {state}>"

    @property
    def closed(self) -> bool:
        """Whether it is over: after 5 minutes, at the shard's end, or because something it needs is gone."""
        with self._region.account.lock:
            self._settle()
            return self._closed

    def close(self) -> None:
        """End the session: the client went away, or the service ends it."""
        self._closed = True

    def poll(self) -> list[ShardEvent]:
        """Return the SubscribeToShardEvents that are ready now.

        Returns
        -------
        list
            A few events with up to 1 MiB of records each, oldest first; empty when there is nothing to tell. An event
            without ContinuationSequenceNumber but with ChildShards is the shard's end. The records are the stored
            ones: they must not be changed.
        """
        with self._region.account.lock:
            self._settle()
            events: list[ShardEvent] = []
            while not self._closed and len(events) < _EVENTS_PER_POLL:
                event = self._next_event()
                if event is None:
                    break
                events.append(event)
            return events

    def _settle(self) -> None:
        region, stream = self._region, self._stream
        exists = region.get(stream.name) is stream and stream.status != "DELETING"
        if not exists or not stream.is_listed(self._shard, region.now_ms):
            self._closed = True
        if region.now_ms - self.started_ms >= SESSION_MS:
            self._closed = True

    def _next_event(self) -> ShardEvent | None:
        shard, now_ms = self._shard, self._region.now_ms
        self._stream.trim_shard(shard, now_ms)
        records, self._position = shard.read(self._position, MAX_RECORDS, _EVENT_BYTES)
        if self._position == shard.total and not shard.is_open:
            return self._last_event(records)
        if not records and now_ms - self._told_ms < _HEARTBEAT_MS:
            return None
        self._told_ms = now_ms
        last = records[-1]["SequenceNumber"] if records else shard.sequence_number(self._position, now_ms)
        behind = millis_behind(shard, records, self._position, now_ms)
        return {"Records": records, "ContinuationSequenceNumber": last, "MillisBehindLatest": behind}

    def _last_event(self, records: list[Record]) -> ShardEvent:
        self._closed = True
        children = [describe_child(child) for child in self._stream.children(self._shard)]
        return {"Records": records, "MillisBehindLatest": 0, "ChildShards": children}


def subscribe(region: Region, params: Params) -> Subscription:
    """Answer SubscribeToShard; a later call for the same shard takes the subscription over."""
    stream, consumer = find_consumer(region, params)
    shard = region.readable_shard(stream, params["ShardId"])
    position = starting_position(region, stream, shard, params["StartingPosition"])
    _require_active(region, stream, consumer)
    if params.get("DryRun"):
        raise dry_run()
    _end_earlier(region, stream, consumer, shard)
    subscription = Subscription(region, stream, consumer, shard, position)
    consumer.subscriptions[shard.id] = subscription
    return subscription


def _end_earlier(region: Region, stream: Stream, consumer: Consumer, shard: Shard) -> None:
    earlier = consumer.subscriptions.get(shard.id)
    if earlier is not None:
        _require_pause(region, stream, consumer, shard, earlier)
        earlier.close()


def _require_active(region: Region, stream: Stream, consumer: Consumer) -> None:
    if consumer.status(region.now_ms) != "ACTIVE":
        raise in_use(
            f"Consumer {consumer.name} with creation timestamp {consumer.created_ms // 1000} under stream: "
            f"{stream.name} , account {region.account.id} is not in ACTIVE status."
        )


def _require_pause(region: Region, stream: Stream, consumer: Consumer, shard: Shard, earlier: Session) -> None:
    if region.now_ms - earlier.started_ms < _RESUBSCRIBE_MS:
        raise in_use(
            "Another active subscription exists for this consumer: "
            f"{region.account.id}:{stream.name}:{shard.id}:{consumer.name}"
        )
