"""The influence of an input is never exceeded in its box, and reached by the points returned."""

from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from bilens.certify.input_influence import influence_range, remove_inputs
from bilens.certify.input_use import unused_inputs
from builders import randn, random_map, vector


@pytest.mark.parametrize("seed", range(6))
def test_no_pair_of_points_of_a_box_differs_by_more(seed: int) -> None:
    """All corners of the other inputs with a fine grid of its own, and points at random."""
    f = random_map(seed, d_hidden=8, d_in=5)
    low = randn(5, seed=seed) - 1
    high = low + randn(5, seed=seed + 50).abs() * 3
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    corners = torch.tensor(list(product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    corners = torch.cat(
        [corners, torch.rand(500, 5, generator=torch.Generator().manual_seed(seed)).double()]
    )
    for i in range(5):
        for output in range(f.sizes.d_out):
            found = influence_range(f, i, (low, high), output)
            x = (low + corners * (high - low))[:, None].repeat(1, 401, 1)
            x[..., i] = low[i] + t * (high - low)[i]
            values = f(x)[..., output]
            largest = float((values.amax(dim=1) - values.amin(dim=1)).max())
            assert largest <= found.bound
            assert largest >= (1 - 1e-3) * found.reached
            change = float(f(found.upper)[output] - f(found.lower)[output])
            assert change == pytest.approx(found.reached, rel=1e-10, abs=1e-10)
            assert found.reached <= found.bound <= found.reached + 1e-9
            for point in (found.upper, found.lower):
                assert bool(((low <= point) & (point <= high)).all())
            assert (found.upper != found.lower).nonzero()[:, 0].tolist() in ([i], [])


def test_a_narrow_box_far_from_zero() -> None:
    """(t − v)² near v, in fractions: the values are up to 1e20, their differences less than 1."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        spread, width, place, curvature = torch.rand(4, generator=generator).double().tolist()
        low = 10 ** (10 * spread)
        high = low + 10 ** (6 * width - 4)
        slope = -2 * curvature * (low + (high - low) * (1.4 * place - 0.2))
        unit = vector(1, 0)[None]
        tensor = BilinearTensor(unit.new_tensor([[curvature]]), unit, unit)
        f = QuadraticMap(tensor, vector(slope, 0)[None])
        found = influence_range(f, 0, (vector(low, 0), vector(high, 0)), 0)
        q, s, ends = Fraction(curvature), Fraction(slope), [Fraction(low), Fraction(high)]
        points = ends + [-s / (2 * q)] * (ends[0] < -s / (2 * q) < ends[1])
        values = [q * t * t + s * t for t in points]
        assert Fraction(found.bound) >= max(values) - min(values)


def test_with_the_others_fixed_it_is_the_range_over_one_input() -> None:
    """q(x) = x₀² + x₀ x₁ over x₀ in [−2, 2] at x₁ = 1: from −¼ at −½ to 6 at 2."""
    left, right = vector(1, 0).repeat(2, 1), torch.eye(2).double()
    f = QuadraticMap(BilinearTensor(torch.ones(1, 2).double(), left, right))
    found = influence_range(f, 0, (vector(-2, 1), vector(2, 1)), 0)
    assert found.reached == pytest.approx(6.25)
    assert found.upper.tolist() == [2.0, 1.0]
    assert found.lower.tolist() == [-0.5, 1.0]
    assert influence_range(f, 1, (vector(0, -1), vector(0, 1)), 0).bound == pytest.approx(
        0, abs=1e-12
    )
    nothing = influence_range(f, 0, (vector(1, 0), vector(1, 5)), 0)
    assert (nothing.reached, nothing.bound) == (0.0, 0.0)


def test_bad_arguments_are_refused() -> None:
    f, low, high = random_map(), -torch.ones(5).double(), torch.ones(5).double()
    with pytest.raises(UsageError, match=r"i=\[5\]"):
        influence_range(f, 5, (low, high), 0)
    with pytest.raises(UsageError, match=r"output=\[3\]"):
        influence_range(f, 0, (low, high), 3)
    with pytest.raises(UsageError, match="low is above high for input 2"):
        influence_range(f, 0, (low, high.index_fill(0, torch.tensor(2), -9.0)), 0)
    with pytest.raises(UsageError, match="expected a pair"):
        influence_range(f, 0, low, 0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"high has shape \(4,\)"):
        influence_range(f, 0, (low, high[:4]), 0)
    with pytest.raises(NonFiniteError):
        influence_range(f, 0, (low, high * torch.inf), 0)


SETS = [[0], [3, 1], [0, 1, 2, 3, 4], list(range(8))]


def dense_of(f: QuadraticMap) -> Tensor:
    return oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)


@pytest.mark.parametrize("inputs", SETS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_in_the_ball_changes_by_more_and_the_example_does_as_much(
    inputs: list[int], seed: int
) -> None:
    f, radius = random_map(seed, d_hidden=9, d_in=8), 1.7
    found = remove_inputs(f, inputs, radius)
    x = randn(50_000, 8, seed=3)
    x *= (
        radius
        * torch.rand(50_000, 1, generator=torch.Generator().manual_seed(1))
        / x.norm(dim=1, keepdim=True)
    )
    change = (f(x) - found.quadratic_map(x)).abs()
    assert bool((change <= found.bound).all())
    for c, example in enumerate(found.example):
        assert float(example.norm()) <= radius * (1 + 1e-12)
        there = float((f(example) - found.quadratic_map(example))[c].abs())
        assert there == pytest.approx(float(found.reached[c]), rel=1e-9)
        assert there >= (1 - 1e-6) * float(found.bound[c])
        climbed = climb(f, found.quadratic_map, c, radius)
        assert climbed <= float(found.bound[c])


def climb(f: QuadraticMap, g: QuadraticMap, output: int, radius: float) -> float:
    """The largest |f − g| that projected gradient ascent finds from 40 starts."""
    best = 0.0
    for sign in (1.0, -1.0):
        x = randn(40, f.sizes.d_in, seed=5)
        for _ in range(300):
            x = x.detach().requires_grad_()
            value = sign * (f(x) - g(x))[:, output]
            (slope,) = torch.autograd.grad(value.sum(), x)
            x = x + 0.05 * slope
            x = x * (radius / x.norm(dim=1, keepdim=True).clamp(min=radius))
        x = x.detach()
        best = max(best, float((sign * (f(x) - g(x))[:, output]).max()))
    return best


@pytest.mark.parametrize("inputs", SETS)
def test_the_map_ignores_the_inputs_and_nothing_else_changes(inputs: list[int]) -> None:
    f = random_map(4, d_hidden=9, d_in=8)
    found = remove_inputs(f, inputs, 1.0)
    g = found.quadratic_map
    assert unused_inputs(g).unused.nonzero()[:, 0].tolist() == sorted(inputs)
    x = randn(20, 8)
    zeroed = x.clone()
    zeroed[:, inputs] = 0.0
    torch.testing.assert_close(g(x), f(zeroed))
    difference = dense_of(f) - dense_of(g)
    torch.testing.assert_close(found.norm, difference.norm(dim=(1, 2)))
    kept = [i for i in range(8) if i not in inputs]  # nearest: the free entries are untouched
    assert float(difference[:, kept][:, :, kept].abs().sum()) < 1e-12
    assert found.inputs == tuple(sorted(inputs))


def test_moments_are_those_of_the_change() -> None:
    f, half, mean = random_map(5, d_in=6), randn(6, 6, seed=6), randn(6, seed=7)
    found = remove_inputs(f, [1, 4], 1.0, mean=mean, covariance=half @ half.T)
    x = mean + randn(400_000, 6, seed=8) @ half.T
    change = f(x) - found.quadratic_map(x)
    assert found.moments is not None
    scale = found.moments.variance.sqrt()
    assert float(((change.mean(dim=0) - found.moments.mean) / scale).abs().max()) < 0.01
    torch.testing.assert_close(change.var(dim=0), found.moments.variance, rtol=0.03, atol=0)


def test_an_input_that_is_not_used_costs_nothing() -> None:
    f = remove_inputs(random_map(6, d_in=6), [2], 1.0).quadratic_map
    found = remove_inputs(f, [2], 5.0)
    assert float(found.bound.max()) == 0
    assert float(remove_inputs(random_map(6, d_in=6), [2], 0.0).bound.max()) == 0
    single = remove_inputs(random_map(7).to(torch.float32), [0], 1.0)
    assert single.quadratic_map.dtype == torch.float32


def test_a_map_without_a_linear_part_is_left_without_one() -> None:
    f = QuadraticMap(random_map(8).tensor)
    found = remove_inputs(f, [1], 1.0, mean=randn(5), covariance=torch.eye(5).double())
    assert found.quadratic_map.linear is None
    x = randn(20, 5) * torch.eye(5).double()[0]  # does not use input 1
    torch.testing.assert_close(found.quadratic_map(x), f(x))


def test_rows_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1000")
    with pytest.raises(MemoryLimitError, match="removing 2 inputs from 3 outputs"):
        remove_inputs(random_map(), [0, 1], 1.0)


def test_what_cannot_be_removed_is_refused() -> None:
    f = random_map()
    for inputs in ([], [5], [0, 0], [-1], [True]):
        with pytest.raises(UsageError, match="different integers between 0 and 4"):
            remove_inputs(f, inputs, 1.0)
    with pytest.raises(UsageError, match="radius"):
        remove_inputs(f, [0], -1.0)
    with pytest.raises(UsageError, match="mean and covariance together"):
        remove_inputs(f, [0], 1.0, mean=randn(5))
    with pytest.raises(ShapeError, match="covariance has shape"):
        remove_inputs(f, [0], 1.0, mean=randn(5), covariance=torch.eye(4))
