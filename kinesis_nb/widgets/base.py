"""What all widgets share: style, error messages, and the thread that changes them."""

from __future__ import annotations

import html
import itertools
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ipywidgets as W  # noqa: N812 - short, for it is in every line
from ipywidgets.widgets.widget_string import HTMLStyle

from kinesis_nb.access.credentials import Secret
from kinesis_nb.core.names import StreamArn, check_stream_name
from kinesis_nb.display import table_html
from kinesis_nb.errors import ConfigError, KinesisError, forget_frames
from kinesis_nb.text import one_line
from kinesis_nb.widgets.code_view import CodeView
from kinesis_nb.widgets.panel_page import AGAIN, PanelPage
from kinesis_nb.widgets.routing import serve_while_busy
from kinesis_nb.widgets.ui_thread import UiThread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kinesis_nb.source import Source

T = TypeVar("T")


class Panel(W.VBox):
    """The base of our widgets: content, a status line, the last error with its hint, results.

    Parameters
    ----------
    name
        What its threads are called.
    """

    children: Sequence[W.Widget]

    def __init__(self, content: Iterable[W.Widget], name: str, found: Iterable[W.Widget] = ()) -> None:
        self._status, self._error = markup(), markup()
        self._page = PanelPage(type(self).__name__, self._cancel)
        super().__init__([*content, self._status, self._page, self._error, *found])
        self._page.panel = self.model_id
        self.add_class("knb-panel")
        serve_while_busy(self)
        self._ui = UiThread(f"kinesis_nb {name}", self.show_error)

    def _cancel(self) -> None:
        """Wait no longer for what is under way."""

    def _picture(self) -> str:
        """Return what stands in the place of the panel where no kernel serves it, as HTML; it holds no secret."""
        return table_html((), [], f"{self._page.title} · {AGAIN}")

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**options) or {}
        return {**bundle, "text/html": self._picture()}

    def say(self, text: str, *, kind: str = "quiet") -> None:
        """Show one status line; `kind` is "quiet", "right" or "wrong"."""
        self._status.value = f'<span role="status" class="knb-{kind}">{html.escape(one_line(text))}</span>' * bool(text)

    def show_error(self, error: BaseException | None) -> None:
        """Show an error below the widget: what happened, and what to do; None removes it."""
        self._error.value = "" if error is None else error_html(error)
        if error is not None:
            self.say("")
            forget_frames(error)  # they may hold keys

    def settle(self, timeout: float = 30.0) -> bool:
        """Wait until the work that a button started is done and shown; return whether it is."""
        return self._ui.settle(timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def error_html(error: BaseException) -> str:
    """Return an error as HTML: two lines for one of ours; a bug keeps its traceback, folded away."""
    name, message = type(error).__name__, getattr(error, "message", str(error))
    hint = getattr(error, "hint", "") if isinstance(error, KinesisError) else "this is a bug; please report it"
    lines = f"<b>{html.escape(name)}:</b> {html.escape(one_line(message))}"
    lines += f"<br>hint: {html.escape(hint)}" if hint else ""
    if not isinstance(error, KinesisError):
        trace = html.escape("".join(traceback.format_exception(error)))
        lines += f"<details><summary>traceback</summary><pre>{trace}</pre></details>"
    return f'<div class="knb-error" role="alert" tabindex="0">{lines}</div>'


def check_stream(stream: str, region: str) -> None:
    """Raise ConfigError for what is neither the name of a stream nor the ARN of one in this region."""
    if stream.startswith("arn:"):
        StreamArn.parse(stream, region)
    else:
        check_stream_name(stream)


def heading(label: str, level: int = 4) -> W.HTML:
    """Return a heading."""
    return markup(f"<h{level}>{html.escape(label)}</h{level}>")


_style: HTMLStyle | None = None


def markup(content: str = "", **options: object) -> W.HTML:
    """Return a control that shows HTML; all share one style, or a saved notebook would have one for each."""
    global _style  # noqa: PLW0603 - made when it is first needed, and again after all widgets were closed
    if _style is None or _style.comm is None:
        _style = HTMLStyle()
    return W.HTML(content, style=_style, **options)


_layout: W.Layout | None = None


def _usual_layout() -> W.Layout:
    """Return the layout of all controls; each with its own would be a third of a notebook saved with its widgets."""
    global _layout  # noqa: PLW0603 - as above
    if _layout is None or _layout.comm is None:
        _layout = W.Layout()
    return _layout


Check = Callable[[Any], object]
"""Raises ConfigError for what cannot be right in a control, whose type it knows."""


def _anything(value: object) -> object:
    return value


class Field(W.HBox):
    """A labelled control, and beside it what is wrong with its value.

    Parameters
    ----------
    label
        What it is called, for eyes and for screen readers.
    control
        An ipywidget with a ``value``, or a :class:`SecretField`.
    check
        Raises ConfigError for a value that cannot be right: one of the engine's own checks.
    is_required
        Whether it must be filled in while it is shown.
    """

    def __init__(self, label: str, control: Any, check: Check = _anything, *, is_required: bool = False) -> None:
        self.label, self.control, self.is_required = label, control, is_required
        self._check = check
        own, control.layout = control.layout, _usual_layout()
        own.close()
        self._mark = markup(layout=control.layout)
        self._mark.add_class("knb-mark")
        self.problem = ""
        control.description = label
        super().__init__([control, self._mark])
        self.add_class("knb-field")
        if is_required:
            self.add_class("knb-required")

    @property
    def value(self) -> Any:
        """What is in the control; None for an empty text, or when the field is not shown."""
        if not self.is_shown:
            return None
        value = self.control.secret if hasattr(self.control, "secret") else self.control.value
        return (value.strip() or None) if isinstance(value, str) else value

    @property
    def is_shown(self) -> bool:
        """Whether the field is there to be filled in."""
        return self.layout.display != "none"

    @is_shown.setter
    def is_shown(self, is_shown: bool) -> None:
        self.layout.display = None if is_shown else "none"

    @property
    def as_text(self) -> str:
        """What is in the control, as a text; of a secret only that there is one."""
        match self.value:
            case None:
                return ""
            case Secret():
                return "set"
            case bool() as value:
                return "yes" if value else "no"
            case value:
                return str(value)

    def watch(self, changed: Callable[[object], object]) -> None:
        """Call `changed` whenever the value changes."""
        self.control.observe(changed, "secret" if hasattr(self.control, "secret") else "value")

    def validate(self) -> str:
        """Mark the field, and return what is wrong with it, else an empty text."""
        self.problem, self._mark.value = self._look()
        return self.problem

    def _look(self) -> tuple[str, str]:
        value = self.value
        if value is None:
            is_missing = self.is_required and self.is_shown
            mark = '<span class="knb-quiet">required</span>' if is_missing else ""
            return (f"{self.label} is missing" if is_missing else "", mark)
        try:
            self._check(value)
        except ConfigError as error:
            return self._refused(error)
        return "", ""

    def _refused(self, error: ConfigError) -> tuple[str, str]:
        option, _, rest = error.message.partition(": ")
        message = rest if option.isidentifier() else error.message  # the label says which option it is
        hint = f'<br><span class="knb-quiet">{html.escape(error.hint)}</span>' if error.hint else ""
        mark = f'<span class="knb-wrong">✗ {html.escape(message)}</span>{hint}'
        return f"{self.label}: {message}", f'<span role="status">{mark}</span>'


class Action(W.Button):
    """A button that is disabled while there is a reason, and says so.

    Parameters
    ----------
    act
        What a click does; it must return at once.
    why_not
        Gives the reason why a click is not possible now, else an empty text.
    """

    def __init__(
        self, label: str, act: Callable[[], object], why_not: Callable[[], str], *, primary: bool = False
    ) -> None:
        super().__init__(description=label, button_style="primary" if primary else "")
        self._act, self._why_not, self.reason = act, why_not, ""
        self.layout.width, self.layout.align_self = "auto", "flex-start"
        self.on_click(lambda _button: None if self.disabled else self._act())

    def refresh(self, busy: str) -> None:
        """Update whether it can be clicked; it cannot while `busy` names something that is under way."""
        self.reason = busy or self._why_not()
        self.disabled, self.tooltip = bool(self.reason), self.reason or None


class Form(Panel):
    """Fields that are checked as you type, and buttons that say why they cannot be clicked.

    Parameters
    ----------
    fields
        By the name of the option that each of them gives.
    content
        What is shown, the fields included.
    below
        What is shown below the buttons and what they found.
    """

    def __init__(
        self,
        fields: dict[str, Field],
        content: Iterable[W.Widget],
        actions: Iterable[Action],
        name: str,
        below: Iterable[W.Widget] = (),
    ) -> None:
        self.fields, self._actions = fields, tuple(actions)
        self._busy, self._numbers = "", itertools.count(1)
        self._reason, self._result = markup(), markup()
        self._code_view: CodeView | None = None
        self._write: Callable[[], str] = str
        buttons = W.HBox(self._actions)
        buttons.add_class("knb-actions")
        super().__init__([*content, buttons, self._reason], name, [self._result, *below])
        for option, field in fields.items():
            field.watch(partial(self._heard, option))
        self.refresh()

    @property
    def problem(self) -> str:
        """The first thing that is wrong or missing, else an empty text."""
        return self.problem_of(self.fields)

    def problem_of(self, names: Iterable[str]) -> str:
        """Return the first thing that is wrong or missing in these fields: what keeps an action from using them."""
        fields = (self.fields[name] for name in names)
        return next(filter(None, (field.problem for field in fields if field.is_shown)), "")

    def _heard(self, name: str, _change: object) -> None:
        self._changed(name)

    def _changed(self, name: str) -> None:  # noqa: ARG002 - for forms that tell fields apart
        """Drop what was said of the fields as they were, and let the code that is shown follow them."""
        if not self._busy:
            self.show_error(None)
            self.say("")
        self.refresh()
        self._renew_code()

    def refresh(self) -> None:
        """Check every field, and update which buttons can be clicked."""
        for field in self.fields.values():
            field.validate()
        self._refresh_actions()

    def _refresh_actions(self) -> None:
        reasons: dict[str, list[str]] = {}
        for action in self._actions:
            action.refresh(self._busy)
            if action.reason:
                reasons.setdefault(action.reason, []).append(action.description)
        lines = [f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items() if reason != self._busy]
        text = "<br>".join(html.escape(one_line(line)) for line in lines)
        self._reason.value = f'<span role="status" class="knb-quiet">{text}</span>' if text else ""

    def show(self, found: str) -> None:
        """Show what a button found, as HTML, below the buttons."""
        self._result.value = found
        if self._code_view is not None:
            self.children = [child for child in self.children if child is not self._code_view]
            self._code_view.close()
            self._code_view = None

    def show_code(self, write: Callable[[], str]) -> None:
        """Show the code that `write` returns below the buttons; it follows the fields as long as it is shown."""
        self.show("")
        self._write, self._code_view = write, CodeView(code=write())
        place = self.children.index(self._result) + 1
        self.children = [*self.children[:place], self._code_view, *self.children[place:]]

    def _renew_code(self) -> None:
        """Update the code that is shown; there is none while a field that it needs is wrong."""
        if self._code_view is None:
            return
        try:
            self._code_view.code = self._write()
        except ConfigError:
            self._code_view.code = ""

    def do(
        self,
        saying: str,
        work: Callable[[], T],
        then: Callable[[T], object],
        late: Callable[[T | None], object] = _anything,
    ) -> None:
        """Do what may take long without holding up the kernel; meanwhile no button can be clicked but Cancel.

        Parameters
        ----------
        then, late
            One of them is given what the work returns: `late` when it was cancelled before, then None if it failed.
        """
        number = self._be_busy(saying)

        def done(found: T) -> None:
            if self._page.busy != number:
                late(found)
                return
            self._be_idle()
            then(found)
            self._refresh_actions()

        def failed(error: BaseException) -> None:
            if self._page.busy != number:
                forget_frames(error)
                late(None)
                return
            self._be_idle()
            self.show_error(error)

        self._ui.run(work, done, failed)

    def _be_busy(self, saying: str) -> int:
        """Say what is under way; return its number."""
        self._busy = saying
        self.show_error(None)
        self.say(saying)
        self._refresh_actions()
        self._page.busy = number = next(self._numbers)
        return number

    def _be_idle(self) -> None:
        self._busy, self._page.busy = "", 0
        self.say("")

    def _cancel(self) -> None:
        saying = self._busy.rstrip(" …")
        self._be_idle()
        self.say(f"cancelled: {saying}; what comes of it is not shown")
        self._refresh_actions()

    def _picture(self) -> str:
        rows = [(field.label, field.as_text) for field in self.fields.values() if field.is_shown]
        return table_html(("field", "value"), rows, f"{self._page.title} · {AGAIN}")

    def offer_streams(self, source: Source, field: str, value_of: Callable[[str], str] = str) -> None:
        """Propose the streams of a source in a field, if they may be listed; others can be written all the same."""

        def look() -> list[str]:
            try:
                return [value_of(name) for name in source.explore()]
            except KinesisError:
                return []

        def offer(names: list[str]) -> None:
            self.fields[field].control.options = names

        self._ui.run(look, offer)

    def show_error(self, error: BaseException | None) -> None:
        """Show an error below the form, which can be used again."""
        super().show_error(error)
        if error is not None:
            self._refresh_actions()
