"""A pair of outputs in its eigenbasis: the margin again, within the errors that it states.

Broken once: the direction of b outside the range left out; the gradient was off where
2·hidden < in.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracles
from bilens import certify
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.errors import UsageError
from builders import randn, random_map, rotation, vector
from certify.hostile_margins import FAMILIES, mp, true_distance

SIZES = [(2, 1, 1), (3, 4, 5), (3, 20, 6), (4, 3, 20)]


@pytest.mark.parametrize("sizes", SIZES)
def test_matrix_gradient_and_their_errors(sizes: tuple[int, int, int]) -> None:
    f = random_map(6, *sizes)
    _, hidden, width = sizes
    found = certify.prepare(f, [(1, 0)]).contrast(1, 0)
    u = torch.zeros(sizes[0], dtype=torch.float64)
    u[1], u[0] = 1, -1
    q = oracles.dense_interaction(f.tensor.down, f.tensor.left, f.tensor.right, u)
    ours = found.vectors.T @ (found.values[:, None] * found.vectors)
    assert float(torch.linalg.matrix_norm(ours - q, 2)) <= found.value_error
    assert found.value_error < 1e-10 * float(q.norm())
    x = randn(7, width, seed=2)
    g = 2 * x @ q + u @ f.linear
    error = (found.gradient(x) @ found.vectors - g).norm(dim=1)
    assert bool((error <= found.gradient_error(x.norm(dim=1))).all())
    assert bool((found.gradient_error(x.norm(dim=1)) < 1e-9 * g.norm(dim=1)).all())
    assert len(found.values) == min(width, 2 * hidden + (2 * hidden < width))
    turned = found.turned()
    assert (turned.first, turned.second) == (0, 1)
    assert torch.equal(turned.gradient(x), -found.gradient(x))


@pytest.mark.parametrize("family", ["ordinary", "hard", "multiple", "rank_one", "negative"])
def test_the_whole_way_from_weights_gives_the_true_distance(family: str) -> None:
    """The margin of the family, rotated, is the difference of two outputs at the origin."""
    dice = np.random.default_rng(7)
    for trial in range(10):
        margin = FAMILIES[family](dice)
        turn = rotation(len(margin.values), seed=trial)
        down = torch.stack([torch.from_numpy(margin.values), torch.zeros(len(turn)).double()])
        linear = torch.zeros(2, len(turn)).double()
        linear[0] = torch.from_numpy(margin.linear) @ turn
        f = QuadraticMap(BilinearTensor(down, turn, turn), linear, vector(margin.constant, 0.0))
        record = certify.l2_radius(f, torch.zeros(1, len(turn)).double(), [0])
        truth = true_distance(margin)
        radius, size = float(record.radius[0]), float(np.abs(margin.values).max())
        if truth == mp.inf:  # rounding may turn a zero eigenvalue into a tiny negative one
            assert radius > 1e5
            continue
        assert radius <= float(truth) * (1 + 1e-13)
        if size * float(truth) ** 2 < 1e5 * margin.constant:  # else rounding of A alone decides
            assert radius == pytest.approx(float(truth), rel=1e-6)


def test_pairs_that_do_not_exist_are_refused() -> None:
    f = random_map(2, 3, 6, 5)
    with pytest.raises(UsageError, match="two different outputs"):
        certify.prepare(f, [(0, 3)])
    with pytest.raises(UsageError, match="two different outputs"):
        certify.prepare(f, [(1, 1)])
    with pytest.raises(UsageError, match="one output"):
        certify.prepare(random_map(0, 1, 4, 5))
