"""Several layers against samples and exact compositions; the closed form of one by quadrature."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from bilens.algebra.approximation.activation import ActivationName
from bilens.algebra.approximation.closed_form import (
    approximate_composition,
    approximate_layer,
    approximate_network,
    derivation,
    layer_curvature,
    neuron_quadratics,
    output_moments,
)
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError
from builders import randn, random_map, seeded

WIDTHS = (6, 20, 20, 3)


def network(name: ActivationName, depth: int, gated: bool = False) -> list[Layer]:
    """Layers with the usual scale of weights."""
    layers: list[Layer] = []
    for index in range(depth):
        d_in, hidden = WIDTHS[index], WIDTHS[index + 1]
        last = index == depth - 1
        down = (
            randn(WIDTHS[-1], hidden, seed=7) / hidden**0.5 if last else torch.eye(hidden).double()
        )
        first, second = (randn(hidden, d_in, seed=20 * s + index) / d_in**0.5 for s in (1, 2))
        bias = randn(hidden, seed=50 + index) / 2
        layers.append(
            GLUWeights(down, first, second, name, bias, 1 + bias)
            if gated
            else MLPWeights(down, first, name, bias)
        )
    return layers


def run(layers: list[Layer], x: torch.Tensor) -> torch.Tensor:
    """The network."""
    for layer in layers:
        x = layer(x)
    return x


STANDARD = GaussianInput.from_moments(WIDTHS[0], None, None)


def test_one_layer_is_the_closed_form() -> None:
    layers, x = network("silu", 1), randn(30, WIDTHS[0])
    expected = approximate_layer(layers[0], STANDARD)
    torch.testing.assert_close(approximate_network(layers, STANDARD)(x), expected(x))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", ["silu", "identity"])
def test_the_curvature_alone_is_that_of_the_whole_fit(name: str, gated: bool) -> None:
    layer = network(name, 1, gated=gated)[0]
    whole, alone = approximate_layer(layer, STANDARD).tensor, layer_curvature(layer, STANDARD)
    for part in ("down", "left", "right"):
        assert torch.equal(getattr(alone, part), getattr(whole, part))


def test_two_bilinear_layers_leave_nothing_that_a_quadratic_could_explain() -> None:
    layers = network("identity", 2, gated=True)
    x = STANDARD.draw(60_000, seeded(0))
    rest = run(layers, x) - approximate_network(layers, STANDARD)(x)
    for feature in (torch.ones(len(x)).double(), x[:, 0], x[:, 1] * x[:, 2], x[:, 3] ** 2 - 1):
        products = rest * feature[:, None]
        z = products.mean(dim=0) / (products.std(dim=0) / len(x) ** 0.5)
        assert float(z.abs().max()) < 4


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize(("depth", "loss"), [(2, 0.03), (3, 0.1)])
def test_what_closure_loses_against_least_squares(
    name: ActivationName, depth: int, loss: float
) -> None:
    layers = network(name, depth)
    x = STANDARD.draw(20_000, seeded(0))
    y = run(layers, x)
    first, second = torch.triu_indices(WIDTHS[0], WIDTHS[0])
    features = torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)
    best = features @ torch.linalg.lstsq(features, y).solution
    found = r_squared_on(y, approximate_network(layers, STANDARD)(x)).overall
    assert found > r_squared_on(y, best).overall - loss
    assert found > 0.75


def test_it_says_how_it_was_derived() -> None:
    one, two = network("identity", 1, gated=True), network("identity", 2, gated=True)
    assert derivation(one) == "exact"
    assert "two bilinear layers" in derivation(two)
    assert derivation(network("relu", 1)) == "closed form, the least-squares map"
    assert "taken to be normal" in derivation(network("relu", 2))
    assert "taken to be normal" in derivation(network("identity", 3, gated=True))


D_IN, D_HIDDEN, D_OUT = 3, 4, 2
SIZES = [(4, 5, 6, 2), (1, 2, 3, 2), (2, 1, 1, 1)]  # hidden, out; hidden, out
HALF = 0.6 * randn(D_IN, D_IN, seed=5)
INPUTS = {
    "standard": GaussianInput.from_moments(D_IN, None, None),
    "general": GaussianInput.from_moments(D_IN, randn(D_IN, seed=6), HALF @ HALF.T),
    "singular": GaussianInput.from_moments(D_IN, randn(D_IN, seed=6), HALF[:, :2] @ HALF[:, :2].T),
}


def grid(assumed: GaussianInput, num: int = 12) -> tuple[Tensor, Tensor]:
    """Points and weights, exact for polynomials of degree 2 num − 1 an axis."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num)
    z = torch.tensor(list(product(nodes, repeat=D_IN)), dtype=torch.float64)
    share = torch.tensor(list(product(weights / weights.sum(), repeat=D_IN))).prod(dim=1)
    return assumed.mean + assumed.spread(z), share


def monomials(x: Tensor) -> Tensor:
    """1, x_i and x_i x_j."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)


def maps(sizes: tuple[int, int, int, int]) -> tuple[QuadraticMap, QuadraticMap]:
    """An inner and an outer map with linear and constant terms."""
    hidden, middle, above, out = sizes
    return random_map(1, middle, hidden, D_IN), random_map(2, out, above, middle)


@pytest.mark.parametrize("name", INPUTS)
def test_moments_are_those_of_quadrature(name: str) -> None:
    inner, assumed = maps(SIZES[0])[0], INPUTS[name]
    x, share = grid(assumed)
    y = inner(x)
    mean = share @ y
    found, covariance = output_moments(inner, assumed)
    torch.testing.assert_close(found, mean)
    torch.testing.assert_close(covariance, ((y - mean) * share[:, None]).T @ (y - mean))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_least_squares_by_quadrature(sizes: tuple[int, int, int, int], name: str) -> None:
    (inner, outer), assumed = maps(sizes), INPUTS[name]
    x, share = grid(assumed)
    features = monomials(x)
    y, root = outer(inner(x)), share.sqrt()[:, None]
    best = features @ torch.linalg.pinv(features * root, rtol=1e-10) @ (y * root)
    found = approximate_composition(outer, inner, assumed)(x)
    assert float(((best - found) * root).norm() / (y * root).norm()) < 1e-9


def test_a_straight_outer_map_changes_nothing() -> None:
    inner = random_map(1, 4, 5, D_IN)
    zero = BilinearTensor(torch.zeros(2, 1), torch.zeros(1, 4), torch.zeros(1, 4))
    outer = QuadraticMap(zero, torch.ones(2, 4), torch.ones(2)).to(torch.float64)
    x = randn(20, D_IN, seed=8)
    found = approximate_composition(outer, inner, INPUTS["general"])
    torch.testing.assert_close(found(x), outer(inner(x)))


def test_factors_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    inner, outer = maps(SIZES[0])
    with pytest.raises(MemoryLimitError, match="fit the layers one by one"):
        approximate_composition(outer, inner, INPUTS["standard"])


NAMES = [name for name in get_args(ActivationName) if name != "clamped_swiglu"]
SMOOTH = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")


def mlp(name: ActivationName, seed: int = 0) -> MLPWeights:
    """An ordinary layer with every part."""
    parts = [randn(D_OUT, D_HIDDEN, seed=seed), randn(D_HIDDEN, D_IN, seed=seed + 1) / 2]
    return MLPWeights(
        *parts,
        name,
        randn(D_HIDDEN, seed=seed + 2),
        randn(D_OUT, D_IN, seed=seed + 3),
        randn(D_OUT),
    )


def glu(name: ActivationName, seed: int = 0) -> GLUWeights:
    """A gated layer with every part."""
    return GLUWeights(
        randn(D_OUT, D_HIDDEN, seed=seed),
        randn(D_HIDDEN, D_IN, seed=seed + 1) / 2,
        randn(D_HIDDEN, D_IN, seed=seed + 2),
        name,
        randn(D_HIDDEN, seed=seed + 3),
        randn(D_HIDDEN, seed=seed + 4),
        randn(D_OUT, D_IN, seed=seed + 5),
        randn(D_OUT, seed=seed + 6),
    )


def some_input(seed: int = 7) -> GaussianInput:
    """A mean and correlations."""
    half = 0.6 * randn(D_IN, D_IN, seed=seed)
    return GaussianInput.from_moments(D_IN, randn(D_IN, seed=seed + 1), half @ half.T)


def distance(f: Callable[[Tensor], Tensor], layer: Layer, assumed: GaussianInput) -> float:
    """How far f is from the least-squares quadratic of a smooth layer, relative to the outputs."""
    x, share = grid(assumed, 32)
    root = share.sqrt()[:, None]
    features, y = monomials(x), layer(x)
    best = features @ torch.linalg.lstsq(features * root, y * root).solution
    return float(((best - f(x)) * root).norm() / (y * root).norm())


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_layer_is_least_squares_by_quadrature(
    name: ActivationName, make: Callable[[ActivationName], Layer]
) -> None:
    layer = make(name)
    assumed = some_input()
    assert distance(approximate_layer(layer, assumed), layer, assumed) < 1e-6


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_it_is_least_squares_on_samples(
    name: ActivationName, make: Callable[[ActivationName, int], Layer]
) -> None:
    """What is left of f is orthogonal to every quadratic, up to the error of the mean."""
    generator, found = seeded(1), []
    for seed in (0, 20, 40):
        layer, assumed = make(name, seed), some_input(seed + 10)
        z = torch.randn(20_000, D_IN, generator=generator, dtype=torch.float64)
        x = assumed.mean + assumed.spread(z)
        rest = layer(x) - approximate_layer(layer, assumed)(x)
        products = rest[:, :, None] * monomials(z)[:, None, :]
        found.append(products.mean(dim=0) / (products.std(dim=0) / math.sqrt(len(z))))
    z_scores = torch.stack(found)
    assert 0.6 < float(z_scores.square().mean().sqrt()) < 1.5
    assert float(z_scores.abs().max()) < 4.5


def test_a_bilinear_layer_comes_back_as_it_is() -> None:
    layer, assumed = glu("identity"), some_input()
    f = approximate_layer(layer, assumed)
    torch.testing.assert_close(f.tensor.left, layer.gate, rtol=0, atol=0)
    torch.testing.assert_close(f.tensor.right, layer.value, rtol=0, atol=0)
    x = randn(50, D_IN, seed=3)
    torch.testing.assert_close(f(x), layer(x), rtol=1e-12, atol=1e-12)
    for missing in ("gate_bias", "value_bias"):
        half = replace(layer, **{missing: None})
        torch.testing.assert_close(approximate_layer(half, assumed)(x), half(x))
    straight = mlp("identity")
    torch.testing.assert_close(approximate_layer(straight, assumed)(x), straight(x))


def test_the_formula_gives_a_bilinear_layer_too() -> None:
    """Not by looking at the name alone: e₀ = m, e₁ = 1, e₂ = e₃ = 0."""
    layer, x, assumed = glu("identity"), randn(50, D_IN, seed=3), some_input()
    (bend, mixed, slope, past, rest, other), _ = neuron_quadratics(layer, assumed)
    assert not bool(bend.any() | other.any())
    p, q = ((x - assumed.mean) @ part.T for part in (layer.gate, layer.value))
    hidden = mixed * p * q + slope * p + past * q + rest
    torch.testing.assert_close(hidden, layer.hidden(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("name", NAMES)
def test_where_the_input_does_not_vary_much_it_is_the_layer(
    name: ActivationName, make: Callable[[ActivationName], Layer]
) -> None:
    """In directions without variance the map is not determined; on the support it is."""
    half = randn(D_IN, 1, seed=2) * 1e-3
    assumed = GaussianInput.from_moments(D_IN, randn(D_IN, seed=3), half @ half.T)
    layer = make(name)
    x = assumed.draw(100, seeded(0))
    torch.testing.assert_close(approximate_layer(layer, assumed)(x), layer(x), atol=1e-5, rtol=1e-5)
    still = GaussianInput.from_moments(D_IN, assumed.mean, torch.zeros(D_IN, D_IN))
    f = approximate_layer(layer, still)
    torch.testing.assert_close(f(still.mean), layer(still.mean))


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_a_singular_covariance_gives_least_squares_on_its_support(name: ActivationName) -> None:
    half = randn(D_IN, 2, seed=2)
    assumed = GaussianInput.from_moments(D_IN, randn(D_IN, seed=3), half @ half.T)
    layer, generator = glu(name), seeded(0)
    x = assumed.draw(40_000, generator)
    z = (x - assumed.mean) @ torch.linalg.pinv(half).T
    rest = layer(x) - approximate_layer(layer, assumed)(x)
    products = rest[:, :, None] * monomials(z)[:, None, :]
    scores = products.mean(dim=0) / (products.std(dim=0) / math.sqrt(len(z)))
    assert float(scores.abs().max()) < 4


def test_factors_are_the_layers_own() -> None:
    """Never an (in, in) array: as many neurons as the layer has."""
    f, g = (
        approximate_layer(mlp("relu"), some_input()),
        approximate_layer(glu("silu"), some_input()),
    )
    assert f.sizes == g.sizes == (D_OUT, D_HIDDEN, D_IN)
    assert f.tensor.left is f.tensor.right
    torch.testing.assert_close(g.tensor.left, glu("silu").gate)
