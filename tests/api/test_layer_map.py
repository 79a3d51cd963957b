"""A layer in whitened coordinates: the same function, the spectra of Σ^½ Q Σ^½, and its own null.

Broken once: the mean left out of `whiten`; the logits were others. The null rotated behind the
embedding alone; the level of chance was another.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import oracles
import tiny
from bilens.algebra.rotation_null import rotation_null
from bilens.api.decompose import decompose
from bilens.api.decomposition_request import Request
from bilens.api.input_moments import InputMoments, moments_of
from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearMLP

DATA = tiny.images()
MOMENTS = moments_of(DATA)
ONE = tiny.loaded(tiny.classifier(bias=True))
TWO = tiny.loaded(tiny.classifier(n_layers=2))
MLP = LoadedModel(BilinearMLP(tiny.PIXELS, 7, 4).double(), "an/mlp", "")
WHOLE = Request(top=tiny.PIXELS, basis="whitened", reading="raw", null_samples=39)


def root() -> Tensor:
    """Σ^½ of the training images, from another decomposition than the code's."""
    covariance = torch.cov(DATA.train_images.double().T, correction=0)
    left, values, _ = torch.linalg.svd(covariance)
    return (left * values.sqrt()) @ left.T


@pytest.mark.parametrize(("model", "layer"), [(ONE, "layers.0"), (TWO, "layers.0"), (MLP, "layer")])
def test_whitened_spectra_are_those_of_the_congruent_form(model: LoadedModel, layer: str) -> None:
    result = decompose(model, WHOLE, layer=layer, inputs=MOMENTS)
    assert result.record.basis == result.pairs.basis == "whitened"
    tensor = model.layers[layer].quadratic_map.tensor
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    for c, values in enumerate(result.pairs.eigenvalues):
        expected = torch.linalg.eigvalsh(root() @ dense[c] @ root())
        torch.testing.assert_close(values.sort().values, expected, rtol=1e-9, atol=1e-12)


def test_whitened_inputs_give_the_logits() -> None:
    pairs = decompose(ONE, WHOLE, inputs=MOMENTS).pairs
    z = torch.randn(5, tiny.PIXELS, generator=torch.Generator().manual_seed(0)).double()
    x = DATA.train_images.double().mean(dim=0) + z @ root()
    torch.testing.assert_close(pairs.contributions(z).total().T, ONE.module(x))


@pytest.mark.parametrize("model", [ONE, MLP])
def test_the_null_rotates_what_the_layer_reads_behind_the_whitening(model: LoadedModel) -> None:
    module: Any = model.module
    record = decompose(model, WHOLE, inputs=MOMENTS).record
    behind = module.quadratic_map() if model is MLP else module.quadratic_map("embedding")
    embedding = root() if model is MLP else module.embed.weight @ root()
    eye = torch.eye(behind.sizes.d_out, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    null = rotation_null(behind, eye, generator, num_samples=39, embedding=embedding)
    found = [output.effective_rank_null for output in record.outputs]
    medians = null.effective_rank.median(dim=0).values.tolist()
    assert [level.median for level in found if level is not None] == pytest.approx(medians)


def test_only_a_layer_that_reads_the_images_can_be_whitened() -> None:
    with pytest.raises(UsageError, match=r"layers\.1 has no images .* --layer layers\.0"):
        decompose(TWO, WHOLE, layer="layers.1", inputs=MOMENTS)
    with pytest.raises(UsageError, match="needs inputs: pass their moments"):
        decompose(ONE, WHOLE)
    few = InputMoments(MOMENTS.mean[:9], MOMENTS.covariance[:9, :9], MOMENTS.about)
    with pytest.raises(UsageError, match=r"layers\.0 reads 36 inputs, and tiny has images of 9"):
        decompose(ONE, WHOLE, inputs=few)


def test_moments_say_what_they_are_of() -> None:
    assert MOMENTS.about["sha256"] == DATA.fingerprint
    assert (MOMENTS.about["split"], MOMENTS.about["num_images"]) == ("training", tiny.NUM_TRAIN)
