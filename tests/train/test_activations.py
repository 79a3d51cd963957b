"""Activations as a stream and with an autoencoder in their place, beside their definitions."""

import msgspec
import pytest
import torch
from torch.nn import functional

import sae_runs
from bilens.base.errors import MemoryLimitError, NonFiniteError, NumericalError, UsageError
from bilens.nn import TopKSAE
from bilens.train.activations import (
    ActivationStream,
    HookMetrics,
    activations_of,
    measure_sae,
    metrics_of,
)

HOOK = "blocks.1.mlp_out"


def stream(**changes: object) -> ActivationStream:
    given = {
        "model": sae_runs.transformer(),
        "texts": sae_runs.texts(),
        "hooks": (HOOK,),
        "buffer_size": 115,
        "seed": 0,
    }
    return ActivationStream(**{**given, **changes})  # type: ignore[arg-type]


def rows_of(texts: torch.Tensor) -> torch.Tensor:
    """All activations behind the first token, by a run of the whole model."""
    _, found = sae_runs.transformer().run(texts, capture=(HOOK,))
    return found[HOOK][:, 1:].flatten(0, 1).detach()


def test_a_buffer_holds_whole_texts_without_their_first_tokens() -> None:
    activations = stream()
    assert (activations.texts_per_buffer, activations.rows) == (10, 110)
    rows = activations.buffer(0).activations[HOOK]
    assert rows.shape == (110, sae_runs.WIDTH)
    everything = rows_of(sae_runs.texts())
    distances = (rows[:, None] - everything).norm(dim=2).min(dim=1).values
    assert float(distances.max()) < 1e-5


def test_a_pass_reads_every_text_once() -> None:
    """37 texts, 10 a buffer: the fourth buffer ends one pass and begins the next."""
    activations = stream()
    found = torch.cat([activations.buffer(index).activations[HOOK] for index in range(4)])
    found = found[: 37 * 11].sum(dim=0)
    torch.testing.assert_close(found, rows_of(sae_runs.texts()).sum(dim=0), rtol=1e-4, atol=1e-4)


def test_a_buffer_is_a_function_of_seed_and_number() -> None:
    first, again = stream().buffer(2), stream().buffer(2)
    assert torch.equal(first.activations[HOOK], again.activations[HOOK])
    assert torch.equal(first.order, again.order)
    other = stream(seed=1).buffer(2)
    assert not torch.equal(first.activations[HOOK], other.activations[HOOK])
    assert not torch.equal(first.order, stream().buffer(3).order)


def test_batches_are_shuffled_and_share_their_order_between_hooks() -> None:
    buffer = stream(hooks=("blocks.0.resid_pre", HOOK)).buffer(0)
    assert buffer.order.sort().values.tolist() == list(range(110))
    assert buffer.order.tolist() != list(range(110))
    chosen = buffer.order[32:64]
    for hook, rows in buffer.activations.items():
        assert torch.equal(buffer.batch(hook, 1, 32), rows[chosen])


def test_a_buffer_is_never_larger_than_the_texts() -> None:
    assert stream(buffer_size=10**6).rows == 37 * 11
    assert stream(buffer_size=1).rows == 11


def test_the_model_is_read_as_it_is_in_evaluation_and_left_as_it_was() -> None:
    model = sae_runs.transformer().train()
    found = activations_of(model, sae_runs.texts(), (HOOK,))[HOOK]
    assert model.training
    assert not found.requires_grad
    torch.testing.assert_close(found, rows_of(sae_runs.texts()))


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'blocks\.2\.mlp_out' is no hook point"):
        stream(hooks=("blocks.2.mlp_out",))
    with pytest.raises(UsageError, match="the first one is left out: pass texts of at least 2"):
        stream(texts=sae_runs.texts()[:, :1])
    with pytest.raises(UsageError, match="the model knows 0 to 10"):
        stream(texts=sae_runs.texts() + 1)


def test_a_buffer_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "3K")
    with pytest.raises(MemoryLimitError, match=r"a buffer of 110 activations .* smaller buffer"):
        stream()


def test_a_broken_model_is_named() -> None:
    model = sae_runs.transformer()
    with torch.no_grad():
        model.blocks[1].mlp.down.weight[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"the activations at blocks\.1\.mlp_out .* train it"):
        stream(model=model).buffer(0)


def drawn_sae(k: int = 3) -> TopKSAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = TopKSAE(sae_runs.WIDTH, 20, k)
    with torch.no_grad():
        sae.scale.fill_(2.0)
        sae.decoder_bias.fill_(0.1)
    return sae


def test_they_are_their_definitions() -> None:
    model, sae, texts = sae_runs.transformer(), drawn_sae(), sae_runs.texts(9, seed=2)
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
    model, sae, texts = sae_runs.transformer(), drawn_sae(), sae_runs.texts(9, seed=2)
    whole = measure_sae(model, sae, HOOK, texts)
    monkeypatch.setattr("bilens.train.activations.TOKENS_AT_ONCE", 24)
    parts = measure_sae(model, sae, HOOK, texts)
    for name, value in whole.to_dict().items():
        assert parts.to_dict()[name] == (value if name == "hook" else pytest.approx(value, 1e-4))


def test_where_ablation_does_no_harm_there_is_nothing_to_recover() -> None:
    same = metrics_of("a", 10, 0.1, 0.2, 3.0, 0.0, 1.0, 1.1, 1.0, 2.0)
    assert same.recovered_from_zero is None
    assert same.recovered_from_mean == pytest.approx(0.9)
    better = metrics_of("a", 10, 0.1, 0.2, 3.0, 0.0, 1.0, 1.1, 0.5, 2.0)  # without the layer
    assert better.recovered_from_zero is None
    assert msgspec.convert(same.to_dict(), HookMetrics) == same


def test_an_autoencoder_that_does_not_fit_is_refused() -> None:
    model, texts = sae_runs.transformer(), sae_runs.texts()
    with pytest.raises(UsageError, match=r"has width 7, and blocks\.1\.mlp_out .* has width 8"):
        measure_sae(model, TopKSAE(7, 20, 3), HOOK, texts)
    with pytest.raises(UsageError, match=r"'blocks\.5\.mlp_out' is no hook point"):
        measure_sae(model, drawn_sae(), "blocks.5.mlp_out", texts)
    with pytest.raises(UsageError, match="at least 3 tokens each"):
        measure_sae(model, drawn_sae(), HOOK, texts[:, :2])
    with torch.no_grad():
        model.blocks[1].mlp.down.weight.zero_()
    with pytest.raises(NumericalError, match="are all equal"):
        measure_sae(model, drawn_sae(), HOOK, texts)
