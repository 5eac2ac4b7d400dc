"""A sync that says how many rows it has reported, in a process of its own."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import deltalake  # noqa: F401 - imported before the fork
import polars as pl  # noqa: F401
import pyarrow.dataset  # noqa: F401

import kinesis_nb as kn
from kinesis_nb.reading import pace
from kinesis_nb.syncing import upkeep


class Orders(NamedTuple):
    """What to sync, and where to say what became of it."""

    endpoint_url: str
    stream: str
    table: str
    log: str
    commit_interval: float = 0.02
    maintenance_every: int = 5


def live(orders: Orders) -> None:
    """Sync until the end of this process, and append to the log how many rows are committed."""
    file = os.open(orders.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    upkeep.EVERY, upkeep.POLL_SECONDS, upkeep.VACUUM_EVERY = orders.maintenance_every, 0.05, 1
    pace.IDLE_SECONDS = pace.BEHIND_SECONDS = orders.commit_interval
    source = kn.connect(endpoint_url=orders.endpoint_url, auth=kn.StaticCredentials("emulator", "emulator"))
    try:
        sync = source.sync(orders.stream, orders.table, commit_interval=orders.commit_interval)
    except kn.errors.KinesisError as error:
        os.write(file, f"failed: {error.message}\n".encode())
        return
    said = -1
    while True:
        status = sync.status()
        if status.rows != said:
            said = status.rows
            os.write(file, f"{said} {status.commits}\n".encode())
        if status.state == "failed":
            os.write(file, f"failed: {status.error.splitlines()[0]}\n".encode())
            return
        time.sleep(0.001)
