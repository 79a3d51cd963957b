"""Modules of other people become models whose layers are theirs, and say how exactly.

Whole models of transformers are read by name of the library alone: nothing is downloaded."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import UsageError
from builders import randn


class Scattered(nn.Module):
    """What cannot be traced: the branch taken depends on a value."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)
        self.up = nn.Linear(4, 6) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return x
        hidden = torch.nn.functional.gelu(self.fc1(x))
        y: Tensor = self.fc2(hidden if self.up is None else hidden * self.up(x))
        return y


@pytest.mark.parametrize("gated", [False, True])
def test_what_cannot_be_traced_is_watched(gated: bool) -> None:
    module = nn.Sequential(nn.LayerNorm(4), Scattered(gated)).bfloat16()
    with pytest.raises(UsageError, match=r"no MLP is found in the Sequential.*pass example="):
        bl.from_module(module)
    model = bl.from_module(module, randn(3, 5, 4))
    (name,) = model.layers
    view = model.layers[name]
    assert (name, view.gated, view.activation.name) == ("1", gated, "gelu")
    assert view.dtype == torch.bfloat16
    assert view.reads == "activations"
    x = randn(7, 4)
    with torch.no_grad():
        expected = module[1].double()(x)
    torch.testing.assert_close(view.weights(torch.float64)(x), expected)
    assert model.load_report is not None
    assert model.load_report.max_error < 1e-12
    assert model.load_report.left_out == ("0 (LayerNorm)",)


@pytest.mark.parametrize("example", [torch.zeros(2, 5), (1, 2), {"y": torch.zeros(2, 4)}])
def test_an_example_that_does_not_run_is_refused(example: Any) -> None:
    with pytest.raises(UsageError, match="does not run through the Scattered"):
        bl.from_module(Scattered(False), example)


def test_the_error_of_a_module_is_told_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Scattered, x: Tensor) -> Tensor:
        raise RuntimeError(f"{x.ndim} axes:\n  no")

    monkeypatch.setattr(Scattered, "forward", fail)
    with pytest.raises(UsageError, match=r"\(RuntimeError: 2 axes: no\)"):
        bl.from_module(Scattered(False), randn(2, 4))


class Noisy(nn.Module):
    """Adds noise whether it is trained or not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(torch.relu(self.fc1(x) + torch.randn(6)))
        return y


def test_noise_is_not_taken_for_a_bias() -> None:
    with pytest.raises(UsageError, match="no MLP is found in the Noisy"):
        bl.from_module(Noisy())
    with pytest.raises(UsageError, match="no MLP is found in the Noisy"):
        bl.from_module(Noisy(), randn(3, 4))


def language_model(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8}
    common = {**sizes, "intermediate_size": 12, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "llama":
        config = transformers.LlamaConfig(**common, num_key_value_heads=2)
        model = transformers.LlamaForCausalLM(config)
    elif kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2)
        model = transformers.GPT2LMHeadModel(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**common))
    assert isinstance(model, nn.Module)
    return model


NAMES = {
    "llama": ("model.layers.{}.mlp", "silu"),
    "gpt2": ("transformer.h.{}.mlp", "gelu_tanh"),
    "bert": ("encoder.layer.{}", "gelu"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_whole_language_model_is_read(kind: str) -> None:
    module = language_model(kind)
    example = torch.arange(6)[None] if kind == "bert" else None
    model = bl.from_module(module, example)
    name, activation = NAMES[kind]
    for index in range(2):
        assert model.layers[name.format(index)].activation.name == activation
    assert not model.network
    with pytest.raises(UsageError, match=r"not its layers one behind the other.*--layer"):
        bl.quadratic_fit(model)
    fit = bl.quadratic_fit(model.layers[name.format(1)], samples=200)
    assert fit.r_squared.quadratic.overall > fit.r_squared.linear.overall


def test_a_network_is_fitted_end_to_end() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.Softmax(-1)
    )
    model = bl.from_module(module)
    assert [view.gives for view in model.network] == ["neurons", "logits"]
    assert model.load_report is not None
    assert model.load_report.head == "Softmax"
    x = randn(500, 4)
    fit = bl.quadratic_fit(model, samples=200, data=x)
    with torch.no_grad():
        logits = module[:-1].double()(x)
    rest = (logits - fit.quadratic_map(x)).square().sum()
    spread = (logits - logits.mean(dim=0)).square().sum()
    assert fit.on_data is not None
    assert fit.on_data.quadratic.overall == pytest.approx(1 - float(rest / spread))
    other = bl.from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
    assert other.weights_sha256 != model.weights_sha256
    assert other.load_report is not None
    assert "Largest difference from the module's own operations" in "\n".join(
        other.load_report.lines()
    )


def test_what_needs_a_module_of_ours_is_refused() -> None:
    model = bl.from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
    with pytest.raises(UsageError, match="the layers alone are read"):
        model.whole("a trace")
