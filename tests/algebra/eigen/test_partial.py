"""Pairs of a part of the spectrum: what ‖Q‖² proves about the rest, and who belongs together.

Broken once: `mass + mass_error` without the error; a mass within its rounding was called a proof.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.balance import balance_all
from bilens.algebra.eigen.partial import (
    Refined,
    cluster_limit,
    innermost,
    partial_clusters,
    proven_by_mass,
    refine,
    same_values,
)
from builders import randn, rotation, vector

NAN = torch.nan


def pairs(values: Tensor, residual: float = 0.0, noise: float = 0.0) -> Refined:
    """One form with these values; the vectors do not enter a proof."""
    values = values[None]
    vectors = torch.zeros(1, values.shape[1], 1).double()
    return Refined(values, vectors, torch.full_like(values, residual), vector(noise))


def proven(found: Refined, mass: float, which: str = "magnitude", error: float = 0.0) -> bool:
    return bool(proven_by_mass(found, vector(mass), vector(error), which))


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        (9 + 4 + 3.9, True),  # an eigenvalue of √3.9 < 2 at most
        (9 + 4 + 4.0, False),  # one of 2 would be as large as the second
        (9 + 4 + 4.1, False),
        (9 + 4 + 0.0, True),
    ],
)
def test_a_mass_that_leaves_no_room_is_a_proof(mass: float, expected: bool) -> None:
    assert proven(pairs(vector(3, -2)), mass) is expected


def test_the_rounding_of_the_mass_counts_against_the_proof() -> None:
    assert proven(pairs(vector(3, -2)), 16.9)
    assert not proven(pairs(vector(3, -2)), 16.9, error=0.1)


def test_residuals_count_against_the_proof_twice() -> None:
    """δ = 0.1 √2: Σ(|θ| − δ)² = 8.172 + 3.454 leaves 1.835², the bar is 1.859 for a mass of 15.
    For 15.3 it leaves 1.915²; without either correction both would be proven."""
    assert proven(pairs(vector(3, -2), residual=0.1), 15.0)
    assert not proven(pairs(vector(3, -2), residual=0.1), 15.3)
    assert proven(pairs(vector(3, -2)), 15.3)


def test_noise_counts_against_the_proof() -> None:
    """δ = 0.1: 8.41 + 3.61 leaves 1.887² for 15.58, the bar is 1.9; 1.905² for 15.65."""
    assert proven(pairs(vector(3, -2), noise=0.1), 15.58)
    assert not proven(pairs(vector(3, -2), noise=0.1), 15.65)


@pytest.mark.parametrize(
    ("values", "which", "mass", "expected"),
    [
        ((3, 2), "largest", 9 + 4 + 3.9, True),
        ((3, 2), "largest", 9 + 4 + 4.1, False),
        ((3, -2), "largest", 9 + 4 + 0.1, False),  # 0.3 would belong between 3 and −2
        ((3, 0), "largest", 9 + 0.1, False),
        ((-3, -2), "smallest", 9 + 4 + 3.9, True),
        ((-3, 2), "smallest", 9 + 4 + 0.1, False),
        ((3, -2), "both", 9 + 4 + 3.9, True),
        ((3, -2), "both", 9 + 4 + 4.1, False),
        ((2, -3), "both", 9 + 4 + 4.1, False),
        ((3, 2), "both", 9 + 4 + 0.1, False),  # 2 is not the smallest if −0.3 is there
        ((4, 3, -2), "both", 16 + 9 + 4 + 3.9, True),
        ((4, -3, -2), "both", 16 + 9 + 4 + 0.1, False),
    ],
)
def test_at_an_end_the_innermost_value_must_lie_on_its_own_side_of_zero(
    values: tuple[float, ...], which: str, mass: float, expected: bool
) -> None:
    assert proven(pairs(vector(*values)), mass, which) is expected


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_a_form_of_zeros_is_proven(which: str) -> None:
    assert proven(pairs(vector(0, 0)), 0.0, which)


def test_what_is_smaller_than_the_noise_cannot_be_missed() -> None:
    """‖Q‖ below the noise: no eigenvalue can be told from zero."""
    assert proven(pairs(vector(0, 0), noise=1e-3), 1e-7)
    assert not proven(pairs(vector(0, 0), noise=1e-3), 1e-5)


@pytest.mark.parametrize("part", ["values", "residuals", "mass", "error"])
def test_nothing_is_proven_about_nan(part: str) -> None:
    found = pairs(vector(3, NAN if part == "values" else 2), NAN if part == "residuals" else 0.0)
    mass, error = (NAN if part == name else 0.0 for name in ("mass", "error"))
    assert not proven(found, 13 + mass, error=error)


def test_forms_are_judged_one_by_one() -> None:
    values = torch.stack([vector(3, 2), vector(3, 2), vector(30, 20)])
    found = Refined(values, values[..., None], 0 * values, vector(0, 0, 0))
    masses = vector(14, 18, 1400)
    assert proven_by_mass(found, masses, 0 * masses, "magnitude").tolist() == [True, False, True]


def test_the_innermost_value_of_each_end() -> None:
    values = vector(5, -4, 3, -2)[None]
    assert innermost(values, "magnitude").item() == 2
    assert innermost(values, "largest").item() == -4  # negative: nothing is proven by it
    assert innermost(values, "smallest").item() == -5
    assert innermost(values, "both").item() == 2
    assert innermost(values[:, :3], "both").item() == 3  # 5 and 3 above, −4 below


@pytest.mark.parametrize(
    ("found", "which", "expected"),
    [
        ((4, -3), "magnitude", True),
        ((4, 2), "magnitude", False),
        ((4, 2), "largest", True),
        ((4, -3), "largest", False),
        ((-3, 1), "smallest", True),
        ((4, -3), "both", True),
        ((4, 2), "both", False),
        ((4 + 1e-3, -3), "magnitude", True),
        ((4 + 2e-2, -3), "magnitude", False),
        ((4, NAN), "magnitude", False),
    ],
)
def test_values_are_compared_with_those_of_the_whole_spectrum(
    found: tuple[float, ...], which: str, expected: bool
) -> None:
    whole = vector(1, -3, 4, 2)[None]
    assert bool(same_values(vector(*found)[None], whole, which, vector(1e-2))) is expected


@pytest.mark.parametrize(
    ("values", "rivals", "sizes"),
    [
        ((3, 2, 1), (NAN, NAN), [1, 1, 1]),
        ((2, 2, 1), (NAN, NAN), [2, 2, 1]),
        ((3, 2, 1), (1, 0), [1, 1, 2]),  # k cut through 1 and 1
        ((3, 2, 2), (2, NAN), [1, 3, 3]),
        ((3, -3, 2), (2, -3), [1, 2, 2]),  # cut at both ends
        ((2, 2 + 0.009, 2 + 0.018), (NAN, NAN), [3, 3, 3]),  # a chain of neighbours
        ((2, -2, 1), (NAN, NAN), [1, 1, 1]),  # equal sizes are not equal eigenvalues
    ],
)
def test_values_that_cannot_be_told_apart_are_one_cluster(
    values: tuple[float, ...], rivals: tuple[float, ...], sizes: list[int]
) -> None:
    labels, found = partial_clusters(vector(*values)[None], vector(*rivals)[None], vector(0.01))
    assert found[0].tolist() == sizes
    groups: dict[int, int] = {}
    for label in labels[0].tolist():
        groups[label] = groups.get(label, 0) + 1
    assert all(groups[label] <= size for label, size in zip(labels[0].tolist(), sizes, strict=True))


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
    assert not bool(proven_by_mass(found, 100 * mass, mass, "magnitude")[2])
    others = torch.tensor([0, 1, 3])
    assert torch.equal(found.values[others], good.values[others])
    assert torch.equal(found.vectors[others], good.vectors[others])
