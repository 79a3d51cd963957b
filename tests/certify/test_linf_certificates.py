"""Bounds in the ℓ∞ norm: nothing flips inside, the attack's example flips, both in their order."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from bilens import certify
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.certify.inputs import RadiusStatus
from bilens.certify.linf_certificates import LinfRadius
from builders import randn, random_map
from strategies import maps


def bounded(f: QuadraticMap, num: int = 20, seed: int = 7) -> tuple[Tensor, Tensor, LinfRadius]:
    x = randn(num, f.sizes.d_in, seed=seed)
    label = f(x).argmax(dim=1)
    return x, label, certify.linf_radius(f, x, label, torch.Generator().manual_seed(0))


def margin(f: QuadraticMap, x: Tensor, label: Tensor) -> Tensor:
    y = f(x)
    own = y.gather(-1, label[..., None])
    return (own - y.scatter(-1, label[..., None], -torch.inf)).amin(dim=-1)


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
    record = certify.linf_radius(f, x, [0], torch.Generator().manual_seed(0))
    assert float(record.radius[0]) == pytest.approx(1.0, rel=1e-12)
    assert float(record.upper[0]) == pytest.approx(1.0, rel=1e-9)


def test_a_bowl_that_is_never_zero_is_never_reached() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    down = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()
    f = QuadraticMap(BilinearTensor(down, eye, eye), None, torch.tensor([1.0, 0.0]).double())
    record = certify.linf_radius(f, randn(2, 3), [0, 0], torch.Generator().manual_seed(0))
    assert bool(record.upper.isinf().all())
    assert record.status == (RadiusStatus.NO_EXAMPLE,) * 2


def test_lost_and_bad_rows_are_flagged() -> None:
    f = random_map(2, 3, 6, 5)
    x = randn(3, 5, seed=7)
    label = f(x).argmax(dim=1)
    label[0] = (label[0] + 1) % 3
    x[1, 0] = torch.inf
    record = certify.linf_radius(f, x, label, torch.Generator().manual_seed(0))
    assert record.status[0] is RadiusStatus.MISCLASSIFIED
    assert record.status[1] is RadiusStatus.NOT_FINITE
    assert float(record.radius[0]) == 0
    assert float(record.upper[0]) == 0
    assert bool(record.radius[1].isnan())
    assert float(record.radius[2]) > 0


def test_the_same_seed_gives_the_same_answer_and_more_restarts_no_worse_one() -> None:
    f = random_map(2, 5, 20, 30)
    x, label, record = bounded(f)
    again = certify.linf_radius(f, x, label, torch.Generator().manual_seed(0))
    assert torch.equal(record.upper, again.upper)
    few = certify.linf_radius(f, x, label, torch.Generator().manual_seed(0), restarts=1)
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
