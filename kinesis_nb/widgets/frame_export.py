"""The export of a frame in the background: `export_df` waits for its end, and a form must not."""

from __future__ import annotations

import threading
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.core import interrupt
from kinesis_nb.errors import Closed

if TYPE_CHECKING:
    from kinesis_nb.exporting.report import ExportReport
    from kinesis_nb.source import Source
    from kinesis_nb.widgets.code import Arguments

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FrameStatus:
    """A moment of the export of a frame.

    Attributes
    ----------
    state
        ``running``, ``ended``, ``stopped`` or ``failed``.
    rows, total
        Written by this run; in the frame, None when nobody knows before the end.
    report
        None while it runs.
    """

    state: str
    rows: int
    total: int | None
    report: ExportReport | None


class FrameExport:
    """An export of a frame, running when you get it.

    Parameters
    ----------
    options
        Of :meth:`~kinesis_nb.source.Source.export_df`.
    """

    def __init__(self, source: Source, frame: object, arn: str, options: Arguments) -> None:
        self.report: ExportReport | None = None
        self._source, self._frame, self._arn, self._options = source, frame, arn, options
        self._rows = 0
        self._error: BaseException | None = None
        self._stopping, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="kinesis_nb export of a frame", daemon=True).start()

    def rest(self) -> FrameExport:
        """Start again with what is not settled."""
        return FrameExport(self._source, self._frame, self._arn, {**self._options, "resume": self.report})

    def _run(self) -> None:
        try:
            self.report = self._source.export_df(self._frame, self._arn, **self._options, progress=self._progress)
        except Closed as error:
            self.report = error.report
            if self.report is not None:
                self.report.note = "stopped"
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the user, whatever it is
            self.report = getattr(error, "report", None)
            self._error = error
        finally:
            self._over.set()

    def _progress(self, rows: int) -> None:
        self._rows = rows
        if self._stopping.is_set():
            raise Closed("the export was stopped", hint="resume it to send the rest")

    def stop(self) -> None:
        """Stop after the requests under way."""
        self._stopping.set()
        interrupt.wait(self._over, _STOP_SECONDS)

    def wait(self, timeout: float | None = None, *, until_caught_up: bool = True) -> bool:  # noqa: ARG002 - as for others
        """Wait until it is over; raise what it failed with."""
        is_over = interrupt.wait(self._over, timeout)
        if self._error is not None:
            raise self._error
        return is_over

    def status(self) -> FrameStatus:
        """Return a snapshot of the export."""
        total = len(self._frame) if isinstance(self._frame, Sized) else None
        return FrameStatus(self._state(), self._rows, total, self.report if self._over.is_set() else None)

    def _state(self) -> str:
        if not self._over.is_set():
            return "running"
        if self._error is not None:
            return "failed"
        return "stopped" if self.report is None or self.report.note else "ended"

    def _repr_html_(self) -> str:
        now = self.status()
        if now.report is not None:
            return now.report._repr_html_()  # pyright: ignore[reportPrivateUsage]
        if now.total is None:
            return f"<span>{now.rows:,} rows</span>"
        bar = f'<progress max="{max(1, now.total)}" value="{now.rows}" aria-label="rows written"></progress>'
        return f"{bar} <span>{now.rows:,} of {now.total:,} rows</span>"
