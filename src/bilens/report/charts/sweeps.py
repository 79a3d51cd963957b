"""A sweep: how a number lies over all layers, and a map of layers and what they hold."""

import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from bilens.records.sweep_report import Grid, Histogram
from bilens.report.markup import Figure, element, rectangle
from bilens.report.plot import LARGE, Axis, Plot, within
from bilens.report.raster import cell_map
from bilens.report.text import tick_text, whole

DECADE = 20.0  # ratio of the ends from which ticks are powers of ten
LEAST = 1.5  # height of a bar: a single layer has to be seen
FULL = 7.0  # |z| of full colour: twice what stands out
TALL, CELL = 500.0, 24.0  # height of a map, and of a cell, at most
LAST = re.compile(r"(\d+)\D*$")


def histogram_chart(
    title: str, description: str, y_name: str, found: Histogram, *, logarithm: bool = False
) -> Figure:
    """Return a bar for each bin; heights are square roots, so that few are seen beside many."""
    low, high = found.edges[0], found.edges[-1]
    if logarithm and high > DECADE * low:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        ticks: Sequence[float] = [10.0**power for power in powers]
    else:
        ticks = within(low, high, 5)[2] if high > low else (low,)
    most = max(found.counts)
    counts = sorted({0, *(10**power for power in range(len(str(most)))), most})
    ticks_up = [one for one in counts if one in (0, most) or 0.03 * most < one < 0.6 * most]
    plot = Plot(
        Axis(low, high, ticks, tick_text, warp=math.log10 if logarithm else float, lines="short"),
        Axis(0, most, ticks_up, whole, y_name, warp=math.sqrt),
        440,
        224,
        "chart wide histogram",
        LARGE,
    )
    x, y, bars = plot.across, plot.upwards, list[Markup]()
    for place, count in enumerate(found.counts):
        if count:
            left, right = x(found.edges[place]), x(found.edges[place + 1])
            high_bar = max(y(0) - y(count), LEAST)
            size = max(right - left - 0.5, 1.0), high_bar
            bars.append(rectangle(left, y(0) - high_bar, *size, "pos strong"))
    return plot.figure(title, description, *bars)


def layer_map(
    texts: tuple[str, str], x_name: str, grid: Grid, scores: Sequence[float | None]
) -> Figure:
    """Return a cell for each row of a sweep: white as usual, blue above, red below.

    Layers run across, what they hold downwards; `texts` are title and description.
    """
    height, width = len(grid.lines), len(grid.layers)
    numbered = [line for line, name in enumerate(grid.lines) if line_number(name)]
    step = -(-len(numbered) // 8)
    plot = Plot(
        Axis(
            -0.5,
            width - 0.5,
            range(0, width, -(-width // 8)),
            lambda column: str(grid.layers[int(column)]),
            x_name,
            "none",
        ),
        Axis(
            height - 0.5,
            -0.5,
            numbered[:: max(step, 1)],
            lambda line: line_number(grid.lines[int(line)]),
            lines="short",
        ),
        440,
        60 + min(TALL, CELL * height),
        "chart wide layer-map",
        LARGE,
    )
    box = {"width": plot.end - plot.left, "height": plot.base - plot.top}
    image = element(
        "image",
        href=cell_map(width, height, grid.cells, scores, FULL),
        preserveAspectRatio="none",
        x=plot.left,
        y=plot.top,
        **box,
    )
    return plot.figure(*texts, image)


def line_number(name: str) -> str:
    """Return the number of a line of a map, such as that of an expert; empty without one."""
    found = LAST.search(name)
    return found[1] if found else ""
