"""Layers one behind the other: exact where it says so, useful where it does not.

Broken once: the second layer fitted under unit covariance; closure lost more than it may.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.approximation.activation import ActivationName
from bilens.algebra.approximation.gaussian_input import GaussianInput
from bilens.algebra.approximation.layer_fit import closest_to_layer
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.network_fit import closest_to_network, derivation, is_exact
from bilens.algebra.approximation.scores import r_squared
from builders import randn

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
    expected = closest_to_layer(layers[0], STANDARD)
    torch.testing.assert_close(closest_to_network(layers, STANDARD)(x), expected(x))


def test_two_bilinear_layers_leave_nothing_that_a_quadratic_could_explain() -> None:
    layers = network("identity", 2, gated=True)
    x = STANDARD.draw(60_000, torch.Generator().manual_seed(0))
    rest = run(layers, x) - closest_to_network(layers, STANDARD)(x)
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
    found = r_squared(y, closest_to_network(layers, STANDARD)(x)).overall
    assert found > r_squared(y, best).overall - loss
    assert found > 0.75


def test_it_says_how_it_was_derived() -> None:
    one, two = network("identity", 1, gated=True), network("identity", 2, gated=True)
    assert is_exact(one)
    assert derivation(one) == "exact"
    assert not is_exact(two)
    assert "two bilinear layers" in derivation(two)
    assert derivation(network("relu", 1)) == "closed form, the least-squares map"
    assert "taken to be normal" in derivation(network("relu", 2))
    assert "taken to be normal" in derivation(network("identity", 3, gated=True))
