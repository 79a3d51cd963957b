"""The map of pre-activations, its trace, clusters and ranking against their definitions."""

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from bilens.interp.layer_trace import (
    Ranking,
    cluster_latents,
    interaction_share,
    latent_map,
    nearest_latents,
    rank_latents,
    trace_layer,
)
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


G = random_map()
D = randn(D_IN, 8, seed=9)


def test_a_trace_is_what_its_parts_are() -> None:
    trace = trace_layer(G, D, k=2)
    torch.testing.assert_close(trace.eigenpairs.eigenvalues, eigendecompose_all(G, k=2).eigenvalues)
    assert trace.nearest.latents.shape == (D_OUT, 2, 5)


def map_with(down: torch.Tensor) -> QuadraticMap:
    return QuadraticMap(BilinearTensor(down, randn(6, 5, seed=1), randn(6, 5, seed=2)))


def test_similarity_is_the_cosine_of_the_dense_matrices() -> None:
    g = random_map()
    found = cluster_latents(g)
    dense = oracles.dense_tensor(g.tensor.down, g.tensor.left, g.tensor.right).flatten(1)
    units = dense / dense.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.similarity, units @ units.T)


def test_forms_that_differ_in_scale_alone_are_together_and_opposite_ones_apart() -> None:
    one, other = randn(6, seed=3), randn(6, seed=4)
    down = torch.stack([one, other, 2 * one, -one, 0.5 * one])
    found = cluster_latents(map_with(down), threshold=0.9)
    assert found.members == ((0, 2, 4), (1,), (3,))
    assert found.labels.tolist() == [0, 1, 0, 2, 0]
    assert float(found.similarity[0, 3]) == pytest.approx(-1)


def test_a_form_of_zero_is_like_no_other() -> None:
    down = torch.stack([randn(6, seed=3), torch.zeros(6).double(), torch.zeros(6).double()])
    found = cluster_latents(map_with(down))
    assert len(found.members) == 3
    assert bool(found.similarity[1].isnan().all())


def test_one_latent_is_a_cluster() -> None:
    assert cluster_latents(map_with(randn(1, 6, seed=3))).members == ((0,),)


def test_bad_thresholds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="threshold"):
        cluster_latents(random_map(), threshold=1.0)
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "100")
    with pytest.raises(MemoryLimitError, match="similarities of 3 output latents"):
        cluster_latents(random_map())


EYE = torch.eye(6).double()


def planted() -> QuadraticMap:
    """Output 0 is x₀², output 1 is x₁ x₂, output 2 is random."""
    left = torch.cat([EYE[:2], randn(4, 6, seed=1)])
    right = torch.cat([EYE[[0, 2]], randn(4, 6, seed=2)])
    down = torch.zeros(3, 6).double()
    down[0, 0], down[1, 1], down[2, 2:] = 1.0, 1.0, randn(4, seed=3)
    return QuadraticMap(BilinearTensor(down, left, right))


def bits(num: int, width: int) -> Tensor:
    return torch.randint(0, 2, (num, width), generator=torch.Generator().manual_seed(0)) * 2.0 - 1


def ranked(x: Tensor, k: int = 6) -> Ranking:
    g = planted()
    return rank_latents(g, trace_layer(g, EYE, k=k).eigenpairs, x)


def test_a_product_of_independent_signs_is_first_and_a_square_last() -> None:
    x = bits(2000, 6).double()
    found = ranked(x)
    assert found.order.tolist() == [1, 2, 0]
    assert found.score.tolist()[:2] == pytest.approx([0, 1], abs=0.02)
    x[:, 2] = x[:, 1]  # now the product is a square of one
    assert float(ranked(x).interaction_share[1]) < 0.02


def test_both_ends_count_however_many_eigenpairs_are_traced() -> None:
    x = bits(2000, 6).double()
    whole, one = ranked(x), ranked(x, k=1)
    for name in ("pair_share", "sign_contrast", "positive", "negative"):
        torch.testing.assert_close(getattr(one, name), getattr(whole, name))
    assert one.sign_contrast.tolist()[:2] == pytest.approx([0, 1])
    assert [float(one.positive[1]), float(one.negative[1])] == pytest.approx([0.5, -0.5])
    assert float(one.interaction_share[1]) > 0.98


def test_an_interaction_is_what_no_sum_of_functions_explains() -> None:
    first, second = randn(4000, seed=1), randn(4000, seed=2)
    assert float(interaction_share(first, second)) > 0.7  # the rest is within the bins
    assert float(interaction_share(first, first)) < 0.05
    assert float(interaction_share(first, torch.ones(4000).double())) == pytest.approx(0, abs=1e-9)
    assert float(interaction_share(first * 0, second)) == 0


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match="inputs has shape"):
        ranked(randn(10, 5))
