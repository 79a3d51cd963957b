"""Guards against wrong moments of two layers: against quadrature that is exact at their degree."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import ShapeError, UsageError
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer

WIDTH = 3
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(6)  # exact to degree 11; a product has 8
GRID = torch.tensor(list(itertools.product(NODES, repeat=WIDTH)))
SHARES = torch.tensor([np.prod(one) for one in itertools.product(WEIGHTS, repeat=WIDTH)])
SHARES = SHARES / SHARES.sum()


def two_layers(seed: int, *, residual: bool, bias: bool, outputs: int = 2) -> PolynomialNetwork:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 2

    between = WIDTH if residual else 2
    maps = [
        bl.QuadraticMap(
            bl.BilinearTensor(drawn(between, units), drawn(units, width), drawn(units, width)),
            drawn(between, width) if bias else None,
            drawn(between) if bias else None,
        )
        for units, width in ((4, WIDTH), (5, between))
    ]
    layers = tuple(QuadraticLayer(one, residual) for one in maps)
    head_bias = drawn(outputs) if bias else None
    return PolynomialNetwork(layers, head=drawn(outputs, between), head_bias=head_bias)


def expected_moments(
    f: PolynomialNetwork, g: PolynomialNetwork, x: Tensor
) -> tuple[Tensor, Tensor]:
    one, other = f(x), g(x)
    means = SHARES @ one, SHARES @ other
    return means[0], ((one - means[0]) * SHARES[:, None]).T @ (other - means[1])


def drawn_input() -> tuple[Tensor, Tensor]:
    root = torch.randn(
        WIDTH, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    return torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), root @ root.T


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("given", ["standard", "mean", "covariance", "both"])
def test_moments_and_similarity_are_those_of_quadrature(
    residual: bool, bias: bool, given: str
) -> None:
    f, g = (two_layers(seed, residual=residual, bias=bias) for seed in (0, 1))
    mean, covariance = drawn_input()
    mean_given = mean if given in ("mean", "both") else None
    covariance_given = covariance if given in ("covariance", "both") else None
    x = GRID if covariance_given is None else GRID @ torch.linalg.cholesky(covariance).T
    x = x if mean_given is None else x + mean
    found = bl.output_moments(f, mean_given, covariance_given)
    middle, spread = expected_moments(f, f, x)
    size = spread.diagonal().sum()
    torch.testing.assert_close(found.mean, middle, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.covariance, spread, rtol=1e-9, atol=float(1e-10 * size))
    crossed = expected_moments(f, g, x)[1].diagonal()
    own, their = spread.diagonal(), expected_moments(g, g, x)[1].diagonal()
    for outputs in (None, [1], [1, 0]):
        chosen = slice(None) if outputs is None else outputs
        cosine = crossed[chosen].sum() / (own[chosen].sum() * their[chosen].sum()).sqrt()
        similarity = bl.network_similarity(
            f, g, mean=mean_given, covariance=covariance_given, outputs=outputs
        )
        assert similarity == pytest.approx(float(cosine), abs=1e-10)
    raw = bl.network_similarity(f, g, mean=mean_given, covariance=covariance_given, centred=False)
    inner = [(SHARES[:, None] * one(x) * two(x)).sum() for one, two in ((f, g), (f, f), (g, g))]
    assert raw == pytest.approx(float(inner[0] / (inner[1] * inner[2]).sqrt()), abs=1e-10)


def test_the_same_function_written_otherwise_has_similarity_one() -> None:
    """Exchanged branches, permuted units, scales moved from one factor to another."""
    f = two_layers(0, residual=True, bias=True)
    layers = []
    for part in f.parts:
        assert isinstance(part, QuadraticLayer)
        down, left, right = part.map._factors()
        order = torch.arange(len(left)).flip(0)
        tensor = bl.BilinearTensor((down / 3)[:, order], (right * 3)[order], left[order])
        layers.append(QuadraticLayer(replace(part.map, tensor=tensor), part.residual))
    g = replace(f, parts=tuple(layers), part_names=())
    assert bl.network_similarity(f, g) == pytest.approx(1.0, abs=1e-12)
    assert f.head is not None
    half = replace(f, head=f.head / 2, head_bias=None)
    assert bl.network_similarity(f, half) == pytest.approx(1.0, abs=1e-12)
    assert bl.network_similarity(f, replace(f, head=-f.head)) == pytest.approx(-1.0, abs=1e-12)


def test_what_is_not_two_layers_of_vectors_is_refused() -> None:
    f = two_layers(0, residual=True, bias=False)
    three = replace(f, parts=(*f.parts, f.parts[0]), part_names=())
    with pytest.raises(UsageError, match="exact of two layers"):
        bl.output_moments(three)
    tokens = bl.nn.PolynomialTransformer(5, 8, 6, 1, 2, 8)
    with pytest.raises(UsageError, match="behind an embedding of tokens"):
        bl.output_moments(bl.polynomial_network(tokens))
    with pytest.raises(UsageError, match="none below zero was expected"):
        bl.output_moments(f, covariance=-torch.eye(WIDTH, dtype=torch.float64))
    with pytest.raises(UsageError, match="numbers from 0 to 1"):
        bl.network_similarity(f, f, outputs=[2])
    other = two_layers(0, residual=True, bias=False, outputs=4)
    with pytest.raises(ShapeError, match="cannot be compared"):
        bl.network_similarity(f, other)


@pytest.mark.parametrize("size", [1e-100, 1.0, 1e60])
def test_the_similarity_does_not_depend_on_the_size_of_what_lies_between(size: float) -> None:
    """Seen: nan without a word."""
    f, g = (two_layers(seed, residual=True, bias=False) for seed in range(2))
    first, *rest = f.parts
    assert isinstance(first, QuadraticLayer)
    plain = replace(f, parts=(replace(first, residual=False), *rest))
    moved = replace(plain, parts=(QuadraticLayer(first.map * size, residual=False), *rest))
    found = bl.network_similarity(moved, moved)
    assert found == pytest.approx(1.0)
    assert math.isfinite(bl.network_similarity(moved, g))


def test_a_bias_without_a_head_is_of_the_outputs() -> None:
    f, bias = two_layers(0, residual=True, bias=True), torch.arange(3.0, dtype=torch.float64)
    alone = PolynomialNetwork(f.parts, head_bias=bias)
    expected = SHARES @ alone(GRID)
    assert torch.equal(alone(GRID), PolynomialNetwork(f.parts)(GRID) + bias)
    torch.testing.assert_close(bl.output_moments(alone).mean, expected, rtol=1e-12, atol=0)
    near = bl.approximate_moments(alone, num_samples=2000)
    assert near.mean_error < 0.2
    same = PolynomialNetwork(f.parts, head=torch.eye(3).double(), head_bias=bias)
    assert bl.network_similarity(alone, same, centred=False) == pytest.approx(1, abs=1e-12)


def test_vectors_of_positions_are_of_texts() -> None:
    f = two_layers(0, residual=True, bias=True)
    with pytest.raises(UsageError, match="reads one vector at a time"):
        replace(f, positions=torch.ones(1, WIDTH).double())
