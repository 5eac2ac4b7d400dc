"""A tail that is not read says so: in a word, with what happened and what to do; and its error stays when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comm
import pytest

from kinesis_nb.emulator.faults import ErrorReply, Stall
from kinesis_nb.widgets import TailView
from tests.widgets.test_views import FrontEnd, page_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import kinesis_nb as kn
    from tests.conftest import Streams


@pytest.fixture(autouse=True)
def _front_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", FrontEnd)


@pytest.fixture
def page(source: kn.Source, streams: Streams) -> Iterator[FrontEnd]:
    """The page of a view of a tail of two shards."""
    streams.create(shards=2)
    with source.tail("orders") as tail:
        view = TailView(tail)
        page = page_of(view)
        page.say("hello")
        page.wait_for(lambda frame, _: frame["now"]["state"] == "running")
        yield page
        streams.emulator.calm()
        view.close()


def _trouble(page: FrontEnd) -> dict[str, Any]:
    found: dict[str, Any] = page.wait_for(lambda frame, _: frame["now"]["banner"])["now"]
    return found


def test_an_error_that_is_retried_is_seen(page: FrontEnd, streams: Streams) -> None:
    """Every shard: the state says so, and names no lag that is not known."""
    fault = ErrorReply("InternalFailure", 500, "the disk is on fire")
    streams.emulator.chaos(seed=0, rate=1.0, faults=[fault], operations=["GetRecords"])
    now = page.wait_for(lambda frame, _: frame["now"]["trouble"] == "not reading")["now"]
    assert now["state"] == "running"
    assert now["banner"].startswith("2 of 2 shards cannot be read: ")
    assert "the disk is on fire" in now["banner"]
    assert "\nhint: nothing is lost" in now["banner"]
    shards = page.wait_for(lambda frame, _: "shards" in frame["now"] and frame["now"]["shards"][0][3] == "retrying")
    assert {(line[3], line[6]) for line in shards["now"]["shards"]} == {("retrying", "bad")}
    streams.emulator.calm()
    page.wait_for(lambda frame, _: (frame["now"]["trouble"], frame["now"]["banner"]) == ("", ""))


def test_a_throttle_is_seen_as_such(page: FrontEnd, streams: Streams) -> None:
    """It is no failure, and there is something to do about it."""
    fault = ErrorReply("ProvisionedThroughputExceededException", 400, "Rate exceeded")
    streams.emulator.chaos(seed=0, rate=1.0, faults=[fault], operations=["GetRecords"])
    now = page.wait_for(lambda frame, _: frame["now"]["trouble"] == "throttled")["now"]
    assert "share 5 calls and 2 MB a second" in now["banner"]


def test_a_response_that_does_not_come_is_seen(page: FrontEnd, streams: Streams) -> None:
    """Before the call has failed: for how long nothing was heard."""
    streams.emulator.chaos(seed=0, rate=1.0, faults=[Stall(20)], operations=["GetRecords"])
    now = page.wait_for(lambda frame, _: frame["now"]["trouble"] == "not reading")["now"]
    assert "no response for 3 s" in now["banner"]


def test_what_a_tail_failed_with_stays(source: kn.Source, streams: Streams) -> None:
    """The whole error and its hint are in the picture that is left, and no line break is written as text."""
    streams.create()
    tail = source.tail("orders")
    view = TailView(tail)
    page_of(view).say("hello")
    streams.call("DeleteStream", StreamName="orders")
    page_of(view).wait_for(lambda frame, _: frame["now"].get("state") == "failed")
    assert tail.error is not None
    picture = view._picture_bundle()
    assert "<b>StreamNotFound:</b>" in picture["text/html"]
    assert "hint: " in picture["text/html"]
    assert "u000a" not in picture["text/html"] + repr(tail)
    assert "failed" in picture["text/html"]
