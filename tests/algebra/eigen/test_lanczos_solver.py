"""Pairs of an iteration, refined in float64, and how close two of them may be."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.lanczos_solver import cluster_limit, refine
from bilens.algebra.eigen.proofs import RefinedPairs, proven_by_norm
from bilens.algebra.eigen.solver import balance_all
from builders import randn, rotation, vector

NAN = torch.nan


def pairs(values: Tensor, residual: float = 0.0, noise: float = 0.0) -> RefinedPairs:
    """One form with these values; the vectors do not enter a proof."""
    values = values[None]
    vectors = torch.zeros(1, values.shape[1], 1).double()
    return RefinedPairs(values, vectors, torch.full_like(values, residual), vector(noise))


def test_the_limit_of_a_cluster_is_relative_to_the_largest_value_or_the_noise() -> None:
    assert float(cluster_limit(pairs(vector(-5, 1)))) == pytest.approx(5e-8)
    assert float(cluster_limit(pairs(vector(-5, 1), residual=1e-3, noise=1e-3))) == 2e-3


N, K = 12, 3


def test_refining_gives_the_best_pairs_of_the_space_that_the_vectors_span() -> None:
    """Rayleigh–Ritz: the eigenvalues of VᵀQV, vectors orthonormal, residuals as they are."""
    left, right, weights = randn(9, N), randn(9, N), randn(4, 9)
    forms = balance_all(left, right, weights)
    vectors = randn(4, K, N)
    found = refine(forms, vectors, torch.ones(4).double())
    for c in range(4):
        q = forms.dense(c)
        v = found.vectors[c]
        torch.testing.assert_close(v @ v.T, torch.eye(K).double())
        torch.testing.assert_close(torch.linalg.matrix_rank(torch.cat([v, vectors[c]])).item(), K)
        space = torch.linalg.qr(vectors[c].T).Q
        ritz = torch.linalg.eigvalsh(space.T @ q @ space)
        torch.testing.assert_close(found.values[c].sort().values, ritz)
        torch.testing.assert_close(
            found.residuals[c], (v @ q - found.values[c][:, None] * v).norm(dim=1)
        )
        assert found.values[c].abs().tolist() == sorted(found.values[c].abs(), reverse=True)


def test_refining_an_invariant_space_gives_eigenpairs_though_the_vectors_are_rough() -> None:
    """Vectors that are far from orthonormal and hold no eigenvector, in float32."""
    values, turn = torch.linspace(-1, 2, N).double(), rotation(N)
    forms = balance_all(turn, turn, values[None])
    mixed = randn(K, K) @ turn[-K:]
    found = refine(forms, mixed[None].float(), torch.ones(1).double())
    torch.testing.assert_close(
        found.values[0] * forms.units, values[-K:].flip(0), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("value", [NAN, torch.inf])
def test_vectors_that_are_not_finite_poison_their_own_form_alone(value: float) -> None:
    forms = balance_all(randn(9, N), randn(9, N), randn(4, 9))
    vectors, mass = randn(4, K, N), torch.ones(4).double()
    good = refine(forms, vectors, mass)
    vectors[2, 1, 5] = value
    found = refine(forms, vectors, mass)
    assert bool(found.values[2].isnan().all())
    assert bool(found.residuals[2].isnan().all())
    assert not bool(proven_by_norm(found, 100 * mass, mass, "magnitude")[2])
    others = torch.tensor([0, 1, 3])
    assert torch.equal(found.values[others], good.values[others])
    assert torch.equal(found.vectors[others], good.vectors[others])
