"""Where the records of all shards go: what a tail, a bounded read and a sync have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from kinesis_nb.core.frames import Batch
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.shards import Shard


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that may be lost: the stream dropped them before they were read.

    Attributes
    ----------
    reason
        ``"trimmed"`` when the retention ended before the reader came, ``"shard expired"`` when the shard is gone too.
    after
        The sequence number of the last record before the gap; None when there was none.
    seen
        Everything that arrived up to this time was read.
    first, until
        Sequence number and arrival of the first record behind the gap; None when the shard holds none.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> with kn.demo().tail("clicks") as tail:
    ...     rows = tail.take(10, timeout=10)
    >>> tail.stats().gaps    # one Gap for each shard that lost some
    ()
    """

    shard_id: str
    reason: str
    after: str | None
    seen: datetime | None
    first: str | None = None
    until: datetime | None = None

    def __str__(self) -> str:
        seen = f"{self.seen:%Y-%m-%d %H:%M:%S} UTC" if self.seen else "the start"
        until = f"{self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "its end"
        return f"{self.shard_id}: records from {seen} to {until} may be lost ({self.reason})"


class Sink(Protocol):
    """Receives what the consumers read. Every method is called by the thread of the shard it is about."""

    def position(self, shard: Shard) -> StartingPosition | None:
        """Return where reading of `shard` starts; None when everything in it was read before."""
        ...

    def deliver(self, shard: Shard, batch: Batch) -> bool:
        """Take a response or a part of one, empty too; block while there is no room. False: the shard has given enough.

        The consumer moves on only after this returned; if it raises, the batch counts as not delivered.
        """
        ...

    def lost(self, gap: Gap) -> None:
        """Record a gap, before the first batch behind it; raise to stop.

        It may be called again for the same gap when what follows it could not be delivered.
        """
        ...

    def finish(self, shard: Shard, children: tuple[Shard, ...]) -> None:
        """Record that everything in a closed shard was delivered; its children start after this returned."""
        ...
