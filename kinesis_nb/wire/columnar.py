"""The records of a large response of ``GetRecords`` as columns, without the GIL and without an object for each record.

A service writes all records of a response in the same form: the same fields in the same order, with the same spaces.
Then the quotation marks tell where every value is, provided that the bytes between the values are the same as
in the first record. A response that is written in any other way is for the strict decoder.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import base64
import re
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from kinesis_nb.wire.aggregation import MAGIC

Places = NDArray[np.int64]  # in the body; one for each record
Spans = tuple[Places, Places]  # where values begin and end

LARGE_BYTES = 2**20  # below, msgspec takes less, and holds the GIL for 3 ms at most
LATEST = 2.5e11  # seconds since 1970, in the year 9892
_MOST_BYTES = 2**31 - 1  # so far Arrow can count; AWS sends 14 MiB at most
_PIECE = 2**18  # bytes of a body, scanned several times while they are in the processor's cache

_MOST_FIELDS = 16  # of a record: AWS sends five, and each takes time however short it is
_TIME = "ApproximateArrivalTimestamp"
_NEEDED = {"SequenceNumber", "Data", _TIME}
# where these are used, a blank is the only white space
_BEGINNING = re.compile(rb'"Records" *: *\[ *')
_FIELD = re.compile(rb' *[{,] *"(\w+)" *: *(?:"([^"]*)"|([-+.\w]+))')
_END, _TO_NEXT = re.compile(rb" *}"), re.compile(rb" *, *")
_DIGITS = re.compile(rb"[-+.\w]*")
_AGGREGATE = base64.b64encode(MAGIC)[:5]  # what comes then depends on the next byte


class RecordColumns(NamedTuple):
    """Of each record one value in each array."""

    keys: pa.Array  # string
    data: pa.Array  # binary; or string, which says that all of it is UTF-8
    seconds: pa.Array  # since 1970, float64
    sequence_numbers: pa.Array  # string


def read_columns(body: bytes) -> tuple[RecordColumns, bytes] | None:
    """Split a response.

    Returns
    -------
    columns, rest
        `rest` is the response with its first record alone. If that is a well-formed response whose record is what the
        columns begin with, the whole is one. None for a response that only the strict decoder can parse.
    """
    beginning = _BEGINNING.search(body)
    first = beginning and _first_record(body, beginning.end())
    if not first or len(body) > _MOST_BYTES:
        return None
    quotes = _find_quotes(body)
    values = _find_values(body, first, quotes[np.searchsorted(quotes, first.begin) :])
    if values is None or not _are_alike(body, first, values):
        return None
    columns = _columns(body, dict(zip(first.names, values, strict=True)))
    end_of_last = int(values[-1][1][-1]) + len(first.closing)
    return columns and (columns, body[: first.end] + body[end_of_last:])


class _First(NamedTuple):
    """How the first record is written."""

    begin: int
    end: int
    names: list[str]
    values: list[tuple[int, int]]  # where each is, without its quotation marks
    gaps: list[bytes]  # between one value and the next
    closing: bytes  # behind the last one
    to_next: bytes  # all between the last one and the first of the next record


def _first_record(body: bytes, begin: int) -> _First | None:
    """Return None unless it has one number, the time, otherwise texts, and another record follows it."""
    names: list[str] = []
    values: list[tuple[int, int]] = []
    place = begin
    while field := _FIELD.match(body, place):
        name, is_number = field[1].decode(), field[3] is not None
        if (
            len(names) == _MOST_FIELDS
            or is_number != (name == _TIME)
            or (name == "Data" and field[2].startswith(_AGGREGATE))
        ):
            return None
        names.append(name)
        values.append(field.span(3 if is_number else 2))
        place = field.end()
    end = _END.match(body, place)
    to_next = end and _TO_NEXT.match(body, end.end())
    if not end or not to_next or not _NEEDED.issubset(names) or len(set(names)) < len(names):
        return None
    gaps = [body[before:after] for (_, before), (after, _) in pairwise(values)]
    (opening, _), *_, (_, last) = values
    return _First(
        begin,
        end.end(),
        names,
        values,
        gaps,
        closing=body[last : end.end()],
        to_next=body[last : to_next.end()] + body[begin:opening],
    )


def _find_quotes(body: bytes) -> Places:
    characters = np.frombuffer(body, np.uint8)
    is_quote = np.empty(_PIECE, np.bool_)
    found: list[Places] = []
    for start in range(0, len(body), _PIECE):
        piece = characters[start : start + _PIECE]
        found.append(np.flatnonzero(np.equal(piece, ord('"'), out=is_quote[: len(piece)])) + start)
    return np.concatenate(found)


def _find_values(body: bytes, first: _First, quotes: Places) -> list[Spans] | None:
    """Return where the values of each field are, should all records be like the first."""
    width = body.count(b'"', first.begin, first.end)
    count = len(quotes) // width  # behind the records there are fewer, unless the shard has ended
    if count < 2:  # noqa: PLR2004
        return None
    rows = quotes[: count * width].reshape(count, width)
    return [_spans_of_field(body, rows, start, end) for start, end in first.values]


def _spans_of_field(body: bytes, rows: Places, start: int, end: int) -> Spans:
    """Return where the values of a field are: as far from the nearest quotation marks as the first one is."""
    before = int(np.searchsorted(rows[0], start)) - 1
    starts = rows[:, before] + (start - rows[0, before])
    if before + 1 < rows.shape[1]:
        return starts, rows[:, before + 1] + (end - rows[0, before + 1])
    ends = rows[1:, 0] + (end - rows[1, 0])  # a number that ends a record
    last = _DIGITS.match(body, starts[-1])
    return starts, np.append(ends, last.end() if last else 0)


def _are_alike(body: bytes, first: _First, values: list[Spans]) -> bool:
    """Return whether there are these values, and nothing else but what there is in the first record."""
    ends = [end for _, end in values]
    return (
        all(_stands_at(places, gap, body) for places, gap in zip(ends, first.gaps, strict=False))
        and _stands_at(ends[-1][:-1], first.to_next, body)
        and body.startswith(first.closing, ends[-1][-1])
        and all((end >= start).all() for start, end in values)  # else Arrow would read out of bounds
    )


def _stands_at(places: Places, text: bytes, body: bytes) -> bool:
    if places[-1] > len(body) - len(text) or len(text) * len(places) > len(body):  # it does not fit in that many times
        return False
    windows = np.ndarray(len(body) - len(text) + 1, f"V{len(text)}", body, strides=(1,))  # one at each character
    return windows[places].tobytes() == text * len(places)


def _columns(body: bytes, values: dict[str, Spans]) -> RecordColumns | None:
    pieces = {name: _slices_between(body, *spans) for name, spans in values.items()}
    base64_pieces = pieces.pop("Data")
    every_other = np.arange(0, len(base64_pieces), 2, dtype=np.uint32)
    found = {name: every.take(pa.array(every_other)) for name, every in pieces.items()}
    times = found.pop(_TIME)
    if not _are_numbers(times) or not all(map(_are_plain, found.values())):
        return None
    try:
        texts = {name: text.cast(pa.string()) for name, text in found.items()}
        seconds = pl.Series(times.cast(pa.string())).cast(pl.Float64).to_numpy()
        data = _from_base64(pl.Series(base64_pieces)[pl.Series(every_other)])
    except (pa.ArrowInvalid, pl.exceptions.PolarsError, pl.exceptions.PanicException):  # no UTF-8, no number, no base64
        return None
    if seconds.max() > LATEST:
        return None
    keys = texts.get("PartitionKey", pa.nulls(len(times), pa.string()))
    return RecordColumns(keys, data, pa.array(seconds), texts["SequenceNumber"])


def _from_base64(texts: pl.Series) -> pa.Array:
    data = texts.bin.decode("base64")
    with suppress(pl.exceptions.PolarsError):
        data = data.cast(pl.String)
    kind = pa.string() if data.dtype == pl.String else pa.binary()
    return data.to_arrow(compat_level=pl.CompatLevel.newest()).cast(kind)  # the oldest level copies once more


def _slices_between(body: bytes, starts: Places, ends: Places) -> pa.Array:
    """Return the values at these places, and the bytes between each two of them; nothing is copied."""
    bounds = np.empty(2 * len(starts), np.int32)
    bounds[::2], bounds[1::2] = starts, ends
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(body)])


def _are_plain(texts: pa.Array) -> bool:
    """Return whether texts mean in JSON what they are: without escapes, and characters that must be escaped."""
    characters, _ = raw_bytes_and_offsets(texts)
    return bool(characters.min(initial=ord(" ")) >= ord(" ") and (characters != ord("\\")).all())


def _are_numbers(texts: pa.Array) -> bool:
    """Return whether all that can be read as a number is written as JSON writes a positive one."""
    characters, bounds = raw_bytes_and_offsets(texts)
    if not (bounds[:-1] < bounds[1:]).all():
        return False
    is_digit = characters - ord("0") < 10  # unsigned  # noqa: PLR2004
    behind_points = np.flatnonzero(characters == ord(".")) + 1
    return bool(
        is_digit[bounds[:-1]].all()
        and not (characters[bounds[:-1]] == ord("0")).any()
        and is_digit[bounds[1:] - 1].all()
        and is_digit[behind_points].all()
    )


def raw_bytes_and_offsets(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return all bytes of a string or binary array that is not a slice, and where each value begins."""
    _, bounds, data = values.buffers()
    places = np.frombuffer(bounds, np.int32, len(values) + 1)
    return np.frombuffer(data or b"", np.uint8, places[-1]), places
