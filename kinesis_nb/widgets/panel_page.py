"""What a panel does on the page by itself: counts seconds of work, says that the kernel is gone, describes fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anywidget
import traitlets

from kinesis_nb.widgets.assets import source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AGAIN = "run the cell again to use it"


class PanelPage(anywidget.AnyWidget):
    """The part of a panel that needs no kernel, or that must work while the kernel is silent or gone.

    While work is under way it counts seconds and offers to cancel it. When the kernel is gone it says so, and puts a
    static picture in the place of the panel. To the fields it gives the properties that screen readers ask for, which
    ipywidgets does not know.

    Parameters
    ----------
    title
        What the panel is called in its picture.
    cancel
        Is called when the work under way is to be waited for no longer.

    Attributes
    ----------
    busy
        The number of the work that is under way; 0 while there is none.
    panel
        The id of the panel's model, by which the page finds its output.
    """

    _esm = source("notebook.js", "panel_page.js")
    _css = source("panel_page.css")

    title = traitlets.Unicode("").tag(sync=True)
    panel = traitlets.Unicode("").tag(sync=True)
    busy = traitlets.Int(0).tag(sync=True)

    def __init__(self, title: str, cancel: Callable[[], object]) -> None:
        super().__init__(title=title)
        self._cancel = cancel
        self.on_msg(self._heard)

    def _heard(self, _page: object, content: Mapping[str, object], _buffers: object) -> None:
        if self.busy and content.get("kind") == "cancel" and content.get("number") == self.busy:
            self._cancel()
