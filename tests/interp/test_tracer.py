"""A traced layer against its parts, and circuits against the dense matrix of features.

Broken once: `rows[torch.arange(len(latents)), latents]` with the two swapped; other latents were
read. `2 * form.matvec(shift)` -> `form.matvec(shift)`; the exact circuit did not agree.
"""

from __future__ import annotations

import pytest
import torch

import oracles
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.interactions.direct_interactions import direct_interactions
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.circuits import find_circuit
from bilens.interp.tracer import trace_layer
from builders import D_IN, D_OUT, randn, random_map

G = random_map()
FEATURES = 8
D = randn(D_IN, FEATURES, seed=9)
BIAS = randn(D_IN, seed=10)
Z = randn(50, FEATURES, seed=11).relu()
PAIRS = eigendecompose_all(G, k=3)


def test_a_trace_is_what_its_parts_are() -> None:
    trace = trace_layer(G, D, bias=BIAS, k=2, nearest=3)
    parts = direct_interactions(G, D, bias=BIAS)
    assert trace.latents.tolist() == [0, 1, 2]
    torch.testing.assert_close(trace.interactions.norm, parts.norm)
    torch.testing.assert_close(
        trace.interactions.cross_interactions.values, parts.cross_interactions.values
    )
    torch.testing.assert_close(trace.interactions.linear, parts.linear)
    torch.testing.assert_close(trace.eigenpairs.eigenvalues, PAIRS.eigenvalues[:, :2])
    assert trace.nearest.latents.shape == (D_OUT, 2, 3)


def test_latents_are_those_asked_for_in_their_order() -> None:
    whole, some = trace_layer(G, D, k=2), trace_layer(G, D, k=2, latents=[2, 0])
    assert some.latents.tolist() == [2, 0]
    for row, latent in enumerate((2, 0)):
        torch.testing.assert_close(some.interactions.norm[row], whole.interactions.norm[latent])
        torch.testing.assert_close(
            some.eigenpairs.eigenvalues[row], whole.eigenpairs.eigenvalues[latent]
        )


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
    loudest = int(dense.square().sum(dim=1).argmax())
    z[:, loudest] = 0
    found = find_circuit(G, D, 1, PAIRS[1], num_features=FEATURES - 1, activations=z)
    assert loudest not in found.features.tolist()
    assert found.share_of_variance == pytest.approx(1)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="output 3 does not exist"):
        find_circuit(G, D, 3, PAIRS[1])
    with pytest.raises(ShapeError, match="activations has 7 columns"):
        find_circuit(G, D, 1, PAIRS[1], activations=Z[:, :7])
    with pytest.raises(ShapeError, match="works on one output"):
        find_circuit(G, D, 1, PAIRS)
    with pytest.raises(UsageError, match="latents"):
        trace_layer(G, D, latents=[3])
