"""Lanczos' method on matrices given by products, and its pairs refined in float64."""

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.eigen.lanczos import Product, RitzPairs, lanczos, left_out
from bilens.algebra.eigen.lanczos_solver import refine
from bilens.algebra.eigen.proofs import proven_by_norm
from bilens.algebra.eigen.solver import balance_all
from builders import randn, rotation, vector

WHICH = ("magnitude", "largest", "smallest", "both")
N = 40


def symmetric(num: int, n: int, seed: int = 0) -> Tensor:
    q = randn(num, n, n, seed=seed)
    return (q + q.mT) / 2


def of_spectrum(values: Tensor, seed: int = 0) -> Tensor:
    turn = rotation(len(values), seed)
    return (turn.T * values) @ turn


def product_of(matrices: Tensor) -> Product:
    return lambda rows, vectors: torch.bmm(matrices[rows], vectors[:, :, None])[:, :, 0]


def pairs_of(
    matrices: Tensor,
    k: int,
    which: str = "magnitude",
    start: Tensor | None = None,
    max_steps: int = 1000,
    relative: float = 1e-12,
) -> RitzPairs:
    if start is None:
        start = randn(matrices.shape[-1], seed=99)
        start = (start / start.norm()).to(matrices.dtype)
    tolerance = relative * matrices.double().flatten(1).norm(dim=1)
    return lanczos(product_of(matrices), start, tolerance, k, which, max_steps)


def values_of(matrices: Tensor, found: RitzPairs) -> Tensor:
    """Rayleigh quotients, (num, k)."""
    vectors = found.vectors.double()
    return ((vectors @ matrices.double()) * vectors).sum(dim=2)


def by_size(values: Tensor) -> list[float]:
    return sorted(values.tolist(), key=abs, reverse=True)


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k", [1, 2, 5, N])
def test_the_ends_asked_for_are_found(which: str, k: int) -> None:
    matrices = symmetric(5, N)
    found = pairs_of(matrices, k, which)
    for q, values in zip(matrices, values_of(matrices, found), strict=True):
        expected = oracles.chosen(torch.linalg.eigvalsh(q), k, which)
        torch.testing.assert_close(vector(*by_size(values)), vector(*expected))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_vectors_are_orthonormal_and_residuals_within_the_tolerance(
    dtype: torch.dtype, limit: float
) -> None:
    """Tolerance 1e-12 ‖Q‖ in float64, 1e-6 ‖Q‖ in float32."""
    relative = 1e-12 if dtype is torch.float64 else 1e-6
    matrices = symmetric(7, N).to(dtype)
    found = pairs_of(matrices, 4, relative=relative)
    vectors, exact = found.vectors.double(), matrices.double()
    overlap = vectors @ vectors.mT - torch.eye(4, dtype=torch.float64)
    assert float(overlap.abs().max()) < limit
    residuals = vectors @ exact - values_of(matrices, found)[..., None] * vectors
    sizes = exact.flatten(1).norm(dim=1)
    assert bool((residuals.norm(dim=2) <= 2 * relative * sizes[:, None]).all())


def test_steps_are_the_products_spent() -> None:
    matrices, spent = symmetric(6, N), torch.zeros(6, dtype=torch.int64)
    matrices[2] = torch.outer(matrices[2, 0], matrices[2, 0])  # soon done, and left out
    matrices[3] = matrices[2]
    inner = product_of(matrices)

    def counting(rows: Tensor, vectors: Tensor) -> Tensor:
        spent[rows] += 1
        return inner(rows, vectors)

    start = randn(N) / randn(N).norm()
    found = lanczos(counting, start, torch.full((6,), 1e-10).double(), 1, "magnitude", 1000)
    assert torch.equal(found.steps, spent)
    assert int(spent[2]) < int(spent[0]) <= N


def test_a_basis_ends_at_the_largest_size_with_its_best_pairs() -> None:
    matrices = symmetric(3, N)
    found = pairs_of(matrices, 2, max_steps=9)
    assert found.steps.tolist() == [9, 9, 9]
    top = torch.linalg.eigvalsh(matrices).abs().amax(dim=1)
    best = values_of(matrices, found).abs().amax(dim=1)
    assert bool((best <= top * (1 + 1e-12)).all())
    assert bool((best > 0.5 * top).all())


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("which", WHICH)
def test_a_basis_of_the_whole_space_has_the_whole_spectrum(n: int, which: str) -> None:
    matrices = symmetric(4, n)
    found = pairs_of(matrices, n, which)
    assert bool((found.steps == n).all())
    assert bool(found.rivals.isnan().all())
    whole = torch.linalg.eigvalsh(matrices)
    torch.testing.assert_close(values_of(matrices, found).sort(dim=1).values, whole)


@pytest.mark.parametrize(
    "values",
    [
        torch.ones(N),
        torch.zeros(N),
        torch.cat([torch.ones(20), -torch.ones(20)]),
        torch.cat([torch.ones(1), torch.zeros(N - 1)]),
    ],
    ids=["identity", "zero", "two distinct values", "rank one"],
)
@pytest.mark.parametrize("k", [1, 3, 12, N])
def test_a_krylov_space_that_is_exhausted_goes_on_in_a_fresh_direction(
    values: Tensor, k: int
) -> None:
    matrices = of_spectrum(values.double())[None]
    found = pairs_of(matrices, k)
    vectors = found.vectors[0]
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(k, dtype=torch.float64))
    exact = oracles.chosen(values.double(), k, "magnitude")
    torch.testing.assert_close(
        vector(*by_size(values_of(matrices, found)[0].abs())), vector(*exact).abs()
    )


def test_what_the_start_does_not_contain_is_not_seen() -> None:
    """The largest eigenvalue, 9, has the first axis, and the start has no part along it."""
    matrices = torch.diag(torch.cat([vector(9), torch.linspace(-1, 2, N - 1).double()]))[None]
    start = torch.ones(N, dtype=torch.float64)
    start[0] = 0
    found = pairs_of(matrices, 1, start=start / start.norm(), relative=1e-3)
    assert values_of(matrices, found).item() == pytest.approx(2, abs=1e-2)


def test_rivals_stand_next_to_both_ends_of_what_was_chosen() -> None:
    """5, −4 | 3 … −2: magnitude takes 5 and −4, and 3 and −2 are the ends of the rest."""
    values = torch.cat([vector(5, -4, 3, -2), torch.linspace(-1, 1, 16).double()])
    matrices = of_spectrum(values)[None]
    torch.testing.assert_close(pairs_of(matrices, 2).rivals[0], vector(3, -2))
    torch.testing.assert_close(pairs_of(matrices, 2, "largest").rivals[0, 0], vector(1)[0])
    torch.testing.assert_close(pairs_of(matrices, 1, "smallest").rivals[0, 1], vector(-2)[0])


def test_what_is_left_out_is_counted_once() -> None:
    values = vector(1, 2, 3).expand(2, 3)
    rest = left_out(values, torch.tensor([[0, 2], [1, 2]]))
    assert rest[:, 0].tolist() == [2, 1]
    assert bool(rest[:, 1].isnan().all())
    assert left_out(values, torch.tensor([[1], [0]])).tolist() == [[3, 1], [3, 2]]


@pytest.mark.parametrize("shift", [0.0, 1e-13, -1e-13])
def test_of_a_pair_of_both_signs_the_positive_one_is_chosen(shift: float) -> None:
    values = torch.cat([vector(2, -2 + shift), torch.linspace(-1, 1, 18).double()])
    matrices = of_spectrum(values)[None]
    assert values_of(matrices, pairs_of(matrices, 1)).item() == pytest.approx(2)


def test_matrices_do_not_see_each_other() -> None:
    """A hundred matrices of many kinds, together and alone."""
    matrices = symmetric(100, 24)
    matrices[::7] = of_spectrum(torch.linspace(0, 1, 24).double() ** 9)
    matrices[50] = 0
    together = values_of(matrices, pairs_of(matrices, 3))
    for index in (0, 1, 50, 99):
        single = matrices[index : index + 1]
        alone = values_of(single, pairs_of(single, 3))[0]
        torch.testing.assert_close(together[index], alone, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("share", [1, 30, 99])
@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_matrices_of_zeros_or_nan_do_not_stop_the_others(value: float, share: int) -> None:
    matrices = symmetric(100, 24)
    matrices[:share] = value
    found = pairs_of(matrices, 2)
    largest = values_of(matrices, found)[share:].abs().amax(dim=1)
    expected = torch.linalg.eigvalsh(matrices[share:]).abs().amax(dim=1)
    torch.testing.assert_close(largest, expected)
    if value == 0:
        assert bool(found.vectors.isfinite().all())
    else:
        assert not bool(found.vectors[:share].isfinite().any())


NAN = torch.nan


SMALL, K = 12, 3


def test_refining_gives_the_best_pairs_of_the_space_that_the_vectors_span() -> None:
    """Rayleigh–Ritz: the eigenvalues of VᵀQV, vectors orthonormal, residuals as they are."""
    left, right, weights = randn(9, SMALL), randn(9, SMALL), randn(4, 9)
    forms = balance_all(left, right, weights)
    vectors = randn(4, K, SMALL)
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
    values, turn = torch.linspace(-1, 2, SMALL).double(), rotation(SMALL)
    forms = balance_all(turn, turn, values[None])
    mixed = randn(K, K) @ turn[-K:]
    found = refine(forms, mixed[None].float(), torch.ones(1).double())
    torch.testing.assert_close(
        found.values[0] * forms.units, values[-K:].flip(0), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("value", [NAN, torch.inf])
def test_vectors_that_are_not_finite_poison_their_own_form_alone(value: float) -> None:
    forms = balance_all(randn(9, SMALL), randn(9, SMALL), randn(4, 9))
    vectors, mass = randn(4, K, SMALL), torch.ones(4).double()
    good = refine(forms, vectors, mass)
    vectors[2, 1, 5] = value
    found = refine(forms, vectors, mass)
    assert bool(found.values[2].isnan().all())
    assert bool(found.residuals[2].isnan().all())
    assert not bool(proven_by_norm(found, 100 * mass, mass, "magnitude")[2])
    others = torch.tensor([0, 1, 3])
    assert torch.equal(found.values[others], good.values[others])
    assert torch.equal(found.vectors[others], good.vectors[others])
