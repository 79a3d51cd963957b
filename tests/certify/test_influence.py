"""The influence of an input is never exceeded in its box, and reached by the points returned.

Broken once: the vertex left out of `extremes`; a grid found more. Extremes picked by their values,
which cancel in a narrow box far from zero: 958 of 3,000 bounds were too small.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.certify.influence import influence_range
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
