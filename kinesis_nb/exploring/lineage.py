"""The family of a stream's shards as a picture: which came from which, and which hash keys each takes."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

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

_STYLE = (
    "<style>"
    ".knb-lineage{overflow-x:auto;font:var(--jp-ui-font-size1,13px)/1.5 var(--jp-ui-font-family,system-ui,sans-serif);"
    "color:var(--jp-ui-font-color1,inherit)}"
    ".knb-lineage p{margin:0 0 6px;color:var(--jp-ui-font-color2,inherit)}"
    ".knb-lineage svg{display:block;max-width:none}"
    ".knb-lineage text{font-size:11px;fill:var(--jp-ui-font-color1,currentColor)}"
    ".knb-lineage rect{stroke-width:1;fill-opacity:.16;stroke-opacity:.7;"
    "fill:currentColor;stroke:var(--jp-ui-font-color3,currentColor)}"
    ".knb-lineage .open rect{fill-opacity:.35;fill:var(--jp-brand-color1,#1976d2);"
    "stroke:var(--jp-brand-color1,#1976d2)}"
    ".knb-lineage i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;vertical-align:-.05em;"
    "border:1px solid currentColor;background:color-mix(in srgb,currentColor 16%,transparent)}"
    ".knb-lineage i.open{border-color:var(--jp-brand-color1,#1976d2);"
    "background:color-mix(in srgb,var(--jp-brand-color1,#1976d2) 35%,transparent)}"
    "</style>"
)


class Lineage:
    """The shards of a stream from the oldest that is listed to those that are open.

    Shown as a picture in a notebook: time goes to the right, the hash keys from top to bottom. A shard is as high as
    its share of the hash keys (a very small one is drawn higher) and reaches from its birth to that of its children:
    the shards to the right of one came out of it, and the right edge is the stream as it is now.
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

    def _repr_html_(self) -> str:
        born = self.generations
        columns = max(born.values(), default=0) + 1
        width = max(_NARROWEST, min(_WIDEST, _LONGEST // columns))
        place = _places(self._shards.values())
        height = max(place.values(), default=0.0)
        boxes = "".join(
            _box(
                self._shards[shard_id],
                (born[shard_id] * width, place[self._shards[shard_id].hash_range[0]]),
                (
                    min((born[child] for child in self.children[shard_id]), default=columns) * width,
                    place[self._shards[shard_id].hash_range[1] + 1],
                ),
            )
            for shard_id in born
        )
        label = cell(f"{self}; time goes to the right, hash keys from top to bottom")
        return (
            f'{_STYLE}<div class="knb-lineage"><p>{cell(self)}<i class="open"></i>open<i></i>closed</p>'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * width}" height="{height:.0f}" role="img" '
            f'aria-label="{label}">{boxes}</svg></div>'
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


def _box(shard: Shard, start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return a shard as a box between two corners, and of its name and share what fits."""
    (left, top), (right, bottom) = start, end
    gap = min(_GAP, (bottom - top) / 4)
    width, height = right - left - gap, bottom - top - gap
    number = shard.shard_id.removeprefix("shardId-").lstrip("0") or "0"
    share = f"{100 * _share(shard):.3g} %"
    lines = [number, share][: int(height // _LINE)]
    y = (top + bottom) / 2 + 4 - (_LINE / 2) * (len(lines) - 1)
    text = "".join(
        f'<text x="{left + 6:.1f}" y="{y + n * _LINE:.1f}">{cell(line)}</text>'
        for n, line in enumerate(lines)
        if len(line) * _LETTER + 8 <= width
    )
    state = "open" if shard.is_open else "closed"
    parents = f"from {', '.join(shard.parents)}" if shard.parents else "no parent"
    return (
        f'<g class="{state}"><title>{cell(f"{shard.shard_id}, {state}, {share} of the hash keys, {parents}")}</title>'
        f'<rect x="{left + gap / 2:.1f}" y="{top + gap / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'
        f"{text}</g>"
    )
