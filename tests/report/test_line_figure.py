"""Drawings of curves: every point is where it belongs, and the axes hold all of them.

Broken once: `round_ticks` rounding the last tick down; points lay outside the drawing.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from bilens.base.errors import UsageError
from bilens.report.line_figure import HEIGHT, START, WIDTH, Curve, line_figure, round_ticks
from bilens.report.loss_figure import loss_figure

LINES = [
    {"step": 100, "train_loss": 4.0, "held_out_loss": 4.5},
    {"step": 200, "train_loss": 2.0, "held_out_loss": 3.25},
    {"step": 300, "train_loss": 1.0, "held_out_loss": 3.5},
]
numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def places(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each curve in the drawing, those of the legend left out."""
    found = [
        [tuple(map(float, pair.split(","))) for pair in text.split()]
        for text in re.findall(r'<polyline points="([^"]*)"', svg)
    ]
    return [line for line in found if line[0][1] != 52]  # type: ignore[misc]


@given(st.lists(numbers, min_size=1, max_size=20))
def test_ticks_are_few_even_and_hold_all_values(values: list[float]) -> None:
    ticks = round_ticks(values)
    span = ticks[-1] - ticks[0]
    assert ticks[0] <= min(values) + 1e-9 * span
    assert ticks[-1] >= max(values) - 1e-9 * span
    assert 2 <= len(ticks) <= 8
    steps = [second - first for first, second in pairwise(ticks)]
    assert max(steps) - min(steps) <= 1e-9 * max(map(abs, ticks))


def test_points_lie_on_a_linear_scale_inside_the_drawing() -> None:
    curves = [Curve("one", ((0.0, 1.0), (5.0, 2.0), (10.0, 5.0))), Curve("two", ((2.0, 3.0),))]
    svg = line_figure("title", "x", "y", curves)
    ((start, middle, end),) = places(svg)
    assert middle[0] == pytest.approx((start[0] + end[0]) / 2)
    assert (start[1] - end[1]) / (start[1] - middle[1]) == pytest.approx(4, abs=0.01)
    for x, y in (start, middle, end):
        assert 0 < x < WIDTH
        assert 0 < y < HEIGHT
    assert svg.count("<circle") == 1


def test_a_long_legend_does_not_begin_before_the_title() -> None:
    names = ["1 eigenvector", "2 eigenvectors", "8 eigenvectors", "published, other model"]
    svg = line_figure("title", "x", "y", [Curve(n, ((0.0, 1.0), (1.0, 2.0))) for n in names])
    keys = [float(x) for x in re.findall(r'<polyline points="([^",]*),52', svg)]
    assert len(keys) == len(names)
    assert min(keys) >= START


def test_the_file_is_one_drawing_that_needs_nothing_else() -> None:
    svg = line_figure("a < b & c", "x", "y", [Curve('"', ((0.0, 0.0), (1.0, 1.0)))])
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.find("{http://www.w3.org/2000/svg}title").text == "a < b & c"  # type: ignore[union-attr]
    assert "href" not in svg


def test_the_loss_of_a_run_shows_both_curves_and_says_the_best() -> None:
    svg = loss_figure(LINES)
    held_out, train = places(svg)
    assert [x for x, _ in held_out] == [x for x, _ in train]
    assert held_out[1][1] > held_out[2][1] > held_out[0][1]  # lower is further down
    assert svg.count("stroke-dasharray") == 2  # the curve and its key
    assert "within 300 steps is 3.2500 nats" in svg
    assert "学習中の損失" in loss_figure(LINES, "ja")
    with pytest.raises(UsageError, match="choose one of en, ja"):
        loss_figure(LINES, "de")
