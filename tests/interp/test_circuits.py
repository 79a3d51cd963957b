"""Circuits of few features, and a few eigenpairs beside the whole form, against numpy."""

import numpy as np
import pytest
import torch

import oracles
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.circuits import LowRankFit, find_circuit, low_rank_fit
from builders import D_IN, D_OUT, randn, random_map

G = random_map()
PAIRS = eigendecompose_all(G, k=D_IN)
X = randn(60, D_IN, seed=5)
ACTIVE = G(X) > 0
FEATURES = 8
D = randn(D_IN, FEATURES, seed=9)
BIAS = randn(D_IN, seed=10)
Z = randn(50, FEATURES, seed=11).relu()


def fit(**changes: object) -> LowRankFit:
    chosen: dict[str, object] = {"generator": torch.Generator().manual_seed(0)} | changes
    return low_rank_fit(G, PAIRS, X, ACTIVE, **chosen)  # type: ignore[arg-type]


def test_all_pairs_are_the_latent_itself() -> None:
    found = fit()
    assert found.ranks.tolist() == [1, 2, 4, 5]
    assert found.num_active.tolist() == ACTIVE.sum(dim=0).tolist()
    for exact in (found.correlation, found.correlation_active, found.r_squared, found.slope):
        torch.testing.assert_close(exact[:, -1], torch.ones(D_OUT, dtype=torch.float64))
    torch.testing.assert_close(found.intercept[:, -1], torch.zeros(D_OUT, dtype=torch.float64))


def test_numbers_are_those_of_the_definitions() -> None:
    found = fit(ranks=[2])
    for latent in range(D_OUT):
        truth = G(X)[:, latent].numpy()
        guess = PAIRS[latent].truncate(2)(X).numpy()
        active = ACTIVE[:, latent].numpy()
        for part, correlation, share in (
            (np.ones(len(X), dtype=bool), found.correlation, found.r_squared),
            (active, found.correlation_active, found.r_squared_active),
        ):
            expected = np.corrcoef(truth[part], guess[part])[0, 1]
            assert float(correlation[latent, 0]) == pytest.approx(expected)
            error = ((truth[part] - guess[part]) ** 2).mean() / truth[part].var()
            assert float(share[latent, 0]) == pytest.approx(1 - error)
        slope, intercept = np.polyfit(guess, truth, 1)
        assert float(found.slope[latent, 0]) == pytest.approx(slope)
        assert float(found.intercept[latent, 0]) == pytest.approx(intercept)


def test_latents_are_those_asked_for() -> None:
    whole = fit()
    one = low_rank_fit(
        G, eigendecompose_all(G, torch.eye(D_OUT).double()[2:], k=D_IN), X, ACTIVE[:, 2:],
        torch.Generator().manual_seed(0), latents=[2],
    )  # fmt: skip
    torch.testing.assert_close(one.correlation[0], whole.correlation[2])
    assert one.latents.tolist() == [2]


def test_random_directions_of_the_same_eigenvalues_do_worse_than_the_true_ones() -> None:
    found = fit(ranks=[2], num_random=50)
    assert bool((found.null_correlation < found.correlation).all())
    assert bool((found.null_edge_active >= found.null_correlation_active).all())
    assert torch.equal(found.null_correlation, fit(ranks=[2], num_random=50).null_correlation)


def test_a_latent_that_is_never_active_has_no_correlation() -> None:
    none = torch.zeros_like(ACTIVE)
    found = low_rank_fit(G, PAIRS, X, none, torch.Generator())
    assert bool(found.correlation_active.isnan().all())
    assert bool(found.null_edge_active.isnan().all())
    assert bool(found.correlation.isfinite().all())


@pytest.mark.parametrize("ranks", [[0], [6], []])
def test_ranks_beyond_the_pairs_are_refused(ranks: list[int]) -> None:
    with pytest.raises(UsageError, match="rank"):
        fit(ranks=ranks)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="one form for each of the 2 latents"):
        fit(latents=[0, 1])
    with pytest.raises(ShapeError, match="expected bool"):
        low_rank_fit(G, PAIRS, X, ACTIVE.double(), torch.Generator())


def test_a_circuit_of_all_features_is_the_latent() -> None:
    found = find_circuit(G, D, 1, PAIRS[1], bias=BIAS, num_features=20, activations=Z)
    assert sorted(found.features.tolist()) == list(range(FEATURES))
    assert found.share_of_norm == pytest.approx(1)
    assert found.share_of_variance == pytest.approx(1)
    assert found.correlation == pytest.approx(1)
    assert found.num_inputs == len(Z)
    z = Z[:, found.features]
    value = ((z @ found.matrix) * z).sum(dim=1) + z @ found.linear + found.constant
    torch.testing.assert_close(value, G(Z @ D.T + BIAS)[:, 1])


def test_a_circuit_from_weights_holds_the_features_of_largest_rows() -> None:
    u = torch.eye(D_OUT).double()[1]
    dense = oracles.feature_interactions(G.tensor.down, G.tensor.left, G.tensor.right, u, D)
    found = find_circuit(G, D, 1, PAIRS[1], num_features=3)
    expected = dense.square().sum(dim=1).argsort(descending=True)[:3]
    assert found.features.tolist() == expected.tolist()
    torch.testing.assert_close(found.matrix, dense[expected][:, expected])
    share = found.matrix.square().sum() / dense.square().sum()
    assert found.share_of_norm == pytest.approx(float(share))
    assert (found.share_of_variance, found.correlation, found.num_inputs) == (None, None, 0)
    torch.testing.assert_close(found.projections, D[:, expected].T @ PAIRS[1].eigenvectors.T)


def test_with_data_a_feature_that_is_never_active_comes_last() -> None:
    z = Z.clone()
    u = torch.eye(D_OUT).double()[1]
    dense = oracles.feature_interactions(G.tensor.down, G.tensor.left, G.tensor.right, u, D)
    strongest = int(dense.square().sum(dim=1).argmax())
    z[:, strongest] = 0
    found = find_circuit(G, D, 1, PAIRS[1], num_features=FEATURES - 1, activations=z)
    assert strongest not in found.features.tolist()
    assert found.share_of_variance == pytest.approx(1)


def test_requests_that_fit_no_circuit_are_refused() -> None:
    with pytest.raises(UsageError, match="output 3 does not exist"):
        find_circuit(G, D, 3, PAIRS[1])
    with pytest.raises(ShapeError, match="activations has 7 columns"):
        find_circuit(G, D, 1, PAIRS[1], activations=Z[:, :7])
    with pytest.raises(ShapeError, match="works on one output"):
        find_circuit(G, D, 1, PAIRS)
