"""Writes a DataFrame to a stream: in order per partition key, and nothing silently lost.

The service promises no order within one ``PutRecords`` request, and a request can fail in part. So a request never
holds two rows of one partition key, and the next row of a key is sent only after the one before it was acknowledged.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import warnings
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kinesis_nb.display import table_html
from kinesis_nb.errors import ConfigError, KinesisError, ServiceError, Throttled
from kinesis_nb.retry import backoff
from kinesis_nb.transport import PutEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from kinesis_nb.transport import Clock, Kinesis, PutResult

    Encode = Callable[[dict[str, Any]], bytes | str]

MOST_RECORDS = 500  # AWS: per PutRecords request
MOST_BYTES = 5 * 2**20  # AWS takes 10 MiB per request, some servers half of it
RECORD_BYTES = 2**20  # AWS: the default limit of a stream, data and key
KEY_CHARACTERS = 256  # AWS: characters, not bytes
TRIES = 5  # for a record that is refused with a code we do not know
_TRY_AGAIN = {"ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException"}
_json = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True, repr=False)
class ExportReport:
    """What became of an export.

    Attributes
    ----------
    rows, bytes
        Acknowledged by the service; bytes of data and keys.
    requests, retries, throttles
        Requests sent; rows sent again; rows refused because a shard was busy.
    possible_duplicates
        Rows of requests whose outcome never became known and that were sent again.
    duration
        Seconds.
    failed
        One row per row that was given up: its number in the frame, and why.
    note
        Says so when the export was interrupted.
    """

    rows: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    throttles: int = 0
    possible_duplicates: int = 0
    duration: float = 0.0
    failed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"row": pl.Int64, "reason": pl.String}))
    note: str = ""

    def __repr__(self) -> str:
        note = f", {self.note}" if self.note else ""
        return (
            f"<ExportReport: {self.rows:,} rows in {self.requests:,} requests and {self.duration:.1f} s,"
            f" {self.retries:,} retries, {self.possible_duplicates:,} possible duplicates,"
            f" {len(self.failed):,} failed{note}>"
        )

    def _repr_html_(self) -> str:
        names = ("rows", "bytes", "requests", "retries", "throttles", "possible_duplicates")
        rows: list[tuple[str, object]] = [(name.replace("_", " "), getattr(self, name)) for name in names]
        rows += [("failed", len(self.failed)), ("seconds", round(self.duration, 2))]
        return table_html(("export", self.note or "finished"), [(name, f"{value:,}") for name, value in rows])


def export_frame(
    kinesis: Kinesis,
    stream: str,
    frame: Any,
    *,
    clock: Clock,
    partition_column: str | None,
    encode: Encode | None,
    order: str,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ExportReport:
    """Write every row of a frame; see :meth:`kinesis_nb.source.Source.export_df`."""
    if encode is not None and not callable(encode):
        raise ConfigError(
            f"encode= takes no {type(encode).__name__}", hint="give a function from a dict to bytes or str"
        )
    if order not in {"per_key", "none"}:
        msg = f"order={order!r} is not known"
        raise ConfigError(msg, hint='use "per_key" or "none"')
    table = to_table(frame)
    keys = _keys(table, partition_column)
    entries = [PutEntry(key, data) for key, data in zip(keys, _payloads(table, encode), strict=True)]
    _check_sizes(entries)
    exporter = _Exporter(kinesis, stream, entries, clock, progress)
    return exporter.run(keys if order == "per_key" else range(len(entries)))


def to_table(frame: Any) -> pa.Table:
    """Return pandas, polars, Arrow, or anything that offers ``__arrow_c_stream__``, as an Arrow table."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if not hasattr(frame, "__arrow_c_stream__"):
        msg = f"a {type(frame).__name__} is not a table"
        raise ConfigError(msg, hint="give a polars or pandas DataFrame, or an Arrow table")
    if isinstance(frame, pl.DataFrame) and (objects := [n for n, kind in frame.schema.items() if kind == pl.Object]):
        raise ConfigError(f"column {objects[0]!r} holds Python objects", hint="cast it to a type that has a meaning")
    try:
        return pa.table(frame)
    except pa.ArrowException as error:
        raise ConfigError(f"the frame has no Arrow form: {error}", hint="give every column one type") from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _keys(table: pa.Table, column: str | None) -> list[str]:
    texts = [name for name in table.column_names if _is_text(table.schema.field(name).type)]
    if column is None and not texts:
        msg = "no column of the frame holds strings, so none can be the partition column"
        raise ConfigError(msg, hint="cast one to string, then name it with partition_column=")
    chosen = texts[0] if column is None else column
    if chosen not in table.column_names:
        msg = f"the frame has no column {chosen!r}"
        raise ConfigError(msg, hint=f"its string columns are {', '.join(texts) or 'none'}")
    if chosen not in texts:
        msg = f"the partition column {chosen!r} holds {table.schema.field(chosen).type}, not strings"
        raise ConfigError(msg, hint="cast it to string first")
    values = table.column(chosen).cast(pa.large_string())
    length = pc.fill_null(pc.utf8_length(values), 0)
    bad = pc.or_(pc.less(length, 1), pc.greater(length, KEY_CHARACTERS))
    _refuse_rows(
        pc.indices_nonzero(bad).to_pylist(),
        f"no usable partition key in {chosen!r}",
        "keys have 1 to 256 characters",
    )
    keys: list[str] = values.to_pylist()
    return keys


def _payloads(table: pa.Table, encode: Encode | None) -> Iterator[bytes]:
    """Return the data of each record: of a synced table the original bytes, else one JSON object per row."""
    if encode is None and _is_synced(table):
        raw = table.column("data_raw").to_pylist() if "data_raw" in table.column_names else [None] * table.num_rows
        texts = table.column("data").to_pylist()
        _refuse_rows([row for row, text in enumerate(texts) if text is None], "no data", "fill them or drop them")
        return (text.encode() if kept is None else kept for text, kept in zip(texts, raw, strict=True))
    return _encoded(table, encode or _json.encode)


def _encoded(table: pa.Table, encode: Encode) -> Iterator[bytes]:
    rows = (row for batch in table.to_batches(1_000) for row in batch.to_pylist())
    for number, row in enumerate(rows):
        try:
            yield _as_bytes(encode(row))
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"row {number} cannot be encoded: {error!r}", hint="nothing was sent") from error


def _is_synced(table: pa.Table) -> bool:
    names = set(table.column_names)
    return {"partition_key", "data"} <= names and _is_text(table.schema.field("data").type)


def _as_bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes):
        return data
    msg = f"encode= returned {type(data).__name__}"
    raise ConfigError(msg, hint="it must return bytes or str")


def _check_sizes(entries: Sequence[PutEntry]) -> None:
    too_big = [row for row, entry in enumerate(entries) if entry.size > RECORD_BYTES]
    _refuse_rows(too_big, f"larger than {RECORD_BYTES:,} bytes with the key", "a stream takes records of up to 1 MiB")


def _refuse_rows(rows: list[int], what: str, hint: str) -> None:
    if rows:
        shown = ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")  # noqa: PLR2004
        raise ConfigError(f"{what}: rows {shown} ({len(rows)} in all)", hint=f"{hint}; nothing was sent")


class _Exporter:
    def __init__(
        self, kinesis: Kinesis, stream: str, entries: Sequence[PutEntry], clock: Clock, progress: Callable[[int], None]
    ) -> None:
        self._kinesis, self._stream, self._entries, self._clock = kinesis, stream, entries, clock
        self._progress = progress
        self._report = ExportReport()
        self._queues: dict[Hashable, deque[int]] = {}  # rows of a key, in order; the first one is next
        self._ready: deque[Hashable] = deque()  # keys that have a row to send
        self._tries: dict[int, int] = {}
        self._failed: list[tuple[int, str]] = []

    def run(self, order_keys: Sequence[Hashable]) -> ExportReport:
        """Send all rows; rows with equal order keys keep their order."""
        for row, key in enumerate(order_keys):
            self._queues.setdefault(key, deque()).append(row)
        self._ready.extend(self._queues)
        started = self._clock.monotonic()
        failures = 0
        try:
            while self._ready:
                before = self._report.rows
                error = self._send(self._next_keys())
                failures = 0 if self._report.rows > before else failures + 1
                self._progress(self._report.rows)
                if error is not None:
                    self._clock.sleep(backoff(failures, error, self._clock))
        except KeyboardInterrupt:
            self._report.note = "interrupted"
            warnings.warn("the export was interrupted: not all was written", stacklevel=2)
        except KinesisError as error:
            error.add_note(f"{self._report.rows:,} rows were written before")
            raise
        self._report.duration = self._clock.monotonic() - started
        self._report.failed = pl.DataFrame(self._failed, self._report.failed.schema, orient="row")
        return self._report

    def _next_keys(self) -> list[Hashable]:
        """Take the keys of the next request, within its limits."""
        keys: list[Hashable] = []
        size = 0
        while self._ready and len(keys) < MOST_RECORDS:
            size += self._entries[self._queues[self._ready[0]][0]].size
            if keys and size > MOST_BYTES:
                break
            keys.append(self._ready.popleft())
        return keys

    def _send(self, keys: list[Hashable]) -> KinesisError | None:
        """Send the first row of each key; return why some must be sent again."""
        entries = [self._entries[self._queues[key][0]] for key in keys]
        self._report.requests += 1
        try:
            results = self._kinesis.put_records(self._stream, entries)
        except KeyboardInterrupt:
            self._report.possible_duplicates += len(keys)  # on their way, with nobody left to hear the answer
            raise
        except KinesisError as error:
            if not error.retryable:
                raise
            if isinstance(error, Throttled):
                self._report.throttles += len(keys)
            else:
                self._report.possible_duplicates += len(keys)
            self._again(keys)
            return error
        refused = [
            key
            for key, entry, result in zip(keys, entries, results, strict=True)
            if not self._settle(key, entry, result)
        ]
        self._again(refused)
        return ServiceError(f"{len(refused)} records were refused", retryable=True) if refused else None

    def _again(self, keys: list[Hashable]) -> None:
        self._report.retries += len(keys)
        self._ready.extendleft(reversed(keys))

    def _settle(self, key: Hashable, entry: PutEntry, result: PutResult) -> bool:
        """Note what became of the first row of a key; return False when it must be sent again."""
        queue = self._queues[key]
        if result.error_code is None:
            self._report.rows += 1
            self._report.bytes += entry.size
        elif self._is_worth_another(queue[0], result.error_code):
            return False
        else:
            self._failed.append((queue[0], f"{result.error_code}: {result.error_message}"))
        queue.popleft()
        if queue:
            self._ready.append(key)
        return True

    def _is_worth_another(self, row: int, code: str) -> bool:
        self._report.throttles += code == "ProvisionedThroughputExceededException"
        if code in _TRY_AGAIN:
            return True
        self._tries[row] = self._tries.get(row, 0) + 1
        return self._tries[row] < TRIES
