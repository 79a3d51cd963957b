"""What a solver hands over is judged: a wrong value, a wrong vector, a pair lost or counted twice.

Broken once: the orthogonality dropped from `converged`; zeros passed for eigenvectors.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.balance import balance_all
from bilens.algebra.eigen.checked import Spectrum, checked_spectrum, clusters, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.quadratic_form import QuadraticForm
from builders import D_IN, form_of, randn, random_map, rotation, vector

N = 6
VALUES = vector(5, 3, 2, 2, -1, 0)
VECTORS = rotation(N)
Pairs = tuple[Tensor, Tensor]


def make() -> QuadraticForm:
    return form_of(VECTORS.T @ torch.diag(VALUES) @ VECTORS)


def judged(values: Tensor, vectors: Tensor, k: int = N) -> EigenDecomposition:
    """What is said about an answer for the form of VALUES and VECTORS."""
    matrix = make().matrix
    form = balance_all(matrix.left, matrix.right, matrix.weight[None])
    array, scaled = form.dense(0), values / form.units[0]
    residuals = (vectors @ array - scaled[:, None] * vectors).norm(dim=1)
    mass = array.square().sum()
    spectrum = Spectrum(scaled, vectors, residuals, mass, torch.zeros_like(mass))
    return checked_spectrum(make(), form, spectrum, k, "magnitude", "by hand")


def moved(tensor: Tensor, index: int, value: object) -> Tensor:
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def test_true_pairs_pass() -> None:
    result = judged(VALUES, VECTORS)
    assert (result.status, result.method, result.which) == (Status.OK, "by hand", "magnitude")
    assert bool(result.complete)
    assert bool(result.converged.all())
    torch.testing.assert_close(result.eigenvalues, VALUES)
    torch.testing.assert_close(result.frobenius_squared, vector(43)[0])  # 25 + 9 + 4 + 4 + 1
    torch.testing.assert_close(judged(VALUES, VECTORS, k=2).explained, vector(34 / 43)[0])


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
    result = judged(*WRONG[name](VALUES, VECTORS))
    assert result.status is Status.RESIDUAL_TOO_LARGE
    assert not bool(result.complete)


def test_a_wrong_vector_is_flagged_and_the_good_ones_are_not() -> None:
    """v_1 + v_6 for v_1: both the first and the last pair are no longer orthonormal."""
    vectors = moved(VECTORS, 0, (VECTORS[0] + VECTORS[5]) / 2**0.5)
    assert judged(VALUES, vectors, k=N - 1).converged.tolist() == [False, True, True, True, True]


def test_a_flag_stays_with_its_pair_whatever_the_order_of_the_solver() -> None:
    """Values rising, as solvers give them: the wrong one, 5, is the last and comes out first."""
    values = moved(VALUES, 0, 5 + 1e-9)
    assert judged(values.flip(0), VECTORS.flip(0), k=3).converged.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "values",
    [
        vector(5, 3, 2, 2, 0),  # −1 is lost
        vector(5, 3, 2, 2, 1, 0),  # −1 lost its sign
        vector(5, 3, 2.5, 1.5, -1, 0),  # 2 and 2 were mixed up
    ],
    ids=["a pair", "a sign", "a tie"],
)
def test_a_spectrum_that_is_not_whole_is_noticed_though_the_returned_pairs_are_right(
    values: Tensor,
) -> None:
    """The two pairs that are returned, of 5 and 3, have no residual."""
    vectors = VECTORS[[0, 1, 2, 3, 5]] if len(values) < N else VECTORS
    result = judged(values, vectors, k=2)
    assert bool(result.converged.all())
    assert not bool(result.complete)
    assert result.status is Status.RESIDUAL_TOO_LARGE


def test_residuals_come_from_the_factors() -> None:
    """‖Qv − λv‖ with λ off by 0.25 is 0.25."""
    residuals = judged(VALUES + 0.25, VECTORS).residuals
    torch.testing.assert_close(residuals, torch.full((N,), 0.25, dtype=torch.float64))


def test_clusters_are_found_in_the_whole_spectrum_whatever_its_order() -> None:
    """Neighbours within 1e-8 of the largest size, in a chain: 2, 2 + 1e-9 and 2 + 2e-9."""
    values = vector(2 + 1e-9, -5, 2, 0, 2 + 2e-9, -2)
    labels, sizes = clusters(values, noise=0.0)
    assert sizes.tolist() == [3, 1, 3, 1, 3, 1]
    assert len({int(labels[i]) for i in (0, 2, 4)}) == 1
    assert len(set(labels.tolist())) == 4


def test_eigenvalues_within_the_noise_are_one_cluster() -> None:
    _, sizes = clusters(vector(1, 0.5, 0.45), noise=0.1)
    assert sizes.tolist() == [1, 2, 2]


@pytest.mark.parametrize("k", [1, D_IN])
def test_a_failed_form_claims_nothing(k: int) -> None:
    form = random_map().form(randn(3))
    result = failed(form, k, "both", "dense", Status.NOT_CONVERGED)
    assert result.eigenvalues.shape == result.cluster.shape == (k,)
    assert result.eigenvectors.shape == (k, D_IN)
    for part in ("eigenvalues", "eigenvectors", "residuals", "frobenius_squared", "explained"):
        assert bool(getattr(result, part).isnan().all())
    assert bool(result.noise.isnan())
    assert not bool(result.complete)
    assert not bool(result.converged.any())
    assert torch.equal(result.linear, form.linear)
