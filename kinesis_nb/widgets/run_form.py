"""What the forms share that start something which runs on."""

from __future__ import annotations

import inspect
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.errors import AgentError, ConfigError
from kinesis_nb.widgets.base import Action, Field, Form, check_stream, markup
from kinesis_nb.widgets.code import Arguments, Asked, with_imports
from kinesis_nb.widgets.job_view import JobView
from kinesis_nb.widgets.secret_field import SecretField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kinesis_nb.access.credentials import Secret
    from kinesis_nb.source import Source

WATCH_SECONDS = 0.5  # between two checks whether it still runs
_NOT_SECRET = {"endpoint_url", "endpoint", "region", "allow_http", "virtual_hosted_style_request"}
_STARTING = "Starting …"
_OVER = {"ended", "stopped", "failed"}


class RunForm(Form):
    """Fields, a button that starts what they describe, and below it a view of how it goes.

    A subclass gives `_begin`, `_live_view` and `_code`. What runs has `status()`, `stop()`, `wait()` and a picture in
    HTML; without a live view, that picture is shown, and a button stops it.
    """

    def __init__(self, source: Source, fields: dict[str, Field], content: Iterable[W.Widget], name: str) -> None:
        self.source = source
        self._run: Any = None
        self._is_running = self._is_late = False  # late: starting although that was cancelled
        self._view = W.VBox()
        super().__init__(fields, content, self._buttons(), name, [self._view])

    def _buttons(self) -> list[Action]:
        stop = Action("Stop", self._stop, lambda: "" if self._is_running else "nothing is running")
        return [
            Action("Start", self.start, self._why_not_start, primary=True),
            *([] if self._has_live_view() else [stop]),
            Action("Code", lambda: self.show_code(self.to_code), lambda: self.problem),
        ]

    def _has_live_view(self) -> bool:
        """Whether what is started here has a live view, which also stops it."""
        return True

    def _why_not_start(self) -> str:
        return self.problem or ("it is running; stop it first" if self._is_running else self._why_not_again())

    def _why_not_again(self) -> str:
        return "the start that was cancelled is not over yet" if self._is_late else ""

    def start(self) -> None:
        """Start what the fields describe; returns at once."""
        self._do_start(self._begin())

    def _do_start(self, begin: Callable[[], object]) -> None:
        self.do(_STARTING, begin, self._begun, self._begun_late)

    def _cancel(self) -> None:
        self._is_late = self._is_late or self._busy == _STARTING
        super()._cancel()

    def _begun_late(self, run: object | None) -> None:
        """Show what started although that was cancelled: it may be what somebody else runs, so it is not stopped."""
        self._is_late = False
        if run is None:
            self._refresh_actions()
            return
        self._begun(run)
        self._refresh_actions()
        self.say("it had started before it was cancelled; stop it here if it is not wanted")

    def refresh(self) -> None:
        """Show what belongs to the kind of table, check all fields, and update which buttons can be clicked."""
        if "storage_options" in self.fields:
            self.fields["storage_options"].is_shown = (self.fields["table"].value or "").startswith("s3://")
        super().refresh()

    def to_code(self) -> str:
        """Return the cell that replaces the form, for a source in the variable ``source``; it asks for secrets."""
        if self.problem:
            raise ConfigError(self.problem, hint="fix it in the form")
        return with_imports(self._code())

    def _begin(self) -> Callable[[], object]:
        """Return what starts it: called in another thread, so it must not read a field."""
        raise NotImplementedError

    def _code(self) -> str:
        raise NotImplementedError

    def _live_view(self, run: Any) -> W.Widget:
        """Return what shows how it goes, if there is such a thing."""
        raise NotImplementedError

    def _stop(self) -> None:
        self.do("Stopping …", self._run.stop, lambda _: self._watch())

    def _begun(self, run: object) -> None:
        self._run, self._is_running = run, True
        self.show("")
        before, view = self._view.children, self._shows()
        self._view.children = [view]
        for old in before:
            old.close()
        self._ui.animate(self._watch, WATCH_SECONDS)

    def _shows(self) -> W.Widget:
        if not self._has_live_view():
            return markup()
        return self._live_view(self._run) if self.source.config.agents is None else JobView(self._run)

    def _watch(self) -> bool:
        """Return whether it still runs; when it does not, it can be started again."""
        (view,) = self._view.children
        try:
            status = self._run.status()
        except AgentError:  # the scheduler may be back in a moment; the view says so meanwhile
            return True
        if not self._has_live_view():
            view.value = self._run._repr_html_()
        if status is None or status.state not in _OVER:  # an agent may not have begun yet
            return True
        self._ended(status.state)
        return False

    def _ended(self, state: str) -> None:
        self._is_running = False
        self._refresh_actions()
        if state == "failed":
            self._run.wait(5, until_caught_up=False)  # raises what it failed with


def defaults(function: Callable[..., object]) -> Arguments:
    """Return the options of a function that have a default, and the default."""
    return {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not inspect.Parameter.empty
    }


def changed(values: Arguments, usual: Arguments) -> Arguments:
    """Return the values that are not the default."""
    return {name: value for name, value in values.items() if value != usual[name]}


def position(text: str) -> StartingPosition:
    """Read a start or an end as a user may write it, for the clock of this machine."""
    with warnings.catch_warnings():  # half a date has no time zone yet; what is used says so
        warnings.simplefilter("ignore")
        return StartingPosition.parse(text, datetime.now(UTC))


def stream_field(source: Source, stream: str = "") -> Field:
    """Return a field for one of the streams of a source."""
    control = proposals([], stream, "orders, or the ARN of another account's")
    return Field("Stream", control, lambda name: check_stream(name, source.config.region), is_required=True)


def storage_field() -> Field:
    """Return a field for the options of S3; a secret, because they may hold keys."""
    control = SecretField(placeholder="endpoint_url=https://… region=eu-west-1", masked=False)
    return Field("Storage options", control, storage_options)


def storage_options(text: Secret | None) -> dict[str, str] | None:
    """Read ``name=value name=value``; no error shows a value, for it may be secret."""
    if text is None:
        return None
    pairs = [one.partition("=") for one in text.reveal().replace(",", " ").split()]
    if not all(name and sign and value for name, sign, value in pairs):
        raise ConfigError("cannot parse the storage options", hint="write name=value, with spaces between them")
    return {name: value for name, _, value in pairs}


def in_code(options: Arguments) -> Arguments:
    """Return the options as code has them: it asks for those of the storage that may be secret."""
    if (given := options.get("storage_options")) is None:
        return options
    shown = {name: value if name in _NOT_SECRET else Asked(name) for name, value in given.items()}
    return {**options, "storage_options": shown}


def choice(options: Iterable[str], value: str) -> W.Dropdown:
    """Return a control for one of a few words."""
    return W.Dropdown(options=list(options), value=value)


def proposals(options: Iterable[str], value: str = "", placeholder: str = "") -> W.Combobox:
    """Return a control for a text with proposals."""
    return W.Combobox(value=value, options=list(options), placeholder=placeholder, ensure_option=False)
