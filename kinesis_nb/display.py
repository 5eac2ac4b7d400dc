"""What a notebook shows: small HTML tables in the notebook's own colours.

Everything shown may come from a stream and is hostile until proven otherwise, so there is one way into HTML:
:func:`cell`, which cuts, makes control and direction characters visible, and escapes.
"""

from __future__ import annotations

import html
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kinesis_nb.errors import ConfigError
from kinesis_nb.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

SHOWN_ROWS = 10
_LONGEST = 120
_TERMINAL_CELL = 60  # characters of a cell in a terminal
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


def frame_text(table: pa.Table, columns: Sequence[str], most: int = SHOWN_ROWS) -> str:
    """Return the first `most` rows of a table as lines of text, with every value made visible and cut."""
    rows = [[_short(row[name]) for name in columns] for row in table.slice(0, most).select(columns).to_pylist()]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in (columns, *rows)]
    return "\n".join([*lines, *(["…"] if table.num_rows > most else [])])


def _short(value: object) -> str:
    text = plain(value)
    return text if len(text) <= _TERMINAL_CELL else f"{text[: _TERMINAL_CELL - 1]}…"


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
