"""The event stream that SubscribeToShard answers in."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from .errors import AwsError
from .protocol import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from .protocol import EventSource

EVENT_STREAM = "application/vnd.amazon.eventstream"
POLL_SECONDS = 0.05  # how often a quiet subscription looks for new records

_STRING = 7  # the event-stream type number of a header that holds text


def frame(headers: dict[str, str], payload: bytes = b"{}") -> bytes:
    """Return one message: prelude, headers, payload and their two checksums.

    Examples
    --------
    >>> frame({":event-type": "initial-response"}).hex()[:16]
    '000000310000001f'
    """
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return message + struct.pack("!I", crc32(message))


def event(event_type: str, payload: bytes = b"{}") -> bytes:
    """Return the frame of one event."""
    return frame({":message-type": "event", ":event-type": event_type, ":content-type": JSON}, payload)


def exception(error: AwsError) -> bytes:
    """Return the frame that ends a stream with an API error."""
    payload = msgspec.json.encode({"message": error.message})
    return frame({":message-type": "exception", ":exception-type": error.code, ":content-type": JSON}, payload)


def subscription_frames(subscription: EventSource, pause: Callable[[float], bool]) -> Generator[bytes]:
    """Yield the frames of one subscription until it closes; closing the generator closes the subscription.

    Parameters
    ----------
    subscription
        Where the events come from.
    pause
        Waits that many seconds; returns False when there is nobody left to write to.
    """
    try:
        yield event("initial-response")
        yield from _events(subscription, pause)
    except AwsError as error:
        yield exception(error)
    finally:
        subscription.close()


def _events(subscription: EventSource, pause: Callable[[float], bool]) -> Generator[bytes]:
    while True:
        last = subscription.closed  # asked before poll(): what arrived just before the end is still delivered
        for body in subscription.poll():
            yield _shard_event(body)
        if last or not (subscription.closed or pause(POLL_SECONDS)):
            return


def _shard_event(body: Mapping[str, object]) -> bytes:
    return event("SubscribeToShardEvent", msgspec.json.encode(body))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(f"!B{len(key)}sBH", len(key), key, _STRING, len(text)) + text
