"""JSON text into columns."""

from __future__ import annotations

import json
import math
import warnings
from datetime import date
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import kinesis_nb as kn
from kinesis_nb.core.frames import SCHEMA, Records
from kinesis_nb.jsontext.infer import MAX_DEPTH, MAX_FIELDS, infer_schema
from kinesis_nb.jsontext.parse import parse_json


def frame(*texts: Any) -> pl.DataFrame:
    return pl.DataFrame({"data": texts}, schema={"data": pl.String})


def columns(*texts: Any, **options: Any) -> dict[str, list[Any]]:
    return parse_json(frame(*texts), keep=False, **options).to_dict(as_series=False)


def test_fields_become_columns() -> None:
    """Every field is a column of the type it has; objects are structs, arrays are lists, what is not there is null."""
    parsed = parse_json(
        frame(
            '{"a": 1, "b": 1.5, "s": "x", "t": true}', '{"o": {"p": [1, null]}, "l": [{"q": "y"}, null, {}], "a": null}'
        )
    )
    assert parsed.schema == {
        "data": pl.String,
        "a": pl.Int64,
        "b": pl.Float64,
        "s": pl.String,
        "t": pl.Boolean,
        "o": pl.Struct({"p": pl.List(pl.Int64)}),
        "l": pl.List(pl.Struct({"q": pl.String})),
        "error": pl.String,
    }
    assert parsed.drop("data").row(0) == (1, 1.5, "x", True, None, None, None)
    assert parsed.drop("data").row(1) == (
        None,
        None,
        None,
        None,
        {"p": [1, None]},
        [{"q": "y"}, None, {"q": None}],
        None,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("apples", "not JSON: Expecting value"),
        ("", "not JSON: Expecting value"),
        ('{"a": 1', "not JSON: Expecting"),
        ('{"a": 1} x', "not JSON: Extra data"),
        ('{"a": 1}, {"a": 7}', "not JSON: Extra data"),
        ('{"a": 1}\n{"a": 7', "not JSON: Extra data"),
        ("1 2", "not JSON: Extra data"),
        ("[1]", "not an object: [1]"),
        ("NaN", "not an object"),
        ("null", "not an object: null"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_object_is_null_with_the_reason(text: str, reason: str) -> None:
    """A malformed row is null in all columns and says why; the rows around it are as they were."""
    parsed = columns('{"a": 1}', text, '{"a": 2}')
    assert parsed["a"] == [1, None, 2]
    assert parsed["error"][1].startswith(reason)
    assert parsed["error"][::2] == [None, None]


def test_rows_do_not_run_into_each_other() -> None:
    """Pieces of JSON that would be whole when joined stay malformed rows, each by itself."""
    texts = ('{"a": 1}, {"a": 7}', '{"a": 2', '"a": 3}', '{"a": 4')
    assert columns(*texts, schema={"a": pl.Int64})["a"] == [None] * 4


def test_no_text_is_no_error() -> None:
    """A null row is null everywhere; a frame without rows has the columns of its schema."""
    assert columns(None, '{"a": 1}') == {"a": [None, 1], "error": [None, None]}
    assert columns(schema={"a": pl.Int64}) == {"a": [], "error": []}
    assert columns() == {"error": []}


def test_conflicts_are_json_text() -> None:
    """Where types differ the column is text: a string's value, anything else to the letter."""
    parsed = columns('{"a": 1.10}', '{"a": "x"}', '{"a": {"k":  [1, 2.50]}}', '{"a": null}', '{"a": true}')
    assert parsed["a"] == ["1.10", "x", '{"k":  [1, 2.50]}', None, "true"]
    assert parsed["error"] == [None] * 5


def test_numbers_keep_their_digits() -> None:
    """Integers with floats are floats; integers beyond 64 bits are text with all digits."""
    assert columns('{"a": 1}', '{"a": 0.5}')["a"] == [1.0, 0.5]
    assert columns(f'{{"a": {2**53}}}', '{"a": 0.5}')["a"] == [2.0**53, 0.5]
    assert columns('{"a": 1}', '{"a": 9223372036854775808}')["a"] == ["1", "9223372036854775808"]
    assert columns('{"a": 9223372036854775807}', '{"a": -9223372036854775808}')["a"] == [2**63 - 1, -(2**63)]


BIG = 2**53 + 1  # the first integer that no double is


def test_large_integers_beside_floats_are_text() -> None:
    """A column of doubles would round them: it is text with all digits, and the schema says why."""
    texts = (f'{{"id": {BIG}, "o": {{"l": [0.5, -{BIG}]}}}}', '{"id": 1.5}', '{"id": 7}')
    parsed = columns(*texts)
    assert parsed["id"] == [str(BIG), "1.5", "7"]
    assert parsed["o"][0] == {"l": ["0.5", f"-{BIG}"]}
    conflicts = {field.path: field.conflict for field in infer_schema(texts).fields if field.conflict}
    assert conflicts == dict.fromkeys(("id", "o.l[]"), "float or int beyond 2^53")


def test_large_integers_behind_the_sample_keep_their_digits() -> None:
    """An inferred column that would lose digits of a later row is text; nothing is said, for nothing is lost."""
    texts = [
        '{"id": 1.5, "n": 1, "o": {"l": [1.5]}}',
        '{"id": 2, "n": 2}',
        f'{{"id": {BIG}, "n": {2**63}, "o": {{"l": [{BIG}]}}}}',
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed = columns(*texts, sample=1)
    assert parsed["id"] == ["1.5", "2", str(BIG)]
    assert parsed["n"] == ["1", "2", str(2**63)]
    assert [row and row["l"] for row in parsed["o"]] == [["1.5"], None, [str(BIG)]]
    assert parsed["error"] == [None] * 3


def test_types_that_large_integers_change_are_not_looked_for_without_end() -> None:
    """Rows made so that each changes a type of the next cost a few readings; what is left is null with the reason."""
    texts = [f'{{"f{n}": {BIG}, "f{n + 1}": 0.5}}' for n in range(8)]
    texts = [json.dumps({f"f{n}": 1 if n else 0.5 for n in range(9)}), *texts]
    with pytest.warns(UserWarning):
        parsed = columns(*texts, sample=1)
    for n, row in enumerate(texts[1:], 1):
        assert parsed[f"f{n - 1}"][n] == str(BIG) or parsed["error"][n], row


def test_a_type_that_was_given_does_not_round() -> None:
    """An integer that a given float type does not hold is null with the reason, and one with a fraction is exact."""
    schema = {"f": pl.Float64, "s": pl.Float32, "n": pl.Int64}
    parsed = columns(
        f'{{"f": {BIG}, "s": {2**24 + 1}, "n": {BIG}.0}}', f'{{"f": {2**53}, "n": {BIG}.5}}', schema=schema
    )
    assert parsed == {
        "f": [None, 2.0**53],
        "s": [None, None],
        "n": [BIG, None],
        "error": [
            "f: int beyond 2^53 does not fit Float64; s: int beyond 2^24 does not fit Float32",
            "n: float does not fit Int64",
        ],
    }
    inferred = infer_schema(['{"f": 1.5}'])
    with pytest.warns(UserWarning, match=r"f: int beyond 2\^53 does not fit Float64"):
        assert columns(f'{{"f": {BIG}}}', schema=inferred)["f"] == [None]


@pytest.mark.parametrize(
    "number",
    [
        "0.1",
        "0.10000000000000001",
        "0.1000000000000000055511151231257827",
        "1.50000000000000000000000",
        "-0.0",
        "5e-324",
    ],
)
def test_what_a_double_holds_is_one(number: str) -> None:
    """However many digits a program prints of a double, it is that double."""
    assert columns(f'{{"a": {number}}}')["a"] == [float(number)]


@pytest.mark.parametrize(
    "number",
    ["12345678901234567.89", "19.999999999999999999", f"{BIG}.0", "1e400", "1e-400", "1e-99999999999999999999"],
)
def test_more_digits_than_a_double_are_text(number: str) -> None:
    """A decimal that a double would round stays as it is written, and the schema says why."""
    text = f'{{"a": {number}}}'
    assert columns(text, '{"a": 1.5}')["a"] == [number, "1.5"]
    assert infer_schema([text]).fields[0].conflict == "float of more digits than a double keeps"


def test_explicit_schema() -> None:
    """Only the named fields are there, of the named types; what does not fit is null with the reason."""
    schema: dict[str, type[pl.DataType] | pl.DataType] = {
        "n": pl.Int8,
        "u": pl.UInt64,
        "f": pl.Float32,
        "s": pl.String,
        "b": pl.Boolean,
        "l": pl.List(pl.Int64),
    }
    texts = (
        '{"n": 1, "u": 18446744073709551615, "f": 1, "s": {"x": 1.0}, "b": false, "l": [1], "more": 1}',
        '{"n": 128, "u": -1, "f": 1e999, "s": 1.50, "b": 1, "l": [1, "x"]}',
        '{"n": 2.0, "u": 1.5, "f": "x", "s": null, "b": null, "l": 5}',
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed = parse_json(frame(*texts), schema=schema, keep=False)
        assert_frame_equal(parsed, parse_json(frame(*texts), schema=pl.Struct(schema), keep=False))
    assert parsed.schema == {**schema, "error": pl.String}
    assert parsed.row(0) == (1, 2**64 - 1, 1.0, '{"x": 1.0}', False, [1], None)
    assert parsed.row(1)[:-1] == (None, None, None, "1.50", None, [1, None])
    assert parsed.row(2)[:-1] == (2, None, None, None, None, None)
    assert parsed["error"][1] == (
        "n: int does not fit Int8; u: int does not fit UInt64; f: float does not fit Float32; "
        "b: int does not fit Boolean; l[]: string does not fit Int64"
    )
    assert parsed["error"][2] == "u: float does not fit UInt64; f: string does not fit Float32; l: int, not array"


def test_what_changed_since_the_sample_is_said_once() -> None:
    """New fields and other types behind the sample are named in one warning; nothing of the known fields is lost."""
    texts = ['{"a": 1, "o": {"p": "x"}}'] * 3
    texts += ['{"a": 2, "new": 1}', '{"a": 2.5, "o": {"p": 7, "q": 1}}', '{"a": 3, "new": 2, "o": []}', '{"a": 4}']
    with pytest.warns(UserWarning, match="not in the 3 rows of the schema") as caught:
        parsed = columns(*texts, sample=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    said = str(caught[0].message)
    for change in (
        "new field new",
        "new field o.q",
        "a: float does not fit Int64",
        "o.p: int, not string",
        "o: array, not object",
    ):
        assert change in said
    assert parsed["a"] == [1, 1, 1, 2, None, 3, 4]
    assert parsed["o"][4] == {"p": "7"}
    assert parsed["error"][3:] == [None, "a: float does not fit Int64", "o: array, not object", None]


def test_an_endless_supply_of_new_names_ends() -> None:
    """Hundreds of new names cost a bounded number of remakes, and the warning stays short."""
    texts = ['{"a": 1}'] + [f'{{"a": 1, "k{n}": {n}}}' for n in range(500)]
    with pytest.warns(UserWarning, match="and 22 more") as caught:
        parsed = columns(*texts, sample=1)
    assert parsed["a"] == [1] * 501
    assert len(str(caught[0].message)) < 400


def test_an_earlier_schema_finds_what_changed_since() -> None:
    """A schema that was inferred before can be given, and the warning then compares with it."""
    schema = infer_schema(['{"a": 1}'])
    with pytest.warns(UserWarning, match="not in the 1 rows of the schema: new field b"):
        assert columns('{"a": 2, "b": 3}', schema=schema)["a"] == [2]


def test_pandas_in_pandas_out() -> None:
    """A pandas frame comes back as one with its index; integers with gaps keep their digits."""
    given = pd.DataFrame(
        {"data": [f'{{"n": {2**53 + 1}}}', None, "{", '{"b": true}'], "k": list("abcd")}, index=[7, 7, 8, 9]
    )
    parsed = kn.parse_json(given)
    assert list(parsed.columns) == ["data", "k", "n", "b", "error"]
    assert parsed.index.tolist() == [7, 7, 8, 9]
    assert parsed["n"].iloc[0] == 2**53 + 1
    assert parsed["n"].isna().tolist() == [False, True, True, True]
    assert parsed["error"].notna().tolist() == [False, False, True, False]
    assert list(kn.parse_json(given, keep=False).columns) == ["n", "b", "error"]


def test_nested_integers_keep_their_digits_in_pandas() -> None:
    """Integers within a cell are Python's, however many nulls are around them: pandas' own would be floats."""
    row = {"s": {"id": BIG, "no": None}, "l": [BIG, None], "d": [{"x": BIG + 2}, {"x": None}, None], "m": [[BIG], []]}
    texts = [json.dumps(row), '{"s": {"id": null, "no": 1}}', "{}"]
    parsed = kn.parse_json(pd.DataFrame({"data": texts}), keep=False)
    assert parsed["s"].tolist() == [row["s"], {"id": None, "no": 1}, None]
    assert (
        json.loads(json.dumps(parsed.iloc[0][["s", "l", "d", "m"]].to_dict(), default=lambda cell: cell.tolist()))
        == row
    )


LATIN = "not UTF-8: what is not became U+FFFD"


def test_pandas_objects_that_are_no_text() -> None:
    """Bytes are read, and what is neither text nor bytes is a row with a reason."""
    values = [b'{"a": 1}', 5, b"\xff", float("nan"), '{"a": "\ud800"}', {"a": 1}]
    parsed = parse_json(pd.DataFrame({"data": pd.Series(values, dtype=object)}), keep=False)
    assert parsed["a"].tolist()[::4] == ["1", "\ufffd"]
    assert parsed["a"].isna().tolist() == [False, True, True, True, False, True]
    assert [None if pd.isna(reason) else reason for reason in parsed["error"]] == [
        None,
        "int, not text",
        f"{LATIN}; not JSON: Expecting value: line 1 column 1 (char 0)",
        None,
        "a: half of a surrogate, read as U+FFFD",
        "dict, not text",
    ]


def test_anything_like_a_table() -> None:
    """Records, an Arrow table and a binary column are taken too, and give polars."""
    table = pa.table({"data": ['{"a": 1}']})
    assert kn.parse_json(table)["a"].to_list() == [1]
    rows = pa.Table.from_pylist([{"partition_key": "k", "data": '{"partition_key": "inner", "error": "e"}'}], SCHEMA)
    parsed = kn.parse_json(Records(rows))
    assert parsed.select("partition_key", "partition_key_json", "error", "error_json").row(0) == (
        "k",
        "inner",
        None,
        "e",
    )
    binary = pl.DataFrame({"data": [b'{"a": 1}', b'{"a": "\xff"}']})
    assert parse_json(binary, keep=False).rows() == [("1", None), ("\ufffd", LATIN)]


def test_names_of_the_new_columns() -> None:
    """A prefix goes before, a taken name gets a suffix, the error column can be named."""
    parsed = parse_json(frame('{"data": 1, "é \\"": 2, "": 3}'), prefix="j_", error="why")
    assert parsed.columns == ["data", "j_data", 'j_é "', "j_", "why"]
    assert parse_json(frame('{"data": 1, "data_json": 2}')).columns == ["data", "data_json", "data_json_json", "error"]
    assert parse_json(frame('{"a\\nb": 1}', '{"a\\nb": 2, "c": null}'), keep=False).rows() == [
        (1, None, None),
        (2, None, None),
    ]


def test_a_name_with_a_nul_is_left_out() -> None:
    """Arrow would cut such a name; it is no column, and the warning names it."""
    with pytest.warns(UserWarning, match="new field"):
        assert columns('{"": 1, "\\u0000": 2, "o": {"\\u0000": 1}}') == {
            "": [1],
            "o": ['{"\\u0000": 1}'],
            "error": [None],
        }


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: parse_json(frame("{}"), "dat"), "did you mean 'data'"),
        (lambda: parse_json(pl.DataFrame({"data": [1]})), "holds Int64"),
        (lambda: parse_json(frame("{}").lazy()), "collect"),
        (lambda: parse_json(["{}"]), "a list is not a table"),
        (lambda: parse_json(frame("{}"), schema={"a": pl.Datetime}), "a cannot be Datetime"),
        (lambda: parse_json(frame("{}"), schema={"a": pl.List(pl.Struct({}))}), r"a\[\] cannot be"),
        (lambda: parse_json(frame("{}"), schema={"a\0": pl.Int64}), "NUL"),
        (lambda: parse_json(frame("{}"), schema=5), "5 is not a schema"),  # type: ignore[call-overload]
        (lambda: parse_json(frame("{}"), sample=0), "sample=0"),
        (lambda: parse_json(frame("{}"), max_fields=0), "max_fields=0"),
        (lambda: parse_json(frame("{}").with_columns(error=1)), 'error="..."'),
        (lambda: parse_json(frame("{}"), colum="data"), "did you mean 'column'"),  # type: ignore[call-overload]
    ],
)
def test_wrong_calls_are_told(call: Any, said: str) -> None:
    """What the caller got wrong is an error with a hint."""
    with pytest.raises(kn.KinesisError, match=said):
        call()


def test_a_schema_says_what_it_saw() -> None:
    """Presence is a share of the enclosing objects; types are counted; conflicts say why."""
    schema = infer_schema(
        [
            '{"id": 1, "o": {"x": 1}}',
            '{"id": "a", "o": {}, "l": [{"p": 1}, {"p": 2, "q": 1}]}',
            "{",
            None,
            '{"n": null, "e": {}}',
        ]
    )
    assert (schema.rows, schema.malformed, repr(schema)) == (4, 1, "<Schema: 8 fields from 4 rows, 1 malformed>")
    table = {row["field"]: row for row in schema.to_polars().to_dicts()}
    assert table["id"] == {
        "field": "id",
        "dtype": "String",
        "presence": pytest.approx(2 / 3),
        "types": "int 1, string 1",
        "conflict": "int or string",
    }
    assert (table["o.x"]["presence"], table["l"]["presence"]) == (0.5, pytest.approx(1 / 3))
    assert (table["l[].p"]["presence"], table["l[].q"]["presence"]) == (1.0, 0.5)
    assert (table["n"]["dtype"], table["n"]["types"]) == ("String", "null 1")
    assert table["e"]["conflict"] == "object with 0 names"
    assert "67%" in schema._repr_html_()
    assert "<b>" not in infer_schema(['{"<b>": 1}'])._repr_html_()


def test_a_schema_stays_small() -> None:
    """Objects used as maps and what is nested very deep become text; too many fields are cut to the most frequent."""
    many = json.dumps({f"k{n}": n for n in range(MAX_FIELDS + 1)})
    mapped = infer_schema([f'{{"m": {many}}}'])
    assert mapped.dtype == pl.Struct({"m": pl.String})
    assert mapped.fields[0].conflict == "object with 501 names, more than max_fields=500"
    assert columns(f'{{"m": {many}}}')["m"] == [many]
    top = infer_schema([many, '{"last": 1}', '{"last": 2}'])
    assert len(top.dtype.fields) == MAX_FIELDS
    assert "last" in {field.name for field in top.dtype.fields}
    deep = '{"a":' * 40 + "1" + "}" * 40
    value = columns(deep)["a"][0]
    for _ in range(MAX_DEPTH - 2):
        value = value["a"]
    assert json.loads(value["a"]) == json.loads('{"a":' * (40 - MAX_DEPTH) + "1" + "}" * (40 - MAX_DEPTH))


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
NAMES = st.sampled_from(["a", "b", "data", "error", ""]) | st.text(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)
TEXTS = (
    st.none() | OBJECTS.map(json.dumps) | VALUES.map(json.dumps) | st.text() | OBJECTS.map(lambda o: json.dumps(o)[:-2])
)


def same(value: Any, dtype: Any, written: Any) -> bool:
    """Whether a value in a column is what was written, as far as the column's type allows."""
    match dtype:
        case pl.Struct() if isinstance(value, dict):
            fields = {field.name: field.dtype for field in dtype.fields}
            return all(same(value[name], kind, written.get(name)) for name, kind in fields.items())
        case pl.List() if isinstance(value, list):
            return len(value) == len(written) and all(
                same(v, dtype.inner, w) for v, w in zip(value, written, strict=True)
            )
        case pl.String() if isinstance(value, str):
            return value == written or json.loads(value) == written
        case pl.Float64() if isinstance(value, float):
            return math.isclose(value, written, rel_tol=0) or value == float(written)
        case _:
            return isinstance(value, bool) == isinstance(written, bool) and value == written


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=8), st.sampled_from([None, 1, 3]))
def test_any_text_at_all(texts: list[str | None], sample: int | None) -> None:
    """Whatever the rows hold: nothing is raised, no row is lost, and good rows are what json.loads gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = parse_json(frame(*texts), keep=False, sample=sample, explode=False, error="reason")
    assert len(parsed) == len(texts)
    types = list(parsed.schema.items())[:-1]
    for text, (*values, error) in zip(texts, parsed.iter_rows(), strict=True):
        if error is None and text is not None:
            written = json.loads(text)
            written = written[0] if isinstance(written, list) else written  # an array of one object is that object
            assert all(same(value, kind, written.get(name)) for (name, kind), value in zip(types, values, strict=True))
        elif sample is None and text is not None:
            assert set(values) <= {None}
            assert not is_object(text)
        if text is None:
            assert set(values) <= {None}


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=lambda name: int(name, 0)), dict)
    except (ValueError, RecursionError):
        return False


def test_a_date_of_a_given_schema() -> None:
    """Text in ISO 8601 becomes a date, within lists and objects too; anything else is null, and `error` says so."""
    rows = ['{"day": "2026-11-30", "days": ["2024-02-29", null], "o": {"d": "0001-01-01"}}']
    rows += ['{"day": null}', "{}", '{"day": "2026-02-30"}', '{"day": 20261130}', '{"day": "2026-11-30T00:00:00Z"}']
    schema = {"day": pl.Date, "days": pl.List(pl.Date), "o": pl.Struct({"d": pl.Date})}
    parsed = kn.parse_json(pl.DataFrame({"data": rows}), schema=schema, keep=False)
    assert parsed.schema["day"] == pl.Date
    assert parsed["day"].to_list() == [date(2026, 11, 30), None, None, None, None, None]
    assert parsed.row(0) == (date(2026, 11, 30), [date(2024, 2, 29), None], {"d": date(1, 1, 1)}, None)
    assert parsed["error"].to_list()[1:3] == [None, None]
    assert parsed["error"].to_list()[3:] == [
        "day: string does not fit Date",
        "day: int does not fit Date",
        "day: string does not fit Date",
    ]
    pandas = kn.parse_json(pd.DataFrame({"data": rows}), schema=schema, keep=False)
    assert pandas["day"].tolist()[0] == date(2026, 11, 30)
