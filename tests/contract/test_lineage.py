"""The promise everything else serves: a stream that is resharded while it is written is read whole and in order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from .kit import HASH_KEYS, Record, Server, Stream, deviates, parents

if TYPE_CHECKING:
    from collections.abc import Callable


KEYS = tuple(f"customer {number}" for number in range(12))
NEVER_ENDS = "closed shards never end: puts keep landing in the parent and its children stay empty"


class Writer:
    """Writes numbered records under a few keys, and remembers the order per key."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.written: dict[str, list[bytes]] = defaultdict(list)
        self.during_reshards = 0
        self._keys = itertools.cycle(KEYS)
        self._number = itertools.count()

    def write(self, count: int) -> None:
        """Put records one by one, each under the next key."""
        for key in itertools.islice(self._keys, count):
            data = str(next(self._number)).encode()
            self.stream.put(data, key)
            self.written[key].append(data)

    def write_during(self, reshard: Callable[[], object]) -> None:
        """Start a reshard, write for as long as the stream is UPDATING, and some more."""
        reshard()
        while self.stream.summary()["StreamStatus"] != "ACTIVE":
            self.write(1)
            self.during_reshards += 1
        self.write(len(KEYS))


def by_key(records: list[Record]) -> dict[str, list[bytes]]:
    """Return the data under each key in the order of reading."""
    read: dict[str, list[bytes]] = defaultdict(list)
    for record in records:
        read[record["PartitionKey"]].append(record["Data"])
    return read


@deviates("moto", NEVER_ENDS)
def test_a_stream_split_and_merged_while_written_is_read_whole(server: Server) -> None:
    """Parents before children, every record comes once and in order of its key, across splits and a merge."""
    stream = server.create(shards=2)
    writer = Writer(stream)
    writer.write(len(KEYS))

    cuts = (HASH_KEYS // 4, HASH_KEYS * 3 // 4)
    for cut, shard in zip(cuts, stream.open_shards(), strict=True):
        writer.write_during(partial(stream.start_split, shard["ShardId"], cut))
    _, left, right, _ = (shard["ShardId"] for shard in stream.open_shards())
    writer.write_during(partial(stream.start_merge, left, right))

    assert by_key(stream.read_everything()) == writer.written
    assert writer.during_reshards > 0
    assert len(stream.shards()) == 7
    assert parents(stream.shards()[-1]) == {left, right}


@deviates("kinesalite", "has no UpdateShardCount")
@deviates("moto", NEVER_ENDS)
def test_a_stream_rescaled_while_written_is_read_whole(server: Server) -> None:
    """The same across a split, a rescale up and a rescale down, whatever shards come in between."""
    stream = server.create(shards=2)
    writer = Writer(stream)
    writer.write(len(KEYS))

    writer.write_during(partial(stream.start_split, "shardId-000000000000", HASH_KEYS // 8))
    for count in (5, 3):
        writer.write_during(partial(stream.start_rescale, count))

    assert by_key(stream.read_everything()) == writer.written
    assert writer.during_reshards > 0
    assert len(stream.open_shards()) == 3


@deviates("moto", NEVER_ENDS)
def test_a_reader_who_follows_the_children_misses_nothing(server: Server) -> None:
    """A reader who is there all the time and goes on with the children gets what a later reader gets."""
    stream = server.create()
    first = "shardId-000000000000"
    answers = stream.answers(stream.iterator(first))
    live: list[Record] = []
    writer = Writer(stream)
    writer.write(len(KEYS))
    live += next(answers)["Records"]

    writer.write_during(partial(stream.start_split, first, HASH_KEYS // 2))
    for answer in answers:
        live += answer["Records"]
    for child in stream.children_of(first):
        live += stream.read_to_tip(child["ShardId"])

    assert by_key(live) == writer.written
    assert by_key(stream.read_everything()) == writer.written
