"""Metrics of an autoencoder in its place: beside their definitions written out."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import sae_runs
from bilens.base.errors import NumericalError, UsageError
from bilens.nn import TopKSAE
from bilens.train.activations import SAEMetrics, measure_sae

HOOK = "blocks.1.mlp_out"


def drawn(k: int = 3) -> TopKSAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = TopKSAE(sae_runs.WIDTH, 20, k)
    with torch.no_grad():
        sae.scale.fill_(2.0)
        sae.decoder_bias.fill_(0.1)
    return sae


def test_they_are_their_definitions() -> None:
    model, sae, texts = sae_runs.transformer(), drawn(), sae_runs.texts(9, seed=2)
    found = measure_sae(model, sae, HOOK, texts)
    with torch.no_grad():
        _, captured = model.run(texts, capture=(HOOK,))
        x = captured[HOOK][:, 1:].flatten(0, 1)
        mean = x.mean(dim=0)
        z, left = sae.encode(x), x - sae(x)
        losses = []
        for replacement in (x, sae(x), torch.zeros_like(x), mean.expand_as(x)):
            whole = captured[HOOK].clone()
            whole[:, 1:] = replacement.reshape(whole[:, 1:].shape)
            logits, _ = model.run(texts, replace={HOOK: lambda _x, whole=whole: whole})
            losses.append(
                float(
                    functional.cross_entropy(logits[:, 1:-1].flatten(0, 1), texts[:, 2:].flatten())
                )
            )
    assert found.tokens == len(x) == 9 * 11
    assert found.fvu == pytest.approx(float(left.square().sum() / (x - mean).square().sum()))
    assert found.nmse == pytest.approx(float(left.square().sum() / x.square().sum()))
    assert found.l0 == pytest.approx(float((z != 0).sum(dim=1).double().mean()))
    assert found.dead == pytest.approx(float((z == 0).all(dim=0).double().mean()))
    ours = [found.loss, found.loss_patched, found.loss_zero, found.loss_mean]
    assert ours == pytest.approx(losses, rel=1e-5)
    assert found.loss_added == found.loss_patched - found.loss
    assert found.recovered_from_zero == pytest.approx(
        (losses[2] - losses[1]) / (losses[2] - losses[0]), rel=1e-3
    )
    assert found.recovered_from_mean == pytest.approx(
        (losses[3] - losses[1]) / (losses[3] - losses[0]), rel=1e-3
    )


def test_a_perfect_autoencoder_costs_nothing() -> None:
    """Each direction and its opposite, and as many kept as there are directions."""
    sae = TopKSAE(8, 16, 8)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(8), -torch.eye(8)]))
        sae.encoder.copy_(sae.decoder)
    found = measure_sae(sae_runs.transformer(), sae, HOOK, sae_runs.texts(9, seed=2))
    assert found.fvu < 1e-12
    assert abs(found.loss_added) < 1e-6
    assert found.recovered_from_zero == pytest.approx(1, abs=1e-5)


def test_they_do_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sae, texts = sae_runs.transformer(), drawn(), sae_runs.texts(9, seed=2)
    whole = measure_sae(model, sae, HOOK, texts)
    monkeypatch.setattr("bilens.train.activations.TOKENS_AT_ONCE", 24)
    parts = measure_sae(model, sae, HOOK, texts)
    for name, value in whole.to_dict().items():
        assert parts.to_dict()[name] == (value if name == "hook" else pytest.approx(value, 1e-4))


def test_where_ablation_does_no_harm_there_is_nothing_to_recover() -> None:
    same = SAEMetrics("a", 10, 0.1, 0.2, 3.0, 0.0, 1.0, 1.1, 1.0, 2.0)
    assert same.recovered_from_zero is None
    assert same.recovered_from_mean == pytest.approx(0.9)
    better = replace(same, loss_zero=0.5)  # without the layer the model is better
    assert better.recovered_from_zero is None
    assert SAEMetrics.from_dict(same.to_dict()) == same


def test_what_does_not_fit_is_refused() -> None:
    model, texts = sae_runs.transformer(), sae_runs.texts()
    with pytest.raises(UsageError, match=r"has width 7, and blocks\.1\.mlp_out .* has width 8"):
        measure_sae(model, TopKSAE(7, 20, 3), HOOK, texts)
    with pytest.raises(UsageError, match=r"'blocks\.5\.mlp_out' is no hook point"):
        measure_sae(model, drawn(), "blocks.5.mlp_out", texts)
    with pytest.raises(UsageError, match="at least 3 tokens each"):
        measure_sae(model, drawn(), HOOK, texts[:, :2])
    with torch.no_grad():
        model.blocks[1].mlp.down.weight.zero_()
    with pytest.raises(NumericalError, match="are all equal"):
        measure_sae(model, drawn(), HOOK, texts)
