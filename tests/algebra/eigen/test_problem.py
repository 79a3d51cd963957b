"""What the solvers are given: the forms of a map or a single one, in a dtype they can work in.

Broken once: `usable` left out of the weights; a row of NaN stood among the weights of the others.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.eigen.problem import Problem, problem_of_form, problem_of_map, widened
from bilens.algebra.quadratic_map import QuadraticMap
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, random_tensor


def matrix(problem: Problem, index: int) -> Tensor:
    left, right = problem.left.double(), problem.right.double()
    return oracles.dense_weighted(left, right, problem.weights[index])


def test_each_row_is_the_form_along_its_direction() -> None:
    f, rows = random_map(), randn(4, D_OUT)
    problem = problem_of_map(f, rows)
    assert (problem.num, problem.d_hidden, problem.d_in) == (4, D_HIDDEN, D_IN)
    assert bool(problem.usable.all())
    for c, row in enumerate(rows):
        form, terms = f.form(row), problem.terms(c)
        torch.testing.assert_close(matrix(problem, c), form.dense())
        torch.testing.assert_close(terms.linear, form.linear)
        torch.testing.assert_close(terms.constant, form.constant)
        assert terms.basis == form.basis
        balanced = problem.balanced().one(c)
        torch.testing.assert_close(balanced.units[0] * balanced.dense(0), form.dense())


def test_a_single_form_is_a_batch_of_one() -> None:
    form = random_map().form(randn(D_OUT))
    problem = problem_of_form(form)
    assert problem.num == 1
    torch.testing.assert_close(matrix(problem, 0), form.dense())
    assert torch.equal(problem.linear[0], form.linear)


def test_terms_that_a_map_does_not_have_are_zero() -> None:
    problem = problem_of_map(QuadraticMap(random_tensor()), randn(4, D_OUT))
    assert problem.linear.shape == (4, D_IN)
    assert problem.constant.shape == (4,)
    assert not bool(problem.linear.any() or problem.constant.any())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e308])
def test_a_row_that_cannot_be_used_is_zeros_and_leaves_the_others_alone(value: float) -> None:
    """1e308 times the factors overflows."""
    f, rows = random_map().compose_output(10 * torch.eye(D_OUT).double()), randn(3, D_OUT)
    good = problem_of_map(f, rows)
    rows[1] = value
    problem = problem_of_map(f, rows)
    assert problem.usable.tolist() == [True, False, True]
    for part in ("weights", "linear", "constant"):
        assert not bool(getattr(problem, part)[1].any())
        assert torch.equal(getattr(problem, part)[[0, 2]], getattr(good, part)[[0, 2]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_factors_keep_their_dtype_where_a_solver_can_work_in_it(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    factor = randn(3, 4).to(dtype)
    assert widened(factor).dtype is expected
    assert torch.equal(widened(factor).double(), factor.double())  # nothing is rounded


def test_weights_are_float64_whatever_the_dtype_of_the_map() -> None:
    """A class-centred direction cancels a lot: in float16 nothing of it would be left."""
    f = random_map().to(torch.float16)
    problem = problem_of_map(f, randn(2, D_OUT))
    assert problem.weights.dtype is problem.linear.dtype is problem.constant.dtype is torch.float64
    torch.testing.assert_close(problem.weights, randn(2, D_OUT) @ f.tensor.down.double())


def test_no_gradient_is_kept() -> None:
    f = random_map().compose_input(torch.eye(D_IN).double().requires_grad_())
    for problem in (
        problem_of_map(f, randn(2, D_OUT).requires_grad_()),
        problem_of_form(f.form(randn(D_OUT))),
    ):
        assert not any(p.requires_grad for p in vars(problem).values() if isinstance(p, Tensor))


def test_without_directions_every_output_is_read_as_it_is() -> None:
    f = random_map()
    plain, along = problem_of_map(f), problem_of_map(f, torch.eye(D_OUT))
    for part in ("weights", "linear", "constant", "usable"):
        assert torch.equal(getattr(plain, part), getattr(along, part))
