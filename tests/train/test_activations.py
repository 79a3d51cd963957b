"""The stream of activations: what a buffer holds, in which order, and that it is a function."""

import pytest
import torch

import sae_runs
from bilens.base.errors import MemoryLimitError, NonFiniteError, UsageError
from bilens.train.activations import ActivationStream, activations_of

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
