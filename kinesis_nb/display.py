"""What a notebook shows: small HTML tables in the notebook's own colours; a terminal has them as text.

Everything shown may come from a stream and is hostile until proven otherwise, so there is one way into HTML:
:func:`cell`, which cuts, makes control and direction characters visible, and escapes.
"""

from __future__ import annotations

import html
import re
import shutil
import unicodedata
from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from kinesis_nb.errors import ConfigError
from kinesis_nb.notebook import has_kernel
from kinesis_nb.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

SHOWN_ROWS = 10
_LONGEST = 120
_TERMINAL_CELL = 60  # characters of a cell in a terminal
_TERMINAL_LINE = 100  # where there is no terminal
_NARROWEST = 8  # characters of a cell; with less of each, columns are left out
_QUANTITY = re.compile(r"-?[\d,]+(\.\d+)?( ?%| m?s)")
TABLE_STYLE = (
    "<style>"
    ".knb{font:var(--jp-ui-font-size1,13px)/1.5 var(--jp-ui-font-family,system-ui,sans-serif);"
    "color:var(--jp-ui-font-color1,inherit)}"
    ".knb{overflow-x:auto}.knb~.knb{margin-top:12px}"
    ".knb table{border-collapse:collapse;margin:0;font-size:inherit}"
    ".knb caption,.knb .none{padding:2px 0 6px;color:var(--jp-ui-font-color2,inherit)}"
    # the notebook's own rules for tables are more specific than a class
    ".knb table th,.knb table td{padding:2px 16px 2px 0!important}"
    ".knb table .num{font-variant-numeric:tabular-nums}"
    ".knb table th{border-bottom:1px solid var(--jp-border-color1,#8888);font-weight:600}"
    ".knb table td{font-family:var(--jp-code-font-family,ui-monospace,monospace)}"
    "</style>"
)
# Each cell says where its text stands: notebooks that are not trusted, and GitHub, drop the <style> above.
_TEXT = ' style="text-align:left;white-space:nowrap"'
_NUMBER = ' class="num" align="right" style="text-align:right;white-space:nowrap"'


def plain(value: object) -> str:
    """Return one line of text for a value: cut, with control, direction and zero-width characters made visible."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return visible(text)


def cell(value: object) -> str:
    """Return a value as HTML text."""
    return html.escape(plain(value))


def table_html(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return an HTML table; every value is shown as text, and a column without any is left out."""
    rows = list(rows)
    values = [[row[i] for row in rows] for i in range(len(columns))]
    shown = [i for i in range(len(columns)) if any(value not in (None, "") for value in values[i])]
    look = {i: _NUMBER if is_numeric(values[i]) else _TEXT for i in shown}
    head = "".join(f"<th{look[i]}>{cell(columns[i])}</th>" for i in shown)
    body = "".join("<tr>" + "".join(f"<td{look[i]}>{cell(row[i])}</td>" for i in shown) + "</tr>" for row in rows)
    top = f"<caption{_TEXT}>{cell(caption)}</caption>" if caption else ""
    if not rows:
        return f'{TABLE_STYLE}<div class="knb"><div class="none">{cell(caption)}</div></div>'
    table = f"<table>{top}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'{TABLE_STYLE}<div class="knb">{table}</div>'


def is_numeric(values: Iterable[object]) -> bool:
    """Whether a column is numbers, or texts of numbers with a unit, and so belongs to the right."""
    numbers = [value for value in values if value is not None]
    return bool(numbers) and all(
        _QUANTITY.fullmatch(number) if isinstance(number, str) else isinstance(number, int | float)
        for number in numbers
    )


def frame_html(table: pa.Table, caption: str, most: int = SHOWN_ROWS, *, newest: bool = False) -> str:
    """Return the first, or the last, `most` rows of a table as HTML; columns without any value are left out."""
    shown = table.slice(max(0, table.num_rows - most) if newest else 0, most)
    names = [
        name for name in table.column_names if shown.column(name).null_count < shown.num_rows or not shown.num_rows
    ]
    rows = [[row[name] for name in names] for row in shown.select(names).to_pylist()]
    more = f" · {'last' if newest else 'first'} {most} shown" if table.num_rows > most else ""
    return table_html(names, rows, caption.strip("<>") + more)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as lines of text for a terminal, as wide as that is at most, of the first 10 rows.

    Long values are cut; where even that does not help, the last columns are left out. So is a column without any value.
    """
    rows = list(rows)
    shown = [i for i in range(len(columns)) if any(row[i] not in (None, "") for row in rows)]
    look = {i: is_numeric([row[i] for row in rows]) for i in shown}
    texts = [[columns[i] for i in shown], *([plain(row[i]) for i in shown] for row in rows[:SHOWN_ROWS])]
    line = shutil.get_terminal_size((_TERMINAL_LINE, 0)).columns
    longest = max(_TERMINAL_CELL, line * 6 // 10)
    widths = _fitting([min(longest, max(map(_width, cells))) for cells in zip(*texts, strict=True)], line)
    places = list(enumerate(zip(shown, widths, strict=False)))  # the last columns may have no room
    cells = [[_padded(line[n], width, at_right=look[i]) for n, (i, width) in places] for line in texts]
    more = ["…"] if len(rows) > SHOWN_ROWS else []
    return "\n".join([*("  ".join(line).rstrip() for line in cells if rows), *more])


def _fitting(widths: list[int], line: int) -> list[int]:
    """Return the widths of the columns that a line of a terminal has room for: the widest ones are cut first."""
    while widths and sum(widths) + 2 * (len(widths) - 1) > line:
        widest = max(widths)
        if widest > _NARROWEST:
            widths[widths.index(widest)] -= 1
        else:
            widths.pop()
    return widths


def _padded(text: str, width: int, *, at_right: bool) -> str:
    while _width(text) > width:
        text = f"{text.removesuffix('…')[:-1]}…"
    spaces = " " * (width - _width(text))
    return f"{spaces}{text}" if at_right else f"{text}{spaces}"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese and Japanese letters are two wide."""
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


class Printer(Protocol):
    """What IPython gives to show something in."""

    def text(self, text: str) -> None:
        """Take more text."""
        ...


class ShownAsText(ABC):
    """What shows its rows to print() and in IPython's terminal, below the one line that is its repr().

    A message that names it, by an f-string, has the one line; so has a notebook, which shows HTML.
    """

    @abstractmethod
    def _first_line(self) -> str:
        """Return what it is and how much there is of it."""

    @abstractmethod
    def _rows_as_text(self) -> str:
        """Return the lines below that; empty for none."""

    def __repr__(self) -> str:  # here, because IPython takes the first class that has this or the last method below
        return self._first_line()

    def __str__(self) -> str:
        return "\n".join(filter(None, (repr(self), self._rows_as_text())))

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def _repr_pretty_(self, printer: Printer, _is_cycle: bool) -> None:  # noqa: FBT001 - as IPython calls it
        printer.text(repr(self) if has_kernel() else str(self))


def to_perspective(table: pa.Table) -> Any:
    """Return an Arrow table as a PerspectiveWidget."""
    try:
        from perspective.widget import PerspectiveWidget  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        msg = "perspective is not installed"
        raise ConfigError(msg, hint="pip install 'kinesis-nb[perspective]'") from None
    import pyarrow as pa

    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return PerspectiveWidget(stream.getvalue().to_pybytes())
