"""Any JSON value, through `parse_json` and an export, is in the stream as it was written; else something says why."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kinesis_nb as kn

if TYPE_CHECKING:
    from tests.conftest import Streams

EDGES = [2**24 + 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**53) - 1, -(2**63), -(2**63) - 1, 2**64, 10**40]
INTEGERS = st.integers(-9, 9) | st.integers(-(2**66), 2**66) | st.sampled_from(EDGES)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.5, -0.0, 1e22, 5e-324])
DECIMALS = st.sampled_from(["12345678901234567.89", "0.1234567890123456789", f"{2**53 + 1}.0", "1e400", "-1e-400"])
NUMBERS = INTEGERS | FLOATS
NAMES = st.sampled_from(["a", "b", "c", "", "x.y"]) | st.text(max_size=3)


def rows_of(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    )
    nested = st.fixed_dictionaries({"l": st.lists(numbers | st.none(), max_size=3)})
    kinds = st.dictionaries(NAMES, values, max_size=4), st.fixed_dictionaries({"n": numbers, "o": nested})
    return st.one_of(*(st.lists(kind, min_size=1, max_size=6) for kind in kinds))


# behind the sample, a fraction is the nearest double
CALLS = st.tuples(rows_of(NUMBERS | DECIMALS.map(Decimal)), st.none()) | st.tuples(rows_of(NUMBERS), st.just(1))
numbered = count()


def written(value: Any) -> str:
    """Return JSON text in which a Decimal is a number with all its digits."""
    match value:
        case Decimal():
            return str(value)
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)}: {written(member)}" for name, member in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case _:
            return json.dumps(value)


def loaded(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def same(sent: Any, original: Any, *, is_told: bool) -> bool:
    """Whether what was sent is what was written: null is as good as nothing, and JSON text as what it says.

    Where a warning told that something is left out, nothing may be there instead.
    """
    if sent is None or original is None:
        return original is None or is_told
    if isinstance(sent, dict) and isinstance(original, dict):
        return all(same(sent.get(name), original.get(name), is_told=is_told) for name in {*sent, *original})
    if isinstance(sent, list) and isinstance(original, list):
        return len(sent) == len(original) and all(
            same(one, other, is_told=is_told) for one, other in zip(sent, original, strict=True)
        )
    if isinstance(sent, str):
        return sent == original or (not isinstance(original, str) and loaded(sent) == loaded(written(original)))
    numbers = (int, Decimal)
    return isinstance(sent, bool) == isinstance(original, bool) and (
        sent == original and isinstance(sent, numbers) and isinstance(original, numbers)
    )


@pytest.mark.parametrize("library", [pl, pd], ids=["polars", "pandas"])
def test_any_json_comes_out_as_it_went_in(source: kn.Source, streams: Streams, library: Any) -> None:
    """What is parsed without an `error`, exported and read again is equal to the last digit."""
    seen: Counter[str] = Counter()

    everything: Any = list(HealthCheck)  # whose metaclass has an iterator of its own

    @settings(max_examples=60, deadline=None, suppress_health_check=everything)
    @given(CALLS)
    def check(call: tuple[list[dict[str, Any]], int | None]) -> None:
        rows, sample = call
        texts = [written(row) for row in rows]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            parsed = kn.parse_json(
                library.DataFrame({"data": texts}), keep=False, sample=sample, prefix="j", error="reason"
            )
        reasons = [reason if isinstance(reason, str) else None for reason in parsed["reason"]]
        keys = [f"{n}" for n in range(len(rows))]
        frame = (
            parsed.assign(key=keys).drop(columns="reason")
            if library is pd
            else parsed.with_columns(key=pl.Series(keys)).drop("reason")
        )
        stream = f"orders-{next(numbered)}"
        source.export_df(frame, streams.create(stream), partition_column="key", progress=False)
        sent = {record.partition_key: loaded(record.data) for record in source.read(stream, progress=False)}
        for key, text, reason in zip(keys, texts, reasons, strict=True):
            seen["told" if reason else "equal"] += 1
            found = {name[1:]: value for name, value in sent[key].items() if name != "key"}
            assert reason or same(found, loaded(text), is_told=bool(told)), (text, sent[key])
        streams.call("DeleteStream", StreamName=stream)

    check()
    assert seen["equal"] > seen["told"]
