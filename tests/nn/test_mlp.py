"""The product layer and the MLP block: forward = formula, and the map = the module, exactly."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import oracles
from bilens.base.errors import NotQuadraticError, ShapeError, UsageError
from bilens.nn import BilinearLayer, BilinearMLP
from builders import randn

GATES = {"relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu}
CLASSES = {
    "layer": lambda bias, gate: BilinearLayer(5, 4, bias=bias, gate=gate),
    "MLP": lambda bias, gate: BilinearMLP(5, 4, 3, bias=bias, gate=gate),
}
X = randn(2, 7, 5, seed=4)


def make(kind: str, bias: bool = False, gate: str | None = None, seed: int = 0) -> BilinearLayer:
    """A module in float64 whose biases are far from zero."""
    torch.manual_seed(seed)
    module = CLASSES[kind](bias, gate).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def by_hand(module: BilinearLayer, x: Tensor, gate: str | None = None) -> Tensor:
    """down[gate(left x + b) ∘ (right x + c)] + p, from the formula."""
    product = oracles.layer(
        x, module.left.weight, module.right.weight, module.left.bias, module.right.bias, gate
    )
    if not isinstance(module, BilinearMLP):
        return product
    y = product @ module.down.weight.T
    return y if module.down.bias is None else y + module.down.bias


@pytest.mark.parametrize("gate", [None, *GATES])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_forward_pass_is_the_formula(kind: str, bias: bool, gate: str | None) -> None:
    module = make(kind, bias, gate)
    torch.testing.assert_close(module(X), by_hand(module, X, gate))


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_is_the_one_of_torch_on_the_left_branch(gate: str) -> None:
    """ReGLU, GEGLU (erf form) and SwiGLU of arXiv:2002.05202."""
    module = make("MLP", gate=gate)
    gated = GATES[gate](functional.linear(X, module.left.weight))
    expected = (gated * functional.linear(X, module.right.weight)) @ module.down.weight.T
    torch.testing.assert_close(module(X), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_map_is_the_module(kind: str, bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    """1000 inputs; the error is relative to the largest output."""
    module = make(kind, bias).to(dtype).requires_grad_(False)
    x = randn(1000, 5, seed=5).to(dtype)
    y = module(x)
    error = (module.quadratic_map()(x) - y).abs().max() / y.abs().max()
    assert float(error) <= tolerance


@pytest.mark.parametrize("kind", CLASSES)
def test_the_map_is_the_dense_tensor_of_the_weights(kind: str) -> None:
    module = make(kind, bias=True)
    down = module.down.weight if isinstance(module, BilinearMLP) else torch.eye(4).double()
    dense = oracles.dense_tensor(down, module.left.weight, module.right.weight)
    torch.testing.assert_close(module.quadratic_map().tensor.dense(), dense)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_flow_through_the_map_to_every_parameter(kind: str, bias: bool) -> None:
    module = make(kind, bias)
    ours = torch.autograd.grad(module.quadratic_map()(X).sin().sum(), [*module.parameters()])
    theirs = torch.autograd.grad(module(X).sin().sum(), [*module.parameters()])
    for mine, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, true)


@pytest.mark.parametrize("kind", CLASSES)
def test_reading_the_map_leaves_the_module_as_it_was(kind: str) -> None:
    module = make(kind, bias=True)
    before = copy.deepcopy(module.state_dict())
    module.quadratic_map().detach().form(torch.ones(3 if kind == "MLP" else 4)).dense().zero_()
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_the_map_shares_the_weights() -> None:
    module = make("MLP")
    assert module.quadratic_map().tensor.left.data_ptr() == module.left.weight.data_ptr()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_gated_module_has_no_exact_map_and_says_why(kind: str, gate: str) -> None:
    with pytest.raises(NotQuadraticError) as caught:
        make(kind, gate=gate).quadratic_map()
    assert f"has the gate {gate!r}" in str(caught.value)
    assert "build or train it with gate=None" in str(caught.value)


def test_weights_of_nan_are_refused_when_they_are_read() -> None:
    module = make("MLP")
    with torch.no_grad():
        module.right.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="right holds 1 non-finite"):
        module.quadratic_map()


def test_an_input_without_a_batch_and_one_with_two_batch_axes_work() -> None:
    module = make("MLP")
    assert module(X[0, 0]).shape == (3,)
    assert module(X).shape == module.quadratic_map()(X).shape == (2, 7, 3)


def test_the_output_of_a_block_is_as_wide_as_its_input_where_nothing_is_said() -> None:
    assert BilinearMLP(6, 9)(torch.ones(6)).shape == (6,)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3", None])
def test_a_width_must_be_a_positive_integer(size: object) -> None:
    for build, name in (
        (lambda: BilinearLayer(size, 4), "d_input"),
        (lambda: BilinearLayer(4, size), "d_output"),
        (lambda: BilinearMLP(size, 4), "d_input"),
    ):
        with pytest.raises(UsageError, match=f"{name} must be an integer of at least 1"):
            build()
    if size is not None:  # None is d_model
        with pytest.raises(UsageError, match="d_output must be an integer of at least 1"):
            BilinearMLP(4, 4, size)


@pytest.mark.parametrize("gate", ["tanh", "ReLU", "", 0, True, ["relu"]])
def test_a_gate_that_does_not_exist_is_refused_with_the_ones_that_do(gate: object) -> None:
    with pytest.raises(UsageError, match=r"is not known: use None \(bilinear\), relu, gelu, silu"):
        BilinearLayer(3, 4, gate=gate)


def test_a_map_of_another_dtype_than_its_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"dtype torch.float32; torch.float64 was expected"):
        make("MLP").quadratic_map()(X.float())


def test_saved_names_are_a_promise() -> None:
    """A file written today loads in every later release."""
    weights = ["left.weight", "right.weight"]
    both = ["left.bias", "left.weight", "right.bias", "right.weight"]
    assert sorted(BilinearLayer(3, 4).state_dict()) == weights
    assert sorted(BilinearLayer(3, 4, bias=True).state_dict()) == both
    assert sorted(BilinearMLP(3, 4).state_dict()) == ["down.weight", *weights]
    assert sorted(BilinearMLP(3, 4, bias=True).state_dict()) == ["down.bias", "down.weight", *both]
