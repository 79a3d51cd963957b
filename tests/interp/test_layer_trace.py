"""The map of pre-activations against an SAE's own, and eigenvectors against their definition."""

import pytest
import torch

import oracles
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.interactions.direct_interactions import direct_interactions
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.circuits import find_circuit
from bilens.interp.layer_trace import check_latents, latent_map, nearest_latents, trace_layer
from bilens.nn.mlp import BilinearMLP
from bilens.nn.topk_sae import TopKSAE
from builders import D_IN, D_OUT, randn, random_map


def test_outputs_are_the_pre_activations_of_the_sae() -> None:
    torch.manual_seed(0)
    mlp, sae = BilinearMLP(5, 6, bias=True), TopKSAE(5, 9, 2)
    torch.nn.init.normal_(sae.decoder_bias)
    torch.nn.init.normal_(sae.encoder_bias)
    x = torch.randn(7, 5)
    g = latent_map(mlp.quadratic_map(), sae.encoder, sae.offset)
    assert g.dtype == torch.float64
    assert not g.tensor.down.requires_grad
    expected = sae.pre_activations(mlp(x)).detach().double()
    torch.testing.assert_close(g(x.double()), expected, rtol=1e-5, atol=1e-5)


def test_an_encoder_of_another_layer_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(latents, 3\) was expected"):
        latent_map(random_map(), randn(8, D_OUT + 1))
    with pytest.raises(UsageError, match="f is a Tensor"):
        latent_map(randn(3, 3), randn(8, D_OUT))  # type: ignore[arg-type]


def test_the_nearest_latent_is_the_column_along_the_vector_whatever_its_sign_and_length() -> None:
    dictionary = torch.eye(D_IN).double() * torch.tensor([1.0, 2, 3, 4, 5])
    vectors = torch.zeros(2, 1, D_IN, dtype=torch.float64)
    vectors[0, 0, :2] = torch.tensor([0.6, -0.8])
    vectors[1] = torch.nan
    found = nearest_latents(random_map(), vectors, dictionary, num=2)
    assert found.latents.tolist() == [[[1, 0]], [[-1, -1]]]
    torch.testing.assert_close(found.cosines[0, 0], torch.tensor([-0.8, 0.6]).double())
    torch.testing.assert_close(found.projections[0, 0], torch.tensor([-1.6, 0.6]).double())
    assert bool(found.cosines[1].isnan().all())


def test_a_column_of_zeros_lies_along_nothing() -> None:
    dictionary = torch.zeros(D_IN, 3).double()
    found = nearest_latents(random_map(), randn(1, 1, D_IN), dictionary, num=5)
    assert found.cosines.tolist() == [[[0.0, 0.0, 0.0]]]


@pytest.mark.parametrize("latents", [[0.5], [], [3], [-1], [1, 1], [[0]]])
def test_latents_that_do_not_exist_are_refused(latents: list[int]) -> None:
    with pytest.raises(UsageError, match="latents"):
        check_latents(latents, 3)


def test_all_latents_are_meant_by_none() -> None:
    assert check_latents(None, 3).tolist() == [0, 1, 2]
    assert check_latents(torch.tensor([2, 0], dtype=torch.int32), 3).tolist() == [2, 0]


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
    strongest = int(dense.square().sum(dim=1).argmax())
    z[:, strongest] = 0
    found = find_circuit(G, D, 1, PAIRS[1], num_features=FEATURES - 1, activations=z)
    assert strongest not in found.features.tolist()
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
