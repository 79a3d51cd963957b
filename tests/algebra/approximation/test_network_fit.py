"""Several layers against samples and exact compositions."""

from itertools import product

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
    output_moments,
)
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.quadratic_fit import r_squared
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError
from builders import randn, random_map

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


STANDARD = GaussianInput.of(WIDTHS[0], None, None)


def test_one_layer_is_the_closed_form() -> None:
    layers, x = network("silu", 1), randn(30, WIDTHS[0])
    expected = approximate_layer(layers[0], STANDARD)
    torch.testing.assert_close(approximate_network(layers, STANDARD)(x), expected(x))


def test_two_bilinear_layers_leave_nothing_that_a_quadratic_could_explain() -> None:
    layers = network("identity", 2, gated=True)
    x = STANDARD.draw(60_000, torch.Generator().manual_seed(0))
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
    x = STANDARD.draw(20_000, torch.Generator().manual_seed(0))
    y = run(layers, x)
    first, second = torch.triu_indices(WIDTHS[0], WIDTHS[0])
    features = torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)
    best = features @ torch.linalg.lstsq(features, y).solution
    found = r_squared(y, approximate_network(layers, STANDARD)(x)).overall
    assert found > r_squared(y, best).overall - loss
    assert found > 0.75


def test_it_says_how_it_was_derived() -> None:
    one, two = network("identity", 1, gated=True), network("identity", 2, gated=True)
    assert derivation(one) == "exact"
    assert "two bilinear layers" in derivation(two)
    assert derivation(network("relu", 1)) == "closed form, the least-squares map"
    assert "taken to be normal" in derivation(network("relu", 2))
    assert "taken to be normal" in derivation(network("identity", 3, gated=True))


D_IN = 3
SIZES = [(4, 5, 6, 2), (1, 2, 3, 2), (2, 1, 1, 1)]  # hidden, out; hidden, out
HALF = 0.6 * randn(D_IN, D_IN, seed=5)
INPUTS = {
    "standard": GaussianInput.of(D_IN, None, None),
    "general": GaussianInput.of(D_IN, randn(D_IN, seed=6), HALF @ HALF.T),
    "singular": GaussianInput.of(D_IN, randn(D_IN, seed=6), HALF[:, :2] @ HALF[:, :2].T),
}


def grid(assumed: GaussianInput) -> tuple[Tensor, Tensor]:
    """Points and weights, exact for polynomials of degree 23 an axis."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    z = torch.tensor(list(product(nodes, repeat=D_IN)), dtype=torch.float64)
    share = torch.tensor(list(product(weights / weights.sum(), repeat=D_IN))).prod(dim=1)
    return assumed.mean + assumed.spread(z), share


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
    first, second = torch.triu_indices(D_IN, D_IN)
    features = torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)
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
