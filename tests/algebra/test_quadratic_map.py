"""The quadratic map: evaluation, forms, and every way of composing it with affine maps."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, random_tensor
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, REFUSED, SOUND, WRONG_AXES, Odd

X = randn(2, 4, D_IN, seed=31)
Z = randn(2, 4, 2, seed=32)  # an input of the space before an embedding of width 2
EMBED, SHIFT = randn(D_IN, 2, seed=33), randn(D_IN, seed=34)
HEAD, OFFSET = randn(6, D_OUT, seed=35), randn(6, seed=36)
LEFT_BIAS, RIGHT_BIAS = randn(D_HIDDEN, seed=37), randn(D_HIDDEN, seed=38)


def dense_value(f: QuadraticMap, x: Tensor) -> Tensor:
    b = f.tensor
    return oracles.evaluate_map(b.down, b.left, b.right, f.linear, f.constant, x)


@pytest.fixture(params=["linear and constant", "linear", "constant", "neither"])
def f(request: pytest.FixtureRequest) -> QuadraticMap:
    """A map whose affine parts are there or not."""
    full = random_map()
    return QuadraticMap(
        full.tensor,
        full.linear if "linear" in request.param else None,
        full.constant if "constant" in request.param else None,
    )


def test_a_value_equals_the_dense_definition(f: QuadraticMap) -> None:
    torch.testing.assert_close(f(X), dense_value(f, X))


@pytest.mark.parametrize("part", ["down", "left", "right", "linear", "constant"])
def test_the_gradient_of_a_value_equals_that_of_the_dense_definition(part: str) -> None:
    full = random_map()
    owner = full if part in ("linear", "constant") else full.tensor
    parameter = getattr(owner, part).clone().requires_grad_()
    changed = replace(owner, **{part: parameter})
    f = changed if isinstance(changed, QuadraticMap) else replace(full, tensor=changed)
    (ours,) = torch.autograd.grad(f(X).sin().sum(), parameter)
    (theirs,) = torch.autograd.grad(dense_value(f, X).sin().sum(), parameter)
    torch.testing.assert_close(ours, theirs)


def test_a_form_reads_the_map_along_a_direction(f: QuadraticMap) -> None:
    u = randn(D_OUT, seed=39)
    torch.testing.assert_close(f.form(u)(X), dense_value(f, X) @ u)


@pytest.mark.parametrize("output", range(D_OUT))
def test_a_one_hot_direction_reads_one_output(f: QuadraticMap, output: int) -> None:
    one_hot = torch.eye(D_OUT)[output]  # float32, as a user would write it
    torch.testing.assert_close(f.form(one_hot)(X), f(X)[..., output])


# name: (the composed map, the function that it must be, its input)
COMPOSED: dict[str, tuple[Callable[[QuadraticMap], QuadraticMap], Callable[..., Tensor], Tensor]]
COMPOSED = {
    "compose_input": (lambda f: f.compose_input(EMBED), lambda f, z: f(z @ EMBED.T), Z),
    "compose_input with bias": (
        lambda f: f.compose_input(EMBED, SHIFT),
        lambda f, z: f(z @ EMBED.T + SHIFT),
        Z,
    ),
    "compose_output": (lambda f: f.compose_output(HEAD), lambda f, x: f(x) @ HEAD.T, X),
    "compose_output with bias": (
        lambda f: f.compose_output(HEAD, OFFSET),
        lambda f, x: f(x) @ HEAD.T + OFFSET,
        X,
    ),
    "with_biases": (
        lambda f: f.with_biases(LEFT_BIAS, RIGHT_BIAS),
        lambda f, x: (
            f(x)
            - QuadraticMap(f.tensor)(x)
            + oracles.layer(x, f.tensor.left, f.tensor.right, LEFT_BIAS, RIGHT_BIAS)
            @ f.tensor.down.T
        ),
        X,
    ),
    "plus_affine": (
        lambda f: f.plus_affine(randn(D_OUT, D_IN, seed=40), randn(D_OUT, seed=41)),
        lambda f, x: f(x) + x @ randn(D_OUT, D_IN, seed=40).T + randn(D_OUT, seed=41),
        X,
    ),
    "plus_affine of nothing": (lambda f: f.plus_affine(), lambda f, x: f(x), X),
    "sum": (
        lambda f: f + random_map(seed=8, d_hidden=7),
        lambda f, x: f(x) + random_map(seed=8, d_hidden=7)(x),
        X,
    ),
    "sum with a purely bilinear map": (
        lambda f: f + QuadraticMap(random_tensor(seed=8)),
        lambda f, x: f(x) + QuadraticMap(random_tensor(seed=8))(x),
        X,
    ),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_map_is_the_composed_function(name: str, f: QuadraticMap) -> None:
    compose, function, x = COMPOSED[name]
    torch.testing.assert_close(compose(f)(x), function(f, x))


@pytest.mark.parametrize("name", COMPOSED)
def test_composing_leaves_the_map_as_it_was(name: str) -> None:
    f = random_map()
    before = f(X)
    COMPOSED[name][0](f)
    assert torch.equal(f(X), before)


@pytest.mark.parametrize("part", ["linear", "constant"])
@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT, WRONG_AXES], ids=str)
def test_an_odd_part_is_refused_by_its_name(odd: Odd, part: str) -> None:
    f = random_map()
    with pytest.raises(odd.error, match=rf"^{part} .*({odd.message})"):
        replace(f, **{part: odd.of(getattr(f, part))})


# name: (what is called, the good argument, the name in the message)
ARGUMENTS: dict[str, tuple[Callable[[QuadraticMap, Tensor], object], Tensor, str]] = {
    "form": (lambda f, u: f.form(u), randn(D_OUT), "output_direction"),
    "compose_input": (lambda f, e: f.compose_input(e), EMBED, "matrix"),
    "compose_input bias": (lambda f, e: f.compose_input(EMBED, e), SHIFT, "bias"),
    "compose_output": (lambda f, u: f.compose_output(u), HEAD, "matrix"),
    "compose_output bias": (lambda f, p: f.compose_output(HEAD, p), OFFSET, "constant"),
    "with_biases left": (lambda f, b: f.with_biases(b, RIGHT_BIAS), LEFT_BIAS, "left_bias"),
    "with_biases right": (lambda f, b: f.with_biases(LEFT_BIAS, b), RIGHT_BIAS, "right_bias"),
    "plus_affine linear": (lambda f, b: f.plus_affine(b), randn(D_OUT, D_IN), "linear"),
    "plus_affine constant": (lambda f, c: f.plus_affine(None, c), randn(D_OUT), "constant"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_argument_is_refused_by_its_name(odd: Odd, name: str) -> None:
    call, good, slot = ARGUMENTS[name]
    with pytest.raises(odd.error, match=rf"^{slot} .*({odd.message})"):
        call(random_map(), odd.of(good))


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_argument_is_taken(odd: Odd, name: str) -> None:
    call, good, _ = ARGUMENTS[name]
    assert call(random_map(), odd.of(good)) is not None


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "form"])
def test_an_argument_of_another_dtype_is_refused(name: str) -> None:
    call, good, slot = ARGUMENTS[name]
    with pytest.raises(ShapeError, match=rf"{slot} has dtype torch.float32 .*use {slot}\.to\("):
        call(random_map(), good.float())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_another_size_is_refused_with_the_expected_one(name: str) -> None:
    call, good, _ = ARGUMENTS[name]
    with pytest.raises(ShapeError, match=r"expected|pass a vector \(3,\), or the number"):
        call(random_map(), torch.cat([good, good], dim=good.ndim - 1).repeat_interleave(2, dim=0))


def test_what_is_no_map_or_overflows_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"maps 5 → 3 .* and 6 → 3 .* cannot be added"):
        random_map() + random_map(d_in=6)
    with pytest.raises(ShapeError, match=r"float64\) and 5 → 3 \(torch.float32"):
        random_map() + random_map().to(torch.float32)
    for other in (1, 1.0, None, "g", randn(3)):
        with pytest.raises(TypeError, match="unsupported operand"):
            random_map() + other
    for tensor in ([1], None, randn(3, 5, 5)):
        with pytest.raises(
            UsageError, match=r"^tensor is a \w+; expected BilinearTensor: use Bilin"
        ):
            QuadraticMap(tensor)
    # 1e200 · 1e200 is beyond float64 although both are finite.
    f = random_map().compose_output(1e200 * torch.eye(D_OUT, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="weight holds 4 non-finite"):
        f.form(torch.full((D_OUT,), 1e200, dtype=torch.float64))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_a_map_can_be_read_in_another_dtype(dtype: torch.dtype, f: QuadraticMap) -> None:
    low = f.to(dtype)
    assert low.dtype is dtype
    assert low(X.to(dtype)).dtype is dtype
    assert low.form(torch.ones(D_OUT)).linear.dtype is dtype


def test_a_detached_map_is_cut_from_the_graph(f: QuadraticMap) -> None:
    live = QuadraticMap(
        replace(f.tensor, left=f.tensor.left.clone().requires_grad_()), f.linear, f.constant
    )
    assert live(X).requires_grad
    assert not live.detach()(X).requires_grad
    assert torch.equal(live.detach()(X), f(X))


def test_maps_are_subtracted_and_multiplied_by_numbers() -> None:
    f, g, x = random_map(0), random_map(1, d_hidden=4), randn(7, D_IN)
    torch.testing.assert_close((f - g)(x), f(x) - g(x))
    torch.testing.assert_close((2 * f)(x), 2 * f(x))
    torch.testing.assert_close((f * -0.5)(x), -f(x) / 2)
    torch.testing.assert_close((3 * f.form(1))(x), 3 * f(x)[:, 1])
    two, q, r = torch.tensor(2.0), f.form(0), g.form(0)
    torch.testing.assert_close((two * f / 4)(x), f(x) / 2)
    torch.testing.assert_close((q - r + q)(x), 2 * q(x) - r(x))
    torch.testing.assert_close((-q / two)(x), q(x) / -2)
    with pytest.raises(UsageError, match=r"of 5 inputs, .* and of 4 inputs, .* cannot be added"):
        q + random_map(d_in=4).form(0)
    assert (f - f).tensor.norm() < 1e-12 * f.tensor.norm()
    assert (2 * f).device == f.form(0).device == torch.device("cpu")
    for other in ("2", True, randn(2), None):
        for one in (f, q):
            with pytest.raises(TypeError, match=r"multiply|unsupported operand"):
                other * one
    with pytest.raises(TypeError, match="unsupported operand"):
        f - 1
    with pytest.raises(NonFiniteError, match="down holds"):
        float("nan") * f


def test_a_number_reads_one_output() -> None:
    f, x = random_map(), randn(7, D_IN)
    torch.testing.assert_close(f.form(2)(x), f(x)[:, 2])
    for wrong in (D_OUT, -1):
        with pytest.raises(UsageError, match=r"there is no output -?\d: the map has 0 to 2"):
            f.form(wrong)
    for odd in (True, 1.0):
        with pytest.raises(ShapeError, match=r"output_direction is a \w+; a torch.Tensor was exp"):
            f.form(odd)
    with pytest.raises(ShapeError, match=r"is '2'; a map knows no names of outputs: pass"):
        f.form("2")
