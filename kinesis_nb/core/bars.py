"""Progress bars of what a user waits for: of a read and of an export."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from kinesis_nb.core.interrupt import load
from kinesis_nb.errors import ConfigError
from kinesis_nb.notebook import bars_are_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

BAR_SECONDS = 0.3  # a call that is refused, or done at once, shows no bar


@contextmanager
def share_bar(title: str, *, shown: bool) -> Generator[Callable[[int, float], None]]:
    """Give a function that takes the rows so far, and the share of the work that is done."""
    if not shown or not bars_are_seen():
        yield lambda _rows, _share: None
        return
    load("tqdm.auto")
    from tqdm.auto import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(desc=title, total=1.0, bar_format=layout, leave=False, delay=BAR_SECONDS) as bar:

        def show(rows: int, share: float) -> None:
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(share - bar.n)

        yield show


@contextmanager
def row_bar(title: str, *, shown: bool | Callable[[int], None]) -> Generator[Callable[[int], None]]:
    """Give a function that takes the rows so far: the user's own, or one that shows a bar."""
    if callable(shown) or not shown:
        yield shown or (lambda _rows: None)
        return
    if isinstance(shown, bool) and not bars_are_seen():
        yield lambda _rows: None
        return
    if not isinstance(shown, int):  # True and False are
        raise ConfigError(
            f"progress= does not accept a {type(shown).__name__}", hint="use True, False, or a function of the rows"
        )
    load("tqdm.auto")
    from tqdm.auto import tqdm

    with tqdm(desc=title, unit=" rows", unit_scale=True, leave=False, delay=BAR_SECONDS) as bar:

        def show(rows: int) -> None:
            bar.update(rows - bar.n)

        yield show
