"""Guards against numbers and rules that hang on units of inputs, common functions, or notation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.api.layer_reading import layer_map
from bilens.base.errors import NotQuadraticError
from contract.table import cell


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(report: Any, rule: str) -> Any:
    return next(found for found in report.record.verdict if found.rule == rule)


def steep(common: float) -> nn.Sequential:
    """Three classes of steep units, and units that are nearly straight and the same to all."""
    net = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3), nn.Softmax(-1)).double()
    with torch.no_grad():
        for seed, part in enumerate(net.parameters()):
            part.copy_(randn(*part.shape, seed=seed))
        net[0].weight[:8].mul_(5)
        net[0].weight[8:].mul_(0.01)
        net[0].bias[8:] = 0
        net[2].weight[:, 8:].add_(common * randn(4, seed=9))
    return net


@cell("fit", "common function")
@cell("audit", "common function")
def test_r_squared_of_classes_is_of_what_answers_hang_on() -> None:
    """One function in all logits lifted R² from .68 to .9999, and the audit passed."""
    x, rows, reports, scores = randn(1500, 5, seed=20), randn(400, 5, seed=21), [], []
    for common in (0.0, 3000.0):
        net = steep(common)
        torch.testing.assert_close(net(x), steep(0.0)(x))
        logits = net[:3](x).detach()
        fit, view = bl.quadratic_fit(net, data=x, held_out=rows), bl.from_module(net)
        (layer,) = view.layers.values()
        truth, said = net[:3](rows).detach(), fit.quadratic_map(rows)
        truth, said = (one - one.mean(dim=1, keepdim=True) for one in (truth, said))
        by_hand = 1 - (truth - said).square().sum() / (truth - truth.mean(dim=0)).square().sum()
        assert fit.r_squared.quadratic.overall == pytest.approx(float(by_hand), abs=1e-9)
        assert not fit.usable
        assert not layer.fit.usable
        with pytest.raises(NotQuadraticError):
            layer_map(view, layer.name, "input")
        report = bl.audit(net, data=(x, logits.argmax(dim=1)))
        reports.append([(one.rule, one.outcome) for one in report.record.verdict])
        scores.append(report.record.performance.approximation[0].r_squared)
        assert outcome(report, "r2").outcome == "warn"
    assert reports[0] == reports[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@cell("fit", "common function")
def test_exact_r_squared_of_two_layers_is_of_class_centred_outputs() -> None:
    """The error of two bilinear layers is known in closed form; it was that of raw logits."""
    scores = []
    for common in (0.0, 100.0):
        model = bl.nn.BilinearClassifier(4, 6, 3, n_layers=2).double()
        with torch.no_grad():
            for seed, part in enumerate(model.parameters()):
                part.copy_(randn(*part.shape, seed=seed))
            model.head.weight.add_(common * randn(6, seed=30))
        fit = bl.quadratic_fit(model)
        assert fit.r_squared.quadratic.standard_error == 0
        scores.append(fit.r_squared.quadratic.overall)
    x = randn(200_000, 4, seed=31)
    truth, said = model(x).detach(), fit.quadratic_map(x)
    truth, said = (one - one.mean(dim=1, keepdim=True) for one in (truth, said))
    sampled = 1 - (truth - said).square().sum() / (truth - truth.mean(dim=0)).square().sum()
    assert scores[0] == pytest.approx(scores[1], abs=1e-8)
    assert scores[1] == pytest.approx(float(sampled), abs=0.05)
