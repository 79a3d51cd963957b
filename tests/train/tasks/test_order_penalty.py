"""Guards the penalty on three tokens and more: what it is of, and that training lowers it.

Damage that was seen red: the position without earlier tokens left out of the sum, every text
counted as penalised, the penalty in the loss that is told.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
from bilens.base.errors import UsageError
from bilens.polynomial.token_interactions import interactions_of
from bilens.train.tasks.order_penalty import EVERY, PenalisedLoss, split_by_order
from polynomial.test_reading import transformer

TEXTS = torch.randint(7, (EVERY + 1, 4), generator=torch.Generator().manual_seed(3))
STORIES = ["the cat saw the dog . the dog ran .", "a dog saw a cat . the cat sat ."] * 40


def test_what_is_penalised_are_interactions_of_three_tokens() -> None:
    """Of texts of three tokens the last position has one such interaction, the others have none."""
    model = transformer().double()
    apart = torch.tensor([[True, False, False], [False, False, True]])
    whole, high = split_by_order(model, TEXTS, apart)
    torch.testing.assert_close(model.unembed(whole), model(TEXTS[:, :-1]))
    said = model.unembed(high).detach()
    expected = interactions_of(bl.polynomial_network(model), TEXTS[:1, :3], (2, 1))
    centred = said - said.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(centred[0, 2], expected[0], rtol=1e-6, atol=1e-8)
    assert float(said[0, :2].abs().max()) < 1e-10
    assert float(said[1].abs().max()) < 1e-10  # both earlier tokens on one side


def test_the_loss_that_is_told_is_the_cross_entropy() -> None:
    model = transformer().double()
    plain = model.next_token_loss(TEXTS)
    gradients = []
    for weight in (0.0, 0.1, 0.3):
        model.zero_grad()
        loss = PenalisedLoss(model, weight, 0)(TEXTS)
        torch.testing.assert_close(loss, plain)
        loss.backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))  # type: ignore[union-attr]
    first, second = (one - gradients[0] for one in gradients[1:])
    assert float(first.abs().max()) > 1e-6
    torch.testing.assert_close(3 * first, second)
    with torch.no_grad():
        torch.testing.assert_close(PenalisedLoss(model, 1.0, 0)(TEXTS), plain)


def high_share(folder: Path) -> float:
    """Of what the pairs of a text say, how large is what three tokens say beside it."""
    network = bl.polynomial_network(bl.load(folder))
    tokens = torch.randint(20, (200, 3), generator=torch.Generator().manual_seed(0))
    two, three = interactions_of(network, tokens[:, 1:]), interactions_of(network, tokens, (2, 1))
    return float(three.square().mean() / two.square().mean())


def test_training_with_it_leaves_less_to_three_tokens(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"d_model": 16, "d_hidden": 16, "n_layer": 2, "n_head": 2, "n_ctx": 8}
    recipe |= {"vocab_size": 300, "steps": 60, "evaluations": 1, "polynomial": True}
    shares = []
    for weight in (0.0, 3.0):
        bl.train_language(STORIES, tmp_path / str(weight), order_penalty=weight, **recipe)
        shares.append(high_share(tmp_path / str(weight)))
    assert shares[1] < 0.7 * shares[0]


def test_it_is_of_polynomial_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"order_penalty.*with polynomial"):
        bl.train_language(STORIES, tmp_path, order_penalty=0.1)
    with pytest.raises(UsageError, match="order_penalty must be a finite number"):
        replace(bl.train.recipes.LanguageRecipe(), order_penalty=-1.0)
