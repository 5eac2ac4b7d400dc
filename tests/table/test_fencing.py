"""Object stores that do not refuse to write over what is there cannot keep two writers apart, and get no table."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import kinesis_nb as kn
from kinesis_nb.table.checkpoints import Checkpoint
from kinesis_nb.table.storage import LEASE_FOLDER, LOG
from tests.support import servers
from tests.support.places import Place
from tests.support.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

BIG = 49590338271490256608559692538361571095921575989136588898
NOTE = f"{LEASE_FOLDER}/conditional-put"


@pytest.fixture
def place(moto: str) -> Place:
    address, options = servers.bucket(moto)
    return Place(f"{address}/some/t", options)


def behind(place: Place, url: str) -> Place:
    return Place(place.uri, place.options | {"endpoint_url": url})


def test_a_store_that_writes_over_is_refused(moto: str, place: Place) -> None:
    """Without conditional writes there is no table, with two lines that say why; nothing is said to be good."""
    proxy = S3Proxy(moto, strips=True)
    with proxy.open() as url:
        for _ in range(2):
            with pytest.raises(kn.TableError, match="no conditional writes") as refused:
                behind(place, url).open()
            assert "If-None-Match" in refused.value.hint
            assert place.storage.names() <= {LEASE_FOLDER}
            assert place.storage.names(LEASE_FOLDER) == set()
    place.open()  # the store itself is good, and the place was left empty


def test_a_store_that_does_not_know_the_condition_is_refused(moto: str, place: Place) -> None:
    """501 says that there are no conditional writes."""
    proxy = S3Proxy(moto, before=lambda *request: 501 if request[2] else 0)
    with proxy.open() as url, pytest.raises(kn.TableError, match="no conditional writes"):
        behind(place, url).open()


@pytest.mark.parametrize(
    "broken", [lambda *request: 503 if request[2] else 0, lambda method, *_: 503 * (method == "PUT")]
)
def test_an_outage_is_no_verdict(moto: str, place: Place, broken: Callable[[str, str, bool], int]) -> None:
    """A store that cannot be reached now is neither good nor bad; the next try finds out."""
    proxy = S3Proxy(moto, before=broken)
    with proxy.open() as url:
        with pytest.raises(OSError, match=r"."):
            behind(place, url).storage.check_fencing()
        assert place.storage.read(NOTE) is None
        proxy.before = lambda *_: 0
        behind(place, url).storage.check_fencing()
    assert place.storage.read(NOTE) is not None


def test_it_is_asked_once(moto: str, place: Place) -> None:
    """The verdict is kept with the table, for the endpoint that it is of; another one is asked for itself."""
    proxy = S3Proxy(moto)
    with proxy.open() as url:
        behind(place, url).open()
        asked = len(proxy.seen)
        behind(place, url).storage.check_fencing()
        assert [line.partition(" ")[0] for line in proxy.seen[asked:]] == ["HEAD", "GET"]
    bad = S3Proxy(moto, strips=True)
    with bad.open() as url, pytest.raises(kn.TableError, match="no conditional writes"):
        behind(place, url).open()
    assert place.open().version == 0


def test_an_old_table_is_asked_too(moto: str, place: Place) -> None:
    """A table from before there were verdicts is opened when its store is good, and not when it is not."""
    place.open()
    files, root = place.storage._file_system()
    files.delete_file(f"{root}/{NOTE}")
    with S3Proxy(moto, strips=True).open() as url, pytest.raises(kn.TableError, match="no conditional writes"):
        behind(place, url).open()
    assert place.storage.read(NOTE) is None
    assert place.open().version == 0
    assert place.storage.read(NOTE) is not None


def test_a_folder_is_not_asked(tmp_path: object) -> None:
    """A file system keeps writers apart by itself."""
    place = Place(f"{tmp_path}/t")
    place.open()
    assert not place.storage.has("_kinesis_nb/conditional-put")


@pytest.mark.parametrize("is_good", [True, False])
def test_a_stalled_request_during_a_take_over(moto: str, place: Place, *, is_good: bool) -> None:
    """It undoes the take-over in a store without conditional writes, which is refused; in any other it is fenced."""
    stalled, go_on = threading.Event(), threading.Event()

    def stall(*request: Any) -> int:
        _, path, is_conditional = request
        if is_conditional and path.endswith(f"t/{LOG}/{2:020d}.json") and not stalled.is_set():
            stalled.set()
            assert go_on.wait(60)
        return 0

    proxy = S3Proxy(moto, strips=not is_good)
    with proxy.open() as url, ThreadPoolExecutor(1) as pool:
        there = behind(place, url)
        if not is_good:
            with pytest.raises(kn.TableError, match="no conditional writes"):
                there.open()
            proxy.strips = False  # as if nobody had asked
        old, new = there.open(), there.open()
        proxy.strips, proxy.before = not is_good, stall
        old.acquire(["s"])
        late = pool.submit(old.commit, None, {"s": Checkpoint(1, str(BIG))})
        assert stalled.wait(60)
        new.refresh()
        new.acquire(["s"])
        go_on.set()
        if is_good:
            with pytest.raises(kn.Fenced):
                late.result(60)
        else:
            assert late.result(60)  # and the new one takes the table for its own as well
        assert new.commit(None, {"s": Checkpoint(7, str(BIG + 7))})
