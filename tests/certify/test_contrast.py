"""A pair of outputs in its eigenbasis: the margin again, within the errors that it states."""

from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
import tiny
from bilens import certify
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.certify import contrast
from bilens.certify.inputs import samples_of
from builders import randn, random_map, rotation, seeded, vector
from certify.hostile_margins import FAMILIES, distance_of, mp

SIZES = [(2, 1, 1), (3, 4, 5), (3, 20, 6), (4, 3, 20)]


@pytest.mark.parametrize("sizes", SIZES)
def test_matrix_gradient_and_their_errors(sizes: tuple[int, int, int]) -> None:
    f = random_map(6, *sizes)
    _, hidden, width = sizes
    found = certify.prepare(f, [(1, 0)]).contrast(1, 0)
    u = torch.zeros(sizes[0], dtype=torch.float64)
    u[1], u[0] = 1, -1
    q = oracles.dense_interaction(f.tensor.down, f.tensor.left, f.tensor.right, u)
    ours = found.vectors.T @ (found.values[:, None] * found.vectors)
    assert float(torch.linalg.matrix_norm(ours - q, 2)) <= found.value_error
    assert found.value_error < 1e-10 * float(q.norm())
    x = randn(7, width, seed=2)
    g = 2 * x @ q + u @ f.linear
    error = (found.gradient(x) @ found.vectors - g).norm(dim=1)
    assert bool((error <= found.gradient_error(x.norm(dim=1))).all())
    assert bool((found.gradient_error(x.norm(dim=1)) < 1e-9 * g.norm(dim=1)).all())
    assert len(found.values) == min(width, 2 * hidden + (2 * hidden < width))
    turned = found.turned()
    assert (turned.first, turned.second) == (0, 1)
    assert torch.equal(turned.gradient(x), -found.gradient(x))


def exact_distance(f: QuadraticMap, x: Tensor) -> mpmath.mpf:
    """The distance of x to f_1 ≥ f_0, from the weights as they are, in multiple precision."""

    def exact(tensor: Tensor) -> mpmath.matrix:
        return mp.matrix([[mp.mpf(entry) for entry in row] for row in tensor.tolist()])

    left, right, at = exact(f.tensor.left), exact(f.tensor.right), exact(x[:, None])
    weight = [mp.mpf(a) - mp.mpf(b) for a, b in f.tensor.down.T.tolist()]
    half = left.T * mp.diag(weight) * right
    q = (half + half.T) / 2
    b = mp.matrix([mp.mpf(c) - mp.mpf(d) for c, d in f.linear.T.tolist()])
    values, vectors = mp.eigsy(q)
    constant = (at.T * q * at + b.T * at)[0] + mp.mpf(float(f.constant[0] - f.constant[1]))
    linear = vectors.T * (2 * q * at + b)
    return distance_of(list(values), list(linear), constant)


@pytest.mark.parametrize("away", [0.0, 1.0])
@pytest.mark.parametrize("family", ["ordinary", "hard", "multiple", "rank_one", "negative"])
def test_no_radius_is_above_the_true_distance_of_the_weights(family: str, away: float) -> None:
    """The margin of the family, rotated and moved, is the difference of two outputs.

    Rounding of the rotated weights turns zero eigenvalues into tiny ones, and the radius has to be
    below the distance that those give.
    """
    dice = np.random.default_rng(7)
    for trial in range(8):
        margin = FAMILIES[family](dice)
        values, width = torch.from_numpy(margin.values), len(margin.values)
        turn, x = rotation(width, seed=trial), away * randn(width, seed=trial)
        gap = torch.from_numpy(margin.linear) @ turn - 2 * (turn.T * values) @ turn @ x
        down = torch.stack([values, torch.zeros_like(values)])
        tensor = BilinearTensor(down, turn, turn)
        f = QuadraticMap(tensor, torch.stack([gap, 0 * gap]), vector(margin.constant, 0.0))
        y = f(x)
        f = f.plus_affine(constant=vector(margin.constant - float(y[0] - y[1]), 0.0))
        radius = float(certify.l2_radius(f, x[None], [0]).radius[0])
        truth = exact_distance(f, x)
        assert radius <= truth
        size = float(np.abs(margin.values).max())
        if size * truth**2 < 1e4 * margin.constant:  # else rounding of A alone decides
            assert radius == pytest.approx(float(truth), rel=1e-6)


@pytest.mark.parametrize("error", ["value_error", "linear_error"])
def test_an_error_of_the_contrast_is_counted_against_the_radius(error: str) -> None:
    f = random_map(6, 2, 4, 5)
    x = torch.zeros(1, 5, dtype=torch.float64)  # where the error of A is none of the gradient
    label = f(x).argmax(dim=1)
    spectra = certify.prepare(f)
    (pair,) = spectra.contrasts.values()
    worse = replace(spectra, contrasts={(0, 1): replace(pair, **{error: 1e-3})})
    before = certify.l2_radius(f, x, label, spectra).radius
    after = certify.l2_radius(f, x, label, worse).radius
    assert bool((after < before * (1 - 1e-6)).all())


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e8])
def test_the_rounding_of_margins_is_bounded(scale: float) -> None:
    """Outputs far larger than their differences, against exact rational arithmetic."""
    f = random_map(5, 3, 20, 6)
    tensor = f.tensor
    common = scale * randn(1, 20, seed=9)
    f = QuadraticMap(
        BilinearTensor(tensor.down + common, tensor.left, tensor.right), f.linear, f.constant
    )
    x = randn(30, 6, seed=8)
    label = torch.zeros(30, dtype=torch.int64)
    samples = samples_of(f, x, label)

    def exact(row: list[float]) -> list[Fraction]:
        def dot(a: list[float]) -> Fraction:
            return sum(Fraction(p) * Fraction(q) for p, q in zip(a, row, strict=True))

        left = [dot(weights) for weights in tensor.left.tolist()]
        right = [dot(weights) for weights in tensor.right.tolist()]
        return [
            sum(Fraction(d) * p * q for d, p, q in zip(down, left, right, strict=True))
            + dot(linear)
            + Fraction(constant)
            for down, linear, constant in zip(
                f.tensor.down.tolist(), f.linear.tolist(), f.constant.tolist(), strict=True
            )
        ]

    largest = 0.0
    for row in range(30):
        y = exact(x[row].tolist())
        for rival in (1, 2):
            error = abs(float(y[0] - y[rival] - Fraction(float(samples.margins[row, rival]))))
            assert error <= float(samples.errors[row, rival])
            largest = max(largest, error / float(samples.errors[row, rival]))
    assert largest > 1e-4  # the bound is not idle


@pytest.mark.parametrize("power", [-700, -560, 0, 480])
def test_the_errors_grow_with_the_map_whatever_its_scale(power: int) -> None:
    """The squares of the map leave float64, the map and what is lost of it by rounding do not."""
    f = random_map(6, 3, 4, 5)
    parts = (2.0**power * part for part in (f.tensor.down, f.linear, f.constant))
    down, linear, constant = parts
    scaled = QuadraticMap(BilinearTensor(down, f.tensor.left, f.tensor.right), linear, constant)
    plain, other = (certify.prepare(g, [(1, 0)]).contrast(1, 0) for g in (f, scaled))
    for name in ("value_error", "linear_error", "size"):
        expected = 2.0**power * getattr(plain, name)
        assert getattr(other, name) == pytest.approx(expected, rel=1e-6, abs=0)


def test_pairs_that_do_not_exist_are_refused() -> None:
    f = random_map(2, 3, 6, 5)
    with pytest.raises(UsageError, match="two different outputs"):
        certify.prepare(f, [(0, 3)])
    with pytest.raises(UsageError, match="two different outputs"):
        certify.prepare(f, [(1, 1)])
    with pytest.raises(UsageError, match="one output"):
        certify.prepare(random_map(0, 1, 4, 5))


def test_eigenvalues_that_are_zero_are_left_out_and_change_no_radius(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.classifier(seed=1, d_input=80, d_hidden=20, bias=True, residual=True)
    f = model.quadratic_map().detach()  # 20 of 80 directions: 40 factors hold 20 eigenvalues
    x = torch.randn(10, 80, generator=seeded(2), dtype=torch.float64)
    label = f(x).argmax(dim=1)
    few = contrast.prepare(f)
    monkeypatch.setattr(contrast, "STEP", 10**6)
    every = contrast.prepare(f)
    assert len(few.contrast(0, 1).values) == 33  # a multiple of 32, and what b has outside
    assert len(every.contrast(0, 1).values) == 41
    found = certify.l2_radius(f, x, label, few).radius
    expected = certify.l2_radius(f, x, label, every).radius
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_sum_of_squares_is_reached_where_it_vanishes() -> None:
    """‖Rx‖² touches zero on the null space of R and is nowhere below."""
    r = randn(2, 5)
    down = torch.stack([torch.ones(2), torch.zeros(2)]).double()
    x = randn(6, 5, seed=9)
    radius = certify.l2_radius(QuadraticMap(BilinearTensor(down, r, r)), x, [0] * 6).radius
    truth = (x @ (torch.linalg.pinv(r) @ r)).norm(dim=1)
    assert bool(((truth * (1 - 1e-4) < radius) & (radius <= truth)).all())


@pytest.mark.parametrize("seed", range(60))
def test_where_a_sum_of_squares_vanishes_rounding_of_its_spectrum_decides_nothing(
    seed: int,
) -> None:
    """Its zero eigenvalues come out as ±1e-17, other ones on every processor.

    What is lost is √(error of A / smallest eigenvalue), whatever their signs.
    """
    width, hidden = (3, 5, 8, 20)[seed % 4], 1 + seed % 3
    r = randn(hidden, width, seed=seed)
    down = torch.stack([torch.ones(hidden), torch.zeros(hidden)]).double()
    x = randn(6, width, seed=seed + 1000)
    radius = certify.l2_radius(QuadraticMap(BilinearTensor(down, r, r)), x, [0] * 6).radius
    truth = (x @ (torch.linalg.pinv(r) @ r)).norm(dim=1)
    assert bool(((truth * (1 - 1e-3) < radius) & (radius <= truth)).all())
