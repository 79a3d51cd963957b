"""Inputs that are proven unused, and the influence of an input: never exceeded, and reached."""

from fractions import Fraction
from itertools import product

import pytest
import torch

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from bilens.certify.input_influence import influence_range, remove_inputs
from bilens.certify.input_use import unused_inputs
from builders import randn, random_map, seeded, vector
from planted import dense_of


@pytest.mark.parametrize("seed", range(6))
def test_no_pair_of_points_of_a_box_differs_by_more(seed: int) -> None:
    """All corners of the other inputs with a fine grid of its own, and points at random."""
    f = random_map(seed, d_hidden=8, d_in=5)
    low = randn(5, seed=seed) - 1
    high = low + randn(5, seed=seed + 50).abs() * 3
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    corners = torch.tensor(list(product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    corners = torch.cat([corners, torch.rand(500, 5, generator=seeded(seed)).double()])
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
    generator = seeded(0)
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
        influence_range(f, 0, low, 0)
    with pytest.raises(ShapeError, match=r"high has shape \(4,\)"):
        influence_range(f, 0, (low, high[:4]), 0)
    with pytest.raises(NonFiniteError):
        influence_range(f, 0, (low, high * torch.inf), 0)


SETS = [[0], [3, 1], [0, 1, 2, 3, 4], list(range(8))]


@pytest.mark.parametrize("inputs", SETS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_in_the_ball_changes_by_more_and_the_example_does_as_much(
    inputs: list[int], seed: int
) -> None:
    f, radius = random_map(seed, d_hidden=9, d_in=8), 1.7
    found = remove_inputs(f, inputs, radius)
    x = randn(50_000, 8, seed=3)
    x *= radius * torch.rand(50_000, 1, generator=seeded(1)) / x.norm(dim=1, keepdim=True)
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


def blind_to(indices: list[int], seed: int = 1) -> QuadraticMap:
    f = random_map(seed, d_hidden=9, d_in=7)
    mask = torch.ones(7, dtype=torch.float64)
    mask[indices] = 0.0
    tensor = BilinearTensor(f.tensor.down, f.tensor.left * mask, f.tensor.right * mask)
    return QuadraticMap(tensor, f.linear * mask, f.constant)


def test_lengths_are_those_of_the_dense_rows() -> None:
    f = random_map(seed=2, d_hidden=9, d_in=7)
    found = unused_inputs(f)
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    torch.testing.assert_close(found.quadratic, dense.norm(dim=2))
    torch.testing.assert_close(found.linear, f.linear.abs())
    assert not bool(found.unused.any() | found.undecided.any())


@pytest.mark.parametrize(
    ("down", "left", "right"),
    [
        (1.0, (1e300, 1e-30), (1.0, 0.0)),  # f(0.1, 1e31) − f(0.1, 0) = 0.1
        (1e-200, (1e-100, 1e-100), (1e-100, 1e-100)),
        (1e-200, (0.0, 1e-200), (0.0, 1e300)),
    ],
)
def test_underflow_is_no_proof(
    down: float, left: tuple[float, float], right: tuple[float, float]
) -> None:
    tensor = BilinearTensor(vector(down)[None], vector(*left)[None], vector(*right)[None])
    found = unused_inputs(QuadraticMap(tensor))
    assert not bool(found.unused[1])


def test_a_zero_row_is_a_proof() -> None:
    found = unused_inputs(blind_to([0, 4]))
    assert found.unused.nonzero()[:, 0].tolist() == [0, 4]
    assert not bool(found.undecided.any())
    assert float(found.rounding[:, [0, 4]].max()) == 0
    assert "input basis" in found.assumption


def test_a_neuron_without_weight_or_without_a_partner_does_not_use_its_inputs() -> None:
    left, right = randn(3, 4, seed=3), randn(3, 4, seed=4)
    left[:, 2], right[:, 2] = 0.0, 0.0
    left[0, 2], right[1, 2] = 1.0, 1.0
    down = randn(2, 3, seed=5)
    down[:, 0] = 0.0  # no weight
    left[1] = 0.0  # no partner
    assert unused_inputs(QuadraticMap(BilinearTensor(down, left, right))).unused.tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_one_entry_of_the_linear_part_or_of_one_branch_is_use() -> None:
    f = blind_to([4])
    slope = f.linear.clone()
    slope[1, 4] = 1e-30
    assert not bool(unused_inputs(QuadraticMap(f.tensor, slope)).unused[4])
    right = f.tensor.right.clone()
    right[3, 4] = 1e-200
    found = unused_inputs(QuadraticMap(BilinearTensor(f.tensor.down, f.tensor.left, right)))
    assert not bool(found.unused[4])
    left = f.tensor.left.clone()
    left[3, 4] = 1e-200
    found = unused_inputs(QuadraticMap(BilinearTensor(f.tensor.down, left, f.tensor.right)))
    assert not bool(found.unused[4])


def test_what_underflows_is_not_called_zero() -> None:
    """A row of 1e-200, whose square is no number, and a row of 1e-400, which is none itself."""
    rows = torch.tensor([[1.0, 1e-200]], dtype=torch.float64)
    f = QuadraticMap(BilinearTensor(vector(1e-200)[None], rows, rows))
    found = unused_inputs(f)
    assert not bool(found.unused.any())
    assert found.quadratic[0, 0] == pytest.approx(1e-200, rel=1e-12)
    assert found.rounding[0, 0] < 1e-210
    assert found.undecided.tolist() == [False, True]


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("branch", ["left", "right", "both"])
def test_cancelling_terms_are_undecided_at_zero_and_decided_above_rounding(
    scale: int, branch: str
) -> None:
    """Two neurons that cancel exactly on paper, written with different scales."""
    f, one = blind_to([4]), torch.ones(3, 1, dtype=torch.float64)
    left, right = randn(1, 7, seed=6), randn(1, 7, seed=7)
    if branch != "both":
        (right if branch == "left" else left)[:, 4] = 0.0
    twin = QuadraticMap(
        BilinearTensor(
            torch.cat([f.tensor.down, one, -one], dim=1),
            torch.cat([f.tensor.left, left, left / scale]),
            torch.cat([f.tensor.right, right, right * scale]),
        ),
        f.linear,
    )
    found = unused_inputs(twin)
    assert found.undecided.tolist() == [False] * 4 + [True] + [False] * 2
    assert not bool(found.unused.any())
    assert unused_inputs(twin, 1e-9).unused.tolist() == [False] * 4 + [True] + [False] * 2


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    f = random_map(seed=7, d_in=11)
    whole = unused_inputs(f)
    monkeypatch.setattr("bilens.certify.input_use.BLOCK_BYTES", 1)
    torch.testing.assert_close(unused_inputs(f).quadratic, whole.quadratic)


def test_bad_arguments_of_input_use_are_refused() -> None:
    with pytest.raises(UsageError, match="f is a QuadraticForm"):
        unused_inputs(random_map().form(randn(3)))
    with pytest.raises(UsageError, match="tolerance must be a finite number"):
        unused_inputs(random_map(), -1.0)
    big = QuadraticMap(BilinearTensor(1e300 * randn(1, 2), 1e10 * randn(2, 3), randn(2, 3)))
    with pytest.raises(NonFiniteError, match="lengths of left and right"):
        unused_inputs(big)
