"""Whether this runs in a notebook, and how things show themselves live there.

``import kinesis_nb`` loads this module, so it imports nothing that takes time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable


def bars_are_seen() -> bool:
    """Whether a progress bar would be seen: in a notebook and on a terminal, but not in a log."""
    return has_kernel() or (sys.stderr is not None and sys.stderr.isatty())


def has_kernel() -> bool:
    """Whether this runs in a notebook."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return hasattr(shell, "kernel")


class HasView:
    """What a view can show.

    The views are built on the engine, so the engine does not know them: the package, above both, sets :attr:`_view_of`.
    """

    _view_of: ClassVar[Callable[[object], object]]


class LiveDisplay(HasView):
    """What a notebook shows by a live view."""

    def _ipython_display_(self) -> None:
        """Show the live view.

        Raises
        ------
        NotImplementedError
            Where there is no kernel or no ipywidgets; IPython then shows the text or the HTML.
        """
        from importlib.util import find_spec

        if not has_kernel() or find_spec("ipywidgets") is None or find_spec("anywidget") is None:
            raise NotImplementedError
        from IPython.display import display

        display(self._view_of())  # type: ignore[no-untyped-call]
