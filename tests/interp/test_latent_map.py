"""The map of pre-activations against an SAE's own, and eigenvectors against their definition.

Broken once: the offset left out of `latent_map`; the pre-activations differed. `.abs()` dropped in
`nearest_latents`; the opposite column was not found.
"""

from __future__ import annotations

import pytest
import torch

from bilens.base.errors import ShapeError, UsageError
from bilens.interp.chosen_latents import check_latents
from bilens.interp.latent_map import latent_map
from bilens.interp.nearest_latents import nearest_latents
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
