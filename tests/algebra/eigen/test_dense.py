"""The dense reference solver against 50 digits of mpmath, on random and on hand-made matrices.

Broken once: `eigenvalues=values * balanced.unit` without its unit; almost every matrix failed.
"""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.eigen.eigendecompose import eigendecompose
from builders import form_from_pairs, form_of, randn, rotation, vector

EPS = torch.finfo(torch.float64).eps


def diagonal(*values: float) -> Tensor:
    return torch.diag(vector(*values))


def arrow(n: int) -> Tensor:
    q = diagonal(*range(1, n + 1))
    q[0, :] = q[:, 0] = 1
    return q


def hilbert(n: int) -> Tensor:
    i = torch.arange(n, dtype=torch.float64)
    return 1 / (i[:, None] + i + 1)


def tridiagonal(main: Tensor, side: Tensor) -> Tensor:
    return torch.diag(main) + torch.diag(side, 1) + torch.diag(side, -1)


def turned(values: Tensor, seed: int = 0) -> Tensor:
    turn = rotation(len(values), seed)
    return turn.T @ torch.diag(values) @ turn


TEN = torch.arange(-10, 11, dtype=torch.float64).abs()  # 10 … 1 0 1 … 10
HAND_MADE: dict[str, Tensor] = {
    "1 x 1": diagonal(-3.0),
    "zero": diagonal(0.0, 0.0, 0.0),
    "identity": diagonal(1.0, 1.0, 1.0, 1.0),
    "diagonal": diagonal(3.0, -7.0, 0.5),
    "rank one": torch.outer(randn(6), randn(6)),
    "minus rank one": -torch.outer(randn(6), randn(6)),
    "XOR (x - y)^2, eigenvalues 0 and 2": vector(1.0, -1.0, -1.0, 1.0).reshape(2, 2),
    "AND xy, eigenvalues 1/2 and -1/2": vector(0.0, 0.5, 0.5, 0.0).reshape(2, 2),
    "pairs of both signs": turned(vector(2.0, -2.0, 1.0, -1.0, 0.0)),
    "Wilkinson W21+": tridiagonal(TEN, torch.ones(20, dtype=torch.float64)),
    "Hilbert 8": hilbert(8),
    "Hilbert 12": hilbert(12),
    "arrow": arrow(8),
    "a cluster of width 1e-12": turned(1 + 1e-12 * torch.arange(6, dtype=torch.float64)),
    "a cluster beside a large one": turned(vector(1e6, 1.0, 1 + 1e-12, -1.0)),
    "graded 1e±100": diagonal(1e100, -1.0, 1e-100),
    "graded and coupled": tridiagonal(
        vector(1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10), vector(1e-1, 1e-3, 1e-5, 1e-7, 1e-9)
    ),
    "all of size 1e100": 1e100 * randn(4, 4),
    "all of size 1e-100": 1e-100 * randn(4, 4),
    "all of size 1e150": 1e150 * randn(4, 4),
    "so small that the squares vanish": 1e-170 * randn(4, 4),
    "Toeplitz (2, -1)": tridiagonal(vector(*[2.0] * 12), vector(*[-1.0] * 11)),
    "ones with a large and a small corner": vector(*[1.0] * 144).reshape(12, 12)
    + diagonal(1e5, *[0.0] * 10, 1e-5),
}
RANDOM = {
    f"random {n}, seed {seed}": randn(n, n, seed=seed) for n in (2, 3, 5) for seed in range(6)
}


@pytest.fixture(autouse=True)
def digits() -> object:
    with mpmath.workdps(50):
        yield


@pytest.mark.parametrize("name", [*HAND_MADE, *RANDOM])
def test_eigenvalues_agree_with_fifty_digits(name: str) -> None:
    """Backward stability (Weyl): each eigenvalue within 100 eps ‖Q‖ of the true one."""
    q = {**HAND_MADE, **RANDOM}[name]
    q = (q + q.T) / 2
    eig = eigendecompose(form_of(q))
    exact = mpmath.eigsy(mpmath.matrix(q.tolist()), eigvals_only=True)
    ours = sorted(eig.eigenvalues.tolist())
    scale = max(abs(value) for value in exact) or mpmath.mpf(1)
    worst = max(abs(a - b) for a, b in zip(ours, sorted(exact), strict=True))
    assert worst <= 100 * EPS * scale
    assert eig.status is Status.OK
    assert bool(eig.complete)
    assert float(eig.residuals.max()) <= 1000 * EPS * float(scale)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 128])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_residuals_orthogonality_trace_and_mass(n: int, dtype: torch.dtype) -> None:
    """All at most 1000 eps ‖Q‖ in float64, whatever the dtype of the factors."""
    form = form_of(randn(n, n, seed=n)).to(dtype)
    eig = eigendecompose(form)
    values, vectors = eig.eigenvalues, eig.eigenvectors
    limit = 1000 * EPS * max(float(form.norm()), 1.0)
    assert values.dtype is vectors.dtype is torch.float64
    q = form.matrix.right.double()
    q = (q + q.T) / 2
    assert float((q @ vectors.T - vectors.T * values).norm(dim=0).max()) <= limit
    assert float((vectors @ vectors.T - torch.eye(n).double()).abs().max()) <= 1000 * EPS
    assert float((values.sum() - q.trace()).abs()) <= limit
    assert float((values.square().sum() - q.square().sum()).abs()) <= limit * float(form.norm() + 1)


def test_a_cluster_of_which_every_vector_would_do_still_has_orthonormal_vectors() -> None:
    eig = eigendecompose(form_of(torch.eye(20, dtype=torch.float64)))
    torch.testing.assert_close(
        eig.eigenvectors @ eig.eigenvectors.T, torch.eye(20, dtype=torch.float64)
    )


def test_factors_that_cancel_are_judged_by_their_size_before_they_do() -> None:
    """Q = 1e8 (v vᵀ − w wᵀ) with w = v + 1e-9 e: what remains is of the size of rounding."""
    v = rotation(6)[:1]
    pair = torch.cat([v, v + 1e-9])
    eig = eigendecompose(form_from_pairs(vector(1e8, -1e8), pair))
    assert eig.status is Status.OK


def test_the_same_form_gives_the_same_bytes() -> None:
    form = form_of(randn(40, 40))
    first, second = eigendecompose(form), eigendecompose(form)
    assert torch.equal(first.eigenvalues, second.eigenvalues)
    assert torch.equal(first.eigenvectors, second.eigenvectors)


def test_vectors_that_lost_their_orthogonality_are_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As divide and conquer loses it: between neighbours, by more than a thousand roundings."""
    solver = torch.linalg.eigh

    def careless(array: Tensor) -> tuple[Tensor, Tensor]:
        values, columns = solver(array)
        skewed = columns.clone()
        skewed[:, 1] += 3e-12 * columns[:, 0]
        return values, skewed

    form = form_from_pairs(vector(1, 1 + 1e-3, 2, 3), rotation(4))
    monkeypatch.setattr(torch.linalg, "eigh", careless)
    eig = eigendecompose(form, method="dense")
    assert bool(eig.complete)
    overlap = eig.eigenvectors @ eig.eigenvectors.T - torch.eye(4, dtype=torch.float64)
    assert float(overlap.abs().max()) < 1e-15
