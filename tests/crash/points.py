"""Named places in a sync where a process may be killed: just before, or just after, one of its steps."""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.parquet as pq
from deltalake import DeltaTable

from kinesis_nb.reading.scheduler import Scheduler
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.syncing import lease
from kinesis_nb.syncing.committer import Committer
from kinesis_nb.syncing.intake import Intake
from kinesis_nb.syncing.ownership import Ownership
from kinesis_nb.syncing.upkeep import Maintenance
from kinesis_nb.table import storage, table

if TYPE_CHECKING:
    from collections.abc import Callable


class Step(NamedTuple):
    """A function of the sync, and which of its calls are meant."""

    owner: Any
    name: str
    applies: Callable[..., bool] = lambda *_args, **_kwargs: True


def _has_rows(_table: Any, files: Any, *_: Any) -> bool:
    return bool(files)


def _has_no_rows(_table: Any, files: Any, *_: Any) -> bool:
    return not files


STEPS = {
    "fetch": Step(KinesisClient, "get_records"),
    "iterator": Step(KinesisClient, "get_shard_iterator"),
    "delivery": Step(Intake, "deliver"),
    "Parquet write": Step(storage.Storage, "write_parquet"),
    "Parquet body": Step(pq, "write_table"),
    "fsync of a file": Step(os, "fsync"),
    "commit": Step(table.SyncTable, "_write", _has_rows),
    "fsync of the log": Step(storage.Storage, "make_durable"),
    "checkpoint read": Step(table.SyncTable, "checkpoints"),
    "claim": Step(table.SyncTable, "claim"),
    "takeover": Step(table.SyncTable, "acquire"),
    "takeover commit": Step(table.SyncTable, "_write", _has_no_rows),
    "lease": Step(lease, "take"),
    "listing": Step(KinesisClient, "list_shards"),
    "compaction": Step(Maintenance, "_compact"),
    "log checkpoint": Step(DeltaTable, "create_checkpoint"),
    "log cleanup": Step(DeltaTable, "cleanup_metadata"),
    "vacuum": Step(DeltaTable, "vacuum"),
    "reshard: end of a shard": Step(Intake, "finish"),
    "reshard: commit of the end": Step(Committer, "_commit", lambda _self, pending: bool(pending.ended)),
    "reshard: ownership of the children": Step(Ownership, "take_over", lambda self, _shards: bool(self._ledger.owned)),
    "reshard: start of the children": Step(Scheduler, "_finished"),
}
POINTS = [f"{when} {name}" for name in STEPS for when in ("before", "after")]
RARE = (
    "reshard",
    "vacuum",
    "log",
    "compaction",
    "takeover",
    "claim",
    "lease",
    "listing",
    "checkpoint",
)  # passed once or twice in a life


def arm(point: str, countdown: int, last_words: Callable[[str], None]) -> None:
    """Kill this process when `point` is passed for the `countdown`-th time."""
    when, _, name = point.partition(" ")
    step = STEPS[name]
    original = getattr(step.owner, step.name)
    left = [countdown]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            last_words(f"killed {point}")
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        is_meant = step.applies(*args, **kwargs)
        if is_meant and when == "before":
            die()
        result = original(*args, **kwargs)
        if is_meant and when == "after":
            die()
        return result

    setattr(step.owner, step.name, call)
