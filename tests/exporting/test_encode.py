"""From a frame to keys and data: exact, and the same for every kind of table."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.exporting.encode import Payload, hashed_keys, partition_column, unusable_keys
from kinesis_nb.exporting.entries import Preparer, refuse_large
from kinesis_nb.exporting.json_rows import json_objects
from kinesis_nb.exporting.options import RecordOptions
from kinesis_nb.exporting.report import DoneRows
from kinesis_nb.wire.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (2**63 - 1, pl.Int64, "9223372036854775807"),
        (2**64 - 1, pl.UInt64, "18446744073709551615"),
        (-(2**127), pl.Int128, "-170141183460469231731687303715884105728"),
        (0.1, pl.Float64, "0.1"),
        (0.1, pl.Float32, "0.1"),
        (1e300, pl.Float64, "1e+300"),
        (float("nan"), pl.Float64, "null"),
        (float("-inf"), pl.Float64, "null"),
        (True, pl.Boolean, "true"),
        (Decimal("12345678901234567890.123456789"), pl.Decimal(38, 9), "12345678901234567890.123456789"),
        (None, pl.String, "null"),
        ('quo"te\\ \n\x00 é☕𝄞', pl.String, '"quo\\"te\\\\ \\n\\u0000 é☕𝄞"'),
        ("a", pl.Categorical, '"a"'),
        ("a", pl.Enum(["a", "b"]), '"a"'),
        (b"\x00\xff", pl.Binary, '"AP8="'),
        (date(2026, 1, 2), pl.Date, '"2026-01-02"'),
        (datetime(2026, 1, 2, 3, 4, 5), pl.Datetime("us"), '"2026-01-02T03:04:05"'),  # noqa: DTZ001
        (datetime(2026, 1, 2, 3, 4, 5, 600, UTC), pl.Datetime("us", "UTC"), '"2026-01-02T03:04:05.000600Z"'),
        (
            datetime(2026, 7, 2, 3, 4, 5, tzinfo=ZoneInfo("Europe/Berlin")),
            pl.Datetime("ms", "Europe/Berlin"),
            '"2026-07-02T03:04:05+02:00"',
        ),
        (time(3, 4, 5, 6), pl.Time, '"03:04:05.000006"'),
        (timedelta(hours=1, seconds=2), pl.Duration, '"PT1H2S"'),
        ([1.5, float("nan"), None], pl.List(pl.Float64), "[1.5,null,null]"),
        ({"a": [Decimal("1.20")], "b": b"\xff"}, None, '{"a":[1.20],"b":"/w=="}'),
        ([{"x": date(2026, 1, 2)}], None, '[{"x":"2026-01-02"}]'),
    ],
)
def test_values_as_json(value: object, kind: Any, text: str) -> None:
    """Each kind of value has one JSON text, with all its digits."""
    frame = pl.DataFrame([pl.Series("v", [value, None], kind)])
    assert json_objects(frame).to_list() == [f'{{"v":{text}}}', '{"v":null}']


def test_nanoseconds_are_kept() -> None:
    """A time with nanoseconds loses none of them."""
    frame = pl.DataFrame({"t": pl.Series([1_700_000_000_123_456_789], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))})
    assert json_objects(frame).to_list() == ['{"t":"2023-11-14T22:13:20.123456789Z"}']


@pytest.mark.slow
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                'na"me': st.none() | st.text(),
                "number": st.none() | st.integers(-(2**63), 2**63 - 1),
                "float": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "flag": st.none() | st.booleans(),
                "list": st.none() | st.lists(st.integers(0, 9) | st.none(), max_size=3),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_json_gives_the_values_back(rows: list[dict[str, object]]) -> None:
    """Whatever the values, parsing the JSON gives them back."""
    kinds: dict[str, type[pl.DataType] | pl.DataType] = {
        'na"me': pl.String,
        "number": pl.Int64,
        "float": pl.Float64,
        "flag": pl.Boolean,
        "list": pl.List(pl.Int64),
    }
    assert [json.loads(text) for text in json_objects(pl.DataFrame(rows, kinds))] == rows


def test_a_frame_without_columns_is_empty_objects() -> None:
    """No column gives no member."""
    assert json_objects(pl.DataFrame()).to_list() == []


def test_columns_of_a_synced_table_are_recognised() -> None:
    """partition_key and data go out as they are, and data_raw where text cannot hold the bytes."""
    frame = pl.DataFrame(
        {"partition_key": ["a", "b"], "data": ["x", "�"], "data_raw": [None, b"\xff"]},
        {"partition_key": pl.String, "data": pl.String, "data_raw": pl.Binary},
    )
    payload = Payload(frame.schema, None, None)
    assert payload.is_synced
    assert payload.encoded(frame, pl.Series([0, 1])).to_list() == [b"x", b"\xff"]


@pytest.mark.parametrize(
    ("frame", "column", "expected"),
    [
        (pl.DataFrame({"a": ["x"], "data": ["text"]}), "data", b"text"),
        (pl.DataFrame({"a": ["x"], "body": [b"\xff"]}), "body", b"\xff"),
        (pl.DataFrame({"a": ["x"], "body": pl.Series(["é"], dtype=pl.Categorical)}), "body", "é".encode()),
    ],
)
def test_a_data_column_goes_out_as_it_is(frame: pl.DataFrame, column: str, expected: bytes) -> None:
    """data_column= sends text and bytes without a change, with any partition column."""
    payload = Payload(frame.schema, None, column)
    assert not payload.is_synced
    assert payload.encoded(frame, pl.Series([0])).to_list() == [expected]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: Payload(s, None, "n"), "'n' holds neither text nor bytes\nhint: use one of a, b"),
        (lambda s: Payload(s, None, "z"), "'z' does not exist"),
        (lambda s: Payload(s, str, "a"), "both make the data"),
        (lambda s: Payload(s, "csv", None), "encode= does not accept this str"),  # type: ignore[arg-type]
        (lambda s: partition_column(s, "n"), "holds Int64, not strings\nhint: .*string column .a, b"),
        (lambda s: partition_column(s, "z"), "no column 'z'\nhint: its string columns are a, b"),
        (
            lambda _: partition_column(pl.Schema({"n": pl.Int64, "t": pl.Date, "f": pl.Float64}), None),
            "candidates: n .Int64., t .Date.",
        ),
    ],
)
def test_choices_that_cannot_be(call: Callable[[pl.Schema], object], says: str) -> None:
    """A column that cannot be used is refused, and the hint names those that can."""
    with pytest.raises(kn.ConfigError, match=says):
        call(pl.Schema({"n": pl.Int64, "a": pl.String, "b": pl.String}))


def test_keys_are_counted_in_characters() -> None:
    """Null, empty and over 256 characters are unusable; 256 characters of any kind are fine."""
    keys = pl.Series([None, "", "a", "é" * 256, "𝄞" * 256, "a" * 257])
    assert unusable_keys(keys).to_list() == [True, True, False, False, False, True]


def test_hashed_keys() -> None:
    """An unusable key becomes the SHA-256 of itself, or of the data where there is none; the others stay."""
    import hashlib

    keys = pl.Series(["good", None, "", "a" * 300])
    data = pl.Series([b"0", b"1", b"2", b"3"])
    hashed = hashed_keys(keys, data, unusable_keys(keys)).to_list()
    digests = [hashlib.sha256(content).hexdigest() for content in (b"1", b"2", b"a" * 300)]
    assert hashed == ["good", *digests]


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "\x1f", " ", "é", "\x7f"])
def test_each_character_is_escaped_by_itself(text: str) -> None:
    """A column whose only special character is one of these is valid JSON all the same."""
    assert [json.loads(quote) for quote in quoted(pl.Series(["plain", text]))] == ["plain", text]


def test_sizes_count_the_key() -> None:
    """What counts against the limit of a record is its data and the bytes of its key; one byte more is refused."""
    frame = pl.DataFrame({"key": ["é" * 10], "data": ["x" * 80]})
    preparer = Preparer(frame.schema, RecordOptions(data_column="data"), lambda *_: None)
    records = preparer.records(frame, 0, DoneRows())
    refuse_large(records, 100)
    with pytest.raises(kn.ConfigError, match="larger than 99 bytes with the key: rows 0 "):
        refuse_large(records, 99)
