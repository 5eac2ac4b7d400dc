"""What live views share: they send only while they are in sight, and leave a static picture when they end."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

import anywidget
import msgspec
from IPython.display import display, update_display

from kinesis_nb.display import TABLE_STYLE, plain
from kinesis_nb.errors import KinesisError, forget_frames
from kinesis_nb.text import one_line
from kinesis_nb.widgets.assets import loader, source
from kinesis_nb.widgets.base import error_html
from kinesis_nb.widgets.flow import Flow, Message
from kinesis_nb.widgets.pump import PUMP
from kinesis_nb.widgets.routing import serve_while_busy

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN_SECONDS = 1.0  # between two polls of a view that is out of sight
SHARE_SECONDS = 0.05  # between two frames of a view, for each view in sight: at most 20 frames a second for a page
SCRIPTS = f"const TABLE_STYLE = {json.dumps(TABLE_STYLE)};\n" + source("notebook.js", "live.js")
STYLES = source("live.css")


class LiveView(anywidget.AnyWidget):
    """Shows something that changes by itself.

    What it shows is sent by one thread, which serves all views (:mod:`kinesis_nb.widgets.pump`): at most 10 messages a
    second, none while the view is out of sight, none that queue. A front end that is new, after a reload of the page,
    says hello and gets everything. No data is kept in synced traits, so a notebook saved with its widget state holds
    none. When what it shows has ended, the output of the cell becomes a static picture of it.
    """

    _is_over = True  # before the first turn, and after the last
    _script: bytes

    def __init_subclass__(cls, scripts: Sequence[str] = (), styles: Sequence[str] = ()) -> None:
        """Take the scripts and styles of a view, by the names of their files; without any it has those of its base."""
        super().__init_subclass__()
        if scripts:
            text = SCRIPTS + f"const STYLES = {json.dumps(STYLES + source(*styles))};\n" + source(*scripts)
            cls._script, cls._esm = text.encode(), loader(text)

    def __init__(self) -> None:
        super().__init__()
        serve_while_busy(self)
        self._lock = threading.RLock()  # held during a turn: the pump and refresh() take turns
        self._flow = Flow()
        self._asked: deque[Message] = deque(maxlen=100)  # messages of the front end that are not handled yet
        self._replies: deque[Message] = deque(maxlen=10)
        self._pages: set[str] = set()
        self._is_new, self._last = True, b""
        self._error: BaseException | None = None
        self._is_stopping = False
        self._display_id = ""
        self._is_over = False
        self.on_msg(self._ask)
        PUMP.add(self)

    # --- what a subclass gives ---

    def _look(self, *, everything: bool) -> Message:
        """Return what has changed since the last call, or everything."""
        raise NotImplementedError

    def _is_live(self) -> bool:
        """Return whether anything can still change."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Stop what is shown; it may take a second."""
        raise NotImplementedError

    def _do(self, message: Message) -> None:
        """Handle a message of the front end; returns at once."""
        raise NotImplementedError

    def _picture(self) -> str:
        """Return the static HTML that stays."""
        raise NotImplementedError

    def _interval(self) -> float:
        """Return the seconds between two polls."""
        return 0.5

    def _release(self) -> None:
        """Release what is shown: the view is over."""

    @property
    def is_seen(self) -> bool:
        """Whether a front end shows it."""
        return self._flow.is_seen

    # --- the front end speaks, in whatever thread ---

    def _ask(self, _widget: object, message: Message, _buffers: object) -> None:
        if message.get("kind") == "left":  # the picture is in the place of the view
            self.close()
            return
        if message.get("kind") == "script":
            self.send({"kind": "script"}, [self._script])
            return
        self._asked.append(message)
        PUMP.wake(self)

    # --- the pump's thread, or refresh() ---

    def tick(self, now: float) -> float | None:
        """Do what is due; called by the pump."""
        with self._lock:
            try:
                return self._turn(now)
            except Exception as error:  # noqa: BLE001 - the pump serves others too, and the error is shown
                self.show_error(error)
                self._post(now, {})
                return HIDDEN_SECONDS

    def refresh(self) -> None:
        """Show this moment now, for a front end that does not show what threads send."""
        with self._lock:
            self._handle_all()
            self._send_frame(time.monotonic(), everything=True)

    def show_error(self, error: BaseException) -> None:
        """Show an error in the view: what happened, and what to do."""
        self._error = error
        forget_frames(error)  # they may hold keys

    def _error_lines(self) -> str:
        error = self._error
        if error is None:
            return ""
        hint = f"\nhint: {error.hint}" if isinstance(error, KinesisError) and error.hint else ""
        return f"{type(error).__name__}: {one_line(getattr(error, 'message', str(error)))}{hint}"

    def _turn(self, now: float) -> float | None:
        if self._is_over:
            return None
        self._handle_all()
        if not (self._is_stopping or self._is_live()):
            self._finish(now)
            return None
        if not self.is_seen:
            return max(HIDDEN_SECONDS, self._interval())
        if wait := self._flow.wait(now):
            return wait
        self._send_frame(now, everything=self._is_new)
        return max(self._interval(), SHARE_SECONDS * PUMP.seen(), self._flow.wait(now))

    def _handle_all(self) -> None:
        while self._asked:
            message = self._asked.popleft()
            try:
                self._handle(message)
            except KinesisError as error:
                self.show_error(error)

    def _handle(self, message: Message) -> None:
        view = str(message.get("view", ""))
        match message.get("kind"):
            case "hello":
                self._pages.add(str(message.get("page", "")))
                self._flow.show(view, is_seen=True)
                self._is_new, self._last = True, b""
            case "seen":
                self._flow.show(view, is_seen=bool(message.get("is_seen")))
            case "drawn":
                self._flow.acked(int(message.get("number", 0)))
            case "stop":
                self._error, self._is_stopping = None, True
                threading.Thread(target=self._stop_it, name="kinesis_nb stop", daemon=True).start()
            case _:
                self._error = None
                self._do(message)

    def _stop_it(self) -> None:
        try:
            self._stop()
        except Exception as error:  # noqa: BLE001 - nobody else would see it
            self.show_error(error)
        self._is_stopping = False
        PUMP.wake(self)

    def _reply(self, reply: Message) -> None:
        """Send this with the next frame."""
        self._replies.append(reply)

    def _send_frame(self, now: float, *, everything: bool) -> None:
        content = self._look(everything=everything)
        self._is_new = False
        self._post(now, content)

    def _post(self, now: float, content: Message) -> None:
        packed = msgspec.json.encode(content | {"error": self._error_lines()})
        if packed == self._last and not self._replies:
            return
        number, wants_reply = self._flow.sent(now)
        head = {"kind": "frame", "number": number, "answer": wants_reply, "replies": list(self._replies)}
        head["model"] = self.model_id  # by which the page finds the output
        self._replies.clear()
        self._last = packed
        self.send(head, [packed])

    def _finish(self, now: float) -> None:
        self._is_over = True
        self._release()
        if self._display_id and len(self._pages) < 2:  # noqa: PLR2004 - one page, which knows the output by its id
            update_display(self._picture_bundle(), raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
            self.close()
            return
        self._send_frame(now, everything=True)
        if (
            self._display_id
        ):  # a page that was loaded again does not, but it finds the output by the widget that is in it
            self.send({"kind": "leave", "model": self.model_id, "picture": self._picture_bundle()})

    def close(self) -> None:
        """Remove the view from the page; what it shows continues to run."""
        if not self._is_over:
            self._is_over = True
            self._release()
        super().close()

    # --- the output of the cell ---

    def _picture_bundle(self) -> dict[str, str]:
        html = self._picture() + (error_html(self._error) if self._error else "")
        return {"text/html": html, "text/plain": plain(repr(self))}

    def _ipython_display_(self) -> None:
        with self._lock:
            if self._is_over or not self._is_live():
                display(self._picture_bundle(), raw=True)  # type: ignore[no-untyped-call]
                return
            self._display_id = self._display_id or uuid.uuid4().hex
            bundle = self._repr_mimebundle_()
            data = bundle[0] if isinstance(bundle, tuple) else bundle or {}
            whole = data | self._picture_bundle()
            display(whole, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
