"""Guards against models that are called the same because their tensors are, and compute otherwise.

Each was seen to pass a condition on changed tensors: what no file holds, or no tensor, differed.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import bilens as bl
from bilens.report.sections.difference import headline_sentence
from bilens.report.text import load_catalogue


class Net(nn.Module):
    """An MLP behind a table that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.register_buffer("table", torch.randn(5, 4), persistent=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.table
        return self.head(x + self.mlp(self.norm(x)))


class NoLayers(nn.Module):
    """An LSTM, of which no layer is read, and a scale that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.gain = nn.LSTM(4, 3), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * self.gain


class Unnamed(nn.Module):
    """Reads images, and has a part in a list, which no module names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.parts = nn.Conv2d(1, 2, 3), [nn.Linear(4, 4)]
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.parts[0](self.conv(x).flatten(1)[:, :4]))


def pipeline() -> Any:
    x = np.random.default_rng(0).normal(size=(200, 4)) * [1, 5, 0.2, 3] + 3
    mlp = MLPClassifier((8,), max_iter=3, random_state=0)
    return make_pipeline(StandardScaler(), mlp).fit(x, x[:, 0] * x[:, 1] > 9)


def other_unit(model: Any) -> None:
    model[0].scale_ *= 5


def other_activation(model: Any) -> None:
    model[1].activation = "tanh"


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "activation": (Net, lambda net: net.mlp.__setitem__(1, nn.GELU())),
    "function behind": (Net, lambda net: net.mlp.append(nn.Softplus())),
    "setting": (Net, lambda net: setattr(net.norm, "eps", 0.5)),
    "table that no file holds": (Net, lambda net: net.table.mul_(50)),
    "hook": (Net, lambda net: net.mlp.register_forward_hook(lambda *given: given[2] * 0)),
    "no layer is read": (NoLayers, lambda net: setattr(net, "gain", -9.0)),
    "part in a list": (Unnamed, lambda net: net.parts[0].weight.data.mul_(-5)),
    "scale of inputs": (pipeline, other_unit),
    "activation of an estimator": (pipeline, other_activation),
}


def failed(record: Any) -> list[str]:
    return [one.condition for one in record.conditions if one.failed]


def audited(model: Any, baseline: Any) -> Any:
    report = bl.audit(model, baseline=baseline, fail_on=["changed_tensors"], null_samples=3)
    return report.record


@pytest.mark.parametrize("name", CHANGES)
def test_equal_tensors_of_which_something_else_is_made_are_no_copy(name: str) -> None:
    make, change = CHANGES[name]
    baseline = make()
    model = copy.deepcopy(baseline)
    copied = audited(copy.deepcopy(baseline), baseline)
    assert failed(copied) == []
    change(model)
    found = audited(model, baseline)
    assert found.difference.whole.changed == ()
    assert failed(found) == ["changed_tensors"]
    said = headline_sentence(load_catalogue("en"), found.difference.whole)
    assert "Settings differ" in said or "was not compared" in said


def test_a_configuration_that_differs_is_another_program(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    for eps in (1e-6, 1e-2):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**sizes, rms_norm_eps=eps)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / str(eps))
    found = audited(bl.load(tmp_path / "0.01"), bl.load(tmp_path / "1e-06"))
    assert failed(found) == ["changed_tensors"]
    said = headline_sentence(load_catalogue("en"), found.difference.whole)
    assert "Settings differ: config.json: rms_norm_eps" in said


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_buffer_with_nan_that_no_file_holds_is_not_finite(value: float) -> None:
    model = Net()
    model.table[0, 0] = value
    found = bl.audit(model, fail_on=["non_finite"], null_samples=3).record
    is_nan = value != value  # infinity stands in masks
    assert failed(found) == (["non_finite"] if is_nan else [])
