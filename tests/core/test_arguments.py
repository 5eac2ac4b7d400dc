"""Every parameter of every public call, given every kind of value: an error of ours, before anything is sent."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.core import types
from kinesis_nb.core.arguments import hinted
from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.errors import AgentError
from tests.conftest import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinesis_nb.emulator import Emulator

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/absent"

VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "numpy bool": np.True_,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "2**63": 2**63,
    "10**400": 10**400,
    "numpy int": np.int64(1),
    "numpy uint8": np.uint8(1),
    "half": 0.5,
    "numpy float": np.float32(0.5),
    "NaN": float("nan"),
    "infinity": float("inf"),
    "fraction": Fraction(1, 2),
    "decimal": Decimal("0.5"),
    "complex": 1j,
    "empty text": "",
    "text": "text",
    "lone surrogate": "\ud800",
    "null character": "a\x00b",
    "numpy text": np.str_("text"),
    "bytes": b"text",
    "bytearray": bytearray(b"text"),
    "path": Path("nowhere"),
    "empty list": [],
    "list of texts": ["text"],
    "list of numbers": [0],
    "list of None": [None],
    "tuple": ("text", 1),
    "set of texts": {"text"},
    "mapping": {"text": "text"},
    "mapping of numbers": {1: 2},
    "datetime": datetime(2026, 11, 1, 12, tzinfo=UTC),
    "date": datetime(2026, 11, 1, tzinfo=UTC).date(),
    "time": datetime(2026, 11, 1, tzinfo=UTC).time(),
    "timedelta": timedelta(seconds=0.01),
    "longest timedelta": timedelta.max,
    "pandas timestamp": pd.Timestamp("2026-11-01", tz="UTC"),
    "pandas timedelta": pd.Timedelta(seconds=0.01),
    "NaT": pd.NaT,
    "NA": pd.NA,
    "numpy datetime": np.datetime64("2026-11-01"),
    "numpy timedelta": np.timedelta64(1, "s"),
    "numpy array": np.array([1, 2]),
    "numpy texts": np.array(["a", "b"]),
    "object": object(),
    "class": int,
    "function": lambda *_: None,
    "module": inspect,
    "ellipsis": ...,
    "generator": (text for text in ["text"]),
    "expression": pl.col("data") == "x",
    "column name": pl.col("data"),
    "selector": pl.all(),
    "polars series": pl.Series("a", ["text"]),
    "pandas series": pd.Series(["text"]),
    "polars frame": pl.DataFrame({"a": ["text"]}),
    "lazy frame": pl.LazyFrame({"a": ["text"]}),
    "pandas frame": pd.DataFrame({"a": ["text"]}),
    "Arrow table": pa.table({"a": ["text"]}),
    "Arrow array": pa.array(["text"]),
    "Arrow scalar": pa.scalar(1),
    "position": kn.StartingPosition.trim_horizon(),
    "error": ValueError("text"),
    "secret": kn.Secret("text"),
    "records": kn.Records(pa.Table.from_pylist([{"partition_key": "k", "data": "{}"}], SCHEMA)),
}

TEXTS = {"empty text", "text", "lone surrogate", "null character", "numpy text"}
WHOLE = {"zero", "one", "minus one", "numpy int", "numpy uint8"}
REAL = WHOLE | {"half", "numpy float", "infinity", "fraction", "2**63"}
MOMENTS = {"datetime", "pandas timestamp"}
TIMES = {"timedelta", "longest timedelta", "pandas timedelta"}
MAY_FIT = {  # by the parts of an annotation
    "None": {"None"},
    "bool": {"True", "numpy bool"},
    "int": WHOLE,
    "float": REAL,
    "Seconds": REAL | TIMES,
    "str": TEXTS,
    "PathLike[str]": {"path"},
    "Callable": {"function", "class"},
    "Encode": {"function", "class"},
    "Iterable[str]": {
        "empty list",
        "list of texts",
        "set of texts",
        "numpy texts",
        "polars series",
        "pandas series",
        "generator",
    },
    "Mapping[str, str]": {"mapping"},
    "datetime": MOMENTS | {"NaT"},
    "timedelta": TIMES,
    "Position": TEXTS | MOMENTS | TIMES | {"position"},
    "StartingPosition": {"position"},
    "pl.Expr": {"expression"},
    "Secret": {"secret"},
    "SchemaLike": {"mapping"},
    "Auth": {"None"},
    "Any": set(VALUES),
    "object": set(VALUES),
}
CHOICES = {name: get_args(alias) for name, alias in vars(types).items() if get_origin(alias) is Literal}


def _may_fit(annotation: str) -> set[str]:
    parts = set(re.findall(r"Iterable\[str\]|Mapping\[str, str\]|PathLike\[str\]|[\w.]+", annotation))
    return set().union(*(MAY_FIT[part] for part in parts & MAY_FIT.keys()))


CALLS = 35  # at least so many public calls take something


class World:
    """An emulator with a stream, a source on it, and one of everything that has public calls."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        streams = Streams(emulator)
        streams.create()
        streams.create("out")
        streams.put(3)
        keys = kn.StaticCredentials("emulator", "emulator")
        self.source = kn.connect(endpoint_url=emulator.endpoint_url, auth=keys, exports_enabled=True)
        self.tail = self.source.tail("orders")
        self.tail.stop()
        self.sync = self.source.sync("orders", folder / "t")
        self.sync.wait()
        self.export = self.source.export_stream(self.sync, ARN.replace("absent", "out"))
        self.export.stop()
        self.sync.stop()
        self.view = self.source.explore("orders")
        self.catalog = self.source.explore()
        self.records = self.source.read("orders", progress=False)

    def calls(self) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
        """Return every public call that takes something, with arguments that fit; of handles, by their methods."""
        frame = pl.DataFrame({"a": ["text"]})
        fits: dict[str, dict[str, Any]] = {
            "Source.read": {"stream": "absent", "progress": False},
            "Source.tail": {"stream": "absent"},
            "Source.explore": {},
            "Source.sync": {"stream": "absent", "table": "nowhere"},
            "Source.export_df": {"df": frame, "output_stream_arn": ARN, "progress": False},
            "Source.export_stream": {"table_or_tail": "nowhere", "output_stream_arn": ARN},
            "Source.iam_policy": {"read": [ARN]},
            "Source.check": {},
            "Source.save": {"name": "text"},
            "Tail.take": {"rows": 1, "timeout": 0.01},
            "StreamView.shard_for": {"key": "k"},
            "Sync.wait": {"timeout": 0.01},
            "StreamingExport.wait": {"timeout": 0.01},
            "parse_json": {"frame": pl.DataFrame({"data": ["{}"]})},
            "StartingPosition.parse": {"value": "now", "now": datetime.now(UTC)},
            "StaticCredentials": {"access_key_id": "AKIA", "secret_access_key": "s"},
            "StsRole": {"role_arn": "arn:aws:iam::123456789012:role/r", "session_name": "me"},
        }
        handles = [self.source, self.tail, self.sync, self.export, self.view, self.catalog, self.records]
        agents = [kind.__new__(kind) for kind in (kn.Job, kn.AgentSync, kn.AgentExport)]
        for one in agents:
            vars(one).update(_process=os.getpid(), _cluster=_Away(), name="text", kind="sync")
        found: dict[str, Callable[..., Any]] = {}
        for handle in [*handles, *agents]:
            for name, method in inspect.getmembers(handle, callable) if handle not in agents else _waits(handle):
                if not name.startswith("_") and name not in {"start", "items", "keys", "values"}:
                    found[f"{type(handle).__name__}.{name}"] = method
        for name in ("at", "after", "latest", "parse"):
            found[f"StartingPosition.{name}"] = getattr(kn.StartingPosition, name)
        for name in ("connect", "parse_json", "demo", "sources", "Secret", "Profile", "StaticCredentials", "StsRole"):
            found[name] = getattr(kn, name)
        return {name: (call, fits.get(name, {})) for name, call in found.items() if inspect.signature(call).parameters}


class _Away:
    """Agents that cannot be reached."""

    def ask(self, *_: object, **__: object) -> None:
        raise AgentError("the scheduler is away", hint="start it")


def _waits(job: kn.Job) -> list[tuple[str, Any]]:
    """Return what a job of agents can be told before they are asked."""
    return [(name, getattr(job, name)) for name in ("wait", "join")]


@pytest.fixture
def world(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    yield World(emulator, tmp_path)


def _outcome(world: World, call: Callable[..., Any], arguments: dict[str, Any]) -> tuple[BaseException | None, int]:
    before = world.emulator.requests.total()
    try:
        found = call(**arguments)
    except BaseException as error:  # noqa: BLE001 - that is what is asked
        return error, world.emulator.requests.total() - before
    if hasattr(found, "stop"):
        found.stop()
    return None, world.emulator.requests.total() - before


def test_walk(world: World) -> None:
    """Each value that cannot be right is refused with an error of ours, which has a hint, and with no request."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    warnings.simplefilter("ignore")  # a moment without a time zone, for one
    for name, (call, fits) in world.calls().items():
        for parameter in inspect.signature(call).parameters.values():
            may_fit = _may_fit(str(parameter.annotation))
            for kind, value in VALUES.items():
                error, requests = _outcome(world, call, {**fits, parameter.name: value})
                what = f"{name}({parameter.name}={kind}) {type(error).__name__}: {str(error)[:90]!r}"
                is_ours = isinstance(error, kn.KinesisError)
                is_refusal = isinstance(error, kn.ConfigError | kn.UnknownOption)
                counts["refused" if is_refusal else "went on" if error is None or is_ours else "raw"] += 1
                if error is not None and not is_ours:
                    wrong.append(f"raw: {what}")
                elif is_refusal and requests and "account of stream" not in str(error):
                    wrong.append(f"after {requests} requests: {what}")
                elif isinstance(error, kn.ConfigError | kn.UnknownOption) and not error.hint:
                    wrong.append(f"no hint: {what}")
                elif not is_refusal and kind not in may_fit:
                    wrong.append(f"taken: {what}")
        counts["calls"] += 1
        counts["parameters"] += len(inspect.signature(call).parameters)
    print(dict(counts), *wrong, sep="\n")
    assert wrong == []
    assert counts["calls"] >= CALLS
    assert counts["refused"] > 15 * counts["went on"] > 0


@pytest.mark.parametrize("alias", CHOICES)
def test_a_choice_is_checked_by_its_annotation(alias: str) -> None:
    """Each choice is taken, text of another library too; anything else is refused with all that may be given."""

    def call(word: str | None = None) -> str | None:
        return word

    call.__annotations__["word"] = f"{alias} | None"
    checked = hinted(call)
    for word in CHOICES[alias]:
        assert (checked(word), checked(np.str_(word)), type(checked(np.str_(word)))) == (word, word, str)
    assert checked() is checked(None) is None
    given = re.escape(", ".join(f'"{word}"' for word in CHOICES[alias][:-1]) + f' or "{CHOICES[alias][-1]}"')
    for wrong in ("", CHOICES[alias][0].upper(), "x" * 1_000, 1, True, ["keep"], object()):
        with pytest.raises(kn.ConfigError, match=f"^word=.{{0,80}}\nhint: (use|give) {given}$"):
            checked(wrong)  # type: ignore[arg-type]


def test_no_public_call_has_a_choice_that_is_not_checked() -> None:
    """The choices of `Source` are all named by an alias, and each alias is in use."""
    members = [value for name, value in vars(kn.Source).items() if inspect.isfunction(value) and name[0] != "_"]
    parameters = [one for call in members for one in inspect.signature(call).parameters.values()]
    assert {one.annotation for one in parameters} >= set(CHOICES)
    words = {word for choices in CHOICES.values() for word in choices}
    assert [one for one in parameters if one.default in words and one.annotation not in CHOICES] == []


def test_what_libraries_have_of_the_same_kind(world: World) -> None:
    """Numbers of numpy, times as timedeltas, and a column that stands alone are taken as what they are."""
    out, export = ARN.replace("absent", "out"), partial(world.source.export_df, progress=False)
    assert len(world.source.read("orders", limit=np.int64(2), progress=np.False_)) == 2  # type: ignore[arg-type]
    tail = world.source.tail("orders", "trim_horizon", max_rows=np.int32(2), max_bytes=np.uint64(2**20))  # type: ignore[arg-type]
    assert len(tail.take(np.int64(3), timeout=timedelta(seconds=3))) >= 2  # type: ignore[arg-type]
    tail.stop()
    for column in (pl.Series("a", ["x"]), pl.Series(["x"]), pd.Series(["x"]), pa.chunked_array([["x"]])):
        assert export(column, out).rows == 1
    assert set(world.source.read("out", progress=False).to_polars()["data"]) == {'{"a":"x"}', '{"value":"x"}'}
    with pytest.warns(UserWarning, match="stopped"):
        assert world.sync.wait(timedelta(0)) is False
    sync = world.source.sync("orders", "u", commit_interval=timedelta(seconds=0.1))
    assert sync.wait(pd.Timedelta(seconds=20))
    sync.stop()


@pytest.mark.parametrize("rows", [pl.DataFrame, pa.table], ids=["polars", "Arrow"])
def test_rows_of_records(world: World, rows: Callable[[Any], Any]) -> None:
    """Rows are found by number and by slice, as those of a list; a column is no row."""
    records = kn.Records(rows(world.records.to_arrow()))
    everything = list(records)
    assert [records[0], records[np.int64(1)], records[-1]] == [everything[0], everything[1], everything[-1]]  # type: ignore[call-overload]
    for part in (
        slice(1, None),
        slice(-2, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(5, 9),
        slice(2, 1),
    ):
        assert list(records[part]) == everything[part]
    assert (list(records.head(2)), list(records.tail(2))) == (everything[:2], everything[1:])
    assert (len(records.head(0)), len(records.tail(0)), len(records.head(99)), len(records.last(99))) == (0, 0, 3, 3)
    with pytest.raises(IndexError, match="3 rows"):
        records[3]
    for which in ("data", 1.5, None, slice("a", None), slice(None, None, 0)):
        with pytest.raises(kn.ConfigError):
            records[which]  # type: ignore[index]
    with pytest.raises(kn.ConfigError, match="negative"):
        records.head(-1)
