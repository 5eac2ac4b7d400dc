"""The rows of one moment, sorted and given page by page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from kinesis_nb.widgets.grid.cells import COLUMNS, FIELD
from kinesis_nb.widgets.grid.frames import frame_of
from kinesis_nb.widgets.grid.rows import by_arrival, numbered

if TYPE_CHECKING:
    import pyarrow as pa

    from kinesis_nb.core.frames import Record


@dataclass(frozen=True, slots=True)
class Order:
    """By which column rows are sorted; None is by arrival, last first."""

    column: str | None = None
    descending: bool = True


@dataclass(slots=True)
class Snapshot:
    """The rows that were held at one moment, in an order; nothing that comes later changes it."""

    numbers: pl.Series
    rows: pa.Table
    order: Order
    with_fields: bool
    places: pl.Series = field(init=False)
    frame: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.frame = frame_of(self.rows, with_fields=self.with_fields)
        self.places = by_arrival(self.numbers, self.rows)
        name = COLUMNS.get(self.order.column or "", self.order.column)
        if name in self.frame.columns and not self.frame.schema[name].is_nested():
            sorting = pl.DataFrame({"place": self.places, "value": self.frame[name][self.places]})
            by = sorting.sort("value", descending=self.order.descending, nulls_last=True, maintain_order=True)
            self.places = by["place"]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def matching(self) -> pl.DataFrame:
        """The rows in their order, with the fields of their JSON."""
        return self.frame[self.places]

    @property
    def fields(self) -> list[str]:
        """The columns that are fields of the JSON."""
        return [name for name in self.frame.columns if name.startswith(FIELD)]

    def page(self, first: int, last: int) -> list[tuple[int, Record]]:
        """Return some rows with their numbers, by their places in the order."""
        return numbered(self.numbers, self.rows, self.places[max(0, first) : max(0, last)])

    def place_of(self, number: int) -> int:
        """Return the place of a row by its number; 0 when it is not there."""
        if number < 0:
            return 0
        return next(iter((self.numbers[self.places] == number).arg_true()), 0)
