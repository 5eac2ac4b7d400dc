"""When the answers of many shards are decoded, and asked for."""

from __future__ import annotations

import threading

ENOUGH_ANSWERS = 2
MOST_WAIT_SECONDS = 0.25


class Decoding:
    """One thread decodes at a time (``with decoding:``), and no more answers are asked for than keep it busy.

    Threads that decode at the same time fight for the GIL and take 2-3 times as long. So do, less, those that receive
    answers meanwhile, and each answer takes up to 10 MiB of memory until it is decoded.

    Parameters
    ----------
    enough
        Answers that wait for their turn or have it.
    most_wait
        Seconds after which an answer is asked for in any case: the calls that bring the next ones may be stuck.
    """

    def __init__(self, enough: int = ENOUGH_ANSWERS, most_wait: float = MOST_WAIT_SECONDS) -> None:
        self._enough, self._most_wait = enough, most_wait
        self._turn = threading.Lock()  # guards nothing
        self._changed = threading.Condition()  # guards the one below
        self._answers = 0

    def wait_for_room(self) -> None:
        """Wait while enough answers are here."""
        with self._changed:
            if self._answers >= self._enough:
                self._changed.wait(self._most_wait)

    def __enter__(self) -> None:
        with self._changed:
            self._answers += 1
        self._turn.acquire()

    def __exit__(self, *_: object) -> None:
        self._turn.release()
        with self._changed:
            self._answers -= 1
            self._changed.notify(1 if self._answers else self._enough)  # one came out, so one may come in
