"""The LazyFrame of a table in S3: what polars makes of it, and where the keys are not."""

from __future__ import annotations

import pickle
import traceback
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest

import kinesis_nb as kn
from kinesis_nb.table import lazy
from kinesis_nb.table.schema import TABLE_SCHEMA
from kinesis_nb.table.storage import Storage
from tests.support import servers
from tests.support.places import Place
from tests.support.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "CANARY/secret+key0123456789"
QUERIES: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "all": lambda rows: rows,
    "count": lambda rows: rows.select(pl.len()),
    "columns": lambda rows: rows.select("data", "shard_offset"),
    "a predicate": lambda rows: rows.filter(pl.col("shard_offset") > 40),
    "a predicate on another column": lambda rows: rows.filter(pl.col("shard_offset") % 3 == 0).select("data"),
    "a predicate in Python": lambda rows: rows.filter(
        pl.col("data").map_elements(lambda text: len({*text}) > 5, return_dtype=pl.Boolean)
    ),
    "the first": lambda rows: rows.head(7),
    "the last": lambda rows: rows.tail(3),
    "a slice of a predicate": lambda rows: rows.filter(pl.col("shard_offset") > 9).slice(2, 30),
    "nothing": lambda rows: rows.filter(pl.col("shard_offset") < 0),
    "itself": lambda rows: rows.join(rows, on="shard_offset").select("data", "data_right").sort("data"),
}


def filled(place: Place, files: int = 5, rows: int = 20) -> Storage:
    """Write a table of some files, with rows numbered through."""
    table = place.open()
    table.acquire(["s0"])
    for number in range(files):
        append(table.storage, number * rows, rows)
    return table.storage


def append(storage: Storage, first: int, rows: int) -> None:
    numbers = range(first, first + rows)
    columns = {"data": [f"text {number}" for number in numbers], "shard_offset": list(numbers)}
    filled = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in TABLE_SCHEMA
    ]
    pl.DataFrame(pa.table(filled, schema=TABLE_SCHEMA)).write_delta(
        storage.open(), mode="append", storage_options=storage.options() or None
    )


@pytest.fixture(scope="module")
def s3(ministack: str) -> Place:
    """A table in S3, which five commits filled."""
    address, options = servers.bucket(ministack)
    place = Place(f"{address}/t", options)
    filled(place)
    return place


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_it_is_a_scan_like_any_other(s3: Place, query: Callable[[pl.LazyFrame], pl.LazyFrame], engine: str) -> None:
    """Every query gives what polars' own scan of the table gives, in the same order."""
    ours = query(lazy.scan(s3.storage)).collect(engine=engine)  # type: ignore[call-overload]
    assert ours.equals(query(s3.storage.scan()).collect())


def test_what_is_not_wanted_is_not_read(s3: Place) -> None:
    """Columns and predicates go down into the scan, so that files are left out and columns stay where they are."""
    seen: list[str] = []

    def before(_method: str, path: str, _condition: bool) -> int:  # noqa: FBT001 - as the proxy calls it
        seen.append(path)
        return 0

    proxy = S3Proxy(s3.options["endpoint_url"], before=before)
    with proxy.open() as url:
        rows = lazy.scan(Storage(s3.uri, lambda: {**s3.options, "endpoint_url": url}))
        plan = rows.filter(pl.col("shard_offset") >= 80).select("shard_offset").explain()
        assert "PROJECT 1/" in plan
        seen.clear()
        assert rows.filter(pl.col("shard_offset") >= 80).select("shard_offset").collect().height == 20
    assert len({path for path in seen if path.endswith(".parquet")}) == 1


def test_a_version_stays(s3: Place, ministack: str) -> None:
    """A LazyFrame gives the rows of the version that it was made of, whatever is committed after that."""
    address, options = servers.bucket(ministack)
    storage = filled(Place(f"{address}/t", options), files=1)
    rows, first = lazy.scan(storage), storage.open().version()
    append(storage, 20, 5)
    assert rows.collect().height == 20
    assert lazy.scan(storage).collect().height == 25
    assert lazy.scan(storage, first).collect().height == 20


def test_keys_are_asked_for_when_they_are_needed(s3: Place) -> None:
    """A LazyFrame outlives the keys of the moment it was made: each collect() has those of its own moment."""
    asked: list[int] = []
    rows = lazy.scan(Storage(s3.uri, lambda: asked.append(1) or s3.options))  # type: ignore[func-returns-value]
    before = len(asked)
    rows.collect()
    rows.collect()
    assert len(asked) == before + 2


@pytest.mark.parametrize(
    "dump", [pickle.dumps, lambda rows: rows.serialize(), lambda rows: rows.filter(pl.col("data") == "x").serialize()]
)
def test_it_does_not_travel(s3: Place, dump: Callable[[pl.LazyFrame], object]) -> None:
    """It is not pickled, and says what to do instead; its plan shows no key."""
    rows = lazy.scan(Storage(s3.uri, lambda: {**s3.options, "secret_access_key": KEY}))
    with pytest.raises(
        pl.exceptions.ComputeError, match=r"is not pickled: collect it first, or .* pl\.scan_delta"
    ) as no:
        dump(rows)
    assert KEY not in f"{rows!r} {rows.explain()} {rows.explain(optimized=False)} {rows._repr_html_()} {no.value}"


def test_a_folder_is_scanned_by_polars_alone(tmp_path: Path) -> None:
    """Where there is no key, nothing stands between polars and the files; such a scan may travel."""
    storage = filled(Place(str(tmp_path / "t")))
    rows = lazy.scan(storage)
    assert "PYTHON" not in rows.explain()
    assert pickle.loads(pickle.dumps(rows)).collect().equals(storage.scan().collect())


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_failure_is_one_of_ours(s3: Place, engine: str) -> None:
    """What goes wrong when it is collected is told in two lines, and nothing on the way there holds a key."""
    refused = S3Proxy(s3.options["endpoint_url"], before=lambda _method, path, _if: 403 * path.endswith(".parquet"))
    with refused.open() as url:
        rows = lazy.scan(Storage(s3.uri, lambda: {**s3.options, "endpoint_url": url, "secret_access_key": KEY}))
        with pytest.raises(kn.TableError, match=r"access denied.*\nhint: the credentials need s3:ListBucket") as failed:
            rows.collect(engine=engine)  # type: ignore[call-overload]
    shown = traceback.TracebackException.from_exception(failed.value, capture_locals=True).format()
    assert KEY not in "".join(shown)
    assert failed.value.__cause__ is not None
    assert failed.value.__cause__.__traceback__ is None
