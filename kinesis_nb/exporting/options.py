"""What a user may choose about an export; see :class:`kinesis_nb.source.Source` for what each option means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinesis_nb.core.arguments import check_choice
from kinesis_nb.core.position import Kind
from kinesis_nb.errors import ConfigError
from kinesis_nb.exporting.encode import DATA
from kinesis_nb.exporting.report import DoneRows, ExportReport

if TYPE_CHECKING:
    from datetime import datetime
    from os import PathLike

    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.exporting.encode import Encode


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """How rows become records."""

    partition_column: str | None = None
    encode: Encode | None = None
    data_column: str | None = None
    on_bad_key: str = "fail"
    aggregate: bool = False

    def __post_init__(self) -> None:
        check_choice("on_bad_key", self.on_bad_key, "fail", "skip", "hash")

    @classmethod
    def of_records(cls, partition_column: str | None, on_bad_key: str, aggregate: bool) -> RecordOptions:  # noqa: FBT001
        """Return the options for rows that are records, whatever other columns somebody gave them."""
        return cls(partition_column, None, DATA, on_bad_key, aggregate)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How records are sent, and which rows an earlier export has done already."""

    order: str = "per_key"
    on_ambiguous: str = "resend"
    resume: ExportReport | None = None

    def __post_init__(self) -> None:
        check_choice("order", self.order, "per_key", "none")
        check_choice("on_ambiguous", self.on_ambiguous, "resend", "stop")
        if not isinstance(self.resume, ExportReport | None):
            raise ConfigError(
                f"resume= does not accept this {type(self.resume).__name__}", hint="give the report of that export"
            )

    @property
    def is_ordered(self) -> bool:
        """Whether the records of a partition key keep their order."""
        return self.order == "per_key"

    @property
    def resends_unknown(self) -> bool:
        """Whether a record whose outcome is not known is sent again; if not, that is an error."""
        return self.on_ambiguous == "resend"

    def done_rows(self, stream: str) -> DoneRows:
        """Return the rows that need not be sent any more."""
        if self.resume is None:
            return DoneRows()
        if self.resume.stream != stream:
            raise ConfigError(
                f"the report is of an export to {self.resume.stream!r}, not to {stream!r}",
                hint="resume it with the ARN it was started with",
            )
        return self.resume.settled.copy()


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows of a table are exported, how fast, and where the position is kept."""

    start: StartingPosition
    end: datetime | None = None
    rate: float | None = None
    journal: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.start.kind is Kind.AFTER_SEQUENCE_NUMBER:
            raise ConfigError(
                "a sequence number is a place in one shard", hint='use "trim_horizon", "latest" or a time'
            )
        if self.journal == "":
            raise ConfigError("journal='' is not a valid path", hint="give the path of a file, or leave it out")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ConfigError(f"rate={self.rate!r} is not a valid rate", hint="give rows per second, more than 0")
