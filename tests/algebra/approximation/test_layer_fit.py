"""The closed form against least squares, by quadrature where that is exact, and sampled."""

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
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn

NAMES = get_args(ActivationName)
SMOOTH = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
D_IN, D_HIDDEN, D_OUT = 3, 4, 2


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
    return GaussianInput.of(D_IN, randn(D_IN, seed=seed + 1), half @ half.T)


def monomials(x: Tensor) -> Tensor:
    """1, x_i and x_i x_j."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)


def distance(f: Callable[[Tensor], Tensor], layer: Layer, assumed: GaussianInput) -> float:
    """How far f is from the least-squares quadratic of a smooth layer, relative to the outputs."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    z = torch.tensor(list(product(nodes, repeat=D_IN)), dtype=torch.float64)
    share = torch.tensor(list(product(weights / weights.sum(), repeat=D_IN))).prod(dim=1)
    root = share.sqrt()[:, None]
    x = assumed.mean + assumed.spread(z)
    features, y = monomials(x), layer(x)
    best = features @ torch.linalg.lstsq(features * root, y * root).solution
    return float(((best - f(x)) * root).norm() / (y * root).norm())


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("name", SMOOTH)
def test_it_is_least_squares_by_quadrature(
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
    generator, found = torch.Generator().manual_seed(1), []
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


def test_the_formula_gives_a_bilinear_layer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by looking at the name alone: e₀ = m, e₁ = 1, e₂ = e₃ = 0."""
    layer, x = glu("identity"), randn(50, D_IN, seed=3)
    monkeypatch.setattr("bilens.algebra.approximation.closed_form.exact_map", never)
    from bilens.algebra.approximation.closed_form import glu_fit

    f = glu_fit(layer, some_input()).plus_affine(layer.linear, layer.constant)
    torch.testing.assert_close(f(x), layer(x), rtol=1e-12, atol=1e-12)


def never(_layer: Layer) -> QuadraticMap:
    """Must not be called."""
    raise AssertionError


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("name", NAMES)
def test_where_the_input_does_not_vary_much_it_is_the_layer(
    name: ActivationName, make: Callable[[ActivationName], Layer]
) -> None:
    """In directions without variance the map is not determined; on the support it is."""
    half = randn(D_IN, 1, seed=2) * 1e-3
    assumed = GaussianInput.of(D_IN, randn(D_IN, seed=3), half @ half.T)
    layer = make(name)
    x = assumed.draw(100, torch.Generator().manual_seed(0))
    torch.testing.assert_close(approximate_layer(layer, assumed)(x), layer(x), atol=1e-5, rtol=1e-5)
    still = GaussianInput.of(D_IN, assumed.mean, torch.zeros(D_IN, D_IN))
    f = approximate_layer(layer, still)
    torch.testing.assert_close(f(still.mean), layer(still.mean))


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_a_singular_covariance_gives_least_squares_on_its_support(name: ActivationName) -> None:
    half = randn(D_IN, 2, seed=2)
    assumed = GaussianInput.of(D_IN, randn(D_IN, seed=3), half @ half.T)
    layer, generator = glu(name), torch.Generator().manual_seed(0)
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
