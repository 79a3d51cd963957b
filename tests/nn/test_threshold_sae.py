"""Autoencoders with thresholds and transcoders, against their definitions and top-k ones."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.nn import ThresholdSAE, TopKSAE
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.train.activations import code_statistics

KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "transcoder": {"d_out": 5},
    "skip": {"d_out": 5, "skip": True},
}


def filled(sae: SparseAutoencoder) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if isinstance(sae, ThresholdSAE):
            sae.threshold.copy_(torch.rand(sae.num_latents, generator=generator))
        sae.scale.fill_(1.5)
    return sae.requires_grad_(False).double()


def inputs(rows: int = 40) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_its_definition_says(kind: str) -> None:
    sae, x = filled(ThresholdSAE(4, 9, **KINDS[kind])), inputs()
    assert isinstance(sae, ThresholdSAE)
    given = 1.5 * x - (sae.decoder_bias if kind == "autoencoder" else 0)
    pre = given @ sae.encoder.T + sae.encoder_bias
    z = pre * (pre > sae.threshold)
    made = (z @ sae.decoder + sae.decoder_bias) / 1.5
    made = made + x @ sae.skip.T if sae.skip is not None else made
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x), made)
    torch.testing.assert_close(x @ sae.encoder.T * 1.5 + sae.offset, pre)
    assert "d_in=4, num_latents=9" in repr(sae)


@pytest.mark.parametrize("kind", KINDS)
def test_its_sparse_form_is_its_dense_one(kind: str) -> None:
    sae, x = filled(ThresholdSAE(4, 9, **KINDS[kind])), inputs().reshape(8, 5, 4)
    values, indices = sae.top(x)
    z = torch.zeros(8, 5, 9).double().scatter(-1, indices, values)
    torch.testing.assert_close(z, sae.encode(x))
    assert values.shape[-1] == int((z > 0).sum(dim=-1).max())
    torch.testing.assert_close(sae.decode_top(sae.top(x)), sae.decode(z))
    for nothing in (torch.zeros(0, 4), torch.full((3, 4), -1e-9)):
        sae.encoder_bias.fill_(-1e3)
        assert sae.top(nothing.double()).values.abs().sum() == 0
        assert sae(nothing.double()).shape == (len(nothing), sae.width)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", [True, False])
def test_folding_keeps_reconstructions_and_choices(kind: str, top: bool) -> None:
    made = TopKSAE(4, 9, 3, **KINDS[kind]) if top else ThresholdSAE(4, 9, **KINDS[kind])
    sae, x = filled(made), inputs()
    folded = sae.folded()
    assert type(folded) is type(sae)
    assert float(folded.scale) == 1.0
    torch.testing.assert_close(folded(x), sae(x))
    torch.testing.assert_close(folded.encode(x) * 1.5, sae.encode(x))
    assert float(sae.scale) == 1.5


def test_a_threshold_of_zero_is_a_relu() -> None:
    sae, x = filled(ThresholdSAE(4, 9)), inputs()
    assert isinstance(sae, ThresholdSAE)
    sae.threshold.zero_()
    torch.testing.assert_close(sae.encode(x), sae.pre_activations(x).relu())
    top = TopKSAE(4, 9, 8).double()
    top.load_state_dict({n: t for n, t in sae.state_dict().items() if n != "threshold"})
    rows = (sae.pre_activations(x) > 0).sum(dim=1) < 9  # of which a top-k keeps as many
    torch.testing.assert_close(top(x)[rows], sae(x)[rows])


def test_a_threshold_above_everything_leaves_the_bias() -> None:
    sae = filled(ThresholdSAE(4, 9))
    assert isinstance(sae, ThresholdSAE)
    sae.threshold.fill_(1e9)
    torch.testing.assert_close(sae(inputs()), (sae.decoder_bias / 1.5).expand(40, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_of_what_it_writes(kind: str) -> None:
    sae, x = filled(ThresholdSAE(4, 9, **KINDS[kind])), inputs()
    y = x if kind == "autoencoder" else inputs() @ torch.ones(4, 5).double() + x.sum()
    mean, (fvu, nmse, active, dead) = code_statistics(sae, [(x[:30], y[:30]), (x[30:], y[30:])])
    z, left = sae.encode(x), y - sae(x)
    torch.testing.assert_close(mean, y.mean(dim=0))
    assert fvu == pytest.approx(float(left.square().sum() / (y - mean).square().sum()))
    assert nmse == pytest.approx(float(left.square().sum() / y.square().sum()))
    assert active == pytest.approx(float((z > 0).sum(dim=1).double().mean()))
    assert dead == pytest.approx(float((z == 0).all(dim=0).double().mean()))


def test_bad_sizes_and_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="with a skip reads x off x: give d_out"):
        ThresholdSAE(4, 9, skip=True)
    with pytest.raises(UsageError, match="d_out"):
        TopKSAE(4, 9, 3, d_out=0)
    sae = ThresholdSAE(4, 9, d_out=5)
    with pytest.raises(ShapeError, match=r"\(\.\.\., 4\) was expected"):
        sae(torch.ones(2, 5))
    with pytest.raises(NonFiniteError):
        sae(torch.tensor([[1.0, torch.nan, 0.0, 0.0]]))
