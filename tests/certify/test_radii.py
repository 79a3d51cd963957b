"""Certified radii in the ℓ₂ and ℓ∞ norms: no flip inside, a flip just outside, odd input."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize
from torch import Tensor

from bilens import certify
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NumericalError, ShapeError, UsageError
from bilens.certify.inputs import RadiusStatus
from bilens.certify.l2_certificates import L2Radius
from bilens.certify.linf_certificates import LinfRadius
from builders import randn, random_map, seeded, vector
from strategies import maps

SIZES = [(2, 1, 1), (3, 4, 5), (4, 3, 20), (10, 30, 12), (5, 40, 40)]


def certified(f: QuadraticMap, num: int = 40, seed: int = 7) -> tuple[Tensor, Tensor, L2Radius]:
    """Inputs with the labels that the map gives them, and their certificates."""
    x = randn(num, f.sizes.d_in, seed=seed)
    label = f(x).argmax(dim=1)
    return x, label, certify.l2_radius(f, x, label)


def margin(f: QuadraticMap, x: Tensor, label: Tensor) -> Tensor:
    """f_label − the largest other output."""
    y = f(x)
    own = y.gather(-1, label[..., None])
    return (own - y.scatter(-1, label[..., None], -torch.inf)).amin(dim=-1)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_example_flips_just_outside_and_is_no_farther_than_the_radius(
    sizes: tuple[int, int, int],
) -> None:
    f = random_map(3, *sizes)
    x, label, record = certified(f)
    assert {*record.status} <= {RadiusStatus.CERTIFIED, RadiusStatus.UNREACHABLE}
    found = record.radius.isfinite()
    assert bool(found.any())
    outside = x + (record.example - x) * (1 + 1e-6)
    assert bool((margin(f, outside, label)[found] < 0).all())
    assert bool((margin(f, record.example, label)[found] < 0).all())
    distance = (record.example - x).norm(dim=1)[found]
    assert bool((distance <= record.radius[found] * (1 + 1e-6)).all())
    assert bool((record.gap[found] < 1e-7).all())


@pytest.mark.parametrize("sizes", SIZES)
def test_random_points_inside_the_radius_never_flip(sizes: tuple[int, int, int]) -> None:
    f = random_map(5, *sizes)
    x, label, record = certified(f)
    radius = record.radius.clamp_max(1e3)
    for seed in range(50):
        step = randn(len(x), f.sizes.d_in, seed=seed)
        step = step / step.norm(dim=1, keepdim=True) * radius[:, None] * (1 - 1e-12)
        assert bool((margin(f, x + step, label) > 0).all())


@settings(max_examples=60)
@given(maps(), st.integers(0, 1000))
def test_no_random_point_and_no_attack_flips_any_map_inside(f: QuadraticMap, seed: int) -> None:
    if f.sizes.d_out < 2:
        return
    x, label, record = certified(f, num=4, seed=seed)
    radius = record.radius.clamp_max(1e3)[:, None] * (1 - 1e-9)
    step = radius * torch.nn.functional.normalize(randn(*x.shape, seed=seed), dim=1)
    noise = 1e-12 * (1 + f(x).abs().amax(dim=1)) * (1 + radius[:, 0]) ** 2
    for _ in range(20):
        assert bool((margin(f, x + step, label) > -noise)[record.radius > 0].all())
        point = (x + step).requires_grad_()
        (slope,) = torch.autograd.grad(margin(f, point, label).sum(), point)
        step = step - radius * torch.nn.functional.normalize(slope, dim=1)
        step = step * (radius / step.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1)


def test_the_radius_agrees_with_a_solver_started_from_many_points() -> None:
    """SLSQP on min ‖δ‖² subject to m ≤ 0, in 20 dimensions."""
    f = random_map(11, 3, 10, 20)
    x, label, record = certified(f, num=4)
    for row in range(4):
        own, best = int(label[row]), np.inf
        for rival in {0, 1, 2} - {own}:
            u = torch.zeros(3, dtype=torch.float64)
            u[own], u[rival] = 1, -1
            form = f.form(u)
            q, b, c = form.dense().numpy(), form.linear.numpy(), float(form.constant)
            start = x[row].numpy()

            def m(d: np.ndarray, q=q, b=b, c=c, start=start) -> float:
                z = start + d
                return float(z @ q @ z + b @ z + c)

            def slope(d: np.ndarray, q=q, b=b, start=start) -> np.ndarray:
                return -(2 * q @ (start + d) + b)

            limits = {"type": "ineq", "fun": lambda d, m=m: -m(d), "jac": slope}
            for seed in range(20):
                found = minimize(
                    lambda d: float(d @ d),
                    randn(20, seed=seed).numpy(),
                    jac=lambda d: 2 * d,
                    constraints=[limits],
                    method="SLSQP",
                    options={"ftol": 1e-15, "maxiter": 500},
                )
                if found.success and m(found.x) < 1e-9:
                    best = min(best, float(np.sqrt(found.fun)))
        assert float(record.radius[row]) == pytest.approx(best, rel=1e-6)


def test_one_preparation_serves_every_input() -> None:
    f = random_map(2, 4, 6, 9)
    x, label, record = certified(f)
    spectra = certify.prepare(f)
    assert len(spectra.contrasts) == 6
    prepared = certify.l2_radius(f, x, label, spectra)  # all pairs in one search
    torch.testing.assert_close(prepared.radius, record.radius, rtol=1e-9, atol=0)
    assert torch.equal(prepared.rival, record.rival)
    again = certify.l2_radius(f, x[3:5], label[3:5].tolist(), spectra)
    assert again.radius.tolist() == pytest.approx(record.radius[3:5].tolist(), rel=1e-9)
    with pytest.raises(UsageError, match="another map"):
        certify.l2_radius(random_map(1, 4, 6, 9), x, label, spectra)
    few = certify.prepare(f, [(3, 1)])
    with pytest.raises(UsageError, match="was not prepared"):
        certify.l2_radius(f, x, label, few)


def test_the_radius_against_each_rival_and_its_least() -> None:
    f = random_map(2, 4, 6, 9)
    _x, label, record = certified(f)
    own = record.per_rival.gather(1, label[:, None])
    assert bool(own.isinf().all())
    assert torch.equal(record.per_rival.amin(dim=1), record.radius)
    assert torch.equal(record.per_rival.argmin(dim=1), record.rival)


def linear_map(linear: Tensor, constant: Tensor) -> QuadraticMap:
    n = linear.shape[1]
    zero = torch.zeros(1, n, dtype=torch.float64)
    tensor = BilinearTensor(torch.zeros(len(linear), 1, dtype=torch.float64), zero, zero)
    return QuadraticMap(tensor, linear, constant)


def test_without_a_quadratic_part_it_is_the_distance_to_a_halfspace() -> None:
    f = linear_map(torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double(), torch.zeros(2).double())
    record = certify.l2_radius(f, torch.tensor([[1.0, 1.0]]).double(), [0])
    assert float(record.radius[0]) == pytest.approx(7 / 5, rel=1e-12)
    assert record.example[0].tolist() == pytest.approx([1 - 0.84, 1 - 1.12], rel=1e-9)


def test_equal_quadratic_parts_leave_a_halfspace() -> None:
    base = random_map(0, 1, 4, 5)
    twice = QuadraticMap(
        BilinearTensor(base.tensor.down.repeat(2, 1), base.tensor.left, base.tensor.right),
        torch.stack([base.linear[0], torch.zeros(5).double()]),
        torch.tensor([3.0, 0.0]).double(),
    )
    x = torch.zeros(1, 5).double()
    record = certify.l2_radius(twice, x, [0])
    assert float(record.radius[0]) == pytest.approx(3 / float(base.linear[0].norm()), rel=1e-9)


def test_a_rival_that_can_never_win_has_an_infinite_radius() -> None:
    n = 4
    eye = torch.eye(n, dtype=torch.float64)
    down = torch.stack([torch.ones(n), torch.zeros(n)]).double()
    f = QuadraticMap(BilinearTensor(down, eye, eye), None, torch.tensor([1.0, 0.0]).double())
    record = certify.l2_radius(f, randn(3, n), [0, 0, 0])
    assert record.radius.tolist() == [torch.inf] * 3
    assert record.status == (RadiusStatus.UNREACHABLE,) * 3
    assert record.rival.tolist() == [-1] * 3
    assert bool(record.example.isnan().all())


def test_inputs_that_are_lost_tied_or_not_finite_are_flagged_and_the_others_returned() -> None:
    f = random_map(2, 3, 6, 5)
    x = randn(4, 5, seed=7)
    label = f(x).argmax(dim=1)
    alone = certify.l2_radius(f, x[3:], label[3:])
    x[1, 2] = torch.nan
    label[0] = (label[0] + 1) % 3
    record = certify.l2_radius(f, x, label)
    assert record.status[0] is RadiusStatus.MISCLASSIFIED
    assert float(record.radius[0]) == 0
    assert torch.equal(record.example[0], x[0])
    assert record.status[1] is RadiusStatus.NOT_FINITE
    assert bool(record.radius[1].isnan())
    assert float(record.radius[3]) == pytest.approx(float(alone.radius[0]), rel=1e-9)
    torch.testing.assert_close(record.margin, margin(f, x, label), equal_nan=True)


def test_two_equal_outputs_are_tied() -> None:
    tensor = random_map(2, 2, 6, 5).tensor
    f = QuadraticMap(BilinearTensor(tensor.down[:1].repeat(2, 1), tensor.left, tensor.right))
    record = certify.l2_radius(f, randn(2, 5), [0, 1])
    assert record.radius.tolist() == [0, 0]
    assert record.status == (RadiusStatus.TIED,) * 2


@pytest.mark.parametrize("power", [-140, -60, 60, 140])
def test_the_unit_of_the_outputs_changes_nothing(power: int) -> None:
    f = random_map(3, 3, 6, 5)
    x, label, record = certified(f)
    scaled = f.compose_output(torch.eye(3).double() * 10.0**power)
    again = certify.l2_radius(scaled, x, label)
    assert torch.allclose(again.radius, record.radius, rtol=1e-8, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_and_inputs_of_any_floating_dtype_are_read_as_they_are(dtype: torch.dtype) -> None:
    f = random_map(3, 3, 6, 5).to(dtype)
    x = randn(5, 5).to(dtype)
    wide = f.to(torch.float64)
    label = wide(x.double()).argmax(dim=1)
    record, exact = certify.l2_radius(f, x, label), certify.l2_radius(wide, x.double(), label)
    assert torch.equal(record.radius, exact.radius)


def test_no_input_gives_an_empty_record() -> None:
    f = random_map(3, 3, 6, 5)
    record = certify.l2_radius(f, torch.zeros(0, 5).double(), [])
    assert record.example.shape == (0, 5)
    assert record.status == ()


def test_bad_arguments_are_refused_with_what_to_do() -> None:
    f = random_map(3, 3, 6, 5)
    x = randn(2, 5)
    with pytest.raises(UsageError, match=r"label\[1\] is 3; the map has outputs 0 to 2"):
        certify.l2_radius(f, x, [0, 3])
    with pytest.raises(ShapeError, match="label has shape"):
        certify.l2_radius(f, x, [0])
    with pytest.raises(ShapeError, match="integers were expected"):
        certify.l2_radius(f, x, [0.5, 1.0])
    with pytest.raises(ShapeError, match=r"expected \(rows, 5\)"):
        certify.l2_radius(f, randn(2, 4), [0, 0])
    with pytest.raises(ShapeError, match=r"expected \(rows, 5\)"):
        certify.l2_radius(f, x[0], [0])
    with pytest.raises(ShapeError, match=r"x\.double\(\)"):
        certify.l2_radius(f, torch.zeros(2, 5, dtype=torch.uint8), [0, 0])
    with pytest.raises(UsageError, match="one output"):
        certify.l2_radius(random_map(0, 1, 4, 5), x, [0, 0])
    with pytest.raises(UsageError, match="QuadraticMap"):
        certify.l2_radius("f", x, [0, 0])
    with pytest.raises(MemoryLimitError, match="pass fewer inputs"):
        certify.l2_radius(f, x, [0, 0], memory_limit=1000)
    with pytest.raises(MemoryLimitError, match="pairs"):
        certify.prepare(f, memory_limit=100)


def test_the_curve_counts_what_is_proven_beyond_each_radius() -> None:
    f = random_map(2, 3, 6, 5)
    x, label, record = certified(f)
    label = label.clone()
    label[0] = (label[0] + 1) % 3
    record = certify.l2_radius(f, x, label)
    levels = [0.0, float(record.radius.median()), 1e9]
    curve = certify.certified_accuracy(record, levels)
    assert curve.tolist() == pytest.approx([39 / 40, 0.5, 0.0], abs=0.026)
    assert float(curve[0]) == 39 / 40
    with pytest.raises(UsageError, match="negative"):
        certify.certified_accuracy(record, [-1.0])


def test_examples_clamped_to_the_box_show_their_true_margin() -> None:
    f = random_map(2, 3, 6, 5)
    x = torch.rand(20, 5, generator=seeded(0), dtype=torch.float64)
    label = f(x).argmax(dim=1)
    record = certify.l2_radius(f, x, label)
    found = certify.projected_margin(f, record)
    assert torch.allclose(found, margin(f, record.example.clamp(0, 1), label), equal_nan=True)
    assert bool((found > 0).any())
    assert bool((found < 0).any())


def bounded(f: QuadraticMap, num: int = 20, seed: int = 7) -> tuple[Tensor, Tensor, LinfRadius]:
    x = randn(num, f.sizes.d_in, seed=seed)
    label = f(x).argmax(dim=1)
    return x, label, certify.linf_radius(f, x, label, seeded(0))


@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 4, 5), (10, 30, 12), (4, 3, 20)])
def test_the_example_flips_and_the_bounds_are_in_order(sizes: tuple[int, int, int]) -> None:
    f = random_map(3, *sizes)
    x, label, record = bounded(f)
    found = record.upper.isfinite()
    assert bool(found.any())
    assert bool((margin(f, record.example, label)[found] < 0).all())
    size = (record.example - x).abs().amax(dim=1)
    assert torch.allclose(size[found], record.upper[found], rtol=1e-12)
    assert bool((record.radius <= record.upper).all())
    assert bool((record.radius > 0).all())


@pytest.mark.parametrize("seed", range(4))
def test_no_corner_inside_the_radius_flips(seed: int) -> None:
    """Where A is indefinite, corners of the box are where the bound is tried hardest."""
    f = random_map(seed, 3, 4, 5)
    x, label, record = bounded(f)
    corners = torch.tensor(list(product([-1.0, 0.0, 1.0], repeat=5)), dtype=torch.float64)
    radius = record.radius.clamp_max(1e6) * (1 - 1e-12)
    for corner in corners:
        assert bool((margin(f, x + radius[:, None] * corner, label) > -1e-12).all())


@settings(max_examples=60)
@given(maps(), st.integers(0, 1000))
def test_no_attack_gets_below_the_bound(f: QuadraticMap, seed: int) -> None:
    if f.sizes.d_out < 2:
        return
    x, _, record = bounded(f, num=4, seed=seed)
    assert bool((record.radius <= record.upper).all())
    assert bool((record.upper >= record.radius).all())
    assert len(record.status) == len(x)


def test_without_a_quadratic_part_the_bound_is_exact() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    f = QuadraticMap(
        BilinearTensor(torch.zeros(2, 1).double(), zero, zero),
        torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double(),
    )
    x = torch.tensor([[1.0, 1.0]]).double()
    record = certify.linf_radius(f, x, [0], seeded(0))
    assert float(record.radius[0]) == pytest.approx(1.0, rel=1e-12)
    assert float(record.upper[0]) == pytest.approx(1.0, rel=1e-9)


def test_a_bowl_that_is_never_zero_is_never_reached() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    down = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()
    f = QuadraticMap(BilinearTensor(down, eye, eye), None, torch.tensor([1.0, 0.0]).double())
    record = certify.linf_radius(f, randn(2, 3), [0, 0], seeded(0))
    assert bool(record.upper.isinf().all())
    assert record.status == (RadiusStatus.NO_EXAMPLE,) * 2


@pytest.mark.parametrize("slope", [1e-7, 3e-8])
def test_a_slope_far_below_the_diagonal_is_not_reached_later(slope: float) -> None:
    eye = torch.eye(5, dtype=torch.float64)
    down = torch.stack([vector(0, 0.6, 0.2, 0.8, 0.9), torch.zeros(5).double()])
    linear = torch.zeros(2, 5).double()
    linear[0, 0] = -slope
    f = QuadraticMap(BilinearTensor(down, eye, eye), linear, vector(1, 0))
    radius = float(certify.linf_radius(f, torch.zeros(1, 5).double(), [0]).radius[0])
    assert 1 - 1e-9 < radius * slope <= 1


@pytest.mark.parametrize("slope", [None, (-1e-170, 0.0)])
@pytest.mark.parametrize(("down", "branch"), [(-1e-170, 1.0), (-1.0, 1e-85), (-1.0, 1e-170)])
def test_what_vanishes_in_float64_is_not_nothing(
    down: float, branch: float, slope: tuple[float, float] | None
) -> None:
    """m(x) = c − a x² − b x with terms whose squares, or which themselves, are below float64."""
    rows = vector(branch)[None]
    tensor = BilinearTensor(vector(down, 0.0)[:, None], rows, rows)
    f = QuadraticMap(tensor, slope and vector(*slope)[:, None], vector(1e-170, 0.0))
    radius = float(certify.linf_radius(f, vector(0.0)[None], [0]).radius)
    a, b, c = (Fraction(x) for x in (-down, 1e-170 if slope else 0.0, 1e-170))
    at = Fraction(radius) if math.isfinite(radius) else Fraction(10) ** 200
    assert a * Fraction(branch) ** 2 * at**2 + b * at <= c


def test_a_map_beyond_float64_is_flagged_or_refused() -> None:
    tensor = BilinearTensor(1e99 * randn(2, 3), 1e150 * randn(3, 4), 1e150 * randn(3, 4, seed=1))
    f = QuadraticMap(tensor, constant=vector(1, 0))
    assert certify.linf_radius(f, randn(2, 4), [0, 1]).status == (RadiusStatus.NOT_FINITE,) * 2
    for radius in (certify.linf_radius, certify.l2_radius):
        with pytest.raises(NumericalError, match="outputs 0 against 1: it holds NaN or infinity"):
            radius(f, 1e-250 * randn(1, 4), [0])


def test_lost_and_bad_rows_are_flagged() -> None:
    f = random_map(2, 3, 6, 5)
    x = randn(3, 5, seed=7)
    label = f(x).argmax(dim=1)
    label[0] = (label[0] + 1) % 3
    x[1, 0] = torch.inf
    record = certify.linf_radius(f, x, label, seeded(0))
    assert record.status[0] is RadiusStatus.MISCLASSIFIED
    assert record.status[1] is RadiusStatus.NOT_FINITE
    assert float(record.radius[0]) == 0
    assert float(record.upper[0]) == 0
    assert bool(record.radius[1].isnan())
    assert float(record.radius[2]) > 0


def test_the_same_seed_gives_the_same_answer_and_more_restarts_no_worse_one() -> None:
    f = random_map(2, 5, 20, 30)
    x, label, record = bounded(f)
    again = certify.linf_radius(f, x, label, seeded(0))
    assert torch.equal(record.upper, again.upper)
    few = certify.linf_radius(f, x, label, seeded(0), restarts=1)
    assert bool((record.upper <= few.upper).all())


def test_bad_arguments_are_refused() -> None:
    f, x = random_map(2, 3, 6, 5), randn(2, 5)
    dice = torch.Generator()
    with pytest.raises(UsageError, match="restarts"):
        certify.linf_radius(f, x, [0, 0], dice, restarts=0)
    with pytest.raises(UsageError, match="steps"):
        certify.linf_radius(f, x, [0, 0], dice, steps=0)
    with pytest.raises(MemoryLimitError, match="pass fewer inputs"):
        certify.linf_radius(f, x, [0, 0], dice, memory_limit=100)
