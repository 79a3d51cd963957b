"""The layers read from a module are the module, for every kind that can be read."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from bilens.api.quadratic_fit import layers_and_run
from bilens.base.errors import UsageError
from bilens.nn import MLP, BilinearClassifier, BilinearLayer, BilinearMLP, module_layers
from bilens.nn.module_layers import layer_views
from builders import randn

D_IN = 5
MODULES: dict[str, Any] = {
    "layer": lambda: BilinearLayer(D_IN, 4, bias=True, gate="silu"),
    "gated MLP": lambda: BilinearMLP(D_IN, 4, 3, bias=True, gate="gelu"),
    "bilinear MLP": lambda: BilinearMLP(D_IN, 4, 3),
    "ordinary MLP": lambda: MLP(D_IN, 7, bias=True),
    "classifier": lambda: BilinearClassifier(D_IN, 4, 3, gate="relu"),
    "residual": lambda: BilinearClassifier(D_IN, 4, 3, bias=True, residual=True),
    "deep": lambda: BilinearClassifier(D_IN, 4, 3, n_layers=3, bias=True, residual=True),
    "relu": lambda: nn.Sequential(nn.Linear(D_IN, 4), nn.ReLU(), nn.Linear(4, 3)),
    "leaky": lambda: nn.Sequential(nn.Linear(D_IN, 4, bias=False), nn.LeakyReLU(0.3)),
    "tanh form": lambda: nn.Sequential(nn.Linear(D_IN, 4), nn.GELU("tanh"), nn.Linear(4, 3)),
    "two Linear": lambda: nn.Sequential(
        nn.Linear(D_IN, 6), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 3, bias=False)
    ),
    "three layers": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(D_IN, 6), nn.GELU(), nn.Dropout(0.5)),
        nn.Linear(6, 4),
        nn.Sigmoid(),
        nn.Linear(4, 3),
        nn.SiLU(),
        nn.Linear(3, 2),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_layers_are_the_module(name: str) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    x = randn(20, D_IN)
    y = x
    for layer in layers_and_run(module)[0]:
        y = layer(y)
    with torch.no_grad():
        torch.testing.assert_close(y, module.double()(x))


def test_the_module_is_not_changed() -> None:
    module = MODULES["relu"]()
    layers_and_run(module)
    assert module[0].weight.dtype == torch.float32
    assert module[0].weight.requires_grad


BAD: dict[str, tuple[nn.Module, str]] = {
    "a convolution": (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "is not its layers one behind"),
    "a normalisation": (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), "Not read: 0 .Linear"),
    "no activation": (nn.Sequential(nn.Linear(3, 3)), "no MLP is found in the Sequential"),
    "activation first": (nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), "Not read: 1 .Linear"),
    "two activations": (
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Tanh()),
        r"Not read: 2 .Tanh. behind 0",
    ),
    "one unknown": (
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Softplus(), nn.Linear(3, 2)),
        "its layers one behind the other.* of 0.* Not read: 3 .Softplus. behind 2; 4 .Linear",
    ),
    "a single Linear": (nn.Linear(3, 3), "no MLP is found in the Linear"),
    "an LSTM": (nn.LSTM(3, 3), "no MLP is found in the LSTM"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mlp_is_refused(name: str) -> None:
    module, words = BAD[name]
    with pytest.raises(UsageError, match=words):
        layers_and_run(module)


def test_a_layer_of_a_deep_classifier_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BilinearClassifier(D_IN, 4, 3, n_layers=30, bias=True)
    widened: list[torch.Tensor] = []
    wide = module_layers.wide
    monkeypatch.setattr(
        module_layers, "wide", lambda tensor: widened.append(tensor) or wide(tensor)
    )
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("copied"))
    for view in layer_views(model).values():
        widened.clear()
        view.read()
        assert len(widened) <= 5


def test_layers_of_ours_say_what_they_are() -> None:
    model = BilinearClassifier(D_IN, 4, 3, n_layers=2)
    first, last = layer_views(model).values()
    assert (first.name, first.reads, first.gives, first.classes) == (
        "layers.0",
        "inputs",
        "neurons",
        False,
    )
    assert (last.name, last.reads, last.classes, last.embedding) == (
        "layers.1",
        "neurons",
        True,
        None,
    )
    assert first.embedding is not None
    assert torch.equal(first.embedding(), model.embed.weight.double())
