"""One life of a sync, in a process of its own, forked from a server that has imported everything."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, NamedTuple

import deltalake  # noqa: F401 - imported before the fork
import polars as pl  # noqa: F401
import pyarrow.dataset  # noqa: F401

import kinesis_nb as kn
from kinesis_nb.reading import pace
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.syncing import committer, ownership, retries, upkeep
from kinesis_nb.table.table import SyncTable
from tests.crash import points
from tests.crash.faults import FailingDisk


class Orders(NamedTuple):
    """What a life is to do.

    Attributes
    ----------
    log
        A file that all lives append to: their events, with times of the one monotonic clock of this machine.
    point, countdown
        Where to be killed; an empty point for nowhere.
    fault_rate, may_fail
        Of the steps of a commit; and whether the storage may fail at all.
    retry_seconds, lease_seconds, look_seconds, maintenance_every
        Of the sync, short enough that much happens. A life that never looks finds out from the table alone that
        another one took over.
    """

    name: str
    endpoint_url: str
    stream: str
    table: str
    log: str
    storage_options: dict[str, str]
    point: str = ""
    countdown: int = 0
    fault_rate: float = 0.0
    may_fail: bool = False
    commit_interval: float = 0.02
    retry_seconds: float = 0.1
    lease_seconds: float = 1.0
    look_seconds: float = 0.1
    maintenance_every: int = 5


def live(orders: Orders) -> None:
    """Run the sync until something ends it."""
    file = os.open(orders.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(event: str) -> None:
        os.write(file, f"{time.monotonic():.4f} {orders.name} {event}\n".encode())

    upkeep.EVERY, upkeep.VACUUM_EVERY = orders.maintenance_every, 1
    upkeep.POLL_SECONDS = committer.CLAIM_POLL_SECONDS = orders.look_seconds
    pace.IDLE_SECONDS = pace.BEHIND_SECONDS = orders.commit_interval
    retries.RETRY_SECONDS = orders.retry_seconds
    ownership.LEASE_SECONDS = orders.lease_seconds
    _report(say)
    if orders.point:
        points.arm(orders.point, orders.countdown, say)
    if orders.fault_rate:
        FailingDisk(orders.fault_rate, seed=os.getpid(), say=say)
    keys = kn.StaticCredentials("emulator", "emulator")
    source = kn.connect(endpoint_url=orders.endpoint_url, auth=keys)
    say("begins")
    try:
        running = source.sync(
            orders.stream, orders.table, commit_interval=orders.commit_interval, storage_options=orders.storage_options
        )
        running.wait(until_caught_up=False)
    except kn.Fenced as error:
        say("fenced by the table" if "another writer" in error.message else "handed over")
    except kn.TableError as error:
        # storage that fails when the sync is begun is told to who began it; later it is tried again
        say("told that the place fails" if orders.may_fail else f"failed: {error.message}")
    except Exception as error:  # noqa: BLE001 - nothing that ends a life may go unseen
        say(f"failed {type(error).__name__}: {error}".replace("\n", " "))


def _report(say: Any) -> None:
    """Make the sync say what it did; from outside, a life that did nothing looks like one that did well."""
    commit, acquire, get_iterator = SyncTable.commit, SyncTable.acquire, KinesisClient.get_shard_iterator

    def reported_commit(self: SyncTable, file: Any, *what: Any) -> bool:
        done = commit(self, file, *what)
        if file is not None:
            say("committed" if done else "refused")
        return done

    def reported_acquire(self: SyncTable, shard_ids: Any) -> None:
        acquire(self, shard_ids)
        say("acquired")

    def reported_iterator(self: Any, stream: str, shard_id: str, position: Any) -> str:
        if position.sequence_number:
            say("resumed")
        return get_iterator(self, stream, shard_id, position)

    replaced: Any = SyncTable, KinesisClient  # whose methods are no variables
    replaced[0].commit, replaced[0].acquire = reported_commit, reported_acquire
    replaced[1].get_shard_iterator = reported_iterator


def main() -> None:
    """Run as ``python -m tests.crash.writer NAME URL STREAM TABLE LOG``: a start with all its imports."""
    name, endpoint_url, stream, table, log = sys.argv[1:6]
    live(Orders(name, endpoint_url, stream, table, log, {}))


if __name__ == "__main__":
    main()
