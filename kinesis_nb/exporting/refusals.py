"""What cannot be exported, as errors of ours: the column, the first row, and the cast that helps."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import polars as pl

from kinesis_nb.errors import ConfigError, KinesisError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Column(Protocol):
    """Values that a slice can be taken of: a list, a Series of polars, an array of Arrow."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Self: ...


C = TypeVar("C", bound=Column)
R = TypeVar("R")

NOT_OURS = (Exception, pl.exceptions.PanicException)  # a panic of polars is a BaseException
OURS = (KinesisError, MemoryError)  # these reach the user unchanged
AS_TEXT, AS_INTEGER = "cast it to a string first, or drop it", "cast it to an integer first, or drop it"


class Inexact(Exception):
    """A value or a type that would not arrive unchanged; never reaches a user.

    Parameters
    ----------
    path
        Of the column, or of what is within it: ``"a.b[]"``.
    what
        What is wrong, behind the name of the column.
    cast
        What the user can do about it.
    """

    def __init__(self, path: str, what: str, cast: str = AS_TEXT) -> None:
        super().__init__(path, what, cast)
        self.path, self.what, self.cast = path, what, cast


def converted(convert: Callable[[C], R], column: C, name: str, numbers: range | pl.Series) -> R:
    """Return ``convert(column)``.

    Parameters
    ----------
    numbers
        Of the rows, for the message.

    Raises
    ------
    ConfigError
        When that fails, in whatever way; it names the column, and the row where it is one row that does not fit.
    """
    try:
        return convert(column)
    except OURS:
        raise
    except NOT_OURS as error:
        misfit = error if isinstance(error, Inexact) else Inexact(name, f"cannot be exported ({error})")
        row = _first_that_fails(convert, column)
        where = "" if row is None else f": row {numbers[row]}"
        raise ConfigError(f"column {misfit.path!r} {misfit.what}{where}", hint=misfit.cast) from error


def _first_that_fails(convert: Callable[[C], object], column: C) -> int | None:
    """Return the first row that fails, by halving; None when it is not about one row."""
    fine, fails = -1, len(column)
    while fails - fine > 1:
        middle = (fine + fails) // 2
        try:
            convert(column[:middle])
        except NOT_OURS:
            fails = middle
        else:
            fine = middle
    return fails - 1 if fails else None


@contextmanager
def reading(what: str, hint: str) -> Generator[None]:
    """Raise whatever ends the reading of a frame as a ConfigError; our errors and those of the system stay."""
    try:
        yield
    except OURS:
        raise
    except NOT_OURS as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}", hint=hint) from error
