"""Output directions, and a map written through the forms of given ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.testing import assert_close

import oracles
from bilens.algebra.directions import (
    centred_directions,
    contrast_direction,
    dual_expression,
    from_centred_basis,
    in_centred_basis,
    output_form,
    outputs_of,
    raw_directions,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, random_tensor
from odd_tensors import LOW_PRECISION, REFUSED, Odd
from peak_memory import Largest
from planted import dense_of
from strategies import maps


@pytest.mark.parametrize("d_out", [1, 2, 10])
def test_raw_directions_read_the_outputs_as_they_are(d_out: int) -> None:
    y = randn(d_out)
    assert torch.equal(raw_directions(d_out) @ y, y)


@pytest.mark.parametrize("d_out", [1, 2, 10])
def test_centred_directions_read_each_output_against_the_mean(d_out: int) -> None:
    y = randn(d_out)
    torch.testing.assert_close(centred_directions(d_out) @ y, y - y.mean())


def test_a_contrast_reads_one_output_against_another() -> None:
    y = randn(4)
    assert float(contrast_direction(4, 3, 1) @ y) == float(y[3] - y[1])


def test_a_contrast_of_many_outputs_needs_no_array_of_all_pairs_of_them() -> None:
    """An (out, out) array of 10⁶ outputs would take 8 TB."""
    direction = contrast_direction(10**6, 999_999, 0)
    assert direction.nonzero().flatten().tolist() == [0, 999_999]


def test_directions_are_float64() -> None:
    made = raw_directions(2), centred_directions(2), contrast_direction(2, 0, 1)
    assert {direction.dtype for direction in made} == {torch.float64}


def test_some_rows_of_the_directions_are_those_of_all() -> None:
    for directions in (raw_directions, centred_directions):
        assert torch.equal(directions(5, [3, 0]), directions(5)[[3, 0]])


@pytest.mark.parametrize("outputs", [None, [2, 0], [1]])
@pytest.mark.parametrize("centred", [True, False])
def test_the_map_of_some_outputs_is_that_along_their_directions(
    outputs: list[int] | None, centred: bool
) -> None:
    f = random_map()
    rows = (centred_directions if centred else raw_directions)(D_OUT, outputs)
    expected, found = f.compose_output(rows), outputs_of(f, outputs, centred=centred)
    x = randn(4, D_IN, seed=1)
    assert_close(found(x), expected(x))
    form, along = output_form(found, 0), f.form(rows[0])
    for mine, theirs in ((form(x), along(x)), (form.dense(), along.dense())):
        assert_close(mine, theirs)
    assert found.tensor.left is f.tensor.left


def test_a_map_without_affine_terms_has_forms_without_them() -> None:
    form = output_form(QuadraticMap(random_tensor()), 1)
    assert float(form.linear.norm()) == float(form.constant) == 0


def test_the_centred_basis_spans_the_centred_outputs() -> None:
    eye = QuadraticMap(random_tensor(d_out=5), constant=randn(5, seed=3))
    rows = from_centred_basis(torch.eye(4, dtype=torch.float64))  # the basis itself
    assert_close(rows @ rows.T, torch.eye(4, dtype=torch.float64))
    assert_close(rows.T @ rows, centred_directions(5))
    x = randn(3, D_IN, seed=2)
    assert_close(in_centred_basis(eye)(x), eye(x) @ rows.T)
    assert in_centred_basis(replace(eye, basis="embedding")).basis == "embedding"


def test_no_array_of_outputs_by_outputs_is_made() -> None:
    wide = random_map(d_out=300)
    with Largest() as seen:
        outputs_of(wide, centred=True)
        outputs_of(wide, [1, 7], centred=True)
        from_centred_basis(in_centred_basis(wide).constant[None])
    assert seen.numel <= 300 * max(D_IN, D_HIDDEN)


def test_bad_numbers_of_outputs_and_indices_are_refused() -> None:
    for d_out in (0, -1, 2.0, True, "3", None):
        for directions in (raw_directions, centred_directions):
            with pytest.raises(UsageError, match="d_out must be an integer of at least 1"):
                directions(d_out)
    for positive, negative in ((0, 3), (3, 0), (1, 1)):
        with pytest.raises(UsageError, match=rf"between 0 and 2, got {positive} and {negative}"):
            contrast_direction(3, positive, negative)
    for index in (-1, 1.0, True, "1", None):
        with pytest.raises(UsageError, match=f"between 0 and 2, got {index!r} and 2"):
            contrast_direction(3, index, 2)
        with pytest.raises(UsageError, match=f"between 0 and 2, got 2 and {index!r}"):
            contrast_direction(3, 2, index)
    with pytest.raises(UsageError, match=r"^d_out must be an integer of at least 1"):
        contrast_direction(0, 0, 1)
    with pytest.raises(UsageError, match=r"^d_out must be an integer of at least 2"):
        in_centred_basis(random_map(d_out=1))


def test_an_integer_of_numpy_is_one() -> None:
    direction = contrast_direction(np.int64(3), np.int32(1), np.uint8(2))
    assert direction.tolist() == [0.0, 1.0, -1.0]


MAP = random_map()
DENSE = dense_of(MAP)


@pytest.mark.parametrize("num", range(1, 6))
def test_the_sum_is_that_of_the_definition(num: int) -> None:
    """3 outputs: fewer directions lose a part, more are dependent and lose nothing."""
    u = randn(num, D_OUT, seed=7)
    found = dual_expression(MAP, u)
    summed = oracles.dual_sum(DENSE, u)
    assert_close(dense_of(found.map), summed)
    assert_close(found.duals, torch.linalg.pinv(u))
    expected = float(oracles.norm(DENSE - summed) / oracles.norm(DENSE))
    assert found.relative_error == pytest.approx(expected, abs=1e-12)
    assert found.rank == min(num, D_OUT)
    assert found.condition == pytest.approx(float(torch.linalg.cond(u)))


@pytest.mark.parametrize("num", [D_OUT, D_OUT + 2])
def test_directions_that_span_the_outputs_lose_nothing(num: int) -> None:
    found = dual_expression(MAP, randn(num, D_OUT, seed=3))
    assert (found.relative_error, found.linear_error, found.constant_error) == (0.0, 0.0, 0.0)
    x = randn(4, D_IN, seed=9)
    assert_close(found.map(x), MAP(x))
    summed = torch.stack([form(x) for form in found.forms], dim=1) @ found.duals.T
    assert_close(summed, MAP(x))


def test_linear_and_constant_terms_are_measured_too() -> None:
    u = randn(2, D_OUT, seed=4)
    found = dual_expression(MAP, u)
    keep = torch.linalg.pinv(u) @ u
    for error, part in ((found.linear_error, MAP.linear), (found.constant_error, MAP.constant)):
        assert error == pytest.approx(float((part - keep @ part).norm() / part.norm()))
    assert_close(found.map.linear, keep @ MAP.linear)
    assert_close(found.map.constant, keep @ MAP.constant)


@pytest.mark.parametrize(("num", "holds"), [(1, True), (3, True), (4, False)])
def test_duals_are_biorthogonal_only_to_independent_directions(num: int, holds: bool) -> None:
    u = randn(num, D_OUT, seed=5)
    found = dual_expression(MAP, u)
    assert found.biorthogonal is holds
    gap = (u @ found.duals - torch.eye(num, dtype=torch.float64)).abs().max()
    assert (float(gap) < 1e-10) is holds


def test_class_centred_directions_lose_the_mean_of_the_outputs() -> None:
    found = dual_expression(MAP, centred_directions(D_OUT))
    assert found.rank == D_OUT - 1
    assert not found.biorthogonal
    lost = DENSE.mean(dim=0).expand_as(DENSE)
    assert found.relative_error == pytest.approx(float(lost.norm() / DENSE.norm()))


@given(maps(), st.integers(1, 6), st.integers(0, 1000))
def test_any_map_is_itself_where_the_directions_span_its_outputs(
    f: QuadraticMap, more: int, seed: int
) -> None:
    u = randn(f.sizes.d_out + more, f.sizes.d_out, seed=seed)
    found = dual_expression(f, u)
    assert_close(dense_of(found.map), dense_of(f), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_the_scale_of_directions_does_not_matter(scale: float) -> None:
    u = randn(2, D_OUT, seed=4)
    found = dual_expression(QuadraticMap(random_tensor()), scale * u)
    assert_close(found.duals * scale, torch.linalg.pinv(u))
    assert found.rank == 2


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_maps_are_expressed_in_float64(dtype: torch.dtype) -> None:
    f = MAP.to(dtype)
    found = dual_expression(f, randn(2, D_OUT).to(dtype))
    assert found.map.dtype is torch.float64
    assert found.duals.dtype is torch.float64


@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_odd_directions_are_refused_by_name(odd: Odd) -> None:
    with pytest.raises(odd.error, match=rf"^directions .*({odd.message})"):
        dual_expression(MAP, odd.of(randn(2, D_OUT)))


def test_directions_that_do_not_fit_or_read_nothing_are_refused() -> None:
    for shape in ((2, D_OUT + 1), (0, D_OUT)):
        with pytest.raises(ShapeError, match=rf"expected \(num, {D_OUT}\)"):
            dual_expression(MAP, torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(UsageError, match="every direction is zero"):
        dual_expression(MAP, torch.zeros(2, D_OUT, dtype=torch.float64))


def test_there_is_no_array_of_all_pairs_of_outputs() -> None:
    f = random_map(d_out=300)
    with Largest() as seen:
        found = dual_expression(f, randn(2, 300))
    assert seen.numel <= 300 * D_IN
    assert 0.9 < found.relative_error < 1.0


def test_a_map_that_is_zero_loses_nothing() -> None:
    zero = random_tensor()
    f = QuadraticMap(type(zero)(0 * zero.down, zero.left, zero.right))
    assert dual_expression(f, randn(1, D_OUT)).relative_error == 0.0


def test_a_contrast_takes_the_names_of_classes() -> None:
    names = ("cat", "dog", "7")
    expected = contrast_direction(3, 2, 0)
    for positive, negative in (("7", "cat"), (2, 0), ("7", 0)):
        torch.testing.assert_close(contrast_direction(names, positive, negative), expected)
    with pytest.raises(UsageError, match="0 and 2, or of cat, dog, 7, got 'fox' and 0"):
        contrast_direction(names, "fox", 0)
    with pytest.raises(UsageError, match="got 'cat' and 0"):
        contrast_direction(3, "cat", 0)
