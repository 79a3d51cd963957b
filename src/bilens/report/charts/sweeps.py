"""A sweep: how a number lies over all layers, and a map of layers and what they hold."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from bilens.report.markup import Figure, element, rectangle
from bilens.report.plot import LARGE, Axis, Plot, Range, within
from bilens.report.raster import cell_map
from bilens.report.text import grouped, tick_text

DECADE = 20.0  # ratio of the ends from which ticks are powers of ten
LEAST = 1.5  # height of a bar: a single layer has to be seen
FULL = 7.0  # |z| of full colour: twice what stands out
BINS, INNER = 48, (0.01, 0.99)  # at most; quantiles that bins hold, and as much on each side
ROUNDING = 1e-6  # of a number: what differs less is the same
TALL, CELL = 500.0, 24.0  # height of a map, and of a cell, at most
TICKS = 8
NUMBER = re.compile(r"\d+")


def bins(
    values: Iterable[float | None], logarithm: bool
) -> tuple[list[float], list[int], int, int] | None:
    """Return edges and counts of equal bins, of ratios for a logarithm, and what lies beyond them.

    That is how many values are far out, below and above; None where no two differ.
    """
    sizes = sorted(math.log(x) if logarithm else x for x in values if x is not None)
    if not sizes or sizes[-1] - sizes[0] <= ROUNDING * max(abs(sizes[0]), abs(sizes[-1])):
        return None
    low, high = (sizes[round(share * (len(sizes) - 1))] for share in INNER)
    width = (high - low) or sizes[-1] - sizes[0]
    low, high = max(low - width, sizes[0]), min(high + width, sizes[-1])
    number = min(BINS, math.isqrt(4 * len(sizes)) + 4)
    edges = [low + (high - low) * place / number for place in range(number)]
    starts = [*(bisect_left(sizes, edge) for edge in edges), bisect_right(sizes, high)]
    ends = [math.exp(edge) if logarithm else edge for edge in (*edges, high)]
    return ends, [b - a for a, b in pairwise(starts)], starts[0], len(sizes) - starts[-1]


def bars(
    texts: tuple[str, str], y_name: str, edges: Sequence[float], counts: Sequence[int], log: bool
) -> Figure:
    """Return a bar for each bin; heights are square roots, so that few are seen beside many."""
    low, high, most = edges[0], edges[-1], max(counts)
    ticks: Sequence[float] = within(low, high, 5).ticks
    if log and high > DECADE * low:
        ticks = [10.0**n for n in range(math.ceil(math.log10(low)), math.ceil(math.log10(high)))]
    heights = [0, *(10**n for n in range(9) if 0.03 * most < 10**n < 0.6 * most), most]
    across = Axis(Range(low, high, ticks), tick_text, "", "short", math.log10 if log else float)
    upwards = Axis(Range(0, most, heights), grouped, y_name, warp=math.sqrt)
    plot = Plot(across, upwards, 440, 224, "chart wide", LARGE)
    x, top, drawn = plot.across, plot.upwards, list[Markup]()
    for (left, right), count in zip(pairwise(map(x, edges)), counts, strict=True):
        height = min(top(count), plot.base - LEAST) - plot.base if count else 0.0
        drawn.append(rectangle(left, plot.base, right - left - 0.5, height, "pos strong"))
    return plot.figure(*texts, *drawn)


@dataclass(frozen=True)
class Grid:
    """Where each row of a sweep stands: its layer across, what it is in the layer downwards."""

    layers: Sequence[int]  # numbers of the columns
    lines: Sequence[str]  # names with * for the number of the layer
    cells: Sequence[tuple[int, int]]  # column and line of each row

    @classmethod
    def place_layers(cls, names: Sequence[str]) -> "Grid":
        """Return the places of layers by the first and the last number in their names."""
        at = []
        for name in names:
            numbers = NUMBER.findall(name)
            last = int(numbers[-1]) if len(numbers) > 1 else -1
            at.append((int(numbers[0]) if numbers else 0, (last, NUMBER.sub("*", name, count=1))))
        layers, lines = (sorted(set(each)) for each in zip(*at, strict=True))
        columns, rows = ({one: place for place, one in enumerate(x)} for x in (layers, lines))
        cells = [(columns[layer], rows[line]) for layer, line in at]
        return cls(layers, [line for _, line in lines], cells)

    def number(self, line: float) -> str:
        """Return the number of a line, such as that of an expert; empty without one."""
        return "".join(NUMBER.findall(self.lines[int(line)])[-1:])


def layer_map(
    texts: tuple[str, str], x_name: str, grid: Grid, scores: Sequence[float | None]
) -> Figure:
    """Return a cell for each row of a sweep, in the middle of the colours for a score of 0.

    Layers run across, what they hold downwards; `texts` are title and description.
    """
    height, width = len(grid.lines), len(grid.layers)
    numbered = [line for line in range(height) if grid.number(line)]
    columns = range(0, width, -(-width // TICKS))
    span = Range(-0.5, width - 0.5, columns)
    across = Axis(span, lambda x: str(grid.layers[int(x)]), x_name, "none")
    lines = numbered[:: -(-len(numbered) // TICKS) or 1]
    downwards = Axis(Range(height - 0.5, -0.5, lines), grid.number, lines="none")
    tall = 60 + min(TALL, CELL * height)
    plot = Plot(across, downwards, 440, tall, "chart wide layer-map", LARGE)
    box = {"x": plot.start, "y": plot.top, "width": plot.end - plot.start}
    box["height"] = plot.base - plot.top
    href = cell_map(width, height, grid.cells, scores, FULL)
    return plot.figure(*texts, element("image", href=href, preserveAspectRatio="none", **box))
