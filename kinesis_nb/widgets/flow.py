"""How much a view may send: what its front end has drawn, and whether it is in sight."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
"""What a view and its front end say to each other, as JSON; what a name holds is described where it is made."""

WINDOW = 5  # frames between two acknowledgements: one for each frame would cost the kernel two status messages each
BETWEEN = 0.1  # seconds between two messages, so at most 10 a second
PATIENCE, MOST_PATIENCE = 2.0, 60.0  # seconds without an acknowledgement after which one frame is tried


class Flow:
    """Whether a frame may be sent now. Pure: the time is given.

    A front end that is slow slows the view, and nothing queues. One that is gone, or a kernel that is busy and reads no
    messages, is sent a frame now and then, ever more rarely, to see whether it is back.
    """

    def __init__(self) -> None:
        self._sent = self._acked = 0
        self._last = float("-inf")
        self._patience = PATIENCE
        self._seen: set[str] = set()  # views on a page that are in sight

    @property
    def is_seen(self) -> bool:
        """Whether a front end shows the view."""
        return bool(self._seen)

    def show(self, view: str, *, is_seen: bool) -> None:
        """Take note that a view on a page came into sight, or left it."""
        if is_seen:
            self._seen.add(view)
            self.acked(self._sent)
        else:
            self._seen.discard(view)

    def acked(self, number: int) -> None:
        """Take note that a frame was drawn."""
        self._acked = max(self._acked, min(number, self._sent))
        self._patience = PATIENCE

    def wait(self, now: float) -> float:
        """Return in how many seconds a frame may be sent; 0 for now."""
        pause = BETWEEN if self._sent - self._acked < WINDOW else self._patience
        return max(0.0, self._last + pause - now)

    def sent(self, now: float) -> tuple[int, bool]:
        """Take note of a frame; return its number, and whether it asks for an acknowledgement."""
        if self._sent - self._acked >= WINDOW:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self._sent += 1
        self._last = now
        return self._sent, self._sent % WINDOW == 0 or self._sent - self._acked >= WINDOW
