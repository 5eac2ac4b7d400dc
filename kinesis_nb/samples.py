"""Sample streams on an embedded Kinesis: :func:`demo` needs no account and no network."""

from __future__ import annotations

import atexit
import functools
import json
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.credentials import StaticCredentials
from kinesis_nb.core.arguments import hinted
from kinesis_nb.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.emulator import Emulator

_CUSTOMERS = ("Ada", "Alan", "Barbara", "Claude", "Edsger", "Frances", "Grace", "John", "Katherine", "Linus")
_ITEMS = (("tea", 4.5), ("coffee", 3.2), ("bread", 2.8), ("cheese", 6.4), ("apples", 1.9))
_PAGES = ("/", "/search", "/cart", "/help", "/checkout")


@hinted
@functools.cache
def demo() -> Source:
    """Return a source on an embedded Kinesis with sample streams; the same one whenever you call it.

    ``orders`` holds 1,000 orders and rests. ``clicks`` is written all the time, 200 records a second, and resharded
    every few seconds. ``results`` is empty, for exports. Everything lives in this process and ends with it.

    Examples
    --------
    >>> demo().read("orders", progress=False)
    <Records: 1,000 rows>
    """
    from kinesis_nb.emulator import Emulator

    emulator = Emulator().start()
    atexit.register(emulator.stop)
    streams = SampleStreams(emulator)
    atexit.register(streams.stop)
    streams.start()
    return streams.source()


class SampleStreams:
    """Fills an emulator with sample streams and keeps one of them moving.

    Parameters
    ----------
    reshard_seconds
        How long ``clicks`` keeps its shards before it is split or merged.
    """

    def __init__(self, emulator: Emulator, *, reshard_seconds: float = 3.0) -> None:
        self._call: Callable[..., dict[str, Any]] = emulator.model.call
        self._url = emulator.endpoint_url
        self._reshard_seconds = reshard_seconds
        self._random = random.Random(1)  # noqa: S311 - samples are to be the same every time
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write_clicks, name="kinesis_nb samples", daemon=True)
        self.written: Counter[str] = Counter()  # clicks by partition key
        self.reshards = 0
        for name, shards in (("orders", 2), ("clicks", 2), ("results", 2)):
            self._call("CreateStream", {"StreamName": name, "ShardCount": shards})
        self._put("orders", [self._order(number) for number in range(1, 1_001)])

    def source(self) -> Source:
        """Return a source on these streams that may export."""
        keys = StaticCredentials("emulator", "emulator")
        return Source(SourceConfig(auth=keys, exports_enabled=True, endpoint_url=self._url))

    def arn(self, stream: str) -> str:
        """Return the ARN of a stream, as an export wants it."""
        arn: str = self._call("DescribeStreamSummary", {"StreamName": stream})["StreamDescriptionSummary"]["StreamARN"]
        return arn

    def start(self) -> None:
        """Let ``clicks`` be written from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write_clicks(self) -> None:
        ticks = 0
        while not self._stopping.wait(0.05):
            self._put("clicks", [self._click() for _ in range(10)])
            ticks += 1
            if ticks % max(1, round(self._reshard_seconds / 0.05)) == 0:
                self._reshard()

    def _put(self, stream: str, records: list[tuple[str, dict[str, object]]]) -> None:
        for first in range(0, len(records), 500):
            entries = [
                {"PartitionKey": key, "Data": json.dumps(row).encode()} for key, row in records[first : first + 500]
            ]
            self._call("PutRecords", {"StreamName": stream, "Records": entries})

    def _order(self, number: int) -> tuple[str, dict[str, object]]:
        customer, (item, price) = self._random.choice(_CUSTOMERS), self._random.choice(_ITEMS)
        count = self._random.randint(1, 5)
        return customer, {
            "order": number,
            "customer": customer,
            "item": item,
            "count": count,
            "total": round(count * price, 2),
        }

    def _click(self) -> tuple[str, dict[str, object]]:
        user = f"user-{self._random.randint(1, 40)}"
        self.written[user] += 1
        return user, {"user": user, "page": self._random.choice(_PAGES), "n": self.written[user]}

    def _reshard(self) -> None:
        """Split the first shard while there are few, else merge the first two neighbours."""
        shards = self._call("ListShards", {"StreamName": "clicks", "ShardFilter": {"Type": "AT_LATEST"}})["Shards"]
        shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        first = shards[0]["HashKeyRange"]
        if len(shards) < 4:  # noqa: PLR2004 - enough to see something
            middle = (int(first["StartingHashKey"]) + int(first["EndingHashKey"])) // 2
            halves = {"ShardToSplit": shards[0]["ShardId"], "NewStartingHashKey": str(middle)}
            self._call("SplitShard", {"StreamName": "clicks", **halves})
        else:
            pair = {"ShardToMerge": shards[0]["ShardId"], "AdjacentShardToMerge": shards[1]["ShardId"]}
            self._call("MergeShards", {"StreamName": "clicks", **pair})
        self.reshards += 1
