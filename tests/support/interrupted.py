"""Calls that wait, in a process of their own that is to be interrupted: a script, a shell, or a kernel imports this.

Nothing of the engine is imported before the call is made: it is the first of its process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import kinesis_nb as kn

if TYPE_CHECKING:
    from collections.abc import Callable

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
LOOKS = 4  # in a row that find the main thread at the same place: it waits there
LOOK_SECONDS = 0.1


def _tail(source: kn.Source) -> None:
    for record in source.tail("orders"):
        print(record)


def _batches(source: kn.Source) -> None:
    for rows in source.tail("orders").batches():
        print(rows)


def _wait(source: kn.Source) -> None:
    source.sync("orders", os.environ["TABLE"]).wait(until_caught_up=False)


def _follow(source: kn.Source) -> None:
    source.sync("orders", os.environ["TABLE"]).wait()
    source.export_stream(os.environ["TABLE"], ARN.replace("orders", "out")).wait(until_caught_up=False)


def _export(source: kn.Source) -> None:
    import polars as pl

    frame = pl.DataFrame({"key": ["a"]})
    print(source.export_df(frame, ARN, progress=False).note)


def _remote(source: kn.Source) -> object:
    options = {"endpoint_url": os.environ["SILENT"], "allow_http": "true"}
    return source.sync("orders", "s3://bucket/table", storage_options=options)


def _remote_export(source: kn.Source) -> object:
    options = {"endpoint_url": os.environ["SILENT"], "allow_http": "true"}
    journal = os.environ["TABLE"] + ".journal"
    return source.export_stream("s3://bucket/table", ARN, journal=journal, storage_options=options)


def _agents(source: kn.Source) -> object:
    address = os.environ["SILENT"].replace("http://", "tcp://")
    return kn.Source(kn.connect(endpoint_url=source.config.endpoint_url, agents=address).config).jobs()


CALLS: dict[str, Callable[[kn.Source], object]] = {
    "iterate a tail": _tail,
    "batches of a tail": _batches,
    "take from a tail": lambda source: source.tail("orders").take(5),
    "read": lambda source: print(source.read("orders", progress=False).note),
    "list the shards": lambda source: source.read("orders", progress=False),
    "explore": lambda source: source.explore(),
    "lag": lambda source: source.explore("orders").lag(),
    "check": lambda source: source.check(read=["orders"]),
    "wait for a sync": _wait,
    "wait for an export": _follow,
    "export a frame": _export,
    "sync into a silent store": _remote,
    "export from a silent store": _remote_export,
    "ask silent agents": _agents,
}


def _place() -> tuple[object, int]:
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return frame.f_code, frame.f_lasti


def _report_when_blocked() -> None:
    """Say so when the parent allows it and the main thread has not moved for some looks."""
    before, looks = _place(), 0
    while looks < LOOKS or not Path(os.environ["GO"]).exists():
        time.sleep(LOOK_SECONDS)
        now = _place()
        looks = looks + 1 if now == before else 0
        before = now
    Path(os.environ["BLOCKED"]).touch()


def run(name: str) -> None:
    """Make a call, as the first of the process, and say how it ended."""
    keys = kn.StaticCredentials("emulator", "emulator")
    source = kn.connect(endpoint_url=os.environ["ENDPOINT"], auth=keys, exports_enabled=True)
    threading.Thread(target=_report_when_blocked, daemon=True).start()
    try:
        CALLS[name](source)
        outcome = "returned"
    except KeyboardInterrupt:
        outcome = "KeyboardInterrupt"
    except BaseException as error:  # noqa: BLE001 - for the parent to see
        outcome = repr(error)
    Path(os.environ["OUTCOME"]).write_text(outcome)


def interrupt_the_import() -> None:
    """Interrupt the first call amid the import of a library that cannot be imported twice, and make it once more."""
    source = kn.connect(endpoint_url=os.environ["ENDPOINT"], auth=kn.StaticCredentials("emulator", "emulator"))
    outcomes = []

    def interrupt() -> None:
        while "numpy._core._multiarray_umath" not in sys.modules:
            time.sleep(0.0001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    for _ in range(2):
        try:
            outcomes.append(f"{len(source.read('orders', progress=False))} rows")
        except KeyboardInterrupt:
            outcomes.append("KeyboardInterrupt")
    Path(os.environ["OUTCOME"]).write_text(", ".join(outcomes))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell ignores
    if sys.argv[1] == "import":
        interrupt_the_import()
    else:
        run(sys.argv[1])
    os._exit(0)  # what was left waiting is no part of this
