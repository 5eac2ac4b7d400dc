"""What all widgets share: style, error messages, and the thread that changes them."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ipywidgets as W  # noqa: N812 - short, for it is in every line
from ipywidgets.widgets.widget_string import HTMLStyle

from kinesis_nb.core.names import StreamArn, check_stream_name
from kinesis_nb.errors import ConfigError, KinesisError, forget_frames
from kinesis_nb.text import one_line
from kinesis_nb.widgets.code_view import CodeView
from kinesis_nb.widgets.routing import serve_while_busy
from kinesis_nb.widgets.ui_thread import UiThread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kinesis_nb.source import Source

T = TypeVar("T")
_STYLE = """<style>
.knb-panel{
  --knb-font:var(--jp-ui-font-size1,13px)/1.5 var(--jp-ui-font-family,system-ui,sans-serif);
  --knb-text:var(--jp-ui-font-color1,CanvasText);--knb-quiet:var(--jp-ui-font-color2,GrayText);
  --knb-wrong:var(--jp-error-color1,#c62828);--knb-right:var(--jp-success-color1,#2e7d32);
  --knb-line:var(--jp-border-color2,#8885);--knb-code:var(--jp-code-font-family,ui-monospace,monospace);
  --jp-widgets-inline-label-width:12em;--jp-widgets-inline-width:42em;
  max-width:70em;color:var(--knb-text)}
.knb-panel .widget-html-content{font:var(--knb-font);white-space:normal;overflow-wrap:anywhere}
.knb-panel .widget-label{text-align:left}
.knb-panel .knb-field,.knb-panel .knb-actions{flex-flow:row wrap;align-items:center;overflow:visible}
.knb-panel .knb-field>*{max-width:100%}.knb-panel .widget-checkbox input{position:relative;top:2px}
.knb-panel .knb-mark{flex:1 1 14em;min-width:0}
.knb-panel .knb-wrong{color:var(--knb-wrong)}.knb-panel .knb-right{color:var(--knb-right)}
.knb-panel .knb-quiet{color:var(--knb-quiet)}
.knb-panel .knb-error{border-left:3px solid var(--knb-wrong);padding:2px 0 2px 10px;margin:4px 0}
.knb-panel .knb-error b{color:var(--knb-wrong)}
.knb-panel h3,.knb-panel h4{margin:10px 0 2px;color:inherit;line-height:1.4}
.knb-panel h3{font-size:1.15em}.knb-panel h4{font-size:1em}
.knb-panel pre{font:var(--jp-code-font-size,13px)/1.4 var(--knb-code);background:var(--jp-layout-color2,#8882);
  color:inherit;padding:8px;margin:4px 0;overflow:auto;max-height:24em;white-space:pre}
.knb-panel .knb-code-bar,.knb-panel .knb-code-bar+pre{margin:4px 2px}
.knb-panel .knb-code-bar{display:flex;align-items:center;gap:6px;font:var(--knb-font)}
.knb-panel .knb-code-bar button{min-height:26px}
.knb-panel .widget-html button,.knb-panel .knb-code-bar button{
  font:inherit;padding:1px 10px;border:1px solid var(--knb-line);border-radius:2px;
  background:var(--jp-layout-color2,ButtonFace);color:inherit;cursor:pointer}
/* a form that lost its kernel has one mark for that, not one at each of its parts */
.knb-panel .jupyter-widgets-disconnected::before{display:none}
[data-jp-theme-light="false"] .knb-panel{color-scheme:dark}
[data-jp-theme-light="false"] .knb-panel .widget-dropdown select{background-image:url("data:image/svg+xml,\
%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E%3Cpath fill='%23ccc' d='M5 7l4 4 4-4z'/%3E%3C/svg%3E")}
.knb-panel :focus-visible{outline:2px solid var(--jp-brand-color1,Highlight);outline-offset:1px}
</style>"""


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
        style = markup(_STYLE, layout=W.Layout(display="none"))
        super().__init__([style, *content, self._status, self._error, *found])
        self.add_class("knb-panel")
        serve_while_busy(self)
        self._ui = UiThread(f"kinesis_nb {name}", self.show_error)

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
    return f'<div class="knb-error" role="alert">{lines}</div>'


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
        self._mark = markup(layout=control.layout)  # one less in a notebook that is saved with its widgets
        self._mark.add_class("knb-mark")
        self.problem = ""
        control.description = label
        super().__init__([control, self._mark])
        self.add_class("knb-field")

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
        self._busy = ""
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

    def do(self, saying: str, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """Do what may take long without holding up the kernel; meanwhile no button can be clicked."""
        self._be_busy(saying)

        def done(found: T) -> None:
            self._busy = ""
            self.say("")
            then(found)
            self._refresh_actions()

        self._ui.run(work, done)

    def _be_busy(self, saying: str) -> None:
        self._busy = saying
        self.show_error(None)
        self.say(saying)
        self._refresh_actions()

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
            self._busy = ""
            self._refresh_actions()
