"""Circuits of few features, and a few eigenpairs beside the whole form, against numpy."""

from typing import Any

import numpy as np
import pytest
import torch

import oracles
from bilens.algebra.eigen.decomposition import take
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.circuits import (
    ApproximationScore,
    LatentCircuit,
    LowRankFit,
    find_circuit,
    low_rank_fit,
)
from builders import D_IN, D_OUT, randn, random_map

G = random_map()
PAIRS = eigendecompose_all(G, k=D_IN)
X = randn(60, D_IN, seed=5)
ACTIVE = G(X) > 0
FEATURES = 8
D = randn(D_IN, FEATURES, seed=9)
BIAS = randn(D_IN, seed=10)
Z = randn(50, FEATURES, seed=11).relu()


TWO = 1  # the column of two eigenpairs


def fit(num_random: int = 20) -> LowRankFit:
    generator = torch.Generator().manual_seed(0)
    return low_rank_fit(G, PAIRS, X, ACTIVE, generator, num_random=num_random)


def test_all_pairs_are_the_latent_itself() -> None:
    found = fit()
    assert found.ranks.tolist() == [1, 2, 4, 5]
    assert found.num_active.tolist() == ACTIVE.sum(dim=0).tolist()
    for exact in (found.correlation, found.correlation_active, found.r_squared, found.slope):
        torch.testing.assert_close(exact[:, -1], torch.ones(D_OUT, dtype=torch.float64))
    torch.testing.assert_close(found.intercept[:, -1], torch.zeros(D_OUT, dtype=torch.float64))


def test_numbers_are_those_of_the_definitions() -> None:
    found = fit()
    for latent in range(D_OUT):
        truth = G(X)[:, latent].numpy()
        guess = PAIRS[latent].truncate(2)(X).numpy()
        active = ACTIVE[:, latent].numpy()
        for part, correlation, share in (
            (np.ones(len(X), dtype=bool), found.correlation, found.r_squared),
            (active, found.correlation_active, found.r_squared_active),
        ):
            expected = np.corrcoef(truth[part], guess[part])[0, 1]
            assert float(correlation[latent, TWO]) == pytest.approx(expected)
            error = ((truth[part] - guess[part]) ** 2).mean() / truth[part].var()
            assert float(share[latent, TWO]) == pytest.approx(1 - error)
        slope, intercept = np.polyfit(guess, truth, 1)
        assert float(found.slope[latent, TWO]) == pytest.approx(slope)
        assert float(found.intercept[latent, TWO]) == pytest.approx(intercept)


def test_random_directions_of_the_same_eigenvalues_do_worse_than_the_true_ones() -> None:
    found = fit(num_random=50)
    assert bool((found.null_correlation < found.correlation)[:, TWO].all())
    assert bool((found.null_edge_active >= found.null_correlation_active)[:, TWO].all())
    assert torch.equal(found.null_correlation, fit(num_random=50).null_correlation)


def test_a_latent_that_is_never_active_has_no_correlation() -> None:
    none = torch.zeros_like(ACTIVE)
    found = low_rank_fit(G, PAIRS, X, none, torch.Generator())
    assert bool(found.correlation_active.isnan().all())
    assert bool(found.null_edge_active.isnan().all())
    assert bool(found.correlation.isfinite().all())


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="one form for each of the 3 latents"):
        low_rank_fit(G, take(PAIRS, torch.arange(2)), X, ACTIVE, torch.Generator())
    with pytest.raises(ShapeError, match="expected bool"):
        low_rank_fit(G, PAIRS, X, ACTIVE.double(), torch.Generator())


def circuit(output: int = 1, **changes: Any) -> LatentCircuit:
    given: dict[str, Any] = {"eigenpairs": PAIRS[1], "bias": BIAS, "activations": Z} | changes
    return find_circuit(G, D, output, **given)


def test_a_circuit_of_all_features_is_the_latent() -> None:
    found = circuit(num_features=20)
    assert sorted(found.features.tolist()) == list(range(FEATURES))
    assert found.share_of_norm == pytest.approx(1)
    assert found.share_of_variance == pytest.approx(1)
    assert found.correlation == pytest.approx(1)
    z = Z[:, found.features]
    value = ((z @ found.matrix) * z).sum(dim=1) + z @ found.linear + found.constant
    torch.testing.assert_close(value, G(Z @ D.T + BIAS)[:, 1])


def test_a_circuit_holds_the_interactions_of_the_features_that_add_most() -> None:
    u = torch.eye(D_OUT).double()[1]
    dense = oracles.feature_interactions(G.tensor.down, G.tensor.left, G.tensor.right, u, D)
    linear, found = D.T @ (G.form(u).linear + 2 * G.form(u).dense() @ BIAS), circuit(num_features=3)
    added = (Z * (Z @ dense + linear)).abs().mean(dim=0)
    expected = added.argsort(descending=True)[:3]
    assert found.features.tolist() == expected.tolist()
    torch.testing.assert_close(found.matrix, dense[expected][:, expected])
    share = found.matrix.square().sum() / dense.square().sum()
    assert found.share_of_norm == pytest.approx(float(share))
    torch.testing.assert_close(found.projections, D[:, expected].T @ PAIRS[1].eigenvectors.T)


def test_a_feature_that_is_never_active_comes_last() -> None:
    z = Z.clone()
    u = torch.eye(D_OUT).double()[1]
    dense = oracles.feature_interactions(G.tensor.down, G.tensor.left, G.tensor.right, u, D)
    strongest = int(dense.square().sum(dim=1).argmax())
    z[:, strongest] = 0
    found = circuit(num_features=FEATURES - 1, activations=z)
    assert strongest not in found.features.tolist()
    assert found.share_of_variance == pytest.approx(1)


def test_requests_that_fit_no_circuit_are_refused() -> None:
    with pytest.raises(UsageError, match="output 3 does not exist"):
        circuit(output=3)
    with pytest.raises(ShapeError, match="activations has shape"):
        circuit(activations=Z[:, :7])
    with pytest.raises(ShapeError, match="works on one output"):
        circuit(eigenpairs=PAIRS)


def test_what_does_not_vary_agrees_with_nothing() -> None:
    for count in range(2, 60):
        same = torch.full((count,), 0.1, dtype=torch.float64)
        found = ApproximationScore.compare(same, same[:, None])
        assert bool(found.correlation.isnan().all()), count
        assert bool((found.r_squared.isnan() & found.slope.isnan()).all()), count
