"""What happens to a process's objects in its forked child; ``python -m tests.support.forks NAME`` prints it as JSON.

A process of its own, because a fork takes the threads of whoever calls it into account.
"""

from __future__ import annotations

import importlib
import inspect
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kinesis_nb as kn
from kinesis_nb.emulator import Emulator

if TYPE_CHECKING:  # not at run time: they import polars, and start its threads
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from tests.conftest import Streams

CHILD_SECONDS = 40  # then it is killed, and has told up to where it came
SPECIAL: dict[str, Callable[[Any], object]] = {"__len__": len, "__iter__": iter, "__repr__": repr}
FREE = {
    "Emulator.endpoint_url",
    "Emulator.source",
    "Emulator.settings",
    "Emulator.__repr__",
}  # how a child reaches that of its parent
ARGUMENTS: dict[str, Callable[[Any], object]] = {  # where the process is not checked before them
    "Emulator.on": lambda emulator: emulator.on("PutRecord"),
    "Emulator.chaos": lambda emulator: emulator.chaos(seed=1, rate=0.1),
}


@contextmanager
def emulator() -> Iterator[Streams]:
    from tests.conftest import Streams

    with Emulator() as server:
        streams = Streams(server)
        streams.create(shards=2)
        streams.put(50)
        yield streams


def connected(url: str) -> kn.Source:
    keys = kn.StaticCredentials("emulator", "emulator")
    return kn.connect(endpoint_url=url, auth=keys, exports_enabled=True)


def in_child(uses: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Return what each of these did in a child: the name of its error, or what it returned."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(CHILD_SECONDS)
        for name, use in uses.items():
            os.write(writer, json.dumps({name: "hangs"}).encode() + b"\n")
            os.write(writer, json.dumps({name: outcome(use)}).encode() + b"\n")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        told: dict[str, str] = {}
        for line in lines:
            told |= json.loads(line)
    os.waitpid(child, 0)
    return told


def outcome(use: Callable[[], object]) -> str:
    try:
        return f"returned {use()!r}"
    except BaseException as error:  # noqa: BLE001 - of whatever kind, it is what happened
        return f"{type(error).__name__}: {error}"


def _called(thing: Any, name: str) -> object:
    return getattr(thing, name)()


def uses_of(thing: Any) -> dict[str, Callable[[], object]]:
    """Return every public call and property of an object, mostly without arguments: the process is checked first."""
    uses: dict[str, Callable[[], object]] = {}
    kind = type(thing)
    for name in sorted(vars(kind).keys() | {name for name in dir(kind) if not name.startswith("_")}):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") and not (name in SPECIAL and name in vars(kind)):
            continue
        if (full := f"{kind.__name__}.{name}") in ARGUMENTS:
            uses[full] = partial(ARGUMENTS[full], thing)
        elif name in SPECIAL:
            uses[f"{kind.__name__}.{name}"] = partial(SPECIAL[name], thing)
        elif isinstance(member, property):
            uses[f"{kind.__name__}.{name}"] = partial(getattr, thing, name)
        elif inspect.isfunction(member):
            uses[f"{kind.__name__}.{name}"] = partial(_called, thing, name)
    return {name: use for name, use in uses.items() if name not in FREE}


def everything() -> dict[str, Any]:
    """Use all that runs, while it runs; then see that the child wrote nothing."""
    from kinesis_nb.agents.cluster import Cluster
    from kinesis_nb.agents.job import Job
    from kinesis_nb.agents.protocol import JobInfo

    warnings.simplefilter("ignore")
    with emulator() as streams, tempfile.TemporaryDirectory() as folder:
        arn = streams.create("copy")
        source = connected(streams.emulator.endpoint_url)
        sync = source.sync("orders", Path(folder, "t"), commit_interval=0.05)
        sync.wait(20)
        export, tail = source.export_stream(sync, arn), source.tail("orders")
        assert isinstance(export, kn.StreamingExport)
        export.wait(20)
        cluster = Cluster("tcp://127.0.0.1:1")
        job = Job(cluster, "job", JobInfo("sync", "orders", folder))
        things = [source, sync, tail, export, export.journal, streams.emulator, cluster, job, source._kinesis]
        uses = {name: use for thing in things for name, use in uses_of(thing).items()}
        view = source.explore("orders")
        uses |= {"StreamView.sample": view.sample, "Catalog": source.explore, "spawned": lambda: "not in a child"}
        told = in_child(uses)
        streams.put(50)
        is_whole = sync.wait(20) and export.wait(20) and bool(sync.verify())
        tail.stop()
        export.stop()
        sync.stop()
        return {"told": told, "whole": is_whole, "sent": export.status().rows, "copies": copies(source)}


def copies(source: kn.Source) -> int:
    return len(source.read("copy", progress=False))


def own_after_polars() -> dict[str, Any]:
    """Let a child connect for itself where polars had its threads in the parent, and one that is spawned."""
    import polars as pl

    with emulator() as streams:
        url, arn = streams.emulator.endpoint_url, streams.create("copy")
        streams.create("large")
        streams.create("turns", shards=2)
        for _ in range(20):
            streams.put(500, "large")
        for _ in range(5):  # moments apart, so that the rows of the shards come by turns
            streams.put(10, "turns", keys=10)
        by_turns = connected(url).read("turns", progress=False)
        rows = connected(url).read("orders", progress=False)
        with connected(url).tail("orders", start="trim_horizon") as tail:
            taken = tail.take(50, timeout=10)
        uses: dict[str, Callable[[], object]] = {
            "read": lambda: len(connected(url).read("orders", progress=False)),
            "in order": lambda: of_source(connected(url).read("turns", progress=False)).equals(of_source(by_turns)),
            "large": lambda: len(connected(url).read("large", progress=False)),
            "where": lambda: connected(url).read("orders", where=pl.col("data") != "", progress=False),
            "export": lambda: connected(url).export_df({"a": ["x"]}, arn),
            "a tail's rows": taken.to_polars,
            "parse_json": lambda: kn.parse_json(taken),
            "len": lambda: len(rows),
            "rows": lambda: sum(1 for _ in rows),
            "to_arrow": lambda: rows.to_arrow().num_rows,
            "to_polars": lambda: rows.to_polars().height,
            "to_pandas": lambda: len(rows.to_pandas()),
            "html": lambda: "<table" in rows._repr_html_(),
        }
        told = in_child(uses)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            told["spawned"] = pool.apply(count, [url])
        return told


def of_source(rows: kn.Records) -> pa.Table:
    """Return the columns that two reads have in common."""
    return rows.to_arrow().drop_columns(["foundry_ingestion_timestamp"])


def count(url: str) -> str:
    return f"returned {len(connected(url).read('orders', progress=False))}"


def own_before_polars() -> dict[str, Any]:
    """Let a child connect for itself where all was imported, which starts no threads that it would miss."""
    for module in pkgutil.walk_packages(kn.__path__, "kinesis_nb."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    with Emulator() as server:
        server.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 2})
        records = [{"PartitionKey": f"k{number}", "Data": b"x"} for number in range(50)]
        server.model.call("PutRecords", {"StreamName": "orders", "Records": records})
        return in_child({"read": lambda: len(connected(server.endpoint_url).read("orders", progress=False))})


if __name__ == "__main__":
    found = {"everything": everything, "after": own_after_polars, "before": own_before_polars}[sys.argv[1]]()
    print(json.dumps(found))
