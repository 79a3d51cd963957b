"""Clusters of forms against forms whose similarity is known."""

import pytest
import torch

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.interp.layer_trace import cluster_latents
from builders import randn, random_map


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


def test_one_latent_is_a_cluster_and_latents_are_those_asked_for() -> None:
    found = cluster_latents(random_map(), torch.tensor([2]))
    assert found.members == ((0,),)
    assert found.latents.tolist() == [2]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="threshold"):
        cluster_latents(random_map(), threshold=1.0)
    with pytest.raises(MemoryLimitError, match="similarities of 3 output latents"):
        cluster_latents(random_map(), memory_limit=100)
