"""Arguments that have a few choices: each list stands here, and nowhere else.

A public call whose signature names one of these refuses any other value (:mod:`kinesis_nb.core.arguments`), so the code
behind it need not check again. Forms offer what ``typing.get_args`` gives of them.
"""

from __future__ import annotations

from typing import Literal

Foreign = Literal["auto", "keep", "drop"]
"""What becomes of user records whose hash keys belong to another shard.

``auto`` drops them only while the shard map of a KPL producer may be stale.
"""

Reshard = Literal["ordered", "relaxed"]
"""Whether a child shard is read after its parents, or all shards at once."""

OnFull = Literal["drop_oldest", "block"]
"""What happens to a batch that a buffer has no room for."""

OnDataLoss = Literal["fail", "warn"]
"""What a sync does when the stream did not keep records until they were read."""

RowOrder = Literal["per_key", "none"]
"""Whether an export keeps the order of the rows that share a partition key."""

OnBadKey = Literal["fail", "skip", "hash"]
"""What becomes of a row whose partition key is null, empty or too long."""

OnAmbiguous = Literal["resend", "stop"]
"""What an export does when it cannot know whether a record was written."""
