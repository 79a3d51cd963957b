"""The record: what it gives back is what its fields say.

Broken once: `signs` of `eigenpairs` swapped; the matrices were rebuilt with the wrong sign.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.decompose import cp_decompose
from builders import D_IN, randn, random_map
from planted import dense_of

MAP = random_map(1, d_hidden=6)
CP = cp_decompose(MAP, 3)


def test_the_map_is_the_sum_of_the_components_with_the_affine_terms() -> None:
    x = randn(4, D_IN, seed=8)
    products = (x @ CP.left.T) * (x @ CP.right.T)
    assert MAP.linear is not None
    assert MAP.constant is not None
    expected = products @ CP.down.T + x @ MAP.linear.T + MAP.constant
    assert_close(CP.quadratic_map()(x), expected)


def test_sizes_are_the_norms_of_components_and_fall() -> None:
    single = [
        oracles.norm(
            oracles.dense_tensor(CP.down[:, a : a + 1], CP.left[a : a + 1], CP.right[a : a + 1])
        )
        for a in range(CP.rank)
    ]
    assert_close(CP.sizes, torch.stack(single))
    assert CP.sizes.tolist() == sorted(CP.sizes.tolist(), reverse=True)
    share = float(CP.sizes.square().sum() / oracles.norm(dense_of(MAP)) ** 2)
    assert CP.cancellation == pytest.approx(share)


def test_the_eigenpairs_of_a_pair_rebuild_its_matrix() -> None:
    values, vectors = CP.eigenpairs()
    one = torch.eye(CP.rank, dtype=torch.float64)
    assert_close(
        torch.einsum("ak,aki,akj->aij", values, vectors, vectors),
        oracles.dense_tensor(one, CP.left, CP.right),
    )
    overlap = (CP.left * CP.right).sum(dim=1)
    assert_close(values, torch.stack([overlap + 1, overlap - 1], dim=1) / 2)
    assert_close(vectors.norm(dim=2), torch.ones_like(values))


def test_a_square_has_one_eigenvector_and_a_zero() -> None:
    found = cp_decompose(MAP, 2, model="symmetric")
    assert found.right is found.left or torch.equal(found.right, found.left)
    values, vectors = found.eigenpairs()
    assert_close(values, values.new_tensor([[1.0, 0.0]]).expand(2, 2))
    assert_close(vectors[:, 0], found.left)
    assert not bool(vectors[:, 1].any())


def test_what_is_said_of_the_best_start_is_said_of_the_whole() -> None:
    best = CP.starts[CP.best]
    assert (CP.converged, CP.sweeps, CP.degenerate) == (
        best.converged,
        best.sweeps,
        best.degenerate,
    )
    assert CP.fit == pytest.approx(best.fit)
    assert CP.unique is CP.uniqueness.unique


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CP.fit = 1.0  # type: ignore[misc]
