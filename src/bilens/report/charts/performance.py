"""Predictions against the truth: reliability, curves over thresholds, residuals."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.records.performance import Answer, Classification
from bilens.report.markup import Figure, line
from bilens.report.plot import SHARES, Axis, Plot, padded
from bilens.report.text import Catalogue


def share_charts(t: Catalogue, found: Classification) -> list[Figure]:
    """Return accuracy against confidence, with intervals; and both curves of two classes."""
    charts, dots = [], [(one.confidence, one.accuracy.value) for one in found.reliability]
    for key, curve in (
        ("reliability", dots),
        ("roc", found.roc),
        ("precision_recall", found.precision_recall),
    ):
        caption, text, *names = t.each(f"performance.{key}", ("caption", "text", "x", "y"))
        x, y = (Axis(0, 1, SHARES.ticks, SHARES.text, name) for name in names)
        plot = Plot(x, y, 340, 300, right=20)
        marks = [plot.dots(curve) if key == "reliability" else plot.line(curve)]
        if key != "precision_recall":
            marks.append(plot.line([(0, 0), (1, 1)], "curve second"))
        for one in found.reliability if key == "reliability" else ():
            place, ends = plot.across(one.confidence), (one.accuracy.low, one.accuracy.high)
            low, high = map(plot.upwards, ends)
            marks.append(line(place, low, place, high, "whisker"))
        if curve:
            charts.append(plot.figure(caption, text, *marks))
    return charts


def residual_chart(t: Catalogue, rows: Sequence[Answer]) -> Figure:
    """Return target − prediction against the prediction."""
    caption, text, *names = t.each("performance.residuals", ("caption", "text", "x", "y"))
    points = [(row.predicted, row.target - row.predicted) for row in rows]
    sides = zip(names, zip(*points, strict=True), strict=True)
    x, y = (Axis(*padded(values, 6), name=name) for name, values in sides)
    plot = Plot(x, y, 560, 300, right=20)
    return plot.figure(caption, text, plot.dots(points, radius=2.5))
