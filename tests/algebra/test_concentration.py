"""Effective rank, localisation and roughness."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.fft import dctn
from torch import Tensor

import oracles
from bilens.algebra.concentration import (
    cosine_transform,
    effective_rank,
    localisation,
    roughness,
    subspace_localisation,
)
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.base.errors import ShapeError, UsageError
from builders import randn, random_map, rotation, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, SOUND, Odd
from strategies import SCALES, entries, rotations


@pytest.mark.parametrize(
    ("spectrum", "rank"),
    [
        ([5.0], 1.0),
        ([1.0, -1.0], 2.0),
        ([1.0, 1.0, 1.0, 0.0], 3.0),
        ([3.0, 1.0], 16 / 10),  # (3 + 1)² / (9 + 1)
        ([4.0, -2.0, 1.0], 49 / 21),  # (4 + 2 + 1)² / (16 + 4 + 1)
        ([0.0, 0.0], 0.0),
    ],
)
def test_the_effective_rank_of_a_known_spectrum(spectrum: list[float], rank: float) -> None:
    value = effective_rank(torch.tensor(spectrum, dtype=torch.float64))
    assert float(value) == pytest.approx(rank, abs=1e-15)


def test_the_leading_eigenvalues_of_a_decomposition_are_no_spectrum() -> None:
    f = random_map(d_in=8, d_hidden=12)
    whole = eigendecompose_all(f)
    assert whole.eigenvalues.shape[-1] == 8  # all of them, as of one form
    assert float(effective_rank(whole.eigenvalues)[0]) > 3
    part = eigendecompose_all(f, k=2)
    for values in (part.eigenvalues, part.eigenvalues[0], part[0].eigenvalues):
        with pytest.raises(UsageError, match="the 2 leading eigenvalues of a decomposition"):
            effective_rank(values)
    few = random_map(d_in=9, d_hidden=2)  # rank 4: what is left out is zero
    rank = effective_rank(eigendecompose_all(few).eigenvalues)
    torch.testing.assert_close(effective_rank(eigendecompose_all(few, k=6).eigenvalues), rank)


@given(st.integers(1, 6).flatmap(lambda n: entries(n)))
def test_it_equals_the_definition_and_lies_between_one_and_the_rank(spectrum: torch.Tensor) -> None:
    """Cauchy–Schwarz: (Σ|λ|)² ≤ rank · Σλ², and Σλ² ≤ (Σ|λ|)²."""
    value = effective_rank(spectrum)
    torch.testing.assert_close(value, oracles.effective_rank(spectrum))
    rank = int((spectrum != 0).sum())
    assert min(rank, 1) - 1e-12 <= float(value) <= rank + 1e-12


@given(st.integers(1, 6).flatmap(lambda n: entries(n)), SCALES, st.booleans())
def test_neither_scale_nor_sign_nor_order_matters(
    spectrum: torch.Tensor, scale: float, negative: bool
) -> None:
    changed = (-scale if negative else scale) * spectrum.flip(0)
    torch.testing.assert_close(effective_rank(changed), effective_rank(spectrum))


@given(entries(4))
def test_zeros_may_be_left_out(spectrum: torch.Tensor) -> None:
    padded = torch.cat([spectrum, torch.zeros(3, dtype=torch.float64)])
    torch.testing.assert_close(effective_rank(padded), effective_rank(spectrum))


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e300])
def test_squares_that_would_overflow_or_vanish_do_no_harm(scale: float) -> None:
    spectrum = scale * vector(3.0, 1.0)
    assert float(effective_rank(spectrum)) == pytest.approx(1.6)


def test_a_batch_gives_one_rank_a_spectrum() -> None:
    batch = randn(2, 3, 5)
    single = torch.stack([oracles.effective_rank(row) for row in batch.flatten(0, 1)])
    torch.testing.assert_close(effective_rank(batch), single.reshape(2, 3))


@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT], ids=str)
def test_an_odd_spectrum_is_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=odd.message):
        effective_rank(odd.of(randn(2, 3)))


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_spectrum_changes_nothing(odd: Odd) -> None:
    torch.testing.assert_close(effective_rank(odd.of(randn(2, 3))), effective_rank(randn(2, 3)))


def test_spectra_and_vectors_without_entries_are_refused() -> None:
    for shape in ((), (0,), (3, 0)):
        with pytest.raises(ShapeError, match=r"eigenvalues has shape .* a whole spectrum"):
            effective_rank(randn(*shape))
    for empty in (randn(2, 0), torch.tensor(1.0)):
        with pytest.raises(ShapeError, match=r"expected \(..., n\), no axis of them empty"):
            localisation(empty)
    for empty in (randn(2, 0), randn(0, 3), randn(3)):
        with pytest.raises(ShapeError, match=r"expected \(..., m, n\), no axis of them empty"):
            subspace_localisation(empty)


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


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_vectors_change_nothing(odd: Odd) -> None:
    torch.testing.assert_close(localisation(odd.of(randn(2, 3))), localisation(randn(2, 3)))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_gives_float64(dtype: torch.dtype) -> None:
    low = randn(2, 3).to(dtype)
    assert torch.equal(localisation(low), localisation(low.double()))


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (1, 5)])
def test_the_coefficients_are_those_of_scipy(shape: tuple[int, int]) -> None:
    patterns = randn(3, shape[0] * shape[1], seed=1)
    expected = dctn(patterns.reshape(3, *shape).numpy(), axes=(1, 2), norm="ortho")
    assert np.abs(cosine_transform(patterns, shape).numpy() - expected).max() < 1e-13


def test_a_constant_is_smooth_and_a_flip_from_pixel_to_pixel_is_not() -> None:
    shape = (8, 12)
    flat = torch.ones(96, dtype=torch.float64)
    columns = torch.arange(12) % 2 * 2.0 - 1
    stripes = columns.double().repeat(8)
    both = torch.stack([flat, stripes])
    smooth, rough = roughness(both, shape).tolist()
    assert smooth == pytest.approx(0, abs=1e-12)
    assert 0.8 < rough < 1


@pytest.mark.parametrize("axis", [0, 1])
def test_one_cosine_has_its_own_frequency(axis: int) -> None:
    shape, wave = (8, 12), 3
    length = shape[axis]
    row = torch.cos(torch.pi / length * (torch.arange(length).double() + 0.5) * wave)
    pattern = row[:, None].expand(8, 12) if axis == 0 else row.expand(8, 12)
    assert float(roughness(pattern.reshape(-1), shape)) == pytest.approx(wave / length)


def test_noise_is_where_it_is_said_to_be_and_scale_does_not_matter() -> None:
    noise = randn(200, 784, seed=2)
    assert float(roughness(noise, (28, 28)).mean()) == pytest.approx(0.75, abs=0.02)
    assert torch.allclose(roughness(noise, (28, 28)), roughness(1e-6 * noise, (28, 28)))
    assert float(roughness(torch.zeros(784), (28, 28))) == 0
