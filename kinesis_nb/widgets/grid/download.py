"""Bytes that a page asks for: the exact data of a record, or what a grid shows as a file."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Protocol

import polars as pl

from kinesis_nb.errors import ConfigError
from kinesis_nb.widgets.grid.cells import FIELD

if TYPE_CHECKING:
    from kinesis_nb.widgets.flow import Message

PART = 256 * 1024  # bytes of one message
# A Jupyter server drops what a kernel sends beyond 1 MB a second, averaged over 3 seconds (its option
# iopub_data_rate_limit); the frames of all views have to have room beside a file.
AT_ONCE, PER_SECOND = 1_500_000, 600_000  # bytes
MOST = 32 * 2**20  # bytes: a minute
FORMATS = ("csv", "jsonl", "parquet")


class Page(Protocol):
    """What takes the parts."""

    def send(self, content: Message, buffers: list[bytes]) -> None:
        """Send a message."""
        ...


class Download(threading.Thread):
    """Sends bytes to a page in parts, as fast as a Jupyter server lets them through.

    Parameters
    ----------
    token
        By which the page knows what it asked for: several downloads may be under way.

    Raises
    ------
    ConfigError
        For more than 32 MiB.
    """

    def __init__(self, page: Page, name: str, data: bytes, token: str) -> None:
        if len(data) > MOST:
            raise ConfigError(
                f"{name} would have {len(data):,} bytes, and a page takes {MOST:,}",
                hint='narrow the filter, or write it in the kernel: "Code" gives the frame, then .write_parquet("…")',
            )
        super().__init__(name="kinesis_nb download", daemon=True)
        self._page, self._file, self._data, self._token = page, name, data, token

    def run(self) -> None:
        """Send all parts."""
        began, sent = time.monotonic(), 0
        while True:
            part = self._data[sent : sent + PART]
            sent += len(part)
            is_last = sent >= len(self._data)
            head = {
                "kind": "part",
                "name": self._file,
                "token": self._token,
                "size": len(self._data),
                "last": is_last,
            }
            self._page.send(head, [part])
            if is_last:
                return
            due = began + (sent - AT_ONCE) / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))


def file_of(frame: pl.DataFrame, form: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a frame as CSV, JSON Lines or Parquet.

    Raises
    ------
    ConfigError
        For another format.
    """
    if form not in FORMATS:
        raise ConfigError(f"there is no download as {form!r}", hint=f"among {', '.join(FORMATS)}")
    names = [name.removeprefix(FIELD) for name in frame.columns]
    frame = frame.rename({old: new for old, new in zip(frame.columns, names, strict=True) if names.count(new) == 1})
    out = io.BytesIO()
    if form == "parquet":
        frame.write_parquet(out)
    elif form == "csv":
        _flat(frame).write_csv(out)
    else:
        _flat(frame, nested=True).write_ndjson(out)
    return f"records.{form}", out.getvalue()


def _flat(frame: pl.DataFrame, *, nested: bool = False) -> pl.DataFrame:
    """Return the frame with bytes as hexadecimal, and unless `nested` with lists and objects as JSON text."""
    columns = []
    for name, kind in frame.schema.items():
        if kind == pl.Binary:
            columns.append(pl.col(name).bin.encode("hex"))
        elif kind.is_nested() and not nested:
            columns.append(pl.struct(value=pl.col(name)).struct.json_encode().str.slice(9).str.head(-1).alias(name))
        else:
            columns.append(pl.col(name))
    return frame.select(columns)
