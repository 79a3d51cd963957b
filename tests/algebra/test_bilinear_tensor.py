"""The bilinear tensor: everything read from factors equals the dense definition, gradients too."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.target import accurate_norm
from bilens.base.errors import MemoryLimitError, ShapeError
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_tensor
from odd_tensors import LOW_PRECISION, REFUSED, SOUND, Odd

SLOTS = ("down", "left", "right")
OTHER = random_tensor(seed=7, d_hidden=6)


def dense(tensor: BilinearTensor) -> Tensor:
    return oracles.dense_tensor(tensor.down, tensor.left, tensor.right)


# name: (from factors, from the dense tensor)
CONTRACT: dict[str, tuple[Callable[[BilinearTensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "dense": (lambda b: b.dense(), lambda t: t),
    "norm": (lambda b: b.norm(), oracles.norm),
    "traces": (lambda b: b.traces(), oracles.traces),
    "gram": (lambda b: b.gram(), lambda t: torch.einsum("oij,pij->op", t, t)),
    "gram with another": (
        lambda b: b.gram(OTHER),
        lambda t: torch.einsum("oij,pij->op", t, dense(OTHER)),
    ),
    "inner with itself": (lambda b: b.inner(b), lambda t: oracles.inner(t, t)),
    "inner with another": (lambda b: b.inner(OTHER), lambda t: oracles.inner(t, dense(OTHER))),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONTRACT)
def test_what_is_read_from_factors_equals_the_dense_definition(name: str, seed: int) -> None:
    factored, from_dense = CONTRACT[name]
    tensor = random_tensor(seed)
    torch.testing.assert_close(factored(tensor), from_dense(dense(tensor)))


@pytest.mark.slow
def test_norms_and_inner_products_of_many_outputs_need_no_array_of_all_pairs_of_them() -> None:
    """An (out, out) array of 10⁶ outputs would take 8 TB."""
    ones = torch.ones(10**6, 1)
    many = BilinearTensor(ones, torch.ones(1, 1), torch.ones(1, 1))
    assert float(many.norm()) == 1000.0
    assert float(many.inner(many)) == 10.0**6
    assert accurate_norm(ones.double(), *torch.ones(2, 1, 1).double()) == 1000.0


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", CONTRACT)
def test_gradients_equal_those_of_the_dense_definition(name: str, slot: str) -> None:
    factored, from_dense = CONTRACT[name]
    factor = getattr(random_tensor(), slot).clone().requires_grad_()
    tensor = replace(random_tensor(), **{slot: factor})
    (ours,) = torch.autograd.grad(factored(tensor).sin().sum(), factor)
    (theirs,) = torch.autograd.grad(from_dense(dense(tensor)).sin().sum(), factor)
    torch.testing.assert_close(ours, theirs)


def test_a_tensor_knows_its_sizes() -> None:
    tensor = random_tensor()
    sizes = tensor.sizes
    assert ">sizes</th>" in tensor._repr_html_()
    assert (sizes.d_out, sizes.d_hidden, sizes.d_in) == (D_OUT, D_HIDDEN, D_IN)


def test_a_tensor_cannot_be_changed_after_its_checks() -> None:
    with pytest.raises(FrozenInstanceError):
        random_tensor().left = randn(D_HIDDEN, D_IN)


def test_the_norm_of_what_only_rounding_keeps_from_zero_is_no_nan() -> None:
    """(l, r) with weight 1 and (r, l) with weight −1 cancel: B = 0, up to rounding."""
    left, right = randn(1, 50, seed=1) / 3, randn(1, 50, seed=2) / 7
    tensor = BilinearTensor(
        torch.tensor([[1.0, -1.0]], dtype=torch.float64),
        torch.cat([left, right]),
        torch.cat([right, left]),
    )
    assert 0 <= float(tensor.norm()) < 1e-7


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_factor_is_refused_by_its_name(odd: Odd, slot: str) -> None:
    tensor = random_tensor()
    with pytest.raises(odd.error, match=rf"^{slot} .*({odd.message})"):
        replace(tensor, **{slot: odd.of(getattr(tensor, slot))})


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_factor_changes_nothing(odd: Odd, slot: str) -> None:
    tensor = random_tensor()
    same = replace(tensor, **{slot: odd.of(getattr(tensor, slot))})
    torch.testing.assert_close(same.dense(), tensor.dense())


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_norms_of_low_precision_factors_are_computed_in_float64(dtype: torch.dtype) -> None:
    tensor = BilinearTensor(*(getattr(random_tensor(), slot).to(dtype) for slot in SLOTS))
    exact = BilinearTensor(*(getattr(tensor, slot).double() for slot in SLOTS))
    assert tensor.norm().dtype is torch.float64
    assert float(tensor.norm()) == float(exact.norm())
    assert tensor.dense().dtype is dtype


def test_a_norm_that_float32_could_not_hold_does_not_overflow() -> None:
    """(1e20)² is beyond float32; ‖B‖ = 1e20 · 1e10 · 1 = 1e30 for one unit product."""
    one = torch.ones(1, 1, dtype=torch.float32)
    assert float(BilinearTensor(1e20 * one, 1e10 * one, one).norm()) == pytest.approx(1e30)


@pytest.mark.parametrize(
    ("down", "left", "right"),
    [
        ((3, 4), (5, 6), (5, 6)),
        ((3, 4), (4, 6), (4, 5)),
        ((3, 4), (4, 6), (5, 6)),
        ((4, 3), (4, 6), (4, 6)),
    ],
)
def test_factors_that_do_not_fit_are_refused_with_their_shapes(
    down: tuple[int, int], left: tuple[int, int], right: tuple[int, int]
) -> None:
    with pytest.raises(ShapeError, match=r"do not fit: expected \(out, hidden\)") as caught:
        BilinearTensor(randn(*down), randn(*left), randn(*right))
    assert all(str(shape) in str(caught.value) for shape in (down, left, right))


def test_what_does_not_fit_is_refused() -> None:
    for sizes in ((0, 4, 5), (3, 0, 5), (3, 4, 0)):
        d_out, d_hidden, d_in = sizes
        with pytest.raises(ShapeError, match="every axis needs an entry"):
            BilinearTensor(randn(d_out, d_hidden), randn(d_hidden, d_in), randn(d_hidden, d_in))
    for slot in SLOTS:
        tensor = random_tensor()
        with pytest.raises(
            ShapeError, match=r"must share dtype and device, got .*float32.*\.to\(\)"
        ):
            replace(tensor, **{slot: getattr(tensor, slot).float()})
    tensor = random_tensor()
    with pytest.raises(ShapeError, match="read 5 and 6 inputs"):
        tensor.gram(random_tensor(d_in=6))
    with pytest.raises(ShapeError, match="have 3 and 2 outputs"):
        tensor.inner(random_tensor(d_out=2))


def test_a_dense_tensor_beyond_the_limit_is_refused_with_the_factored_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2 arrays of 3 · 5 · 5 float64 are 1200 bytes."""
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1199")
    with pytest.raises(MemoryLimitError, match=r"dense \(3, 5, 5\) tensor .*form\(u\)"):
        random_tensor().dense()
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1200")
    assert random_tensor().dense().shape == (3, 5, 5)
