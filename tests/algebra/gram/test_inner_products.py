"""Inner products of outputs and squared norms: in any scale, within their rounding, in blocks."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gram import inner_products, kernel
from bilens.algebra.gram.inner_products import (
    input_gram,
    output_gram,
    outputs_traces,
    paired_inner,
    squared_norm_rounding,
    squared_norms,
    squared_norms_in_float32,
)
from bilens.algebra.gram.kernel import WORK_BYTES, block_bytes, blocks, rows_within
from bilens.base.errors import NonFiniteError, ShapeError
from builders import randn, seeded
from odd_tensors import LOW_PRECISION, REFUSED, SOUND, Odd
from strategies import SCALES, entries, rotations, tensors

FIRST = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)
SECOND = randn(3, 6, seed=4), randn(6, 5, seed=5), randn(6, 5, seed=6)


def dense_gram(first: Tensor, second: Tensor) -> Tensor:
    return torch.einsum("oij,pij->op", first, second)


@pytest.mark.usefixtures("block")
def test_two_heads_on_one_pair_of_branches_are_compared_by_symmetry_too() -> None:
    down, left, right = FIRST
    other = randn(3, 4, seed=9)
    expected = dense_gram(
        oracles.dense_tensor(down, left, right), oracles.dense_tensor(other, left, right)
    )
    torch.testing.assert_close(output_gram(down, left, right, other, left, right), expected)


def test_the_gram_matrix_of_a_layer_with_itself_is_symmetric_to_the_last_bit() -> None:
    for ours in (output_gram(*SECOND, *SECOND), input_gram(*SECOND)):
        assert torch.equal(ours, ours.T)


def test_along_given_directions_the_input_gram_matrix_is_the_projected_one() -> None:
    directions = randn(3, 5, seed=7)
    whole = oracles.input_gram(oracles.dense_tensor(*FIRST))
    torch.testing.assert_close(input_gram(*FIRST, directions), directions @ whole @ directions.T)


@given(tensors(), st.data(), SCALES)
def test_the_input_gram_matrix_does_not_see_how_a_tensor_is_written(
    b: BilinearTensor, data: st.DataObject, scale: float
) -> None:
    turn = data.draw(rotations(b.sizes.d_in))
    expected = input_gram(b.down, b.left, b.right)
    torch.testing.assert_close(
        input_gram(b.down / scale, b.right, b.left * scale), expected, rtol=1e-10, atol=1e-9
    )
    turned = input_gram(b.down, b.left @ turn, b.right @ turn)
    torch.testing.assert_close(turned, turn.T @ expected @ turn, rtol=1e-10, atol=1e-9)


SLOTS = ("weights", "left", "right")


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
        with pytest.raises(odd.error, match=rf"^{slot} .*({odd.message})"):
            function(**parts)


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


def balanced_float32(seed: int, num: int, hidden: int, d_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and rows as the solvers hand them over: |w| and lengths at most 1."""
    generator = seeded(seed)
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
    norms, bound = found
    exact = squared_norms(weights, row, row)
    assert bool(((norms - exact).abs() <= bound).all())


def test_the_bound_in_float32_does_not_depend_on_the_order_of_the_units() -> None:
    """They are worked on in blocks of 512."""
    weights, left, right = balanced_float32(1, 2, 1100, 40)
    weights = weights * torch.logspace(0, -3, 1100).double()
    found = squared_norms_in_float32(weights, left, right)
    turned = squared_norms_in_float32(weights.flip(1), left.flip(0), right.flip(0))
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


@pytest.mark.usefixtures("block")
def test_the_size_of_the_blocks_changes_nothing() -> None:
    first, second = oracles.dense_tensor(*FIRST), oracles.dense_tensor(*SECOND)
    torch.testing.assert_close(output_gram(*FIRST, *SECOND), dense_gram(first, second))
    torch.testing.assert_close(output_gram(*FIRST, *FIRST), dense_gram(first, first))
    torch.testing.assert_close(input_gram(*FIRST), oracles.input_gram(first))
    torch.testing.assert_close(squared_norms(*SECOND), dense_gram(second, second).diagonal())
    torch.testing.assert_close(
        paired_inner(SECOND[0][:2], *SECOND[1:], *FIRST), dense_gram(second[:2], first).diagonal()
    )
    torch.testing.assert_close(outputs_traces(*SECOND), oracles.traces(second))


@pytest.mark.usefixtures("block")
def test_gradients_do_not_see_the_blocks() -> None:
    factors = [part.clone().requires_grad_() for part in FIRST]
    dense = oracles.dense_tensor(*factors)
    for ours, theirs in (
        (output_gram(*factors, *factors), dense_gram(dense, dense)),
        (squared_norms(*factors), dense_gram(dense, dense).diagonal()),
        (input_gram(*factors), oracles.input_gram(dense)),
    ):
        found = torch.autograd.grad(ours.sin().sum(), factors, retain_graph=True)
        expected = torch.autograd.grad(theirs.sin().sum(), factors, retain_graph=True)
        torch.testing.assert_close(found, expected)


def flops_of(call: Callable[[], object]) -> int:
    """Operations of the matrix products of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_symmetry_saves_close_to_half_of_the_work() -> None:
    """8 · in · hidden² operations between two layers.

    With itself, of 64 blocks of 4 products each: 28 above the diagonal, 8 of 3 products on it.
    """
    left, right, down = randn(160, 50, seed=1), randn(160, 50, seed=2), randn(1, 160)
    whole = flops_of(lambda: output_gram(down, left, right, down, left.clone(), right))
    half = flops_of(lambda: output_gram(down, left, right, down, left, right))
    assert whole == pytest.approx(8 * 50 * 160**2, rel=0.05)
    assert half == pytest.approx((28 * 4 + 8 * 3) / (64 * 4) * whole, rel=0.02)
    assert flops_of(lambda: squared_norms(down, left, right)) == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_factors_give_float64_and_are_read_exactly(dtype: torch.dtype) -> None:
    low = tuple(part.to(dtype) for part in FIRST)
    exact = tuple(part.double() for part in low)
    torch.testing.assert_close(squared_norms(*low), squared_norms(*exact), rtol=0, atol=0)
    torch.testing.assert_close(input_gram(*low), input_gram(*exact), rtol=0, atol=0)
    torch.testing.assert_close(output_gram(*low, *low), output_gram(*exact, *exact), rtol=0, atol=0)
    torch.testing.assert_close(outputs_traces(*low), outputs_traces(*exact), rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 100, 5_000, 30_000, 100_000])
def test_blocks_stay_within_their_budget(width: int) -> None:
    rows = rows_within(width)
    assert 8 * (rows * width + 8 * rows**2) <= WORK_BYTES
    assert 8 * ((rows + 1) * width + 8 * (rows + 1) ** 2) > WORK_BYTES  # and use it


@pytest.mark.parametrize(("hidden", "d_in"), [(28_672, 8192), (10**6, 64), (131_072, 1024)])
def test_blocks_take_a_small_part_of_a_huge_layer(hidden: int, d_in: int) -> None:
    factors = 8 * hidden * 3 * d_in
    assert block_bytes(hidden, 9 * d_in) <= max(WORK_BYTES, 0.08 * factors)


@given(st.integers(0, 20), st.integers(1, 7), st.integers(0, 20))
def test_blocks_cover_everything_once_and_in_order(length: int, size: int, start: int) -> None:
    covered = [index for part in blocks(length, size, start) for index in range(length)[part]]
    assert covered == list(range(start, length))
    assert all(part.stop - part.start <= size for part in blocks(length, size, start))


@pytest.fixture(params=[1, 2, 3, 4, 100])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of every size, those that do not divide the hidden units too."""
    for module in (inner_products, kernel):
        for name in ("block_size", "rows_within"):
            monkeypatch.setattr(module, name, lambda *_: request.param, raising=False)
    size: int = request.param
    return size
