"""One response is decoded at a time, and a few wait for it."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from kinesis_nb.wire.decoding import Decoding
from tests.reading.test_reader_rules import until

LONG = 60.0
MOST = 2.0  # so long a call has to wait, where it has to


def test_one_at_a_time() -> None:
    """Whoever has a response too waits until the first one is decoded."""
    decoding, came, inside = Decoding(), threading.Event(), threading.Event()

    def decode() -> None:
        came.set()
        with decoding.alone():
            inside.set()

    thread = threading.Thread(target=decode)
    with decoding.alone():
        thread.start()
        assert came.wait(LONG)
        assert not inside.wait(0.05)
    assert inside.wait(LONG)
    thread.join()


class Seconds:
    """A clock that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def room(decoding: Decoding) -> int:
    """Return how many calls can be made at the same time before one has to wait."""
    with ExitStack() as calls:
        for count in range(20):
            asked = threading.Event()
            thread = threading.Thread(target=lambda asked=asked: _ask(decoding, asked), daemon=True)
            thread.start()
            if not asked.wait(MOST / 4):  # long enough for a thread to begin on a busy machine
                calls.close()
                assert asked.wait(LONG)
                thread.join()
                return count
            thread.join()
            calls.enter_context(decoding.call())
    raise AssertionError("no call had to wait")


def _ask(decoding: Decoding, asked: threading.Event) -> None:
    with decoding.call():
        asked.set()


def answer(decoding: Decoding, clock: Seconds, *, after: float, takes: float) -> None:
    """Let a response come so long after the last one, and be decoded."""
    clock.now += after
    with decoding.alone():
        clock.now += takes


def test_no_more_is_asked_for_than_is_decoded() -> None:
    """Whoever wants the next response waits until one that was asked for is decoded."""
    assert room(Decoding(least=1, most_wait=MOST)) == 1
    assert room(Decoding(least=3, most_wait=MOST)) == 3


def test_a_call_that_failed_leaves_room() -> None:
    """It counts as long as it is on its way."""
    decoding = Decoding(least=1, most_wait=MOST)
    for _ in range(3):
        with pytest.raises(OSError, match="reset"), decoding.call():
            raise OSError("reset")
    assert room(decoding) == 1


def widen(decoding: Decoding, clock: Seconds, calls: int) -> None:
    """Let a response come from far away while so many calls are on their way."""
    with ExitStack() as made:
        for _ in range(calls):
            made.enter_context(decoding.call())
        answer(decoding, clock, after=0.05, takes=0.01)
    assert room(decoding) == calls + 1


@pytest.mark.slow
def test_more_is_asked_for_when_the_service_is_far_away() -> None:
    """A decoder that waits for longer than it works gets one more call each time; one that is busy does not."""
    clock = Seconds()
    decoding = Decoding(least=2, most_wait=MOST, clock=clock)
    for calls in (2, 3, 4):
        widen(decoding, clock, calls)
    with decoding.call(), decoding.call(), decoding.call(), decoding.call(), decoding.call():
        answer(decoding, clock, after=0.01, takes=0.05)
    assert room(decoding) == 5


def test_calls_that_nobody_had_to_wait_for_make_no_room() -> None:
    """An idle stream is not a service that is far away: what it asks for now and then says nothing."""
    clock = Seconds()
    decoding = Decoding(least=2, most_wait=MOST, clock=clock)
    for _ in range(50):
        with decoding.call():
            answer(decoding, clock, after=1.0, takes=0.001)
    assert room(decoding) == 2


@pytest.mark.slow
def test_less_is_asked_for_when_answers_pile_up() -> None:
    """As many calls fewer, each time, as there are responses that wait behind the next one; but never less than two."""
    clock = Seconds()
    decoding = Decoding(least=2, most_wait=MOST, clock=clock)
    for calls in range(2, 10):
        widen(decoding, clock, calls)
    for expected in (4, 2):  # 10 - 3 - 2 - 1
        pile_up(decoding, clock, 4)
        assert room(decoding) == expected


def test_nobody_comes_while_there_is_no_room() -> None:
    """After responses piled up, calls that end leave no place to those that wait until few enough are on their way."""
    clock = Seconds()
    decoding = Decoding(cores=1, least=1, most_wait=0.05, clock=clock)
    for count in (1, 2):
        widen(decoding, clock, count)
    with ExitStack() as ends:
        calls = [ends.enter_context(ExitStack()) for _ in range(3)]
        for call in calls:
            call.enter_context(decoding.call())
        pile_up(decoding, clock, 4)
        asked = threading.Event()
        thread = threading.Thread(target=_ask, args=(decoding, asked), daemon=True)
        thread.start()
        for call in calls[:2]:
            call.close()
            assert not asked.wait(0.15)  # the clock stands still: for this class somebody has just gone
        calls[2].close()
        assert asked.wait(LONG)
    thread.join()


def pile_up(decoding: Decoding, clock: Seconds, count: int) -> None:
    """Let so many responses wait behind one."""
    threads = [threading.Thread(target=lambda: answer(decoding, clock, after=0, takes=0)) for _ in range(count)]
    with decoding.alone():
        for thread in threads:
            thread.start()
        until(lambda: decoding._responses == count + 1)
    for thread in threads:
        thread.join()


def test_a_call_that_stands_still_holds_nobody_back_for_long() -> None:
    """The wait ends by itself: no shard depends on the response of another one."""
    decoding, asked = Decoding(least=1, most_wait=0.01), threading.Event()
    thread = threading.Thread(target=_ask, args=(decoding, asked), daemon=True)
    with decoding.call():
        thread.start()
        assert asked.wait(LONG / 10)
    thread.join()
