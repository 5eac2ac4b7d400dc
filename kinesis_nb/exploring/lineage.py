"""The family of a stream's shards as a picture: which came from which, and which hash keys each takes."""

from __future__ import annotations

from base64 import b64encode
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from kinesis_nb.core.shards import MAX_HASH_KEY
from kinesis_nb.display import cell, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kinesis_nb.core.shards import Shard

_SCALE, _ROW, _TALLEST = 360, 17, 1_200  # pixels: for all hash keys; at least for one shard; bound for all the rows
_WIDEST, _NARROWEST, _LONGEST = 130, 26, 1_000  # pixels: of one generation; wanted for all of them
_LINE, _LETTER = 13, 7  # pixels a line of text is high, a letter wide
_GAP = 2
_MOST_LINES = 40

# To be read on a light page and on a dark one: an image does not know the theme of the page it is in.
_FILL = {"open": "#1976d2", "closed": "#6b6b6b"}
_LETTERS = 'font-family="system-ui,sans-serif" font-size="11" fill="#fff"'


class Lineage:
    """The shards of a stream from the oldest that is listed to those that are open.

    Shown as a picture in a notebook: time goes to the right, the hash keys from top to bottom. A shard is as high as
    its share of the hash keys (a very small one is drawn higher) and reaches from its birth to that of its children:
    the shards to the right of one came out of it, and the right edge is the stream as it is now.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> lineage = kn.demo().explore("orders").lineage
    >>> print(lineage)
    orders: 2 open and 0 closed shards
    >>> lineage.svg.startswith("<svg")
    True
    """

    def __init__(self, stream: str, shards: Sequence[Shard]) -> None:
        self._stream = stream
        self._shards = {shard.shard_id: shard for shard in shards}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """The ids of the children of each shard."""
        found: dict[str, list[str]] = {shard_id: [] for shard_id in self._shards}
        for shard in self._shards.values():
            for parent in shard.parents:
                if parent in found:
                    found[parent].append(shard.shard_id)
        return found

    @cached_property
    def generations(self) -> dict[str, int]:
        """How many reshards, as far as they are listed, lie between a shard and its oldest ancestor."""
        born: dict[str, int] = {}
        waiting = {shard_id: sum(p in self._shards for p in shard.parents) for shard_id, shard in self._shards.items()}
        ready = [shard_id for shard_id, parents in waiting.items() if not parents]
        for shard_id in ready:
            born[shard_id] = max((born[p] + 1 for p in self._shards[shard_id].parents if p in born), default=0)
            for child in self.children[shard_id]:
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
        return born

    @cached_property
    def svg(self) -> str:
        """The picture, as an SVG document."""
        boxes, width, height = self._boxes()
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" {_LETTERS}>'
            f"{''.join(map(_drawn, boxes))}</svg>"
        )

    def _boxes(self) -> tuple[list[_Box], int, float]:
        """Return a box for each shard, and the width and height of all of them."""
        born = self.generations
        columns = max(born.values(), default=0) + 1
        width = max(_NARROWEST, min(_WIDEST, _LONGEST // columns))
        place = _places(self._shards.values())
        boxes = [
            _Box(
                shard := self._shards[shard_id],
                born[shard_id] * width,
                place[shard.hash_range[0]],
                min((born[child] for child in self.children[shard_id]), default=columns) * width,
                place[shard.hash_range[1] + 1],
            )
            for shard_id in born
        ]
        return boxes, columns * width, max(place.values(), default=0.0)

    def _repr_html_(self) -> str:
        # An image: of an <svg> and a <style>, GitHub and notebooks that are not trusted keep nothing but the text
        picture = b64encode(self.svg.encode()).decode()
        areas = "".join(map(_area, self._boxes()[0]))
        name = f"knb-{crc32(self.svg.encode()):08x}"
        label = cell(f"{self}; time goes to the right, hash keys from top to bottom")
        return (
            f'<div class="knb-lineage" style="overflow-x:auto"><p>{cell(self)} (open: blue, closed: grey)</p>'
            f'<img src="data:image/svg+xml;base64,{picture}" alt="{label}" usemap="#{name}" style="max-width:none">'
            f'<map name="{name}">{areas}</map></div>'
        )

    def __str__(self) -> str:
        closed = sum(not shard.is_open for shard in self._shards.values())
        return f"{plain(self._stream)}: {len(self._shards) - closed:,} open and {closed:,} closed shards"

    def __repr__(self) -> str:
        lines = [f"<Lineage {plain(self)}>"]
        for shard_id in list(self.generations)[:_MOST_LINES]:
            after = ", ".join(self.children[shard_id])
            state = "open" if self._shards[shard_id].is_open else "closed"
            lines.append(plain(f"{shard_id} {state}{' -> ' if after else ''}{after}"))
        more = len(self._shards) - _MOST_LINES
        return "\n".join(lines + [f"… and {more:,} more"] * (more > 0))


def _share(shard: Shard) -> float:
    return (shard.hash_range[1] - shard.hash_range[0] + 1) / (MAX_HASH_KEY + 1)


def _places(shards: Collection[Shard]) -> dict[int, float]:
    """Return how far down to draw each hash key at which a shard begins or ends.

    To scale, but with room for a line of text in the thinnest shard as long as they are not too many.
    """
    keys = sorted({key for shard in shards for key in (shard.hash_range[0], shard.hash_range[1] + 1)})
    scale = min(_SCALE, 4 * _ROW * len(keys))
    least = min(_ROW, _TALLEST / max(1, len(keys)))
    heights = (max(least, (end - start) / (MAX_HASH_KEY + 1) * scale) for start, end in pairwise(keys))
    return dict(
        zip(keys, accumulate(heights, initial=0.0), strict=False)
    )  # without shards there is one height too many


class _Box(NamedTuple):
    """Where a shard stands in the picture, in pixels."""

    shard: Shard
    left: float
    top: float
    right: float
    bottom: float

    @property
    def share(self) -> str:
        return f"{100 * _share(self.shard):.3g} %"

    @property
    def state(self) -> str:
        return "open" if self.shard.is_open else "closed"


def _drawn(box: _Box) -> str:
    """Return a box as SVG, with what fits of the shard's number and share."""
    gap = min(_GAP, (box.bottom - box.top) / 4)
    width, height = box.right - box.left - gap, box.bottom - box.top - gap
    text = _lettering(box, width, height)
    return (
        f'<g class="{box.state}"><rect x="{box.left + gap / 2:.1f}" y="{box.top + gap / 2:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}" rx="2" fill="{_FILL[box.state]}"/>{text}</g>'
    )


def _lettering(box: _Box, width: float, height: float) -> str:
    number = box.shard.shard_id.removeprefix("shardId-").lstrip("0") or "0"
    lines = [number, box.share][: int(height // _LINE)]
    y = (box.top + box.bottom) / 2 + 4 - (_LINE / 2) * (len(lines) - 1)
    return "".join(
        f'<text x="{box.left + 6:.1f}" y="{y + n * _LINE:.1f}">{cell(line)}</text>'
        for n, line in enumerate(lines)
        if len(line) * _LETTER + 8 <= width
    )


def _area(box: _Box) -> str:
    """Return the part of the picture that says, under the pointer, which shard it is."""
    shard = box.shard
    parents = f"from {', '.join(shard.parents)}" if shard.parents else "no parent"
    title = cell(f"{shard.shard_id}, {box.state}, {box.share} of the hash keys, {parents}")
    coords = ",".join(f"{edge:.0f}" for edge in box[1:])
    return f'<area shape="rect" coords="{coords}" title="{title}"/>'
