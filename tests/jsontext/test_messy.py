"""JSON as programs really write it: what cannot be taken costs a field or a character, never the row without a word."""

from __future__ import annotations

import gzip
import json
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.jsontext.infer import infer_schema
from kinesis_nb.jsontext.lenient import read_leniently

if TYPE_CHECKING:
    from tests.conftest import Streams

LATIN = "not UTF-8: what is not became U+FFFD"


def columns(*texts: Any, **options: Any) -> dict[str, list[Any]]:
    frame = pl.DataFrame({"data": texts}, schema={"data": pl.String})
    return kn.parse_json(frame, keep=False, **options).to_dict(as_series=False)


def put(streams: Streams, *data: bytes, name: str = "orders") -> None:
    streams.create(name)
    for one in data:
        streams.call("PutRecord", StreamName=name, PartitionKey="k", Data=one)


def test_nan_is_null_and_the_rest_of_the_row_stays() -> None:
    """What json.dumps writes for floats that are no numbers is null, named by its path; other values keep digits."""
    rows = [{"d": "a", "t": float("nan"), "o": {"l": [1.5, float("-inf")]}}, {"d": "b", "t": 1.5, "o": {"l": [2.5]}}]
    parsed = columns(*map(json.dumps, rows), '{"d": 1.10, "t": Infinity}')
    assert parsed == {
        "d": ["a", "b", "1.10"],
        "t": [None, 1.5, None],
        "o": [{"l": [1.5, None]}, {"l": [2.5]}, None],
        "error": [
            "t: NaN is not JSON, read as null; o.l[]: -Infinity is not JSON, read as null",
            None,
            "t: Infinity is not JSON, read as null",
        ],
    }


def test_a_schema_is_inferred_from_rows_with_nan() -> None:
    """Rows that all have a NaN show their fields all the same, and none of them counts as malformed."""
    schema = infer_schema([json.dumps({"n": 1, "t": float("nan")})] * 3)
    assert schema.dtype == pl.Struct({"n": pl.Int64, "t": pl.String})
    assert (schema.rows, schema.malformed) == (3, 0)


def test_half_of_a_surrogate_becomes_a_replacement_character() -> None:
    """In a value or in a name; pairs are what they stand for, and what is escaped twice stays."""
    parsed = columns('{"a": "x\\ud800y", "b": "\\ud83d\\ude00", "c": "\\\\ud800"}', '{"\\udc00": 1}')
    assert (parsed["a"][0], parsed["b"][0], parsed["c"][0], parsed["\ufffd"][1]) == ("x\ufffdy", "😀", "\\ud800", 1)
    assert parsed["error"] == ["a: half of a surrogate, read as U+FFFD", "a name: half of a surrogate, read as U+FFFD"]


def test_a_byte_order_mark_is_passed_over() -> None:
    """It is no part of the value, so nothing is lost and nothing is said."""
    assert columns('\ufeff{"a": 1.50}', '{"a": "x"}') == {"a": ["1.50", "x"], "error": [None, None]}


SEVERAL = ('{"a": 1}\n{"a": 2}\n', '{"a": 3}{"a": NaN} [{"a": 5}, 6]', None, "x", '{"a": 7}')
VALUES = [1, 2, 3, None, 5, None, None, None, 7]
PLACES = [0, 1, 0, 1, 2, 3, 0, 0, 0]


def test_objects_of_one_record_are_a_row_each() -> None:
    """With their places; the columns of the frame are repeated, and what is wrong with one is said of that one."""
    frame = pl.DataFrame({"data": SEVERAL, "k": list("abcde")})
    parsed = kn.parse_json(frame, explode=True)
    assert parsed.columns == ["data", "k", "place_in_record", "a", "error"]
    assert parsed["k"].to_list() == list("aabbbbcde")
    assert parsed["a"].to_list() == VALUES
    assert parsed["place_in_record"].to_list() == PLACES
    assert parsed["error"].to_list()[3:6] == ["a: NaN is not JSON, read as null", None, "not an object: 6"]
    given = kn.parse_json(frame.to_pandas().set_axis(range(5, 10)), explode=True)
    assert given.index.tolist() == [5, 5, 6, 6, 6, 6, 7, 8, 9]
    assert given["place_in_record"].tolist() == PLACES


def test_objects_are_exploded_with_a_warning_unless_the_call_says_what_is_meant() -> None:
    """By default a record gives all its objects and the caller is warned; `explode=False` gives a row per record."""
    with pytest.warns(UserWarning, match=r"several JSON objects.*: 2 .*explode=True.*explode=False") as told:
        assert columns(*SEVERAL)["a"] == VALUES
    assert [one.filename for one in told] == [__file__]
    kept = columns(*SEVERAL, explode=False)
    assert kept["a"] == [None, None, None, None, 7]
    assert kept["error"][0] == "2 JSON values in one record: explode=True gives each a row"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert columns(*SEVERAL, explode=True)["a"] == VALUES
        assert "place_in_record" not in columns('{"a": 1}', '[{"a": 2}]')
        assert columns('{"a": 1}', explode=True)["place_in_record"] == [0]


def test_places_are_right_beyond_one_chunk() -> None:
    """Rows are read 20,000 at a time, and a record of the second chunk is exploded where it is."""
    texts = ['{"a": 0}'] * 20_001 + ['{"a": 1}{"a": 2}', '{"a": 3}']
    parsed = columns(*texts, explode=True)
    assert parsed["a"][-4:] == [0, 1, 2, 3]
    assert parsed["place_in_record"][-4:] == [0, 0, 1, 0]


def test_a_field_with_the_name_of_the_place_stays() -> None:
    """As with any other name that is taken."""
    parsed = columns('{"place_in_record": "Berlin"}', explode=True)
    assert (parsed["place_in_record"], parsed["place_in_record_json"]) == ([0], ["Berlin"])


def test_text_is_read_to_the_letter() -> None:
    """Numbers are not parsed on the way, so they keep digits that no type here could hold."""
    number = "1" * 5_000
    (value,) = read_leniently(f'{{"a": [{number}, 1.10, 1e400, NaN]}}')
    assert value.raw.decode() == f'{{"a":[{number},1.10,1e400,null]}}'


@pytest.mark.parametrize("as_frame", [lambda r: r, lambda r: r.to_polars(), lambda r: r.to_pandas()])
def test_letters_that_were_replaced_are_told(source: kn.Source, streams: Streams, as_frame: Any) -> None:
    """JSON in Latin-1 is read with U+FFFD in it, and `error` says so; the bytes are in `data_raw`."""
    put(streams, '{"name": "Müller"}'.encode("latin-1"), b'{"name": "Ada"}', "Müller".encode("latin-1"))
    parsed = pl.DataFrame(pa.table(kn.parse_json(as_frame(source.read("orders", progress=False)))))
    assert parsed["name"].to_list() == ["M\ufffdller", "Ada", None]
    assert parsed["error"].to_list() == [
        LATIN,
        None,
        f"{LATIN}; not JSON: Expecting value: line 1 column 1 (char 0)",
    ]
    assert parsed["data_raw"].is_null().to_list() == [False, True, False]


def test_data_that_was_repaired_by_hand_is_not_blamed(source: kn.Source, streams: Streams) -> None:
    """What stands in `data` counts, whatever bytes it once was."""
    put(streams, '{"name": "Müller"}'.encode("latin-1"), gzip.compress(b"{}"))
    mended = source.read("orders", progress=False).to_polars().with_columns(data=pl.lit('{"name": "Müller"}'))
    assert kn.parse_json(mended).select("name", "error").rows() == [("Müller", None)] * 2


PACKED = {
    "behind": gzip.compress(b'{"a": 1}') + b"\n",
    "cut": gzip.compress(json.dumps(list(range(5_000))).encode())[:-20],
    "bomb": gzip.compress(b'{"a": "' + b"x" * 600_000 + b'"}'),
    "sound": gzip.compress(b'{"a": 2}'),
}


def test_what_is_wrong_with_compressed_data_is_counted_and_named(source: kn.Source, streams: Streams) -> None:
    """A read counts such rows in its note and warns once; parse_json names each; all bytes are kept."""
    put(streams, *PACKED.values())
    with pytest.warns(UserWarning, match="of the rows of the read 3 with compressed data that is damaged") as told:
        records = source.read("orders", decompress=True, progress=False)
    assert len(told) == 1
    assert "3 with compressed data" in repr(records)
    with source.tail("orders", start="trim_horizon", decompress=True) as tail:
        assert tail.take(4).to_arrow()["data"].equals(records.to_arrow()["data"])
        assert tail.stats().packed == 3
        assert "3 rows still compressed" in repr(tail)
    parsed = kn.parse_json(records)
    assert parsed["a"].to_list() == [1, None, None, 2]
    assert parsed["error"].to_list() == [
        "gzip data: 1 byte behind it",
        "gzip data: it is cut or damaged",
        "gzip data: more than 200 times its size or 64 MiB would come out",
        None,
    ]
    assert parsed["data_raw"].to_list() == [*list(PACKED.values())[:3], None]


def test_compressed_data_that_was_not_opened_says_how(source: kn.Source, streams: Streams) -> None:
    """Without `decompress=True` the reason is not that it is no JSON; a read that opens nothing counts nothing."""
    put(streams, *PACKED.values())
    records = source.read("orders", progress=False)
    assert records.note == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reasons = kn.parse_json(records)["error"].to_list()
    assert reasons[3] == "gzip data: read(decompress=True) opens it"
    assert all(reason.startswith("gzip data: ") for reason in reasons)
    bytes_alone = kn.parse_json(pd.DataFrame({"raw": list(PACKED.values())}), "raw", keep=False)
    assert bytes_alone["error"].tolist() == reasons


def test_too_many_fields_are_told_and_the_limit_can_be_raised() -> None:
    """The limit is named with what is left out of it, once, and not as something that the sample had not."""
    text = json.dumps({f"k{n:03}": n for n in range(612)})
    with pytest.warns(UserWarning, match="left out, as max_fields=500: k500, .* and 102 more$") as told:
        assert len(columns(text, text)) == 501
    assert len(told) == 1
    assert "new field" not in str(told[0].message)
    assert repr(infer_schema([text])) == "<Schema: 500 fields from 1 rows, 112 more left out: max_fields=500>"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed = columns(text, f'{{"m": {text}}}', max_fields=613)
    assert (len(parsed), parsed["k611"], parsed["m"][1]["k611"]) == (614, [611, None], 611)


def test_a_sampled_schema_takes_the_limit(source: kn.Source, streams: Streams) -> None:
    """`StreamView.schema(max_fields=)` is the same limit."""
    put(streams, json.dumps({f"k{n}": n for n in range(612)}).encode())
    view = source.explore("orders")
    assert len(view.schema().dtype.fields) == 500
    assert len(view.schema(max_fields=700).dtype.fields) == 612
    with pytest.raises(kn.ConfigError, match="max_fields"):
        view.schema(max_fields=0)
