"""Generation: the cache changes nothing, draws follow the logits, a text ends where it ends.

The loss is torch's cross-entropy, in values and gradients, whatever the size of a piece.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.nn import BilinearTransformer, tokens as module
from bilens.nn.tokens import Sampler, mean_cross_entropy
from builders import randn
from transformers_by_hand import KINDS, make, some_tokens


def greedy(model: BilinearTransformer, tokens: Tensor, new: int) -> Tensor:
    """The most probable token again and again, the whole text read each time."""
    for _ in range(new):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(dim=-1)], dim=1)
    return tokens


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_nothing(kind: str, training: bool) -> None:
    model = make(**KINDS[kind], n_ctx=12).train(training)
    tokens = some_tokens(3, 2)
    assert torch.equal(model.generate(tokens, 10, temperature=0), greedy(model, tokens, 10))
    assert model.training is training


def test_no_new_tokens_are_no_new_tokens() -> None:
    tokens = some_tokens(2, 3)
    assert torch.equal(make().generate(tokens, 0), tokens)


def test_a_generator_decides_the_text_and_the_dtype_stays() -> None:
    model, tokens = make(n_ctx=30), some_tokens(2, 3).int()
    texts = [model.generate(tokens, 20, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    assert texts[0].dtype is torch.int32
    assert torch.equal(texts[0][:, :3], tokens)


def test_draws_have_the_probabilities_of_the_logits() -> None:
    """20,000 draws; each share within four standard errors."""
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    sampler = Sampler(0.5, 3, torch.Generator().manual_seed(0))
    drawn = sampler.draw(logits.expand(20_000, 4)).flatten()
    expected = torch.tensor([0.0, 2.0, 4.0]).softmax(dim=0)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert float(shares[3]) == 0
    assert bool(((shares[:3] - expected).abs() < 4 * (expected / 20_000).sqrt()).all())


@pytest.mark.parametrize("top_k", [None, 4, 100])
def test_a_top_k_that_cuts_nothing_changes_no_probability(top_k: int | None) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, 4)
    drawn = Sampler(1.0, top_k, torch.Generator().manual_seed(0)).draw(logits)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 20_000
    torch.testing.assert_close(shares, logits[0].softmax(dim=0), atol=0.015, rtol=0)


def test_a_text_that_has_ended_goes_on_with_its_end_and_stops_when_all_have() -> None:
    model = make(n_ctx=40, n_layer=1)
    tokens = some_tokens(4, 2)
    free = model.generate(tokens, 30, seed=3)
    end = 5
    ended = model.generate(tokens, 30, seed=3, end_token=end)
    assert ended.shape[1] <= free.shape[1]
    for before, after in zip(free[:, 2:].tolist(), ended[:, 2:].tolist(), strict=True):
        if end in before[: len(after)]:
            place = before.index(end)
            assert after[: place + 1] == before[: place + 1]
            assert set(after[place:]) == {end}
    ends = [text.index(end) for text in free[:, 2:].tolist() if end in text]
    assert len(ends) == 4, "every text ends in this example"
    assert ended.shape[1] - 2 == max(ends) + 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too many": ({"max_new_tokens": 5}, r"3 tokens and 5 new ones are more than the context of 7"),
    "fewer than none": ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0"),
    "half a token": ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer"),
    "a cold below zero": (
        {"temperature": -1},
        "temperature must be a number of at least 0, got -1",
    ),
    "no number": ({"temperature": "1"}, "temperature must be a number"),
    "NaN": ({"temperature": float("nan")}, "temperature must be a number of at least 0, got nan"),
    "endless heat": ({"temperature": float("inf")}, "temperature must be a number"),
    "none of the tokens": ({"top_k": 0}, "top_k must be an integer of at least 1, got 0"),
    "an end outside": ({"end_token": 11}, "end_token is 11; the model knows 0 to 10"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wish_that_cannot_be_granted_is_refused(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        make().generate(some_tokens(2, 3), **{"max_new_tokens": 1, **arguments})


TARGETS = torch.tensor([0, 3, 3, 1, 2])


@pytest.mark.parametrize("rows", [1, 2, 5, 9])
@pytest.mark.parametrize("needs", ["both", "x", "weight"])
def test_it_is_torchs_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int, needs: str) -> None:
    monkeypatch.setattr(module, "CACHED_LOGITS", 0)
    monkeypatch.setattr(module, "FEWEST_ROWS", rows)
    x = randn(5, 3, seed=1).requires_grad_(needs != "weight")
    weight = randn(4, 3, seed=2).requires_grad_(needs != "x")
    ours, theirs = (
        mean_cross_entropy(x, weight, TARGETS),
        functional.cross_entropy(x @ weight.T, TARGETS),
    )
    torch.testing.assert_close(ours, theirs)
    inputs = [tensor for tensor in (x, weight) if tensor.requires_grad]
    for mine, true in zip(
        torch.autograd.grad(ours.square(), inputs),
        torch.autograd.grad(theirs.square(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, true)


def test_large_logits_do_not_overflow() -> None:
    x = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss = mean_cross_entropy(x, torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1]))
    loss.backward()
    assert float(loss.detach()) == 1e4
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.0]


def test_half_precision_sums_in_float32() -> None:
    x, weight = randn(5, 3, seed=1).bfloat16(), randn(4, 3, seed=2).bfloat16()
    loss = mean_cross_entropy(x.requires_grad_(), weight.requires_grad_(), TARGETS)
    exact = functional.cross_entropy(x.double() @ weight.double().T, TARGETS)
    assert loss.dtype is torch.float32
    assert float((loss - exact).detach().abs()) < 0.02
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype is torch.bfloat16
