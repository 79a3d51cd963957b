"""What a spectrum does not depend on: how a layer is written, and the axes of its input."""

from itertools import count

import mpmath
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.lanczos_solver import first_vector
from bilens.algebra.quadratic_map import QuadraticMap
from builders import seeded
from hostile_forms import FAMILIES, Dice
from strategies import entries, rotations, tensors

METHODS = st.sampled_from(["dense", "lanczos", "factored"])
SIZE = 12
ALWAYS_WIDE = ("wilkinson", "hidden_at_the_edge")


def narrow_map(family: str) -> QuadraticMap:
    """The first map of a family that is at most 12 wide."""
    for seed in count():
        dice = Dice(seeded(seed), lambda n: first_vector(n, 0))
        f = FAMILIES[family](dice, 2)
        if f.sizes.d_in <= SIZE:
            return f
    raise AssertionError("count has no end")


def all_values(tensor: BilinearTensor, method: str) -> Tensor:
    """The whole spectrum of each output, rising: no tie decides what is compared."""
    eigs = eigendecompose_all(QuadraticMap(tensor), k=None, method=method)
    return eigs.eigenvalues.sort(dim=1).values


def assert_same_spectra(first: BilinearTensor, second: BilinearTensor, method: str) -> None:
    here, there = all_values(first, method), all_values(second, method)
    lengths = first.left.norm(dim=1) * first.right.norm(dim=1)
    before = first.down.abs() @ lengths  # rounding is relative to the size before cancelling
    assert bool(((here - there).abs() <= 1e-12 * before[:, None]).all())


@given(tensors(SIZE), METHODS)
def test_left_and_right_can_be_swapped(tensor: BilinearTensor, method: str) -> None:
    assert_same_spectra(tensor, BilinearTensor(tensor.down, tensor.right, tensor.left), method)


@given(tensors(SIZE), METHODS, st.randoms(use_true_random=False))
def test_neurons_have_no_order(tensor: BilinearTensor, method: str, dice: object) -> None:
    order = list(range(tensor.sizes.d_hidden))
    dice.shuffle(order)
    shuffled = BilinearTensor(tensor.down[:, order], tensor.left[order], tensor.right[order])
    assert_same_spectra(tensor, shuffled, method)


@given(tensors(SIZE), METHODS, st.data())
def test_neurons_have_no_scale_of_their_own(
    tensor: BilinearTensor, method: str, data: st.DataObject
) -> None:
    """(α left, β right, s / αβ), α and β of either sign and up to 2^±100."""
    hidden = tensor.sizes.d_hidden
    powers = st.lists(st.integers(-100, 100), min_size=hidden, max_size=hidden)
    signs = st.lists(st.sampled_from([-1.5, -1.0, 1.0, 0.75]), min_size=hidden, max_size=hidden)
    alpha, beta = (
        torch.tensor(data.draw(signs)).double() * 2.0 ** torch.tensor(data.draw(powers)).double()
        for _ in range(2)
    )
    rescaled = BilinearTensor(
        tensor.down / (alpha * beta), alpha[:, None] * tensor.left, beta[:, None] * tensor.right
    )
    assert_same_spectra(tensor, rescaled, method)


@given(tensors(SIZE), METHODS, st.data())
def test_the_axes_of_the_input_can_be_turned(
    tensor: BilinearTensor, method: str, data: st.DataObject
) -> None:
    turn = data.draw(rotations(tensor.sizes.d_in))
    turned = BilinearTensor(tensor.down, tensor.left @ turn, tensor.right @ turn)
    assert_same_spectra(tensor, turned, method)


@given(tensors(SIZE), METHODS)
def test_the_spectrum_of_minus_a_form_is_minus_its_spectrum(
    tensor: BilinearTensor, method: str
) -> None:
    down = -tensor.down
    here = all_values(tensor, method)
    there = -all_values(BilinearTensor(down, tensor.left, tensor.right), method).flip(1)
    before = down.abs() @ (tensor.left.norm(dim=1) * tensor.right.norm(dim=1))
    assert bool(((here - there).abs() <= 1e-12 * before[:, None]).all())


@given(tensors(SIZE), METHODS, st.data())
def test_neurons_that_cancel_can_be_added(
    tensor: BilinearTensor, method: str, data: st.DataObject
) -> None:
    d_out, _, d_in = tensor.sizes
    left, right = data.draw(entries(2, d_in)), data.draw(entries(2, d_in))
    weights = data.draw(entries(d_out, 2))
    fuller = BilinearTensor(
        torch.cat([weights, tensor.down, -weights], dim=1),
        torch.cat([left, tensor.left, right]),
        torch.cat([right, tensor.right, left]),
    )
    here, there = all_values(fuller, method), all_values(tensor, method)
    before = fuller.down.abs() @ (fuller.left.norm(dim=1) * fuller.right.norm(dim=1))
    assert bool(((here - there).abs() <= 1e-12 * before[:, None]).all())


@pytest.mark.parametrize("method", ["lanczos", "factored", "dense"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ALWAYS_WIDE])
def test_values_are_right_to_fifty_digits(family: str, method: str) -> None:
    """Each returned value within the stated noise of an eigenvalue from mpmath, widths to 12."""
    f = narrow_map(family)
    eigs = eigendecompose_all(f, k=min(2, f.sizes.d_in), method=method)
    down, left, right = (
        part.double().tolist() for part in (f.tensor.down, f.tensor.left, f.tensor.right)
    )
    with mpmath.workdps(50):
        q = mpmath.zeros(f.sizes.d_in)
        for size, a, b in zip(down[0], left, right, strict=True):
            outer = mpmath.matrix(a) * mpmath.matrix(b).T
            q += mpmath.mpf(size) * (outer + outer.T) / 2
        exact = list(mpmath.eigsy(q, eigvals_only=True))
        for value in eigs.eigenvalues[0].tolist():
            assert min(abs(value - true) for true in exact) <= float(eigs.rounding_bound[0])
        if bool(eigs.complete[0]):
            largest = max(abs(true) for true in exact)
            tie = 1e-8 * largest  # of sizes that agree to this, the positive one comes first
            found = max(abs(value) for value in eigs.eigenvalues[0].tolist())
            assert abs(found - largest) <= float(eigs.rounding_bound[0]) + tie
