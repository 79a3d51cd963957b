"""Edges and p-values of a null whose samples are known numbers.

Broken once: `1 +` dropped from the p-values; an eigenvalue beyond all samples had p = 0.
"""

from __future__ import annotations

import math

import pytest

from bilens.algebra.rotation_null import RotationNull
from bilens.errors import ShapeError, UsageError
from builders import vector

KNOWN = RotationNull(
    largest=vector(*range(1, 20)).flip(0)[:, None],  # 19 … 1: the order of samples is no matter
    smallest=-vector(*range(1, 20))[:, None],
    effective_rank=vector(*[1.0] * 19)[:, None],
)


@pytest.mark.parametrize(
    ("level", "edge"),
    [(0.95, 19.0), (0.90, 18.0), (0.5, 10.0), (0.05, 1.0), (0.91, 19.0), (0.999, 19.0)],
)
def test_an_edge_is_an_order_statistic(level: float, edge: float) -> None:
    """The ⌈level · 20⌉-th smallest of 19 values, and the last one where there are too few."""
    lower, upper = KNOWN.edges(level)
    assert (float(lower), float(upper)) == (-edge, edge)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(UsageError, match="a number between 0 and 1 was expected"):
        KNOWN.edges(level)


@pytest.mark.parametrize(
    ("observed", "p"),
    [(20.0, 1 / 20), (19.0, 2 / 20), (18.5, 2 / 20), (10.0, 11 / 20), (0.0, 1.0), (math.nan, 1.0)],
)
def test_a_p_value_counts_the_samples_that_are_as_extreme(observed: float, p: float) -> None:
    """(1 + #{sample ≥ observed}) / 20; what was not computed (NaN) is no evidence."""
    low, high = KNOWN.p_values(vector(-observed), vector(observed))
    assert (float(low), float(high)) == (p, p)


def test_p_values_need_an_eigenvalue_for_each_direction() -> None:
    with pytest.raises(ShapeError, match=r"smallest has 2 entries; .* each of the 1 directions"):
        KNOWN.p_values(vector(0, 0), vector(0))
    with pytest.raises(ShapeError, match="largest has 2 entries"):
        KNOWN.p_values(vector(0), vector(0, 0))
