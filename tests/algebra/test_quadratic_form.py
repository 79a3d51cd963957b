"""One output direction: q(x) and its measures equal the dense definition, gradients too.

Broken once: `x @ self.linear` dropped from `__call__`; the linear term was missed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.base.errors import ShapeError, UsageError
from builders import D_IN, form_of, randn, random_map
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, SOUND, WRONG_AXES, Odd

U = randn(3, seed=11)
X = randn(2, 4, D_IN, seed=12)


def make(seed: int = 0) -> QuadraticForm:
    return random_map(seed).form(U)


def dense(form: QuadraticForm) -> Tensor:
    return oracles.dense_weighted(form.matrix.left, form.matrix.right, form.matrix.weight)


OTHER = make(seed=3)
CONTRACT: dict[str, tuple[Callable[[QuadraticForm], Tensor], Callable[[QuadraticForm], Tensor]]] = {
    "value": (lambda q: q(X), lambda q: oracles.evaluate_form(dense(q), q.linear, q.constant, X)),
    "matvec": (lambda q: q.matvec(X), lambda q: X @ dense(q)),
    "trace": (lambda q: q.trace(), lambda q: oracles.traces(dense(q)[None])[0]),
    "norm": (lambda q: q.norm(), lambda q: oracles.norm(dense(q))),
    "inner": (lambda q: q.inner(OTHER), lambda q: oracles.inner(dense(q), dense(OTHER))),
    "dense": (lambda q: q.dense(), dense),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONTRACT)
def test_what_is_read_from_factors_equals_the_dense_definition(name: str, seed: int) -> None:
    factored, from_dense = CONTRACT[name]
    torch.testing.assert_close(factored(make(seed)), from_dense(make(seed)))


@pytest.mark.parametrize("part", ["left", "right", "weight", "linear", "constant"])
def test_the_gradient_of_a_value_equals_that_of_the_dense_definition(part: str) -> None:
    owner = make() if part in ("linear", "constant") else make().matrix
    parameter = getattr(owner, part).clone().requires_grad_()
    changed = replace(owner, **{part: parameter})
    form = changed if isinstance(changed, QuadraticForm) else replace(make(), matrix=changed)
    factored, from_dense = CONTRACT["value"]
    (ours,) = torch.autograd.grad(factored(form).sin().sum(), parameter)
    (theirs,) = torch.autograd.grad(from_dense(form).sin().sum(), parameter)
    torch.testing.assert_close(ours, theirs)


def test_the_gradient_in_x_is_twice_the_product_plus_the_linear_term() -> None:
    """∇(xᵀQx + b·x) = 2Qx + b."""
    form, x = make(), X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(form(x).sum(), x)
    torch.testing.assert_close(gradient, 2 * form.matvec(X) + form.linear)


def test_an_input_without_a_batch_gives_one_number() -> None:
    assert make()(X[0, 0]).shape == ()


@pytest.mark.parametrize("part", ["linear", "constant"])
@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT, WRONG_AXES], ids=str)
def test_an_odd_part_is_refused_by_its_name(odd: Odd, part: str) -> None:
    with pytest.raises(odd.error, match=odd.message) as caught:
        replace(make(), **{part: odd.of(getattr(make(), part))})
    assert str(caught.value).startswith(f"{part} ")


@pytest.mark.parametrize("part", ["linear", "constant"])
def test_mixed_dtypes_are_refused(part: str) -> None:
    with pytest.raises(ShapeError, match=rf"{part} has dtype torch.float32 .*torch.float64"):
        replace(make(), **{part: getattr(make(), part).float()})


def test_a_matrix_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(UsageError, match=r"matrix is a Tensor; expected InteractionMatrix: use"):
        replace(make(), matrix=torch.eye(5))


@pytest.mark.parametrize("other", [1, None, torch.eye(5)])
def test_an_inner_product_needs_two_of_a_kind(other: object) -> None:
    f, form = random_map(), make()
    for read, words in (
        (form.inner, "expected QuadraticForm: use QuadraticMap.form"),
        (form.matrix.inner, "expected InteractionMatrix: use the matrix of a form"),
        (f.tensor.inner, "expected BilinearTensor: use the tensor of a map"),
    ):
        with pytest.raises(UsageError, match=rf"^other is a \w+; {words}"):
            read(other)
    with pytest.raises(UsageError, match="expected BilinearTensor"):
        f.tensor.gram(1)


def test_a_linear_term_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match="linear has 6 entries, the matrix reads 5 inputs"):
        replace(make(), linear=randn(6))


@pytest.mark.parametrize("method", ["__call__", "matvec"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (randn(2, 6), r"has shape \(2, 6\); expected \(\.\.\., 5\): flatten images"),
        (randn(2, 28, 28), r"has shape \(2, 28, 28\); .* flatten images to one row of pixels"),
        (randn(1)[0], r"has shape \(\); expected"),
        (randn(5).float(), r"dtype torch.float32, the factors have torch.float64: use x\.to\("),
        (
            randn(5).long(),
            r"torch.int64, the factors have torch.float64: use x\.to\([a-z0-9.]*\)\.$",
        ),
        ([1.0, 2.0, 3.0, 4.0, 5.0], r"is a list; a torch.Tensor .*torch.as_tensor\(x, dtype="),
        (randn(5).numpy(), "is a ndarray; a torch.Tensor was expected"),
    ],
    ids=["width", "images", "scalar", "float32", "integers", "list", "numpy"],
)
def test_an_input_that_does_not_fit_is_refused(method: str, x: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        getattr(make(), method)(x)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_input_changes_nothing(odd: Odd) -> None:
    torch.testing.assert_close(make()(odd.of(X)), make()(X))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_a_form_can_be_read_in_another_dtype(dtype: torch.dtype) -> None:
    form = make().to(dtype)
    assert form(X.to(dtype)).dtype is dtype
    assert form.norm().dtype is torch.float64


def test_a_detached_form_is_cut_from_the_graph() -> None:
    form = replace(make(), linear=make().linear.requires_grad_())
    assert form(X).requires_grad
    assert not form.detach()(X).requires_grad


def test_the_form_of_a_given_matrix_is_that_matrix() -> None:
    """`form_of`: left = I, right = Q, weight = 1 is ½(Q + Qᵀ)."""
    q = randn(4, 4)
    torch.testing.assert_close(form_of(q).dense(), (q + q.T) / 2)
