"""Records as a frame: what grids filter, sort and look into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.core.frames import Records
from kinesis_nb.jsontext.parse import fields_of
from kinesis_nb.widgets.grid.cells import FIELD

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def frame_of(rows: pa.Table, *, with_fields: bool) -> pl.DataFrame:
    """Return records as a frame, the fields of their JSON in columns of their own whose names begin with a dot."""
    frame = Records(rows).to_polars()
    return frame.hstack(fields_of(frame, FIELD)) if with_fields else frame
