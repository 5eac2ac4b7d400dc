"""Registered consumers: enhanced fan-out without its subscriptions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .consumer import Consumer
from .errors import in_use, invalid, limit_exceeded, not_found
from .regions import Region, Reply, require_alone
from .tags import set_tags
from .tokens import Page, open_page, seal_page

if TYPE_CHECKING:
    from .protocol import Params
    from .streams import Stream

_PER_STREAM = 20  # AWS: consumers of a provisioned or on-demand standard stream
_CREATING_AT_ONCE = 5  # AWS: consumers in CREATING at the same time
_PER_PAGE = 100  # AWS: default and most of ListStreamConsumers
_CONSUMER_ARN = re.compile(r"(?P<stream>arn:.+:stream/[^/]+)/consumer/(?P<name>[^:]+):(?P<created>\d+)")


def register(region: Region, params: Params) -> Reply:
    """Answer RegisterStreamConsumer."""
    stream, name, now_ms = region.find(params), params["ConsumerName"], region.now_ms
    region.require_status(stream, "ACTIVE", "UPDATING")
    if name in stream.consumers:
        raise in_use(f"Consumer {name} under stream {stream.name} already exists for account {region.account.id}.")
    _require_room(stream, now_ms)
    consumer = Consumer(name, stream.arn, now_ms=now_ms, active_ms=region.due_ms)
    set_tags(consumer.tags, params.get("Tags") or {}, name, region.account.id)
    stream.consumers[name] = consumer
    return {"Consumer": consumer.describe(now_ms)}


def deregister(region: Region, params: Params) -> Reply:
    """Answer DeregisterStreamConsumer."""
    stream, consumer = find_consumer(region, params)
    consumer.delete(region.due_ms)
    stream.settle(region.now_ms)
    return {}


def describe_consumer(region: Region, params: Params) -> Reply:
    """Answer DescribeStreamConsumer."""
    stream, consumer = find_consumer(region, params)
    return {"ConsumerDescription": {**consumer.describe(region.now_ms), "StreamARN": stream.arn}}


def list_consumers(region: Region, params: Params) -> Reply:
    """Answer ListStreamConsumers."""
    stream, now_ms = region.find(params), region.now_ms
    region.check_created(stream, params.get("StreamCreationTimestamp"))
    after = _last_listed(region, stream, params)
    consumers = [stream.consumers[name] for name in sorted(stream.consumers) if name > after]
    shown = consumers[: min(params.get("MaxResults") or _PER_PAGE, _PER_PAGE)]
    reply: Reply = {"Consumers": [consumer.describe(now_ms) for consumer in shown]}
    if len(shown) < len(consumers):
        page = Page(now_ms, "consumers", stream.number, shown[-1].name)
        reply["NextToken"] = seal_page(region.account.sealer, page)
    return reply


def _last_listed(region: Region, stream: Stream, params: Params) -> str:
    token = params.get("NextToken")
    if token is None:
        return ""
    require_alone(params, "StreamCreationTimestamp")
    page = open_page(region.account.sealer, token, "consumers", region.now_ms)
    return page.after if page.stream == stream.number else ""


def find_consumer(region: Region, params: Params) -> tuple[Stream, Consumer]:
    """Return the consumer that a request names: by its ARN, or by stream and name, or by all of them."""
    stream_arn, name, arn = params.get("StreamARN"), params.get("ConsumerName"), params.get("ConsumerARN")
    if arn is not None:
        return _by_arn(region, arn, stream_arn, name)
    if stream_arn is None or name is None:
        raise invalid("Either ConsumerARN, or both StreamARN and ConsumerName should be provided.")
    stream = region.find({"StreamARN": stream_arn})
    return stream, _named(region, stream, name)


def _by_arn(region: Region, arn: str, stream_arn: str | None, name: str | None) -> tuple[Stream, Consumer]:
    match = _CONSUMER_ARN.fullmatch(arn)
    if match is None:
        raise invalid(f"ConsumerARN {arn} is invalid.")
    if stream_arn not in (None, match["stream"]) or name not in (None, match["name"]):
        raise invalid(f"StreamARN, ConsumerName and ConsumerARN {arn} do not refer to the same consumer.")
    stream = region.find({"StreamARN": match["stream"]})
    consumer = _named(region, stream, match["name"])
    if consumer.arn != arn:  # an earlier consumer of that name
        raise _consumer_not_found(region, match["name"])
    return stream, consumer


def _named(region: Region, stream: Stream, name: str) -> Consumer:
    consumer = stream.consumers.get(name)
    if consumer is None:
        raise _consumer_not_found(region, name)
    return consumer


def _consumer_not_found(region: Region, name: str) -> Exception:
    return not_found(f"Consumer {name}, account {region.account.id} not found.")


def _require_room(stream: Stream, now_ms: int) -> None:
    if len(stream.consumers) >= _PER_STREAM:
        raise limit_exceeded(f"Stream {stream.name} cannot have more than {_PER_STREAM} consumers.")
    creating = sum(consumer.status(now_ms) == "CREATING" for consumer in stream.consumers.values())
    if creating >= _CREATING_AT_ONCE:
        raise limit_exceeded(f"More than {_CREATING_AT_ONCE} consumers cannot be created at the same time.")
