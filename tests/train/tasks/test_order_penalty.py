"""Guards the penalty on three tokens and more: what it is of, and that training lowers it.

Damage that was seen red: the run in which no position holds an earlier token left out of the sum;
draws of the batch in place of its texts; the penalty in the loss that is told.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
from bilens.base.errors import UsageError
from bilens.polynomial.token_interactions import interactions_of
from bilens.train.recipes import ORDER_PENALTY, default_recipe
from bilens.train.tasks.language import PenalisedLoss, split_by_order
from polynomial.test_reading import transformer

TEXTS = torch.randint(7, (24, 10), generator=torch.Generator().manual_seed(3))


def test_what_is_penalised_are_interactions_of_three_tokens() -> None:
    """Of texts of three tokens the last position has one such interaction, the others have none."""
    model, tokens = transformer().double(), TEXTS[:, :3]
    apart = torch.tensor([[True, False, False], [False, False, True]])
    whole, high = split_by_order(model, tokens, [5, 2], apart)
    torch.testing.assert_close(model.unembed(whole), model(tokens))
    said = model.unembed(high).detach()
    expected = interactions_of(bl.polynomial_network(model), tokens[5:6], (2, 1))
    centred = said - said.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(centred[0, 2], expected[0], rtol=1e-6, atol=1e-8)
    assert float(said[0, :2].abs().max()) < 1e-10
    assert float(said[1].abs().max()) < 1e-10  # both earlier tokens on one side


def gradient(loss: PenalisedLoss, *batches: torch.Tensor) -> torch.Tensor:
    loss.model.zero_grad()
    for texts in batches:
        (loss(texts) * len(texts)).backward()  # type: ignore[no-untyped-call]
    return torch.cat([one.grad.flatten() for one in loss.model.parameters()])  # type: ignore[union-attr]


def test_the_loss_that_is_told_is_the_cross_entropy() -> None:
    model = transformer().double()
    plain = model.next_token_loss(TEXTS)
    losses = [PenalisedLoss(model, weight, 0) for weight in (0.0, 1e4, 3e4)]
    assert losses[0].draw(TEXTS)
    for loss in losses:
        torch.testing.assert_close(loss(TEXTS), plain)
    none, first, second = (gradient(loss, TEXTS) for loss in losses)
    assert float((first - none).abs().max()) > 1e-6
    torch.testing.assert_close(3 * (first - none), second - none)
    in_parts = gradient(losses[2], TEXTS[:7], TEXTS[7:])
    torch.testing.assert_close(in_parts, second)
    with torch.no_grad():
        torch.testing.assert_close(losses[2](TEXTS), plain)


def sums() -> torch.Tensor:
    """Texts in which each token is the sum of the two before it: no pair tells anything."""
    texts = torch.randint(7, (300, 12), generator=torch.Generator().manual_seed(1))
    for at in range(2, 12):
        texts[:, at] = (texts[:, at - 1] + texts[:, at - 2]) % 7
    return texts


def high_share(folder: Path) -> float:
    """How large what three tokens do together is beside what two do."""
    network = bl.polynomial_network(bl.load(folder))
    tokens = torch.randint(7, (200, 3), generator=torch.Generator().manual_seed(0))
    two, three = interactions_of(network, tokens[:, 1:]), interactions_of(network, tokens, (2, 1))
    return float(three.square().mean() / two.square().mean())


def test_training_with_it_leaves_less_to_three_tokens(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"d_model": 16, "d_hidden": 16, "n_layer": 2, "n_head": 2, "n_ctx": 8}
    recipe |= {"steps": 60, "evaluations": 1, "polynomial": True}
    shares = []
    for weight in (0.0, 3.0):
        bl.train_language(sums(), tmp_path / str(weight), order_penalty=weight, **recipe)
        shares.append(high_share(tmp_path / str(weight)))
    assert shares[1] < 0.8 * shares[0]


def test_it_is_of_polynomial_models_of_a_text(tmp_path: Path) -> None:
    assert default_recipe("stories.txt", polynomial=True).order_penalty == ORDER_PENALTY
    assert default_recipe("grammar", polynomial=True).order_penalty == 0
    assert default_recipe("stories.txt").order_penalty is None
    with pytest.raises(UsageError, match=r"order_penalty.*with polynomial"):
        bl.train_language(sums(), tmp_path, order_penalty=0.1)
