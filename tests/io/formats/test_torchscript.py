"""TorchScript archives: every layer is what TorchScript computes, under its weights' names."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import CheckpointError, UsageError
from builders import randn
from raising import refusal

D, H = 5, 8
load = partial(bl.load, trust_pickle=True)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.both = nn.LayerNorm(D), nn.Linear(D, 2 * H)
        self.drop, self.down = nn.Dropout(0.1), nn.Linear(H, D)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(self.norm(x)).chunk(2, dim=-1)
        y: Tensor = x + self.drop(self.down(functional.gelu(gate) * up))
        return y


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = mlp(nn.ReLU()), mlp(nn.Tanh()), mlp(nn.Sigmoid(), 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) if bool(x.sum() > 0) else self.second(x)
        for _ in range(int(x.sum())):
            y = self.third(y)
        return y


class Halved(nn.Module):
    """A network that rounds to whole numbers on the way."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = mlp(nn.ReLU()), dtype

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x).to(self.dtype).to(torch.float32)
        return y


class InPlace(nn.Module):
    """Half of a value is changed before the other function of it, or all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down, self.width = nn.Linear(D, H), nn.Linear(H, 3), width

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        y[:, : self.width].relu_()
        z: Tensor = self.down(y.tanh())
        return z


def mlp(activation: nn.Module, d_in: int = D) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_in, H), activation, nn.Linear(H, 3))


def image() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1)
    )
    model(3 + randn(9, 3, 8, 8).float())
    return model


MADE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "relu": (lambda: mlp(nn.ReLU()), "relu"),
    "leaky": (lambda: mlp(nn.LeakyReLU(0.2)), "leaky_relu"),
    "gelu tanh": (lambda: mlp(nn.GELU("tanh")), "gelu_tanh"),
    "gated": (Gated, "gelu"),
    "GLU": (lambda: nn.Sequential(nn.Linear(D, 8), nn.GLU(), nn.Linear(4, 2)), "sigmoid"),
    "images": (image, "relu"),
}


@pytest.mark.parametrize("way", ["script", "trace"])
@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore")
def test_what_an_archive_computes_is_read(tmp_path: Path, name: str, way: str) -> None:
    torch.manual_seed(0)
    build, activation = MADE[name]
    module = build().eval()
    x = randn(*((2, 3, 8, 8) if name == "images" else (9, D))).float()
    save(torch.jit.script(module) if way == "script" else torch.jit.trace(module, x), tmp_path)
    path = tmp_path / "m.pt"
    refusal(CheckpointError, "torch then loads its program, which may", bl.load, path)
    model = load(path)
    (view,) = model.layers.values()
    assert view.activation.name == activation
    assert model.load_report is not None
    assert model.load_report.verified
    assert {*model.tensors} == {*module.state_dict()}
    layer = view.weights(torch.float64)
    with torch.no_grad():
        wide = module.double()
        if name == "gated":
            x = wide.norm(x.double())  # type: ignore[operator]
            gate, up = wide.both(x).chunk(2, dim=-1)  # type: ignore[operator]
            expected = wide.down(functional.gelu(gate) * up)  # type: ignore[operator]
        elif name == "images":
            assert view.about_input == "a patch of 3×3×3 at each place, channel by channel"
            expected = wide(x.double()).permute(0, 2, 3, 1).reshape(-1, 5)
            x = functional.unfold(x.double(), 3, padding=1).mT.reshape(-1, 27)
        else:
            expected = wide(x.double())
            assert model.network
    torch.testing.assert_close(layer(x.double()), expected, atol=1e-6, rtol=1e-6)


def save(archive: Any, folder: Path) -> Path:
    torch.jit.save(archive, folder / "m.pt")
    return folder / "m.pt"


def test_a_layer_in_a_branch_says_when_it_is_run(tmp_path: Path) -> None:
    path = save(torch.jit.script(Branches().eval()), tmp_path)
    model = load(path)
    about = {name: view.about_input for name, view in model.layers.items()}
    assert about["first"].endswith("a condition of its program holds")
    assert about["second"].endswith("does not hold")
    assert about["third"].endswith("in each turn of a loop of its program")
    assert not model.network


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_a_cast_to_whole_numbers_is_no_part_of_a_network(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    archive = torch.jit.trace(Halved(dtype).eval(), randn(2, D).float())
    model = load(save(archive, tmp_path))
    assert bool(model.network) is (dtype == torch.float32)


@pytest.mark.parametrize("width", [3, H])
def test_a_value_that_is_changed_in_place_is_not_read_as_it_was(tmp_path: Path, width: int) -> None:
    """Read by its names it would be tanh alone, and each operation by itself is what it says."""
    path = save(torch.jit.script(InPlace(width).eval()), tmp_path)
    refusal(UsageError, "is changed in place.*By its names it looks", load, path)


def test_what_has_no_graph_to_read_is_asked_by_names(tmp_path: Path) -> None:
    archive = torch.jit.script(nn.Sequential(nn.Linear(D, H), nn.Hardswish(), nn.Linear(H, 3)))
    path = save(archive.eval(), tmp_path)
    words = r"no MLP is found in this TorchScript file.*By its names it looks like an MLP"
    refusal(UsageError, words, load, path)
    assert load(path, activation="silu").layers


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = save(torch.jit.script(mlp(nn.ReLU())), tmp_path)
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content[:-9] if name.endswith(".py") else content)
    refusal(UsageError, "is no readable TorchScript file.*By its names", load, path)
