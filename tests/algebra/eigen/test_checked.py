"""What a solver hands over is judged: a wrong value, a wrong vector, a pair lost or counted twice.

Broken once: the orthogonality dropped from `converged`; zeros passed for eigenvectors.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.checked import checked_spectrum, factor_scale, failed
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.quadratic_form import QuadraticForm
from builders import D_HIDDEN, D_IN, form_of, randn, random_map, rotation, vector

N = 6
VALUES = vector(5.0, 3.0, 2.0, 2.0, -1.0, 0.0)
VECTORS = rotation(N)
Pairs = tuple[Tensor, Tensor]


def make() -> QuadraticForm:
    return form_of(VECTORS.T @ torch.diag(VALUES) @ VECTORS)


def moved(tensor: Tensor, index: int, value: object) -> Tensor:
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def test_true_pairs_pass() -> None:
    result = checked_spectrum(make(), VALUES, VECTORS, N, "magnitude", "by hand")
    assert (result.status, result.method, result.which) == (Status.OK, "by hand", "magnitude")
    assert bool(result.complete)
    assert bool(result.converged.all())


WRONG: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "a value is off": lambda v, w: (moved(v, 0, 5 + 1e-9), w),
    "a vector is off": lambda v, w: (v, moved(w, 0, w[0] + 1e-9 * w[1])),
    "two vectors are swapped": lambda v, w: (v, w[[1, 0, 2, 3, 4, 5]]),
    "a vector is not of unit length": lambda v, w: (v, moved(w, 0, 2 * w[0])),
    "all vectors are zero": lambda v, w: (v, torch.zeros_like(w)),
    "the vectors are the identity": lambda v, w: (v, torch.eye(N).to(w)),
    "a tie has the same vector twice": lambda v, w: (v, moved(w, 3, w[2])),
    "a pair is counted twice": lambda v, w: (moved(v, 1, v[0]), moved(w, 1, w[0])),
    "signs are lost": lambda v, w: (v.abs(), w),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pairs_are_flagged(name: str) -> None:
    values, vectors = WRONG[name](VALUES, VECTORS)
    result = checked_spectrum(make(), values, vectors, N, "magnitude", "broken")
    assert result.status is Status.RESIDUAL_TOO_LARGE
    assert not bool(result.complete)


def test_a_wrong_vector_is_flagged_and_the_good_ones_are_not() -> None:
    vectors = moved(VECTORS, 0, (VECTORS[0] + VECTORS[5]) / 2**0.5)
    result = checked_spectrum(make(), VALUES, vectors, N - 1, "magnitude", "broken")
    assert result.converged.tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(
    "values",
    [
        vector(5, 3, 2, 2, 0),  # −1 is lost: mass and trace are short
        vector(5, 3, 2, 2, 1, 0),  # −1 lost its sign: only the trace tells
        vector(5, 3, 2.5, 1.5, -1, 0),  # 2 and 2 were mixed up: only the mass tells
    ],
    ids=["a pair", "a sign", "a tie"],
)
def test_a_spectrum_that_is_not_whole_is_noticed_though_the_returned_pairs_are_right(
    values: Tensor,
) -> None:
    """The two pairs that are returned, of 5 and 3, have no residual."""
    vectors = VECTORS[[0, 1, 2, 3, 5]] if len(values) < N else VECTORS
    result = checked_spectrum(make(), values, vectors, 2, "magnitude", "broken")
    assert bool(result.converged.all())
    assert not bool(result.complete)
    assert result.status is Status.RESIDUAL_TOO_LARGE


def test_residuals_come_from_the_factors() -> None:
    """‖Qv − λv‖ with λ off by 0.25 is 0.25."""
    result = checked_spectrum(make(), VALUES + 0.25, VECTORS, N, "magnitude", "broken")
    torch.testing.assert_close(result.residuals, torch.full((N,), 0.25, dtype=torch.float64))


def test_the_scale_of_the_factors_bounds_the_norm() -> None:
    form = random_map().form(randn(3))
    matrix = form.matrix
    by_hand = sum(
        abs(float(matrix.weight[h])) * float(matrix.left[h].norm()) * float(matrix.right[h].norm())
        for h in range(D_HIDDEN)
    )
    assert float(factor_scale(matrix)) == pytest.approx(by_hand)
    assert float(form.norm()) <= by_hand


def test_a_norm_that_overflows_is_not_judged() -> None:
    form = form_of(torch.diag(vector(1e200, 1.0)))
    eye = torch.eye(2, dtype=torch.float64)
    result = checked_spectrum(form, vector(1e200, 1.0), eye, 2, "magnitude", "m")
    assert result.status is Status.NOT_FINITE


@pytest.mark.parametrize("k", [1, D_IN])
def test_a_failed_form_claims_nothing(k: int) -> None:
    form = random_map().form(randn(3))
    result = failed(form, k, "both", "dense", Status.NOT_CONVERGED)
    assert result.eigenvalues.shape == (k,)
    assert result.eigenvectors.shape == (k, D_IN)
    for part in (result.eigenvalues, result.eigenvectors, result.residuals):
        assert bool(part.isnan().all())
    assert bool(result.frobenius_squared.isnan())
    assert not bool(result.complete)
    assert not bool(result.converged.any())
    assert torch.equal(result.linear, form.linear)
