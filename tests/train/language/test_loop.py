"""The loop of language models: a plain twin, every option at work, bit-equal weights for a seed.

Broken once: gradients not clipped, whatever the recipe says; the twin failed.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

import language_runs
import tiny
from bilens.base.errors import MemoryLimitError, NumericalError
from bilens.nn.transformer import BilinearTransformer
from bilens.train.language.loop import BETAS, held_out_loss, rate_at, start_run, train_step
from bilens.train.language.recipe import LanguageRecipe
from bilens.train.language.tokens import Batches

QUIET = language_runs.changed(dropout=0.0)


def plain_twin(recipe: LanguageRecipe) -> BilinearTransformer:
    """The loop without dropout, with AdamW from its paper (arXiv:1711.05101, alg. 2)."""
    data, tokenizer = language_runs.tokens(), language_runs.tokenizer()
    model = start_run(recipe, tokenizer.vocab_size).model
    weights = list(model.parameters())
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    batches = Batches(data.train, recipe)
    assert recipe.steps is not None
    for step in range(recipe.steps):
        rising = math.ceil(recipe.warmup * recipe.steps)
        done = (step - rising) / (recipe.steps - rising)
        rate = recipe.learning_rate * (1 - done if step >= rising else (step + 1) / rising)
        texts = batches.batch(step)
        logits = model(texts[:, :-1])
        loss = functional.cross_entropy(logits.transpose(1, 2), texts[:, 1:])
        gradients = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        with torch.no_grad():
            for weight, raw, (m, v) in zip(weights, gradients, moments, strict=True):
                gradient = raw * min(1.0, recipe.clip / (norm + 1e-6))
                m.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
                v.mul_(BETAS[1]).add_(gradient**2, alpha=1 - BETAS[1])
                corrected = m / (1 - BETAS[0] ** (step + 1))
                size = (v / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
                weight.mul_(1 - rate * recipe.weight_decay).sub_(rate * corrected / size)
    return model


def test_the_loop_is_what_its_plain_twin_computes() -> None:
    recipe = language_runs.changed(dropout=0.0, warmup=0.3, clip=0.5)
    expected = plain_twin(recipe).state_dict()
    for name, value in language_runs.trained(recipe).model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    first, second = language_runs.trained(), language_runs.trained()
    assert tiny.same_weights(first.model, second.model)
    other = language_runs.trained(language_runs.changed(seed=1))
    assert not tiny.same_weights(first.model, other.model)


OPTIONS: dict[str, dict[str, Any]] = {
    "gate": {"gate": "silu"},
    "mlp_type": {"mlp_type": "ordinary"},
    "steps": {"steps": 13},
    "epochs": {"steps": None, "epochs": 1.0},
    "batch_size": {"batch_size": 16},
    "learning_rate": {"learning_rate": 0.01},
    "schedule": {"schedule": "cosine"},
    "warmup": {"warmup": 0.5},
    "weight_decay": {"weight_decay": 0.5},
    "clip": {"clip": 0.01},
    "dropout": {"dropout": 0.2},
    "precision": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_weights(name: str) -> None:
    changed = language_runs.trained(language_runs.changed(**OPTIONS[name])).model.state_dict()
    usual = language_runs.trained().model.state_dict()
    assert any(
        changed[key].shape != usual[key].shape or not torch.equal(changed[key], usual[key])
        for key in usual
    )


def test_how_often_is_measured_changes_no_weight() -> None:
    often = language_runs.trained(language_runs.changed(evaluations=14))
    assert tiny.same_weights(often.model, language_runs.trained().model)


def test_the_lines_of_the_history_say_what_was_done() -> None:
    training = language_runs.job()
    run = training.start()
    lines = list(training.train(run, lambda _run: None))
    assert [line.step for line in lines] == [3, 7, 10, 14]
    assert [line.epoch for line in lines] == [1, 2, 3, 4]
    assert lines[-1].tokens == 14 * 32 * 15
    rates = [rate_at(language_runs.RECIPE, line.step - 1, 14) for line in lines]
    assert [line.learning_rate for line in lines] == rates
    last = lines[-1]
    data = language_runs.tokens()
    assert last.held_out_loss == held_out_loss(run.model, data.held_out, 15)
    assert last.held_out_bits_per_byte == data.bits_per_byte(last.held_out_loss)
    assert last.held_out_loss < lines[0].held_out_loss < math.log(90)
    assert last.tokens_per_second == pytest.approx(4 * 32 * 15 / last.seconds)


def test_more_lines_than_steps_are_as_many_as_steps() -> None:
    training = language_runs.job(language_runs.changed(steps=3, evaluations=10))
    assert [line.step for line in training.train(training.start(), lambda _run: None)] == [1, 2, 3]


@torch.no_grad()
def test_the_held_out_loss_is_the_mean_over_all_predictions() -> None:
    """Written out: each token behind the first, given those before it in its text."""
    with torch.enable_grad():
        model = language_runs.trained(QUIET).model
    tokens = language_runs.tokens().held_out[:76]  # five texts
    logs = []
    for start in range(0, 75, 15):
        text = tokens[start : start + 16]
        chances = model.eval()(text[None, :-1])[0].log_softmax(dim=-1)
        logs += [float(chances[place, text[place + 1]]) for place in range(15)]
    assert held_out_loss(model, tokens, 15) == pytest.approx(-sum(logs) / len(logs), rel=1e-5)


def test_dropout_is_off_where_the_loss_is_measured() -> None:
    training = language_runs.job(language_runs.changed(dropout=0.5, steps=2, evaluations=1))
    run = training.start()
    (line,) = training.train(run, lambda _run: None)
    assert line.held_out_loss == held_out_loss(run.model, language_runs.tokens().held_out, 15)
    hooks = [module._forward_hooks for module in run.model.modules()]
    assert not any(hooks)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    run = start_run(QUIET, language_runs.tokenizer().vocab_size)
    with torch.no_grad():
        run.model.unembed.weight.fill_(3e38)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    texts = Batches(language_runs.tokens().train, QUIET).batch(0)
    with pytest.raises(NumericalError, match=r"no longer finite at step 6 .*lower the learning"):
        train_step(run, texts, QUIET, 5)
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_a_model_that_cannot_fit_is_refused_before_it_is_built() -> None:
    with pytest.raises(MemoryLimitError, match="choose a smaller model"):
        start_run(language_runs.changed(d_model=1 << 20), 1 << 20)
