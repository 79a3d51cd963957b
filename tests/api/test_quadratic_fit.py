"""`bl.quadratic_fit`: whatever can be passed is read, and R² is that of the thing itself.

Broken once: a sequence of layers run from the last to the first; its R² was another. The check of
every parameter left out stayed green, until a classifier of ours with a NaN was added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn


def test_a_one_layer_model_without_a_gate_is_exact() -> None:
    model = tiny.classifier(bias=True, residual=True)
    fit = bl.quadratic_fit(tiny.loaded(model))
    x = randn(40, tiny.PIXELS)
    assert fit.exact
    torch.testing.assert_close(fit.quadratic_map(x), model(x).detach(), rtol=1e-12, atol=1e-12)


def test_modules_and_their_weights_give_the_same_fit() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))
    up, down = module[0], module[2]
    weights = bl.MLPWeights(down.weight, up.weight, "relu", up.bias, constant=down.bias)
    one, two = bl.quadratic_fit(module, samples=500), bl.quadratic_fit(weights, samples=500)
    x = randn(20, 6)
    torch.testing.assert_close(one.quadratic_map(x), two.quadratic_map(x))
    assert one.r_squared.quadratic.overall == pytest.approx(two.r_squared.quadratic.overall)
    assert one.derivation == two.derivation == "closed form, the least-squares map"


def test_layers_of_a_loaded_model_are_fitted_one_by_one() -> None:
    model = tiny.classifier(n_layers=2, gate="silu", residual=True)
    loaded = tiny.loaded(model)
    x = randn(500, tiny.PIXELS)
    embedded = model.embed(x)
    first = model.layers[0](embedded) + embedded
    last = model.head(model.layers[1](first) + first)
    for name, inputs, outputs in (("layers.0", x, first), ("layers.1", first, last)):
        fit = bl.quadratic_fit(loaded.layers[name], samples=200, data=inputs)
        assert fit.on_data is not None
        rest = (fit.quadratic_map(inputs.detach()) - outputs.detach()).square().sum()
        spread = (outputs - outputs.mean(dim=0)).detach().square().sum()
        assert fit.on_data.quadratic.overall == pytest.approx(1 - float(rest / spread))
        assert fit.on_data.quadratic.overall > 0.5


def test_a_sequence_of_weights_is_a_network() -> None:
    layers = [
        bl.MLPWeights(torch.eye(5).double(), randn(5, 4) / 2, "tanh"),
        bl.MLPWeights(randn(2, 6), randn(6, 5, seed=1) / 2, "relu"),
    ]
    fit = bl.quadratic_fit(layers, samples=2000)
    x = randn(2000, 4, seed=5)
    y = layers[1](layers[0](x))
    rest = (y - fit.quadratic_map(x)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert 1 - float(rest) == pytest.approx(fit.r_squared.quadratic.overall, abs=0.05)


def test_blocks_of_a_transformer_are_fitted() -> None:
    torch.manual_seed(0)
    for kind in ("gated", "ordinary"):
        gate = "silu" if kind == "gated" else None
        model = bl.nn.BilinearTransformer(11, 8, 12, 1, 2, 8, gate, mlp_type=kind)  # type: ignore[arg-type]
        fit = bl.quadratic_fit(model.mlps[0], samples=500)
        assert fit.usable
        with pytest.raises(UsageError, match=r"fit one of its MLPs.*blocks\[0\]"):
            bl.quadratic_fit(model)


def test_neither_model_nor_generator_of_torch_is_touched() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    state = torch.random.get_rng_state()
    fit = bl.quadratic_fit(module, samples=200)
    assert fit.quadratic_map.dtype == torch.float64
    assert module.training
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(state, torch.random.get_rng_state())


def broken() -> nn.Module:
    """An MLP with a weight that is NaN."""
    module = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    with torch.no_grad():
        module[2].weight[0, 0] = torch.nan  # type: ignore[index, operator]
    return module


def broken_classifier() -> nn.Module:
    """A classifier of ours with a weight that is NaN."""
    model = tiny.classifier()
    with torch.no_grad():
        model.layers[0].left.weight[1, 1] = torch.nan  # type: ignore[index, union-attr]
    return model


MODULE = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
ONE = bl.MLPWeights(randn(3, 5), randn(5, 4), "relu")
BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "a path": ("a/folder", {}, UsageError, r"use bl.quadratic_fit\(bl.load\('a/folder'\)\)"),
    "a Path": (Path("a"), {}, UsageError, "bl.load"),
    "a tensor": (randn(3, 4), {}, UsageError, "got a Tensor"),
    "no layers": ([], {}, UsageError, "at least one"),
    "layers that do not fit": ([ONE, ONE], {}, ShapeError, "layer 0 has 3 outputs and layer 1"),
    "NaN": (broken(), {}, NonFiniteError, r"2.weight holds 1"),
    "NaN in ours": (broken_classifier(), {}, NonFiniteError, r"layers.0.left.weight holds 1"),
    "mean": (MODULE, {"mean": randn(3)}, ShapeError, r"mean has shape \(3,\)"),
    "covariance": (MODULE, {"covariance": randn(4, 4)}, UsageError, "not symmetric"),
    "no covariance": (MODULE, {"covariance": -torch.eye(4)}, UsageError, "eigenvalue -1"),
    "data": (MODULE, {"data": randn(9, 3)}, ShapeError, "the model reads 4 inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    subject, options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.quadratic_fit(subject, **options)
