"""async-kinesis: its Consumer, records as text, only counted. It sleeps 0.2 s between polls, whatever one sets."""

from __future__ import annotations

import asyncio

import measure
from kinesis import Consumer
from kinesis.processors import StringProcessor


def connect(endpoint: str) -> measure.Read:
    """Return what counts the records that the consumer yields."""
    return lambda stream, records: asyncio.run(count(endpoint, stream, records))


async def count(endpoint: str, stream: str, records: int) -> int:
    seen = 0
    async with Consumer(
        stream,
        endpoint_url=endpoint,
        region_name=measure.REGION,
        processor=StringProcessor(),
        shard_fetch_rate=1_000,  # default: 1 a second
        sleep_time_no_records=0.01,  # default: 2 s
        idle_timeout=60,  # default: 2 s, which ends the iteration while the first pages of many shards are decoded
    ) as consumer:
        async for _ in consumer:
            seen += 1
            if seen == records:
                break
    return seen


if __name__ == "__main__":
    measure.main(connect)
