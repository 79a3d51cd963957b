"""Which eigenvectors correspond: assignment, principal angles, and the null interval."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.eigenvector_matching import match_eigenvectors
from bilens.base.errors import ShapeError, UsageError
from builders import form_from_pairs, randn, random_map, rotation, seeded, vector
from strategies import rotations

D = 12


def decomposed(values: Tensor, vectors: Tensor, k: int | None = None) -> EigenDecomposition:
    return eigendecompose(form_from_pairs(values, vectors), k=k)


def named(*values: float) -> EigenDecomposition:
    """A form with these eigenvalues and the first axes of a rotated basis as vectors."""
    return decomposed(vector(*values), rotation(D)[: len(values)])


def test_planted_pairs_are_found_in_any_order() -> None:
    """The same vectors with other eigenvalues: every pair has |cos| = 1, with p as small as can."""
    first, second = named(5, 4, -3, 2), named(1, 6, -2, 5)  # ranked 0 1 2 3 and 1 3 2 0
    found = match_eigenvectors(first, second, seeded())
    assert sorted(found.pairs) == [((0,), (3,)), ((1,), (0,)), ((2,), (2,)), ((3,), (1,))]
    torch.testing.assert_close(found.cosines, torch.ones(4, dtype=torch.float64))
    assert found.score == pytest.approx(1.0)
    assert found.p_value == 1 / 100
    assert found.method == "assignment"


def best_by_trying(cosines: Tensor) -> float:
    """The largest sum of |cos| over all ways to pair rows with columns."""
    rows, columns = cosines.shape
    if rows > columns:
        return best_by_trying(cosines.T)
    return max(
        sum(float(cosines[i, j]) for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(columns), rows)
    )


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (5, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_assignment_is_the_best_of_all_pairings(seed: int, sizes: tuple[int, int]) -> None:
    first, second = (
        decomposed(vector(*range(size, 0, -1)), rotation(D, seed=seed + offset)[:size], k=size)
        for size, offset in zip(sizes, (10, 20), strict=True)
    )
    found = match_eigenvectors(first, second, seeded(), num_samples=1)
    cosines = (first.eigenvectors @ second.eigenvectors.T).abs()
    assert float(found.cosines.sum()) == pytest.approx(best_by_trying(cosines))
    assert found.score == pytest.approx(float(found.cosines.mean()))
    for (i,), (j,) in found.pairs:
        assert float(cosines[i, j]) in [pytest.approx(c) for c in found.cosines.tolist()]


def test_signs_are_respected_unless_they_are_not_to_be() -> None:
    """The same two vectors, their signs swapped: nothing of one sign corresponds."""
    first, second = named(5, -4), named(-5, 4)
    crossed = match_eigenvectors(first, second, seeded())
    assert sorted(crossed.pairs) == [((0,), (1,)), ((1,), (0,))]
    assert crossed.score == pytest.approx(0.0, abs=1e-7)
    free = match_eigenvectors(first, second, seeded(), signed=False)
    assert sorted(free.pairs) == [((0,), (0,)), ((1,), (1,))]
    assert free.score == pytest.approx(1.0)


def test_eigenvalues_that_cannot_be_told_apart_are_one_space() -> None:
    """The basis of an eigenspace is an accident; turned within it, the overlap stays 1."""
    basis = rotation(D)[:3]
    turned = torch.cat([rotation(2, seed=3) @ basis[:2], basis[2:]])
    found = match_eigenvectors(
        decomposed(vector(4, 4, 1), basis), decomposed(vector(4, 4, 2), turned), seeded()
    )
    assert sorted(found.pairs) == [((0, 1), (0, 1)), ((2,), (2,))]
    torch.testing.assert_close(found.cosines, torch.ones(2, dtype=torch.float64))


def test_a_vector_within_a_plane_overlaps_it_by_half() -> None:
    """‖V₁V₂ᵀ‖_F / √max(1, 2) = 1/√2."""
    basis = rotation(D)[:2]
    found = match_eigenvectors(
        decomposed(vector(4, 4), basis), decomposed(vector(3), basis[:1]), seeded()
    )
    assert found.score == pytest.approx(2**-0.5)


def test_principal_angles_are_those_between_the_spans() -> None:
    """Two planes that share e₁ and whose other directions are 60° apart: cosines 1 and 1/2."""
    axes = torch.eye(D, dtype=torch.float64)
    tilted = torch.stack([axes[0], axes[1] / 2 + axes[2] * math.sqrt(3) / 2])
    mixed = rotation(2, seed=1) @ tilted  # another basis of the same plane
    found = match_eigenvectors(
        decomposed(vector(5, 4), axes[:2]),
        decomposed(vector(2, 1), mixed),
        seeded(),
        method="subspace",
    )
    assert found.pairs == (((0, 1), (0, 1)),)
    torch.testing.assert_close(found.cosines, vector(1, 0.5))
    assert found.score == pytest.approx(1.25)
    assert found.chance == 2 * 2 / D


def test_subspaces_of_either_sign_are_compared_with_their_like() -> None:
    first, second = named(5, -4, 3), named(2, -3)  # ranked: −3, 2
    found = match_eigenvectors(first, second, seeded(), method="subspace")
    assert found.pairs == (((0, 2), (1,)), ((1,), (0,)))
    assert found.chance == pytest.approx((2 * 1 + 1 * 1) / D)
    free = match_eigenvectors(first, second, seeded(), method="subspace", signed=False)
    assert free.pairs == (((0, 1, 2), (0, 1)),)
    assert free.chance == pytest.approx(3 * 2 / D)


def test_the_whole_space_is_shared_by_chance_alone() -> None:
    first, second = (decomposed(vector(*range(1, D + 1)), rotation(D, seed=s), k=D) for s in (1, 2))
    found = match_eigenvectors(first, second, seeded(), method="subspace")
    assert found.score == pytest.approx(found.chance) == pytest.approx(D)
    assert found.p_value == 1.0


@pytest.mark.parametrize("method", ["assignment", "subspace"])
def test_p_values_of_unrelated_forms_are_spread_evenly(method: str) -> None:
    """40 pairs of random forms, 19 samples: p ≤ 0.2 for 8 of them; 2 … 16 but for p < 2e-3."""
    small = 0
    for seed in range(40):
        first, second = (
            decomposed(vector(3, 2, 1), rotation(D, seed=2 * seed + offset)[:3], k=3)
            for offset in (0, 1)
        )
        found = match_eigenvectors(first, second, seeded(seed), method=method, num_samples=19)
        small += found.p_value <= 0.2
    assert 2 <= small <= 16


def test_the_chance_of_an_assignment_is_the_mean_of_random_ones() -> None:
    """One against one, where it is E|cos| exactly; 4000 samples have a standard error of 0.003."""
    found = match_eigenvectors(named(1), named(2), seeded(), num_samples=4000)
    assert found.chance == pytest.approx(found.chance_cosine, abs=0.012)
    exact = math.gamma(D / 2) / math.gamma((D + 1) / 2) / math.sqrt(math.pi)
    assert found.chance_cosine == pytest.approx(exact)
    assert found.num_samples == 4000


def test_the_best_of_many_pairs_is_more_alike_by_chance_than_one() -> None:
    found = match_eigenvectors(named(5, 4, 3, 2), named(5, 4, 3, 2), seeded())
    assert found.chance > found.chance_cosine + 0.1


@given(rotations(D), st.sampled_from(["assignment", "subspace"]))
def test_turning_both_inputs_alike_changes_nothing(turn: Tensor, method: str) -> None:
    f, g = (random_map(seed, d_in=D).form(vector(1, -1, 0)) for seed in (1, 2))
    plain, turned = (
        match_eigenvectors(
            *(eigendecompose(form, k=6) for form in forms), seeded(), method, num_samples=1
        )
        for forms in (
            (f, g),
            [
                random_map(seed, d_in=D).compose_input(turn).form(vector(1, -1, 0))
                for seed in (1, 2)
            ],
        )
    )
    assert turned.pairs == plain.pairs
    torch.testing.assert_close(turned.cosines, plain.cosines, rtol=1e-8, atol=1e-7)


def test_only_k_leading_pairs_take_part() -> None:
    found = match_eigenvectors(named(5, 4, 3), named(5, 4, 3), seeded(), k=2)
    assert sorted(found.pairs) == [((0,), (0,)), ((1,), (1,))]


def test_eigenvalues_that_are_zero_take_no_part() -> None:
    """A form of rank 2 on twelve inputs: ten eigenvalues are zero but for rounding."""
    assert len(match_eigenvectors(named(5, 4), named(2, 1), seeded()).pairs) == 2


def test_the_same_seed_gives_the_same_chance_and_the_global_one_plays_no_part() -> None:
    state = torch.get_rng_state()
    first, same, other = (
        match_eigenvectors(named(5, 4), named(2, 1), seeded(seed)).chance for seed in (1, 1, 2)
    )
    assert first == same != other
    assert torch.equal(torch.get_rng_state(), state)


def test_a_cut_through_equal_eigenvalues_is_refused() -> None:
    plane = named(4, 4, 1)
    with pytest.raises(UsageError, match="2 eigenvalues near 4 of the second decomposition cannot"):
        match_eigenvectors(named(2), plane, seeded(), k=1)
    cut = decomposed(vector(4, 4, 1), rotation(D)[:3], k=1)
    with pytest.raises(UsageError, match="only 1 are among the leading 1"):
        match_eigenvectors(cut, named(2), seeded())


def test_bad_arguments_are_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"nothing to match: .* \(signed=False matches across"):
        match_eigenvectors(named(1), named(-1), seeded())
    with pytest.raises(UsageError, match=r"nothing to match: .* in both\.$"):
        match_eigenvectors(named(1), named(0.0), seeded(), signed=False)
    with pytest.raises(UsageError, match="k=13, but the first decomposition has 12 pairs"):
        match_eigenvectors(named(1), named(1), seeded(), k=13)
    for k in (0, -1, 1.0, True):
        with pytest.raises(UsageError, match="k must be an integer of at least 1"):
            match_eigenvectors(named(1), named(1), seeded(), k=k)
    for num_samples in (0, 1.0, True):
        with pytest.raises(UsageError, match="num_samples must be an integer of at least 1"):
            match_eigenvectors(named(1), named(1), seeded(), num_samples=num_samples)
    with pytest.raises(UsageError, match="method='greedy' is not known: use one of assignment, su"):
        match_eigenvectors(named(1), named(1), seeded(), method="greedy")
    batch = eigendecompose_all(random_map(), k=2)
    with pytest.raises(ShapeError, match=r"the second decomposition is a batch: match eigs\[c\]"):
        match_eigenvectors(batch[0], batch, seeded())
    other = decomposed(vector(1), randn(1, D + 1))
    with pytest.raises(ShapeError, match="the decompositions read 12 and 13 inputs"):
        match_eigenvectors(named(1), other, seeded())
    with pytest.raises(UsageError, match="in the input and the whitened basis: vectors are match"):
        match_eigenvectors(named(1), replace(named(1), basis="whitened"), seeded())
    with pytest.raises(UsageError, match="second is a Tensor; expected EigenDecomposition: use ei"):
        match_eigenvectors(named(1), randn(2, D), seeded())
    with pytest.raises(UsageError, match=r"seed is 'a'; expected an integer from 0 on, or a torch"):
        match_eigenvectors(named(1), named(1), "a")
