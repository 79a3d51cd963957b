"""Layers are found wherever a module computes them, and are what the module computes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import NonFiniteError, UsageError
from bilens.nn.mlp_search.find_mlps import find_mlps
from builders import randn

Function = Callable[[Tensor], Tensor]
D_IN, HIDDEN = 5, 7


class Ordinary(nn.Module):
    """fc1, a function, fc2; with a residual path if wanted."""

    def __init__(self, function: Function, residual: bool = False) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(D_IN, HIDDEN), nn.Linear(HIDDEN, D_IN)
        self.function, self.residual = function, residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.function(self.fc1(x)))
        return x + y if self.residual else y


class Gated(nn.Module):
    """down(function(gate) ∘ up)."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(D_IN, HIDDEN), nn.Linear(D_IN, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, D_IN)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.function(self.gate(x)) * self.up(x))
        return y


class Fused(nn.Module):
    """One matrix for both branches, which are cut apart."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(D_IN, 2 * HIDDEN), nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(x).chunk(2, dim=-1)
        y: Tensor = self.down(up * functional.silu(gate))
        return y


class Loose(nn.Module):
    """Parameters that are used without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = (
            nn.Parameter(torch.randn(D_IN, HIDDEN)),
            nn.Parameter(torch.randn(HIDDEN)),
        )
        self.w2, self.scale = nn.Parameter(torch.randn(3, HIDDEN)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ self.w1 - self.b1)
        return 0.5 * functional.linear(hidden, self.w2) * self.scale + 1


class Stack(nn.Module):
    """Blocks one behind the other, and a head."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(D_IN, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return torch.log_softmax(self.head(x), dim=-1)


FUNCTIONS: dict[str, tuple[Function, str]] = {
    "F.relu": (functional.relu, "relu"),
    "method": (lambda t: t.relu(), "relu"),
    "clamp": (lambda t: t.clamp(min=0), "relu"),
    "in place": (lambda t: t.relu_(), "relu"),
    "F.gelu": (functional.gelu, "gelu"),
    "F.gelu tanh": (lambda t: functional.gelu(t, approximate="tanh"), "gelu_tanh"),
    "written out": (
        lambda t: 0.5 * t * (1 + torch.tanh(0.7978845608 * (t + 0.044715 * t**3))),
        "gelu_tanh",
    ),
    "multiplied out": (
        lambda t: 0.5 * t * (1 + torch.tanh(0.7978845608 * (t + 0.044715 * (t * (t * t))))),
        "gelu_tanh",
    ),
    "F.silu": (functional.silu, "silu"),
    "swish": (lambda t: t * torch.sigmoid(t), "silu"),
    "leaky": (lambda t: functional.leaky_relu(t, 0.2), "leaky_relu"),
    "squared": (lambda t: functional.relu(t) ** 2, "squared_relu"),
    "product": (lambda t: functional.relu(t) * functional.relu(t), "squared_relu"),
    "tanh": (torch.tanh, "tanh"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "exponentials": (lambda t: (t.exp() - (-t).exp()) / (t.exp() + (-t).exp()), "tanh"),
    "a module": (nn.GELU("tanh"), "gelu_tanh"),
    "PReLU": (nn.PReLU(), "leaky_relu"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_is_known_however_it_is_written(name: str) -> None:
    function, activation = FUNCTIONS[name]
    for module in (Ordinary(function), Ordinary(function, residual=True), Gated(function)):
        found = find_mlps(module)
        assert found.network
        (layer,) = found.layers.values()
        assert layer.activation.name == activation
        assert_same(module, [layer.read()])


def assert_same(module: nn.Module, layers: list[Any]) -> None:
    """The layers one behind the other are the module."""
    x = randn(20, D_IN)
    y = x
    for layer in layers:
        y = layer.__class__(**{**vars(layer), **widened(layer)})(y)
    with torch.no_grad():
        torch.testing.assert_close(y, copy.deepcopy(module).eval().double()(x))


def widened(layer: Any) -> dict[str, Tensor]:
    return {name: part.double() for name, part in vars(layer).items() if isinstance(part, Tensor)}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "fused": (Fused, 1),
    "loose": (Loose, 1),
    "bilinear": (lambda: Gated(lambda t: t), 1),
    "square": (lambda: Ordinary(torch.square), 1),
    "GLU": (lambda: nn.Sequential(nn.Linear(D_IN, 8), nn.GLU(), nn.Linear(4, 2)), 1),
    "normalised": (
        lambda: nn.Sequential(nn.Linear(D_IN, 4), trained_norm(), nn.ReLU(), nn.Linear(4, 2)),
        1,
    ),
    "quick GELU": (lambda: Ordinary(lambda t: t * torch.sigmoid(1.702 * t)), 1),
    "numbers": (lambda: Ordinary(lambda t: torch.relu(t) / 2 - 0.3, residual=True), 1),
    "numbers, deep": (
        lambda: nn.Sequential(Ordinary(lambda t: torch.tanh(t) * 3), Ordinary(torch.relu)),
        2,
    ),
    "four residual": (
        lambda: Stack(
            Ordinary(torch.tanh),
            Gated(functional.relu),
            Gated(functional.silu),
            Ordinary(lambda t: torch.relu(t) * 2),
        ),
        4,
    ),
    "two residual": (lambda: Stack(Ordinary(torch.tanh), Gated(functional.relu)), 2),
}


def trained_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(4)
    norm(torch.randn(50, 4) * 3 + 1)
    return norm


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_layers(name: str) -> None:
    torch.manual_seed(0)
    build, count = NETWORKS[name]
    module = build().eval()
    found = find_mlps(module)
    assert found.network
    assert len(found.layers) == count
    assert max(check.max_error for check in found.checks.values()) < 1e-12
    if isinstance(module, Stack):
        assert (found.head, found.left_out) == ("log_softmax", ())
        module = nn.Sequential(module, Exponential())
    layers = [layer.read() for layer in found.layers.values()]
    if found.head is None:
        assert_same(module, layers)


class Exponential(nn.Module):
    """exp."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_the_layers_of_torchs_transformer_are_found_in_it() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=functional.gelu)
    found = find_mlps(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    assert [*found.layers] == ["layers.0", "layers.1"]
    assert not found.network
    assert "layers.1.norm2 (LayerNorm)" in found.left_out
    assert not find_mlps(layer).network


def test_a_softmax_over_rows_is_none_of_classes() -> None:
    for axis, head in ((0, None), (1, "Softmax"), (-1, "Softmax")):
        found = find_mlps(nn.Sequential(Ordinary(nn.ReLU()), nn.Softmax(axis)))
        assert (found.head, found.network) == (head, head is not None)


def test_the_slope_of_an_activation_is_read() -> None:
    used, alone = Ordinary(nn.PReLU()), nn.Sequential(nn.Linear(5, 5), nn.PReLU(5), nn.ReLU())
    found = find_mlps(nn.Sequential(used, alone))
    (view,) = found.layers.values()
    assert view.tensors["0.function.weight"] == 1
    assert "1.1 (PReLU)" in found.left_out


def test_neither_the_module_nor_its_mode_is_changed() -> None:
    module = nn.Sequential(Ordinary(nn.PReLU()), nn.Dropout(0.5)).train()
    seen: list[object] = []
    for part in module.modules():
        part.register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(module.state_dict())
    find_mlps(module)
    assert module.training
    assert not seen
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])


def test_a_layer_reads_the_weights_when_it_is_asked() -> None:
    module = Ordinary(torch.relu)
    (layer,) = find_mlps(module).layers.values()
    with torch.no_grad():
        module.fc1.weight.zero_()
    assert float(layer.read().up.abs().max()) == 0  # type: ignore[union-attr]
    assert layer.dtype == torch.float32


class Lying(Ordinary):
    """Computes something else on what it is not asked about by its structure."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(
            torch.relu(self.fc1(x.view(len(self.fc1.weight.T), -1).T.reshape(-1, 5)))
        )
        return y


def test_what_is_read_wrongly_is_left_out_and_said() -> None:
    with pytest.raises(UsageError, match="no MLP is found in the Lying"):
        find_mlps(Lying(torch.relu))


def test_a_weight_that_is_nan_is_named() -> None:
    module = Ordinary(torch.relu)
    with torch.no_grad():
        module.fc2.weight[1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"fc2.weight holds 1"):
        find_mlps(module)


def test_a_normalisation_is_no_activation() -> None:
    def unit(t: Tensor) -> Tensor:
        return functional.normalize(torch.relu(t), dim=-1)

    with pytest.raises(UsageError, match=r"Not read: .*normalize behind fc1"):
        find_mlps(Ordinary(unit))


class Stacked(Fused):
    """Halves of an output that go on together, so that none of them is a value of its own."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.both(torch.tanh(self.first(x)))
        return torch.stack(y.chunk(2, dim=-1)).sum(dim=0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(D_IN, D_IN)


def test_parts_that_are_no_value_of_their_own_end_no_layer() -> None:
    found = find_mlps(Stacked())
    assert [*found.layers] == ["first"]
    assert found.left_out == ("both (Linear)", "down (Linear)")


class TwoInputs(Gated):
    """A gate that reads something else than the branch it is multiplied with."""

    def forward(self, x: Tensor) -> Tensor:
        other = x.softmax(dim=-1) * 3
        y: Tensor = self.down(self.function(self.gate(x)) * self.up(other.sin()))
        return y


def test_branches_of_different_inputs_are_not_multiplied() -> None:
    found = find_mlps(TwoInputs(torch.relu))
    assert [*found.layers] == ["gate"]
    assert not found.layers["gate"].gated
    assert not found.network
    assert found.left_out == ("up (Linear)", "down (Linear)")


def test_a_function_that_only_looks_like_an_activation_is_found_out() -> None:
    """It is a ReLU at the points where it is asked, and not at some between them."""

    def spiked(t: Tensor) -> Tensor:
        return torch.relu(t) + torch.exp(-(((t - 0.55) * 500) ** 2))

    with pytest.raises(UsageError, match=r"fc1: what was read differs by \d.*from the module"):
        find_mlps(Ordinary(spiked))


@pytest.mark.parametrize("limits", [(-50, 50), (-1e5, 1e5), (0, 1e5)])
def test_a_clamp_is_no_identity_and_no_relu(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"no MLP is found.*clamp behind gate"):
        find_mlps(Gated(lambda t: t.clamp(*limits)))


def test_weights_that_are_not_there_are_asked_for() -> None:
    with pytest.raises(UsageError, match=r"0.weight has no shape yet: run the module"):
        find_mlps(nn.Sequential(nn.LazyLinear(3), nn.ReLU()))
    with pytest.raises(UsageError, match=r"fc1.weight is on the meta device"):
        find_mlps(Ordinary(torch.relu).to("meta"), torch.zeros(1, 4))


def test_buffers_on_the_meta_device_are_no_obstacle_to_a_plan() -> None:
    layers = [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)]
    assert [*bl.from_module(nn.Sequential(*layers).to("meta")).layers] == ["0"]


def test_a_module_on_the_meta_device_is_read_as_a_plan() -> None:
    model = bl.from_module(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to("meta"))
    (view,) = model.layers.values()
    assert view.sizes == (3, 6, 4)
    assert bl.plan_eigendecomposition(view).method == "dense"
    assert (model.weights_sha256, dict(model.load_report.checks)) == ("", {})
    with pytest.raises(UsageError, match=r"0.weight is on the meta device and holds nothing: load"):
        view.weights()
    with pytest.raises(UsageError, match=r"the tensor is on the meta device and holds nothing"):
        model.tensors["0.weight"].read_tensor()


class Bilinear(nn.Module):
    """A bilinear MLP, its first branch behind an activation that changes nothing."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return y


class Unchanged(nn.Module):
    """What libraries put where no activation is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("activation", [nn.Identity(), Unchanged()], ids=["Identity", "own"])
def test_a_gate_without_an_activation_is_the_exact_case(activation: nn.Module) -> None:
    found = find_mlps(Bilinear(activation))
    (view,) = found.layers.values()
    assert (view.exact, view.gated, view.sizes) == (True, True, (4, 6, 4))


@pytest.mark.parametrize("activation", [nn.Identity(), nn.SiLU()], ids=["bilinear", "SwiGLU"])
def test_blocks_one_behind_the_other_keep_their_own_maps(activation: nn.Module) -> None:
    """Of two matrices between neurons the first belongs to the block before."""
    module = nn.Sequential()
    for name in "ab":
        module.add_module(name, Bilinear(activation))
    found = find_mlps(module)
    assert [*found.layers] == ["a", "b"]
    assert found.made_of["b"].endswith("made of b.gate, b.up, b.down")
    assert found.network
    x = randn(5, 4)
    views = [view.weights(torch.float64) for view in found.layers.values()]
    with torch.no_grad():
        torch.testing.assert_close(views[1](views[0](x)), copy.deepcopy(module).double()(x))


@pytest.mark.parametrize("module", [None, "a", nn.Linear])
def test_what_is_no_module_is_refused(module: Any) -> None:
    with pytest.raises(UsageError, match=r"pass a torch.nn.Module"):
        find_mlps(module)


def test_neurons_behind_a_normalisation_alone_are_a_layer() -> None:
    module = nn.Sequential(trained_norm(), nn.ReLU()).eval()
    (view,) = find_mlps(module).layers.values()
    x = torch.randn(5, 4, dtype=torch.float64)
    assert tuple(view.sizes) == (4, 4, 4)
    torch.testing.assert_close(view.weights(torch.float64)(x), module.double()(x))
