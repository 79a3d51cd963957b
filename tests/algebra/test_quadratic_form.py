"""Interaction matrices and quadratic forms."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from builders import D_HIDDEN, D_IN, form_of, randn, random_map
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, REFUSED, SOUND, WRONG_AXES, Odd

SLOTS = ("left", "right", "weight")
VECTORS = randn(2, 3, D_IN, seed=9)


def make(seed: int = 0, d_hidden: int = D_HIDDEN, d_in: int = D_IN) -> InteractionMatrix:
    return InteractionMatrix(
        randn(d_hidden, d_in, seed=3 * seed),
        randn(d_hidden, d_in, seed=3 * seed + 1),
        randn(d_hidden, seed=3 * seed + 2),
    )


def dense(matrix: InteractionMatrix) -> Tensor:
    return oracles.dense_weighted(matrix.left, matrix.right, matrix.weight)


OTHER = make(seed=5, d_hidden=7)
CONTRACT: dict[str, tuple[Callable[[InteractionMatrix], Tensor], Callable[[Tensor], Tensor]]] = {
    "dense": (lambda m: m.dense(), lambda q: q),
    "matvec": (lambda m: m.matvec(VECTORS), lambda q: VECTORS @ q.T),
    "evaluate": (
        lambda m: m.evaluate(VECTORS),
        lambda q: oracles.evaluate_form(q, torch.zeros_like(q[0]), q.new_zeros(()), VECTORS),
    ),
    "trace": (lambda m: m.trace(), lambda q: oracles.traces(q[None])[0]),
    "squared norm": (lambda m: m.squared_norm(), lambda q: oracles.norm(q) ** 2),
    "inner": (lambda m: m.inner(OTHER), lambda q: oracles.inner(q, dense(OTHER))),
}


@pytest.mark.parametrize("d_hidden", [1, 4, 9])
@pytest.mark.parametrize("name", CONTRACT)
def test_what_is_read_from_factors_equals_the_dense_definition(name: str, d_hidden: int) -> None:
    factored, from_dense = CONTRACT[name]
    matrix = make(d_hidden=d_hidden)
    torch.testing.assert_close(factored(matrix), from_dense(dense(matrix)))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", CONTRACT)
def test_gradients_equal_those_of_the_dense_definition(name: str, slot: str) -> None:
    factored, from_dense = CONTRACT[name]
    factor = getattr(make(), slot).clone().requires_grad_()
    matrix = replace(make(), **{slot: factor})
    (ours,) = torch.autograd.grad(factored(matrix).sin().sum(), factor)
    (theirs,) = torch.autograd.grad(from_dense(dense(matrix)).sin().sum(), factor)
    torch.testing.assert_close(ours, theirs)


def test_the_matrix_is_symmetric_to_the_last_bit() -> None:
    q = make().dense()
    assert torch.equal(q, q.T)


def test_a_matrix_knows_its_sizes() -> None:
    matrix = make()
    assert (matrix.d_in, matrix.d_hidden) == (D_IN, D_HIDDEN)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_factor_is_refused_by_its_name(odd: Odd, slot: str) -> None:
    with pytest.raises(odd.error, match=rf"^{slot} .*({odd.message})"):
        replace(make(), **{slot: odd.of(getattr(make(), slot))})


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_factor_changes_nothing(odd: Odd, slot: str) -> None:
    same = replace(make(), **{slot: odd.of(getattr(make(), slot))})
    torch.testing.assert_close(same.dense(), make().dense())


@pytest.mark.parametrize(
    ("left", "right", "weight"),
    [
        ((4, 5), (4, 6), (4,)),
        ((4, 5), (3, 5), (4,)),
        ((4, 5), (4, 5), (5,)),
        ((0, 5), (0, 5), (0,)),
        ((4, 0), (4, 0), (4,)),
    ],
)
def test_factors_that_do_not_fit_are_refused_with_their_shapes(
    left: tuple[int, int], right: tuple[int, int], weight: tuple[int]
) -> None:
    with pytest.raises(ShapeError, match=r"do not fit: expected \(hidden, in\) twice") as caught:
        InteractionMatrix(randn(*left), randn(*right), randn(*weight))
    assert all(str(shape) in str(caught.value) for shape in (left, right, weight))


def test_what_does_not_fit_is_refused() -> None:
    for slot in ("left", "right"):
        with pytest.raises(
            ShapeError, match=rf"{slot} has dtype torch.float32.*torch.float64 .*use"
        ):
            replace(make(), **{slot: getattr(make(), slot).float()})
    with pytest.raises(ShapeError, match="the forms read 5 and 6 inputs"):
        make().inner(make(d_in=6))
    for part in ("linear", "constant"):
        with pytest.raises(ShapeError, match=rf"{part} has dtype torch.float32 .*torch.float64"):
            replace(make_form(), **{part: getattr(make_form(), part).float()})
    with pytest.raises(UsageError, match=r"matrix is a Tensor; expected InteractionMatrix: use"):
        replace(make_form(), matrix=torch.eye(5))
    with pytest.raises(ShapeError, match="linear has 6 entries, the matrix reads 5 inputs"):
        replace(make_form(), linear=randn(6))
    for other in (1, None, torch.eye(5)):
        f, form = random_map(), make_form()
        for read, words in (
            (form.inner, "expected QuadraticForm: use QuadraticMap.form"),
            (form.matrix.inner, "expected InteractionMatrix: use the matrix of a form"),
            (f.tensor.inner, "expected BilinearTensor: use the tensor of a map"),
        ):
            with pytest.raises(UsageError, match=rf"^other is a \w+; {words}"):
                read(other)
        with pytest.raises(UsageError, match="expected BilinearTensor"):
            f.tensor.gram(1)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_a_matrix_can_be_read_in_another_dtype(dtype: torch.dtype) -> None:
    matrix = make().to(dtype)
    assert {matrix.left.dtype, matrix.right.dtype, matrix.weight.dtype} == {dtype}
    assert matrix.trace().dtype is torch.float64


def test_a_detached_matrix_is_cut_from_the_graph() -> None:
    matrix = replace(make(), left=make().left.requires_grad_())
    assert matrix.dense().requires_grad
    assert not matrix.detach().dense().requires_grad


def test_a_dense_matrix_beyond_the_limit_is_refused_with_the_factored_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 arrays of 5 · 5 float64 are 600 bytes."""
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "599")
    with pytest.raises(MemoryLimitError, match=r"dense \(5, 5\) interaction matrix .*use matvec"):
        make().dense()
    assert make().matvec(VECTORS).shape == VECTORS.shape


U = randn(3, seed=11)
X = randn(2, 4, D_IN, seed=12)


def make_form(seed: int = 0) -> QuadraticForm:
    return random_map(seed).form(U)


def dense_form(form: QuadraticForm) -> Tensor:
    return oracles.dense_weighted(form.matrix.left, form.matrix.right, form.matrix.weight)


OTHER_FORM = make_form(seed=3)
FORM_CONTRACT: dict[
    str, tuple[Callable[[QuadraticForm], Tensor], Callable[[QuadraticForm], Tensor]]
] = {
    "value": (
        lambda q: q(X),
        lambda q: oracles.evaluate_form(dense_form(q), q.linear, q.constant, X),
    ),
    "matvec": (lambda q: q.matvec(X), lambda q: X @ dense_form(q)),
    "trace": (lambda q: q.trace(), lambda q: oracles.traces(dense_form(q)[None])[0]),
    "norm": (lambda q: q.norm(), lambda q: oracles.norm(dense_form(q))),
    "inner": (
        lambda q: q.inner(OTHER_FORM),
        lambda q: oracles.inner(dense_form(q), dense_form(OTHER_FORM)),
    ),
    "dense": (lambda q: q.dense(), dense_form),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FORM_CONTRACT)
def test_what_is_read_from_factors_equals_the_dense_definition_of_a_form(
    name: str, seed: int
) -> None:
    factored, from_dense = FORM_CONTRACT[name]
    torch.testing.assert_close(factored(make_form(seed)), from_dense(make_form(seed)))


@pytest.mark.parametrize("part", ["left", "right", "weight", "linear", "constant"])
def test_the_gradient_of_a_value_equals_that_of_the_dense_definition(part: str) -> None:
    owner = make_form() if part in ("linear", "constant") else make_form().matrix
    parameter = getattr(owner, part).clone().requires_grad_()
    changed = replace(owner, **{part: parameter})
    form = changed if isinstance(changed, QuadraticForm) else replace(make_form(), matrix=changed)
    factored, from_dense = FORM_CONTRACT["value"]
    (ours,) = torch.autograd.grad(factored(form).sin().sum(), parameter)
    (theirs,) = torch.autograd.grad(from_dense(form).sin().sum(), parameter)
    torch.testing.assert_close(ours, theirs)


def test_the_gradient_in_x_is_twice_the_product_plus_the_linear_term() -> None:
    """∇(xᵀQx + b·x) = 2Qx + b."""
    form, x = make_form(), X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(form(x).sum(), x)
    torch.testing.assert_close(gradient, 2 * form.matvec(X) + form.linear)


def test_an_input_without_a_batch_gives_one_number() -> None:
    assert make_form()(X[0, 0]).shape == ()


@pytest.mark.parametrize("part", ["linear", "constant"])
@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT, WRONG_AXES], ids=str)
def test_an_odd_part_is_refused_by_its_name(odd: Odd, part: str) -> None:
    with pytest.raises(odd.error, match=rf"^{part} .*({odd.message})"):
        replace(make_form(), **{part: odd.of(getattr(make_form(), part))})


@pytest.mark.parametrize("method", ["__call__", "matvec"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (randn(2, 6), r"has shape \(2, 6\); expected \(\.\.\., 5\): flatten images"),
        (randn(2, 28, 28), r"has shape \(2, 28, 28\); .* flatten images to one row of pixels"),
        (randn(1)[0], r"has shape \(\); expected"),
        (randn(5).float(), r"dtype torch.float32; torch.float64 was expected: use x\.to\("),
        (randn(5).long(), r"torch.int64; torch.float64 was expected: use x\.to\([a-z0-9.]*\)\.$"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], r"is a list; a torch.Tensor .*torch.as_tensor\(x, dtype="),
        (randn(5).numpy(), "is a ndarray; a torch.Tensor was expected"),
    ],
    ids=["width", "images", "scalar", "float32", "integers", "list", "numpy"],
)
def test_an_input_that_does_not_fit_is_refused(method: str, x: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        getattr(make_form(), method)(x)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_input_changes_nothing(odd: Odd) -> None:
    torch.testing.assert_close(make_form()(odd.of(X)), make_form()(X))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_a_form_can_be_read_in_another_dtype(dtype: torch.dtype) -> None:
    form = make_form().to(dtype)
    assert form(X.to(dtype)).dtype is dtype
    assert form.norm().dtype is torch.float64


def test_a_detached_form_is_cut_from_the_graph() -> None:
    form = replace(make_form(), linear=make_form().linear.requires_grad_())
    assert form(X).requires_grad
    assert not form.detach()(X).requires_grad


def test_the_form_of_a_given_matrix_is_that_matrix() -> None:
    """`form_of`: left = I, right = Q, weight = 1 is ½(Q + Qᵀ)."""
    q = randn(4, 4)
    torch.testing.assert_close(form_of(q).dense(), (q + q.T) / 2)
