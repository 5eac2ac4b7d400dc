"""One answer is decoded at a time, and a few wait for it."""

from __future__ import annotations

import threading

from kinesis_nb.service.decoding import Decoding

LONG = 60.0


def test_one_at_a_time() -> None:
    """Whoever has an answer too waits until the first one is decoded."""
    decoding, came, inside = Decoding(), threading.Event(), threading.Event()

    def decode() -> None:
        came.set()
        with decoding:
            inside.set()

    thread = threading.Thread(target=decode)
    with decoding:
        thread.start()
        assert came.wait(LONG)
        assert not inside.wait(0.05)
    assert inside.wait(LONG)
    thread.join()


def test_nothing_is_asked_for_while_enough_answers_wait() -> None:
    """Whoever wants the next answer waits until one of those that are here is decoded."""
    decoding, asked = Decoding(enough=1, most_wait=LONG), threading.Event()
    began = threading.Event()

    def ask() -> None:
        began.set()
        decoding.wait_for_room()
        asked.set()

    thread = threading.Thread(target=ask)
    with decoding:
        thread.start()
        assert began.wait(LONG)
        assert not asked.wait(0.05)
    assert asked.wait(LONG)
    thread.join()


def test_nobody_waits_while_there_is_room() -> None:
    """One answer that is being decoded holds nobody back when two keep the decoder busy."""
    decoding = Decoding(enough=2, most_wait=LONG)
    with decoding:
        decoding.wait_for_room()
    decoding.wait_for_room()


def test_a_decoder_that_stands_still_holds_nobody_back_for_long() -> None:
    """The wait ends by itself: no shard depends on the answer of another one."""
    decoding = Decoding(enough=1, most_wait=0.01)
    with decoding:
        decoding.wait_for_room()
