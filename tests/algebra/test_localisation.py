"""Inverse participation: its value, its bounds, its scale; of a space, whatever its basis.

Broken once: `mass = share.sum(dim=-1)` without its square; every value but that of unit vectors
failed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from bilens.algebra.localisation import localisation, subspace_localisation
from bilens.base.errors import ShapeError
from builders import randn, rotation, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, SOUND, Odd
from strategies import SCALES, entries, rotations


@pytest.mark.parametrize(
    ("components", "value"),
    [
        ([5.0], 1.0),
        ([0.0, -2.0, 0.0], 1.0),  # one input alone
        ([1.0, -1.0, 1.0, 1.0], 1 / 4),  # evenly over four
        ([2.0, 1.0], 17 / 25),  # (16 + 1) / (4 + 1)²
        ([0.0, 0.0], 0.0),
        ([1e200, 1e200], 1 / 2),
    ],
)
def test_the_localisation_of_a_known_vector(components: list[float], value: float) -> None:
    assert float(localisation(vector(*components))) == pytest.approx(value, abs=1e-15)


@given(st.integers(1, 6).flatmap(lambda n: entries(2, n)), SCALES)
def test_it_is_the_definition_within_its_bounds_in_any_scale(rows: Tensor, scale: float) -> None:
    found = localisation(rows)
    for row, value in zip(rows, found, strict=True):
        mass = float((row**2).sum()) ** 2
        assert float(value) == pytest.approx(float((row**4).sum()) / mass if mass else 0.0)
        assert not mass or 1 / len(row) - 1e-12 <= float(value) <= 1 + 1e-12
    torch.testing.assert_close(localisation(-scale * rows), found)


def test_a_random_direction_has_about_three_over_n_plus_two() -> None:
    """The mean over 2000 directions in 50 dimensions; their spread is about a fifth of it."""
    assert float(localisation(randn(2000, 50)).mean()) == pytest.approx(3 / 52, rel=0.02)


@given(rotations(3))
def test_a_space_is_as_localised_in_every_basis_of_it(turn: Tensor) -> None:
    basis = rotation(7)[:3]
    torch.testing.assert_close(subspace_localisation(turn @ basis), subspace_localisation(basis))


def test_a_space_of_axes_rests_on_as_many_inputs_as_it_has_dimensions() -> None:
    axes = torch.eye(5, dtype=torch.float64)[:3]
    assert float(subspace_localisation(axes)) == pytest.approx(1 / 3)
    assert float(subspace_localisation(axes[:1])) == float(localisation(axes[0])) == 1.0


@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT], ids=str)
def test_odd_vectors_are_refused(odd: Odd) -> None:
    for function in (localisation, subspace_localisation):
        with pytest.raises(odd.error, match=odd.message):
            function(odd.of(randn(2, 3)))


def test_vectors_without_inputs_are_refused() -> None:
    for empty in (randn(2, 0), torch.tensor(1.0)):
        with pytest.raises(ShapeError, match=r"expected \(..., n\), no axis of them empty"):
            localisation(empty)
    for empty in (randn(2, 0), randn(0, 3), randn(3)):
        with pytest.raises(ShapeError, match=r"expected \(..., m, n\), no axis of them empty"):
            subspace_localisation(empty)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_vectors_change_nothing(odd: Odd) -> None:
    torch.testing.assert_close(localisation(odd.of(randn(2, 3))), localisation(randn(2, 3)))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_gives_float64(dtype: torch.dtype) -> None:
    low = randn(2, 3).to(dtype)
    assert torch.equal(localisation(low), localisation(low.double()))
