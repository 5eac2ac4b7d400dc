"""What a reader of one shard has to do next, as a table. Pure: no clock, no I/O.

A response without a next iterator does not prove that a shard has ended: the same response has to name its children, or
a listing has to show the shard closed. So the end is confirmed before the children may be read.
"""

from __future__ import annotations

from enum import StrEnum


class ShardPhase(StrEnum):
    """What the next step of a consumer does; after one of the last three there is no next step."""

    READ = "read the next records"
    CONFIRM_END = "confirm that the shard has ended"
    FIND_SHARD = "find out why the service does not know the shard"
    FIND_ENDED_SHARD = "find out why the service does not know the shard whose end was being confirmed"
    ENDED = "everything in the shard was delivered, or nothing in it is wanted"
    GAVE_ENOUGH = "the sink wants no more of the shard, whatever it still holds"
    EXPIRED = "the stream has dropped the shard"

    @property
    def is_over(self) -> bool:
        """Whether the consumer has nothing left to do."""
        return self in _OVER


class ShardEvent(StrEnum):
    """What a step found out."""

    NOT_WANTED = "the sink has everything of the shard already"
    MORE_FOLLOWS = "a response has a next iterator"
    NO_ITERATOR = "a response has no next iterator"
    ENOUGH = "the sink wants no more"
    END_UNPROVEN = "a listing does not prove the end, so the shard is read on"
    END_PROVEN = "children or a listing prove the end, and the sink has finished the shard"
    NOT_FOUND = "the service does not know the shard, or its stream"
    LISTED = "a listing has the shard nevertheless"
    UNLISTED = "a listing lacks the shard, and the sink has finished it"


_OVER = frozenset({ShardPhase.ENDED, ShardPhase.GAVE_ENOUGH, ShardPhase.EXPIRED})

TRANSITIONS: dict[tuple[ShardPhase, ShardEvent], ShardPhase] = {
    (ShardPhase.READ, ShardEvent.NOT_WANTED): ShardPhase.ENDED,
    (ShardPhase.READ, ShardEvent.MORE_FOLLOWS): ShardPhase.READ,
    (ShardPhase.READ, ShardEvent.NO_ITERATOR): ShardPhase.CONFIRM_END,
    (ShardPhase.READ, ShardEvent.ENOUGH): ShardPhase.GAVE_ENOUGH,
    (ShardPhase.READ, ShardEvent.NOT_FOUND): ShardPhase.FIND_SHARD,
    # with the response that also has no next iterator; the sink need not see the end of what it does not want
    (ShardPhase.CONFIRM_END, ShardEvent.ENOUGH): ShardPhase.GAVE_ENOUGH,
    (ShardPhase.CONFIRM_END, ShardEvent.END_UNPROVEN): ShardPhase.READ,
    (ShardPhase.CONFIRM_END, ShardEvent.END_PROVEN): ShardPhase.ENDED,
    (ShardPhase.CONFIRM_END, ShardEvent.NOT_FOUND): ShardPhase.FIND_ENDED_SHARD,
    # a shard that is listed after all continues where it was; when the listing fails with NOT_FOUND too, reading ends
    (ShardPhase.FIND_SHARD, ShardEvent.LISTED): ShardPhase.READ,
    (ShardPhase.FIND_SHARD, ShardEvent.UNLISTED): ShardPhase.EXPIRED,
    (ShardPhase.FIND_ENDED_SHARD, ShardEvent.LISTED): ShardPhase.CONFIRM_END,
    (ShardPhase.FIND_ENDED_SHARD, ShardEvent.UNLISTED): ShardPhase.EXPIRED,
}
"""Every transition there is; any other pair is a defect of the consumer."""


def after(phase: ShardPhase, event: ShardEvent) -> ShardPhase:
    """Return the phase that follows; raises a KeyError for an event that cannot happen in a phase."""
    return TRANSITIONS[phase, event]
