"""The Python that gives the rows which a grid shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.core.frames import SCHEMA
from kinesis_nb.widgets.grid.cells import COLUMNS, FIELD

if TYPE_CHECKING:
    import polars as pl

    from kinesis_nb.widgets.grid.filters import Filter
    from kinesis_nb.widgets.grid.snapshot import Order


def code_of(variable: str, wanted: Filter, order: Order, frame: pl.DataFrame, *, json: bool) -> str:
    """Return the code that filters and sorts what a variable holds as the grid does."""
    holds = [
        f'pl.col("{name}").str.to_lowercase().str.contains({text.lower()!r}, literal=True)'
        for name, text in (("data", wanted.text), ("partition_key", wanted.key))
        if text
    ]
    for chip in wanted.chips:
        column = COLUMNS.get(chip.column, chip.column)
        if column in frame.columns:
            holds.append(chip.code(_name(column), frame.schema[column]))
    arrival = COLUMNS["arrived"]
    column = COLUMNS.get(order.column or "arrived", order.column or "")
    if column in frame.columns and column != arrival:
        sorting = f".sort({_name(column)!r}, {arrival!r}, descending=[{order.descending}, True], nulls_last=True)"
    else:
        sorting = f".sort({arrival!r}, descending={order.descending})"
    start = f"kn.parse_json({variable})" if json else f"{variable}.to_polars()"
    body = f"{start}{''.join(f'.filter({one})' for one in holds)}{sorting}"
    imports = {
        "import kinesis_nb as kn": "kn.",
        "import polars as pl": "pl.",
        "from datetime import datetime": "datetime.",
    }
    needed = sorted(line for line, sign in imports.items() if sign in body)
    return "\n".join([*needed, *([""] if needed else []), body])


def _name(column: str) -> str:
    """Return what parse_json calls the column of a frame: a name that is taken gets _json behind it."""
    if not column.startswith(FIELD):
        return column
    name = column.removeprefix(FIELD)
    return f"{name}_json" if name in {*SCHEMA.names, "error"} else name
