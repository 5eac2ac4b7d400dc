"""Code that a form gives: to copy, or to insert as a cell below the form."""

from __future__ import annotations

import anywidget
import traitlets

from kinesis_nb.widgets.assets import source


class CodeView(anywidget.AnyWidget):
    """Code with buttons that copy it and insert it into the notebook, where the front end lets a widget do that."""

    _esm = source("notebook.js", "code_view.js")

    code = traitlets.Unicode("").tag(sync=True)
