"""Squared norms in any scale and way of writing, and their rounding within its bound."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gram.inner_products import (
    no_negative,
    squared_norm_rounding,
    squared_norms,
    squared_norms_in_float32,
)
from bilens.base.errors import NonFiniteError, ShapeError
from builders import randn
from odd_tensors import REFUSED, SOUND, Odd
from strategies import SCALES, entries, rotations, tensors

FIRST = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)
SLOTS = ("weights", "left", "right")


def dense_gram(first: Tensor, second: Tensor) -> Tensor:
    return torch.einsum("oij,pij->op", first, second)


@given(tensors(), st.data(), SCALES)
def test_norms_do_not_see_how_a_tensor_is_written(
    b: BilinearTensor, data: st.DataObject, scale: float
) -> None:
    """Swapped branches, neurons in another order and in another scale, a turned input."""
    turn = data.draw(rotations(b.sizes.d_in))
    order = data.draw(st.permutations(range(b.sizes.d_hidden)))
    expected = squared_norms(b.down, b.left, b.right)
    for twin in (
        squared_norms(b.down, b.right, b.left),
        squared_norms(b.down[:, order], b.left[order], b.right[order]),
        squared_norms(b.down / scale, b.left * scale, b.right),
        squared_norms(b.down, b.left @ turn, b.right @ turn),
    ):
        torch.testing.assert_close(twin, expected, rtol=1e-10, atol=1e-10)


def exact_norm(weights: Tensor, left: Tensor, right: Tensor) -> Fraction:
    """‖Q‖_F² in rational numbers, so without any rounding."""
    w, first, second = (
        [[Fraction(value) for value in row] for row in part.tolist()]
        for part in (weights, left, right)
    )
    total, d_in = Fraction(0), len(first[0])
    for i in range(d_in):
        for j in range(d_in):
            entry = sum(
                weight * (a[i] * b[j] + a[j] * b[i]) / 2
                for weight, a, b in zip(w[0], first, second, strict=True)
            )
            total += entry * entry
    return total


@given(entries(1, 4), entries(4, 3), entries(4, 3), st.integers(-40, 0))
def test_rounding_stays_within_its_bound(
    weights: Tensor, left: Tensor, right: Tensor, exponent: int
) -> None:
    """Also where the terms cancel, so that nearly all of the squared norm is rounding."""
    tiny = 2.0**exponent
    weights = torch.cat([weights / 7, -weights / 7 * (1 + tiny)], dim=1)
    left, right = torch.cat([left / 3, right]), torch.cat([right, left / 3])
    exact = exact_norm(weights, left, right)
    error = abs(Fraction(float(squared_norms(weights, left, right)[0])) - exact)
    assert error <= Fraction(float(squared_norm_rounding(weights, left, right)[0]))


def test_the_bound_on_rounding_is_what_its_formula_says() -> None:
    """eps (in + hidden + 16) (Σ |w| ‖l‖ ‖r‖)² with in = 2, hidden = 2, mass 2·5·1 + 1·1·2 = 12."""
    weights = torch.tensor([[2.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    left = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    right = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    expected = [20 * torch.finfo(torch.float64).eps * 144, 0.0]
    assert squared_norm_rounding(weights, left, right).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-150, 1e-70, 1e70, 1e150])
def test_norms_hold_where_products_of_rows_would_not(scale: float) -> None:
    """(1e150 x)(1e150 y) is beyond float64; the weight 1e-300 brings it back."""
    weights, left, right = FIRST
    scaled = squared_norms(weights / scale / scale, left * scale, right * scale)
    torch.testing.assert_close(scaled, squared_norms(weights, left, right))


def test_norms_that_float64_cannot_hold_are_refused() -> None:
    weights, left, right = FIRST
    with pytest.raises(NonFiniteError, match="of row 0 of weights is beyond float64: rescale"):
        squared_norms(weights * 1e200, left * 1e200, right)


def test_directions_and_units_of_zeros_have_no_norm() -> None:
    weights, left, right = (part.clone() for part in FIRST)
    weights[0], left[1] = 0.0, 0.0
    found = squared_norms(weights, left, right)
    assert float(found[0]) == 0.0
    dense = oracles.dense_tensor(weights, left, right)
    torch.testing.assert_close(found, dense_gram(dense, dense).diagonal())


def test_weights_may_be_more_precise_than_the_branches() -> None:
    weights, left, right = FIRST
    mixed = squared_norms(weights, left.float(), right.float())
    assert torch.equal(mixed, squared_norms(weights, left.float().double(), right.float().double()))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_argument_is_refused_by_its_name(odd: Odd, slot: str) -> None:
    parts = dict(zip(SLOTS, FIRST, strict=True))
    parts[slot] = odd.of(parts[slot])
    for function in (squared_norms, squared_norm_rounding):
        with pytest.raises(odd.error, match=odd.message) as caught:
            function(**parts)
        assert str(caught.value).startswith(f"{slot} ")


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_argument_changes_nothing(odd: Odd, slot: str) -> None:
    parts = dict(zip(SLOTS, FIRST, strict=True))
    parts[slot] = odd.of(parts[slot])
    torch.testing.assert_close(squared_norms(**parts), squared_norms(*FIRST))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (4, 5), (4, 5)),
        ((2, 4), (4, 5), (4, 6)),
        ((0, 4), (4, 5), (4, 5)),
        ((2, 0), (0, 5), (0, 5)),
        ((2, 4), (4, 0), (4, 0)),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_or_are_empty_are_refused(
    shapes: tuple[tuple[int, int], ...],
) -> None:
    with pytest.raises(ShapeError, match=r"do not fit: expected \(num, hidden\) and twice"):
        squared_norms(*(randn(*shape) for shape in shapes))


def test_a_rounding_error_below_zero_becomes_zero() -> None:
    values = torch.tensor([-1e-17, 0.0, 2.0], dtype=torch.float64)
    assert no_negative(values).tolist() == [0.0, 0.0, 2.0]


def balanced_float32(seed: int, num: int, hidden: int, d_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and rows as the solvers hand them over: |w| and lengths at most 1."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(2, hidden, d_in, generator=generator)).unbind()
    left, right = (part / (1.001 * part.norm(dim=1, keepdim=True)) for part in (left, right))
    weights = torch.randn(num, hidden, generator=generator).double()
    return weights / weights.abs().amax(), left, right


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 5), (4, 600, 40), (2, 30, 300), (2100, 9, 3)])
@pytest.mark.parametrize("cancelling", [1.0, 1e-3, 0.0])
def test_norms_in_float32_are_within_their_bound(
    shape: tuple[int, int, int], cancelling: float
) -> None:
    weights, left, right = balanced_float32(sum(shape), *shape)
    left, right = torch.cat([left, left]), torch.cat([right, right])
    weights = torch.cat([weights, (cancelling - 1) * weights], dim=1)
    found = squared_norms_in_float32(weights, left, right)
    assert found is not None
    exact, rounding = (
        squared_norms(weights, left, right),
        squared_norm_rounding(weights, left, right),
    )
    assert bool(((found[0] - exact).abs() <= found[1] + rounding).all())
    assert bool((found[1] <= 2e-4 * weights.abs().sum(dim=1).square()).all())


def test_the_bound_in_float32_holds_where_every_rounding_goes_one_way() -> None:
    """Equal rows of positive entries: errors add up instead of cancelling."""
    row = torch.full((600, 1000), 0.9 / 1000**0.5)
    weights = torch.full((1, 600), 0.7, dtype=torch.float64)
    found = squared_norms_in_float32(weights, row, row)
    assert found is not None
    norms, bound = found
    exact = squared_norms(weights, row, row)
    assert bool(((norms - exact).abs() <= bound).all())


def test_the_bound_in_float32_does_not_depend_on_the_order_of_the_units() -> None:
    """They are worked on in blocks of 512."""
    weights, left, right = balanced_float32(1, 2, 1100, 40)
    weights = weights * torch.logspace(0, -3, 1100).double()
    found = squared_norms_in_float32(weights, left, right)
    turned = squared_norms_in_float32(weights.flip(1), left.flip(0), right.flip(0))
    assert found is not None
    assert turned is not None
    torch.testing.assert_close(found[1], turned[1], rtol=1e-3, atol=0)


def test_products_with_fewer_digits_than_float32_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an option of torch makes them: rounded to bfloat16 before they are summed."""
    weights, left, right = balanced_float32(0, 3, 20, 12)
    exact = Tensor.__matmul__

    def coarse(a: Tensor, b: Tensor) -> Tensor:
        return (
            exact(a.bfloat16().float(), b.bfloat16().float())
            if a.dtype == torch.float32
            else exact(a, b)
        )

    monkeypatch.setattr(Tensor, "__matmul__", coarse)
    assert squared_norms_in_float32(weights, left, right) is None
