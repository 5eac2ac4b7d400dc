"""Whether records are in a stream although the response that would have said so was lost.

Only for records that are unique in the stream, such as numbered aggregates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.core.shards import hash_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from kinesis_nb.core.shards import Shard

MOST_PAGES = 100  # of one shard: the search may not become a read of the stream


class Page(NamedTuple):
    """What one GetRecords response holds, as it is in the stream."""

    data: list[bytes]
    next_iterator: str | None
    is_tip: bool


class PageReader(Protocol):
    """The calls of a search."""

    def list_shards(self, stream: str) -> list[Shard]:
        """Return all shards of a stream."""
        ...

    def get_shard_iterator(self, stream: str, shard_id: str, position: StartingPosition) -> str:
        """Return a shard iterator."""
        ...

    def get_page(self, stream: str, iterator: str) -> Page:
        """Return the next records of a shard."""
        ...


class _Sent(msgspec.Struct):
    Data: bytes
    PartitionKey: str


def find(reader: PageReader, stream: str, records: Sequence[bytes], since: datetime) -> list[str | None]:
    """Return the shard that each record is in; None for one that is not in the stream.

    Parameters
    ----------
    records
        As they stood in the request.
    since
        By the service's clock, a time before the request.
    """
    sent = [msgspec.json.decode(record, type=_Sent) for record in records]
    keys = [hash_key(record.PartitionKey) for record in sent]
    found: dict[bytes, str] = {}
    for shard in reader.list_shards(stream):
        first, last = shard.hash_range
        wanted = {
            record.Data
            for record, key in zip(sent, keys, strict=True)
            if first <= key <= last and record.Data not in found
        }
        for page in _pages(reader, stream, shard, since) if wanted else ():
            found |= dict.fromkeys(wanted.intersection(page), shard.shard_id)
            wanted.difference_update(found)
            if not wanted:
                break
    return [found.get(record.Data) for record in sent]


def _pages(reader: PageReader, stream: str, shard: Shard, since: datetime) -> Iterator[list[bytes]]:
    iterator: str | None = reader.get_shard_iterator(stream, shard.shard_id, StartingPosition.at(since))
    for _ in range(MOST_PAGES):
        if iterator is None:
            return
        page = reader.get_page(stream, iterator)
        yield page.data
        if page.is_tip:
            return
        iterator = page.next_iterator
