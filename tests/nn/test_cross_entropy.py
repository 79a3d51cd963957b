"""Cross-entropy in pieces: values and gradients of torch's own, whatever the size of a piece."""

import pytest
import torch
from torch.nn import functional

from bilens.nn import cross_entropy
from bilens.nn.cross_entropy import mean_cross_entropy
from builders import randn

TARGETS = torch.tensor([0, 3, 3, 1, 2])


@pytest.mark.parametrize("rows", [1, 2, 5, 9])
@pytest.mark.parametrize("needs", ["both", "x", "weight"])
def test_it_is_torchs_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int, needs: str) -> None:
    monkeypatch.setattr(cross_entropy, "CACHED_LOGITS", 0)
    monkeypatch.setattr(cross_entropy, "FEWEST_ROWS", rows)
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
