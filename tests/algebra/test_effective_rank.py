"""The effective rank (Σ|λ|)² / Σλ²: its value, its bounds, its scale.

Broken once: `.abs()` dropped; the signed spectrum (1, −1) had rank 0 instead of 2.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

import oracles
from bilens.algebra.effective_rank import effective_rank
from bilens.base.errors import ShapeError
from builders import randn, vector
from odd_tensors import NOT_DENSE_FLOAT, NOT_FINITE, SOUND, Odd
from strategies import SCALES, entries


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


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_spectrum_needs_an_eigenvalue(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"eigenvalues has shape .* a whole spectrum"):
        effective_rank(randn(*shape))
