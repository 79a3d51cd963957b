"""Embedding, layers, head: the logits, their maps in both bases, and what is not quadratic."""

import copy
import re

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NotQuadraticError, ShapeError, UsageError
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import classifier_of_map, in_standard_units
from builders import randn

X = randn(3, 2, 6, seed=6)
KINDS = [(bias, residual) for bias in (False, True) for residual in (False, True)]


def make(
    n_layers: int = 1, bias: bool = False, residual: bool = False, gate: str | None = None
) -> BilinearClassifier:
    """A model 6 → 4 → 3 in float64 whose biases are far from zero."""
    torch.manual_seed(0)
    model = BilinearClassifier(6, 4, 3, n_layers, bias, residual, gate).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def by_hand(model: BilinearClassifier, x: Tensor, gate: str | None = None) -> Tensor:
    """head h with h = embed x and h ← gate(L h + b) ∘ (R h + c) (+ h) for each layer."""
    h = x @ model.embed.weight.T
    for layer in model.layers:
        product = oracles.layer(
            h, layer.left.weight, layer.right.weight, layer.left.bias, layer.right.bias, gate
        )
        h = product + h if model.residual else product
    return h @ model.head.weight.T


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("gate", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize(("bias", "residual"), KINDS)
def test_logits_are_the_formula(
    n_layers: int, gate: str | None, bias: bool, residual: bool
) -> None:
    model = make(n_layers, bias, residual, gate)
    torch.testing.assert_close(model(X), by_hand(model, X, gate))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("bias", "residual"), KINDS)
def test_a_model_of_one_layer_is_its_map_in_both_bases(
    bias: bool, residual: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """1000 inputs; the error is relative to the largest logit."""
    model = make(1, bias, residual).to(dtype).requires_grad_(False)
    x = randn(1000, 6, seed=7).to(dtype)
    logits = model(x)
    for read in (model.quadratic_map()(x), model.quadratic_map("embedding")(model.embed(x))):
        assert float((read - logits).abs().max() / logits.abs().max()) <= tolerance


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize(("bias", "residual"), KINDS)
def test_the_maps_of_the_layers_compose_to_the_model(
    n_layers: int, bias: bool, residual: bool
) -> None:
    model = make(n_layers, bias, residual)
    h = X
    for index in range(n_layers):
        h = model.layer_map(index)(h)
    torch.testing.assert_close(h, model(X))


def test_the_first_layer_of_a_deep_model_can_be_read_from_the_embedding() -> None:
    model = make(2, bias=True, residual=True)
    torch.testing.assert_close(
        model.layer_map(0, "embedding")(model.embed(X)), model.layer_map(0)(X)
    )
    torch.testing.assert_close(
        model.layer_map(1, "embedding").tensor.dense(), model.layer_map(1).tensor.dense()
    )


@pytest.mark.parametrize(("bias", "residual"), KINDS)
def test_gradients_flow_through_the_map_to_every_parameter(bias: bool, residual: bool) -> None:
    model = make(1, bias, residual)
    ours = torch.autograd.grad(model.quadratic_map()(X).sin().sum(), [*model.parameters()])
    theirs = torch.autograd.grad(model(X).sin().sum(), [*model.parameters()])
    for mine, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, true)


def test_reading_maps_leaves_the_model_as_it_was() -> None:
    model = make(1, bias=True, residual=True)
    before = copy.deepcopy(model.state_dict())
    eigendecompose_all(model.quadratic_map(), k=None)
    model.quadratic_map("embedding").detach()
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("n_layers", "degree"), [(2, 4), (3, 8)])
def test_a_deeper_model_is_no_quadratic_map_and_says_what_to_read(
    n_layers: int, degree: int
) -> None:
    with pytest.raises(NotQuadraticError) as caught:
        make(n_layers).quadratic_map()
    assert str(caught.value) == (
        f"the model has {n_layers} layers, so its logits are a polynomial of degree {degree}: "
        "read one layer with layer_map(index)."
    )


def test_a_gated_model_is_no_quadratic_map_and_says_why() -> None:
    with pytest.raises(NotQuadraticError, match="has the gate 'silu', so its output is not"):
        make(gate="silu").quadratic_map()
    with pytest.raises(NotQuadraticError, match="build or train it with gate=None"):
        make(2, gate="relu").layer_map(1)


@pytest.mark.parametrize("index", [-1, 2, 7, "0", 0.0, True, None, slice(1)])
def test_a_layer_that_does_not_exist_is_refused(index: object) -> None:
    message = f"layer {index!r} does not exist: there are 2, counted from 0."
    with pytest.raises(UsageError, match=re.escape(message)):
        make(2).layer_map(index)


@pytest.mark.parametrize("basis", ["pixels", "", None])
def test_a_basis_that_does_not_exist_is_refused(basis: object) -> None:
    with pytest.raises(UsageError, match='is not known: use "input" or "embedding"'):
        make().quadratic_map(basis)


@pytest.mark.parametrize("name", ["d_input", "d_hidden", "d_output", "n_layers"])
@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_a_size_must_be_a_positive_integer(name: str, size: object) -> None:
    sizes = {"d_input": 6, "d_hidden": 4, "d_output": 3, "n_layers": 1} | {name: size}
    with pytest.raises(UsageError, match=f"{name} must be an integer of at least 1"):
        BilinearClassifier(**sizes)


def some_map(same: bool, affine: bool) -> QuadraticMap:
    generator = torch.Generator().manual_seed(0)

    def factor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    left = factor(4, 3)
    tensor = BilinearTensor(factor(2, 4), left, left.clone() if same else factor(4, 3))
    return QuadraticMap(tensor, factor(2, 3), factor(2)) if affine else QuadraticMap(tensor)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_the_module_is_the_map_of_standardised_inputs(same: bool, affine: bool) -> None:
    f = some_map(same, affine)
    mean, scale = torch.tensor([[2000.0, 0.0, -3.0], [5.0, 1.0, 0.1]]).double()
    x = mean + scale * torch.randn(7, 3, dtype=torch.float64)
    expected = f((x - mean) / scale)
    torch.testing.assert_close(classifier_of_map(f, mean, scale)(x), expected)
    torch.testing.assert_close(classifier_of_map(f)(x), f(x))
    torch.testing.assert_close(classifier_of_map(f, mean, scale).quadratic_map()(x), expected)


def test_a_mean_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"mean has shape \(2,\); expected \(3,\)"):
        classifier_of_map(some_map(True, True), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["exact", "bias", "plain", "residual"])
def test_a_classifier_in_standard_units_is_the_same_function(kind: str) -> None:
    torch.manual_seed(0)
    mean, scale = torch.tensor([[2000.0, 0.0, -3.0], [5.0, 1.0, 0.1]]).double()
    module = (
        classifier_of_map(some_map(True, True), mean, scale)
        if kind == "exact"
        else BilinearClassifier(3, 4, 2, bias=kind != "plain", residual=kind == "residual")
    )
    before = module.double().embed.weight.clone()
    z = torch.randn(7, 3, dtype=torch.float64)
    same = in_standard_units(module, mean, scale)
    torch.testing.assert_close(same(z), module(mean + scale * z), rtol=1e-9, atol=1e-9)
    assert torch.equal(module.embed.weight, before)


def test_the_map_of_a_layer_may_be_widened_first() -> None:
    model = make(2, bias=True).float()
    exact = copy.deepcopy(model).double()
    for index in (0, 1):
        found, expected = model.layer_map(index, dtype=torch.float64), exact.layer_map(index)
        assert torch.equal(found.tensor.left, expected.tensor.left)
        assert torch.equal(found.tensor.down, expected.tensor.down)
    assert model.embed.weight.dtype is torch.float32
