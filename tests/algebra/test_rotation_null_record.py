"""Edges and p-values of a null whose samples are known numbers."""

import math
from dataclasses import replace

import pytest
import torch

from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.rotation_null import RotationNull
from bilens.base.errors import NumericalError, ShapeError, UsageError
from builders import vector

KNOWN = RotationNull(
    largest=vector(*range(1, 20)).flip(0)[:, None],  # 19 … 1: the order of samples is no matter
    smallest=-vector(*range(1, 20))[:, None],
    effective_rank=vector(*[1.0] * 19)[:, None],
    status=(Status.OK,),
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


def test_a_null_that_lacks_a_direction_is_told() -> None:
    KNOWN.check_usable()
    lacking = replace(KNOWN, status=(Status.OK, Status.NOT_FINITE, Status.NOT_CONVERGED))
    with pytest.raises(
        NumericalError, match=r"direction\(s\) 1, 2 have no null distribution: it holds NaN"
    ):
        lacking.check_usable()


SPECTRUM = vector(25, 18.5, 3, 0, -1, -19, -30)[None]  # one direction


def test_every_eigenvalue_is_compared_with_the_extreme_of_the_null() -> None:
    """Of 19 largest values 1 … 19: none ≥ 25, one ≥ 18.5, seventeen ≥ 3; the mirror image below."""
    found = KNOWN.num_significant(SPECTRUM, level=0.9)
    expected = vector(1, 2, 18, 20, 20, 2, 1)[None] / 20
    torch.testing.assert_close(found.p_values, expected)
    assert (found.positive.tolist(), found.negative.tolist()) == ([2], [2])
    assert found.level == 0.9


@pytest.mark.parametrize(("level", "count"), [(0.95, 1), (0.9, 2), (0.96, 0), (0.1, 3)])
def test_what_is_declared_is_what_is_beyond_the_edge(level: float, count: int) -> None:
    """p ≤ 1 − level; with 19 samples no p-value is below 0.05, so 0.96 declares nothing."""
    found = KNOWN.num_significant(SPECTRUM, level)
    assert found.positive.tolist() == [count]
    if level <= 0.95:
        assert count == int((KNOWN.edges(level)[1] < SPECTRUM).sum())


def test_zeros_and_what_was_not_decomposed_are_no_evidence() -> None:
    found = KNOWN.num_significant(vector(0, math.nan, -0.0)[None])
    assert found.p_values.tolist() == [[1.0, 1.0, 1.0]]
    assert found.positive.tolist() == found.negative.tolist() == [0]


def test_the_order_of_the_eigenvalues_is_no_matter() -> None:
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    found = KNOWN.num_significant(SPECTRUM[:, order])
    assert torch.equal(found.p_values, KNOWN.num_significant(SPECTRUM).p_values[:, order])


@pytest.mark.parametrize(("observed", "low", "high"), [(0.5, 1, 20), (1, 20, 20), (2, 20, 1)])
def test_ranks_have_p_values_at_both_ends(observed: float, low: int, high: int) -> None:
    """All 19 ranks of the null are 1."""
    p_low, p_high = KNOWN.effective_rank_p_values(vector(observed))
    assert (float(p_low), float(p_high)) == (low / 20, high / 20)


def test_a_rank_that_was_not_computed_is_no_evidence() -> None:
    p_low, p_high = KNOWN.effective_rank_p_values(vector(math.nan))
    assert float(p_low) == float(p_high) == 1.0


def test_localisation_is_significant_where_it_is_high() -> None:
    null = replace(KNOWN, localisation_smallest=KNOWN.largest, localisation_largest=KNOWN.largest)
    low, high = null.localisation_p_values(vector(0), vector(18.5))
    assert (float(low), float(high)) == (1.0, 2 / 20)


def test_localisation_that_was_not_sampled_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"no localisation: .*rotation_null\(..., localised=True"):
        KNOWN.localisation_p_values(vector(0), vector(0))


def test_numbers_for_other_directions_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"eigenvalues has 2 rows; expected .* the 1 directions"):
        KNOWN.num_significant(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"observed has 2 entries; expected .* the 1 directions"):
        KNOWN.effective_rank_p_values(vector(1, 1))
    with pytest.raises(ShapeError, match=r"largest is a list; a torch.Tensor was expected"):
        KNOWN.p_values(vector(0), [0.0])


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_a_level_of_significance_is_a_probability(level: float) -> None:
    with pytest.raises(UsageError, match="a number between 0 and 1 was expected"):
        KNOWN.num_significant(SPECTRUM, level)
