"""Forms and live views for notebooks, on ipywidgets. They use the engine; the engine works without them.

``SourceForm`` sets up a source, ``Explorer`` shows its streams, ``TailView`` follows a stream, ``SyncForm`` and
``ExportForm`` write, and ``Studio`` combines them in one app. In a kernel without ipywidgets each shows a text.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NoReturn

from kinesis_nb.core.frames import Records
from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from kinesis_nb.widgets.explorer import Explorer as Explorer
    from kinesis_nb.widgets.export_form import ExportForm as ExportForm
    from kinesis_nb.widgets.source_form import SourceForm as SourceForm
    from kinesis_nb.widgets.studio import Studio as Studio
    from kinesis_nb.widgets.sync_form import SyncForm as SyncForm
    from kinesis_nb.widgets.tail_view import TailView as TailView

_HOME_OF = {
    "Explorer": "explorer",
    "ExportForm": "export_form",
    "SourceForm": "source_form",
    "Studio": "studio",
    "SyncForm": "sync_form",
    "TailView": "tail_view",
}
_INSTEAD = {
    "Explorer": "source.explore() shows the same as tables",
    "RecordsView": "records.head() has the first rows, records.to_polars() all",
    "ExportForm": "call source.export_df(...) or source.export_stream(...)",
    "SourceForm": 'call kn.connect(region="us-east-1", ...)',
    "Studio": "call kn.connect(...), then source.explore(), .tail(), .sync(), .export_df()",
    "SyncForm": "call source.sync(stream, table)",
    "TailView": "a Tail shows its newest rows when the cell is run again",
}
_NEEDED = ("ipywidgets", "anywidget")

__all__ = ["Explorer", "ExportForm", "SourceForm", "Studio", "SyncForm", "TailView"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module 'kinesis_nb.widgets' has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        value = getattr(importlib.import_module(f"kinesis_nb.widgets.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        return _text_instead(name, error)
    globals()[name] = value
    return value


def view_of(thing: object) -> object:
    """Return the view of records, or of what runs in the background; a text in a kernel without ipywidgets."""
    try:
        from kinesis_nb.widgets.views import view_of
    except ModuleNotFoundError as error:
        return _text_instead("RecordsView" if isinstance(thing, Records) else "TailView", error)()
    return view_of(thing)


def _text_instead(name: str, error: ModuleNotFoundError) -> type[TextInstead]:
    if error.name not in _NEEDED:
        raise error
    return type(name, (TextInstead,), {"_missing": error.name})


def __dir__() -> list[str]:
    return list(__all__)


class TextInstead:
    """Replaces a widget in a kernel without ipywidgets: two lines of text."""

    _missing = ""

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def _error(self) -> ConfigError:
        name = type(self).__name__
        hint = f"pip install {self._missing} and restart the kernel; without it: {_INSTEAD[name]}"
        return ConfigError(f"{name} needs {self._missing}, which this kernel does not have", hint=hint)

    def __repr__(self) -> str:
        return str(self._error())

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # IPython asks for many of these
            raise AttributeError(name)
        raise self._error()
