"""All of it as one app: sources, explore, tail, syncs, exports."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.access.config import SourceConfig
from kinesis_nb.access.saved import load, missing, sources
from kinesis_nb.core.arguments import hinted
from kinesis_nb.samples import demo
from kinesis_nb.source import Source
from kinesis_nb.text import one_line
from kinesis_nb.widgets.base import Action, Field, Form, Panel, heading, markup
from kinesis_nb.widgets.explorer import Explorer
from kinesis_nb.widgets.export_form import ExportForm
from kinesis_nb.widgets.routing import serve_while_busy
from kinesis_nb.widgets.secret_field import SecretField
from kinesis_nb.widgets.source_form import SourceForm
from kinesis_nb.widgets.sync_form import SyncForm
from kinesis_nb.widgets.tail_form import TailForm

if TYPE_CHECKING:
    from collections.abc import Callable

_SECRETS = {
    "secret_access_key": "Secret access key",
    "session_token": "Session token",
    "proxy_password": "Proxy password",
}
_TABS = ("Sources", "Explore", "Tail", "Syncs", "Exports")


class Studio(Panel):
    """Everything as one app, for JupyterLab and Voila: choose a source, explore, tail, sync and export.

    Parameters
    ----------
    source
        The source to begin with; None begins with choosing one.

    Attributes
    ----------
    source
        The source that is used now, or None.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> from kinesis_nb.widgets import Studio
    >>> studio = Studio(kn.demo())
    >>> studio.source is kn.demo()
    True
    """

    @hinted
    def __init__(self, source: Source | None = None) -> None:
        self.source: Source | None = None
        self._place = markup()
        self._tabs = W.Tab([W.VBox() for _ in _TABS], titles=_TABS)
        super().__init__([self._place, self._tabs], "studio")
        self.add_class("knb-studio")
        self._tabs.children[0].children = [_Known(self.use), SourceForm(on_use=self.use)]
        self._tabs.observe(lambda _change: self._fill(), "selected_index")
        self._go_on(source, 0 if source is None else 1)

    def use(self, source: Source) -> None:
        """Go on with another source; syncs and exports of the earlier one run on, its tails are stopped."""
        self._go_on(source, 1)

    def _go_on(self, source: Source | None, tab: int) -> None:
        self.source = source
        said = "choose one, or make a new one" if source is None else repr(source).strip("<>").removeprefix("Source ")
        self._place.value = f'<span role="status"><b>Source:</b> {html.escape(one_line(said))}</span>'
        for page in self._tabs.children[1:]:
            for content in page.children:
                if isinstance(content, Explorer | TailForm):
                    content.leave()
            page.children = []
        self._tabs.selected_index = tab
        self._fill()

    def _fill(self) -> None:
        """Create the content of a tab when it is opened for the first time."""
        number: int = self._tabs.selected_index or 0
        page = self._tabs.children[number]
        if page.children:
            return
        makers: tuple[Callable[[Source], W.Widget], ...] = (_explorer, TailForm, _syncs, _exports)
        page.children = [heading("Choose a source first") if self.source is None else makers[number - 1](self.source)]

    def __repr__(self) -> str:
        return f"<Studio: {self.source!r}>"


def _explorer(source: Source) -> W.Widget:
    explorer: W.Widget = Explorer(source)
    return explorer


def _syncs(source: Source) -> W.Widget:
    return _Several(lambda: SyncForm(source), "Another sync")


def _exports(source: Source) -> W.Widget:
    return _Several(lambda: ExportForm(source), "Another export")


class _Several(W.VBox):
    """Forms one below the other, and a button that makes another one."""

    def __init__(self, make: Callable[[], W.Widget], label: str) -> None:
        self._make, self._forms = make, W.VBox([make()])
        super().__init__([self._forms, Action(label, self._add, lambda: "")])
        serve_while_busy(self)

    def _add(self) -> None:
        self._forms.children = [*self._forms.children, self._make()]


class _Known(Form):
    """The sources that are saved, and the sample streams; a secret that the keyring does not have is asked for.

    Parameters
    ----------
    use
        Is given the one that was chosen.
    """

    def __init__(self, use: Callable[[Source], object]) -> None:
        self._use = use
        saved = W.Dropdown(options=sources())
        fields = {"name": Field("Saved source", saved, is_required=bool(saved.options)), **_secret_fields()}
        actions = [
            Action("Open", self._open, lambda: self.problem or ("" if saved.options else "no source is saved yet")),
            Action("Sample streams", lambda: self.do("Starting …", demo, use), lambda: ""),
        ]
        super().__init__(fields, [heading("Known sources", 3), *fields.values()], actions, "known sources")
        fields["name"].watch(lambda _change: self._look_for_secrets())
        self._look_for_secrets()

    def _look_for_secrets(self) -> None:
        """Ask for the secrets that the chosen source needs, and drop what was typed for another one."""
        self._ask_for([])
        if name := self.fields["name"].value:
            self._ui.run(lambda: missing(name), lambda kinds: self._ask_for(kinds, name))

    def _ask_for(self, kinds: list[str], name: str | None = None) -> None:
        if name not in (None, self.fields["name"].value):
            return  # another one was chosen meanwhile
        for kind in _SECRETS:
            field = self.fields[kind]
            field.is_shown = kind in kinds
            if not field.is_shown:
                field.control.secret = None
        self.refresh()

    def _open(self) -> None:
        name = self.fields["name"].value
        given = {kind: self.fields[kind].value for kind in _SECRETS if self.fields[kind].value}

        def connect() -> Source:
            return Source(SourceConfig(**load(name, (), given)))

        self.do("Opening …", connect, self._use)


def _secret_fields() -> dict[str, Field]:
    fields = {kind: Field(label, SecretField(), is_required=True) for kind, label in _SECRETS.items()}
    for field in fields.values():
        field.is_shown = False
    return fields
